"""The app's configuration: what the environment asks for, read once, at the start.

A value that is missing or wrong stops the start with one sentence that names the variable.
"""

import logging
import os
import re
import sys
from datetime import timedelta
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote
from urllib.request import getproxies

import click
from dotenv import dotenv_values, find_dotenv
from flask import Config, Flask
from flask.helpers import get_load_dotenv

from chattable import serve
from chattable.addresses import redis_address
from chattable.provider import (
    ProviderError,
    is_openai,
    read_address,
    read_prices,
    read_windows,
)
from chattable.provider.address import OPENAI
from chattable.serve.dotenv_file import checked
from chattable.setup import LIMITS
from pages.databases import database_url
from pages.hosts import allowed_hosts, own_port
from pages.issuer import openid_settings
from pages.mail import mail_server
from pages.policy import say_who_may_sign_up, signup_settings
from pages.values import dollars, limit, limits_hold, refuse, share, whole_number

SHORT = 16  # characters of a secret
# How a key begins that somebody has copied from instructions.
EXAMPLE = re.compile(
    r"change|replace|insert|your[-_ ]|secret[-_ ]?key|example|<|\.\.\.", re.IGNORECASE
)
PREFIX = re.compile(r"[\w.:-]{1,60}", re.ASCII)
PATH = re.compile(r"(/(?!\.\.?(/|$))[\w.~-]+)+", re.ASCII)  # browsers resolve . and ..

log = logging.getLogger(__name__)


class Settings(Config):
    """A configuration that does not tell its secrets to whoever prints it, as a debugger does."""

    def __repr__(self):
        return f"<Settings {', '.join(sorted(self))}>"


class App(Flask):
    """Flask with such a configuration."""

    config_class = Settings


def gather_settings(given):
    """Return (settings, the folder of the instance): what is given (a dict), without what is empty.

    What `uv run chattable` started in the folder is good for a `flask shell` beside it, too.
    """
    # Flask's commands have read it, and passed over a mistake.
    if click.get_current_context(silent=True) and get_load_dotenv():
        checked(Path(find_dotenv(usecwd=True) or ".env"))
    given = {name: serve.unquoted(value) for name, value in given.items()}
    settings = {name: value for name, value in given.items() if value not in ("", None)}
    instance = serve.instance_folder(settings.get("INSTANCE_PATH"))
    return {**running_settings(instance), **settings}, instance


def running_settings(instance):
    """Return what the launcher that runs from a folder has set, or {}."""
    try:
        return dotenv_values(instance / "running.env")
    except OSError:  # somebody else's
        return {}


def read_settings(settings, instance):
    """Return the Flask configuration that an environment (dict of str) asks for."""
    key = secret_key(settings, instance)
    return {
        "APPLICATION_ROOT": mount_path(settings),
        "SECRET_KEY": key,
        "SESSION_COOKIE_NAME": f"chattable_{mark_of(key)}",
        "SQLALCHEMY_DATABASE_URI": database_url(settings, instance),
        # The last used first: one that idles has to be tested before it is used again.
        "SQLALCHEMY_ENGINE_OPTIONS": {
            "pool_size": 6,
            "max_overflow": 0,
            # Seconds; Heroku's router answers for us after 30.
            "pool_timeout": 20,
            "pool_use_lifo": True,
            # What people write is no business of whoever reads the log.
            "hide_parameters": True,
        },
        "REDIS_IS_SET": "REDIS_URL" in settings,
        "REDIS_URL": redis_url(settings, instance),
        "REDIS_PREFIX": redis_prefix(settings),
        "RATELIMIT_ENABLED": limits_hold(settings),
        "SENDS_PER_MINUTE": limit(settings, "SENDS_PER_MINUTE", 30),
        "REPLIES_AT_ONCE": limit(settings, "REPLIES_AT_ONCE", 5),
        "SOCKETS_AT_ONCE": limit(settings, "SOCKETS_AT_ONCE", 50),
        "BUDGET": dollars(settings, "BUDGET"),
        "OPENAI_API_KEY": provider_key(settings),
        "OPENAI_BASE_URL": provider_url(settings),
        "MODELS": [name.strip() for name in settings.get("MODELS", "").split(",") if name.strip()],
        "TITLE_MODEL": settings.get("TITLE_MODEL", "").strip() or None,
        "DEMO_MODEL": settings.get("DEMO_MODEL") == "1",
        "TRUSTED_PROXIES": trusted_proxies(settings),
        "ALLOWED_HOSTS": allowed_hosts(settings),
        "METRICS_TOKEN": metrics_token(settings),
        **signup_settings(settings),
        "WEB_CONCURRENCY": whole_number(settings, "WEB_CONCURRENCY", 1, most=64),
        "PORT": own_port(settings),
        "CHATTABLE_URL": settings.get("CHATTABLE_URL"),
        **openid_settings(settings),
        "SMTP_URL": mail_server(settings),
        "MAX_MESSAGE_LENGTH": whole_number(settings, "MAX_MESSAGE_LENGTH", 100_000),
        "CONTEXT_WINDOW": context_windows(settings),
        "PRICES": prices(settings),
        "CONTEXT_SHARE": share(settings, "CONTEXT_SHARE", 0.5),
        **{name: whole_number(settings, name, usual) for name, usual in LIMITS.items()},
        "SEND_FILE_MAX_AGE_DEFAULT": timedelta(days=365),
        "COMPRESS_ALGORITHM": ["br", "gzip"],
        "MAX_CONTENT_LENGTH": 8_000_000,
        "MAX_FORM_MEMORY_SIZE": 8_000_000,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "PERMANENT_SESSION_LIFETIME": timedelta(days=365),
        "SESSION_REFRESH_EACH_REQUEST": False,
        "WTF_CSRF_TIME_LIMIT": None,
        "WTF_CSRF_SSL_STRICT": False,
        "WTF_CSRF_ENABLED": settings.get("WTF_CSRF_ENABLED", True),
        "TESTING": settings.get("TESTING", False),
    }


