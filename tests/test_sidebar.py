"""The sidebar: which chats it shows, in what order, and how every page of a person follows."""

import pytest

from models import db


@pytest.fixture
def new_chat(user):
    """Make a chat of Ada's in which this was said."""

    def make(*texts):
        chat = user.begin_chat()
        db.session.commit()
        for text in texts:
            chat.say("user", text)
        return chat

    return make


def titles(user):
    return [chat.title for chat in user.chats_by_recency()]


def test_the_end_of_a_reply_moves_no_chat_up(user, new_chat):
    first, second = new_chat("first"), new_chat("second")
    reply = first.begin_reply("gpt-4o-mini")
    second.say("user", "again")
    reply.interrupt(reply.id)
    assert titles(user) == ["second", "first"]
