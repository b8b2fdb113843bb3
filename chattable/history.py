"""What a provider is told of a chat: as much as its model reads. For the chat alone."""

import functools
from itertools import takewhile

from sqlalchemy import Integer, bindparam, case, func, literal, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import aliased
from sqlalchemy.sql.functions import FunctionElement

from chattable.branches import LATEST, parent, seen, tip
from chattable.provider import AROUND, Told
from chattable.writing import RUNNING


def tell(rows, asides, question, cut):
    """Return the `Told` of what `latest` and `asides` have found: nothing blank, nothing running.

    A `question` that is not saved yet has no id.
    """
    rows = [*takewhile(lambda row: not rows or row.id < rows[-1].id, asides), *reversed(rows)]
    said = [row for row in rows if row.status not in RUNNING and row.content.strip()]
    lines = [(row.id, row.role, row.content) for row in said]
    return Told(lines + ([(None, "user", question)] if question else []), cut)


def told(message):
    """Return the columns of a message that `tell` looks at."""
    return message.id, message.role, message.content, message.status


@functools.cache
def latest(message):
    """Return the query for what a branch ends with up from `leaf_id`, the last message first.

    It goes up until `room` bytes are full, and as far as the question in any case, the last that a
    person said; not if that was `asked` (1, else 0) beside. Each row ends with the id of the
    message that it follows.
    """
    up = filling(message)
    found = select(*told(message), up.c.parent).join(up, message.id == up.c.id)
    return found.where(has_room(up)).order_by(up.c.depth)


@functools.cache
def filled(message):
    """Return the query for how many bytes the messages take that `latest` finds."""
    up = filling(message)
    return select(func.max(up.c.used)).where(has_room(up))


def filling(message):
    """Return the messages up from a leaf, each with the bytes that it and those below it take."""
    taken = octets(message.content) + AROUND
    leaf = select(
        message.id,
        parent(message).label("parent"),
        literal(1).label("depth"),
        taken.label("used"),
        message.role.label("role"),
        bindparam("asked", type_=Integer).label("asked"),
    )
    below = leaf.where(message.id == tip(message).scalar_subquery()).cte("latest", recursive=True)
    above = select(
        message.id,
        parent(message),
        below.c.depth + 1,
        below.c.used + taken,
        message.role,
        case((below.c.role == "user", 1), else_=below.c.asked),
    )
    above = above.join(below, message.id == below.c.parent).where(has_room(below))
    return below.union_all(above)


def has_room(up):
    return or_(up.c.used <= bindparam("room", type_=Integer), up.c.asked == 0)


@functools.cache
def asides(message):
    """Return the query for what the system has said in a chat before anybody else did."""
    said_here, other = message.chat_id == bindparam("chat_id"), aliased(message)
    others = select(other.id).where(other.chat_id == message.chat_id, other.role != "system")
    first = others.order_by(other.id).limit(1).scalar_subquery()
    before = message.id < func.coalesce(first, LATEST)
    found = select(*told(message)).where(said_here, message.role == "system", before)
    return found.where(seen(message)).order_by(message.id)


class octets(FunctionElement):  # noqa: N801 (as SQLAlchemy calls its functions)
    """The bytes of a text in UTF-8; PostgreSQL knows them without reading the text."""

    type = Integer()
    inherit_cache = True


@compiles(octets)
def count_octets(element, compiler, **options):
    return f"octet_length({compiler.process(element.clauses, **options)})"


@compiles(octets, "sqlite")
def count_octets_of_blob(element, compiler, **options):
    # Its own octet_length came with 3.43.
    return f"length(CAST({compiler.process(element.clauses, **options)} AS BLOB))"
