"""Names of cookies: they tell the install, for a browser has one jar for all ports of a host."""

from flask import current_app


def cookie_name(name):
    """Return how a cookie of ours is called beside the session's."""
    return f"{current_app.config['SESSION_COOKIE_NAME']}_{name}"
