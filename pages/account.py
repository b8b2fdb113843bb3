"""One's own account: name, e-mail address, password, where one is logged in, and leaving."""

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
from flask_login import current_user, logout_user

from pages import limits, logins, mail, passwords, people
from pages.accounts import (
    NAME_LENGTH,
    enter,
    normal_email,
    what_no_password_is,
)
from pages.identities import Identity
from pages.words import one_line

LISTED = 50  # log-ins
WRONG = "That is not your password."
WRONG_EMAIL = "That is not your e-mail address."
TAKEN = "There is another account with this e-mail address."
LAST = "You are the last administrator here. Name another one first."
# What a browser's own words for itself have, in the order in which it is to be looked for: most
# claim to be several others, too.
BROWSERS = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "CriOS/": "Chrome",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}
SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}

routes = Blueprint("account", __name__)


def init_app(app):
    """Give everybody a page for their account."""
    app.register_blueprint(routes)


@routes.get("/account")
def show_account():
    return show_page({}, {})


def show_page(form, errors):
    theirs = logins.all_of(current_user)
    listed = [(each, browser_of(each.agent)) for each in theirs[:LISTED]]
    context = {"form": form, "errors": errors, "logins": listed, "more": len(theirs) - len(listed)}
    context["providers"] = [*map(name_of, Identity.issuers(current_user))]
    return render_template("accounts/account.html", **context)


def name_of(issuer):
    ours = issuer == current_app.config["OIDC_ISSUER"]
    return current_app.config["OIDC_NAME"] if ours else issuer.partition("://")[2]


def browser_of(agent):
    """Return a browser and its system in words, as far as its `User-Agent` tells."""
    browser, system = named(BROWSERS, agent), named(SYSTEMS, agent)
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or agent[:60] or "An unknown browser"


def named(known, agent):
    return next((name for word, name in known.items() if word in agent), None)


@routes.post("/account")
def change_name():
    name = one_line(request.form.get("name", ""))
    if not 1 <= len(name) <= NAME_LENGTH:
        error = f"Enter your name, with at most {NAME_LENGTH} characters."
        return show_page({"name": name}, {"name": error}), 422
    people.change(current_user, name=name)
    return done("Your name is changed.")


def done(sentence):
    flash(sentence)
    return redirect(url_for("account.show_account"), 303)


@routes.post("/account/email")
def change_email():
    form = {"email": request.form.get("email", "")}
    email = normal_email(form["email"])
    if not is_password(request.form.get("password", "")):
        return show_page(form, {"password": WRONG}), 422
    if not email:
        return show_page(form, {"email": "Enter an e-mail address like ada@example.org."}), 422
    before = current_user.email
    if not people.change(current_user, email=email):
        return show_page(form, {"email": TAKEN}), 422
    mail.tell_of_address(before)
    return done("Your e-mail address is changed.")


def is_password(password):
    """Return whether it is theirs: whoever sits at an open browser is not to find it out here."""
    attempt = limits.try_password(current_user.email)
    right = passwords.authenticate(current_user.email, password) is not None
    if right:
        limits.forgive(attempt)
    return right


@routes.post("/account/password")
def change_password():
    """Take another password, end all log-ins, and begin one here."""
    if not is_password(request.form.get("old_password", "")):
        return show_page({}, {"old_password": WRONG}), 422
    password = request.form.get("new_password", "")
    if error := what_no_password_is(password):
        return show_page({}, {"new_password": error}), 422
    # Not the proxy: it stands for nobody in between.
    user, remembered = current_user._get_current_object(), session.permanent
    passwords.change(user, password)
    enter(user)
    session.permanent = remembered
    mail.tell_of_password(user.email)
    return done("Your password is changed, and you are logged out everywhere else.")


@routes.post("/account/logins/<int:login_id>/end")
def end_login(login_id):
    if not logins.end_one(current_user, login_id):
        abort(404)
    return done("That browser is logged out.")


@routes.post("/account/logins/end")
def end_other_logins():
    logins.end_all(current_user, but=current_user.login)
    return done("You are logged out everywhere else.")


@routes.post("/account/identities/delete")
def delete_identities():
    """Let no provider in any more: one's address, or one's account there, may be another's now."""
    if not current_user.password_hash:
        return show_page({}, {"identities": True}), 409
    if not is_password(request.form.get("identity_password", "")):
        return show_page({}, {"identity_password": WRONG}), 422
    Identity.take_all(current_user)
    return done("Only your password logs you in now.")


@routes.post("/account/delete")
def delete_account():
    """Delete the account with all that is in it; without a password, its address confirms."""
    if not current_user.password_hash:
        if normal_email(request.form.get("leaving_email", "")) != current_user.email:
            return show_page({}, {"leaving_email": WRONG_EMAIL}), 422
    elif not is_password(request.form.get("leaving_password", "")):
        return show_page({}, {"leaving_password": WRONG}), 422
    if not people.resign(current_user):
        return show_page({}, {"leaving": LAST}), 409
    reader = current_user.get_id()
    people.delete_account(current_user)
    logout_user()
    session.clear()
    return render_template("accounts/gone.html", reader=reader)
