"""Versions and branches on the page: turned, edited, watched from elsewhere, in two tabs."""

import re

import pytest
from playwright.sync_api import expect

from models import Chat, db
from tests.patience import patient
from tests.services import wait_until
from tests.test_browser import PHONE, Person, somewhere_else
from tests.test_scroll import REST, TOP


@pytest.fixture
def open_tab(browser, stack):
    """Sign somebody up, in a browser of her own: `open_tab(**context)` returns a `Person`."""
    people = []

    def open_tab(**context):
        made = browser.new_context(base_url=stack.url, **context)
        made.set_default_timeout(1000 * patient(10))
        people.append(Person(made.new_page()).is_signed_up(stack.signup()))
        return people[-1]

    yield open_tab
    for each in people:
        each.page.context.close()
    assert [each.complaints for each in people if each.complaints] == []


@pytest.fixture
def ada(open_tab):
    return open_tab()


def shows(ada, *words):
    expect(ada.page.locator("#messages .message__body")).to_have_text(list(words))


def begin(ada, provider, reply="One."):
    provider.says(reply)
    ada.begin("Hello")
    ada.wait_for("complete")


def regenerate(ada, provider, reply):
    provider.says(reply)
    ada.press("Regenerate")
    expect(ada.body).to_have_text(reply)
    ada.wait_for("complete")


def another_tab(ada):
    other = Person(ada.page.context.new_page())
    other.page.goto(ada.page.url)
    expect(other.articles).to_have_count(ada.articles.count())
    return other


def pager(ada):
    return ada.page.get_by_role("group", name=re.compile("^Version"))


def button(ada, name):
    return ada.page.get_by_role("button", name=name, exact=True).last


def test_versions_are_turned_by_a_pager(ada, provider):
    begin(ada, provider)
    expect(pager(ada)).to_have_count(0)
    regenerate(ada, provider, "Two.")
    regenerate(ada, provider, "Three.")
    expect(pager(ada)).to_have_text("‹3 / 3›")
    expect(button(ada, "Next version")).to_have_attribute("aria-disabled", "true")
    other = another_tab(ada)
    for version, name in ((2, "Previous"), (1, "Previous"), (2, "Next")):
        button(ada, f"{name} version").click()
        for tab in (ada, other):
            shows(tab, "Hello", ["One.", "Two."][version - 1])
            expect(pager(tab)).to_have_attribute("aria-label", f"Version {version} of 3")
            expect(ada.reply).to_have_attribute("data-versions", f"{version}/3")
        expect(button(ada, f"{name} version")).to_be_focused()
        expect(ada.page.locator("#announcer")).to_have_text(f"Version {version} of 3")
        expect(other.page.locator("#announcer")).not_to_contain_text("Version")
        assert ada.shown() == other.shown() == ada.fresh()
    ada.page.reload()
    shows(ada, "Hello", "Two.")


def test_arrow_keys_turn_versions_while_the_pager_has_the_focus(ada, provider):
    begin(ada, provider)
    regenerate(ada, provider, "Two.")
    button(ada, "Previous version").focus()
    ada.page.keyboard.press("ArrowLeft")
    expect(ada.body).to_have_text("One.")
    ada.page.keyboard.press("ArrowLeft")
    ada.page.keyboard.press("ArrowRight")
    expect(ada.body).to_have_text("Two.")
    expect(button(ada, "Previous version")).to_be_focused()


# what is said of the others


def test_what_a_new_version_takes_off_the_page_is_said(ada, provider):
    begin(ada, provider)
    for text in ("more", "and more"):
        provider.says("Yes.")
        ada.send(text)
        expect(ada.articles.last).to_have_text(re.compile("Yes"))
        ada.wait_for("complete")
    provider.says("Two.")
    first = ada.page.locator("#messages > .message--assistant").first
    first.hover()
    first.get_by_role("button", name="Regenerate").click()
    shows(ada, "Hello", "Two.")
    ada.wait_for("complete")
    assert ada.shown() == ada.fresh()
    note = ada.page.get_by_role("button", name="4 more messages continue version 1")
    expect(note).to_be_visible()
    provider.says("Well.")
    ada.send("go on")
    expect(ada.articles).to_have_count(4)
    ada.wait_for("complete")
    expect(note).to_be_hidden()
    button(ada, "Previous version").click()
    expect(ada.articles).to_have_count(6)
    expect(ada.page.get_by_text("more messages continue")).to_be_hidden()
    assert ada.shown() == ada.fresh()


def test_a_version_that_failed_is_said_and_shown_on_a_press(ada, provider):
    begin(ada, provider)
    other = another_tab(ada)
    provider.fails(401)
    ada.press("Regenerate")
    for tab in (ada, other):
        note = tab.page.get_by_role("button", name=re.compile("^Version 2 failed: .*API key"))
        expect(note).to_be_visible()
        expect(tab.page.locator("#announcer")).to_contain_text("Version 2 failed")
        shows(tab, "Hello", "One.")
    assert ada.shown() == other.shown() == ada.fresh()
    ada.page.get_by_role("button", name=re.compile("^Version 2 failed")).click()
    for tab in (ada, other):
        tab.wait_for("failed")
        expect(tab.reply).to_contain_text("refused the API key")
    assert ada.shown() == other.shown() == ada.fresh()


# where the page is scrolled to


@pytest.fixture(params=[{}, PHONE])
def reader(open_tab, stack, request):
    """Ada before ten messages; the sixth has another version, long or short, that goes on."""
    ada = open_tab(**request.param)
    ada.sends = "Send"
    ada.begin("Hello")
    ada.wait_for("complete")
    with somewhere_else(stack):
        chat = db.session.get(Chat, int(ada.page.url.rsplit("/", 1)[1]))
        for number in range(3):
            before = chat.say("user", f"Question {number}.\n" * 6)
        one = chat.say("assistant", "The first version.\n\n" * 40)
        for number in range(60):
            chat.say("user", f"On the first: {number}.\n" * 4)
        chat.say("assistant", "The second version.\n\n" * 10, after=before.id)
        chat.say("user", "On the second.\n" * 30)
        ada.before, ada.one = before.id, one.id
    ada.page.reload()
    ada.wait_for_the_end()
    return ada


def top_of(ada, element):
    ada.page.evaluate(REST)
    return element.evaluate(TOP)


def test_what_is_above_a_split_does_not_move_when_it_is_turned(reader):
    above = reader.page.locator(f"#message-{reader.before}")
    above.evaluate("(message) => message.scrollIntoView({ block: 'start' })")
    for name, words in (("Previous", "The first version."), ("Next", "The second version.")):
        top = top_of(reader, above)
        pager(reader).get_by_role("button", name=name).evaluate("(button) => button.click()")
        expect(reader.page.locator("#messages .message__body", has_text=words)).to_have_count(1)
        expect(pager(reader).locator(":focus")).to_have_count(1)
        wait_until(lambda top=top: abs(top_of(reader, above) - top) < 3, 5, f"the place, {top}")


def test_who_turns_at_the_foot_of_a_long_version_stays_at_the_pager(reader):
    button(reader, "Previous version").evaluate("(button) => button.click()")
    expect(reader.page.locator(f"#message-{reader.one}")).to_be_attached()
    pager(reader).evaluate("(pager) => pager.scrollIntoView({ block: 'center' })")
    top = top_of(reader, pager(reader))
    pager(reader).get_by_role("button", name="Next").click()
    expect(pager(reader)).to_have_attribute("aria-label", "Version 2 of 2")
    wait_until(lambda: abs(top_of(reader, pager(reader)) - top) < 3, 5, f"the pager, {top}")
