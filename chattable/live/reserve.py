"""What is set aside, of a sum that an owner may spend, for replies that are asked for."""

from chattable.live.connection import redis, run

# By chat, for each has one reply at a time: a number by which they came, until when it holds, and
# the amount. Those that came before are added up, and no other process is between.
SET_ASIDE = """
local now, last, mine, before = tonumber(redis.call('TIME')[1]), 0, nil, 0
local kept = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local number, ends, amount = string.match(all[i + 1], '(%d+) (%d+) (%d+)')
  if tonumber(ends) < now then
    redis.call('HDEL', KEYS[1], all[i])
  else
    last = math.max(last, tonumber(number))
    if all[i] == ARGV[1] then mine = tonumber(number) else kept[tonumber(number)] = amount end
  end
end
mine = mine or last + 1
for number, amount in pairs(kept) do
  if number < mine then before = before + amount end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %d %s', mine, now + ARGV[3], ARGV[2]))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return string.format('%.0f', before)
"""


def set_aside(owner: str, chat_id: int, amount: int, seconds: int) -> int:
    """Set an amount aside for a chat's reply; return the sum of those that came before it.

    `owner` is the name of a channel of theirs. What is not given back is so after some seconds.
    """
    return int(run(SET_ASIDE, [reserve_key(owner)], [chat_id, amount, seconds]))


def give_back(owner: str, chat_id: int) -> None:
    """Set nothing aside for a chat any more."""
    redis().hdel(reserve_key(owner), str(chat_id))


def give_all_back(owner: str) -> None:
    """Set nothing aside for an owner any more: there is none."""
    redis().delete(reserve_key(owner))


def reserve_key(owner):
    return f"{owner}:reserve"
