"""Answer a message in the background, once, however often its job has to run.

For jobs: an app enqueues `say_and_answer`, or writes a job of its own with the parts.
"""

import logging
import time
import uuid
from typing import Any

from flask import g
from rq import get_current_job

from chattable import live, provider
from chattable.chat import ChatMixin, ReplyInProgress
from chattable.database import db, id_of, now, persistent
from chattable.family import family
from chattable.queue import TURN_POLL, next_job, take_back, turn

log = logging.getLogger(__name__)


def say_and_answer(
    chat_id: int,
    content: str,
    model: str,
    client_id: str | None = None,
    after: int | None = None,
) -> None:
    """Save what a person said, then stream the reply to everyone watching. A job.

    `client_id` is a UUID that whoever wrote it has made: what comes twice is answered once. Without
    one, it is the RQ job's, if there is one. `after` is the message it follows, see `ChatMixin`.
    """
    job = get_current_job()
    client_id = client_id or (job.id if job else str(uuid.uuid4()))
    with turn(chat_id, client_id) as begun:
        answer_message(begun, chat_id, content, model, client_id, after)


@persistent
def answer_message(begun, chat_id, content, model, client_id, after):
    chat = family().chat.with_owner(chat_id)
    if chat is None:
        return note_deletion(chat_id)
    completion = chat.ask(model, content, client_id, after)
    # A job that runs again must not have the answer billed again.
    first = completion and live.claim(f"{chat_id}-{client_id}")
    if not (first and answer(chat, completion, content, client_id, after, begun)):
        begun()
        go_on(chat_id, content, model, client_id, after, asked=completion and not first)


def answer(chat, completion, content, client_id, after, begun):
    """Stream the reply, asked for while the database writes; return whether it was ours."""
    with completion:
        messages = chat.exchange(content, client_id, completion.model, after)
        begun()
        if messages:
            messages[1].receive(completion)
    if not messages:
        chat.book(completion.model, completion.settle_usage(""))
    return bool(messages)


def go_on(chat_id, content, model, client_id, after, asked):
    """Do what another run of the same job, which may have died, has left to do.

    `asked` says that it may have asked the provider, which no row tells until the message is saved.
    """
    chat = db.session.get(family().chat, chat_id)
    if chat is None:
        return note_deletion(chat_id)
    message = family().message.said(chat_id, client_id)
    if message:
        # Who saved it may have died before telling.
        chat.hooks.on_message_create(message)
    else:
        if asked:
            asked_for = chat.told(model, after, content).messages
            chat.book(model, provider.estimate_usage(asked_for))
        message = chat.say("user", content, client_id, after)
    if message:
        answer_once(chat, model, id_of(message))


def note_deletion(chat_id: int) -> None:
    """End a job in silence: its chat is gone."""
    g.chat_in_doubt = True
    log.info("chat %s was deleted before its job was done", chat_id)


def answer_once(chat: ChatMixin, model: str, to: int, beyond: int = 0) -> None:
    """Run the reply `to` a message; tell its end again if there was one: its writer may have died.

    So many replies to it, `beyond` which one is asked for, were there before.
    """
    answer = chat.answer_to(to, beyond)
    if answer is None:
        reply(chat, model, to, beyond)
    elif not answer.running:
        chat.hooks.on_message_update(answer)
    elif live.take_up(id_of(answer)):
        # It was shown while it waited for a place.
        answer.waits = False
        chat.hooks.on_message_update(answer)
        with chat.asking(model, chat.told(model, to)) as completion:
            answer.receive(completion)


def reply(chat, model, to, beyond):
    """Run the reply to a message, unless another run of the same job does."""
    chat_id = id_of(chat)
    try:
        chat.run(model, after=to)
    except ReplyInProgress:
        if db.session.get(family().chat, chat_id) is None:
            return None  # deleted meanwhile
        while family().chat.has_running_reply(chat_id):
            time.sleep(TURN_POLL)
        return None if chat.answer_to(to, beyond) else reply(chat, model, to, beyond)


def stop_answer(chat: ChatMixin) -> None:
    """Stop the reply of a chat, also one that nobody has begun; what was said stays."""
    token, job = next_job(id_of(chat))
    if job and not chat.running_reply:
        match job.args:
            case _, content, model, client_id, *after if client_id == token:
                ended: dict[str, Any] = {"status": "stopped", "finished_at": now()}
                chat.exchange(content, client_id, model, *after, **ended)
    taken = job and take_back(job, id_of(chat), token)
    if taken or not (job or chat.running_reply):
        chat.hooks.on_settled(id_of(chat))
    # Perhaps a worker was faster.
    if reply := chat.running_reply:
        reply.call_off() if taken else live.request_stop(id_of(reply))
