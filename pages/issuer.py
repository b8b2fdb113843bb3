"""OIDC_…: the OpenID Connect provider by which people log in, as the settings name it."""

import re
from urllib.parse import urlsplit

from chattable.provider.address import is_near
from pages.values import refuse
from pages.words import one_line

WELL_KNOWN = "/.well-known/openid-configuration"


def openid_settings(settings):
    """Return the part of the configuration that is about the provider."""
    issuer, client = read_issuer(settings), settings.get("OIDC_CLIENT_ID", "").strip()
    if issuer and not client:
        refuse("OIDC_CLIENT_ID is not set: the provider gives it to whoever registers this server.")
    if client and not issuer:
        refuse("OIDC_ISSUER is not set: it is the address of the provider of OIDC_CLIENT_ID.")
    scopes = settings.get("OIDC_SCOPES", "email profile").split()
    return {
        "OIDC_ISSUER": issuer,
        "OIDC_CLIENT_ID": client,
        "OIDC_CLIENT_SECRET": settings.get("OIDC_CLIENT_SECRET", "").strip() or None,
        "OIDC_NAME": one_line(settings.get("OIDC_NAME", "")) or urlsplit(issuer or "").hostname,
        "OIDC_SCOPES": " ".join(dict.fromkeys(["openid", *scopes])),
    }


def read_issuer(settings):
    """Return the address a provider calls itself by, but for a slash at its end, or None."""
    text = settings.get("OIDC_ISSUER", "").strip().removesuffix(WELL_KNOWN)
    if not text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        whole = parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        whole = False
    if not whole or parts.query or parts.fragment or re.search(r"\s", text) or len(text) > 250:
        refuse("OIDC_ISSUER must be the address of the provider, as in https://login.example.org.")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_near(parts.hostname or "")):
        refuse("OIDC_ISSUER must begin with https://, unless it is in a network of your own.")
    return parts.geturl().rstrip("/")
