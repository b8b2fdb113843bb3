"""`Chattable`: what a model gets that has chats, and the SQL by which it finds them."""

import functools
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from flask import abort
from redis.exceptions import RedisError
from sqlalchemy import Integer, and_, bindparam, delete, event, func, select, tuple_, type_coerce
from sqlalchemy.orm import Mapped, declared_attr, foreign, relationship, remote

from chattable import live
from chattable.database import Dollars, Moment, commit, db, id_of, persistent
from chattable.family import family_of

# Chats that are deleted in one transaction.
AT_ONCE = 100


class Chattable:
    """Give a model chats, and two hooks that tell about every message in them.

    Mix it into any model with an integer `id`. `thing.chats` lists its chats; `chat.chattable`
    is the thing. Its `name`, if it has one, signs the messages people write.
    """

    if TYPE_CHECKING:  # the model's own
        id: Any

    @declared_attr
    def chats(cls) -> Mapped[list[Any]]:
        """My chats: a polymorphic association, by class name and id."""

        def of_mine():
            chat = family_of(cls).chat
            return and_(
                cls.id == foreign(remote(chat.chattable_id)), chat.chattable_type == kind_of(cls)
            )

        return relationship(
            lambda: family_of(cls).chat,
            primaryjoin=of_mine,
            cascade="all, delete-orphan",
            overlaps="chats",
        )

    def on_message_create(self, message: Any) -> None:
        """Called after a message in one of my chats was saved for the first time.

        And again for a person's message whose worker died before its job was done.
        """

    def on_message_update(self, message: Any) -> None:
        """Called with each piece that a message has grown by, and once it has ended."""

    def on_ask(self, chat: Any, model: str, told: Any) -> str | None:
        """Called before a model is asked for a reply in one of my chats, with what it is told.

        A sentence refuses it: the reply fails with that, and nobody is asked.
        """
        return None

    def on_growing(self, chat_id: int, completion: Any, text: str) -> None:
        """Called about once a second while a reply in one of my chats is written: `text` so far."""

    def on_spent(self, dollars: Decimal) -> None:
        """Called with what a request has cost, in the transaction that keeps it, to add to that."""

    def on_settled(self, chat_id: int) -> None:
        """Called once what the reply in one of my chats has cost is kept, or that there is none."""

    @property
    def chats_channel(self) -> str:
        """The channel of Redis on which my pages follow what becomes of my chats."""
        return live.owner_channel(kind_of(type(self)), id_of(self))

    def begin_chat(self) -> Any:
        """Return a new chat of mine, to be committed; `chats.append` would read all the others."""
        chat = family_of(type(self)).chat(chattable_type=kind_of(type(self)), chattable_id=self.id)
        db.session.add(chat)
        return chat

    def chats_by_recency(
        self, limit: int | None = None, after: tuple[datetime, int] | None = None, **only: Any
    ) -> list[Any]:
        """Return my chats (at most `limit`), the latest active first.

        `after` is the `updated_at` and the id of the chat to go on after; `only` are values that
        columns of a chat's shall have.
        """
        latest = my_latest_chats(family_of(type(self)).chat, after is not None, **only).limit(limit)
        moment, chat_id = after or (None, None)
        values = {"last_moment": moment, "last_id": chat_id} if after else {}
        return list(db.session.scalars(latest, {**self._me, **values}))

    def costs_by_chat(self, chats: Iterable[Any] | None = None) -> dict[int, Decimal]:
        """Return {chat id: dollars spent in it}, of these `chats` of mine or of all.

        A chat without a known price is left out.
        """
        family = family_of(type(self))
        if chats is None:
            asked, values = costs_of_my_chats(family.chat, family.message), self._me
        else:
            asked = costs_of_chats(family.message)
            values = {"chat_ids": [chat.id for chat in chats]}
        rows = db.session.execute(asked, values)
        return {chat_id: total for chat_id, total in rows if total is not None}

    def delete_chats(self) -> list[int]:
        """Delete all my chats and end their replies, some at a time: others write in between.

        Return their ids, for `forget_chats`.
        """
        family = family_of(type(self))
        mine = my_chats(family.chat).with_only_columns(family.chat.id)
        chat_ids = list(db.session.scalars(mine, self._me))
        for start in range(0, len(chat_ids), AT_ONCE):
            delete_some(family, chat_ids[start : start + AT_ONCE])
        return chat_ids

    def stop_replies(self) -> None:
        """Ask for the end of all that is written in my chats, or waits to be; what was said stays.

        Raises `RedisError`.
        """
        family = family_of(type(self))
        mine = my_chats(family.chat).with_only_columns(family.chat.id)
        message = family.message
        running = select(message.id).where(message.is_running(), message.chat_id.in_(mine))
        for message_id in db.session.scalars(running, self._me).all():
            live.request_stop(message_id)

    def chat(self, chat_id: int) -> Any | None:
        """Return one of my chats, or None: anybody else's does not exist."""
        mine = my_chat(family_of(type(self)).chat)
        return db.session.scalar(mine, {**self._me, "chat_id": chat_id})

    def chat_or_404(self, chat_id: int) -> Any:
        return self.chat(chat_id) or abort(404)

    def message_or_404(self, message_id: int) -> Any:
        """Return a message of one of my chats; anybody else's does not exist."""
        family = family_of(type(self))
        mine = my_message(family.chat, family.message)
        return db.session.scalar(mine, {**self._me, "message_id": message_id}) or abort(404)

    @property
    def _me(self):
        return {"kind": kind_of(type(self)), "owner_id": self.id}


