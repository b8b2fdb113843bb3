"""The jobs behind a chat, the worker that runs a hundred of them at once, and its keepers."""

import gc
import logging
import os
import re
import signal
import socket
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import gevent
from flask import current_app, g
from gevent.event import Event
from gevent.lock import Semaphore
from gevent.pool import Pool
from redis.exceptions import RedisError, ResponseError
from rq import Queue, Retry, worker_registration
from rq.command import parse_payload
from rq.exceptions import (
    DequeueTimeout,
    DeserializationError,
    DuplicateJobError,
    InvalidJobOperation,
    NoSuchJobError,
)
from rq.job import Job, JobStatus
from rq.logutils import setup_loghandlers
from rq.registry import clean_registries
from rq.suspension import is_suspended
from rq.timeouts import BaseDeathPenalty
from rq.worker import BaseWorker, WorkerStatus
from sqlalchemy.exc import SQLAlchemyError

from chattable import ReplyInProgress, live, provider
from chattable.connections import empty_sqlite_log
from chattable.database import PATIENCE, now, persistent, reason, transient
from models import Chat, Message, db

QUEUE = "replies"
BROKEN_OFF = (JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED)
TO_BE_DONE = (JobStatus.QUEUED, JobStatus.STARTED, JobStatus.SCHEDULED, JobStatus.DEFERRED)
# Seconds.
KEPT_WHEN_DONE = 60
KEPT_WHEN_FAILED = 300
# `LEASE - RENEW + ORPHANED` is the longest pause that no reply minds: over 10.
SWEEP = 2.5
SHRED = 5
ORPHANED = 5.2
SECOND_LOOK = 0.3
MODELS_REFRESH = 600
MODELS_RETRY = 15
DATABASE_RETRY = 1
TURN_POLL = 0.2
ENQUEUED_WITHIN = 3
RETRY = 1
# The end of a worker: jobs that only wait, replies that are stopped, and all the rest.
GIVE_BACK = 2
LAST_WORDS = 3
FAREWELL = 2
# How often a worker looks up from its waiting, and tries again what failed.
LOOK_UP = 1
TRY_AGAIN = 1
# How often a worker says that it and its jobs live, and when one that does not is dead: a job that
# lost its worker runs again within 15 s, and a pause of some seconds costs nobody a job.
BEAT = 2
LIFE = 11
STUCK = 10
CALM = 4
# Greenlets that look for a job at the same time, and jobs that begin.
MOST_LOOKING = 8
BEGINNING = Semaphore(4)

# All or nothing: a full Redis refuses the push. A job that was deleted is only forgotten.
PUT_BACK = """
local taken, queue, job = unpack(KEYS)
if not redis.call('LPOS', taken, ARGV[1]) then return 0 end
if redis.call('EXISTS', job) == 1 then redis.call('LPUSH', queue, ARGV[1]) end
return redis.call('LREM', taken, 1, ARGV[1])
"""

log = logging.getLogger(__name__)


# Enqueueing, from the web.


def queue():
    return Queue(queue_name(), connection=live.redis())


def queue_name():
    """Return the name of this install's queue: the same Redis may hold those of others."""
    return f"{live.prefix()}:{QUEUE}"


def job_id(chat_id, token):
    # RQ takes nothing but letters, digits and these two signs there.
    prefix = re.sub("[.:]", "_", current_app.config["REDIS_PREFIX"] or "chattable")
    return f"{prefix}_{live.install()}-{chat_id}-{token}"


def enqueue(job, chat, token, *args):
    """Hand a job to a worker; return False if it was sent before: then once is enough.

    Raises `RedisError` when there is no Redis to take it. A job whose worker was killed runs
    again: each of them is safe to run twice.
    """
    options = {
        "job_id": job_id(chat.id, token),
        "job_timeout": current_app.config["JOB_TIMEOUT"],
        # Workers may be killed again and again: a deploy that fails is tried again.
        "retry": Retry(max=20),
        # A job holds what a person wrote: RQ would keep one that failed for a year.
        "result_ttl": KEPT_WHEN_DONE,
        "failure_ttl": KEPT_WHEN_FAILED,
        # The default description would show what people write to whoever looks at the queue.
        "description": f"{job.__name__} in chat {chat.id}",
    }
    try:
        # RQ's list of queues can wait, a worker has the job meanwhile.
        with live.redis().pipeline() as later:
            queue().enqueue(job, chat.id, *args, unique=True, pipeline=later, **options)
            later.execute()
    except DuplicateJobError:
        if not broken_off(options["job_id"]):
            return False
        queue().enqueue(job, chat.id, *args, **options)
    return True


