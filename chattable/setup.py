"""Prepare a Flask app for chats."""

import os

from chattable import command, forks, install, keepers, live, provider, templating

# Seconds, but the replies that one worker writes at once.
LIMITS = {"READ_TIMEOUT": 60, "JOB_TIMEOUT": 1800, "SHUTDOWN_GRACE": 25, "WORKER_CONCURRENCY": 100}


def init_app(app, db):
    """Prepare an app that has its models on `db`, a Flask-SQLAlchemy it has been given before.

    Configuration, from `app.config`, else the environment: `OPENAI_API_KEY`, `OPENAI_BASE_URL`,
    `REDIS_URL`, `REDIS_PREFIX`; and what `LIMITS` names. Raises RuntimeError for another `db`.
    """
    if app.extensions.get("sqlalchemy") is not db:
        raise RuntimeError("call db.init_app(app) first, then chattable.init_app(app, db)")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "REDIS_PREFIX"):
        app.config.setdefault(name, os.environ.get(name))
    url = app.config.get("REDIS_URL") or os.environ.get("REDIS_URL")
    app.config["REDIS_URL"] = url or "redis://localhost:6379"
    for name, value in LIMITS.items():
        app.config.setdefault(name, value)
    live.init_app(app, install.own_name, on_watch=keepers.sweeper)
    provider.init_app(app)
    command.init_app(app)
    forks.init_app(app)
    templating.init_app(app)
