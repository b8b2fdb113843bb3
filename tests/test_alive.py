"""A page stays alive and right on every network, in a real browser at the deployed product."""

import json
import os
import re
import signal
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.patience import patient
from tests.services import Proxy, wait_until
from tests.test_browser import PASSWORD, Person

WAIT = 1000 * patient(15)  # ms
# What was said in the place for notices is in `notices`.
NOTE_NOTICES = """() => {
  window.notices = [];
  const place = document.getElementById("connection");
  new MutationObserver(() => !place.hidden && notices.push(place.textContent))
    .observe(place, { attributes: true, attributeFilter: ["hidden"] });
}"""
# Soon 12 s will seem to have passed.
SLEEP = """() => {
  const now = Date.now;
  setTimeout(() => (Date.now = () => now() + 12_000), 300);
}"""
BLOCKED = "Live updates are blocked"


@pytest.fixture
def proxy(stack):
    """What stands between the browser and the web."""
    with closing(Proxy(urlsplit(stack.url).port)) as proxy:
        yield proxy


@pytest.fixture
def ada(browser, stack, proxy):
    """Ada, signed up, behind the proxy."""
    with behind(browser, stack, proxy) as person:
        yield person


@contextmanager
def behind(browser, stack, proxy):
    context = browser.new_context(base_url=f"http://127.0.0.1:{proxy.port}")
    context.set_default_timeout(1000 * patient(10))
    person = Person(context.new_page())
    person.forgiven = ["WebSocket", "htmx:ws:error", "ERR_", "Failed to fetch"]
    session = stack.signup()
    session.url = f"http://127.0.0.1:{proxy.port}"
    yield person.is_signed_up(session)
    context.close()
    assert person.complaints == []


def banner(person):
    return person.page.locator("#connection")


# A connection that died without a word.


def test_a_socket_that_died_without_a_word_is_replaced_in_mid_reply(ada, proxy, provider):
    script = provider.reply().says("one ").holds().says("two ").holds().says("three")
    ada.begin("count")
    expect(ada.body).to_have_text("one")
    proxy.swallow_sockets()
    script.release()
    script.wait_for_hold(2)
    expect(banner(ada)).to_have_text("Reconnecting…", timeout=WAIT)
    expect(ada.body).to_have_text("one two", timeout=WAIT)
    expect(banner(ada)).to_be_hidden()
    script.release()
    ada.wait_for("complete")
    expect(ada.body).to_have_text("one two three")
    assert ada.shown() == ada.fresh()


def test_what_is_sent_over_a_dead_socket_appears_by_itself(ada, proxy, provider):
    ada.begin("first")
    ada.wait_for("complete")
    proxy.swallow_sockets()
    provider.says("Heard.")
    ada.send("second")
    expect(ada.body).to_have_text("Heard.", timeout=WAIT)
    expect(ada.box).to_have_value("")
    expect(ada.page.locator("#outbox")).to_be_hidden()
    assert ada.shown() == ada.fresh()


def test_a_reply_that_is_long_in_coming_costs_no_connection(ada, proxy, provider):
    script = provider.reply().says("one ").holds().says("two")
    ada.begin("count")
    expect(ada.body).to_have_text("one")
    socket = proxy.sockets[-1]
    heard = socket.weight
    wait_until(lambda: socket.weight >= heard + 20, 20, "two questions and answers")
    assert proxy.sockets[-1] is socket
    script.release()
    ada.wait_for("complete")


def test_being_offline_is_said_at_once_and_made_up_for(ada, provider):
    script = provider.reply().says("one ").holds().says("two")
    ada.begin("count")
    expect(ada.body).to_have_text("one")
    ada.page.context.set_offline(True)
    expect(banner(ada)).to_have_text("You are offline.", timeout=1000 * patient(2))
    script.release()
    ada.page.context.set_offline(False)
    ada.wait_for("complete")
    expect(ada.body).to_have_text("one two")
    expect(banner(ada)).to_be_hidden()
    assert ada.shown() == ada.fresh()


