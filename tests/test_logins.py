"""Sessions that end: each log-in is a row, and with it go its cookie and its sockets."""

import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
from flask_login import current_user, login_user
from playwright.sync_api import expect
from sqlalchemy import event
from werkzeug.security import generate_password_hash

from app import catch_up, refuses
from chattable import live
from chattable.database import now
from chattable.live.frames import ended_frame, ends
from chattable.queue import known_job_ids
from models import Chat, Message, User, db
from pages import logins, passwords, people
from pages.account import browser_of
from pages.logins import Login
from tests.entered import entered
from tests.page import parse
from tests.patience import patient
from tests.services import wait_until
from tests.session import Session, Socket
from tests.stack import PREFIX
from tests.test_accounts import ADA, error_beside, is_logged_in, log_in
from tests.test_browser import Person
from tests.test_streaming import connected

PASSWORD = ADA["password"]
OTHER = "another horse battery"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def cookie_of(client):
    return client.get_cookie(client.application.config["SESSION_COOKIE_NAME"]).value


def replay(app, cookie):
    """Return a visitor who has somebody's cookie."""
    thief = app.test_client()
    thief.set_cookie(app.config["SESSION_COOKIE_NAME"], cookie)
    return thief


def another_browser(app, **fields):
    visitor = app.test_client()
    assert log_in(visitor, **fields).status_code == 302
    return visitor


def change_password(client, old=PASSWORD, new=OTHER):
    return client.post("/account/password", data={"old_password": old, "new_password": new})


def leave(client, password=PASSWORD):
    return client.post("/account/delete", data={"leaving_password": password})


class Somebody:
    """A person with an account, of whom each test client is a browser."""

    def __init__(self, app, name, email, **columns):
        self.app = app
        with app.app_context():
            user = User(name=name, email=email, **columns)
            db.session.add(user)
            db.session.commit()
            self.id, self.public_id = user.id, user.public_id

    def does(self, work):
        """Return what `work(user)` does; requests need a context that knows nobody yet."""
        with self.app.app_context():
            return work(db.session.get(User, self.id))

    def browser(self):
        return self.does(lambda user: entered(self.app, user))

    @property
    def logins(self):
        return self.does(logins.all_of)


@pytest.fixture(scope="session")
def hashed():
    return generate_password_hash(PASSWORD, "pbkdf2:sha256:1")  # cheap to compare


@pytest.fixture
def ada(app, hashed):
    return Somebody(app, "Ada Lovelace", "ada@example.com", password_hash=hashed)


@pytest.fixture
def bob(app):
    return Somebody(app, "Bob", "bob@example.com", password_hash="none")


# cookies


def test_a_cookie_that_is_replayed_after_the_log_out_opens_nothing(app, sign_up):
    ada = sign_up()
    cookie = cookie_of(ada)
    assert is_logged_in(replay(app, cookie))
    ada.post("/logout")
    assert not is_logged_in(replay(app, cookie))
    assert replay(app, cookie).get("/updates?listed=0").location.startswith("/login")


def test_logging_out_here_leaves_the_other_browser_logged_in(app, sign_up):
    ada = sign_up()
    phone = another_browser(app)
    ada.post("/logout")
    assert is_logged_in(phone)


def test_a_cookie_from_before_log_ins_were_kept_logs_in_once_anew(app, sign_up):
    ada = sign_up()
    with ada.session_transaction() as session:
        del session["login"]
    assert not is_logged_in(ada)
    assert log_in(ada).status_code == 302
    assert is_logged_in(ada)


def test_a_cookie_does_not_open_another_account_with_its_log_in(app, sign_up):
    ada, bob = sign_up(), sign_up("Bob", "bob@example.com")
    with ada.session_transaction() as session:
        token = session["login"]
    with bob.session_transaction() as session:
        session["login"] = token
    assert not is_logged_in(bob)
    assert is_logged_in(ada)


