"""Passwords: whose it is, another one, and none until there is another."""

import secrets
from typing import Any

from sqlalchemy import delete, select, update
from werkzeug.security import check_password_hash, generate_password_hash

from chattable.connections import beside
from chattable.database import id_of, persistent
from models import User, db
from pages import logins
from pages.identities import Identity

# The hash of no password, for comparing when there is no such user: as dear as those that Werkzeug
# makes, and not made anew in every process.
NOBODY = f"scrypt:32768:8:1$nobody${'0' * 128}"


def authenticate(email: str, password: str) -> User | None:
    """Return the user with this e-mail address and password, or None."""
    user = db.session.scalar(select(User).where(User.email == email))
    # Compare in any case: the time it takes must not tell whether the address is known.
    hashed = (user and user.password_hash) or NOBODY
    matches = beside(check_password_hash, hashed, password)
    return user if user and matches else None


def change(user: User, password: str) -> None:
    """Give somebody another password; whoever is logged in as them has to do so anew."""
    logins.end_all(user, password_hash=beside(generate_password_hash, password))


@persistent
def take_back_keys(user: User) -> bool:
    """Let nobody in by a password, by a link to another one, or by a provider any more.

    Return False if it was done meanwhile: of two who follow a link at once, one goes on.
    """
    them = User.id == id_of(user), User.password_hash == user.password_hash
    void = {"password_hash": f"!{secrets.token_hex(8)}"}
    taken: Any = db.session.execute(update(User).where(*them).values(void))
    db.session.execute(delete(Identity).where(Identity.user_id == id_of(user)))
    db.session.commit()
    return bool(taken.rowcount)
