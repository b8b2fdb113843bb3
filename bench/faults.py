"""Break the whole product in every known way: `uv run python bench/faults.py [--only FAULT]`.

Starts Redis, the Procfile's web and worker and a provider for each fault, on SQLite and on
PostgreSQL, lets it happen while people write, and counts what became of their messages. Prints one
table; exits with 1 if anything was lost, doubled, left running or shown but not stored.
"""

import argparse
import json
import random
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import crashes, oddities, outages  # noqa: E402
from bench.files import allow_many_files  # noqa: E402
from bench.launched import Launched  # noqa: E402
from bench.narrator import Narrator  # noqa: E402
from bench.scene import Scene  # noqa: E402
from tests.services import Missing, Postgres  # noqa: E402
from tests.stack import Stack  # noqa: E402

SQLITE, POSTGRES = "sqlite", "postgres"


def deployed(provider_url, database_url):
    """Return an install that has its name in Redis from its own database, as most have."""
    return Stack(provider_url, database_url, env={"REDIS_PREFIX": ""})


class Fault(NamedTuple):
    """One row a database: what happens, to which install, and how soon (s) all is well again."""

    name: str
    happen: Callable
    workers: int = 1
    within: int = 60
    databases: tuple = (SQLITE, POSTGRES)
    install: Callable = deployed


FAULTS = [
    Fault("first-message", crashes.first_message, workers=0),
    Fault("worker-killed", crashes.worker_killed, workers=2),
    Fault("worker-killed-taking", crashes.killed_taking, within=20),
    Fault("worker-killed-before-saving", crashes.killed_before_saving),
    Fault("worker-restarts", crashes.rolling_restarts, workers=2),
    Fault("worker-suspended-5-9-s", crashes.worker_pauses),
    Fault("worker-suspended-40-s", crashes.worker_sleeps),
    Fault("worker-declared-dead-wakes", crashes.worker_wakes),
    Fault("web-killed", crashes.web_killed),
    Fault("launcher-killed", crashes.launcher_killed, install=Launched),
    Fault("redis-killed", outages.redis_killed),
    Fault("redis-killed-while-posting", outages.redis_killed_posting),
    Fault("redis-full", outages.redis_full),
    Fault("redis-shared", outages.redis_shared),
    Fault("redis-database-shared", outages.redis_database_shared),
    Fault("database-stopped", outages.database_stopped, databases=(POSTGRES,)),
    Fault("database-read-only", outages.database_read_only, databases=(POSTGRES,)),
    Fault("database-locked", outages.database_locked),
    Fault("disk-full", outages.disk_full, databases=(SQLITE,)),
    Fault("blank-line", oddities.blank_line),
    Fault("roles-alternate", oddities.roles_alternate),
    Fault("sent-again-late", oddities.sent_again_late),
    Fault("sent-20-fold", oddities.twenty_fold),
]
COLUMNS = {
    "fault": "fault",
    "database": "database",
    "sent": "sent",
    "accepted": "accepted",
    "stored": "stored",
    "answered": "answered",
    "doubled": "doubled",
    "asked": "asked",
    "stuck": "stuck",
    "equal": "pages equal",
    "unsaved": "shown, not stored",
    "settled": "settled after",
    "wrong": "wrong",
}


def main():
    """Let the faults happen that were asked for; exit with 1 if one did harm."""
    options = parse_options()
    allow_many_files()
    # a bench that is told to stop takes its children along
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as exits:
        postgres = start_postgres(options, exits)
        rows = []
        for fault, database in chosen(options, postgres):
            say(f"{fault.name} on {database} …")
            rows.append(happen(fault, postgres if database == POSTGRES else None, options.seed))
            say(f"  {row_of(rows[-1])}")
    print(table(rows))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2))
    sys.exit(not all(row["unharmed"] for row in rows))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--only", action="append", choices=names, help="this fault (repeatable)")
    parser.add_argument("--skip", action="append", choices=names, default=[])
    parser.add_argument("--database", choices=[SQLITE, POSTGRES], help="only on this one")
    parser.add_argument("--seed", type=int, default=1, help="of every moment that chance picks")
    parser.add_argument("--json", metavar="FILE", help="also write the rows as JSON")
    return parser.parse_args()


def start_postgres(options, exits):
    """Return a server, or None where none is wanted or installed."""
    if options.database == SQLITE:
        return None
    try:
        return exits.enter_context(closing(Postgres()))
    except Missing:
        if options.database:
            raise
        return None


def chosen(options, postgres):
    """Return the (fault, database) pairs to play."""
    databases = [SQLITE, *([POSTGRES] if postgres else [])]
    return [
        (fault, database)
        for fault in FAULTS
        for database in ([options.database] if options.database else databases)
        if database in fault.databases
        and (fault.name in options.only if options.only else fault.name not in options.skip)
    ]


def happen(fault, postgres, seed):
    """Let one fault happen on one database; return its row."""
    database = POSTGRES if postgres else SQLITE
    chance = random.Random(f"{seed} {fault.name} {database}")
    with closing(Narrator(["gpt-4o-mini"])) as provider:
        url = postgres.database() if postgres else None
        with closing(fault.install(provider.url, url)) as install:
            scene = Scene(install.start(1, fault.workers), provider, chance, postgres)
            try:
                fault.happen(scene)
            except (TimeoutError, RuntimeError, AssertionError) as error:
                scene.expect(False, f"broke off: {str(error)[:200]!r}")
            figures = sum_up([scene.figures(fault.within), *scene.neighbours])
            unharmed = is_unharmed(figures, fault)
            if not unharmed:
                say(install.last_words())
    return {"fault": fault.name, "database": database, "unharmed": unharmed} | figures


def sum_up(parts):
    """Return the figures of all installs of a fault as one."""
    return {name: joined(name, [part[name] for part in parts]) for name in parts[0]}


def joined(name, figures):
    if name == "wrong":
        return "; ".join(filter(None, figures))
    # they share the provider, and the time
    return max(figures) if name in ("asked", "settled") else sum(figures)


def is_unharmed(figures, fault):
    """Tell whether nothing was lost, doubled, left running, or shown and not stored."""
    kept = figures["accepted"] == figures["stored"] == figures["answered"]
    right = figures["equal"] == figures["pages"] and not figures["wrong"]
    harm = figures["doubled"] or figures["stuck"] or figures["unsaved"]
    return kept and right and not harm and figures["settled"] <= fault.within


def say(line):
    """Tell whoever watches the run."""
    print(line, file=sys.stderr, flush=True)


def table(rows):
    """Return the rows as Markdown, the harmful ones in bold."""
    head = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*head, *map(cells, rows)])


def cells(row):
    shown = row | {
        "fault": row["fault"] if row["unharmed"] else f"**{row['fault']}**",
        "equal": f"{row['equal']}/{row['pages']}",
        "settled": f"{row['settled']:.0f} s",
    }
    return [str(shown[name]) for name in COLUMNS]


def row_of(row):
    """Return a row as words."""
    figures = list(zip(COLUMNS.values(), cells(row), strict=True))[2:]
    return ", ".join(f"{title} {cell}" for title, cell in figures if cell)


if __name__ == "__main__":
    main()