def test_logging_in_ends_the_session_that_was_there(app, sign_up):
    ada = sign_up()
    with ada.session_transaction() as session:
        session["csrf_token"] = "known to somebody"
        session["planted"] = "before"
    cookie = cookie_of(ada)
    log_in(ada)
    assert not is_logged_in(replay(app, cookie))
    with ada.session_transaction() as session:
        assert session.get("csrf_token") != "known to somebody"
        assert "planted" not in session


def test_a_log_in_knows_its_browser_and_its_address(make_app):
    app = make_app(TRUSTED_PROXIES="1")
    visitor = app.test_client()
    headers = {"User-Agent": FIREFOX + "x" * 400, "X-Forwarded-For": "203.0.113.9"}
    visitor.post("/signup", data=ADA, headers=headers)
    with app.app_context():
        login = db.session.scalars(db.select(Login)).one()
        assert (login.agent, login.address) == ((FIREFOX + "x" * 400)[:300], "203.0.113.9")


def test_a_page_asks_for_user_and_log_in_at_once(app, let_in):
    ada, asked = let_in(), []
    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    ada.get("/account")
    assert len([each for each in asked if "users" in each]) == 1


def test_who_was_signed_out_comes_back_to_the_page_where_a_form_was(ada):
    browser = ada.browser()
    ada.does(logins.end_all)
    answer = browser.post("/logout", headers={"Referer": "http://localhost/chats/new?x=1"})
    assert answer.location == "/login?next=/chats/new"
    assert browser.post("/logout").location == "/login?next=/"


# who may still log in


def test_a_disabled_account_is_signed_out_and_stays_out(app, ada):
    laptop = ada.browser()
    ada.does(people.disable)
    assert not is_logged_in(laptop)
    answer = log_in(app.test_client())
    assert answer.status_code == 403
    assert "cannot log in" in parse(answer.text).main.get_text()
    ada.does(people.enable)
    assert not is_logged_in(laptop)
    assert log_in(app.test_client()).status_code == 302


def test_a_session_of_a_disabled_account_opens_nothing_though_it_is_there(ada):
    browser = ada.browser()
    ada.does(lambda user: people.change(user, disabled=True))
    assert not is_logged_in(browser)


def test_an_account_without_a_password_takes_as_long_as_any(app, ada, monkeypatch):
    ada.does(lambda user: people.change(user, password_hash=""))
    asked = []

    def check(hashed, password):
        asked.append(hashed.split("$")[0])
        return False

    monkeypatch.setattr(passwords, "check_password_hash", check)
    log_in(app.test_client())
    log_in(app.test_client(), "bob@example.com")
    known, unknown = asked
    assert known == unknown


def test_a_log_in_that_was_under_way_does_not_outlive_its_password(ada):
    checked = ada.does(lambda user: user.password_hash)
    ada.does(lambda user: passwords.change(user, OTHER))
    assert ada.does(lambda user: logins.begin(user, checked, "", "")) is None
    assert ada.logins == []


def test_a_log_in_that_was_not_used_for_a_year_is_removed(app, ada):
    old = ada.browser()
    lifetime = app.config["PERMANENT_SESSION_LIFETIME"]
    ada.does(lambda user: use(logins.all_of(user)[0], lifetime + timedelta(seconds=1)))
    ada.browser()
    assert len(ada.logins) == 1
    assert not is_logged_in(old)


def test_of_too_many_log_ins_those_not_used_for_longest_end(app, ada, monkeypatch):
    monkeypatch.setattr(logins, "MOST", 3)
    ended = []
    monkeypatch.setattr(live, "end_sockets", lambda channel, key: ended.append((channel, key)))
    first, second = ada.browser(), ada.browser()
    ada.does(lambda user: use(logins.all_of(user)[0], timedelta(hours=1)))
    idle = ada.logins[-1].id
    third, fourth = ada.browser(), ada.browser()
    assert not is_logged_in(second)
    assert all(is_logged_in(each) for each in (first, third, fourth))
    assert [key for _, key in ended] == [idle]


# what is noted of their use


