"""Search: what is found, how it is shown, and that it is never anybody else's."""

import re

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import expect
from sqlalchemy import text

from chattable import connections, search
from models import Chat, Message, User, db
from tests.entered import entered
from tests.services import wait_until
from tests.test_browser import Person, somewhere_else


@pytest.fixture(params=["sqlite", "postgres"])
def app(make_app, request):
    url = request.getfixturevalue(f"{request.param}_url")
    app = make_app(DATABASE_URL=url)
    with app.app_context():
        yield app


class Searcher:
    """A person with one chat, and what they find."""

    def __init__(self, app, name):
        self.user = User(name=name, email=f"{name}@example.com", password_hash="none")
        db.session.add(self.user)
        db.session.commit()
        self.chat = self.begin()
        self.client = entered(app, self.user)

    def begin(self, title="New chat"):
        chat = self.user.begin_chat()
        chat.title = title
        db.session.commit()
        return chat

    def says(self, content, role="user", chat=None, **columns):
        chat = chat or self.chat
        message = Message(chat_id=chat.id, role=role, content=content, **columns)
        db.session.add(message)
        db.session.commit()
        return message

    def finds(self, query):
        """Return the ids of the messages found, and the titles of the chats."""
        found, _ = search.find(self.user, query)
        return [each.message.id if each.message else each.chat.title for each in found]

    def page(self, query, **arguments):
        answer = self.client.get("/search", query_string={"q": query, **arguments})
        assert answer.status_code == 200, answer.text
        return BeautifulSoup(answer.text, "html.parser")


@pytest.fixture
def ada(app):
    return Searcher(app, "ada")


@pytest.fixture
def bob(app):
    return Searcher(app, "bob")


FOUND = [
    ("the connection was lost", ["connection", "conn", "CONN", "lost conn"]),
    ("the connection was lost", ['"connection was"', '"connection wa', 'lost "the connection"']),
    ("C++, not C#", ["c++", "C#", "not c#"]),
    ("see example.com/some-path_name", ["path name", "example", "name example.com"]),
    ("a café in Besançon", ["cafe besanc", "CAFÉ"]),
    ("a cafe", ["café"]),
    ("Привет, мир", ["привет", "МИР"]),
    ("数据库连接超时", ["连接", "连", '"时"', '"数据库连接"', "超时 数据"]),
    ("在GPU上运行", ["gpu上", "GPU", "上运"]),
    ("データベースの接続", ["ベース", "接続"]),
    ("เชื่อมต่อฐานข้อมูล", ["ฐานข้อมูล", "เชื่อม"]),
    ("데이터베이스에 연결했습니다", ["연결", "베이스"]),
    ("नमस्ते दुनिया", ["नमस्", "दुनिया"]),
    ("قاعدة البيانات", ["البيا", "قاعدة"]),
    ("חיבור למסד הנתונים", ["למס"]),
    ("well done 🎉", ["🎉 done"]),
    ("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", ["ᏣᎳᎩ", "ᎦᏬᏂ"]),
    ("don't go NEAR this OR that", ["don't", "NEAR(", "OR", "or near"]),
]
NOT_FOUND = [
    ("the connection was lost", ["nection", "connection found", '"connection lost"', '"conn"']),
    ("the connection was lost", ["c++", "conn.", "lost, conn!"]),
    ("数据库连接超时", ["接连", "数库", '"数据连接"', "连接x"]),
]
ODD = [
    *(
        '"',
        '""',
        '" "',
        "*",
        "'",
        "\\",
        "-",
        "^",
        "🎉",
        "\0",
        "AND",
        "NOT x",
        "NEAR(a b)",
        "(",
        "a)",
    ),
    *("words:x", "{words}: x", "x:*", "!x", "x & y", "a <-> b", "'a' | 'b'", "%", "٪", "€", "²"),
    *(
        "\ufe0f",
        "\u0301",
        "\u0301a",
        "\ud800",
        "x" * 10_000,
        "连" * 10_000,
        "a " * 5_000,
        '"a' * 99,
    ),
]


def test_words_are_found_in_any_script(ada):
    for said, queries in FOUND:
        message = ada.says(said)
        assert [query for query in queries if message.id not in ada.finds(query)] == []


def test_other_words_are_not(ada):
    for said, queries in NOT_FOUND:
        ada.says(said)
        assert [query for query in queries if ada.finds(query)] == []


def test_nothing_that_is_typed_is_syntax(ada):
    ada.says("something else")
    for query in ODD:
        assert ada.finds(query) == []
        assert ada.page(query.replace("\ud800", "")).find("form")


def test_a_reply_is_found_once_it_has_ended(ada):
    reply = ada.says("the ans", role="assistant", status="streaming")
    reply.content = "the answer"
    db.session.commit()
    assert ada.finds("answer") == []
    reply.status, reply.content = "complete", "the answer is"
    db.session.commit()
    assert ada.finds("answer") == [reply.id]


def test_what_no_page_shows_is_not_found(ada):
    ada.says("secret instructions", role="system")
    ada.says("secret bill", role="assistant", status="failed", finish_reason="unseen")
    assert ada.finds("secret") == []


