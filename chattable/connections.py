"""How connections to a database are made, tested and replaced, for apps that want it like this.

`tune` is for an app whose database is all its own: it changes how each statement is waited for.
"""

import functools
import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

import gevent
from flask import Flask
from gevent.monkey import is_module_patched
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError, SQLAlchemyError

from chattable.database import MISPLACED, PARTING_IN_SQLITE, db, diagnosis
from chattable.family import family
from chattable.indexing import SECURE_DELETE, index_of
from chattable.shredder import also_shred

IDLE = 5.0
# Seconds in which a server takes a connection.
CONNECT_PATIENCE = 10
# Seconds in which PostgreSQL answers, if anything still comes through; and whether it lives.
ANSWERED_WITHIN = 30
ALIVE_WITHIN = 5
# A connection that a proxy has forgotten looks well: have the system ask (s, s, times, ms).
KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * ANSWERED_WITHIN,
}
# Of an index, merged at a time: a tenth of a second in which nobody else writes.
PAGES = 500
# Of what passes by itself (`database.PASSING`), what only another connection helps against.
PARTING = ("08", "25006", "25P03", "57P", "58", *MISPLACED)

R = TypeVar("R")
log = logging.getLogger(__name__)


def tune(app: Flask) -> None:
    """Have the databases of an app connected to as hundreds of replies at once need it."""
    also_shred(app, empty_sqlite_log)
    with app.app_context():
        for engine in db.engines.values():
            look_after(engine)


def look_after(engine):
    """Do for one engine what `tune` does for those of an app."""
    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", prepare_sqlite)
    idle = IdleConnections()
    event.listen(engine, "checkin", idle.note)
    event.listen(engine, "checkout", idle.test)
    event.listen(engine, "handle_error", replace_connections)


@functools.cache
def green_connection():
    """Return psycopg's connection, but waiting in gevent's hub: its own way takes twice the CPU."""
    import psycopg

    class GreenConnection(psycopg.Connection):
        def wait(self, gen, interval=0.1, timeout=None):
            if timeout is not None:
                return super().wait(gen, interval, timeout)
            try:
                # psycopg and gevent mean the same by them: 1 to read, 2 to write.
                events = next(gen)
                while True:
                    self._wait_for(events)
                    events = gen.send(events)
            except StopIteration as end:
                return end.value

        def _wait_for(self, events):
            hub = gevent.get_hub()
            # A migration, which is not patched, may take as long as it needs.
            limit = ANSWERED_WITHIN if is_module_patched("socket") else None
            with (
                closing(hub.loop.io(self.pgconn.socket, events)) as watcher,
                gevent.Timeout(limit, False),
            ):
                return hub.wait(watcher)
            self.close()
            raise psycopg.OperationalError(f"the server has said nothing for {limit} s")

        def rollback(self):
            """End the transaction; where the connection is lost, the server has."""
            try:
                super().rollback()
            except psycopg.OperationalError:
                self.close()

    return GreenConnection


class WrongEncoding(SQLAlchemyError):
    """Say in a sentence that the database cannot hold every character."""


def connect(dialect, _record, args, options):
    """Connect to PostgreSQL in UTF-8, whatever this machine's locale is."""
    if dialect.driver != "psycopg":
        return None
    # A host that says nothing would be waited for two minutes, also after it is back.
    if "PGCONNECT_TIMEOUT" not in os.environ:
        options.setdefault("connect_timeout", CONNECT_PATIENCE)
    options.update(KEEPALIVE | options)
    # A pooler (PgBouncer, Supabase's, Neon's) gives each transaction another of the server's
    # connections, which knows nothing of what was prepared before: unless asked for, nothing is.
    prepared = options.get("prepare_threshold")
    options["prepare_threshold"] = None if prepared is None else int(prepared)
    connection = green_connection().connect(*args, **options | {"client_encoding": "utf8"})
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ("UTF8", None):
        connection.close()
        raise WrongEncoding(
            f"DATABASE_URL must name a database with the encoding UTF8; this one has {encoding}."
        )
    return connection


def prepare_sqlite(connection, _record):
    """Let SQLite readers and one writer work at once, and fail fast enough to retry kindly."""
    if type(connection).__module__.startswith("sqlite3"):
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        # What was deleted is overwritten, not only no longer listed.
        connection.execute("PRAGMA secure_delete=ON")
        # A greenlet that waits in SQLite stops every other one: wait briefly, then retry.
        connection.execute("PRAGMA busy_timeout=500")


class IdleConnections:
    """Replace a connection that died while it idled (`pool_pre_ping` would ask every time)."""

    def __init__(self):
        self._doubted_at = -math.inf

    def note(self, connection, record):
        """Note since when a connection idles, and whether it came back dead."""
        record.info["used_at"] = now = time.monotonic()
        # What became of it may have become of those that idled beside it.
        if connection is None or getattr(connection, "closed", False):
            self._doubted_at = now

    def test(self, connection, record, _proxy):
        """Ask a connection that has idled, or whose neighbour has died, whether it lives."""
        if getattr(connection, "closed", False):
            raise DisconnectionError
        now = time.monotonic()
        used_at = record.info.get("used_at", now)
        if now - used_at > IDLE or used_at <= self._doubted_at:
            try:
                with gevent.Timeout(ALIVE_WITHIN, TimeoutError("no answer")):
                    connection.cursor().execute("SELECT 1")
                    connection.rollback()  # a checkpoint could not begin in a transaction
            except Exception as error:  # each driver has its own
                raise InvalidatePoolError from error


def replace_connections(context):
    """Have new connections made after an error that stays with the old ones."""
    state, code = diagnosis(context.original_exception)
    if state.startswith(PARTING) or code in PARTING_IN_SQLITE:
        context.is_disconnect = True


def empty_sqlite_log():
    """Take what was deleted out of SQLite's log; return False if somebody is reading or writing.

    PostgreSQL looks after its files itself.
    """
    engine = db.engine
    if engine.dialect.name != "sqlite":
        return True
    args, options = engine.dialect.create_connect_args(engine.url)
    return beside(checkpoint, args, options, index_of(family().message.__table__))


def checkpoint(args, options, index):
    try:
        with closing(sqlite3.connect(*args, **options | {"timeout": 0.1})) as connection:
            # This waits for nobody, nor anybody for it; what it leaves to the other is little.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return has_no_more_to_forget(connection, index) and not busy
    except sqlite3.Error as error:
        log.warning("the log of the database is not emptied: %s", error)
        return True  # the next deletion tries again


def has_no_more_to_forget(connection, index):
    """Take a part of the deleted words out of an old SQLite's index; a new one keeps none."""
    if sqlite3.sqlite_version_info >= SECURE_DELETE:
        return True
    connection.execute("PRAGMA secure_delete=ON")
    before = connection.total_changes
    with connection:
        connection.execute(f"""INSERT INTO "{index}"("{index}", rank) VALUES ('merge', -{PAGES})""")
    # As sqlite.org/fts5.html has it: the command itself is one.
    return connection.total_changes - before < 2


def beside(work: Callable[..., R], *args: Any) -> R:
    """Do work that takes a tenth of a second in a thread: every page's stream would wait for it."""
    return gevent.get_hub().threadpool.apply(work, args)
