"""The SQL that every reply asks of a chat, built once. For the chat alone."""

import functools

from sqlalchemy import and_, bindparam, or_, select, update

from chattable.owner import kind_of, spent


@functools.cache
def with_chat(mapper, owner):
    """Return the query for a chat and the `owner` (a class) it belongs to."""
    chat = mapper.class_
    its = and_(owner.id == chat.chattable_id, chat.chattable_type == kind_of(owner))
    return select(chat, owner).join(owner, its).where(chat.id == bindparam("chat_id"))


@functools.cache
def counted(mapper, *names):
    """Return the statement that counts a change of a chat and sets what has these names.

    It returns the number, and the leaf that is looked at.
    """
    columns = mapper.columns
    values: dict = {columns[name]: bindparam(f"new_{name}") for name in names}
    change = update(mapper.local_table).where(columns["id"] == bindparam("chat_id"))
    values[columns["revision"]] = columns["revision"] + 1
    return change.values(values).returning(columns["revision"], columns["leaf_id"])


@functools.cache
def in_the_way(message):
    """Return the query for what was said before with a `client_id`, or a reply that is written."""
    either = or_(message.client_id == bindparam("client_id"), message.is_running())
    return select(message.id).where(message.chat_id == bindparam("chat_id"), either).limit(1)


@functools.cache
def cost_of_chat(message):
    return select(spent(message)).where(message.chat_id == bindparam("chat_id"))
