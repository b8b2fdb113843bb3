"""What a person does and sees, in a real browser at the deployed product."""

import re
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect

from app import create_app
from models import Chat, db
from tests.patience import patient
from tests.services import wait_until

PASSWORD = "correct horse battery"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
# The list as markup, without the words of times: they age.
LIST = """() => {
  const list = document.getElementById("messages").cloneNode(true);
  for (const time of list.querySelectorAll("time")) time.textContent = "";
  return list.innerHTML;
}"""
# Headless tabs are never hidden by themselves.
HIDE = """([hidden, event]) => new Promise((resolve) => {
  const tell = () => document.dispatchEvent(new Event("visibilitychange"));
  // A page whose socket is not there yet has none to close: it is told again.
  const again = hidden && setInterval(tell, 500);
  document.addEventListener(event, () => resolve(clearInterval(again)), { once: true });
  Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
  tell();
})"""
REFUSE_STORAGE = """() => {
  Storage.prototype.setItem = () => { throw new Error("storage is full"); };
}"""
GAP = "() => document.documentElement.scrollHeight - innerHeight - scrollY"
RICH = [
    "# Head\n\nSome **bold *and* text**, ",
    "`code` and ==marks==.\n\n- one\n- two\n  - nested",
    "\n\n1. first\n2. second\n\n```python\ndef f(x):\n    return",
    ' "<b>" + x\n```\n\n| a | b |\n|---|--:|\n| 1 ',
    "| 2 |\n| 3 | 4 |\n\n> a quote\n\n$x^2$ and $$\\sum_i i$$\n\n- [x] done\n- [ ] not",
    " yet\n\nThe [end](https://example.com).",
]


class Person:
    """Somebody in front of a tab; `errors` is what the browser's console complained about."""

    people = 0

    def __init__(self, page, sends="Enter"):
        self.page, self.sends = page, sends
        self.errors, self.forgiven = [], []
        self.watch(page)

    def watch(self, page):
        page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    @property
    def complaints(self):
        """Return the errors in the console that no test has announced."""
        return [line for line in self.errors if not any(map(line.count, self.forgiven))]

    def sign_up(self, name="Ada Lovelace"):
        Person.people += 1
        self.page.goto("/signup")
        self.page.get_by_label("Name").fill(name)
        self.email = f"browser{Person.people}@example.com"
        self.page.get_by_label("Email").fill(self.email)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign up").click()
        expect(self.page).to_have_url(re.compile("/chats/new$"))
        return self

    def is_signed_up(self, session):
        """Come with the cookies of somebody who has signed up."""
        cookies = [{"name": name, "value": value} for name, value in session.cookies.items()]
        self.page.context.add_cookies([cookie | {"url": session.url} for cookie in cookies])
        self.email = session.email
        return self

    @property
    def box(self):
        return self.page.get_by_role("textbox", name="Message")

    def begin(self, text):
        """Begin a chat with a message; return when its page is open."""
        self.page.goto("/chats/new")
        self.send(text)
        self.page.wait_for_url(re.compile(r"/chats/\d+$"))
        self.question(text)
        return self

    def send(self, text):
        self.box.fill(text)
        if self.sends == "Enter":
            self.box.press("Enter")
        else:
            self.press("Send")

    def question(self, text):
        """Wait for a message of this person's."""
        mine = self.page.locator("#messages > .message--user .message__body", has_text=text)
        expect(mine.last).to_be_visible()

    @property
    def articles(self):
        return self.page.locator("#messages > article")

    @property
    def reply(self):
        return self.page.locator("#messages > .message--assistant").last

    @property
    def body(self):
        return self.reply.locator(".message__body")

    def wait_for(self, status="complete"):
        """Wait for the last message to get this status."""
        expect(self.articles.last).to_have_attribute("data-status", status)

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).last.click()

    def shown(self, page=None):
        """Return the list of messages as markup."""
        return (page or self.page).evaluate(LIST)

    def fresh(self):
        """Return the list of messages as a fresh load shows it."""
        tab = self.page.context.new_page()
        tab.goto(self.page.url)
        try:
            return self.shown(tab)
        finally:
            tab.close()

    def hide(self, hidden=True):
        """Let the page think that its tab is hidden, or seen again; wait until it has acted."""
        self.page.evaluate(
            HIDE, [hidden, "htmx:ws:close" if hidden else "htmx:after:ws:connection"]
        )

    def gap(self):
        """Return how many pixels of the page lie below the window."""
        return self.page.evaluate(GAP)

    def wait_for_the_end(self):
        # Not by Playwright's wait_for_function: what it polls with, the page's policy forbids.
        wait_until(lambda: self.gap() < 2, 5, "the end of the page")


