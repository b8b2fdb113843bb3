"""Random text: in every field of every form, and as Markdown. It is the same in every run."""

import re
import sys
from urllib.parse import quote

import html5lib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chattable import markdown
from chattable.markdown import Growth
from tests.growing import Page
from tests.page import parse
from tests.test_markdown_cost import GRAMMAR, NESTINGS
from tests.test_routes import FORM, FORMS, ROUTES, Town, rows
from tests.test_xss import faults_in

SAME = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# Markdown.

MARKUP = st.sampled_from([*GRAMMAR, "\0", "\x1b", "\ufffe", "\u202e", "<b x=y>", "-->", "\r\n"])
ANYTHING = st.characters(exclude_categories=["Cs"])
WRITTEN = st.lists(MARKUP | st.text(ANYTHING, max_size=5), max_size=25).map("".join)


def errors_of(html):
    """Return what a browser would have to mend in the HTML of a message's body."""
    parser = html5lib.HTMLParser(tree=html5lib.getTreeBuilder("dom"))
    body = parser.parseFragment(html, container="div")
    # Characters that HTML does not know are no markup; every browser shows something there.
    found = [code for _, code, _ in parser.errors if code != "invalid-codepoint"]
    return found + faults_in(body)


@given(WRITTEN)
@settings(SAME, max_examples=200)
def test_any_text_becomes_a_well_formed_message(text):
    assert errors_of(markdown.render(text)) == []


@given(WRITTEN, st.integers(1, 9))
@settings(SAME, max_examples=80)
def test_any_text_grows_into_the_same_message(text, size):
    growth, page = Growth(), Page()
    for start in range(0, len(text), size):
        page.apply(growth.feed(text[start : start + size]))
        assert errors_of(growth.html) == []
        assert page.html == Page(growth.html).html
    page.apply(growth.finish(markdown.render(text)))
    assert page.html == Page(markdown.render(text)).html


class Steps:
    """How many functions were called, here and in the libraries."""

    def __init__(self):
        self.count = 0

    def __enter__(self):
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)

    def _note(self, frame, event, argument):
        self.count += event == "call" or event == "c_call"


