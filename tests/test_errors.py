"""What people are told when something goes wrong."""

import re
import uuid
from contextlib import closing

import pytest

from models import db
from tests.page import parse
from tests.services import Postgres
from tests.test_accounts import ADA, rules, values

SECRETS = re.compile(
    r"Traceback|File \"|sk-test|a secret for tests|/work|\.py\b|sqlalchemy|psycopg"
)


@pytest.mark.parametrize("path", ["/nowhere", "/chats/999", "/chats/abc", "/chats/9/edit"])
def test_what_is_not_there_is_said_in_a_sentence(sign_up, path):
    answer = sign_up().get(path)
    assert answer.status_code == 404
    assert "no longer here" in answer.text
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


BUSY = "The database is busy or away"
NO_TABLES = "This server is not set up yet"


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
    ada.sentence = NO_TABLES if request.param == "no tables" else BUSY
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
        assert away.sentence in parse(answer.text).get_text(), endpoint
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
    assert not page.select("main form, main button, main [name=csrf_token]")
