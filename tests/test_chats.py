"""Chats: list, new, show, rename, delete, earlier messages; and nobody else's."""

import re
import uuid

import pytest
from flask_login import login_user
from rq.executions import Execution
from rq.job import Job
from sqlalchemy import event, insert

from app import show_page
from chattable import live, queue, shredder
from chattable.reading import PAGE
from models import NEW_CHAT, Chat, Message, User, db
from tests.page import Page, parse
from tests.services import wait_until
from tests.stack import PREFIX

HTMX = {"HX-Request": "true"}


@pytest.fixture
def ada(let_in):
    """Ada's browser: a logged-in test client."""
    return let_in()


@pytest.fixture
def new_chat(ada):
    """Make an empty chat of Ada's: `new_chat()` returns its id."""

    def make(person=ada):
        return int(person.post("/chats").location.rsplit("/", 1)[1])

    return make


@pytest.fixture
def say(app):
    """Save messages as a worker does: `say(chat_id, "one", "two")` returns their ids."""

    def save(chat_id, *texts):
        with app.app_context():
            chat = db.session.get(Chat, chat_id)
            return [chat.say("user", text).id for text in texts]

    return save


def titles(client):
    return [link.get_text() for link in parse(client.get("/chats").text).select(".listing__link")]


def sidebar(client, path="/chats"):
    return [link.get_text() for link in parse(client.get(path).text).select(".sidebar__chat")]


def heading(client, chat_id):
    return parse(client.get(f"/chats/{chat_id}").text).h1.get_text()


def bodies(html):
    return [body.get_text() for body in parse(html).select(".message__body")]


def count(app, model):
    with app.app_context():
        return db.session.query(model).count()


# listing


def test_home_is_the_list_of_chats(ada):
    assert ada.get("/").location == "/chats"


def test_without_chats_the_list_says_how_to_begin(ada):
    page = parse(ada.get("/chats").text)
    assert "No chats yet" in page.main.get_text()
    assert page.main.find("a", href="/chats/new")


def test_chats_are_listed_by_latest_activity(ada, new_chat, say):
    first, second, third = new_chat(), new_chat(), new_chat()
    say(second, "two")
    say(third, "three")
    say(first, "one")
    assert titles(ada) == sidebar(ada) == ["one", "three", "two"]
    say(second, "again")
    assert titles(ada) == ["two", "one", "three"]


def test_renaming_a_chat_is_no_activity_of_its_own(ada, new_chat, say):
    first, second = new_chat(), new_chat()
    say(first, "one")
    say(second, "two")
    ada.post(f"/chats/{first}", data={"title": "renamed"})
    assert titles(ada) == ["two", "renamed"]


def test_the_sidebar_marks_the_chat_that_is_open(ada, new_chat, say):
    first, second = new_chat(), new_chat()
    say(first, "one")
    say(second, "two")
    page = parse(ada.get(f"/chats/{first}").text)
    assert [link.get_text() for link in page.select(".sidebar__chat[aria-current]")] == ["one"]


def test_everybody_has_a_list_of_their_own(ada, new_chat, say, let_in):
    say(new_chat(), "mine")
    bob = let_in("Bob", "bob@example.com")
    say(new_chat(bob), "his")
    assert titles(ada) == ["mine"]
    assert titles(bob) == sidebar(bob) == ["his"]


@pytest.fixture
def asked(app):
    """Every statement that the database is asked from now on."""
    statements = []
    with app.app_context():
        engine = db.engine
    db.event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    return statements


def test_a_page_takes_no_more_queries_with_many_chats(ada, new_chat, say, asked):
    def queries(path):
        asked.clear()
        assert ada.get(path).status_code == 200
        return len(asked)

    say(new_chat(), "one")
    few = queries("/chats/1")
    for number in range(10):
        say(new_chat(), f"more {number}")
    assert queries("/chats/1") == few


def test_a_new_chat_reads_no_other(new_chat, asked):
    new_chat()
    assert any("INSERT INTO chats" in each for each in asked)
    assert not any("FROM chats" in each for each in asked), asked


