"""What axe-core has against the pages: nothing, in both themes, at a desk and on a phone."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from models import Chat, Message, User, db
from tests.patience import patient
from tests.test_browser import RICH, Person, somewhere_else
from tests.test_looks import PASTED, USED, WIDE, tell

TURNS = (
    (PASTED, USED | {"content": "".join(RICH) + "\n\n" + WIDE, "reasoning": "Let me see."}),
    ("שאלה?", {"content": "שלום.", **USED, "input_cost": None, "usage_estimated": True}),
    ("Go on.", {"content": "I was", "status": "stopped", "note": "It was cut short."}),
    ("And?", {"content": "", "status": "failed", "error": "The model did not answer."}),
)
# What is well is looked at all the same, but not described, which took most of the time.
FAULTS_ALONE = {"resultTypes": ["violations"]}


@pytest.fixture(params=[1280, 390])
def open_tab(browser, stack, request):
    """Open somebody's tab that axe-core can look into: `open_tab(theme, session)`."""
    contexts = []

    def open_tab(theme, session=None):
        phone = request.param == 390
        contexts.append(
            browser.new_context(
                base_url=stack.url,
                viewport={"width": request.param, "height": 844},
                is_mobile=phone,
                has_touch=phone,
                color_scheme=theme,
                reduced_motion="reduce",  # half of a fade has no contrast
                bypass_csp=True,
            )
        )
        contexts[-1].set_default_timeout(1000 * patient(10))
        person = Person(contexts[-1].new_page())
        return person.is_signed_up(session) if session else person

    yield open_tab
    for context in contexts:
        context.close()


def faults(person):
    """Return what axe-core finds on a page, of whatever impact: each rule, and where."""
    found = Axe().run(person.page, options=FAULTS_ALONE).response["violations"]
    return [(fault["id"], [node["html"][:200] for node in fault["nodes"]]) for fault in found]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_nothing_against_any_page(stack, open_tab, theme):
    session = stack.signup()
    chat = session.new_chat()
    tell(stack, chat, *TURNS)
    ada = open_tab(theme, session)
    for path in (
        "/chats",
        "/chats?archived=1",
        "/chats/new",
        "/account",
        f"/chats/{chat}/edit",
        "/chats/999999",
        f"/chats/{chat}",
    ):
        ada.page.goto(path)
        assert faults(ada) == [], path
    ada.page.locator(".message__usage").last.click()
    assert faults(ada) == [], "with a receipt"
    ada.page.keyboard.press("Escape")
    if chats := ada.page.get_by_role("button", name="Chats", exact=True).all():
        chats[0].tap()
    ada.press("Theme")
    assert faults(ada) == [], "with the choice of a theme"
    ada.page.keyboard.press("Escape")
    row = ada.page.locator(".sidebar__row").first
    row.hover()
    row.get_by_role("button").click()
    assert faults(ada) == [], "with a chat's menu"
    ada.press("Rename")
    assert faults(ada) == [], "with a field for its title"
    ada.page.keyboard.press("Escape")
    ada.page.goto("/chats")
    ada.page.keyboard.press("Shift+?")
    assert faults(ada) == [], "with the list of keys"
    ada.page.keyboard.press("Escape")
    ada.page.goto("/search?q=column")
    assert faults(ada) == [], "what was found"
    ada.page.goto(f"/chats/{chat}")
    ada.page.keyboard.press("Control+k")
    ada.page.keyboard.type("column")
    expect(ada.page.locator("#search-results mark").first).to_be_visible()
    assert faults(ada) == [], "a search"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_nothing_against_versions_and_an_edit(stack, open_tab, theme):
    session = stack.signup()
    chat_id = session.new_chat()
    tell(stack, chat_id, ("Hello", USED), ("More?", USED), ("And?", USED))
    with somewhere_else(stack):
        chat = db.session.get(Chat, chat_id)
        first = chat.messages[1]
        chat.say("assistant", "Two.", after=first.follows)
        failed = chat.say("assistant", "", after=first.follows)
        failed.status, failed.error, failed.model = "failed", "The model did not answer.", "gpt-4o"
        db.session.commit()
        chat.show(chat.messages[-2])
        running = chat.begin_reply("gpt-4o", after=chat.messages[2].id)
        chat.show(chat.messages[-3])
    ada = open_tab(theme, session)
    ada.page.goto(f"/chats/{chat_id}")
    expect(ada.page.locator(".versions > :not(div)")).to_have_count(2)
    assert faults(ada) == [], "with versions"
    ada.page.locator(".message--user").first.get_by_role("button", name="Edit").click()
    expect(ada.page.get_by_role("textbox", name="New version")).to_be_focused()
    assert faults(ada) == [], "with an edit"
    with somewhere_else(stack):
        Message.interrupt(running.id)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_nothing_against_the_administrators_pages(stack, open_tab, theme):
    session = stack.signup()
    with somewhere_else(stack):
        ada = db.session.scalars(db.select(User).filter_by(email=session.email)).one()
        ada.admin, person = True, f"/admin/people/{ada.id}"
        db.session.commit()
    boss = open_tab(theme, session)
    for path in ("/admin", "/admin?q=nobody+has+this", person, "/admin/signup"):
        boss.page.goto(path)
        assert faults(boss) == [], path
    boss.press("Invite")
    boss.press("Copy")
    expect(boss.page.get_by_role("button", name="Copied")).to_be_visible()
    assert faults(boss) == [], "with a link to hand over"
    boss.page.goto(person)
    boss.page.get_by_label("Budget").fill("much")
    boss.press("Save")
    assert faults(boss) == [], "with a budget that is none"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_nothing_against_a_newcomers_pages(stack, open_tab, theme):
    stranger = open_tab(theme)
    for path in ("/login", "/signup"):
        stranger.page.goto(path)
        assert faults(stranger) == [], path
    stranger.page.goto("/login")
    stranger.page.get_by_label("Email").fill("nobody@example.com")
    stranger.page.get_by_label("Password").fill("not the password")
    stranger.press("Log in")
    assert faults(stranger) == [], "a refused login"
    newcomer = open_tab(theme, stack.signup())
    newcomer.page.goto("/chats")
    assert faults(newcomer) == [], "no chats yet"
