"""The app's own processes, as its Procfile names them: web, workers, and the migration before."""

import os
import re
import signal

from chattable.serve.child import Child, Task
from chattable.serve.home import command
from chattable.serve.settings import whole_number

CONNECT_PATIENCE = 5  # seconds
DATABASE_ERROR = re.compile(
    r"^(?:sqlalchemy|psycopg|sqlite3|alembic)[\w.]*: (?:\([\w.]+\) )?(.+)", re.MULTILINE
)


def list_workers():
    """Return the RQ workers, WORKER_PROCESSES of them."""
    count = whole_number("WORKER_PROCESSES", 1, range(1, 65))
    whole_number("WEB_CONCURRENCY", 1, range(1, 65))
    names = ["worker", *(f"worker {number}" for number in range(2, count + 1))]
    return [Child(name, "worker", command("worker")) for name in names]


def web_process(listener, gate, boot_log):
    """Return gunicorn on the listener; it tells boot_log what goes wrong before the gate opens."""
    terminal = os.dup(2)
    bind = f"--bind fd://{listener.fileno()}"
    arguments = f"{bind} --config python:chattable.serve.gate --log-level warning"
    environment = os.environ | {
        "GUNICORN_CMD_ARGS": f"{os.environ.get('GUNICORN_CMD_ARGS', '')} {arguments}",
        "CHATTABLE_GATE": f"{gate} {terminal}",
    }
    return Child(
        "web",
        "web",
        command("web"),
        # at once: a page's socket would outlast any patience, and reconnects by itself
        stop_with=signal.SIGINT,
        env=environment,
        pass_fds=(listener.fileno(), gate, terminal),
        stderr=boot_log,
    )


def migration():
    """Return the Procfile's release command as a task."""
    # libpq waits two minutes for a silent host
    patience = {"PGCONNECT_TIMEOUT": os.environ.get("PGCONNECT_TIMEOUT", str(CONNECT_PATIENCE))}
    return Task("migration", command("release"), why_not_migrated, env=os.environ | patience)


def why_not_migrated(output):
    """Return the one sentence in a failed migration's output."""
    errors = DATABASE_ERROR.findall(output)
    if errors:
        return f"DATABASE_URL: the database cannot be opened or migrated: {errors[-1].strip()}"
    if "Traceback" in output:
        return f"the app cannot be loaded:\n{output}"
    return output.strip().rpartition("\n")[2].removeprefix("Error: ")
