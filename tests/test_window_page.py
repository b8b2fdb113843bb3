"""What a person sees, in a real browser, of a chat that is longer than its model reads."""

import os

import pytest
from playwright.sync_api import expect

from tests.patience import patient
from tests.test_browser import PHONE, Person
from tests.test_looks import tell

WINDOWS = {"CONTEXT_WINDOW": "gpt-4o-mini=800,gpt-4o=100000"}
SAYS = "Messages above are no longer sent to gpt-4o-mini"
AFTER = "(line) => line.nextElementSibling.id"
LOOKS = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone in the dark": {**PHONE, "color_scheme": "dark"},
}


@pytest.fixture(params=LOOKS)
def ada(browser, make_stack, request):
    """Ada with a chat of ten turns, before a model that reads 800 tokens."""
    stack = make_stack(env=WINDOWS)
    session = stack.signup()
    chat_id = session.new_chat()
    used = {"prompt_token_usage": 2_200, "completion_token_usage": 40, "model": "gpt-4o-mini"}
    words = "It is one of those things that one has to see for oneself. " * 3
    tell(stack, chat_id, *((f"And {at}?", {"content": words, **used}) for at in range(10)))
    context = browser.new_context(base_url=stack.url, **LOOKS[request.param])
    context.set_default_timeout(1000 * patient(10))
    person = Person(context.new_page(), sends="button").is_signed_up(session)
    person.page.goto(f"/chats/{chat_id}")
    yield person
    if folder := os.environ.get("LOOK_AT"):
        person.page.screenshot(path=f"{folder}/{request.param}.png")
    context.close()
    assert person.complaints == []


def test_the_line_and_the_composer_tell_what_is_sent(ada, provider):
    line, tells = ada.page.locator(".messages > .unsent"), ada.page.locator("#next")
    expect(tells).to_contain_text("tokens with the next message to gpt-4o-mini")
    expect(line).to_have_count(0)
    provider.says("Well. " * 60).uses(2_100, 2)
    ada.send("Go on.")
    expect(line).to_have_text(SAYS)
    ada.wait_for()
    first = line.evaluate(AFTER)
    assert ada.shown() == ada.fresh()
    provider.says("Very well. " * 60).uses(2_100, 2)
    ada.send("Go on, please.")
    expect(ada.body).to_contain_text("Very well.")
    ada.wait_for()
    expect(line).to_have_count(1)
    assert line.evaluate(AFTER) != first
    assert ada.shown() == ada.fresh()
    line.scroll_into_view_if_needed()
    ada.page.get_by_label("Model", exact=True).select_option("gpt-4o")
    expect(tells).to_be_hidden()
    ada.page.get_by_label("Model", exact=True).select_option("gpt-4o-mini")
    expect(tells).to_contain_text("tokens with the next message to gpt-4o-mini")
