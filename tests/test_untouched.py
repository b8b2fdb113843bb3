"""What a reader has selected, focused, scrolled or opened is left alone, in a real browser."""

import pytest
from playwright.sync_api import expect

from tests.services import wait_until
from tests.test_browser import Person

LINE = "a_long_line_of_code = " + " + ".join(f"number_{n}" for n in range(60))
# Counts the elements that come and go in the list of messages, text aside.
WATCH = """() => {
  window.exchanged = 0;
  new MutationObserver((records) => {
    for (const { addedNodes, removedNodes } of records)
      window.exchanged += [...addedNodes, ...removedNodes].filter((node) => node.tagName).length;
  }).observe(document.getElementById("messages"), { childList: true, subtree: true });
}"""
SELECT = """(paragraph) => {
  getSelection().setBaseAndExtent(paragraph.firstChild, 2, paragraph.firstChild, 9);
}"""


@pytest.fixture
def ada(page, stack):
    person = Person(page).is_signed_up(stack.signup())
    person.frames = []
    page.on("websocket", lambda socket: socket.on("framereceived", hear(person.frames)))
    yield person
    assert person.complaints == []


def hear(frames):
    return lambda frame: frames.append(frame)  # Playwright takes no built-in method


def heard(ada):
    """Return the frames that have come by now, as one text."""
    ada.page.evaluate("0")  # Playwright tells of events while it is asked something
    return "".join(ada.frames)


def state(ada):
    """Return (what is selected, what has the focus, how far code is scrolled)."""
    return (
        ada.page.evaluate("getSelection().toString()"),
        ada.page.evaluate("document.activeElement.className"),
        ada.page.locator("pre").last.evaluate("(pre) => pre.scrollLeft"),
    )


def use(ada):
    """Select a word, focus a button and scroll code in the reply."""
    ada.body.locator("p").first.evaluate(SELECT)
    ada.body.locator(".code__copy").focus()
    ada.page.locator("pre").last.evaluate("(pre) => { pre.scrollLeft = 300; }")
    assert state(ada) == ("me word", "code__copy", 300)
    ada.page.evaluate(WATCH)


def test_a_tab_switch_exchanges_nothing_and_fetches_only_what_is_new(ada, provider):
    script = provider.reply().thinks("Hm.").says("Some words.").holds()
    script.says(f"\n\n```python\n{LINE}\n```")
    ada.begin("think")
    expect(ada.body).to_have_text("Some words.")
    script.release()
    ada.wait_for("complete")
    earlier = ada.articles.nth(1)
    first = earlier.get_attribute("id")
    ada.reply.get_by_text("Reasoning").click()
    use(ada)
    ada.frames.clear()
    switch(ada)
    wait_until(lambda: '"since"' in heard(ada), 5, "what is new")
    assert first in heard(ada)  # it came after the page
    for _ in range(2):
        ada.frames.clear()
        switch(ada)
    assert ada.page.evaluate("exchanged") == 0
    assert state(ada) == ("me word", "code__copy", 300)
    provider.says("more")
    ada.page.keyboard.press("Tab")
    ada.send("and then?")
    expect(ada.articles).to_have_count(4)
    ada.wait_for("complete")
    assert first not in heard(ada)
    expect(earlier.locator("details")).to_have_attribute("open", "")
    assert ada.shown().replace(' open=""', "") == ada.fresh()


def switch(ada):
    ada.hide()
    ada.hide(False)
