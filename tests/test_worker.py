"""The worker: many jobs at once on RQ's own books, its timeouts, its end, and several of them."""

import base64
import binascii
import re
import signal
import subprocess
import sys
import time
import zlib
from contextlib import closing, suppress
from pathlib import Path

import pytest
from rq import Queue
from rq.command import send_stop_job_command
from rq.job import Job
from rq.suspension import resume, suspend

from bench.sql import Count
from tests.patience import patient
from tests.services import wait_until
from tests.stack import QUEUE, Stack
from tests.tab import Tab, numbered, paced, prose, send, words

GRACE = 5
JOB_TIMEOUT = 4


@pytest.fixture(scope="module")
def crew(provider_server):
    """A stack whose workers these tests may end; its second web has little patience with jobs."""
    with closing(Stack(provider_server.url, env={"SHUTDOWN_GRACE": str(GRACE)})) as crew:
        crew.start(workers=0).start_web(JOB_TIMEOUT=str(JOB_TIMEOUT))
        yield crew


@pytest.fixture
def worker(crew, provider):
    """One worker and nothing in RQ's books."""
    yield from hire(crew)


def hire(crew, **env):
    """Start a worker for one test; afterwards there is none."""
    yield crew.start_worker(**env)
    dismiss(crew)


def dismiss(crew):
    """Kill every worker and empty RQ's books."""
    while crew.workers:
        crew.kill_worker()
    with crew.redis.client() as client:
        client.flushall()


@pytest.fixture
def unmanned(crew, provider):
    """The crew before its workers come; those that a test starts are gone after it."""
    yield crew
    dismiss(crew)


@pytest.fixture
def tabs(crew, worker):
    """Four tabs of a person, each with a chat of its own."""
    ada = crew.signup()
    return [Tab(ada, ada.new_chat()) for _ in range(4)]


class Books:
    """What RQ says about the queue of replies."""

    def __init__(self, stack):
        self.stack = stack
        self.client = stack.redis.client()
        self.queue = Queue(QUEUE, connection=self.client)

    def info(self):
        """Return what `rq info` prints, with numbers only."""
        rq = Path(sys.executable).parent / "rq"
        words = [rq, "info", "--raw", "--url", self.stack.redis.url]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    def wait_for(self, registry, count, timeout=5):
        """Wait until a registry ("finished", "failed", …) holds so many jobs; return them."""
        held = getattr(self.queue, f"{registry}_job_registry")
        wait_until(
            lambda: held.get_job_count(cleanup=False) >= count, timeout, f"{count} {registry}"
        )
        return [Job.fetch(id, connection=self.client) for id in held.get_job_ids(cleanup=False)]


@pytest.fixture
def books(crew):
    return Books(crew)


def hold_all(provider, tabs):
    """Have every tab's reply begin and hold; return their scripts."""
    scripts = [
        provider.says(*prose(20), hold=True, when=f"chat {n}").says(" end")
        for n, _ in enumerate(tabs)
    ]
    for n, tab in enumerate(tabs):
        send(tab, f"chat {n}")
    for tab in tabs:
        tab.wait_for_words("w19")
    return scripts


# Many jobs at once, on RQ's books.


def test_one_worker_writes_several_replies_at_once_and_rq_info_says_so(tabs, books, provider):
    assert "idle" in books.info()
    scripts = hold_all(provider, tabs)
    busy = books.info()
    assert re.search(r"worker .* busy ", busy), busy
    assert len(books.wait_for("started", 4)) == 4
    for script in scripts:
        script.release()
    for tab in tabs:
        tab.wait_for_status("complete")
    jobs = books.wait_for("finished", 4)
    assert {str(job.get_status()) for job in jobs} <= {"finished", "JobStatus.FINISHED"}
    assert books.queue.started_job_registry.get_job_count(cleanup=False) == 0
    wait_until(lambda: "idle" in books.info(), 5, "the worker to be idle")


def test_the_queue_does_not_show_what_people_write(crew, books, provider):
    ada = crew.signup()
    tab = Tab(ada, ada.new_chat())
    send(tab, "my secret plan")
    assert "secret" not in books.queue.jobs[0].description
    assert re.search(rf"^queue {QUEUE} 1\b", books.info(), re.MULTILINE), books.info()
    hired = hire(crew)
    next(hired)
    tab.wait_for_status("complete")
    list(hired)


