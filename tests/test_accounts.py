"""Accounts: signing up and in, what needs a login, forms, headers, errors, configuration."""

import os
import re
import uuid
from contextlib import closing
from urllib.parse import urljoin, urlsplit

import pytest

from app import create_app
from models import User, db
from pages.accounts import safe_next
from tests.page import parse
from tests.services import Postgres

ADA = {"name": "Ada Lovelace", "email": "ada@example.com", "password": "correct horse battery"}
OPEN = {"static", "chattable.static", "accounts.sign_up", "accounts.log_in", "health.up"}
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
    assert answer.location == "/chats"
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
    "email", ["", "ada", "ada@", "@example.com", "ada@example", "a b@example.com", "a@b@c.com"]
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


@pytest.mark.parametrize("fields", [{}, {"email": "\0", "password": "\0"}, {"email": "x" * 10**5}])
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
    for name in ("session", "remember_token"):
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
    ada.set_cookie("session", ada.get_cookie("session").value[:-4] + "AAAA")
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
        places.append((page.form["data-forget"], page.select_one("[data-draft]")["data-draft"]))
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


@pytest.mark.parametrize("path", ["/login", "/signup"])
def test_a_foreign_address_in_either_form_is_forgotten(app, sign_up, path):
    sign_up()
    form = ADA | {"email": "ada@example.com" if path == "/login" else "bob@example.com"}
    answer = app.test_client().post(path, data=form | {"next": "//evil.example"})
    assert answer.location == "/chats"


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


def test_the_socket_cannot_be_read_as_a_page(sign_up):
    assert sign_up().get("/chats/1/updates").status_code == 400


def test_pages_of_a_person_are_not_kept_by_caches(sign_up):
    assert sign_up().get("/chats").headers["Cache-Control"] == "no-store"


def test_what_every_page_loads_is_kept_by_browsers(sign_up):
    ada = sign_up()
    page = parse(ada.get("/chats").text)
    for tag in page.select("script[src], link[href]"):
        path = tag.get("src") or tag["href"]
        assert ada.get(path).cache_control.max_age > 10_000_000, path


# cross-site requests


def test_every_change_needs_a_csrf_token(make_app):
    app = make_app(WTF_CSRF_ENABLED=True)
    visitor = app.test_client()
    changes = [rule for rule in rules(app) if rule[0] != "GET"]
    changes += [("POST", "/signup", "accounts.sign_up"), ("POST", "/login", "accounts.log_in")]
    assert len(changes) > 9
    for method, path, endpoint in changes:
        for headers in ({}, {"HX-Request": "true"}):
            answer = visitor.open(path, method=method, data=ADA, headers=headers)
            assert answer.status_code == 400, endpoint
            assert "Reload" in answer.text, endpoint


def test_the_token_of_a_form_and_the_one_htmx_sends_are_accepted(make_app):
    ada = make_app(WTF_CSRF_ENABLED=True).test_client()
    token = values(ada.get("/signup"))["csrf_token"]
    assert ada.post("/signup", data=ADA | {"csrf_token": token}).status_code == 302
    body = parse(ada.get("/chats/new").text).body
    header = re.search(r'"X-CSRFToken": "([^"]+)"', body["hx-headers:inherited"])[1]
    assert ada.post("/chats", headers={"X-CSRFToken": header}).status_code == 303
    assert ada.delete("/chats/1", headers={"X-CSRFToken": header}).status_code == 303
    assert ada.post("/chats", headers={"X-CSRFToken": header + "x"}).status_code == 400


def test_the_token_of_another_session_is_not_accepted(make_app):
    app = make_app(WTF_CSRF_ENABLED=True)
    token = values(app.test_client().get("/signup"))["csrf_token"]
    visitor = app.test_client()
    visitor.get("/signup")
    assert visitor.post("/signup", data=ADA | {"csrf_token": token}).status_code == 400


def test_every_form_that_changes_something_carries_a_token(app, sign_up):
    ada = sign_up()
    ada.post("/chats")
    for path in ("/chats", "/chats/new", "/chats/1", "/chats/1/edit"):
        forms = parse(ada.get(path).text).select("form[method=post]")
        assert forms, path
        assert all(form.select_one("input[name=csrf_token]") for form in forms), path


# headers and markup


