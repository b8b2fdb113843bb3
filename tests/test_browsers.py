"""One conversation in the browsers beside Chromium that are installed: Firefox, WebKit."""

from contextlib import closing

import pytest

from models import Chat, db
from tests.drivers import Firefox, WebKit
from tests.services import wait_until
from tests.test_browser import LIST, lines, somewhere_else
from tests.test_looks import NARROW, WIDE
from tests.test_untouched import LINE

REPLY = '#messages > [data-role="assistant"]:last-child'
GAP = "return document.documentElement.scrollHeight - innerHeight - scrollY"


class Reader:
    """Somebody in front of a browser."""

    def __init__(self, browser, stack):
        self.browser, self.stack = browser, stack
        person = stack.signup()
        self.goes_to("/login")
        browser.add_cookies(person.cookies)
        self.goes_to("/chats/new")

    def goes_to(self, path):
        self.browser.open(self.stack.url + path)

    def sees(self, script, *arguments):
        return self.browser.run(f"return {script}", *arguments)

    def waits_for(self, script, *arguments):
        try:
            wait_until(lambda: self.sees(script, *arguments), 10, f"{script} {arguments}")
        except TimeoutError as error:
            raise TimeoutError(self.sees("document.querySelector('main').innerText")) from error

    def sends(self, text):
        # Enter breaks the line where no script has come yet.
        self.waits_for("document.readyState === 'complete'")
        self.waits_for("document.getElementById('content').form.matches('[data-htmx-powered]')")
        self.browser.run("document.getElementById('content').focus()")
        self.browser.type(text)
        self.waits_for("document.getElementById('content').value === arguments[0]", text)
        self.browser.type("\ue007")  # Enter

    def clicks(self, name):
        """Click on the last button of a name, once it is there and does something."""
        button = (
            "[...document.querySelectorAll('button')].findLast((button) =>"
            " [button.ariaLabel, button.textContent.trim()].includes(arguments[0])"
            " && (button.form ?? button).matches('[data-htmx-powered]'))"
        )
        self.waits_for(f"!!{button}", name)
        self.browser.run(f"{button}.click()", name)

    def waits_for_words(self, words):
        self.waits_for(
            f"document.querySelector('{REPLY}')?.textContent.includes(arguments[0])", words
        )

    def waits_for_status(self, status):
        self.waits_for(
            f"document.querySelector('{REPLY}')?.dataset.status === arguments[0]", status
        )

    def waits_for_the_end(self):
        self.waits_for("document.readyState === 'complete'")  # with its styles
        wait_until(lambda: self.browser.run(GAP) < 2, 10, "the end of the page")

    @property
    def list(self):
        return self.sees(f"({LIST})()")

    @property
    def chat(self):
        return int(self.sees("location.pathname").rsplit("/", 1)[1])


@pytest.fixture(scope="module", params=[Firefox, WebKit])
def other_browser(request):
    if request.param.missing:
        pytest.skip(request.param.missing)
    with closing(request.param()) as browser:
        yield browser


@pytest.fixture
def reader(other_browser, stack):
    return Reader(other_browser, stack)


def test_a_reply_streams_survives_a_reload_and_ends_as_a_fresh_load(reader, provider):
    script = provider.says("# One\n\n- *two*", hold=True).says("\n- three\n\n```py\nx = 1\n```")
    reader.sends("count")
    reader.waits_for_words("two")
    reader.goes_to(f"/chats/{reader.chat}")
    reader.waits_for_words("two")
    script.release()
    reader.waits_for_status("complete")
    shown = reader.list
    reader.goes_to(f"/chats/{reader.chat}")
    wait_until(lambda: reader.list == shown, 5, f"a fresh load to be {shown}")


def test_a_reply_is_stopped(reader, provider):
    provider.says("one ", hold=True)
    reader.sends("count")
    reader.waits_for_words("one")
    reader.clicks("Stop")
    reader.waits_for_status("stopped")


def test_the_page_follows_its_end_only_while_the_reader_is_there(reader, provider):
    script = provider.says(*lines(40), hold=True).says(*lines(40, 40))
    reader.sends("write")
    reader.waits_for_words("Line 39")
    reader.waits_for_the_end()
    before = reader.sees("scrollY")
    reader.browser.scroll(-300)
    reader.waits_for("scrollY <= arguments[0]", before - 299)
    top = reader.sees("scrollY")
    script.release()
    reader.waits_for_words("Line 79")
    reader.waits_for_status("complete")
    assert reader.sees("scrollY") == top
    reader.sends("x")
    reader.waits_for_the_end()


