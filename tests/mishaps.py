"""The app with bugs, as a worker may meet them: `flask --app tests.mishaps worker`."""

import os
import signal

from gevent.monkey import get_original

from app import create_app
from chattable import connections, database, worker
from models import User

show = User.on_message_update


def on_message_update(user, message):
    """Break as soon as a reply says "boom", but let its end be shown."""
    if message.running and "boom" in message.content:
        raise RuntimeError("a bug in a hook")
    show(user, message)


User.on_message_update = on_message_update
# Of whoever asks, not of the worker with its jobs.
worker.PATIENCE = database.PATIENCE
database.PATIENCE = float(os.environ.get("PATIENCE", database.PATIENCE))
connections.ANSWERED_WITHIN = float(os.environ.get("ANSWERED_WITHIN", connections.ANSWERED_WITHIN))
app = create_app()


def hang(*_):
    """Keep the hub, and with it every other greenlet, for ever."""
    print("nothing else runs", flush=True)
    while True:
        get_original("time", "sleep")(0.1)


signal.signal(signal.SIGUSR1, hang)
