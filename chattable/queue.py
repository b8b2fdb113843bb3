"""The queue of this install: jobs that are enqueued once, and each chat's turns.

For the web, which enqueues, and for the jobs.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from flask import current_app, g
from flask.globals import app_ctx
from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus
from sqlalchemy.exc import SQLAlchemyError

from chattable import live, places
from chattable.chat import ChatMixin
from chattable.database import roll_back
from chattable.family import family
from chattable.shredder import shredder

QUEUE = "replies"
BROKEN_OFF = (JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED)
TO_BE_DONE = (
    JobStatus.QUEUED,
    JobStatus.STARTED,
    JobStatus.SCHEDULED,
    JobStatus.DEFERRED,
    JobStatus.RATE_LIMITED,
)
# Seconds.
KEPT_WHEN_DONE = 60
KEPT_WHEN_FAILED = 300
TURN_POLL = 0.2
ENQUEUED_WITHIN = 3
# Jobs that begin at the same time.
BEGINNING = threading.Semaphore(4)

log = logging.getLogger(__name__)


def queue():
    return Queue(queue_name(), connection=live.redis())


def queue_name():
    """Return the name of this install's queue: the same Redis may hold those of others."""
    return f"{live.prefix()}:{QUEUE}"


def enqueue_turn(
    chat: ChatMixin,
    token: str,
    job: Callable,
    *args: Any,
    before: Callable = lambda: None,
    begin: Callable = lambda: None,
) -> bool:
    """Enqueue `job(chat.id, *args)` as the chat's next turn; return False if it is taken.

    What was sent before with this token (a str) is done once. Raises `RedisError` when there is no
    Redis to take it, and whatever `before()` raises, which is called once the turn is ours; if it
    has to wait for a place, `begin()` is, too, see `chattable.places`.
    """
    turn = take_turn(chat.id, token)
    if not turn:
        return False
    enqueued = False
    try:
        if turn == "taken":
            before()
        enqueued = enqueue(job, chat, token, *args, begin=begin)
    finally:
        # If it was sent twice at once, the turn belongs to the job that the other one enqueued.
        if turn == "taken" and not (enqueued or to_be_done(chat.id, token)):
            chat.hooks.on_settled(chat.id)
            live.end_turn(chat.id, token)
    return True


def enqueue(
    job: Callable, chat: ChatMixin, token: str, *args: Any, begin: Callable = lambda: None
) -> bool:
    """Hand a job to a worker; return False if it was sent before: then once is enough.

    Raises `RedisError` when there is no Redis to take it. A job whose worker was killed runs
    again: each of them is safe to run twice.
    """
    g.chattable_token = token
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
    limit = places.limit_of(chat)
    once = put_once if limit is None else partial(places.put_once, limit=limit, begin=begin)
    if once(queue(), job, chat.id, *args, **options):
        return True
    if not broken_off(options["job_id"]):
        return False
    queue().enqueue(job, chat.id, *args, rate_limit=limit, **options)
    return True


def put_once(queue, job, *args, **options):
    """Enqueue a job; return False if there is one of this id."""
    # The pipeline gets RQ's list of queues alone: a worker has the job before that is sent.
    with suppress(DuplicateJobError), live.redis().pipeline() as later:
        queue.enqueue(job, *args, unique=True, pipeline=later, **options)
        later.execute()
        return True
    return False


def job_id(chat_id, token):
    return f"{own_jobs()}{chat_id}-{token}"


def own_jobs():
    """Return what the id of each job begins with that was enqueued here, and no other's."""
    # RQ takes letters, digits, "_" and "-" in an id, and nothing else.
    prefix = re.sub("[.:]", "_", current_app.config["REDIS_PREFIX"] or "chattable")
    return f"{prefix}_{live.install()}-"


def broken_off(job_id):
    """Return whether a job has ended without doing its work."""
    return status(job_id) in BROKEN_OFF


def to_be_done(chat_id, token):
    """Return whether RQ knows of a job that waits or runs."""
    return status(job_id(chat_id, token)) in TO_BE_DONE


def status(job_id):
    """Return what RQ knows of a job, None if nothing."""
    try:
        return Job.fetch(job_id, connection=live.redis()).get_status()
    except NoSuchJobError:
        return None


