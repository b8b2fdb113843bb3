"""What a model thinks before it speaks: seen as it comes, at the price of nothing while closed."""

import re
from types import SimpleNamespace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from chattable.templating import duration
from chattable.writing import ONLY_THOUGHT, Checkpoint, Thought
from models import Message, User, db
from tests.services import wait_until
from tests.tab import Tab, send
from tests.test_browser import PHONE, Person, somewhere_else

SELECT = (
    """(element) => getSelection().setBaseAndExtent(element.firstChild, 0, element.firstChild, 3)"""
)
# All that a screen reader is told, one after the other.
LISTEN = """() => {
  window.heard = [];
  const line = document.getElementById("announcer");
  const hear = () => line.textContent && heard.push(line.textContent);
  new MutationObserver(hear).observe(line, { childList: true });
}"""

COUNTS = r"Thinking… [1-9]\d* s"


def thinking(tab):
    return tab.summary == "Thinking… …"


def test_a_thought_is_seen_and_a_reload_shows_the_same(tab, provider):
    script = (
        provider.reply().thinks("Hm. ").holds().thinks("Yes.").says("It is 42").holds().says(".")
    )
    send(tab)
    tab.wait_until(thinking)
    assert (tab.status, tab.text) == ("pending", "")
    assert tab.html == tab.reloaded()
    other = Tab(tab.person, tab.chat_id)
    assert thinking(other)
    other.drop()
    script.release()
    other.connect()
    for each in (tab, other):
        each.wait_for_words("It is 42")
        assert (each.status, each.summary) == ("streaming", "Thought for …")
        assert each.html == each.reloaded()
    assert other.thoughts() == ("Hm. Yes.", 8)
    script.release()
    for each in (tab, other):
        each.wait_for_status("complete")
        assert each.summary == "Thought for …"
        assert each.html == each.reloaded()


@pytest.mark.parametrize(
    "start",
    [
        lambda script: script.thinks("Hm.", field="reasoning"),
        lambda script: script.says("<think>Hm."),
        lambda script: script.sends_delta(
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]}
        ),
        lambda script: script.sends_delta(
            {"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]}
        ),
    ],
)
def test_every_way_to_tell_a_thought_counts(tab, provider, start):
    start(provider.reply()).holds()
    send(tab)
    tab.wait_until(thinking)
    tab.wait_until(lambda tab: tab.thoughts() == ("Hm.", 3))
    provider.release()


def test_a_long_thought_costs_pages_where_it_is_closed_a_frame_or_two(tab, provider):
    script = provider.reply().thinks(*["Some words. "] * 2_000).holds().says("Done.")
    send(tab)
    tab.wait_until(
        lambda tab: tab.thoughts() == ("Some words. " * 2_000, 24_000) if tab.reply else 0
    )
    assert sum(map(len, tab.socket.frames)) < 4_000
    script.release()
    tab.wait_for_status("complete")
    assert not any("Some words" in frame for frame in tab.socket.frames)


def test_a_reader_is_given_the_thoughts_piece_by_piece(tab, provider, stack):
    script = provider.reply().thinks("Hm. ").holds().thinks("<b>Yes</b>.").holds().says("It is 42")
    send(tab)
    tab.wait_until(lambda tab: tab.reply and tab.thoughts() == ("Hm. ", 4))
    assert tab.thoughts(4) == ("", 4)
    script.release()
    wait_until(lambda: tab.thoughts(4) == ("<b>Yes</b>.", 15), 5, "the rest")
    script.release()
    tab.wait_for_status("complete")
    assert tab.thoughts(15) == ("", None)
    assert tab.thoughts(person=stack.signup()) == (404, None)


def test_a_thinking_model_can_be_stopped(tab, provider):
    provider.reply().thinks("Hm.").holds().says("It is 42")
    send(tab)
    tab.wait_until(thinking)
    assert tab.person.stop(tab.reply_id).status == 204
    tab.wait_for_status("stopped")
    provider.wait_for_disconnect()
    assert (tab.summary, tab.thoughts()) == ("Thought for …", ("Hm.", None))
    assert tab.html == tab.reloaded()


def test_a_reply_that_only_thought_says_so(tab, provider):
    provider.reply().thinks("Hm.")
    send(tab)
    tab.wait_for_status("failed")
    assert tab.reply.find(class_="message__error").get_text() == ONLY_THOUGHT
    assert (tab.summary, tab.thoughts()) == ("Thought for …", ("Hm.", None))


def test_a_thought_is_not_sent_back_and_its_tokens_are_in_the_receipt(tab, provider):
    provider.reply().thinks("Secretly.").says("It is 42").uses(10, 1_700, reasoning=1_234)
    send(tab)
    tab.wait_for_status("complete")
    receipt = tab.reply.find(class_="message__receipt").get_text(" ")
    assert "Reasoning 1,234 of the output tokens" in receipt
    send(tab, "Why?")
    tab.wait_for_status("complete", replies=2)
    assert "Secretly" not in str(provider.wait_for_request(2).json)
    assert "Reasoning" not in tab.reply.find(class_="message__receipt").get_text()