def broken_off(job_id):
    """Return whether a job has ended without doing its work."""
    return status(job_id) in BROKEN_OFF


def status(job_id):
    """Return what RQ knows of a job, None if nothing."""
    try:
        return Job.fetch(job_id, connection=live.redis()).get_status()
    except NoSuchJobError:
        return None


def to_be_done(chat_id, token):
    """Return whether RQ knows of a job that waits or runs."""
    return status(job_id(chat_id, token)) in TO_BE_DONE


def take_turn(chat_id, token):
    """Take the chat's next turn; return "taken", "held" if it was before, None if it is another's.

    One that belongs to no job and no reply, because Redis lost the job or a worker could not end
    it, is taken over; but not at once, for a job is enqueued after its turn was taken.
    """
    turn = live.take_turn(chat_id, token)
    if turn:
        return turn
    holder, age = live.turn_holder(chat_id)
    lost = age > ENQUEUED_WITHIN and not to_be_done(chat_id, holder)
    if lost and not Chat.has_running_reply(chat_id):
        return "taken" if live.take_over_turn(chat_id, token, holder) else None
    return None


def forget_chat(chat_id):
    """Take the words of a deleted chat out of Redis; its jobs are not run any more."""
    try:
        delete_jobs(id for id in known_job_ids() if id.startswith(job_id(chat_id, "")))
    except RedisError as error:
        # Whoever runs them later finds no chat; those that ended are not kept for long.
        log.warning("chat %s: jobs not deleted, Redis is away: %s", chat_id, error)
    shredder(current_app._get_current_object())


def known_job_ids():
    """Return the ids of all jobs, wherever RQ keeps them."""
    books = queue()
    waiting = [books, books.intermediate_queue]
    ended = [books.finished_job_registry, books.failed_job_registry, books.canceled_job_registry]
    running = [books.started_job_registry, books.scheduled_job_registry]
    ids = {id for place in waiting for id in place.get_job_ids()}
    return ids.union(*(place.get_job_ids(cleanup=False) for place in ended + running))


def delete_jobs(ids):
    for id in ids:
        # It may end, and be forgotten, at any moment.
        with suppress(NoSuchJobError, InvalidJobOperation):
            Job.fetch(id, connection=live.redis()).delete()


def delete_cancelled_jobs():
    """Delete what RQ would keep for ever, and what earlier versions had it keep for a year."""
    books, late = queue(), time.time() + 2 * KEPT_WHEN_FAILED
    failed = live.redis().zrangebyscore(books.failed_job_registry.key, late, "+inf")
    cancelled = books.canceled_job_registry
    delete_jobs([*cancelled.get_job_ids(), *(id.decode() for id in failed)])
    for id in cancelled.get_job_ids():
        cancelled.remove(id)


# The jobs.


def create_message_and_stream(chat_id, content, model, client_id):
    """Save a person's message, then stream the reply to everyone watching."""
    with turn(chat_id, client_id) as begun:
        say_and_answer(begun, chat_id, content, model, client_id)


@persistent
def say_and_answer(begun, chat_id, content, model, client_id):
    chat = Chat.with_owner(chat_id)
    if chat is None:
        return note_deletion(chat_id)
    completion = chat.ask(model, content, client_id)
    # A job that runs again must not have the answer billed again.
    first = completion and live.claim(f"{chat_id}-{client_id}")
    if not (first and answer(chat, completion, content, client_id, begun)):
        begun()
        go_on(chat_id, content, model, client_id, asked=completion and not first)


def answer(chat, completion, content, client_id, begun):
    """Stream the reply, asked for while the database writes; return whether it was ours."""
    with completion:
        messages = chat.exchange(content, client_id, completion.model)
        begun()
        if messages:
            messages[1].receive(completion)
    if not messages:
        chat.book(completion.model, completion.settle_usage(""))
    return bool(messages)


def go_on(chat_id, content, model, client_id, asked):
    """Do what another run of the same job, which may have died, has left to do.

    `asked` says that it may have asked the provider, which no row tells until the message is saved.
    """
    chat = db.session.get(Chat, chat_id)
    if chat is None:
        return note_deletion(chat_id)
    message = Message.said(chat_id, client_id)
    if message:
        # Who saved it may have died before telling.
        chat.chattable.on_message_create(message)
    else:
        if asked:
            asked_for = [*chat.history(), {"role": "user", "content": content}]
            chat.book(model, provider.estimate_usage(asked_for))
        message = chat.say("user", content, client_id=client_id)
    if message:
        answer_once(chat, model, after=message.id)


