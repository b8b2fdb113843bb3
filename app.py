"""The Flask app: sign-in, chats and messages, the socket, the command line."""

import hashlib
import os
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import click
import humanize
from dotenv import dotenv_values
from email_validator import EmailNotValidError, validate_email
from flask import (
    Blueprint,
    Flask,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.cli import ScriptInfo
from flask.sessions import SecureCookieSessionInterface
from flask_compress import Compress
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager, current_user, login_user, logout_user
from flask_sock import Sock
from flask_wtf.csrf import CSRFError, CSRFProtect
from itsdangerous import BadSignature, URLSafeTimedSerializer
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException
from werkzeug.routing import IntegerConverter

import jobs
from chattable import connections, init_app, live
from chattable import markdown as markup
from models import Chat, User, db
from pages.settings import read_settings, refuse_other_encodings

HERE = Path(__file__).resolve().parent
DEFAULT_MODELS = ["gpt-5-mini", "gpt-5", "gpt-4o-mini"]
PASSWORD_LENGTH = 8
INVITATION_DAYS = 7
SIDEBAR = 50
LARGEST_ID = 2**31 - 1
# Endpoints that need no login; the socket asks for itself, in its own language.
OPEN = {"static", "chattable.sign_up", "chattable.log_in", "chattable.up", "__flask_sock.updates"}
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
REDIS_AWAY = "The server cannot take messages right now. Your text is kept; try again in a moment."
BUSY = "A reply is still being written. Wait for it or stop it; your text is kept."

pages = Blueprint("chattable", __name__)
login_manager = LoginManager()
csrf = CSRFProtect()
limiter = Limiter(get_remote_address)
compress = Compress()
sock = Sock()


def create_app(config=None):
    """Return the Flask app; `config` (a dict) overrides the environment.

    Exits with one sentence that names the variable when a value is missing or wrong.
    """
    settings = {**os.environ, **(config or {})}
    instance = Path(settings.get("INSTANCE_PATH") or "instance").resolve()
    # What `uv run chattable` started there is good for a `flask shell` beside it, too.
    settings = {**dotenv_values(instance / "running.env"), **settings}
    app = Flask(
        __name__,
        root_path=str(HERE),
        instance_path=str(instance),
        static_url_path=f"/static/{digest(HERE / 'static')}",
    )
    app.config.from_mapping(read_settings(settings, instance))
    app.session_interface = SecureWhenEncrypted()
    app.url_map.converters["int"] = IdConverter
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    for extension in (db, login_manager, csrf, limiter, compress):
        extension.init_app(app)
    connections.tune(app)
    init_app(app, db)
    app.register_blueprint(pages)
    sock.init_app(app)
    add_to_templates(app)
    add_handlers(app)
    app.cli.add_command(migrate)
    app.cli.add_command(work)
    app.cli.add_command(invite)
    refuse_other_encodings(app)
    return app


def digest(folder):
    """Return a short hash of all files in a folder: browsers may keep what lies under it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


class SecureWhenEncrypted(SecureCookieSessionInterface):
    """Mark the session cookie Secure exactly where the browser came over TLS."""

    def get_cookie_secure(self, app):
        return request.is_secure


# Templates and answers.


def add_to_templates(app):
    app.jinja_env.globals["dom_id"] = dom_id
    app.jinja_env.filters |= {
        "dollars": dollars,
        "markdown": markup.render,
        "time_in_words": time_in_words,
    }

    @app.context_processor
    def sidebar():
        known = current_user.is_authenticated
        return {
            "chats": current_user.chats_by_recency(SIDEBAR) if known else [],
            "models": available_models() if known else [],
            "demo": app.config["DEMO_MODEL"],
        }


def dom_id(thing, part=None):
    """Return the id of a record's element: "message-9", or of a part of it: "message-9-body"."""
    name = f"{type(thing).__name__.lower()}-{thing.id}"
    return f"{name}-{part}" if part else name


def dollars(amount):
    """Return a sum for people, with enough digits to be non-zero: "$0.0010", "$0.00002"."""
    if amount is None:
        return "price unknown"
    places = 4
    while amount and places < 12 and amount < Decimal(1).scaleb(-places):
        places += 1
    return f"${amount:,.{places}f}"


def time_in_words(moment):
    age = datetime.now(UTC) - moment
    return "just now" if age.total_seconds() < 60 else humanize.naturaltime(age)


class IdConverter(IntegerConverter):
    """A number in a path that a database can have."""

    def __init__(self, url_map):
        super().__init__(url_map, max=LARGEST_ID)


def database_id(text):
    """Return a number from a form or a query; raise ValueError if no database can have it."""
    number = int(text)
    if abs(number) > LARGEST_ID:
        raise ValueError
    return number


def add_handlers(app):
    app.before_request(require_login)
    app.after_request(add_security_headers)
    app.register_error_handler(CSRFError, lambda _: problem(EXPIRED, 400))
    app.register_error_handler(HTTPException, show_error)
    app.register_error_handler(SQLAlchemyError, database_away)
    app.register_error_handler(RedisError, lambda _: problem(REDIS_AWAY, 503))
    login_manager.unauthorized_handler(ask_to_log_in)
    login_manager.user_loader(User.known_as)


EXPIRED = "This page is too old. Reload it and try again; your text is kept."
SENTENCES = {
    403: "This is not allowed.",
    404: "There is nothing here, or it is not yours.",
    405: "This address does not work that way.",
    413: "That is too much at once. Shorten it and try again.",
    429: "Too many attempts. Wait a minute, then try again.",
}


def require_login():
    if request.endpoint not in OPEN and not current_user.is_authenticated:
        return ask_to_log_in()


def ask_to_log_in():
    if request.headers.get("HX-Request"):
        return problem("You are signed out. Log in again; your text is kept.", 401)
    return redirect(url_for("chattable.log_in", next=request.full_path.rstrip("?")))


def add_security_headers(response):
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if "_user_id" in session and request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def show_error(error):
    if error.code is None or error.code < 400:
        return error
    return problem(SENTENCES.get(error.code, "That did not work. Try again."), error.code)


def database_away(error):
    db.session.rollback()
    current_app.logger.error("database: %s", type(error).__name__, exc_info=error)
    return problem("The database is busy or away. Nothing is lost; try again in a moment.", 503)


def problem(sentence, status):
    """Answer with one sentence: as a part of the page for HTMX, else as a page of its own.

    It asks nobody: what went wrong may be the very database that other pages ask.
    """
    if request.headers.get("HX-Request"):
        return live.render("messages/_error.html", error=sentence), status
    nobody = login_manager.anonymous_user()
    context = {"sentence": sentence, "status": status, "fields": written_fields()}
    return live.render("error.html", current_user=nobody, **context), status


def written_fields():
    """Return what a form brought, but no secrets: without JavaScript nobody else keeps it."""
    try:
        fields = request.form.items()
    except HTTPException:
        return {}  # it is more than the server reads
    return {
        name: value for name, value in fields if name != "csrf_token" and "password" not in name
    }


# Accounts.


@pages.route("/signup", methods=["GET", "POST"])
def sign_up():
    invitation = request.args.get("invitation", "")
    if not may_sign_up(invitation):
        return problem("Signing up is by invitation here. Ask whoever runs this server.", 403)
    if request.method == "GET":
        return show_sign_up({}, {})
    form, errors = check_sign_up(request.form)
    if not errors:
        user = User.sign_up(form["name"], form["email"], request.form["password"])
        if user:
            login_user(user)
            return redirect(safe_next())
        errors = {"email": "There is an account with this e-mail address already. Log in instead."}
    return show_sign_up(form, errors), 422


def may_sign_up(invitation):
    if current_app.config["SIGNUP"] == "invite":
        try:
            invitations().loads(invitation, max_age=INVITATION_DAYS * 86400)
        except BadSignature:
            return False
    return current_app.config["SIGNUP"] != "closed"


def invitations():
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt="invitation")


