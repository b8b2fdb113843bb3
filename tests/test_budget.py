"""What a person's replies may cost a month: reserved before they are asked for, and settled."""

import math
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from flask import render_template
from flask_login import login_user
from redis.exceptions import RedisError

from chattable import budget, keepers, live, places, queue
from chattable.provider import Completion, ProviderError, Usage
from chattable.serve import CannotStart
from models import Chat, Message, User, db
from pages import people
from pages.values import dollars
from tests.entered import entered
from tests.page import parse

# Dollars a million tokens: a dollar for a thousand.
PRICES = "gpt-4o-mini=1000/1000,free=0/0"
MODELS = "gpt-4o-mini,free"
# What a reply of 1,000 + 500 tokens costs, and what one is expected to cost at least.
COST, EXPECTED = Decimal("1.5"), 2


@pytest.fixture
def app(make_app):
    return make_app(PRICES=PRICES, MODELS=MODELS, BUDGET="10", SENDS_PER_MINUTE="0")


@pytest.fixture
def ada(let_in):
    return let_in()


@pytest.fixture
def me(app, ada):
    """Ada's row, in an app context that is open."""
    with app.app_context():
        yield db.session.scalars(db.select(User)).one()


def new_chat(person):
    return int(person.post("/chats").location.rsplit("/", 1)[1])


def send(person, chat_id, model="gpt-4o-mini", htmx=True, content="Hello"):
    form = {"chat_id": chat_id, "content": content, "model": model, "client_id": str(uuid.uuid4())}
    return person.post("/messages", data=form, headers={"HX-Request": "true"} if htmx else {})


def spend(me, amount):
    """Have Ada's replies cost so much."""
    me.on_spent(Decimal(amount))
    db.session.commit()


def reserved(me, redis_server):
    with redis_server.client() as redis:
        return redis.hlen(f"{me.chats_channel}:reserve")


def test_fifty_at_once_in_two_processes_overrun_a_budget_by_the_last_estimate(
    app, make_app, me, ada
):
    other = make_app(PRICES=PRICES, MODELS=MODELS, BUDGET="10", SENDS_PER_MINUTE="0")
    chats = [new_chat(ada) for _ in range(50)]

    tabs = []
    for each in (app, other) * 25:
        with each.app_context():
            tabs.append(entered(each, me))

    def send_by_one(index):
        return send(tabs[index], chats[index]).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send_by_one, range(50)))
    taken = answers.count(204)
    assert set(answers) == {204, 429}
    # The last is taken while those before it are expected to cost less than 10.
    assert 10 <= taken * EXPECTED <= 10 + EXPECTED


def test_what_a_reply_has_cost_is_spent_and_nothing_is_set_aside_any_more(
    me, ada, provider, run_jobs, redis_server
):
    provider.says("Hi").uses(1000, 500)
    assert send(ada, new_chat(ada)).status_code == 204
    assert reserved(me, redis_server) == 1
    run_jobs()
    assert me.spent_this_month() == COST
    assert reserved(me, redis_server) == 0


def test_who_has_spent_it_is_told_how_much_and_when_it_renews(me, ada, monkeypatch):
    monkeypatch.setattr(budget, "now", lambda: datetime(2026, 11, 29, 12, tzinfo=UTC))
    chat_id = new_chat(ada)
    spend(me, 10)
    answer = send(ada, chat_id)
    assert answer.status_code == 429
    said = parse(answer.text).select_one("[data-problem]").get_text()
    assert "$10.00" in said and "1 December" in said and "Your text is kept" in said
    assert int(answer.headers["Retry-After"]) == 36 * 3600 + 1
    monkeypatch.setattr(budget, "now", lambda: datetime(2026, 12, 1, tzinfo=UTC))
    assert send(ada, chat_id).status_code == 204