def note_deletion(chat_id):
    """End a job in silence: its chat is gone."""
    g.chat_in_doubt = True
    log.info("chat %s was deleted before its job was done", chat_id)


def retry_reply(chat_id, message_id, model):
    """Ask again for a reply that has ended; the new one takes the old one's place."""
    with turn(chat_id, retry_token(message_id)) as begun:
        replace_reply(begun, chat_id, message_id, model)


@persistent
def replace_reply(begun, chat_id, message_id, model):
    chat = Chat.with_owner(chat_id)
    old = db.session.get(Message, message_id)
    begun()
    if chat is None or old is None:
        return note_deletion(chat_id)
    if old.superseded:
        chat.chattable.on_message_update(old)
    else:
        old.supersede()
    answer_once(chat, model, after=old.id)


def retry_token(message_id):
    return f"retry-{message_id}"


@contextmanager
def turn(chat_id, token):
    """Wait for a turn in the chat, so that replies never interleave, and for a place to begin.

    Gives a function to call once the reply has begun, or may have to wait: a few begin at a time,
    or those that stream would wait for a hundred others at the database.
    """
    while not take_turn(chat_id, token):
        gevent.sleep(TURN_POLL)
    try:
        with ExitStack() as place:
            place.enter_context(BEGINNING)
            yield place.close
    finally:
        live.end_turn(chat_id, token)


def answer_once(chat, model, after):
    """Run the reply to a message; tell its end again if there was one: its writer may have died."""
    answer = chat.answer_to(after)
    if answer is None:
        reply(chat, model, after)
    elif not answer.running:
        chat.chattable.on_message_update(answer)


def reply(chat, model, after):
    """Run the reply to a message, unless another run of the same job does."""
    chat_id = chat.id
    try:
        chat.run(model)
    except ReplyInProgress:
        if db.session.get(Chat, chat_id) is None:
            return None  # deleted meanwhile
        while chat.running_reply:
            db.session.commit()
            gevent.sleep(TURN_POLL)
        return None if chat.answer_to(after) else reply(chat, model, after)


# The worker.


class GreenletTimeout(BaseDeathPenalty):
    """RQ's job timeout for a job that is a greenlet (its own are for processes and threads)."""

    def setup_death_penalty(self):
        late = self._exception(f"Task exceeded maximum timeout value ({self._timeout} seconds)")
        self._timer = gevent.Timeout(self._timeout if self._timeout > 0 else None, late)
        self._timer.start()

    def cancel_death_penalty(self):
        self._timer.close()


class JobStopped(Exception):
    """Somebody stopped the job by RQ's own command or dashboard."""


class GivenBack(Exception):
    """The worker ends before the job could begin: another one takes it."""


