"""The worker: an RQ worker that does many jobs at once, each a greenlet of one process.

For the command line alone: it needs gevent, and a process that was patched before anything else.
"""

import contextvars
import gc
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

import gevent
from flask import Flask, g
from gevent.event import Event
from gevent.monkey import is_module_patched
from gevent.pool import Pool
from redis.exceptions import RedisError
from rq.command import parse_payload
from rq.exceptions import DequeueTimeout, DeserializationError, InvalidJobOperation
from rq.job import JobStatus
from rq.logutils import setup_loghandlers
from rq.suspension import is_suspended
from rq.timeouts import BaseDeathPenalty
from rq.worker import BaseWorker, WorkerStatus
from sqlalchemy.exc import SQLAlchemyError

from chattable import faults, live, provider, unreachable
from chattable.books import BEAT, LIFE, Bookkeeper, put_back
from chattable.database import PATIENCE, db, now, transient
from chattable.family import family
from chattable.keepers import keep_doing, keep_models, keeper, sweeper
from chattable.queue import own_jobs, queue_name
from chattable.shredder import shredder

# Seconds.
DATABASE_RETRY = 1
REMIND = 60
RETRY = 1
# What a worker that ends allows jobs that only wait, then interrupted replies, then itself.
GIVE_BACK = 2
LAST_WORDS = 3
FAREWELL = 2
# How often a worker looks up from its waiting, and at the queues but the first.
LOOK_UP = 1
LOOK_AT_OTHERS = 0.2
# Greenlets that look for a job at the same time.
MOST_LOOKING = 8
UNPATCHED = (
    "A worker waits for many replies at once, in greenlets. Start it like this:\n"
    "python -m gevent.monkey --module flask --app YOURS worker"
)

log = logging.getLogger(__name__)


def work(app: Flask, queue_names: Sequence[str] = ()) -> None:
    """Run a worker in this process until SIGTERM or SIGINT; exit if it was not patched.

    It does an app's own jobs, too, where `queue_names` are given, in an app context; the first
    queue's go first.
    """
    if not is_module_patched("socket"):
        raise SystemExit(UNPATCHED)
    wait_for_services(app)
    with app.app_context():
        provider.warm_up()
    # What is here now stays: collections need not walk it a hundred times a minute.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    with app.app_context():
        limits = app.config["WORKER_CONCURRENCY"], app.config["SHUTDOWN_GRACE"]
        worker = Worker(app, queue_names or [queue_name()], *limits)
    shredder(app)  # for what was deleted shortly before an end
    keeper(app, "list of models", keep_models)
    sweeper(app)
    worker.run()


def wait_for_services(app: Flask) -> str:
    """Wait until the database is there, and has told the name of this install.

    Exits with a sentence where that would be for ever, or Redis never lets us in.
    """
    if sentence := unreachable.why_no_redis(app):
        raise SystemExit(sentence)
    told_at = -math.inf
    while True:
        try:
            with app.app_context():
                return live.install()
        except SQLAlchemyError as error:
            if sentence := unreachable.why_no_database(error):
                raise SystemExit(sentence) from None
            if time.monotonic() - told_at >= REMIND:
                told_at = time.monotonic()
                log.warning("waiting for the database: %s", unreachable.first_line(error))
        gevent.sleep(DATABASE_RETRY)


class GreenletTimeout(BaseDeathPenalty):
    """RQ's job timeout for a job that is a greenlet (its own are for processes and threads)."""

    def __init__(self, timeout, exception, **options):
        super().__init__(timeout, exception, **options)
        late = exception(f"Task exceeded maximum timeout value ({timeout} seconds)")
        self.timer = gevent.Timeout(timeout if timeout > 0 else None, late)

    def setup_death_penalty(self):
        self.timer.start()

    def cancel_death_penalty(self):
        self.timer.close()


class JobStopped(Exception):
    """Somebody stopped the job by RQ's own command or dashboard."""


class GivenBack(Exception):
    """The worker ends before the job could: another one takes it."""