# titles


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("What is  the\ntime?", "What is the time?"),
        ("word " * 30, " ".join(["word"] * 12) + "…"),
        ("x" * 100, "x" * 59 + "…"),
        ("今天天气怎么样" * 20, ("今天天气怎么样" * 20)[:59] + "…"),
        ("<b>bold</b>", "<b>bold</b>"),
    ],
)
def test_the_first_message_titles_the_chat(ada, new_chat, say, text, title):
    chat = new_chat()
    assert heading(ada, chat) == NEW_CHAT
    say(chat, text, "a second message")
    assert heading(ada, chat) == title
    assert parse(ada.get(f"/chats/{chat}").text).title.get_text() == f"{title} · Chattable"


def test_a_title_that_was_given_stays(ada, new_chat, say):
    chat = new_chat()
    ada.post(f"/chats/{chat}", data={"title": "Plans"})
    say(chat, "What is the time?")
    assert heading(ada, chat) == "Plans"


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_chat_can_be_renamed(ada, new_chat, method):
    chat = new_chat()
    edit = parse(ada.get(f"/chats/{chat}/edit").text)
    assert edit.find(id="title")["value"] == NEW_CHAT
    answer = ada.open(f"/chats/{chat}", method=method, data={"title": "  The  big plan "})
    assert (answer.status_code, answer.location) == (303, f"/chats/{chat}")
    assert heading(ada, chat) == "The big plan"


@pytest.mark.parametrize("title", ["", "  ", "x" * 201])
def test_a_title_that_is_missing_or_endless_is_said_beside_the_field(ada, new_chat, title):
    chat = new_chat()
    answer = ada.post(f"/chats/{chat}", data={"title": title})
    assert answer.status_code == 422
    field = parse(answer.text).find(id="title")
    assert "200" in parse(answer.text).find(id=field["aria-describedby"]).get_text()
    assert field["value"] == title.strip()
    assert heading(ada, chat) == NEW_CHAT


def test_renaming_while_a_reply_streams_lasts(stack, provider):
    ada = stack.signup()
    chat = ada.new_chat()
    script = provider.says("one ", hold=True).says("two")
    socket = ada.socket(chat)
    ada.say(chat, "count")
    script.wait_for_hold()
    ada.post(f"/chats/{chat}", title="Numbers")
    script.release()
    socket.wait_for('data-role="assistant" data-status="complete"')
    socket.wait_for(f"chat-{chat}-cost")
    named = [parse(frame).title.get_text() for frame in socket.frames if "<title>" in frame]
    # the job may announce the first title before or after
    assert named[-1] == "Numbers · Chattable"
    assert "count · Chattable" in named
    assert parse(ada.get(f"/chats/{chat}").text).h1.get_text() == "Numbers"


# deleting


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/chats/1"), ("POST", "/chats/1/delete")])
def test_a_deleted_chat_is_gone_with_its_messages(app, ada, new_chat, say, method, path):
    say(new_chat(), "one", "two")
    say(new_chat(), "kept")
    answer = ada.open(path, method=method)
    assert (answer.status_code, answer.location) == (303, "/chats")
    assert "deleted" in parse(ada.get("/chats").text).find(role="status").get_text()
    assert ada.get("/chats/1").status_code == 404
    assert titles(ada) == ["kept"]
    assert (count(app, Chat), count(app, Message)) == (1, 1)


def test_htmx_is_led_to_the_list_after_a_deletion(ada, new_chat):
    answer = ada.delete(f"/chats/{new_chat()}", headers=HTMX)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (200, "/chats")


def test_deleting_asks_first(ada, new_chat):
    page = parse(ada.get(f"/chats/{new_chat()}/edit").text)
    dialog = page.find(id="confirm-delete")
    assert dialog.name == "dialog"
    assert dialog.form["action"] == "/chats/1/delete"
    assert page.select("button[commandfor=confirm-delete][command=show-modal]")


def test_a_new_chat_never_gets_the_number_of_a_deleted_one(ada, new_chat):
    first = new_chat()
    ada.delete(f"/chats/{first}")
    assert new_chat() > first