def use(login, ago):
    """Have a log-in be used for the last time so long ago."""
    login.seen_at = db.session.get(User, login.user_id).seen_at = now() - ago
    db.session.commit()


@pytest.mark.parametrize(("minutes", "noted"), [(4, False), (6, True)])
def test_its_use_is_noted_every_five_minutes(app, ada, minutes, noted):
    browser = ada.browser()
    ada.does(lambda user: use(logins.all_of(user)[0], timedelta(minutes=minutes)))
    assert is_logged_in(browser)
    assert (now() - ada.logins[0].seen_at < timedelta(minutes=1)) == noted
    assert (ada.does(lambda user: now() - user.seen_at) < timedelta(minutes=1)) == noted


def test_a_page_opens_though_nobody_can_note_it(app, ada, sqlite_url):
    browser = ada.browser()
    ada.does(lambda user: use(logins.all_of(user)[0], timedelta(hours=1)))
    blocker = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    blocker.execute("BEGIN IMMEDIATE")
    try:
        assert is_logged_in(browser)
    finally:
        blocker.close()


# the page of the account


def test_the_sidebar_leads_to_the_account(let_in):
    page = parse(let_in().get("/chats").text)
    assert page.select_one(".sidebar__name")["href"] == "/account"


def test_the_page_lists_the_last_of_many_log_ins_and_how_many_more_there_are(app, ada, bob):
    browser = ada.browser()
    ada.does(lambda user: add_logins(user, 60))
    page = parse(browser.get("/account").text)
    assert len(page.select(".logins__one")) == 50
    assert "11 more" in page.select_one("[aria-labelledby=logins-title]").get_text()
    assert "more" not in parse(bob.browser().get("/account").text).select_one(".logins").get_text()
    assert browser.post("/account/logins/end").status_code == 303
    assert len(ada.logins) == 1


def add_logins(user, number):
    db.session.add_all(Login(user_id=user.id) for _ in range(number))
    db.session.commit()


def test_the_name_can_be_changed(let_in):
    ada = let_in()
    assert ada.post("/account", data={"name": " Ada  King "}).status_code == 303
    assert parse(ada.get("/account").text).select_one(".sidebar__name").get_text() == "Ada King"
    answer = ada.post("/account", data={"name": "x" * 81})
    assert answer.status_code == 422
    assert "at most 80" in error_beside(answer, "name")
    assert parse(answer.text).find(id="name")["value"] == "x" * 81


def test_the_address_can_be_changed_by_who_knows_the_password(app, ada):
    browser = ada.browser()
    form = {"email": "Countess@Example.com", "password": "wrong"}
    answer = browser.post("/account/email", data=form)
    assert answer.status_code == 422
    assert "not your password" in error_beside(answer, "password")
    assert parse(answer.text).find(id="email")["value"] == "Countess@Example.com"
    assert browser.post("/account/email", data=form | {"password": PASSWORD}).status_code == 303
    assert log_in(app.test_client(), "countess@example.com").status_code == 302
    assert log_in(app.test_client(), "ada@example.com").status_code == 422


@pytest.mark.parametrize(
    ("email", "said"), [("bob@EXAMPLE.com", "another account"), ("nobody", "e-mail address")]
)
def test_the_address_cannot_become_anothers_or_none(app, ada, bob, email, said):
    answer = ada.browser().post("/account/email", data={"email": email, "password": PASSWORD})
    assert answer.status_code == 422
    assert said in error_beside(answer, "email")
    assert log_in(app.test_client()).status_code == 302


def test_another_password_ends_every_session_but_this_one(app, ada):
    laptop, phone = ada.browser(), ada.browser()
    stolen = cookie_of(laptop)
    assert change_password(laptop).status_code == 303
    assert "logged out everywhere else" in laptop.get("/account").text
    assert not is_logged_in(phone)
    assert not is_logged_in(replay(app, stolen))
    assert log_in(app.test_client()).status_code == 422
    assert log_in(app.test_client(), password=OTHER).status_code == 302


