"""The Flask app: its parts, the routes of chats and messages, the socket, the command line."""

import os
import re
import uuid
from functools import partial
from pathlib import Path

import click
from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.globals import app_ctx
from flask_compress import Compress
from flask_login import current_user
from flask_sock import Sock
from werkzeug.routing import IntegerConverter

import jobs
from chattable import connections, init_app, live, queue
from chattable.answers import stop_answer
from chattable.branches import LATEST
from chattable.templating import digest
from models import Chat, Message, db, opening_words
from pages import (
    account,
    accounts,
    admin,
    choice,
    errors,
    limits,
    logins,
    looks,
    migrations,
    openid,
    operating,
    reset,
    search,
    security,
    sidebar,
    words,
)
from pages.choice import available_models, default_model, meant, refuse, remember_model
from pages.databases import refuse_other_encodings
from pages.errors import EXPIRED, NOT_TAKEN, problem, why
from pages.logs import begin_log
from pages.settings import App, gather_settings, read_settings, warn_of_settings
from pages.words import one_line

HERE = Path(__file__).resolve().parent
LISTED = 50  # chats
LARGEST_ID = 2**31 - 1
PUT = "pinned", "archived"
CHAT_PAGE = re.compile(r"/chats/(new|\d+)\b")
BUSY = "A reply is still being written. Wait for it or stop it; your text is kept."
NOT_WRITTEN = "Only what you wrote yourself can be edited."

routes = Blueprint("chats", __name__)
compress = Compress()
sock = Sock()


def create_app(config: dict | None = None) -> Flask:
    """Return the Flask app; `config` (a dict) overrides the environment.

    Exits with one sentence that names the variable when a value is missing or wrong.
    """
    settings, instance = gather_settings({**os.environ, **(config or {})})
    begin_log(settings)
    app = App(
        __name__,
        root_path=str(HERE),
        instance_path=str(instance),
        static_url_path=f"/static/{digest(HERE / 'static')}",
    )
    app.config.from_mapping(read_settings(settings, instance))
    app.url_map.converters["int"] = IdConverter
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    db.init_app(app)
    connections.tune(app)
    init_app(app, db)
    parts = operating, security, accounts, account, errors, words, choice, looks, sidebar, search
    for part in (*parts, admin, openid, reset, migrations, compress):
        part.init_app(app)
    app.register_blueprint(routes)
    sock.init_app(app)
    app.cli.add_command(work)
    refuse_other_encodings(app)
    warn_of_settings(app)
    return app


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


# Chats.


@routes.get("/")
def home():
    return redirect(url_for("chats.list_chats"))


@routes.get("/chats")
def list_chats():
    """Show a part of the list of chats, or of those that are archived, and what comes after it."""
    archived = request.args.get("archived") == "1"
    after = sidebar.read_cursor(request.args.get("after", ""))
    listed, more = sidebar.page_of(LISTED, after, archived=archived)
    context = {"listed": listed, "more": more, "archived": archived}
    return render_template(
        "chats/_listed.html" if request.headers.get("HX-Request") else "chats/index.html",
        costs=current_user.costs_by_chat(listed),
        **context,
    )


@routes.get("/chats/new")
def new_chat():
    return render_template("chats/new.html", selected_model=default_model())


@routes.post("/chats")
def create_chat():
    """Create a chat, with its first message if there is one."""
    if "content" not in request.form:
        limits.begin_chat()
        return redirect(chat_path(create_empty_chat()), 303)
    draft, sentence = read_draft()
    if sentence:
        return refuse_draft("chats/new.html", sentence, 422)
    chat = create_empty_chat()
    try:
        send_to_worker(chat, draft)
    except NOT_TAKEN as error:
        chat.delete()
        return refuse_draft("chats/new.html", *why(error))
    if request.headers.get("HX-Request"):
        return "", 200, {"HX-Redirect": chat_path(chat)}
    return redirect(chat_path(chat), 303)


