"""Versions and branches on the page: turned, edited, watched from elsewhere, in two tabs."""

import re

import pytest
from playwright.sync_api import expect

from models import Chat, db
from tests.patience import patient
from tests.services import wait_until
from tests.tab import Tab, send
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


# edits


def edit(ada, instead=None, key="Enter", number=-1):
    """Edit a message of Ada's in place, the last if no `number` is given; return the box."""
    box = ada.page.get_by_role("textbox", name="New version")
    mine = ada.page.locator("#messages > .message--user").nth(number)
    mine.hover()
    mine.get_by_role("button", name="Edit").click()
    expect(box).to_be_focused()
    if instead is not None:
        box.fill(instead)
        box.press(key)
    return box


def test_a_message_is_edited_in_its_place(ada, provider):
    begin(ada, provider)
    other = another_tab(ada)
    provider.says("Two.", hold=True)
    box = edit(ada, "Goodbye")
    for tab in (ada, other):
        shows(tab, "Goodbye", "Two.")
        expect(tab.articles.first).to_have_attribute("data-versions", "2/2")
    expect(box).to_have_count(0)
    expect(ada.box).to_be_focused()
    provider.release()
    ada.wait_for("complete")
    other.wait_for("complete")
    assert provider.requests[-1].prompt == "Goodbye"
    assert ada.shown() == other.shown() == ada.fresh()
    button(ada, "Previous version").click()
    for tab in (ada, other):
        shows(tab, "Hello", "One.")
    assert ada.shown() == other.shown() == ada.fresh()


def test_escape_leaves_a_message_as_it_was(ada, provider):
    begin(ada, provider)
    before = ada.shown()
    box = edit(ada, "never sent", "Escape")
    expect(box).to_have_count(0)
    expect(button(ada, "Edit")).to_be_focused()
    assert ada.shown() == before
    expect(edit(ada)).to_have_value("Hello")
    ada.page.get_by_role("link", name="Cancel").click()
    assert ada.shown() == before


def test_up_in_the_empty_composer_edits_what_one_said_last(ada, provider):
    begin(ada, provider)
    ada.box.fill("a draft")
    ada.box.press("ArrowUp")
    ada.box.fill("")
    box = ada.page.get_by_role("textbox", name="New version")
    expect(box).to_have_count(0)
    ada.box.press("ArrowUp")
    expect(box).to_be_focused()
    box.press("End")
    box.press_sequentially(" there")
    box.press("Shift+Enter")
    box.press_sequentially("and here")
    expect(box).to_have_value("Hello there\nand here")
    ada.box.focus()
    ada.box.press("ArrowUp")
    expect(box).to_be_focused()


def test_a_text_that_is_edited_survives_what_comes_meanwhile(ada, provider):
    begin(ada, provider)
    regenerate(ada, provider, "Two.")
    box = edit(ada)
    box.fill("half a thou")
    other = another_tab(ada)
    button(other, "Previous version").click()
    shows(other, "Hello", "One.")
    expect(ada.body).to_have_text("One.")
    expect(box).to_be_focused()
    box.press_sequentially("ght")
    expect(box).to_have_value("half a thought")
    provider.says("Three.")
    other.send("and more")
    expect(other.articles).to_have_count(4)
    other.wait_for("complete")
    expect(ada.articles).to_have_count(4)
    expect(box).to_have_value("half a thought")
    edit(other, "Another beginning", number=0)
    expect(ada.articles.first).to_contain_text("Another beginning")
    expect(box).to_have_count(0)
    button(ada, "Previous version").click()
    shows(ada, "Hello", "One.", "and more", "Three.")
    expect(edit(ada, number=0)).to_have_value("half a thought")


def test_a_text_that_is_edited_survives_a_refusal(ada, provider):
    ada.forgiven = ["409", "ERR_INTERNET_DISCONNECTED", "Failed to fetch", "WebSocket"]
    script = provider.says("One ", hold=True).says("more.")
    ada.begin("Hello")
    expect(ada.body).to_have_text("One")
    box = edit(ada, "Goodbye")
    expect(ada.page.get_by_role("alert")).to_contain_text("still being written")
    expect(box).to_have_value("Goodbye")
    expect(box).to_be_focused()
    script.release()
    ada.wait_for("complete")
    expect(box).to_have_value("Goodbye")
    ada.page.context.set_offline(True)
    box.press("Enter")
    expect(ada.page.get_by_role("alert")).to_contain_text("could not be reached")
    ada.page.context.set_offline(False)
    provider.says("Two.")
    box.press("Enter")
    shows(ada, "Goodbye", "Two.")
    ada.wait_for("complete")
    assert len(provider.requests) == 2


