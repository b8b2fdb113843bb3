"""What people are told when something goes wrong: one sentence, as a page or a part of one."""

from flask import current_app, request, session
from flask_login import AnonymousUserMixin
from flask_wtf.csrf import CSRFError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, TooManyRequests

from chattable import live
from chattable.database import lacks_a_table
from models import db

REDIS_AWAY = "The server cannot take messages right now. Your text is kept; try again in a moment."
EXPIRED = "This page is too old. Reload it and try again; your text is kept."
# Why a message may not be taken: see `why`.
NOT_TAKEN = TooManyRequests, RedisError
SENTENCES = {
    403: "This is not allowed.",
    404: "This is no longer here, or it is not yours.",
    410: "This chat was deleted.",
    405: "This address does not work that way.",
    413: "That is too much at once. Shorten it and try again.",
}


def init_app(app):
    """Have an app say what went wrong in sentences."""
    app.register_error_handler(CSRFError, lambda _: problem(EXPIRED, 400))
    app.register_error_handler(HTTPException, show_error)
    app.register_error_handler(TooManyRequests, lambda error: problem(error.description, 429))
    app.register_error_handler(SQLAlchemyError, database_away)
    app.register_error_handler(RedisError, lambda _: problem(REDIS_AWAY, 503))


def why(error: TooManyRequests | RedisError) -> tuple[str, int]:
    """Return (sentence, status) for what is in `NOT_TAKEN`."""
    if isinstance(error, TooManyRequests):
        return str(error.description), 429
    return REDIS_AWAY, 503


def show_error(error):
    if error.code is None or error.code < 400:
        return error
    return problem(SENTENCES.get(error.code, "That did not work. Try again."), error.code)


def database_away(error):
    db.session.rollback()
    if lacks_a_table(error):
        current_app.logger.error("the database lacks tables: run `flask --app app db upgrade`")
        return problem("This server is not set up yet: its database has no tables.", 503)
    current_app.logger.error("database: %s", type(error).__name__, exc_info=error)
    return problem("The database is busy or away. Nothing is lost; try again in a moment.", 503)


def problem(sentence, status, title="That did not work"):
    """Answer with one sentence: as a part of the page for HTMX, else as a page of its own.

    It asks nobody: what went wrong may be the very database that other pages ask.
    """
    if request.headers.get("HX-Request"):
        return live.render("messages/_error.html", error=sentence), status
    nobody = AnonymousUserMixin()
    context = {"sentence": sentence, "status": status, "fields": written_fields()}
    context |= {"title": title, "logged_in": "login" in session}
    return live.render("error.html", current_user=nobody, **context), status


def written_fields():
    """Return what a form brought, but no secrets: without JavaScript nobody else keeps it."""
    try:
        fields = request.form.items()
    except HTTPException:
        return {}  # it is more than the server reads
    return {
        name: value for name, value in fields if name != "csrf_token" and "password" not in name
    }
