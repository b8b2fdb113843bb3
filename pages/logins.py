"""Where people are logged in, and what ends it."""

import logging
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from flask import current_app
from sqlalchemy import DateTime, ForeignKey, String, bindparam, delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from chattable import live
from chattable.database import Moment, converted, id_of, now, persistent, reason, roll_back
from models import Model, User, db

SEEN_EVERY = timedelta(minutes=5)
MOST = 200  # of one person

log = logging.getLogger(__name__)


class Login(Model):
    """A browser in which a person is logged in, until it is ended: its row is deleted then."""

    __tablename__ = "logins"
    # What ends one must not end the next.
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    # What its cookie says beside the account.
    token: Mapped[str] = mapped_column(String(43), unique=True, default=secrets.token_urlsafe)
    agent: Mapped[str] = mapped_column(String(300), default="")
    address: Mapped[str] = mapped_column(String(45), default="")
    _created_at: Mapped[datetime] = mapped_column("created_at", DateTime(True), default=now)
    _seen_at: Mapped[datetime] = mapped_column("seen_at", DateTime(True), default=now)

    created_at = converted("_created_at", Moment())
    seen_at = converted("_seen_at", Moment())


LOGGED_IN = (
    select(User, Login)
    .join(Login, Login.user_id == User.id)
    .where(User.public_id == bindparam("public_id"), Login.token == bindparam("token"))
    .where(~User.disabled)
)


@persistent
def begin(user: User, password_hash: str, agent: str, address: str) -> Login | None:
    """Log somebody in, unless they are disabled or have another password than was checked.

    Log-ins that were not used for as long as a session lasts are removed; of too many, those that
    were not used for longest are ended.
    """
    them = User.id == id_of(user), User.password_hash == password_hash, ~User.disabled
    # Whoever changes them at this moment waits, or is waited for: then it ends this one, too.
    same: Any = db.session.execute(update(User).where(*them).values(_seen_at=now()))
    login = Login(user_id=id_of(user), agent=agent[:300], address=address[:45])
    if same.rowcount:
        db.session.add(login)
    lifetime = current_app.config["PERMANENT_SESSION_LIFETIME"]
    db.session.execute(delete(Login).where(Login.seen_at < now() - lifetime))
    beyond = [each.id for each in all_of(user)[MOST:]]
    db.session.execute(delete(Login).where(Login.id.in_(beyond)))
    db.session.commit()
    for each in beyond:
        live.end_sockets(user.chats_channel, each)
    return login if same.rowcount else None


def logged_in(public_id: str, token: str) -> User | None:
    """Return the user whom a session names, if its log-in lives and they are not disabled."""
    named = {"public_id": public_id, "token": token}
    for user, login in db.session.execute(LOGGED_IN, named):
        user.login = login
        return user
    return None


def note_use(user: User, address: str) -> None:
    """Note, every few minutes at most, who is here; it matters too little to fail a page."""
    late = now() - SEEN_EVERY
    if user.login.seen_at > late:
        return
    used = Login.id == id_of(user.login), Login.seen_at < late
    seen = {"_seen_at": now(), "address": address[:45]}
    try:
        db.session.execute(update(Login).where(*used).values(seen))
        db.session.execute(update(User).where(User.id == id_of(user)).values(_seen_at=now()))
        db.session.commit()
    except SQLAlchemyError as error:
        log.info("user %s: not noted as seen: %s", id_of(user), reason(error))
        roll_back()


def lives(login: Login) -> bool:
    """Return whether a log-in has not been ended since."""
    mine = Login.id == id_of(login)
    return db.session.scalar(select(Login.id).where(mine)) is not None


def all_of(user: User) -> Sequence[Login]:
    """Return where somebody is logged in, the last used first."""
    theirs = select(Login).where(Login.user_id == id_of(user))
    return db.session.scalars(theirs.order_by(Login.seen_at.desc(), Login.id.desc())).all()


@persistent
def end_all(user: User, but: Login | None = None, **changes: Any) -> None:
    """Sign somebody out everywhere, `but` where one log-in is; `changes` of columns go along."""
    if changes:
        db.session.execute(update(User).where(User.id == id_of(user)).values(changes))
    theirs, kept = Login.user_id == id_of(user), id_of(but) if but else None
    db.session.execute(delete(Login).where(theirs, Login.id.is_distinct_from(kept)))
    db.session.commit()
    live.end_sockets(user.chats_channel, but=kept)


@persistent
def end_one(user: User, login_id: int) -> bool:
    """End one log-in of somebody's; return whether it was there."""
    theirs = Login.user_id == id_of(user), Login.id == login_id
    ended: Any = db.session.execute(delete(Login).where(*theirs))
    db.session.commit()
    live.end_sockets(user.chats_channel, login_id)
    return bool(ended.rowcount)