def test_an_edit_is_shown_as_being_sent_until_it_is_there(ada, provider):
    begin(ada, provider)
    box, held = edit(ada), []
    ada.page.route("**/messages/*/edit", lambda route: held.append(route))
    box.fill("Goodbye")
    box.press("Enter")
    expect(button(ada, "Sending…")).to_be_disabled()
    expect(box).not_to_be_editable()
    wait_until(lambda: held, 5, "the request")
    held[0].continue_()
    expect(ada.articles.first).to_contain_text("Goodbye")
    expect(box).to_have_count(0)


def test_a_composition_does_not_send_an_edit(ada, provider):
    begin(ada, provider)
    box = edit(ada)
    keys = ada.page.context.new_cdp_session(ada.page)
    keys.send("Input.imeSetComposition", {"text": "にほん", "selectionStart": 3, "selectionEnd": 3})
    for key in ("Enter", "Escape"):
        ada.page.evaluate(
            """() => document.addEventListener("keydown",
            ({ isComposing }) => (window.composing = isComposing), { once: true, capture: true })"""
        )
        box.press(key)
        assert ada.page.evaluate("window.composing") is True
    expect(box).to_be_visible()
    assert len(provider.requests) == 1


@pytest.mark.parametrize("wrong", [False, True])
def test_a_message_is_edited_without_javascript(open_tab, provider, wrong):
    ada = open_tab(java_script_enabled=False)
    provider.says("One.")
    ada.page.goto("/chats/new")
    ada.box.fill("Hello")
    ada.press("Send")
    becomes(ada, "Hello", "One.")
    ada.press("Edit")
    expect(ada.page).to_have_url(re.compile(r"/messages/\d+/edit\??$"))
    box = ada.page.get_by_role("textbox", name="New version")
    expect(box).to_have_value("Hello")
    if wrong:
        ada.forgiven = ["422"]
        box.fill("x" * 200_001)
        ada.press("Send")
        expect(ada.page.get_by_role("alert")).to_be_visible()
    provider.says("Two.")
    box.fill("Goodbye")
    ada.press("Send")
    becomes(ada, "Goodbye", "Two.")
    ada.press("Previous version")
    shows(ada, "Hello", "One.")


def becomes(ada, *words):
    """Reload the chat, once a form has led there, until this is shown."""
    expect(ada.page).to_have_url(re.compile(r"/chats/\d+"))

    def shown():
        ada.page.reload()
        return ada.page.locator("#messages .message__body").all_text_contents() == list(words)

    wait_until(shown, 10, words)


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


def test_a_quiet_line_leads_to_what_was_taken_off_the_page(ada, provider):
    begin(ada, provider)
    provider.says("Yes.")
    ada.send("more")
    expect(ada.articles).to_have_count(4)
    ada.wait_for("complete")
    edit(ada, "Goodbye", number=0)
    expect(ada.articles.first).to_contain_text("Goodbye")
    expect(ada.articles).to_have_count(2)
    ada.wait_for("complete")
    ada.page.get_by_role("button", name="3 more messages continue version 1").click()
    shows(ada, "Hello", "One.", "more", "Yes.")
    expect(ada.page.get_by_role("group", name="Version 1 of 2").locator(":focus")).to_have_count(1)


def test_a_version_that_failed_is_said_and_shown_on_a_press(ada, provider):
    begin(ada, provider)
    other = another_tab(ada)
    provider.fails(401)
    ada.press("Regenerate")
    for tab in (ada, other):
        alert = tab.page.locator(".versions").get_by_role("alert")
        note = alert.get_by_role("button", name=re.compile("^Version 2 failed: .*API key"))
        expect(note).to_be_visible()
        shows(tab, "Hello", "One.")
    assert ada.shown() == other.shown() == ada.fresh()
    ada.page.get_by_role("button", name=re.compile("^Version 2 failed")).click()
    for tab in (ada, other):
        tab.wait_for("failed")
        expect(tab.reply).to_contain_text("refused the API key")
    assert ada.shown() == other.shown() == ada.fresh()


