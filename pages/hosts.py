"""ALLOWED_HOSTS: the names by which this server is asked; by another name it answers nobody."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import current_app, request
from werkzeug.exceptions import BadHost

from pages.errors import problem
from pages.values import refuse

NAME = re.compile(r"(\*\.)?[\w-]+(\.[\w-]+)*|\[[\da-f:.]+\]", re.ASCII)
IN_BRACKETS = re.compile(r"\[(.+)\](:\d*)?")
PORT = re.compile(r":\d*$")
# A platform asks them by our address. They tell nobody anything, and make no link.
ASKED_BY_ADDRESS = {"health.up", "health.ready"}
OTHER = (
    "This server is not known by the name in this address. If you run it, add the name to "
    "ALLOWED_HOSTS and start it again."
)


def init_app(app):
    """Have an app answer to its own names alone, before anybody else looks at a request."""
    app.before_request(refuse_no_name)
    if app.config["ALLOWED_HOSTS"]:
        app.before_request(refuse_other_names)


def refuse_no_name():
    """Answer without a page, which has addresses: nothing has one under a name that is none."""
    if isinstance(request.routing_exception, BadHost):
        return "The name in this address is none.\n", 400, {"Content-Type": "text/plain"}


def refuse_other_names():
    # The header itself: for Werkzeug, a name with a _ is none.
    host = request.environ.get("HTTP_HOST", "")
    if request.endpoint not in ASKED_BY_ADDRESS and not known(host):
        return problem(OTHER, 400)


def known(host):
    """Return whether a Host header has one of our names, on whatever port."""
    name = normal(host)
    return any(
        name == each or each[0] == "*" and name.endswith(each[1:])
        for each in current_app.config["ALLOWED_HOSTS"]
    )


def allowed_hosts(settings):
    """Return our names as browsers send them, in the order they are given; [] for any.

    "*.example.org" is every name below that one, ".example.org" is itself, too.
    """
    text = settings.get("ALLOWED_HOSTS", "")
    names = [name for part in text.split(",") if part.strip() for name in written(part.strip())]
    if text and not (names and all(map(NAME.fullmatch, names))):
        refuse(
            "ALLOWED_HOSTS must be names separated by commas, as in chat.example.org, "
            "*.example.org, without https:// and without a path; unset, any name is answered."
        )
    # Where the launcher says that it runs.
    here = urlsplit(settings.get("CHATTABLE_URL", "")).netloc
    return [*names, normal(here)] if names and here else names


def written(name):
    try:
        ours = normal(name.removeprefix(".")).encode("idna").decode()
    except UnicodeError:
        ours = ""
    return [ours, f"*.{ours}"] if name.startswith(".") else [ours]


def normal(host):
    """Return a host without its port, in the one spelling that is compared."""
    bracketed = IN_BRACKETS.fullmatch(host)
    try:
        address = ip_address(bracketed[1] if bracketed else host)
    except ValueError:
        return PORT.sub("", host).lower().removesuffix(".")
    return f"[{address}]" if address.version == 6 else str(address)