def test_a_blink_is_not_spoken_of(ada, proxy):
    ada.begin("Hello")
    ada.wait_for("complete")
    ada.page.evaluate(NOTE_NOTICES)
    for link in proxy.sockets:
        link.close()
    wait_until(lambda: len(proxy.sockets) == 2, 10, "another socket")
    ada.page.context.set_offline(True)  # is said, so the others would have been noted, too
    expect(banner(ada)).to_have_text("You are offline.")
    assert ada.page.evaluate("notices") == ["You are offline."]


@pytest.mark.parametrize("dies", [False, True], ids=["lives", "dies"])
def test_a_page_that_was_frozen_is_right_afterwards(ada, proxy, provider, dies):
    script = provider.reply().says("one ").holds().says("two ")
    ada.begin("count")
    expect(ada.body).to_have_text("one")
    url, elsewhere = ada.page.url, ada.page.context.request
    ada.page.evaluate(SLEEP)
    with frozen(ada.page.context.browser):
        if dies:
            proxy.swallow_sockets()
        script.release()
        wait_until(lambda: "Regenerate" in elsewhere.get(url).text(), 10, "the end of the reply")
    expect(ada.body).to_have_text("one two", timeout=WAIT)
    ada.wait_for("complete")
    assert ada.shown() == ada.fresh()