def test_what_was_thought_outlives_its_writer(tab, provider, stack):
    provider.reply().thinks("Let me see. ").holds()
    send(tab)
    tab.wait_until(lambda tab: tab.reply and tab.thoughts() == ("Let me see. ", 12))
    with somewhere_else(stack):
        Message.interrupt(tab.reply_id)
        message = db.session.get(Message, tab.reply_id)
        assert (message.status, message.reasoning) == ("failed", "Let me see. ")
        assert message.completion_token_usage == 3
    tab.wait_for_status("failed")
    assert tab.html == tab.reloaded()


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_a_thought_is_saved_once_though_the_database_may_not_say_so(make_app, request, url):
    with make_app(DATABASE_URL=request.getfixturevalue(url)).app_context():
        ada = User(name="Ada", email="ada@example.com", password_hash="none")
        db.session.add(ada)
        db.session.flush()
        chat = ada.begin_chat()
        db.session.commit()
        message = chat.begin_reply("gpt-4o")
        saved, thought = Checkpoint(message), Thought()
        for text in ("Hm", "Hm. 🤔", "Hm. 🤔 Yes."):
            thought.follow(SimpleNamespace(thought=True, reasoning=text), "")
            assert saved.keep_thoughts(thought)
            saved._thought = 0  # as if the answer had been lost
            assert saved.keep_thoughts(thought)
        db.session.refresh(message)
        assert (message.reasoning, message.status, message.thinking) == (text, "pending", True)
        message.interrupt(message.id)
        thought.follow(SimpleNamespace(thought=True, reasoning=f"{text} But no."), "")
        assert not saved.keep_thoughts(thought)


@pytest.mark.parametrize("seconds, words", [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s")])
def test_times_are_short(seconds, words):
    assert duration(seconds) == words


# In a browser.


@pytest.fixture
def reader(page, stack):
    person = Person(page).is_signed_up(stack.signup())
    yield person
    assert person.complaints == []


def seconds(summary):
    return int(re.search(r"(\d+) s", summary.text_content())[1])


def begin(reader, text="Think"):
    """Ask in a chat that is open, and hear what a screen reader would."""
    reader.begin("Hello")
    reader.wait_for("complete")
    reader.page.evaluate(LISTEN)
    reader.send(text)
    return reader.reply.locator("summary"), reader.reply.locator("details p")


def test_the_page_counts_and_keeps_what_its_reader_does(reader, provider):
    provider.says("Hi.")
    script = provider.reply(when="Think").thinks("Let me see. ").holds()
    script.thinks("It is <b>.\n").holds().says("It is 42").holds().says(".")
    summary, thoughts = begin(reader)
    expect(summary).to_have_text(re.compile(COUNTS))
    expect(reader.page.get_by_text("Thinking…")).to_have_count(1)
    expect(thoughts).to_be_hidden()
    reader.page.evaluate("document.getElementById('composer-error').textContent = 'Too long.'")
    summary.click()
    first = thoughts.locator("span", has_text="Let me see. ").first
    expect(first).to_be_visible()
    first.evaluate(SELECT)
    script.release()
    expect(thoughts).to_contain_text("It is <b>.")
    script.release()
    expect(reader.body).to_contain_text("42")
    expect(summary).to_have_text(re.compile(r"Thought for \d+ s"))
    reader.wait_for("streaming")
    script.release()
    reader.wait_for("complete")
    expect(thoughts).to_have_text("Let me see. It is <b>.")
    assert reader.page.evaluate("`${getSelection()}`") == "Let"
    expect(reader.page.get_by_text("Too long.")).to_be_visible()
    heard = reader.page.evaluate("heard")
    assert (heard.count("Thinking"), heard[-2:]) == (1, ["Thinking", "Reply complete"])


def test_a_reload_in_mid_thought_goes_on_counting(reader, provider):
    provider.says("Hi.")
    provider.reply(when="Think").thinks("Hm.").holds()
    summary, _ = begin(reader)
    expect(summary).to_have_text(re.compile(COUNTS))
    before = seconds(summary)
    reader.page.reload()
    assert seconds(summary) >= before
    assert reader.shown() == reader.fresh()
    reader.page.get_by_role("button", name="Stop").click()
    reader.wait_for("stopped")
    expect(summary).to_have_text(re.compile(r"Thought for \d+ s"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_nothing_against_a_thought_on_a_phone(browser, stack, provider, theme):
    options = PHONE | {"color_scheme": theme, "reduced_motion": "reduce", "bypass_csp": True}
    context = browser.new_context(base_url=stack.url, **options)
    reader = Person(context.new_page(), sends="Send").is_signed_up(stack.signup())
    script = provider.reply().thinks("Hm. " + "word" * 100).holds().says("It is 42")
    reader.begin("Think")
    summary = reader.reply.locator("summary")
    for label in ("Thinking…", "Thought for"):
        expect(summary).to_contain_text(label)
        for _ in range(2):
            assert Axe().run(reader.page).response["violations"] == []
            assert summary.evaluate("(element) => element.getAnimations().length") == 0
            assert reader.page.evaluate("document.documentElement.scrollWidth") == 390
            summary.tap()
        script.release()
    context.close()
