"""A person, their chats and what is said in them: this app's own on `chattable`, and its SQL."""

import secrets
import textwrap
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self, cast

from flask import current_app
from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    false,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chattable import ChatMixin, Chattable, MessageMixin, live, markdown, provider
from chattable.budget import Budgeted, month
from chattable.connections import beside
from chattable.database import (
    Dollars,
    Moment,
    converted,
    id_of,
    now,
    persistent,
    picodollars,
)

NEW_CHAT = "New chat"
TITLE_LENGTH = 60
# Characters of a message that are read for its title.
OPENING = 1_000
# Tokens. What is sent along is of no interest while it is less; and to know more takes 17 MB.
FEW = 2_000
DISABLED = "This account is disabled: nobody is asked. What was said is kept."


class Base(DeclarativeBase):
    """What every model is."""


# Objects stay as they are after a commit: reading them again would cost a page a query.
db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False})
if TYPE_CHECKING:  # a checker takes no attribute for a base class
    Model = Base
else:
    Model = db.Model


class User(Budgeted, Chattable, UserMixin, Model):
    """A person with an account. Their pages live on the two hooks."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("public_id", name="one_account_per_public_id"),
        # A session that outlived its account must not open somebody else's.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(254), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    _created_at: Mapped[datetime] = mapped_column("created_at", DateTime(True), default=now)
    # What browsers know the account by. They outlive databases, whose first user is always 1.
    public_id: Mapped[str] = mapped_column(String(32), default=lambda: secrets.token_urlsafe(16))
    # The first account is: invites, disables, sets budgets; reads nobody's chats.
    admin: Mapped[bool] = mapped_column(default=False, server_default=false())
    disabled: Mapped[bool] = mapped_column(default=False, server_default=false())
    _seen_at: Mapped[datetime | None] = mapped_column("seen_at", DateTime(True))
    # Picodollars a month; None for what BUDGET says.
    _budget: Mapped[int | None] = mapped_column("budget", BigInteger)

    created_at = converted("_created_at", Moment())
    seen_at = converted("_seen_at", Moment())
    budget = converted("_budget", Dollars())

    # The log-in by which I am here, where I am the one who asks: see `pages.logins`.
    login = cast(Any, None)

    def get_id(self) -> str:
        return self.public_id

    @property
    def initials(self) -> str:
        return initials(self.name)

    def on_message_create(self, message: "Message") -> None:
        live.broadcast_message(message)
        chat = message.chat
        if chat.told_at == message.revision:
            return  # a reply that was saved with its question
        if message.revision == 1:  # its first words are its title now
            chat.broadcast_title(to_owner=False)
        self.show_moved(chat)
        chat.told_at = message.revision

    def on_message_update(self, message: "Message") -> None:
        live.broadcast_message(message)
        if not message.running:
            message.chat.confirm_title(message.revision)
            message.chat.broadcast_cost()
            if (message.prompt_token_usage or 0) >= FEW or message.chat.unsent_to:
                message.chat.broadcast_next(message.model)

    # What my replies cost, see `chattable.budget`.

    @property
    def allowance(self) -> Decimal | None:
        """What my replies may cost a month, in dollars; None if nobody has said."""
        return current_app.config["BUDGET"] if self.budget is None else self.budget

    def spent_this_month(self) -> Decimal:
        """Return what they have cost this month, in dollars, also in chats that are deleted."""
        mine = Spending.user_id == id_of(self), Spending.month == month()
        return db.session.scalar(select(Spending.dollars).where(*mine)) or Decimal(0)

    def on_ask(self, chat: "Chat", model: str, told: provider.Told) -> str | None:
        return DISABLED if self.disabled else super().on_ask(chat, model, told)

    def may_spend(self) -> bool:
        return not self.disabled and super().may_spend()

    def on_spent(self, dollars: Decimal) -> None:
        if dollars:
            mine = {"id": id_of(self), "month": month()}
            db.session.execute(SPEND, {**mine, "picodollars": picodollars(dollars)})

    # What the sidebar of every page of mine shows.

    def show_moved(self, chat: "Chat") -> None:
        """Show a chat, in which something was said, before all others."""
        if not chat.archived:
            live.announce_on(self.chats_channel, live.render("sidebar/_moved.html", item=chat))

    def show_gone(self, chat_id: int) -> None:
        """Show a chat no more."""
        live.announce_on(self.chats_channel, live.render("sidebar/_gone.html", chat_id=chat_id))


class Spending(Model):
    """What a person's replies cost in a month ("2026-11", UTC), also of chats that are deleted."""

    __tablename__ = "spendings"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    month: Mapped[str] = mapped_column(String(7), primary_key=True)
    picodollars: Mapped[int] = mapped_column(BigInteger, default=0)

    dollars = converted("picodollars", Dollars())


# Who has gone meanwhile spends no more. (SQLite needs the WHERE to tell ON from a join's.)
SPEND = text("""
    INSERT INTO spendings (user_id, month, picodollars)
    SELECT id, :month, :picodollars FROM users WHERE id = :id
    ON CONFLICT (user_id, month) DO UPDATE
    SET picodollars = spendings.picodollars + excluded.picodollars
""")


def listing(column):
    """Return the index of the few chats that have a column set, by recency."""
    # The column itself is there for SQLite, which would take the index of all chats else.
    mine = "chattable_type", "chattable_id", column, "updated_at"
    # In the words that a query has.
    sqlite, postgres = text(f"{column} = 1"), text(f"{column} = true")
    return Index(f"chats_{column}", *mine, sqlite_where=sqlite, postgresql_where=postgres)


