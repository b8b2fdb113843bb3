"""Where the page is scrolled to: it stays, and it comes back."""

import re

import pytest
from playwright.sync_api import expect

from models import Chat, db
from tests.services import wait_until
from tests.test_browser import ada, person, somewhere_else  # noqa: F401 # fixtures

TOP = "(message) => message.getBoundingClientRect().top"
REST = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture
def reader(ada, stack):  # noqa: F811
    """Ada, at the end of a chat of 61 messages, of which 30 are on the page."""
    ada.begin("Hello")
    ada.wait_for("complete")
    chat = int(ada.page.url.rsplit("/", 1)[1])
    with somewhere_else(stack):
        for number in range(60):
            db.session.get(Chat, chat).say("user", f"number {number}\n" * (1 + number % 9))
        ada.ids = [message.id for message in db.session.get(Chat, chat).messages]
    url = ada.page.url
    ada.page.goto("/chats")
    ada.page.goto(url)
    expect(ada.articles).to_have_count(30)
    ada.wait_for_the_end()
    return ada


def message(reader, place):
    return reader.page.locator(f"#message-{reader.ids[place]}")


def read(reader, place):
    """Scroll to a message; return how far from the window's top it is, px."""
    message(reader, place).evaluate("(message) => message.scrollIntoView({ block: 'start' })")
    reader.page.evaluate(REST)
    return message(reader, place).evaluate(TOP)


def is_at(reader, place, top):
    """Wait until a message is where it was, but for the rounding of heights."""
    wait_until(
        lambda: (
            message(reader, place).count() and abs(message(reader, place).evaluate(TOP) - top) < 3
        ),
        5,
        f"message {place} at {top}",
    )


def goes_away_and_back(page):
    page.goto("/chats/new")
    page.go_back()


@pytest.mark.parametrize("comes_back", [lambda page: page.reload(), goes_away_and_back])
@pytest.mark.parametrize("place", [-20, -45])
def test_who_comes_back_reads_on_where_they_were(reader, place, comes_back):
    if place < -30:
        reader.press("Show earlier messages")
        expect(reader.articles).to_have_count(60)
    top = read(reader, place)
    comes_back(reader.page)
    is_at(reader, place, top)
    expect(reader.page.get_by_role("button", name="Jump to newest")).to_be_visible()


def test_earlier_messages_come_once_however_often_they_are_asked_for(reader):
    reader.page.get_by_role("button", name="Show earlier messages").dblclick()
    expect(reader.articles).to_have_count(60)
    reader.press("Show earlier messages")
    expect(reader.articles).to_have_count(62)


def test_a_reload_at_the_end_stays_at_the_end(reader, stack):
    read(reader, -20)
    reader.press("Jump to newest")
    reader.wait_for_the_end()
    chat = int(reader.page.url.rsplit("/", 1)[1])
    with somewhere_else(stack):
        db.session.get(Chat, chat).say("user", "more\n" * 40)
    reader.page.reload()
    expect(reader.articles.last).to_contain_text("more")
    reader.wait_for_the_end()


@pytest.mark.parametrize("place", [-20, -45])
def test_an_address_may_name_a_message(reader, place):
    chat = reader.page.url
    reader.page.goto("/chats")
    reader.page.goto(f"{chat}#message-{reader.ids[place]}")
    begins_at_the_top(reader, place)
    reader.page.evaluate("(hash) => { location.hash = hash; }", f"message-{reader.ids[-10]}")
    begins_at_the_top(reader, -10)


def begins_at_the_top(reader, place):
    """Wait until a message begins where the page does, below what stands above it."""
    found = message(reader, place)
    wait_until(lambda: found.count() and 0 < found.evaluate(TOP) < 100, 5, f"message {place}")
    expect(found).to_be_focused()
    expect(reader.page.locator(":target")).to_have_id(f"message-{reader.ids[place]}")


def test_an_address_of_a_message_that_is_gone_shows_the_end(reader):
    chat = reader.page.url
    reader.page.goto("/chats")
    reader.page.goto(f"{chat}#message-99999999")
    expect(reader.articles).to_have_count(62)
    reader.wait_for_the_end()


def test_what_is_typed_moves_nothing(reader):
    reader.box.click()
    top = read(reader, -20)
    reader.page.keyboard.type("some words")
    reader.page.evaluate(REST)
    assert abs(message(reader, -20).evaluate(TOP) - top) < 1
    expect(reader.box).to_have_value(re.compile("some words"))
