"""How many sockets an owner has open, over all web processes."""

import secrets
import time
from collections import Counter
from contextlib import contextmanager

from redis.exceptions import RedisError

from chattable.live.connection import severity
from chattable.live.threads import Keeper, log

# Seconds: how soon others hear that a socket was closed, how often all are told anew, and when a
# process that tells nothing has none any more.
SOON, BEAT, LIFE = 1, 10, 35

# By process: how many sockets it has, and until when that holds.
SEAT = """
local process, mine, most, life = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local now, others = tonumber(redis.call('TIME')[1]), 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local count, ends = string.match(all[i + 1], '(%d+) (%d+)')
  if tonumber(ends) < now then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] == process then
    mine = math.max(mine, tonumber(count))
  else
    others = others + count
  end
end
if others + ARGV[2] > most then return 0 end
redis.call('HSET', KEYS[1], process, string.format('%d %d', mine, now + life))
redis.call('EXPIRE', KEYS[1], life)
return 1
"""
TELL = """
if ARGV[2] == '0' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
local ends = redis.call('TIME')[1] + ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %d', ARGV[2], ends))
return redis.call('EXPIRE', KEYS[1], ARGV[3])
"""


class Seats:
    """The sockets that are open in this process, by owner; others are told of them by Redis."""

    def __init__(self, connection):
        self._connection = connection
        self._keeper = Keeper(self._keep, self._reset)

    def _reset(self):
        self._process = secrets.token_hex(8)
        self._open: Counter[str] = Counter()
        self._changed: set[str] = set()
        self._due = 0.0

    @contextmanager
    def seat(self, owner, most):
        """Have a seat while a socket is open; give False if its owner has `most` already."""
        self._keeper.begin()
        self._open[owner] += 1
        try:
            yield self._ask(owner, self._open[owner], most)
        finally:
            self._open[owner] -= 1
            self._changed.add(owner)

    def _ask(self, owner, mine, most):
        words = self._process, mine, most, LIFE
        try:
            return bool(self._connection.eval(SEAT, 1, seats_key(owner), *words))
        except RedisError as error:
            log.log(severity(error), "sockets are not counted: %s", error)
            return True  # it will not last, either

    def _keep(self):
        time.sleep(SOON)
        everybody = time.monotonic() > self._due
        owners, self._changed = {*self._changed, *(self._open if everybody else ())}, set()
        if everybody:
            self._due = time.monotonic() + BEAT
        try:
            self._tell(owners)
        except RedisError as error:
            log.log(severity(error), "sockets are not counted: %s", error)
            self._due = 0.0

    def _tell(self, owners):
        with self._connection.pipeline(transaction=False) as pipeline:
            for owner in owners:
                words = self._process, self._open[owner], LIFE
                pipeline.eval(TELL, 1, seats_key(owner), *words)
                if not self._open[owner]:
                    del self._open[owner]
            pipeline.execute()


def seats_key(owner):
    return f"{owner}:sockets"
