"""What every form and every answer carries, so that no other site can act or look in."""

from flask import request, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_login import current_user
from flask_wtf.csrf import CSRFProtect
from markupsafe import Markup

from pages import bounds, hosts, proxies
from pages.accounts import ask_to_log_in
from pages.cookies import guarded
from pages.errors import problem

# What a page may not do, whoever has got into it; Copy writes to the clipboard.
FORBIDDEN = (
    *("accelerometer", "browsing-topics", "camera", "display-capture"),
    *("geolocation", "gyroscope", "hid", "idle-detection", "local-fonts", "magnetometer"),
    *("microphone", "midi", "payment", "publickey-credentials-get", "screen-wake-lock"),
    *("serial", "usb"),
)
HEADERS = {
    # Files say themselves how long they may be kept.
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{name}=()" for name in FORBIDDEN),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# A year. Neighbours below our name are not ours to speak for.
ENCRYPTED_ONLY = "max-age=31536000"

NOT_YOURS = Markup(
    "Somebody else has logged in here since this page was opened. "
    'Your text is kept; <a href="{}">log in as yourself</a> to send it.'
)

csrf = CSRFProtect()


def init_app(app):
    """Guard an app's forms, cookies and answers."""
    proxies.init_app(app)
    hosts.init_app(app)
    bounds.init_app(app)
    app.session_interface = SecureWhenEncrypted()
    app.before_request(refuse_former_readers)
    csrf.init_app(app)
    app.after_request(add_security_headers)


def refuse_former_readers():
    """Take nothing from a page that was opened by another person than who is logged in now."""
    reader = request.headers.get("X-Reader") or request.form.get("reader")
    if reader and reader != current_user.get_id():
        if current_user.is_authenticated:
            return problem(NOT_YOURS.format(url_for("accounts.log_in")), 403)
        return ask_to_log_in()


class SecureWhenEncrypted(SecureCookieSessionInterface):
    """Mark the session cookie Secure exactly where the browser came over TLS, and ours alone.

    There, its name has browsers take it from nobody else: no neighbour, nobody without TLS.
    """

    def get_cookie_name(self, app):
        return guarded(super().get_cookie_name(app))

    def get_cookie_secure(self, app):
        return request.is_secure

    def get_cookie_path(self, app):
        return request.script_root or "/"


def add_security_headers(response):
    # Read once: to ask for each would take as long as to find who is logged in.
    given = {name for name, _ in response.headers}
    response.headers.extend([each for each in HEADERS.items() if each[0] not in given])
    # Under a path, others have the host, too.
    if request.is_secure and not request.script_root:
        response.headers.setdefault("Strict-Transport-Security", ENCRYPTED_ONLY)
    return response