@given(st.sampled_from(NESTINGS), st.lists(MARKUP, min_size=1, max_size=4).map("".join))
@settings(SAME, max_examples=40)
def test_twice_as_much_of_anything_takes_twice_the_steps(nesting, unit):
    taken = []
    for size in (1_000, 2_000):
        with Steps() as steps:
            markdown.render(nesting + unit * (size // len(unit)))
        taken.append(steps.count)
    assert taken[1] < 2.6 * taken[0] + 2000


# Forms and addresses.


# What each reads; of one that is not here, nobody knows.
SENT = {
    "/chats": "content model client_id",
    "/chats/<int:chat_id>": "title pinned archived",
    "/chats/<int:chat_id>/delete": "",
    "/chats/<int:chat_id>/stop": "",
    "/messages": "chat_id content model client_id",
    "/messages/<int:message_id>/edit": "content model client_id",
    "/messages/<int:message_id>/retry": "model",
    "/messages/<int:message_id>/show": "",
    "/messages/<int:message_id>/stop": "",
    "/theme": "theme",
    "/signup": "name email password next",
    "/login": "email password next remember",
    "/logout": "",
}
ASKED = {
    "/chats": "after archived",
    "/chats/<int:chat_id>": "message before thoughts from",
    "/chats/<int:chat_id>/next": "model",
    "/chats/<int:chat_id>/updates": "since listed day",
    "/updates": "listed day",
    "/search": "q before",
    "/sidebar": "after open",
    "/signup": "invitation next",
    "/login": "next",
}
# What a form shows again where it is not taken.
KEPT = "content", "title", "name", "email"
GIVEN = FORM | FORMS["/signup"] | {"client_id": "", "archived": "1"}
CHANGES = [(method, rule) for method, rule, *_ in rows(ROUTES, 6) if method != "GET"]
LOOKS = [rule for method, rule, *_ in rows(ROUTES, 6) if method == "GET" and "static" not in rule]
ODD = [
    *("", "0", "-1", "2", "2147483648", "9" * 30, "1e9", "٣", "0x1", " 1", "1-1", "9" * 17 + "-1"),
    *("\0", "\r\n", "\ufffe", "🧑🏽\u200d🚀" * 70, "x" * 300, "//evil.example", "'\"--<b>%00{{1}}"),
]
TEXT = st.sampled_from(ODD) | st.text(ANYTHING, max_size=30)


@pytest.fixture
def town(make_app, tmp_path, monkeypatch):
    """An app with people, in which a password takes no time once they are logged in."""
    monkeypatch.setattr("chattable.shredder.SHRED", 3600)
    town = Town(make_app(RATELIMIT_ENABLED=False), tmp_path / "chattable.db")
    monkeypatch.setattr("pages.passwords.check_password_hash", lambda *_: False)
    monkeypatch.setattr("pages.people.generate_password_hash", lambda password: "none")
    return town


def send(town, method, rule, form, htmx=False):
    """Send a form; check that it breaks nothing, and that what it had is shown if it is refused."""
    path, headers = re.sub("<.*?>", "1", rule), {"HX-Request": "true"} if htmx else None
    answer = town.open(method, path, town.cookies["owner"], headers, data=form)
    assert answer.status_code < 500, (path, form)
    if answer.status_code < 400:
        town.begin_anew("owner")
    elif answer.status_code in (409, 422) and not htmx:
        page, sent = parse(answer.text), {*SENT.get(rule, "").split()}.intersection(KEPT)
        for name in sent:
            assert words(form[name]) in values_of(page, name), (path, name, form)


def values_of(page, name):
    """Return what the fields of a name have in them, in words."""
    fields = page.select(f"main [name={name}]")
    return [words(each.get("value") or each.get_text()) for each in fields]


def words(text):
    return " ".join(re.sub("[\0\u202a-\u202e\u2066-\u2069]", "", text).split())


def variants(table, rule):
    """Return odd fields, each alone, and all at once where nobody knows which there are."""
    for number, value in enumerate(ODD):
        if rule not in table:
            yield number, dict.fromkeys(" ".join(table.values()).split(), value)
        for name in table.get(rule, "").split():
            yield number, {name: value}


def test_no_odd_field_breaks_the_server_or_loses_a_text(town):
    for method, rule in CHANGES:
        for number, odd in variants(SENT, rule):
            send(town, method, rule, GIVEN | odd, htmx=number % 3 == 0)


@given(st.data())
@settings(SAME, max_examples=8)
def test_no_form_breaks_the_server_or_loses_a_text(town, data):
    for method, rule in CHANGES:
        known = SENT.get(rule, " ".join(SENT.values())).split()
        fields = {name: st.just(GIVEN.get(name, "")) | TEXT for name in known}
        send(town, method, rule, GIVEN | data.draw(st.fixed_dictionaries(fields)))


def test_no_odd_address_breaks_the_server(town):
    for rule in LOOKS:
        for _, odd in variants(ASKED, rule):
            path = re.sub("<.*?>", "1", rule)
            answer = town.open("GET", path, town.cookies["owner"], query_string=odd)
            # No worker is there, which that one is to tell.
            assert answer.status_code < 500 or path == "/ready", (path, odd)


def test_no_odd_place_or_cookie_breaks_the_server(town):
    for value in [*ODD, "..", "%2e%2e", "2147483647", "\\"]:
        for method, rule in [*CHANGES, *(("GET", rule) for rule in LOOKS)]:
            if "<" in rule:
                path = re.sub("<.*?>", quote(value), rule)
                answer = town.open(method, path, town.cookies["owner"], data=GIVEN)
                assert answer.status_code < 500, (method, path)
        town.begin_anew("owner")
        name = town.app.config["SESSION_COOKIE_NAME"]
        odd = "; ".join(f"{each}={quote(value)}" for each in ("zone", f"{name}_sidebar"))
        assert town.open("GET", "/chats", f"{town.cookies['owner']}; {odd}").status_code == 200
