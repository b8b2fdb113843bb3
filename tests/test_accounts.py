"""Accounts: signing up, logging in and out, what needs a login."""

import re
from urllib.parse import urljoin, urlsplit

import pytest
from werkzeug.security import check_password_hash

from models import User, db
from pages import passwords
from pages.accounts import safe_next
from tests.page import parse

ADA = {"name": "Ada Lovelace", "email": "ada@example.com", "password": "correct horse battery"}
OPEN = {"static", "chattable.static", "accounts.sign_up", "accounts.log_in"}
OPEN |= {"health.up", "health.ready", "metrics.show_metrics"}
OPEN |= {"openid.leave", "openid.come_back", "reset.ask", "reset.choose"}
FOREIGN = [
    "https://evil.example/",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "http:evil.example",
    "javascript:alert(1)",
    "evil.example",
]


def log_in(client, email="ada@example.com", password=ADA["password"], **fields):
    return client.post("/login", data={"email": email, "password": password} | fields)


def is_logged_in(client):
    return client.get("/chats").status_code == 200


def error_beside(answer, name):
    """Return the sentence that a field of the answered form is described by, or None."""
    page = parse(answer.text)
    field = page.find(id=name)
    described = field.get("aria-describedby") if field.get("aria-invalid") else None
    return described and page.find(id=described).get_text()


def values(answer):
    return {field["name"]: field.get("value", "") for field in parse(answer.text).select("input")}


# signing up


def test_whoever_signs_up_is_logged_in(client):
    answer = client.post("/signup", data=ADA)
    assert answer.location == "/chats/new"
    page = parse(client.get("/chats").text)
    assert page.select_one(".sidebar__name").get_text() == "Ada Lovelace"
    assert page.select_one(".avatar").get_text() == "AL"


def test_a_password_is_stored_as_a_hash_of_its_own(app, sign_up):
    sign_up(email="one@example.com")
    sign_up(email="two@example.com")
    with app.app_context():
        one, two = db.session.scalars(db.select(User.password_hash)).all()
    assert ADA["password"] not in one
    assert re.match(r"(scrypt|pbkdf2):", one)
    assert one != two


def test_an_address_is_stored_in_one_form(app, client):
    client.post("/signup", data=ADA | {"email": "  Ada.Lovelace@EXAMPLE.com "})
    with app.app_context():
        assert db.session.scalar(db.select(User.email)) == "ada.lovelace@example.com"
    visitor = app.test_client()
    assert log_in(visitor, "ADA.lovelace@example.COM ").status_code == 302


@pytest.mark.parametrize(
    "email", ["", "ada", "ada@", "@example.com", "ada@.example", "a b@example.com", "a@b@c.com"]
)
def test_what_is_no_address_is_said_beside_the_field(client, email):
    answer = client.post("/signup", data=ADA | {"email": email})
    assert answer.status_code == 422
    assert "e-mail address" in error_beside(answer, "email")
    assert values(answer)["email"] == email
    assert values(answer)["name"] == ADA["name"]


@pytest.mark.parametrize("name", ["", "   ", "x" * 81])
def test_a_name_that_is_missing_or_endless_is_said_beside_the_field(client, name):
    answer = client.post("/signup", data=ADA | {"name": name})
    assert answer.status_code == 422
    assert "name" in error_beside(answer, "name")


@pytest.mark.parametrize("password", ["", "seven77", "x" * 1001])
def test_a_password_too_short_or_too_long_is_refused_and_never_sent_back(client, password):
    answer = client.post("/signup", data=ADA | {"password": password})
    assert answer.status_code == 422
    assert "characters" in error_beside(answer, "password")
    assert values(answer)["password"] == ""
    assert values(answer)["email"] == ADA["email"]
    assert not is_logged_in(client)


def test_eight_characters_are_enough(client):
    assert client.post("/signup", data=ADA | {"password": "12345678"}).status_code == 302


def test_every_wrong_field_is_told_at_once(client):
    answer = client.post("/signup", data={})
    assert all(error_beside(answer, field) for field in ("name", "email", "password"))


def test_an_address_has_one_account(app, sign_up):
    sign_up(email="ada@example.com")
    answer = app.test_client().post("/signup", data=ADA | {"email": "ADA@example.com"})
    assert answer.status_code == 422
    assert "already" in error_beside(answer, "email")
    assert values(answer)["name"] == ADA["name"]
    with app.app_context():
        assert db.session.query(User).count() == 1


