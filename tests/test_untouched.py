"""What a reader has selected, focused, scrolled or opened is left alone, in a real browser."""

import re

import pytest
from playwright.sync_api import expect

from tests.services import wait_until
from tests.test_browser import RICH, Person

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
SELECT_ALL = """(code) => {
  getSelection().selectAllChildren(code);
  return getSelection().toString();
}"""
# What extensions and translators do, at every change.
CROWD = """() => {
  const messages = document.getElementById("messages");
  document.body.prepend(messages.lastElementChild.cloneNode(true));
  const mine = ":is(.message__body, .message__body *):not(.theirs, math, math *, annotation)";
  const crowd = () => {
    for (const element of messages.querySelectorAll(mine))
      for (const tag of ["div", "span", "font"])
        if (![...element.children].some((child) => child.matches(`${tag}.theirs`))) {
          const theirs = element.appendChild(document.createElement(tag));
          theirs.className = "theirs";
          theirs.textContent = "theirs";
        }
  };
  new MutationObserver(crowd).observe(messages, { childList: true, subtree: true });
}"""
UNCROWD = """(body) => {
  const copy = body.cloneNode(true);
  const strangers = [...copy.querySelectorAll(".theirs")];
  const said = strangers.filter((each) => each.textContent !== "theirs").length;
  for (const each of strangers) each.remove();
  return [said, copy.textContent];
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


def test_what_a_reader_uses_is_kept_through_the_end_of_a_reply(ada, provider):
    script = provider.says(f"Some words.\n\n```python\n{LINE}\n```\n\nAnd", hold=True)
    script.says(" **more").holds()
    ada.begin("code")
    expect(ada.body.locator("pre")).to_be_visible()
    script.wait_for_hold(1)
    use(ada)
    script.release()
    script.wait_for_hold(2)
    expect(ada.body).to_contain_text("more")
    ada.page.evaluate("exchanged = 0")
    script.release()
    ada.wait_for("complete")
    assert state(ada) == ("me word", "code__copy", 300)
    expect(ada.page.locator("#announcer")).to_have_text("Reply complete")
    expect(ada.body).to_contain_text("**more")
    assert ada.shown() == ada.fresh()


def test_code_that_is_being_written_stays_where_it_was_scrolled_to(ada, provider):
    script = provider.says(f"Some words.\n\n```python\n{LINE}\n", hold=True)
    script.says("x = 1\n").holds().says("```\n\nEnd.").holds()
    ada.begin("code")
    expect(ada.body.locator("code")).to_contain_text("number_59")
    use(ada)
    for hold in (1, 2):
        script.wait_for_hold(hold)
        script.release()
    expect(ada.body).to_contain_text("End.")
    assert ada.body.locator("code span").count() > 10  # it is coloured now
    assert state(ada) == ("me word", "code__copy", 300)
    script.wait_for_hold(3)
    script.release()
    ada.wait_for("complete")
    assert state(ada) == ("me word", "code__copy", 300)
    assert ada.shown() == ada.fresh()


def test_a_tab_switch_exchanges_nothing_and_fetches_only_what_is_new(ada, provider):
    script = provider.reply().thinks("Hm.").says("Some words.").holds()
    script.says(f"\n\n```python\n{LINE}\n```")
    ada.begin("think")
    expect(ada.body).to_have_text("Some words.")
    script.release()
    ada.wait_for("complete")
    earlier = ada.articles.nth(1)
    first = earlier.get_attribute("id")
    ada.reply.get_by_text("Thought for").click()
    expect(ada.reply.get_by_text("Hm.")).to_be_visible()
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
    expect(earlier.get_by_text("Hm.")).to_be_visible()


def switch(ada):
    ada.hide()
    ada.hide(False)


def test_the_text_goes_into_our_own_elements_whatever_others_append(ada, provider):
    script = provider.reply()
    for piece in RICH:
        script.says(*re.findall(r".{1,5}", piece, re.DOTALL)).holds()
    ada.begin("Tell me everything")
    expect(ada.body).to_contain_text("Head")
    ada.page.evaluate(CROWD)
    for number in range(len(RICH)):
        script.wait_for_hold(number + 1)
        script.release()
    ada.wait_for("complete")
    said, text = ada.body.evaluate(UNCROWD)
    ada.page.reload()
    assert (said, text) == (0, ada.body.evaluate("(body) => body.textContent"))


@pytest.mark.parametrize(
    "harm", ["(body) => body.lastElementChild.remove()", "(body) => body.append('!')"]
)
def test_a_reply_that_something_else_has_changed_is_right_in_the_end(ada, provider, harm):
    script = provider.says("One.\n\nTwo", hold=True).says(" is more.\n\nThree.")
    ada.begin("count")
    expect(ada.body).to_contain_text("Two")
    ada.body.evaluate(harm)
    script.release()
    ada.wait_for("complete")
    expect(ada.body).to_have_text("One.Two is more.Three.")
    assert ada.shown() == ada.fresh()


def test_a_page_that_was_loaded_before_a_deployment_shows_the_end(ada, provider):
    ada.page.route("**/keep.js", lambda route: route.fulfill(content_type="text/javascript"))
    script = provider.says("One **two", hold=True).says("** three\n\n```python\nx = 1\n```")
    ada.begin("count")
    expect(ada.body).to_have_text("One two")
    script.release()
    ada.wait_for("complete")
    expect(ada.body.locator("code .mi")).to_have_text("1")
    expect(ada.body.locator("p")).to_have_text("One two three")
    expect(ada.reply.get_by_role("button", name="Regenerate")).to_be_visible()


def test_what_is_selected_stays_so_while_its_paragraph_is_written(ada, provider):
    script = provider.says("Some words **in bold** and *a guess", hold=True)
    script.says(" that is none.\n\nEnd.").holds()
    ada.begin("guess")
    expect(ada.body.locator("em")).to_have_text("a guess")
    ada.body.locator("p").evaluate(SELECT)
    script.release()
    expect(ada.body).to_contain_text("*a guess that is none.")
    assert ada.page.evaluate("getSelection().toString()") == "me word"
    script.wait_for_hold(2)
    script.release()
    ada.wait_for("complete")
    assert ada.shown() == ada.fresh()


def test_a_reply_that_is_taken_away_again_leaves_the_page_at_rest(ada, provider):
    provider.says("one")
    ada.begin("count")
    ada.wait_for("complete")
    provider.says("two")
    ada.press("Regenerate")
    expect(ada.body).to_have_text("two")
    ada.wait_for("complete")
    sockets = []
    ada.page.on("websocket", lambda socket: sockets.append(socket.url))
    # The page has come at a time before the first reply: both are told again.
    switch(ada)
    wait_until(lambda: '"since"' in heard(ada), 5, "what is new")
    provider.says("three")
    ada.send("and then?")
    expect(ada.articles).to_have_count(4)
    ada.wait_for("complete")
    assert len(sockets) == 1
    assert ada.shown() == ada.fresh()


def test_code_is_coloured_while_it_is_written_and_stays_selected(ada, provider):
    lines = [f"if number == {n}:\n    print(number)\n" for n in range(60)]
    script = provider.says("Some words.\n\n```python\n", *lines[:-1], "if", hold=True)
    script.says(lines[-1].removeprefix("if")).holds().says("```").holds().says("\n\nEnd.").holds()
    ada.begin("code")
    expect(ada.body.locator("code .lines .k").last).to_have_text("if")
    expect(ada.body.locator("code .rest")).to_have_text("if")
    ada.body.locator("code").evaluate(
        "(code) => getSelection().setBaseAndExtent(code, 0, code, 60)"
    )
    selected = ada.page.evaluate("getSelection().toString()")
    ada.page.evaluate(WATCH)
    for hold in (1, 2, 3, 4):
        script.wait_for_hold(hold)
        script.release()
    ada.wait_for("complete")
    assert ada.page.evaluate("getSelection().toString()") == selected
    assert ada.body.locator("code").evaluate(SELECT_ALL).rstrip("\n") == "".join(lines).rstrip("\n")
    assert ada.shown() == ada.fresh()
