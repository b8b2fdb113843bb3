"""What breaks while a reply is written: processes, Redis, the database, connections."""

import os
import random
import signal
import sqlite3
import string
import time
from contextlib import closing, contextmanager, suppress

import psutil
import pytest
from rq import Queue

from chattable.keepers import SECOND_LOOK, SWEEP
from chattable.live import BACKLOG_BYTES, LEASE, PING, RENEW
from chattable.writing import ORPHANED
from tests.services import wait_until
from tests.stack import PREFIX, QUEUE, Stack
from tests.tab import Tab, numbered, paced, prose, send, words

# Seconds in which nobody may notice that a worker is gone, at most.
INTERRUPTED_WITHIN = 15


@pytest.fixture(scope="module")
def ruin(provider_server):
    """A stack whose parts these tests kill and bring back."""
    with closing(Stack(provider_server.url)) as stack:
        yield stack.start()


@pytest.fixture
def stack(ruin, provider):
    """The ruin, whole again: one web, one worker."""
    yield ruin
    if not ruin.workers:
        ruin.start_worker()
    if not ruin.webs:
        ruin.start_web()


def hold(provider, tab, count=20, **options):
    """Have a reply of `count` words begin and hold; return its script."""
    script = provider.says(*prose(count), hold=True, **options)
    send(tab, options.get("when", "count"))
    tab.wait_for_words(f"w{count - 1}")
    return script


def reconnect(tab, web):
    """Open a tab's socket again, at a web that may be new."""
    tab.person.url, tab.person.host = web.url, web.url.removeprefix("http://")
    tab.connect()


# The worker dies.


class Wreck:
    """Two workers with a reply each, of which one is killed and one suspended."""

    def __init__(self, stack, provider):
        self.stack, self.provider = stack, provider
        ada = stack.signup()
        self.tabs = [Tab(ada, ada.new_chat()) for _ in range(2)]
        self.scripts = [
            hold(provider, tab, when=f"chat {n}").says(" too late").holds()
            for n, tab in enumerate(self.tabs)
        ]
        self.killed, self.suspended = [worker_of(stack, tab) for tab in self.tabs]

    def happen(self):
        """Let it happen; return once every page knows."""
        # with nothing left to save, only what it says next can tell the sleeper
        wait_until(lambda: "w19" in saved(self.stack, self.tabs[1]), 5, "a checkpoint")
        os.killpg(self.suspended.pid, signal.SIGSTOP)
        self.stack.kill_worker(index=self.stack.workers.index(self.killed))
        for tab in self.tabs:
            tab.wait_for_status("failed", timeout=INTERRUPTED_WITHIN)
        return self

    @property
    def books(self):
        return Queue(QUEUE, connection=self.stack.redis.client())


def worker_of(stack, tab):
    """Return the process that runs the job of a tab's chat."""
    with stack.redis.client() as client:
        registry = Queue(QUEUE, connection=client).started_job_registry
        jobs = [registry.job_class.fetch(id, client) for id in registry.get_job_ids(cleanup=False)]
        (name,) = [job.worker_name for job in jobs if job.args[0] == tab.chat_id]
        pid = int(client.hget(f"rq:worker:{name}", "pid"))
    return next(worker for worker in stack.workers if worker.pid == pid)


@pytest.fixture(scope="module")
def wreck(provider_server):
    """What is left when two workers are gone, and everybody knows it."""
    provider_server.forget()
    with closing(Stack(provider_server.url, env={"WORKER_CONCURRENCY": "1"})) as stack:
        yield Wreck(stack.start(workers=2), provider_server).happen()


def test_a_killed_workers_reply_ends_in_the_open_page_with_its_text(wreck):
    tab = wreck.tabs[0]
    assert words(tab.text) == numbered(20)
    assert "interrupted" in tab.reply.select_one(".message__error").get_text()
    assert "Retry" in tab.reply.get_text()
    assert tab.socket.code is None  # over the socket it had, nobody reloaded
    assert tab.html == tab.reloaded()
    run_abandoned_jobs(wreck)
    assert [request.prompt for request in wreck.provider.requests] == ["chat 0", "chat 1"]
    wreck.provider.says("at last")
    assert tab.person.retry(tab.reply_id).status == 204
    tab.wait_for_status("complete")
    assert tab.html == tab.reloaded()


