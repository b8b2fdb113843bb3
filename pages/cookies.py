"""Names of cookies: they tell the install, for a browser has one jar for all ports of a host."""

from flask import current_app, request


def cookie_name(name):
    """Return how a cookie of ours is called beside the session's."""
    return f"{current_app.config['SESSION_COOKIE_NAME']}_{name}"


def guarded(name):
    """Return the name by which browsers take a cookie from us alone: no neighbour, over TLS."""
    prefix = "__Secure-" if request.script_root else "__Host-"
    return f"{prefix if request.is_secure else ''}{name}"
