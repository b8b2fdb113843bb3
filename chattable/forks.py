"""Workers of RQ's own fork for each job: what a child process must not share with its parent.

For `setup`.
"""

import os
from weakref import WeakSet

from flask import has_app_context

apps: WeakSet = WeakSet()
# Sessions of the parent process: to forget one would end its transaction.
kept: list = []


def init_app(app):
    """Have each process that is forked connect to the app's databases by itself."""
    apps.add(app)


def leave_connections():
    for app in list(apps):
        db = app.extensions["sqlalchemy"]
        if has_app_context() and db.session.registry.has():
            kept.append(db.session.registry())
            db.session.registry.clear()
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose(close=False)


os.register_at_fork(after_in_child=leave_connections)