@persistent
def delete_some(family, chat_ids):
    chat, message = family.chat, family.message
    said = message.chat_id.in_(chat_ids)
    running = list(db.session.scalars(select(message.id).where(said, message.is_running())))
    # Where the database minds no foreign keys, too.
    db.session.execute(delete(message.__table__).where(said))
    db.session.execute(delete(chat.__table__).where(chat.id.in_(chat_ids)))
    commit()
    for chat_id in chat_ids:
        live.broadcast_deletion(chat_id)
    # Without Redis their writers find out by themselves, when they save what is new.
    with suppress(RedisError):
        for message_id in running:
            live.request_stop(message_id)


def kind_of(cls):
    """Return the name by which chats know an owner's class; a subclass has its parent's."""
    return root_of(cls.__mapper__).__name__


def root_of(mapper):
    """Return the first of an owner's class and its parents that has chats."""
    *_, root = (
        each.class_ for each in mapper.iterate_to_root() if issubclass(each.class_, Chattable)
    )
    return root


@event.listens_for(Chattable, "after_mapper_constructed", propagate=True)
def note_owner(mapper, owner):
    """Know `owner` as soon as its class is there."""
    if root_of(mapper) is not owner:
        return
    id, owners = mapper.columns.get("id"), family_of(owner).owners
    if id is None or mapper.primary_key != (id,) or not is_integer(id.type):
        raise TypeError(f"{owner.__name__} needs an integer id, its primary key, to have chats.")
    if owners.setdefault(owner.__name__, owner) is not owner:
        raise TypeError(f"Two models called {owner.__name__} cannot both have chats.")


def is_integer(type):
    return isinstance(getattr(type, "impl", type), Integer)


@event.listens_for(Chattable, "mapper_configured", propagate=True)
def sign_chats(mapper, owner):
    """Have each chat that joins an owner's chats know it, before anybody has saved the two."""
    kind = kind_of(owner)

    def sign(thing, chat, _):
        chat.chattable_type, chat._chattable = kind, thing

    event.listen(owner.chats, "append", sign)


# Queries that every page asks are built once: to build one takes SQLAlchemy as long as a database
# takes to answer it.


@functools.cache
def my_chats(chat):
    mine = chat.chattable_type == bindparam("kind"), chat.chattable_id == bindparam("owner_id")
    return select(chat).where(*mine)


@functools.cache
def my_latest_chats(chat, going_on=False, **only):
    latest = my_chats(chat).filter_by(**only).order_by(chat._updated_at.desc(), chat.id.desc())
    last = tuple_(bindparam("last_moment", type_=Moment()), bindparam("last_id", type_=Integer()))
    return latest.where(tuple_(chat._updated_at, chat.id) < last) if going_on else latest


@functools.cache
def my_chat(chat):
    return my_chats(chat).where(chat.id == bindparam("chat_id"))


@functools.cache
def my_message(chat, message):
    of_mine = message.chat_id.in_(my_chats(chat).with_only_columns(chat.id))
    return select(message).where(message.id == bindparam("message_id"), of_mine)


@functools.cache
def costs_of_my_chats(chat, message):
    return costs_where(message, message.chat_id.in_(my_chats(chat).with_only_columns(chat.id)))


@functools.cache
def costs_of_chats(message):
    return costs_where(message, message.chat_id.in_(bindparam("chat_ids", expanding=True)))


def costs_where(message, condition):
    return select(message.chat_id, spent(message)).where(condition).group_by(message.chat_id)


def spent(message):
    """Return the sum of all costs (dollars); None where no message has a known one."""
    picodollars = func.sum(message.input_picodollars + message.output_picodollars)
    return type_coerce(picodollars, Dollars)
