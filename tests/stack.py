"""The product as it is deployed: the Procfile's web and worker processes on real services."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psycopg

from tests.patience import patient
from tests.services import Redis, free_port, wait_until
from tests.session import Session

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "tests"  # of every key in Redis, for tests to know them
QUEUE = f"{PREFIX}:replies"
PROCFILE = dict(re.findall(r"^(\w+): *(.+)$", (ROOT / "Procfile").read_text(), re.MULTILINE))
# What it looks at before costs a second at each start: test_deploy.py has the line as it stands.
COMMANDS = PROCFILE | {"web": PROCFILE["web"].removeprefix("python -m pages.start ")}


class Stack:
    """Web processes, worker processes and a Redis server of their own, started and stopped.

    `provider_url` and `database_url` are the caller's, and so is `redis` if it is given;
    `env` adds to the environment.
    Call `start()`, or the `start_…` methods for a part.
    """

    # What an SQLite file of this test run holds once it is migrated; and, by its PostgreSQL server,
    # the name of a database that was.
    migrated = None
    templates = {}

    def __init__(
        self,
        provider_url,
        database_url=None,
        models="gpt-4o-mini,gpt-4o",
        env=None,
        redis=None,
    ):
        self.folder = Path(tempfile.mkdtemp(prefix="chattable-"))
        self.redis = redis or Redis()
        self.database_url = database_url or f"sqlite:///{self.folder / 'chattable.db'}"
        self.webs, self.workers = [], []
        self.people = 0
        self.env = self._environment(provider_url, models) | (env or {})

    def _environment(self, provider_url, models):
        inherited = {
            key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ
        }
        return inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis.url,
            "REDIS_PREFIX": PREFIX,
            "OPENAI_BASE_URL": provider_url,
            "OPENAI_API_KEY": "sk-test",
            "MODELS": models,
            "SECRET_KEY": "a secret for tests only",
            "INSTANCE_PATH": str(self.folder),
            "WEB_CONCURRENCY": "1",
            "RATELIMIT_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, webs=1, workers=1):
        """Migrate the database and start so many processes; wait until the web answers."""
        self.release()
        with ThreadPoolExecutor() as pool:
            parts = [self.start_worker] * workers + [self.start_web] * webs
            for part in [pool.submit(start) for start in parts]:
                part.result()
        return self

    def release(self):
        """Run the Procfile's release phase, the migrations, or copy what it has made before.

        An install that is to have a name of its own is given one by the migrations alone.
        """
        file, named = self.folder / "chattable.db", self.env["REDIS_PREFIX"]
        ours = self.database_url == f"sqlite:///{file}" and not file.exists()
        if named and ours and Stack.migrated:
            return file.write_bytes(Stack.migrated)
        # Who else logs in than the server's superuser is to own what the migrations make.
        server, _, name = self.database_url.rpartition("/")
        fresh = named and "//postgres@" in server and is_empty(self.database_url)
        if fresh and server in Stack.templates:
            return copy_database(server, Stack.templates[server], name)
        if self._run("release").wait(patient(20)):
            raise RuntimeError(f"release failed:\n{self.log('release')}")
        Stack.migrated = Stack.migrated or (file.exists() and file.read_bytes())
        if fresh:
            Stack.templates[server] = f"{name}_migrated"
            copy_database(server, name, Stack.templates[server])

    def start_web(self, port=None, command=None, **env):
        """Start a web process, on a port of its own unless one is given; return the process."""
        port = port or free_port()
        web = self._run("web", command, PORT=str(port), **env)
        web.url = f"http://127.0.0.1:{port}"
        web.up = f"{web.url}{(self.env | env).get('SCRIPT_NAME', '')}/up"
        self.webs.append(web)
        wait_until(lambda: self._is_up(web), 30, f"the web to answer:\n{self.log('web')}")
        return web

    def _is_up(self, web):
        if web.poll() is not None:
            raise RuntimeError(f"the web ended:\n{self.log('web')}")
        with suppress(OSError), urllib.request.urlopen(web.up, timeout=5) as answer:
            return answer.status == 200

    def start_worker(self, command=None, **env):
        """Start a worker process; wait until RQ says that it works; return the process."""
        worker = self.run_worker(command, **env)
        try:
            with self.redis.client() as client:
                wait_until(lambda: self._works(worker, client), 30, "the worker")
        except TimeoutError as error:
            raise RuntimeError(f"no worker:\n{self.log('worker')}") from error
        return worker

    def run_worker(self, command=None, **env):
        """Start a worker process and wait for nothing; return the process."""
        self.workers.append(self._run("worker", command, **env))
        return self.workers[-1]

    def _works(self, worker, client):
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended:\n{self.log('worker')}")
        working = {(b"%d" % worker.pid, state) for state in (b"idle", b"busy")}
        keys = client.smembers("rq:workers")
        return any(tuple(client.hmget(key, "pid", "state")) in working for key in keys)

    @property
    def url(self):
        """Return the address of the first web process."""
        return self.webs[0].url

    # what happens to processes

    def kill_worker(self, signal_number=signal.SIGKILL, index=0):
        """Send a signal to a worker and forget it; return the process, to wait for."""
        return self._end(self.workers.pop(index), signal_number)

    def kill_web(self, signal_number=signal.SIGKILL, index=0):
        """Send a signal to a web's every process and forget it; its port stays in `.url`."""
        return self._end(self.webs.pop(index), signal_number)

    def _end(self, process, signal_number):
        if signal_number == signal.SIGKILL:
            os.killpg(process.pid, signal_number)
            process.wait()
        else:
            process.send_signal(signal_number)
        return process

    def close(self):
        """End everything that was started."""
        for process in [*self.webs, *self.workers]:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.redis.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # who uses it

    def session(self, web=0):
        """Return a new visitor: HTTP with cookies and CSRF, not logged in."""
        return Session(self.webs[web].url)

    def signup(self, name="Ada Lovelace", web=0):
        """Return a new visitor who has just signed up, with an address nobody else has."""
        self.people += 1
        return self.session(web).signup(name, f"person{self.people}@example.com")

    def log(self, process_type):
        """Return what the processes of a type ("web", "worker", "release") have logged."""
        path = self.folder / f"{process_type}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def last_words(self, lines=30):
        """Return how all parts are, and the last lines that each has logged."""
        parts = {"web": self.webs, "worker": self.workers, "release": []}
        said = [tail(name, parts[name], self.log(name), lines) for name in parts]
        redis = self.redis.log.read_text(errors="replace")
        return "\n".join([*said, tail("redis", [self.redis.process], redis, lines)])

    def _run(self, process_type, command=None, **env):
        words = ["/bin/sh", "-c", with_exec(command or COMMANDS[process_type])]
        log = (self.folder / f"{process_type}.log").open("a")
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env=self.env | env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def is_empty(url):
    """Tell whether a PostgreSQL database has no tables yet."""
    tables = "SELECT 1 FROM pg_tables WHERE schemaname = 'public'"
    with psycopg.connect(url) as connection:
        return not connection.execute(tables).rowcount


def copy_database(server, one, other):
    """Make a database of a PostgreSQL server again, as a copy of one that nobody uses."""
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {other}")
        connection.execute(f"CREATE DATABASE {other} TEMPLATE {one}")


def tail(name, processes, log, lines):
    """Return the last lines of a log, under how its processes are."""
    states = [f"{process.pid} {state(process)}" for process in processes]
    return "\n".join([f"--- {name}: {', '.join(states) or 'none'}", *log.splitlines()[-lines:]])


def state(process):
    return "runs" if process.poll() is None else f"ended with {process.returncode}"


def with_exec(command):
    """Let the shell become the command, so that signals reach it."""
    return command if shlex.split(command)[0] == "exec" else f"exec {command}"


def flask_db(url, folder, *words):
    """Run `flask db …`; return (exit code, the last line that it said beside its log)."""
    environment = os.environ | {
        "DATABASE_URL": url,
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "SECRET_KEY": "a secret for tests only",
        "INSTANCE_PATH": str(folder),
        "OPENAI_API_KEY": "sk-test",
    }
    command = [sys.executable, "-m", "flask", "--app", "app", "db", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    return done.returncode, said[-1] if said else ""