MARKDOWN = """# Head\n\n```python\nprint("hi")\n```\n\n$x^2$ ==marked== <b onclick="x()">bold</b>

- [x] done\n\n| a | b |\n|:-:|--:|\n| 1 | 2 |\n\n[link](https://example.com) ![image](https://example.com/x.png)
[bad](javascript:alert(1)) <script>alert(1)</script> <style>p{}</style>"""


@pytest.fixture
def every_page(app, client, sign_up, provider, run_jobs):
    """Return the answers of all pages: open ones, with errors, and with a rich reply."""
    open_pages = [client.get(path) for path in ("/login", "/signup", "/nowhere")]
    wrong = [client.post(path, data={}) for path in ("/login", "/signup")]
    ada = sign_up()
    empty = [ada.get("/chats")]
    provider.says(MARKDOWN)
    ada.post("/chats", data={"content": "Hello <script>alert(1)</script>"})
    run_jobs()
    paths = ("/chats", "/chats/new", "/chats/1", "/chats/1/edit", "/chats/99", "/nowhere")
    wrong += [ada.post("/chats/1", data={"title": ""})]
    return [*open_pages, *wrong, *empty, *map(ada.get, paths)]


def test_every_answer_has_a_strict_content_security_policy(every_page, client):
    for answer in [
        *every_page,
        client.get(f"{client.application.static_url_path}/app.css"),
        client.get("/up"),
    ]:
        policy = answer.headers["Content-Security-Policy"]
        assert re.search(r"default-src 'self'(;|$)", policy)
        assert "unsafe" not in policy
        assert not re.search(r"\*|https?:|data:", policy)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_no_page_has_inline_script_or_style_or_loads_from_elsewhere(every_page):
    for answer in every_page:
        page = parse(answer.text)
        path = answer.request.path
        assert all(script.get("src") for script in page.find_all("script")), path
        assert not page.find_all("style"), path
        assert not page.select("iframe, object, embed, base, img[src*='//']"), path
        for tag in page.find_all(True):
            inline = [name for name in tag.attrs if re.match(r"style$|on|hx-on", name)]
            assert not inline, f"{path}: <{tag.name} {inline}>"
            assert not str(tag.get("href", "")).lower().startswith(("javascript:", "data:")), path
        for loaded in page.select("script[src], link[href]"):
            ours = ("/static/", "/chattable/static/")
            assert (loaded.get("src") or loaded.get("href")).startswith(ours), path


def test_ids_are_unique_and_labels_and_targets_exist_on_every_page(every_page):
    for answer in every_page:
        page = parse(answer.text)
        ids = [tag["id"] for tag in page.select("[id]")]
        assert len(ids) == len(set(ids)), answer.request.path
        refers = ("for", "aria-describedby", "aria-labelledby", "popovertarget")
        named = {tag[name] for name in refers for tag in page.select(f"[{name}]")}
        assert named <= set(ids), answer.request.path


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
    return re.search(r"/signup\?invitation=\S+", printed)[0]


def test_an_invitation_lets_one_sign_up_where_it_takes_one(make_app):
    app = make_app(SIGNUP="invite")
    client = app.test_client()
    assert client.post("/signup", data=ADA).status_code == 403
    assert client.post("/signup?invitation=forged", data=ADA).status_code == 403
    link = invitation(app)
    form = parse(client.get(link).text).select_one("form")
    assert client.post(form.get("action") or link, data=ADA).status_code == 302
    assert is_logged_in(client)


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


# when something goes wrong


SECRETS = re.compile(
    r"Traceback|File \"|sk-test|a secret for tests|/work|\.py\b|sqlalchemy|psycopg"
)


@pytest.mark.parametrize("path", ["/nowhere", "/chats/999", "/chats/abc", "/chats/9/edit"])
def test_what_is_not_there_is_said_in_a_sentence(sign_up, path):
    answer = sign_up().get(path)
    assert answer.status_code == 404
    assert "nothing here" in answer.text
    assert not SECRETS.search(answer.text)


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}])
def test_a_bug_shows_no_trace_path_or_key(make_app, headers):
    app = make_app(TESTING=False)

    @app.get("/bug")
    def bug():
        raise RuntimeError(f"sk-test {app.config['SECRET_KEY']} {__file__}")

    ada = app.test_client()
    ada.post("/signup", data=ADA)
    answer = ada.get("/bug", headers=headers)
    assert answer.status_code == 500
    assert "did not work" in answer.text
    assert not SECRETS.search(answer.text)


