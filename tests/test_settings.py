"""What the environment asks for, and what is said when it is wrong."""

import os
from urllib.parse import quote

import pytest

from app import create_app
from models import db
from tests.page import parse
from tests.test_accounts import ADA


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
        ("DATABASE_URL", "postgres://u:hidden@localhost:65536/chattable"),
        ("DATABASE_URL", "postgres://u:hidden@::1/chattable"),
        ("DATABASE_URL", "postgres://u:hidden@localhost/chattable?pgbouncr=true"),
        ("DATABASE_URL", "postgres://u:hidden@local host/chattable"),
        ("DATABASE_URL", "postgres://u:hidden@one:5432,two:5432/chattable"),
        ("DATABASE_URL", "postgres://u:hidden@127.0.0.1:9/chattable?sslmode=hidden"),
        ("DATABASE_URL", "postgres://u:hidden@127.0.0.1:9/chattable?connect_timeout=hidden"),
        ("DATABASE_URL", "postgres://u:hidden@127.0.0.1:9/chattable?target_session_attrs=none"),
        ("DATABASE_URL", "postgres://u:hidden@127.0.0.1:9/chattable?keepalives=hidden"),
        ("DATABASE_URL", "postgres://u:hidden@127.0.0.1:9/c?sslmode=require&sslmode=disable"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "sqlite://home/chattable.db"),
        ("DATABASE_URL", "sqlite:////tmp/chattable.db?timeout=long"),
        ("REDIS_URL", "nonsense"),
        ("REDIS_URL", "http://localhost:6379"),
        ("REDIS_URL", "redis://localhost:port/0"),
        ("REDIS_PREFIX", "two words"),
        ("REDIS_PREFIX", "chattable:*"),
        ("REDIS_PREFIX", "ünderbar"),
        ("REDIS_PREFIX", "c" * 61),
        ("SCRIPT_NAME", "chat"),
        ("SCRIPT_NAME", "/chat/"),
        ("SCRIPT_NAME", "//chat"),
        ("SCRIPT_NAME", "/../x"),
        ("SCRIPT_NAME", "/."),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("TRUSTED_PROXIES", "-1"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("TRUSTED_PROXIES", "*"),
        ("SIGNUP", "maybe"),
        ("MAX_MESSAGE_LENGTH", "long"),
        ("MAX_MESSAGE_LENGTH", "0"),
        ("READ_TIMEOUT", "-1"),
        ("READ_TIMEOUT", "9" * 20),
        ("CONTEXT_WINDOW", "8,192"),
        ("CONTEXT_WINDOW", "=8192"),
        ("CONTEXT_WINDOW", "gpt-4o=big"),
        ("OPENAI_API_KEY", "sk-\nhidden"),
        ("OPENAI_API_KEY", "sk-hidden # of the team"),
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
    assert "hidden" not in sentence
    assert sentence.endswith((".", "/db", ".db"))
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("SIGNUP", " Closed\n", "closed"),
        ("SIGNUP", "'invite'", "invite"),
        ("JOB_TIMEOUT", '"90"', 90),
        ("OPENAI_API_KEY", "Bearer sk-1", "sk-1"),
        ("OPENAI_BASE_URL", "'http://host/v1'", "http://host/v1"),
        ("MODELS", '"one, two"', ["one", "two"]),
        ("REDIS_URL", " 'redis://host:1/2' ", "redis://host:1/2"),
        ("SECRET_KEY", "'a secret for tests only'", "a secret for tests only"),
    ],
)
def test_blanks_and_quotes_around_a_value_are_none_of_it(settings, name, value, meant):
    assert create_app(settings | {name: value}).config[name] == meant


def test_a_short_secret_key_is_warned_of(settings, caplog):
    create_app(settings | {"SECRET_KEY": "hidden"})
    assert "SECRET_KEY is short" in caplog.text
    assert "hidden" not in caplog.text


@pytest.mark.parametrize(
    ("url", "missed"), [("", True), ("api.openai.com", True), ("http://llm.example:8000/v1", False)]
)
def test_a_key_is_missed_where_the_provider_asks_for_one(settings, caplog, url, missed):
    create_app(settings | {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": ""})
    assert ("OPENAI_API_KEY is not set" in caplog.text) is missed


@pytest.mark.parametrize("name", ["My Projects", "what?", "a%20b", "#1", "100%", "50=50", "a@b:c"])
def test_the_database_is_in_the_folder_of_the_instance_whatever_its_name_is(
    settings, tmp_path, name
):
    folder = tmp_path / name
    create_all(settings | {"INSTANCE_PATH": str(folder), "DATABASE_URL": ""})
    assert (folder / "chattable.db").exists()


@pytest.mark.parametrize("name", ["My Projects", "what?", "#1", "100%", "a@b:c"])
def test_a_file_is_found_by_the_path_that_stands_in_its_address(settings, tmp_path, name):
    (tmp_path / name).mkdir()
    create_all(settings | {"DATABASE_URL": f"sqlite:///{tmp_path}/{name}/my.db?timeout=5"})
    assert (tmp_path / name / "my.db").exists()


def test_a_database_in_the_instance_finds_its_folder_made(settings, tmp_path):
    folder = tmp_path / "instance"
    url = f"sqlite:///{folder}/my.db"
    create_all(settings | {"INSTANCE_PATH": str(folder), "DATABASE_URL": url})
    assert (folder / "my.db").exists()


def create_all(settings):
    with create_app(settings).app_context():
        db.create_all()


@pytest.mark.parametrize("password", ["p#w", "p?w", "p/w", "p@w", "p:w", "[p]w", "100%", "50%de"])
def test_a_password_stands_in_the_address_of_a_database_as_it_is(settings, password):
    for text in (password, quote(password, "")):
        url = f"postgres://ada:{text}@127.0.0.1:9/chattable"
        read = create_app(settings | {"DATABASE_URL": url}).config["SQLALCHEMY_DATABASE_URI"]
        assert (read.password, read.host, read.port) == (password, "127.0.0.1", 9)


@pytest.mark.parametrize("login", ["", "ada@", "ada:pw@", "ada:p@w@", "ada:1@"])
@pytest.mark.parametrize("place", ["127.0.0.1/chat", "127.0.0.1:9/chat"])
def test_no_password_goes_to_a_host_that_an_option_seems_to_name(settings, login, place):
    url = f"postgres://{login}{place}?application_name=chat@prod"
    read = create_app(settings | {"DATABASE_URL": url}).config["SQLALCHEMY_DATABASE_URI"]
    assert (read.host, read.database) == ("127.0.0.1", "chat")
    assert read.password == (login[4:-1] or None)
    assert read.query == {"application_name": "chat@prod"}


def test_several_servers_are_called_so(settings):
    url = "postgres://ada:pw@one:5432,two:5432/chat"
    with pytest.raises(SystemExit, match="several servers"):
        create_app(settings | {"DATABASE_URL": url})


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
