"""The outbox: whatever is published on a chat's channel goes through here, in order."""

import functools
import logging
import time

import gevent
from flask import current_app
from gevent.event import AsyncResult
from gevent.monkey import is_module_patched
from redis.exceptions import NoScriptError, RedisError

from chattable.live.keys import LIFETIME, channel, install, lease_key, over_key, seq_key
from chattable.live.turns import lease_lifetime

RETRY = 1
# In the place of a frame's number: not a frame follows, but how long ago (s) one was missed. Who
# has watched for longer has to connect anew.
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
# snapshot never has a gap. Returns 1 if somebody asked the reply to stop, 2 (having done nothing)
# if not what should be kept is: Redis was restarted, or the reply was declared dead. A whole frame
# can do without, given a pass: it was got before the database was asked whose the reply is.
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
# which begins, if it is not over already: then its first word finds its place kept, and its lease
# begins with it.
ANNOUNCE = f"""{NEXT_NUMBER}
local id, over, lease, lease_lifetime = unpack(ARGV, 5)
if id and redis.call('EXISTS', over) == 1 then return 0 end
local number = next_number(KEYS[1])
redis.call('EXPIRE', KEYS[1], ARGV[4])
if #KEYS > 1 then redis.call('DEL', unpack(KEYS, 2)) end
if id then
  redis.call('SET', KEYS[2], '', 'EX', ARGV[4])
  redis.call('SET', KEYS[3], id .. ' ', 'EX', ARGV[4])
  redis.call('SET', lease, 1, 'EX', lease_lifetime)
end
return redis.call('PUBLISH', ARGV[2], ARGV[1] .. ' ' .. number .. ' ' .. ARGV[3])
"""

log = logging.getLogger(__name__)


def announce(chat_id, frame, forget=(), wait=False, begins=None):
    """Have a frame sent to every page of a chat, in order, and the keys of what is over forgotten.

    `wait` until it is; else the caller goes on, and what it sends next may go along. `begins` is
    the id of a reply that does.
    """
    keys = [seq_key(chat_id), *forget]
    values = [install(), channel(chat_id), frame, LIFETIME]
    if begins:
        values += [begins, over_key(begins), lease_key(begins), lease_lifetime()]
    sent = current_app.extensions["outbox"].post(ANNOUNCE, keys, values)
    nudges = current_app.extensions["nudges"]
    missed = channel(chat_id), install(), time.monotonic()
    sent.rawlink(functools.partial(make_up_for, nudges, missed))
    # Without monkey patching, nothing is sent while nobody waits.
    if wait or not is_module_patched("socket"):
        sent.wait()
        nudges.wait()


def make_up_for(nudges, missed, sent):
    if sent.exception:
        log.warning("%s: not announced: %s", missed[0], sent.exception)
        nudges.owe(*missed)


class Nudges:
    """What is owed to pages that missed something: a word that has them catch up.

    It is only published, which even a Redis that refuses to keep anything does.
    """

    def __init__(self, connection):
        self._connection = connection
        self._owed = {}
        self._keeper = None

    def owe(self, channel, install, missed_at):
        """Have the pages that watched `channel` at a (monotonic) time connect anew, once told."""
        self._owed[channel] = install, missed_at
        if not self._keeper:
            self._keeper = gevent.spawn(self._pay)

    def wait(self):
        """Wait until all is paid, or for a moment where that cannot be now."""
        if self._keeper:
            self._keeper.join(RETRY)

    def _pay(self):
        while self._owed:
            try:
                for channel, owed in list(self._owed.items()):
                    install, missed_at = owed
                    age = time.monotonic() - missed_at
                    self._connection.publish(channel, f"{install} {CATCH_UP} {age}")
                    if self._owed[channel] == owed:
                        del self._owed[channel]
            except RedisError as error:
                log.warning("pages not told to catch up, Redis is away: %s", error)
                gevent.sleep(RETRY)


class Outbox:
    """Run scripts for many greenlets in one round trip: at a hundred replies, half the CPU."""

    def __init__(self, connection):
        self._connection = connection
        self._waiting = []
        self._sending = False
        self._loaded = {}

    def send(self, script, keys, values):
        """Run a script and return its answer. Raises `RedisError`."""
        return self.post(script, keys, values).get()

    def post(self, script, keys, values):
        """Have a script run, after those that were posted before; return an `AsyncResult`."""
        answer = AsyncResult()
        # Here, for what cannot be encoded to be nobody else's failure.
        values = [value.encode() if isinstance(value, str) else value for value in values]
        self._waiting.append((script, keys, values, answer))
        if not self._sending:
            self._sending = True
            gevent.spawn(self._send_all)
        return answer

    def _send_all(self):
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                for (*_, answer), result in zip(batch, self._results(batch), strict=True):
                    failed = isinstance(result, Exception)
                    answer.set_exception(result) if failed else answer.set(result)
        finally:
            self._sending = False

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
