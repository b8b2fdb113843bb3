"""The sidebar and the list of chats: what they show, and how every page of a person follows."""

import re
from contextlib import closing, contextmanager
from datetime import timedelta

import pytest
from playwright.sync_api import expect
from sqlalchemy import insert

from chattable.database import now
from models import Chat, User, db
from tests.page import parse
from tests.patience import patient
from tests.services import wait_until
from tests.session import Socket
from tests.test_browser import PHONE, Person, somewhere_else

HTMX = {"HX-Request": "true"}


@pytest.fixture
def new_chat(user):
    """Make a chat of Ada's in which this was said."""

    def make(*texts):
        chat = user.begin_chat()
        db.session.commit()
        for text in texts:
            chat.say("user", text)
        return chat

    return make


def add_chats(owner_id, count, step=timedelta(hours=1), **columns):
    """Add chats called "0", "1", …, each a step older than the one before."""
    latest = now()
    row = {"chattable_type": "User", "chattable_id": owner_id, "revision": 1, **columns}
    rows = [
        row | {"title": str(n), "_created_at": latest - n * step, "_updated_at": latest - n * step}
        for n in range(count)
    ]
    if rows:
        db.session.execute(insert(Chat), rows)
    db.session.commit()


def titles(page):
    return [link.get_text() for link in parse(page).select(".sidebar__chat")]


def by_day(page):
    """Return [(heading, titles)] of a page's sidebar, but for headings without any."""
    days = []
    for each in parse(page).select(".sidebar__chats .sidebar__day, .sidebar__chats .sidebar__chat"):
        if each.name == "h2":
            days.append((each.get_text(), []))
        else:
            days[-1][1].append(each.get_text())
    return [day for day in days if day[1]]


# what it shows


def test_the_end_of_a_reply_moves_no_chat_up(user, new_chat):
    first, second = new_chat("first"), new_chat("second")
    reply = first.begin_reply("gpt-4o-mini")
    second.say("user", "again")
    reply.interrupt(reply.id)
    assert [chat.title for chat in user.chats_by_recency()] == ["second", "first"]


def test_chats_are_grouped_by_day_and_month(client, user):
    today = now().replace(hour=12, minute=0)
    for age in (0, 1, 2, 7, 8, 30, 40, 400):
        chat = user.begin_chat()
        chat.title, chat.updated_at = str(age), today - timedelta(days=age)
    db.session.commit()
    long_ago, longer_ago = (today - timedelta(days=age) for age in (40, 400))
    month = f"{long_ago:%B}" if long_ago.year == today.year else f"{long_ago:%B %Y}"
    assert by_day(client.get("/chats").text) == [
        ("Today", ["0"]),
        ("Yesterday", ["1"]),
        ("Previous 7 days", ["2", "7"]),
        ("Previous 30 days", ["8", "30"]),
        (month, ["40"]),
        (f"{longer_ago:%B %Y}", ["400"]),
    ]


@pytest.mark.parametrize("zone", ["", "nonsense", "99999999999", "-1440", "1"])
def test_a_zone_that_is_none_counts_as_utc(client, new_chat, zone):
    new_chat("Hello")
    client.set_cookie("zone", zone)
    assert by_day(client.get("/chats").text)[0][1] == ["Hello"]


def test_days_are_the_readers(client, user):
    chat = user.begin_chat()
    chat.updated_at = now().replace(hour=0, minute=0, second=0, microsecond=0)
    db.session.commit()
    assert by_day(client.get("/chats").text)[0][0] == "Today"
    hour = now().hour
    west = -60 * (hour + 1) if hour < 12 else -1  # where that was yesterday, and so is not now
    client.set_cookie("zone", str(west))
    same_day = hour < 12
    assert by_day(client.get("/chats").text)[0][0] == ("Today" if same_day else "Yesterday")


