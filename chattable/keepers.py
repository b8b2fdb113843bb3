"""Threads that run beside the work, one of a kind in a process: for workers and for sockets."""

import logging
import os
import threading
import time
from contextlib import suppress

from redis.exceptions import RedisError
from sqlalchemy import select

from chattable import live, provider, queue
from chattable.database import db, reason, roll_back, transient
from chattable.family import family
from chattable.writing import ORPHANED

# Seconds.
SWEEP = 2.5
SECOND_LOOK = 0.3
MODELS_REFRESH = 600
MODELS_RETRY = 15
TRY_AGAIN = 1
# Errors without a traceback: they say themselves who is away.
EXPECTED = (RedisError, provider.ProviderError)

log = logging.getLogger(__name__)


def sweeper(app):
    """Start (once in a process) to look for replies whose writer died."""
    keeper(app, "sweeper", keep_sweeping)


def keeper(app, name, work):
    """Start a thread that does `work(app)`, once in a process: no thread comes over a fork."""
    thread = threading.Thread(target=work, args=[app], name=f"chattable {name}", daemon=True)
    if app.extensions.setdefault(f"{name} of {os.getpid()}", thread) is thread:
        thread.start()


def keep_sweeping(app):
    missing: dict = {}

    def sweep():
        nonlocal missing
        # After an error, all that are missing count as seen for the first time.
        before, missing = missing, {}
        with app.app_context():
            missing = interrupt_orphans(before)
        time.sleep(SECOND_LOOK if missing else SWEEP)

    keep_doing("sweeping", sweep)


def interrupt_orphans(missing):
    """End replies without a lease; `missing` and the result say since when ({id: monotonic s}).

    Not at first sight: after a restart of Redis, every writer needs a moment to renew its lease.
    """
    running = family().message.running_ids()
    db.session.commit()
    alive, moment = live_ones(live.leases(running)), time.monotonic()
    missing = {id: missing.get(id, moment) for id in running if id not in alive}
    for message_id, since in missing.items():
        if moment - since >= ORPHANED:
            log.warning("message %s: its writer is gone", message_id)
            end_orphan(message_id)
    return missing


def live_ones(leases):
    """Return the ids of replies that somebody writes, or that wait for a job which is there."""
    waiting = [id for id, lease in leases.items() if lease == live.WAITING]
    if not waiting:
        return set(leases)
    # Their lease is long, and outlives a job that somebody has deleted.
    message = family().message
    theirs = select(message.id, message.chat_id).where(message.id.in_(waiting))
    chats = {row.id: row.chat_id for row in db.session.execute(theirs)}
    db.session.commit()
    kept = queue.keep_turns(chats.values())
    return {id for id in leases if id not in chats or chats[id] in kept}


def end_orphan(message_id):
    """End a reply whose writer is gone; where that fails, end it in the database alone."""
    message = family().message
    try:
        message.interrupt(message_id)
    except Exception as error:
        if isinstance(error, EXPECTED) or transient(error):
            raise
        log.exception("message %s: ended without a word", message_id)
        roll_back()
        message.abandon(message_id)


def keep_models(app):
    """Fetch the provider's list of models now and then; pages read it from Redis."""
    if app.config.get("MODELS"):
        return

    def fetch():
        with app.app_context():
            try:
                live.keep_models(provider.list_models())
            except provider.ProviderError as error:
                live.keep_trouble(str(error))
                raise
        time.sleep(MODELS_REFRESH)

    with app.app_context(), suppress(RedisError):
        live.forget_trouble()  # a worker before this one may have had another key
    keep_doing("listing the provider's models", fetch, MODELS_RETRY)


def keep_doing(what, step, pause=TRY_AGAIN):
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
                known = isinstance(error, EXPECTED) or transient(error)
                log.warning("%s: trying again: %s", what, reason(error), exc_info=not known)
            trouble = type(error)
            time.sleep(pause)
