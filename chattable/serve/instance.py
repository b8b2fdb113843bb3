"""The folder in which an install keeps its database, its Redis and its key: for apps, too."""

import fcntl
import os
import secrets
from contextlib import contextmanager
from pathlib import Path

from chattable.serve.sentences import CannotStart


def instance_folder(named):
    """Return the folder that INSTANCE_PATH names, or the usual one; it need not be there yet."""
    return Path(os.path.expanduser(named or "instance")).resolve()


def open_folder(folder):
    """Return a folder of the instance, made for its owner's eyes if it is missing."""
    with usable(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def secret_key(instance):
    """Return the key that is kept in the instance, made if it is missing."""
    return kept_key(instance) or make_key(instance)


def kept_key(instance):
    """Return the key in the instance, or "" if there is none."""
    path = instance / "secret_key"
    with usable(instance):
        return path.read_text().strip() if path.exists() else ""


def make_key(instance):
    """Keep a key in the instance, and return the one of whoever came first."""
    path = open_folder(instance) / "secret_key"
    with usable(instance), open(path, "a+", opener=privately) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not kept_key(instance):
            file.write(secrets.token_hex(32))
    return kept_key(instance)


def privately(path, flags):
    return os.open(path, flags, mode=0o600)


@contextmanager
def usable(folder):
    """Raise CannotStart, with the reason, if what is done in the folder cannot be done."""
    try:
        yield
    except OSError as error:
        raise CannotStart(f"INSTANCE_PATH: {folder} cannot be used: {error.strerror}.") from None
