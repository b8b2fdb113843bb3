"""Faults of the product's own processes: killed, suspended, restarted, absent."""

import os
import signal
import threading
import time
from contextlib import nullcontext

from bench.books import running

GRACE = 30


def first_message(scene):
    """Send while no worker runs, then start one; and again."""
    for _ in range(3):
        scene.send_all(scene.open(3))
        with far_database(scene.books):
            scene.stack.start_worker()
            scene.watch(2)
        scene.settle(15)
        scene.stack.kill_worker(signal.SIGTERM).wait(GRACE)
    scene.stack.start_worker()


def far_database(books):
    """Let a new connection take a second, as over TLS, with a password, on another machine."""
    return nullcontext() if books.sqlite else books.setting("pre_auth_delay", 1)


def worker_killed(scene):
    """Kill one of two workers in mid-reply."""
    tabs = scene.open(6)
    scene.send_all(tabs, count=60)
    scene.wait_for_words("w20", tabs)
    scene.stack.kill_worker()
    scene.stack.start_worker()


def killed_taking(scene):
    """Kill a worker that has been given a job and has not begun it."""
    for _ in range(3):
        worker = scene.stack.workers[0]
        worker.send_signal(signal.SIGSTOP)
        scene.send_all(scene.open(3))
        time.sleep(scene.chance.uniform(0, 0.5))
        scene.stack.kill_worker()
        scene.stack.start_worker()


def killed_before_saving(scene):
    """Kill a worker when the provider has been asked and the database has not said yes."""
    for tab in scene.open(3):
        with scene.books.locked():
            asked = len(scene.provider.requests)
            scene.send(tab)
            scene.provider.wait_for_request(asked + 1)
            scene.stack.kill_worker()
        scene.stack.start_worker()


def rolling_restarts(scene):
    """Write 98 replies while one worker after the other is replaced."""
    tabs = scene.open(14)
    over = threading.Event()
    restarts = threading.Thread(target=restart_workers, args=[scene.stack, over])
    restarts.start()
    try:
        for turn in range(1, 8):
            scene.insist(scene.send_all(tabs, count=30))
            scene.wait_until(lambda turn=turn: all(ended(tab, turn) for tab in tabs), 20)
    finally:
        over.set()
        restarts.join()
    scene.expect_all_complete()


def restart_workers(stack, over):
    """Start a worker and end the oldest, as a deploy does, until it is over."""
    while not over.wait(1):
        stack.start_worker()
        stack.kill_worker(signal.SIGTERM).wait(GRACE)


def ended(tab, turn):
    return len(tab.replies) == turn and tab.status not in ("pending", "streaming")


def worker_pauses(scene):
    """Suspend a worker for 5 to 9 seconds, twice: no reply may be called interrupted."""
    for shortest, longest in [(5, 7), (8, 9)]:
        tabs = scene.open(4)
        scene.send_all(tabs, count=150, gap=0.1)
        scene.wait_for_words("w9", tabs)
        suspend(scene, scene.chance.uniform(shortest, longest))
        scene.watch(1)
        scene.settle(40)
    scene.expect_all_complete()


def worker_sleeps(scene):
    """Suspend a worker for 40 seconds."""
    scene.send_all(scene.open(4), count=200, gap=0.1)
    scene.wait_for_words("w9")
    suspend(scene, 40)


def suspend(scene, seconds):
    worker = scene.stack.workers[0]
    worker.send_signal(signal.SIGSTOP)
    scene.watch(seconds)
    worker.send_signal(signal.SIGCONT)


def worker_wakes(scene):
    """Suspend a worker until its replies were declared dead, and wake it while words come."""
    tabs = scene.open(3)
    scene.send_all(tabs, count=400, gap=0.1)
    scene.wait_for_words("w9", tabs)
    # so that the checkpoint is older than what is shown
    scene.watch(scene.chance.uniform(1, 2))
    worker = scene.stack.workers[0]
    worker.send_signal(signal.SIGSTOP)
    dead = scene.wait_until(lambda: not running(scene.books.rows()), 60)
    scene.expect(dead, "replies of a suspended worker are never ended")
    worker.send_signal(signal.SIGCONT)
    scene.watch(5)


def web_killed(scene):
    """Kill the web in mid-reply and start it again."""
    tabs = scene.open(6)
    scene.send_all(tabs, count=60)
    scene.wait_for_words("w9", tabs)
    port = int(scene.stack.kill_web().url.rpartition(":")[2])
    scene.watch(1)
    scene.stack.start_web(port)
    scene.settle(30)
    scene.expect_all_complete()


def launcher_killed(scene):
    """Kill `chattable` itself in mid-reply, see that nobody is left, start it again."""
    for _ in range(2):
        tabs = scene.open(3)
        scene.send_all(tabs, count=60)
        scene.wait_for_words("w9", tabs)
        scene.stack.kill()
        scene.wait_until(lambda: not scene.stack.left(), 10)
        left = scene.stack.left()
        scene.expect(not left, f"{len(left)} processes outlive the launcher by 10 s")
        for process in left:
            os.kill(process.pid, signal.SIGKILL)
        scene.stack.start()
