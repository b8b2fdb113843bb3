"""People: how they sign up, are found and listed, change and leave.

An administrator sees of them when they came and went, and how much, never what they said.
"""

from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy import delete, func, or_, select, type_coerce, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased
from werkzeug.security import generate_password_hash

from chattable import live
from chattable.budget import month
from chattable.connections import beside
from chattable.database import Dollars, id_of, persistent
from chattable.queue import forget_chats
from models import Chat, Spending, User, db
from pages import logins
from pages.invitations import Invitation, Uninvited
from pages.policy import Setting


@persistent
def sign_up(
    name: str,
    email: str,
    password: str | None,
    invitation: Invitation | None = None,
    uninvited: str = "everybody",
) -> User | None:
    """Create a user, the first an administrator; None if the (normalised) e-mail is taken.

    `uninvited` says who needs no invitation: "everybody", "the first" or "nobody". Raises
    `Uninvited` for whoever else has none that is good. No password lets nobody in.
    """
    hashed = beside(generate_password_hash, password) if password else ""
    first = nobody_yet()
    user = User(name=name, email=email, password_hash=hashed, admin=first)
    db.session.add(user)
    try:
        db.session.flush()
    except IntegrityError:
        db.session.rollback()
        return None
    free = uninvited == "everybody" or (first and uninvited == "the first")
    if not (invitation and invitation.use(user)) and not free:
        db.session.rollback()
        raise Uninvited
    db.session.commit()
    return user


def nobody_yet() -> bool:
    """Return whether there is no user: nobody else becomes one before this transaction ends."""
    anybody = select(User.id).limit(1)
    if db.session.scalar(anybody):
        return False
    Setting.take_turn()
    return not db.session.scalar(anybody)


def known_as(public_id: str) -> User | None:
    """Return the user whom links know by a word, or None."""
    return db.session.scalar(select(User).where(User.public_id == public_id))


def with_email(email: str) -> User | None:
    """Return the user with this (normalised) e-mail address, or None."""
    return db.session.scalar(select(User).where(User.email == email))


def list_people(limit, before, words=""):
    """Return (User, chats, spent) of those below an id, the newest first.

    `chats` are how many, `spent` the dollars of this month, `words` a part of the name or e-mail.
    """
    listed = everybody().where(User.id < before).order_by(User.id.desc()).limit(limit)
    return db.session.execute(listed.where(called(words)) if words else listed).all()


def find_person(user_id):
    """Return (User, chats, spent), or None."""
    return db.session.execute(everybody().where(User.id == user_id)).first()


def everybody():
    mine = Chat.chattable_type == "User", Chat.chattable_id == User.id
    chats = select(func.count()).where(*mine).scalar_subquery()
    this_month = Spending.user_id == User.id, Spending.month == month()
    picodollars = select(Spending.picodollars).where(*this_month).scalar_subquery()
    spent = type_coerce(func.coalesce(picodollars, 0), Dollars())
    return select(User, chats.label("chats"), spent.label("spent"))


def called(words):
    """Return the condition that a person's name or address has words in it."""
    # A database may fold the case of ASCII alone.
    forms = {words, words.lower(), words.upper(), words.title()}
    columns = User.name, User.email
    return or_(*(each.icontains(form, autoescape=True) for each in columns for form in forms))


def change(user: User, **values: Any) -> bool:
    """Set columns of somebody's; return False if the (normalised) e-mail is another's."""
    try:
        db.session.execute(update(User).where(User.id == id_of(user)).values(values))
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        return False
    return True


def disable(user: User) -> None:
    """Let somebody in no more, sign them out, and ask for nothing more in their chats."""
    logins.end_all(user, disabled=True)
    with suppress(RedisError):  # what they have not begun by then is refused
        user.stop_replies()


def enable(user: User) -> None:
    change(user, disabled=False)


def is_last_admin(user: User) -> bool:
    """Return whether no other administrator can log in, until this transaction ends."""
    Setting.take_turn()
    admins = select(User.id).where(User.admin, ~User.disabled).with_for_update()
    return list(db.session.scalars(admins)) == [user.id]


@persistent
def resign(user: User) -> bool:
    """Be no administrator any more; return False if others need this one, who is the last."""
    other = aliased(User)
    others = select(other.id).where(other.id != id_of(user))
    # Whoever resigns at this moment waits, or is waited for.
    db.session.scalars(select(User.id).where(User.admin).with_for_update()).all()
    another = others.where(other.admin, ~other.disabled).exists()
    db.session.execute(update(User).where(User.id == id_of(user), another).values(admin=False))
    db.session.commit()
    needed = select(User.id).where(User.id == id_of(user), User.admin, others.exists())
    return db.session.scalar(needed) is None


def delete_account(user: User) -> None:
    """Delete somebody with all that is theirs, wherever it is."""
    logins.end_all(user)
    chat_ids = user.delete_chats()
    remove(user)
    # What was begun before the log-ins ended, and came late.
    forget_chats(chat_ids + user.delete_chats())


@persistent
def remove(user):
    db.session.execute(delete(User).where(User.id == id_of(user)))
    db.session.commit()
    live.end_sockets(user.chats_channel)
    with suppress(RedisError):  # it is given back by itself
        live.give_all_back(user.chats_channel)
