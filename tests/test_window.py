"""Long chats never die: what fits a model's context window is sent, the newest turns first."""

from copy import deepcopy as copy

import pytest
from flask import current_app
from sqlalchemy import insert

from chattable import live
from chattable import provider as engine
from chattable.live.outbox import see_off
from chattable.provider.overflow import named_limit
from models import Message, User, db
from tests import wire
from tests.entered import entered
from tests.page import Page, parse
from tests.patience import patient

MODEL = "some-model"
TOO_LONG = "too long for the model"


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


# How providers say that they were told too much, and the window that they name.
OVERFLOWS = [
    ("This model's maximum context length is 600 tokens. However, your messages resulted in", 600),
    ("However, you requested 900 tokens: maximum context length is 600 tokens (896 and 4)", 600),
    ("Input tokens exceed the configured limit of 600 tokens. Please reduce the length of", 600),
    ("Your input exceeds the context window of this model. Please adjust your input", None),
    ("prompt is too long: 900 tokens > 600 maximum", 600),
    ("input length and `max_tokens` exceed context limit: 500 + 400 > 600, decrease", 600),
    ("request (900 tokens) exceeds the available context size (600 tokens), try increasing", 600),
    ("the request exceeds the available context size. try increasing the context size", None),
    ("Prompt contains 900 tokens, too large for model with 600 maximum context length", 600),
    ("The input token count (900) exceeds the maximum number of tokens allowed (600).", 600),
    ("This model's maximum prompt length is 600 but the request contains 900 tokens.", 600),
    ("Your request exceeded model token limit: 600 (requested: 900)", 600),
    ("Please reduce the length of the messages. Current length is 900 while limit is 600", 600),
    ("The decoder prompt (length 900) is longer than the maximum model length of 600.", 600),
    ("`inputs` must have less than 600 tokens. Given: 900", 600),
    ("too many tokens: the total number of tokens cannot exceed 600 - received 900", 600),
    ("prompt token count of 900 exceeds the limit of 600", 600),
    ("The prompt is too long: 900, model maximum context length: 600", 600),
    ("Input is too long for requested model.", None),
    ("invalid params, context window exceeds limit (2013)", None),
    ("prompt too long; exceeded max context length by 300 tokens", None),
]


@pytest.fixture
def wide(make_app, sqlite_url):
    """A chat of ten turns with a model that is thought to read 2,000 tokens."""
    with make_app(DATABASE_URL=sqlite_url, CONTEXT_WINDOW=2_000).app_context():
        ada = User(name="Ada", email="ada@example.com", password_hash="none")
        db.session.add(ada)
        db.session.flush()
        chat = ada.begin_chat()
        db.session.commit()
        talk(chat, *"abcdefghij", words=188)
        chat.say("user", "k?")
        yield chat


def asked(provider):
    """Return how many messages each request had."""
    return [len(request.json["messages"]) for request in provider.requests]


@pytest.mark.parametrize(("words", "window"), OVERFLOWS)
def test_a_provider_that_was_told_too_much_is_told_less(wide, provider, words, window):
    provider.fails(400, wire.error(words))
    provider.says("Hello")
    reply = wide.run(MODEL)
    assert (reply.status, reply.content) == ("complete", "Hello")
    # Half of what it was, or what 600 tokens are: 1,350 bytes.
    assert asked(provider) == [21, 7 if window else 9]
    assert provider.requests[1].json["messages"][-1]["content"] == "k?"
    assert engine.context_window(MODEL) == (window or 2_000)
    unseen = Message.query.filter_by(finish_reason="unseen").count()
    assert (reply.usage_estimated, unseen) == (False, 0)


LARGE = [
    ("This model's maximum context length is 272,000 tokens. However", 272_000),
    ("prompt is too long: 213_462 tokens > 200_000 maximum", 200_000),
    ("maximum context length is 512k tokens", None),
    ("maximum context length is 1.5M tokens", None),
    ("max_tokens must be less than 300", None),
]


@pytest.mark.parametrize(("words", "window"), OVERFLOWS + LARGE)
def test_the_window_that_an_error_names(words, window):
    assert named_limit(words.lower()) == window


def test_a_branch_that_is_turned_back_to_says_again_what_is_not_sent(chat):
    talk(chat, *"abcdef")
    reply = chat.messages[1]
    chat.say("user", "g?")
    last = chat.run(MODEL)
    line = chat.unsent_above
    assert line
    chat.run(MODEL, after=reply.follows)
    assert chat.unsent_above is None
    chat.show(last)
    assert chat.unsent_above >= line


