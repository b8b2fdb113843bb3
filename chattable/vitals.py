"""How the queue and its workers are: for whoever looks after an install."""

import time
from collections.abc import Collection
from typing import Any

from rq.defaults import DEFAULT_WORKER_TTL
from rq.worker_registration import get_keys

from chattable import live, places
from chattable.queue import queue

# Seconds. A worker says every two that it lives; one that is busy may be late.
ALIVE = 30
# So long RQ keeps what a worker says of itself: what is left of it tells when that was, by the
# clock of Redis alone.
KEPT = DEFAULT_WORKER_TTL + 60


def worker_ages() -> list[int]:
    """Return how long ago (s) each worker of this install has said that it lives.

    Raises `RedisError`.
    """
    with live.redis().pipeline(transaction=False) as pipeline:
        for key in get_keys(queue()):
            pipeline.ttl(key)
        return sorted(KEPT - left for left in pipeline.execute() if left > 0)


def living_workers() -> int:
    """Return how many workers of this install live. Raises `RedisError`."""
    return sum(age < ALIVE for age in worker_ages())


def jobs_by_state() -> dict[str, int]:
    """Return how many jobs are queued, running and failed, and how many wait for a place.

    Raises `RedisError`.
    """
    ours = queue()
    with live.redis().pipeline(transaction=False) as pipeline:
        pipeline.llen(ours.key)
        for registry in (ours.started_job_registry, ours.failed_job_registry):
            pipeline.zcard(registry.key)
        numbers = pipeline.execute()
    states = "queued", "started", "failed", "waiting"
    return dict(zip(states, [*numbers, len(places.waiting())], strict=True))


def replies_written(message_ids: Collection[int]) -> int:
    """Return how many of some running replies somebody has begun to write. Raises `RedisError`."""
    return sum(lease != live.WAITING for lease in live.leases(message_ids).values())


def longest_wait() -> float:
    """Return how long (s) the job has waited that is next, 0 if none is. Raises `RedisError`."""
    ours = queue()
    job: Any = next(iter(ours.get_jobs(0, 1)), None)
    return max(0.0, time.time() - job.enqueued_at.timestamp()) if job else 0.0
