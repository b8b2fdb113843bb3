"""How the launcher speaks: a line at a time, and one sentence where it cannot start."""

import contextlib
import os
import sys

BOOT_ERROR = 3  # gunicorn.arbiter.Arbiter.WORKER_BOOT_ERROR


def say(sentence):
    """Print one line at once."""
    with contextlib.suppress(BrokenPipeError):
        print(sentence, flush=True)


class CannotStart(SystemExit):
    """Carry the one sentence with which a person can set it right: what nobody catches ends so."""

    def __init__(self, sentence):
        super().__init__(sentence)
        if os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn/"):
            # It would start its worker again for ever, but for a status of its own.
            print(sentence, file=sys.stderr, flush=True)
            self.code = BOOT_ERROR
