"""What whoever runs an install asks it and reads of it: health, logs, metrics."""

import socket
import time
from contextlib import closing

import pytest
from rq import SimpleWorker

from chattable.queue import queue

NOBODY = "redis://127.0.0.1:9/0"


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
