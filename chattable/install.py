"""The name that tells this install from others on the same Redis: one row of its database."""

import secrets

from sqlalchemy import CheckConstraint, Column, Integer, String, Table, select, text

from chattable.database import commit, db
from chattable.family import family


def add_table(chats, name):
    """Add the table that holds the name beside an app's own, for its migrations to find."""
    return Table(
        name,
        chats.metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("name", String(20), nullable=False),
        CheckConstraint("id = 1", name="one_install"),
        schema=chats.schema,
    )


def own_name():
    """Return the name; make it where no migration has, one for all who ask at once.

    Raises `SQLAlchemyError` when the database is not there.
    """
    table = family().chat.installs
    return known_name(table) or make_name(table)


def known_name(table):
    # The session's connection, if it has one: whoever waits for a second one may wait long.
    where = {"bind": db.session.get_bind(clause=table)}
    return db.session.scalar(select(table.c.name), bind_arguments=where)


def make_name(table):
    # In the session: SQLite has one writer, which a hook may have made it.
    engine = db.session.get_bind(clause=table)
    name = engine.dialect.identifier_preparer.format_table(table)
    insert = f"INSERT INTO {name} (id, name) VALUES (1, :name) ON CONFLICT DO NOTHING"
    values, where = {"name": secrets.token_hex(5)}, {"bind": engine}
    db.session.execute(text(insert), values, bind_arguments=where)
    commit()
    return known_name(table)