class Worker(BaseWorker):
    """An RQ worker that runs many jobs at once: a reply is seconds of waiting.

    Queue, registries, executions, heartbeats, timeouts and `rq info` are RQ's own. Its loop is
    not: that one ends when Redis does not answer, and hears no signal while it does not.
    """

    death_penalty_class = GreenletTimeout
    # RQ would wait seven minutes for an answer.
    connection_timeout = 10

    def __init__(self, app, concurrency, grace):
        super().__init__(
            [queue_name()],
            connection=app.extensions["redis"],
            job_monitoring_interval=BEAT,
            log_job_description=False,
            # It would ask Redis, which may be away.
            prepare_for_work=False,
        )
        self.hostname, self.pid, self.birth_date = socket.gethostname(), os.getpid(), now()
        self.app = app
        self.install, self.stops = live.install(), live.stops_channel()
        self.grace = grace
        self.pool = Pool(concurrency)
        self._looking = 0
        self._told_to_wait = False
        self._greenlets = {}
        self._suspension_due = 0.0
        self._stop = Event()
        self._told_at = 0.0
        self._stuck = {}
        self._troubled_at = float("-inf")

    def run(self):
        """Take jobs until told to stop, whatever Redis says; then let replies finish."""
        for name in ("rq.worker", "rq.job"):
            setup_loghandlers("WARNING", name=name)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.request_stop)
        steps = {"RQ's books": self.keep_books, "commands": self.listen, "queue": self.take_jobs}
        *keepers, taking = [gevent.spawn(keep_doing, *step) for step in steps.items()]
        self._stop.wait()
        log.info("shutting down: %d jobs may finish for %s s", len(self.pool), self.grace)
        # It looks up every second, unless Redis does not answer.
        taking.join(timeout=LOOK_UP + 0.2)
        taking.kill(timeout=0.1)
        self.let_finish()
        gevent.killall(keepers, timeout=0.1)
        self.teardown()

    def take_jobs(self):
        """Wait a while for a place in the pool and for a job, and start it there."""
        if self._stop.is_set():
            raise gevent.GreenletExit
        if self._suspended():
            self.set_state(WorkerStatus.SUSPENDED)
            self._stop.wait(LOOK_UP)
        elif self.pool.wait_available(timeout=LOOK_UP):
            self.set_state(WorkerStatus.IDLE)
            if taken := self._dequeue(LOOK_UP):
                self._look_for_more()
                self.pool.spawn(self._perform, *taken)

    def _dequeue(self, timeout):
        """Return the next (job, queue) within so many seconds (None: at once), or None."""
        with suppress(DequeueTimeout):
            taken = self.queue_class.dequeue_any(
                self.queues,
                timeout,
                self.connection,
                job_class=self.job_class,
                serializer=self.serializer,
                death_penalty_class=self.death_penalty_class,
            )
            if not (taken and self._stop.is_set()):
                return taken
            # It came while we were told to stop: the next worker takes it.
            self._put_back(taken[0].id)

    def _look_for_more(self):
        # Where many replies run, each command to Redis waits for all of them: jobs that come
        # together are taken together, not one after the other.
        for _ in range(2 if self.pool else 0):
            if self._looking < MOST_LOOKING and self.pool.free_count() > 1:
                self._looking += 1
                self.pool.spawn(self._take)

    def _take(self):
        """Take one more job, if there is one, and run it."""
        taken = None
        try:
            if not self._suspended():
                taken = self._dequeue(None)
        except RedisError as error:
            log.debug("no more jobs: %s", error)
        finally:
            self._looking -= 1
        if taken:
            self._look_for_more()
            self._perform(*taken)

    def _perform(self, job, queue):
        execution = None
        try:
            execution = self.prepare_execution(job)
            self._greenlets[execution.id] = gevent.getcurrent()
            with self.app.app_context():
                self.perform_job(job, queue, execution)
        except RedisError as error:
            # RQ will find the execution abandoned and run the job again; it is safe to.
            log.warning("job %s: outcome not recorded, Redis is away: %s", job.id, error)
        finally:
            if execution:
                self.executions.pop(execution.id, None)
                self._greenlets.pop(execution.id, None)

    def _put_back(self, job_id):
        """Have a job that was taken and not begun taken again, before all others."""
        queue = self.queues[0]
        keys = [queue.intermediate_queue_key, queue.key, self.job_class.key_for(job_id)]
        return self.connection.eval(PUT_BACK, len(keys), *keys, job_id)

    def set_state(self, state, pipeline=None):
        """Be "idle" only when nothing runs; tell Redis only what is new."""
        if state == WorkerStatus.IDLE and self.pool:
            state = WorkerStatus.BUSY
        if state != self.get_state():
            super().set_state(state, pipeline)

    def heartbeat(self, timeout=None, pipeline=None):
        """Leave to `keep_books` what RQ would say several times a job, each a round trip."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)

    def _suspended(self):
        """Return whether RQ was told to take no jobs for now, as it was up to a second ago."""
        if time.monotonic() > self._suspension_due:
            self._told_to_wait = bool(is_suspended(self.connection))
            self._suspension_due = time.monotonic() + 1
        return self._told_to_wait

    def get_heartbeat_ttl(self, job, working_time=0.0):
        """Return how long (s) an execution outlives its worker: so late is it seen as abandoned."""
        return LIFE

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
            self.app.extensions["leases"].stop(int(message_id))

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

    def handle_job_failure(self, job, queue, *args, **kwargs):
        """Record a job that raised, for good, unless what it met passes: then it runs again."""
        error = sys.exception()
        if isinstance(error, JobStopped):
            self._stopped_job_id = job.id
        elif isinstance(error, GivenBack):
            job.retries_left = (job.retries_left or 0) + 1
        elif transient(error) and self._patient_with(job):
            # RQ counts it down; what passes does not count.
            job.retries_left = (job.retries_left or 0) + 1
            gevent.sleep(RETRY)
        elif kwargs.get("execution") and not isinstance(error, RedisError):
            job.retries_left = 0
        super().handle_job_failure(job, queue, *args, **kwargs)

    def _patient_with(self, job):
        """Return whether the job first met the absence of the database less than so long ago."""
        return time.time() - job.meta.setdefault("first_broken_off", time.time()) < PATIENCE

    def handle_execution_ended(self, job, queue, heartbeat_ttl):
        """Have nothing kept of a job whose chat was deleted meanwhile."""
        if chat_id := deleted_chat(job):
            job.result_ttl = job.failure_ttl = 0
            live.broadcast_deletion(chat_id)
        super().handle_execution_ended(job, queue, heartbeat_ttl)

    def request_stop(self, signum, frame):
        """Take no new job (warm shutdown), and be gone in time, whatever hangs."""
        if not self._stop.is_set():
            self._told_at = time.monotonic()
            # The kernel's own alarm ends us even where nothing of ours runs any more.
            signal.setitimer(signal.ITIMER_REAL, self.grace + LAST_WORDS + FAREWELL)
            # A handler runs in whichever greenlet happens to.
            gevent.get_hub().loop.run_callback_threadsafe(self._stop.set)

    def let_finish(self):
        """Let replies finish, stop the rest with their text kept, give back what only waits."""
        leases = self.app.extensions["leases"]
        while self.pool:
            grace = self.grace if leases.running else min(self.grace, GIVE_BACK)
            if time.monotonic() - self._told_at > grace:
                break
            self.pool.join(timeout=0.1)
        if leases.running:
            leases.stop()
            self.pool.join(timeout=LAST_WORDS)
        self.pool.kill(GivenBack("the worker ends"), timeout=0.5)

    def teardown(self):
        """Leave RQ's books, if Redis is there to hear it."""
        with gevent.Timeout(1, False), suppress(RedisError):
            self.register_death()

    def keep_books(self):
        """Tell RQ that this worker and what runs in it live; run again what has lost its worker."""
        began, smooth = time.monotonic(), False
        try:
            self._beat()
            if began - self._troubled_at > CALM:
                self._clean()
            self._free_stuck()
            gevent.sleep(BEAT)
            smooth = time.monotonic() - began < 2 * BEAT
        finally:
            # After a pause, of ours or of Redis, everybody needs a moment to say that they live.
            if not smooth:
                self._troubled_at, self._stuck = time.monotonic(), {}

    def _beat(self):
        started = self.queues[0].started_job_registry
        with self.connection.pipeline(transaction=False) as pipeline:
            super().heartbeat(pipeline=pipeline)
            # All of it: Redis may have lost its memory.
            pipeline.hset(self.key, mapping={**self.serialize(), "state": self.get_state()})
            worker_registration.register(self, pipeline)
            for execution in list(self.executions.values()):
                execution.heartbeat(started, LIFE, pipeline)
            pipeline.execute()

    def _clean(self):
        """Have abandoned jobs run again, and forget what is over."""
        queue = self.queues[0]
        # One worker at a time, and never one that died of it.
        if self.connection.set(queue.registry_cleaning_key, 1, nx=True, px=int(BEAT * 900)):
            clean_registries(queue)
            worker_registration.clean_worker_registry(queue)
            with self.app.app_context():
                delete_cancelled_jobs()

    def _free_stuck(self):
        """Have jobs run again that were taken, as often seen, and never begun."""
        queue = self.queues[0]
        started = queue.started_job_registry.get_job_ids(cleanup=False)
        taken = queue.intermediate_queue.get_job_ids()
        self._stuck = {id: self._stuck.get(id, 0) + 1 for id in taken}
        for job_id, times in self._stuck.items():
            if times * BEAT > STUCK and job_id not in started and self._put_back(job_id):
                log.warning("job %s: its worker died as it took it", job_id)


