"""The log: a line for each request, socket and job, without what people write.

How a line is written, `lines` says; sockets and jobs, the library tells.
"""

import logging
import re
import secrets
import time

from flask import g, has_app_context, request

from chattable import faults
from pages.lines import FORMATTERS, Context, Handler
from pages.values import choice

LEVELS = "info", "debug", "warning", "error"
# Whose words are ours; others may show what people write where they are talkative.
OURS = "app", "chattable", "jobs", "models", "pages"
REQUEST_ID = re.compile(r"[\w.-]{1,100}", re.ASCII)
# The part of an unknown path that is no secret.
FIRST = re.compile(r"/[\w.-]{0,40}", re.ASCII)
# Asked every few seconds, by machines; and what comes with each page.
QUIET = "health.up", "health.ready", "metrics.show_metrics", "static", "chattable.static"

log = logging.getLogger(__name__)


def begin_log(settings):
    """Have all that this process logs written as `LOG_FORMAT` and `LOG_LEVEL` say."""
    shape = choice(settings, "LOG_FORMAT", tuple(FORMATTERS))
    level = getattr(logging, choice(settings, "LOG_LEVEL", LEVELS).upper())
    Context.fields, Context.trace = signs, faults.trace
    handler = Handler()
    handler.setFormatter(FORMATTERS[shape]())
    handler.addFilter(is_public)
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not isinstance(each, Handler)] + [handler]
    root.setLevel(max(level, logging.WARNING))
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)


def is_public(record):
    """Return whether a record may be written: of others' only what is a warning."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in OURS


def signs():
    """Return what tells whose line it is: a message has one from its form to its last frame."""
    if not has_app_context():
        return {}
    return {"client_id": g.get("chattable_token"), "request_id": g.get("request_id")}


# Requests.


def init_app(app):
    """Have an app log its requests, and name each."""
    app.before_request(begin_request)
    app.after_request(end_request)


def begin_request():
    g.begun = time.perf_counter()
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def end_request(response):
    rule = request.url_rule
    if "request_id" not in g or (rule and rule.websocket):
        return response  # a socket has a line of its own
    response.headers["X-Request-ID"] = g.request_id
    level = logging.DEBUG if request.endpoint in QUIET else logging.INFO
    if log.isEnabledFor(level):
        log.log(level, "request", extra={"fields": told_of(response)})
    return response


def told_of(response):
    return {
        "method": request.method if request.url_rule else request.method[:10],
        "path": path_of(request),
        "status": response.status_code,
        "ms": round(1000 * (time.perf_counter() - g.begun), 1),
        "user": known_user(),
    }


def path_of(asked):
    """Return the path without what may be a secret in it: numbers stay, other parts do not."""
    rule = asked.url_rule
    if rule is None:
        first = FIRST.match(asked.path)
        return f"{first[0] if first else ''}…"
    path = rule.rule
    for name, value in (asked.view_args or {}).items():
        if isinstance(value, int):
            path = path.replace(f"<int:{name}>", str(value))
    return path


def known_user():
    """Return the public id of who is logged in, if somebody has asked; the database is not."""
    return getattr(g.get("_login_user"), "__dict__", {}).get("public_id")
