"""What every form and every answer carries, so that no other site can act or look in."""

from flask import request, session
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

csrf = CSRFProtect()


def init_app(app):
    """Guard an app's forms, cookies and answers."""
    app.session_interface = SecureWhenEncrypted()
    csrf.init_app(app)
    app.after_request(add_security_headers)


class SecureWhenEncrypted(SecureCookieSessionInterface):
    """Mark the session cookie Secure exactly where the browser came over TLS."""

    def get_cookie_secure(self, app):
        return request.is_secure


def add_security_headers(response):
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    # Files say themselves how long they may be kept.
    if "_user_id" in session:
        response.headers.setdefault("Cache-Control", "no-store")
    return response
