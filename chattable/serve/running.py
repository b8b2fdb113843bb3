"""The file of a launcher that runs: one from each instance, and what others need to join it."""

import fcntl
import os
import time

from dotenv import dotenv_values

from chattable.serve.instance import usable
from chattable.serve.redis_server import redis_answers
from chattable.serve.sentences import CannotStart

PATIENCE = 5  # seconds


class RunningFile:
    """The file that a running launcher holds locked, with what `flask shell` needs to join it."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        """Take the lock, or raise CannotStart saying where the other launcher runs."""
        with usable(self.path.parent):
            self.file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        earlier = dotenv_values(self.path)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(
                f"it already runs from {self.path.parent}, at {earlier.get('CHATTABLE_URL')}; "
                "stop it first, or give this one its own INSTANCE_PATH and PORT."
            ) from None
        wait_until_closed(earlier.get("REDIS_URL") or "")
        return self

    def write(self, settings):
        """Replace the file's content by settings, in the format of .env."""
        self.file.seek(0)
        self.file.truncate()
        self.file.writelines(f"{name}='{value}'\n" for name, value in settings.items())
        self.file.flush()

    def __exit__(self, *_):
        self.write({})
        self.file.close()


def wait_until_closed(redis_url):
    """Wait for the Redis of a launcher that was killed: two must not share their files."""
    deadline = time.monotonic() + PATIENCE
    while redis_url.startswith("unix://") and redis_answers(redis_url):
        if time.monotonic() > deadline:
            raise CannotStart("the Redis of an earlier start is still running; stop it first.")
        time.sleep(0.05)
