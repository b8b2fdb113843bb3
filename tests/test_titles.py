"""Titles: what a chat is called, by its opening words or by `TITLE_MODEL`."""

import uuid

import pytest

from models import NEW_CHAT, Chat, Message, db, opening_words
from tests.patience import patient


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


# a model's


@pytest.fixture
def say(app, let_in, run_jobs):
    """Have Ada say something, in a chat of her own, and everything done: returns the chat."""
    ada = let_in()
    app.config["TITLE_MODEL"] = "gpt-4o-mini"
    path = ada.post("/chats").location
    chat_id = int(path.rsplit("/", 1)[1])

    def say(content):
        form = {"chat_id": chat_id, "content": content, "client_id": str(uuid.uuid4())}
        assert ada.post("/messages", data=form).status_code == 303
        run_jobs()
        with app.app_context():
            return db.session.get(Chat, chat_id)

    return say


def statuses(app, chat):
    with app.app_context():
        return [message.status for message in db.session.get(Chat, chat.id).messages]


def test_a_model_finds_a_better_title_and_its_cost_is_counted(app, provider, say):
    provider.says("It is", " noon.").uses(1_000_000, 0)
    provider.says('"**Time** of day."', when="---").uses(2_000_000, 0)
    assert say("What is the time?").title == "Time of day"
    asked = provider.requests[1].json
    assert asked["model"] == "gpt-4o-mini"
    assert asked["messages"][1]["content"] == "What is the time?\n\n---\n\nIt is noon."
    with app.app_context():
        chat = db.session.scalars(db.select(Chat)).one()
        assert float(chat.cost) == pytest.approx(0.45, rel=1e-3)
        assert [message.content for message in chat.messages] == [
            "What is the time?",
            "It is noon.",
        ]


def test_a_title_is_asked_for_once(provider, say):
    provider.says("Noon.")
    provider.says("Time", when="---")
    say("What is the time?")
    assert say("And now?").title == "Time"
    assert len(provider.requests) == 3


def test_a_title_that_cannot_be_had_is_missed_by_nobody(app, provider, say):
    provider.says("Noon.")
    provider.fails(400, times=3, when="---")
    chat = say("What is the time?")
    assert chat.title == "What is the time?"
    assert statuses(app, chat) == ["complete", "complete"]
    assert len(provider.requests) == 2


def test_a_booked_title_is_no_reply(app, provider, say):
    app.config["TITLE_MODEL"] = "gpt-4o"
    provider.says("Noon.").uses(90_000, 5)
    provider.says("Time", when="---").uses(50, 3)
    said = say("What is the time?")
    with app.app_context():
        chat = db.session.get(Chat, said.id)
        assert (chat.model, chat.latest_prompt) == ("gpt-4o-mini", 90_000)
        booked = db.session.scalars(db.select(Message).filter_by(finish_reason="unseen")).one()
        assert chat.find(booked.id) is None


def test_a_title_is_asked_for_with_the_question_that_was_answered(app, provider, say):
    provider.fails(401)
    said = say("first words")
    with app.app_context():
        chat = db.session.get(Chat, said.id)
        provider.says("Fine.")
        chat.say("user", "quite another topic", after=chat.messages[0].follows)
        chat.run("gpt-4o-mini")
        _, question, answer = Chat.opening(chat.id)
    assert (question, answer) == ("quite another topic", "Fine.")


def test_no_title_is_asked_for_after_a_reply_that_failed(provider, say):
    provider.fails(400, times=3)
    say("What is the time?")
    assert len(provider.requests) == 1


def test_a_models_title_never_goes_over_a_persons(user):
    chat = user.begin_chat()
    db.session.commit()
    chat.say("user", "What is the time?")
    chat.rename("Mine")
    chat.retitle("What is the time?", "Time of day")
    db.session.refresh(chat)
    assert chat.title == "Mine"
    for nothing in ("", " ", '""', "---"):
        chat.retitle("Mine", nothing)
    db.session.refresh(chat)
    assert chat.title == "Mine"


def test_nobody_waits_for_a_title(make_stack, provider):
    stack = make_stack(env={"TITLE_MODEL": "gpt-4o-mini"})
    ada = stack.signup()
    chat = ada.new_chat()
    provider.says("Noon")
    title = provider.says("Time", hold=True, when="---")
    socket = ada.socket(chat)
    ada.say(chat, "What is the time?")
    title.wait_for_request(patient(10))
    socket.wait_for('data-role="assistant" data-status="complete"')
    provider.says("Later", when="And now?")
    assert ada.say(chat, "And now?").status == 204
    socket.wait_for("Later")
    title.release()
    assert "<title>Time" in socket.wait_for("<title>Time")
