"""Faults of what the product stands on: Redis and the database, away, full, refusing, shared."""

import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil

from bench.scene import Scene, at_once
from tests.stack import Stack

# Redis.


def redis_killed(scene):
    """Kill Redis in mid-reply and start it again."""
    tabs = scene.open(6)
    scene.send_all(tabs, count=60)
    scene.wait_for_words("w9", tabs)
    scene.stack.redis.kill()
    scene.watch(1.5)
    scene.stack.redis.start()
    scene.settle(30)
    scene.expect_all_complete()
    scene.insist(scene.send_all(tabs))


def redis_killed_posting(scene):
    """Kill Redis while posts come in; each must be accepted at most 5 s after it is back."""
    tabs = scene.open(30)
    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(scene.send_all, tabs)
        time.sleep(scene.chance.uniform(0.05, 0.2))
        scene.stack.redis.kill()
        messages = sending.result()
    scene.stack.redis.start()
    scene.watch(5)
    at_once(lambda message: message.accepted or message.post(), messages)
    late = [message for message in messages if not message.accepted]
    answers = sorted({message.statuses[-1] for message in late})
    scene.expect(not late, f"{len(late)} refused 5 s after: {answers}")
    scene.insist(messages)


def redis_full(scene):
    """Let Redis refuse every write for 10 s, in mid-reply."""
    tabs = scene.open(4)
    scene.send_all(tabs[:2], count=150, gap=0.1)
    scene.wait_for_words("w9", tabs[:2])
    with scene.stack.redis.client() as client:
        client.config_set("maxmemory", 1)
        refused = scene.send_all(tabs[2:])
        scene.watch(10)
        client.config_set("maxmemory", 0)
    scene.insist(refused)
    scene.settle(40)
    scene.expect_all_complete()


def redis_shared(scene):
    """Let a second install use another database of the same Redis, with chats of the same ids."""
    live_side_by_side(scene, scene.stack.redis.database(1))


def redis_database_shared(scene):
    """Let a second install use the same database of the same Redis."""
    live_side_by_side(scene, scene.stack.redis.database(0))


def live_side_by_side(scene, server):
    own = None if scene.books.sqlite else scene.postgres.database()
    stack = Stack(scene.provider.url, own, redis=server, env={"REDIS_PREFIX": ""})
    try:
        other = Scene(stack.start(), scene.provider, scene.chance, scene.postgres)
        disturb(scene, other)
        scene.neighbours.append(other.figures(30))
    finally:
        stack.close()


def disturb(scene, other):
    """Stop and delete in one install what the other has by the same number."""
    (ours,), (theirs,) = scene.open(), other.open()
    for each, tab in [(scene, ours), (other, theirs)]:
        each.send(tab, count=100, gap=0.1)
    scene.wait_for_words("w9")
    other.wait_for_words("w9")
    ours.person.stop(ours.reply_id)
    scene.settle(30)
    ours.person.post(f"/chats/{ours.chat_id}/delete")
    scene.forget(ours)
    other.settle(30)
    other.expect(theirs.socket.code is None, "a chat deleted elsewhere has closed a page")
    other.expect_all_complete()


# The database.


def database_stopped(scene):
    """Stop PostgreSQL under a worker that is given 30 messages, for 3 s."""
    tabs = scene.open(30)
    worker = scene.stack.workers[0]
    worker.send_signal(signal.SIGSTOP)
    scene.send_all(tabs)
    with stopped(scene.postgres):
        worker.send_signal(signal.SIGCONT)
        time.sleep(3)


@contextmanager
def stopped(server):
    server.stop()
    try:
        yield
    finally:
        server.start()


def database_read_only(scene):
    """Let PostgreSQL take no writes for 4 s, as in a failover."""
    tabs = scene.open(12)
    scene.send_all(tabs[:4], count=60)
    scene.wait_for_words("w9", tabs[:4])
    with scene.books.setting("default_transaction_read_only", "on"):
        scene.send_all(tabs[4:])
        scene.watch(4)


def database_locked(scene):
    """Lock the messages for 10 s, in mid-reply and while others are sent."""
    tabs = scene.open(6)
    scene.send_all(tabs[:3], count=60)
    scene.wait_for_words("w9", tabs[:3])
    with scene.books.locked():
        scene.send_all(tabs[3:])
        scene.watch(10)


def disk_full(scene):
    """Let no file of the worker grow for 10 s: SQLite sees a full disk."""
    tabs = scene.open(6)
    scene.send_all(tabs[:3], count=60)
    scene.wait_for_words("w9", tabs[:3])
    worker = psutil.Process(scene.stack.workers[0].pid)
    _, most = worker.rlimit(resource.RLIMIT_FSIZE)
    worker.rlimit(resource.RLIMIT_FSIZE, (1, most))
    scene.send_all(tabs[3:])
    scene.watch(10)
    worker.rlimit(resource.RLIMIT_FSIZE, (most, most))