@pytest.mark.parametrize(
    "body",
    [
        {"code": 400, "message": "too long", "type": "exceed_context_size_error", "n_ctx": 600},
        {"message": "too long", "code": "context_length_exceeded"},
    ],
)
def test_an_error_may_tell_by_its_code(wide, provider, body):
    provider.fails(400, {"error": body})
    assert wide.run(MODEL).status == "complete"
    assert len(provider.requests) == 2
    assert engine.context_window(MODEL) == body.get("n_ctx", 2_000)


def test_an_error_in_the_stream_is_understood_as_well(wide, provider):
    words = "context the overflows: the model is loaded with context length of only 600 tokens"
    provider.reply().errors(words)
    assert wide.run(MODEL).status == "complete"
    assert len(provider.requests) == 2


def test_what_a_model_says_of_errors_is_no_error(wide, provider):
    provider.says("An error: maximum context length", " is 600")
    assert wide.run(MODEL).content == "An error: maximum context length is 600"
    assert len(provider.requests) == 1


def test_a_named_window_is_kept_to(wide, provider):
    provider.fails(400, wire.error("maximum context length is 600 tokens"))
    wide.run(MODEL)
    wide.say("user", "l?")
    assert wide.run(MODEL).status == "complete"
    assert len(provider.requests) == 3


def test_who_refuses_twice_is_not_asked_again(wide, provider):
    provider.fails(400, wire.error("maximum context length is 600 tokens"), times=2)
    reply = wide.run(MODEL)
    assert reply.status == "failed"
    assert TOO_LONG in reply.error
    assert len(provider.requests) == 2


def test_a_question_that_alone_is_refused_is_not_asked_again(chat, provider):
    chat.say("user", "long".ljust(5_000, "-"))
    provider.fails(400, wire.error("maximum context length is 400 tokens"))
    assert TOO_LONG in chat.run(MODEL).error
    assert len(provider.requests) == 1


def test_a_body_that_is_too_large_is_told_less(wide, provider):
    provider.fails(413, "<html><title>413 Request Entity Too Large</title></html>")
    assert wide.run(MODEL).status == "complete"
    assert engine.context_window(MODEL) == 2_000


def test_the_wire_is_asked_without_usage_and_less(wide, provider):
    """Both that a provider may refuse, one after the other."""
    provider.fails(400, wire.error("Unknown parameter: stream_options"))
    provider.fails(400, wire.error("maximum context length is 600 tokens"))
    assert wide.run(MODEL).status == "complete"
    assert len(provider.requests) == 3


def get(chat, path="", **query):
    """Return what Ada is shown at an address of a chat."""
    user, app = chat.chattable, current_app._get_current_object()
    person = entered(app, user)
    headers = {"HX-Request": "true"} if query else {}
    html = person.get(f"/chats/{chat.id}{path}", query_string=query, headers=headers).text
    db.session.add_all([chat, user])
    return html


def page_of(chat, **query):
    """Return a page of a chat, as Ada loads it, and the revision it was made at."""
    since = chat.revision
    html = get(chat, **query)
    return Page(html if not query else f'<div id="messages">{html}</div>'), since


def line_of(page):
    """Return what the line says, and the first words after it; None if there is no line."""
    lines = page.list.select(".unsent")
    assert len(lines) < 2
    if not lines:
        return None
    body = lines[0].find_next_sibling().select_one(".message__body")
    return lines[0].text, body.text.rstrip(".")


@pytest.fixture
def reply_on(wide):
    """Have a model that reads so many tokens reply, and show what comes on an open page."""
    watching = live.redis().pubsub(ignore_subscribe_messages=True)
    watching.subscribe(live.channel(wide.id))
    watching.get_message(timeout=patient(2))

    def reply(page, window, model=MODEL):
        current_app.config["CONTEXT_WINDOW"] = {model: window}
        written = wide.run(model)
        see_off(patience=None)
        live.redis().publish(live.channel(wide.id), "1 1 the last word")
        for message in watching.listen():
            frame = message["data"].decode().split(" ", 2)[2]
            if frame == "the last word":
                return written
            page.apply(frame)
            reply.frames.append(frame)

    reply.frames = []
    yield reply
    watching.close()


SAYS = f"Messages above are no longer sent to {MODEL}"


def test_a_line_says_what_is_no_longer_sent(wide, reply_on):
    page, since = page_of(wide)
    away, _ = page_of(wide)
    reply_on(page, window=600)
    assert line_of(page) == (SAYS, "h?")
    assert page.html == page_of(wide)[0].html
    catch_up(wide, away, since)
    assert away.html == page.html