@pytest.mark.parametrize("email", ["ada@team.local", "ada@localhost", "ada@intranet", "ada@a.test"])
def test_an_address_may_be_one_of_a_teams_own_network(app, client, email):
    assert client.post("/signup", data=ADA | {"email": email}).status_code == 302
    assert log_in(app.test_client(), email).status_code == 302


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@bücher.example", "ADA@xn--bcher-kva.example"),
        ("ada@example.com", "ada@EXAMPLE.com."),
        ("zoë@example.com", "zoe\u0308@example.com"),
    ],
)
def test_two_spellings_of_an_address_are_one_account(app, sign_up, one, other):
    sign_up(email=one)
    assert app.test_client().post("/signup", data=ADA | {"email": other}).status_code == 422
    assert log_in(app.test_client(), other).status_code == 302


def test_a_plus_makes_another_address(app, sign_up):
    sign_up(email="ada@example.com")
    sign_up(email="ada+work@example.com")
    assert log_in(app.test_client(), "ada+play@example.com").status_code == 422


def test_a_name_cannot_bring_its_own_markup(sign_up):
    page = sign_up(name="<script>alert(1)</script>").get("/chats").text
    assert "<script>alert" not in page


# logging in and out


def test_the_right_password_logs_in_and_a_wrong_one_does_not(app, sign_up):
    sign_up()
    visitor = app.test_client()
    answer = log_in(visitor, password="wrong horse battery")
    assert answer.status_code == 422
    assert "do not go together" in parse(answer.text).select_one("[role=alert]").get_text()
    assert values(answer)["email"] == "ada@example.com"
    assert values(answer)["password"] == ""
    assert not is_logged_in(visitor)
    assert log_in(visitor).location == "/chats"
    assert is_logged_in(visitor)


def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(app, sign_up):
    sign_up()
    wrong = log_in(app.test_client(), "ada@example.com", "wrong horse")
    unknown = log_in(app.test_client(), "bob@example.com", "wrong horse")
    assert unknown.status_code == wrong.status_code == 422
    main, other = (parse(answer.text).main for answer in (wrong, unknown))
    for token in [*main.select("[name=csrf_token]"), *other.select("[name=csrf_token]")]:
        token.decompose()
    assert str(other).replace("bob@", "ada@") == str(main)


def test_an_unknown_address_costs_what_a_known_one_does(app, sign_up, monkeypatch):
    sign_up()
    asked = []

    def check(hashed, password):
        asked.append(hashed.split("$")[0])  # what it takes: the method, and how often
        return check_password_hash(hashed, password)

    monkeypatch.setattr(passwords, "check_password_hash", check)
    log_in(app.test_client(), "ada@example.com", "wrong horse")
    log_in(app.test_client(), "bob@example.com", "wrong horse")
    known, unknown = asked
    assert unknown == known


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("\u202egnp.adA", "gnp.adA"),
        ("\u2066A\u2069d\u202ca\0", "Ada"),
        ("\u202a \u202e", None),
        ("می\u200cخواهم 👩\u200d💻 \u200fא\u200e", "می\u200cخواهم 👩\u200d💻 \u200fא\u200e"),
    ],
)
def test_a_name_cannot_turn_round_what_stands_beside_it(client, name, kept):
    answer = client.post("/signup", data=ADA | {"name": name})
    if kept is None:
        assert "Enter your name" in error_beside(answer, "name")
    else:
        page = parse(client.get("/account").text)
        assert page.select_one(".sidebar__name").get_text() == kept


@pytest.mark.parametrize("fields", [{}, {"email": "\0", "password": "\0"}, {"email": "x" * 50_000}])
def test_nonsense_is_a_wrong_password_and_no_error(client, fields):
    assert client.post("/login", data=fields).status_code == 422


def test_logging_out_ends_the_session(sign_up):
    ada = sign_up()
    assert ada.post("/logout").location == "/login"
    assert not is_logged_in(ada)


def test_nobody_is_logged_out_by_a_link(sign_up):
    ada = sign_up()
    assert ada.get("/logout").status_code == 405
    assert is_logged_in(ada)


def restart_browser(client):
    """Lose the cookies that end with the browser's session."""
    name = client.application.config["SESSION_COOKIE_NAME"]
    cookie = client.get_cookie(name)
    if cookie and cookie.expires is None and cookie.max_age is None:
        client.delete_cookie(name)


def test_remember_me_outlives_the_browsers_session_until_the_logout(app, sign_up):
    sign_up()
    visitor = app.test_client()
    log_in(visitor, remember="1")
    restart_browser(visitor)
    assert is_logged_in(visitor)
    visitor.post("/logout")
    assert not is_logged_in(visitor)


def test_without_remember_me_the_end_of_the_browsers_session_is_the_end(app, sign_up):
    sign_up()
    visitor = app.test_client()
    log_in(visitor)
    restart_browser(visitor)
    assert not is_logged_in(visitor)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cookies_are_for_our_pages_only_and_over_tls_for_tls_only(app, sign_up, scheme):
    sign_up()
    form = ADA | {"remember": "1"}
    answer = app.test_client().post("/login", data=form, base_url=f"{scheme}://chat.example")
    cookies = answer.headers.getlist("Set-Cookie")
    assert cookies
    for cookie in cookies:
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert ("Secure" in cookie) == (scheme == "https")