def run_abandoned_jobs(wreck):
    """Let as much time pass in RQ's books as it needs to see that a worker is dead."""
    registry = wreck.books.started_job_registry
    for entry in registry.connection.zrange(registry.key, 0, -1):
        registry.connection.zadd(registry.key, {entry: 1})
    wreck.stack.start_worker(WORKER_CONCURRENCY="2")
    wait_until(lambda: wreck.books.finished_job_registry.get_job_count() == 2, 5, "both jobs")


def test_a_dead_worker_is_told_from_one_that_paused_for_ten_seconds():
    # bench/faults.py measures it; at worst a lease has just been, or was about to be, renewed
    assert LEASE - RENEW + ORPHANED > 10
    assert LEASE + ORPHANED + SWEEP + SECOND_LOOK < INTERRUPTED_WITHIN


def test_a_worker_that_wakes_after_it_was_declared_dead_changes_nothing(wreck):
    tab, script = wreck.tabs[1], wreck.scripts[1]
    html = tab.html
    assert words(tab.text) == numbered(20)
    script.release()
    script.wait_for_hold(2)
    os.killpg(wreck.suspended.pid, signal.SIGCONT)
    script.wait_for_disconnect()
    # a frame that comes after whatever the sleeper may have sent
    tab.person.post(f"/chats/{tab.chat_id}", title="What happened since")
    tab.socket.wait_for("What happened since")
    tab.show()
    assert tab.html == html == tab.reloaded()


class Sleep:
    """A worker that slept so long that its replies were declared dead, and what it says then."""

    LATE = "**late** "

    def __init__(self, stack, provider):
        self.stack, self.worker = stack, stack.workers[0]
        ada = stack.signup()
        frames = ["patch", "key frame", "first frame", "frame after Redis lost its memory"]
        self.tabs = {frame: Tab(ada, ada.new_chat()) for frame in frames}
        self.scripts = {}
        for frame, tab in self.tabs.items():
            many = 1000 if frame == "key frame" else 1
            self.scripts[frame] = self._script(provider, frame).holds().says(self.LATE * many)
            send(tab, f"a {frame}")
        for frame, script in self.scripts.items():
            script.wait_for_hold()
            self.scripts[frame].holds()
            self.tabs[frame].wait_for_status("pending" if frame == "first frame" else "streaming")

    def _script(self, provider, frame):
        script = provider.reply(when=f"a {frame}").begins()
        return script if frame == "first frame" else script.says(*prose(20))

    def happen(self):
        """Let it sleep until every page knows, then wake and say what it has to say."""
        os.killpg(self.worker.pid, signal.SIGSTOP)
        for tab in self.tabs.values():
            tab.wait_for_status("failed", timeout=INTERRUPTED_WITHIN + 10)
        self._forget(self.tabs["frame after Redis lost its memory"])
        self.shown = {frame: tab.html for frame, tab in self.tabs.items()}
        for script in self.scripts.values():
            script.release()
            script.wait_for_hold(2)
        os.killpg(self.worker.pid, signal.SIGCONT)
        return self

    def _forget(self, tab):
        with self.stack.redis.client() as client:
            for pattern in (f"chat:{tab.chat_id}:[^s]*", f"message:{tab.reply_id}:*"):
                for key in client.scan_iter(f"{PREFIX}:{pattern}"):
                    client.delete(key)


@pytest.fixture(scope="module")
def sleep(provider_server):
    provider_server.forget()
    with closing(Stack(provider_server.url)) as stack:
        yield Sleep(stack.start(), provider_server).happen()


@pytest.mark.parametrize(
    "frame", ["patch", "key frame", "first frame", "frame after Redis lost its memory"]
)
def test_a_worker_that_overslept_publishes_nothing(sleep, frame):
    tab = sleep.tabs[frame]
    sleep.scripts[frame].wait_for_disconnect()
    # a frame that comes after whatever the sleeper may have sent
    tab.person.post(f"/chats/{tab.chat_id}", title="What happened since")
    tab.socket.wait_for("What happened since")
    assert not any("late" in frame for frame in tab.socket.frames)
    tab.show()
    assert tab.html == sleep.shown[frame] == tab.reloaded()


def test_a_message_whose_worker_died_before_saving_it_is_not_lost(stack, tab, provider):
    with stack.redis.client() as client, asleep_at_the_queue(stack, client) as worker:
        send(tab, "precious words")
        worker.gets_its_job()
        stack.kill_worker()
    stack.start_worker()
    tab.wait_for_status("complete", timeout=30)
    assert "precious words" in tab.page.messages[0].get_text()
    assert len(provider.requests) == 1
    assert tab.html == tab.reloaded()


