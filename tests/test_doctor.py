"""`flask doctor` finds what is wrong with an install, and says how to mend it."""

import os
import shutil
import socket
import time
from collections import namedtuple
from contextlib import closing, contextmanager

import psycopg
import pytest
from rq import SimpleWorker

from app import create_app
from chattable import live
from chattable.queue import queue
from models import db
from pages.doctor import check_settings, judge_connections, judge_persistence
from tests.front import Front
from tests.gate import Gate, make_certificate
from tests.mailbox import Mailbox
from tests.openid import OpenIdProvider
from tests.services import free_port
from tests.stack import Stack

NOWHERE = "127.0.0.1:9"
NEWEST = max(name[:4] for name in os.listdir("migrations/versions") if name[0] == "0")


@pytest.fixture
def make_install(make_app):
    """Make an app whose database is migrated and which has a worker; return it."""

    def make(revision=NEWEST, **config):
        app = make_app(**config)
        with app.app_context():
            db.session.execute(db.text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            values = {"at": revision}
            db.session.execute(db.text("INSERT INTO alembic_version VALUES (:at)"), values)
            db.session.commit()
        return app

    return make


@pytest.fixture
def well(make_install):
    """An install that lacks nothing but an address."""
    return with_worker(make_install())


def with_worker(app):
    with app.app_context():
        ours = queue()
        SimpleWorker([ours], connection=ours.connection).register_birth()
    return app


def examine(app, *words):
    """Return what the doctor says: (exit code, text)."""
    done = app.test_cli_runner().invoke(args=["doctor", *(words or ["--no-ask"])])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output and "sk-test" not in done.output
    return done.exit_code, done.output


def finds(app, level, *parts, args=()):
    """Tell whether the doctor has, in one finding of this level, all these words."""
    code, said = examine(app, *args)
    assert code == (1 if "\nproblem" in f"\n{said}" else 0)
    lines = [line for line in said.splitlines() if line.startswith(level)]
    found = any(all(part in line for part in parts) for line in lines)
    if not found:
        print(said)
    return found


@contextmanager
def set_in(client, **config):
    """Have a Redis configured otherwise for a while."""
    before = {name: client.config_get(name)[name] for name in config}
    try:
        for name, value in config.items():
            client.config_set(name, value)
        yield
    finally:
        for name in reversed(config):
            client.config_set(name, before[name])


@pytest.fixture
def redis_client(redis_server):
    with redis_server.client() as client:
        yield client


def test_who_is_well_is_told_so(well):
    code, said = examine(well, "--url", f"http://{NOWHERE}")
    lines = [line for line in said.splitlines() if " address: " not in line]
    assert [line for line in lines if not line.startswith("ok")] == ["1 problem, 0 warnings"]
    assert "models: gpt-4o answers" in said and "models: gpt-4o-mini answers" in said


# Settings.


@pytest.mark.parametrize(
    "key",
    ["short", "change-me-change-me-now", "aaaaaaaaaaaaaaaaaaaaaaaa", "your-secret-key-goes-here"],
)
def test_a_key_that_can_be_guessed_is_a_problem(make_install, key):
    assert finds(with_worker(make_install(SECRET_KEY=key)), "problem", "SECRET_KEY", "token_hex")


def test_to_trust_everybody_is_a_problem(make_install):
    app = make_install(TRUSTED_PROXIES="10.0.0.0/8, 0.0.0.0/0")
    with app.app_context():
        assert any("TRUSTED_PROXIES" in words for _, words in check_settings())


# The database.


def test_a_database_without_tables_is_one_problem(make_app):
    app = make_app(REDIS_PREFIX="")
    with app.app_context():
        db.drop_all()
    assert finds(app, "problem", "database", "no tables", "db upgrade")
    code, said = examine(app)
    assert "\n1 problem, " in said, said
    assert "skipped  redis: not examined: mend database first" in said


@pytest.mark.parametrize(
    ("revision", "words"), [("0009", "db upgrade"), ("9999", "of a newer version")]
)
def test_a_database_at_another_revision_is_a_problem(make_install, revision, words):
    assert finds(make_install(revision), "problem", "database", revision, words)


def test_a_broken_file_is_a_problem(make_install, tmp_path):
    app = make_install()
    with app.app_context():
        db.engine.dispose()
    (tmp_path / "chattable.db").write_bytes(b"no database" * 1000)
    assert finds(app, "problem", "DATABASE_URL", "not a database")


def test_a_database_that_takes_nothing_is_a_problem(make_install, postgres_url):
    app = make_install(DATABASE_URL=postgres_url)
    name = postgres_url.rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with app.app_context():
        db.engine.dispose()
    assert finds(app, "problem", "database", "read only", "primary")


def test_a_database_server_that_is_gone_is_a_problem(redis_url, provider, tmp_path):
    settings = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": provider.url, "SECRET_KEY": "x" * 20}
    settings |= {"DATABASE_URL": f"postgres://ada:hidden@{NOWHERE}/db", "MODELS": "gpt-4o"}
    code, said = examine(create_app({**settings, "INSTANCE_PATH": str(tmp_path)}))
    assert code == 1 and "DATABASE_URL: it cannot be opened" in said and "hidden" not in said


@pytest.mark.parametrize(("free", "level"), [(2**26, "problem"), (2**29, "warning")])
def test_a_full_disk_is_seen(well, monkeypatch, free, level):
    usage = namedtuple("usage", "total used free")(2**40, 2**40 - free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert finds(well, level, "database", f"{free // 2**20} MB are free")


def test_files_that_are_not_ours_are_a_problem(well, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert finds(well, "problem", "database", "not this user's to write")


def test_files_on_a_platform_that_forgets_them_are_a_problem(well, monkeypatch):
    monkeypatch.setenv("DYNO", "web.1")
    assert finds(well, "problem", "database", "DATABASE_URL to PostgreSQL")


@pytest.mark.parametrize("ahead", [60, -60])
def test_clocks_that_are_apart_are_seen(well, ahead, monkeypatch):
    monkeypatch.setattr("redis.Redis.time", lambda _: (int(time.time()) + ahead, 0))
    assert finds(well, "warning", "clock", "s apart", "NTP")


# Redis.


def test_a_redis_that_is_away_is_a_problem(make_install):
    app = make_install(REDIS_URL=f"redis://ada:hidden@{NOWHERE}/0")
    code, said = examine(app)
    assert code == 1 and "REDIS_URL: it cannot be reached" in said and "hidden" not in said


def test_a_redis_that_hangs_is_a_problem_after_a_while(make_install, monkeypatch):
    monkeypatch.setattr("pages.doctor.PATIENCE", 1)
    with closing(socket.create_server(("127.0.0.1", 0))) as hole:
        app = make_install(REDIS_URL=f"redis://127.0.0.1:{hole.getsockname()[1]}/0")
        began = time.monotonic()
        assert finds(app, "problem", "redis", "no answer within 1 s")
        assert time.monotonic() - began < 10


def test_a_wrong_password_of_redis_is_a_problem(make_install, redis_client, redis_url):
    app = make_install(REDIS_URL=redis_url.replace("//", "//:wrong-one@"))
    with set_in(redis_client, requirepass="right"):
        code, said = examine(app)
    assert code == 1 and "REDIS_URL: it" in said and "wrong-one" not in said


@pytest.mark.parametrize(
    ("config", "level", "words"),
    [
        ({"maxmemory-policy": "allkeys-lru", "maxmemory": 2**30}, "problem", "noeviction"),
        ({"maxmemory-policy": "volatile-ttl"}, "warning", "noeviction"),
        ({"maxmemory": 1}, "problem", "takes nothing new"),
        ({"appendonly": "no"}, "warning", "nothing is kept on disk"),
        ({"appendonly": "no", "save": "60 1"}, "warning", "only snapshots"),
    ],
)
def test_a_redis_that_may_lose_what_waits_is_seen(well, redis_client, config, level, words):
    with set_in(redis_client, **config):
        assert finds(well, level, "redis", words)


def test_a_redis_that_is_nearly_full_is_seen(well, redis_client):
    with set_in(redis_client, maxmemory=int(redis_client.info()["used_memory"] * 1.12)):
        assert finds(well, "warning", "redis", "of its memory is taken")


def test_a_replica_is_a_problem(well, redis_client):
    try:
        redis_client.replicaof("127.0.0.1", free_port())
        assert finds(well, "problem", "REDIS_URL", "replica", "primary")
    finally:
        redis_client.replicaof("NO", "ONE")


def test_a_redis_whose_disk_or_connections_are_used_up_is_seen(app):
    with app.app_context():
        broken = {"aof_enabled": 1, "aof_last_write_status": "err"}
        assert next(judge_persistence(broken))[0] == "problem"
        unsaved = {"aof_enabled": 0, "rdb_last_bgsave_status": "err"}
        assert next(judge_persistence(unsaved))[0] == "problem"
        few = {"maxclients": 20, "connected_clients": 18}
        assert "18 of its 20" in next(judge_connections(few))[1]


# The queue.


def test_an_install_without_a_worker_has_a_problem(make_install):
    assert finds(make_install(), "problem", "worker", "start")


def test_where_the_launcher_starts_what_is_missing_it_is_named(make_install):
    app = make_install(REDIS_URL="", CHATTABLE_URL="")
    assert finds(app, "problem", "redis", "start `uv run chattable`")
    assert finds(app, "skipped", "worker", "mend redis first")
    with app.app_context():
        db.session.execute(db.text("DROP TABLE alembic_version"))
        db.session.commit()
    app = make_install(CHATTABLE_URL=f"http://{NOWHERE}")
    assert finds(app, "problem", "worker", "`uv run chattable` says of it")


def test_workers_that_were_told_to_wait_are_a_problem(well):
    with well.app_context():
        live.redis().set("rq:suspended", 1)
    assert finds(well, "problem", "worker", "rq resume")


def test_jobs_that_wait_long_or_have_failed_are_seen(well, monkeypatch):
    with well.app_context():
        ours = queue()
        job = ours.enqueue("time.sleep", 1)
        live.redis().zadd(ours.failed_job_registry.key, {job.id: 2**40})
    now = time.time()
    monkeypatch.setattr("chattable.vitals.time.time", lambda: now + 100)
    assert finds(well, "warning", "worker", "jobs that wait: 1", "more workers")
    assert finds(well, "warning", "worker", "1 job failed")


# The provider.


@pytest.mark.parametrize(
    ("config", "level", "words"),
    [
        (
            {"OPENAI_BASE_URL": f"http://{NOWHERE}/v1"},
            "warning",
            f"at {NOWHERE} (OPENAI_BASE_URL)",
        ),
        ({"OPENAI_BASE_URL": f"http://{NOWHERE}/v1", "MODELS": ""}, "problem", "not be reached"),
        ({"OPENAI_BASE_URL": "", "OPENAI_API_KEY": ""}, "problem", "OPENAI_API_KEY is not set"),
        ({"MODELS": "gpt-4o,gpt-unknown"}, "warning", "MODELS has gpt-unknown"),
        ({"MODELS": "my-house", "PRICES": "openai"}, "warning", "PRICES=my-house=input/output"),
        ({"MODELS": "my-house"}, "warning", "CONTEXT_WINDOW=my-house=tokens, as in my-house=32768"),
        ({"DEMO_MODEL": "1"}, "warning", "demo model"),
    ],
)
def test_what_a_provider_does_not_give_is_seen(make_install, config, level, words):
    assert finds(with_worker(make_install(**config)), level, "provider", words)


def test_a_provider_where_there_is_none_is_a_problem(well, provider):
    provider.serves_only_at("/elsewhere")
    assert finds(well, "problem", "models", "gpt-4o", "OPENAI_BASE_URL", args=["--url", NOWHERE])


def test_a_key_that_is_refused_is_a_problem(well, provider):
    provider.fails(401, times=4)
    assert finds(well, "problem", "models", "OPENAI_API_KEY", args=["--url", NOWHERE])


def test_each_model_is_asked_for_a_word_and_no_more(well, provider):
    endless = provider.says("ok", hold=True, when="Say ok")
    provider.fails(404, {"error": {"message": "no such model"}}, when="Say ok")
    assert finds(
        well, "problem", "models", "does not know the model “gpt-4o”", args=["--url", NOWHERE]
    )
    endless.wait_for_disconnect()
    assert len(provider.requests) == 2


def test_a_model_that_says_nothing_is_a_problem_after_a_while(well, provider, monkeypatch):
    monkeypatch.setattr("pages.doctor.PATIENCE_WITH_MODELS", 1)
    provider.hangs()
    assert finds(well, "problem", "models", "no answer within 1 s", args=["--url", NOWHERE])


# The address.


@pytest.fixture(scope="module")
def web(provider_server):
    """A web process, without a worker."""
    with closing(Stack(provider_server.url)) as stack:
        stack.release()
        yield stack.start_web()


def port_of(web):
    return int(web.url.rpartition(":")[2])


def test_pages_and_sockets_that_get_through_are_told(well, web):
    assert finds(well, "ok", "sockets get through", args=["--no-ask", "--url", web.url])


UPGRADE = {"upgrade": None, "connection": "close"}


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (UPGRADE, "proxy_set_header Upgrade"),
        ({"host": "upstream"}, "proxy_set_header Host"),
    ],
)
def test_a_proxy_that_lets_no_socket_through_is_a_problem(well, web, headers, words):
    with closing(Front(port_of(web), headers=headers)) as front:
        assert finds(well, "problem", "address", words, args=["--no-ask", "--url", front.url])


def test_a_path_that_the_proxy_has_not_is_a_problem(well, web):
    with closing(Front(port_of(web), "/chat")) as front:
        args = ["--no-ask", "--url", front.url]
        assert finds(well, "problem", "address", "something else answers there (404)", args=args)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"http://{NOWHERE}", "nobody listens there"),
        ("https://chat.invalid", "its name is unknown"),
        ("ftp://chat.invalid", "--url must be like"),
        ("http://[::1", "--url must be like"),
    ],
)
def test_an_address_where_nobody_is_is_a_problem(well, url, words):
    named = words if "--url" in words else f"{url}: {words}"
    assert finds(well, "problem", "address", named, args=["--no-ask", "--url", url])


