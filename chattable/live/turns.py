"""Turns, leases, stops: who may write a chat's next reply, who is writing it, who ends it."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from flask import current_app
from redis.exceptions import RedisError, ResponseError
from sqlalchemy.exc import SQLAlchemyError

from chattable.live.connection import check_writing, redis, severity
from chattable.live.keys import (
    LIFETIME,
    claim_key,
    install,
    lease_key,
    over_key,
    stop_key,
    stops_channel,
    turn_key,
)
from chattable.live.threads import Keeper

# Seconds. A living worker renews the lease of the reply it writes long before it ends.
LEASE = 6
RENEW = 1
# The lease of a reply that nobody has begun to write.
WAITING = b"waiting"
# A turn outlasts this only while its reply is running; the database knows that.
TURN = 900

# A turn, or a lease, changes hands, or ends, only while it is still the holder's.
TAKE_OVER = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
GIVE_UP = """
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])
"""

log = logging.getLogger(__name__)


class Leases:
    """The replies written in this process: each holds a lease, one without it counts as dead."""

    def __init__(self, app, connection):
        self.ending = False
        self._app = app
        self._connection = connection
        self._trouble = None
        # For all of them, or many replies would want many connections at the same moment.
        self._keeper = Keeper(self._keep, self._reset)

    def _reset(self):
        self._stops, self._news = {}, threading.Event()

    @contextmanager
    def hold(self, message_id, stop):
        """Hold the lease of a reply; `stop` is called when somebody asks for its end."""
        self._keeper.begin()
        self._stops[message_id] = stop
        self._news.set()
        try:
            yield
        finally:
            del self._stops[message_id]

    @property
    def running(self):
        """Whether any reply is written here."""
        return bool(self._stops)

    def stop(self, message_id):
        """Stop a reply if it is written here."""
        if stop := self._stops.get(message_id):
            stop()

    def end(self):
        """Interrupt all replies that are written here: this process ends."""
        self.ending = True
        for id in list(self._stops):
            self.stop(id)

    def _keep(self):
        self._news.wait()
        self._news.clear()
        while message_ids := list(self._stops):
            try:
                with self._app.app_context():
                    self._renew(message_ids)
                self._trouble = None
            except (RedisError, SQLAlchemyError) as error:
                self._note(error)
            time.sleep(RENEW)

    def _note(self, error):
        if type(error) is not self._trouble:
            log.log(severity(error), "leases are not renewed: %s", error)
        self._trouble = type(error)

    def _renew(self, message_ids):
        """Say that they live; stop what was to stop while nobody heard (Redis was restarted)."""
        with self._connection.pipeline(transaction=False) as pipeline:
            for id in message_ids:
                pipeline.set(lease_key(id), 1, ex=LEASE)
            pipeline.mget([stop_key(id) for id in message_ids])
            *_, told = pipeline.execute()
        for id, stop in zip(message_ids, told, strict=True):
            if stop:
                self.stop(id)


def lease(message_id: int, stop: Callable[[], None]) -> AbstractContextManager[None]:
    """Return the context in which a reply is written; `stop` ends it from outside."""
    return current_app.extensions["chattable_leases"].hold(message_id, stop)


def ending() -> bool:
    """Return whether this process ends, and what it writes with it."""
    return current_app.extensions["chattable_leases"].ending


def keep_waiting(message_id: int) -> None:
    """Hold the lease of a reply whose job waits for a place, until it is taken up."""
    redis().set(lease_key(message_id), WAITING, ex=LIFETIME)


def waits(message_id: int) -> bool:
    """Return whether nobody has begun to write a reply, for its job waits for a place."""
    try:
        return redis().get(lease_key(message_id)) == WAITING
    except RedisError:
        return False


def take_up(message_id: int) -> bool:
    """Take the lease of a reply that waits, for its writer; return whether it did."""
    return bool(redis().eval(TAKE_OVER, 1, lease_key(message_id), WAITING, 1, LEASE))


def leased(message_ids: Collection[int]) -> set[int]:
    """Return the set of those replies that somebody is writing.

    Raises `RedisError`, also where Redis answers but refuses writes: no lease can be renewed then.
    """
    return set(leases(message_ids))


def leases(message_ids: Collection[int]) -> dict[int, bytes]:
    """Return {id: lease} as `leased`; a lease is `WAITING` where nobody has begun to write yet."""
    if not message_ids:
        return {}
    check_writing()
    values: Any = redis().mget([lease_key(id) for id in message_ids])
    return {id: value for id, value in zip(message_ids, values, strict=True) if value}


def silence(message_id: int) -> None:
    """Let no page hear a reply's writer any more: it is declared dead. Raises `RedisError`."""
    redis().set(over_key(message_id), 1, ex=LIFETIME)


def take_turn(chat_id: int, token: str) -> str | None:
    """Take the chat's next turn, one at a time, first come.

    Return "taken", "held" if it was before, None if somebody else has it.
    """
    with redis().pipeline(transaction=False) as pipeline:
        pipeline.set(turn_key(chat_id), token, nx=True, ex=TURN)
        pipeline.get(turn_key(chat_id))
        taken, holder = pipeline.execute()
    if holder != token.encode():
        return None
    return "taken" if taken else "held"


def turn_holder(chat_id: int) -> tuple[str, float]:
    """Return (token, age): who has the turn ("" for nobody) and since when (seconds)."""
    with redis().pipeline(transaction=False) as pipeline:
        pipeline.get(turn_key(chat_id))
        pipeline.pttl(turn_key(chat_id))
        holder, left = pipeline.execute()
    return (holder or b"").decode(), TURN - left / 1000


def take_over_turn(chat_id: int, token: str, holder: str) -> bool:
    """Take the turn from a holder that is no more; return whether it still had it."""
    return bool(redis().eval(TAKE_OVER, 1, turn_key(chat_id), holder, token, TURN))


def keep_turn(chat_id: int) -> None:
    """Have a turn last as long as if it were taken now."""
    redis().expire(turn_key(chat_id), TURN)


def claim(token: str) -> bool:
    """Return whether nobody has claimed `token` before."""
    return bool(redis().set(claim_key(token), 1, nx=True, ex=LIFETIME))


def end_turn(chat_id: int, token: str | None = None) -> None:
    """Give the turn back (whoever's it is, without `token`)."""
    try:
        if token is None:
            redis().delete(turn_key(chat_id))
        else:
            redis().eval(GIVE_UP, 1, turn_key(chat_id), token)
    except RedisError as error:
        log.log(severity(error), "chat %s: turn not ended: %s", chat_id, error)


def request_stop(message_id: int) -> None:
    """Ask whoever writes a reply to stop. The key is for one that has not started yet."""
    word = f"{install()} {message_id}"
    try:
        redis().set(stop_key(message_id), 1, ex=LIFETIME)
    except ResponseError:
        # Redis refuses to keep it: the workers that listen are told all the same.
        if not redis().publish(stops_channel(), word):
            raise
    else:
        redis().publish(stops_channel(), word)