def test_the_line_moves_with_the_window(wide, reply_on):
    page, since = page_of(wide)
    reply_on(page, window=600)
    away = copy(page)
    since = wide.revision
    wide.say("user", "l?".ljust(188, "."))
    reply_on(page, window=600)
    assert line_of(page) == (SAYS, "i?")
    reply_on(page, window=700, model="other")
    assert line_of(page) == (SAYS.replace(MODEL, "other"), "i?")
    assert page.html == page_of(wide)[0].html
    catch_up(wide, away, since)
    assert away.html == page.html


def test_the_line_goes_where_all_is_sent_again(wide, reply_on):
    page, _ = page_of(wide)
    reply_on(page, window=600)
    away, since = copy(page), wide.revision
    reply_on(page, window=64_000, model="large")
    assert line_of(page) is None
    assert page.html == page_of(wide)[0].html
    catch_up(wide, away, since)
    assert away.html == page.html


def test_the_line_is_about_the_branch_one_looks_at(wide, reply_on):
    page, since = page_of(wide)
    reply_on(page, window=600)
    wide.say("user", "b2?", after=wide.messages[1].id)
    catch_up(wide, page, since)
    assert line_of(page) is None
    assert page.html == page_of(wide)[0].html


def test_a_line_above_what_is_shown_comes_with_what_is_above(wide, reply_on):
    talk(wide, *"lmnopqrstuvwxyz", words=20)
    wide.say("user", "now?")
    page, _ = page_of(wide)
    reply_on(page, window=1_000)
    assert line_of(page) is None
    older, _ = page_of(wide, before=page.messages[0]["id"].removeprefix("message-"))
    assert line_of(older)[0] == SAYS


def test_a_question_that_is_sent_alone_has_the_line_above_it(wide, reply_on):
    wide.say("assistant", "k!")
    wide.say("user", "long".ljust(3_000, "-"))
    page, _ = page_of(wide)
    reply_on(page, window=600)
    assert line_of(page)[1].startswith("long")


def catch_up(chat, page, since):
    for frame in chat.catch_up(since)[1]:
        page.apply(frame)


def next_of(html):
    """Return what a page, or a frame, says about the next message."""
    found = parse(html).select_one("#next, [hx-target='#next']")
    return found and found.get_text().strip()


TAKES = "≈ 1,000 tokens with the next message to gpt-4o-mini, less than $0.01"


def test_the_composer_says_what_the_next_message_takes_along(wide, provider, reply_on):
    page, since = page_of(wide)
    provider.says("Hello").uses(2_000, 2)
    assert next_of(get(wide)) == ""
    reply_on(page, window=2_000, model="gpt-4o-mini")
    assert next_of(get(wide)) == TAKES
    assert [next_of(frame) for frame in reply_on.frames][-1] == TAKES
    assert next_of(wide.catch_up(since)[1][-2]) == TAKES


def test_the_composer_says_it_of_the_model_that_is_picked(wide, provider, reply_on):
    provider.says("Hello").uses(2_000, 2)
    reply_on(page_of(wide)[0], window=2_000, model="gpt-4o-mini")
    current_app.config["CONTEXT_WINDOW"] = {"gpt-4o": 1_000, "gpt-4o-mini": 100_000}
    # A smaller window takes less along.
    assert get(wide, "/next", model="gpt-4o").startswith("≈ 560 tokens with the next message to")
    assert get(wide, "/next", model="gpt-4o-mini") == ""
    assert get(wide, "/next", model="never heard of") == ""


def test_a_price_nobody_knows_is_not_told(wide, provider, reply_on):
    provider.says("Hello").uses(2_000, 2)
    reply_on(page_of(wide)[0], window=2_000)
    assert next_of(get(wide)) == f"≈ 1,000 tokens with the next message to {MODEL}"


def test_a_small_chat_asks_for_nothing(wide, provider, reply_on):
    provider.says("Hello").uses(1_999, 2)
    reply_on(page_of(wide)[0], window=2_000)
    assert {next_of(frame) for frame in reply_on.frames} == {None}
    assert next_of(get(wide)) == ""


@pytest.mark.parametrize("wrong", ["half", "50", "-1"])
def test_a_wrong_share_is_refused_by_name(make_app, wrong):
    with pytest.raises(SystemExit, match="CONTEXT_SHARE"):
        make_app(CONTEXT_SHARE=wrong)
