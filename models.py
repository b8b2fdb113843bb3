"""Chattable, its chats and messages, and all SQL."""

import functools
import logging
import os
import secrets
import textwrap
import time
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from operator import itemgetter

from flask import abort, g
from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy
from markupsafe import Markup, escape
from redis.exceptions import RedisError
from rq.timeouts import JobTimeoutException
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    event,
    func,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.exc import (
    IntegrityError,
    SQLAlchemyError,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    declared_attr,
    foreign,
    mapped_column,
    relationship,
    remote,
)
from sqlalchemy.orm.attributes import set_committed_value
from werkzeug.security import check_password_hash, generate_password_hash

from chattable import live, provider
from chattable import markdown as markup
from chattable.database import (
    Dollars,
    Moment,
    beside,
    now,
    persistent,
    reason,
    release_connection,
    transient,
)

PAGE = 30
NEW_CHAT = "New chat"
TITLE_LENGTH = 60
CHECKPOINT = 1.0
# Seconds, but the replies that one worker writes at once.
LIMITS = {"READ_TIMEOUT": 60, "JOB_TIMEOUT": 1800, "SHUTDOWN_GRACE": 25, "WORKER_CONCURRENCY": 100}
# What a stale page, or Redis, still knows of what was deleted must not fit something new.
NEVER_REUSE_IDS = {"sqlite_autoincrement": True}
RUNNING = ("pending", "streaming")
# Above any id.
LAST = 2**31 - 1
# The finish reason of what is on the books only.
UNSEEN = "unseen"
OUT_OF_TIME = "The reply took too long and was ended. Try again, or ask for less at once."
INTERRUPTED = "The reply was interrupted. What had arrived is kept; try again to get a new one."

log = logging.getLogger(__name__)


class Base(DeclarativeBase):
    """What every model is."""


# Objects stay as they are after a commit: reading them again would cost a reply its connection.
db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False})


def init_app(app):
    """Prepare a Flask app for chats: its database, its Redis and its provider.

    An app of your own needs nothing else. `SQLALCHEMY_DATABASE_URI` is read from its
    configuration, and so are `REDIS_URL`, `REDIS_PREFIX`, `OPENAI_API_KEY`, `OPENAI_BASE_URL`
    (else from the environment) and what `LIMITS` names.
    """
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "REDIS_PREFIX"):
        app.config.setdefault(name, os.environ.get(name))
    app.config.setdefault("REDIS_URL", os.environ.get("REDIS_URL", "redis://localhost:6379"))
    for name, value in LIMITS.items():
        app.config.setdefault(name, value)
    db.init_app(app)
    live.init_app(app, Install.own_name)
    provider.init_app(app)


