"""The composer: Stop, where the focus goes, drafts, the choice of models, whose page it is."""

from contextlib import closing

import pytest
from playwright.sync_api import expect

from tests.page import parse
from tests.patience import patient
from tests.stack import Stack
from tests.test_browser import PASSWORD, PHONE, Person
from tests.test_chats import HTMX

RUNNING = [f"word{number} " * 9 + "\n\n" for number in range(400)]
NO_COMMANDS = """delete HTMLButtonElement.prototype.command;
addEventListener("command", (event) => event.preventDefault(), { capture: true });"""
REFUSALS = {
    "denied": """const refuse = () => { throw new DOMException("no", "SecurityError"); };
        for (const name of ["localStorage", "sessionStorage"])
            Object.defineProperty(window, name, { get: refuse });
        navigator.locks.request = navigator.locks.query = async () => refuse();""",
    "full": "Storage.prototype.setItem = () => { throw new Error('storage is full'); };",
}
FOCUSED = "document.activeElement.id || document.activeElement.className"


@pytest.fixture
def ada(page, stack):
    """Ada, signed up, whose console has to stay clean."""
    person = Person(page).is_signed_up(stack.signup())
    yield person
    assert person.complaints == []


@pytest.fixture
def phone(browser, stack):
    """Ada on a telephone."""
    context = browser.new_context(base_url=stack.url, **PHONE)
    context.set_default_timeout(1000 * patient(10))
    yield Person(context.new_page(), sends="button").is_signed_up(stack.signup())
    context.close()


def button(person, name):
    return person.page.get_by_role("button", name=name, exact=True)


def another_tab(person, path=None):
    other = Person(person.page.context.new_page())
    other.page.goto(path or person.page.url)
    return other


def streams(provider):
    """Queue a reply that goes on until it is stopped."""
    script = provider.reply()
    for words in RUNNING:
        script.says(words).pauses(0.02)
    return script.hangs()


def stops(person):
    """Return a list of what the page asks to be stopped from now on."""
    asked = []
    person.page.on("request", lambda sent: sent.url.endswith("/stop") and asked.append(sent.method))
    return asked


def press_slowly(person, place, count=1):
    """Press the mouse at the middle of a box for as long as people do."""
    mouse = person.page.mouse
    mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    mouse.down(click_count=count)
    person.page.wait_for_timeout(120)
    mouse.up(click_count=count)


# Stop


def test_stop_is_in_the_place_of_send_while_a_reply_runs(ada, provider):
    ada.begin("Hello")
    ada.wait_for("complete")
    expect(button(ada, "Stop")).to_be_hidden()
    place = button(ada, "Send").bounding_box()
    streams(provider)
    ada.send("Go on")
    expect(button(ada, "Send")).to_be_hidden()
    other = another_tab(ada)
    ada.page.reload()
    for tab in (ada, other):
        expect(button(tab, "Stop")).to_be_visible()
        expect(button(tab, "Send")).to_be_hidden()
        assert button(tab, "Stop").bounding_box() == pytest.approx(place, abs=1)
    other.press("Stop")
    for tab in (ada, other):
        tab.wait_for("stopped")
        expect(button(tab, "Send")).to_be_visible()
        expect(button(tab, "Stop")).to_be_hidden()
    assert ada.shown() == ada.fresh()


def test_no_slow_press_of_stop_misses_while_the_text_runs(ada, provider):
    ada.page.goto("/chats/new")
    for number in range(1, 6):
        streams(provider)
        ada.send("Go on")
        expect(ada.articles).to_have_count(2 * number)
        expect(ada.body).to_contain_text("word9 ")
        press_slowly(ada, button(ada, "Stop").bounding_box())
        ada.wait_for("stopped")


def test_the_second_click_of_two_on_send_does_not_stop(ada, provider):
    script = provider.says("one ", hold=True).says("two")
    ada.page.goto("/chats/new")
    ada.send("Hello")
    expect(ada.body).to_have_text("one")
    asked = stops(ada)
    press_slowly(ada, button(ada, "Stop").bounding_box(), count=2)
    script.release()
    ada.wait_for("complete")
    assert asked == []


