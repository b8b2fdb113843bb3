"""Jobs of somebody else's app, on its own queues: in RQ's own worker, which forks, and in ours."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from rq import Queue, Retry

from chattable.worker import GIVE_BACK
from tests.patience import patient
from tests.services import wait_until

ROOT = Path(__file__).resolve().parent.parent

PLANNER = """
import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from chattable import Chattable, ChatMixin, MessageMixin, init_app

db = SQLAlchemy()


class Project(Chattable, db.Model):
    id = db.mapped_column(db.Integer, primary_key=True)


class AiChat(ChatMixin, db.Model):
    pass


class AiMessage(MessageMixin, db.Model):
    pass


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    app.config["WORKER_CONCURRENCY"] = int(os.environ.get("WORKER_CONCURRENCY", 100))
    app.config["SHUTDOWN_GRACE"] = int(os.environ.get("SHUTDOWN_GRACE", 25))
    db.init_app(app)
    init_app(app, db)
    return app
"""

# What people write who have an app context wherever they are called.
CHORES = """
import os
import time

from redis import Redis

from planner import AiChat, db


def answer(chat_id, content):
    chat = db.session.get(AiChat, chat_id)
    chat.say("user", content)
    return chat.run("gpt-4o-mini").content


def fail(number):
    raise ValueError(f"{number} is no good")


def wait_for_word(number):
    redis = Redis.from_url(os.environ["REDIS_URL"])
    redis.rpush("begun", number)
    while not (word := redis.lpop("word")):
        time.sleep(0.05)
    return word.decode()


def connection():
    return db.session.scalar(db.text("SELECT pg_backend_pid()"))
"""

# What people write whose worker knows nothing of Flask.
TASKS = """
from chores import *
from planner import create_app

app = create_app()
app.app_context().push()
"""

SEED = """
from planner import *
with create_app().app_context():
    db.create_all()
    db.session.add(Project(chats=[AiChat()]))
    db.session.commit()
