"""What whoever runs this server asks it: does it live, is it ready?"""

import threading
import time

from flask import Blueprint, current_app
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from chattable import live, vitals
from chattable.database import lacks_a_table
from models import Chat, db

# Seconds. So long a part may take to say how it is, and so long holds what they have said.
PATIENCE = 2
HOLDS = 1
PLAIN = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
SILENT = f"says nothing for {PATIENCE} s"

routes = Blueprint("health", __name__)


def init_app(app):
    """Let an app be asked."""
    app.extensions["readiness"] = Readiness(app)
    app.register_blueprint(routes)


@routes.get("/up")
def up():
    """Say that this process lives: it asks nobody, so no restart is tried for another's absence."""
    return "up\n", 200, PLAIN


@routes.get("/ready")
def ready():
    """Say, a line a part, whether what is sent now will be kept and answered."""
    said = current_app.extensions["readiness"].ask()
    status = 200 if all(words == "ok" for words in said.values()) else 503
    return "".join(f"{part} {words}\n" for part, words in said.items()), status, PLAIN


def ask_database():
    # A broken file, and one without tables, would answer SELECT 1.
    db.session.execute(select(Chat.metadata.tables["installs"].c.name))
    return "ok"


def ask_redis():
    live.check_writing()
    return "ok"


def ask_worker():
    return "ok" if vitals.living_workers() else "none"


class Readiness:
    """What the parts have said, asked once a second at most, whoever wants to know."""

    PARTS = {"database": ask_database, "redis": ask_redis, "worker": ask_worker}

    def __init__(self, app):
        self.app = app
        self._asking = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._said: dict[str, str] = {}
        self._until = 0.0

    def ask(self):
        """Return {part: words} within `PATIENCE`; "ok" where all is well."""
        with self._asking:
            if time.monotonic() > self._until:
                self._said = self._ask_all()
                self._until = time.monotonic() + HOLDS
            return self._said

    def _ask_all(self):
        said = dict.fromkeys(self.PARTS, SILENT)
        for part in self.PARTS:
            # One that still waits for an answer is not joined by others.
            if part not in self._threads or not self._threads[part].is_alive():
                self._begin(part, said)
        end = time.monotonic() + PATIENCE
        for thread in self._threads.values():
            thread.join(max(0, end - time.monotonic()))
        return dict(said)

    def _begin(self, part, said):
        thread = threading.Thread(target=self._note, args=[part, said], daemon=True)
        self._threads[part] = thread
        thread.start()

    def _note(self, part, said):
        with self.app.app_context():
            try:
                said[part] = self.PARTS[part]()
            except SQLAlchemyError as error:
                words = "not migrated" if lacks_a_table(error) else "away"
                said[part] = words if part == "database" else f"unknown, the database is {words}"
            except RedisError as error:
                said[part] = "away" if live.is_away(error) else "refuses writes"