def test_escape_stops_but_not_what_it_is_pressed_for_elsewhere(phone, provider):
    provider.says("one ", hold=True)
    phone.begin("Hello")
    expect(phone.body).to_have_text("one")
    asked = stops(phone)
    button(phone, "Chats").tap()
    expect(phone.page.locator("#sidebar")).to_be_visible()
    phone.page.keyboard.press("Escape")
    expect(phone.page.locator("#sidebar")).to_be_hidden()
    keys = phone.page.context.new_cdp_session(phone.page)
    phone.box.focus()
    keys.send("Input.imeSetComposition", {"text": "に", "selectionStart": 1, "selectionEnd": 1})
    phone.page.keyboard.press("Escape")
    keys.send("Input.insertText", {"text": "に"})
    expect(phone.box).to_have_value("に")
    assert asked == []
    phone.page.keyboard.press("Escape")
    phone.wait_for("stopped")
    assert len(asked) == 1
    expect(phone.box).to_have_value("に")


def test_stop_in_the_instant_of_sending_is_meant_for_what_is_sent(ada, provider):
    ada.begin("Hello")
    ada.wait_for("complete")
    provider.says("one ", hold=True)
    held = []
    ada.page.route("**/messages", lambda route: held.append(route))
    with ada.page.expect_request("**/messages"):
        ada.send("Go on")
    expect(button(ada, "Send")).to_be_hidden()
    asked = stops(ada)
    ada.page.keyboard.press("Escape")
    held[0].continue_()
    ada.wait_for("stopped")
    assert len(asked) == 1
    expect(button(ada, "Send")).to_be_visible()
    assert ada.shown() == ada.fresh()


def test_what_waits_for_a_worker_can_be_stopped(browser, make_stack, provider):
    stack = make_stack(workers=0)
    session = stack.signup()
    with closing(browser.new_context(base_url=stack.url)) as context:
        ada = Person(context.new_page()).is_signed_up(session)
        ada.page.goto(f"/chats/{session.new_chat()}")
        ada.send("first")
        expect(ada.page.get_by_text("Sending: first")).to_be_visible()
        expect(button(ada, "Send")).to_be_hidden()
        ada.press("Stop")
        ada.question("first")
        ada.wait_for("stopped")
        expect(button(ada, "Stop")).to_be_hidden()
        ada.send("second")
        stack.start_worker()
        ada.question("second")
        ada.wait_for("complete")
        assert ada.shown() == ada.fresh()
    assert [request.prompt for request in provider.requests] == ["first\n\nsecond"]


def test_stop_works_without_javascript_and_in_nobody_elses_chat(let_in):
    ada, bob = let_in(), let_in("Bob", "bob@example.com")
    ada.post("/chats")
    assert bob.post("/chats/1/stop").status_code == 404
    answer = ada.post("/chats/1/stop")
    assert (answer.status_code, answer.location) == (303, "/chats/1")


# where the focus goes


def test_after_stop_and_regenerate_one_goes_on_in_the_composer(ada, provider):
    streams(provider)
    ada.begin("Hello")
    button(ada, "Stop").press("Enter")
    ada.wait_for("stopped")
    expect(ada.box).to_be_focused()
    provider.says("Done.")
    button(ada, "Retry").press("Enter")
    ada.wait_for("complete")
    expect(ada.box).to_be_focused()


def test_a_finger_on_stop_calls_no_keyboard(phone, provider):
    streams(provider)
    phone.begin("Hello")
    button(phone, "Stop").tap()
    phone.wait_for("stopped")
    assert phone.page.evaluate(FOCUSED) == "composer"
    expect(phone.box).to_have_attribute("enterkeyhint", "enter")


def delete_dialog(ada):
    ada.page.goto("/chats/new")
    ada.begin("Hello")
    ada.wait_for("complete")
    ada.page.goto(f"{ada.page.url}/edit")
    button(ada, "Delete chat").press("Enter")
    return ada.page.get_by_role("dialog")


def test_the_focus_stays_in_the_question_and_goes_where_it_leads(ada):
    dialog = delete_dialog(ada)
    for _ in range(5):
        expect(ada.page.locator(":focus:not(dialog *)")).to_have_count(0)
        ada.page.keyboard.press("Tab")
    ada.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button(ada, "Delete chat")).to_be_focused()
    ada.page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Delete").press("Enter")
    expect(ada.page.get_by_text("The chat was deleted.")).to_be_focused()


