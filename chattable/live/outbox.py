"""The outbox: whatever is published on a chat's channel goes through here, in order."""

import functools
import logging
import queue
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from flask import current_app, g
from redis.exceptions import NoScriptError, RedisError, ResponseError

from chattable.live.connection import severity
from chattable.live.frames import ended_frame
from chattable.live.keys import LIFETIME, channel, install, lease_key, number_key, over_key
from chattable.live.threads import Keeper
from chattable.live.turns import LEASE

RETRY = 1
# Published instead of a frame's number: what follows is how long ago (s) a frame was missed.
# Sockets that were open by then have to connect anew.
CATCH_UP = 0

# Where Redis has forgotten a chat, numbers go on beyond any that a page may stand at.
NEXT_NUMBER = """
local function next_number(seq)
  local number = redis.call('INCR', seq)
  if number > 1 then return number end
  local now = redis.call('TIME')
  number = now[1] * 1000 + math.floor(now[2] / 1000)
  redis.call('SET', seq, string.format('%.0f', number))
  return number
end
"""

# Number a frame, keep what a page that comes late needs, publish: all or nothing, so that a
# snapshot never has a gap. Returns 1 if somebody asked the reply to stop; 2, having done nothing,
# if Redis does not hold what was sent before (it was restarted), or the reply was declared dead. A
# key frame needs nothing sent before if its sender has a pass: a key that was set before the
# database was asked whether the reply is still the sender's.
GROW = f"""{NEXT_NUMBER}
local seq, text, key, patches, stop, over, pass = unpack(KEYS)
local install, channel, frame, more, length, lifetime, key_frame, whole, id, given = unpack(ARGV)
local ours = redis.call('GETRANGE', key, 0, #id) == id .. ' '
if given ~= '' then
  ours = redis.call('GET', pass) == given
elseif redis.call('STRLEN', text) ~= tonumber(length) then
  ours = false
end
if not ours or redis.call('EXISTS', over) == 1 then return 2 end
local number = next_number(seq)
if key_frame ~= '' then
  redis.call('SET', key, key_frame, 'EX', lifetime)
  redis.call('SET', text, whole, 'EX', lifetime)
  redis.call('DEL', patches)
  redis.call('EXPIRE', seq, lifetime)
else
  redis.call('APPEND', text, more)
  redis.call('RPUSH', patches, frame)
  redis.call('EXPIRE', patches, lifetime)
end
redis.call('PUBLISH', channel, install .. ' ' .. number .. ' ' .. frame)
return redis.call('EXISTS', stop)
"""

# The same for a frame whose content a late page finds in the database. `id` is that of a reply
# which begins: unless it is over already, its empty snapshot and its lease are made with it (one
# that waits has another).
# `kept` is how much text Redis has of a reply that ends: where it has lost some, pages may show
# something else than the frame is made for, and catch up instead.
ANNOUNCE = f"""{NEXT_NUMBER}
local frame, kept, id, over, lease, lease_lifetime = ARGV[3], unpack(ARGV, 5)
if id and redis.call('EXISTS', over) == 1 then return 0 end
local number = {CATCH_UP}
if (kept or '') ~= '' and redis.call('STRLEN', KEYS[2]) ~= tonumber(kept) then
  frame = 0
else
  number = next_number(KEYS[1])
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
if #KEYS > 1 then redis.call('DEL', unpack(KEYS, 2)) end
if id then
  redis.call('SET', KEYS[2], '', 'EX', ARGV[4])
  redis.call('SET', KEYS[3], id .. ' ', 'EX', ARGV[4])
  redis.call('SET', lease, 1, 'EX', lease_lifetime, 'NX')
end
return redis.call('PUBLISH', ARGV[2], ARGV[1] .. ' ' .. number .. ' ' .. frame)
"""

log = logging.getLogger(__name__)


def announce(
    chat_id: int,
    frame: str,
    forget: Iterable[str] = (),
    wait: bool = False,
    begins: int | None = None,
    kept: int | None = None,
) -> None:
    """Have a frame sent to every page of a chat, in order, and the keys of what is over forgotten.

    `wait` until it is; else the caller goes on, and what it sends next may go along. `begins` is
    the id of a reply that does, `kept` how many bytes Redis has (first of what it forgets) of the
    text of one that ends, if the frame goes by what pages have been shown of it.
    """
    more = ["" if kept is None else kept]
    if begins:
        more += [begins, over_key(begins), lease_key(begins), LEASE]
    post(channel(chat_id), frame, forget, more)
    if wait:
        see_off(patience=None)


def announce_on(channel: str, frame: str) -> None:
    """Have a frame sent to every page that follows a channel, in order."""
    post(channel, frame)


def end_sockets(channel: str, key: str | int | None = None, but: str | int | None = None) -> None:
    """Close the sockets that follow a channel beside their chat, in every process, for good.

    Those of one `key`, see `serve`; without one, all but those of `but`.
    """
    announce_on(channel, ended_frame(key, but))


