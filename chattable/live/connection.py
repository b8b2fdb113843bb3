"""The connections to Redis that everybody shares, but for the relay's."""

import select
from weakref import WeakSet

from flask import current_app
from gevent.monkey import get_original
from gevent.queue import LifoQueue
from redis import BlockingConnectionPool, Redis
from redis.exceptions import ReadOnlyError, ResponseError

from chattable.live.keys import LIFETIME, prefix

# In each process, besides the relay's: small Redis plans allow twenty in all.
CONNECTIONS = 5


def connect(url):
    """Return the client of a Redis; no command is sent before it is needed."""
    options = {
        "protocol": 2,
        "socket_connect_timeout": 2,
        "socket_timeout": 10,
        "health_check_interval": 30,
        # Hundreds of replies may want a word with Redis at once: they wait for each other.
        "max_connections": CONNECTIONS,
        "queue_class": LifoQueue,
        "timeout": 10,
    }
    pool = BlockingConnectionPool.from_url(url, **options)
    pool.connection_class = swift(pool.connection_class)
    return Redis(connection_pool=pool)


def swift(connection_class):
    """Return the class with a quicker look, before each command, whether Redis is still there.

    After a failover the old primary may keep its connections, and refuse every write: then all of
    them are made anew. What was refused is not sent again.

    gevent's poll takes a turn around the hub, behind everybody else, also when it need not wait.
    (Nothing is left over in its buffer: redis-py drops a connection whose answer was not read.)
    """

    class SwiftConnection(connection_class):
        known = WeakSet()

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.outdated = False
            self.known.add(self)

        def disconnect(self, *args, **options):
            super().disconnect(*args, **options)
            self.outdated = False

        def read_response(self, *args, **options):
            try:
                return super().read_response(*args, **options)
            except ResponseError as error:
                # Up to Redis 6, a script's error has the word inside.
                if isinstance(error, ReadOnlyError) or "READONLY" in str(error):
                    for each in list(self.known):
                        each.outdated = True
                raise

        def can_read(self, timeout=0):
            if self.outdated:
                return True  # the pool takes it for one that was closed
            if timeout or not self._sock:
                return super().can_read(timeout)
            poll = get_original("select", "poll")()
            poll.register(self._sock, select.POLLIN)
            return bool(poll.poll(0))

    return SwiftConnection


def redis():
    """Return the app's Redis connection pool (byte responses, as RQ needs them)."""
    return current_app.extensions["redis"]


def check_writing():
    """Raise `RedisError` unless Redis is there and keeps what it is told."""
    redis().set(f"{prefix()}:written", 1, ex=LIFETIME)
