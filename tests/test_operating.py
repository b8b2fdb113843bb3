"""What whoever runs an install asks it and reads of it: health, logs, metrics."""

import fcntl
import json
import logging
import re
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.request
import uuid
from contextlib import ExitStack, closing, suppress
from urllib.error import HTTPError

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from rq import SimpleWorker
from rq.job import Job

from app import create_app
from chattable import provider
from chattable.queue import queue
from models import Chat, Message, User, db
from pages import lines
from pages.logins import Login
from tests.services import wait_until
from tests.session import PASSWORD
from tests.stack import Stack

NOBODY = "redis://127.0.0.1:9/0"
TOKEN = "a-token-for-metrics"
KEY = "sk-test-secret"
TYPED = "the typed words"


@pytest.fixture
def worker(app):
    """A worker that has just said that it lives."""
    with app.app_context():
        ours = queue()
        worker = SimpleWorker([ours], connection=ours.connection)
    worker.register_birth()
    return worker


def ask(app, method="GET", path="/ready"):
    answer = app.test_client().open(path, method=method)
    return answer.status_code, answer.text


# Health.


def test_the_address_for_living_asks_nobody(make_app):
    app = make_app(REDIS_URL=NOBODY)
    assert ask(app, path="/up") == (200, "up\n")
    assert ask(app, "HEAD", "/up") == (200, "")


def test_ready_is_whoever_has_a_database_a_redis_and_a_worker(app, worker):
    assert ask(app) == (200, "database ok\nredis ok\nworker ok\n")
    assert ask(app, "HEAD") == (200, "")


def test_ready_says_that_no_worker_lives(app, worker):
    worker.connection.expire(worker.key, 400)  # it spoke over a minute ago
    assert ask(app) == (503, "database ok\nredis ok\nworker none\n")


def test_ready_says_that_redis_is_away_or_takes_nothing_new(make_app, redis_server):
    assert ask(make_app(REDIS_URL=NOBODY)) == (503, "database ok\nredis away\nworker away\n")
    app = make_app()
    with redis_server.client() as client:
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            assert "redis refuses writes\n" in ask(app)[1]
        finally:
            client.config_set("maxmemory", before)


def test_ready_says_that_the_database_was_not_migrated_or_is_away(make_app, tmp_path):
    from models import db

    app = make_app(REDIS_PREFIX=None)
    with app.app_context():
        db.drop_all()
    assert ask(app)[1].startswith("database not migrated\nredis unknown, the database is not")
    with app.app_context():
        db.engine.dispose()
    (tmp_path / "chattable.db").write_bytes(b"no database" * 1000)
    app.extensions["readiness"]._until = 0
    assert "database away\n" in ask(app)[1]


def test_ready_answers_in_time_whatever_hangs_and_asks_it_once(make_app, monkeypatch):
    monkeypatch.setattr("pages.health.PATIENCE", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as hole:
        app = make_app(REDIS_URL=f"redis://127.0.0.1:{hole.getsockname()[1]}/0")
        for _ in range(3):
            status, text = ask(app)
            app.extensions["readiness"]._until = 0
        assert status == 503
        assert "redis says nothing" in text and "worker says nothing" in text
        hole.settimeout(0.1)
        connections = 0
        with pytest.raises(TimeoutError):
            while True:
                hole.accept()
                connections += 1
        assert connections == 2


def test_ready_asks_once_a_second_at_most(app, worker, monkeypatch):
    asked = []
    monkeypatch.setattr("pages.health.Readiness.PARTS", {"part": lambda: asked.append(1) or "ok"})
    moment = time.monotonic()
    monkeypatch.setattr("pages.health.time.monotonic", lambda: moment)
    assert [ask(app), ask(app)] == [(200, "part ok\n")] * 2
    assert len(asked) == 1


# The log.


def record(message, *args, level=logging.WARNING, **fields):
    made = logging.LogRecord("chattable.x", level, "x.py", 1, message, args, None)
    made.fields = fields
    return made


FORGED = "a\n2026-01-01T00:00:00Z ERROR app forged\u2028\x1b[31m\r\u202ex\0"


@pytest.mark.parametrize("shape", lines.FORMATTERS.values())
def test_no_value_forges_a_line_of_the_log(shape):
    line = shape().format(record("said %s", FORGED, path=FORGED, title='a" level=x'))
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_the_log_is_of_words_and_keys_or_of_json():
    said = record("gone", chat_id=7, why=None, path="/a b")
    assert lines.TextLine().format(said).endswith(' WARNING chattable.x gone chat_id=7 path="/a b"')
    line = json.loads(lines.JsonLine().format(said))
    assert (line.pop("time")[-1], line.pop("chat_id")) == ("Z", 7)
    known = {"level": "warning", "logger": "chattable.x", "message": "gone", "path": "/a b"}
    assert line == known


def fault_of(work):
    try:
        work()
    except Exception as error:
        made = record("it raised")
        made.exc_info = type(error), error, error.__traceback__
        return lines.JsonLine().format(made), lines.TextLine().format(made)


def test_a_traceback_says_where_and_not_what_people_wrote():
    def convert():
        try:
            int(TYPED)
        except ValueError as error:
            raise KeyError(TYPED) from error

    for told in fault_of(convert):
        assert "ValueError" in told and "KeyError" in told and "convert" in told
        assert TYPED not in told
        assert "/test_operating.py" in told and "/work" not in told and "/home" not in told
    assert "has no attribute" in fault_of(lambda: None.nothing)[0]


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 100])
def test_a_request_keeps_the_id_that_a_proxy_gave_it(app, given):
    answer = app.test_client().get("/login", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 101, "ä", "<script>", "a;b"])
