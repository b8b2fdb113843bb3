"""A database behind a pooler that gives each transaction another of the server's connections."""

import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from app import create_app
from chattable import connections
from models import Chat, db
from tests.services import free_port, wait_until
from tests.stack import flask_db
from tests.test_accounts import ADA

PREPARED = "SELECT count(*) FROM pg_prepared_statements"
# What a session keeps from one transaction to the next.
KEPT = [
    PREPARED,
    "SELECT count(*) FROM pg_settings WHERE source = 'session'",
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
    "SELECT count(*) FROM pg_listening_channels()",
    "SELECT count(*) FROM pg_cursors WHERE is_holdable",
    "SELECT count(*) FROM pg_class WHERE relpersistence = 't'",
]
REPLIES = 24


def prepared_after_many(url):
    """Return how many statements are prepared once one was executed often."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    connections.look_after(engine)
    with closing(engine.connect()) as connection:
        for _ in range(20):
            connection.execute(text("SELECT 1 WHERE 1 = :one"), {"one": 1})
        prepared = connection.execute(text(PREPARED)).scalar()
    engine.dispose()
    return prepared


def test_nothing_is_prepared_unless_the_address_asks_for_it(postgres_url):
    assert prepared_after_many(postgres_url) == 0
    assert prepared_after_many(f"{postgres_url}?prepare_threshold=5") > 0


def test_no_session_keeps_what_another_transaction_needs(make_app, postgres_url, provider):
    app = make_app(DATABASE_URL=postgres_url)
    ada = app.test_client()
    ada.post("/signup", data=ADA)
    ada.post("/chats")
    for path in ["/chats/1", "/chats", "/search?q=hello"] * 6:
        assert ada.get(path).status_code == 200
    with app.app_context():
        for _ in range(6):
            db.session.get_one(Chat, 1).run("gpt-4o-mini")
        for query in KEPT:
            assert db.session.scalar(text(query)) == 0, query


# addresses as other drivers have them


@pytest.mark.parametrize(
    "query",
    [
        "pgbouncer=true&schema=public&connection_limit=1&pool_timeout=0",
        "workaround=supabase-pooler.vercel&supa=base-pooler.x",
        "prepare_threshold=5",
        "channel_binding=prefer&sslmode=prefer",
    ],
)
def test_an_address_may_have_what_other_drivers_need(make_app, postgres_url, query):
    app = make_app(DATABASE_URL=f"{postgres_url}?{query}")
    assert app.test_client().post("/signup", data=ADA).status_code == 302


def test_an_address_may_name_the_folder_of_a_socket_as_its_host(
    make_app, postgres_url, postgres_server
):
    folder = str(postgres_server.folder).replace("/", "%2F")
    app = make_app(DATABASE_URL=postgres_url.replace("127.0.0.1", folder))
    assert app.test_client().post("/signup", data=ADA).status_code == 302


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("schema=chat", "schema"),
        ("ssl=true", "“ssl”"),
        ("prepare_threshold=often", "prepare_threshold"),
    ],
)
def test_what_an_address_cannot_have_is_named_without_the_password(tmp_path, query, fault):
    settings = {
        "SECRET_KEY": "a secret for tests only",
        "DATABASE_URL": f"postgres://ada:hidden@127.0.0.1:9/chat?{query}",
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "INSTANCE_PATH": str(tmp_path),
    }
    with pytest.raises(SystemExit, match=f"^DATABASE_URL.*{fault}.*\\.$") as stopped:
        create_app(settings)
    assert "hidden" not in str(stopped.value)


# PgBouncer itself


class PgBouncer:
    """A PgBouncer before a database, with two connections to it; `url` is the way through."""

    def __init__(self, url, mode):
        name = url.rpartition("/")[2]
        port_of_server = psycopg.conninfo.conninfo_to_dict(url)["port"]
        self.folder, port = Path(tempfile.mkdtemp(prefix="pgbouncer-")), free_port()
        self.url = f"postgresql://pooled@127.0.0.1:{port}/{name}"
        file = self.folder / "pgbouncer.ini"
        file.write_text(
            f"[databases]\n{name} = user=postgres host=127.0.0.1 port={port_of_server}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = 2\n"
        )
        command = [shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", "-q", str(file)]
        if os.geteuid() == 0:  # it refuses to run as root
            for path in (self.folder, file):
                shutil.chown(path, "postgres", "postgres")
            user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
            command = ["setpriv", *user, *command]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(self._answers, 10, "PgBouncer to answer")

    def _answers(self):
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.url, autocommit=True).close()
            return True

    def close(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder)


@pytest.fixture
def pooled(postgres_url):
    """A function that puts a PgBouncer of that mode before the test's database."""
    if not (shutil.which("pgbouncer") or Path("/usr/sbin/pgbouncer").exists()):
        pytest.skip("no PgBouncer is installed")
    made = []

    def pool(mode):
        made.append(PgBouncer(postgres_url, mode))
        return made[-1].url

    yield pool
    for each in made:
        each.close()


def test_the_whole_job_is_done_through_a_pooler(pooled, make_stack, provider, postgres_url):
    stack = make_stack(database_url=pooled("transaction"))
    ada = stack.signup()
    chats = [ada.new_chat() for _ in range(REPLIES)]
    for _ in chats:
        provider.says("slow ").pauses(1.2).says("and steady").pauses(1.2)
    with ThreadPoolExecutor(4) as senders:
        assert {each.status for each in senders.map(lambda chat: ada.say(chat, "Hi"), chats)} == {
            204
        }
    with psycopg.connect(postgres_url, autocommit=True) as database:
        ended = "SELECT count(*) FROM messages WHERE role = 'assistant' AND status = 'complete'"
        wait_until(lambda: database.execute(ended).fetchone()[0] == REPLIES, 40, "the replies")
        stack.kill_worker().wait()
        stack.start_worker()
        ada.say(chats[0], "Again")
        wait_until(lambda: database.execute(ended).fetchone()[0] == REPLIES + 1, 40, "one more")
    assert "steady" in ada.get("/search?q=steady").text
    for part in ("web", "worker"):
        assert "waiting for the database" not in stack.log(part)
        assert "not saved" not in stack.log(part)


def test_migrations_go_both_ways_through_a_pooler(pooled, tmp_path):
    url = pooled("transaction")
    for words, revision in ((["upgrade"], r"\d+"), (["downgrade", "base"], "base")) * 2:
        code, said = flask_db(url, tmp_path, *words)
        assert code == 0 and re.fullmatch(rf"The database is at revision {revision}\.", said)


def test_a_pooler_that_takes_no_transactions_is_told_in_a_sentence(pooled, tmp_path):
    code, said = flask_db(pooled("statement"), tmp_path, "upgrade")
    assert code == 1
    assert said.startswith("DATABASE_URL: the database cannot be opened: transaction blocks not")


def test_a_replica_is_told_in_a_sentence(postgres_url, tmp_path):
    name = postgres_url.rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    code, said = flask_db(postgres_url, tmp_path, "upgrade")
    assert code == 1
    assert said == (
        "DATABASE_URL: the database cannot be opened: "
        "cannot execute CREATE TABLE in a read-only transaction"
    )
