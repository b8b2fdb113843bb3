"""Who may sign up: what SIGNUP says, else an administrator, else where this server can be reached.

A server that is reached from outside takes its first account from anybody, all others by
invitation. What a request says of its own address is a forger's word: it makes a server public,
never private again.
"""

import logging
from urllib.parse import urlsplit

from flask import current_app, request
from sqlalchemy import String, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from chattable.provider.address import is_near
from models import Model, User, db
from pages.values import choice

OPEN, INVITE, CLOSED = RULES = "open", "invite", "closed"
# Nobody has an account yet on a server that others reach: the first is anybody's.
FIRST = "first"
UNINVITED = {OPEN: "everybody", FIRST: "the first", INVITE: "nobody", CLOSED: "nobody"}
# What the platforms set for whatever runs on them.
MARKS = (
    "DYNO RENDER FLY_APP_NAME RAILWAY_ENVIRONMENT K_SERVICE GAE_SERVICE WEBSITE_SITE_NAME VERCEL"
    " KUBERNETES_SERVICE_HOST ECS_CONTAINER_METADATA_URI_V4 AWS_EXECUTION_ENV VCAP_APPLICATION"
    " KOYEB_APP_NAME DOKKU_APP_TYPE PYTHONANYWHERE_SITE SPACE_ID"
).split()
CHOSEN, SEEN = "signup", "public name"
# A HOST that is no address of its own, but all there are.
EVERYWHERE = "0.0.0.0", "::"

log = logging.getLogger(__name__)


class Setting(Model):
    """What an administrator has chosen, or the app has seen, where the environment says nothing."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[str] = mapped_column(String(255))

    @classmethod
    def kept(cls) -> dict[str, str]:
        return {row.name: row.value for row in db.session.execute(select(cls.name, cls.value))}

    @classmethod
    def keep(cls, name: str, value: str) -> None:
        """Set what has a name, to be committed."""
        insert = "INSERT INTO settings (name, value) VALUES (:name, :value)"
        change = "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        db.session.execute(text(f"{insert} {change}"), {"name": name, "value": value})

    @classmethod
    def take_turn(cls) -> None:
        """Let nobody else past this line until this transaction ends; in SQLite nobody writes."""
        cls.keep("turn", "")


def signup_settings(settings):
    """Return the configuration of who may sign up."""
    return {
        "SIGNUP": choice(settings, "SIGNUP", RULES),
        "SIGNUP_IS_SET": "SIGNUP" in settings,
        "PUBLIC_BY": None if is_here_alone(settings) else next(filter(settings.get, MARKS), None),
    }


def is_here_alone(settings):
    """Return whether `uv run chattable` runs this for its own machine: in a cloud's editor, too."""
    host = settings.get("HOST", "127.0.0.1")
    return "CHATTABLE_URL" in settings and host not in EVERYWHERE and is_near(host)


def public_by():
    """Return what tells at the start that this server is reached from outside, or None."""
    names = current_app.config.get("ALLOWED_HOSTS") or []
    named = any(not is_near(host_of(name)) for name in names)
    return current_app.config["PUBLIC_BY"] or ("ALLOWED_HOSTS" if named else None)


def say_who_may_sign_up(app):
    """Tell whoever starts a public server, and has not said who may sign up."""
    with app.app_context():
        mark = public_by()
        chosen = bool(mark) and decided_if_known()
    if mark and not chosen:
        log.warning(
            "SIGNUP is not set, and this server is public (%s): the first account is the "
            "administrator's, everybody else needs an invitation. Change it on /admin/signup, or "
            "set SIGNUP to open, invite or closed.",
            mark,
        )


def rule():
    """Return who may sign up now: OPEN, INVITE, CLOSED or FIRST."""
    if current_app.config["SIGNUP_IS_SET"]:
        return current_app.config["SIGNUP"]
    kept = Setting.kept()
    if kept.get(CHOSEN) in RULES:
        return kept[CHOSEN]
    if not (public_by() or SEEN in kept or public_name()):
        return OPEN
    return INVITE if db.session.scalar(select(User.id).limit(1)) else FIRST


def decided():
    """Return who decides: the "environment", an "administrator", or nobody, None."""
    if current_app.config["SIGNUP_IS_SET"]:
        return "environment"
    return "administrator" if Setting.kept().get(CHOSEN) in RULES else None


def decided_if_known():
    """Return `decided()`, or None where there is no database yet."""
    try:
        return decided()
    except SQLAlchemyError:
        return None
    finally:
        db.session.remove()
        db.engine.dispose()  # a process that forks has connections of its own


def choose(chosen):
    """Have it so from now on."""
    Setting.keep(CHOSEN, chosen)
    db.session.commit()


def rule_if_known():
    """Return `rule()`, or None while the database is away: a page says nothing of it then."""
    try:
        return rule()
    except SQLAlchemyError:
        db.session.rollback()
        return None


def public_name():
    """Return the name by which a browser outside of any local network has reached us, or None.

    A proxy may pass on another one than the browser knows; that one it says in `Origin`.
    """
    names = host_of(request.host), host_of(request.headers.get("Origin", "").partition("//")[2])
    return next((name for name in names if name and not is_near(name)), None)


def host_of(netloc):
    """Return a host without its port and its brackets, "" if it is none."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def note_public_name():
    """Remember that somebody with an account has reached us from outside, to be committed."""
    asked = not (current_app.config["SIGNUP_IS_SET"] or public_by())
    name = asked and public_name()
    if name and SEEN not in Setting.kept():
        Setting.keep(SEEN, name[:255])
        db.session.commit()
