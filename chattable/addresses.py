"""Addresses of servers, as people write them: read kindly, or refused in a sentence of their fault.

No sentence repeats a part of an address: it may be one of a password.
"""

import re
from urllib.parse import quote, unquote, urlsplit

from redis import ConnectionPool
from redis.exceptions import RedisError

# A password may be there as it is, with the signs that end it in an address: it ends at the last @,
# unless that is in an option (host:5432/name?option=a@b).
PASSWORD = re.compile(r"(\w+://[^:/?#@]*:)(?!\d+(?:/[^?]*)?\?\w+=)(.*)(@[^@]*)", re.DOTALL)
SOCKET = re.compile(r"([^/]*@)?(/.*?)(\?\w+=[^/]*)?", re.DOTALL)
# As other programs call them.
SCHEMES = {"redis": "redis", "valkey": "redis", "rediss": "rediss", "valkeys": "rediss"}
# What the rest relies on, and the address may not change.
OURS = re.compile(r"[?&](decode_responses|encoding|protocol)=")


def escape_password(url: str) -> str:
    """Return an address whose password is percent-encoded, whether or not it was before."""
    return PASSWORD.sub(lambda parts: parts[1] + encoded(parts[2]) + parts[3], url, count=1)


def encoded(text, safe=""):
    plain = unquote(text)
    # What it does not decode to characters was not encoded.
    return quote(text if "\ufffd" in plain else plain, safe)


def redis_address(url: str, trusting: bool = False) -> str:
    """Return REDIS_URL as redis-py reads it; raise ValueError with the sentence of its fault.

    `trusting` takes any certificate, unless the address says which: platforms sign their own.
    """
    scheme, mark, place = url.strip().partition("://")
    scheme = scheme.lower()
    if "sentinel" in scheme or "cluster" in scheme:
        raise ValueError("REDIS_URL must be the address of one server, no Sentinel and no cluster.")
    if not mark or scheme not in (*SCHEMES, "unix"):
        raise ValueError("REDIS_URL must begin with redis://, rediss:// or unix://.")
    read = socket_address(place) if scheme == "unix" else server_address(SCHEMES[scheme], place)
    if trusting and read.startswith("rediss:") and not re.search("[?&]ssl_c(ert_reqs|a_)", read):
        read += f"{'&' if '?' in read else '?'}ssl_cert_reqs=none"
    check_options(read)
    return read


def socket_address(place):
    parts = SOCKET.fullmatch(place)
    if not parts:
        raise ValueError("REDIS_URL: a socket's path begins with /, as in unix:///run/redis.sock.")
    login, path, options = parts.groups("")
    return escape_password(f"unix://{login}") + encoded(path, "/") + options


def server_address(scheme, place):
    url = escape_password(f"{scheme}://{place}")
    if re.match("[^/?#]*,", url.partition("://")[2].rpartition("@")[2]):
        raise ValueError("REDIS_URL names several servers; it must be the address of one.")
    try:
        parts = urlsplit(url)
        usable = parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            "REDIS_URL must be like redis://:password@host:6379/0: a port is a number up to 65535, "
            "and an IPv6 address is in brackets."
        )
    if parts.fragment:
        raise ValueError("REDIS_URL: write a # as %23.")
    if not re.fullmatch("/*[0-9]*/*", parts.path):
        raise ValueError(
            "REDIS_URL: after the host comes the number of a database, as in redis://host:6379/0."
        )
    return url


def check_options(url):
    """Raise ValueError if redis-py does not know what an address asks of a connection."""
    try:
        pool = ConnectionPool.from_url(url)
        pool.connection_class(**pool.connection_kwargs)
        known = not OURS.search(url)
    except (ValueError, TypeError, RedisError):
        known = False
    if not known:
        raise ValueError("REDIS_URL: an option after the ? is unknown or wrong, or may not be set.")