def test_a_job_past_its_timeout_ends_as_failed_with_its_text(crew, worker, books, provider):
    ada = crew.signup(web=1)
    tab = Tab(ada, ada.new_chat())
    script = provider.says(*prose(20), hold=True)
    send(tab)
    tab.wait_for_status("failed", timeout=JOB_TIMEOUT + 3)
    assert "took too long" in tab.reply.select_one(".message__error").get_text()
    assert words(tab.text) == numbered(20)
    script.wait_for_disconnect()
    books.wait_for("failed", 1)
    assert len(provider.requests) == 1
    assert tab.html == tab.reloaded()


def test_a_bug_in_a_hook_fails_the_job_and_the_message_and_leaves_the_others_running(
    crew, books, provider
):
    crew.start_worker(command="python -m gevent.monkey --module flask --app tests.mishaps worker")
    ada = crew.signup()
    tabs = [Tab(ada, ada.new_chat()) for _ in range(2)]
    healthy = provider.says("fine ", hold=True, when="chat 0")
    send(tabs[0], "chat 0")
    tabs[0].wait_for_words("fine")
    script = provider.says("boom ", hold=True, when="chat 1")
    send(tabs[1], "chat 1")
    tabs[1].wait_for_status("failed")
    assert tabs[1].text.strip() == "boom"
    script.wait_for_disconnect()
    (job,) = books.wait_for("failed", 1)
    assert "a bug in a hook" in job.latest_result().exc_string
    healthy.release()
    tabs[0].wait_for_status("complete")
    assert len(provider.requests) == 2
    crew.kill_worker()


def test_rqs_stop_command_ends_the_job_it_names_and_no_other(tabs, books, provider):
    scripts = hold_all(provider, tabs[:2])
    jobs = {job.args[0]: job for job in books.wait_for("started", 2)}
    send_stop_job_command(books.client, jobs[tabs[0].chat_id].id)
    scripts[0].wait_for_disconnect()
    tabs[0].wait_until(lambda tab: tab.status in ("stopped", "failed"))
    assert words(tabs[0].text) == numbered(20)
    wait_until(lambda: jobs[tabs[0].chat_id].get_status() == "stopped", 5, "the job to be stopped")
    scripts[1].release()
    tabs[1].wait_for_status("complete")
    assert len(provider.requests) == 2


def test_a_worker_takes_no_more_jobs_than_it_has_places(crew, books, provider):
    hired = hire(crew, WORKER_CONCURRENCY="2")
    next(hired)
    ada = crew.signup()
    tabs = [Tab(ada, ada.new_chat()) for _ in range(3)]
    scripts = hold_all(provider, tabs[:2])
    third = provider.says("third", when="chat 3")
    send(tabs[2], "chat 3")
    assert books.queue.count == 1
    scripts[0].release()
    third.wait_for_request()
    tabs[2].wait_for_status("complete")
    scripts[1].release()
    tabs[1].wait_for_status("complete")
    list(hired)


@pytest.fixture
def small_plan(books):
    """As many connections to Redis as small plans of platforms allow."""
    books.client.config_set("maxclients", 20)
    yield books.client
    books.client.config_set("maxclients", 10_000)


def test_twenty_connections_to_redis_are_enough_for_a_burst(crew, worker, small_plan, provider):
    ada = crew.signup()
    tabs = [Tab(ada, ada.new_chat()) for _ in range(30)]
    worker.send_signal(signal.SIGSTOP)
    for tab in tabs:
        send(tab)
    worker.send_signal(signal.SIGCONT)
    for tab in tabs:
        tab.wait_for_status("complete")
    assert small_plan.info("stats")["rejected_connections"] == 0


# What Redis keeps of what people wrote.

WORDS = "my secret plan"
MINUTES = 300  # seconds


def finish(crew, books, tab):
    crew.start_worker()
    tab.wait_for_status("complete")
    return books.wait_for("finished", 1)


def fail(crew, books, tab):
    crew.start_worker(command="python -m gevent.monkey --module flask --app tests.mishaps worker")
    return books.wait_for("failed", 1)