def test_pinned_chats_come_first_and_archived_ones_not_at_all(client, new_chat):
    old, kept, new = new_chat("old"), new_chat("kept"), new_chat("new")
    assert client.patch(f"/chats/{old.id}", data={"pinned": "1"}, headers=HTMX).status_code == 200
    assert client.post(f"/chats/{kept.id}", data={"archived": "1"}).status_code == 303
    assert by_day(client.get("/chats").text) == [("Pinned", ["old"]), ("Today", ["new"])]
    links = [each.get_text() for each in parse(client.get("/chats").text).select(".listing__link")]
    assert links == ["new", "old"]
    client.post(f"/chats/{old.id}", data={"pinned": "0"})
    assert by_day(client.get("/chats").text) == [("Today", ["new", "old"])]
    assert new.title == "new"


def test_archived_chats_are_listed_apart_and_come_back(client, new_chat):
    chat = new_chat("kept")
    client.post(f"/chats/{chat.id}", data={"archived": "1"})
    page = parse(client.get("/chats?archived=1").text)
    assert [each.get_text() for each in page.select(".listing__link")] == ["kept"]
    assert page.select_one(".listing__form button").get_text() == "Unarchive"
    assert "No chats yet" in parse(client.get("/chats").text).main.get_text()
    client.post(f"/chats/{chat.id}", data={"archived": "0"})
    assert titles(client.get("/chats").text) == ["kept"]


def test_who_writes_in_an_archived_chat_brings_it_back(client, user, new_chat):
    chat = new_chat("kept")
    chat.put(archived=True)
    chat.say("user", "more")
    assert titles(client.get("/chats").text) == ["kept"]
    chat.put(archived=True)
    chat.begin_reply("gpt-4o-mini")
    assert titles(client.get("/chats").text) == []


@pytest.mark.parametrize("count", [0, 1, 50, 51, 240])
def test_older_chats_follow_on_demand_each_once(client, user, count):
    add_chats(user.id, count)
    page, shown = client.get("/chats").text, []
    while True:
        shown += titles(page)
        more = parse(page).select_one(".sidebar__older")
        if not more:
            break
        page = client.get(more["hx-get"], headers=HTMX).text
        assert len(titles(page)) <= 50
    assert shown == [str(n) for n in range(count)]


def test_the_list_goes_on_on_demand_and_without_javascript(client, user):
    add_chats(user.id, 120)
    for headers in ({}, HTMX):
        path, shown = "/chats", []
        while path:
            page = parse(client.get(path, headers=headers).text)
            shown += [each.get_text() for each in page.select(".listing__link")]
            more = page.select_one("a[hx-target='closest li']")
            path = more and more["href"]
        assert shown == [str(n) for n in range(120)]


def test_the_same_day_has_one_heading_over_two_pages(client, user):
    add_chats(user.id, 120, step=timedelta(seconds=1), _created_at=now())
    page = client.get("/chats").text
    more = parse(page).select_one(".sidebar__older")["hx-get"]
    assert not parse(client.get(more).text).select("h2") or now().hour == 0


def test_chats_of_one_moment_are_told_apart(client, user):
    add_chats(user.id, 130, step=timedelta(0))
    page, shown = client.get("/chats").text, []
    while more := parse(page).select_one(".sidebar__older"):
        shown += titles(page)
        page = client.get(more["hx-get"]).text
    assert sorted(shown + titles(page), key=int) == [str(n) for n in range(130)]


@pytest.mark.parametrize(
    "word", ["", "-", "1", "1-", "-1", "a-b", "9" * 30 + "-1", "1-" + "9" * 30]
)
def test_what_is_no_place_in_a_list_is_its_beginning(client, new_chat, word):
    new_chat("Hello")
    assert titles(client.get(f"/sidebar?after={word}").text) == ["Hello"]


def test_an_open_chat_that_is_far_down_is_shown_apart_and_once(client, user):
    add_chats(user.id, 130)
    oldest = db.session.scalars(db.select(Chat).filter_by(title="129")).one()
    page = client.get(f"/chats/{oldest.id}").text
    assert by_day(page)[0] == ("This chat", ["129"])
    assert parse(page).select(".sidebar__chat[aria-current]")[0].get_text() == "129"
    shown = titles(page)
    while more := parse(page).select_one(".sidebar__older"):
        page = client.get(more["hx-get"]).text
        shown += titles(page)
    assert sorted(shown, key=int) == [str(n) for n in range(130)]


