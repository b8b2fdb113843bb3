"""How many replies a person has at once: one more waits beside the queue, and is not lost."""

import math
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from rq import SimpleWorker

from chattable import keepers, live, places, queue, vitals
from models import Chat, Message, User, db
from tests.entered import entered
from tests.page import parse

HTMX = {"HX-Request": "true"}


@pytest.fixture
def app(make_app):
    return make_app(REPLIES_AT_ONCE="2", SENDS_PER_MINUTE="0")


@pytest.fixture
def ada(let_in):
    return let_in()


def new_chat(person):
    return int(person.post("/chats").location.rsplit("/", 1)[1])


def send(person, chat_id, content="Hello", client_id=None):
    form = {"chat_id": chat_id, "content": content, "model": "gpt-4o-mini"}
    form["client_id"] = client_id or str(uuid.uuid4())
    assert person.post("/messages", data=form, headers=HTMX).status_code == 204


def send_to_many(person, number):
    """Send a message to so many new chats; return their ids."""
    chats = [new_chat(person) for _ in range(number)]
    for index, chat_id in enumerate(chats):
        send(person, chat_id, f"Number {index}")
    return chats


def work_off(app, most):
    """Do so many jobs with RQ's own worker."""
    with app.app_context():
        ours = queue.queue()
        SimpleWorker([ours], connection=ours.connection).work(
            burst=True, max_jobs=most, logging_level="ERROR"
        )


def counts(app):
    """Return how many jobs are in the queue, and how many wait beside it."""
    with app.app_context():
        return len(queue.queue()), len(places.waiting())


def statuses(app):
    with app.app_context():
        replies = db.select(Message.status).where(Message.role == "assistant")
        return db.session.scalars(replies.order_by(Message.id)).all()


def test_one_reply_more_than_may_be_at_once_waits_and_is_written_in_order(
    app, ada, provider, run_jobs
):
    send_to_many(ada, 5)
    assert counts(app) == (2, 3)
    run_jobs()
    assert counts(app) == (0, 0) and statuses(app) == ["complete"] * 5
    asked = [request.prompt for request in provider.requests]
    assert asked == [f"Number {index}" for index in range(5)]


def test_its_page_shows_that_it_waits(app, ada):
    *_, last = send_to_many(ada, 3)
    page = parse(ada.get(f"/chats/{last}").text)
    said, reply = page.select("#messages article")
    assert said.select_one(".message__body").get_text(strip=True) == "Number 2"
    assert (reply["data-role"], reply["data-status"]) == ("assistant", "pending")
    assert "data-waiting" in reply.attrs


def test_its_page_shows_that_it_waits_no_more(app, ada, provider):
    *_, last = send_to_many(ada, 3)
    told = []
    provider.says("Hi")
    with app.app_context():
        watching = live.redis().pubsub(ignore_subscribe_messages=True)
        watching.subscribe(live.channel(last))
        watching.get_message(timeout=1)
        work_off(app, 3)
        while frame := watching.get_message(timeout=1):
            told.append(frame["data"].decode())
    begun = next(frame for frame in told if 'data-status="pending"' in frame)
    assert "data-waiting" not in begun
    assert "data-waiting" not in ada.get(f"/chats/{last}").text


def test_of_many_sent_at_once_each_that_waits_is_shown(app, ada):
    chats = [new_chat(ada) for _ in range(12)]
    with app.app_context():
        me = db.session.scalars(db.select(User)).one()
        tabs = [entered(app, me) for _ in chats]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(send, tabs, chats))
    assert counts(app) == (2, 10) and statuses(app) == ["pending"] * 10


def test_whoever_looks_after_an_install_sees_how_many_wait(app, ada):
    send_to_many(ada, 5)
    with app.app_context():
        assert vitals.jobs_by_state() == {"queued": 2, "started": 0, "failed": 0, "waiting": 3}
        assert vitals.replies_written(Message.running_ids()) == 0


def test_a_message_takes_redis_no_more_than_three_trips_and_no_script_anew(app, ada, monkeypatch):
    app.config["SENDS_PER_MINUTE"] = 30
    chats = [new_chat(ada) for _ in range(2)]
    send(ada, chats[0])
    connection, trips = app.extensions["chattable_redis"].connection_pool.connection_class, []
    taken = connection.send_packed_command

    def send_packed_command(self, command, *args, **options):
        trips.append(command)
        return taken(self, command, *args, **options)

    monkeypatch.setattr(connection, "send_packed_command", send_packed_command)
    send(ada, chats[1])
    assert len(trips) == 3 and not any("return" in str(trip) for trip in trips)