@contextmanager
def frozen(browser):
    """Let no page of a browser do anything."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    pages = [process["id"] for process in processes if process["type"] == "renderer"]
    assert pages
    for page in pages:
        os.kill(page, signal.SIGSTOP)
    try:
        yield
    finally:
        for page in pages:
            os.kill(page, signal.SIGCONT)


# A network that lets no socket through.


def test_where_open_sockets_bring_nothing_the_page_asks_for_the_same_frames(ada, proxy, provider):
    proxy.swallows_sockets = True
    provider.says("Heard.")
    ada.begin("count")
    expect(ada.body).to_have_text("Heard.", timeout=2 * WAIT)
    ada.wait_for("complete")
    proxy.swallows_sockets = False
    expect(banner(ada)).to_be_hidden(timeout=4 * WAIT)
    assert ada.shown() == ada.fresh()


def test_where_sockets_are_blocked_the_page_asks_for_the_same_frames(ada, proxy, provider):
    proxy.blocks_sockets = True
    script = provider.reply().says("one ").holds().says("two ").holds().says("three\n\n- four")
    ada.begin("count")
    expect(ada.body).to_have_text("one")
    expect(banner(ada)).to_contain_text(BLOCKED)
    for text in ("one two", "one two three"):
        script.release()
        expect(ada.body).to_contain_text(text)
    ada.wait_for("complete")
    expect(banner(ada)).to_contain_text(BLOCKED)
    expect(ada.page.get_by_role("heading", level=1)).to_have_text("count")
    assert ada.shown() == ada.fresh()
    provider.says("Again.")
    ada.send("once more")
    expect(ada.body).to_have_text("Again.")
    assert ada.shown() == ada.fresh()


def test_the_page_goes_back_to_a_socket_that_gets_through(ada, proxy, provider):
    proxy.blocks_sockets = True
    script = provider.reply().says("one ").holds().says("two ").holds().says("three")
    ada.begin("count")
    expect(banner(ada)).to_contain_text(BLOCKED)
    script.release()
    expect(ada.body).to_have_text("one two")
    proxy.blocks_sockets = False
    expect(banner(ada)).to_be_hidden(timeout=3 * WAIT)
    script.release()
    ada.wait_for("complete")
    expect(ada.body).to_have_text("one two three")
    assert ada.shown() == ada.fresh()


def test_what_a_page_has_is_not_sent_again(stack, provider):
    ada = stack.signup()
    chat = ada.new_chat()
    script = provider.reply().says("one ").holds().says("two ").holds()
    ada.say(chat, "count")
    script.wait_for_hold()
    first = wait_until(lambda: frames_of(ada, chat, "since=0", "one"), 5, "the first word")
    # The chat has moved on since then: this is once more the whole of the reply.
    whole = frames_of(ada, chat, first["next"])
    assert frames_of(ada, chat, whole["next"])["frames"] == []
    script.release()
    more = wait_until(lambda: frames_of(ada, chat, whole["next"], "two"), 5, "the second word")
    assert "one" not in str(more["frames"])
    script.release()
    answer = ada.get(f"/chats/{chat}/updates?since=0")
    assert answer.headers["Cache-Control"] == "no-store"
    for query in (
        "since=99999999999999999999",
        "since=-1",
        "since=x&had=-4&digest=",
        "had=9&digest=1",
    ):
        assert ada.get(f"/chats/{chat}/updates?{query}").status == 200
    assert stack.signup("Bob").get(f"/chats/{chat}/updates").status == 404
    assert stack.session().get(f"/chats/{chat}/updates", **{"HX-Request": "true"}).status == 401


def frames_of(person, chat, query, text=""):
    answer = json.loads(person.get(f"/chats/{chat}/updates?{query}").text)
    return answer if text in str(answer["frames"]) else None


# A page that has no chat any more.


def test_a_chat_that_is_deleted_in_another_tab_says_so_and_offers_the_others(ada):
    ada.forgiven += ["404"]
    ada.begin("Hello")
    ada.wait_for("complete")
    with other_tab(ada, f"{ada.page.url}/edit") as other:
        other.get_by_role("button", name="Delete chat").click()
        other.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(banner(ada)).to_contain_text("This chat was deleted.")
    ada.send("precious")
    expect(ada.page.get_by_role("alert")).to_contain_text("no longer here")
    expect(ada.box).to_have_value("precious")
    banner(ada).get_by_role("link").click()
    expect(ada.page).to_have_url(re.compile("/chats$"))


def test_a_reply_cannot_be_stopped_in_a_chat_that_was_deleted(ada, proxy, provider):
    """No socket has told the page that it was: it asks for the frames, and is told."""
    ada.forgiven += ["404", "410"]
    proxy.blocks_sockets = True
    provider.says("one ", hold=True)
    ada.begin("count")
    expect(ada.body).to_have_text("one")
    with other_tab(ada, f"{ada.page.url}/edit") as other:
        other.get_by_role("button", name="Delete chat").click()
        other.get_by_role("dialog").get_by_role("button", name="Delete").click()
    ada.press("Stop")
    expect(ada.page.get_by_role("alert")).to_contain_text("no longer here")
    expect(banner(ada)).to_contain_text("This chat was deleted.")


def test_who_is_signed_out_elsewhere_can_come_back_to_the_chat(ada, proxy):
    ada.begin("Hello")
    ada.wait_for("complete")
    chat = ada.page.url
    with other_tab(ada, "/chats") as other:
        other.get_by_role("button", name="Log out").click()
        expect(other).to_have_url(re.compile("/login"))
    for link in proxy.sockets:
        link.close()
    expect(banner(ada)).to_contain_text("You are logged out here, or this chat")
    banner(ada).get_by_role("link").click()
    expect(ada.page).to_have_url(re.compile("/login"))
    ada.page.get_by_label("Email").fill(ada.email)
    ada.page.get_by_label("Password").fill(PASSWORD)
    ada.page.get_by_role("button", name="Log in").click()
    expect(ada.page).to_have_url(chat)


@contextmanager
def other_tab(person, address):
    tab = person.page.context.new_page()
    tab.goto(address)
    yield tab
    expect(tab).not_to_have_url(address)
    tab.close()


# A browser with another clock.


@pytest.mark.parametrize("hours", [-3, 3])
def test_times_are_told_by_the_servers_clock(ada, hours):
    ada.page.clock.install(time=datetime.now(UTC) + timedelta(hours=hours))
    ada.begin("Hello")
    ada.wait_for("complete")
    ada.page.clock.run_for("01:10:00")
    for time in ada.page.locator("#messages time").all():
        expect(time).to_have_text("an hour ago")
