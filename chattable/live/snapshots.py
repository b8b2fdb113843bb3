"""Catching up: first Redis, then the database.

The other way round, a reply that ends in between would be shown running for ever.
"""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from redis.exceptions import RedisError

from chattable.live.connection import redis
from chattable.live.frames import article, article_frame, render
from chattable.live.keys import number_key, reply_keys, seq_key


class Snapshot:
    """The running reply of a chat as Redis has it, and the number of the frame it stands at.

    Raises `RedisError` when Redis is away.
    """

    seq, message_id, text = 0, 0, ""

    def __init__(self, chat_id: int) -> None:
        with redis().pipeline(transaction=True) as pipeline:
            text, key, patches = reply_keys(chat_id)
            pipeline.mget(seq_key(chat_id), text, key)
            pipeline.lrange(patches, 0, -1)
            (seq, text, key), patches = pipeline.execute()
        self.seq = int(seq or 0)
        message_id, _, html = (key or b"0 ").decode().partition(" ")
        self.message_id, self._html = int(message_id), html
        self.text = (text or b"").decode()
        self._patches = [patch.decode() for patch in patches]

    def outlived_by(self, messages: Sequence[Any]) -> bool:
        """Return whether the reply that was being written has ended, as the database says later."""
        return any(each.id == self.message_id and not each.running for each in messages)

    def frames(self, messages: Sequence[Any]) -> list[str]:
        """Return the frames that bring a page up to `messages` and the reply's latest word."""
        shown = [article_frame(*map(self._article, messages))] if messages else []
        return shown + self._news(messages)

    def list_frames(self, chat: Any, messages: Sequence[Any], older: int | None) -> list[str]:
        """Return the frames after which a page shows `messages` alone, as a fresh load does."""
        articles = [(message.id, Markup(self._article(message))) for message in messages]
        frame = render("chattable/_list.html", chat=chat, articles=articles, older=older)
        return [frame, *self._news(messages)]

    def _news(self, messages):
        return self._patches * any(self._knows_more(message) for message in messages)

    def _article(self, message):
        if self._knows_more(message):
            return article(self.refresh(message), self._html)
        return article(message)

    def _knows_more(self, message):
        """Return whether Redis is told each word of a message, sooner than the database."""
        if not (message.running and message.id == self.message_id):
            return False
        if len(self.text) >= len(message.content):
            return True
        # The database was asked later. Behind it at another look, Redis takes no words for now.
        latest = Snapshot(message.chat_id)
        return latest.message_id == message.id and len(latest.text) >= len(message.content)

    def refresh(self, message: Any) -> Any:
        """Bring a message from the database up to what was streamed since its last checkpoint."""
        if message.running and message.id == self.message_id:
            message.catch_up(self.text)
        return message


def snapshot(chat_id: int) -> Snapshot:
    """Return the `Snapshot` of a chat, an empty one while Redis is away."""
    try:
        return Snapshot(chat_id)
    except RedisError:
        return object.__new__(Snapshot)


def latest_number(channel: str) -> int:
    """Return how many frames a channel has had, as far as Redis knows."""
    try:
        return int(redis().get(number_key(channel)) or 0)
    except RedisError:
        return 0