@pytest.fixture(params=["stopped server", "broken file", "no tables"])
def away(request, make_app, tmp_path):
    """Ada's browser at an app whose database went away after she had signed up."""
    server = request.getfixturevalue("own_postgres") if "server" in request.param else None
    app = make_app(TESTING=False, **({"DATABASE_URL": server.database()} if server else {}))
    ada = app.test_client()
    ada.post("/signup", data=ADA)
    ada.post("/chats")
    with app.app_context():
        if request.param == "no tables":
            db.drop_all()
        db.engine.dispose()
    if server:
        server.stop()
    elif request.param == "broken file":
        (tmp_path / "chattable.db").write_bytes(b"no database" * 1000)
    return ada


@pytest.fixture(scope="module")
def postgres_to_stop():
    with closing(Postgres()) as server:
        yield server


@pytest.fixture
def own_postgres(postgres_to_stop):
    """A PostgreSQL server that a test may stop."""
    yield postgres_to_stop
    if not postgres_to_stop.running:
        postgres_to_stop.start()


BUSY = "The database is busy or away"


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}])
def test_a_database_that_is_away_is_said_in_a_sentence_on_every_page(away, headers):
    fields = ADA | {"chat_id": "1", "title": "words", "content": "words", "model": "gpt-4o"}
    for method, path, endpoint in [
        *rules(away.application),
        ("GET", "/login", "log_in"),
        ("POST", "/login", "log_in"),
    ]:
        answer = away.open(path, method=method, headers=headers, data=fields)
        assert answer.status_code == 503, endpoint
        assert BUSY in parse(answer.text).get_text(), endpoint
        assert bool(parse(answer.text).select_one("[data-problem]")) == bool(headers), endpoint
        assert not SECRETS.search(answer.text)
    assert away.get(f"{away.application.static_url_path}/app.css").status_code == 200


def test_who_waits_for_a_connection_is_answered_before_a_platform_gives_up(app):
    assert app.config["SQLALCHEMY_ENGINE_OPTIONS"]["pool_timeout"] < 30


def test_what_people_write_is_not_in_the_log_of_an_error(make_app, caplog):
    app = make_app()
    ada = app.test_client()
    ada.post("/signup", data=ADA)
    ada.post("/chats")
    refusal = "CREATE TRIGGER no BEFORE UPDATE ON chats BEGIN SELECT RAISE(FAIL, 'no'); END"
    with app.app_context():
        db.session.execute(db.text(refusal))
        db.session.commit()
    assert ada.post("/chats/1", data={"title": "my secret plan"}).status_code == 503
    assert "IntegrityError" in caplog.text
    assert "secret plan" not in caplog.text


def test_without_javascript_the_text_comes_back_and_can_be_sent_again(away):
    sent = {"chat_id": "1", "content": "<precious>\n\nwords", "client_id": str(uuid.uuid4())}
    page = parse(away.post("/messages", data=sent | {"password": "hidden", "model": "x"}).text)
    form = page.select_one("form[action='/messages'][method=post]")
    assert form.textarea.get_text() == sent["content"]
    kept = {field["name"]: field["value"] for field in form.select("input")}
    assert kept.pop("csrf_token")
    assert kept == {"chat_id": "1", "client_id": sent["client_id"], "model": "x"}
    page = parse(away.post("/chats/1", data={"title": "a new title"}).text)
    assert page.select_one("form[action='/chats/1'] [name=title]").get_text() == "a new title"


def test_a_text_that_came_back_is_taken_once_the_database_is_there(make_app, own_postgres):
    app = make_app(WTF_CSRF_ENABLED=True, DATABASE_URL=own_postgres.database())
    ada = app.test_client()
    ada.post("/signup", data=ADA | {"csrf_token": values(ada.get("/signup"))["csrf_token"]})
    form = parse(ada.get("/chats/new").text).select_one("form.composer")
    fields = {field["name"]: field.get("value", "") for field in form.select("input")}
    own_postgres.stop()
    answer = ada.post("/chats", data=fields | {"content": "precious", "model": "gpt-4o"})
    form = parse(answer.text).select_one("main form")
    fields = {field["name"]: field.get("value", "") for field in form.select("input")}
    own_postgres.start()
    answer = ada.post(form["action"], data=fields | {"content": form.textarea.get_text()})
    assert answer.status_code == 303
    assert answer.location == "/chats/1"