@contextmanager
def asleep_at_the_queue(stack, client):
    """Suspend the only worker while it waits for a job; in the end it wakes, or is dead."""
    sleeper = Sleeper(stack.workers[0], client)
    try:
        sleeper.sleeps()
        yield sleeper
    finally:
        with suppress(psutil.NoSuchProcess):
            sleeper.process.resume()


class Sleeper:
    """A worker to suspend in its wait for a job, so that Redis gives it one in its sleep."""

    def __init__(self, worker, client):
        self.process, self.client = psutil.Process(worker.pid), client
        self.queue = Queue(QUEUE, connection=client)

    def sleeps(self):
        """Suspend it; try again when it was awake for the end of its wait, a second each."""
        while True:
            wait_until(self.waits, 10, "the worker to wait for a job")
            self.process.suspend()
            wait_until(lambda: self.process.status() == psutil.STATUS_STOPPED, 5, "its sleep")
            if self.waits():
                return
            self.process.resume()

    def waits(self):
        """Tell whether Redis holds it in a BLMOVE."""
        clients = self.client.client_list()
        return any(each["cmd"] == "blmove" and "b" in each["flags"] for each in clients)

    def gets_its_job(self):
        """See that Redis gave it the job in the queue; give it again if its wait had run out."""
        while job_ids := self.queue.job_ids:
            self.client.delete(self.queue.key)
            self.process.resume()
            self.sleeps()
            self.queue.push_job_id(*job_ids)


def test_after_a_power_cut_a_reply_is_ended_with_what_it_had_a_second_before(stack, tab, provider):
    hold(provider, tab)
    wait_until(lambda: "w19" in saved(stack, tab), 3, "a checkpoint")
    web = stack.kill_web()
    stack.kill_worker()
    stack.redis.kill()
    stack.redis.start()
    with stack.redis.client() as client:
        client.flushall()
    stack.start_worker()
    wait_until(lambda: status(stack, tab) == "failed", 12, "the new worker to notice")
    reconnect(tab, stack.start_web(int(web.url.rsplit(":", 1)[1])))
    tab.wait_for_status("failed")
    assert words(tab.text) == numbered(20)
    assert tab.html == tab.reloaded()
    provider.says("as if nothing had happened")
    send(tab)
    tab.wait_for_status("complete", replies=2)


def saved(stack, tab):
    return row(stack, tab)[0]


def status(stack, tab):
    return row(stack, tab)[1]


def row(stack, tab):
    """Return (content, status) of a tab's reply as the database has it."""
    with closing(sqlite3.connect(stack.folder / "chattable.db")) as database:
        query = "SELECT content, status FROM messages WHERE id = ?"
        return database.execute(query, [tab.reply_id]).fetchone()


def completed(stack, tab):
    """Return how many replies in a tab's chat are complete."""
    with closing(sqlite3.connect(stack.folder / "chattable.db")) as database:
        query = "SELECT count(*) FROM messages WHERE chat_id = ? AND role = 'assistant'"
        return database.execute(f"{query} AND status = 'complete'", [tab.chat_id]).fetchone()[0]


# The web dies.


def test_pages_catch_up_with_a_web_that_was_killed_and_restarted(stack, tab, provider):
    script = hold(provider, tab).says(*prose(20, start=20)).holds().says(*prose(20, start=40))
    web = stack.kill_web()
    tab.socket.wait_for_close()
    script.release()
    script.wait_for_hold(2)
    reconnect(tab, stack.start_web(int(web.url.rsplit(":", 1)[1])))
    tab.wait_for_words("w39")
    assert words(tab.text) == numbered(40)
    script.release()
    tab.wait_for_status("complete")
    assert words(tab.text) == numbered(60)
    assert tab.html == tab.reloaded()


# Redis dies.


def restart_redis(stack, tabs):
    """Kill Redis, bring it back, and reconnect whoever lost their socket."""
    stack.redis.kill()
    for tab in tabs:
        assert tab.socket.wait_for_close() == 1012
        tab.show()
    stack.redis.start()
    for tab in tabs:
        tab.connect()


