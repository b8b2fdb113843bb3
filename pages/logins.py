"""Where people are logged in, and what ends it: a part of `User`, with its SQL.

For `models` alone: it imports no model.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flask import current_app
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import aliased
from werkzeug.security import generate_password_hash

from chattable import live
from chattable.connections import beside
from chattable.database import db, id_of, now, persistent, reason, roll_back
from chattable.queue import forget_chats

SEEN_EVERY = timedelta(minutes=5)

log = logging.getLogger(__name__)


class Account:
    """Somebody who logs in, in many browsers, until that is ended; for `User`."""

    if TYPE_CHECKING:  # the model's own
        id: Any
        password_hash: Any
        admin: Any
        disabled: Any
        chats_channel: str
        delete_chats: Callable[[], list[int]]
        # The class of a log-in.
        Login: Any
        login: Any

    # The log-in by which I am here, where I am the one who asks.
    login = None

    @persistent
    def begin_login(self, password_hash: str, agent: str, address: str) -> Any | None:
        """Log me in, unless I am disabled or have another password than the one that was checked.

        Log-ins that were not used for as long as a session lasts are removed.
        """
        user, Login = type(self), self.Login
        me = user.id == id_of(self), user.password_hash == password_hash, ~user.disabled
        # Whoever changes me at this moment waits, or is waited for: then it ends this one, too.
        same: Any = db.session.execute(update(user).where(*me).values(_seen_at=now()))
        login = Login(user_id=id_of(self), agent=agent[:300], address=address[:45])
        if same.rowcount:
            db.session.add(login)
        lifetime = current_app.config["PERMANENT_SESSION_LIFETIME"]
        db.session.execute(delete(Login).where(Login.seen_at < now() - lifetime))
        db.session.commit()
        return login if same.rowcount else None

    @persistent
    def end_logins(self, but: Any | None = None, **changes: Any) -> None:
        """Sign me out everywhere, `but` where one log-in is; `changes` of columns go along."""
        user, Login = type(self), self.Login
        if changes:
            db.session.execute(update(user).where(user.id == id_of(self)).values(changes))
        mine, kept = Login.user_id == id_of(self), id_of(but) if but else None
        db.session.execute(delete(Login).where(mine, Login.id.is_distinct_from(kept)))
        db.session.commit()
        live.end_sockets(self.chats_channel, but=kept)

    @persistent
    def end_login(self, login_id: int) -> bool:
        """End one log-in of mine; return whether it was there."""
        Login = self.Login
        mine = Login.user_id == id_of(self), Login.id == login_id
        ended: Any = db.session.execute(delete(Login).where(*mine))
        db.session.commit()
        live.end_sockets(self.chats_channel, login_id)
        return bool(ended.rowcount)

    @property
    def logins(self) -> Sequence[Any]:
        """Where I am logged in, the last used first."""
        Login = self.Login
        mine = select(Login).where(Login.user_id == id_of(self))
        return db.session.scalars(mine.order_by(Login.seen_at.desc(), Login.id.desc())).all()

    def note_use(self, address: str) -> None:
        """Note, every few minutes at most, that I am here; it matters too little to fail a page."""
        user, Login, late = type(self), self.Login, now() - SEEN_EVERY
        if self.login.seen_at > late:
            return
        used = Login.id == id_of(self.login), Login.seen_at < late
        seen = {"_seen_at": now(), "address": address[:45]}
        try:
            db.session.execute(update(Login).where(*used).values(seen))
            db.session.execute(update(user).where(user.id == id_of(self)).values(_seen_at=now()))
            db.session.commit()
        except SQLAlchemyError as error:
            log.info("user %s: not noted as seen: %s", id_of(self), reason(error))
            roll_back()

    @property
    def here(self) -> bool:
        """Whether the log-in by which I am here has not been ended since."""
        mine = self.Login.id == id_of(self.login)
        return db.session.scalar(select(self.Login.id).where(mine)) is not None

    def set_password(self, password: str) -> None:
        """Take another password; whoever is logged in as me has to do so anew."""
        self.end_logins(password_hash=beside(generate_password_hash, password))

    def disable(self) -> None:
        """Let me in no more, and sign me out."""
        self.end_logins(disabled=True)

    def enable(self) -> None:
        self.change(disabled=False)

    def change(self, **values: Any) -> bool:
        """Set columns of mine; return False if the (normalised) e-mail address is another's."""
        user = type(self)
        try:
            db.session.execute(update(user).where(user.id == id_of(self)).values(values))
            db.session.commit()
        except IntegrityError:
            db.session.rollback()
            return False
        return True

    @persistent
    def resign(self) -> bool:
        """Be no administrator any more; return False if others need me, for I am the last one."""
        user = type(self)
        other = aliased(user)
        others = select(other.id).where(other.id != id_of(self))
        # Whoever resigns at this moment waits, or is waited for.
        db.session.scalars(select(user.id).where(user.admin).with_for_update()).all()
        another = others.where(other.admin, ~other.disabled).exists()
        db.session.execute(update(user).where(user.id == id_of(self), another).values(admin=False))
        db.session.commit()
        needed = select(user.id).where(user.id == id_of(self), user.admin, others.exists())
        return db.session.scalar(needed) is None

    def delete(self) -> None:
        """Delete me with all that is mine, wherever it is."""
        self.end_logins()
        chat_ids = self.delete_chats()
        self._leave()
        # What was begun before the log-ins ended, and came late.
        forget_chats(chat_ids + self.delete_chats())

    @persistent
    def _leave(self):
        user = type(self)
        db.session.execute(delete(user).where(user.id == id_of(self)))
        db.session.commit()
        live.end_sockets(self.chats_channel)
