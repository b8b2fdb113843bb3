"""How the launcher speaks: a line at a time, and one sentence where it cannot start."""

import contextlib


def say(sentence):
    """Print one line at once."""
    with contextlib.suppress(BrokenPipeError):
        print(sentence, flush=True)


class CannotStart(SystemExit):
    """Carry the one sentence with which a person can set it right: what nobody catches ends so."""