@pytest.fixture
def person(page):
    """Somebody nobody knows yet; the console has to stay clean."""
    person = Person(page)
    yield person
    assert person.complaints == []


@pytest.fixture
def ada(person, stack):
    """Ada, signed up."""
    return person.is_signed_up(stack.signup())


# a chat, from the beginning


def test_a_person_signs_up_and_chats(person, provider):
    ada = person.sign_up()
    provider.says("Hello, ", "**Ada**!").uses(812, 240)
    expect(ada.box).to_be_focused()
    ada.page.get_by_label("Model").select_option("gpt-4o")
    ada.send("What is the time?")
    ada.wait_for("complete")
    expect(ada.body).to_have_text("Hello, Ada!")
    expect(ada.body.locator("strong")).to_have_text("Ada")
    expect(ada.reply).to_contain_text("812 input tokens [$0.0020] / 240 output tokens [$0.0024]")
    expect(ada.page.get_by_role("heading", level=1)).to_have_text("What is the time?")
    expect(ada.page.locator(".sidebar__chat[aria-current]")).to_have_text("What is the time?")
    expect(ada.page).to_have_title("What is the time? · Chattable")
    expect(ada.page.locator(".chat__cost")).to_have_text("$0.0044")
    expect(ada.page.get_by_label("Model")).to_have_value("gpt-4o")
    expect(ada.box).to_have_value("")
    expect(ada.box).to_be_focused()
    assert ada.shown() == ada.fresh()


def test_a_conversation_goes_on(ada, provider):
    for number in ("one", "two", "three"):
        provider.says(f"You said {number}.")
        ada.send(number) if number != "one" else ada.begin(number)
        expect(ada.body).to_have_text(f"You said {number}.")
        ada.wait_for("complete")
    expect(ada.articles).to_have_count(6)
    assert ada.shown() == ada.fresh()


def test_a_person_logs_out_and_in_again(ada):
    ada.begin("Hello")
    ada.wait_for("complete")
    chat = ada.page.url
    ada.box.fill("a draft that is private")
    ada.press("Log out")
    expect(ada.page).to_have_url(re.compile("/login"))
    assert ada.page.evaluate("localStorage.length") == 0
    ada.page.goto(chat)
    ada.page.get_by_label("Email").fill(ada.email)
    ada.page.get_by_label("Password").fill(PASSWORD)
    ada.page.get_by_label("Remember me").check()
    ada.press("Log in")
    expect(ada.page).to_have_url(chat)
    ada.question("Hello")


def test_a_real_provider_is_not_called_a_demo(ada):
    ada.begin("Hello")
    expect(ada.page.get_by_text("Demo model")).to_have_count(0)


def test_the_demo_model_is_called_one(make_app):
    person = make_app(DEMO_MODEL="1").test_client()
    form = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}
    assert "Demo model" in person.post("/signup", data=form, follow_redirects=True).text + (
        person.get("/chats/new").text
    )


# what streams


def test_a_reload_in_mid_reply_shows_everything_said_so_far(ada, provider):
    script = provider.says("one ", "two ", hold=True).says("three")
    ada.begin("count")
    expect(ada.body).to_have_text("one two")
    ada.page.reload()
    expect(ada.body).to_have_text("one two")
    ada.wait_for("streaming")
    script.release()
    expect(ada.body).to_have_text("one two three")
    ada.wait_for("complete")
    assert ada.shown() == ada.fresh()


