"""A conversation is a tree: the SQL that follows its branches. For the chat alone.

A message follows the one with its `parent_id`, or the one before it (by id) in its chat where it
has none, as in most chats. Those of one role that follow the same message are its versions. A chat
knows the leaf that is looked at, none if that is its latest message.
"""

import functools
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, and_, bindparam, func, literal, or_, select
from sqlalchemy.orm import aliased

# The finish reason of a request that was billed, and whose answer nobody has seen.
UNSEEN = "unseen"
# Where a message goes, beside the id of the one it follows: before all others, or after the latest.
ROOT, LATEST = 0, 2**31 - 1
# More messages than that are told no number.
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

    @property
    def many(self) -> bool:
        """Whether more go on from it than were counted."""
        return self.following >= MANY


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

    It goes on to the message `sought`, as far as there are no more than `most` of them. Each row
    ends with the id of the message that it follows.
    """
    limit, most = bindparam("limit", type_=Integer), bindparam("most", type_=Integer)
    later = bindparam("sought", type_=Integer)

    def goes_on(below):
        return or_(below.c.depth < limit, and_(below.c.id > later, below.c.depth < most))

    up = above(message, goes_on)
    found = select(*(columns or [message]), up.c.parent).join(up, message.id == up.c.id)
    return found.order_by(up.c.depth)


@functools.cache
def leads_to(message):
    """Return the query for the id `sought`, if that is in the branch up from `leaf_id`."""
    sought = bindparam("sought", type_=Integer)
    # What a message follows came before it.
    up = above(message, lambda below: below.c.id > sought)
    return select(up.c.id).where(up.c.id == sought)


def above(message, goes_on):
    """Return the rows (id, parent, depth) up from `leaf_id`, as long as it `goes_on` from one."""
    leaf = select(message.id, parent(message).label("parent"), literal(1).label("depth"))
    below = leaf.where(message.id == tip(message).scalar_subquery()).cte("branch", recursive=True)
    next = select(message.id, parent(message), below.c.depth + 1)
    next = next.join(below, message.id == below.c.parent).where(goes_on(below))
    return below.union_all(next)


@functools.cache
def versions(message):
    """Return the query for what follows the messages `parents` by its `parent_id`."""
    of_chat = message.chat_id == bindparam("chat_id")
    these = message.parent_id.in_(bindparam("parents", expanding=True))
    found = select(message.parent_id, *version_of(message))
    return found.where(of_chat, these, seen(message)).order_by(message.id)


@functools.cache
def first_versions(message):
    """Return the query for what follows the messages `parents` because it comes next."""
    before = aliased(message)
    these: Any = bindparam("parents", expanding=True)
    found = select(before.id, *version_of(message))
    found = found.join(message, message.id == after(before.id, message))
    return found.where(before.id.in_(these), message.parent_id.is_(None))


@functools.cache
def first_of_all(message):
    """Return the query for what a chat begins with because nothing comes before."""
    found = select(literal(ROOT), *version_of(message)).where(message.id == after(ROOT, message))
    return found.where(message.parent_id.is_(None))


@functools.cache
def turnings(message):
    """Return the query for (id, parent_id) of what does not follow the message before it."""
    put_there = message.chat_id == bindparam("chat_id"), message.parent_id.is_not(None)
    return (
        select(message.id, message.parent_id).where(*put_there, seen(message)).order_by(message.id)
    )


def last_written(turnings, ids, top):
    """Return (leaf, count) of the branch down from a message in which something was said last.

    That is the id of its last message, and how many there are after the `top`.
    """
    starts, parents = [ROOT, *(id for id, _ in turnings)], [ROOT, *(id for _, id in turnings)]
    ends = [*(start - 1 for start in starts[1:]), LATEST]
    # Between two turnings, messages follow each other: `own` are those the top is among.
    within = [bisect_right(starts, id) - 1 for id in parents]
    latest = own = bisect_right(starts, top) - 1
    below = {own}
    for each in range(own + 1, len(starts)):
        if within[each] in below and parents[each] >= top:
            below.add(each)
            latest = each
    leaf, count, end = ids[bisect_right(ids, ends[latest]) - 1], 0, ends[latest]
    while latest != own:
        count += between(ids, starts[latest], end)
        latest, end = within[latest], parents[latest]
    return leaf, count + between(ids, top, end) - 1


def between(ids, first, last):
    return bisect_right(ids, last) - bisect_left(ids, first)


@functools.cache
def ids(message):
    """Return the query for the ids of a chat's messages from `first` on."""
    here = message.chat_id == bindparam("chat_id"), message.id >= bindparam("first")
    return select(message.id).where(*here, seen(message)).order_by(message.id)


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


def version_of(message):
    """Return the columns of a message that a `Version` is made of."""
    return message.id, message.role, message.status, message.error, message.content != ""
