"""Migrations, by the command a platform runs, on both databases."""

from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, inspect, text

from app import create_app
from chattable import search
from models import Chat, Message, User, db
from tests import stack

INDEX = "messages_search"
TABLES = {
    *("users", "chats", "messages", "installs"),
    *("logins", "invitations", "identities", "spendings", "settings"),
}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request):
    """The address of an empty database."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def flask_db(url, tmp_path, caplog):
    """Run `flask db …` on that database: `flask_db("upgrade")`; it must succeed.

    In this process: that it runs in one of its own is seen wherever a stack starts.
    """
    settings = {
        "DATABASE_URL": url,
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "SECRET_KEY": "a secret for tests only",
        "INSTANCE_PATH": str(tmp_path),
    }

    def run(*words):
        caplog.clear()
        app = create_app(settings)
        done = app.test_cli_runner().invoke(args=["db", *words])
        with app.app_context():
            db.engine.dispose()
        assert done.exit_code == 0, done.output + caplog.text

    return run


@contextmanager
def opened(url):
    """Give an engine of a database."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        yield engine
    finally:
        engine.dispose()


def run_sql(url, *statements):
    """Run statements; return the rows of the last."""
    with opened(url) as engine, engine.begin() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        return results[-1].all() if results[-1].returns_rows else []


def schema(url):
    """Return what a database has: tables with their columns, indexes and unique constraints."""
    with opened(url) as engine:
        tables = inspect(engine)
        return {
            name: (
                sorted((each["name"], each["nullable"]) for each in tables.get_columns(name)),
                sorted((index["name"], index["unique"]) for index in tables.get_indexes(name)),
                sorted(
                    tuple(unique["column_names"]) for unique in tables.get_unique_constraints(name)
                ),
                [key["options"].get("ondelete") for key in tables.get_foreign_keys(name)],
            )
            for name in tables.get_table_names()
            if name != "alembic_version" and not name.startswith(INDEX)
        }


# What belongs to the index of what was said, in either database: (kind, name, statement or event).
PARTS = {
    "sqlite": "SELECT type, name, sql FROM sqlite_master WHERE name LIKE 'messages_search%'",
    "postgresql": """
        SELECT 'trigger', trigger_name, event_object_table || event_manipulation
        FROM information_schema.triggers
        UNION SELECT 'function', proname, prosrc FROM pg_proc WHERE proname LIKE 'messages_search%'
        UNION SELECT 'table', table_name, table_type FROM information_schema.tables
        WHERE table_name LIKE 'messages_search%'
        UNION SELECT 'index', indexname, indexdef FROM pg_indexes
        WHERE tablename LIKE 'messages_search%'
    """,
}


def index_parts(url):
    return {tuple(row) for row in run_sql(url, PARTS[url.partition(":")[0]])}


def test_the_migrations_go_up_and_agree_with_the_models_and_go_down(
    flask_db, url, make_app, tmp_path
):
    flask_db("upgrade")
    made, index = schema(url), index_parts(url)
    assert set(made) == TABLES
    assert len(index) > 8
    # Other tests have models of their own in this process.
    assert stack.flask_db(url, tmp_path, "check")[0] == 0
    flask_db("downgrade", "base")
    assert schema(url) == {}
    assert index_parts(url) == set()
    make_app(DATABASE_URL=url)
    assert {name: part for name, part in schema(url).items() if name in TABLES} == made
    assert index_parts(url) == index


def test_going_up_again_changes_nothing_and_loses_nothing(flask_db, url, make_app):
    flask_db("upgrade")
    form = {"name": "Ada", "email": "ada@example.com", "password": "correct horse battery"}
    person = make_app(DATABASE_URL=url).test_client()
    assert person.post("/signup", data=form).status_code == 302
    flask_db("upgrade")
    assert person.get("/chats").status_code == 200


def test_a_database_that_was_never_migrated_is_told_from_the_models(flask_db):
    with pytest.raises(AssertionError, match="not up to date"):
        flask_db("check")


NEW_USER = (
    "INSERT INTO users (name, email, password_hash, created_at)"
    " VALUES ('{0}', '{0}@example.com', 'none', '2026-01-01 00:00:00')"
)
NEW_CHAT = (
    "INSERT INTO chats (chattable_type, chattable_id, title, revision, created_at, updated_at)"
    " VALUES ('User', 3, 'a title', 0, '2026-01-01 00:00:00', '2026-01-01 00:00:00')"
)