def test_titles_come_first_and_then_what_was_said_last(ada):
    first, second = ada.says("about whales"), ada.says("more about whales")
    ada.begin("Whales and fish")
    assert ada.finds("whales") == ["Whales and fish", second.id, first.id]


def test_what_is_written_changed_or_deleted_by_hand_is_known(ada):
    message = ada.says("apples")
    db.session.execute(text("UPDATE messages SET content = 'pears'"))
    assert (ada.finds("apples"), ada.finds("pears")) == ([], [message.id])
    db.session.execute(text("UPDATE chats SET title = 'about pears'"))
    db.session.expire_all()
    assert ada.finds("pears") == ["about pears", message.id]
    db.session.execute(text("DELETE FROM chats"))
    assert ada.finds("pears") == ada.finds("New") == []
    assert entries(ada) == 0


def test_a_deleted_chat_leaves_nothing_in_the_index(ada):
    ada.says("数据库 and words")
    ada.chat.delete()
    assert entries(ada) == 0


def test_no_text_is_too_long_to_be_saved(ada):
    han = [chr(0x4E00 + number) for number in range(0x5000)]
    unlike = "".join("".join(han[number::step]) for step in (1, 3, 5) for number in range(step))
    for words in (unlike, "x" * 300_000, "\ufdfa" * 100_000):
        ada.says(f"needle {words}")
    assert len(ada.finds("needle")) == 3


def test_words_that_were_deleted_leave_the_file(make_app, tmp_path):
    with (app := make_app()).app_context():
        ada = Searcher(app, "ada")
        ada.says("zebrafish are kept")
        ada.says("zebrafish and secret narwhals", chat=(chat := ada.begin()))
        assert kept(tmp_path, b"arwhals")
        chat.delete()
        wait_until(connections.empty_sqlite_log, 5, "the words to be taken out")
        assert not kept(tmp_path, b"arwhals")
        assert len(ada.finds("zebrafish")) == 1


def kept(folder, words):
    return any(words in file.read_bytes() for file in folder.glob("chattable.db*"))


def entries(ada):
    """Return how many entries an index has for words that there were."""
    if db.engine.dialect.name == "postgresql":
        return db.session.scalar(text("SELECT count(*) FROM messages_search"))
    db.session.execute(text("INSERT INTO messages_search(messages_search) VALUES ('optimize')"))
    terms = "CREATE VIRTUAL TABLE temp.terms USING fts5vocab('main', 'messages_search', 'row')"
    db.session.execute(text(terms))
    return db.session.scalar(text("SELECT count(*) FROM temp.terms"))


# Whose it is.


def test_nobody_finds_what_another_has_said(ada, bob):
    mine, theirs = ada.says("a shared word"), bob.says("a shared word")
    ada.begin("shared title")
    assert ada.finds("shared") == ["shared title", mine.id]
    assert bob.finds("shared") == [theirs.id]


def test_what_others_have_said_is_not_even_counted(ada, bob):
    for number in range(search.PAGE + 5):
        ada.says(f"common {number}")
    assert bob.finds("common") == []
    assert bob.page("common").find(id="search-count").text.strip() == "Nothing found"
    assert "more" not in bob.page("common").find(id="search-results").text
    theirs = bob.says("common")
    ada.says("common again")
    assert bob.finds("common") == [theirs.id]
    assert search.find(bob.user, "common")[1] is None


def test_a_chat_that_is_given_away_is_found_by_its_new_owner_alone(ada, bob):
    message = ada.says("a gift")
    ada.chat.title = "gifts"
    ada.chat.chattable_id = bob.user.id
    db.session.commit()
    assert ada.finds("gift") == []
    assert bob.finds("gift") == ["gifts", message.id]
    db.session.execute(text("DELETE FROM chats"))
    assert entries(ada) == 0


def test_only_who_is_logged_in_searches(app):
    answer = app.test_client().get("/search?q=word")
    assert answer.status_code == 302 and "/login" in answer.location


# The page.


def test_a_result_links_to_the_message_with_the_match_marked(ada):
    message = ada.says("before <b> & " + "so " * 60 + "the connection\nwas lost " + "then " * 90)
    found = ada.page("conn lost").find(id="search-results")
    assert found.a["href"] == f"/chats/{ada.chat.id}#message-{message.id}"
    assert [mark.text for mark in found("mark")] == ["conn", "lost"]
    words = found.find(class_="found__words").text
    assert "the connection was lost then" in words
    assert words.startswith("…so so") and words.endswith("…") and len(words) < 180


def test_a_snippet_is_escaped(ada):
    ada.says("<script>alert(1)</script> needle <mark>")
    page = ada.page("needle")
    assert page.find(id="search-results").find("script") is None
    assert [mark.text for mark in page("mark")] == ["needle"]


def test_a_title_links_to_its_chat(ada):
    chat = ada.begin("The <title>")
    link = ada.page("title").find(id="search-results").a
    assert link["href"] == f"/chats/{chat.id}"
    assert link.mark.text == "title"