def test_a_request_gets_an_id_where_nobody_gave_a_good_one(app, given):
    answers = [app.test_client().get("/login", headers={"X-Request-ID": given}) for _ in "ab"]
    made = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(made) == 2 and all(re.fullmatch("[0-9a-f]{16}", each) for each in made)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/login?next=/secret", "/login"),
        ("/chats/12?message=3", "/chats/12"),
        ("/static/secret/x.css", "/static…"),
        ("/prefix/reset/secret", "/prefix…"),
        ("//secret", "/…"),
    ],
)
def test_a_path_is_told_without_what_may_be_secret(app, caplog, path, told):
    with caplog.at_level(logging.INFO):
        app.test_client().get(path)
    (said,) = [each.fields for each in caplog.records if each.name == "pages.logs"]
    assert said["path"] == told


def test_a_part_of_a_path_that_is_no_number_is_not_told(app, caplog):
    with caplog.at_level(logging.DEBUG, "pages.logs"):
        app.test_client().get(f"{app.static_url_path}/secret.css")
    (said,) = [each.fields for each in caplog.records if each.name == "pages.logs"]
    assert said["path"].startswith("/static/") and "secret" not in said["path"]


def test_what_talkative_libraries_say_is_not_written(app, capsys):
    logging.getLogger("openai").setLevel(logging.DEBUG)
    try:
        logging.getLogger("openai").debug(TYPED)
    finally:
        logging.getLogger("openai").setLevel(logging.NOTSET)
    logging.getLogger("chattable.x").info("of ours")
    said = capsys.readouterr().err
    assert "of ours" in said and TYPED not in said


# A whole install.


@pytest.fixture(scope="module")
def busy(provider_server):
    """An install whose people have had replies, a refusal and errors, and what it was told."""
    env = {"LOG_FORMAT": "json", "METRICS_TOKEN": TOKEN, "OPENAI_API_KEY": KEY}
    with closing(Stack(provider_server.url, env=env)) as stack:
        stack.start()
        ada = stack.signup("Ada Secretname")
        chat = ada.new_chat()
        stack.client_id = str(uuid.uuid4())
        watching = ada.socket(chat)
        provider_server.says("Said ", "by the model")
        ada.say(chat, TYPED, client_id=stack.client_id)
        watching.wait_for('data-role="assistant" data-status="complete"')
        provider_server.fails(401, {"error": {"message": f"no such key {KEY} {TYPED}"}})
        wait_until(lambda: ada.say(chat, TYPED, "gpt-4o").status == 204, 5, "the chat's turn")
        watching.wait_for('data-status="failed"')
        watching.close()
        ada.get(f"/search?q={TYPED.replace(' ', '+')}")
        ada.get("/nowhere/at-all")
        ada.post("/login", email=ada.email, password="a wrong one")
        stack.chat, stack.ada = chat, ada
        yield stack


def told_by(stack, process_type):
    """Return what processes have logged, each line of it a JSON object."""
    return [json.loads(line) for line in stack.log(process_type).splitlines()]


