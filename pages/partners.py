"""Whether others take an install: its mail server, the provider by which people log in."""

import json
import smtplib
from urllib.parse import urlsplit

from flask import current_app

from pages import mail
from pages.hosts import own_name
from pages.issuer import WELL_KNOWN

OK, WARNING, PROBLEM = "ok", "warning", "problem"
# Seconds, bytes.
PATIENCE, MOST = 4, 100_000


def check_mail():
    """Give findings about the mail server; it is logged in to, and no mail is sent."""
    server = current_app.config["SMTP_URL"]
    if not server:
        return
    place = f"{server.host}:{server.port}"
    try:
        with mail.connected(server):
            yield OK, f"{place} takes {'our log-in' if server.user else 'mail from us'}"
    except (smtplib.SMTPException, OSError) as error:
        yield PROBLEM, f"SMTP_URL: {place} does not take us: {mail.told(error)}"
    if not own_name():
        yield WARNING, "links in mails need a name to begin with: set ALLOWED_HOSTS"


def check_openid(url):
    """Give findings about the provider by which people log in; `url` is where browsers find us."""
    issuer = current_app.config["OIDC_ISSUER"]
    if not issuer:
        return
    import httpx2  # it takes half a second

    try:
        name = json.loads(fetch(f"{issuer}{WELL_KNOWN}"))["issuer"].rstrip("/")
    except httpx2.HTTPError as error:
        yield PROBLEM, f"OIDC_ISSUER: {issuer} cannot be reached: {type(error).__name__}"
    except (ValueError, LookupError, TypeError, AttributeError):
        yield PROBLEM, f"OIDC_ISSUER: what is at {issuer}{WELL_KNOWN} describes no provider"
    else:
        if name != issuer:
            yield PROBLEM, f"OIDC_ISSUER: what is there calls itself {name[:250]!r}: set that"
            return
        root = (url or "https://…").rstrip("/")
        yield OK, f"{urlsplit(issuer).netloc} answers. Register there: {root}/login/openid/callback"


def fetch(address):
    """Return the bytes at an address; raise ValueError if they are not 200's, or too many."""
    import httpx2

    got, plain = b"", {"Accept-Encoding": "identity"}
    with httpx2.stream("GET", address, timeout=PATIENCE, headers=plain) as answer:
        if answer.status_code != 200:
            raise ValueError
        for piece in answer.iter_raw():
            got += piece
            if len(got) > MOST:
                raise ValueError
    return got