def test_the_last_month_of_a_year_renews_in_january(monkeypatch):
    monkeypatch.setattr(budget, "now", lambda: datetime(2026, 12, 31, 23, tzinfo=UTC))
    assert budget.renewal() == datetime(2027, 1, 1, tzinfo=UTC)


def test_without_javascript_the_text_comes_back_with_the_refusal(me, ada):
    chat_id = new_chat(ada)
    spend(me, 10)
    answer = send(ada, chat_id, htmx=False, content="A long story")
    assert answer.status_code == 429 and "Retry-After" in answer.headers
    page = parse(answer.text)
    assert page.select_one("#content").get_text() == "A long story"
    assert "$10.00" in page.select_one("#composer-error").get_text()


def test_a_first_message_that_is_refused_leaves_no_chat(me, ada):
    spend(me, 10)
    form = {"content": "Hello", "model": "gpt-4o-mini"}
    assert ada.post("/chats", data=form, headers={"HX-Request": "true"}).status_code == 429
    assert db.session.scalars(db.select(Chat)).all() == []


def test_edits_and_versions_are_refused_as_well(me, ada, provider, run_jobs):
    provider.says("Hi").uses(1000, 500)
    send(ada, new_chat(ada))
    run_jobs()
    spend(me, 10)
    said, reply = db.session.scalars(db.select(Message).order_by(Message.id))
    htmx = {"HX-Request": "true"}
    form = {"content": "Again", "model": "gpt-4o-mini"}
    assert ada.post(f"/messages/{said.id}/edit", data=form, headers=htmx).status_code == 429
    assert ada.post(f"/messages/{reply.id}/retry", headers=htmx).status_code == 429
    run_jobs()
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("mine", "spent", "status"),
    [(None, 9, 204), (None, 10, 429), (20, 10, 204), (5, 5, 429), (0, 0, 429)],
)
def test_a_person_may_have_a_budget_of_their_own(me, ada, mine, spent, status):
    me.budget = mine
    spend(me, spent)
    assert send(ada, new_chat(ada)).status_code == status


def test_where_nobody_has_set_one_nothing_is_refused_but_all_is_counted(
    app, me, ada, provider, run_jobs, redis_server
):
    app.config["BUDGET"] = None
    provider.says("Hi").uses(1000, 500)
    spend(me, 1_000_000)
    assert send(ada, new_chat(ada)).status_code == 204
    assert reserved(me, redis_server) == 0
    run_jobs()
    assert me.spent_this_month() == 1_000_000 + COST


def test_what_costs_nothing_may_be_had_by_whom_anything_else_is_refused(app, me, ada):
    app.config["PRICES"] = {None: "local"}
    spend(me, 10)
    assert send(ada, new_chat(ada)).status_code == 204


def test_what_waited_until_the_budget_was_spent_fails_with_the_sentence(
    me, ada, provider, run_jobs, redis_server
):
    send(ada, new_chat(ada), content="A long story")
    spend(me, 10)
    run_jobs()
    said, reply = db.session.scalars(db.select(Message).order_by(Message.id))
    assert (said.content, reply.status) == ("A long story", "failed")
    assert "$10.00" in reply.error
    assert provider.requests == [] and reserved(me, redis_server) == 0
    assert me.spent_this_month() == 10


def test_what_was_refused_has_used_nothing(app, provider):
    with app.app_context(), Completion("gpt-4o-mini", [], "No.") as completion:
        with pytest.raises(ProviderError, match="No."):
            list(completion)
        assert completion.settle_usage("") == Usage()
    assert provider.requests == []


def test_what_is_deleted_was_spent(me, ada, provider, run_jobs):
    provider.says("Hi").uses(1000, 500)
    chat_id = new_chat(ada)
    send(ada, chat_id)
    run_jobs()
    ada.delete(f"/chats/{chat_id}")
    assert me.spent_this_month() == COST


