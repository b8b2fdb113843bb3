"""Long chats never die: what fits a model's context window is sent, the newest turns first."""

import pytest
from sqlalchemy import insert

from chattable import provider as engine
from models import Message, User, db

MODEL = "some-model"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def app(make_app, url):
    """The app, whose context is open: no model reads more than 400 tokens, which is 900 bytes."""
    app = make_app(DATABASE_URL=url, CONTEXT_WINDOW=400)
    with app.app_context():
        yield app


@pytest.fixture
def chat(app):
    """An empty chat of Ada's."""
    ada = User(name="Ada", email="ada@example.com", password_hash="none")
    db.session.add(ada)
    db.session.flush()
    chat = ada.begin_chat()
    db.session.commit()
    return chat


def talk(chat, *turns, words=88):
    """Say turns of two messages of 100 bytes each, with what is around them."""
    for turn in turns:
        chat.say("user", f"{turn}?".ljust(words, "."))
        chat.say("assistant", f"{turn}!".ljust(words, "."))


def contents(told):
    return [words.rstrip(".") for _, _, words in told.lines]


def test_a_short_chat_is_sent_whole(chat):
    talk(chat, *"abc")
    told = chat.told(MODEL, question="d?")
    assert contents(told) == ["a?", "a!", "b?", "b!", "c?", "c!", "d?"]
    assert told.begins is None


def test_the_newest_turns_are_sent_as_long_as_they_fit(chat):
    talk(chat, *"abcdef")
    told = chat.told(MODEL, question="g?")
    assert contents(told) == ["c?", "c!", "d?", "d!", "e?", "e!", "f?", "f!", "g?"]
    assert told.begins == Message.query.filter(Message.content.like("c?%")).one().id


def test_no_half_turn_is_sent(chat):
    talk(chat, *"abcdef")
    told = chat.told(MODEL, question="g?".ljust(120, "."))
    # There is room for d's reply to c, and not for c.
    assert contents(told) == ["d?", "d!", "e?", "e!", "f?", "f!", "g?"]


def test_what_the_system_has_said_before_all_is_sent_in_any_case(chat):
    chat.say("system", "Be brief.")
    chat.say("system", "Be kind.")
    talk(chat, *"abcdef")
    told = chat.told(MODEL, question="g?".ljust(88, "."))
    assert contents(told) == ["Be brief", "Be kind", "d?", "d!", "e?", "e!", "f?", "f!", "g?"]
    assert told.messages[0] == {"role": "system", "content": "Be brief.\n\nBe kind."}
    assert told.begins == Message.query.filter(Message.content.like("d?%")).one().id


def test_a_question_that_alone_is_too_long_is_sent(chat):
    chat.say("system", "Be brief.")
    talk(chat, *"ab")
    long = "long".ljust(5_000, "-")
    assert contents(chat.told(MODEL, question=long)) == ["Be brief", long]
    chat.say("user", long)
    assert contents(chat.told(MODEL)) == ["Be brief", long]
    chat.say("assistant", "")
    assert contents(chat.told(MODEL)) == ["Be brief", long]


def test_a_question_that_was_too_long_is_not_in_the_way_of_the_next(chat):
    chat.say("user", "long".ljust(5_000, "-"))
    assert contents(chat.told(MODEL, question="short")) == ["short"]


def test_the_window_is_counted_in_bytes(chat):
    """A Chinese character is about a token: 300 of them are what a window of 400 has room for."""
    talk(chat, *"ab", words=20)
    assert contents(chat.told(MODEL, question="字" * 270))[:-1] == ["b?", "b!"]
    assert contents(chat.told(MODEL, question="字" * 280))[:-1] == []


def test_a_branch_is_told_as_far_as_it_fits(chat):
    talk(chat, *"abc")
    first, reply = chat.messages[:2]
    other = chat.say("user", "b2?".ljust(88, "."), after=reply.id)
    assert contents(chat.told(MODEL)) == ["a?", "a!", "b2?"]
    assert contents(chat.told(MODEL, after=first.id)) == ["a?"]
    last = "c2?".ljust(650, ".")
    assert contents(chat.told(MODEL, after=other.id, question=last)) == ["b2?", "c2?"]


def test_a_long_history_costs_no_more_than_the_window(chat):
    """On SQLite: its virtual machine takes as many steps for 10,000 messages as for 100."""
    if db.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL does not count steps")
    steps = {}
    for so_many in (100, 9_900):
        fill(chat, so_many)
        connection = db.session.connection().connection.driver_connection
        seen = []
        connection.set_progress_handler(lambda seen=seen: seen.append(1) or 0, 10)
        assert contents(chat.told(MODEL, question="now?"))[-1] == "now?"
        connection.set_progress_handler(None, 0)
        db.session.commit()
        steps[so_many] = len(seen)
    assert steps[9_900] < 1.2 * steps[100]


def fill(chat, so_many):
    roles = ["user", "assistant"] * (so_many // 2)
    words = {"chat_id": chat.id, "content": "Something that was said." * 10}
    db.session.execute(insert(Message), [{**words, "role": role} for role in roles])
    db.session.commit()


@pytest.mark.parametrize(
    ("named", "model", "window"),
    [
        ("", "gpt-4o-mini", 128_000),
        ("", "a-model-nobody-knows", 8_192),
        ("4096", "a-model-nobody-knows", 4_096),
        ("4096", "gpt-4o-mini", 128_000),
        ("4096, gpt-4o-mini=64000", "gpt-4o-mini", 64_000),
        ("mistral:7b=32000", "mistral:7b", 32_000),
    ],
)
def test_the_window_of_a_model(make_app, named, model, window):
    with make_app(CONTEXT_WINDOW=named).app_context():
        assert engine.context_window(model) == window


@pytest.mark.parametrize("wrong", ["many", "gpt-4o=", "0", "gpt-4o"])
def test_a_wrong_window_is_refused_by_name(make_app, wrong):
    with pytest.raises(SystemExit, match="CONTEXT_WINDOW"):
        make_app(CONTEXT_WINDOW=wrong)
