"""A person, their chats and what is said in them: this app's own on `chattable`, and its SQL."""

import secrets
import textwrap
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import DateTime, String, UniqueConstraint, bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from werkzeug.security import check_password_hash, generate_password_hash

from chattable import ChatMixin, Chattable, MessageMixin, live, markdown
from chattable.connections import beside
from chattable.database import Moment, converted, now, persistent

NEW_CHAT = "New chat"
TITLE_LENGTH = 60
# Characters of a message that are read for its title.
OPENING = 1_000


class Base(DeclarativeBase):
    """What every model is."""


# Objects stay as they are after a commit: reading them again would cost a page a query.
db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False})
if TYPE_CHECKING:  # a checker takes no attribute for a base class
    Model = Base
else:
    Model = db.Model


class User(Chattable, UserMixin, Model):
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

    created_at = converted("_created_at", Moment())

    def get_id(self) -> str:
        return self.public_id

    @classmethod
    def known_as(cls, public_id: str) -> Self | None:
        """Return the user whom a session names, or None."""
        return db.session.scalar(NAMED_USER, {"public_id": public_id})

    @classmethod
    def sign_up(cls, name: str, email: str, password: str) -> Self | None:
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
    def authenticate(cls, email: str, password: str) -> Self | None:
        """Return the user with this e-mail address and password, or None."""
        user = db.session.scalar(select(cls).where(cls.email == email))
        # Compare in any case: the time it takes must not tell whether the address is known.
        matches = beside(check_password_hash, user.password_hash if user else NOBODY, password)
        return user if user and matches else None

    @property
    def initials(self) -> str:
        return initials(self.name)

    def on_message_create(self, message: "Message") -> None:
        live.broadcast_message(message)
        if message.revision == 1:  # its first words are its title now
            message.chat.broadcast_title()
            message.chat.told_at = message.revision

    def on_message_update(self, message: "Message") -> None:
        live.broadcast_message(message)
        if not message.running:
            message.chat.confirm_title(message.revision)
            message.chat.broadcast_cost()


NAMED_USER = select(User).where(User.public_id == bindparam("public_id"))


class Chat(ChatMixin, Model):
    """A conversation, called by the first words said in it until somebody calls it otherwise."""

    __tablename__ = "chats"
    __installs__ = "installs"

    title: Mapped[str] = mapped_column(String(200), default=NEW_CHAT)

    # The revision as of which my title was shown by whoever writes a reply here.
    told_at = None

    def also_changes(self, content: str | None) -> dict[str, Any]:
        unnamed = self.title == NEW_CHAT and not self.revision
        return {"title": opening_words(content)} if content and unnamed else {}

    @persistent
    def rename(self, title: str) -> None:
        self.title, self.revision = title, Chat.revision + 1
        db.session.commit()
        self.broadcast_title()

    def surroundings(self) -> list[str]:
        return [self._title_frame(), self._cost_frame()]

    def broadcast_title(self) -> None:
        """Show my title on every page of mine."""
        live.announce(self.id, self._title_frame())

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


# The hash of no password, for comparing when there is no such user: as dear as those that Werkzeug
# makes, and not made anew in every process.
NOBODY = f"scrypt:32768:8:1$nobody${'0' * 128}"
