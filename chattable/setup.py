"""Prepare a Flask app for chats."""

import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from chattable import command, forks, install, keepers, live, provider, templating
from chattable.addresses import redis_address

# Seconds, except for the last one: how many replies one worker writes at once.
LIMITS = {"READ_TIMEOUT": 60, "JOB_TIMEOUT": 1800, "SHUTDOWN_GRACE": 25, "WORKER_CONCURRENCY": 100}

# How many of these one owner may have at once, 0 for any number.
PER_OWNER = "REPLIES_AT_ONCE", "SOCKETS_AT_ONCE"


def init_app(app: Flask, db: SQLAlchemy) -> None:
    """Prepare an app that has its models on `db`, a Flask-SQLAlchemy it has been given before.

    Configuration, from `app.config`, else the environment: `OPENAI_API_KEY`, `OPENAI_BASE_URL`,
    `REDIS_URL`, `REDIS_PREFIX`, `CONTEXT_WINDOW` ("8192" tokens, "8192,gpt-4o=64000"), `PRICES`
    ("house-model=0.25/2" dollars a million tokens, "openai" for that list), what `LIMITS` names,
    and what `PER_OWNER` does, 0 being any number. Raises RuntimeError for another `db`, ValueError
    for what cannot be.
    """
    if app.extensions.get("sqlalchemy") is not db:
        raise RuntimeError("call db.init_app(app) first, then chattable.init_app(app, db)")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "REDIS_PREFIX"):
        app.config[name] = setting(app, name)
    if address := app.config["OPENAI_BASE_URL"]:
        app.config["OPENAI_BASE_URL"] = provider.read_address(address)
    app.config["REDIS_URL"] = redis_address(setting(app, "REDIS_URL") or "redis://localhost:6379")
    for name, usual in LIMITS.items():
        value = setting(app, name) or usual
        app.config[name] = int(value) if isinstance(value, str) else value
    for name in PER_OWNER:
        app.config[name] = int(app.config.get(name, os.environ.get(name)) or 0)
    for name, read in (
        ("CONTEXT_WINDOW", provider.read_windows),
        ("PRICES", provider.read_prices),
    ):
        value = setting(app, name) or {}
        app.config[name] = value if isinstance(value, dict) else read(str(value))
    live.init_app(app, install.own_name, on_watch=keepers.sweeper)
    provider.init_app(app)
    command.init_app(app)
    forks.init_app(app)
    templating.init_app(app)


def setting(app, name):
    return app.config.get(name) or os.environ.get(name)