class Install(db.Model):
    """The one row that tells this install from others on the same Redis."""

    __tablename__ = "installs"
    __table_args__ = (CheckConstraint("id = 1", name="one_install"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(20))

    @classmethod
    def own_name(cls):
        """Return the name; make it where no migration has, one for all who ask at once."""
        # The session's connection, if it has one: whoever waits for a second one may wait long.
        return db.session.scalar(INSTALL_NAME) or cls._make_name()

    @classmethod
    def _make_name(cls):
        with db.engine.begin() as connection:
            connection.execute(NAME_INSTALL, {"name": secrets.token_hex(5)})
        with db.engine.connect() as connection:
            return connection.scalar(INSTALL_NAME)


INSTALL_NAME = text("SELECT name FROM installs")
NAME_INSTALL = text("INSERT INTO installs (id, name) VALUES (1, :name) ON CONFLICT DO NOTHING")


class ReplyInProgress(Exception):
    """The chat already has a reply being written."""


class Chattable:
    """Give a model chats, and two hooks that tell about every message in them.

    Mix it into any model with an integer `id`. `thing.chats` lists its chats; `chat.chattable`
    is the thing. Its `name`, if it has one, signs the messages people write.
    """

    # Every model with chats, by the name that its chats know it by.
    owners = {}

    @declared_attr
    def chats(cls) -> Mapped[list["Chat"]]:
        """My chats: a polymorphic association, by class name and id."""
        return relationship(
            "Chat",
            primaryjoin=lambda: and_(
                cls.id == foreign(remote(Chat.chattable_id)), Chat.chattable_type == cls.__name__
            ),
            cascade="all, delete-orphan",
            overlaps="chats",
        )

    def on_message_create(self, message):
        """Called after a message in one of my chats was saved for the first time.

        And again for a person's message whose worker died before its job was done.
        """

    def on_message_update(self, message):
        """Called whenever a message has grown (at each flush) and once it has ended."""

    def chats_by_recency(self, limit=None):
        """Return my chats (at most `limit`), the latest active first."""
        return list(db.session.scalars(MY_LATEST_CHATS.limit(limit), self._me))

    def costs_by_chat(self):
        """Return {chat id: dollars spent in it}; a chat without a known price is left out."""
        rows = db.session.execute(COSTS_OF_MY_CHATS, self._me)
        return {chat_id: dollars(total) for chat_id, total in rows if total is not None}

    def chat_or_404(self, chat_id):
        """Return one of my chats; anybody else's does not exist."""
        return db.session.scalar(MY_CHAT, {**self._me, "chat_id": chat_id}) or abort(404)

    def message_or_404(self, message_id):
        """Return a message of one of my chats; anybody else's does not exist."""
        mine = {**self._me, "message_id": message_id}
        return db.session.scalar(MY_MESSAGE, mine) or abort(404)

    @property
    def _me(self):
        return {"kind": type(self).__name__, "owner_id": self.id}


@event.listens_for(Chattable, "after_mapper_constructed", propagate=True)
def note_owner(_mapper, owner):
    """Know `owner` as soon as its class is there: SQLAlchemy configures mappers at first use."""
    Chattable.owners[owner.__name__] = owner


@event.listens_for(Chattable, "mapper_configured", propagate=True)
def sign_chats(_mapper, owner):
    """Have each chat that joins an owner's chats say what kind of owner that is."""
    kind = owner.__name__
    event.listen(owner.chats, "append", lambda _, chat, __: setattr(chat, "chattable_type", kind))


class User(Chattable, UserMixin, db.Model):
    """A person with an account. Their pages live on the two hooks."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("public_id", name="one_account_per_public_id"),
        NEVER_REUSE_IDS,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(254), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    # What browsers know the account by. They outlive databases, whose first user is always 1.
    public_id: Mapped[str] = mapped_column(String(32), default=lambda: secrets.token_urlsafe(16))

    def get_id(self):
        return self.public_id

    @classmethod
    def known_as(cls, public_id):
        """Return the user whom a session names, or None."""
        return db.session.scalar(NAMED_USER, {"public_id": public_id})

    @classmethod
    def sign_up(cls, name, email, password):
        """Create a user, or return None if the (normalised) e-mail address is taken."""
        hashed = beside(generate_password_hash, password)
        user = cls(name=name, email=email, password_hash=hashed)
        db.session.add(user)
        try:
            db.session.commit()
        except IntegrityError:
            db.session.rollback()
            return None
        return user

    @classmethod
    def authenticate(cls, email, password):
        """Return the user with this e-mail address and password, or None."""
        user = db.session.scalar(select(cls).where(cls.email == email))
        # Compare in any case: the time it takes must not tell whether the address is known.
        matches = beside(check_password_hash, user.password_hash if user else NOBODY, password)
        return user if user and matches else None

    @property
    def initials(self):
        return initials(self.name)

    def on_message_create(self, message):
        live.broadcast_message(message)
        if message.role == "user" and message.chat.title == opening_words(message.content):
            live.broadcast_title(message.chat)

    def on_message_update(self, message):
        if message.running:
            message.broadcast.update(message)
        else:
            live.broadcast_message(message)
            message.chat.show_cost()


# As text, like `APPEND` below: SQLAlchemy takes longer to write such a statement than a database
# to run it, and every reply needs several.
NEXT_REVISION = text(
    "UPDATE chats SET revision = revision + 1, updated_at = :now, title = COALESCE(:title, title)"
    " WHERE id = :id RETURNING revision"
).bindparams(bindparam("now", type_=Moment), bindparam("title", type_=String))


HISTORY = text(
    "SELECT role, content, client_id, status FROM messages"
    " WHERE chat_id = :chat_id AND id < :before_id AND NOT superseded ORDER BY id"
)


class Chat(db.Model):
    """A conversation. At most one reply in it is being written at any time."""

    __tablename__ = "chats"
    __table_args__ = (
        Index("chats_by_recency", "chattable_type", "chattable_id", "updated_at"),
        NEVER_REUSE_IDS,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    chattable_type: Mapped[str] = mapped_column(String(80))
    chattable_id: Mapped[int]
    title: Mapped[str] = mapped_column(String(200), default=NEW_CHAT)
    # Counts the changes of this chat's messages; a page that knows its number can catch up.
    revision: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    updated_at: Mapped[datetime] = mapped_column(Moment, default=now)

    messages: Mapped[list["Message"]] = relationship(
        back_populates="chat",
        order_by="Message.id",
        cascade="all, delete-orphan",
        passive_deletes=True,
        primaryjoin="and_(Message.chat_id == Chat.id, Message.superseded == false())",
    )

    @classmethod
    def with_owner(cls, chat_id):
        """Return a chat, its `chattable` read by the same query; None if the chat is gone.

        Raises LookupError for a chat whose owner is not here, or is of a class nobody imported.
        """
        for owner in Chattable.owners.values():
            found = db.session.execute(with_chat(owner), {"chat_id": chat_id})
            for chat, chattable in found:
                chat.chattable = chattable
                return chat
        if orphan := db.session.get(cls, chat_id):
            raise LookupError(f"no {orphan.chattable_type} {orphan.chattable_id} owns {chat_id}")
        return None

    @staticmethod
    def exists(chat_id):
        return db.session.scalar(CHAT_ID, {"chat_id": chat_id}) is not None

    @functools.cached_property
    def chattable(self):
        """The user (or other `Chattable`) this chat belongs to."""
        return db.session.get(Chattable.owners[self.chattable_type], self.chattable_id)

    @property
    def channel(self):
        return live.channel(self.id)

    @property
    def cost(self):
        """Dollars spent in this chat so far (Decimal), or None if no price is known."""
        total = db.session.scalar(COST_OF_CHAT, {"chat_id": self.id})
        return None if total is None else dollars(total)

    @property
    def model(self):
        """The model of the latest reply, or None."""
        replies = select(Message.model).where(
            Message.chat_id == self.id, Message.role == "assistant"
        )
        return db.session.scalar(replies.order_by(Message.id.desc()).limit(1))

    @property
    def running_reply(self):
        """The reply that is being written, or None."""
        return db.session.scalar(
            select(Message).where(Message.chat_id == self.id, Message.status.in_(RUNNING))
        )

    @staticmethod
    @persistent
    def has_running_reply(chat_id):
        """Return whether a reply in a chat is being written, and hold no connection afterwards."""
        running = select(Message.id).where(Message.chat_id == chat_id, Message.status.in_(RUNNING))
        found = db.session.scalar(running) is not None
        db.session.commit()
        return found

    def page(self, before=None, snapshot=None):
        """Return (messages, older): the last `PAGE` messages, oldest first, as of this moment.

        `before` is the id of a message to end before; `older` is such an id if there are more.
        """
        snapshot = snapshot or live.snapshot(self.id)
        query = select(Message).where(Message.chat_id == self.id, ~Message.superseded)
        if before:
            query = query.where(Message.id < before)
        latest = db.session.scalars(query.order_by(Message.id.desc()).limit(PAGE + 1)).all()
        messages = [snapshot.refresh(message) for message in reversed(latest[:PAGE])]
        return messages, messages[0].id if len(latest) > PAGE else None

    def catch_up(self, since):
        """Return (seq, frames) that bring a page loaded at revision `since` up to this moment.

        A page that has missed more than it shows at first is given what a fresh load shows.
        """
        snapshot = live.Snapshot(self.id)
        changed = self._changed_since(since)
        if len(changed) > PAGE:
            frames = snapshot.list_frames(self, *self.page(snapshot=snapshot))
        else:
            frames = snapshot.frames(changed)
        if self.revision > since:
            frames += [live.title_frame(self), live.cost_frame(self)]
        return snapshot.seq, frames

    def _changed_since(self, revision):
        """Return the messages changed since, and the one that is running; no more than enough."""
        query = select(Message).where(Message.chat_id == self.id, Message.revision > revision)
        changed = db.session.scalars(query.order_by(Message.revision).limit(PAGE + 1)).all()
        reply = self.running_reply
        return sorted({*changed, reply} - {None}, key=lambda message: message.id)

    def history(self, before_id=None):
        """Return what the provider is told: the conversation up to `before_id`."""
        return conversation(self._said(before_id))

    def _said(self, before_id=None):
        values = {"chat_id": self.id, "before_id": before_id or LAST}
        return db.session.execute(HISTORY, values).all()

    def say(self, role, content, client_id=None):
        """Save a message and return it; the one already there if its `client_id` is known.

        None if the chat has been deleted meanwhile.
        """
        chat_id = self.id
        said = {"role": role, "content": content, "client_id": client_id, "status": "complete"}
        added = self._add(said)
        return added[0] if added else Message.said(chat_id, client_id)

    def exchange(self, content, client_id, model):
        """Save what a person said and begin the reply to it; return both messages.

        None if one of them cannot be: it was said before, or a reply is being written.
        """
        said = {"role": "user", "content": content, "client_id": client_id, "status": "complete"}
        # With its content, for both to go in one INSERT.
        reply = {"role": "assistant", "content": "", "model": model, "status": "pending"}
        return self._add(said, reply)

    def run(self, model):
        """Ask `model` for the next reply, stream it into a new message and return that.

        Raises `ReplyInProgress` if a reply is being written already. A provider that fails
        raises nothing: the message ends as "failed" and says why in `error`.
        """
        history = self.history()
        # Before the provider is asked: who may not write the reply must not have it billed.
        message = self.begin_reply(model)
        with provider.Completion(model, history) as completion:
            message.receive(completion)
        return message

    def ask(self, model, content, client_id):
        """Return the `Completion`, a context that asks at once, of the answer to `content`.

        None if that was said before, or a reply is being written. For whoever is sure to be the
        only one that asks: unlike `run`, this may be billed in vain.
        """
        said = self._said()
        if any(message.client_id == client_id or message.status in RUNNING for message in said):
            return None
        return provider.Completion(model, conversation(said, content))

    @persistent
    def book(self, model, usage):
        """Keep the cost of a request whose answer nobody sees, as a reply that is not shown."""
        lost = Message(chat_id=self.id, role="assistant", model=model, status="failed")
        lost.superseded, lost.error, lost.finished_at = True, INTERRUPTED, now()
        lost.finish_reason = UNSEEN
        lost.prompt_token_usage, lost.completion_token_usage = usage.prompt, usage.completion
        lost.usage_estimated = usage.estimated
        lost.input_cost, lost.output_cost = provider.costs(model, usage)
        lost.revision = self.next_revision()
        db.session.add(lost)
        db.session.commit()
        live.broadcast_cost(self)

    def ends_with(self, message):
        """Return whether a message is the last one of the conversation."""
        later = select(Message.id).where(
            Message.chat_id == self.id, Message.id > message.id, ~Message.superseded
        )
        return db.session.scalar(later.limit(1)) is None and not message.superseded

    def answer_to(self, message_id):
        """Return the latest reply, however it ended, that was begun after a message, or None."""
        later = select(Message).where(
            Message.chat_id == self.id, Message.id > message_id, Message.role == "assistant"
        )
        seen = later.where(func.coalesce(Message.finish_reason, "") != UNSEEN)
        return db.session.scalar(seen.order_by(Message.id.desc()).limit(1))

    def begin_reply(self, model):
        added = self._add({"role": "assistant", "model": model, "status": "pending"})
        if not added:
            raise ReplyInProgress
        return added[0]

    def _add(self, *new):
        """Save new messages and tell the hook; return them, or None if a unique index says no."""
        messages = self._save(now(), new)
        if messages:
            self._tell(messages)
        return messages or None

    @persistent
    def _save(self, moment, new):
        title = self._first_title(new[0].get("content"))
        common = {"chat_id": self.id, "revision": self.next_revision(title), "created_at": moment}
        messages = [Message(**common, **values) for values in new]
        db.session.add_all(messages)
        try:
            db.session.commit()
        except IntegrityError:
            db.session.rollback()
            return self._saved_at(moment, common["chat_id"])
        if title:
            set_committed_value(self, "title", title)
        return messages

    def _saved_at(self, moment, chat_id):
        """Return the messages that a commit whose answer was lost has saved."""
        mine = select(Message).where(Message.chat_id == chat_id, Message.created_at == moment)
        return db.session.scalars(mine.order_by(Message.id)).all()

    @persistent
    def _tell(self, messages):
        for message in messages:
            set_committed_value(message, "chat", self)
            self.chattable.on_message_create(message)
        # A reply must not hold a database connection while it streams.
        db.session.commit()

    def _first_title(self, content):
        return opening_words(content) if content and self.title == NEW_CHAT else None

    def next_revision(self, title=None):
        """Count one more change (in the transaction at hand) and return its number."""
        change = {"id": self.id, "title": title, "now": now()}
        return db.session.scalar(NEXT_REVISION, change)

    @persistent
    def show_cost(self):
        """Show what I have cost so far on every page of mine."""
        live.broadcast_cost(self)

    @persistent
    def rename(self, title):
        self.title, self.revision = title, Chat.revision + 1
        db.session.commit()
        live.broadcast_title(self)

    @persistent
    def delete(self):
        reply = self.running_reply
        db.session.delete(self)
        db.session.commit()
        live.broadcast_deletion(self.id)
        if reply:
            # Without Redis its writer finds out by itself, when it saves what is new.
            with suppress(RedisError):
                live.request_stop(reply.id)


class Message(db.Model):
    """What a person wrote, or a reply: pending, streaming, then complete, stopped or failed."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("chat_id", "client_id", name="one_message_per_client_id"),
        CheckConstraint("role IN ('user', 'assistant', 'system')", name="known_role"),
        Index(
            "one_running_reply",
            "chat_id",
            unique=True,
            sqlite_where=text("status IN ('pending', 'streaming')"),
            postgresql_where=text("status IN ('pending', 'streaming')"),
        ),
        Index("messages_by_chat", "chat_id", "id"),
        Index("messages_by_revision", "chat_id", "revision"),
        NEVER_REUSE_IDS,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"))
    role: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    content: Mapped[str] = mapped_column(Text, default="")
    reasoning: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(200))
    client_id: Mapped[str | None] = mapped_column(String(36))
    error: Mapped[str | None] = mapped_column(Text)
    note: Mapped[str | None] = mapped_column(Text)
    finish_reason: Mapped[str | None] = mapped_column(String(40))
    prompt_token_usage: Mapped[int | None]
    completion_token_usage: Mapped[int | None]
    cached_token_usage: Mapped[int | None]
    usage_estimated: Mapped[bool] = mapped_column(default=False)
    input_cost: Mapped[Decimal | None] = mapped_column(Dollars)
    output_cost: Mapped[Decimal | None] = mapped_column(Dollars)
    # A retried reply: no longer shown or sent, but what it cost still counts.
    superseded: Mapped[bool] = mapped_column(default=False)
    revision: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)

    chat: Mapped[Chat] = relationship(back_populates="messages")

    @property
    def running(self):
        return self.status in RUNNING

    @property
    def unseen(self):
        """Whether this is a request that was billed, of which no page has ever shown a reply."""
        return self.finish_reason == UNSEEN

    @property
    def retryable(self):
        """Whether this is a reply that can be asked for again (once it is the last message)."""
        return self.role == "assistant" and not self.running

    @property
    def author(self):
        if self.role == "user":
            return getattr(self.chat.chattable, "name", None) or "You"
        return self.model

    @property
    def initials(self):
        return initials(self.author)

    @property
    def body(self):
        """The content as safe HTML: a person's words as they are, a reply's Markdown rendered."""
        if self.role == "user":
            return escape(self.content)
        return growing(self.content) if self.running else rendered(self.content)

    def catch_up(self, content):
        """Show `content` if it is more than the last checkpoint has."""
        if len(content) > len(self.content):
            set_committed_value(self, "content", content)
            set_committed_value(self, "status", "streaming")

    def receive(self, completion):
        """Stream `completion` into me; however it ends, I end as complete, stopped or failed.

        Raises what is not the provider's fault (a timeout of the job, a bug), after saving.
        """
        self.broadcast = live.Broadcast()
        with live.lease(self.id, completion.stop):
            outcome = {"status": "failed", "error": INTERRUPTED}
            try:
                self._stream(completion)
                outcome = self._outcome(completion)
            except provider.ProviderError as error:
                outcome = {"status": "failed", "error": str(error)}
            except JobTimeoutException:
                outcome = {"status": "failed", "error": OUT_OF_TIME}
                raise
            finally:
                self._finish(completion, self.content, **outcome)

    def _outcome(self, completion):
        if completion.stopped:
            return {"status": "stopped"}
        if not self.content.strip():
            return {"status": "failed", "error": "The model gave an empty answer. Try again."}
        return {"status": "complete"}

    def _stream(self, completion):
        owner = self.chat.chattable
        saved = Checkpoint()
        for more in completion:
            lost = self.broadcast.lost
            if lost and not self._still_mine(saved):
                return completion.stop()
            if completion.takes_back():
                self._start_over(saved)
            self._grow(more)
            if more or lost:
                owner.on_message_update(self)
            if self.broadcast.stop_requested or not saved.keep_up(self):
                completion.stop()

    def _still_mine(self, saved):
        """Return whether I am still written here; if so, pages may be shown the whole again."""
        try:
            return not self.broadcast.get_pass(self) or saved.still_ours(self)
        except SQLAlchemyError as error:
            if not transient(error):
                raise
            log.warning("message %s: nobody knows whose it is: %s", self.id, reason(error))
            self.broadcast.drop_pass()
            return True

    def _start_over(self, saved):
        """Show and save from the beginning: what I took for the reply was a thought."""
        set_committed_value(self, "content", "")
        saved.start_over(self)
        self.broadcast = live.Broadcast()

    def _grow(self, more):
        if more:
            set_committed_value(self, "content", self.content + more)
            set_committed_value(self, "status", "streaming")

    def _finish(self, completion, content, status, error=None):
        """Save how the reply ended, unless it was already declared dead, and tell the hook."""
        # Whatever a hook has left open, or broken.
        release_connection()
        persistent(self._settle)(
            completion.settle_usage(content, refused=error and not content),
            finished_at=now(),
            content=content,
            status=status,
            error=error,
            reasoning=completion.reasoning or None,
            note=completion.note,
            finish_reason=completion.finish_reason,
        )

    def _settle(self, usage, **values):
        """End with what the reply used and cost; return whether I was still running."""
        input_cost, output_cost = provider.costs(self.model, usage)
        ended = self._end(
            prompt_token_usage=usage.prompt,
            completion_token_usage=usage.completion,
            cached_token_usage=usage.cached,
            usage_estimated=usage.estimated,
            input_cost=input_cost,
            output_cost=output_cost,
            **values,
        )
        if ended:
            self.chat.chattable.on_message_update(self)
        return ended

    def _end(self, **values):
        values["revision"] = self.chat.next_revision()
        ended = db.session.execute(END, {**values, "message_id": self.id}).rowcount
        db.session.commit()
        ended = ended or self._ended_at(values["finished_at"])
        # It was declared dead, or deleted with its chat.
        g.chat_in_doubt = not ended
        for name, value in values.items() if ended else ():
            set_committed_value(self, name, value)
        return bool(ended)

    def _ended_at(self, moment):
        """Return whether a commit whose answer was lost has saved this end."""
        mine = select(Message.id).where(Message.id == self.id, Message.finished_at == moment)
        ended = db.session.scalar(mine)
        db.session.commit()
        return ended

    @classmethod
    def said(cls, chat_id, client_id):
        """Return the message of a chat that a browser gave this id, or None."""
        query = select(cls).where(cls.chat_id == chat_id, cls.client_id == client_id)
        return db.session.scalar(query)

    @classmethod
    def running_ids(cls):
        return list(db.session.scalars(select(cls.id).where(cls.status.in_(RUNNING))))

    @classmethod
    def interrupt(cls, message_id):
        """Declare a reply dead whose writer is gone; what it had saved is kept."""
        message = db.session.get(cls, message_id)
        if message is None:
            return
        live.silence(message_id)
        # Redis may know a second more than the last checkpoint.
        live.snapshot(message.chat_id).refresh(message)
        usage = provider.estimate_usage(message.chat.history(message.id), message.content)
        ending = {"content": message.content, "status": "failed", "error": INTERRUPTED}
        if message._settle(usage, finished_at=now(), **ending):
            live.end_turn(message.chat_id)

    @persistent
    def supersede(self):
        """Take a reply that has ended out of the conversation; its cost stays on the books."""
        self.superseded = True
        self.revision = self.chat.next_revision()
        db.session.commit()
        self.chat.chattable.on_message_update(self)


