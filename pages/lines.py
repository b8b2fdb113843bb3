"""How a line of the log is written: to read (key=value) or as JSON, a happening each.

gunicorn's arbiter has this, too: nothing is imported here that gevent must patch before.
"""

import json
import logging
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

# A value that needs no quotes.
BARE = re.compile(r"[\w./:@+<>-]+", re.ASCII)


class Context:
    """What an app adds to the lines of its processes, see `logs`."""

    fields: Callable[[], dict[str, Any]] = dict
    # The lines of an exception.
    trace: Callable[[BaseException], list[str]] = lambda error: [type(error).__name__]


class Handler(logging.StreamHandler):
    """Write to what is standard error now."""

    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stderr


class TextLine(logging.Formatter):
    """When, how grave, who, what, and then key=value: a line, and a traceback in lines set in."""

    def format(self, record):
        words = [time_of(record), record.levelname, record.name, in_a_line(record.getMessage())]
        words += [f"{key}={quoted(value)}" for key, value in fields_of(record).items()]
        return "\n    ".join([" ".join(words), *map(in_a_line, trace_of(record))])


class JsonLine(logging.Formatter):
    """The same as one JSON object."""

    def format(self, record):
        said = {"time": time_of(record), "level": record.levelname.lower(), "logger": record.name}
        said |= {"message": record.getMessage()} | fields_of(record)
        if trace := trace_of(record):
            said["traceback"] = trace
        return json.dumps(said, default=str)


FORMATTERS = {"text": TextLine, "json": JsonLine}


def time_of(record):
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fields_of(record):
    """Return what a record has beside its words, and whose request or job it belongs to."""
    # Of what else a record has, RQ's show what people write.
    fields = getattr(record, "fields", {}) | Context.fields()
    return {key: value for key, value in fields.items() if value not in (None, "")}


def trace_of(record):
    error = record.exc_info[1] if record.exc_info else None
    return Context.trace(error) if error else []


def quoted(value):
    text = str(value)
    return text if BARE.fullmatch(text) else json.dumps(text)


def in_a_line(text):
    """Return a text that can neither begin a line nor turn one around."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