def test_more_results_are_a_link_away(ada):
    ids = [ada.says(f"number {number}").id for number in range(search.PAGE + 5)]
    page = ada.page("number")
    assert page.find(id="search-count").text.strip() == f"{search.PAGE} results, and more"
    links = [a["href"] for a in page.find(id="search-results")("a")]
    rest = BeautifulSoup(ada.client.get(links.pop()).text, "html.parser")
    links += [a["href"] for a in rest.find(id="search-results")("a")]
    assert [int(re.search(r"\d+$", link)[0]) for link in links] == ids[::-1]


def test_an_odd_page_is_the_first(ada):
    ada.says("number")
    for before in ("", "x", "-1", "0", "9" * 30):
        assert ada.page("number", before=before).find(class_="found")


# In the browser.


@pytest.fixture
def reader(page, stack):
    """Ada in front of an empty chat, with another one of 71 messages; `reader.ids` are theirs."""
    ada = stack.signup()
    long, empty = ada.new_chat(), ada.new_chat()
    with somewhere_else(stack):
        chat = db.session.get(Chat, long)
        reader_ids = [chat.say("user", "Where is the Needle?").id]
        reader_ids += [chat.say("user", f"number {number}\n" * 3).id for number in range(70)]
    reader = Person(page).is_signed_up(ada)
    reader.chat, reader.ids = long, reader_ids
    page.goto(f"/chats/{empty}")
    yield reader
    assert reader.complaints == []


def field(reader):
    return reader.page.get_by_role("searchbox", name="Search")


def results(reader):
    return reader.page.locator("#search-results a")


def test_ctrl_k_finds_as_one_types_and_the_keyboard_opens(reader):
    reader.page.keyboard.press("Control+k")
    expect(field(reader)).to_be_focused()
    reader.page.keyboard.type("need")
    expect(results(reader)).to_have_count(2)  # the title, too
    expect(reader.page.get_by_role("status").filter(has_text="2 results")).to_be_visible()
    expect(results(reader).locator("mark")).to_have_text(["Need", "Need"])
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown"):
        reader.page.keyboard.press(key)
    expect(results(reader).last).to_be_focused()
    reader.page.keyboard.press("Enter")
    has_landed(reader, reader.ids[0])


def test_the_arrows_come_back_to_the_field_and_escape_closes(reader):
    reader.page.get_by_role("button", name="Search").click()
    field(reader).fill("needle")
    expect(results(reader)).to_have_count(2)
    reader.page.keyboard.press("ArrowDown")
    expect(results(reader).first).to_be_focused()
    reader.page.keyboard.press("ArrowUp")
    expect(field(reader)).to_be_focused()
    field(reader).fill("")
    expect(results(reader)).to_have_count(0)
    reader.page.keyboard.press("Escape")
    expect(reader.page.locator("#search")).to_be_hidden()


def test_a_result_in_the_chat_at_hand_closes_the_search(reader):
    reader.page.goto(f"/chats/{reader.chat}")
    reader.page.keyboard.press("Control+k")
    field(reader).fill('"number 69"')
    results(reader).first.click()
    has_landed(reader, reader.ids[70])
    expect(reader.page.locator("#search")).to_be_hidden()


@pytest.mark.parametrize("address", ["", "?message={0}"])
def test_a_message_in_another_branch_is_turned_to(reader, stack, address):
    with somewhere_else(stack):
        chat = db.session.get(Chat, reader.chat)
        there = reader.ids[-1]
        chat.say("user", "another beginning", after=db.session.get(Message, reader.ids[2]).follows)
    reader.page.goto(f"/chats/{reader.chat}")
    expect(reader.page.locator("#messages > article")).to_have_count(3)
    reader.page.goto(f"/chats/{reader.chat}{address.format(there)}#message-{there}")
    has_landed(reader, there)
    expect(reader.page.locator("#messages > article")).to_have_count(30)


def has_landed(reader, message_id):
    """Wait until a message is where the page begins, the page's target, and has the focus."""
    message = reader.page.locator(f"#message-{message_id}")
    expect(message).to_be_focused()
    expect(reader.page.locator(":target")).to_have_id(f"message-{message_id}")
    expect(message).to_be_in_viewport(ratio=1)
    head = reader.page.locator(".chat__head").bounding_box()
    assert message.bounding_box()["y"] >= head["y"] + head["height"]


def test_search_works_without_javascript(browser, stack, reader):
    context = browser.new_context(base_url=stack.url, java_script_enabled=False)
    context.add_cookies(reader.page.context.cookies())
    other = Person(context.new_page())
    other.page.goto("/search")
    field(other).fill("needle")
    field(other).press("Enter")
    expect(results(other)).to_have_count(2)
    expect(field(other)).to_have_value("needle")
    results(other).last.click()
    expect(other.page).to_have_url(re.compile(f"/chats/{reader.chat}#message-{reader.ids[0]}$"))
    context.close()


def test_more_results_come_below(reader):
    reader.page.goto("/search?q=number")
    expect(results(reader)).to_have_count(search.PAGE + 1)
    reader.page.get_by_role("link", name="Show more").click()
    expect(results(reader)).to_have_count(2 * search.PAGE + 1)
