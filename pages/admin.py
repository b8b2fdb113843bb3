"""What an administrator does: people, budgets, invitations, who may sign up; nobody's chats.

For everybody else there is nothing here.
"""

import logging
import re
from decimal import Decimal

import click
from flask import (
    Blueprint,
    abort,
    flash,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask_login import current_user

from chattable.database import persistent
from models import db
from pages import invitations, people, policy, reset
from pages.accounts import normal_email
from pages.words import one_line

LISTED = 50  # people, or invitations
LARGEST_ID = 2**31 - 1
DOLLARS = re.compile(r"\$? ?([0-9]{1,6}(\.[0-9]{1,2})?)")
ONESELF = "Another administrator has to do this for you."
LAST = "There would be no administrator left. Make somebody else one first."

routes = Blueprint("admin", __name__, url_prefix="/admin", cli_group=None)
log = logging.getLogger(__name__)


def init_app(app):
    """Let an app have administrators."""
    app.register_blueprint(routes)


@routes.before_request
def admit_administrators():
    if not current_user.admin:
        abort(404)


# People.


@routes.get("")
def list_people():
    words = one_line(request.args.get("q", ""))[:200]
    listed = people.list_people(LISTED + 1, before(), words)
    more = listed[LISTED - 1].User.id if len(listed) > LISTED else None
    return render_template("admin/people.html", listed=listed[:LISTED], more=more, words=words)


def before():
    """Return the id below which the list goes on that a page has begun."""
    word = request.args.get("before", "")
    return int(word) if re.fullmatch("[0-9]{1,9}", word) else LARGEST_ID


@routes.get("/people/<int:user_id>")
def show_person(user_id):
    return show_found(person_or_404(user_id))


def person_or_404(user_id):
    return people.find_person(user_id) or abort(404)


def show_found(row, budget=None, errors=None):
    """Show a person; `budget` is what was typed instead of the one they have."""
    if budget is None and row.User.budget is not None:
        budget = f"{row.User.budget:.2f}"
    context = {"row": row, "budget": budget, "errors": errors or {}, "handed": handed_over()}
    return render_template("admin/person.html", **context)


@routes.post("/people/<int:user_id>")
def change_person(user_id):
    """Give somebody a budget, disable them or make them an administrator, as the form says."""
    row = person_or_404(user_id)
    if "budget" in request.form:
        return set_budget(row)
    if sentence := change_standing(row.User):
        return show_found(row, errors={"form": sentence}), 409
    return show_again(row.User)


def show_again(person):
    return redirect(url_for("admin.show_person", user_id=person.id), 303)


def set_budget(row):
    text = one_line(request.form["budget"])
    dollars = DOLLARS.fullmatch(text)
    if text and not dollars:
        sentence = "Enter dollars a month, as in 20 or 12.50, or nothing for the server's budget."
        return show_found(row, text[:80], {"budget": sentence}), 422
    row.User.budget = Decimal(dollars[1]) if dollars else None
    db.session.commit()
    note(row.User, f"budget={row.User.budget}")
    flash("The budget is saved.")
    return show_again(row.User)


@persistent
def change_standing(person):
    """Make somebody an administrator or not, disable or enable them; return why not, or None."""
    if person.id == current_user.id:
        return ONESELF
    admin, disabled = request.form.get("admin"), request.form.get("disabled")
    if (admin == "0" or disabled == "1") and people.is_last_admin(person):
        db.session.rollback()
        return LAST
    if admin in ("0", "1"):
        person.admin = admin == "1"
        db.session.commit()
    if disabled in ("0", "1"):
        (people.disable if disabled == "1" else people.enable)(person)
        flash("They are logged out, and cannot log in." if disabled == "1" else "They can log in.")
    note(person, f"admin={admin} disabled={disabled}")
    return None


@routes.post("/people/<int:user_id>/reset")
def make_reset_link(user_id):
    """Make a link with which somebody who has forgotten their password sets another, once."""
    person = person_or_404(user_id).User
    hand_over("Hand this link to them. It sets a new password, once:", reset.reset_link(person))
    note(person, "a link to reset the password")
    return show_again(person)


def note(person, change):
    """Tell the log who has changed what of whom."""
    log.info("administrator %s changed user %s: %s", current_user.id, person.id, change)


# Signing up.


@routes.get("/signup")
def show_policy():
    return show_signing_up({"days": invitations.DAYS})


def show_signing_up(form, **errors):
    listed = invitations.list_invitations(LISTED + 1, before())
    more = listed[LISTED - 1][0].id if len(listed) > LISTED else None
    context = {"listed": listed[:LISTED], "more": more, "form": form, "errors": errors}
    context |= {"rule": policy.rule(), "decided": policy.decided(), "handed": handed_over()}
    return render_template("admin/signup.html", **context, fault=invitations.fault)


@routes.post("/signup")
def choose_policy():
    """Keep who may sign up, where SIGNUP does not say it."""
    chosen = request.form.get("rule")
    if chosen not in policy.RULES:
        return show_signing_up({"days": invitations.DAYS}, rule="Pick one of the three."), 422
    if policy.decided() == "environment":
        return show_signing_up({"days": invitations.DAYS}, rule="SIGNUP decides here."), 409
    policy.choose(chosen)
    flash("Saved: who may sign up.")
    return redirect(url_for("admin.show_policy"), 303)


@routes.post("/invitations")
def create_invitation():
    whom, days = one_line(request.form.get("note", "")), request.form.get("days", "").strip()
    errors = {}
    if len(whom) > invitations.NOTE_LENGTH:
        errors["note"] = f"Use at most {invitations.NOTE_LENGTH} characters."
    if not re.fullmatch("[0-9]{1,2}", days) or not 1 <= int(days) <= invitations.MOST_DAYS:
        errors["days"] = f"Enter a whole number of days, from 1 to {invitations.MOST_DAYS}."
    if errors:
        return show_signing_up({"note": whom, "days": days}, **errors), 422
    word = invitations.invite(whom, int(days))
    link = url_for("accounts.sign_up", invitation=word, _external=True)
    hand_over("Send this link to one person. It is shown only now:", link)
    return redirect(url_for("admin.show_policy"), 303)


@routes.post("/invitations/<int:invitation_id>/delete")
def revoke_invitation(invitation_id):
    if not invitations.revoke(invitation_id):
        abort(404)
    flash("The invitation is revoked: its link lets nobody in any more.")
    return redirect(url_for("admin.show_policy"), 303)


def hand_over(sentence, link):
    """Show a link on the next page, and never again."""
    session["handed"] = sentence, link


def handed_over():
    return session.pop("handed", None)


# The command line.


@routes.cli.command("make-admin")
@click.argument("email")
def make_admin(email):
    """Make somebody with an account an administrator."""
    person = people.with_email(normal_email(email) or "")
    if person is None:
        raise click.ClickException(f"There is no account with the e-mail address {email}.")
    person.admin = True
    db.session.commit()
    more = " They are disabled: another administrator can enable them." if person.disabled else ""
    click.echo(f"{person.email} is an administrator now.{more}")
