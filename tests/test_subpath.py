"""Under a path of a host that others share: no address leads out of it."""

import re
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.front import Front
from tests.patience import patient
from tests.stack import Stack
from tests.test_accounts import ADA
from tests.test_browser import PASSWORD, Person

PREFIX = "/chat"
# Whatever in a page leads somewhere; "#…" and "?…" stay where they are.
ADDRESSES = """() => [...document.querySelectorAll("*")].flatMap((element) =>
  [...element.attributes].filter(({ name, value }) => value.startsWith("/") ||
    (/^(href|src|action|formaction)$/.test(name) && /^[a-z.]/i.test(value)))
  .map(({ name, value }) => `${element.tagName} ${name}=${value}`))"""
STRANGE = re.compile(rf"^[^=]+=(?!{PREFIX}/|/delete$|https://example\.com)")


@pytest.fixture(scope="module")
def mounted(provider_server):
    """A stack that is told where it is mounted, with a thread for one who may answer at once."""
    with closing(Stack(provider_server.url, env={"SCRIPT_NAME": PREFIX})) as stack:
        yield stack.start()


@pytest.fixture
def stack(mounted, provider):
    return mounted


@contextmanager
def front(stack, **options):
    with closing(Front(urlsplit(stack.url).port, PREFIX, **options)) as between:
        yield between


@contextmanager
def visitor(browser, between):
    """Give somebody whose requests and sockets are all noted, in front of a page of ours."""
    context = browser.new_context(base_url=between.url)
    context.set_default_timeout(1000 * patient(10))
    person = Person(context.new_page())
    person.asked = []
    context.on("request", lambda request: person.asked.append(request.url))
    person.page.on("websocket", lambda socket: person.asked.append(socket.url))
    try:
        yield person
    finally:
        context.close()


def look_around(page):
    """Assert that nothing on a page leads out of the path, wherever it came from."""
    assert [each for each in page.evaluate(ADDRESSES) if STRANGE.search(each)] == []


def live_through(person, provider):
    """Do all that one does, and look at every page and at what comes to it."""
    page = person.page
    page.goto(f"{PREFIX}/")
    look_around(page)
    page.get_by_role("link", name="Sign up").click()
    look_around(page)
    page.get_by_label("Name").fill("Ada Lovelace")
    page.get_by_label("Email").fill(f"{id(person)}@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    expect(page).to_have_url(re.compile(f"{PREFIX}/chats/new$"))
    look_around(page)
    provider.says("The **first** [answer](https://example.com).")
    write(page, "Hello")
    expect(page).to_have_url(re.compile(rf"{PREFIX}/chats/\d+$"))
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    look_around(page)
    provider.says("The second.")
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator("[data-versions='2/2'][data-status=complete]")).to_be_visible()
    look_around(page)
    page.get_by_role("button", name="Previous version").click()
    expect(page.locator("[data-versions='1/2']")).to_be_visible()
    page.get_by_role("button", name="Edit", exact=True).last.click()
    provider.says("The third.")
    page.get_by_label("New version").fill("Hello again")
    page.get_by_label("New version").press("Enter")
    expect(page.get_by_text("The third.")).to_be_visible()
    look_around(page)
    page.get_by_role("button", name="Copy").last.click()
    expect(page.get_by_text(re.compile("(Not c|C)opied"))).to_be_visible()
    search_and_order(page, provider)
    leave(page)


def write(page, text):
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


def search_and_order(page, provider):
    page.keyboard.press("Control+k")
    page.get_by_role("searchbox", name="Search").fill("again")
    expect(page.locator("#search-results a")).to_have_count(1)
    look_around(page)
    page.locator("#search-results a").click()
    expect(page).to_have_url(re.compile(rf"{PREFIX}/chats/\d+\?message="))
    page.get_by_role("button", name="Theme").click()
    with page.expect_response(f"**{PREFIX}/theme"):
        page.get_by_role("radio", name="Dark").check()
    page.keyboard.press("Escape")
    row = page.locator("#chats .sidebar__row").first
    expect(row.locator("a")).to_have_attribute("aria-current", "page")
    row.hover()
    row.get_by_role("button").click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Name of the chat").fill("Another name")
    page.get_by_label("Name of the chat").press("Enter")
    expect(row).to_contain_text("Another name")
    row.hover()
    row.get_by_role("button").click()
    page.get_by_role("button", name="Archive").click()
    page.goto(f"{PREFIX}/chats?archived=1")
    look_around(page)
    page.get_by_role("button", name="Unarchive").click()
    expect(page.locator("#chats .sidebar__row")).to_have_count(1)
    look_around(page)
    page.locator("#chats .sidebar__row a").click()
    page.get_by_role("link", name="Edit", exact=True).click()
    look_around(page)
    for path in ("/search?q=hello", "/nowhere", "/chats"):
        page.goto(PREFIX + path)
        look_around(page)


