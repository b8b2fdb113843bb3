"""What whoever runs this server has of it: its log, its health."""

from pages import health, logs

PARTS = logs, health


def init_app(app):
    """Let an app be looked after."""
    for part in PARTS:
        part.init_app(app)