def test_a_reply_whose_chat_is_deleted_while_it_is_written_was_paid(me, ada, provider):
    chat = me.begin_chat()
    db.session.commit()
    provider.says("Hi").uses(1000, 500)

    message = chat.begin_reply("gpt-4o-mini")
    with chat.asking("gpt-4o-mini", chat.told("gpt-4o-mini")) as completion:
        db.session.execute(db.delete(Message).where(Message.id == message.id))
        db.session.execute(db.delete(Chat).where(Chat.id == chat.id))
        db.session.commit()
        message.receive(completion)
    assert me.spent_this_month() > 0


def test_what_a_request_costs_that_nobody_sees_is_spent(me):
    chat = me.begin_chat()
    db.session.commit()
    chat.book("gpt-4o-mini", Usage(prompt=1000, completion=500))
    assert me.spent_this_month() == COST


def test_a_reply_whose_writer_died_is_paid_by_who_ends_it(me, ada, redis_server):
    chat = me.begin_chat()
    db.session.commit()
    chat.say("user", "Hello")
    reply = chat.begin_reply("gpt-4o-mini")
    me.reserve(chat.id, "gpt-4o-mini", 100)
    reply.interrupt(reply.id)
    assert me.spent_this_month() > 0 and reserved(me, redis_server) == 0


@pytest.mark.parametrize("path", ["stop", "delete"])
def test_what_was_taken_back_sets_nothing_aside(me, ada, path, redis_server):
    chat_id = new_chat(ada)
    send(ada, chat_id)
    assert reserved(me, redis_server) == 1
    ada.post(f"/chats/{chat_id}/{path}")
    assert reserved(me, redis_server) == 0


def test_what_grows_beyond_its_estimate_sets_more_aside(
    me, ada, provider, run_jobs, redis_server, monkeypatch
):
    monkeypatch.setattr("chattable.writing.CHECKPOINT", 0)
    seen, give_back = [], live.give_back

    def look(owner, chat_id):
        with redis_server.client() as redis:
            seen.extend(redis.hvals(f"{owner}:reserve"))
        give_back(owner, chat_id)

    monkeypatch.setattr(live, "give_back", look)
    # 6,000 tokens, of a dollar for a thousand.
    provider.says("word " * 4_800, "end")
    send(ada, new_chat(ada))
    run_jobs()
    assert int(seen[0].split()[2]) / 10**12 > 6 + EXPECTED


@pytest.mark.parametrize("path", ["stop", "delete"])
def test_what_waited_for_a_place_and_was_taken_back_sets_nothing_aside(
    app, me, ada, path, redis_server
):
    app.config["REPLIES_AT_ONCE"] = 1
    chats = [new_chat(ada) for _ in range(2)]
    for chat_id in chats:
        send(ada, chat_id)
    assert reserved(me, redis_server) == 2
    ada.post(f"/chats/{chats[1]}/{path}")
    assert reserved(me, redis_server) == 1


def test_what_waited_for_a_job_that_is_lost_sets_nothing_aside(app, me, ada, redis_server):
    app.config["REPLIES_AT_ONCE"] = 1
    chats = [new_chat(ada) for _ in range(2)]
    for chat_id in chats:
        send(ada, chat_id)
    queue.delete_jobs(places.waiting())
    lost = keepers.interrupt_orphans({})
    keepers.interrupt_orphans(dict.fromkeys(lost, -math.inf))
    assert reserved(me, redis_server) == 1


def test_a_job_that_fails_before_it_asks_sets_nothing_aside(
    me, ada, run_jobs, redis_server, monkeypatch
):
    monkeypatch.setattr(Chat, "ask", lambda *_: 1 / 0)
    send(ada, new_chat(ada))
    run_jobs()
    assert reserved(me, redis_server) == 0


def test_what_no_queue_takes_sets_nothing_aside(me, ada, redis_server, monkeypatch):
    def refuse(*_, **__):
        raise RedisError

    monkeypatch.setattr(queue, "enqueue", refuse)
    assert send(ada, new_chat(ada)).status_code == 503
    assert reserved(me, redis_server) == 0