@pytest.mark.parametrize("reload_at", [None, 1, 3, 5])
def test_after_streaming_the_page_equals_a_fresh_load(ada, provider, reload_at):
    script = provider.reply()
    for piece in RICH:
        script.says(*re.findall(r".{1,5}", piece, re.DOTALL)).holds()
    ada.begin("Tell me everything")
    for number in range(len(RICH)):
        script.wait_for_hold(number + 1)
        if number == reload_at:
            ada.page.reload()
        script.release()
    ada.wait_for("complete")
    expect(ada.body).to_contain_text("The end.")
    assert ada.shown() == ada.fresh()


def test_a_tab_that_was_hidden_catches_up_when_it_is_seen_again(ada, provider):
    script = provider.reply().says("one ").holds().says("two ").holds().says("three")
    ada.begin("count")
    expect(ada.body).to_have_text("one")
    ada.hide()
    script.release()
    script.wait_for_hold(2)
    expect(ada.body).to_have_text("one")
    ada.hide(False)
    expect(ada.body).to_have_text("one two")
    ada.hide()
    script.release()
    other = Person(ada.page.context.new_page())
    other.page.goto(ada.page.url)
    other.wait_for("complete")
    ada.hide(False)
    ada.wait_for("complete")
    assert ada.shown() == ada.fresh()


def test_two_tabs_stay_equal(ada, provider):
    script = provider.says("one ", hold=True).says("two")
    ada.begin("count")
    expect(ada.body).to_have_text("one")
    other = Person(ada.page.context.new_page())
    other.page.goto(ada.page.url)
    expect(other.body).to_have_text("one")
    assert other.shown() == ada.shown()
    script.release()
    for tab in (ada, other):
        expect(tab.body).to_have_text("one two")
        tab.wait_for("complete")
    assert other.shown() == ada.shown()
    provider.says("three")
    other.send("and then?")
    for tab in (ada, other):
        expect(tab.articles).to_have_count(4)
        tab.wait_for("complete")
    assert other.shown() == ada.shown() == ada.fresh()
    assert other.complaints == []


def test_what_the_model_thought_can_be_read(ada, provider):
    provider.reply().thinks("Let me ", "see: <b>1</b>\n\n2").says("Done.")
    ada.begin("think")
    ada.wait_for("complete")
    thought = ada.reply.get_by_text("Let me see: <b>1</b>")
    expect(thought).to_be_hidden()
    ada.reply.get_by_text("Thought for").click()
    expect(thought).to_be_visible()
    expect(ada.body).to_have_text("Done.")
    ada.page.reload()
    expect(thought).to_be_hidden()
    assert ada.shown() == ada.fresh()


def test_markup_from_a_model_runs_nothing(ada, provider):
    provider.says(
        "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
        "[a](javascript:window.hacked=1) ![b](https://example.com/pixel.png) <hx-partial ",
        'hx-target="body" hx-swap="innerHTML">gone</hx-partial>',
    )
    loaded = []
    ada.page.on("request", lambda request: loaded.append(request.url))
    ada.begin("attack")
    ada.wait_for("complete")
    assert ada.page.evaluate("window.hacked") is None
    assert ada.body.locator("img, script").count() == 0
    assert not [url for url in loaded if "example.com" in url]
    expect(ada.body).to_contain_text("gone")
    expect(ada.box).to_be_visible()


# stop, retry, regenerate


def test_a_reply_is_stopped_and_asked_for_again(ada, provider):
    provider.says("one ", "two ", hold=True).says("never")
    ada.begin("count")
    expect(ada.body).to_have_text("one two")
    ada.press("Stop")
    ada.wait_for("stopped")
    provider.wait_for_disconnect()
    expect(ada.body).to_have_text("one two")
    expect(ada.reply).to_contain_text("Stopped")
    assert ada.shown() == ada.fresh()
    provider.says("three")
    ada.press("Retry")
    expect(ada.body).to_have_text("three")
    ada.wait_for("complete")
    expect(ada.articles).to_have_count(2)
    assert ada.shown() == ada.fresh()


def test_a_failed_reply_says_why_and_can_be_asked_for_again(ada, provider):
    provider.fails(401)
    ada.begin("Hello")
    ada.wait_for("failed")
    expect(ada.reply).to_contain_text("refused the API key")
    provider.says("Now it works.")
    ada.press("Retry")
    expect(ada.body).to_have_text("Now it works.")
    ada.wait_for("complete")
    provider.says("And again, by another model.")
    ada.page.get_by_label("Model").select_option("gpt-4o")
    ada.press("Regenerate")
    expect(ada.body).to_have_text("And again, by another model.")
    ada.wait_for("complete")
    expect(ada.reply.locator("h2")).to_have_text("gpt-4o")
    expect(ada.articles).to_have_count(2)
    assert ada.shown() == ada.fresh()