def test_a_page_shows_as_many_chats_as_were_seen_on_the_one_before(app, client, user):
    add_chats(user.id, 400)
    name = f"{app.config['SESSION_COOKIE_NAME']}_sidebar"
    for cookie, count in (("120-3000", 120), ("7-0", 50), ("9999-1", 300), ("x", 50), ("-", 50)):
        client.set_cookie(name, cookie)
        assert len(titles(client.get("/chats").text)) == count


def test_nobody_lists_or_changes_anothers_chats(let_in):
    ada, bob = let_in(), let_in("Bob", "bob@example.com")
    path = ada.post("/chats").location
    ada.post(path, data={"title": "secret"})
    for data in ({"pinned": "1"}, {"archived": "1"}, {"title": "taken"}):
        assert bob.patch(path, data=data, headers=HTMX).status_code == 404
    for path in ("/chats", "/sidebar", "/updates?listed=99", "/chats?archived=1"):
        assert "secret" not in bob.get(path).text
    assert "secret" in ada.get("/updates?listed=99").text


# live


class Follower:
    """A page of no chat: its sidebar's socket."""

    def __init__(self, person, query=None):
        if query is None:
            page = parse(person.get("/chats/new").text)
            query = page.select_one("#sidebar")["hx-ws:connect"].partition("?")[2]
        self.socket = Socket(person.host, f"/updates?{query}", person.cookie)
        said = self.socket.decoder
        wait_until(lambda: said.beats or self.socket.code, 10, "the server's first word")

    def close(self):
        self.socket.close()


@pytest.fixture
def follow():
    """Open a page of no chat: `follow(person)` returns its socket."""
    opened = []

    def open_page(person, query=None):
        opened.append(Follower(person, query))
        return opened[-1].socket

    yield open_page
    for each in opened:
        each.close()


def test_what_is_said_moves_a_chat_up_on_every_page_of_its_owners(stack, follow):
    ada, bob = stack.signup(), stack.signup("Bob")
    pages, other = [follow(ada), follow(ada)], follow(bob)
    chat = ada.new_chat()
    ada.say(chat, "What is **new**?")
    for page in pages:
        frame = page.wait_for("What is new?")
        assert f'hx-target="#chat-{chat}" hx-swap="delete"' in frame
        assert 'hx-target="#today"' in frame
    theirs = bob.new_chat()
    other.wait_for(f"/chats/{theirs}")
    assert not any("new?" in frame or f"chat-{chat}" in frame for frame in other.frames)


def test_a_reply_moves_its_chat_once(stack, follow):
    ada = stack.signup()
    chat = ada.new_chat()
    page, watched = follow(ada), ada.socket(chat)
    ada.say(chat, "Hello")
    watched.wait_for('data-role="assistant" data-status="complete"')
    ada.post(f"/chats/{chat}", title="The end")
    page.wait_for("The end")
    moved = f'hx-target="#chat-{chat}" hx-swap="delete"'
    assert len([frame for frame in page.frames if moved in frame]) == 1


def test_titles_pins_archives_and_deletions_arrive(stack, follow):
    ada = stack.signup()
    chat, pinned = ada.new_chat(), [("Pinned", ["Plans"])]
    page = follow(ada)
    ada.post(f"/chats/{chat}", htmx=True, title="Plans")
    page.wait_for("Plans")
    ada.post(f"/chats/{chat}", htmx=True, pinned="1")
    page.wait_for(lambda frame: by_day(f'<p class="sidebar__chats">{frame}</p>') == pinned)
    gone = f'hx-target="#chat-{chat}, #chat-{chat}-listed" hx-swap="delete"'
    ada.post(f"/chats/{chat}", htmx=True, archived="1")
    page.wait_for(gone)
    ada.post(f"/chats/{chat}/delete", htmx=True)
    page.wait_for(lambda frame: [each for each in page.frames if gone in each][1:])


