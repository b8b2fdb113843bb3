"""How pages look in one browser: light, dark, or as its system does."""

from urllib.parse import urlsplit

from flask import Blueprint, redirect, request, url_for

from pages.cookies import cookie_name

YEAR = 365 * 86400  # s

routes = Blueprint("looks", __name__)


def init_app(app):
    """Let people choose a theme."""
    app.jinja_env.globals["cookie_name"] = cookie_name
    app.register_blueprint(routes)


@routes.post("/theme")
def choose_theme():
    """Keep the theme in a cookie, so that the next page has it from its first paint."""
    page = urlsplit(request.referrer or "").path.lstrip("/")
    answer = redirect(f"/{page}" if page else url_for("chats.list_chats"), 303)
    if request.headers.get("HX-Request"):
        answer.status_code = 204
    chosen, name = request.form.get("theme"), cookie_name("theme")
    if chosen in ("light", "dark"):
        secure = request.is_secure
        answer.set_cookie(name, chosen, YEAR, secure=secure, httponly=True, samesite="Lax")
    else:
        answer.delete_cookie(name)
    return answer