# a reply that runs elsewhere


@pytest.fixture
def elsewhere(ada, provider):
    """A reply of which half is said, and the page that has turned away from it: its script."""
    begin(ada, provider)
    script = provider.says("Two ", "**and", hold=True).says("** three ").holds().says("four.")
    ada.press("Regenerate")
    expect(ada.body).to_have_text("Two and")
    button(ada, "Previous version").click()
    shows(ada, "Hello", "One.")
    return script


def is_told(ada):
    expect(ada.page.locator("#elsewhere")).to_contain_text("A reply is being written")


@pytest.mark.parametrize("comes_back", ["Show it", "Next version", "reload"])
def test_a_reply_that_runs_elsewhere_comes_only_where_it_is_shown(
    ada,
    provider,
    elsewhere,
    comes_back,
):
    other = another_tab(ada)
    is_told(ada)
    is_told(other)
    before = ada.shown()
    elsewhere.release()
    elsewhere.wait_for_hold(2)
    ada.page.evaluate(REST)
    assert ada.shown() == other.shown() == before
    if comes_back == "reload":
        ada.page.reload()
        is_told(ada)
    ada.press("Next version" if comes_back == "reload" else comes_back)
    for tab in (ada, other):
        expect(tab.body).to_have_text("Two and three")
        expect(tab.page.locator("#elsewhere")).to_be_empty()
    elsewhere.release()
    for tab in (ada, other):
        expect(tab.body).to_have_text("Two and three four.")
        tab.wait_for("complete")
    assert ada.shown() == other.shown() == ada.fresh()


def test_a_reply_that_ends_elsewhere_leaves_the_page_as_it_is(ada, provider, elsewhere):
    other = another_tab(ada)
    elsewhere.release()
    elsewhere.wait_for_hold(2)
    elsewhere.release()
    for tab in (ada, other):
        expect(tab.page.locator("#elsewhere")).to_be_empty()
        shows(tab, "Hello", "One.")
    assert ada.shown() == other.shown() == ada.fresh()
    button(ada, "Next version").click()
    for tab in (ada, other):
        shows(tab, "Hello", "Two and three four.")
    assert ada.shown() == other.shown() == ada.fresh()


def test_regenerate_says_which_model_it_asks(ada, provider):
    begin(ada, provider)
    ada.page.get_by_label("Model").select_option("gpt-4o")
    shown = "(button) => getComputedStyle(button, '::after').content"
    again = button(ada, "Regenerate")
    again.hover()
    assert "with gpt-4o" in again.evaluate(shown)
    expect(button(ada, "Regenerate")).to_be_visible()


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


# over a socket alone


def test_two_sockets_are_sent_what_makes_a_page_equal_a_fresh_load(stack, provider):
    session = stack.signup()
    tabs = [Tab(session, session.new_chat())]
    tabs.append(Tab(session, tabs[0].chat_id))

    def settle(status, *words, version=None):
        for tab in tabs:
            tab.wait_until(
                lambda tab: (
                    [each.text for each in tab.page.list.select(".message__body")] == list(words)
                    and tab.page.messages[-1]["data-status"] == status
                    and tab.page.messages[-1].get("data-versions") == version
                )
            )
            assert tab.html == tab.reloaded()

    provider.says("One.")
    send(tabs[0], "Hello")
    settle("complete", "Hello", "One.")
    first = tabs[0].reply_id
    script = provider.says("Two", hold=True).says(" three.")
    session.retry(first)
    settle("streaming", "Hello", "Two", version="2/2")
    session.post(f"/messages/{first}/show", htmx=True)
    settle("complete", "Hello", "One.", version="1/2")
    script.release()
    second = first + 1
    wait_until(lambda: "Two three." in session.get(f"/messages/{second}").text, 10, "the reply")
    settle("complete", "Hello", "One.", version="1/2")
    session.post(f"/messages/{second}/show", htmx=True)
    settle("complete", "Hello", "Two three.", version="2/2")
    provider.fails(401)
    session.retry(second)
    settle("complete", "Hello", "Two three.", version="2/3")