def test_a_line_is_logged_for_each_request_job_and_socket(busy):
    wait_until(lambda: busy.log("worker").count("job ended") == 2, 10, "the jobs to end")
    wait_until(lambda: "socket closed" in busy.log("web"), 10, "the socket to end")
    requests = [each for each in told_by(busy, "web") if each["message"] == "request"]
    (sent,) = [each for each in requests if each.get("client_id") == busy.client_id]
    assert (sent["method"], sent["path"], sent["status"]) == ("POST", "/messages", 204)
    assert sent["ms"] > 0 and sent["user"] and sent["request_id"]
    replied, refused = [each for each in told_by(busy, "worker") if each["message"] == "job ended"]
    assert replied["client_id"] == busy.client_id
    assert replied["job"] == "jobs.create_message_and_stream" and replied["ended"] == "done"
    assert (replied["chat_id"], replied["model"]) == (busy.chat, "gpt-4o-mini")
    assert replied["reply"] == "complete" and replied["message_id"] and replied["prompt_tokens"]
    assert 0 <= replied["first_ms"] <= replied["reply_ms"] + 100 and replied["ms"]
    assert (refused["reply"], refused["error"]) == ("failed", "key")
    (closed,) = [each for each in told_by(busy, "web") if each["message"] == "socket closed"]
    assert closed["chat_id"] == busy.chat and closed["frames"] > 4 and closed["seconds"] >= 0
    assert closed["code"] in (1000, 1001, 1005)  # it was the page that left


def test_a_log_tells_of_pages_and_not_of_what_comes_with_them(app, caplog):
    caplog.set_level("INFO", logger="pages")
    client = app.test_client()
    client.get("/login")
    for rule in ("static", "chattable.static"):
        with app.test_request_context():
            client.get(app.url_for(rule, filename="nothing.css"))
    assert [record.fields["path"] for record in caplog.records if record.msg == "request"] == [
        "/login"
    ]


def test_no_log_has_what_was_typed_or_a_secret_or_a_path_of_the_machine(busy):
    said = busy.log("web") + busy.log("worker")
    assert "Starting gunicorn" in said
    secrets = (TYPED, "typed", "by the model", KEY, PASSWORD, "a wrong one", "Secretname", TOKEN)
    machine = (busy.ada.email, busy.ada.email.partition("@")[0], str(busy.folder), busy.env["HOME"])
    for secret in (*secrets, *machine, busy.env["SECRET_KEY"], *busy.ada.cookies.values()):
        assert secret not in said, secret


def test_a_job_that_is_done_keeps_nothing_of_what_was_written(busy):
    wait_until(lambda: busy.log("worker").count("job ended") == 2, 10, "the jobs to end")
    with busy.redis.client() as client:
        jobs = [Job.fetch(key.decode()[7:], client) for key in client.scan_iter("rq:job:*")]
        assert [list(job.args) for job in jobs] == [[busy.chat]] * 2
        for key in client.scan_iter("*"):
            kind = client.type(key)
            kept = client.get(key) if kind == b"string" else repr(client.dump(key)).encode()
            assert TYPED.encode() not in (kept or b""), key


def test_nothing_that_is_printed_shows_a_secret_or_what_was_written(app, sign_up):
    secrets = [app.config[name] for name in ("SECRET_KEY", "OPENAI_API_KEY")]
    assert not any(secret in repr(app.config) for secret in secrets)
    assert "SECRET_KEY" in repr(app.config) and app.config.get("OPENAI_API_KEY")
    told = provider.Told.of([{"role": "user", "content": TYPED}])
    with app.app_context():
        chat = Chat(title=TYPED)
        message = Message(chat=chat, role="user", content=TYPED)
        user = User(name=TYPED, email=TYPED, password_hash=TYPED)
        printed = repr([told, chat, message, user, Login(token=TYPED), app.extensions])
    assert TYPED not in printed and not any(secret in printed for secret in secrets)