def test_everybody_who_was_there_gets_a_random_name_and_nobody_a_used_id(flask_db, url, make_app):
    flask_db("upgrade", "0001")
    run_sql(url, *map(NEW_USER.format, ("ada", "bob", "eve")), NEW_CHAT)
    run_sql(url, "DELETE FROM users WHERE name = 'eve'")
    flask_db("upgrade")
    form = {"name": "Zoe", "email": "zoe@example.com", "password": "correct horse battery"}
    zoe = make_app(DATABASE_URL=url).test_client()
    assert zoe.post("/signup", data=form).status_code == 302
    assert zoe.get("/chats/1").status_code == 404
    rows = run_sql(url, "SELECT id, name, public_id FROM users ORDER BY id")
    assert [row[:2] for row in rows] == [(1, "ada"), (2, "bob"), (4, "Zoe")]
    assert len({name for *_, name in rows}) == 3
    assert all(len(name) >= 20 for *_, name in rows)
    flask_db("downgrade", "0001")
    flask_db("upgrade")
    assert len(run_sql(url, "SELECT id FROM users")) == 3


CHAT_WITH_A_RETRY = (
    "INSERT INTO chats (chattable_type, chattable_id, title, revision, created_at, updated_at)"
    " VALUES ('User', 1, '{0}', 6, '2026-01-01 00:00:00', '2026-01-01 00:00:00')"
)
OLD_MESSAGE = (
    "INSERT INTO messages (chat_id, role, status, content, finish_reason, usage_estimated,"
    " superseded, revision, input_cost, output_cost, created_at)"
    " VALUES ({0}, '{1}', 'complete', '{2}', {3}, false, {4}, 1, 5, 5, '2026-01-01 00:00:00')"
)
# (chat, role, content, finish reason, superseded)
OLD_MESSAGES = [
    (1, "user", "a", "NULL", "false"),
    (1, "assistant", "A1", "'stop'", "true"),
    (1, "assistant", "A2", "'stop'", "true"),
    (1, "assistant", "A3", "'stop'", "false"),
    (1, "user", "b", "NULL", "false"),
    (1, "assistant", "", "'unseen'", "true"),
    (1, "assistant", "B", "'stop'", "false"),
    (2, "user", "plain", "NULL", "false"),
    (2, "assistant", "", "'unseen'", "true"),
    (2, "assistant", "Plain.", "'stop'", "false"),
]


def test_what_was_replaced_becomes_a_version_and_no_cost_is_lost(flask_db, url, make_app):
    flask_db("upgrade", "0004")
    run_sql(url, *map(CHAT_WITH_A_RETRY.format, "xy"))
    run_sql(url, *(OLD_MESSAGE.format(*each) for each in OLD_MESSAGES))
    flask_db("upgrade")
    with make_app(DATABASE_URL=url).app_context():
        chats = {chat.title: chat for chat in db.session.scalars(db.select(Chat))}
        shown = [(each.content, len(each.versions)) for each in chats["x"].page()[0]]
        assert shown == [("a", 1), ("A3", 3), ("b", 1), ("B", 1)]
        assert [each.content for each in chats["y"].path()] == ["plain", "Plain."]
        assert (chats["x"].branch_revision, chats["y"].branch_revision) == (7, 0)
        assert chats["x"].cost * 10**12 == 70
        chats["x"].show(db.session.get(Message, 2))
        assert [each.content for each in chats["x"].path()] == ["a", "A1"]
    flask_db("downgrade", "0004")
    hidden = run_sql(url, "SELECT content FROM messages WHERE superseded ORDER BY id")
    assert [content for (content,) in hidden] == ["A1", "A2", "", ""]


NEW_MESSAGE = (
    "INSERT INTO messages (chat_id, role, status, content, usage_estimated, superseded, revision,"
    " created_at) VALUES (1, 'user', '{}', '{}', {}, {}, 0, '2026-01-01 00:00:00')"
)


def test_what_was_said_before_there_was_an_index_is_found(flask_db, url, make_app):
    flask_db("upgrade", "0001")
    no = "false" if url.startswith("postgres") else "0"
    said = [("complete", "first words"), ("complete", "数据库连接"), ("streaming", "some words")]
    messages = [NEW_MESSAGE.format(status, content, no, no) for status, content in said]
    chat = NEW_CHAT.replace("3, 'a title'", "1, 'words of a title'")
    run_sql(url, NEW_USER.format("ada"), chat, *messages)
    flask_db("upgrade")
    with make_app(DATABASE_URL=url).app_context():
        ada = db.session.get(User, 1)
        assert [each.message and each.message.id for each in search.find(ada, "word")[0]] == [
            None,
            1,
        ]
        assert [each.message.id for each in search.find(ada, "连接")[0]] == [2]
