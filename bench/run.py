"""Measure the whole product under load: `uv run python bench/run.py [--only PART]`.

Starts PostgreSQL (else SQLite), Redis, the Procfile's web and worker, a paced provider and a load
generator, all on this machine, plays each part and prints one table.
"""

import argparse
import json
import platform
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import sql, table  # noqa: E402
from bench.files import allow_many_files  # noqa: E402
from bench.measure import Servers, Watch  # noqa: E402
from bench.reading import inner_html  # noqa: E402
from tests.services import Missing, Postgres, free_port, wait_until  # noqa: E402
from tests.stack import ROOT, Stack  # noqa: E402

MODEL = "gpt-4o-mini"
PY_SPY = Path(sys.executable).with_name("py-spy")


class Part(NamedTuple):
    """One row of the table: replies at once, tokens each, tokens a second; or idle sockets."""

    name: str
    replies: int = 1
    count: int = 400
    rate: int = 50
    kind: str = "prose"
    rounds: int = 1
    idle: int = 0
    log_sql: bool = False


PARTS = [
    Part("latency", count=20, rounds=20),
    Part("replies-1"),
    Part("replies-50", replies=50),
    Part("replies-100", replies=100),
    Part("replies-300", replies=300, rate=20),
    Part("long-4000", count=4000, rate=400),
    Part("long-4000-slow", count=4000),
    Part("long-16000", count=16000, rate=400),
    Part("code-3000", count=3000, rate=400, kind="code"),
    Part("sql", log_sql=True),
    Part("idle-1000", idle=1000),
    Part("idle-2000", idle=2000),
    Part("idle-3000", idle=3000),
]
# A process imports much of what it needs with its first reply.
WARM_UP = Part("warm-up", replies=2, count=20)


def main():
    """Start everything, play the parts asked for, print the table."""
    options = parse_options()
    allow_many_files()
    with ExitStack() as exits:
        # a bench that is told to stop takes its children along
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        bench = Bench(options, exits)
        bench.play(WARM_UP)
        rows = []
        for part in PARTS:
            if wanted(part, options):
                print(f"{part.name} …", file=sys.stderr, flush=True)
                rows.append(bench.play(part))
                print(table.line(rows[-1]), file=sys.stderr, flush=True)
        print(table.whole(rows, bench.conditions()))
        if options.json:
            Path(options.json).write_text(json.dumps(rows, indent=2))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [part.name for part in PARTS]
    parser.add_argument(
        "--only", action="append", choices=names, help="play this part (repeatable)"
    )
    parser.add_argument("--skip", action="append", choices=names, default=[])
    parser.add_argument("--database", choices=["postgres", "sqlite"], help="not the best there is")
    parser.add_argument("--webs", type=int, default=1, help="web processes, load goes to the first")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=320, help="WORKER_CONCURRENCY")
    parser.add_argument("--no-deflate", action="store_true", help="offer no permessage-deflate")
    parser.add_argument("--profile", metavar="FOLDER", help="py-spy flame graphs of web and worker")
    parser.add_argument("--json", metavar="FILE", help="also write the rows as JSON")
    options = parser.parse_args()
    if options.profile and not PY_SPY.exists():
        parser.error("--profile needs py-spy in this environment: uv pip install py-spy")
    return options


def wanted(part, options):
    return part.name in options.only if options.only else part.name not in options.skip