def test_a_reply_goes_on_while_redis_restarts(stack, tab, provider):
    paced(provider, prose(400), gap=0.008)
    send(tab)
    tab.wait_for_words("w50")
    restart_redis(stack, [tab])
    tab.wait_for_status("complete", timeout=15)
    assert words(tab.text) == numbered(400)
    assert tab.html == tab.reloaded()


def test_a_reply_that_has_no_more_to_say_after_redis_restarted_ends_in_the_page(
    stack, tab, provider
):
    script = hold(provider, tab)
    restart_redis(stack, [tab])
    script.release()
    tab.wait_for_status("complete")
    assert words(tab.text) == numbered(20)
    assert tab.html == tab.reloaded()


def test_stop_is_heard_after_redis_restarted(stack, tab, provider):
    script = hold(provider, tab)
    restart_redis(stack, [tab])
    assert tab.person.stop(tab.reply_id).status == 204
    # the worker may need a moment to find Redis again; what matters is that it does
    script.wait_for_disconnect()
    tab.wait_for_status("stopped")
    assert tab.html == tab.reloaded()


def test_messages_are_shown_after_redis_restarted_between_two(stack, tab, provider):
    provider.says("one")
    send(tab, "first")
    tab.wait_for_status("complete")
    restart_redis(stack, [tab])
    provider.says("two")
    wait_until(lambda: tab.person.say(tab.chat_id, "second").status == 204, 10, "the next turn")
    tab.wait_for_status("complete", replies=2)
    assert tab.html == tab.reloaded()


def test_a_reply_that_ends_while_redis_is_away_is_complete_when_it_is_back(stack, tab, provider):
    script = hold(provider, tab).says("w20")
    stack.redis.kill()
    tab.socket.wait_for_close()
    script.release()
    wait_until(lambda: status(stack, tab) == "complete", 30, "the reply to be complete")
    stack.redis.start()
    tab.connect()
    tab.wait_for_status("complete")
    assert words(tab.text) == numbered(21)
    assert tab.html == tab.reloaded()


# The database is busy or away.


@contextmanager
def locked(stack):
    """Lock the SQLite file against every other writer."""
    database = sqlite3.connect(stack.folder / "chattable.db", isolation_level=None)
    with closing(database):
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


def test_a_locked_database_costs_a_reply_nothing_but_time(stack, ada, provider):
    tabs = [Tab(ada, ada.new_chat()) for _ in range(2)]
    scripts = [hold(provider, tab, when=f"chat {n}").says("w20") for n, tab in enumerate(tabs)]
    with locked(stack):
        locked_at = time.monotonic()
        scripts[0].release()
        tabs[0].wait_for_words("w20")
        ada.stop(tabs[1].reply_id)
        # longer than a lease lasts: nobody may think the writers dead
        time.sleep(max(0, INTERRUPTED_WITHIN - (time.monotonic() - locked_at)))
    tabs[0].wait_for_status("complete", timeout=20)
    tabs[1].wait_for_status("stopped", timeout=20)
    assert words(tabs[0].text) == numbered(21)
    assert words(tabs[1].text) == numbered(20)
    assert all(tab.html == tab.reloaded() for tab in tabs)


def test_stop_closes_the_connection_although_the_database_is_locked(stack, tab, provider):
    script = hold(provider, tab)
    with locked(stack):
        assert tab.person.stop(tab.reply_id).status == 204
        script.wait_for_disconnect()
    tab.wait_for_status("stopped")


def test_nobody_waits_half_a_minute_for_a_page_because_the_database_is_locked(stack, ada):
    chat = ada.new_chat()
    with locked(stack):
        answers = [
            ada.post(f"/chats/{chat}", title="later"),
            ada.post(f"/chats/{chat}/delete", htmx=True),
        ]
    assert [answer.status for answer in answers] == [503] * 2
    assert all("database is busy" in answer.text for answer in answers)
    assert ada.post(f"/chats/{chat}", title="now").status == 303


def test_a_restart_of_postgresql_in_mid_reply_loses_nothing(
    make_stack, postgres_server, postgres_url, provider
):
    stack = make_stack(database_url=postgres_url)
    ada = stack.signup()
    tabs = [Tab(ada, ada.new_chat()) for _ in range(2)]
    paced(provider, prose(400), gap=0.01, when="chat 0")
    send(tabs[0], "chat 0")
    script = hold(provider, tabs[1], when="chat 1")
    postgres_server.stop()
    script.release()
    script.request.wait_for_answer()
    postgres_server.start()
    for tab, count in zip(tabs, [400, 20], strict=True):
        tab.wait_for_status("complete", timeout=15)
        assert words(tab.text) == numbered(count)
        assert tab.html == tab.reloaded()


