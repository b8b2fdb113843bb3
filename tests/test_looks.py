"""How a conversation looks: turns, receipts, themes, on paper, with another's colours."""

import re
from decimal import Decimal

import pytest
from playwright.sync_api import expect

from models import Chat, db
from pages.settings import mark_of
from tests.patience import patient
from tests.services import wait_until
from tests.test_browser import PHONE, Person, somewhere_else

WIDE = (
    "```python\nvalue = " + "word + " * 60 + "1\n```\n\n"
    "| " + " | ".join(f"Column {n}" for n in range(12)) + " |\n" + "|---" * 12 + "|\n"
    "| " + " | ".join(f"12,345,67{n}" for n in range(12)) + " |\n\n"
    "$$\n" + " + ".join(f"a_{{{n}}}" for n in range(60)) + "\n$$\n\nThe end."
)
NARROW = "```python\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n$$\nx^2\n$$\n\n"
PASTED = "\n".join(f"Line {number} of what was pasted." for number in range(60))


def tell(stack, chat_id, *turns):
    """Have all of this said in a chat: a question each, and what a reply has as columns."""
    with somewhere_else(stack):
        chat = db.session.get(Chat, chat_id)
        for question, reply in turns:
            chat.say("user", question)
            message = chat.say("assistant", "Fine.")
            for name, value in ({"model": "gpt-4o"} | reply).items():
                setattr(message, name, value)
            db.session.commit()


@pytest.fixture
def told(stack):
    """Make Ada's chat in which this was said: `told((question, {column: value}), …)`."""
    ada = stack.signup()
    chat_id = ada.new_chat()

    def say(*turns):
        tell(stack, chat_id, *turns)
        return ada, chat_id

    return say


@pytest.fixture
def look(browser, stack):
    """Open a chat in a browser: `look(told(…), **context)` returns its Person."""
    contexts, people = [], []

    def open_chat(told, **context):
        ada, chat_id = told
        contexts.append(browser.new_context(base_url=stack.url, **context))
        contexts[-1].set_default_timeout(1000 * patient(10))
        person = Person(contexts[-1].new_page()).is_signed_up(ada)
        person.page.goto(f"/chats/{chat_id}")
        people.append(person)
        return person

    yield open_chat
    for context in contexts:
        context.close()
    assert [person.complaints for person in people if person.complaints] == []


def style(locator, name):
    """Return what a style is computed to."""
    return locator.evaluate("(element, name) => getComputedStyle(element)[name]", name)


def style_value(locator, name):
    """Return what a custom property is computed to."""
    read = "(element, name) => getComputedStyle(element).getPropertyValue(name)"
    return locator.evaluate(read, name)


USED = {
    "prompt_token_usage": 12812,
    "completion_token_usage": 1240,
    "input_cost": Decimal("0.0320"),
    "output_cost": Decimal("0.0124"),
}

