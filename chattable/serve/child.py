"""One process of the stack: how it starts, starts again and ends; others say what it runs."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial

from chattable.serve.home import home
from chattable.serve.sentences import CannotStart, say

SHORTEST_DELAY, LONGEST_DELAY, STEADY = 0.25, 8, 30  # seconds
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """A process of the stack, leader of its own group, started again when it dies."""

    process: subprocess.Popen  # once it was started

    def __init__(self, name, layer, command, stop_with=signal.SIGTERM, **options):
        self.name, self.layer, self.command, self.stop_with = name, layer, command, stop_with
        self.options = options
        self.due = None
        self.delay = SHORTEST_DELAY / 2

    def start(self):
        """Start the process; Ctrl-C in the terminal reaches only the launcher, which ends all."""
        self.started, self.due = time.monotonic(), None
        self.process = subprocess.Popen(
            self.command,
            cwd=home(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=partial(end_with_launcher, self.stop_with, os.getpid()),
            **self.options,
        )

    @property
    def running(self):
        return self.process.poll() is None

    def tend(self):
        """Start the process again if it died; return the seconds until that is due, if any."""
        if self.running:
            return None
        if self.due is None:
            self.plan_restart()
            return self.delay
        if self.due <= time.monotonic():
            self.start()
            return None
        return self.due - time.monotonic()

    def plan_restart(self):
        """Choose when to start again: the sooner, the longer it had run."""
        self.kill()
        steady = time.monotonic() - self.started > STEADY
        self.delay = SHORTEST_DELAY if steady else min(self.delay * 2, LONGEST_DELAY)
        self.due = time.monotonic() + self.delay
        say(f"{self.name} ended ({self.ending}); starting it again in {self.delay:g} s")

    @property
    def ending(self):
        code = self.process.returncode
        return f"signal {-code}" if code < 0 else f"status {code}"

    def ask_to_stop(self):
        """Send the signal on which this process ends by itself."""
        if self.running:
            self.process.send_signal(self.stop_with)

    def kill(self):
        """Kill what is left of the process's group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Task(Child):
    """A process that runs once and has to succeed before anything is served."""

    def __init__(self, name, command, explain, **options):
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the task)
        super().__init__(
            name, "worker", command, stdout=subprocess.DEVNULL, stderr=self.output, **options
        )
        self.explain = explain

    def check(self):
        """Raise CannotStart if the process failed."""
        if self.process.returncode:
            self.output.seek(0)
            sentence = self.explain(self.output.read().decode(errors="replace"))
            raise CannotStart(sentence or f"the {self.name} failed ({self.ending}).")


def end_with_launcher(stop_with, launcher):
    """Ask Linux to end this child if the launcher is killed (runs between fork and exec)."""
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, stop_with)
        if os.getppid() != launcher:  # it was, before Linux was asked
            os._exit(1)


def python_module(name, *arguments):
    """Return the command that runs a module of this package as a child."""
    return [sys.executable, "-m", name, *arguments]
