"""What a worker does for a chat: save a message, stream the reply, ask for it again, find a title.

The parts are `chattable.answers`, which does it once however often a job runs, and
`chattable.writing`, which writes the reply.
"""

import logging
import time
from contextlib import suppress

from flask import Flask, current_app
from redis.exceptions import RedisError
from rq import Queue

from chattable import live, provider
from chattable.answers import answer_once, note_deletion, say_and_answer
from chattable.database import persistent, reason, release, roll_back
from chattable.queue import enqueue, turn
from models import Chat, Message, db

TITLE = (
    "Give the conversation that begins like this a title of 3 to 6 words, in its own language. "
    "Answer with the title alone."
)
# Characters of each of the two messages.
TOLD = 2_000
# Seconds. So long a message waits for the names of models, and so often it looks.
LISTED_BY, LOOK = 10, 0.1
# The queue that all installs shared before they had names.
SHARED_QUEUE = "replies"

log = logging.getLogger(__name__)


def create_message_and_stream(
    chat_id: int, content: str, model: str, client_id: str, after: int | None = None
) -> None:
    """Save a person's message, then stream the reply to everyone watching."""
    say_and_answer(chat_id, content, named(model), client_id, after)
    improve_title(chat_id)


def retry_reply(chat_id: int, message_id: int, model: str, versions: int = 1) -> None:
    """Ask for another version of a reply, of which there are so many."""
    with turn(chat_id, retry_token(message_id, versions)) as begun:
        add_version(begun, chat_id, message_id, named(model), versions)
    improve_title(chat_id)


@persistent
def add_version(begun, chat_id, message_id, model, versions):
    chat = Chat.with_owner(chat_id)
    reply = db.session.get(Message, message_id)
    begun()
    if chat is None or reply is None:
        return note_deletion(chat_id)
    answer_once(chat, model, to=chat.parent_of(reply), beyond=versions)


def named(model):
    """Return a model's name: the first there is, for who wrote before the provider listed any."""
    if model != provider.UNNAMED:
        return model
    until, names = time.monotonic() + LISTED_BY, current_app.config["MODELS"]
    while not names and time.monotonic() < until:
        names, _ = live.heard_models()
        if names is not None:
            break
        time.sleep(LOOK)
    return model if not names or model in names else names[0]


def improve_title(chat_id: int) -> None:
    """Ask `TITLE_MODEL`, if there is one, for a better title after the first reply.

    The chat's turn is over: nobody waits for this, and nobody misses it where it fails.
    """
    model = current_app.config["TITLE_MODEL"]
    try:
        opening = model and persistent(Chat.opening)(chat_id)
        if opening and opening[0].chattable.may_spend():
            ask_for_title(model, *opening)
    except Exception as error:  # whatever it is: a job that fails would be done again
        log.warning("chat %s: no better title: %s", chat_id, reason(error))
        roll_back()


def ask_for_title(model, chat, question, answer):
    told = f"{question[:TOLD]}\n\n---\n\n{answer[:TOLD]}"
    asked = [{"role": "system", "content": TITLE}, {"role": "user", "content": told}]
    # Nor does it hold a database connection meanwhile.
    release()
    with provider.Completion(model, asked) as completion:
        said = "".join(completion)
    chat.book(model, completion.settle_usage(said))
    chat.retitle(chat.title, said)


def retry_token(message_id: int, versions: int = 1) -> str:
    return f"retry-{message_id}-{versions}"


def work(app: Flask) -> None:
    """Run a worker in this process until SIGTERM or SIGINT."""
    # Here, for the web needs no worker.
    from chattable import worker

    worker.wait_for_services(app)
    with app.app_context(), suppress(RedisError):
        persistent(adopt_jobs)()
    worker.work(app)


def adopt_jobs() -> None:
    """Take over what waits in the queue of an earlier version."""
    shared = Queue(SHARED_QUEUE, connection=live.redis())
    for job in shared.get_jobs():
        if task := TASKS.get(job.func_name):
            chat_id, *args = job.args
            token = args[2] if task is create_message_and_stream else retry_token(args[0])
            if chat := db.session.get(Chat, chat_id):
                enqueue(task, chat, token, *args)
                job.delete()
    db.session.rollback()


TASKS: dict = {f"jobs.{task.__name__}": task for task in (create_message_and_stream, retry_reply)}