def test_what_another_site_sent_is_not_offered_for_sending(make_app):
    visitor = make_app(WTF_CSRF_ENABLED=True).test_client()
    answer = visitor.post("/messages", data={"chat_id": "1", "content": "a trap"})
    assert answer.status_code == 400
    page = parse(answer.text)
    assert page.textarea.get_text() == "a trap"
    assert not page.select("main button, main [name=csrf_token]")


def test_the_address_for_health_checks_tells_when_redis_is_away(make_app):
    assert make_app().test_client().get("/up").status_code == 200
    assert make_app(REDIS_URL="redis://127.0.0.1:9/0").test_client().get("/up").status_code == 503


# configuration


@pytest.fixture
def settings(tmp_path):
    """The least that the app starts with; its folder holds no key."""
    return {
        "SECRET_KEY": "a secret for tests only",
        "DATABASE_URL": f"sqlite:///{tmp_path}/chattable.db",
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "INSTANCE_PATH": str(tmp_path),
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", ""),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mysql://localhost/chattable"),
        ("DATABASE_URL", "postgres://localhost:port/chattable"),
        ("REDIS_URL", "nonsense"),
        ("REDIS_URL", "http://localhost:6379"),
        ("REDIS_URL", "redis://localhost:port/0"),
        ("REDIS_PREFIX", "two words"),
        ("REDIS_PREFIX", "chattable:*"),
        ("REDIS_PREFIX", "ünderbar"),
        ("REDIS_PREFIX", "c" * 61),
        ("SIGNUP", "maybe"),
        ("MAX_MESSAGE_LENGTH", "long"),
        ("MAX_MESSAGE_LENGTH", "0"),
        ("READ_TIMEOUT", "-1"),
        ("JOB_TIMEOUT", "1.5"),
        ("WORKER_CONCURRENCY", "many"),
        ("SHUTDOWN_GRACE", "soon"),
    ],
)
def test_a_wrong_value_stops_the_start_with_a_sentence_that_names_it(settings, name, value):
    with pytest.raises(SystemExit) as stopped:
        create_app(settings | {name: value})
    sentence = str(stopped.value)
    assert name in sentence
    assert sentence.endswith(".") or sentence.endswith("/db")
    assert "\n" not in sentence


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_postgres_addresses_of_every_spelling_are_accepted(make_app, postgres_url, scheme):
    app = make_app(DATABASE_URL=postgres_url.replace("postgresql", scheme))
    answer = app.test_client().post("/signup", data=ADA)
    assert answer.status_code == 302
    with app.app_context():
        assert db.engine.dialect.name == "postgresql"


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_character_stops_the_start(
    settings, postgres_server, encoding
):
    with pytest.raises(SystemExit, match=f"^DATABASE_URL .* UTF8; this one has {encoding}.$"):
        create_app(settings | {"DATABASE_URL": postgres_server.database(encoding)})


def test_a_database_that_is_away_does_not_stop_the_start(settings):
    away = {"DATABASE_URL": "postgres://127.0.0.1:9/chattable"}
    assert create_app(settings | away).test_client().get("/login").status_code == 200


def test_every_character_is_kept_whatever_the_clients_locale_is(
    make_app, postgres_url, monkeypatch
):
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    ada = make_app(DATABASE_URL=postgres_url).test_client()
    ada.post("/signup", data=ADA)
    ada.post("/chats")
    assert ada.post("/chats/1", data={"title": "naïve 😀 中文"}).status_code == 303
    assert parse(ada.get("/chats/1").text).h1.get_text() == "naïve 😀 中文"


def test_an_empty_value_counts_as_unset(settings):
    app = create_app(settings | {"SIGNUP": "", "READ_TIMEOUT": "", "MODELS": " , "})
    assert app.config["SIGNUP"] == "open"
    assert app.config["READ_TIMEOUT"] == 60
    assert app.config["MODELS"] == []


def test_the_key_kept_in_the_instance_folder_is_used(settings, tmp_path):
    (tmp_path / "secret_key").write_text("kept\n")
    assert create_app(settings | {"SECRET_KEY": ""}).config["SECRET_KEY"] == "kept"
    assert os.environ.get("SECRET_KEY") is None