def leave(page):
    page.keyboard.press("Control+Shift+O")
    expect(page).to_have_url(re.compile(f"{PREFIX}/chats/new$"))
    page.locator("#chats .sidebar__row a").click()
    row = page.locator("#chats .sidebar__row").first
    row.hover()
    row.get_by_role("button").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(page).to_have_url(re.compile(f"{PREFIX}/chats$"))
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(re.compile(f"{PREFIX}/login$"))
    page.goto(f"{PREFIX}/chats/1")
    expect(page).to_have_url(re.compile(re.escape(f"{PREFIX}/login?next={PREFIX}/chats/1")))
    look_around(page)


def test_a_browser_that_does_everything_asks_for_nothing_outside(browser, stack, provider):
    with front(stack) as between, visitor(browser, between) as ada:
        live_through(ada, provider)
        assert {urlsplit(url).path.split("/")[1] for url in ada.asked} == {"chat"}
        assert any(url.startswith("ws:") for url in ada.asked)
        assert between.outside == []
        assert [line for line in ada.errors if "404" not in line] == []


def test_behind_a_proxy_that_strips_the_path_all_is_the_same(browser, stack, provider):
    """The workers know nothing of a path, which one of two webs is not under at all."""
    web = stack.start_web(SCRIPT_NAME="", TRUSTED_PROXIES="127.0.0.1")
    said = {"x-forwarded-prefix": PREFIX}
    between = Front(urlsplit(web.url).port, PREFIX, strips=True, headers=said)
    with closing(between), visitor(browser, between) as ada:
        live_through(ada, provider)
        assert {urlsplit(url).path.split("/")[1] for url in ada.asked} == {"chat"}
        assert between.outside == []


def test_what_comes_over_http_begins_at_the_same_path(app, client, sign_up, provider, run_jobs):
    sign_up(person=client)
    client.post("/chats", data={"content": "Hello"})
    provider.says("Hi.")
    run_jobs()
    for root in ("", PREFIX):
        over = {"SCRIPT_NAME": root}
        (frame, *_) = client.get("/chats/1/updates?since=0", environ_overrides=over).json["frames"]
        addresses = re.findall(r'(?:data-copy|formaction)="([^"]+)"', frame)
        assert addresses
        assert all(address.startswith(f"{root}/messages/") for address in addresses)


def test_an_address_is_made_once_for_each_path(app):
    made, visitor = [], app.test_client()
    app.url_defaults(lambda endpoint, values: made.append(endpoint))
    for root in ("", PREFIX) * 2:
        page = visitor.get("/login", environ_overrides={"SCRIPT_NAME": root}).text
        addresses = re.findall(r' (?:href|src|action)="(/[^"]*)"', page)
        assert len(addresses) > 10
        assert {each.startswith(f"{PREFIX}/") for each in addresses} == {root == PREFIX}
    assert len(made) == 2 * len({*addresses})


@pytest.mark.parametrize(
    ("asked", "then"),
    [
        ("/chat/chats/3?message=5", "/chat/chats/3?message=5"),
        ("/chats/3", "/chat/chats"),  # somebody else's
        ("/chatty", "/chat/chats"),
        ("//evil.example/chat/", "/chat/chats"),
        ("", "/chat/chats"),
    ],
)
def test_who_logs_in_comes_to_a_page_of_ours(app, sign_up, asked, then):
    sign_up()
    over = {"SCRIPT_NAME": PREFIX}
    answer = app.test_client().post("/login", data=ADA | {"next": asked}, environ_overrides=over)
    assert answer.location == then
    assert f"Path={PREFIX}" in answer.headers["Set-Cookie"]
