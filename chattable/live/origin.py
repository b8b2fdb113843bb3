"""Who has opened a socket: a page of ours, a program, or another site's page."""

import logging
from functools import lru_cache
from urllib.parse import urlsplit

from flask import request

PORTS = {"http": 80, "https": 443}

log = logging.getLogger(__name__)


def same_origin() -> bool:
    """Return whether the page that opened the socket is ours (a program may send no Origin).

    A browser says so itself where it may, https://www.w3.org/TR/fetch-metadata/. Else the names
    are compared, and the ports as far as they are known.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if origin is None:
        return True
    host = request.environ.get("HTTP_HOST", "")  # request.host has no default port
    ours = site == "same-origin" if site else is_at(origin, host)
    if not ours:
        tell(origin[:200], host[:200])
    return ours


def is_at(origin, host):
    """Return whether pages of an origin come from the server that a Host header names."""
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
        usual = PORTS[page.scheme]
        same_port = (page.port or usual) == (server.port or usual)
    except (KeyError, ValueError):
        return False
    if not page.hostname or page.hostname != server.hostname:
        return False
    if request.is_secure and page.scheme == "http":
        return False
    came = request.environ.get("werkzeug.proxy_fix.orig", request.environ)
    # nginx's $host drops the port; where a browser asks us itself, none is the usual one.
    itself = came["SERVER_PORT"] in ("80", "443") and came.get("REMOTE_ADDR") != ""
    dropped = server.port is None and not itself
    # What a proxy calls the port may be that inside a container.
    return same_port or dropped or page.netloc.lower() == came.get("HTTP_HOST", host).lower()


@lru_cache(maxsize=100)  # once, however often the page tries
def tell(origin, host):
    log.warning(
        "a page of %r has got no socket: by its Host header this server is %r. If both are yours, "
        "have your proxy pass on the Host that the browser sent.",
        origin,
        host,
    )