# As text, for it runs a hundred times a second. `saved`: a commit whose answer was lost must not
# append twice.
APPEND = text(
    "UPDATE messages SET content = content || :more, status = 'streaming'"
    " WHERE id = :id AND status IN ('pending', 'streaming') AND length(content) = :saved"
)


FORGET = text(
    "UPDATE messages SET content = '' WHERE id = :id AND status IN ('pending', 'streaming')"
)


# Queries that every page or every reply asks are built once, here: to build one takes SQLAlchemy
# as long as a database takes to answer it.
NAMED_USER = select(User).where(User.public_id == bindparam("public_id"))
CHAT_ID = select(Chat.id).where(Chat.id == bindparam("chat_id"))
MY_CHATS = select(Chat).where(
    Chat.chattable_type == bindparam("kind"), Chat.chattable_id == bindparam("owner_id")
)
MY_LATEST_CHATS = MY_CHATS.order_by(Chat.updated_at.desc(), Chat.id.desc())
MY_CHAT = MY_CHATS.where(Chat.id == bindparam("chat_id"))
OF_MY_CHATS = Message.chat_id.in_(MY_CHATS.with_only_columns(Chat.id))
MY_MESSAGE = select(Message).where(Message.id == bindparam("message_id"), OF_MY_CHATS)
# In picodollars; None where no message has a known cost.
SPENT = func.sum(
    type_coerce(Message.input_cost, BigInteger) + type_coerce(Message.output_cost, BigInteger)
)
COST_OF_CHAT = select(SPENT).where(Message.chat_id == bindparam("chat_id"))
COSTS_OF_MY_CHATS = select(Message.chat_id, SPENT).where(OF_MY_CHATS).group_by(Message.chat_id)
# The values come with the message: a reply ends once, whoever ends it.
END = update(Message.__table__).where(
    Message.__table__.c.id == bindparam("message_id"), Message.__table__.c.status.in_(RUNNING)
)


