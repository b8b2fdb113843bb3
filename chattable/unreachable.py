"""What no waiting helps against: why a database or a Redis never lets us in, in its own words."""

import re
import sqlite3
from contextlib import closing

from flask import Flask
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.retry import Retry

from chattable.database import diagnosis, lacks_a_table, reason

# Seconds.
ANSWERED_WITHIN = 5
# A login that fails has no SQLSTATE. Who says it in other words than these is waited for.
REFUSALS = re.compile(
    "authentication failed|no password supplied|does not exist|pg_hba.conf|not permitted"
    "|permission denied|SSL was required|certificate verify failed|WRONG_VERSION_NUMBER"
    "|DB index is out of range|not known|does not resolve"
)
REFUSALS_IN_SQLITE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM}
NO_TABLES = "it has no tables yet; `flask db upgrade` makes them"
NO_REDIS = "REDIS_URL: Redis cannot be used:"


def why_no_database(error: Exception) -> str | None:
    """Return in a sentence why a database will never do, None if what it says may pass."""
    if lacks_a_table(error):
        return None  # whoever makes them may have begun at the same moment as we
    _, code = diagnosis(reason(error))
    if code in REFUSALS_IN_SQLITE or REFUSALS.search(str(reason(error))):
        return f"DATABASE_URL: the database cannot be opened: {first_line(error)}"
    return None


def first_line(error: Exception) -> str:
    """Return what a driver says, without its advice and its address of more."""
    if lacks_a_table(error):
        return NO_TABLES
    return str(reason(error)).partition("\n")[0]


def why_no_redis(app: Flask) -> str | None:
    """Return in a sentence why the Redis of an app will never do, None if it does or may soon."""
    # One of its own: the pool's would be tried again, and noted as away.
    options = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}
    patience = {"socket_connect_timeout": ANSWERED_WITHIN, "socket_timeout": ANSWERED_WITHIN}
    with closing(Redis.from_url(app.config["REDIS_URL"], **options, **patience)) as client:
        try:
            client.ping()
        except RedisError as error:
            said = f"{error} {error.__context__}"
            if "handshake" in said:
                return f"{NO_REDIS} it does not speak TLS, as rediss:// says."
            known = isinstance(error, AuthenticationError | NoPermissionError)
            if known or REFUSALS.search(said):
                return f"{NO_REDIS} {error}"
    return None