def keep_doing(what, step):
    """Do a step for ever; say once, not every time, that it fails and that it works again."""
    trouble = None
    while True:
        try:
            step()
            if trouble:
                log.warning("%s: all is well again", what)
            trouble = None
        except Exception as error:  # whatever Redis, a database or a bug says, we go on
            if type(error) is not trouble:
                known = isinstance(error, RedisError) or transient(error)
                log.warning("%s: trying again: %s", what, reason(error), exc_info=not known)
            trouble = type(error)
            gevent.sleep(TRY_AGAIN)


def deleted_chat(job):
    """Return the id of a job's chat if it is known not to exist."""
    if not (g.get("chat_in_doubt") or sys.exception()):
        return None
    try:
        db.session.rollback()  # the job may have failed in the middle of something
        there = Chat.exists(job.args[0])
        db.session.rollback()  # RQ's bookkeeping needs no connection of the database
        return None if there else job.args[0]
    except (SQLAlchemyError, DeserializationError, IndexError):
        return None


def work(app):
    """Run a worker in this process until SIGTERM or SIGINT."""
    wait_for_database(app)
    with app.app_context():
        provider.warm_up()
    # What is here now stays: collections need not walk it a hundred times a minute.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    with app.app_context():
        worker = Worker(app, app.config["WORKER_CONCURRENCY"], app.config["SHUTDOWN_GRACE"])
    shredder(app)  # for what was deleted shortly before an end
    with app.app_context(), suppress(RedisError):
        persistent(adopt_jobs)()
    keepers = [gevent.spawn(keep_models, app), sweeper(app)]
    worker.run()
    gevent.killall(keepers, timeout=0.1)


