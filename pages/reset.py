"""A new password for who has forgotten theirs: a link, by mail or from whoever runs this server."""

from hashlib import sha256
from urllib.parse import urlsplit

import click
from flask import Blueprint, current_app, flash, redirect, render_template, request, url_for
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from markupsafe import Markup

from chattable.database import persistent
from models import User
from pages import limits, mail, passwords, people
from pages.accounts import enter, normal_email, what_no_password_is
from pages.errors import problem
from pages.hosts import own_address

HOUR = 3600

SENT = (
    "If there is an account with the address {}, a mail with a link is on its way there. "
    "The link is good for an hour; look among the spam, too."
)
EXPIRED = "This link was good for an hour, which is over. {}"
USED = "This link was used already, or another change of the account came first. {}"
WRONG = "This link is not whole. Copy all of it from where you got it. {}"
CHANGED = "You have a new password. Every other browser was logged out."
NO_MAIL = "This server sends no mail. Ask whoever runs it for a link."

# Nothing in them is a person's own words: a stranger may sign up with anybody's address.
ASKED = """\
Hello,

somebody, probably you, asked for a new password for your account at {host}.
Set it within an hour here:

{link}

If it was not you, there is nothing to do: your password stays as it is.
"""
routes = Blueprint("reset", __name__, cli_group=None)


class BadLink(Exception):
    """A link is good no more; the message is the sentence they are told, with {} for the advice."""


def init_app(app):
    """Let people who have forgotten their password set another one."""
    app.register_blueprint(routes)


@routes.route("/forgot", methods=["GET", "POST"])
def ask():
    """Send a link by mail; the answer, and its time, does not tell whether there is an account."""
    if not current_app.config["SMTP_URL"]:
        return problem(NO_MAIL, 404)
    if request.method != "POST":
        return render_template("accounts/forgot.html", form=request.args, errors={})
    email = normal_email(request.form.get("email", ""))
    if not email:
        errors = {"email": "Enter an e-mail address like ada@example.org."}
        return render_template("accounts/forgot.html", form=request.form, errors=errors), 422
    limits.ask_reset(email)
    if root := mail.public_address():
        mail.have_done(mail_link, email, root)
    else:
        current_app.logger.error("no mail is sent: set ALLOWED_HOSTS, its links begin with a name")
    flash(SENT.format(email))
    return redirect(url_for("accounts.log_in"))


def mail_link(email, root):
    """Mail a link to whoever has an account with an address, if anybody; run by a worker."""
    user = persistent(people.with_email)(email)
    if not user or user.disabled:
        return
    with current_app.test_request_context(base_url=root):
        text = ASKED.format(host=request.host, link=reset_link(user))
    # Not to what was typed: it may be spelled otherwise.
    mail.deliver(user.email, "A new password for Chattable", text)


@routes.route("/reset", methods=["GET", "POST"])
def choose():
    """Set the password that somebody with a link chooses, and log them in."""
    try:
        user = whose(request.args.get("token", ""))
    except BadLink as sentence:
        return problem(Markup(sentence).format(advice()), 410)
    if request.method != "POST":
        return show_choice(user)
    password = request.form.get("password", "")
    if error := what_no_password_is(password):
        return show_choice(user, {"password": error}, 422)
    if not passwords.take_back_keys(user):
        return problem(Markup(USED).format(advice()), 410)
    passwords.change(user, password)
    enter(user)
    mail.tell_of_password(user.email)
    flash(CHANGED)
    return redirect(url_for("chats.list_chats"))


def show_choice(user, errors=None, status=200):
    page = render_template("accounts/reset.html", user=user, errors=errors or {})
    # The address is the secret: nobody is told it, and no browser keeps the page.
    return page, status, {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


def advice():
    """Return how to get another link."""
    if not current_app.config["SMTP_URL"]:
        return "Ask whoever runs this server for another."
    return Markup('<a href="{}">Ask for another</a>.').format(url_for("reset.ask"))


# Links.


def reset_link(user: User) -> str:
    """Return the address, with the name of this request's, where a user may set a password once."""
    token = links().dumps([user.public_id, state(user)])
    return url_for("reset.choose", token=token, _external=True)


def whose(token):
    """Return the user whom a link is for. Raises `BadLink`."""
    try:
        public_id, then = links().loads(token, max_age=HOUR)
    except SignatureExpired:
        raise BadLink(EXPIRED) from None
    except BadSignature:
        raise BadLink(WRONG) from None
    user = people.known_as(public_id)
    if not user or user.disabled or then != state(user):
        raise BadLink(USED)
    return user


def links():
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt="reset")


def state(user):
    """Return what is another once a link has been used, or the account has another address."""
    return sha256(f"{user.password_hash} {user.email}".encode()).hexdigest()[:32]


@routes.cli.command("reset-password")
@click.argument("email")
def reset_password(email):
    """Print a link with which the account of EMAIL can have a new password, once."""
    user = people.with_email(normal_email(email) or "")
    if not user or user.disabled:
        none = f"There is no account with the e-mail address {email}."
        raise click.ClickException("This account is disabled." if user else none)
    with current_app.test_request_context():  # it knows the path where we are mounted
        link, server = reset_link(user), own_address()
    here, hint = (server, "") if server else ("", "add your address; ")
    click.echo(f"{here}{urlsplit(link).path}?{urlsplit(link).query}   ({hint}valid for an hour)")
