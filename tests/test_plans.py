"""How SQLite finds what is asked for: by an index, whatever there is beside."""

import pytest

from models import Chat, Message, db


@pytest.fixture
def plans(user):
    """Give a context's end what SQLite plans: `plans(work)` returns its words for each query."""

    def ask(work):
        statements, engine = [], db.engine

        def note(_connection, _cursor, statement, parameters, *_):
            statements.append((statement, parameters))

        db.event.listen(engine, "before_cursor_execute", note)
        work()
        db.event.remove(engine, "before_cursor_execute", note)
        with engine.connect() as connection:
            explained = [
                connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
                for statement, parameters in statements
            ]
        return [" ".join(row.detail for row in rows) for rows in explained]

    return ask


@pytest.fixture
def chat(user):
    chat = user.begin_chat()
    db.session.commit()
    return chat


def test_running_replies_are_found_by_their_index(plans, chat):
    for work in (
        Message.running_ids,
        lambda: chat.running_reply,
        lambda: Chat.has_running_reply(chat.id),
    ):
        assert any("one_running_reply" in plan for plan in plans(work)), plans(work)