def test_a_person_who_goes_takes_their_chats_along(app, ada, new_chat, say):
    say(new_chat(), "one")
    with app.app_context():
        db.session.delete(db.session.scalars(db.select(User)).one())
        db.session.commit()
    assert (count(app, Chat), count(app, Message)) == (0, 0)


def test_nothing_in_redis_remembers_a_deleted_chat(stack, provider):
    ada = stack.signup()
    chat = ada.new_chat()
    script = provider.reply()
    for _ in range(200):
        script.says("more and ").pauses(0.01)
    socket = ada.socket(chat)
    ada.say(chat, "never end")
    reply = int(re.search(r"message-(\d+)-body", socket.wait_for("more and"))[1])
    ada.post(f"/chats/{chat}/delete")
    assert socket.wait_for_close() == 1008
    script.wait_for_disconnect()
    redis = stack.redis.client()
    wait_until(lambda: not redis.exists(f"{PREFIX}:chat:{chat}:turn"), 5, "the job's end")
    kept = [
        *redis.scan_iter(f"{PREFIX}:chat:{chat}:*"),
        *redis.scan_iter(f"{PREFIX}:message:{reply}:*"),
    ]
    assert [key for key in kept if redis.ttl(key) == -1] == []
    parts = {key.decode().split(":", 2)[2] for key in kept}
    assert parts <= {f"{chat}:seq", *(f"{reply}:{part}" for part in ("stop", "lease", "pass"))}


def test_a_job_may_end_while_its_chat_is_deleted(ada, new_chat, monkeypatch):
    chat, fetch = new_chat(), Job.fetch
    words = {"chat_id": chat, "content": "Hello", "client_id": str(uuid.uuid4())}
    assert ada.post("/messages", data=words, headers=HTMX).status_code == 204

    def fetch_and_end(id, connection):
        job = fetch(id, connection=connection)
        connection.delete(job.key)
        return job

    monkeypatch.setattr(Job, "fetch", fetch_and_end)
    assert ada.delete(f"/chats/{chat}", headers=HTMX).status_code == 200


def test_a_run_of_a_job_may_end_while_its_chat_is_deleted(app, ada, new_chat):
    chat = new_chat()
    words = {"chat_id": chat, "content": "Hello", "client_id": str(uuid.uuid4())}
    assert ada.post("/messages", data=words, headers=HTMX).status_code == 204
    with app.app_context():
        [job] = queue.queue().jobs
        # RQ has it in its list of runs, and nothing else: a worker that was killed leaves this.
        run = Execution("a run", job.id, live.redis())
        job.execution_registry.add(run, ttl=60, pipeline=live.redis())
        assert ada.delete(f"/chats/{chat}", headers=HTMX).status_code == 200
        assert not Job.exists(job.id, connection=live.redis())
        # It holds the run's place, and goes by itself.
        assert live.redis().ttl(job.execution_registry.key) != -1


# earlier messages


def test_a_page_shows_the_last_thirty_and_more_on_demand(ada, new_chat, say):
    chat = new_chat()
    say(chat, *(f"message {number}" for number in range(70)))
    page = ada.get(f"/chats/{chat}").text
    assert bodies(page) == [f"message {number}" for number in range(40, 70)]
    shown = 40
    while button := parse(page).select_one("#older button, hx-partial button"):
        page = ada.get(button["hx-get"], headers=HTMX).text
        assert not parse(page).html, "a part of a page"
        earlier = bodies(page)
        assert earlier == [f"message {number}" for number in range(max(shown - 30, 0), shown)]
        shown -= len(earlier)
    assert shown == 0


@pytest.mark.parametrize("messages", [0, 1, 30])
def test_nothing_earlier_is_offered_where_there_is_nothing(ada, new_chat, say, messages):
    chat = new_chat()
    say(chat, *map(str, range(messages)))
    page = ada.get(f"/chats/{chat}").text
    assert bodies(page) == [*map(str, range(messages))]
    assert not parse(page).select("#older button")


