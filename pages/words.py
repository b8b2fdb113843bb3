"""How things are put into words, and how words are cleaned; for templates and for forms."""

import re
from functools import lru_cache, partial

import humanize
from flask import request

from chattable.budget import day, in_dollars, renewal
from chattable.database import now

FEW = 12  # models that a list shows without groups
# NULs, which no database takes, and what turns round the text that comes after.
DROPPED = re.compile("[\0\u202a-\u202e\u2066-\u2069]")


def init_app(app):
    """Give the templates what puts things into words."""
    # The same some thirty on every page: they are made once for where we are found.
    made = lru_cache(1000)(lambda root, endpoint, **values: app.url_for(endpoint, **values))
    app.context_processor(lambda: {"url_for": partial(made, request.script_root)})
    app.jinja_env.globals["dom_id"] = dom_id
    app.jinja_env.globals["now"] = now
    app.jinja_env.globals["renewal"] = renewal
    app.jinja_env.filters["day"] = day
    app.jinja_env.filters["in_dollars"] = in_dollars
    app.jinja_env.filters["time_in_words"] = time_in_words
    app.jinja_env.filters["date_in_words"] = date_in_words
    app.jinja_env.filters["about"] = about


def dom_id(thing, part=None):
    """Return the id of a record's element: "chat-7", or of a part of it: "chat-7-title"."""
    name = f"{type(thing).__name__.lower()}-{thing.id}"
    return f"{name}-{part}" if part else name


def time_in_words(moment):
    age = now() - moment
    return "just now" if age.total_seconds() < 60 else humanize.naturaltime(age)


def date_in_words(moment):
    return f"{moment.day} {moment:%B %Y}"


def about(number):
    """Return a number in two digits: 63,812 is about 64,000."""
    return f"{float(f'{number:.1e}'):,.0f}"


def counted(number, noun):
    return f"{number:,} {noun}{'s' * (number != 1)}"


def choices(models, recent):
    """Return [(group, names)]: few models as they are, many by vendor after the recent ones."""
    if len(models) <= FEW:
        return [("", models)]
    groups = {"Recent": [name for name in recent if name in models]}
    for name in sorted(set(models).difference(recent)):
        groups.setdefault(name.partition("/")[0] if "/" in name else "Others", []).append(name)
    return [(group, names) for group, names in groups.items() if names]


def one_line(text):
    """Return a person's words with single spaces and without what `DROPPED` says."""
    return " ".join(DROPPED.sub("", text).split())
