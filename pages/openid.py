"""Logging in by an OpenID Connect provider: to it, back from it, and into whose account.

Nobody has confirmed the e-mail addresses here: an account may be a stranger's who signed up with
that address first. So whoever comes with it from the provider logs in by the account's password
once, or sets another by a link, which keeps out all who had come in before.
"""

import re
import time

from flask import (
    Blueprint,
    abort,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask_login import current_user

from chattable.database import reason
from pages import invitations, limits, people
from pages.accounts import asked_for, enter, greet, normal_email, safe_next
from pages.identities import Identity
from pages.words import one_line

# Seconds: for so long the provider may ask; it is believed what it said of itself.
PATIENCE, KNOWN = 3600, 3600
# Of one browser at a time, and what a cookie has room for of each.
FLOWS, LONGEST = 3, 300
NAMES = "name", "given_name", "nickname", "preferred_username"

AWAY = "{} cannot be reached right now. Try again in a moment."
STALE = "Logging in took too long, or was begun in another browser. Try again."
DENIED = "{} did not let you in, or you did not agree. Try again."
WRONG = "What {} answered is not right. Try again; if it stays so, tell whoever runs this server."
UNVERIFIED = "{} has not confirmed your e-mail address. Confirm it there, then try again."
KNOWN_ADDRESS = (
    "There is an account with your e-mail address, {email}. Log in with its password once; "
    "from then on {} is enough."
)

routes = Blueprint("openid", __name__, url_prefix="/login/openid")


class Refused(Exception):
    """Somebody is not let in; the message is the sentence they are told."""


class UnknownHere(Exception):
    """Somebody is to show first that an account with their address, the message, is theirs."""


def init_app(app):
    """Let people log in by the provider, if there is one."""
    app.register_blueprint(routes)


@routes.get("")
def leave():
    """Send a browser to the provider, and note what it is to come back with."""
    provider = known_provider() or abort(404)
    try:
        begun = provider.create_authorization_url(url_for("openid.come_back", _external=True))
    except Exception as error:  # whatever it is, it is the provider's
        return back_to_log_in(AWAY, error, asked_for())
    note_flow(begun)
    if current_user.is_authenticated:
        # From the log-in form, perhaps: our own policy lets no form lead to another site.
        page = render_template("accounts/onward.html", address=begun["url"])
        return page, {"Refresh": f"0; url={begun['url']}"}
    return redirect(begun["url"])


@routes.get("/callback")
def come_back():
    """Let in whom the provider has sent back."""
    provider, flow = known_provider() or abort(404), take_flow(request.args.get("state", ""))
    if flow is None:
        # Somebody went back, or has two pages of it; or was led here.
        return redirect(safe_next()) if current_user.is_authenticated else back_to_log_in(STALE)
    if "error" in request.args:
        return back_to_log_in(DENIED, shortened(request.args["error"]), flow["next"])
    try:
        claims = provider.claims(request.args, flow, url_for("openid.come_back", _external=True))
    except Exception as error:  # whatever it is, it is the provider's
        return back_to_log_in(WRONG, error, flow["next"])
    try:
        user, page = whose(claims, flow["invitation"])
    except Refused as sentence:
        return back_to_log_in(str(sentence), next=flow["next"])
    except UnknownHere as email:
        session["confirmed"] = str(email)
        # Once they are logged in, the provider is asked again.
        return back_to_log_in(
            KNOWN_ADDRESS, next=url_for("openid.leave", next=flow["next"]), email=email
        )
    enter(user)
    if page == "chats.new_chat":
        greet(user)
    return redirect(flow["next"] or url_for(page))


def back_to_log_in(sentence, why=None, next=None, email=None):
    if why:
        current_app.logger.warning("OpenID Connect: %s", told(why))
    flash(sentence.format(current_app.config["OIDC_NAME"], email=email))
    return redirect(url_for("accounts.log_in", next=next))


def told(why):
    """Return what the log is told: the words of an error may have a code or a key in them."""
    if not isinstance(why, Exception):
        return why
    code = getattr(why, "error", "")
    return f"{type(why).__name__} {shortened(code)}" if code else reason(why)


def shortened(word):
    return re.sub(r"[^\w.-]", "?", word[:60])


# The way there and back.


def known_provider():
    """Return the provider, as it said it is within the last hour, or None if there is none."""
    if not current_app.config["OIDC_ISSUER"]:
        return None
    provider, since = current_app.extensions.get("openid", (None, 0))
    if time.monotonic() - since > KNOWN or not provider:
        # Here, for nobody else needs Authlib.
        from pages.openid_provider import Provider

        provider = Provider(current_app.config)
        current_app.extensions["openid"] = provider, time.monotonic()
    return provider


def note_flow(begun):
    """Keep in the browser's session what makes an answer its own; several tabs may be underway."""
    kept = {name: begun[name] for name in ("nonce", "code_verifier")}
    place, invitation = asked_for() or "", request.args.get("invitation", "")
    kept["next"] = place if 0 < len(place) <= LONGEST else None
    kept["invitation"] = invitation[:LONGEST]
    flows = [*session.get("openid", {}).items()][1 - FLOWS :]
    session["openid"] = dict([*flows, (begun["state"], kept | {"at": int(time.time())})])


def take_flow(state):
    """Return what was noted of an answer's way there, once; None if it is another browser's."""
    flows = session.get("openid", {})
    flow = flows.get(state)
    if flow:
        session["openid"] = {name: other for name, other in flows.items() if name != state}
    return flow if flow and time.time() - flow["at"] < PATIENCE else None


# Whose account it is.


def whose(claims, invitation):
    """Return (user, endpoint of the page to show) for whom the provider knows."""
    user = Identity.owner(claims["iss"], claims["sub"])
    if user:
        return user, "chats.list_chats"
    email = confirmed_email(claims)
    if known := people.with_email(email):
        return let_in_from_now_on(known, claims), "chats.list_chats"
    user = make_account(name_in(claims, email), email, invitation)
    Identity.give(claims["iss"], claims["sub"], user)
    return user, "chats.new_chat"


def make_account(name, email, invitation):
    why_not, admission = invitations.admission(invitation)
    if why_not:
        raise Refused(why_not)
    limits.sign_up()
    try:
        user = people.sign_up(name, email, None, **admission)
    except invitations.Uninvited:  # somebody else was faster
        raise Refused(invitations.admission(invitation)[0]) from None
    if not user:  # another tab was
        raise Refused(STALE)
    return user


def let_in_from_now_on(user, claims):
    """Link an account that was there before, if its owner is logged in here."""
    if current_user != user:
        raise UnknownHere(user.email)
    Identity.give(claims["iss"], claims["sub"], user)
    return user


def confirmed_email(claims):
    email = claims.get("email")
    # Some say it in a word.
    if claims.get("email_verified") not in (True, "true") or not isinstance(email, str):
        raise Refused(UNVERIFIED)
    if not (ours := normal_email(email)):
        raise Refused(UNVERIFIED)
    return ours


def name_in(claims, email):
    """Return what to call somebody: as the provider does, else as their address begins."""
    names = (one_line(claims[name]) for name in NAMES if isinstance(claims.get(name), str))
    return next(filter(None, names), email.partition("@")[0])[:80]