# What moves under the reader's eyes, as browsers count it (cumulative layout shift).
WATCH_SHIFTS = """
  window.shifted = 0;
  new PerformanceObserver((list) => list.getEntries().forEach(({ value }) => (shifted += value)))
    .observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("context", [{}, PHONE], ids=["desk", "phone"])
def test_nothing_moves_but_the_end_of_a_growing_reply(told, look, provider, context):
    person, chat_id = told()
    ada = look((person, chat_id), **context)
    ada.sends = "button"  # a telephone's Enter begins a line
    ada.page.add_init_script(WATCH_SHIFTS)
    ada.page.reload()
    script = provider.reply()
    for number in range(30):
        script.says(f"## Part {number}\n\n", "Some words, ", "and more.\n\n").pauses(0.03)
    ada.send("write")
    ada.question("write")
    expect(ada.body).to_contain_text("Part 29")
    ada.wait_for("complete")
    assert ada.page.evaluate("shifted") < 0.01


# what has not come yet


def test_a_sentence_about_what_was_sent_is_read_whole_on_a_phone(told, look):
    ada = look(told(), **PHONE)
    shown = """(note) => {
      note.hidden = false;
      note.textContent = "It has not appeared yet. " + "You can send it again. ".repeat(3);
      return note.scrollWidth <= note.clientWidth && note.scrollHeight <= note.clientHeight;
    }"""
    assert ada.page.locator("#outbox").evaluate(shown)


# what a reply cost


def test_a_receipt_is_one_line_at_the_foot_even_on_a_phone(told, look):
    ada = look(told(("Hello", USED)), **PHONE)
    line = ada.reply.locator(".message__usage")
    expect(line).to_have_text("12,812 input tokens [$0.0320] / 1,240 output tokens [$0.0124]")
    box, body = line.bounding_box(), ada.body.bounding_box()
    assert body["y"] + body["height"] <= box["y"]
    assert box["height"] < 34 and box["x"] + box["width"] <= 390
    expect(line).to_have_css("font-size", "12px")


def test_the_rest_of_a_receipt_is_one_click_away(told, look):
    reply = USED | {"cached_token_usage": 1024, "usage_estimated": True}
    ada = look(told(("Hello", reply)))
    rest = ada.reply.locator(".message__receipt")
    expect(rest).to_be_hidden()
    ada.reply.get_by_role("button", name="12,812 input tokens").click()
    for words in (
        "gpt-4o",
        "1,024 of the input tokens",
        "$0.0444",
        "UTC",
        "the provider did not say",
    ):
        expect(rest).to_contain_text(words)
    expect(rest).to_be_in_viewport(ratio=1)
    ada.page.keyboard.press("Escape")
    expect(rest).to_be_hidden()


def test_an_unknown_price_is_said_once_and_why_a_click_away(told, look):
    ada = look(told(("Hello", USED | {"input_cost": None, "output_cost": None})))
    expect(ada.reply.locator(".message__usage")).to_have_text(
        "12,812 input tokens / 1,240 output tokens [price unknown]"
    )
    expect(ada.reply.locator(".message__receipt")).to_contain_text("PRICES")


# whose turn it is


def test_ones_own_words_are_a_bubble_as_wide_as_they_are(told, look):
    ada = look(told(("Hi", {}), ("word " * 200, {})))
    column = ada.page.locator("#messages").bounding_box()["width"]
    short, long = ada.page.locator(".message--user .message__body").all()
    assert short.bounding_box()["width"] < 100
    assert long.bounding_box()["width"] < column * 0.9
    edges = [box["x"] + box["width"] for box in (short.bounding_box(), long.bounding_box())]
    assert edges[0] == edges[1]
    expect(ada.page.get_by_role("heading", name="Ada Lovelace")).to_have_count(2)
    assert ada.page.locator(".message--user h2").first.bounding_box()["width"] <= 1


def test_actions_appear_under_the_mouse_and_where_the_keys_are(told, look):
    ada = look(told(("Hello", {}), ("Again", {"status": "failed", "error": "It broke."})))
    copy = ada.articles.nth(1).get_by_role("button", name="Copy")
    expect(copy).to_have_css("opacity", "0")
    ada.articles.nth(1).hover()
    expect(copy).to_have_css("opacity", "1")
    ada.page.mouse.move(0, 0)
    expect(copy).to_have_css("opacity", "0")
    copy.focus()
    expect(copy).to_have_css("opacity", "1")
    expect(ada.reply.get_by_role("button", name="Retry")).to_have_css("opacity", "1")


def test_on_a_touch_screen_actions_are_always_there(told, look):
    ada = look(told(("Hello", {})), **PHONE)
    for article in ada.articles.all():
        expect(article.locator(".message__actions")).to_have_css("opacity", "1")


def test_a_long_message_of_ones_own_is_folded_and_found(told, look):
    ada = look(told((PASTED, {}), ("Short.", {})))
    ada.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    article, body = ada.articles.first, ada.page.locator(".message__body").first
    fold = ada.page.get_by_role("checkbox", name="Show more")
    expect(fold).to_have_count(1)
    assert body.bounding_box()["height"] < 500
    assert ada.page.evaluate("find('Line 57 of', false, false, true)")
    fold.check()
    assert body.bounding_box()["height"] > 1200
    article.get_by_role("button", name="Copy").click()
    expect(article.get_by_role("button", name="Copied")).to_be_visible()
    assert ada.page.evaluate("navigator.clipboard.readText()") == PASTED


def test_the_title_stays_in_sight_on_a_phone(told, look):
    ada = look(told(("Hello", {"content": "A line.\n\n" * 60})), **PHONE)
    ada.wait_for_the_end()
    title = ada.page.locator(".topbar__title")
    expect(title).to_be_in_viewport(ratio=1)
    expect(title).to_have_text(ada.page.get_by_role("heading", level=1).text_content())
    expect(ada.page.get_by_role("heading", level=1)).to_have_count(1)


def test_the_head_of_a_long_chat_stays_within_reach_on_a_phone(told, look):
    ada = look(told(("Hello " * 20, USED | {"content": "A line.\n\n" * 60})), **PHONE)
    ada.wait_for_the_end()
    assert ada.page.evaluate("innerWidth") == 390  # nothing is wider, and so seen from farther away
    expect(ada.page.locator(".topbar")).to_have_css("background-color", LIGHT)
    expect(ada.page.locator(".chat__cost")).to_be_in_viewport(ratio=1)
    expect(ada.page.locator(".chat__cost")).to_have_text("$0.0444")
    ada.page.get_by_role("link", name="Edit").tap()
    expect(ada.page).to_have_url(re.compile(r"/edit$"))


# the theme

DARK = "rgb(27, 26, 24)"
LIGHT = "rgb(251, 250, 247)"
# What the page's background was at its first frame.
FIRST_PAINT = """requestAnimationFrame(() => {
  window.first = getComputedStyle(document.documentElement).backgroundColor;
})"""


def test_a_theme_is_chosen_and_kept(told, look):
    ada = look(told(("Hello", {})))
    html = ada.page.locator("html")
    expect(html).to_have_css("background-color", LIGHT)
    ada.press("Theme")
    with ada.page.expect_response("**/theme"):
        ada.page.get_by_role("radio", name="Dark").check()
    expect(html).to_have_css("background-color", DARK)
    ada.page.reload()
    expect(html).to_have_css("background-color", DARK)
    expect(html).to_have_attribute("data-theme", "dark")
    ada.page.emulate_media(color_scheme="dark")
    ada.press("Theme")
    ada.page.get_by_role("radio", name="Light").check()
    expect(html).to_have_css("background-color", LIGHT)
    with ada.page.expect_response("**/theme"):
        ada.page.get_by_role("radio", name="System").check()
    expect(html).to_have_css("background-color", DARK)
    ada.page.reload()
    expect(html).not_to_have_attribute("data-theme", re.compile(""))


def test_a_theme_is_there_from_the_first_frame_and_before_logging_in(stack, look, told):
    ada = look(told(("Hello", {})), color_scheme="light")
    ada.page.context.clear_cookies()
    name = f"chattable_{mark_of(stack.env['SECRET_KEY'])}_theme"
    ada.page.context.add_cookies([{"name": name, "value": "dark", "url": stack.url}])
    ada.page.add_init_script(FIRST_PAINT)
    ada.page.goto("/login")
    assert ada.page.evaluate("window.first") == DARK


def test_a_theme_can_be_chosen_without_javascript(told, look):
    ada = look(told(("Hello", {})), java_script_enabled=False)
    ada.press("Theme")
    ada.page.get_by_role("radio", name="Dark").check()
    ada.press("Choose")
    expect(ada.page).to_have_url(re.compile(r"/chats/\d+$"))
    expect(ada.page.locator("html")).to_have_attribute("data-theme", "dark")


def test_a_reply_is_asked_for_again_without_javascript(told, look, provider):
    provider.says("Better.")
    ada = look(told(("Hello", {})), java_script_enabled=False)
    chat = ada.page.url
    ada.press("Regenerate")
    expect(ada.page).to_have_url(re.compile(r"/chats/\d+\?asked=\d+$"))
    ada.page.get_by_role("link", name="Show what is new").click()
    expect(ada.page).to_have_url(chat)

    def shown():
        return ada.page.reload() and ada.body.all_text_contents()

    wait_until(lambda: shown() == ["Better."], 10, "the new reply")
    expect(ada.articles).to_have_count(2)


# what is wider than its place


def edges(locator):
    """Return how much is faded before and beyond what is seen."""
    return [style_value(locator, f"--chattable-{name}") for name in ("before", "beyond")]


def test_what_goes_on_beyond_an_edge_fades_there_and_keys_scroll_it(told, look):
    ada = look(told(("Hello", {"content": WIDE + "\n\n| a |\n|---|\n| b |"})))
    ada.wait_for("complete")
    table = ada.body.get_by_role("table", name="Table").first
    for wide in (ada.body.get_by_role("group", name="Code"), table, ada.body.locator("math")):
        wait_until(lambda wide=wide: edges(wide) == ["0px", "32px"], 5, "a fade where it goes on")
        wide.focus()
        ada.page.keyboard.press("ArrowRight")
        expect(wide).not_to_have_js_property("scrollLeft", 0)
        wide.evaluate("(element) => element.scrollTo(1e6, 0)")
        expect(wide).not_to_have_css("mask-image", re.compile("gradient"))
        ada.box.focus()
        expect(wide).to_have_css("mask-image", re.compile("gradient"))
    assert edges(ada.body.get_by_role("table").last) == ["0px", "0px"]


STOP = "document.activeElement.localName"


def test_tab_stops_only_at_what_has_more_to_show(told, look):
    ada = look(told(("Hello", {"content": NARROW + WIDE})))
    shown = ada.shown()
    ada.body.get_by_role("button", name="Copy").first.focus()
    stops = []
    for _ in range(5):
        ada.page.keyboard.press("Tab")
        stops.append(ada.page.evaluate(STOP))
    assert stops == ["button", "pre", "table", "math", "button"]
    ada.page.keyboard.press("Shift+Tab")
    assert ada.page.evaluate(STOP) == "math"
    assert ada.shown() == shown


@pytest.mark.parametrize(
    "latex", [r"\frac{\sum_{i=1}^n x_i}{n}", "x^{2^{2^2}}", r"\int_0^1 x", r"\sqrt{\frac ab}"]
)
def test_a_formula_in_a_line_is_seen_whole(told, look, latex):
    ada = look(told(("Hello", {"content": f"So ${latex}$ is it.\n\n- ${latex}$"})))
    expect(ada.body.locator("math")).to_have_count(2)
    cut = "all => all.filter((each) => each.scrollHeight > each.clientHeight).length"
    assert ada.body.locator("p").evaluate_all(cut) == 0


# as somebody needs it

MOVING = """() => document.getAnimations().filter((each) =>
  each.playState === "running" && !(each.timeline instanceof ScrollTimeline)).length"""


@pytest.mark.parametrize("motion, moves", [("no-preference", True), ("reduce", False)])
def test_nothing_moves_for_whom_nothing_should(told, look, motion, moves, provider):
    ada = look(told(("Hello", {})), reduced_motion=motion)
    script = provider.says("one ", hold=True)
    ada.send("count")
    expect(ada.body).to_have_text("one")
    assert (ada.page.evaluate(MOVING) > 0) is moves
    durations = "(element) => getComputedStyle(element).transitionDuration"
    assert (ada.page.locator(".button--icon").last.evaluate(durations) != "0s") is moves
    script.release()
    ada.wait_for("complete")


# Of what can be scrolled sideways, or is higher than its box: which hides something.
CUT = """() => [...document.querySelectorAll(".message__body, .message__body *")]
  .filter((each) => getComputedStyle(each).overflowX !== "visible")
  .filter((each) => each.scrollWidth > each.clientWidth || each.scrollHeight > each.clientHeight)
  .map((each) => each.outerHTML.slice(0, 80))"""


def test_paper_shows_all_of_it_and_nothing_else(told, look):
    ada = look(told((PASTED, {"content": WIDE})), color_scheme="dark")
    assert ada.page.evaluate(CUT)
    ada.page.emulate_media(media="print")
    ada.page.set_viewport_size({"width": 660, "height": 990})
    assert ada.page.evaluate(CUT) == []
    for part in (".code", "table", "semantics > mrow"):
        box = ada.body.locator(part).bounding_box()
        assert box["x"] + box["width"] <= 660, part
    for part in (".dock", ".sidebar", ".topbar", ".code__copy", ".message__fold"):
        expect(ada.page.locator(part)).to_be_hidden()
    expect(ada.page.get_by_role("heading", level=1)).to_be_visible()
    expect(ada.page.locator("html")).to_have_css("background-color", LIGHT)
    assert b"/Count" in ada.page.pdf()


def test_without_colours_one_sees_the_focus_and_the_chat_one_is_in(told, look):
    ada = look(told(("Hello", {})), forced_colors="active")
    ada.page.get_by_role("link", name="New chat").first.focus()
    composer = ada.page.locator(".composer")
    assert style(composer, "outlineStyle") == "none"
    ada.box.focus()
    assert (style(composer, "outlineStyle"), style(composer, "outlineWidth")) == ("solid", "2px")
    assert style(ada.page.locator(".sidebar__chat[aria-current]"), "borderLeftWidth") == "4px"
    assert style(ada.page.locator(".message--user .message__body"), "borderTopWidth") == "1px"