"""


class Office:
    """A folder with an app, its database, and what its processes find in their environment."""

    def __init__(self, folder, database_url, redis_server, provider):
        self.folder, self.database_url = folder, database_url
        for name, code in {"planner": PLANNER, "chores": CHORES, "tasks": TASKS}.items():
            (folder / f"{name}.py").write_text(code)
        self.env = os.environ | {
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "DATABASE_URL": database_url.replace("postgresql:", "postgresql+psycopg:"),
            "REDIS_URL": redis_server.url,
            "OPENAI_BASE_URL": provider.url,
            "OPENAI_API_KEY": "sk-test",
        }
        self.redis = redis_server.client()
        self.started = []
        self.run(["-"], SEED)

    def queue(self, name="default"):
        return Queue(name, connection=self.redis)

    def start(self, words, given="", **env):
        """Start Python with `given` as its standard input."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        place = {"cwd": self.folder, "env": self.env | env}
        process = subprocess.Popen([sys.executable, *words], text=True, **place, **pipes)
        self.started.append(process)
        process.stdin.write(given)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, words, given="", **env):
        """Run Python to its end; return what it says."""
        process = self.start(words, given, **env)
        said, _ = process.communicate(timeout=patient(30))
        assert process.returncode == 0, said
        return said

    def start_worker(self, *queues, **env):
        """Start the library's worker."""
        words = ["-m", "gevent.monkey", "--module", "flask", "--app", "planner", "worker"]
        return self.start([*words, *queues], **env)

    def messages(self):
        """Return the (role, status, content) of each message, as the database has them."""
        query = "SELECT role, status, content FROM ai_message ORDER BY id"
        with closing(self.connect()) as connection:
            return connection.execute(query).fetchall()

    def connect(self):
        if self.database_url.startswith("sqlite"):
            return sqlite3.connect(self.database_url.removeprefix("sqlite:///"))
        return psycopg.connect(self.database_url)

    def close(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.redis.close()


@pytest.fixture
def make_office(tmp_path, redis_url, redis_server, provider):
    """Make an app of somebody's, `make_office(database_url)`, once in a test."""
    with ExitStack() as opened:
        yield lambda url: opened.enter_context(
            closing(Office(tmp_path, url, redis_server, provider))
        )


@pytest.fixture
def office(make_office, sqlite_url):
    return make_office(sqlite_url)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def any_office(make_office, request):
    return make_office(request.getfixturevalue(request.param))


def result_of(job):
    """Wait for a job's end and return what it returned."""
    wait_until(lambda: job.get_status() in ("finished", "failed"), 30, "the job")
    assert job.get_status() == "finished", job.latest_result().exc_string
    return job.return_value()


# RQ's own worker, which forks.


def test_a_stock_worker_answers_in_a_chat(any_office, provider):
    provider.says("All ", "done.")
    job = any_office.queue().enqueue("tasks.answer", 1, "What is left?")
    any_office.run(["-m", "rq.cli", "worker", "--burst", "--url", any_office.env["REDIS_URL"]])
    assert result_of(job) == "All done."
    assert any_office.messages() == [
        ("user", "complete", "What is left?"),
        ("assistant", "complete", "All done."),
    ]


BUSY_PARENT = """
from chores import *
from planner import create_app
from rq import Worker

with create_app().app_context():
    print("before:", connection())
    Worker(["default"], connection=Redis.from_url(os.environ["REDIS_URL"])).work(burst=True)
    print("after:", connection())
"""


def test_a_worker_that_used_the_database_before_it_forks_shares_no_connection(
    make_office, postgres_url
):
    office = make_office(postgres_url)
    jobs = [office.queue().enqueue("chores.connection") for _ in range(2)]
    jobs += [office.queue().enqueue("chores.answer", 1, "What is left?")]
    said = office.run(["-"], BUSY_PARENT)
    *children, _ = [result_of(job) for job in jobs]
    (before,), (after,) = re.findall(r"before: (\d+)", said), re.findall(r"after: (\d+)", said)
    assert before == after
    assert len({int(before), *children}) == 3


# The library's worker.


def test_the_worker_does_an_apps_own_jobs_the_first_queues_first(office, provider):
    provider.says("later", when="low")
    provider.says("at once", when="high")
    low = office.queue("low").enqueue("chores.answer", 1, "low")
    high = office.queue("high").enqueue("tasks.answer", 1, "high")
    worker = office.start_worker("high", "low", WORKER_CONCURRENCY="1")
    assert result_of(low) == "later"
    assert result_of(high) == "at once"
    assert [request.prompt for request in provider.requests] == ["high", "low"]
    for queue in (office.queue("low"), office.queue("high")):
        wait_until(lambda queue=queue: not queue.started_job_registry.get_job_ids(), 5, "its books")
        assert queue.intermediate_queue.get_job_ids() == []
    worker.send_signal(signal.SIGTERM)
    said, _ = worker.communicate(timeout=patient(15))
    assert "app context" not in said, said


def test_an_own_job_that_fails_is_kept_and_tried_again_as_its_queue_says(office):
    once = office.queue().enqueue("chores.fail", 7)
    often = office.queue().enqueue("chores.fail", 8, retry=Retry(max=2))
    office.start_worker("default")
    failed = office.queue().failed_job_registry
    wait_until(lambda: set(failed.get_job_ids()) == {once.id, often.id}, 30, "both to fail")
    assert "7 is no good" in once.latest_result().exc_string
    assert once.get_status() == often.get_status() == "failed"
    often.refresh()
    assert often.retries_left == 0
    assert office.redis.ttl(once.key) > 3600


def test_an_own_job_may_finish_when_the_worker_has_to_end(office):
    job = office.queue().enqueue("chores.wait_for_word", 1)
    worker = office.start_worker("default", SHUTDOWN_GRACE="60")
    wait_until(lambda: office.redis.lpop("begun"), 30, "the job to begin")
    worker.send_signal(signal.SIGTERM)
    time.sleep(GIVE_BACK + 1)  # nothing tells that nothing happens
    office.redis.rpush("word", "well done")
    assert result_of(job) == "well done"
    assert worker.wait(patient(10)) == 0


def test_an_own_job_that_does_not_finish_in_time_is_not_run_again(office):
    job = office.queue().enqueue("chores.wait_for_word", 1)
    worker = office.start_worker("default", SHUTDOWN_GRACE="1")
    wait_until(lambda: office.redis.lpop("begun"), 30, "the job to begin")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(patient(15)) == 0
    assert job.get_status() == "failed"
    assert "the worker ends" in job.latest_result().exc_string


IN_THE_BACKGROUND = """
from chattable.answers import say_and_answer
from chattable.queue import enqueue_turn
from planner import AiChat, create_app, db

with create_app().app_context():
    chat, client_id = db.session.get(AiChat, 1), "0c9f7c33-6b0e-4a9c-b9a7-5a9fb1a1f6d1"
    job = say_and_answer, "What is left?", "gpt-4o-mini", client_id
    print([enqueue_turn(chat, client_id, *job), enqueue_turn(chat, client_id, *job)])
    print(enqueue_turn(chat, "another", *job))
"""


def test_the_librarys_own_job_answers_what_is_sent_twice_once(office, provider):
    script = provider.says("All ", hold=True).says("done.")
    said = office.run(["-"], IN_THE_BACKGROUND)
    assert said == "[True, True]\nFalse\n"
    office.start_worker()
    script.wait_for_hold()
    script.release()
    wait_until(lambda: statuses(office) == ["complete"] * 2, 30, "the reply")
    assert [content for *_, content in office.messages()] == ["What is left?", "All done."]
    assert len(provider.requests) == 1


def statuses(office):
    return [status for _, status, _ in office.messages()]


def test_a_worker_that_nobody_patched_says_how_to_start_it(office):
    worker = office.start(["-m", "flask", "--app", "planner", "worker"])
    said, _ = worker.communicate(timeout=patient(30))
    assert worker.returncode == 1
    assert "python -m gevent.monkey --module flask" in said
    assert "Traceback" not in said


# Keepers, in plain threads.

SWEEPERS = """
import os
import threading

from chattable.keepers import sweeper
from planner import create_app

app = create_app()


def start_and_count():
    sweeper(app)
    sweeper(app)
    names = [thread.name for thread in threading.enumerate() if thread.is_alive()]
    print(names.count("chattable sweeper"), flush=True)


start_and_count()
if os.fork() == 0:
    start_and_count()
    os._exit(0)
os.wait()
"""


def test_each_process_has_one_sweeper_a_forked_one_its_own(office):
    assert office.run(["-"], SWEEPERS) == "1\n1\n"


LEAVE = """
from planner import AiChat, create_app, db
with create_app().app_context():
    db.session.get(AiChat, 1).begin_reply("gpt-4o-mini")
"""

SWEEP = """
import time
from chattable.keepers import sweeper
from planner import create_app
sweeper(create_app())
time.sleep(600)
"""


def test_a_reply_whose_writer_died_is_ended_in_a_process_that_nobody_patched(office):
    office.run(["-"], LEAVE)
    for lease in office.redis.scan_iter("*:lease"):
        office.redis.delete(lease)
    office.start(["-"], SWEEP)
    wait_until(lambda: office.messages() == [("assistant", "failed", "")], 30, "its end")