# the composer


def test_enter_sends_and_shift_enter_breaks_the_line(ada, provider):
    ada.page.goto("/chats/new")
    ada.box.press_sequentially("one")
    ada.box.press("Shift+Enter")
    ada.box.press_sequentially("two")
    expect(ada.box).to_have_value("one\ntwo")
    ada.box.press("Enter")
    ada.page.wait_for_url(re.compile(r"/chats/\d+$"))
    ada.wait_for("complete")
    expect(ada.articles.first.locator(".message__body")).to_have_text("one\ntwo")
    assert provider.requests[0].prompt == "one\ntwo"


def test_enter_in_an_empty_composer_sends_nothing(ada, provider):
    ada.begin("Hello")
    ada.wait_for("complete")
    for text in ("", "   "):
        ada.send(text)
    provider.says("Only this.")
    ada.send("next")
    expect(ada.body).to_have_text("Only this.")
    ada.wait_for("complete")
    expect(ada.articles).to_have_count(4)


def test_enter_that_ends_a_composition_does_not_send(ada, provider):
    ada.begin("Hello")
    ada.wait_for("complete")
    keys = ada.page.context.new_cdp_session(ada.page)
    ada.box.focus()
    keys.send("Input.imeSetComposition", {"text": "にほん", "selectionStart": 3, "selectionEnd": 3})
    ada.page.evaluate(
        """() => document.getElementById("content").addEventListener("keydown",
        ({ isComposing }) => (window.composing = isComposing), { once: true })"""
    )
    ada.page.keyboard.press("Enter")
    assert ada.page.evaluate("window.composing") is True
    ada.page.reload()
    ada.send("日本")
    expect(ada.articles).to_have_count(4)
    assert [request.prompt for request in provider.requests] == ["Hello", "日本"]


def test_a_draft_survives_a_reload(ada):
    ada.begin("Hello")
    ada.wait_for("complete")
    ada.box.press_sequentially("half a thou")
    ada.page.reload()
    expect(ada.box).to_have_value("half a thou")
    ada.page.goto("/chats/new")
    expect(ada.box).to_have_value("")
    ada.box.press_sequentially("another")
    ada.page.reload()
    expect(ada.box).to_have_value("another")


def test_a_draft_survives_what_another_tab_of_the_chat_sends(ada):
    ada.begin("Hello")
    ada.wait_for("complete")
    other = Person(ada.page.context.new_page())
    other.page.goto(ada.page.url)
    other.box.press_sequentially("half a thou")
    ada.send("Hello again")
    expect(other.articles).to_have_count(4)
    other.page.reload()
    expect(other.box).to_have_value("half a thou")


def test_a_draft_survives_a_send_that_fails_and_is_sent_once(ada, provider):
    ada.forgiven = ["ERR_INTERNET_DISCONNECTED", "Failed to fetch", "WebSocket"]
    ada.begin("Hello")
    ada.wait_for("complete")
    ada.page.context.set_offline(True)
    ada.send("precious")
    expect(ada.page.get_by_role("alert")).to_contain_text("Your text is kept")
    expect(ada.box).to_have_value("precious")
    ada.page.context.set_offline(False)
    ada.page.reload()
    expect(ada.box).to_have_value("precious")
    provider.says("Got it.")
    ada.box.press("Enter")
    expect(ada.body).to_have_text("Got it.")
    ada.wait_for("complete")
    expect(ada.box).to_have_value("")
    expect(ada.articles).to_have_count(4)


def test_a_send_while_a_reply_is_written_is_refused_and_the_text_kept(ada, provider):
    ada.forgiven = ["409"]
    script = provider.says("one ", hold=True).says("two")
    ada.begin("first")
    expect(ada.body).to_have_text("one")
    ada.send("second")
    expect(ada.page.get_by_role("alert")).to_contain_text("still being written")
    expect(ada.box).to_have_value("second")
    script.release()
    ada.wait_for("complete")
    provider.says("three")
    ada.box.press("Enter")
    expect(ada.body).to_have_text("three")
    expect(ada.page.get_by_role("alert")).to_have_count(0)
    expect(ada.box).to_have_value("")


