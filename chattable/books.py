"""What a worker keeps up in RQ's records: that it and its jobs live, and which lost their worker.

For the worker.
"""

import logging
import time

from rq import worker_registration
from rq.registry import clean_registries

from chattable.queue import delete_cancelled_jobs, queue_name

# Seconds. How often a worker says that it and its jobs live, and when one that does not is dead: a
# job that lost its worker runs again within 15 s, and a pause of some seconds costs nobody a job.
BEAT = 2
LIFE = 11
STUCK = 10
CALM = 4

# One script, for a full Redis refuses the push. The id of a job that was deleted is only removed.
PUT_BACK = """
local taken, queue, job = unpack(KEYS)
if not redis.call('LPOS', taken, ARGV[1]) then return 0 end
if redis.call('EXISTS', job) == 1 then redis.call('LPUSH', queue, ARGV[1]) end
return redis.call('LREM', taken, 1, ARGV[1])
"""

log = logging.getLogger(__name__)


class Bookkeeper:
    """Keep up RQ's records of one worker and its queues."""

    def __init__(self, app, worker):
        self.app, self.worker = app, worker
        self._stuck = {}
        self._troubled_at = float("-inf")

    def keep(self):
        """Tell RQ that the worker and what runs in it live; run again what has lost its worker."""
        began, smooth = time.monotonic(), False
        try:
            self._beat()
            for queue in self.worker.queues:
                if began - self._troubled_at > CALM:
                    self._clean(queue)
                self._free_stuck(queue)
            time.sleep(BEAT)
            smooth = time.monotonic() - began < 2 * BEAT
        finally:
            # After a pause, of ours or of Redis, everybody needs a moment to say that they live.
            if not smooth:
                self._troubled_at, self._stuck = time.monotonic(), {}

    def _beat(self):
        worker = self.worker
        with worker.connection.pipeline(transaction=False) as pipeline:
            worker.heartbeat(pipeline=pipeline)
            # All of it: Redis may have been restarted without its data.
            told = {**worker.serialize(), "state": worker.get_state()}
            pipeline.hset(worker.key, mapping=told)
            worker_registration.register(worker, pipeline)
            for execution in list(worker.executions.values()):
                execution.heartbeat(execution.job.started_job_registry, LIFE, pipeline)
            pipeline.execute()

    def _clean(self, queue):
        """Have abandoned jobs run again, and forget what is over."""
        # One worker at a time; the key expires, should that one die.
        if queue.connection.set(queue.registry_cleaning_key, 1, nx=True, px=int(BEAT * 900)):
            clean_registries(queue)
            worker_registration.clean_worker_registry(queue)
            with self.app.app_context():
                if queue.name == queue_name():
                    delete_cancelled_jobs()

    def _free_stuck(self, queue):
        """Have jobs run again that were taken from the queue long ago, and never begun."""
        started = queue.started_job_registry.get_job_ids(cleanup=False)
        taken = queue.intermediate_queue.get_job_ids()
        seen = self._stuck.get(queue.name, {})
        self._stuck[queue.name] = {id: seen.get(id, 0) + 1 for id in taken}
        for job_id, times in self._stuck[queue.name].items():
            if times * BEAT > STUCK and job_id not in started and put_back(queue, job_id):
                log.warning("job %s: its worker died as it took it", job_id)


def put_back(queue, job_id):
    """Have a job that was taken and not begun taken again, before all others."""
    keys = [queue.intermediate_queue_key, queue.key, queue.job_class.key_for(job_id)]
    return queue.connection.eval(PUT_BACK, len(keys), *keys, job_id)