def create_empty_chat():
    chat = current_user.begin_chat()
    db.session.commit()
    current_user.show_moved(chat)
    return chat


def chat_path(chat, **query):
    return url_for("chats.show_chat", chat_id=chat.id, **query)


@routes.get("/chats/<int:chat_id>")
def show_chat(chat_id):
    chat = current_user.chat_or_404(chat_id)
    if thoughts := request.args.get("thoughts", type=database_id):
        return show_thoughts(chat.find(thoughts) or abort(404))
    before = request.args.get("before", type=database_id)
    if before and request.headers.get("HX-Request"):
        messages, older = chat.page(before)
        return render_template("chats/_messages.html", chat=chat, messages=messages, older=older)
    message_id = request.args.get("message", type=database_id)
    message = message_id and chat.find(message_id)
    if message and not chat.leads_to(message_id):
        chat.show(message)
    return show_page(chat, message_id)


def show_thoughts(message):
    """Give what the model thought of a reply, from a character on: its page asks piece by piece."""
    start = request.args.get("from", 0, type=database_id)
    return render_template("chattable/_reasoning.html", message=message, start=max(start, 0))


def show_page(chat, message_id=None, **context):
    # The revision first: what changes while we read is then sent again, never missed.
    revision = chat.revision
    messages, older = chat.page(down_to=message_id)
    context |= {"messages": messages, "older": older, "revision": revision}
    context["waiting"] = waiting_text(chat)
    selected = request.form.get("model") or chat.model or default_model()
    context["next"] = chat.next_send(selected)
    return render_template("chats/show.html", chat=chat, selected_model=selected, **context)


def waiting_text(chat):
    """Return how a message begins that was sent without JavaScript and is not stored yet."""
    chat_id, client_id, text = session.get("sent", (None, None, None))
    if chat_id == chat.id and not Message.said(chat.id, client_id):
        return text
    session.pop("sent", None)
    return None


@routes.get("/chats/<int:chat_id>/next")
def show_next(chat_id):
    """Give what the composer says of the next message to a model."""
    chat, model = current_user.chat_or_404(chat_id), request.args.get("model")
    known = model if model in available_models() else None
    return render_template("chats/_next.html", next=chat.next_send(known))


@routes.get("/chats/<int:chat_id>/edit")
def edit_chat(chat_id):
    chat = current_user.chat_or_404(chat_id)
    return render_template("chats/edit.html", chat=chat, form={"title": chat.title}, errors={})


@routes.route("/chats/<int:chat_id>", methods=["PATCH", "POST"])
def change_chat(chat_id):
    """Rename, pin or archive a chat, or undo the two, as the form says."""
    chat = current_user.chat_or_404(chat_id)
    put = {name: request.form[name] == "1" for name in PUT if name in request.form}
    if put:
        chat.put(**put)
        sidebar.show_put(chat)
    if "title" in request.form or not put:
        title = one_line(request.form.get("title", ""))
        if not 1 <= len(title) <= 200:
            return refuse_title(chat, title)
        chat.rename(title)
    return "" if request.headers.get("HX-Request") else redirect(chat_path(chat), 303)


def refuse_title(chat, title):
    sentence = "Enter a title of 1 to 200 characters."
    if request.headers.get("HX-Request"):
        return problem(sentence, 422)
    form, errors = {"title": title}, {"title": sentence}
    return render_template("chats/edit.html", chat=chat, form=form, errors=errors), 422


@routes.post("/chats/<int:chat_id>/stop")
def stop_reply(chat_id):
    """Stop the reply that is being written in a chat, or that was asked for."""
    chat = current_user.chat_or_404(chat_id)
    stop_answer(chat)
    return done(chat)


def done(chat, **query):
    """Answer what the page of a chat has asked for: it shows the change over its socket."""
    if request.headers.get("HX-Request"):
        return "", 204
    return redirect(chat_path(chat, **query), 303)