def test_a_password_is_not_changed_without_the_old_one_or_to_a_short_one(app, ada):
    browser = ada.browser()
    assert "not your" in error_beside(change_password(browser, old="wrong"), "old_password")
    assert "at least 8" in error_beside(change_password(browser, new="short"), "new_password")
    assert log_in(app.test_client()).status_code == 302


def test_who_is_remembered_stays_so_with_another_password(app, ada):
    browser = another_browser(app, remember="1")
    change_password(browser)
    assert browser.get_cookie(app.config["SESSION_COOKIE_NAME"]).expires


def test_wrong_passwords_are_tried_ten_times_a_minute(app, ada):
    browser = ada.browser()
    tried = [change_password(browser, old=f"wrong {number}").status_code for number in range(9)]
    tried.append(leave(browser, "wrong").status_code)
    assert set(tried) == {422}
    assert change_password(browser).status_code == 429
    assert leave(browser).status_code == 429
    elsewhere = {"environ_base": {"REMOTE_ADDR": "192.0.2.7"}}
    assert app.test_client().post("/login", data=ADA, **elsewhere).status_code == 302


def test_sessions_are_listed_and_can_be_ended_one_by_one(app, ada):
    laptop = ada.browser()
    phone = app.test_client()
    phone.post("/login", data=ADA, headers={"User-Agent": FIREFOX})
    rows = parse(laptop.get("/account").text).select(".logins__one")
    assert ["this one" in row.get_text() for row in rows].count(True) == 1
    (row,) = [row for row in rows if "Firefox on Linux" in row.get_text()]
    assert laptop.post(row.form["action"]).status_code == 303
    assert not is_logged_in(phone)
    assert is_logged_in(laptop)
    assert laptop.post(row.form["action"]).status_code == 404


def test_nobody_ends_anothers_session(ada, bob):
    browser, stranger = ada.browser(), bob.browser()
    assert stranger.post(f"/account/logins/{ada.logins[0].id}/end").status_code == 404
    stranger.post("/account/logins/end")
    assert is_logged_in(browser)


def test_one_can_log_out_everywhere_else(app, ada):
    laptop, phone = ada.browser(), ada.browser()
    laptop.post("/account/logins/end")
    assert is_logged_in(laptop)
    assert not is_logged_in(phone)


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140 Safari/537.36 Edg/140",
         "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18 Safari/604.1",
         "Safari on iPhone"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", "An unknown browser"),
        ("<script>" * 100, ("<script>" * 100)[:60]),
    ],
)  # fmt: skip
def test_a_browser_is_put_into_words(agent, words):
    assert browser_of(agent) == words


def test_who_has_no_password_is_told_so_and_leaves_by_the_address(app, ada):
    ada.does(lambda user: people.change(user, password_hash=""))
    browser = ada.browser()
    page = parse(browser.get("/account").text)
    assert not page.select("[type=password]")
    assert change_password(browser, old="").status_code == 422
    assert log_in(app.test_client(), password="").status_code == 422
    form = {"leaving_email": "bob@example.com", "leaving_password": ""}
    assert browser.post("/account/delete", data=form).status_code == 422
    form["leaving_email"] = "ADA@example.com"
    assert browser.post("/account/delete", data=form).status_code == 200


# leaving


def tell(user, *contents):
    """Give somebody a chat with these messages; return its id."""
    chat = user.begin_chat()
    db.session.commit()
    for content in contents:
        chat.say("user", content)
    return chat.id


def count(app, *tables):
    with app.app_context():
        counting = db.select(db.func.count())
        return [db.session.scalar(counting.select_from(table)) for table in tables]


