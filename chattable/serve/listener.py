"""The address at which pages are served: the launcher binds it before it starts anybody."""

import errno
import os
import socket

from chattable.serve.sentences import CannotStart
from chattable.serve.settings import whole_number


def open_listener():
    """Return the listening socket for HOST and PORT; its backlog holds whoever comes early."""
    host = os.environ.get("HOST") or "127.0.0.1"
    port = whole_number("PORT", 5000, range(65536))
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return listen(socket.socket(family, kind), address)
    except OSError as error:
        raise CannotStart(why_not_bound(error, host, port)) from None


def listen(listener, address):
    """Bind and listen, without waiting for closed connections of an earlier run."""
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def why_not_bound(error, host, port):
    """Say in a sentence which variable to change."""
    if error.errno == errno.EADDRINUSE:
        return f"PORT: {port} is taken on {host}; set another, as in `PORT=5001 uv run chattable`."
    if error.errno == errno.EACCES:
        return f"PORT: {port} needs privileges; set one above 1023."
    return f"HOST: {host} cannot be bound here: {error.strerror}."


def address_of(listener):
    """Return the URL of a listener that this machine can open."""
    host, port = reachable(listener)
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}{os.environ.get('SCRIPT_NAME', '')}"


def reachable(listener):
    """Return host and port of a listener, with loopback standing for every address."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port
