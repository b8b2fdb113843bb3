"""How many replies an owner has at once: the job of one more waits beside the queue for a place.

RQ's own limiter keeps them, by owner: a job that ends, or whose worker died, gives its place to the
one that has waited longest. No worker is kept waiting. For the queue.
"""

import time
from collections.abc import Callable
from typing import Any

from flask import current_app
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.rate_limit import ACQUIRE_AND_ENQUEUE_SCRIPT, RateLimit, RateLimitRegistry
from rq.utils import now, utcformat

from chattable import live
from chattable.database import id_of

# Save a job, unless there is one of this id, and let those go on that have a place: RQ would need
# more steps, after each of which a process may die. With a fraction of seconds, for their order.
# One that would have to wait is not saved before it is known that it may.
PUT = f"""
if redis.call('EXISTS', KEYS[4]) == 1 then return false end
local places = tonumber(ARGV[1])
if ARGV[8] == '' and redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[2]) >= places then
  return 'full'
end
redis.call('HSET', KEYS[4], unpack(ARGV, 9))
redis.call('SADD', KEYS[3], ARGV[6])
redis.call('HSET', KEYS[5], 'concurrency', ARGV[1])
redis.call('SADD', KEYS[6], 'rq:queue:' .. redis.call('HGET', KEYS[4], 'origin'))
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[7])
{ACQUIRE_AND_ENQUEUE_SCRIPT}"""


def limit_of(chat: Any) -> RateLimit | None:
    """Return how many replies the owner of a chat may have at once, None for any number."""
    most = current_app.config["REPLIES_AT_ONCE"]
    return RateLimit(places_of(chat), most) if most else None


def places_of(chat):
    return f"{live.owner_channel(chat.chattable_type, chat.chattable_id)}:replies"


def waiting() -> list[str]:
    """Return the ids of all jobs of ours that wait."""
    ours = (
        each
        for each in RateLimitRegistry.all(live.redis())
        if each.key.startswith(f"{live.prefix()}:")
    )
    return [id for each in ours for id in each.get_rate_limited_job_ids()]


def take_back(job: Job) -> bool:
    """Have a job wait no more; return whether it did."""
    if not job.has_rate_limit:
        return False
    key = RateLimitRegistry.from_job(job).rate_limited_key
    return bool(live.redis().zrem(key, job.id))


def put_once(
    queue: Queue, work: Callable, *args: Any, limit: RateLimit, begin: Callable, **options: Any
) -> bool:
    """Have a job done once it has a place; return False if there is one of this id.

    If it has to wait, `begin()` saves its reply before, and returns the messages that were saved,
    it being the last: it is shown, and whoever does the job takes it up.
    """
    names = {"timeout": options.pop("job_timeout"), "status": JobStatus.RATE_LIMITED}
    job = queue.create_job(work, args, rate_limit=limit, **names, **options)
    registry = RateLimitRegistry.from_job(job)
    keys = [registry.allowed_key, registry.rate_limited_key, registry.rl_keys_key]
    keys += [job.key, registry.config_key, queue.redis_queues_keys]
    words: list[Any] = [limit.concurrency, time.time(), utcformat(now())]
    words += [queue.redis_queue_namespace_prefix, job.redis_job_namespace_prefix]
    fields = [part for pair in job.to_dict().items() if pair[1] is not None for part in pair]

    def put(waits):
        named = [limit.key, job.id, waits, *fields]
        return live.run(PUT, keys, [*words, *named])

    put_now = put("")
    if put_now == b"full":
        if messages := begin():
            live.keep_waiting(id_of(messages[-1]))
        put_now = put("waits")
    return put_now is not None
