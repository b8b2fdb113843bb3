"""What was accepted while the database goes away and comes back: stored, and asked once."""

import sqlite3
import threading
from contextlib import closing, contextmanager

import gevent
import psutil
import psycopg
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

import models
from chattable import connections, provider, writing
from chattable.database import transient
from tests.services import Proxy, wait_until
from tests.tab import Tab, send

MESSAGES = 30
# Where the worker says that it met the absence, in whatever words.
TROUBLE = ("refused", "shutting down", "read-only", "terminat", "too many", "locked")
BACK_WITHIN = 60
# The others to the same database.
CONNECTIONS = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"


@pytest.fixture
def stack(make_stack, postgres_url):
    """A stack on PostgreSQL with one worker."""
    return make_stack(database_url=postgres_url)


class Post:
    """So many messages to a chat each, accepted while the only worker sleeps."""

    def __init__(self, stack, count=MESSAGES):
        self.stack, self.worker = stack, psutil.Process(stack.workers[0].pid)
        self.person = stack.signup()
        self.words = {self.person.new_chat(): f"message {n}." for n in range(count)}

    def send(self):
        """Suspend the worker and post all messages."""
        self.worker.suspend()
        for chat_id, words in self.words.items():
            assert self.person.say(chat_id, words).status == 204

    def wake(self):
        """Let the worker find what has become of the database; return once it has."""
        before = len(self.stack.log("worker"))
        self.worker.resume()
        wait_until(lambda: self._in_trouble(before), 30, "the worker to meet the absence")

    def _in_trouble(self, before):
        said = self.stack.log("worker")[before:]
        return any(words in said for words in TROUBLE)

    def assert_answered(self, provider, rows):
        """Each message is stored once with one complete reply, and was asked for once."""
        wait_until(lambda: len(ended(rows())) == len(self.words), BACK_WITHIN, "every reply to end")
        for chat_id, words in self.words.items():
            roles = [(role, status) for id, role, status, _ in rows() if id == chat_id]
            assert roles == [("user", "complete"), ("assistant", "complete")]
            assert [content for id, _, _, content in rows() if id == chat_id][0] == words
        asked = sorted(request.prompt for request in provider.requests)
        assert asked == sorted(self.words.values())


def ended(rows):
    return [row for row in rows if row[1] == "assistant" and row[2] not in ("pending", "streaming")]


ROWS = "SELECT chat_id, role, status, content FROM messages ORDER BY id"


@pytest.fixture
def rows(postgres_url):
    """A function that returns (chat id, role, status, content) of every message."""

    def read():
        with psycopg.connect(postgres_url) as connection:
            return connection.execute(ROWS).fetchall()

    return read


def test_messages_are_stored_by_a_worker_that_finds_the_database_gone(
    stack, postgres_server, provider, rows
):
    post = Post(stack)
    post.send()
    postgres_server.stop()
    try:
        post.wake()
    finally:
        postgres_server.start()
    post.assert_answered(provider, rows)


def test_messages_are_stored_after_a_time_in_which_the_database_could_only_be_read(
    stack, postgres_server, postgres_url, provider, rows
):
    post = Post(stack)
    post.send()
    with read_only(postgres_url):
        post.wake()
    post.assert_answered(provider, rows)


@contextmanager
def read_only(postgres_url):
    """Let nobody write, over new and old connections, as during a failover."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: shown(postgres_url) == "on", 5, "the server to be read-only")
        yield
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")


def shown(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        return connection.execute("SHOW default_transaction_read_only").fetchone()[0]


def test_replies_go_on_when_every_connection_is_cut_again_and_again(
    stack, postgres_url, provider, rows
):
    post = Post(stack)
    post.send()
    with cut_off(postgres_url):
        post.wake()
        wait_until(lambda: len(provider.requests) > MESSAGES // 2, 30, "half of the requests")
    post.assert_answered(provider, rows)


@contextmanager
def cut_off(postgres_url):
    """End everybody's connections ten times a second."""
    done = threading.Event()

    def cut():
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            while not done.wait(0.1):
                connection.execute(f"SELECT pg_terminate_backend(pid) {CONNECTIONS}")

    cutter = threading.Thread(target=cut)
    cutter.start()
    yield
    done.set()
    cutter.join()