def adopt_jobs():
    """Take over what waits in the queue that all installs shared before they had names."""
    shared = Queue(QUEUE, connection=live.redis())
    for job in shared.get_jobs():
        if task := TASKS.get(job.func_name):
            chat_id, *args = job.args
            token = args[2] if task is create_message_and_stream else retry_token(args[0])
            if chat := db.session.get(Chat, chat_id):
                enqueue(task, chat, token, *args)
                job.delete()
    db.session.rollback()


TASKS = {f"jobs.{task.__name__}": task for task in (create_message_and_stream, retry_reply)}


def wait_for_database(app):
    """Wait until the database is there, migrated, and has told the name of this install."""
    while True:
        try:
            with app.app_context():
                return live.install()
        except SQLAlchemyError as error:
            log.warning("waiting for the database: %s", error)
        gevent.sleep(DATABASE_RETRY)


# Keepers: greenlets that run beside the work.


def sweeper(app):
    """Start (once in a process) to look for replies whose writer died."""
    if "sweeper" not in app.extensions:
        app.extensions["sweeper"] = gevent.spawn(keep_sweeping, app)
    return app.extensions["sweeper"]


def keep_sweeping(app):
    missing = {}

    def sweep():
        nonlocal missing
        # Whatever goes wrong, who is missing is counted anew.
        before, missing = missing, {}
        with app.app_context():
            missing = interrupt_orphans(before)
        gevent.sleep(SECOND_LOOK if missing else SWEEP)

    keep_doing("sweeping", sweep)


def interrupt_orphans(missing):
    """End replies without a lease; `missing` and the result say since when ({id: monotonic s}).

    Not at first sight: after a restart of Redis, every writer needs a moment to renew its lease.
    """
    running = Message.running_ids()
    db.session.commit()
    alive, moment = live.leased(running), time.monotonic()
    missing = {id: missing.get(id, moment) for id in running if id not in alive}
    for message_id, since in missing.items():
        if moment - since >= ORPHANED:
            log.warning("message %s: its writer is gone", message_id)
            Message.interrupt(message_id)
    return missing


def shredder(app, *files):
    """Have what was deleted taken out of the files, too: soon, and once for many deletions."""
    waiting = app.extensions.setdefault("to_shred", set())
    if not waiting:
        gevent.spawn_later(SHRED, shred, app)
    waiting.update(files or (rewrite_redis_log, empty_sqlite_log))


def shred(app):
    files = app.extensions.pop("to_shred", ())
    with app.app_context():
        if left := [file for file in files if not file()]:
            shredder(app, *left)


def rewrite_redis_log():
    """Have the embedded Redis write its append-only file anew; return False if it cannot now."""
    try:
        if is_embedded():
            live.redis().bgrewriteaof()
        return True
    except RedisError as error:
        log.info("the append-only file is not rewritten yet: %s", error)
        return False


def is_embedded():
    """Return whether this Redis keeps its files with ours: any other is its owner's business."""
    if not current_app.config["REDIS_URL"].startswith("unix://"):
        return False
    try:
        folder = live.redis().config_get("dir").get("dir", "")
    except ResponseError:
        return False  # whoever may not ask has not started it
    return Path(folder).resolve() == Path(current_app.instance_path, "redis")


def keep_models(app):
    """Fetch the provider's list of models now and then; pages read it from Redis."""
    if app.config.get("MODELS"):
        return
    while True:
        try:
            with app.app_context():
                live.keep_models(provider.list_models())
            gevent.sleep(MODELS_REFRESH)
        except Exception as error:  # whatever the provider does, replies must go on
            log.warning("the provider's models are not known: %s", type(error).__name__)
            gevent.sleep(MODELS_RETRY)
