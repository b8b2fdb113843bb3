"""What any module needs of the database: its session, patience with it, its own types."""

import functools
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain, repeat
from typing import Any, ParamSpec, TypeVar

from flask import current_app, has_request_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import BigInteger, DateTime, inspect, type_coerce
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.types import TypeDecorator
from werkzeug.local import LocalProxy

# Seconds for which a job and a page wait for the database.
PATIENCE = 600
PATIENCE_OF_A_PAGE = 10
# SQLSTATEs of a prepared statement that is unknown, or there already: a pooler such as PgBouncer
# shares the server's connections among its clients.
MISPLACED = ("26000", "42P05")
# SQLSTATEs, or their beginnings, of what passes by itself: connections, failover, conflicts,
# resources, shutdown, I/O.
PASSING = ("08", "25006", "25P", "40", "53", "55P03", "57", "58", *MISPLACED)
UNDEFINED_TABLE = "42P01"
PASSING_IN_SQLITE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_FULL,
}
# A connection that was opened while the file could not be written stays like that.
PARTING_IN_SQLITE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)

# The app's own Flask-SQLAlchemy, whichever app this is.
db: SQLAlchemy = LocalProxy(  # type: ignore[assignment] # a proxy passes for one
    lambda: current_app.extensions["sqlalchemy"]
)


def persistent(work: Callable[P, R]) -> Callable[P, R]:
    """Retry `work` while the database is locked or away: a job for minutes, a page for seconds."""

    @functools.wraps(work)
    def patiently(*args, **kwargs):
        end = time.monotonic() + (PATIENCE_OF_A_PAGE if has_request_context() else PATIENCE)
        for delay in chain((0.05, 0.1, 0.2, 0.5, 1), repeat(2)):
            try:
                return work(*args, **kwargs)
            except SQLAlchemyError as error:
                if not transient(error) or time.monotonic() > end:
                    raise
                if delay < 0.1:
                    log.warning("%s: waiting for the database: %s", work.__name__, reason(error))
                roll_back()
            time.sleep(delay)

    return patiently


def commit():
    """Commit, but keep what is loaded: to read it again would cost a reply a connection."""
    session = db.session()
    usual, session.expire_on_commit = session.expire_on_commit, False
    try:
        session.commit()
    finally:
        session.expire_on_commit = usual


def release():
    """Save what a hook has left open, if anything, and give its connection back."""
    if db.session().in_transaction():
        commit()


def outdate(row, *names):
    """Have attributes that SQL has changed read anew, where the app has each commit do so."""
    session = db.session()
    if session.expire_on_commit and row in session:
        session.expire(row, names)


def roll_back():
    """End the session's transaction, also one whose connection is broken."""
    with suppress(SQLAlchemyError):
        db.session.rollback()


def transient(error):
    """Return whether what a database says passes by itself: the same work may succeed later.

    PostgreSQL tells by its SQLSTATE (postgresql.org/docs/current/errcodes-appendix.html), SQLite by
    its result code (sqlite.org/rescode.html).
    """
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeout | PendingRollbackError)
    state, code = diagnosis(error.orig)
    if state or code:
        return state.startswith(PASSING) or code in PASSING_IN_SQLITE | PARTING_IN_SQLITE
    # It said nothing: there is no connection.
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


def lacks_a_table(error):
    """Return whether a database says that it was not migrated."""
    state, _ = diagnosis(getattr(error, "orig", None))
    return state == UNDEFINED_TABLE or "no such table" in str(reason(error))


def reason(error):
    """Return the driver's own error: SQLAlchemy's shows what people wrote."""
    named = type(error).__name__ if isinstance(error, PendingRollbackError) else error
    return getattr(error, "orig", None) or named


def diagnosis(error):
    """Return (SQLSTATE or "", SQLite's primary result code or 0) of a driver's error."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    # psycopg's name of it, and psycopg2's.
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state or "", code & 0xFF


def now() -> datetime:
    return datetime.now(UTC)


class Moment(TypeDecorator):
    """A point in time, always aware and in UTC (SQLite forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value and value.astimezone(UTC)

    def process_result_value(self, value, dialect):
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class Dollars(TypeDecorator):
    """An exact amount of money, kept as whole picodollars: SQLite has no decimals."""

    impl = BigInteger
    cache_ok = True
    SCALE = 10**12

    def process_bind_param(self, value, dialect):
        return None if value is None else int((Decimal(value) * self.SCALE).to_integral_value())

    def process_result_value(self, value, dialect):
        return None if value is None else Decimal(int(value)) / self.SCALE


def picodollars(amount):
    """Return a sum (Decimal, or None) as it is kept."""
    return Dollars().process_bind_param(amount, None)


def converted(column: str, to: Any) -> hybrid_property:
    """Return an attribute that reads and writes one of plain type, `column`, as `to` has it.

    A migration can be written of plain types alone: it would have to import any other.
    """

    def read(self):
        return to.process_result_value(getattr(self, column), None)

    def write(self, value):
        setattr(self, column, to.process_bind_param(value, None))

    return hybrid_property(read, write, expr=lambda cls: type_coerce(getattr(cls, column), to))


def id_of(row):
    """Return the id of a row that was saved, without asking whether it still is."""
    return inspect(row).identity[0]


def never_reuse_ids(table):
    """Have SQLite give each id once.

    What a stale page, or Redis, still knows of what was deleted must not fit something new.
    """
    table.dialect_options["sqlite"]["autoincrement"] = True