def test_a_page_that_missed_something_is_given_the_list_anew_and_no_other(stack, follow):
    ada = stack.signup()
    query = parse(ada.get("/chats/new").text).select_one("#sidebar")["hx-ws:connect"][9:]
    calm = follow(ada, query)
    ada.new_chat()
    seen = calm.wait_for('{"listed":')
    late = follow(ada, query)
    assert "New chat" in late.wait_for("innerMorph")
    assert late.wait_for('{"listed":') == seen
    again = follow(ada, re.sub(r"listed=\d+", seen[1:-1].replace('"', "").replace(":", "="), query))
    ada.new_chat()
    again.wait_for("New chat")
    assert not any("innerMorph" in frame for frame in [*calm.frames, *again.frames])


def test_a_page_is_given_the_list_anew_on_another_day(stack, follow):
    ada = stack.signup()
    ada.new_chat()
    query = parse(ada.get("/chats/new").text).select_one("#sidebar")["hx-ws:connect"][9:]
    follow(ada, re.sub(r"day=\d+", "day=20200101", query)).wait_for("innerMorph")


def test_only_the_owner_follows(stack):
    ada = stack.signup()
    for cookie, origin in (("", ""), (ada.cookie, "https://evil.example")):
        with closing(Socket(ada.host, "/updates?listed=0", cookie, origin)) as socket:
            assert socket.wait_for_close() == 1008


# in a browser


@pytest.fixture
def ada(browser, stack):
    """Ada in front of a tab; `chats(count)` gives her so many."""
    context = browser.new_context(base_url=stack.url, reduced_motion="reduce")
    context.set_default_timeout(1000 * patient(10))
    session = stack.signup()
    ada = Person(context.new_page()).is_signed_up(session)

    def chats(count):
        with somewhere_else(stack):
            add_chats(db.session.scalar(db.select(User.id).filter_by(email=session.email)), count)

    ada.chats = chats
    yield ada
    assert ada.complaints == []
    context.close()


def rows(page):
    return page.locator(".sidebar__row:visible")


def row(page, title):
    return page.locator(".sidebar__row", has=page.get_by_role("link", name=title, exact=True))


def open_menu(page, title):
    row(page, title).hover()
    page.get_by_role("button", name=f"{title} Menu", exact=True).click()


@contextmanager
def another_tab(ada, path):
    page = ada.page.context.new_page()
    ada.watch(page)
    page.goto(path)
    yield page
    page.close()


def sidebar_of(page):
    """Return what the sidebar shows: headings and titles, in order."""
    shown = page.locator(".sidebar__chats :is(.sidebar__day, .sidebar__chat):visible")
    return shown.all_inner_texts()


def test_a_chat_is_renamed_in_place(ada):
    ada.chats(3)
    ada.page.goto("/chats/new")
    with another_tab(ada, "/chats") as other:
        open_menu(ada.page, "1")
        ada.page.get_by_role("button", name="Rename").click()
        field = ada.page.get_by_role("textbox", name="Name of the chat")
        expect(field).to_be_focused()
        expect(field).to_have_value("1")
        field.fill("Not this")
        field.press("Escape")
        expect(field).to_be_hidden()
        open_menu(ada.page, "1")
        ada.page.keyboard.press("Enter")
        expect(field).to_have_value("1")
        field.fill("The plan")
        field.press("Enter")
        expect(field).to_be_hidden()
        for page in (ada.page, other):
            expect(row(page, "The plan")).to_be_visible()
        expect(other.locator(".listing__link", has_text="The plan")).to_be_visible()
        assert sidebar_of(ada.page) == sidebar_of(other) == ["Today", "0", "The plan", "2"]


def test_pin_archive_and_delete_show_in_every_tab(ada):
    ada.chats(4)
    ada.page.goto("/chats/new")
    with another_tab(ada, "/chats/new") as other:
        open_menu(ada.page, "2")
        ada.page.get_by_role("button", name="Pin", exact=True).click()
        for page in (ada.page, other):
            expect(page.locator("#pinned + .sidebar__row .sidebar__chat")).to_have_text("2")
        open_menu(ada.page, "2")
        expect(ada.page.get_by_role("button", name="Unpin")).to_be_visible()
        ada.page.keyboard.press("Escape")
        open_menu(ada.page, "1")
        ada.page.get_by_role("button", name="Archive").click()
        open_menu(ada.page, "0")
        ada.page.get_by_role("button", name="Delete").click()
        asked = ada.page.get_by_role("dialog", name="Delete “0”?")
        asked.get_by_role("button", name="Cancel").click()
        expect(row(ada.page, "0")).to_be_visible()
        open_menu(ada.page, "0")
        ada.page.get_by_role("button", name="Delete").click()
        asked.get_by_role("button", name="Delete").click()
        expect(asked).to_be_hidden()
        for page in (ada.page, other):
            for title in ("0", "1"):
                expect(row(page, title)).to_have_count(0)
        fresh = ada.page.context.new_page()
        fresh.goto("/chats/new")
        assert sidebar_of(ada.page) == sidebar_of(other) == sidebar_of(fresh)


