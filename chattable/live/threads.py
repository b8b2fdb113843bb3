"""Threads of our own: green where the process is patched, begun anew where it has forked."""

import logging
import os
import threading
import time

PAUSE = 1

log = logging.getLogger(__name__)


class Keeper:
    """A thread that does its step again and again, from when it is first needed.

    A process that forks has none of its parent's threads: there it begins anew, after `reset`.
    """

    def __init__(self, step, reset):
        self._step, self._reset = step, reset
        self._beginning = threading.Lock()
        self._process = None
        reset()

    def begin(self):
        """Begin, unless that was done in this process."""
        if self._process == os.getpid():
            return
        with self._beginning:
            if self._process != os.getpid():
                self._reset()
                self._process = os.getpid()
                threading.Thread(target=self._run, name="chattable", daemon=True).start()

    def _run(self):
        while True:
            try:
                self._step()
            except Exception:  # whatever the bug is: others wait for what this thread does
                log.exception("a step failed")
                time.sleep(PAUSE)