def test_a_forged_or_stale_session_is_nobodys(app, sign_up):
    ada = sign_up()
    name = app.config["SESSION_COOKIE_NAME"]
    ada.set_cookie(name, ada.get_cookie(name).value[:-4] + "AAAA")
    assert not is_logged_in(ada)
    bob = sign_up(email="bob@example.com")
    with app.app_context():
        db.session.execute(db.delete(User))
        db.session.commit()
    assert not is_logged_in(bob)


def empty_the_database():
    db.session.remove()
    db.drop_all()
    db.create_all()


def test_an_old_cookie_opens_nothing_in_a_fresh_database(app, sign_up):
    ada = sign_up()
    with app.app_context():
        empty_the_database()
    sign_up("Bob", "bob@example.com").post("/chats", data={"content": "Bob's secret"})
    assert not is_logged_in(ada)
    assert ada.get("/chats/1").location.startswith("/login")


def test_what_a_browser_keeps_does_not_fit_another_account(app, sign_up):
    places = []
    for _ in range(2):
        page = parse(sign_up().get("/chats/new").text)
        forget, draft = page.select_one(".sidebar__account"), page.select_one("[data-draft]")
        places.append((forget["data-forget"], draft["data-draft"]))
        with app.app_context():
            empty_the_database()
    (forgets, keeps), (forgets_next, keeps_next) = places
    assert keeps.startswith(forgets)
    assert keeps_next.startswith(forgets_next)
    assert not keeps.startswith(forgets_next)


def test_the_id_of_a_deleted_person_is_not_given_to_the_next(app, sign_up):
    ada = sign_up()
    ada.post("/chats")
    with app.app_context():
        db.session.execute(db.delete(User))
        db.session.commit()
    bob = sign_up("Bob", "bob@example.com")
    assert not is_logged_in(ada)
    assert bob.get("/chats/1").status_code == 404


def test_a_cookie_from_before_accounts_had_names_is_signed_out(app, sign_up):
    ada = sign_up()
    with ada.session_transaction() as session:
        session["_user_id"] = "1"
    assert not is_logged_in(ada)


# where one goes after logging in


def test_whoever_asked_for_a_page_gets_it_after_logging_in(app, sign_up):
    sign_up()
    visitor = app.test_client()
    answer = visitor.get("/chats/new?x=1", follow_redirects=True)
    assert values(answer)["next"] == "/chats/new?x=1"
    assert log_in(visitor, next=values(answer)["next"]).location == "/chats/new?x=1"


@pytest.mark.parametrize("target", FOREIGN)
def test_logging_in_never_leads_to_another_site(app, client, target):
    assert values(client.get("/login", query_string={"next": target}))["next"] == ""
    with app.test_request_context("/login", method="POST", data={"next": target}):
        # browsers drop tabs and line breaks, and read a backslash as a slash
        location = re.sub(r"[\t\r\n]", "", safe_next().strip()).replace("\\", "/")
        assert urlsplit(urljoin("http://localhost/login", location)).netloc == "localhost"
        assert location == "/chats"


def test_signing_up_leads_to_the_composer_and_not_to_an_empty_list(app):
    for number, (target, place) in enumerate({"/": "/chats/new", "/chats/7": "/chats/7"}.items()):
        form = ADA | {"email": f"{number}@example.com", "next": target}
        assert app.test_client().post("/signup", data=form).location == place


@pytest.mark.parametrize(("path", "place"), [("/login", "/chats"), ("/signup", "/chats/new")])
def test_a_foreign_address_in_either_form_is_forgotten(app, sign_up, path, place):
    sign_up()
    form = ADA | {"email": "ada@example.com" if path == "/login" else "bob@example.com"}
    answer = app.test_client().post(path, data=form | {"next": "//evil.example"})
    assert answer.location == place


# what needs a login


def rules(app, *ids):
    """Return (method, path, endpoint) of every route, with ids put into the paths."""
    for rule in app.url_map.iter_rules():
        if rule.endpoint not in OPEN and not rule.websocket:
            path = re.sub(r"<[^>]+>", "1", rule.rule)
            for method in rule.methods - {"HEAD", "OPTIONS"}:
                yield method, path, rule.endpoint


def test_everything_but_signing_in_needs_a_login(app):
    visitor = app.test_client()
    asked = list(rules(app))
    assert len(asked) > 12
    for method, path, endpoint in asked:
        answer = visitor.open(path, method=method)
        assert answer.status_code == 302, endpoint
        assert answer.location.startswith("/login?next="), endpoint


