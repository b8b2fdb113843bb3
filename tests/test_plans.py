"""How SQLite finds what is asked for: by an index, whatever there is beside."""

import pytest

from chattable.database import now
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


@pytest.mark.parametrize("only", [{"pinned": True}, {"archived": True}])
def test_the_few_chats_that_are_pinned_or_archived_are_found_by_their_index(plans, user, only):
    [name] = only
    for after in (None, (now(), 5)):
        [plan] = plans(lambda after=after: user.chats_by_recency(50, after, **only))
        assert f"chats_{name}" in plan, plan


def test_a_list_goes_on_where_it_was_without_a_sort(plans, user):
    only = {"pinned": False, "archived": False}
    [plan] = plans(lambda: user.chats_by_recency(50, (now(), 5), **only))
    assert "chats_by_recency" in plan and "updated_at<" in plan and "B-TREE" not in plan, plan


def test_costs_are_summed_up_by_an_index_alone(plans, user, chat):
    for work in (lambda: chat.cost, lambda: user.costs_by_chat([chat]), user.costs_by_chat):
        assert any("COVERING INDEX messages_by_chat" in plan for plan in plans(work)), plans(work)