def test_a_page_that_reconnects_while_the_database_is_away_may_come_again(
    make_stack, postgres_server, postgres_url
):
    ada = make_stack(workers=0, database_url=postgres_url).signup()
    tab = Tab(ada, ada.new_chat())
    tab.drop()
    postgres_server.stop()
    try:
        tab.connect()
        assert tab.socket.wait_for_close() == 1012
    finally:
        postgres_server.start()
    tab.connect()
    ada.post(f"/chats/{tab.chat_id}", title="all is well")
    tab.socket.wait_for("all is well")


# Connections.


def test_sockets_that_stop_reading_cost_the_web_little_memory(stack, tab, provider):
    sockets = [tab.person.socket(tab.chat_id, deflate=False) for _ in range(8)]
    for socket in sockets:
        socket.stop_reading()
    web = psutil.Process(stack.webs[0].pid)
    before = memory(web)
    noise = "".join(random.Random(0).choices(string.ascii_letters, k=200_000))
    for number in (1, 2, 3):  # one is not as long
        script = provider.reply()
        for _ in range(20):
            script.says(f"{noise}\n\n").pauses(0.02)
        wait_until(lambda: tab.person.say(tab.chat_id, "hello").status == 204, 5, "its turn")
        wait_until(lambda number=number: completed(stack, tab) == number, 30, "the reply")
    assert memory(web) - before < len(sockets) * 4 * BACKLOG_BYTES
    for socket in sockets:
        socket.read_on()
    assert {socket.wait_for_close() for socket in sockets} <= {1012, 1006}


def test_a_page_that_says_too_much_is_shown_out(tab):
    for beats in (1, 2, 3):  # the first comes unasked
        wait_until(lambda beats=beats: tab.socket.decoder.beats == beats, 5, "an answer to each")
        if beats < 3:
            tab.socket.say("let me in")
    tab.socket.say("?" * 120)
    assert tab.socket.wait_for_close() == 1009


def test_the_web_forgets_a_page_that_has_left_before_it_pings_it(stack, ada):
    stays = ada.socket(ada.new_chat())
    tab = Tab(ada, ada.new_chat())
    with stack.redis.client() as client:
        channel = f"{PREFIX}:chat:{tab.chat_id}"
        watched = [(channel.encode(), 1)]
        wait_until(lambda: client.pubsub_numsub(channel) == watched, 10, "the web to listen")
        tab.drop()
        wait_until(lambda: client.pubsub_numsub(channel) != watched, PING, "the web to stop")
    assert stays.pings == 0


def memory(process):
    return sum(part.memory_info().rss for part in [process, *process.children(recursive=True)])


def test_deleting_a_chat_in_mid_reply_ends_everything_about_it(stack, tab, provider):
    script = hold(provider, tab)
    other = Tab(tab.person, tab.chat_id)
    wait_until(lambda: "w19" in saved(stack, tab), 5, "a checkpoint")
    answer = tab.person.post(f"/chats/{tab.chat_id}/delete")
    assert answer.status == 303
    script.wait_for_disconnect()
    assert tab.socket.wait_for_close() == other.socket.wait_for_close() == 1008
    again = tab.person.socket(tab.chat_id, since=0)
    assert again.wait_for_close() == 1008
    assert tab.person.get(f"/chats/{tab.chat_id}").status == 404


def test_a_connection_that_has_idled_serves_a_checkpoint(
    make_app, postgres_url, provider, monkeypatch
):
    import models
    from chattable import connections, writing
    from pages.people import sign_up

    monkeypatch.setattr(connections, "IDLE", 0)
    monkeypatch.setattr(writing, "CHECKPOINT", 0)
    app = make_app(DATABASE_URL=postgres_url)
    provider.reply().says("one ").pauses(0.2).says("two ").pauses(0.2).says("three")
    with app.app_context():
        ada = sign_up("Ada", "ada@example.com", "correct horse battery")
        ada.chats.append(models.Chat())
        models.db.session.commit()
        reply = ada.chats[0].run("gpt-4o-mini")
        assert (reply.status, reply.content) == ("complete", "one two three")
