"""A conversation is a tree: the SQL that follows its branches. For the chat alone.

A message follows the one with its `parent_id`, or the one before it (by id) in its chat where it
has none, as in most chats. Those of one role that follow the same message are its versions. A chat
knows the leaf that is looked at, none if that is its latest message.
"""

import functools
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, bindparam, case, func, literal, select
from sqlalchemy.orm import aliased

# The finish reason of a request that was billed, and whose answer nobody has seen.
UNSEEN = "unseen"
# Where a message goes, beside the id of the one it follows: before all others, or after the latest.
ROOT, LATEST = 0, 2**31 - 1
# More messages than that are not counted.
MANY = 1_000


@dataclass
class Version:
    """One of several messages in the same place, and how many go on from it in its branch."""

    id: int
    role: str
    status: str
    error: str | None
    said: bool
    following: int = 0


@functools.cache
def tip(message):
    """Return the query for the id of the last message up to `leaf_id`, of all if that is None.

    The first message has nothing before it. One that was deleted has left its place to another.
    """
    leaf_id = func.coalesce(bindparam("leaf_id", type_=Integer), LATEST)
    return last(message, message.chat_id == bindparam("chat_id"), message.id <= leaf_id)


@functools.cache
def branch(message, *columns):
    """Return the query for `limit` messages up from `leaf_id` (see `tip`), the last one first.

    Each row ends with the id of the message that it follows.
    """
    here = bindparam("limit", type_=Integer)
    leaf = select(message.id, parent(message).label("parent"), literal(1).label("depth"))
    below = leaf.where(message.id == tip(message).scalar_subquery()).cte("branch", recursive=True)
    above = select(message.id, parent(message), below.c.depth + 1)
    above = above.join(below, message.id == below.c.parent).where(below.c.depth < here)
    up = below.union_all(above)
    found = select(*(columns or [message]), up.c.parent).join(up, message.id == up.c.id)
    return found.order_by(up.c.depth)


@functools.cache
def versions(message):
    """Return the query for what follows the messages `parents` by its `parent_id`."""
    of_chat = message.chat_id == bindparam("chat_id")
    these = message.parent_id.in_(bindparam("parents", expanding=True))
    found = select(message.parent_id, *told(message))
    return found.where(of_chat, these, seen(message)).order_by(message.id)


@functools.cache
def first_versions(message):
    """Return the query for what follows the messages `parents` because it comes next."""
    before = aliased(message)
    these: Any = bindparam("parents", expanding=True)
    found = select(before.id, *told(message)).join(message, message.id == after(before.id, message))
    return found.where(before.id.in_(these), message.parent_id.is_(None))


@functools.cache
def first_of_all(message):
    """Return the query for what a chat begins with because nothing comes before."""
    found = select(literal(ROOT), *told(message)).where(message.id == after(ROOT, message))
    return found.where(message.parent_id.is_(None))


@functools.cache
def down(message):
    """Return the query for (id, leaf, count): where the latest branches through `tops` end.

    It counts how many messages each of them has below, `limit` for all of them at most.
    """
    these: Any = bindparam("tops", expanding=True)
    limit = bindparam("limit", type_=Integer)
    tops = select(message.id.label("top"), message.id).where(message.id.in_(these))
    above = tops.cte("down", recursive=True)
    below = select(above.c.top, latest_child(above.c.id, message)).where(above.c.id.is_not(None))
    all_of_them = above.union_all(below)
    found = select(all_of_them.c.top, all_of_them.c.id).limit(limit).subquery()
    told = found.c.top, func.max(found.c.id), func.count(found.c.id) - 1
    return select(*told).group_by(found.c.top)


def latest_child(id, message):
    """Return the id of the latest message that follows another, in SQL."""
    child, next = aliased(message), aliased(message)
    put_there = last(child, child.chat_id == bindparam("chat_id"), child.parent_id == id)
    simply = following(next, id, case((next.parent_id.is_(None), next.id)))
    # Those that were put there came later.
    return func.coalesce(put_there.scalar_subquery(), simply.scalar_subquery())


def parent(message):
    """Return the id of the message before another, in SQL."""
    before = aliased(message)
    up_to = before.id <= func.coalesce(message.parent_id, message.id - 1)
    return last(before, before.chat_id == message.chat_id, up_to).scalar_subquery()


def following(message, id, what):
    """Return the query for what there is of the message that comes next after another."""
    later = message.chat_id == bindparam("chat_id"), message.id > id
    return select(what).where(*later, seen(message)).order_by(message.id).limit(1)


def after(id, message):
    next = aliased(message)
    return following(next, id, next.id).scalar_subquery()


def last(message, *where):
    return select(message.id).where(*where, seen(message)).order_by(message.id.desc()).limit(1)


def seen(message):
    return func.coalesce(message.finish_reason, "") != UNSEEN


def told(message):
    return message.id, message.role, message.status, message.error, message.content != ""