@pytest.fixture
def long_chat(reader, stack):
    """The ids of 62 messages of very different heights; the last 30 are on the page."""
    reader.sends("hello")
    reader.waits_for_status("complete")
    with somewhere_else(stack):
        chat = db.session.get(Chat, reader.chat)
        for number in range(60):
            chat.say("user", f"number {number}\n" * (1 + number % 20))
        ids = [message.id for message in chat.messages]
    reader.goes_to(f"/chats/{reader.chat}")
    reader.waits_for_the_end()
    return ids


TOP = "document.getElementById(arguments[0])?.getBoundingClientRect().top"


READ = (
    "[...document.querySelectorAll('#messages > article')]"
    ".find((message) => message.getBoundingClientRect().bottom > 300).id"
)


def is_at(reader, name, top):
    """Wait until a message is so far below the window's top, px."""
    wait_until(lambda: abs((reader.sees(TOP, name) or 9999) - top) < 3, 5, f"{name} at {top}")


def test_a_step_up_is_as_long_as_it_is(reader, long_chat):
    for _ in range(10):
        name = reader.sees(READ)
        top = reader.sees(TOP, name)
        reader.browser.scroll(-200)
        is_at(reader, name, top + 200)


def test_earlier_messages_move_nothing_and_a_reload_comes_back(reader, long_chat):
    reader.browser.run("scrollTo(0, 100)")
    reader.waits_for("scrollY === 100")
    name = f"message-{long_chat[-30]}"
    top = reader.sees(TOP, name)
    reader.clicks("Show earlier messages")
    reader.waits_for("document.querySelectorAll('#messages > article').length === 60")
    is_at(reader, name, top)
    reader.browser.scroll(-400)
    is_at(reader, name, top + 400)
    above = f"message-{long_chat[-31]}"
    top = reader.sees(TOP, above)
    reader.browser.run("location.reload()")
    is_at(reader, above, top)


def test_what_is_typed_moves_nothing(reader, long_chat):
    reader.browser.scroll(-900)
    reader.waits_for(GAP.removeprefix("return ") + " > 890")
    top = reader.sees("scrollY")
    reader.browser.run("document.getElementById('content').focus({ preventScroll: true })")
    reader.browser.type("some words")
    reader.waits_for("document.getElementById('content').value.endsWith('some words')")
    assert reader.sees("scrollY") == top


USE = """
const select = (node) => getSelection().setBaseAndExtent(node, 2, node, 9);
document.querySelector(`${arguments[0]} .code__copy`).focus({ preventScroll: true });
select(document.querySelector(`${arguments[0]} p`).firstChild);
document.querySelector(`${arguments[0]} pre`).scrollLeft = 300;
"""
USED = """[
  getSelection().toString(), document.activeElement.className,
  document.querySelector(`${arguments[0]} pre`).scrollLeft,
]"""


@pytest.mark.parametrize("code_ends", [True, False])
def test_what_a_reader_uses_is_kept_through_the_end_of_a_reply(reader, provider, code_ends):
    begun = f"Some words.\n\n```python\n{LINE}\n" + "```\n\nAnd" * code_ends
    script = provider.says(begun, hold=True).says(" **more").holds()
    reader.sends("code")
    reader.waits_for_words("number_59")
    reader.waits_for("document.readyState === 'complete'")  # with its styles
    reader.browser.run(USE, REPLY)
    used = ["me word", "code__copy", 300]
    assert reader.sees(USED, REPLY) == used
    script.release()
    reader.waits_for_words("more")
    assert reader.sees(USED, REPLY) == used
    script.release()
    reader.waits_for_status("complete")
    assert reader.sees(USED, REPLY) == used


def test_a_wide_reply_is_scrolled_and_not_the_page(reader, provider):
    provider.says(WIDE)
    reader.sends("hello")
    reader.waits_for_status("complete")
    reader.waits_for("document.readyState === 'complete'")  # with its styles
    assert reader.sees("document.documentElement.scrollWidth <= innerWidth")


def test_tab_stops_only_at_what_has_more_to_show(reader, provider):
    provider.says(NARROW + WIDE)
    reader.sends("hello")
    reader.waits_for_status("complete")
    reader.waits_for("document.readyState === 'complete'")  # with its scripts
    reader.browser.run("document.querySelector('.code__copy').focus()")
    stops = []
    while stops[1:][-1:] != ["button"]:
        reader.browser.run("window.before = document.activeElement")
        reader.browser.type("\ue004")
        reader.waits_for("document.activeElement !== window.before")
        stops.append(reader.sees("document.activeElement.localName"))
    # Firefox stops by itself at what it scrolls, a formula's paragraph.
    assert [stop for stop in stops if stop != "p"] == ["button", "pre", "table", "math", "button"]
