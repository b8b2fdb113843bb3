"""Search: one's own titles and messages, by their words."""

from flask import Blueprint, render_template, request
from flask_login import current_user

from chattable import search

LARGEST_PLACE = 2**33

routes = Blueprint("search", __name__)


def init_app(app):
    """Let people search."""
    app.register_blueprint(routes)


@routes.get("/search")
def show_results():
    """Give a page of results; to a field that is typed into, or a page that has some, the next."""
    query = request.args.get("q", "")
    before = request.args.get("before", type=int)
    if before is not None and not 0 < before < LARGEST_PLACE:
        before = None
    found, more = search.find(current_user, query, before)
    asked_by_htmx = request.headers.get("HX-Request")
    template = "search/_answer.html" if asked_by_htmx else "search/index.html"
    return render_template(template, query=query, before=before, found=found, more=more)