def test_messages_are_stored_once_there_are_connections_left(
    make_stack, postgres_url, provider, rows
):
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute("CREATE ROLE guest LOGIN")
        server.execute(f"ALTER DATABASE {server.info.dbname} OWNER TO guest")
        post = Post(make_stack(database_url=postgres_url.replace("postgres@", "guest@")))
        post.send()
        server.execute("ALTER ROLE guest CONNECTION LIMIT 0")
        server.execute(f"SELECT pg_terminate_backend(pid) {CONNECTIONS} AND usename = 'guest'")
        post.wake()
        server.execute("ALTER ROLE guest CONNECTION LIMIT -1")
    post.assert_answered(provider, rows)


def test_messages_are_stored_once_an_sqlite_file_can_be_written_again(make_stack, provider):
    stack = make_stack()
    file = stack.folder / "chattable.db"

    def rows():
        with closing(sqlite3.connect(file)) as database:
            return database.execute(ROWS).fetchall()

    post = Post(stack, count=5)
    post.send()
    with locked(file):
        post.wake()
    post.assert_answered(provider, rows)


@contextmanager
def locked(file):
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


MISHAPS = "python -m gevent.monkey --module flask --app tests.mishaps worker"


def test_a_reply_goes_on_when_a_proxy_forgets_the_workers_connections(
    make_stack, postgres_url, postgres_server, provider, rows
):
    stack = make_stack(workers=0, database_url=postgres_url)
    with closing(Proxy(postgres_server.port)) as proxy:
        url = postgres_url.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        stack.start_worker(MISHAPS, DATABASE_URL=url, ANSWERED_WITHIN="1")
        ada = stack.signup()
        tab = Tab(ada, ada.new_chat())
        script = provider.says("some words", hold=True)
        send(tab)
        tab.wait_for_words("some words")
        proxy.swallow()
        script.says(" and others").release()
        tab.wait_for_status("complete", timeout=30)
        assert rows()[-1][1:] == ("assistant", "complete", "some words and others")


def test_a_job_that_lost_its_patience_with_the_database_runs_again(make_stack):
    stack = make_stack(workers=0)
    stack.start_worker(MISHAPS, PATIENCE="0")
    ada = stack.signup()
    tab = Tab(ada, ada.new_chat())
    with locked(stack.folder / "chattable.db"):
        send(tab, "precious words")
        said = "exception raised while executing"
        wait_until(lambda: stack.log("worker").count(said) > 3, 30, "more runs than retries")
    tab.wait_for_status("complete", timeout=30)
    assert "precious words" in tab.page.messages[0].get_text()


def test_words_whose_saving_was_not_answered_are_saved_once(user, monkeypatch):
    monkeypatch.setattr(writing, "CHECKPOINT", 0)
    chat = models.Chat()
    user.chats.append(chat)
    reply = chat.begin_reply("gpt-4o")
    saved = writing.Checkpoint(reply)
    event.listen(models.db.engine, "after_cursor_execute", lose_answer, once=True)
    for content in ("one ", "one two ", "one two three"):
        assert saved.keep_up(content, writing.Thought())
    models.db.session.refresh(reply)
    assert reply.content == "one two three"


def test_an_end_whose_saving_was_not_answered_is_told(user, monkeypatch):
    chat, told = models.Chat(), []
    user.chats.append(chat)
    reply = chat.begin_reply("gpt-4o")
    monkeypatch.setattr(models.User, "on_message_update", lambda _, message: told.append(message))
    dialect = models.db.engine.dialect

    def commit_unheard(connection):
        del dialect.do_commit
        connection.commit()
        raise sqlite3.OperationalError("the line was cut")

    dialect.do_commit = commit_unheard
    assert writing.Writing(reply).fail(provider.Usage(), "")
    assert told == [reply]


def lose_answer(*_):
    raise OperationalError("UPDATE", {}, Exception("the line was cut"))