def test_an_address_that_nobody_knows_is_asked_for(well, monkeypatch):
    monkeypatch.delenv("PORT", raising=False)
    assert finds(well, "warning", "address", "--url")


@pytest.fixture
def certificate(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("nothing makes a certificate here: no openssl")
    return make_certificate(tmp_path, "localhost")


def test_a_proxy_that_does_not_tell_of_tls_is_a_problem(well, web, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Gate(port_of(web), certificate) as gate:
        args = ["--no-ask", "--url", f"https://localhost:{gate.port}"]
        assert finds(well, "problem", "X-Forwarded-Proto", "TRUSTED_PROXIES", args=args)
        assert finds(well, "warning", "its certificate ends in", args=args)


def test_a_certificate_that_nobody_trusts_is_a_problem(well, web, certificate):
    with Gate(port_of(web), certificate) as gate:
        args = ["--no-ask", "--url", f"https://localhost:{gate.port}"]
        assert finds(well, "problem", "do not trust its certificate", args=args)


def test_a_scheme_that_is_not_spoken_is_a_problem(well, web):
    args = ["--no-ask", "--url", web.url.replace("http:", "https:")]
    assert finds(well, "problem", "it speaks no TLS there", args=args)


# The mail server and the provider by which people log in.


def test_a_mail_server_that_takes_us_is_told_and_gets_nothing(make_install):
    with closing(Mailbox()) as mailbox:
        app = make_install(SMTP_URL=f"smtp://localhost:{mailbox.port}")
        assert finds(app, "ok", "mail", f"localhost:{mailbox.port} takes mail from us")
        assert finds(app, "warning", "mail", "ALLOWED_HOSTS")
        assert not mailbox.mails


def test_a_mail_server_that_does_not_take_us_is_a_problem(make_install):
    with closing(Mailbox(login=("ada", "right"))) as mailbox:
        app = make_install(SMTP_URL=f"smtp://ada:wrong@localhost:{mailbox.port}")
        assert finds(app, "problem", "mail", "SMTP_URL", "SMTPAuthenticationError 535")
    assert finds(app, "problem", "mail", "SMTP_URL", "Connection refused")


def test_an_openid_provider_is_told_where_it_sends_people_back_to(make_install):
    with closing(OpenIdProvider()) as openid:
        app = make_install(OIDC_ISSUER=openid.url, OIDC_CLIENT_ID="chattable")
        args = ["--no-ask", "--url", "http://127.0.0.1:9/chat"]
        back = "Register there: http://127.0.0.1:9/chat/login/openid/callback"
        assert finds(app, "ok", "openid", back, args=args)
        openid.metadata = {"issuer": "https://another.example"}
        assert finds(app, "problem", "openid", "calls itself 'https://another.example'")
        openid.metadata = {"more": "x" * 200_000}
        assert finds(app, "problem", "openid", "describes no provider")
    assert finds(app, "problem", "openid", "cannot be reached: ConnectError")
