"""What whoever runs this server has of it: log, health, counts, copies, doctor."""

from pages import backup, doctor, health, logs, metrics

PARTS = logs, health, metrics, backup, doctor


def init_app(app):
    """Let an app be looked after."""
    for part in PARTS:
        part.init_app(app)