@contextmanager
def turn(chat_id: int, token: str) -> Iterator[Callable[[], None]]:
    """Wait for the chat's turn, so that replies never interleave, and until few others begin.

    Gives a function to call once the reply has begun, or may have to wait: a few begin at a time,
    or those that stream would wait for a hundred others at the database.
    """
    while not take_turn(chat_id, token):
        time.sleep(TURN_POLL)
    try:
        with ExitStack() as beginning:
            beginning.enter_context(BEGINNING)
            yield beginning.close
    except Exception:
        settle(chat_id, token)
        raise
    finally:
        live.end_turn(chat_id, token)


def settle(chat_id, token):
    """Tell a chat's owner that the job which has its turn has failed, whatever it had begun."""
    roll_back()
    # Where nobody can be told, what is set aside is given back by itself.
    with suppress(RedisError, SQLAlchemyError, LookupError):
        if live.turn_holder(chat_id)[0] == token and (chat := family().chat.with_owner(chat_id)):
            chat.hooks.on_settled(chat_id)
    roll_back()


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
    if lost and not family().chat.has_running_reply(chat_id):
        return "taken" if live.take_over_turn(chat_id, token, holder) else None
    return None


def next_job(chat_id: int) -> tuple[str, Job | None]:
    """Return (token, job): who has the chat's turn, and its job if RQ knows one."""
    holder, _ = live.turn_holder(chat_id)
    try:
        job = Job.fetch(job_id(chat_id, holder), connection=live.redis())
    except NoSuchJobError:
        return holder, None
    return holder, job


def keep_turns(chat_ids: Collection[int]) -> set[int]:
    """Return those of some chats that have a job; they keep their turn however long it waits."""
    ids = known_job_ids()
    kept = {each for each in chat_ids if any(id.startswith(job_id(each, "")) for id in ids)}
    for chat_id in kept:
        live.keep_turn(chat_id)
    return kept


def take_back(job: Job, chat_id: int, token: str) -> bool:
    """Take a job out of the queue, and its turn; leave one alone, False, that a worker has."""
    # In this order, for it may be given a place between the two.
    if not (places.take_back(job) or queue().remove(job)):
        return False
    job.delete()
    live.end_turn(chat_id, token)
    return True


def forget_chat(chat_id: int) -> None:
    """Take the words of a deleted chat out of Redis; its jobs are not run any more."""
    forget_chats([chat_id])


def forget_chats(chat_ids: Collection[int]) -> None:
    """Do the same for many chats at once."""
    begin = tuple(job_id(chat_id, "") for chat_id in chat_ids)
    try:
        delete_jobs(id for id in known_job_ids() if id.startswith(begin))
    except RedisError as error:
        # Whoever runs them later finds no chat; those that ended are not kept for long.
        log.warning("chats %s: jobs not deleted, Redis is away: %s", chat_ids, error)
    shredder(app_ctx.app)


def known_job_ids():
    """Return the ids of all jobs, wherever RQ keeps them."""
    ours = queue()
    waiting = [ours, ours.intermediate_queue]
    ended = [ours.finished_job_registry, ours.failed_job_registry, ours.canceled_job_registry]
    running = [ours.started_job_registry, ours.scheduled_job_registry]
    ids = {*places.waiting(), *(id for each in waiting for id in each.get_job_ids())}
    return ids.union(*(each.get_job_ids(cleanup=False) for each in ended + running))


def delete_jobs(ids):
    for id in ids:
        # It may end, and be forgotten, at any moment.
        with suppress(NoSuchJobError, InvalidJobOperation):
            delete_job(Job.fetch(id, connection=live.redis()))


def delete_job(job):
    try:
        job.delete()
    except ValueError:
        # RQ does not find an execution that has just ended, or whose worker was killed long ago.
        live.redis().delete(job.execution_registry.key)
        job.delete()


def delete_cancelled_jobs():
    """Delete what RQ would keep for ever, and what earlier versions had it keep for a year."""
    ours, late = queue(), time.time() + 2 * KEPT_WHEN_FAILED
    failed: Any = live.redis().zrangebyscore(ours.failed_job_registry.key, late, "+inf")
    # Read once: what is cancelled meanwhile is deleted the next time.
    cancelled = ours.canceled_job_registry.get_job_ids()
    delete_jobs([*cancelled, *(id.decode() for id in failed)])
    for id in cancelled:
        ours.canceled_job_registry.remove(id)