def test_an_account_that_is_deleted_sets_nothing_aside(app, me, ada, redis_server):
    app.config["REPLIES_AT_ONCE"] = 1
    for chat_id in [new_chat(ada) for _ in range(3)]:
        send(ada, chat_id)
    people.delete_account(me)
    with redis_server.client() as redis:
        assert redis.keys("*:reserve") == []


def test_what_was_asked_for_is_settled_also_when_its_owner_has_gone(app, me, ada, redis_server):
    chat = me.begin_chat()
    db.session.commit()
    chat.say("user", "Hello")
    reply = chat.begin_reply("gpt-4o-mini")
    with chat.asking("gpt-4o-mini", chat.told("gpt-4o-mini")) as completion:
        with app.app_context():
            people.delete_account(db.session.get(User, me.id))
        db.session.expire(me)
        reply.receive(completion)
    with redis_server.client() as redis:
        assert redis.keys("*:reserve") == []


def test_no_title_is_asked_for_once_it_is_spent(app, me, ada, provider, run_jobs):
    app.config["TITLE_MODEL"] = "gpt-4o-mini"
    provider.says("Hi").uses(10_000, 500)
    send(ada, new_chat(ada))
    run_jobs()
    assert len(provider.requests) == 1


def test_what_is_set_aside_twice_keeps_its_place(app):
    with app.app_context():
        assert [live.set_aside("ada", chat, 5, 60) for chat in (1, 2, 3)] == [0, 5, 10]
        assert live.set_aside("ada", 2, 7, 60) == 5
        assert live.set_aside("ada", 3, 5, 60) == 12
        live.give_back("ada", 1)
        assert live.set_aside("ada", 3, 5, 60) == 7


def test_what_is_not_given_back_is_in_time(app, redis_server):
    with app.app_context():
        live.set_aside("ada", 1, 5, 60)
        with redis_server.client() as redis:
            assert 0 < redis.ttl("ada:reserve") <= 60
            redis.hset("ada:reserve", "1", "1 1 5")
        assert live.set_aside("ada", 2, 5, 60) == 0


def test_sent_twice_at_once_a_message_is_reserved_once(me, ada, redis_server):
    chat_id, client_id = new_chat(ada), str(uuid.uuid4())
    form = {"chat_id": chat_id, "content": "Hi", "model": "gpt-4o-mini", "client_id": client_id}
    assert ada.post("/messages", data=form).status_code == 303
    spend(me, 10)
    assert ada.post("/messages", data=form).status_code == 303
    assert reserved(me, redis_server) == 1


def test_who_is_refused_may_send_something_cheaper(me, ada):
    chat_id = new_chat(ada)
    me.budget = 0
    db.session.commit()
    assert send(ada, chat_id).status_code == 429
    me.budget = 10
    db.session.commit()
    assert send(ada, chat_id).status_code == 204
    assert queue.next_job(chat_id)[1]


def test_the_account_page_tells_what_was_spent(app, me):
    spend(me, "2.5")
    with app.test_request_context():
        login_user(me)
        words = parse(render_template("accounts/_spending.html")).get_text()
    assert "$2.50" in words and "of $10.00" in words and budget.day(budget.renewal()) in words


@pytest.mark.parametrize("text", ["-1", "5,00", "five", "nan", "1e3", "9999999", "0x5", "٥", "1."])
def test_a_budget_that_is_no_sum_is_refused_by_name(text):
    with pytest.raises(CannotStart, match="BUDGET must be dollars"):
        dollars({"BUDGET": text}, "BUDGET")


@pytest.mark.parametrize(("text", "sum"), [("5", 5), ("2.50", Decimal("2.5")), ("$7", 7), ("0", 0)])
def test_a_budget_is_a_sum_of_dollars(text, sum):
    assert dollars({"BUDGET": text}, "BUDGET") == sum
