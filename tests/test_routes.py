"""Every route and method: who may, and what others get.

A row of `ROUTES` is a method, a path, and the answer to who is not logged in, to the owner of chat
1 with message 1 and reply 2, to another person, and to an administrator if it differs from that.
An answer is a status and where it leads to; "login" is a redirect to /login that comes back here.
Who has logged out, or is disabled, and sends the cookie once more is nobody.
"""

import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from werkzeug.security import generate_password_hash

from chattable.database import now
from chattable.live import redis
from models import Chat, User, db
from pages.invitations import Invitation
from tests.services import wait_until
from tests.session import Socket
from tests.test_accounts import ADA
from tests.test_browser import somewhere_else

ROUTES = """
GET     /                                 login     302/chats     302/chats
GET     /chats                            login     200           200
POST    /chats                            login     303/chats/2   303/chats/2
GET     /chats/new                        login     200           200
GET     /chats/<int:chat_id>              login     200           404
POST    /chats/<int:chat_id>              login     303/chats/1   404
PATCH   /chats/<int:chat_id>              login     303/chats/1   404
DELETE  /chats/<int:chat_id>              login     303/chats     404
POST    /chats/<int:chat_id>/delete       login     303/chats     404
GET     /chats/<int:chat_id>/edit         login     200           404
GET     /chats/<int:chat_id>/next         login     200           404
POST    /chats/<int:chat_id>/stop         login     303/chats/1   404
GET     /chats/<int:chat_id>/updates      login     200           404
GET     /updates                          login     200           200
POST    /messages                         login     303/chats/1   404
GET     /messages/<int:message_id>        login     200           404
POST    /messages/<int:message_id>/stop   login     204           404
POST    /messages/<int:message_id>/retry  login     303/chats/1   404
GET     /messages/<int:message_id>/edit   login     200           404
POST    /messages/<int:message_id>/edit   login     303/chats/1   404
POST    /messages/<int:message_id>/show   login     303/chats/1   404
GET     /models                           login     200           200
GET     /search                           login     200           200
GET     /sidebar                          login     200           200
POST    /theme                            login     303/chats     303/chats
GET     /signup                           200       200           200
POST    /signup                           302/chats/new  302/chats/new  302/chats/new
GET     /login                            200       200           200
POST    /login                            302/chats 302/chats     302/chats
POST    /logout                           login     302/login     302/login
GET     /login/openid                     404       404           404
GET     /login/openid/callback            404       404           404
GET     /forgot                           404       404           404
POST    /forgot                           404       404           404
GET     /reset                            410       410           410
POST    /reset                            410       410           410
GET     /account                          login     200           200
POST    /account                          login     303/account   303/account
POST    /account/email                    login     303/account   303/account
POST    /account/password                 login     303/account   303/account
POST    /account/logins/end               login     303/account   303/account
POST    /account/logins/<int:login_id>/end  login   303/account   404
POST    /account/identities/delete        login     303/account   303/account
POST    /account/delete                   login     200           200        409
GET     /admin                            login     404           404        200
GET     /admin/people/<int:user_id>       login     404           404        200
POST    /admin/people/<int:user_id>       login     404           404        303/admin/people/2
POST    /admin/people/<int:user_id>/reset  login    404           404        303/admin/people/2
GET     /admin/signup                     login     404           404        200
POST    /admin/signup                     login     404           404        303/admin/signup
POST    /admin/invitations                login     404           404        303/admin/signup
POST    /admin/invitations/<int:invitation_id>/delete  login  404  404       303/admin/signup
GET     /up                               200       200           200
GET     /ready                            503       503           503
GET     /metrics                          404       404           404
GET     /static/<path:filename>           200       200           200
GET     /chattable/static/<path:filename>  200      200           200
"""
# The close code of a socket's refusal, "open" if it is none.
SOCKETS = """
/chats/<int:chat_id>/updates  1008  open  1008
/updates                      1008  open  open
"""
# What stands in a path, other than 1, and in a form; a path's own goes first.
PLACES = {
    "/static/<path:filename>": "app.css",
    "/chattable/static/<path:filename>": "chattable.css",
    "/messages/<int:message_id>/retry": "2",
    "/account/logins/<int:login_id>/end": "2",
    "/admin/people/<int:user_id>": "2",
    "/admin/people/<int:user_id>/reset": "2",
}
FORM = {"chat_id": "1", "content": "words", "title": "words", "theme": "dark", "model": "gpt-4o"}
FORMS = {
    "/login": {"email": "bob@example.com", "password": ADA["password"]},
    "/signup": ADA | {"email": "eve@example.com"},
    "/account": {"name": "Another"},
    "/account/email": {"email": "eve@example.com", "password": ADA["password"]},
    "/account/password": {"old_password": ADA["password"], "new_password": "another password"},
    "/account/identities/delete": {"identity_password": ADA["password"]},
    "/account/delete": {"leaving_password": ADA["password"]},
    "/admin/people/<int:user_id>": {"budget": "5"},
    "/admin/signup": {"rule": "invite"},
    "/admin/invitations": {"note": "Eve", "days": "7"},
}
PEOPLE = "root", "ada", "bob"
# Whose answer is in which column.
ROLES = {"anonymous": 0, "owner": 1, "stranger": 2, "administrator": 3}
ROLES |= {"signed out": 0, "disabled": 0}