class Bench:
    """The running product, its provider, and one person with many chats."""

    def __init__(self, options, exits):
        self.options, self.exits = options, exits
        self.postgres = self._start_postgres()
        self.provider_host = f"127.0.0.1:{free_port()}"
        self._spawn("bench.provider", self.provider_host.split(":")[1])
        wait_until(lambda: answers(self.provider_host), 10, "the paced provider")
        self.stack = self._start_stack()
        self.rounds = 0

    def _start_postgres(self):
        if self.options.database == "sqlite":
            return None
        try:
            server = Postgres()
        except Missing:
            if self.options.database:
                raise
            return None
        self.exits.callback(server.close)
        return server

    def _start_stack(self):
        env = {"WORKER_CONCURRENCY": str(self.options.concurrency)}
        url = self.postgres.database() if self.postgres else None
        stack = Stack(f"http://{self.provider_host}/v1", url, models=MODEL, env=env)
        self.exits.callback(stack.close)
        return stack.start(self.options.webs, self.options.workers)

    def _spawn(self, module, *words, **pipes):
        process = subprocess.Popen([sys.executable, "-m", module, *words], cwd=ROOT, **pipes)
        self.exits.callback(process.wait)
        self.exits.callback(process.kill)
        return process

    def servers(self):
        """Return the processes whose cost counts."""
        roots = {
            "web": [process.pid for process in self.stack.webs],
            "worker": [process.pid for process in self.stack.workers],
            "redis": [self.stack.redis.process.pid],
        }
        return Servers(roots | ({"postgres": [self.postgres.pid]} if self.postgres else {}))

    def conditions(self):
        """Say in one line what was measured on what."""
        database = "PostgreSQL" if self.postgres else "SQLite"
        return (
            f"{database}, {self.options.webs} web and {self.options.workers} worker processes, "
            f"Python {platform.python_version()}, {platform.machine()}, load generator included"
        )

    def play(self, part):
        """Play one part and return its row: a dict of figures."""
        if part.idle:
            return self._play_idle(part)
        person = self.stack.signup()
        results, watches = [], []
        for _ in range(part.rounds):
            watch, heard = self._play_round(part, person)
            watches.append(watch)
            results += heard
        if any(result["status"] != "complete" for result in results):
            print(self.stack.log("worker")[-3000:], file=sys.stderr)
        return table.row(part, results, watches, self._final_html(person, results))

    def _play_round(self, part, person):
        self.rounds += 1
        readers = [self._reader(part, person, index) for index in range(part.replies)]
        load = self._load(person, readers, timeout=part.count / part.rate * 6 + 60)
        statements = sql.Count(self.postgres if part.log_sql else None)
        with Watch(self.servers()) as watch, self._profile(part), statements:
            tell(load, "go")
            expect(load, "done")
        watch.sql = statements.per_second
        return watch, json.loads(load.stdout.readline())

    def _reader(self, part, person, index):
        key = f"{part.name}-{self.rounds}-{index}"
        prompt = f"{part.count} tokens of {part.kind} at {part.rate}/s #{key}"
        reader = {"chat": person.new_chat(), "since": 0, "prompt": prompt, "key": key}
        return reader | {"kind": part.kind, "count": part.count}

    def _play_idle(self, part):
        person = self.stack.signup()
        before = self.servers().memory()
        chats = [person.new_chat() for _ in range(100)]
        listen = {"since": 0, "prompt": None}
        readers = [listen | {"chat": chats[index % 100]} for index in range(part.idle)]
        load = self._load(person, readers, timeout=1)
        self._settle()
        with Watch(self.servers()) as watch:
            time.sleep(5)
        tell(load, "go")
        expect(load, "done")
        load.stdout.readline()
        return table.idle_row(part, before, watch, load.not_opened)

    def _settle(self):
        """Wait until the sockets that were opened have all been brought up to date."""
        spent = 1
        while spent > 0.1:
            with Watch(self.servers()) as watch:
                time.sleep(1)
            spent = sum(watch.cpu.values())

    def _load(self, person, readers, timeout):
        load = self._spawn(
            "bench.load", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        job = {
            "host": person.host,
            "cookie": person.cookie,
            "csrf": person.csrf,
            "provider": self.provider_host,
            "model": MODEL,
            "deflate": not self.options.no_deflate,
            "timeout": timeout,
            "readers": readers,
        }
        tell(load, json.dumps(job))
        load.not_opened = int(expect(load, "ready").split()[1])
        return load

    def _profile(self, part):
        if not self.options.profile:
            return ExitStack()
        recording, folder = ExitStack(), Path(self.options.profile)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("web", "worker"):
            pid = self.servers().trees()[name][-1].pid
            words = ["--pid", str(pid), "--output", str(folder / f"{part.name}-{name}.svg")]
            spy = subprocess.Popen([PY_SPY, "record", "--rate", "200", *words])
            recording.callback(spy.wait)
            recording.callback(spy.send_signal, signal.SIGINT)
        return recording

    def _final_html(self, person, results):
        """Return the bytes of a finished message on a fresh page: (its body, its article)."""
        sizes = [(0, 0)]
        for result in results[:5]:
            if result["status"] == "complete":
                page = person.get(f"/chats/{result['chat']}").text
                wanted = (f"message-{result['message']}-body", f"message-{result['message']}")
                sizes.append(tuple(len(inner_html(page, part).encode()) for part in wanted))
        return tuple(
            statistics.median(column) for column in zip(*(sizes[1:] or sizes), strict=True)
        )


def answers(host):
    with suppress(OSError), urlopen(f"http://{host}/v1/models", timeout=5) as answer:
        return answer.status == 200


def tell(process, line):
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def expect(process, word):
    """Read the process's next line, which must begin with `word`."""
    line = process.stdout.readline()
    if not line.startswith(word):
        raise RuntimeError(f"the load said {line!r} instead of {word!r}")
    return line


if __name__ == "__main__":
    main()