def test_what_is_typed_while_a_message_is_sent_stays(ada, provider):
    provider.says("Fine.", hold=True)
    ada.begin("first")
    ada.box.press_sequentially("the next one")
    provider.release()
    ada.wait_for("complete")
    expect(ada.box).to_have_value("the next one")


def test_signed_out_elsewhere_the_text_is_kept(ada):
    ada.forgiven = ["401"]
    ada.begin("Hello")
    ada.wait_for("complete")
    other = ada.page.context.new_page()
    other.goto("/chats")
    other.get_by_role("button", name="Log out").click()
    expect(other).to_have_url(re.compile("/login"))
    ada.send("precious")
    expect(ada.page.get_by_role("alert")).to_contain_text("your text is kept")
    expect(ada.box).to_have_value("precious")


# reading


def lines(count, start=0):
    return [f"Line {number} of the reply.\n\n" for number in range(start, start + count)]


def test_the_page_follows_its_end_only_while_the_reader_is_there(ada, provider):
    script = provider.says(*lines(40), hold=True).says(*lines(40, 40)).holds().says(*lines(9, 80))
    ada.begin("write")
    jump = ada.page.get_by_role("button", name="Jump to newest")
    expect(ada.body).to_contain_text("Line 39")
    ada.wait_for_the_end()
    expect(jump).to_be_hidden()
    ada.page.mouse.move(300, 300)
    ada.page.mouse.wheel(0, -400)
    expect(jump).to_be_visible()
    top = ada.page.evaluate("scrollY")
    script.release()
    expect(ada.body).to_contain_text("Line 79")
    assert ada.page.evaluate("scrollY") == top
    jump.click()
    ada.wait_for_the_end()
    expect(jump).to_be_hidden()
    script.release()
    ada.wait_for("complete")
    ada.wait_for_the_end()


@contextmanager
def somewhere_else(stack):
    """Enter the context of an app that shares the stack's database and Redis."""
    app = create_app(stack.env)
    with app.app_context():
        yield
        db.engine.dispose()


def test_earlier_messages_come_on_demand_and_move_nothing(ada, stack):
    ada.begin("Hello")
    ada.wait_for("complete")
    chat = int(ada.page.url.rsplit("/", 1)[1])
    with somewhere_else(stack):
        for number in range(40):
            db.session.get(Chat, chat).say("user", f"number {number}")
    ada.page.reload()
    expect(ada.articles).to_have_count(30)
    first = ada.articles.first
    ada.page.evaluate("scrollTo(0, 0)")
    expect(first).to_contain_text("number 10")
    text = ada.page.locator(".message__body", has_text="number 10").last
    before = text.bounding_box()["y"]
    ada.press("Show earlier messages")
    expect(ada.articles).to_have_count(42)
    assert abs(text.bounding_box()["y"] - before) < 60  # the button itself goes
    expect(ada.page.get_by_role("button", name="Show earlier messages")).to_have_count(0)
    expect(first).to_contain_text("Hello")
    expect(first).to_be_focused()


def test_a_tab_that_slept_through_much_shows_the_end_and_keeps_its_draft(ada, stack):
    ada.begin("Hello")
    ada.wait_for("complete")
    ada.page.evaluate(REFUSE_STORAGE)
    ada.box.fill("half a thou")
    ada.hide()
    chat = int(ada.page.url.rsplit("/", 1)[1])
    with somewhere_else(stack):
        for number in range(40):
            db.session.get(Chat, chat).say("user", f"number {number}")
    ada.hide(False)
    expect(ada.articles.last).to_contain_text("number 39")
    expect(ada.articles).to_have_count(30)
    expect(ada.box).to_have_value("half a thou")
    ada.wait_for_the_end()
    assert ada.shown() == ada.fresh()
    ada.press("Show earlier messages")
    expect(ada.articles).to_have_count(42)


