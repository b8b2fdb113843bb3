"""What the environment says, and the environment that the processes get."""

import contextlib
import os
import resource
import sys

from chattable.serve.instance import secret_key
from chattable.serve.sentences import CannotStart

READ_HERE = (
    "HOST INSTANCE_PATH OPENAI_API_KEY OPENAI_BASE_URL PORT REDIS_URL SECRET_KEY "
    "WEB_CONCURRENCY WORKER_PROCESSES"
).split()
OPEN_FILES = 65536
SHUTDOWN_GRACE = 2  # seconds in which a worker lets replies finish


def tidy_environment():
    """Have what the launcher reads, and what it starts, without quotes and blanks around."""
    for name in READ_HERE:
        if name in os.environ:
            os.environ[name] = unquoted(os.environ[name])


def unquoted(value):
    """Return a text without blanks and quotes around it: many a reader of .env files keeps them."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def whole_number(name, default, allowed):
    """Return an environment variable as an integer in the allowed range."""
    text = os.environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) not in allowed:
        raise CannotStart(
            f"{name}: {text!r} is not a whole number from {allowed[0]} to {allowed[-1]}."
        )
    return int(text)


def key_settings(instance):
    """Return SECRET_KEY for those who set none: the one that is kept in the instance."""
    return {} if os.environ.get("SECRET_KEY") else {"SECRET_KEY": secret_key(instance)}


def prepare_environment(settings):
    """Give the children the settings, this Python's commands and enough open files."""
    os.environ.update(settings, FLASK_SKIP_DOTENV="1")
    os.environ.setdefault("SHUTDOWN_GRACE", str(SHUTDOWN_GRACE))
    # Who looks at a terminal does not want a line for each request.
    os.environ.setdefault("LOG_LEVEL", "warning")
    commands = os.path.dirname(sys.executable)
    os.environ["PATH"] = os.pathsep.join([commands, os.environ.get("PATH", os.defpath)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
