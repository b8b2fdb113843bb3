"""`flask doctor`: what is wrong with an install, and how to mend it, a line each.

A check is a generator of findings; what it raises is a finding, too. What it asks of a browser's
side, `reach` does; of others, `partners`.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
from flask import Blueprint, current_app
from flask.globals import app_ctx
from redis.exceptions import RedisError
from rq.suspension import is_suspended
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chattable import faults, live, provider, vitals
from chattable.database import lacks_a_table, reason
from chattable.provider.address import OPENAI
from chattable.provider.usage import Usage
from chattable.provider.window import window_known
from models import db
from pages import partners, reach
from pages.backup import known_revisions
from pages.settings import is_to_be_guessed
from pages.words import counted

OK, WARNING, PROBLEM, SKIPPED = "ok", "warning", "problem", "skipped"
# Seconds a check may take; a model has to begin to answer, which may be to think.
PATIENCE, PATIENCE_WITH_MODELS = 5, 20
# Bytes free where the database is; shares of what Redis may hold.
LITTLE, LESS = 2**30, 2**27
FULL, FULLER = 0.8, 0.95
# Seconds: an answer, a clock, a job.
SLOW, APART, LATE = 0.05, 5, 30
MOST_ASKED = 10  # models
UPGRADE = "run `flask --app app db upgrade`"

routes = Blueprint("doctor", __name__, cli_group=None)


class Finding(NamedTuple):
    level: str
    about: str
    words: str
    # The part without which nothing is found out.
    needs: str | None = None


Findings = Iterator[tuple[str, str]]


def init_app(app):
    """Let an app be examined from its command line."""
    app.register_blueprint(routes)


@routes.cli.command("doctor")
@click.option("--url", help="Where browsers find this install, as in https://chat.example.org.")
@click.option("--no-ask", is_flag=True, help="Ask no model: that costs a fraction of a cent.")
def doctor(url, no_ask):
    """Examine this install; say what is wrong and how to mend it. Exits with 1 at a problem."""
    app = app_ctx.app
    url = url or reach.browsers_address()
    examinations = [Examination(app, name, work, PATIENCE) for name, work in CHECKS]
    for name, work in (("openid", partners.check_openid), ("address", reach.check)):
        examinations.append(Examination(app, name, work, PATIENCE, url))
    if not no_ask:
        examinations.append(Examination(app, "models", ask_models, PATIENCE_WITH_MODELS))
    found = once([finding for each in examinations for finding in each.findings()])
    for finding in found:
        click.echo(f"{finding.level:8} {finding.about}: {finding.words}")
    problems = sum(finding.level == PROBLEM for finding in found)
    warnings = sum(finding.level == WARNING for finding in found)
    click.echo(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
    raise SystemExit(1 if problems else 0)


def once(found):
    """Return findings, one cause told once: what needs a part that has a problem is skipped."""
    broken = {each.about for each in found if each.level == PROBLEM and each.needs is None}
    return [
        Finding(SKIPPED, each.about, f"not examined: mend {each.needs} first")
        if each.needs in broken
        else each
        for each in found
    ]


class Examination:
    """A check that runs beside the others, for so many seconds at most."""

    def __init__(self, app, name, check: Callable[..., Findings], patience, *args):
        self.app, self.name, self.check, self.args = app, name, check, args
        self.found: list[Finding] = []
        self.end, self.patience = time.monotonic() + patience, patience
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with self.app.app_context():
            try:
                for level, words in self.check(*self.args):
                    self.found.append(Finding(level, self.name, words))
            except RedisError as error:
                self._add(PROBLEM, f"Redis does not answer ({faults.what(error)})", "redis")
            except SQLAlchemyError as error:
                words = f"the database does not answer ({faults.what(error)})"
                self._add(PROBLEM, words, "database")
            except Exception as error:  # a bug of a check's must not hide what others find
                self._add(WARNING, f"this could not be examined ({faults.what(error)})")

    def _add(self, level, words, needs=None):
        self.found.append(Finding(level, self.name, words, None if needs == self.name else needs))

    def findings(self):
        """Return what was found within the time there is."""
        self.thread.join(max(0, self.end - time.monotonic()))
        needs = "redis" if self.name == "worker" else None
        late = Finding(PROBLEM, self.name, f"no answer within {self.patience} s", needs)
        return [*self.found, *([late] if self.thread.is_alive() else [])]


# What is set.


def check_settings() -> Findings:
    config, key = current_app.config, current_app.config["SECRET_KEY"]
    if is_to_be_guessed(key):
        yield (
            PROBLEM,
            "SECRET_KEY is short or an example: whoever guesses it is anybody here. Set a long "
            "random one: python -c 'import secrets; print(secrets.token_hex(32))'",
        )
    else:
        yield OK, "SECRET_KEY is long enough"
    if everybody_is_trusted(config["TRUSTED_PROXIES"]):
        yield (
            PROBLEM,
            "TRUSTED_PROXIES believes everybody, who can so have any address. Name your proxies.",
        )


def everybody_is_trusted(trusted):
    return not isinstance(trusted, int) and any(network.prefixlen == 0 for network in trusted)


# The database.


def check_database() -> Findings:
    began = time.monotonic()
    try:
        db.session.execute(text("SELECT 1"))
        at = revision()
    except SQLAlchemyError as error:
        yield PROBLEM, f"DATABASE_URL: it cannot be opened: {first_line(reason(error))}"
        return
    yield from judge_revision(at)
    if time.monotonic() - began > SLOW * 4:
        yield WARNING, "it answers slowly. Have it near, and its machine not overloaded."
    if db.engine.dialect.name == "sqlite":
        yield from check_files(Path(db.engine.url.database or "").resolve())
    else:
        yield from check_postgres()


def first_line(error):
    return str(error).strip().partition("\n")[0]


def revision():
    try:
        return db.session.scalar(text("SELECT version_num FROM alembic_version"))
    except SQLAlchemyError as error:
        if lacks_a_table(error):
            db.session.rollback()
            return None
        raise


def judge_revision(at):
    known = known_revisions()
    newest = max(known)
    if at is None:
        yield PROBLEM, f"it has no tables: {UPGRADE}"
    elif at not in known:
        yield PROBLEM, f"it is at revision {at} of a newer version than this one: deploy that one"
    elif at != newest:
        yield PROBLEM, f"it is at revision {at}, not {newest}: {UPGRADE}"
    else:
        yield OK, f"reachable, at the latest revision, {at}"


def check_files(file):
    free = shutil.disk_usage(file.parent).free
    if free < LITTLE:
        level = PROBLEM if free < LESS else WARNING
        yield level, f"{free // 2**20} MB are free on its disk. Make room, or nothing is saved."
    if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        yield (
            PROBLEM,
            "its file or folder is not this user's to write: give both to the app's",
        )
    if "DYNO" in os.environ:
        yield (
            PROBLEM,
            "a platform forgets files at each restart: set DATABASE_URL to PostgreSQL",
        )


def check_postgres():
    if db.session.scalar(text("SHOW transaction_read_only")) == "on":
        yield PROBLEM, "DATABASE_URL: it is read only, a replica perhaps. Name the primary."
    now = db.session.scalar(text("SELECT extract(epoch FROM clock_timestamp())"))
    yield from judge_clock(float(now or 0), "PostgreSQL's")


def judge_clock(there, whose):
    apart = abs(there - time.time())
    if apart > APART:
        words = f"{whose} clock and this machine's are {apart:.0f} s apart. Have NTP set both."
        yield WARNING, words


# Redis.


def check_redis() -> Findings:
    try:
        delay = sorted(delay_of(live.redis().ping) for _ in range(5))[2]
        info: Any = live.redis().info()
    except RedisError as error:
        if not current_app.config["REDIS_IS_SET"]:
            yield PROBLEM, "none runs here: start `uv run chattable`, or set REDIS_URL to another"
        elif live.is_away(error):
            yield PROBLEM, f"REDIS_URL: it cannot be reached: {faults.what(error)}"
        else:
            yield PROBLEM, f"REDIS_URL: it refuses to answer: {faults.what(error)}"
        return
    version = str(info.get("redis_version", "0"))
    yield OK, f"reachable, version {info.get('valkey_version', version)}"
    if int(version.partition(".")[0]) < 5:
        yield PROBLEM, "its version is too old: the queue needs 5 or newer"
    if delay > SLOW:
        yield WARNING, f"it answers in {delay:.2f} s. Have it near."
    yield from judge_memory(info)
    yield from judge_persistence(info)
    yield from judge_connections(info)
    yield from judge_writing(info)
    yield from judge_clock(live.redis().time()[0], "Redis'")


def delay_of(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


def judge_memory(info):
    policy, most = info.get("maxmemory_policy", "noeviction"), info.get("maxmemory", 0)
    if policy != "noeviction":
        yield (
            PROBLEM if most else WARNING,
            f"it forgets what waits when it is full ({policy}): set maxmemory-policy to noeviction",
        )
    share = info.get("used_memory", 0) / most if most else 0
    if share > FULL:
        level = PROBLEM if share > FULLER else WARNING
        yield level, f"{share:.0%} of its memory is taken. Give it more (maxmemory)."


def judge_persistence(info):
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status", "ok") != "ok":
            yield PROBLEM, "it cannot write its append-only file: look at its log and its disk"
        return
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield PROBLEM, "it cannot save its data: look at its log and its disk"
    lost = "messages that wait for a worker are lost when it restarts"
    kept = "only snapshots are kept: the last " if saves() else "nothing is kept on disk: "
    yield WARNING, f"{kept}{lost}. Set appendonly yes."


def saves():
    """Return whether Redis makes snapshots, True where it does not tell."""
    try:
        config: Any = live.redis().config_get("save")
        return bool(config.get("save", True))
    except RedisError:
        return True


def judge_connections(info):
    most, used = info.get("maxclients", 0), info.get("connected_clients", 0)
    if most and most - used < live.CONNECTIONS + 1:
        yield WARNING, f"{used} of its {most} connections are taken: each process needs six"


def judge_writing(info):
    if info.get("role") == "slave":
        yield PROBLEM, "REDIS_URL names a replica, which takes nothing new. Name the primary."
        return
    try:
        live.check_writing()
        yield OK, "it takes what is new"
    except RedisError as error:
        yield PROBLEM, f"it takes nothing new: {faults.what(error)}"


# The queue and its workers.


def check_worker() -> Findings:
    if living := vitals.living_workers():
        yield OK, f"{living} alive"
    else:
        yield PROBLEM, f"none lives, nobody answers: {start_a_worker()}"
    if is_suspended(live.redis()):
        yield PROBLEM, "workers were told to take no jobs: `rq resume --url $REDIS_URL`"
    jobs, late = vitals.jobs_by_state(), vitals.longest_wait()
    if late > LATE:
        yield WARNING, f"jobs that wait: {jobs['queued']}, one for {late:.0f} s: start more workers"
    if jobs["failed"]:
        words = f"{counted(jobs['failed'], 'job')} failed in five minutes: see the worker's log"
        yield WARNING, words


def start_a_worker():
    if current_app.config["CHATTABLE_URL"]:
        return "see what `uv run chattable` says of it, and start that again"
    return f"start the Procfile's worker{' (heroku ps:scale worker=1)' * ('DYNO' in os.environ)}"


# The provider.


def check_provider() -> Findings:
    config = current_app.config
    if config["DEMO_MODEL"]:
        yield WARNING, "a small demo model answers: set OPENAI_API_KEY"
    if not config["OPENAI_API_KEY"] and provider.is_openai(config["OPENAI_BASE_URL"]):
        yield PROBLEM, "OPENAI_API_KEY is not set, and OpenAI answers nobody without"
        return
    try:
        listed = provider.list_models()
        yield OK, f"it answers, and lists {counted(len(listed), 'model')}"
    except provider.ProviderError as sentence:
        yield WARNING if config["MODELS"] else PROBLEM, f"{sentence}{whence()}"
        listed = []
    for model in config["MODELS"] if listed else ():
        if model not in listed:
            yield WARNING, f"MODELS has {model}, which the provider does not list"
    for model in (config["MODELS"] or listed)[:MOST_ASKED]:
        yield from judge_model(model)


def whence():
    """Return which provider is asked, without what may be secret in its address."""
    place = urlsplit(current_app.config["OPENAI_BASE_URL"] or OPENAI).netloc.rpartition("@")[2]
    return f" It is asked at {place} (OPENAI_BASE_URL)."


def judge_model(model):
    if provider.costs(model, Usage(prompt=1000, completion=1000)) == (None, None):
        yield (
            WARNING,
            f"nobody knows the price of {model}: set PRICES={model}=input/output in dollars a "
            f"million tokens, as in {model}=0.25/2",
        )
    if not window_known(model):
        yield (
            WARNING,
            f"nobody knows how much {model} reads, {provider.context_window(model)} tokens are "
            f"believed: set CONTEXT_WINDOW={model}=tokens, as in {model}=32768",
        )


def ask_models() -> Findings:
    """Ask each model for a word, as a chat does; those that cannot be asked say why."""
    config = current_app.config
    named = [*config["MODELS"], config["TITLE_MODEL"]]
    models = list(dict.fromkeys(filter(None, named)))[:MOST_ASKED]
    if not models:
        models = live.heard_models()[0] or provider.list_models()
        models = models[:1]
    for model in models:
        yield ask_model(model)


def ask_model(model):
    began = time.monotonic()
    try:
        asked = [{"role": "user", "content": "Say ok."}]
        with provider.Completion(model, asked) as completion:
            for words in completion:
                if words or completion.thought:
                    completion.stop()
    except provider.ProviderError as sentence:
        return PROBLEM, f"{model}: {sentence}{whence()}"
    return OK, f"{model} answers after {time.monotonic() - began:.1f} s"


CHECKS = (
    ("settings", check_settings),
    ("database", check_database),
    ("redis", check_redis),
    ("worker", check_worker),
    ("provider", check_provider),
    ("mail", partners.check_mail),
)