def test_an_htmx_request_without_a_login_is_told_so_in_a_sentence(app):
    visitor = app.test_client()
    for method, path, endpoint in rules(app):
        answer = visitor.open(path, method=method, headers={"HX-Request": "true"})
        assert answer.status_code == 401, endpoint
        assert "Log in again" in parse(answer.text).select_one("[data-problem]").get_text()


def test_the_open_pages_and_what_they_load_need_no_login(client):
    page = parse(client.get("/login").text)
    loaded = [tag.get("src") or tag["href"] for tag in page.select("script[src], link[href]")]
    assert len(loaded) > 10
    for path in ("/signup", "/up", *loaded):
        assert client.get(path).status_code == 200, path


def test_only_its_owner_can_ask_for_a_chats_updates_over_http(sign_up):
    ada = sign_up()
    ada.post("/chats")
    assert ada.get("/chats/1/updates?since=0").json["frames"] == []
    assert sign_up("Bob", "bob@example.com").get("/chats/1/updates?since=0").status_code == 404


def test_pages_of_a_person_are_not_kept_by_caches(sign_up):
    assert sign_up().get("/chats").headers["Cache-Control"] == "no-store"


def test_what_every_page_loads_is_kept_by_browsers(sign_up):
    ada = sign_up()
    page = parse(ada.get("/chats").text)
    for tag in page.select("script[src], link[href]"):
        path = tag.get("src") or tag["href"]
        assert ada.get(path).cache_control.max_age > 10_000_000, path


# who may sign up


def test_a_closed_server_takes_nobody(make_app):
    client = make_app(SIGNUP="closed").test_client()
    assert client.get("/signup").status_code == 403
    assert client.post("/signup", data=ADA).status_code == 403
    assert client.get("/login").status_code == 200


def invitation(app):
    """Return the link that `flask invite` prints."""
    with app.app_context():
        printed = app.test_cli_runner().invoke(args=["invite"]).output
    return re.search(r"\S*/signup\?invitation=\S+", printed)[0]


def test_an_invitation_lets_one_sign_up_where_it_takes_one(make_app):
    app = make_app(SIGNUP="invite")
    client = app.test_client()
    assert client.post("/signup", data=ADA).status_code == 403
    assert client.post("/signup?invitation=forged", data=ADA).status_code == 403
    link = invitation(app)
    form = parse(client.get(link).text).select_one("form")
    assert client.post(form.get("action") or link, data=ADA).status_code == 302
    assert is_logged_in(client)


def test_an_invitation_leads_to_where_the_app_is_mounted(make_app):
    app = make_app(SIGNUP="invite", SCRIPT_NAME="/chat")
    link = invitation(app)
    assert link.startswith("/chat/signup?")
    assert app.test_client().get(link.removeprefix("/chat")).status_code == 200


def test_an_invitation_of_another_server_is_worth_nothing(make_app):
    link = invitation(make_app(SECRET_KEY="another"))
    assert make_app(SIGNUP="invite").test_client().get(link).status_code == 403


# guessing passwords


def test_the_eleventh_wrong_password_in_a_minute_has_to_wait(make_app):
    visitor = make_app(RATELIMIT_ENABLED="1").test_client()
    assert visitor.post("/signup", data=ADA).status_code == 302
    visitor.post("/logout")
    answers = [log_in(visitor, password="wrong horse").status_code for _ in range(10)]
    assert answers == [422] * 10
    answer = log_in(visitor)
    assert answer.status_code == 429
    assert "Wait a minute" in answer.text


def test_logging_in_rightly_is_not_counted_as_guessing(make_app):
    visitor = make_app(RATELIMIT_ENABLED="1").test_client()
    visitor.post("/signup", data=ADA)
    assert [log_in(visitor).status_code for _ in range(12)] == [302] * 12


def test_the_first_alone_is_told_that_they_administer(app, sign_up):
    for name, told in (("ada", True), ("bob", False)):
        person = sign_up(email=f"{name}@example.com")
        assert ("administrator: invite" in person.get("/chats/new").text) == told


def test_what_did_not_work_leads_whoever_is_logged_out_to_the_log_in(client, sign_up):
    page = parse(client.get("/reset?token=x").text)
    assert page.select_one(".card .button").get_text() == "Log in"
    page = parse(sign_up().get("/chats/7").text)
    assert page.select_one(".card .button").get_text() == "Go to your chats"


def test_signing_up_says_which_server_this_is_until_somebody_chooses(make_app, sign_up):
    for mark, words in (("", "is open, for nobody"), ("web.1", "asks for an invitation, for")):
        root = make_app(DYNO=mark).test_client()
        if not mark:
            sign_up(person=root)
        else:
            root.post("/login", data={"email": "ada@example.com", "password": ADA["password"]})
        assert words in root.get("/admin/signup").text
