"""A conversation is a tree: versions of replies and of messages, and the branch one looks at."""

import re
import uuid

import pytest
from sqlalchemy import event, insert

from chattable import live
from models import Chat, Message, db
from tests.page import Page, parse

HTMX = {"HX-Request": "true"}


@pytest.fixture(params=["sqlite", "postgres"])
def app(request, make_app):
    return make_app(DATABASE_URL=request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def talk(app, let_in, run_jobs, provider):
    """A chat of Ada's, and what she does there: a `Talk`."""
    return Talk(app, let_in(), run_jobs, provider)


class Talk:
    """One chat, over HTTP: each method does what a press of a button does, and the job after it."""

    def __init__(self, app, person, run_jobs, provider):
        self.app, self.person, self.run_jobs, self.provider = app, person, run_jobs, provider
        self.chat_id = int(person.post("/chats").location.rsplit("/", 1)[1])

    def send(self, content, reply="A reply."):
        return self._do("/messages", reply, chat_id=self.chat_id, **self._draft(content))

    def edit(self, content, instead, reply="Another reply."):
        return self._do(f"/messages/{self.id(content)}/edit", reply, **self._draft(instead))

    def retry(self, content, reply="Again."):
        return self._do(f"/messages/{self.id(content)}/retry", reply, model="gpt-4o")

    def show(self, content):
        return self._do(f"/messages/{self.id(content)}/show", None)

    def _draft(self, content):
        return {"content": content, "model": "gpt-4o-mini", "client_id": str(uuid.uuid4())}

    def _do(self, path, reply, **fields):
        if reply:
            self.provider.says(reply)
        answer = self.person.post(path, data=fields, headers=HTMX)
        assert answer.status_code == 204, answer.text
        self.run_jobs()

    def id(self, content):
        with self.app.app_context():
            found = db.select(Message.id).filter_by(content=content, chat_id=self.chat_id)
            return db.session.scalars(found).one()

    def page(self, path=""):
        return Page(self.person.get(f"/chats/{self.chat_id}{path}").text)

    @property
    def shown(self):
        """What the page shows, as (text, versions)."""
        return [
            (each.select_one(".message__body").get_text(), each.get("data-versions"))
            for each in self.page().messages
        ]

    @property
    def texts(self):
        return [text for text, _ in self.shown]

    @property
    def told(self):
        """What the provider was told last."""
        return [message["content"] for message in self.provider.requests[-1].json["messages"]]

    @property
    def since(self):
        html = self.person.get(f"/chats/{self.chat_id}").text
        return int(re.search(r"since=(\d+)", html)[1])

    def caught_up(self, page, since):
        """Apply to a page what it has missed."""
        with self.app.app_context():
            for frame in db.session.get(Chat, self.chat_id).catch_up(since)[1]:
                page.apply(frame)
        return page


def test_another_version_of_a_reply_stands_beside_it(talk):
    talk.send("Hello", "One.")
    talk.retry("One.", "Two.")
    assert talk.shown == [("Hello", None), ("Two.", "2/2")]
    assert talk.told == ["Hello"]
    talk.retry("One.", "Three.")
    assert talk.shown == [("Hello", None), ("Three.", "3/3")]
    talk.show("One.")
    assert talk.shown == [("Hello", None), ("One.", "1/3")]


def test_a_new_version_in_the_middle_is_a_branch_and_nothing_is_lost(talk):
    talk.send("a", "A.")
    talk.send("b", "B.")
    talk.retry("A.", "Other.")
    assert talk.texts == ["a", "Other."]
    talk.send("c", "C.")
    assert talk.told == ["a", "Other.", "c"]
    talk.show("A.")
    assert talk.shown == [("a", None), ("A.", "1/2"), ("b", None), ("B.", None)]
    talk.send("d", "D.")
    assert talk.told == ["a", "A.", "b", "B.", "d"]
    assert talk.texts == ["a", "A.", "b", "B.", "d", "D."]
    talk.show("C.")
    assert talk.texts == ["a", "Other.", "c", "C."]


@pytest.mark.parametrize("first", [True, False])
def test_a_message_that_is_edited_begins_a_branch(talk, first):
    before = [] if first else ["Hello", "A reply."]
    if not first:
        talk.send("Hello")
    talk.send("wrogn", "Pardon?")
    talk.send("more", "More.")
    talk.edit("wrogn", "right", "Yes.")
    assert talk.told == [*before, "right"]
    assert talk.shown[len(before) :] == [("right", "2/2"), ("Yes.", None)]
    talk.send("go on", "On.")
    talk.edit("right", "perfect", "Perfect.")
    assert talk.shown[len(before) :] == [("perfect", "3/3"), ("Perfect.", None)]
    talk.show("wrogn")
    assert talk.texts == [*before, "wrogn", "Pardon?", "more", "More."]
    talk.show("right")
    assert talk.texts == [*before, "right", "Yes.", "go on", "On."]


@pytest.mark.parametrize("status", [401, "empty"])
def test_a_version_that_fails_leaves_the_earlier_one_on_show(talk, status):
    talk.send("a", "A.")
    talk.send("b", "B.")
    if status == "empty":
        talk.retry("A.", " ")
    else:
        talk.provider.fails(status)
        talk.retry("A.", None)
    assert talk.texts == ["a", "A.", "b", "B."]
    assert talk.page().messages[1]["data-versions"] == "1/2"
    talk.send("c", "C.")
    assert talk.told == ["a", "A.", "b", "B.", "c"]


def test_a_first_reply_that_fails_stays_until_another_is_there(talk):
    talk.provider.fails(401)
    talk.send("a", None)
    talk.provider.fails(401)
    failed = talk.page().messages[-1]["id"].removeprefix("message-")
    talk.person.post(f"/messages/{failed}/retry", headers=HTMX)
    talk.run_jobs()
    last = talk.page().messages[-1]
    assert (last["data-status"], last["data-versions"]) == ("failed", "2/2")


def test_every_version_is_on_the_books(talk):
    for number in range(3):
        talk.retry("One.", f"V{number}") if number else talk.send("Hello", "One.")
    with talk.app.app_context():
        messages = db.session.scalars(db.select(Message).filter_by(role="assistant")).all()
        assert len(messages) == 3
        spent = sum(each.input_cost + each.output_cost for each in messages)
        assert db.session.get(Chat, talk.chat_id).cost == spent


def test_a_page_that_was_away_is_brought_to_the_branch_that_is_looked_at(talk):
    for each in "abc":
        talk.send(each, each.upper())
    pages = [(talk.page(), talk.since)]
    talk.retry("A", "X")
    pages.append((talk.page(), talk.since))
    talk.send("d", "D")
    talk.show("B")
    for page, since in pages:
        assert talk.caught_up(page, since).html == talk.page().html


def test_a_page_of_another_branch_is_not_shown_what_is_said_elsewhere(talk):
    """An old writer's words, told late, come to no page that looks at another branch."""
    talk.send("a", "A")
    talk.retry("A", "X")
    talk.show("A")
    page, since = talk.page(), talk.since
    with talk.app.app_context():
        elsewhere = db.session.get(Message, talk.id("X"))
        assert not elsewhere.looked_at
        elsewhere.revision = elsewhere.chat.next_revision()
        db.session.commit()
    assert talk.caught_up(page, since).html == talk.page().html


def test_earlier_messages_are_those_of_the_branch(talk):
    with talk.app.app_context():
        rows = [{"chat_id": talk.chat_id, "role": "user", "content": f"m{n}"} for n in range(100)]
        db.session.execute(insert(Message), rows)
        db.session.commit()
    talk.edit("m49", "other", "Reply.")
    assert talk.texts[-3:] == ["m48", "other", "Reply."]
    older = parse(talk.person.get(f"/chats/{talk.chat_id}").text).select_one("#older button")
    html = talk.person.get(older["hx-get"], headers=HTMX).text
    earlier = [each.get_text() for each in parse(html).select(".message__body")]
    assert [*earlier, *talk.texts] == [*(f"m{n}" for n in range(49)), "other", "Reply."]
    talk.show("m99")
    assert talk.texts == [f"m{n}" for n in range(70, 100)]


def test_what_an_app_adds_by_itself_goes_on_from_what_was_said(talk):
    talk.send("a", "A")
    with talk.app.app_context():
        added = [{"role": role, "content": role} for role in ("user", "assistant")]
        db.session.add_all(Message(chat_id=talk.chat_id, **each) for each in added)
        db.session.commit()
    assert talk.texts == ["a", "A", "user", "assistant"]


def test_where_a_message_was_deleted_its_neighbours_meet(talk):
    talk.send("a", "A")
    talk.send("b", "B")
    talk.retry("B", "C")
    with talk.app.app_context():
        db.session.delete(db.session.get(Message, talk.id("b")))
        db.session.commit()
    assert talk.texts == ["a", "A", "C"]


def test_what_goes_on_from_the_other_versions_is_counted(talk):
    talk.send("a", "A")
    for each in "bc":
        talk.send(each, each.upper())
    talk.retry("A", "X")
    with talk.app.app_context():
        (_, reply), _ = db.session.get(Chat, talk.chat_id).page()
        assert [(each.following, each.status) for each in reply.versions] == [
            (4, "complete"),
            (0, "complete"),
        ]


def test_a_second_press_asks_for_one_version(talk):
    talk.send("a", "A")
    again = f"/messages/{talk.id('A')}/retry"
    assert [talk.person.post(again, headers=HTMX).status_code for _ in range(2)] == [204, 204]
    talk.run_jobs()
    assert talk.page().messages[-1]["data-versions"] == "2/2"


def test_what_is_sent_goes_where_its_writer_looked(talk, run_jobs):
    talk.send("a", "A")
    talk.retry("A", "X")
    fields = {"chat_id": talk.chat_id, **talk._draft("on X")}
    assert talk.person.post("/messages", data=fields, headers=HTMX).status_code == 204
    with talk.app.app_context():
        chat = db.session.get(Chat, talk.chat_id)
        chat.show(db.session.get(Message, talk.id("A")))
    talk.run_jobs()
    assert talk.told == ["a", "X", "on X"]
    assert talk.texts[:3] == ["a", "X", "on X"]


def test_what_is_not_mine_is_neither_edited_nor_shown(talk, let_in):
    talk.send("a", "A")
    bob = let_in("Bob", "bob@example.com")
    for what in ("edit", "show", "retry"):
        path = f"/messages/{talk.id('a')}/{what}"
        assert bob.post(path, data=talk._draft("x"), headers=HTMX).status_code == 404
    assert talk.texts == ["a", "A"]


def test_what_is_wrong_with_an_edit_is_said_and_changes_nothing(talk):
    talk.send("a", "A")
    for path, draft, status in (
        (f"/messages/{talk.id('a')}/edit", {**talk._draft("x"), "content": " "}, 422),
        (f"/messages/{talk.id('a')}/edit", {**talk._draft("x"), "model": "gone"}, 422),
        (f"/messages/{talk.id('A')}/edit", talk._draft("x"), 409),
    ):
        answer = talk.person.post(path, data=draft, headers=HTMX)
        assert answer.status_code == status
        assert parse(answer.text).select_one("[data-problem]")
    talk.run_jobs()
    assert talk.texts == ["a", "A"]


def test_a_reply_that_runs_in_a_branch_one_has_left_goes_on(talk):
    talk.send("a", "A")
    with talk.app.app_context():
        chat = db.session.get(Chat, talk.chat_id)
        first = db.session.get(Message, talk.id("A"))
        running = chat.begin_reply("gpt-4o-mini", after=first.follows)
        chat.show(first)
        assert talk.texts == ["a", "A"]
        page = parse(talk.person.get(f"/chats/{talk.chat_id}").text)
        assert page.select_one("#elsewhere [data-message]")["data-message"] == str(running.id)
        Message.interrupt(running.id)
    assert talk.texts == ["a", "A"]
    page = parse(talk.person.get(f"/chats/{talk.chat_id}").text)
    assert not page.select_one("#elsewhere [data-message]")


def test_a_chat_in_branches_is_read_by_as_few_queries_as_one_without(talk):
    talk.send("a", "A")
    plain = queries_of(talk)
    for each in range(5):
        talk.retry("A", f"V{each}")
        talk.send(f"m{each}", f"M{each}")
    assert queries_of(talk) <= plain + 5


def queries_of(talk):
    asked = []
    with talk.app.app_context():
        event.listen(db.engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    talk.person.get(f"/chats/{talk.chat_id}")
    count, _ = len(asked), asked.clear()
    return count


def test_an_old_page_is_told_to_look_again(talk):
    talk.send("a", "A")
    with talk.app.app_context():
        connection = live.redis().pubsub()
        connection.subscribe(live.channel(talk.chat_id))
        connection.get_message(timeout=5)
        chat = db.session.get(Chat, talk.chat_id)
        chat.show(db.session.get(Message, talk.id("A")))
        assert connection.get_message(timeout=5)["data"].decode().endswith(live.ANEW)


def test_who_turns_back_finds_the_branch_that_was_written_in_last(talk):
    talk.send("a", "A")
    talk.retry("A", "X")
    talk.show("A")
    talk.send("b", "B")
    talk.edit("a", "other", "Other")
    with talk.app.app_context():
        (edited, _), _ = db.session.get(Chat, talk.chat_id).page()
        assert [each.following for each in edited.versions] == [3, 0]
    talk.show("a")
    assert talk.texts == ["a", "A", "b", "B"]