def test_the_question_is_asked_by_browsers_that_know_no_commands(ada):
    ada.page.add_init_script(NO_COMMANDS)
    dialog = delete_dialog(ada)
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()


# drafts

LONG = "A long text, and more of it. " * 400


@pytest.mark.parametrize("place", ["a chat", "a new chat"])
def test_each_tab_keeps_its_own_draft_and_removes_no_other(ada, place):
    ada.begin("Hello")
    ada.wait_for("complete")
    if place == "a new chat":
        ada.page.goto("/chats/new")
    ada.box.fill(LONG)
    path = ada.page.url
    other = another_tab(ada)
    other.box.fill("a short one")
    for tab, text in ((ada, LONG), (other, "a short one")):
        tab.page.reload()
        expect(tab.box).to_have_value(text)
    other.box.press("Enter")
    expect(other.box).to_have_value("")
    ada.page.goto("/chats")
    ada.page.go_back()
    expect(ada.box).to_have_value(LONG)
    other.page.goto(path)
    expect(other.box).to_have_value("")


def test_what_a_closed_tab_left_is_offered_once(ada):
    for path in ("/chats/new", ada.begin("Hello").page.url):
        ada.page.goto(path)
        other = another_tab(ada, path)
        other.box.fill("left behind")
        other.page.close()
        heir, late = another_tab(ada, path), another_tab(ada, path)
        expect(heir.box).to_have_value("left behind")
        expect(late.box).to_have_value("")
        expect(ada.box).to_have_value("")
        heir.page.reload()
        expect(heir.box).to_have_value("left behind")


def test_a_duplicated_tab_becomes_a_tab_of_its_own(ada):
    ada.page.goto("/chats/new")
    ada.box.fill("the first")
    with ada.page.expect_popup() as opened:
        ada.page.evaluate("window.open(location)")
    other = Person(opened.value)
    expect(other.box).to_have_value("the first")
    other.box.fill("the second")
    for tab, text in ((ada, "the first"), (other, "the second")):
        tab.page.reload()
        expect(tab.box).to_have_value(text)


@pytest.mark.parametrize("refusal", ["denied", "full"])
def test_a_browser_that_keeps_nothing_still_sends(ada, provider, refusal):
    ada.page.add_init_script(REFUSALS[refusal])
    ada.page.goto("/chats/new")
    ada.send("Hello")
    ada.wait_for("complete")
    ada.send("Once more")
    expect(ada.articles).to_have_count(4)
    ada.wait_for("complete")
    expect(ada.box).to_have_value("")
    assert [request.prompt for request in provider.requests] == ["Hello", "Once more"]


# files

GIVE_A_FILE = """(element, name) => {
  const given = new DataTransfer(), kind = name === "paste" ? ClipboardEvent : DragEvent;
  given.items.add(new File(["text"], "notes.txt"));
  const options = { bubbles: true, cancelable: true, dataTransfer: given, clipboardData: given };
  return element.dispatchEvent(new kind(name, options));
}"""


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_file_is_refused_with_a_sentence(ada, how):
    ada.page.goto("/chats/new")
    goes_on = [ada.box.evaluate(GIVE_A_FILE, name) for name in ("dragover", how)]
    assert goes_on == [False, False]
    expect(ada.page.get_by_role("alert")).to_contain_text("Files cannot be sent here yet")


# without JavaScript


def test_without_javascript_the_page_shows_what_is_being_sent_and_then_the_reply(
    let_in, provider, run_jobs
):
    ada = let_in()

    def page():
        shown = parse(ada.get("/chats/1").text)
        return shown.find(id="outbox").get_text(), shown.select_one(".dock noscript a")

    for number, path in enumerate(("/chats", "/messages")):
        answer = ada.post(path, data={"chat_id": 1, "content": f"What is {number} & 1?"})
        assert answer.location == "/chats/1"
        for _ in range(2):
            sending, again = page()
            assert sending == f"Sending: What is {number} & 1?"
            assert again["href"] == "/chats/1"  # not by itself: one may be writing
        run_jobs()
        assert page() == ("", None)
    ada.post("/messages", data={"chat_id": 1, "content": "One more"}, headers=HTMX)
    assert page() == ("", None)


# models