class Worker(BaseWorker):
    """An RQ worker that runs many jobs at once: a reply is seconds of waiting.

    Queues, registries, executions, heartbeats, timeouts and `rq info` are RQ's own. Its loop is
    not: that one ends when Redis does not answer, and hears no signal while it does not.

    A job that was enqueued by `chattable.queue` may run twice: it is given back at the worker's
    end, and runs again after what passes. Any other has what RQ gives it, its own `Retry`.
    """

    death_penalty_class = GreenletTimeout
    # RQ would wait seven minutes for an answer.
    connection_timeout = 10

    def __init__(self, app, queue_names, concurrency, grace):
        super().__init__(
            queue_names,
            connection=app.extensions["chattable_redis"],
            job_monitoring_interval=BEAT,
            log_job_description=False,
            # It would ask Redis, which may be away.
            prepare_for_work=False,
        )
        self.hostname, self.pid, self.birth_date = socket.gethostname(), os.getpid(), now()
        self.app = app
        self.install, self.stops = live.install(), live.stops_channel()
        self.own_jobs = own_jobs()
        self.grace = grace
        self.pool = Pool(concurrency)
        self._looking = 0
        self._told_to_wait = False
        self._greenlets = {}
        self._suspension_due = 0.0
        self._stop = Event()
        self._told_at = 0.0

    def run(self):
        """Take jobs until told to stop, whatever Redis says; then let replies finish."""
        for name in ("rq.worker", "rq.job"):
            setup_loghandlers("WARNING", name=name)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.request_stop)
        books = Bookkeeper(self.app, self)
        steps = {"RQ's books": books.keep, "commands": self.listen, "queue": self.take_jobs}
        *keepers, taking = [gevent.spawn(keep_doing, *step) for step in steps.items()]
        self._stop.wait()
        log.info("shutting down: %d jobs may finish for %s s", len(self.pool), self.grace)
        # It looks up every second, unless Redis does not answer.
        taking.join(timeout=LOOK_UP + 0.2)
        taking.kill(timeout=0.1)
        self.let_finish()
        gevent.killall(keepers, timeout=0.1)
        self.teardown()

    # Taking jobs.

    def take_jobs(self):
        """Wait a while for a place in the pool and for a job, and start it there."""
        if self._stop.is_set():
            raise gevent.GreenletExit
        if self._suspended():
            self.set_state(WorkerStatus.SUSPENDED)
            self._stop.wait(LOOK_UP)
        elif self.pool.wait_available(timeout=LOOK_UP):
            self.set_state(WorkerStatus.IDLE)
            if taken := self._dequeue(wait=True):
                self._look_for_more()
                self.pool.spawn(self._perform, *taken)

    def _dequeue(self, wait):
        """Return the next (job, queue), or None: at once, or after a while if it may `wait`."""
        first, *others = self.queues
        if wait and not others:
            return self._pop(first, LOOK_UP)
        # One by one: what a worker takes from several queues at once is lost if it dies then.
        taken = next(filter(None, map(self._pop, self.queues)), None)
        return self._pop(first, LOOK_AT_OTHERS) if wait and not taken else taken

    def _pop(self, queue, timeout=None):
        with suppress(DequeueTimeout):
            taken = self.queue_class.dequeue_any(
                [queue],
                timeout,
                self.connection,
                job_class=self.job_class,
                serializer=self.serializer,
                death_penalty_class=self.death_penalty_class,
            )
            if not (taken and self._stop.is_set()):
                return taken
            # It came while we were told to stop: the next worker takes it.
            put_back(queue, taken[0].id)

    def _look_for_more(self):
        # Where many replies run, the answer to each command waits for its turn among them: jobs
        # that come together are taken by several greenlets, not one after the other.
        for _ in range(2 if self.pool else 0):
            if self._looking < MOST_LOOKING and self.pool.free_count() > 1:
                self._looking += 1
                self.pool.spawn(self._take)

    def _take(self):
        """Take one more job, if there is one, and run it."""
        taken = None
        try:
            if not self._suspended():
                taken = self._dequeue(wait=False)
        except RedisError as error:
            log.debug("no more jobs: %s", error)
        finally:
            self._looking -= 1
        if taken:
            self._look_for_more()
            self._perform(*taken)

    def _suspended(self):
        """Return whether RQ was told to take no jobs for now, as it was up to a second ago."""
        if time.monotonic() > self._suspension_due:
            self._told_to_wait = bool(is_suspended(self.connection))
            self._suspension_due = time.monotonic() + 1
        return self._told_to_wait

    # Doing them.

    def _perform(self, job, queue):
        execution = None
        try:
            execution = self.prepare_execution(job)
            self._greenlets[execution.id] = gevent.getcurrent()
            import_function(job)
            with self.app.app_context():
                self._perform_and_tell(job, queue, execution)
        except RedisError as error:
            # RQ will find the execution abandoned and run the job again; it is safe to.
            log.warning("job %s: outcome not recorded, Redis is away: %s", job.id, error)
        except InvalidJobOperation:
            # It was deleted as it ended, with its chat: RQ finds no status, and nothing to record.
            log.info("job %s: deleted meanwhile", job.id)
        finally:
            if execution:
                self.executions.pop(execution.id, None)
                self._greenlets.pop(execution.id, None)

    def _perform_and_tell(self, job, queue, execution):
        began = time.monotonic()
        if self.is_ours(job.id):
            _, _, g.chattable_token = job.id.removeprefix(self.own_jobs).partition("-")
        done = self.perform_job(job, queue, execution)
        told = {"job": job.func_name, "ended": "done" if done else g.get("chattable_broke_off")}
        told |= {"ms": round(1000 * (time.monotonic() - began)), **g.get("chattable_reply", {})}
        log.info("job ended", extra={"fields": told})

    def prepare_job_execution(self, job, remove_from_intermediate_queue=True):
        """Note that a job runs, and take it out of RQ's intermediate queue."""
        # A worker of several queues would leave it there.
        super().prepare_job_execution(job, remove_from_intermediate_queue=True)

    def handle_job_success(self, job, *args, **kwargs):
        """Record a job that is done without what a person wrote: it is in the database now."""
        if self.is_ours(job.id):
            job.args = job.args[:1]
        super().handle_job_success(job, *args, **kwargs)

    def handle_exception(self, job, *exc_info):
        """Log what a job raised; RQ's own line has what the job holds, which people wrote."""
        if not self.is_ours(job.id):
            return super().handle_exception(job, *exc_info)
        g.chattable_broke_off = exc_info[0].__name__
        level = logging.INFO if issubclass(exc_info[0], JobStopped | GivenBack) else logging.ERROR
        log.log(level, "job %s: exception raised while executing", job.id, exc_info=exc_info)

    def handle_job_failure(self, job, queue, *args, **kwargs):
        """Record a job that raised; one of ours runs again only if what it met passes."""
        error = sys.exception()
        execution: Any = kwargs.get("execution")
        if error and self.is_ours(job.id):
            kwargs["exc_string"] = "\n".join(faults.trace(error))
        if isinstance(error, JobStopped):
            # Only marks it: there is no process of its own to end.
            super().request_stop_execution(execution.id)
        elif self.is_ours(job.id):
            self._count_retries(job, error, execution)
        super().handle_job_failure(job, queue, *args, **kwargs)

    def _count_retries(self, job, error, execution):
        passes = transient(error) and self._patient_with(job)
        if passes or isinstance(error, GivenBack):
            # RQ counts it down; the absence of a database does not count.
            job.retries_left = (job.retries_left or 0) + 1
        elif execution and not isinstance(error, RedisError):
            job.retries_left = 0
        if passes:
            gevent.sleep(RETRY)

    def _patient_with(self, job):
        """Return whether the job first met the absence of the database less than so long ago."""
        return time.time() - job.meta.setdefault("first_broken_off", time.time()) < PATIENCE

    def is_ours(self, job_id):
        """Return whether `chattable.queue` enqueued a job: its first argument is a chat's id."""
        return job_id.startswith(self.own_jobs)

    def handle_execution_ended(self, job, queue, heartbeat_ttl):
        """Have nothing kept of a job whose chat was deleted meanwhile."""
        if self.is_ours(job.id) and (chat_id := deleted_chat(job)):
            job.result_ttl = job.failure_ttl = 0
            # Deleted with the chat, it has no status; RQ deletes only a job that has one.
            job.set_status(JobStatus.STARTED)
            live.broadcast_deletion(chat_id)
        super().handle_execution_ended(job, queue, heartbeat_ttl)

    # Hearing what others want.

    def listen(self):
        """Hear RQ's commands to this worker, and requests to stop a reply."""
        handlers = {self.pubsub_channel_name: self.handle_payload, self.stops: self._stop_reply}
        with closing(self.connection.pubsub(ignore_subscribe_messages=True)) as pubsub:
            pubsub.subscribe(**handlers)
            while True:
                pubsub.get_message(timeout=live.SILENCE)

    def _stop_reply(self, message):
        message_id = live.own(self.install, message["data"])
        if message_id:
            self.app.extensions["chattable_leases"].stop(int(message_id))

    def handle_payload(self, message):
        """Obey RQ's commands; its own "stop-job" knows one job at a time only."""
        payload = parse_payload(message)
        if payload.get("command") != "stop-job":
            return super().handle_payload(message)
        for execution in list(self.executions.values()):
            if execution.job_id == payload.get("job_id"):
                self.request_stop_execution(execution.id)

    def request_stop_execution(self, execution_id):
        """End one job, as somebody wished by RQ's command line or a dashboard."""
        if greenlet := self._greenlets.get(execution_id):
            greenlet.kill(JobStopped("stopped by command"), block=False)

    # The end.

    def request_stop(self, signum, frame):
        """Take no new job (warm shutdown), and be gone in time, whatever hangs."""
        if not self._stop.is_set():
            self._told_at = time.monotonic()
            # The kernel's own alarm ends us even where nothing of ours runs any more.
            signal.setitimer(signal.ITIMER_REAL, self.grace + LAST_WORDS + FAREWELL)
            # A handler runs in whichever greenlet happens to.
            gevent.get_hub().loop.run_callback_threadsafe(self._stop.set)

    def let_finish(self):
        """Let replies finish, interrupt the rest, text kept, give back what only waits."""
        leases = self.app.extensions["chattable_leases"]
        while self.pool:
            grace = self.grace if leases.running or self._does_others() else GIVE_BACK
            if time.monotonic() - self._told_at > min(grace, self.grace):
                break
            self.pool.join(timeout=0.1)
        if leases.running:
            leases.end()
            self.pool.join(timeout=LAST_WORDS)
        self.pool.kill(GivenBack("the worker ends"), timeout=0.5)

    def _does_others(self):
        """Return whether a job runs that is the app's own: it does not only wait for a reply."""
        return not all(self.is_ours(each.job_id) for each in self.executions.values())

    def teardown(self):
        """Have RQ forget this worker, if Redis is there to hear it."""
        with gevent.Timeout(1, False), suppress(RedisError):
            self.register_death()

    # What RQ keeps in Redis about the worker, see also `books`.

    def set_state(self, state, pipeline=None):
        """Be "idle" only when nothing runs; tell Redis only what is new."""
        if state == WorkerStatus.IDLE and self.pool:
            state = WorkerStatus.BUSY
        if state != self.get_state():
            super().set_state(state, pipeline)

    def heartbeat(self, timeout=None, pipeline=None):
        """Send none by itself, as RQ does several times a job: `books` does for all of them."""
        if pipeline is not None:
            # Always for as long: what is left tells others when it was, see `vitals`.
            super().heartbeat(None, pipeline)

    def get_heartbeat_ttl(self, job, working_time=0.0):
        """Return how long (s) an execution outlives its worker: so late is it seen as abandoned."""
        return LIFE


def import_function(job):
    """Import a job's function in a context of its own: its module may push an app context."""
    with suppress(Exception):  # it happens again where RQ takes note of it
        contextvars.copy_context().run(getattr, job, "func")


def deleted_chat(job):
    """Return the id of a job's chat if it is known not to exist."""
    if not (g.get("chat_in_doubt") or sys.exception()):
        return None
    try:
        db.session.rollback()  # the job may have failed in the middle of something
        there = family().chat.exists(job.args[0])
        db.session.rollback()  # RQ's bookkeeping needs no connection of the database
        return None if there else job.args[0]
    except (SQLAlchemyError, DeserializationError, IndexError):
        return None