def test_a_message_and_its_code_are_copied_as_they_were_written(ada, provider):
    ada.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    code = 'if x < 1:\n    print("a & b")\n'
    said = f"Look at $x^2$:\n\n```python\n{code}```\n\n1. one\n2. **two**\n\n| a |\n|---|\n| b |"
    provider.says(said)
    ada.begin("code")
    ada.wait_for("complete")
    ada.body.get_by_role("button", name="Copy").click()
    expect(ada.body.get_by_role("button", name="Copied")).to_be_visible()
    assert ada.page.evaluate("navigator.clipboard.readText()") == code
    ada.reply.locator("footer").get_by_role("button", name="Copy").click()
    expect(ada.reply.locator("footer").get_by_role("button", name="Copied")).to_be_visible()
    assert ada.page.evaluate("navigator.clipboard.readText()") == said


def test_what_cannot_be_had_any_more_is_not_copied(ada, provider):
    ada.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ada.begin("Hello")
    ada.wait_for("complete")
    ada.page.evaluate("navigator.clipboard.writeText('before')")
    ada.page.context.clear_cookies()
    ada.forgiven.append("401")
    ada.reply.locator("footer").get_by_role("button", name="Copy").click()
    expect(ada.reply.get_by_role("button", name="Not copied")).to_be_visible()
    assert ada.page.evaluate("navigator.clipboard.readText()") == "before"


# What is copied of the latest reply: from the start of its first formula's inside to its end.
BY_HAND = """() => {
  const body = [...document.querySelectorAll(".message__body")].at(-1);
  const selection = getSelection(), inside = body.querySelector("mn");
  selection.selectAllChildren(body);
  if (inside) selection.setBaseAndExtent(inside, 0, body, body.childNodes.length);
  return document.execCommand("copy");
}"""


def test_formulas_are_copied_by_hand_as_latex(ada, provider):
    ada.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    provider.says("So $x^2$ is *it*:\n\n$$\n\\frac{1}{2}\n$$\n\n- one\n- $y$\n\n```\ncode\n```")
    ada.begin("math")
    ada.wait_for("complete")
    assert ada.page.evaluate(BY_HAND)
    copied = ada.page.evaluate("navigator.clipboard.readText()")
    assert re.sub(r"\n+", "\n", copied) == "$x^2$ is it:\n$$\\frac{1}{2}$$\none\n$y$\ncode"
    provider.says("No formula, *only* text.")
    ada.send("more")
    expect(ada.articles).to_have_count(4)
    ada.wait_for("complete")
    assert ada.page.evaluate(BY_HAND)
    assert ada.page.evaluate("navigator.clipboard.readText()").strip() == "No formula, only text."


@pytest.mark.parametrize("lead", ["So:", "So $x$:"])
def test_a_tight_list_is_copied_by_hand_without_blank_lines(ada, provider, lead):
    ada.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    provider.says(
        f"{lead}\n\n1. one\n   - in it\n   - **too**\n2. *once* more\n3. two\n\n   and more\n\nEnd."
    )
    ada.begin("list")
    ada.wait_for("complete")
    assert ada.page.evaluate(BY_HAND.replace("mn", "mi"))
    copied = ada.page.evaluate("navigator.clipboard.readText()").strip()
    assert copied == f"{lead.split()[-1]}\n\none\nin it\ntoo\nonce more\n\ntwo\n\nand more\n\nEnd."


# chats


def test_a_chat_is_renamed_and_deleted_after_a_question(ada):
    ada.begin("Hello")
    ada.wait_for("complete")
    ada.page.get_by_role("link", name="Edit").click()
    ada.page.get_by_label("Title").fill("Plans")
    ada.press("Save")
    expect(ada.page.get_by_role("heading", level=1)).to_have_text("Plans")
    ada.page.get_by_role("link", name="Edit").click()
    ada.press("Delete chat")
    dialog = ada.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Delete “Plans”?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    ada.press("Delete chat")
    dialog.get_by_role("button", name="Delete").click()
    expect(ada.page).to_have_url(re.compile("/chats$"))
    expect(ada.page.get_by_text("No chats yet")).to_be_visible()


# what is written


