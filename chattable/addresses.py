"""Addresses of servers, as people write them: read kindly, or refused in a sentence of their fault.

No sentence repeats a part of an address: it may be one of a password.
"""

import re
from urllib.parse import quote, unquote, urlsplit

from redis import ConnectionPool
from redis.exceptions import RedisError

# Where a server is: host[:port], or several, then a name and options.
HOST = r"(?:\[[^][@/?#]*\]|[^][:,@/?#\s]*)(?::\d+)?"
PLACE = rf"{HOST}(?:,{HOST})*(?:/+NAME/*)?"
OPTIONS = re.compile(r"\?\w+=")
SOCKET = re.compile(r"(?:(?!/)(.*?)@)?(/.*?)(\?\w+=[^/]*)?", re.DOTALL)
# As other programs call them.
SCHEMES = {"redis": "redis", "valkey": "redis", "rediss": "rediss", "valkeys": "rediss"}
# What the rest relies on, and the address may not change.
OURS = re.compile(r"[?&](decode_responses|encoding|protocol)=")


def split_login(place: str, name: str = "[^/?#]*") -> tuple[str, str]:
    """Return (login, rest) of what comes after ://, the login percent-encoded up to its @, or "".

    A password may be there as it is, with the signs that end it in an address: it ends at the first
    @ after which a server can be. `name` is a pattern of what that has behind its slash.
    """
    server = re.compile(rf"{PLACE.replace('NAME', name)}(?:\?[^@]*)?")
    if re.fullmatch(rf"{PLACE.replace('NAME', '[^@/?#]*')}(?:\?\w+=.*)?", place, re.DOTALL):
        return "", place
    # No password reaches into options that follow an @: it would go to the host that one names.
    options = OPTIONS.search(place, place.find("@") + 1)
    head = place[: options.start() if options else None]
    ends = [at for at, sign in enumerate(head) if sign == "@" and is_login(head[:at])]
    if not ends:
        return "", place
    end = next((at for at in ends if server.fullmatch(head, at + 1)), ends[-1])
    return encoded_login(place[:end]), place[end + 1 :]


def is_login(text):
    return re.fullmatch(r"[^:/?#]*(:.*)?", text, re.DOTALL)


def encoded_login(text):
    name, colon, password = text.partition(":")
    return f"{encoded(name)}{colon}{encoded(password)}@"


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
    login, path, options = parts.groups()
    login = "" if login is None else encoded_login(login)
    return f"unix://{login}{encoded(path, '/')}{options or ''}"


def server_address(scheme, place):
    login, rest = split_login(place, "[0-9]*")
    url = f"{scheme}://{login}{rest}"
    if re.match("[^/?#]*,", rest):
        raise ValueError("REDIS_URL names several servers; it must be the address of one.")
    try:
        parts = urlsplit(url)
        usable = parts.port != 0 and not re.search(r"\s", parts.hostname or "")
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
