"""ALLOWED_HOSTS: the names by which this server is asked; by another name it answers nobody."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import current_app, request
from werkzeug.exceptions import BadHost

from chattable.provider.address import is_near, is_this_machine
from pages.errors import problem
from pages.policy import host_of
from pages.values import refuse, whole_number

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


def own_name():
    """Return the name that ALLOWED_HOSTS says is ours, None if it says none."""
    names = current_app.config.get("ALLOWED_HOSTS") or []
    return next((name for name in names if not name.startswith("*")), None)


def own_address(secure=False):
    """Return where browsers find this server, without a path, as far as settings say, or None.

    A name of one's own network is taken to have TLS only if `secure`.
    """
    name, config = own_name(), current_app.config
    if name and not is_this_machine(host_of(name)):
        return f"{'http' if is_near(host_of(name)) and not secure else 'https'}://{name}"
    if config["CHATTABLE_URL"]:
        here = urlsplit(config["CHATTABLE_URL"])
        return f"{here.scheme}://{here.netloc}"
    port = f":{config['PORT']}" if config["PORT"] else ""
    return name and f"http://{name}{port}"


def own_port(settings):
    """Return the port where the web listens, None if nobody has said."""
    # The launcher takes any that is free for 0.
    port = whole_number(settings, "PORT", 5000, 0 if "CHATTABLE_URL" in settings else 1, 65535)
    # A platform gives a process beside the web a port of its own.
    return port if "PORT" in settings and "DYNO" not in settings else None


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