def test_others_do_not_wait_for_it(app, ada, let_in):
    send_to_many(ada, 4)
    send_to_many(let_in("Eve", "eve@example.com"), 2)
    assert counts(app) == (4, 2)


def test_another_version_waits_too_and_becomes_one(app, ada, provider, run_jobs):
    chat_id = new_chat(ada)
    send(ada, chat_id)
    run_jobs()
    send_to_many(ada, 2)
    with app.app_context():
        reply = db.session.get(Chat, chat_id).messages[-1].id
    assert ada.post(f"/messages/{reply}/retry", headers=HTMX).status_code == 204
    assert counts(app) == (2, 1)
    assert "pending" in statuses(app)
    run_jobs()
    assert statuses(app) == ["complete"] * 4 and len(provider.requests) == 4
    page = parse(ada.get(f"/chats/{chat_id}").text)
    assert page.select("#messages article")[-1]["data-versions"] == "2/2"


def test_an_edit_waits_too(app, ada, provider, run_jobs):
    chat_id = new_chat(ada)
    send(ada, chat_id)
    run_jobs()
    send_to_many(ada, 2)
    with app.app_context():
        said = db.session.get(Chat, chat_id).messages[0].id
    draft = {"content": "Edited", "model": "gpt-4o-mini"}
    assert ada.post(f"/messages/{said}/edit", data=draft, headers=HTMX).status_code == 204
    assert counts(app) == (2, 1)
    run_jobs()
    assert statuses(app) == ["complete"] * 4
    assert provider.requests[-1].json["messages"] == [{"role": "user", "content": "Edited"}]


@pytest.mark.parametrize("one", ["chat", "message"])
def test_stop_takes_back_what_waits(app, ada, provider, run_jobs, one):
    *_, last = send_to_many(ada, 3)
    with app.app_context():
        reply = db.session.get(Chat, last).running_reply.id
    path = f"/chats/{last}/stop" if one == "chat" else f"/messages/{reply}/stop"
    assert ada.post(path, headers=HTMX).status_code == 204
    assert counts(app) == (2, 0) and statuses(app) == ["stopped"]
    run_jobs()
    assert statuses(app) == ["stopped", "complete", "complete"] and len(provider.requests) == 2
    send(ada, last, "Again")
    run_jobs()
    assert statuses(app)[-1] == "complete"


def test_what_is_stopped_before_it_begins_gives_its_place_to_the_next(app, ada):
    first, *_ = send_to_many(ada, 3)
    ada.post(f"/chats/{first}/stop", headers=HTMX)
    assert counts(app) == (2, 0)


def test_a_chat_that_is_deleted_waits_no_more(app, ada, provider, run_jobs, redis_server):
    first, _, last = send_to_many(ada, 3)
    for chat_id in (last, first):
        ada.delete(f"/chats/{chat_id}")
    assert counts(app) == (1, 0)
    run_jobs()
    assert len(provider.requests) == 1
    with redis_server.client() as redis:
        assert len(redis.keys("rq:job:*")) == 1


def test_what_is_sent_twice_is_done_once(app, ada, provider, run_jobs):
    send_to_many(ada, 2)
    chat_id, client_id = new_chat(ada), str(uuid.uuid4())
    for _ in range(3):
        send(ada, chat_id, client_id=client_id)
    assert counts(app) == (2, 1)
    run_jobs()
    send(ada, chat_id, client_id=client_id)
    run_jobs()
    assert len(provider.requests) == 3


def test_a_place_is_given_on_when_a_reply_has_ended(app, ada):
    send_to_many(ada, 4)
    work_off(app, 1)
    assert counts(app) == (2, 1)


def test_what_waits_has_no_writer_and_is_not_taken_for_lost(app, ada):
    send_to_many(ada, 3)
    with app.app_context():
        assert sweep(app) == {}
    assert statuses(app) == ["pending"]


def test_what_waits_for_a_job_that_is_gone_ends(app, ada):
    *_, last = send_to_many(ada, 3)
    with app.app_context():
        queue.delete_jobs(places.waiting())
        missing = sweep(app)
        keepers.interrupt_orphans(dict.fromkeys(missing, -math.inf))
    assert statuses(app) == ["failed"]


def sweep(app):
    return keepers.interrupt_orphans({})


def test_a_turn_is_kept_however_long_its_job_waits(app, ada, redis_server):
    *_, last = send_to_many(ada, 3)
    with app.app_context(), redis_server.client() as redis:
        redis.expire(live.turn_key(last), 5)
        sweep(app)
        assert redis.ttl(live.turn_key(last)) > live.TURN - 10


def test_zero_lifts_it(make_app, let_in, app, ada):
    app.config["REPLIES_AT_ONCE"] = 0
    send_to_many(ada, 8)
    assert counts(app) == (8, 0)