def test_what_is_said_in_a_tab_shows_in_another_and_the_open_chat_stays_marked(ada, provider):
    ada.chats(3)
    ada.page.goto("/chats")
    ada.page.get_by_role("navigation").get_by_role("link", name="2", exact=True).click()
    with another_tab(ada, "/chats/new") as other:
        ada.send("Hello")
        ada.wait_for("complete")
        for page in (ada.page, other):
            expect(page.locator("#today + .sidebar__row .sidebar__chat")).to_have_text("2")
        expect(ada.page.locator(".sidebar__chat[aria-current]")).to_have_text("2")
        expect(other.locator(".sidebar__chat[aria-current]")).to_have_count(0)


def test_older_chats_load_on_scroll_and_the_place_is_kept(ada):
    ada.chats(160)
    ada.page.goto("/chats/new")
    chats = ada.page.locator(".sidebar__chats")
    expect(rows(ada.page)).to_have_count(50)
    for count in (100, 150):
        chats.evaluate("(list) => list.scrollTo(0, list.scrollHeight)")
        expect(rows(ada.page)).to_have_count(count)
    link = row(ada.page, "120").get_by_role("link")
    link.scroll_into_view_if_needed()
    before = link.bounding_box()
    link.click()
    ada.page.wait_for_url(re.compile(r"/chats/\d+$"))
    expect(ada.page.locator(".sidebar__chat[aria-current]")).to_be_in_viewport()
    assert abs(row(ada.page, "120").get_by_role("link").bounding_box()["y"] - before["y"]) < 3


def test_an_open_chat_far_down_is_in_view(ada):
    ada.chats(120)
    ada.page.goto("/chats")
    listed = ada.page.locator(".listing__link")
    for count in (100, 120):
        ada.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(listed).to_have_count(count)
    listed.last.click()
    expect(ada.page.locator(".sidebar__chat[aria-current]")).to_have_text("119")
    expect(ada.page.locator(".sidebar__chat[aria-current]")).to_be_in_viewport()


def test_the_drawer_of_a_phone_follows_and_has_the_menu(browser, stack):
    context = browser.new_context(base_url=stack.url, **PHONE)
    context.set_default_timeout(1000 * patient(10))
    session = stack.signup()
    ada = Person(context.new_page()).is_signed_up(session)
    ada.page.goto("/chats/new")
    ada.page.get_by_role("button", name="Chats", exact=True).tap()
    chat = session.new_chat()
    session.post(f"/chats/{chat}", title="Far away")
    row(ada.page, "Far away").get_by_role("button").tap()
    ada.page.get_by_role("button", name="Pin", exact=True).tap()
    expect(ada.page.locator("#pinned + .sidebar__row .sidebar__chat")).to_have_text("Far away")
    assert ada.complaints == []
    context.close()


# by keyboard


def test_a_key_begins_a_chat_and_another_lists_them_all(ada):
    ada.chats(1)
    ada.page.goto("/chats")
    ada.page.keyboard.press("Shift+?")
    keys = ada.page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(keys).to_be_visible()
    for what in ("Search", "New chat", "Edit your last message", "Show these keys"):
        expect(keys.get_by_role("definition").filter(has_text=what)).to_be_visible()
    ada.page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    ada.page.keyboard.press("ControlOrMeta+Shift+O")
    ada.page.wait_for_url("**/chats/new")
    ada.box.press("Shift+?")
    expect(ada.box).to_have_value("?")
    expect(keys).to_be_hidden()