def secret_key(settings, instance):
    """Return the key that is set, else the instance's: made there if the database is there, too."""
    if settings.get("SECRET_KEY"):
        return settings["SECRET_KEY"]
    own = not settings.get("DATABASE_URL")
    key = serve.secret_key(instance) if own else serve.kept_key(instance)
    return key or refuse("SECRET_KEY is not set. Set it to a long random text and keep it secret.")


def mark_of(key):
    """Return what tells our cookies from another install's: browsers keep those of all ports."""
    return sha256(f"cookies {key}".encode()).hexdigest()[:8]


def redis_url(settings, instance):
    try:
        return redis_address(settings.get("REDIS_URL") or own_redis(instance), trusting=True)
    except ValueError as sentence:
        refuse(str(sentence))


def own_redis(instance):
    """Return where a launcher's Redis listens, and tell who does not know that he needs one."""
    path = instance / "redis" / "redis.sock"
    if not path.exists() and not migrates():
        log.warning(
            "REDIS_URL is not set and no `uv run chattable` runs from %s: "
            "pages open, but nobody answers. Set it, or start all of it by that command.",
            instance,
        )
    return f"unix://{quote(os.fsencode(path))}"


def redis_prefix(settings):
    """Return what keys in Redis begin with, or None for the name that the database gives."""
    prefix = settings.get("REDIS_PREFIX") or None
    if prefix and not PREFIX.fullmatch(prefix):
        refuse("REDIS_PREFIX may have letters, digits and the signs . : _ -, 60 at most.")
    return prefix


def provider_key(settings):
    """Return the key of the provider, or None; a header's word before it is none of its own."""
    key = re.sub("^bearer +", "", settings.get("OPENAI_API_KEY", ""), flags=re.IGNORECASE) or None
    if key and not re.fullmatch("[!-~]+", key):
        refuse("OPENAI_API_KEY has a blank, a line break or a sign that no key has. Copy it again.")
    return key


def provider_url(settings):
    """Return the provider's address, or None for OpenAI's own."""
    text = settings.get("OPENAI_BASE_URL", "").strip()
    try:
        url = read_address(text) if text else None
    except ValueError as sentence:
        refuse(str(sentence))
    check_proxy(url or OPENAI)
    return url


def check_proxy(url):
    """Refuse a proxy on the way to the provider that is none, or is not spoken to."""
    if getproxies().keys() <= {"no"}:
        return  # to import what knows them takes half a second
    import httpx2

    from chattable.provider.proxy import proxy_for

    try:
        proxy_for(httpx2.URL(url))
    except ProviderError as sentence:
        refuse(str(sentence))


def trusted_proxies(settings):
    """Return whose word is taken for the browser's address: how many proxies, or networks."""
    # Only its own router can reach what runs on Heroku.
    value = settings.get("TRUSTED_PROXIES", "").strip() or ("1" if "DYNO" in settings else "0")
    try:
        if value.isdecimal():
            return int(value)
        return [ip_network(part.strip(), strict=False) for part in value.split(",")]
    except ValueError:
        refuse(
            "TRUSTED_PROXIES must be the addresses or networks of your proxies, "
            "as in 127.0.0.1, 10.0.0.0/8, or how many there are, one behind the other."
        )


def mount_path(settings):
    """Return SCRIPT_NAME, unless no address would be right with it; gunicorn reads it, too."""
    path = settings.get("SCRIPT_NAME", "")
    if path and not PATH.fullmatch(path):
        refuse(
            "SCRIPT_NAME must be a path as in /chat: a slash before each name, which is not . or "
            ".., and none at the end."
        )
    return path or "/"


def metrics_token(settings):
    """Return what whoever asks for /metrics has to know, or None: then there is no such page."""
    token = settings.get("METRICS_TOKEN")
    if token and not re.fullmatch(f"[!-~]{{{SHORT},}}", token):
        refuse(f"METRICS_TOKEN must have at least {SHORT} letters, digits or signs, and no blanks.")
    return token


def context_windows(settings):
    try:
        return read_windows(str(settings.get("CONTEXT_WINDOW") or ""))
    except ValueError as sentence:
        refuse(str(sentence))


def prices(settings):
    try:
        return read_prices(str(settings.get("PRICES") or ""))
    except ValueError as sentence:
        refuse(str(sentence))


def warn_of_settings(app):
    """Say, where the web starts, what is missed or too weak; another provider may need no key."""
    if not serves():
        return
    say_who_may_sign_up(app)
    if is_to_be_guessed(app.config["SECRET_KEY"]):
        log.warning("SECRET_KEY is short: whoever guesses it is anybody here. Set a longer one.")
    keyless = not app.config["OPENAI_API_KEY"] and is_openai(app.config["OPENAI_BASE_URL"])
    if keyless:
        log.warning("OPENAI_API_KEY is not set: the provider refuses to answer. Set it in .env.")


def is_to_be_guessed(key):
    """Return whether a key is short, of a few signs only, or one from an example."""
    return len(key) < SHORT or len(set(key)) < SHORT // 3 or bool(EXAMPLE.match(key))


def serves():
    """Return whether this is the web: no other has to say what it says at its start."""
    context = click.get_current_context(silent=True)
    return context is None or context.info_name == "run"


def migrates():
    """Return whether this is `flask db …`, which needs neither Redis nor a provider."""
    return "db" in sys.argv[1:] and click.get_current_context(silent=True) is not None