def time_out(crew, books, tab):
    books.client.hset(books.queue.jobs[0].key, "timeout", 1)
    crew.start_worker()
    return books.wait_for("failed", 1)


def stop(crew, books, tab):
    crew.start_worker()
    tab.wait_for_words("boom")
    send_stop_job_command(books.client, books.wait_for("started", 1)[0].id)
    return books.wait_for("failed", 1)


def abandon(crew, books, tab):
    crew.start_worker()
    tab.wait_for_words("boom")
    crew.kill_worker()
    (job,) = books.wait_for("started", 1)
    books.client.hset(job.key, "retries_left", 0)
    registry = books.queue.started_job_registry
    for entry in books.client.zrange(registry.key, 0, -1):
        books.client.zadd(registry.key, {entry: 1})
    crew.start_worker()
    return books.wait_for("failed", 1)


def cancel(crew, books, tab):
    books.queue.jobs[0].cancel()
    crew.start_worker()
    wait_until(lambda: not books.queue.canceled_job_registry.get_job_ids(), 5, "its deletion")
    return []


@pytest.mark.parametrize("end", [finish, fail, time_out, stop, abandon, cancel])
def test_words_leave_redis_within_minutes_of_the_end_and_at_once_with_the_chat(
    unmanned, books, provider, end
):
    ada = unmanned.signup()
    tab = Tab(ada, ada.new_chat())
    script = provider.says("boom ", hold=end is not finish)
    send(tab, WORDS)
    assert holding(books.client, WORDS)
    jobs = end(unmanned, books, tab)
    script.release()
    kept = holding(books.client, WORDS)
    assert not kept if end is finish else kept >= {job.key.encode() for job in jobs}
    wait_until(lambda: all_will_go(books.client), 5, "the words to have an end")
    while unmanned.workers:
        unmanned.kill_worker()
    assert ada.post(f"/chats/{tab.chat_id}/delete").status == 303
    assert not holding(books.client, WORDS)
    assert not holding(books.client, "boom")


def all_will_go(client):
    """Return whether Redis will soon delete every key that holds the words."""
    return all(0 < client.ttl(key) <= MINUTES for key in holding(client, WORDS))


def test_a_chat_that_is_deleted_takes_its_job_along_whether_it_waits_or_runs(
    unmanned, books, provider
):
    ada = unmanned.signup()
    waiting, running = (Tab(ada, ada.new_chat()) for _ in range(2))
    script = provider.says("boom ", hold=True)
    send(running, f"{WORDS} 1")
    worker = unmanned.start_worker()
    running.wait_for_words("boom")
    worker.send_signal(signal.SIGSTOP)
    send(waiting, f"{WORDS} 2")
    for tab in (waiting, running):
        assert ada.post(f"/chats/{tab.chat_id}/delete").status == 303
    assert not holding(books.client, WORDS)
    worker.send_signal(signal.SIGCONT)
    script.wait_for_disconnect()
    wait_until(lambda: " idle " in books.info(), 5, "the worker to be idle")
    assert not holding(books.client, WORDS)
    assert not holding(books.client, "boom")
    wait_until(lambda: not books.client.keys("rq:job:*"), 5, "the jobs to be forgotten")
    assert "Failed to retrieve status" not in unmanned.log("worker")
    assert len(provider.requests) == 1


def holding(client, words):
    """Return the keys that hold words, plain or packed as RQ packs them."""
    return {key for key in client.scan_iter() if words in unpacked(contents(client, key))}


def contents(client, key):
    """Return what a key holds: a list of bytes, whatever kind of key it is."""
    match client.type(key):
        case b"hash":
            return client.hvals(key)
        case b"stream":
            return [field for _, fields in client.xrange(key) for field in fields.values()]
        case b"list":
            return client.lrange(key, 0, -1)
        case b"set" | b"zset":
            return [key]
        case _:
            return [client.get(key) or b""]


def unpacked(blobs):
    """Return as text all that can be read of some bytes."""
    readable = []
    for blob in blobs:
        readable.append(blob)
        with suppress(zlib.error):
            readable.append(zlib.decompress(blob))
        with suppress(zlib.error, binascii.Error):
            readable.append(zlib.decompress(base64.b64decode(blob)))
    return b"\n".join(readable).decode(errors="replace")