def rows(table, columns):
    """Return a table's rows, as the words of each, with an administrator's answer filled in."""
    lines = [line.split() for line in table.strip().splitlines()]
    return [line if len(line) == columns else [*line, line[-1]] for line in lines]


def with_heads(table):
    """Return a table's rows, and those of GET once more for HEAD, whatever form comes with it."""
    return table + [["HEAD", *rest] for method, *rest in table if method == "GET"]


def shortened(rule):
    """Return a route's path without what differs from one version of our files to the next."""
    return re.sub("/static/[0-9a-f]{12}/", "/static/", rule)


def test_every_route_and_method_is_in_the_table(app):
    known = {(method, rule) for method, rule, *_ in rows(ROUTES, 6)}
    there = {
        (method, shortened(each.rule))
        for each in app.url_map.iter_rules()
        if not each.websocket
        for method in each.methods - {"HEAD", "OPTIONS"}
    }
    assert there == known
    sockets = {each.rule for each in app.url_map.iter_rules() if each.websocket}
    assert sockets == {rule for rule, *_ in rows(SOCKETS, 5)}


class Town:
    """An app with people whose cookies are known; each request finds it as it was at first."""

    def __init__(self, app, path):
        self.app, self.path = app, path
        with app.app_context():
            self.people()
        self.cookies = {name: self.log_in(name) for name in PEOPLE}
        self.cookies["signed out"] = self.log_in("ada")
        self.open("POST", "/logout", self.cookies["signed out"])
        self.cookies |= {"owner": self.cookies["ada"], "stranger": self.cookies["bob"]}
        self.cookies |= {"administrator": self.cookies["root"], "disabled": self.cookies["ada"]}
        self.kept = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(path)) as file:
            file.backup(self.kept)

    def people(self):
        """Make people, and a chat of Ada's; the first is the administrator."""
        hashed = generate_password_hash(ADA["password"], "pbkdf2:sha256:1")
        for name in PEOPLE:
            email = f"{name}@example.com"
            user = User(name=name, email=email, password_hash=hashed, admin=name == "root")
            db.session.add(user)
            db.session.flush()
            if name == "ada":
                user.chats.append(chat := Chat())
        db.session.add(Invitation(token="a link", expires_at=now() + timedelta(days=7)))
        db.session.commit()
        chat.say("user", "Hello")
        chat.say("assistant", "Hi.").model = "gpt-4o"
        db.session.commit()

    def log_in(self, name):
        form = {"email": f"{name}@example.com", "password": ADA["password"]}
        answer = self.open("POST", "/login", data=form)
        name = self.app.config["SESSION_COOKIE_NAME"]
        [session] = [each for each in answer.headers.getlist("Set-Cookie") if f"{name}=" in each]
        return session.partition(";")[0]

    def open(self, method, path, cookie=None, headers=None, **options):
        headers = (headers or {}) | ({"Cookie": cookie} if cookie else {})
        visitor = self.app.test_client(use_cookies=False)
        return visitor.open(path, method=method, headers=headers, **options)

    def begin_anew(self, role):
        with closing(sqlite3.connect(self.path)) as file:
            self.kept.backup(file)
            if role == "disabled":
                file.execute("UPDATE users SET disabled = 1 WHERE email = 'ada@example.com'")
                file.commit()
        with self.app.app_context():
            redis().flushdb()

    def ask(self, role, method, rule):
        """Return the answer to a role, as the table has it, and whether anything has changed."""
        self.begin_anew(role)
        before = self.state()
        form = FORMS.get(rule, FORM) if method != "GET" else None
        answer = self.open(method, self.path_of(rule), self.cookies.get(role), data=form)
        return told(answer), before != self.state()

    def path_of(self, rule):
        [path] = {
            each.rule for each in self.app.url_map.iter_rules() if shortened(each.rule) == rule
        }
        return re.sub("<.*?>", PLACES.get(rule, "1"), path)

    def state(self):
        """Return all rows, but for when somebody was seen."""
        with self.app.app_context():
            tables = db.metadata.sorted_tables
            return [
                sorted(map(repr, db.session.execute(db.select(*columns_of(table)))))
                for table in tables
            ]


