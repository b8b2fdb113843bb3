"""All processes of the launcher, and the one place that waits: it restarts them and ends them."""

import contextlib
import os
import select
import signal
import socket
import time
from pathlib import Path

from chattable.serve.listener import reachable
from chattable.serve.redis_server import redis_answers
from chattable.serve.sentences import CannotStart

REDIS_PATIENCE, WEB_PATIENCE = 30, 60  # seconds
# A stop goes through these layers in order, each up to so many seconds after the signal: pages
# still see how their replies end, and Redis outlives everybody who writes to it.
LAYERS = {"worker": 3, "web": 4, "redis": 4.7}


class Stopped(Exception):
    """Say that a signal asked for the end."""


class Stack:
    """All children, and the one place that waits: for signals, for sockets, for time."""

    def __init__(self):
        self.children, self.told_to_stop = [], False
        self.resources = contextlib.ExitStack()
        self.enter = self.resources.enter_context

    def __enter__(self):
        self.bell, ringer = map(self.enter, socket.socketpair())
        self.bell.setblocking(False)
        ringer.setblocking(False)
        signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # who was started by nohup stays when the terminal goes
            if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP:
                signal.signal(number, self.note_stop)
        return self

    def note_stop(self, *_):
        self.told_to_stop = True

    def start(self, *children):
        """Start children and look after them."""
        for child in children:
            child.start()
            self.children.append(child)

    def wait(self, seconds, *files):
        """Sleep until a signal, a readable file or the time; raise Stopped once told to stop."""
        if not self.told_to_stop:
            self.pause(seconds, *files)
        if self.told_to_stop:
            raise Stopped

    def pause(self, seconds, *files):
        """Sleep until a signal, a readable file or the time."""
        select.select([self.bell, *files], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            self.bell.recv(4096)

    def finish(self, *tasks):
        """Run tasks side by side; raise CannotStart for the first that fails."""
        self.start(*tasks)
        while any(task.running for task in tasks):
            for task in tasks:
                task.check()
            self.wait(None)
        for task in tasks:
            task.check()
            self.children.remove(task)

    def wait_for_redis(self, redis, url):
        """Wait until the embedded Redis has loaded its data."""
        deadline = time.monotonic() + REDIS_PATIENCE
        while not redis_answers(url):
            if not redis.running or time.monotonic() > deadline:
                log = Path(os.environ["INSTANCE_PATH"]) / "redis" / "redis.log"
                raise CannotStart(f"the embedded Redis does not start; {log} says why.")
            self.wait(0.02)

    def wait_for_web(self, web, listener, boot_log):
        """Wait until /up answers 200; raise CannotStart if it never does, or the process ends."""
        deadline = time.monotonic() + WEB_PATIENCE
        while not self.is_up(web, listener):
            if time.monotonic() > deadline:
                raise CannotStart(f"/up has not answered 200 for {WEB_PATIENCE} s.")
            if not web.running:
                boot_log.seek(0)
                log = boot_log.read().decode(errors="replace")
                raise CannotStart(f"the web process ended at its start ({web.ending}).\n{log}")
            self.wait(0.1)

    def is_up(self, web, listener):
        """Ask for /up, patiently: the listener's backlog holds the request until web serves."""
        host, port = reachable(listener)
        path = f"{os.environ.get('SCRIPT_NAME', '')}/up"
        with socket.create_connection((host, port)) as client, contextlib.suppress(OSError):
            client.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
            while web.running:
                self.wait(None, client)
                if readable(client):
                    return b" 200 " in client.recv(64)
        return False

    def watch(self):
        """Start again what dies, for as long as nobody says stop."""
        while True:
            delays = [child.tend() for child in self.children]
            self.wait(min((delay for delay in delays if delay is not None), default=None))

    def __exit__(self, *_):
        """End all children, layer by layer, and by force where asking does not do."""
        told = time.monotonic()
        for layer, patience in LAYERS.items():
            children = [child for child in self.children if child.layer == layer]
            for child in children:
                child.ask_to_stop()
            while any(child.running for child in children):
                if (left := told + patience - time.monotonic()) <= 0:
                    break
                self.pause(left)
            for child in children:
                child.kill()
        self.resources.close()


def readable(file):
    """Say whether a file can be read without waiting."""
    return bool(select.select([file], [], [], 0)[0])
