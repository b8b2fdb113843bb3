"""gunicorn's configuration under the launcher: it loads at once and serves when the gate opens."""

import os


def post_worker_init(worker):
    """Hold a loaded web process until the gate opens; gunicorn calls this by its name."""
    gate, terminal = map(int, os.environ["CHATTABLE_GATE"].split())
    os.read(gate, 1)
    os.dup2(terminal, 2)
