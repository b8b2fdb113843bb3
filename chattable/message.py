"""`MessageMixin`: what was said, by a person or a model, and how a reply ends."""

import functools
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from markupsafe import Markup, escape
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    bindparam,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.orm import Mapped, declared_attr, mapped_column, relationship
from sqlalchemy.orm.attributes import set_committed_value

from chattable import live, markdown
from chattable.branches import UNSEEN, Version
from chattable.database import (
    Dollars,
    Moment,
    commit,
    converted,
    db,
    never_reuse_ids,
    now,
)
from chattable.family import family_of
from chattable.writing import INTERRUPTED, RUNNING, Writing, ending

if TYPE_CHECKING:
    from chattable.provider import Completion


class MessageMixin:
    """What a person wrote, or a reply: pending, streaming, then complete, stopped or failed.

    Mix it into one model of an app, of any name and with any columns of its own.
    """

    # The names of two unique rules: one message by client id, one running reply in a chat. They
    # have to be unique in a schema of PostgreSQL. After the table's name if there are none.
    __unique_names__: tuple[str, str] | None = None

    # Types are explicit: an app's own base may map `int` and `bool` to others.
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    chat_id: Mapped[int] = mapped_column(Integer)
    role: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), default="complete")
    content: Mapped[str] = mapped_column(Text, default="")
    reasoning: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(200))
    client_id: Mapped[str | None] = mapped_column(String(36))
    error: Mapped[str | None] = mapped_column(Text)
    note: Mapped[str | None] = mapped_column(Text)
    finish_reason: Mapped[str | None] = mapped_column(String(40))
    prompt_token_usage: Mapped[int | None] = mapped_column(Integer)
    completion_token_usage: Mapped[int | None] = mapped_column(Integer)
    cached_token_usage: Mapped[int | None] = mapped_column(Integer)
    reasoning_token_usage: Mapped[int | None] = mapped_column(Integer)
    usage_estimated: Mapped[bool] = mapped_column(Boolean, default=False)
    input_picodollars: Mapped[int | None] = mapped_column("input_cost", BigInteger)
    output_picodollars: Mapped[int | None] = mapped_column("output_cost", BigInteger)
    # The message this one follows, if that is not the one before it in its chat.
    parent_id: Mapped[int | None] = mapped_column(Integer)
    revision: Mapped[int] = mapped_column(Integer, default=0)
    # Since when the model thought, and for how long: unknown while it does.
    _thinking_since: Mapped[datetime | None] = mapped_column("thinking_since", DateTime(True))
    thought_seconds: Mapped[int | None] = mapped_column(Integer)
    _created_at: Mapped[datetime] = mapped_column("created_at", DateTime(True), default=now)
    _finished_at: Mapped[datetime | None] = mapped_column("finished_at", DateTime(True))

    input_cost = converted("input_picodollars", Dollars())
    output_cost = converted("output_picodollars", Dollars())
    created_at = converted("_created_at", Moment())
    finished_at = converted("_finished_at", Moment())
    thinking_since = converted("_thinking_since", Moment())

    # What pages have been shown of me, while I am written.
    broadcast = None
    # Whether another part of the chat than before was sent for me.
    moves_window = False
    # The id of the message I follow, and what else was said in my place, once they are known.
    parent: int | None = None
    # Whether I wait for a place; None while nobody has asked.
    waits: bool | None = None
    _versions: list[Version] | None = None

    @declared_attr
    def chat(cls) -> Mapped[Any]:
        return relationship(lambda: family_of(cls).chat, back_populates="messages")

    # What it is.

    @property
    def running(self) -> bool:
        return self.status in RUNNING

    @property
    def waiting(self) -> bool:
        """Whether I am a reply that waits until others of my chat's owner have ended."""
        if self.status == "pending" and self.waits is None:
            self.waits = live.waits(self.id)
        return bool(self.status == "pending" and self.waits)

    @property
    def thinking(self) -> bool:
        """Whether my model thinks, and has not said a word yet."""
        began = self.running and self._thinking_since and self.thought_seconds is None
        return bool(began and not self.content.strip())

    @property
    def seconds_thought(self) -> int | None:
        """How long my model has thought, so far while it does; None if nobody knows."""
        if self.thinking:
            return int((now() - self.thinking_since).total_seconds())
        return self.thought_seconds

    @property
    def unseen(self) -> bool:
        """Whether this is a request that was billed, of which no page has ever shown a reply."""
        return self.finish_reason == UNSEEN

    @property
    def local(self) -> bool:
        """Whether nobody was paid for me: my model runs on this machine, or in its network."""
        return self.input_cost is None and self.output_cost == 0

    @property
    def retryable(self) -> bool:
        """Whether this is a reply that can be asked for again."""
        return self.role == "assistant" and not self.running

    @property
    def follows(self) -> int:
        """Where I am, for `run` and the like to write something else there (see `after`)."""
        return self.id - 1 if self.parent_id is None else self.parent_id

    @property
    def versions(self) -> list[Version]:
        """Me and what else was said in my place, first to last; empty if nothing was.

        `Chat.show_versions` tells many messages at once.
        """
        if self._versions is None:
            self._versions = []
            self.chat.show_versions([self])
        return self._versions

    @versions.setter
    def versions(self, versions: list[Version]) -> None:
        self._versions = versions

    @property
    def version(self) -> int:
        """Which of my `versions` I am, from 1 on."""
        return 1 + [each.id for each in self.versions].index(self.id)

    @property
    def looked_at(self) -> bool:
        """Whether pages can be shown me as the last of what they show: no branch was changed."""
        turned_at = self.chat.branch_revision
        return self.chat.leaf_id is None and (not turned_at or turned_at != self.revision)

    @property
    def author(self) -> str | None:
        if self.role == "user":
            return getattr(self.chat.chattable, "name", None) or "You"
        return self.model

    @property
    def body(self) -> Markup:
        """The content as safe HTML: a person's words as they are, a reply's Markdown rendered."""
        if self.role == "user":
            return escape(self.content)
        return growing(self.content) if self.running else rendered(self.content)

    @classmethod
    def said(cls, chat_id: int, client_id: str | None) -> Self | None:
        """Return the message of a chat that a browser gave this id, or None."""
        query = select(cls).where(cls.chat_id == chat_id, cls.client_id == client_id)
        return db.session.scalar(query)

    @classmethod
    def is_running(cls) -> Any:
        """Return the SQL condition that I am being written.

        With its values written out: SQLite takes the index of running replies for no others.
        """
        values: Any = bindparam("running", RUNNING, expanding=True, literal_execute=True)
        return cls.status.in_(values)

    @classmethod
    def running_ids(cls) -> list[int]:
        return list(db.session.scalars(select(cls.id).where(cls.is_running())))

    # How it grows and ends: `writing` has the whole of it.

    def show(self, content: str) -> None:
        """Show `content` as what was written so far."""
        # As if it were saved: a hook that commits would save the whole text with every word.
        set_committed_value(self, "content", content)
        if content:
            set_committed_value(self, "status", "streaming")

    def catch_up(self, content: str) -> None:
        """Show `content` if it is more than the last checkpoint has."""
        if len(content) > len(self.content):
            self.show(content)

    def receive(self, completion: "Completion") -> None:
        """Stream `completion` into me; however it ends, I end as complete, stopped or failed.

        Raises what is not the provider's fault (a timeout of the job, a bug), after saving.
        """
        Writing(self).receive(completion)

    def make_way(self) -> None:
        """End if my writer was killed, which takes seconds to see; not if it lives."""
        Writing(self).make_way()

    def call_off(self) -> None:
        """End as stopped: nobody has begun to write me, and nobody will."""
        Writing(self).call_off()

    @classmethod
    def interrupt(cls, message_id: int) -> None:
        """Declare a reply dead whose writer is gone; what it had saved is kept."""
        message = db.session.get(cls, message_id)
        if message is not None:
            Writing(message).interrupt()

    @classmethod
    def abandon(cls, message_id):
        """End a reply whose chat or owner is no more, or whose hook fails: nobody is told."""
        end = {"status": "failed", "error": INTERRUPTED, "_finished_at": now()}
        bound = {f"new_{name}": value for name, value in end.items()}
        db.session.execute(ending(inspect(cls), *end), {**bound, "message_id": message_id})
        commit()