@pytest.fixture
def catch_up(app):
    """Catch a page up: `catch_up(chat_id, since)` returns the frames and how many rows it took."""

    def catch(chat_id, since):
        rows = []
        event.listen(Message, "load", hook := lambda message, _: rows.append(message.id))
        with app.app_context():
            _, frames = db.session.get(Chat, chat_id).catch_up(since)
        event.remove(Message, "load", hook)
        return frames, len(rows)

    return catch


@pytest.fixture
def long_chat(app, ada, new_chat):
    """The id of a chat with 10,000 messages, the last a reply that is being written."""
    chat = new_chat()
    message = {"chat_id": chat, "role": "user", "status": "complete"}
    rows = [message | {"content": f"message {n}", "revision": n} for n in range(1, 10_000)]
    with app.app_context():
        db.session.execute(insert(Message), rows)
        db.session.get(Chat, chat).revision = 9_999
        db.session.get(Chat, chat).begin_reply("gpt-4o-mini")
    return chat


@pytest.mark.parametrize("since", [0, 5_000, 9_969])
def test_a_page_that_slept_through_thousands_of_messages_is_given_the_last_thirty(
    ada, long_chat, catch_up, since
):
    stale = ada.get(f"/chats/{long_chat}?before={since + 1}", headers=HTMX).text
    page = Page(f'<div id="messages">{stale}</div>')
    fresh = ada.get(f"/chats/{long_chat}").text
    frames, rows = catch_up(long_chat, since)
    assert rows < 3 * PAGE
    assert sum(map(len, frames)) < len(fresh)
    for frame in frames:
        page.apply(frame)
    assert page.html == Page(fresh).html
    assert len(page.messages) == PAGE


def test_a_page_that_missed_little_is_given_no_more(ada, long_chat, catch_up):
    page = Page(ada.get(f"/chats/{long_chat}").text)
    frames, rows = catch_up(long_chat, 9_998)
    assert rows == 2
    for frame in frames:
        page.apply(frame)
    assert page.html == Page(ada.get(f"/chats/{long_chat}").text).html


def test_a_page_misses_nothing_that_is_said_while_it_is_made(app, user, say, catch_up):
    chat = Chat()
    user.chats.append(chat)
    db.session.commit()
    chat_id = chat.id
    say(chat_id, "before")
    with app.test_request_context():
        login_user(user)
        db.session.expire(chat)  # as after a moment in which the database was locked
        event.listen(Message, "load", lambda *_: say(chat_id, "meanwhile"), once=True)
        page = show_page(chat)
    assert bodies(page) == ["before"]
    frames, _ = catch_up(chat_id, int(re.search(r"since=(\d+)", page)[1]))
    assert bodies("".join(frames)) == ["meanwhile"]


def test_what_a_person_wrote_is_shown_as_it_was_written(ada, new_chat, say):
    chat = new_chat()
    text = "# no head\n\n  **stars** <script>alert(1)</script> & &amp;"
    say(chat, text)
    page = ada.get(f"/chats/{chat}").text
    assert bodies(page) == [text]
    assert "<script>alert" not in page


def test_a_message_can_be_had_as_it_was_written(ada, new_chat, say):
    (message,) = say(new_chat(), "**a** <b>\n$x$")
    answer = ada.get(f"/messages/{message}")
    assert answer.text == "**a** <b>\n$x$"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"


# nobody else's


def test_another_persons_chat_and_messages_do_not_exist(app, ada, new_chat, say, let_in):
    (message,) = say(new_chat(), "secret")
    bob = let_in("Bob", "bob@example.com")
    routes = [
        rule
        for rule in app.url_map.iter_rules()
        if re.search("<int", rule.rule) and not rule.websocket
    ]
    asked = 0
    for rule in routes:
        path = rule.rule.replace("<int:chat_id>", "1").replace("<int:message_id>", str(message))
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            for headers in ({}, HTMX):
                answer = bob.open(path, method=method, data={"title": "taken"}, headers=headers)
                assert answer.status_code == 404, f"{method} {path}"
                assert "secret" not in answer.text
                asked += 1
    assert asked >= 16
    fields = {"chat_id": 1, "content": "hello", "client_id": str(uuid.uuid4())}
    assert bob.post("/messages", data=fields, headers=HTMX).status_code == 404
    assert titles(ada) == ["secret"]
    assert bodies(ada.get("/chats/1").text) == ["secret"]


