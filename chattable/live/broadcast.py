"""Publishing, from the worker and wherever else a chat changes: a message, a growing reply."""

import logging
import secrets
import time
from typing import Any

from flask import current_app
from redis.exceptions import RedisError, ResponseError

from chattable.live.connection import redis, severity
from chattable.live.frames import (
    ANEW,
    article,
    article_frame,
    ending_frame,
    growth_frame,
    unsent_frame,
)
from chattable.live.keys import (
    LIFETIME,
    channel,
    install,
    lease_key,
    over_key,
    pass_key,
    reply_keys,
    seq_key,
    stop_key,
    turn_key,
)
from chattable.live.outbox import GROW, RETRY, announce
from chattable.markdown import Growth

# Seconds. Whoever asked the database so long ago whether a reply is theirs has to ask again.
PASS = 5
# While Redis refuses to keep what is new, pages get it from the database, so often.
NUDGE = 5
# A key frame is made when this many characters of patches would have to be replayed instead.
KEY_FRAME = 4_000

log = logging.getLogger(__name__)


def broadcast_message(message: Any) -> None:
    """Show a message that was created, has grown or has ended on every page of its chat."""
    if message.unseen:
        return  # no page has shown it
    if message.running and message.broadcast:
        return message.broadcast.update(message)
    frame, kept = frame_of(message)
    # Not for a person's message: it may be told again while a reply to it runs.
    forget = reply_keys(message.chat_id) if message.role == "assistant" else []
    if message.retryable:
        forget += [lease_key(message.id), stop_key(message.id)]
        # The turn ends with the announcement: who sees it may send the next message.
        forget.append(turn_key(message.chat_id))
    # A process may end with its last reply.
    begins = message.role == "assistant" and message.running and message.id
    announce(message.chat_id, frame, forget, message.retryable, begins, kept)


def frame_of(message):
    """Return the frame that shows a message as it is, and what `announce` calls `kept`."""
    # Once: told again, it may have been changed.
    broadcast, message.broadcast = message.broadcast, None
    if not message.looked_at:
        return ANEW, None
    window = unsent_frame(message.chat) if message.moves_window else ""
    if broadcast and broadcast.shown:
        frame, kept = broadcast.last_frame(message)
        return frame + window, kept
    return article_frame(article(message)) + window, None


def broadcast_deletion(chat_id: int) -> None:
    """Close every socket of a chat that is no more."""
    announce(chat_id, "", forget=reply_keys(chat_id))


class Broadcast:
    """What the pages that watch one running reply have been shown of it.

    `lost` says that Redis has lost what was shown. Whoever writes the reply then gets a pass,
    makes sure that it is still theirs to write, and the next update shows the whole.
    """

    def __init__(self):
        self.stop_requested = False
        self._growth = Growth()
        self._fed = 0
        self._unsent = ""
        self._kept = 0  # bytes
        self._since_key_frame = 0
        self._whole = True
        self._thinking = False
        self._lost = False
        self._pass = ""
        self._retry_at = self._nudge_at = 0.0
        self._keys, self._sender = [], []  # the same for every frame

    @property
    def lost(self):
        """Whether it is time to show the whole again."""
        return self._lost and time.monotonic() >= self._retry_at

    def get_pass(self, message):
        """Have the next update show the whole; return whether Redis allows it.

        It is for whoever finds the reply still theirs from now on.
        """
        began = time.monotonic()
        try:
            token = secrets.token_hex(8)
            redis().set(pass_key(message.id), token, ex=PASS)
            self._pass = token
        except RedisError as error:
            self._excuse(message, error)
        # A Redis that is slow to say no must not take the time of the reply.
        pause = min(max(RETRY, 4 * (time.monotonic() - began)), NUDGE)
        self._retry_at = time.monotonic() + pause
        return bool(self._pass)

    def drop_pass(self):
        self._pass = ""

    @property
    def shown(self):
        """Whether pages show all that was given to `update`."""
        return not self._whole

    def last_frame(self, message):
        """Return the frame that ends the reply, and the bytes of text that Redis has of it."""
        return ending_frame(message, self._growth.finish(message.body)), self._kept

    def update(self, message):
        """Bring every page up to `message.content`; raises nothing when Redis is away."""
        more = message.content[self._fed :]
        self._fed = len(message.content)
        patches = self._growth.feed(more)
        self._unsent += more
        if self._lost and not self._pass:
            return
        try:
            self._show(message, patches)
        except RedisError as error:
            if not self._lost:
                log.log(severity(error), "message %s: not shown: %s", message.id, error)
            self._lose()
            self._excuse(message, error)

    def _show(self, message, patches):
        if self._whole or message.thinking != self._thinking:
            self._thinking = message.thinking
            html = self._growth.html
            self._grow(message, article_frame(article(message, html)), html)
        elif patches:
            frame = growth_frame(message, patches)
            self._since_key_frame += len(frame)
            html = self._growth.html if self._key_frame_due(message) else None
            self._grow(message, frame, html)

    def _lose(self):
        self._whole = self._lost = True
        self._pass = ""

    def _key_frame_due(self, message):
        # Rarer as the reply gets longer: in sum they stay linear.
        return self._since_key_frame > max(KEY_FRAME, len(message.content))

    def _excuse(self, message, error):
        # Where Redis is away, the pages' sockets break with it; where it refuses, they hold.
        if isinstance(error, ResponseError) and time.monotonic() >= self._nudge_at:
            self._nudge_at = time.monotonic() + NUDGE
            missed = channel(message.chat_id), install(), time.monotonic()
            current_app.extensions["chattable_nudges"].owe(*missed)

    def _grow(self, message, frame, html):
        """Send a frame; with `html` it is a key frame, which a late page begins with."""
        id, whole = message.id, "" if html is None else message.content
        key_frame = "" if html is None else f"{id} {html}"
        if not self._keys:
            self._keys = [seq_key(message.chat_id), *reply_keys(message.chat_id)]
            self._keys += [stop_key(id), over_key(id), pass_key(id)]
            self._sender = [install(), channel(message.chat_id)]
        values = [*self._sender, frame, self._unsent, self._kept, LIFETIME]
        values += [key_frame, whole, id, self._pass]
        answer = current_app.extensions["chattable_outbox"].send(GROW, self._keys, values)
        if answer == 2:
            return self._lose()
        self.stop_requested = answer == 1
        self._whole = self._lost = False
        self._pass = ""
        self._kept = (
            self._kept + len(self._unsent.encode()) if html is None else len(whole.encode())
        )
        self._unsent = ""
        self._since_key_frame = 0 if html is not None else self._since_key_frame