@routes.delete("/chats/<int:chat_id>")
@routes.post("/chats/<int:chat_id>/delete")
def delete_chat(chat_id):
    current_user.chat_or_404(chat_id).delete()
    queue.forget_chat(chat_id)
    page = CHAT_PAGE.search(request.headers.get("HX-Current-URL", ""))
    if page and page[1] != str(chat_id):
        return "", 204  # its sidebar shows it
    flash("The chat was deleted.")
    if request.headers.get("HX-Request"):
        return "", 200, {"HX-Redirect": url_for("chats.list_chats")}
    return redirect(url_for("chats.list_chats"), 303)


# Messages.


@routes.post("/messages")
def create_message():
    """Take a message and hand it to a worker; it appears over the socket."""
    chat = current_user.chat_or_404(request.form.get("chat_id", type=database_id))
    draft, sentence = read_draft()
    if sentence:
        return refuse_draft("chats/show.html", sentence, 422, chat)
    try:
        if not send_to_worker(chat, draft):
            return refuse_draft("chats/show.html", BUSY, 409, chat)
    except NOT_TAKEN as error:
        return refuse_draft("chats/show.html", *why(error), chat)
    return done(chat)


def read_draft():
    """Return (draft, None) from the composer's form, or (None, what is wrong with it)."""
    content = request.form.get("content", "").replace("\r\n", "\n").replace("\0", "").strip()
    limit = current_app.config["MAX_MESSAGE_LENGTH"]
    if not content:
        return None, "Write a message first."
    if len(content) > limit:
        return None, f"This message has {len(content):,} characters; {limit:,} is the most."
    picked = request.form.get("model", "")
    if not (model := meant(picked)):
        return None, f"The model “{picked[:80]}” is not available here. Pick another one."
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
        return refuse(sentence, status)
    context = {"error": sentence, "form": request.form}
    if chat:
        return show_page(chat, **context), status
    return render_template(template, selected_model=request.form.get("model"), **context), status


def send_to_worker(chat, draft, after=None):
    """Enqueue a draft; return False if a reply is running. Raises what is `NOT_TAKEN`."""
    limits.send()
    remember_model(draft["model"])
    # Where its writer looks now: another tab may turn to another branch before it is saved.
    after = after if after is not None else chat.leaf_id or LATEST
    said = draft["content"], draft["model"], draft["client_id"], after
    begin = partial(chat.exchange, said[0], said[2], said[1], after, waits=True)
    task, way = jobs.create_message_and_stream, {"before": partial(limits.spend, chat, draft)}
    taken = queue.enqueue_turn(chat, draft["client_id"], task, *said, **way, begin=begin)
    if taken and not request.headers.get("HX-Request"):
        session["sent"] = chat.id, draft["client_id"], opening_words(draft["content"])
    return taken


@routes.get("/messages/<int:message_id>")
def show_message(message_id):
    """Give a message as it was written, in plain text."""
    content = current_user.message_or_404(message_id).content
    return content, {"Content-Type": "text/plain; charset=utf-8"}


@routes.post("/messages/<int:message_id>/stop")
def stop_message(message_id):
    message = current_user.message_or_404(message_id)
    if message.running:
        stop_answer(message.chat)
    return "", 204


@routes.post("/messages/<int:message_id>/retry")
def retry_message(message_id):
    """Ask for another version of a reply, from the model picked on the page or the same one."""
    message = current_user.message_or_404(message_id)
    model = meant(request.form.get("model") or message.model)
    if not message.retryable:
        return problem("Only a reply that has ended can be asked for again.", 409)
    if not model:
        return refuse("That model is not available any more. Pick another one.", 422)
    # What is asked for twice at once is the same version.
    versions = max(len(message.versions), 1)
    chat, token = message.chat, jobs.retry_token(message.id, versions)
    limits.send()
    asked, begin = (message.id, model, versions), partial(chat.begin_version, message, model)
    before = partial(limits.spend, chat, {"model": model})
    if not queue.enqueue_turn(chat, token, jobs.retry_reply, *asked, before=before, begin=begin):
        return problem(BUSY, 409)
    return done(message.chat, asked=message.id)