def test_an_account_goes_with_all_that_is_its_own(app, ada, bob):
    bobs = bob.does(lambda user: tell(user, "apple"))
    for _ in range(3):
        ada.does(lambda user: tell(user, "apple", "pear"))
    laptop, phone, stranger = ada.browser(), ada.browser(), bob.browser()
    answer = leave(laptop)
    page = parse(answer.text)
    assert "account is deleted" in page.main.get_text()
    assert page.select_one("[data-gone]")["data-gone"] == f"chattable:{ada.public_id}:"
    assert not any(map(is_logged_in, (laptop, phone)))
    assert log_in(app.test_client()).status_code == 422
    assert count(app, User, Login, Chat, Message) == [1, 1, 1, 1]
    assert stranger.get(f"/chats/{bobs}").status_code == 200
    with app.app_context():
        found = "SELECT rowid FROM messages_search WHERE messages_search MATCH 'apple'"
        # Bob's message, and his chat's title.
        assert len(db.session.execute(db.text(found)).all()) == 2


def test_an_account_stays_while_its_password_is_wrong(app, ada):
    browser = ada.browser()
    ada.does(lambda user: tell(user, "apple"))
    assert "not your password" in error_beside(leave(browser, "wrong"), "leaving_password")
    assert is_logged_in(browser)
    assert count(app, Message) == [1]


def test_what_waits_for_a_worker_is_forgotten_with_its_account(app, ada, run_jobs):
    browser = ada.browser()
    browser.post("/chats", data={"content": "a secret"})
    with app.app_context():
        assert len(known_job_ids()) == 1
    leave(browser)
    with app.app_context():
        assert known_job_ids() == set()
        assert [*live.redis().scan_iter("rq:job:*")] == []
    run_jobs()
    assert count(app, Chat, Message) == [0, 0]


def test_the_last_administrator_stays_while_others_are_here(ada, bob):
    ada.does(lambda user: people.change(user, admin=True))
    browser = ada.browser()
    answer = leave(browser)
    assert answer.status_code == 409
    assert "Name another" in parse(answer.text).select_one("[role=alert]").get_text()
    bob.does(lambda user: people.change(user, admin=True, disabled=True))
    assert leave(browser).status_code == 409
    bob.does(people.enable)
    assert leave(browser).status_code == 200


def test_an_administrator_who_is_alone_may_leave(ada):
    ada.does(lambda user: people.change(user, admin=True))
    assert leave(ada.browser()).status_code == 200


def test_many_chats_go_a_part_at_a_time(app, ada, monkeypatch):
    monkeypatch.setattr("chattable.owner.AT_ONCE", 2)
    for _ in range(5):
        ada.does(lambda user: tell(user, "apple"))
    assert len(ada.does(User.delete_chats)) == 5
    assert count(app, Chat, Message) == [0, 0]


# sockets


@pytest.fixture(scope="module")
def other_web(shared_stack):
    """A second web process of the stack."""
    web = shared_stack.start_web()
    yield web
    shared_stack.kill_web(index=shared_stack.webs.index(web))


def at(web, person):
    """Return the same browser as it is at another web process."""
    there = Session(web.url)
    there.cookies, there.csrf = dict(person.cookies), person.csrf
    return there


def watch(person, chat_id=None):
    """Open a socket of a page, of a chat or of none; return once it follows what happens."""
    if chat_id:
        socket = person.socket(chat_id)
    else:
        socket = Socket(person.host, "/updates?listed=0", person.cookie)
    with socket.changed:
        assert socket.changed.wait_for(lambda: socket.decoder.beats, patient(10))
    return socket


PASSWORDS = {"old_password": PASSWORD, "new_password": OTHER}