class Chat(ChatMixin, Model):
    """A conversation, called by the first words said in it until somebody calls it otherwise."""

    __tablename__ = "chats"
    __table_args__ = (listing("pinned"), listing("archived"))
    __installs__ = "installs"

    title: Mapped[str] = mapped_column(String(200), default=NEW_CHAT)
    # Listed before all others; listed apart.
    pinned: Mapped[bool] = mapped_column(default=False, server_default=false())
    archived: Mapped[bool] = mapped_column(default=False, server_default=false())

    # The revision as of which my title was shown by whoever writes a reply here.
    told_at = None

    def also_changes(self, content: str | None) -> dict[str, Any]:
        if not content:
            return {}
        unnamed = self.title == NEW_CHAT and not self.revision
        back = {"archived": False} if self.archived else {}
        return back | ({"title": opening_words(content)} if unnamed else {})

    @persistent
    def rename(self, title: str) -> None:
        self.title, self.revision = title, Chat.revision + 1
        db.session.commit()
        self.broadcast_title()

    @classmethod
    def opening(cls, chat_id: int) -> tuple[Self, str, str] | None:
        """Return (chat, question, answer) if a chat has one whole reply, and no name but its own.

        That is: its title is still the words it began with.
        """
        chat = cls.with_owner(chat_id)
        said = select(Message).where(Message.chat_id == chat_id).order_by(Message.id)
        whole = said.where(Message.role == "assistant", Message.status == "complete").limit(2)
        first = db.session.scalars(said.where(Message.role == "user").limit(1)).first()
        replies = db.session.scalars(whole).all()
        if not (
            chat and first and len(replies) == 1 and chat.title == opening_words(first.content)
        ):
            return None
        question = chat.find(chat.parent_of(replies[0])) or first
        return chat, question.content, replies[0].content

    @persistent
    def retitle(self, old: str, said: str) -> None:
        """Take a model's words for my title, unless it is not the `old` one any more."""
        title = shortened(markdown.words(said[:OPENING]).strip("\"'“”„«»「」. "))
        mine = Chat.id == self.id, Chat.title == old
        change = update(Chat).where(*mine).values(title=title, revision=Chat.revision + 1)
        changed: Any = db.session.execute(change) if title else None
        db.session.commit()
        if changed and changed.rowcount:
            db.session.refresh(self, ["title"])
            self.broadcast_title()

    @persistent
    def put(self, pinned: bool | None = None, archived: bool | None = None) -> None:
        """List me before all others, or apart from them, or not any more; None changes nothing."""
        for name, value in (("pinned", pinned), ("archived", archived)):
            if value is not None:
                setattr(self, name, value)
        db.session.commit()

    def delete(self) -> None:
        chat_id, owner = self.id, self.chattable
        super().delete()
        if owner:
            owner.show_gone(chat_id)

    def surroundings(self) -> list[str]:
        return [self._title_frame(), self._cost_frame(), self._next_frame(self.model)]

    def broadcast_title(self, to_owner: bool = True) -> None:
        """Show my title on every page of mine, and in every list of my owner's."""
        live.announce(self.id, self._title_frame())
        if to_owner and self.chattable:
            frame = live.render("chats/_title.html", chat=self, alone=True)
            live.announce_on(self.chattable.chats_channel, frame)

    @persistent
    def confirm_title(self, revision: int) -> None:
        """Show my title again if somebody else has changed me since a reply here began."""
        if self.told_at and self.told_at + 1 < revision:
            db.session.refresh(self, ["title"])
            self.broadcast_title()
            self.told_at = None

    @persistent
    def broadcast_cost(self) -> None:
        """Show what I have cost so far on every page of mine."""
        live.announce(self.id, self._cost_frame())

    @persistent
    def broadcast_next(self, model: str) -> None:
        """Show what the next message takes along on every page of mine."""
        live.announce(self.id, self._next_frame(model))

    def next_send(self, model: str | None) -> dict[str, Any] | None:
        """Return the tokens that the next message to a model takes along, and their cost.

        None while they are few, or a small share of what it reads. The cost (Decimal, dollars) is
        None if nobody knows the price.
        """
        if not model or (self.latest_prompt < FEW and not self.unsent_to):
            return None
        beside(provider.know_models)
        tokens, share = self.carries(model)
        if share < current_app.config["CONTEXT_SHARE"]:
            return None
        cost, _ = provider.costs(model, provider.Usage(prompt=tokens, completion=0))
        return {"tokens": tokens, "model": model, "cost": cost}

    def _next_frame(self, model):
        return live.render("chats/_next_frame.html", next=self.next_send(model))

    def _title_frame(self):
        return live.render("chats/_title.html", chat=self)

    def _cost_frame(self):
        return live.render("chats/_cost.html", chat=self, cost=self.cost)


class Message(MessageMixin, Model):
    """What a person wrote, or a reply."""

    __tablename__ = "messages"
    __unique_names__ = "one_message_per_client_id", "one_running_reply"


def initials(name: str) -> str:
    """Return the one or two capitals that stand for a person: "AL" for Ada Lovelace."""
    words = name.split() or ["?"]
    return (words[0][0] + (words[-1][0] if len(words) > 1 else "")).upper()


def opening_words(content: str) -> str:
    """Return the start of a message, without Markdown, as a title."""
    opening = content[:OPENING]
    return shortened(markdown.words(opening) or " ".join(opening.split())) or NEW_CHAT


def shortened(words: str) -> str:
    """Return words as a title of at most `TITLE_LENGTH` characters."""
    if len(words) <= TITLE_LENGTH:
        return words
    short = textwrap.shorten(words, TITLE_LENGTH, placeholder="…")
    # Not every script has spaces, and an address has none.
    return short if len(short) > TITLE_LENGTH // 2 else f"{words[: TITLE_LENGTH - 1]}…"
