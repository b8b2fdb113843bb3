"""Invitations: links with which one person can sign up, once, until a day."""

import base64
import hmac
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from flask import Blueprint, current_app, url_for
from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import DateTime, ForeignKey, String, delete, select, update
from sqlalchemy.orm import Mapped, mapped_column

from chattable.database import Moment, converted, now
from models import Model, User, db
from pages.hosts import own_address
from pages.policy import CLOSED, INVITE, UNINVITED, rule
from pages.words import one_line

DAYS, MOST_DAYS = 7, 30
NOTE_LENGTH = 200
BY_INVITATION = "Signing up is by invitation here. Ask whoever runs this server for one."
NOBODY = "No new accounts are made here. Ask whoever runs this server."

routes = Blueprint("invitations", __name__, cli_group=None)


class Invitation(Model):
    """A link with which one person can sign up, once; to revoke it is to delete it."""

    __tablename__ = "invitations"

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(String(43), unique=True, default=secrets.token_urlsafe)
    # Whom it is for, in its maker's words.
    note: Mapped[str] = mapped_column(String(200), default="")
    _created_at: Mapped[datetime] = mapped_column("created_at", DateTime(True), default=now)
    _expires_at: Mapped[datetime] = mapped_column("expires_at", DateTime(True))
    _used_at: Mapped[datetime | None] = mapped_column("used_at", DateTime(True))
    used_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))

    created_at = converted("_created_at", Moment())
    expires_at = converted("_expires_at", Moment())
    used_at = converted("_used_at", Moment())

    def use(self, user: User) -> bool:
        """Note who signs up with me, to be committed; return False if I am not good any more."""
        if self.id is None:  # it was only signed, as all were before they were kept
            db.session.add(self)
            db.session.flush()
        mine = Invitation.token == self.token, Invitation.used_at.is_(None)
        good = update(Invitation).where(*mine, Invitation.expires_at > now())
        change = good.values(_used_at=now(), used_by_id=user.id)
        used: Any = db.session.execute(change, execution_options={"synchronize_session": False})
        return used.rowcount == 1


class Uninvited(Exception):
    """Say that nobody signs up without an invitation that is good, and there was none."""


def init_app(app):
    """Let an app invite people."""
    app.register_blueprint(routes)


def invite(note="", days=DAYS):
    """Make an invitation and return the word in its link, whose hash alone is kept."""
    word = secrets.token_urlsafe()
    expires_at = now() + timedelta(days=days)
    db.session.add(Invitation(token=digest(word), note=note, expires_at=expires_at))
    db.session.commit()
    return word


def revoke(invitation_id):
    """Forget an invitation, unless somebody has used it; return whether it was there."""
    unused = Invitation.id == invitation_id, Invitation.used_at.is_(None)
    done: Any = db.session.execute(delete(Invitation).where(*unused))
    db.session.commit()
    return bool(done.rowcount)


def list_invitations(limit, before):
    """Return [(invitation, who has used it or None)] of those below an id, the newest first."""
    listed = select(Invitation, User).outerjoin(User, User.id == Invitation.used_by_id)
    listed = listed.where(Invitation.id < before).order_by(Invitation.id.desc()).limit(limit)
    return db.session.execute(listed).all()


def admission(word):
    """Return (why somebody with this word, or "", may not sign up, what `people.sign_up` takes)."""
    now_is, invitation = rule(), find_invitation(word) if word else None
    if now_is == CLOSED:
        why_not = NOBODY
    elif now_is == INVITE:
        why_not = fault(invitation) if word else BY_INVITATION
    else:
        why_not = ""
    return why_not, {"invitation": invitation, "uninvited": UNINVITED[now_is]}


def find_invitation(word):
    """Return the invitation whose link has a word, or None."""
    known = select(Invitation).where(Invitation.token == digest(word))
    return db.session.scalar(known) or signed_invitation(word)


def signed_invitation(word):
    """Return one of before they were kept: each was good for a week, so this can go in 2027."""
    signer = URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt="invitation")
    week = timedelta(days=DAYS)
    try:
        _, made_at = signer.loads(word, week // timedelta(seconds=1), return_timestamp=True)
    except BadSignature:
        return None
    made_at = made_at.astimezone(UTC)
    return Invitation(token=digest(word), created_at=made_at, expires_at=made_at + week)


def digest(word):
    """Return what is kept of a word: 43 characters, of which without our key nobody makes any."""
    key = current_app.config["SECRET_KEY"].encode()
    hashed = hmac.digest(key, b"invitation " + word.encode(), "sha256")
    return base64.urlsafe_b64encode(hashed).decode().rstrip("=")


def fault(invitation):
    """Return in a sentence why nobody signs up with an invitation, or with None; "" if one can."""
    if invitation is None:
        return "This invitation is not known here; it may have been revoked. Ask for another one."
    if invitation.used_at:
        return "This invitation has been used. Log in if it was you, or ask for another one."
    if invitation.expires_at <= now():
        return "This invitation has expired. Ask for another one."
    return ""


@routes.cli.command("invite")
@click.option("--note", default="", help="Whom it is for.")
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=DAYS, show_default=True)
def print_invitation(note, days):
    """Print a link with which one person can sign up, once."""
    word = invite(one_line(note)[:NOTE_LENGTH], days)
    server = own_address() or ""
    with current_app.test_request_context():  # it knows the path where we are mounted
        link = server + url_for("accounts.sign_up", invitation=word)
        closed = rule() == CLOSED
    add = "" if server else "add your address; "
    click.echo(f"{link}   ({add}for one person, valid {days} day{'s' * (days > 1)})")
    if closed:
        click.echo("Nobody can use it for now: signing up is closed here.", err=True)