VENDORS = ("anthropic", "google", "meta-llama", "mistralai", "openai", "qwen")


@pytest.fixture(scope="module")
def stack_of_many(provider_server):
    """The product with 337 models to choose from."""
    names = [f"{vendor}/model-{number}" for vendor in VENDORS for number in range(56)]
    models = ",".join([*names, "anthropic/claude-7"])
    with closing(Stack(provider_server.url, models=models)) as stack:
        yield stack.start()


@pytest.fixture
def chooser(browser, stack_of_many, provider):
    """Ada, before the choice of many models."""
    context = browser.new_context(base_url=stack_of_many.url)
    context.set_default_timeout(1000 * patient(10))
    person = Person(context.new_page()).is_signed_up(stack_of_many.signup())
    person.page.goto("/chats/new")
    yield person
    assert person.complaints == []
    context.close()


@pytest.mark.parametrize("begin", ["Find", "Model"])
def test_one_of_many_models_is_found_by_a_part_of_its_name(chooser, provider, begin):
    ada, model = chooser, chooser.page.get_by_label("Model")
    ada.page.get_by_label(begin).press_sequentially("claude-7")
    expect(model).to_have_value("anthropic/claude-7")
    ada.page.keyboard.press("Enter")
    expect(ada.box).to_be_focused()
    ada.send("Hello")
    ada.wait_for("complete")
    assert provider.requests[0].json["model"] == "anthropic/claude-7"
    groups = model.locator("optgroup")
    assert groups.nth(0).get_attribute("label") == "Recent"
    expect(groups.nth(0).locator("option")).to_have_text("anthropic/claude-7")
    assert groups.nth(1).get_attribute("label") == "anthropic"
    expect(groups.nth(1).locator("option").first).to_have_text("model-0")
    model.select_option("openai/model-7")
    expect(model).to_have_value("openai/model-7")


@pytest.mark.parametrize("typed", ["gpt-99", ""])
def test_who_gives_up_a_search_keeps_the_model(chooser, typed):
    ada = chooser
    find, model = ada.page.get_by_label("Find"), ada.page.get_by_label("Model")
    chosen = model.input_value()
    find.fill("mistral")
    assert "mistral" in model.input_value() != chosen
    find.fill(typed)
    find.press("Enter")
    if typed:
        expect(find).to_be_focused()
        assert find.evaluate("find => find.validationMessage") == "No model has this in its name."
    expect(model).to_have_value(chosen)
    ada.send("Hello")
    ada.wait_for("complete")
    expect(find).to_have_value("")
    expect(model).to_have_value(chosen)


def test_a_few_models_are_shown_as_they_are(let_in):
    page = parse(let_in().get("/chats/new").text)
    assert [option.get_text() for option in page.find(id="model")("option")] == [
        "gpt-4o-mini",
        "gpt-4o",
    ]
    assert not page.select("optgroup, #find")


# whose page it is


def test_who_was_signed_out_logs_in_from_the_sentence_that_says_so(ada, provider):
    ada.forgiven = ["401", "WebSocket"]
    ada.begin("Hello")
    ada.wait_for("complete")
    chat = ada.page.url
    ada.page.context.clear_cookies()
    ada.send("Once more")
    ada.page.get_by_role("alert").get_by_role("link", name="Log in again").click()
    ada.page.get_by_label("Email").fill(ada.email)
    ada.page.get_by_label("Password").fill(PASSWORD)
    ada.press("Log in")
    expect(ada.page).to_have_url(chat)
    expect(ada.box).to_have_value("Once more")


def test_a_page_takes_nothing_for_whoever_has_logged_in_since(ada, provider, stack):
    ada.forgiven = ["403", "400", "WebSocket"]
    ada.begin("Hello")
    ada.wait_for("complete")
    ada.is_signed_up(stack.signup("Bob"))
    ada.send("not for Bob")
    expect(ada.page.get_by_role("alert")).to_contain_text("Your text is kept; log in as yourself")
    expect(ada.box).to_have_value("not for Bob")
    expect(ada.page.get_by_role("link", name="log in as yourself")).to_be_visible()
    fresh = another_tab(ada, "/chats/new")
    fresh.send("mine")
    fresh.wait_for("complete")
    assert [request.prompt for request in provider.requests] == ["Hello", "mine"]
