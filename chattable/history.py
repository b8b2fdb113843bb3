"""What a provider is told of a chat. For the chat alone."""

import functools
from itertools import groupby
from operator import itemgetter

from sqlalchemy import bindparam, select

from chattable.writing import RUNNING


def conversation(said, question=None):
    """Return messages as providers take them: none blank, none running, no role twice in a row.

    A reply that failed leaves its question next to the following one: they are joined.
    """
    told = [(message.role, message.content) for message in said if message.status not in RUNNING]
    told += [("user", question)] if question else []
    turns = groupby((line for line in told if line[1].strip()), key=itemgetter(0))
    return [
        {"role": role, "content": "\n\n".join(content for _, content in lines)}
        for role, lines in turns
    ]


@functools.cache
def spoken(message):
    """Return the query for what was said in a chat up to a message, first to last."""
    said = select(message.role, message.content, message.client_id, message.status)
    of_chat = message.chat_id == bindparam("chat_id"), message.id < bindparam("before_id")
    return said.where(*of_chat, ~message.superseded).order_by(message.id)