def metrics(stack, token=TOKEN):
    asked = urllib.request.Request(f"{stack.url}/metrics")
    if token is not None:
        asked.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(asked, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_metrics_count_the_whole_install_over_processes_and_restarts(busy):
    wait_until(lambda: busy.log("worker").count("job ended") == 2, 10, "the jobs to end")
    first = metrics(busy)
    assert first["chattable_replies_total", "complete"] == 1
    assert first["chattable_replies_total", "failed"] == 1
    assert first["chattable_errors_total", "key"] == 1
    assert first["chattable_prompt_tokens_total", "gpt-4o-mini"] > 0
    assert first["chattable_first_token_seconds_count",] == 1
    assert first["chattable_first_token_seconds_bucket", "+Inf"] == 1
    assert first["chattable_workers",] == 1 and first["chattable_jobs", "queued"] == 0
    assert first["chattable_replies_running",] == 0 and first["chattable_sockets",] == 0
    assert first["chattable_requests_total", "4xx"] >= 2
    with closing(busy.ada.socket(busy.chat)):
        assert metrics(busy)["chattable_sockets",] == 1
        busy.start_web()
        busy.webs.reverse()
        second = metrics(busy)
        assert second["chattable_sockets",] == 1
        assert second["chattable_replies_total", "complete"] == 1
        assert second["chattable_requests_total", "2xx"] >= first["chattable_requests_total", "2xx"]
        busy.webs.reverse()


@pytest.mark.parametrize("token", [None, "", "a-token-for-metric", f"{TOKEN}x", "ä"])
def test_metrics_are_for_whoever_has_the_token(busy, token):
    with pytest.raises(HTTPError) as refused:
        metrics(busy, token)
    assert refused.value.code == 401
    assert refused.value.headers["WWW-Authenticate"].startswith("Bearer")


def test_metrics_are_nowhere_where_no_token_is_set(app, sign_up):
    assert ask(app, path="/metrics")[0] == 404
    assert sign_up().get("/metrics").status_code == 404


# Copies.


@pytest.fixture
def flask(tmp_path, redis_url):
    """Run a command of Flask's in an instance of its own; return (exit code, what it said)."""

    def run(*words, **config):
        folder = tmp_path / "instance"
        settings = {"INSTANCE_PATH": str(folder), "REDIS_URL": redis_url, "SECRET_KEY": "x" * 20}
        app = create_app({**settings, "OPENAI_API_KEY": KEY, **config})
        done = app.test_cli_runner().invoke(args=[str(word) for word in words])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    run.file = tmp_path / "instance" / "chattable.db"
    return run


@pytest.fixture(scope="module")
def copied(busy, tmp_path_factory):
    """A copy of the busy install, made while it ran."""
    file = tmp_path_factory.mktemp("copy") / "a copy.db"
    app = create_app(busy.env)
    done = app.test_cli_runner().invoke(args=["backup", str(file)])
    assert done.exit_code == 0, done.output
    return file


def rows(file, query):
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def test_a_copy_is_one_file_for_its_owner_with_all_that_was_said(copied):
    assert copied.stat().st_mode & 0o777 == 0o600
    assert [*copied.parent.iterdir()] == [copied]
    assert (TYPED,) in rows(copied, "SELECT content FROM messages")
    assert KEY.encode() not in copied.read_bytes()


def test_a_copy_replaces_nothing_unless_it_is_forced_to(busy, copied, tmp_path):
    app = create_app(busy.env)
    file = tmp_path / "there.db"
    file.write_text("mine")
    done = app.test_cli_runner().invoke(args=["backup", str(file)])
    assert done.exit_code == 1 and "--force" in done.output
    assert file.read_text() == "mine"
    assert app.test_cli_runner().invoke(args=["backup", "--force", str(file)]).exit_code == 0
    assert rows(file, "SELECT count(*) FROM users") == rows(copied, "SELECT count(*) FROM users")
    done = app.test_cli_runner().invoke(args=["backup", str(tmp_path / "no" / "folder.db")])
    assert done.exit_code == 1 and "folder" in done.output and "Traceback" not in done.output
    assert [*tmp_path.iterdir()] == [file]


def test_a_copy_goes_into_an_empty_instance_as_an_install_of_its_own(flask, copied):
    with closing(sqlite3.connect(copied)) as connection, connection:
        connection.execute(
            "INSERT OR REPLACE INTO logins "
            "(id, user_id, token, agent, address, created_at, seen_at) "
            "SELECT 1, id, 'token', '', '', created_at, created_at FROM users"
        )
    code, said = flask("restore", copied)
    assert code == 0 and "everybody logs in" in said, said
    assert flask.file.stat().st_mode & 0o777 == 0o600
    assert rows(flask.file, "SELECT count(*) FROM logins") == [(0,)]
    name = "SELECT name FROM installs"
    assert rows(flask.file, name) != rows(copied, name)
    assert rows(flask.file, "SELECT email FROM users") == rows(copied, "SELECT email FROM users")


def test_what_was_said_is_found_in_what_was_restored(flask, copied, redis_url):
    flask("restore", copied)
    app = create_app(
        {"INSTANCE_PATH": str(flask.file.parent), "REDIS_URL": redis_url, "WTF_CSRF_ENABLED": False}
    )
    ada = app.test_client()
    (email,) = rows(flask.file, "SELECT email FROM users")[0]
    ada.post("/login", data={"email": email, "password": PASSWORD})
    assert "<mark>typed</mark>" in ada.get("/search?q=typed").text
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


def test_what_was_there_before_a_copy_is_kept_aside(flask, copied):
    flask("restore", copied)
    with closing(sqlite3.connect(flask.file)) as connection, connection:
        connection.execute("UPDATE users SET name = 'Somebody else'")
    assert flask("restore", copied)[0] == 0
    (aside,) = flask.file.parent.glob("chattable.db.before-*")
    assert rows(aside, "SELECT name FROM users") == [("Somebody else",)]
    assert rows(flask.file, "SELECT name FROM users") == [("Ada Secretname",)]
    flask.file.write_bytes(b"broken" * 1000)
    aside.unlink()
    assert flask("restore", copied)[0] == 0
    (aside,) = flask.file.parent.glob("chattable.db.before-*")
    assert aside.read_bytes() == b"broken" * 1000


@pytest.mark.parametrize("part", ["process", "worker", "launcher"])
def test_nothing_is_restored_under_who_runs(flask, copied, part, request):
    flask("restore", copied)
    name = rows(flask.file, "SELECT name FROM installs")
    with ExitStack() as running:
        if part == "process":
            other = running.enter_context(closing(sqlite3.connect(flask.file)))
            other.execute("PRAGMA journal_mode=WAL")
            other.execute("SELECT count(*) FROM users").fetchall()
        elif part == "launcher":
            file = running.enter_context((flask.file.parent / "running.env").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            key = f"chattable:{name[0][0]}:replies"
            with Redis.from_url(request.getfixturevalue("redis_url")) as client:
                client.sadd(f"rq:workers:{key}", "rq:worker:one")
                client.set("rq:worker:one", 1, ex=478)
        code, said = flask("restore", copied)
        assert code == 1 and "Stop its web and worker" in said
    assert rows(flask.file, "SELECT name FROM installs") == name
    assert not [*flask.file.parent.glob("chattable.db.before-*")]


@pytest.mark.parametrize("kind", ["torn", "text", "newer", "other"])
def test_no_file_is_restored_that_is_none_of_ours(flask, copied, tmp_path, kind):
    file = tmp_path / "file.db"
    file.write_bytes(copied.read_bytes()[: -4096 * 5] if kind == "torn" else copied.read_bytes())
    if kind == "text":
        file.write_text("no database" * 1000)
    with closing(sqlite3.connect(file)) as connection, suppress(sqlite3.Error), connection:
        if kind == "newer":
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        elif kind == "other":
            connection.execute("DROP TABLE alembic_version")
    code, said = flask("restore", file)
    assert code == 1 and ("damaged" if kind in ("torn", "text") else "newer version") in said
    assert not flask.file.exists()


def test_nothing_is_copied_where_nothing_is(flask, tmp_path):
    code, said = flask("backup", tmp_path / "file.db")
    assert code == 1 and "no database yet" in said
    assert not (tmp_path / "file.db").exists()


def test_a_copy_is_whole_while_people_write(flask, copied, tmp_path):
    flask("restore", copied)
    done = threading.Event()

    def write():
        with closing(sqlite3.connect(flask.file, timeout=10)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            while not done.is_set():
                with connection:  # two that are only right together
                    connection.execute("UPDATE users SET name = name || 'x'")
                    connection.execute("UPDATE chats SET title = (SELECT name FROM users)")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            assert flask("backup", tmp_path / f"{number}.db")[0] == 0
    finally:
        done.set()
        writer.join()
    for number in range(3):
        (pair,) = rows(tmp_path / f"{number}.db", "SELECT name, title FROM users, chats")
        assert pair[0] == pair[1] or not pair[0].endswith("x")


def test_postgresql_is_copied_by_tools_of_its_own(flask, postgres_url, postgres_server, tmp_path):
    config = {"DATABASE_URL": postgres_url, "WTF_CSRF_ENABLED": False}
    file = tmp_path / "a copy.dump"
    env = {"PATH": f"{postgres_server.tools}:/usr/bin:/bin", "DATABASE_URL": postgres_url}
    assert flask("db", "upgrade", **config)[0] == 0
    form = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}
    ada = create_app({"SECRET_KEY": "x" * 20, **config}).test_client()
    ada.post("/signup", data=form)
    code, said = flask("backup", file, **config)
    assert code == 1 and "pg_dump" in said
    subprocess.run(said.splitlines()[-1], shell=True, check=True, env=env)
    name = look(postgres_url, "SELECT name FROM installs")
    ada.post("/logout")
    code, said = flask("restore", file, **config)
    assert code == 1 and "pg_restore" in said
    restore, *then = said.splitlines()[1:]
    subprocess.run(restore, shell=True, check=True, env=env)
    assert look(postgres_url, "SELECT name FROM users") == [("Ada",)]
    for command in then:
        assert flask(*command.removeprefix("flask --app app ").split(), **config)[0] == 0
    assert look(postgres_url, "SELECT count(*) FROM logins") == [(0,)]
    assert look(postgres_url, "SELECT name FROM installs") != name


def look(url, query):
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()