def test_a_message_is_found_in_its_own_chat_only(ada, new_chat, say, let_in):
    say(new_chat(), "a", "b")
    bob = let_in("Bob", "bob@example.com")
    chat = new_chat(bob)
    say(chat, "c")
    assert bodies(bob.get(f"/chats/{chat}?before=99", headers=HTMX).text) == ["c"]


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
@pytest.mark.parametrize("number", [2**31, 2**63, 2**70])
def test_what_no_database_can_number_does_not_exist(make_app, request, url, number):
    person = make_app(DATABASE_URL=request.getfixturevalue(url)).test_client()
    form = {"name": "Ada", "email": "ada@example.com", "password": "correct horse battery"}
    person.post("/signup", data=form)
    person.post("/chats")
    assert person.get(f"/chats/{number}").status_code == 404
    assert person.post(f"/messages/{number}/stop").status_code == 404
    assert person.post("/messages", data={"chat_id": number, "content": "x"}).status_code == 404
    assert person.get(f"/chats/1?before={number}", headers=HTMX).status_code == 200


def test_nul_characters_are_no_error_on_any_database(make_app, postgres_url):
    person = make_app(DATABASE_URL=postgres_url).test_client()
    form = {"name": "A\0da", "email": "ada@example.com", "password": "correct horse battery"}
    assert person.post("/signup", data=form).status_code in (302, 422)
    person.post("/signup", data=form | {"name": "Ada"})
    person.post("/chats")
    assert person.post("/chats/1", data={"title": "a\0b"}).status_code in (303, 422)
    assert person.post("/login", data={"email": "a\0", "password": "x"}).status_code == 422


@pytest.fixture(scope="module")
def house(shared_stack):
    """A running product with Ada's chat in it: (stack, Ada's session, chat id)."""
    ada = shared_stack.signup()
    return shared_stack, ada, ada.new_chat()


def test_the_owner_can_watch_a_chat(house):
    _, ada, chat = house
    socket = ada.socket(chat)
    assert socket.status == 101
    assert socket.close() in (1000, 1005)


def test_a_stranger_cannot_watch_my_chat(house):
    stack, _, chat = house
    assert stack.signup("Bob").socket(chat, since=0).wait_for_close() == 1008


def test_nobody_can_watch_without_a_login(house):
    stack, _, chat = house
    assert stack.session().socket(chat, since=0).wait_for_close() == 1008


def test_a_chat_that_does_not_exist_cannot_be_watched(house):
    _, ada, chat = house
    assert ada.socket(chat + 999, since=0).wait_for_close() == 1008


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1", "nonsense"]
)
def test_another_sites_page_cannot_watch_my_chat(house, origin):
    _, ada, chat = house
    assert ada.socket(chat, since=0, origin=origin).wait_for_close() == 1008


def test_a_redis_that_is_somebody_elses_is_not_told_to_rewrite_its_file(
    app, ada, new_chat, redis_server
):
    with redis_server.client() as client:
        rewritten = client.info("persistence")["aof_rewrites"]
        ada.delete(f"/chats/{new_chat()}")
        shredder.shred(app, shredder.rewrite_redis_log)
        assert client.info("persistence")["aof_rewrites"] == rewritten
        assert not client.info("persistence")["aof_rewrite_in_progress"]


def test_a_watcher_is_told_when_the_chat_is_deleted(house, provider):
    _, ada, _ = house
    chat = ada.new_chat()
    socket = ada.socket(chat)
    ada.say(chat, "hello")
    socket.wait_for('data-role="assistant" data-status="complete"')
    ada.request("DELETE", f"/chats/{chat}", headers={"X-CSRFToken": ada.csrf})
    assert socket.wait_for_close() == 1008
