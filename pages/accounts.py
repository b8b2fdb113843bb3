"""Accounts: signing up, by invitation where it is so, logging in and out, who may see what."""

from urllib.parse import urlsplit

from flask import (
    Blueprint,
    abort,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask_login import LoginManager, current_user, login_user, logout_user
from markupsafe import Markup

from pages import invitations, limits, logins, passwords, people, policy
from pages.errors import problem
from pages.mail import valid_email
from pages.words import one_line

NAME_LENGTH = 80
PASSWORD_LENGTH = 8
LOGGED_IN = "You are logged in already. Log out first to make another account by this invitation."
# Whoever reloads the page is asked to log in, and comes back to it.
SIGNED_OUT = Markup('You are logged out. <a href="">Log in again</a>; your text is kept.')
DISABLED = "This account cannot log in now. Ask whoever runs this server."
FIRST = "You are this server's administrator: invite people under Administration."
# Endpoints that need no login; the socket asks for itself, in its own language.
OPEN = {
    "static",
    "chattable.static",
    "accounts.sign_up",
    "accounts.log_in",
    "openid.leave",
    "openid.come_back",
    "reset.ask",
    "reset.choose",
    "health.up",
    "health.ready",
    "metrics.show_metrics",
    "__flask_sock.updates",
    "__flask_sock.list_updates",
}

routes = Blueprint("accounts", __name__)
login_manager = LoginManager()


def init_app(app):
    """Have an app ask who is there before it shows anything."""
    login_manager.init_app(app)
    login_manager.unauthorized_handler(ask_to_log_in)
    login_manager.user_loader(whoever_is_here)
    app.register_blueprint(routes)
    invitations.init_app(app)
    app.before_request(require_login)


def whoever_is_here(public_id):
    token = session.get("login")
    return logins.logged_in(public_id, token) if token else None


def require_login():
    if request.endpoint in OPEN:
        return None
    if not current_user.is_authenticated:
        return ask_to_log_in()
    logins.note_use(current_user, request.remote_addr or "")


def ask_to_log_in():
    if request.headers.get("HX-Request"):
        return problem(SIGNED_OUT, 401)
    page = request.script_root + request.full_path.rstrip("?")
    if request.method not in ("GET", "HEAD"):  # nobody comes back to an address that takes forms
        page = urlsplit(request.referrer or "").path or url_for("chats.home")
    return redirect(url_for("accounts.log_in", next=page))


@routes.route("/signup", methods=["GET", "POST"])
def sign_up():
    word = request.args.get("invitation", "")
    if word and current_user.is_authenticated:
        return problem(LOGGED_IN, 409)
    why_not, admission = invitations.admission(word)
    if why_not:
        return refuse_sign_up(why_not)
    if request.method != "POST":
        return show_sign_up({}, {})
    form, errors = check_sign_up(request.form)
    if errors:
        return show_sign_up(form, errors), 422
    limits.sign_up()
    try:
        user = people.sign_up(form["name"], form["email"], request.form["password"], **admission)
    except invitations.Uninvited:  # somebody else was faster
        return refuse_sign_up(invitations.admission(word)[0])
    if not user:
        taken = "There is an account with this e-mail address already. Log in instead."
        return show_sign_up(form, {"email": taken}), 422
    enter(user)
    greet(user)
    return redirect(first_page())


def greet(user):
    """Tell the first who comes what only they can do."""
    if user.admin:
        flash(FIRST)


def refuse_sign_up(sentence):
    """Say why somebody may not sign up; what they have filled in meanwhile stays."""
    if request.method != "POST":
        return problem(sentence, 403, title="Signing up")
    form = {name: request.form.get(name, "") for name in ("name", "email")}
    return show_sign_up(form, {"form": sentence}), 403


def first_page():
    """Return where to go after signing up: the list of chats is empty."""
    target = safe_next()
    empty = url_for("chats.home"), url_for("chats.list_chats")
    return url_for("chats.new_chat") if target in empty else target


def check_sign_up(form):
    """Return (cleaned form, errors by field)."""
    name, errors = one_line(form.get("name", "")), {}
    if not 1 <= len(name) <= NAME_LENGTH:
        errors["name"] = f"Enter your name, with at most {NAME_LENGTH} characters."
    email = normal_email(form.get("email", ""))
    if not email:
        errors["email"] = "Enter an e-mail address like ada@example.org."
    if error := what_no_password_is(form.get("password", "")):
        errors["password"] = error
    return {"name": name, "email": email or form.get("email", "")}, errors


def what_no_password_is(password):
    """Return what is wrong with a new password, or None."""
    if len(password) < PASSWORD_LENGTH:
        return f"Use at least {PASSWORD_LENGTH} characters."
    return "Use at most 1,000 characters." if len(password) > 1000 else None


def normal_email(address):
    """Return the address in the one form we store, or None if it is not one.

    Case and the spelling of the domain make no other account, a + does. A team's own network has
    names that nobody else knows: ada@localhost, ada@team.local.
    """
    valid = valid_email(address.strip().removesuffix("."))
    return valid.normalized.lower() if valid else None


def show_sign_up(form, errors):
    invitation = request.args.get("invitation")
    context = {"form": form, "errors": errors, "next": asked_for(), "invitation": invitation}
    return render_template("accounts/signup.html", **context)


@routes.route("/login", methods=["GET", "POST"])
def log_in():
    if request.method != "POST":
        return show_log_in({"email": session.pop("confirmed", "")}, {})
    email, password = request.form.get("email", ""), request.form.get("password", "")
    account = normal_email(email) or ""
    attempt = limits.try_password(account)
    user = passwords.authenticate(account, password)
    if user is None:
        wrong = {"form": "That e-mail address and password do not go together."}
        return show_log_in({"email": email}, wrong), 422
    limits.forgive(attempt)
    enter(user)
    session.permanent = "remember" in request.form
    return redirect(safe_next())


def enter(user):
    """Log a user in here, instead of whoever was; answer 403 if the account is disabled.

    Forms that were shown before are not accepted any more.
    """
    agent, address = one_line(request.user_agent.string), request.remote_addr or ""
    login = logins.begin(user, user.password_hash, agent, address)
    if not login:
        abort(make_response(problem(DISABLED, 403)))
    leave()
    login_user(user)
    user.login, session["login"] = login, login.token
    limits.know_browser(user)
    policy.note_public_name()


def leave():
    """End the log-in by which this browser is here, if it is, and forget its session."""
    if current_user.is_authenticated:
        logins.end_one(current_user, current_user.login.id)
    logout_user()
    session.clear()


def show_log_in(form, errors):
    context = {"form": form, "errors": errors, "next": asked_for()}
    return render_template("accounts/login.html", **context, rule=policy.rule_if_known())


def safe_next():
    """Return where to go after signing in."""
    return asked_for() or url_for("chats.list_chats")


def asked_for():
    """Return the page that somebody who was to log in had asked for: a path of ours, or None."""
    target, root = request.values.get("next") or "", f"{request.script_root}/"
    ours = target.startswith(root) and not target.startswith("//") and "\\" not in target
    return target if ours and target.isprintable() else None


@routes.post("/logout")
def log_out():
    leave()
    return redirect(url_for("accounts.log_in"))
