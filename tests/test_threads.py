"""The live rooms in plain threads: processes that end or fork, a Redis that is away."""

import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from chattable import live
from models import Chat, User, db
from tests.patience import patient
from tests.services import free_port, wait_until
from tests.stack import ROOT


@pytest.fixture
def heard(app):
    """What is published in chat 1, in order: `heard(count)` waits for so many frames."""
    with app.app_context():
        name = live.channel(1)
    frames = []

    def wait_for(count):
        deadline = time.monotonic() + patient(10)
        while len(frames) < count and time.monotonic() < deadline:
            if message := pubsub.get_message(timeout=1):
                frames.append(message["data"].decode().split(" ", 2)[2])
        return frames

    with closing(
        app.extensions["chattable_redis"].pubsub(ignore_subscribe_messages=True)
    ) as pubsub:
        pubsub.subscribe(name)
        pubsub.get_message(timeout=patient(5))
        yield wait_for


def test_what_threads_announce_comes_whole_and_in_order(app, heard):
    def announce(thread):
        with app.app_context():
            for number in range(20):
                live.announce(1, f"{thread} {number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(announce, range(8)))
    frames = [tuple(map(int, frame.split())) for frame in heard(160)]
    for thread in range(8):
        assert [n for each, n in frames if each == thread] == list(range(20))


def test_what_cannot_be_sent_is_said_to_whoever_announces_it(app, heard):
    with app.app_context():
        with pytest.raises(UnicodeEncodeError):
            live.announce(1, "half a character: \ud800")
        live.announce(1, "a whole one")
    assert heard(1) == ["a whole one"]


def test_whoever_watches_is_told_to_come_again_where_a_frame_was_lost(app):
    with app.app_context(), app.extensions["chattable_relay"].watch(live.channel(1)) as watcher:
        live.announce(1, "one", wait=True)
        assert watcher.next(patient(10))[1] == "one"
        live.redis().incr(f"{live.channel(1)}:seq")
        live.announce(1, "three", wait=True)
        assert watcher.next(patient(10)) is None
        assert watcher.code == 1012


def test_who_came_after_a_frame_was_missed_is_left_in_peace(app):
    relay, hour = app.extensions["chattable_relay"], 3600
    with app.app_context(), relay.watch(live.channel(1)) as early:
        early.since -= 2 * hour
        with relay.watch(live.channel(1)) as late:
            missed = live.channel(1), live.install(), time.monotonic() - hour
            app.extensions["chattable_nudges"].owe(*missed)
            assert early.next(patient(10)) is None
            live.announce(1, "news", wait=True)
            assert late.next(patient(10))[1] == "news"
    assert (early.code, late.code) == (1012, None)


def test_a_process_may_end_right_after_it_has_announced(app, heard):
    words = "from app import create_app; from chattable import live\n"
    words += "with create_app().app_context(): live.announce(1, 'the last word')"
    env = {**os.environ, **settings(app)}
    subprocess.run([sys.executable, "-c", words], cwd=ROOT, env=env, check=True)
    assert heard(1) == ["the last word"]


def settings(app):
    """Return the environment in which another process has the same app."""
    names = ("SECRET_KEY", "REDIS_URL", "REDIS_PREFIX", "OPENAI_BASE_URL", "OPENAI_API_KEY")
    url = app.config["SQLALCHEMY_DATABASE_URI"].render_as_string(hide_password=False)
    return {name: app.config[name] for name in names} | {"DATABASE_URL": url}


def test_a_process_that_forks_announces_and_renews_leases_as_its_parent_does(app, heard):
    with app.app_context(), live.lease(1, stop=None):
        live.announce(1, "the parent's", wait=True)
        child = in_a_fork(announce_and_hold, app)
        assert heard(2) == ["the parent's", "the child's"]
        wait_until(lambda: os.waitpid(child, os.WNOHANG)[0], 10, "the child to end")


def in_a_fork(work, *args):
    """Do work in a forked process that ends like RQ's, at once; return its id."""
    child = os.fork()
    if child == 0:
        try:
            work(*args)
        finally:
            os._exit(0)
    return child


def announce_and_hold(app):
    with app.app_context(), live.lease(2, stop=None):
        wait_until(lambda: live.leased([2]), 5, "the lease")
        live.announce(1, "the child's")


@pytest.fixture
def alone(make_app):
    """An app whose Redis is not there."""
    return make_app(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")


def test_without_redis_a_reply_is_written_and_that_is_said_once(alone, provider, caplog):
    script = provider.reply()
    for number in range(30):
        script.says(f"w{number} ").pauses(0.05)
    with alone.app_context(), caplog.at_level(logging.INFO):
        ada = User(name="Ada", email="ada@example.com", password_hash="none")
        ada.chats.append(Chat())
        db.session.add(ada)
        db.session.commit()
        ada.chats[0].say("user", "count")
        reply = ada.chats[0].run("gpt-4o-mini")
        assert (reply.status, reply.content.split()[-1]) == ("complete", "w29")
    said = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "Redis is away" in said[0]