def check_sign_up(form):
    """Return (cleaned form, errors by field)."""
    name, errors = one_line(form.get("name", "")), {}
    if not 1 <= len(name) <= 80:
        errors["name"] = "Enter your name, with at most 80 characters."
    email = normal_email(form.get("email", ""))
    if not email:
        errors["email"] = "Enter an e-mail address like ada@example.org."
    if len(form.get("password", "")) < PASSWORD_LENGTH:
        errors["password"] = f"Use at least {PASSWORD_LENGTH} characters."
    elif len(form["password"]) > 1000:
        errors["password"] = "Use at most 1,000 characters."
    return {"name": name, "email": email or form.get("email", "")}, errors


def one_line(text):
    """Return a person's words with single spaces and without NULs (no database takes them)."""
    return " ".join(text.replace("\0", "").split())


def normal_email(address):
    """Return the address in the one form we store, or None if it is not one."""
    try:
        valid = validate_email(address.strip(), check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return None
    return valid.normalized.lower()


def show_sign_up(form, errors):
    return render_template("signup.html", form=form, errors=errors, next=safe_next(None))


def log_in_attempt():
    # Behind a proxy everybody may have one address: strangers must not lock each other out.
    return f"{request.remote_addr} {request.form.get('email', '').strip().lower()}"


def failed(answer):
    return answer.status_code == 422


@pages.route("/login", methods=["GET", "POST"])
@limiter.limit("10/minute", key_func=log_in_attempt, methods=["POST"], deduct_when=failed)
def log_in():
    if request.method == "GET":
        return show_log_in({}, {})
    email, password = request.form.get("email", ""), request.form.get("password", "")
    user = User.authenticate(normal_email(email) or "", password)
    if user is None:
        wrong = {"form": "That e-mail address and password do not go together."}
        return show_log_in({"email": email}, wrong), 422
    login_user(user)
    session.permanent = "remember" in request.form
    return redirect(safe_next())


def show_log_in(form, errors):
    return render_template("login.html", form=form, errors=errors, next=safe_next(None))


def safe_next(default="/chats"):
    """Return where to go after signing in: a path of ours, never another site."""
    target = request.values.get("next") or ""
    ours = target.startswith("/") and not target.startswith(("//", "/\\")) and "\\" not in target
    return target if ours and target.isprintable() else default


@pages.post("/logout")
def log_out():
    logout_user()
    return redirect(url_for("chattable.log_in"))


# Chats.


@pages.get("/")
def home():
    return redirect(url_for("chattable.list_chats"))


@pages.get("/chats")
def list_chats():
    chats, costs = current_user.chats_by_recency(), current_user.costs_by_chat()
    return render_template("chats/index.html", all_chats=chats, costs=costs)


@pages.get("/chats/new")
def new_chat():
    return render_template("chats/new.html", selected_model=default_model())


@pages.post("/chats")
def create_chat():
    """Create a chat, with its first message if there is one."""
    if "content" not in request.form:
        return redirect(chat_path(create_empty_chat()), 303)
    draft, sentence = read_draft()
    if sentence:
        return refuse_draft("chats/new.html", sentence, 422)
    chat = create_empty_chat()
    try:
        send_to_worker(chat, draft)
    except RedisError:
        chat.delete()
        return refuse_draft("chats/new.html", REDIS_AWAY, 503)
    if request.headers.get("HX-Request"):
        return "", 200, {"HX-Redirect": chat_path(chat)}
    return redirect(chat_path(chat), 303)


def create_empty_chat():
    chat = Chat()
    current_user.chats.append(chat)
    db.session.commit()
    return chat


def chat_path(chat):
    return url_for("chattable.show_chat", chat_id=chat.id)


@pages.get("/chats/<int:chat_id>")
def show_chat(chat_id):
    chat = current_user.chat_or_404(chat_id)
    before = request.args.get("before", type=database_id)
    if before and request.headers.get("HX-Request"):
        messages, older = chat.page(before)
        return render_template("chats/_messages.html", chat=chat, messages=messages, older=older)
    return show_page(chat)


def show_page(chat, **context):
    # The revision first: what changes while we read is then sent again, never missed.
    revision = chat.revision
    messages, older = chat.page()
    context |= {"messages": messages, "older": older, "revision": revision}
    selected = request.form.get("model") or chat.model or default_model()
    return render_template("chats/show.html", chat=chat, selected_model=selected, **context)


@pages.get("/chats/<int:chat_id>/edit")
def edit_chat(chat_id):
    chat = current_user.chat_or_404(chat_id)
    return render_template("chats/edit.html", chat=chat, form={"title": chat.title}, errors={})


@pages.route("/chats/<int:chat_id>", methods=["PATCH", "POST"])
def rename_chat(chat_id):
    chat = current_user.chat_or_404(chat_id)
    title = one_line(request.form.get("title", ""))
    if not 1 <= len(title) <= 200:
        errors = {"title": "Enter a title of 1 to 200 characters."}
        form = {"title": title}
        return render_template("chats/edit.html", chat=chat, form=form, errors=errors), 422
    chat.rename(title)
    return redirect(chat_path(chat), 303)


@pages.delete("/chats/<int:chat_id>")
@pages.post("/chats/<int:chat_id>/delete")
def delete_chat(chat_id):
    current_user.chat_or_404(chat_id).delete()
    jobs.forget_chat(chat_id)
    flash("The chat was deleted.")
    if request.headers.get("HX-Request"):
        return "", 200, {"HX-Redirect": url_for("chattable.list_chats")}
    return redirect(url_for("chattable.list_chats"), 303)


# Messages.


@pages.post("/messages")
def create_message():
    """Take a message and hand it to a worker; it appears over the socket."""
    chat = current_user.chat_or_404(request.form.get("chat_id", type=database_id))
    draft, sentence = read_draft()
    if sentence:
        return refuse_draft("chats/show.html", sentence, 422, chat)
    try:
        if not send_to_worker(chat, draft):
            return refuse_draft("chats/show.html", BUSY, 409, chat)
    except RedisError:
        return refuse_draft("chats/show.html", REDIS_AWAY, 503, chat)
    return ("", 204) if request.headers.get("HX-Request") else redirect(chat_path(chat), 303)


def read_draft():
    """Return (draft, None) from the composer's form, or (None, what is wrong with it)."""
    content = request.form.get("content", "").replace("\r\n", "\n").replace("\0", "").strip()
    limit = current_app.config["MAX_MESSAGE_LENGTH"]
    if not content:
        return None, "Write a message first."
    if len(content) > limit:
        return None, f"This message has {len(content):,} characters; {limit:,} is the most."
    model = request.form.get("model") or default_model()
    if model not in available_models():
        return None, f"The model “{model[:80]}” is not available here. Pick another one."
    client_id = normal_uuid(request.form.get("client_id"))
    if not client_id:
        return None, EXPIRED
    return {"content": content, "model": model, "client_id": client_id}, None


def normal_uuid(value):
    """Return a UUID in its usual form, a new one if none was given, None if it is not one."""
    try:
        return str(uuid.UUID(value) if value else uuid.uuid4())
    except ValueError:
        return None


def refuse_draft(template, sentence, status, chat=None):
    """Say what is wrong with a draft; whoever has no JavaScript gets the text back, too."""
    if request.headers.get("HX-Request"):
        return problem(sentence, status)
    context = {"error": sentence, "form": request.form}
    if chat:
        return show_page(chat, **context), status
    return render_template(template, selected_model=request.form.get("model"), **context), status


def send_to_worker(chat, draft):
    """Enqueue a draft; return False if a reply is running. Raises `RedisError`."""
    if session.get("model") != draft["model"]:
        session["model"] = draft["model"]
    job = jobs.create_message_and_stream
    return enqueue_turn(chat, draft["client_id"], job, *draft.values())


def enqueue_turn(chat, token, job, *args):
    """Enqueue a job as the chat's next turn, unless the turn is taken: one reply at a time."""
    turn = jobs.take_turn(chat.id, token)
    if not turn:
        return False
    enqueued = False
    try:
        enqueued = jobs.enqueue(job, chat, token, *args)
    finally:
        # Sent twice at once, the turn is the job's that the other one enqueued.
        if turn == "taken" and not (enqueued or jobs.to_be_done(chat.id, token)):
            live.end_turn(chat.id, token)
    return True


@pages.get("/messages/<int:message_id>")
def show_message(message_id):
    """Give a message as it was written, in plain text."""
    content = current_user.message_or_404(message_id).content
    return content, {"Content-Type": "text/plain; charset=utf-8"}


@pages.post("/messages/<int:message_id>/stop")
def stop_message(message_id):
    message = current_user.message_or_404(message_id)
    if message.running:
        live.request_stop(message.id)
    return "", 204


@pages.post("/messages/<int:message_id>/retry")
def retry_message(message_id):
    """Ask again for the latest reply, with the model picked on the page or the same one."""
    message = current_user.message_or_404(message_id)
    model = request.form.get("model") or message.model
    if not message.chat.ends_with(message) or not message.retryable:
        return problem("Only the latest reply can be asked for again, once it has ended.", 409)
    if model not in available_models():
        return problem("That model is not available any more. Pick another one.", 422)
    token = jobs.retry_token(message.id)
    if not enqueue_turn(message.chat, token, jobs.retry_reply, message.id, model):
        return problem(BUSY, 409)
    return "", 204


def available_models():
    """Return the names to choose from: MODELS, else what the provider listed, else a default."""
    return current_app.config["MODELS"] or live.known_models() or DEFAULT_MODELS


def default_model():
    """Return the model to offer first: the one this person picked last, if there still is."""
    picked, models = session.get("model"), available_models()
    return picked if picked in models else models[0]


# The socket.


@sock.route("/chats/<int:chat_id>/updates", endpoint="updates")
def updates(socket, chat_id):
    """Relay a chat's changes, beginning with those since the page was loaded."""
    # The connection is accepted before we are asked, so a refusal is a close code.
    since = request.args.get("since", 0, type=database_id)
    live.serve(socket, chat_id, lambda: may_watch(chat_id), lambda: catch_up(chat_id, since))


def may_watch(chat_id):
    """Return whether the page that opened the socket is ours, and the chat its reader's."""
    try:
        if not (same_origin() and current_user.is_authenticated and owns(chat_id)):
            return False
    finally:
        db.session.remove()  # what is read next is to be as it is then
    jobs.sweeper(current_app._get_current_object())
    return True


def same_origin():
    """Return whether the page that opened the socket is ours (a program may send no Origin)."""
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


def owns(chat_id):
    try:
        return bool(current_user.chat_or_404(chat_id))
    except HTTPException:
        return False


def catch_up(chat_id, since):
    try:
        return db.session.get(Chat, chat_id).catch_up(since)
    finally:
        db.session.remove()  # a socket must not hold a database connection while it waits


@pages.get("/up")
@csrf.exempt
def up():
    """Say whether the app can reach its database and its Redis, and Redis takes what is new."""
    try:
        db.session.execute(text("SELECT 1"))
        live.check_writing()
    except (SQLAlchemyError, RedisError):
        return "down\n", 503, {"Content-Type": "text/plain"}
    return "up\n", 200, {"Content-Type": "text/plain"}


# The command line.


AS_THEY_ARE = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command("db", context_settings=AS_THEY_ARE, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def migrate(context, arguments):
    """Perform database migrations (Flask-Migrate)."""
    # Here, for nobody else needs Alembic: 11 MB a process.
    from flask_migrate import Migrate

    app = context.ensure_object(ScriptInfo).load_app()
    Migrate(app, db, directory=str(HERE / "migrations"), render_as_batch=True)
    app.cli.commands["db"].main(arguments, prog_name="flask db", obj=context.obj)


@click.command("worker")
def work():
    """Write replies: run the RQ worker (`python -m gevent.monkey --module flask …`)."""
    jobs.work(current_app._get_current_object())


@click.command("invite")
def invite():
    """Print a link with which one can sign up while SIGNUP is "invite"."""
    token = invitations().dumps(str(uuid.uuid4()))
    click.echo(f"/signup?invitation={token}   (add your address; valid {INVITATION_DAYS} days)")
