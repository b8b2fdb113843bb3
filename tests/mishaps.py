"""The app with a bug in a hook, as a worker may meet it: `flask --app tests.mishaps worker`."""

from app import create_app
from models import User

show = User.on_message_update


def on_message_update(user, message):
    """Break as soon as a reply says "boom", but let its end be shown."""
    if message.running and "boom" in message.content:
        raise RuntimeError("a bug in a hook")
    show(user, message)


User.on_message_update = on_message_update
app = create_app()
