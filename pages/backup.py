"""`flask backup` and `flask restore`: a copy of the database in one file, and back.

In it is all that people keep here. The key that signs cookies is not: a copy that falls into
somebody's hands must not let them be anybody here.
"""

import fcntl
import os
import secrets
import shlex
import sqlite3
import tempfile
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import click
from flask import Blueprint, current_app
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chattable import vitals
from models import db

# How PostgreSQL does it, which has tools of its own that know more than we do.
PG_DUMP = 'pg_dump --format=custom --no-owner --file={file} "$DATABASE_URL"'
PG_RESTORE = (
    'pg_restore --clean --if-exists --no-owner --single-transaction --dbname="$DATABASE_URL" {file}'
)
RUNNING = "Chattable runs from this database. Stop its web and worker processes first."
DAMAGED = "This file is damaged, or no database at all."
UPGRADE, ANEW = "flask --app app db upgrade", "flask --app app after-restore"
# Redis may know of chats and jobs what came after a copy, and who was logged out since then must
# not be in again.
NOBODY_IN, ANOTHER_NAME = "DELETE FROM logins", "UPDATE installs SET name = :name"
MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations" / "versions"

routes = Blueprint("backup", __name__, cli_group=None)


def init_app(app):
    """Let an app be copied from its command line."""
    app.register_blueprint(routes)


@routes.cli.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def backup(file, force):
    """Copy the database into FILE while people go on writing."""
    source = own_file(PG_DUMP, file)
    if not source.exists() or not revision_of(source):
        raise click.ClickException("There is no database yet, and nothing to copy.")
    with new_file(file, force) as copy:
        copy_database(source, copy)
        check(copy)
    click.echo(f"The database is in {file}. Keep it secret: it has what everybody wrote.")


@routes.cli.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(file):
    """Have FILE, which `flask backup` wrote, be the database; the one before is kept beside it."""
    target = own_file(PG_RESTORE, file, UPGRADE, ANEW)
    check(file)
    if revision_of(file) not in known_revisions():
        raise click.ClickException(
            "This file is of a newer version of Chattable, or of something else. Restore it there."
        )
    with ExitStack() as held:
        hold_instance(held)
        refuse_running(target)
        with new_file(target, force=True) as copy:
            copy_database(file, copy)
            begin_anew(copy)
            keep_owner(target, copy)
            aside = put_aside(target)
    click.echo(f"The database is that of {file}; everybody logs in once more.")
    if aside:
        click.echo(f"The one before is {aside}.")
    click.echo(f"Now run: {UPGRADE}")


@routes.cli.command("after-restore")
def after_restore():
    """Have a database that other tools have restored be an install in which nobody is logged in."""
    db.session.execute(text(NOBODY_IN))
    db.session.execute(text(ANOTHER_NAME), {"name": new_name()})
    db.session.commit()
    click.echo("Everybody logs in once more. Now start the web and the worker.")


def new_name():
    return secrets.token_hex(5)


def own_file(of_postgres, file, *then):
    """Return the path of our database; exit with the lines to type where it is no SQLite file."""
    url = db.engine.url
    if db.engine.dialect.name == "sqlite":
        return Path(url.database or "").resolve()
    lines = "\n".join([of_postgres.format(file=shlex.quote(os.fspath(file))), *then])
    raise click.ClickException(f"The database is PostgreSQL's, which has its own tool:\n{lines}")


@contextmanager
def new_file(path, force=False):
    """Give the path of an empty file, for its owner alone, that is at `path` once it is whole."""
    if path.exists() and not force:
        raise click.ClickException(f"{path} is there already; --force replaces it.")
    try:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        sentence = f"The folder {path.parent} cannot be written to: {error.strerror}."
        raise click.ClickException(sentence) from None
    try:
        yield Path(name)
        os.fsync(number)
        os.replace(name, path) if force else os.link(name, path)
    except FileExistsError:
        raise click.ClickException(f"{path} is there already; --force replaces it.") from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from None
    except sqlite3.Error as error:
        raise click.ClickException(f"{path} cannot be written: {error}.") from None
    finally:
        os.close(number)
        Path(name).unlink(missing_ok=True)


def copy_database(source, target):
    """Copy an SQLite database as it is at one moment, whoever writes into it."""
    with reading(source) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)
        # One file, without a log beside it.
        other.execute("PRAGMA journal_mode=DELETE")


@contextmanager
def reading(path):
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
        yield connection


def check(path):
    """Exit with a sentence unless a file is a sound SQLite database."""
    try:
        with reading(path) as connection:
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error:
        said = None
    if said != "ok":
        raise click.ClickException(DAMAGED)


def revision_of(path):
    """Return at which migration a database is, None if at none."""
    try:
        with reading(path) as connection:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return found and found[0]


def known_revisions():
    return {path.name.partition("_")[0] for path in MIGRATIONS.glob("*.py")}


def hold_instance(held):
    """Let no launcher start from here meanwhile; exit where one runs."""
    path = Path(current_app.instance_path) / "running.env"
    if path.exists():
        file = held.enter_context(path.open("r+"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(RUNNING) from None


def refuse_running(target):
    """Exit where a process has the database open, or a worker says that it lives."""
    if not target.exists():
        return
    try:
        if vitals.living_workers():
            raise click.ClickException(RUNNING)
    except (RedisError, SQLAlchemyError):
        pass  # without Redis none works, and a broken database has no name
    db.session.remove()
    db.engine.dispose()
    with closing(sqlite3.connect(target, timeout=0.5)) as connection:
        try:
            # It needs the file for itself alone, and takes the log into it.
            connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError:
            raise click.ClickException(RUNNING) from None
        except sqlite3.DatabaseError:
            pass  # it is broken, which may be why it is to be replaced


def begin_anew(path):
    """Have a copy be an install of its own, in which nobody is logged in."""
    with closing(sqlite3.connect(path)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if "logins" in tables:
            connection.execute(NOBODY_IN)
        if "installs" in tables:
            connection.execute(ANOTHER_NAME, {"name": new_name()})


def keep_owner(target, copy):
    """Leave the database to whom it belongs, also where an administrator restores it."""
    owner = (target if target.exists() else target.parent).stat()
    with suppress(PermissionError):
        os.chown(copy, owner.st_uid, owner.st_gid)


def put_aside(target):
    """Rename a database that is there, with the log beside it; return its new path, or None."""
    if not target.exists():
        return None
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    aside = target.with_name(f"{target.name}.before-{moment}")
    for part in ("-wal", "-shm", ""):
        beside = target.with_name(target.name + part)
        if beside.exists():
            beside.rename(f"{aside}{part}")
    return aside