def test_a_file_that_cannot_be_written_now_is_opened_anew_the_next_time(tmp_path):
    file = tmp_path / "chattable.db"
    tuned_engine(f"sqlite:///{file}").connect().execute(text("CREATE TABLE notes (id INTEGER)"))
    error = failure(f"sqlite:///file:{file}?mode=ro&uri=true", "INSERT INTO notes VALUES (1)")
    assert transient(error)
    assert error.connection_invalidated


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
@pytest.mark.parametrize("statement", ["SELECT nothing FROM nowhere", "SELEKT 1"])
def test_what_can_never_succeed_is_not_waited_for(request, url, statement):
    assert not transient(failure(request.getfixturevalue(url), statement))


def tuned_engine(url):
    """Return an engine as the product has it."""
    engine = create_engine(url)
    connections.look_after(engine)
    return engine


@pytest.fixture
def proxied(postgres_url, postgres_server):
    """Give (an engine, the proxy between it and PostgreSQL)."""
    with closing(Proxy(postgres_server.port)) as proxy:
        url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
        engine = tuned_engine(url.replace(f":{postgres_server.port}/", f":{proxy.port}/"))
        yield engine, proxy
        engine.dispose()


def occupy(engine, count):
    """Return so many connections of an engine, each in use."""
    connections = [engine.connect() for _ in range(count)]
    for connection in connections:
        connection.execute(text("SELECT 1"))
        connection.commit()
    return connections


@pytest.fixture
def served(monkeypatch):
    """Be a process that serves pages or writes replies, and has little patience."""
    monkeypatch.setattr(connections, "is_module_patched", lambda name: True)
    monkeypatch.setattr(connections, "ANSWERED_WITHIN", 0.5)


def test_a_server_from_which_nothing_comes_any_more_is_asked_over_new_connections(proxied, served):
    engine, proxy = proxied
    in_use, *others = occupy(engine, 3)
    for other in others:
        other.close()
    proxy.swallow()
    with gevent.Timeout(60), pytest.raises(OperationalError) as raised:
        in_use.execute(text("SELECT 1"))
    assert transient(raised.value)
    assert raised.value.connection_invalidated
    in_use.close()
    occupy(engine, 3)


def test_connections_that_idled_together_are_replaced_together(proxied, monkeypatch):
    engine, proxy = proxied
    for connection in occupy(engine, 3):
        connection.close()
    proxy.swallow()
    monkeypatch.setattr(connections, "IDLE", 0)
    monkeypatch.setattr(connections, "ALIVE_WITHIN", 0.5)
    found_dead = []
    event.listen(engine, "invalidate", lambda *found: found_dead.append(found))
    with gevent.Timeout(60):
        occupy(engine, 3)
    assert len(found_dead) == 1


def test_one_that_comes_back_dead_speaks_for_those_that_idle_beside_it(proxied, postgres_server):
    engine, _ = proxied
    dying, *others = occupy(engine, 3)
    for other in others:
        other.close()
    postgres_server.stop()
    postgres_server.start()
    # As where the last word of a transaction is not answered: nothing that SQLAlchemy hears of.
    with pytest.raises(psycopg.OperationalError):
        dying.connection.driver_connection.execute("SELECT 1")
    dying.close()
    occupy(engine, 3)


def test_what_is_slow_but_not_served_such_as_a_migration_is_waited_for(proxied, monkeypatch):
    engine, _ = proxied
    monkeypatch.setattr(connections, "ANSWERED_WITHIN", 0.1)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.5)"))


def test_the_system_looks_after_quiet_connections_unless_the_address_says_how(postgres_url):
    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    engine = tuned_engine(f"{url}?keepalives_idle=77")
    with engine.connect() as connection:
        said = connection.connection.driver_connection.info.get_parameters()
    assert said["keepalives_idle"] == "77"
    assert int(said["tcp_user_timeout"]) == 1000 * connections.ANSWERED_WITHIN
    engine.dispose()


def failure(url, statement):
    """Return what SQLAlchemy raises."""
    engine = tuned_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection, pytest.raises(SQLAlchemyError) as raised:
        connection.execute(text(statement))
    return raised.value