@pytest.mark.parametrize(
    ("path", "fields", "ends"),
    [
        ("/logout", {}, ["laptop"]),
        ("/account/logins/end", {}, ["phone"]),
        ("/account/password", PASSWORDS, ["laptop", "phone"]),
        ("/account/delete", {"leaving_password": PASSWORD}, ["laptop", "phone"]),
    ],
)
def test_with_a_session_its_sockets_end_in_every_process(
    stack, provider, other_web, path, fields, ends
):
    laptop = stack.signup()
    phone = stack.session().login(laptop.email)
    chat, sockets = laptop.new_chat(), {}
    for name, person in (("laptop", laptop), ("phone", phone)):
        elsewhere = at(other_web, person)
        sockets[name] = [watch(person, chat), watch(elsewhere, chat), watch(elsewhere)]
    ending = [socket for name in ends for socket in sockets[name]]
    staying = [socket for name in sockets if name not in ends for socket in sockets[name][:2]]
    reply = provider.says("one ", hold=True).says("two ")
    laptop.say(chat, "count")
    for socket in sockets["laptop"][:2] + sockets["phone"][:2]:
        socket.wait_for("one")
    assert laptop.post(path, **fields).status in (200, 302, 303)
    assert [socket.wait_for_close(2) for socket in ending] == [1008] * len(ending)
    seen = [len(socket.frames) for socket in ending]
    reply.release()
    for socket in staying:
        socket.wait_for("two")
    assert [len(socket.frames) for socket in ending] == seen
    assert not any("two" in frame for socket in ending for frame in socket.frames)


def test_a_socket_that_was_being_let_in_while_its_session_ended_is_closed(app, ada):
    """It has asked who it is, and follows what happens only then."""
    ada.browser()
    login = ada.logins[0]
    with app.test_request_context("/updates"):
        login_user(ada.does(lambda user: user))
        current_user.login = login
        assert refuses() is None
        assert catch_up() == (0, [])
        ada.does(lambda user: logins.end_one(user, login.id))
        with pytest.raises(live.Refused):
            catch_up()


def test_a_socket_that_is_refused_when_it_is_caught_up_is_closed_for_good(app):
    def catch_up():
        raise live.Refused

    page, server = connected()
    with app.test_request_context():
        live.serve(server, 1, lambda: None, catch_up)
    with closing(page):
        assert b"\x88\x02" + (1008).to_bytes(2, "big") in page.recv(1000)


@pytest.mark.parametrize(
    ("said", "closed"),
    [((5, None), {5}), ((None, 5), {6, None}), ((None, None), {5, 6, None}), ((7, None), set())],
)
def test_the_sockets_of_one_key_end_or_all_but_those_of_one(said, closed):
    assert {key for key in (5, 6, None) if ends(ended_frame(*said), key)} == closed


def test_one_can_log_out_while_redis_is_away(make_app, hashed):
    app = make_app(REDIS_URL="redis://127.0.0.1:9/0")
    ada = Somebody(app, "Ada Lovelace", "ada@example.com", password_hash=hashed)
    browser = ada.browser()
    assert browser.post("/logout").status_code == 302
    assert ada.logins == []


def test_a_reply_does_not_outlive_its_account(stack, provider):
    bob, ada = stack.signup("Bob"), stack.signup()
    chat, reply = ada.new_chat(), provider.says("one ", hold=True).says("two ")
    with closing(watch(ada, chat)) as socket:
        ada.say(chat, "a secret")
        socket.wait_for("one")
        assert ada.post("/account/delete", leaving_password=PASSWORD).status == 200
    provider.wait_for_disconnect()
    reply.release()
    provider.says("well")
    other = bob.new_chat()
    with closing(watch(bob, other)) as socket:
        bob.say(other, "How are you?")
        socket.wait_for("well")
    database = stack.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(database)) as connection:
        for table, column in (("chats", "id"), ("messages", "chat_id")):
            left = f"SELECT count(*) FROM {table} WHERE {column} = ?"
            assert connection.execute(left, [chat]).fetchone() == (0,)
    with stack.redis.client() as client:
        assert not any(client.exists(f"{PREFIX}:chat:{chat}:{part}") for part in ("text", "key"))
    assert "Traceback" not in stack.log("worker")


