"""The connections to Redis that everybody shares, but for the relay's."""

import logging
from collections.abc import Sequence
from typing import Any

from flask import current_app
from redis import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chattable.live.keys import LIFETIME, prefix

# In each process, besides the relay's: small Redis plans allow twenty in all.
CONNECTIONS = 5

log = logging.getLogger(__name__)


def connect(url):
    """Return the client of a Redis; no command is sent before it is needed."""
    options = {
        "protocol": 2,
        "socket_connect_timeout": 2,
        "socket_timeout": 10,
        "health_check_interval": 30,
        # Hundreds of replies may want a word with Redis at once: they wait for each other.
        "max_connections": CONNECTIONS,
        "timeout": 10,
    }
    pool = BlockingConnectionPool.from_url(url, **options)
    pool.connection_class = watchful(pool.connection_class)
    return Redis(connection_pool=pool)


def watchful(connection_class: Any):
    """Return the class with an eye on Redis: it notices a failover, and says once that it is away.

    After a failover the old primary may keep its connections, and refuse every write: then all of
    them are made anew. What was refused is not sent again.
    """

    class WatchfulConnection(connection_class):
        failovers = 0
        away = False

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.made_after = self.failovers

        def connect(self):
            try:
                super().connect()
            except (RedisConnectionError, RedisTimeoutError) as error:
                self.note_away(error)
                raise
            if self.away:
                self.note_away(None)

        @classmethod
        def note_away(cls, error):
            if error and not cls.away:
                log.warning("Redis is away, no page shows what is new until it is back: %s", error)
            elif not error:
                log.warning("Redis is back")
            cls.away = bool(error)

        def disconnect(self, *args, **options):
            super().disconnect(*args, **options)
            self.made_after = self.failovers

        def read_response(self, *args, **options):
            try:
                return super().read_response(*args, **options)
            except ResponseError as error:
                # Up to Redis 6, a script's error has the word inside.
                if isinstance(error, ReadOnlyError) or "READONLY" in str(error):
                    type(self).failovers += 1
                raise

        @property
        def outdated(self):
            """Whether Redis has failed over since this was made."""
            return self.made_after < self.failovers

        def can_read(self, timeout=0):
            # The pool takes a connection that has something to read for one that was closed.
            return self.outdated or super().can_read(timeout)

    return WatchfulConnection


def redis() -> Redis:
    """Return the app's Redis connection pool (byte responses, as RQ needs them)."""
    return current_app.extensions["chattable_redis"]


def run(script: str, keys: Sequence[Any], values: Sequence[Any]) -> Any:
    """Run a script, whose text Redis is sent once, and return its answer. Raises `RedisError`."""
    scripts = current_app.extensions["chattable_scripts"]
    if script not in scripts:
        scripts[script] = redis().register_script(script)
    return scripts[script](keys, values)


def check_writing() -> None:
    """Raise `RedisError` unless Redis is there and keeps what it is told."""
    redis().set(f"{prefix()}:written", 1, ex=LIFETIME)


def severity(error):
    """Return how loud (a level of `logging`) to say that Redis did not take something.

    That it is away is said once, by whoever fails to connect to it.
    """
    return logging.DEBUG if is_away(error) else logging.WARNING


def is_away(error: Exception) -> bool:
    """Return whether Redis cannot be reached; else it is there, and refuses."""
    return isinstance(error, RedisConnectionError | RedisTimeoutError)