@functools.cache
def with_chat(owner):
    """Return the query for a chat and the `owner` (a class) it belongs to."""
    its = and_(owner.id == Chat.chattable_id, Chat.chattable_type == owner.__name__)
    return select(Chat, owner).join(owner, its).where(Chat.id == bindparam("chat_id"))


def conversation(said, question=None):
    """Return messages as providers take them: none blank, none running, no role twice in a row.

    A reply that failed leaves its question next to the following one: they are joined.
    """
    told = [(message.role, message.content) for message in said if message.status not in RUNNING]
    told += [("user", question)] if question else []
    turns = groupby((line for line in told if line[1].strip()), key=itemgetter(0))
    return [
        {"role": role, "content": "\n\n".join(content for _, content in lines)}
        for role, lines in turns
    ]


def dollars(picodollars):
    return Decimal(int(picodollars)) / Dollars.SCALE


class Checkpoint:
    """Save a growing reply about once a second, by appending: SQL is linear, too."""

    def __init__(self):
        # One statement is its own transaction: one round trip instead of three.
        self._engine = db.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._saved = 0
        self._due = time.monotonic() + CHECKPOINT

    def keep_up(self, message):
        """Save what is new if it is time to; return False if the reply is no longer ours."""
        if time.monotonic() < self._due or len(message.content) == self._saved:
            return True
        self._due = time.monotonic() + CHECKPOINT
        try:
            return self._save(message) or self.still_ours(message)
        except SQLAlchemyError as error:
            if not transient(error):
                raise
            # Nothing is lost: the next checkpoint saves this one's share as well.
            log.warning("message %s: not saved, trying again: %s", message.id, reason(error))
            return True

    def _save(self, message):
        content = message.content
        values = {"id": message.id, "more": content[self._saved :], "saved": self._saved}
        with self._engine.connect() as connection:
            saved = connection.execute(APPEND, values).rowcount == 1
        if saved:
            self._saved = len(content)
        return saved

    def start_over(self, message):
        self._saved = 0
        try:
            with self._engine.connect() as connection:
                connection.execute(FORGET, {"id": message.id})
        except SQLAlchemyError as error:
            if not transient(error):
                raise
            # The end of the reply will be saved whole.
            log.warning("message %s: thought not taken back: %s", message.id, reason(error))

    def still_ours(self, message):
        """Return whether the reply has not been declared dead or deleted."""
        query = select(func.length(Message.content)).where(
            Message.id == message.id, Message.status.in_(RUNNING)
        )
        with self._engine.connect() as connection:
            length = connection.execute(query).scalar()
        self._saved = length or 0
        return length is not None


@functools.lru_cache(512)
def rendered(content):
    return markup.render(content)


def growing(content):
    growth = markup.Growth()
    growth.feed(content)
    return Markup(growth.html)


def initials(name):
    """Return the one or two capitals that stand for a person: "AL" for Ada Lovelace."""
    words = name.split() or ["?"]
    return (words[0][0] + (words[-1][0] if len(words) > 1 else "")).upper()


def opening_words(content):
    """Return the start of a message as a title of at most `TITLE_LENGTH` characters."""
    words = " ".join(content.split())
    if len(words) <= TITLE_LENGTH:
        return words or NEW_CHAT
    short = textwrap.shorten(words, TITLE_LENGTH, placeholder="…")
    # Not every script has spaces, and an address has none.
    return short if len(short) > TITLE_LENGTH // 2 else f"{words[: TITLE_LENGTH - 1]}…"


# The hash of no password, for comparing when there is no such user.
NOBODY = generate_password_hash("nobody")
