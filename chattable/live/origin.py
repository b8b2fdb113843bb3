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
    are compared, and the ports if a proxy has left ours in the Host header.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if origin is None:
        return True
    ours = site == "same-origin" if site else is_at(origin, request.host)
    if not ours:
        tell(origin[:200], request.host[:200])
    return ours


def is_at(origin, host):
    """Return whether pages of an origin come from the server that a Host header names."""
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
        ports = None, page.port or PORTS.get(page.scheme)
        return bool(page.hostname) and page.hostname == server.hostname and server.port in ports
    except ValueError:
        return False


@lru_cache(maxsize=100)  # once, however often the page tries
def tell(origin, host):
    log.warning(
        "a page of %r has got no socket: by its Host header this server is %r. If both are yours, "
        "have your proxy pass on the Host that the browser sent.",
        origin,
        host,
    )