def post(channel, frame, forget=(), more=("",)):
    keys = [number_key(channel), *forget]
    values = [install(), channel, frame, LIFETIME, *more]
    missed = channel, install(), time.monotonic()
    failed = functools.partial(make_up_for, current_app.extensions["chattable_nudges"], missed)
    g.chattable_announced = current_app.extensions["chattable_outbox"].post(
        ANNOUNCE, keys, values, failed
    )


def see_off(_error=None, patience=RETRY):
    """Wait (s) until what was announced in this app context is out: the process may end with it."""
    last = g.pop("chattable_announced", None)
    if last and last.wait(patience) and isinstance(last.error, ResponseError):
        current_app.extensions["chattable_nudges"].wait()


def make_up_for(nudges, missed, error):
    log.log(severity(error), "%s: not announced: %s", missed[0], error)
    nudges.owe(*missed)


class Nudges:
    """Channels whose pages missed a frame, to be told (`CATCH_UP`) as soon as Redis takes it.

    They are told by PUBLISH alone, which even a Redis that refuses to keep anything does.
    """

    def __init__(self, connection):
        self._connection = connection
        self._keeper = Keeper(self._pay, self._reset)

    def _reset(self):
        self._owed, self._changed = {}, threading.Condition()

    def owe(self, channel, install, missed_at):
        """Have the pages that watched `channel` at a (monotonic) time connect anew."""
        self._keeper.begin()
        with self._changed:
            self._owed[channel] = install, missed_at
            self._changed.notify_all()

    def wait(self):
        """Wait until all were told, or for a moment where that cannot be now."""
        with self._changed:
            self._changed.wait_for(lambda: not self._owed, RETRY)

    def _pay(self):
        with self._changed:
            self._changed.wait_for(lambda: self._owed)
            all_owed = dict(self._owed)
        try:
            for channel, owed in all_owed.items():
                self._pay_one(channel, *owed)
        except RedisError as error:
            log.log(severity(error), "pages not told to catch up: %s", error)
            time.sleep(RETRY)

    def _pay_one(self, channel, install, missed_at):
        age = time.monotonic() - missed_at
        self._connection.publish(channel, f"{install} {CATCH_UP} {age}")
        with self._changed:
            if self._owed[channel] == (install, missed_at):
                del self._owed[channel]
                self._changed.notify_all()


class Outbox:
    """Run scripts for many threads in one round trip: at a hundred replies, half the CPU."""

    def __init__(self, connection):
        self._connection = connection
        self._loaded = {}
        self._keeper = Keeper(self._send_next, self._reset)

    def _reset(self):
        self._waiting: queue.SimpleQueue = queue.SimpleQueue()

    def send(self, script, keys, values):
        """Run a script and return its answer. Raises `RedisError`."""
        return self.post(script, keys, values).get()

    def post(self, script, keys, values, failed=None):
        """Have a script run, after those that were posted before; return its `Answer` to be.

        `failed(error)` is called if it could not be.
        """
        answer = Answer(failed)
        # Encoded here, so that what cannot be fails for this caller alone.
        values = [value.encode() if isinstance(value, str) else value for value in values]
        self._keeper.begin()
        self._waiting.put((script, keys, values, answer))
        return answer

    def _send_next(self):
        """Send whatever waits, as soon as anything does."""
        batch = [self._waiting.get()]
        with suppress(queue.Empty):
            while True:
                batch.append(self._waiting.get_nowait())
        for (*_, answer), result in zip(batch, self._results(batch), strict=True):
            answer.settle(result)

    def _results(self, batch):
        results = self._run(batch)
        missed = [n for n, result in enumerate(results) if isinstance(result, NoScriptError)]
        if missed:
            self._loaded.clear()  # a restarted Redis has forgotten the scripts
            again = self._run([batch[n] for n in missed])
            for n, result in zip(missed, again, strict=True):
                results[n] = result
        return results

    def _run(self, batch):
        try:
            with self._connection.pipeline(transaction=False) as pipeline:
                for script, keys, values, _ in batch:
                    pipeline.evalsha(self._sha(script), len(keys), *keys, *values)
                return pipeline.execute(raise_on_error=False)
        except Exception as error:  # whoever waits for an answer has to hear of it, whatever it is
            return [error] * len(batch)

    def _sha(self, script):
        if script not in self._loaded:
            self._loaded[script] = self._connection.script_load(script)
        return self._loaded[script]


class Answer:
    """What Redis has answered to a script, once it has."""

    def __init__(self, failed=None):
        self.error = self._result = None
        self._failed = failed
        self._there = threading.Event()

    def settle(self, result):
        """Take the result, or the exception that came instead."""
        if isinstance(result, Exception):
            self.error = result
            if self._failed:
                self._failed(result)
        self._result = result
        self._there.set()

    def wait(self, timeout=None):
        """Wait for so many seconds at most; return whether the answer is there."""
        return self._there.wait(timeout)

    def get(self):
        """Return the answer once it is there, or raise the error."""
        self._there.wait()
        if self.error:
            raise self.error
        return self._result
