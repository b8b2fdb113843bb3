"""What whoever runs this server has of it: its log, its health, its counts, its copies."""

from pages import backup, health, logs, metrics

PARTS = logs, health, metrics, backup


def init_app(app):
    """Let an app be looked after."""
    for part in PARTS:
        part.init_app(app)
