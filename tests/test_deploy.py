"""Deploying: what a platform installs, starts and ends, and what it says where that cannot be."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from flask import Flask
from packaging.requirements import Requirement
from playwright.sync_api import expect
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from app import create_app
from chattable import unreachable, worker
from chattable.addresses import redis_address
from chattable.worker import FAREWELL, LAST_WORDS
from pages import start
from tests.gate import Gate, make_certificate
from tests.heroku import Heroku
from tests.patience import patient
from tests.services import Redis, free_port, wait_until
from tests.session import Session
from tests.stack import PROCFILE, ROOT
from tests.test_browser import Person

REPLIES = 50

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIREMENTS = (ROOT / "requirements.txt").read_text()
COMPILE = "`uv export` in CONTRIBUTING.md makes requirements.txt anew"


# What is installed.


def pins():
    """Return {name: [(version, who needs it)]} of requirements.txt."""
    found = {}
    for name, version, via in re.findall(
        r"^([\w.-]+)==(\S+).*\n((?: +#.*\n)+)", REQUIREMENTS, re.MULTILINE
    ):
        found.setdefault(name, []).append((version, set(re.findall(r"[\w.-]+", via)) - {"via"}))
    return found


def needed():
    """Return what pyproject.toml asks for at run time, in this app."""
    project = PROJECT["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["app"]
    return {each.name: each.specifier for each in map(Requirement, lines)}


def test_requirements_are_not_stale():
    pinned = pins()
    ours = {name for name, lines in pinned.items() if any("chattable" in via for _, via in lines)}
    assert ours == needed().keys(), COMPILE
    for name, specifier in needed().items():
        for version, _ in pinned[name]:
            assert specifier.contains(version), f"{name}: {COMPILE}"


def test_requirements_have_one_version_each_and_no_addresses():
    lines = [line for line in REQUIREMENTS.splitlines() if not line.lstrip().startswith("#")]
    # The app itself comes in by its folder: to install it brings htmx.
    assert lines.pop(0) == "."
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", line)] == []
    assert "://" not in REQUIREMENTS


def test_what_a_browser_gets_of_htmx_is_one_version():
    built_with = {each.name: each for each in map(Requirement, PROJECT["build-system"]["requires"])}
    assert str(built_with["django-htmx"].specifier).startswith("==")


# In containers. Docker itself does not run here.


DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture
def services():
    """Return the services of compose.yaml, whole."""
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_containers_run_what_the_procfile_says(services):
    instructions = re.sub(r"\\\n", "", DOCKERFILE)
    commands = {
        "web": json.loads(re.search("^CMD (.+)", instructions, re.MULTILINE)[1]),
        "worker": services["worker"]["command"],
        "release": services["migrate"]["command"],
    }
    assert commands == {name: shlex.split(line) for name, line in PROCFILE.items()}


def test_an_image_has_the_python_that_is_tested_and_no_root():
    version = (ROOT / ".python-version").read_text().strip()
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {f"python:{version}-slim"}
    assert re.findall("^USER (.+)", DOCKERFILE, re.MULTILINE) == ["10001"]


def test_no_secret_and_no_leftover_gets_into_an_image():
    kept_out = set((ROOT / ".dockerignore").read_text().splitlines())
    for line in (ROOT / ".gitignore").read_text().split():
        name = ".*" if line.startswith(".") else line.strip("/")
        assert {name, f"**/{name}"} & kept_out, line


@pytest.mark.skipif(sys.platform != "linux", reason="hadolint is installed on Linux alone")
def test_the_dockerfile_is_clean():
    done = subprocess.run([Path(sys.executable).parent / "hadolint", "Dockerfile"], cwd=ROOT)
    assert done.returncode == 0


def test_compose_knows_every_word(services):
    compose = pytest.importorskip("compose_spec").PyCompose
    plain = yaml.safe_dump(yaml.safe_load((ROOT / "compose.yaml").read_text()))
    plain = plain.replace("on-failure:5", "on-failure")  # the number it does not know
    assert sorted(compose.from_yaml(plain).service_names()) == sorted(services)


def test_a_worker_may_finish_before_its_container_is_killed(services):
    assert int(services["worker"]["stop_grace_period"].rstrip("s")) > 25 + LAST_WORDS + FAREWELL


def test_a_database_that_the_image_still_makes_is_waited_for(services):
    # The server that makes it listens on a Unix socket alone.
    assert "--host 127.0.0.1" in " ".join(services["postgres"]["healthcheck"]["test"])
    assert services["migrate"]["restart"].startswith("on-failure:")


def test_nobody_outside_reaches_more_than_the_proxy(services):
    assert [name for name, service in services.items() if "ports" in service] == ["caddy"]
    reached = {name: set(service["networks"]) for name, service in services.items()}
    assert [name for name, nets in reached.items() if nets == {"inside"}] == ["postgres", "valkey"]


# What is wrong, in one sentence.


def environment(tmp_path, postgres_url, redis_url, **env):
    """Return what a platform tells a process, with some of it changed or, if None, left out."""
    told = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DATABASE_URL": postgres_url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": "a secret for tests only",
        "OPENAI_API_KEY": "sk-test",
        "INSTANCE_PATH": str(tmp_path),
        "PORT": str(free_port()),
        "WEB_CONCURRENCY": "2",
    }
    return {name: value for name, value in (told | env).items() if value is not None}


def last_words(process_type, env):
    """Run what the Procfile says until it ends; return (exit status, what it said)."""
    command = ["bash", "-c", PROCFILE[process_type]]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=patient(30))
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"SECRET_KEY": None}, "SECRET_KEY is not set."),
        ({"DATABASE_URL": "postgres://eve:hidden@{host}/db"}, "DATABASE_URL: .*eve.* not exist"),
        ({"REDIS_URL": "redis://eve:hidden@{redis}/0"}, "REDIS_URL: .*invalid username-password"),
    ],
)
def test_every_process_ends_with_one_sentence_and_status_1(
    tmp_path, postgres_url, redis_url, env, sentence
):
    places = {"host": urlsplit(postgres_url).netloc.partition("@")[2]}
    places["redis"] = urlsplit(redis_url).netloc
    env = {name: value and value.format(**places) for name, value in env.items()}
    env = environment(tmp_path, postgres_url, redis_url, **env)
    with ThreadPoolExecutor() as pool:
        for status, said in pool.map(last_words, ["release", "web", "worker"], [env] * 3):
            assert status == 1
            assert re.fullmatch(f"{sentence}.*\n", said), said
            assert "hidden" not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "abc"), ("PORT", "0"), ("PORT", "65536"), ("WEB_CONCURRENCY", "two")],
)
def test_a_number_that_is_none_is_refused_before_anything_is_loaded(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"^{name}: '{value}' is not a whole number"):
        start.main(["true"])


@pytest.mark.parametrize(("name", "value"), [("WEB_CONCURRENCY", "two"), ("PORT", "99999")])
def test_a_number_that_stops_the_web_stops_a_release_and_a_worker_too(
    tmp_path, redis_url, name, value
):
    env = environment(tmp_path, "", redis_url, **{name: value})
    with pytest.raises(SystemExit, match=f"^{name} must be a whole number"):
        create_app(env)


def test_an_empty_number_is_none_and_quotes_are_none_of_it(monkeypatch):
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("WEB_CONCURRENCY", " '2' ")
    start.read_numbers()
    assert "PORT" not in os.environ
    assert os.environ["WEB_CONCURRENCY"] == "2"


DATABASES = [
    ("{url}_less", "does not exist"),
    ("{url}?sslmode=require", "SSL was required"),
    ("postgresql://nowhere.invalid/chat", "not known|failed to resolve"),
    ("sqlite:////nowhere/at/all.db", "unable to open"),
    ("sqlite:///{folder}/text.db", "not a database"),
]


@pytest.mark.parametrize(("url", "why"), DATABASES)
def test_a_database_that_will_never_do_is_not_waited_for(tmp_path, postgres_url, url, why):
    (tmp_path / "text.db").write_text("no database " * 100)
    error = refusal(url.format(url=postgres_url, folder=tmp_path))
    assert re.search(why, unreachable.why_no_database(error))


def refusal(url):
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with pytest.raises(SQLAlchemyError) as raised, engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM sqlite_master"))
    return raised.value


def test_one_that_is_away_is_waited_for_and_told_of_once(tmp_path, redis_url, monkeypatch, caplog):
    away = f"postgres://ada:hidden@127.0.0.1:{free_port()}/chat"
    app, waits = create_app(environment(tmp_path, away, redis_url)), []
    caplog.clear()

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            raise InterruptedError

    monkeypatch.setattr(worker.gevent, "sleep", wait)
    with pytest.raises(InterruptedError):
        worker.wait_for_services(app)
    (said,) = caplog.messages
    assert re.fullmatch("waiting for the database: .* Connection refused", said)


@pytest.fixture
def refused(monkeypatch):
    """Return why no Redis has an address, in a sentence."""
    monkeypatch.setattr(unreachable, "ANSWERED_WITHIN", 0.5)

    def ask(url):
        app = Flask(__name__)
        app.config["REDIS_URL"] = redis_address(url, trusting=True)
        return unreachable.why_no_redis(app)

    return ask


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://eve:hidden@{place}/0", "invalid username-password pair"),
        ("redis://{place}/99", "DB index is out of range"),
        ("rediss://{place}/0", "does not speak TLS"),
        ("redis://nowhere.invalid/0", "nowhere.invalid"),
    ],
)
def test_a_redis_that_will_never_do_is_told_of(redis_url, refused, url, why):
    sentence = refused(url.format(place=urlsplit(redis_url).netloc))
    assert sentence.startswith("REDIS_URL: ")
    assert why in sentence
    assert "hidden" not in sentence


def test_a_redis_that_wants_a_password_is_told_of(refused):
    with closing(Redis()) as server, server.client() as client:
        client.config_set("requirepass", "right")
        assert "uthentication required" in refused(server.url)
        assert refused(f"redis://:right@127.0.0.1:{server.port}/0") is None


def test_a_certificate_is_taken_unless_the_address_says_whose(tmp_path, redis_url, refused):
    certificate = make_certificate(tmp_path, "localhost")
    with Gate(urlsplit(redis_url).port, certificate) as gate:
        url = f"rediss://localhost:{gate.port}/0"
        assert refused(url) is None
        assert refused(f"{url}?ssl_ca_certs={certificate}") is None
        assert "CERTIFICATE_VERIFY_FAILED" in refused(f"{url}?ssl_cert_reqs=required")


def test_a_redis_that_is_away_is_waited_for(refused):
    assert refused(f"redis://127.0.0.1:{free_port()}/0") is None


# A push to a platform, rehearsed.


@pytest.fixture(scope="module")
def pushed(provider_server, postgres_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heroku")
    with closing(Heroku(provider_server.url, postgres_server.database(), folder)) as platform:
        yield platform.push()


@pytest.fixture
def stack(pushed, provider):
    return pushed


@pytest.fixture
def ada(stack, browser):
    """Ada, who comes through the router, and trusts it."""
    context = browser.new_context(base_url=stack.address, ignore_https_errors=True)
    context.set_default_timeout(1000 * patient(10))
    yield Person(context.new_page())
    context.close()


def test_a_push_installs_what_the_file_names_and_nothing_else(stack):
    exact = {f"{name}=={version}" for name, lines in pins().items() for version, _ in lines}
    assert {line for line in stack.installed() if "file://" not in line} <= exact


def test_replies_outlast_a_rolling_restart_of_web_and_worker(stack, ada, provider):
    scripts = [
        provider.says(f"one {n:02} ", hold=True, when=f"question {n:02}.").says("two")
        for n in range(REPLIES)
    ]
    ada.sign_up()
    sender = Session(stack.router.url).login(ada.email)
    chats = [sender.new_chat() for _ in scripts]
    ada.page.goto(f"/chats/{chats[0]}")
    ada.send("question 00.")
    for n in range(1, REPLIES // 2):
        insist(sender, chats[n], f"question {n:02}.")
    provider.wait_for_request(REPLIES // 2, timeout=20)
    expect(ada.body).to_contain_text("one 00")

    with ThreadPoolExecutor(5) as pool:
        others = range(REPLIES // 2, REPLIES)
        sent = [pool.submit(insist, sender, chats[n], f"question {n:02}.") for n in others]
        ended = [stack.kill_worker(signal.SIGTERM), stack.kill_web(signal.SIGTERM)]
        provider.release()  # what is being written has to end in time
        stack.start_worker()
        stack.start_web()
        for each in sent:
            each.result(patient(20))

    ada.wait_for("complete")
    expect(ada.body).to_have_text("one 00 two")
    wait_until(lambda: len(said(stack, "complete")) == 2 * REPLIES, 20, "every reply to end")
    asked = {(chat, "user", f"question {n:02}.") for n, chat in enumerate(chats)}
    answered = {(chat, "assistant", f"one {n:02} two") for n, chat in enumerate(chats)}
    rows = said(stack)
    assert (len(rows), set(rows)) == (2 * REPLIES, asked | answered)
    assert len(provider.requests) == REPLIES
    assert [process.wait(patient(30)) for process in ended] == [0, 0]


def insist(sender, chat, text):
    """Send a message until it is taken, as a page does."""
    client_id = str(uuid.uuid4())

    def taken():
        with suppress(OSError, HTTPException):
            return sender.say(chat, text, client_id=client_id).status == 204

    wait_until(taken, 20, f"{text!r} to be taken")


def said(stack, status="%"):
    """Return (chat, role, words) of every message with a status."""
    query = "SELECT chat_id, role, content FROM messages WHERE status LIKE %s"
    with psycopg.connect(stack.database_url) as connection:
        return connection.execute(query, [status]).fetchall()


# What is written about it.


PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
ABOUT = (
    "deploy-heroku",
    "deploy-compose",
    "own-processes",
    "behind-a-proxy",
    "upgrading",
    "backing-up",
)


@pytest.mark.parametrize("name", ABOUT)
def test_each_way_to_deploy_has_a_page_that_the_readme_leads_to(name):
    page = PAGES[f"{name}.md"]
    assert f"(docs/{name}.md)" in (ROOT / "README.md").read_text()
    assert len(page.splitlines()) <= 60
    for link in re.findall(r"\]\(([^):]+)\)", page):
        assert (ROOT / "docs" / link).exists(), link


def test_the_readme_says_nothing_twice_and_breaks_off_nowhere():
    text = (ROOT / "README.md").read_text()
    lines = [line for line in text.splitlines() if len(line) > 60]
    assert not {line for line in lines if lines.count(line) > 1}
    paragraphs = text.split("\n\n")
    pairs = zip(paragraphs, paragraphs[1:], strict=False)
    assert not [this for this, then in pairs if this[-1] == ":" and then[0] not in "`-|1"]


@pytest.mark.parametrize("process_type", ["web", "worker"])
def test_a_unit_runs_what_the_procfile_says(process_type):
    (line,) = re.findall("^ExecStart=(.+)", PAGES["own-processes.md"], re.MULTILINE)
    line = line.replace("web", process_type).replace("$$", "$")  # as systemd takes it
    told = [*shlex.split(line)[:-1], shlex.split(line)[-1].replace("exec ", "printf '%s\n' ")]
    said = subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == shlex.split(PROCFILE[process_type])


def test_the_pages_name_commands_and_variables_that_there_are(app):
    pages = "\n".join(PAGES[f"{name}.md"] for name in ABOUT)
    commands = set(re.findall(r"flask --app app ([\w-]+)", pages))
    assert commands <= app.cli.commands.keys()
    told = (ROOT / ".env.example").read_text() + (ROOT / "compose.yaml").read_text()
    told += "GUNICORN_CMD_ARGS"  # gunicorn's own
    for variable in set(re.findall(r"`([A-Z]+_[A-Z_]+)", pages)):
        assert variable in told, variable
