"""A worker whose Redis or database goes, freezes or refuses: it waits, obeys, loses no job."""

import os
import signal
import sqlite3
import time
from contextlib import closing, contextmanager
from copy import copy

import pytest
from redis.exceptions import ReadOnlyError

from chattable import live
from tests.patience import patient
from tests.services import Proxy, Redis, wait_until
from tests.stack import QUEUE, Stack
from tests.tab import Tab, prose, send
from tests.test_recovery import asleep_at_the_queue

GRACE = 2
# Seconds, for a machine that is busy: what does not obey is still there minutes later.
OBEYS_WITHIN = 15


@pytest.fixture(scope="module")
def plant(provider_server):
    """A stack whose workers and Redis these tests ill-treat."""
    with closing(Stack(provider_server.url, env={"SHUTDOWN_GRACE": str(GRACE)})) as stack:
        yield stack.start(workers=0)


@pytest.fixture
def stack(plant, provider):
    """The plant without workers, its Redis well and empty."""
    yield plant
    while plant.workers:
        plant.kill_worker()
    with plant.redis.client() as client:
        client.flushall()


@pytest.fixture
def tab(tab):
    """A tab that connects anew when it is told to, as all are after a failover."""
    tab.persists = True
    return tab


@pytest.fixture
def worker(stack):
    return stack.start_worker()


@contextmanager
def gone(redis):
    """Have nobody listen where Redis was."""
    redis.kill()
    try:
        yield
    finally:
        redis.start()


@contextmanager
def frozen(redis):
    """Have Redis accept connections, and never answer."""
    redis.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        redis.process.send_signal(signal.SIGCONT)


@contextmanager
def full(redis):
    """Have Redis refuse whatever needs memory."""
    with redis.client() as client:
        client.config_set("maxmemory", "1")
        try:
            yield
        finally:
            client.config_set("maxmemory", "0")


@contextmanager
def failed_over(redis):
    """Have Redis be a replica, which refuses every write."""
    with redis.client() as client:
        client.replicaof("127.0.0.1", "9")
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


