"""What a provider is told of a chat. For the chat alone."""

from itertools import groupby
from operator import itemgetter

from chattable.writing import RUNNING


def conversation(said, question=None):
    """Return messages as providers take them: none blank, none running, no role twice in a row.

    A reply that failed leaves its question next to the following one: they are joined.
    """
    lines = [(message.role, message.content) for message in said if message.status not in RUNNING]
    lines += [("user", question)] if question else []
    turns = groupby((line for line in lines if line[1].strip()), key=itemgetter(0))
    return [
        {"role": role, "content": "\n\n".join(content for _, content in said_in_turn)}
        for role, said_in_turn in turns
    ]


def told(message):
    """Return the columns of a message that `conversation` looks at."""
    return message.id, message.role, message.content, message.status
