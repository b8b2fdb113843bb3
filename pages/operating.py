"""What whoever runs this server has of it: its log, its health, its counts."""

from pages import health, logs, metrics

PARTS = logs, health, metrics


def init_app(app):
    """Let an app be looked after."""
    for part in PARTS:
        part.init_app(app)
