"""Titles: what a chat is called, by its opening words or by `TITLE_MODEL`."""

import pytest

from models import NEW_CHAT, db, opening_words


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("**bold** and *slanted* ~~not~~ ==this==", "bold and slanted not this"),
        ("# Head\n\nand text", "Head and text"),
        ("See [the docs](https://example.com/a) of `f(x)`", "See the docs of f(x)"),
        ("```python\nprint(1)\n```\nWhat is wrong?", "print(1) What is wrong?"),
        ("Solve $x^2 = 4$ for me", "Solve x^2 = 4 for me"),
        ("- one\n- two\n\n> three", "one two three"),
        ("2 * 3 * 4 and snake_case_name", "2 * 3 * 4 and snake_case_name"),
        ("a < b && c > d", "a < b && c > d"),
        ("**half and **whole**", "**half and whole"),
        ("---", "---"),
        ("#", "#"),
        ("> " * 5_000, "> " * 29 + ">…"),
    ],
)
def test_a_title_reads_markdown_as_words(text, title):
    assert opening_words(text) == title


def test_a_person_may_call_a_chat_what_new_ones_are_called(user):
    chat = user.begin_chat()
    db.session.commit()
    chat.rename(NEW_CHAT)
    chat.say("user", "What is the time?")
    db.session.refresh(chat)
    assert chat.title == NEW_CHAT
