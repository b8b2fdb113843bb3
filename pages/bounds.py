"""How much a browser may send, and how slowly."""

from contextlib import contextmanager
from io import BytesIO

from flask import Request, request, session
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

# The largest form has some ten.
MOST_FIELDS = 100
# Bytes. Their forms are a few lines; messages have more room.
MOST_FROM_STRANGERS = 100_000
# Seconds in which more of a form has to come.
PATIENCE = 30


def init_app(app):
    """Have an app read what it is sent at once, and no more than forms have."""
    app.request_class = BoundedRequest
    app.before_request(read_form)


class BoundedParser(FormDataParser):
    """Take few fields of the usual kind of form, too: a few MB of them take seconds to read."""

    def parse(self, stream, mimetype, content_length, options=None):
        if mimetype == "application/x-www-form-urlencoded":
            stream = BytesIO(stream.read())
            if stream.getvalue().count(b"&") >= MOST_FIELDS:
                raise RequestEntityTooLarge
        return super().parse(stream, mimetype, content_length, options)


class BoundedRequest(Request):
    form_data_parser_class = BoundedParser


def read_form():
    """Wait for a form before anything is looked up: who sends it slowly holds nothing meanwhile."""
    if "_user_id" not in session:
        request.max_content_length = MOST_FROM_STRANGERS
    try:
        with patience():
            _ = request.form
    except HTTPException:
        # Not for the page that says so to wait for the rest.
        request.form = ImmutableMultiDict()
        raise


@contextmanager
def patience():
    """Wait for a browser only so long, where gunicorn would wait for ever."""
    connection = request.environ.get("gunicorn.socket")
    if connection is None:
        yield
        return
    before = connection.gettimeout()
    connection.settimeout(PATIENCE)
    try:
        yield
    finally:
        connection.settimeout(before)