def test_hebrew_and_arabic_stand_on_the_right(ada, provider):
    provider.says(
        "שלום.\n\n- אחד\n- one\n\n> مرحبا\n\n```\ncode\n```\n\n| שם | b |\n|---|---|\n| x | y |"
        "\n\n`a` שלום"
    )
    ada.begin("שאלה?")
    ada.wait_for("complete")

    def directions(selector):
        found = ada.page.locator(selector)
        return found.evaluate_all("all => all.map((each) => getComputedStyle(each).direction)")

    assert directions(".message--assistant .message__body > p") == ["rtl", "rtl"]
    assert directions(".message__body li") == ["rtl", "ltr"]
    assert directions(".message__body :is(blockquote, table)") == ["rtl", "rtl"]
    assert directions(".message__body :is(pre, code)") == ["ltr", "ltr", "ltr"]
    assert directions(".message--user .message__body, .chat__title") == ["rtl", "rtl"]
    table, body = (ada.body.locator(path).bounding_box() for path in ("table", "xpath=."))
    assert table["x"] + table["width"] == body["x"] + body["width"]
    ada.box.fill("מה?")
    assert directions("#content") == ["rtl"]


# Pixels between the left edge of a message and each number in its lists.
ROOM = """() => [...document.querySelectorAll(".message__body ol > li")].map((item) => {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = getComputedStyle(item).font;
  const number = item.parentElement.start + [...item.parentElement.children].indexOf(item);
  const left = (element) => element.getBoundingClientRect().left;
  const room = left(item) - left(item.closest(".message"));
  return [number, room - pen.measureText(`${number}. `).width];
})"""


def test_the_numbers_of_a_list_have_room(ada, provider):
    starts = (1, 7, 48, 98, 998, 123456789)
    lists = ["".join(f"{start + n}. a\n" for n in range(12)) for start in starts]
    provider.says(
        "\n\nThen:\n\n".join(lists), "\n\nAnd:\n\n", *(f"{n}. b\n" for n in range(1, 1002))
    )
    ada.begin("Count")
    ada.wait_for("complete")
    assert [narrow for narrow in ada.page.evaluate(ROOM) if narrow[1] < 0] == []


# a phone


@pytest.fixture
def phone(browser, stack):
    """Ada, signed up, on a telephone: 390 pixels and a finger."""
    context = browser.new_context(base_url=stack.url, **PHONE)
    context.set_default_timeout(1000 * patient(10))
    person = Person(context.new_page(), sends="button").is_signed_up(stack.signup())
    yield person
    assert person.complaints == []
    context.close()


def test_chats_are_in_a_drawer_on_a_phone(phone):
    phone.begin("Hello")
    phone.wait_for("complete")
    drawer = phone.page.locator("#sidebar")
    expect(drawer).to_be_hidden()
    phone.page.get_by_role("button", name="Chats").tap()
    expect(drawer).to_be_visible()
    expect(drawer.get_by_role("link", name="Hello")).to_be_in_viewport()
    phone.page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    phone.page.get_by_role("button", name="Chats").tap()
    drawer.get_by_role("button", name="Close").tap()
    expect(drawer).to_be_hidden()
    phone.page.get_by_role("button", name="Chats").tap()
    drawer.get_by_role("link", name="New chat").tap()
    expect(phone.page).to_have_url(re.compile("/chats/new$"))


def test_nothing_is_wider_than_a_phone(phone, provider):
    wide = "wide" * 60
    provider.says(
        f"{wide}\n\n```\n{wide}\n```\n\n| {wide} | {wide} |\n|---|---|\n| 1 | 2 |\n\n`{wide}`"
    )
    phone.begin(wide)
    phone.wait_for("complete")
    for path in (phone.page.url, f"{phone.page.url}/edit", "/chats", "/chats/new"):
        phone.page.goto(path)
        assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_enter_breaks_the_line_on_a_phone(phone):
    phone.page.goto("/chats/new")
    phone.box.press_sequentially("one")
    phone.box.press("Enter")
    phone.box.press_sequentially("two")
    expect(phone.box).to_have_value("one\ntwo")
    phone.page.get_by_role("button", name="Send").tap()
    phone.wait_for("complete")
    expect(phone.articles.first.locator(".message__body")).to_have_text("one\ntwo")