@contextmanager
def locked(stack):
    """Lock the SQLite file against every other writer."""
    with closing(sqlite3.connect(stack.folder / "chattable.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            database.execute("ROLLBACK")


def wait_for_trouble(stack, before, said="trying again"):
    wait_until(lambda: said in stack.log("worker")[before:], 30, "the worker to notice")


# It waits.


@pytest.mark.parametrize("outage", [gone, full, failed_over])
def test_a_worker_outlives_whatever_redis_says_and_says_it_once(stack, worker, tab, outage):
    before = len(stack.log("worker"))
    with outage(stack.redis):
        wait_for_trouble(stack, before, "queue: trying again")
        wait_until(lambda: worker.poll() is None, 1, "the worker to live")
    said = stack.log("worker")[before:]
    assert said.count("queue: trying again") == 1
    tab.connect()
    wait_until(lambda: tab.person.say(tab.chat_id, "count").status == 204, 10, "the web")
    tab.wait_for_status("complete", timeout=20)
    assert worker.poll() is None


def test_a_worker_that_starts_before_redis_waits_for_it(stack, tab):
    before = len(stack.log("worker"))
    with gone(stack.redis):
        stack.run_worker()
        wait_for_trouble(stack, before)
    tab.connect()
    wait_until(lambda: tab.person.say(tab.chat_id, "count").status == 204, 10, "the web")
    tab.wait_for_status("complete", timeout=20)


def test_a_redis_that_lost_its_memory_knows_the_worker_again_and_stop_is_heard(
    stack, worker, tab, provider
):
    with stack.redis.client() as client:
        client.flushall()
        wait_until(lambda: client.smembers("rq:workers"), 10, "the worker to be registered")
        script = provider.says(*prose(20), hold=True)
        send(tab)
        tab.wait_for_words("w19")
        client.publish("chattable:stops", "not a number")
        tab.person.stop(tab.reply_id)
        script.wait_for_disconnect(timeout=10)
    tab.wait_for_status("stopped")


class Pair:
    """A primary and its replica behind one address, which is that of the primary."""

    def __init__(self, old, new, proxy):
        self.old, self.new, self._proxy = old, new, proxy
        self.shared = copy(old)
        self.shared.url = f"redis://127.0.0.1:{proxy.port}/0"
        self.shared.close = lambda: None
        with new.client() as client:
            client.replicaof("127.0.0.1", old.port)

    def fail_over(self):
        """Change their parts; the old primary keeps its connections, as a replica."""
        with self.new.client() as replica, self.old.client() as primary:
            link = "master_link_status"
            wait_until(lambda: replica.info("replication")[link] == "up", 10, "the replica")
            primary.wait(1, 10_000)
            replica.replicaof("NO", "ONE")
            self._proxy.to = self.new.port
            primary.replicaof("127.0.0.1", self.new.port)


@pytest.fixture
def pair():
    with closing(Redis()) as old, closing(Redis()) as new, closing(Proxy(old.port)) as proxy:
        yield Pair(old, new, proxy)


def test_after_a_failover_one_refusal_has_every_connection_made_anew(pair, make_app):
    app = make_app(REDIS_URL=pair.shared.url)
    with app.app_context():
        pool = live.redis().connection_pool
        for connection in [pool.get_connection() for _ in range(live.CONNECTIONS)]:
            pool.release(connection)
        pair.fail_over()
        with pytest.raises(ReadOnlyError):
            live.claim("a token")
        assert all(live.claim(f"token {n}") for n in range(live.CONNECTIONS))


def test_after_a_failover_pages_listen_to_the_new_primary(pair, make_app):
    app = make_app(REDIS_URL=pair.shared.url)
    with app.app_context():
        live.claim("an earlier token")
        with app.extensions["chattable_relay"].watch("a channel") as watcher:
            pair.fail_over()
            with pytest.raises(ReadOnlyError):
                live.claim("a token")
            assert watcher.next(patient(10)) is None
        assert watcher.code == 1012


def test_after_a_failover_scripts_find_the_new_primary(pair, make_app):
    app = make_app(REDIS_URL=pair.shared.url)
    with app.app_context():
        outbox = app.extensions["chattable_outbox"]
        frame = live.ANNOUNCE, ["number"], ["install", "channel", "frame", 60]
        outbox.send(*frame)
        before = int(app.extensions["chattable_redis"].get("number"))
        pair.fail_over()
        with pytest.raises(ReadOnlyError):
            outbox.send(*frame)
        outbox.send(*frame)
    with pair.new.client() as client:
        assert int(client.get("number")) == before + 1


def test_a_conversation_goes_on_after_a_failover(pair, provider):
    with closing(Stack(provider.url, redis=pair.shared)) as stack:
        stack.start()
        ada = stack.signup()
        tab = Tab(ada, ada.new_chat())
        send(tab)
        tab.wait_for_status("complete")
        pair.fail_over()
        wait_until(lambda: ada.say(tab.chat_id, "count").status == 204, 10, "the web")
        # What was refused meanwhile has the page told to connect anew, and it does.
        tab.persists = True
        tab.wait_for_status("complete", replies=2, timeout=20)
        assert tab.html == tab.reloaded()


# It obeys.


def end(stack, worker):
    """Tell a worker to end; return its exit status once it has."""
    worker.send_signal(signal.SIGTERM)
    status = worker.wait(OBEYS_WITHIN + GRACE)
    stack.workers.remove(worker)
    return status


@pytest.mark.parametrize("outage", [gone, frozen, full])
def test_an_idle_worker_ends_when_told_whatever_redis_does(stack, worker, outage):
    before = len(stack.log("worker"))
    with outage(stack.redis):
        if outage is not frozen:  # of that, nothing is to be seen
            wait_for_trouble(stack, before)
        assert end(stack, worker) == 0


def test_a_worker_in_mid_reply_ends_without_redis_and_keeps_the_text(stack, worker, tab, provider):
    provider.says(*prose(20), hold=True)
    send(tab)
    tab.wait_for_words("w19")
    with frozen(stack.redis):
        end(stack, worker)
    with closing(sqlite3.connect(stack.folder / "chattable.db")) as database:
        query = "SELECT status, content FROM messages WHERE id = ?"
        status, content = database.execute(query, [tab.reply_id]).fetchone()
    assert (status, content) == ("failed", "".join(prose(20)))


def test_a_worker_that_waits_for_the_database_ends_and_gives_its_job_back(stack, worker, tab):
    before = len(stack.log("worker"))
    with locked(stack):
        send(tab, "precious words")
        said = "waiting for the database"
        wait_until(lambda: said in stack.log("worker")[before:], 10, "the job to wait")
        assert end(stack, worker) == 0
        with stack.redis.client() as client:
            assert client.llen(f"rq:queue:{QUEUE}") == 1
    stack.start_worker()
    tab.wait_for_status("complete")
    assert "precious words" in tab.page.messages[0].get_text()


def test_a_worker_that_is_stuck_ends_all_the_same(stack):
    command = "python -m gevent.monkey --module flask --app tests.mishaps worker"
    worker = stack.start_worker(command)
    os.kill(worker.pid, signal.SIGUSR1)
    wait_until(lambda: "nothing else runs" in stack.log("worker"), 5, "the mishap")
    assert end(stack, worker) == -signal.SIGALRM


# It loses no job.


def test_a_job_whose_worker_died_of_it_runs_again(stack, worker, tab):
    with locked(stack):
        send(tab, "precious words")
        with stack.redis.client() as client:
            wait_until(lambda: client.zcard(f"rq:wip:{QUEUE}"), 10, "the job to be started")
        stack.kill_worker()
    stack.start_worker()
    tab.wait_for_status("complete", timeout=30)
    assert "precious words" in tab.page.messages[0].get_text()


def test_a_worker_that_pauses_as_it_takes_a_job_keeps_it(stack, worker, tab, provider):
    with stack.redis.client() as client, asleep_at_the_queue(stack, client) as sleeper:
        (name,) = client.smembers("rq:workers")
        send(tab)
        sleeper.gets_its_job()
        stack.start_worker()
        # Not for long: after 10 s the sleeper would no longer hear what Redis has told it.
        wait_for_round(client, name)
        assert client.llen(f"rq:queue:{QUEUE}") == 0
        sleeper.process.resume()
        tab.wait_for_status("complete")
        (job,) = client.keys("rq:job:*")
        assert client.hget(job, "worker_name") == name.removeprefix(b"rq:worker:")
    assert len(provider.requests) == 1


def wait_for_round(client, sleeper):
    """Wait until the other worker has looked at RQ's books once more."""
    (other,) = client.smembers("rq:workers") - {sleeper}
    seen = client.hget(other, "last_heartbeat")
    wait_until(lambda: client.hget(other, "last_heartbeat") != seen, 10, "a heartbeat")


def test_a_log_in_waits_a_second_for_a_redis_that_says_nothing(make_stack):
    stack = make_stack(workers=0, env={"RATELIMIT_ENABLED": "1"})
    ada, visitor = stack.signup(), stack.session()
    visitor.get("/login")
    with frozen(stack.redis):
        begun = time.monotonic()
        form = {"email": ada.email, "password": "wrong horse"}
        assert [visitor.post("/login", **form).status for _ in range(2)] == [422] * 2
        assert time.monotonic() - begun < 12  # a second each; the connection waits for ten
