"""DATABASE_URL: the address of the database as its driver takes it, or a sentence about it."""

import os
import re
from urllib.parse import unquote

import click
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from chattable import serve
from chattable.addresses import split_login
from chattable.connections import WrongEncoding
from chattable.database import diagnosis, reason
from chattable.unreachable import first_line
from models import db
from pages.values import refuse

AN_EXAMPLE = "An example: postgres://user:password@host/db"
A_FILE = "An example: sqlite:////home/ada/chattable.db"
WRONG_OPTION = "DATABASE_URL: an option after the ? is unknown or wrong."
# Where the options after an SQLite file begin: its path may have a ? itself.
OPTIONS = re.compile(r"(?=\?\w+=[^/]*$)")
# How other drivers (Prisma's, node's, JDBC's) pool and prepare behind a pooler.
FOREIGN = {
    *("pgbouncer", "connection_limit", "pool_timeout", "socket_timeout", "pool_mode", "supa"),
    *("statement_cache_size", "prepareThreshold", "prepared_statements", "workaround"),
}
# libpq reads them late, and repeats what it cannot read.
NUMBERS = {
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval"),
    *("keepalives_count", "tcp_user_timeout", "prepare_threshold"),
}
# How libpq and psycopg refuse the value of an option.
MISREAD = re.compile(r"invalid .*value|bad value for")
# SQLSTATEs of a replica, and of a pooler that takes no transactions.
UNFIT = "25006", "08P01"


def database_url(settings, instance):
    """Return the SQLAlchemy URL; platforms still say postgres:// for PostgreSQL."""
    text = settings.get("DATABASE_URL")
    if not text:
        folder = serve.open_folder(instance)
        return URL.create("sqlite", database=str(folder / "chattable.db"))
    scheme, mark, place = text.partition("://")
    backend = scheme.lower().partition("+")[0]
    if not mark:
        refuse(f"DATABASE_URL is not a database address. {AN_EXAMPLE}")
    if backend == "sqlite":
        return usable(sqlite_url(place, instance))
    if backend in ("postgres", "postgresql"):
        return usable(postgres_url(place))
    refuse("DATABASE_URL must begin with postgres:// or sqlite:///, the databases supported.")


def sqlite_url(place, instance):
    """Return the URL of a file, whose name may have any sign; a relative one is in the instance."""
    path, *options = OPTIONS.split(place, maxsplit=1)
    if not path.startswith("/"):
        refuse(f"DATABASE_URL: sqlite:// takes a third slash, and then the file's path. {A_FILE}")
    path = os.path.expanduser(unquote(path[1:]))
    if path in ("", ":memory:") or "mode=memory" in "".join(options):
        refuse(f"DATABASE_URL must name a file: each process has a memory of its own. {A_FILE}")
    if (instance / path).parent == instance:
        serve.open_folder(instance)
    return make_url("".join(["sqlite://", *options])).set(database=path)


def postgres_url(place):
    login, rest = split_login(place)
    if re.match("[^/?#]*,", rest):
        refuse("DATABASE_URL names several servers; it must be the address of one.")
    try:
        # An @ of an option would end a password.
        url = make_url(f"postgresql+psycopg://{login}{rest.replace('@', '%40')}")
        blank = re.search(r"\s", url.host or "")
        if not blank and (url.port is None or url.port in range(1, 65536)):
            return for_libpq(url)
    except (ArgumentError, ValueError):
        pass
    refuse(
        "DATABASE_URL must be like postgres://user:password@host:5432/db: a port is a number up to "
        "65535, and an IPv6 address is in brackets."
    )


def for_libpq(url):
    """Return an address of PostgreSQL as libpq takes it, without what other drivers have in it."""
    from psycopg.pq import Conninfo

    query = {name: value for name, value in url.query.items() if name not in FOREIGN}
    if query.pop("schema", "public") != "public":
        refuse(
            "DATABASE_URL cannot name a schema: give its role one (ALTER ROLE … SET search_path)."
        )
    for name, value in query.items():
        if name != "host" and not isinstance(value, str):
            refuse("DATABASE_URL has an option twice.")
    for name in NUMBERS & query.keys():
        if not re.fullmatch("[0-9]{1,9}", query[name]):
            refuse(f"DATABASE_URL: {name} must be a number, or be left out.")
    known = {"prepare_threshold", *(each.keyword.decode() for each in Conninfo.get_defaults())}
    for name in query.keys() - known:
        refuse(f"DATABASE_URL: PostgreSQL knows no “{name}” in an address; for TLS it is sslmode.")
    host = url.host and unquote(url.host)  # a socket's folder
    return url.set(host=host, query=query)


def usable(url):
    """Return a URL if its driver knows the options: to wait would not help where it does not."""
    try:
        url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError, TypeError):
        refuse(WRONG_OPTION)
    return url


def refuse_other_encodings(app):
    """Exit if the database cannot hold every character; one that is away may come back."""
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            return  # always Unicode
        try:
            db.engine.connect().close()
        except WrongEncoding as sentence:
            refuse(str(sentence))
        except SQLAlchemyError as error:
            if MISREAD.search(str(reason(error))):
                refuse(WRONG_OPTION)
            if not click.get_current_context(silent=True):  # a command says it itself
                app.logger.warning("the database is away: %s", first_line(error))
        finally:
            db.engine.dispose()


def refuse_closed_database(error):
    """Exit with the reason why a database was not opened; raise what happened in an open one."""
    if error.statement and diagnosis(error.orig)[0] not in UNFIT:
        raise error
    refuse(f"DATABASE_URL: the database cannot be opened: {first_line(error)}")