@event.listens_for(MessageMixin, "after_mapper_constructed", propagate=True)
def furnish(mapper, message):
    """Give a table of messages what a class with a `__table_args__` of its own would lose."""
    if mapper.inherits is not None:
        return
    table, running = mapper.local_table, text("status IN ('pending', 'streaming')")
    of_chat = table.c.chat_id
    table.append_constraint(
        CheckConstraint("role IN ('user', 'assistant', 'system')", name="known_role")
    )
    once, alone = message.__unique_names__ or (f"{table.name}_said_once", f"{table.name}_running")
    message.__unique_names__ = once, alone
    table.append_constraint(UniqueConstraint(of_chat, table.c.client_id, name=once))
    Index(alone, of_chat, unique=True, sqlite_where=running, postgresql_where=running)
    # With the costs: the sum of a long chat's then takes the index alone.
    costs = table.c.input_cost, table.c.output_cost
    Index(f"{table.name}_by_chat", of_chat, table.c.id, *costs)
    Index(f"{table.name}_by_revision", of_chat, table.c.revision)
    Index(f"{table.name}_by_parent", of_chat, table.c.parent_id)
    never_reuse_ids(table)
    family_of(message).add_message(message)


def is_doubled(error, message):
    """Return whether an IntegrityError says: said before, or a reply is running."""
    # PostgreSQL names the constraint, SQLite its columns.
    told = *message.__unique_names__, f"failed: {message.__table__.name}.chat_id"
    return any(name in str(error.orig) for name in told)


@functools.lru_cache(512)
def rendered(content):
    return markdown.render(content)


def growing(content):
    growth = markdown.Growth()
    growth.feed(content)
    return Markup(growth.html)