def test_who_leaves_or_is_disabled_has_their_replies_ended(make_stack, provider):
    """With a budget, for what each reply may cost is set aside."""
    budget = {"BUDGET": "10", "PRICES": "gpt-4o-mini=100/1000"}
    budget |= {"RATELIMIT_ENABLED": "1", "REPLIES_AT_ONCE": "1"}
    stack = make_stack(env=budget)
    boss, ada, bob = stack.signup(), stack.signup(), stack.signup("Bob")
    for person in (ada, bob):
        provider.says("one ", hold=True)
        running, waiting = person.new_chat(), person.new_chat()
        with closing(watch(person, running)) as socket:
            person.say(running, "Hello")
            socket.wait_for("one")
        person.say(waiting, "Never asked")
        if person is ada:
            assert ada.post("/account/delete", leaving_password=PASSWORD).status == 200
        else:
            assert boss.post("/admin/people/3", disabled="1").status == 303
        provider.wait_for_disconnect()
    with closing(sqlite3.connect(stack.database_url.removeprefix("sqlite:///"))) as connection:
        replies = "SELECT status, content FROM messages WHERE role = 'assistant' ORDER BY id"

        def ended():
            return connection.execute(replies).fetchall() == [("stopped", "one "), ("failed", "")]

        wait_until(ended, 10, "the replies to end")
    with stack.redis.client() as client:
        wait_until(lambda: not client.keys("*:reserve"), 10, "nothing to be set aside")
    assert "Never asked" not in [request.prompt for request in provider.requests]
    assert "Traceback" not in stack.log("worker") and "ERROR" not in stack.log("worker")


# in a browser

NEXT_TRY = """() => {
  window.nextTry = new Promise((resolve) => addEventListener("htmx:before:ws:connection",
    (event) => resolve(event.defaultPrevented ? "prevented" : "made")));
}"""


def test_a_page_says_that_its_session_has_ended_and_asks_no_more(stack, page):
    ada = stack.signup()
    chat = ada.new_chat()
    phone = stack.session().login(ada.email)
    Person(page).is_signed_up(phone)
    for path in (f"/chats/{chat}", "/account"):
        page.goto(path)
        expect(page.locator("#sidebar")).to_be_attached()
    banner = page.locator("#connection")
    expect(banner).to_be_hidden()
    phone_row = parse(ada.get("/account").text).select_one(".logins__one form")
    page.evaluate(NEXT_TRY)
    assert ada.post(phone_row["action"]).status == 303
    expect(banner).to_have_text("You are logged out here. Reload the page")
    assert page.evaluate("() => window.nextTry") == "prevented"
    banner.get_by_role("link", name="Reload the page").click()
    expect(page).to_have_url(re.compile(r"/login\?next=/account$"))


# what PostgreSQL has its own way


def test_it_all_holds_on_postgres(make_app, postgres_url, hashed):
    app = make_app(DATABASE_URL=postgres_url)
    columns = {"password_hash": hashed, "admin": True}
    ada = Somebody(app, "Ada Lovelace", "ada@example.com", **columns)
    bob = Somebody(app, "Bob", "bob@example.com", **columns)
    ada.does(lambda user: tell(user, "apple"))
    laptop, phone = ada.browser(), ada.browser()
    laptop.post("/account/logins/end")
    assert [is_logged_in(each) for each in (laptop, phone)] == [True, False]
    assert not ada.does(lambda user: people.change(user, email="bob@example.com"))
    assert leave(laptop).status_code == 200
    assert count(app, User, Login, Chat, Message) == [1, 0, 0, 0]
    assert bob.does(lambda user: user.admin)


def test_a_log_in_waits_for_a_password_that_is_being_changed(make_app, postgres_url, hashed):
    app = make_app(DATABASE_URL=postgres_url)
    ada = Somebody(app, "Ada Lovelace", "ada@example.com", password_hash=hashed)
    with ThreadPoolExecutor() as pool, psycopg.connect(postgres_url) as changing:
        changing.execute("UPDATE users SET password_hash = 'another'")
        begun = pool.submit(ada.does, lambda user: logins.begin(user, hashed, "", ""))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_until(lambda: changing.execute(waits).fetchone() != (0,), 5, "the log-in to wait")
        changing.commit()
        assert begun.result(patient(5)) is None
    assert ada.logins == []
