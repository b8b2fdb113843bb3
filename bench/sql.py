"""Count SQL statements, by PostgreSQL's own log."""

import re
import subprocess
from datetime import datetime

# The ends of transactions are not counted: each is a word, not a question.
STATEMENT = re.compile(r"LOG:  (statement|execute \S+): (?!BEGIN|COMMIT|ROLLBACK)")
EDGE = 1.0


class Count:
    """Log every statement inside the `with`; then `per_second` is the rate in the middle of it.

    The first and the last second are left out: they hold what each reply costs once. Without
    a server (None) nothing is counted and the rate is None.
    """

    def __init__(self, postgres):
        self.postgres = postgres
        self.per_second = None

    def __enter__(self):
        if self.postgres:
            self._log("all")
            self.start = self.postgres.log.stat().st_size

    def __exit__(self, *error):
        if self.postgres:
            self._log("none")
            self.per_second = rate(self._moments())

    def _moments(self):
        with self.postgres.log.open() as log:
            log.seek(self.start)
            said = [line for line in log if STATEMENT.search(line)]
        # the log begins each line with the time, to the millisecond
        return [datetime.fromisoformat(line[:23]).timestamp() for line in said]

    def _log(self, what):
        place = ["-h", "127.0.0.1", "-p", str(self.postgres.port), "-U", "postgres"]
        change = f"ALTER SYSTEM SET log_statement = '{what}'"
        words = ["-c", change, "-c", "SELECT pg_reload_conf()"]
        command = [self.postgres.tools / "psql", *place, "-qAt", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def rate(moments):
    """Return events a second between the first and the last second; None if it was too short."""
    span = moments[-1] - moments[0] - 2 * EDGE if moments else 0
    middle = [at for at in moments if moments[0] + EDGE < at < moments[-1] - EDGE]
    return len(middle) / span if span > 0 else None