@routes.get("/messages/<int:message_id>/edit")
def write_version(message_id):
    """Give the form for a new version of a person's message, on a page of its own or for theirs."""
    message = current_user.message_or_404(message_id)
    if message.role != "user":
        return problem(NOT_WRITTEN, 409)
    if request.headers.get("HX-Request"):
        return live.render("messages/_edit.html", message=message, content=message.content)
    return show_edit(message, message.content)


def show_edit(message, content, error=None):
    model = request.form.get("model") or message.chat.model or default_model()
    context = {"message": message, "content": content, "model": model, "error": error}
    return render_template("messages/edit.html", **context)


@routes.post("/messages/<int:message_id>/edit")
def edit_message(message_id):
    """Take a new version of a person's message and hand it to a worker."""
    message = current_user.message_or_404(message_id)
    if message.role != "user":
        return problem(NOT_WRITTEN, 409)
    draft, sentence = read_draft()
    if sentence:
        return refuse_edit(message, sentence, 422)
    try:
        if not send_to_worker(message.chat, draft, after=message.follows):
            return refuse_edit(message, BUSY, 409)
    except NOT_TAKEN as error:
        return refuse_edit(message, *why(error))
    return done(message.chat)


def refuse_edit(message, sentence, status):
    if request.headers.get("HX-Request"):
        return refuse(sentence, status)
    return show_edit(message, request.form.get("content", ""), sentence), status


@routes.post("/messages/<int:message_id>/show")
def show_version(message_id):
    """Look at the branch through a message, here and on every page of its chat."""
    message = current_user.message_or_404(message_id)
    message.chat.show(message)
    return done(message.chat)


# The socket.


@routes.get("/chats/<int:chat_id>/updates")
def give_updates(chat_id):
    """Give a page that no socket gets through to what it would have been sent."""
    chat = current_user.chat(chat_id)
    if not chat:
        abort(404 if Chat.exists(chat_id) else 410)
    return live.give_updates(chat, sidebar.catch_up())


@routes.get("/updates")
def give_list_updates():
    """Give a page of no chat the same: what its sidebar would have been sent."""
    return live.give_updates(None, sidebar.catch_up())


@sock.route("/chats/<int:chat_id>/updates", endpoint="updates")
def updates(socket, chat_id):
    """Relay a chat's changes, beginning with those since the page was loaded."""
    # The connection is accepted before we are asked, so a refusal is a close code. Who reads is
    # asked for once there is a place: thousands of pages may come back at the same moment.
    since = request.args.get("since", 0, type=database_id)
    live.serve(
        socket,
        chat_id,
        lambda: refuses(chat_id),
        lambda: catch_up(chat_id, since),
        lambda: current_user.chats_channel,
        lambda: current_user.login.id,
    )


@sock.route("/updates", endpoint="list_updates")
def list_updates(socket):
    """Relay what becomes of a person's chats to a page of none of them."""
    beside, key = lambda: current_user.chats_channel, lambda: current_user.login.id
    live.serve(socket, None, refuses, catch_up, beside, key)


def refuses(chat_id=None):
    """Return the close code for who is not logged in, or for a chat that is not its reader's."""
    try:
        if not current_user.is_authenticated:
            return live.NOT_YOURS
        if chat_id is None or current_user.chat(chat_id):
            return None
        return live.NOT_YOURS if Chat.exists(chat_id) else live.GONE
    finally:
        db.session.remove()  # what is read next is to be as it is then


def catch_up(chat_id=None, since=0):
    try:
        if not logins.lives(current_user.login):
            raise live.Refused
        seq, frames = db.session.get_one(Chat, chat_id).catch_up(since) if chat_id else (0, [])
        return seq, [*frames, *sidebar.catch_up()[0]]
    finally:
        db.session.remove()  # a socket must not hold a database connection while it waits


# The command line.


@click.command("worker")
def work():
    """Write replies: run the RQ worker (`python -m gevent.monkey --module flask …`)."""
    jobs.work(app_ctx.app)