# The end of a worker.
# The end of a worker.


def test_a_worker_told_to_end_lets_replies_finish_interrupts_the_rest_and_takes_no_new_job(
    crew, worker, tabs, books, provider
):
    soon, late, witness = hold_all(provider, tabs[:3])
    told_at = time.monotonic()
    crew.kill_worker(signal.SIGTERM)
    # what it does afterwards shows that it has seen the signal
    tabs[2].person.stop(tabs[2].reply_id)
    witness.wait_for_disconnect()
    send(tabs[3], "chat 3")
    soon.release()
    tabs[0].wait_for_status("complete")
    tabs[2].wait_for_status("stopped")
    tabs[1].wait_for_status("failed")
    assert time.monotonic() - told_at > GRACE - 0.5
    assert worker.wait(patient(5)) == 0
    late.wait_for_disconnect()
    assert words(tabs[1].text) == numbered(20)
    assert "The reply was interrupted." in tabs[1].reply.get_text()
    assert "Retry" in tabs[1].reply.get_text()
    assert books.queue.count == 1
    assert not books.client.smembers("rq:workers")
    crew.start_worker()
    tabs[3].wait_for_status("complete")
    tabs[1].person.retry(tabs[1].reply_id)
    tabs[1].wait_for_status("complete")
    for tab in tabs:
        tab.show()
        assert tab.html == tab.reloaded()


def test_an_idle_worker_told_to_end_does_not_wait_for_its_grace(crew):
    crew.start_worker(SHUTDOWN_GRACE="3600")
    assert crew.kill_worker(signal.SIGTERM).wait(patient(5)) == 0


# Several processes of each kind, on PostgreSQL.


def test_two_workers_and_two_webs_share_the_work_and_ask_the_database_little(
    make_stack, postgres_server, postgres_url, provider
):
    limits = {"WORKER_CONCURRENCY": "3"}
    stack = make_stack(webs=2, workers=2, database_url=postgres_url, env=limits)
    ada = stack.signup()
    elsewhere = stack.session(1)
    elsewhere.cookies = ada.cookies
    tabs = [Tab(ada, ada.new_chat()) for _ in range(6)]
    others = [Tab(elsewhere, tab.chat_id) for tab in tabs[::3]]
    for n, tab in enumerate(tabs):
        paced(provider, prose(600), gap=0.012, when=f"chat {n}", hold=True)
        send(tab, f"chat {n}")
    provider.wait_for_request(len(tabs))
    jobs = Books(stack).wait_for("started", 6)
    assert sorted(stack_shares(jobs)) == [3, 3]
    provider.release()
    statements = Count(postgres_server)
    with statements:
        for tab in tabs:
            tab.wait_for_status("complete", timeout=40)
    for tab in tabs + others:
        tab.wait_for_status("complete")
        assert words(tab.text) == numbered(600)
        assert tab.html == tab.reloaded()
    assert statements.per_second / len(tabs) < 2


def test_a_message_that_waited_for_the_first_worker_is_answered(make_stack, postgres_url, provider):
    stack = make_stack(workers=0, database_url=postgres_url)
    ada = stack.signup()
    tab = Tab(ada, ada.new_chat())
    send(tab, "is anybody there?")
    stack.start_worker()
    tab.wait_for_status("complete")
    assert "is anybody there?" in tab.page.messages[0].get_text()
    assert len(provider.requests) == 1


def stack_shares(jobs):
    """Return how many of the jobs each worker has."""
    names = [job.worker_name for job in jobs]
    return [names.count(name) for name in set(names)]


def test_a_busy_worker_that_is_suspended_takes_no_more(books, tabs, provider):
    busy, *others = tabs
    script = provider.says(*prose(20), hold=True)
    send(busy)
    busy.wait_for_words("w19")
    suspend(books.client)
    wait_until(lambda: "suspended" in books.info(), 5, "the worker to notice")
    for tab in others:
        send(tab)
    script.release()
    busy.wait_for_status("complete")
    assert books.queue.count == len(others)
    resume(books.client)
    for tab in others:
        tab.wait_for_status("complete")