def columns_of(table):
    return [column for column in table.c if column.name != "seen_at"]


def told(answer):
    location = answer.location or ""
    came_from = location.startswith("/login?next=")
    return "login" if came_from else f"{answer.status_code}{urlsplit(location).path}"


@pytest.fixture
def town(make_app, tmp_path, monkeypatch):
    # Nobody else writes to the file meanwhile.
    monkeypatch.setattr("chattable.shredder.SHRED", 3600)
    return Town(make_app(RATELIMIT_ENABLED=False), tmp_path / "chattable.db")


@pytest.mark.parametrize("role", ROLES)
def test_each_route_answers_as_the_table_says_and_a_refusal_changes_nothing(town, role):
    wrong = []
    for method, rule, *answers in with_heads(rows(ROUTES, 6)):
        answer, changed = town.ask(role, method, rule)
        may_change = method not in ("GET", "HEAD") and answer[0] in "23"
        if answer != answers[ROLES[role]] or changed and not may_change:
            wrong.append((method, rule, answer, changed))
    assert wrong == []


@pytest.mark.parametrize("role", ["owner", "administrator", "anonymous"])
def test_nothing_is_changed_without_a_token(town, make_app, role):
    town.app = make_app(RATELIMIT_ENABLED=False, WTF_CSRF_ENABLED=True)
    for method, rule, *_ in rows(ROUTES, 6):
        if method != "GET":
            assert town.ask(role, method, rule) == ("400", False), (method, rule)


# The sockets.


def test_a_socket_lets_in_whom_the_table_says(stack):
    ada, bob = stack.signup(), stack.signup("Bob")
    chat = ada.new_chat()
    people = [stack.session(), ada, bob, administrator(stack)]
    for rule, *answers in rows(SOCKETS, 5):
        path = re.sub("<.*?>", str(chat), rule)
        assert [code_of(person, path) for person in people] == answers, path


def test_a_socket_lets_in_nobody_who_has_left(stack):
    left, disabled = stack.signup(), stack.signup()
    chats, cookie = [left.new_chat(), disabled.new_chat()], left.cookie
    left.post("/logout")
    with somewhere_else(stack):
        mail = User.email == disabled.email
        db.session.execute(db.update(User).where(mail).values(disabled=True))
        db.session.commit()
    for rule, nobody, *_ in rows(SOCKETS, 5):
        for chat, sent in zip(chats, (cookie, disabled.cookie), strict=True):
            path = re.sub("<.*?>", str(chat), rule)
            assert code_of(left, path, sent) == nobody, path


def administrator(stack):
    root = stack.signup("Root")
    with somewhere_else(stack):
        db.session.execute(db.update(User).where(User.email == root.email).values(admin=True))
        db.session.commit()
    return root


def code_of(person, path, cookie=None):
    """Return how a socket is closed, or "open" if the server's first word comes."""
    socket = Socket(person.host, f"{path}?since=0", cookie or person.cookie)
    wait_until(lambda: socket.code or socket.decoder.beats, 10, "a word")
    return str(socket.code) if socket.code else (socket.drop(), "open")[1]
