"""`ChatMixin`: a conversation, whose it is, and how it goes on."""

import functools
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from redis.exceptions import RedisError
from sqlalchemy import (
    DateTime,
    Index,
    Integer,
    String,
    and_,
    delete,
    event,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, declared_attr, foreign, mapped_column, relationship
from sqlalchemy.orm.attributes import set_committed_value

from chattable import install, live, provider, tallies
from chattable.branches import LATEST, UNSEEN, seen
from chattable.database import (
    Moment,
    commit,
    converted,
    db,
    id_of,
    never_reuse_ids,
    now,
    outdate,
    persistent,
    release,
)
from chattable.family import family_of
from chattable.message import MessageMixin, is_doubled
from chattable.owner import Chattable
from chattable.queries import cost_of_chat, counted, in_the_way, with_chat
from chattable.reading import Reading
from chattable.writing import INTERRUPTED, give_up


class ReplyInProgress(Exception):
    """The chat already has a reply being written."""


class ChatMixin(Reading):
    """A conversation. At most one reply in it is being written at any time.

    Mix it into one model of an app, of any name and with any columns of its own.
    """

    # The table that names this install, see `install`; named after the chats' if it has no name.
    __installs__: str | None = None

    # Types are explicit: an app's own base may map `int` and `bool` to others.
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    chattable_type: Mapped[str] = mapped_column(String(80))
    chattable_id: Mapped[int] = mapped_column(Integer)
    # Counts the changes of this chat's messages; a page that knows its number can catch up.
    revision: Mapped[int] = mapped_column(Integer, default=0)
    # The last message of the branch looked at, none if that is the latest of all; and the revision
    # at which another branch than before was.
    leaf_id: Mapped[int | None] = mapped_column(Integer)
    branch_revision: Mapped[int] = mapped_column(Integer, default=0)
    # The first message that was sent with the last reply's, if not all were, and to which model;
    # none if all were, ever.
    unsent_above: Mapped[int | None] = mapped_column(Integer)
    unsent_to: Mapped[str | None] = mapped_column(String(200))
    _created_at: Mapped[datetime] = mapped_column("created_at", DateTime(True), default=now)
    # When a message was last added: what changes one later moves no chat up.
    _updated_at: Mapped[datetime] = mapped_column("updated_at", DateTime(True), default=now)

    created_at = converted("_created_at", Moment())
    updated_at = converted("_updated_at", Moment())

    @declared_attr
    def messages(cls) -> Mapped[list[Any]]:
        """What was said, in every branch, first to last; `path` is one conversation."""
        family = family_of(cls)

        def said_here():
            message = family.message
            return and_(foreign(message.chat_id) == cls.id, seen(message))

        return relationship(
            lambda: family.message,
            back_populates="chat",
            order_by=lambda: family.message.id,
            cascade="all, delete-orphan",
            passive_deletes=True,
            primaryjoin=said_here,
        )

    # What an app may have its own way.

    def also_changes(self, content: str | None) -> dict[str, Any]:
        """Return {column: value}: what else of me changes when somebody says `content`."""
        return {}

    def surroundings(self) -> list[str]:
        """Return the frames that bring up to date what a page shows of me beside the messages."""
        return []

    # Looking.

    @classmethod
    def with_owner(cls, chat_id: int) -> Self | None:
        """Return a chat, its `chattable` read by the same query; None if the chat is gone.

        Raises LookupError for a chat whose owner is not here, or is of a class nobody imported.
        """
        # The others are in another database.
        here, owners = inspect(cls), family_of(cls).owners.values()
        beside = (each for each in owners if each.metadata is here.local_table.metadata)
        for owner in beside:
            for chat, chattable in db.session.execute(with_chat(here, owner), {"chat_id": chat_id}):
                chat._chattable = chattable
                return chat
        if chat := db.session.get(cls, chat_id):
            chat._chattable = chat._find_owner()
            if not chat._chattable:
                raise LookupError(f"no {chat.chattable_type} {chat.chattable_id} owns {chat_id}")
        return chat

    @classmethod
    def exists(cls, chat_id: int) -> bool:
        return db.session.scalar(select(cls.id).where(cls.id == chat_id)) is not None

    @functools.cached_property
    def _chattable(self):
        return self._find_owner()

    @property
    def chattable(self) -> Any:
        """The user (or other `Chattable`) this chat belongs to; None if it is gone.

        Raises LookupError for one of a class that nobody imported.
        """
        return self._chattable

    @chattable.setter
    def chattable(self, owner):
        owner.chats.append(self)

    @property
    def hooks(self):
        """Whoever is told of my messages: nobody, if my owner is gone."""
        return self.chattable or Chattable()

    def _find_owner(self):
        owner = family_of(type(self)).owners.get(self.chattable_type)
        if owner is None:
            raise LookupError(f"no model called {self.chattable_type} has chats; import its module")
        return db.session.get(owner, self.chattable_id)

    @property
    def cost(self) -> Decimal | None:
        """Dollars spent in this chat so far (Decimal), or None if no price is known."""
        return db.session.scalar(cost_of_chat(self._message), {"chat_id": id_of(self)})

    @property
    def model(self) -> str | None:
        """The model of the latest reply, or None."""
        return self._latest(self._message.model, self._message.role == "assistant")

    @property
    def latest_prompt(self) -> int:
        """How many tokens the latest reply was asked with, 0 if nobody knows."""
        tokens = self._message.prompt_token_usage
        return self._latest(tokens, tokens.is_not(None)) or 0

    def _latest(self, what, where):
        message = self._message
        here = where, seen(message), message.id <= (self.leaf_id or LATEST)
        return db.session.scalar(self._mine(what).where(*here).order_by(message.id.desc()).limit(1))

    @classmethod
    @persistent
    def has_running_reply(cls, chat_id: int) -> bool:
        """Return whether a reply in a chat is being written, and hold no connection afterwards."""
        message = family_of(cls).message
        mine = message.chat_id == chat_id, message.is_running()
        found = db.session.scalar(select(message.id).where(*mine)) is not None
        commit()
        return found

    # Going on.

    # `after` is the id of the message that the new one follows, `ROOT` or `LATEST`. Where there is
    # none, the conversation goes on that was looked at last.

    def say(
        self, role: str, content: str, client_id: str | None = None, after: int | None = None
    ) -> Any | None:
        """Save a message and return it; the one already there if its `client_id` is known.

        None if the chat has been deleted meanwhile.
        """
        self._save_waiting()
        said = spoken_by(role, content, client_id)
        added = self._add(said, after=after)
        return added[0] if added else client_id and self._message.said(id_of(self), client_id)

    def exchange(
        self, content: str, client_id: str, model: str, after: int | None = None, **ended: Any
    ) -> list[Any] | None:
        """Save what a person said and begin the reply to it; return both messages.

        None if one of them cannot be: it was said before, or a reply is being written. `ended` is
        how the reply is, where nobody is to write it.
        """
        said = spoken_by("user", content, client_id)
        # With its content, for both to go in one INSERT.
        reply: dict[str, Any] = {"role": "assistant", "content": "", "model": model}
        reply |= {"status": "pending", "waits": False}
        return self._add(said, reply | ended, after=after)

    def run(self, model: str, after: int | None = None) -> Any:
        """Ask `model` for the next reply, stream it into a new message and return that.

        Raises `ReplyInProgress` if a reply is being written already. A provider that fails
        raises nothing: the message ends as "failed" and says why in `error`.
        """
        self._save_waiting()
        completion = self.asking(model, self.told(model, after))
        # Before the provider is asked, and bills: another reply may be running.
        message = self.begin_reply(model, after)
        with completion:
            message.receive(completion)
        return message

    def ask(
        self, model: str, content: str, client_id: str, after: int | None = None
    ) -> "provider.Completion | None":
        """Return the `Completion`, a context that asks at once, of the answer to `content`.

        None if that was said before, or a reply is being written. For whoever is sure to be the
        only one that asks: unlike `run`, this may be billed in vain.
        """
        if self._ask(in_the_way(self._message), client_id=client_id):
            return None
        return self.asking(model, self.told(model, after, content))

    def asking(self, model, told):
        """Return the `Completion` of what a model is told, refused if my owner says so."""
        return provider.Completion(model, told, self.hooks.on_ask(self, model, told))

    @persistent
    def book(self, model: str, usage: provider.Usage) -> None:
        """Keep the cost of a request whose answer nobody sees, as a reply that is not shown."""
        lost = self._message(chat_id=id_of(self), role="assistant", model=model, status="failed")
        lost.error, lost.finished_at, lost.finish_reason = INTERRUPTED, now(), UNSEEN
        lost.prompt_token_usage, lost.completion_token_usage = usage.prompt, usage.completion
        lost.usage_estimated = usage.estimated
        lost.input_cost, lost.output_cost = provider.costs(model, usage)
        lost.revision = self.next_revision()
        self.hooks.on_spent((lost.input_cost or 0) + (lost.output_cost or 0))
        if lost.revision is None:  # I am gone, what was paid is not
            return commit()
        db.session.add(lost)
        commit()
        set_committed_value(lost, "chat", self)
        tallies.note_usage(lost)
        self.hooks.on_message_update(lost)
        release()

    def begin_reply(self, model: str, after: int | None = None, waits: bool = False) -> Any:
        """Save a new reply, for its writer, and return it. Raises `ReplyInProgress`."""
        new = {"role": "assistant", "model": model, "status": "pending", "waits": waits}
        begun = self._save(now(), [new], after)
        if not begun and self._make_way():
            begun = self._save(now(), [new], after)
        if not begun:
            raise ReplyInProgress
        try:
            self._tell(begun)
        except BaseException:
            give_up(begun[0])
            raise
        return begun[0]

    def begin_version(self, reply: MessageMixin, model: str) -> list[Any]:
        """Save another version of a reply, which waits for its writer; return it in a list."""
        return [self.begin_reply(model, self.parent_of(reply), waits=True)]

    def _add(self, *new, after):
        """Save new messages and tell the hook; return them, or None if a unique index says no."""
        messages = self._save(now(), new, after)
        if messages:
            self._tell(messages)
        return messages or None

    @persistent
    def _save(self, moment, new, after):
        self._flush()
        changes = self.also_changes(new[0].get("content"))
        revision = self.next_revision(_updated_at=now(), **changes)
        if revision is None:  # I am gone, and SQLite may not mind
            db.session.rollback()
            return []
        common = {"chat_id": id_of(self), "created_at": moment, "revision": revision}
        messages = [self._message(**common, **values) for values in new]
        messages[0].parent_id = self._place(after)
        db.session.add_all(messages)
        try:
            commit()
        except IntegrityError as error:
            db.session.rollback()
            saved = self._saved_at(moment)
            if saved or is_doubled(error, self._message):
                return saved
            raise
        for name, value in changes.items():
            set_committed_value(self, name, value)
        self.outdate()
        return messages

    def _place(self, after):
        """Return the `parent_id` of a new message, and look at the branch that it continues."""
        leaf_id, after = self.leaf_id, self._start(after)
        if not leaf_id and after in (None, LATEST):
            return None
        parent_id = self._tip(after)
        turns = parent_id != self._tip(leaf_id)
        if turns or leaf_id:
            self.turn(None, told=turns)
        return parent_id

    def outdate(self):
        """Know that a message has come or ended."""
        outdate(self, "messages", "revision", "_updated_at")

    def _make_way(self):
        """End a running reply whose writer is gone; return whether none is running now."""
        if reply := self.running_reply:
            reply.make_way()
        return not self.has_running_reply(id_of(self))

    def _save_waiting(self):
        """Save what the app has in its session: what fails later must not take it along."""
        self._flush()
        release()

    def _flush(self):
        """Have an id, also if I am new and nobody has saved me yet."""
        if not inspect(self).has_identity:
            db.session.add(self)
            db.session.flush()

    def _saved_at(self, moment):
        """Return the messages that a commit whose answer was lost has saved."""
        mine = self._mine().where(self._message.created_at == moment)
        return db.session.scalars(mine.order_by(self._message.id)).all()

    @persistent
    def _tell(self, messages):
        for message in messages:
            set_committed_value(message, "chat", self)
            self.hooks.on_message_create(message)
        # A reply must not hold a database connection while it streams.
        commit()

    def next_revision(self, **changes: Any) -> int | None:
        """Count one more change (in the transaction at hand), make those of columns that go along.

        Return its number, None if the chat is gone. With it I know which leaf is looked at.
        """
        values = {f"new_{name}": value for name, value in changes.items()}
        values["chat_id"] = id_of(self)
        counting = counted(inspect(self).mapper, *changes)
        counted_now = db.session.execute(counting, values).one_or_none()
        if counted_now is None:
            return None
        set_committed_value(self, "revision", counted_now.revision)
        set_committed_value(self, "leaf_id", counted_now.leaf_id)
        return counted_now.revision

    # Branches.

    @persistent
    def show(self, message: MessageMixin) -> None:
        """Have the branch through a message looked at, on every page and from now on."""
        if self.next_revision() is None:
            return db.session.rollback()
        if not self.leads_to(id_of(message)):
            self._look_at(self._leaf_under(id_of(message)))
        commit()
        live.announce(id_of(self), live.ANEW)

    def turn(self, leaf_id: int | None, told: bool = True) -> None:
        """Look at another leaf, in the transaction that has counted the change.

        The pages are `told` where they have to show something else than before.
        """
        values: dict = {"leaf_id": leaf_id}
        if told:
            # What was sent of another branch is not said of this one.
            values |= {"branch_revision": self.revision, "unsent_above": None}
        self._set(**values)

    def _set(self, **values):
        table = inspect(self).mapper.local_table
        db.session.execute(update(table).where(table.c.id == id_of(self)).values(values))
        for name, value in values.items():
            set_committed_value(self, name, value)

    def settle_on(self, reply: MessageMixin, worthless: bool) -> None:
        """Note, in the transaction that ends a reply, which branch is looked at from now on.

        A version that is `worthless` leaves the one before it on show.
        """
        if self.leaf_id:
            self._look_at(self.leaf_id)  # pages say that it is running elsewhere
        elif worthless:
            earlier = [each for each in reply.versions if each.id < reply.id and each.said]
            if earlier:
                self._look_at(self._leaf_under(earlier[-1].id))

    def _look_at(self, leaf_id):
        """Turn to a leaf, and know what its branch has that is not sent any more."""
        self.turn(leaf_id)
        told = self.told(self.unsent_to) if self.unsent_to else None
        if told and told.cut:
            self._set(unsent_above=told.begins)

    def _leaf_under(self, message_id):
        """Return the `leaf_id` of the branch through a message that was last written in."""
        leaf_id = self._last_written(message_id)
        return None if leaf_id == self._tip(None) else leaf_id

    @persistent
    def delete(self) -> None:
        """Delete me with all that was said; end the reply that is being written."""
        chat_id, owner, reply = id_of(self), self.hooks, self.running_reply
        reply_id = reply and reply.id
        db.session.delete(self)
        commit()
        live.broadcast_deletion(chat_id)
        # Who writes it settles what it has cost. Without Redis they find out by themselves, when
        # they save what is new.
        with suppress(RedisError):
            if reply_id and not live.take_up(reply_id):
                return live.request_stop(reply_id)
            owner.on_settled(chat_id)


def spoken_by(role, content, client_id):
    # No database takes a NUL, or half a character.
    content = provider.whole_characters(content)
    return {"role": role, "content": content, "client_id": client_id, "status": "complete"}


@event.listens_for(ChatMixin, "after_mapper_constructed", propagate=True)
def furnish(mapper, chat):
    """Give a table of chats what a class with a `__table_args__` of its own would lose."""
    if mapper.inherits is not None:
        return
    table = mapper.local_table
    columns = table.c.chattable_type, table.c.chattable_id, table.c.updated_at
    Index(f"{table.name}_by_recency", *columns)
    never_reuse_ids(table)
    chat.installs = install.add_table(table, chat.__installs__ or f"{table.name}_install")
    family_of(chat).add_chat(chat)


@event.listens_for(ChatMixin, "before_delete", propagate=True)
def delete_messages(_mapper, connection, chat):
    """Leave nothing behind, where the database minds no foreign keys and where it does."""
    said = family_of(type(chat)).message.__table__
    connection.execute(delete(said).where(said.c.chat_id == chat.id))
