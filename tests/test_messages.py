"""Messages: what one POST makes, what is refused, sending twice, retrying, when Redis is away."""

import itertools
import re
import threading
import uuid
from decimal import Decimal

import genai_prices
import pytest
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry

import jobs
from chattable import live, queue
from chattable.live.outbox import see_off
from models import Chat, Message, db
from tests.page import parse
from tests.patience import patient
from tests.services import wait_until
from tests.stack import PREFIX, QUEUE

HTMX = {"HX-Request": "true"}
KEPT = "text is kept"


@pytest.fixture
def ada(let_in):
    """Ada's browser: a logged-in test client."""
    return let_in()


@pytest.fixture
def chat(ada):
    """The id of an empty chat of Ada's."""
    return int(ada.post("/chats").location.rsplit("/", 1)[1])


@pytest.fixture
def send(ada, chat):
    """Send a message as htmx does: `send("Hello", model=…)` returns the answer."""

    def post(content="Hello", headers=HTMX, **fields):
        fields = {"chat_id": chat, "content": content, "client_id": str(uuid.uuid4())} | fields
        return ada.post("/messages", data=fields, headers=headers)

    return post


@pytest.fixture
def messages(app):
    """Read all messages, shown or not, as the database has them: `messages()`."""

    def read():
        with app.app_context():
            return db.session.scalars(db.select(Message).order_by(Message.id)).all()

    return read


@pytest.fixture
def queued(app):
    """Return the jobs that wait for a worker: `queued()`."""

    def read():
        with app.app_context():
            return queue.queue().get_jobs()

    return read


def sentence(answer):
    return parse(answer.text).select_one("[data-problem]").get_text()


def articles(answer):
    return parse(answer.text).select("#messages > article")


# one POST


def test_one_post_makes_two_messages(chat, send, run_jobs, messages, provider):
    provider.says("Hello, ", "Ada!").uses(812, 240)
    assert send("Hi there", model="gpt-4o").status_code == 204
    run_jobs()
    question, reply = messages()
    assert (question.role, question.content, question.status) == ("user", "Hi there", "complete")
    assert (reply.role, reply.content, reply.status) == ("assistant", "Hello, Ada!", "complete")
    assert {question.chat_id, reply.chat_id} == {chat}
    assert reply.model == "gpt-4o"
    asked = provider.wait_for_request().json
    assert asked["model"] == "gpt-4o"
    assert asked["messages"] == [{"role": "user", "content": "Hi there"}]


def test_tokens_and_exact_costs_are_kept_with_the_reply(
    app, chat, send, run_jobs, messages, provider
):
    provider.says("Hello!").uses(812, 240)
    send(model="gpt-4o")
    run_jobs()
    _, reply = messages()
    price = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=812, output_tokens=240), "gpt-4o"
    )
    assert (reply.prompt_token_usage, reply.completion_token_usage) == (812, 240)
    assert (reply.input_cost, reply.output_cost) == (price.input_price, price.output_price)
    assert (reply.input_cost, reply.output_cost) == (Decimal("0.00203"), Decimal("0.0024"))
    with app.app_context():
        assert db.session.get(Chat, chat).cost == Decimal("0.00443")


def test_tokens_and_costs_are_shown_at_the_foot_of_the_reply(ada, chat, send, run_jobs, provider):
    provider.says("Hello!").uses(1812, 1)
    send(model="gpt-4o-mini")
    run_jobs()
    _, reply = articles(ada.get(f"/chats/{chat}"))
    usage = reply.select_one(".message__usage").get_text()
    assert usage == "1,812 input tokens [$0.0003] / 1 output tokens [$0.0000006]"
    assert reply.h2.get_text() == "gpt-4o-mini"
    assert reply.time.get_text() == "just now"


def test_a_price_nobody_knows_is_said_so(make_app, provider, redis_url):
    app = make_app(MODELS="house-model", PRICES="openai")
    ada = app.test_client()
    form = {"name": "Ada", "email": "ada@example.com", "password": "correct horse battery"}
    ada.post("/signup", data=form)
    provider.says("Hello!").uses(8, 2)
    ada.post("/chats", data={"content": "Hi"})
    with app.app_context():
        jobs.create_message_and_stream(*queue.queue().get_jobs()[0].args)
    page = parse(ada.get("/chats/1").text)
    usage = page.select_one(".message__usage").get_text()
    assert usage == "8 input tokens / 2 output tokens [price unknown]"
    receipt = page.select_one(".message__receipt").get_text()
    assert "Cost" in receipt and "neither the provider nor the price list" in receipt


@pytest.fixture
def frames(app, chat):
    """Return the frames that open pages of the chat have got since the last call: `frames()`."""
    watching = app.extensions["chattable_redis"].pubsub(ignore_subscribe_messages=True)
    watching.subscribe(f"{PREFIX}:chat:{chat}")
    (name,) = watching.channels
    watching.get_message(timeout=patient(2))

    def read():
        # Redis keeps the order: what was sent before the last word is here before it
        app.extensions["chattable_redis"].publish(name, "the last word")
        messages = (message["data"].decode() for message in watching.listen())
        return list(itertools.takewhile("the last word".__ne__, messages))

    yield read
    watching.close()


def states(frames):
    """Return the (role, status) of the articles in frames."""
    return re.findall(r'data-role="(\w+)" data-status="(\w+)"', "".join(frames))


def test_both_hooks_show_messages_title_and_cost_on_open_pages(frames, send, run_jobs, provider):
    provider.says("Hello, ", "Ada!").uses(1000, 100)
    send("Hi there", model="gpt-4o-mini")
    run_jobs()
    shown = frames()
    assert states(shown)[:2] == [("user", "complete"), ("assistant", "pending")]
    assert states(shown)[-1] == ("assistant", "complete")
    assert any("Hello," in frame for frame in shown)
    assert any("<title>Hi there" in frame for frame in shown)
    assert "$0.0002" in shown[-1]


@pytest.mark.parametrize("rename", [True, False])
def test_the_end_of_a_reply_shows_the_title_somebody_gave_meanwhile(app, chat, frames, rename):
    with app.app_context():
        writer, seen = Chat.with_owner(chat), []
        _, reply = writer.exchange("Hello", str(uuid.uuid4()), "gpt-4o-mini")
        see_off(patience=patient(5))
        with app.app_context():  # elsewhere; its pages hear of it before the title of the writer
            db.session.get(Chat, chat).rename("Plans") if rename else None
            see_off(patience=patient(5))
        frames()
        writer.broadcast_title()
        db.event.listen(db.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
        reply.interrupt(reply.id)
    shown = [found[1] for frame in frames() if (found := re.search("<title>(.+) ·", frame))]
    assert shown == (["Hello", "Plans"] if rename else ["Hello"])
    # Nobody asks for a title that is known.
    assert rename == any(query.startswith("SELECT chats.title") for query in seen), seen


def test_the_conversation_so_far_is_what_the_provider_is_told(send, run_jobs, provider):
    for text, reply in (("one", "eins"), ("two", "zwei"), ("three", "drei")):
        provider.says(reply)
        send(text)
        run_jobs()
    told = [(line["role"], line["content"]) for line in provider.requests[-1].json["messages"]]
    assert told == [
        ("user", "one"),
        ("assistant", "eins"),
        ("user", "two"),
        ("assistant", "zwei"),
        ("user", "three"),
    ]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ([], [("user", "one\n\ntwo")]),
        ([" \n\u3000\t"], [("user", "one\n\ntwo")]),
        (["half"], [("user", "one"), ("assistant", "half"), ("user", "two")]),
    ],
    ids=["empty", "blank", "half"],
)
def test_a_reply_that_failed_leaves_a_conversation_that_providers_take(
    send, run_jobs, messages, provider, reply, told
):
    provider.reply().says(*reply).cuts() if reply else provider.fails(400)
    send("one")
    run_jobs()
    assert messages()[-1].status == "failed"
    send("two")
    run_jobs()
    asked = provider.requests[-1].json["messages"]
    assert [(line["role"], line["content"]) for line in asked] == told


def test_the_model_select_stays_at_the_model_of_the_last_reply(ada, chat, send, run_jobs):
    def selected(path):
        return parse(ada.get(path).text).select_one("#model option[selected]").get_text()

    assert selected(f"/chats/{chat}") == "gpt-4o-mini"
    send(model="gpt-4o")
    run_jobs()
    assert selected(f"/chats/{chat}") == "gpt-4o"


def test_a_new_chat_opens_with_the_model_that_was_picked(ada):
    answer = ada.post("/chats", data={"content": "Hello", "model": "gpt-4o"})
    page = parse(ada.get(answer.location).text)
    assert page.select_one("#model option[selected]").get_text() == "gpt-4o"


def test_a_new_chat_begins_with_its_first_message(ada, run_jobs, provider):
    provider.says("Noon.")
    answer = ada.post("/chats", data={"content": "What is the time?", "model": "gpt-4o"})
    assert answer.status_code == 303
    run_jobs()
    page = ada.get(answer.location)
    assert parse(page.text).h1.get_text() == "What is the time?"
    assert [article.select_one(".message__body").get_text() for article in articles(page)] == [
        "What is the time?",
        "Noon.",
    ]


def test_htmx_is_led_to_the_new_chat(ada):
    answer = ada.post("/chats", data={"content": "Hello"}, headers=HTMX)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (200, "/chats/1")


def test_without_javascript_sending_leads_back_to_the_chat(chat, send, queued):
    answer = send(headers={})
    assert (answer.status_code, answer.location) == (303, f"/chats/{chat}")
    assert len(queued()) == 1


def test_what_people_write_is_not_shown_to_who_looks_at_the_queue(send, queued):
    send("my secret")
    assert "my secret" not in queued()[0].description


# what is refused


@pytest.mark.parametrize("content", ["", "   \r\n\t ", "\0"])
def test_an_empty_message_is_refused(send, queued, content):
    answer = send(content)
    assert answer.status_code == 422
    assert "Write a message first" in sentence(answer)
    assert queued() == []


def test_a_message_may_be_as_long_as_the_limit_and_no_longer(app, send, queued):
    app.config["MAX_MESSAGE_LENGTH"] = 10
    answer = send("x" * 11)
    assert answer.status_code == 422
    assert "11 characters" in sentence(answer)
    assert "10" in sentence(answer)
    assert queued() == []
    assert send("x" * 10).status_code == 204


def test_more_than_the_server_reads_is_refused_in_a_sentence(send):
    answer = send("x" * 9_000_000)
    assert answer.status_code == 413
    assert "Shorten it" in sentence(answer)


def test_a_model_that_is_not_offered_is_refused(send, queued):
    answer = send(model="gpt-9<b>")
    assert answer.status_code == 422
    assert "gpt-9<b>" in sentence(answer)
    assert "<b>" not in answer.text
    assert queued() == []


@pytest.mark.parametrize("client_id", ["nonsense", "1", "x" * 10_000, "' OR 1=1"])
def test_an_id_that_is_no_uuid_is_refused(send, queued, client_id):
    answer = send(client_id=client_id)
    assert answer.status_code == 422
    assert "Reload" in sentence(answer)
    assert queued() == []


@pytest.mark.parametrize("chat_id", ["", "99", "abc", "-1", str(2**70)])
def test_a_chat_that_is_not_mine_is_refused(send, queued, chat_id):
    answer = send(chat_id=chat_id)
    assert answer.status_code == 404
    assert "not yours" in sentence(answer)
    assert queued() == []


def test_without_javascript_a_refused_text_is_still_in_the_field(app, ada, chat, send):
    app.config["MAX_MESSAGE_LENGTH"] = 10
    text = "<b>too long</b> to be sent"
    for answer in (
        send(text, headers={}, model="gpt-4o"),
        ada.post("/chats", data={"content": text, "model": "gpt-4o"}),
    ):
        assert answer.status_code == 422
        page = parse(answer.text)
        assert "26 characters" in page.select_one("#composer-error").get_text()
        assert page.textarea.get_text() == text
        assert page.select_one("#model option[selected]").get_text() == "gpt-4o"


def test_line_breaks_are_kept_as_one_character(send, run_jobs, messages):
    send("  one\r\n\r\ntwo\n three \0 ")
    run_jobs()
    assert messages()[0].content == "one\n\ntwo\n three"


# sending twice


def test_a_job_that_runs_twice_stores_and_bills_once(
    send, run_jobs, queued, messages, provider, app
):
    provider.says("Once.").uses(10, 2)
    send("Hello")
    args = queued()[0].args
    run_jobs()
    before = [(message.id, message.content, message.status) for message in messages()]
    with app.app_context():
        queue.queue().enqueue(jobs.create_message_and_stream, *args)
    run_jobs()
    assert [(message.id, message.content, message.status) for message in messages()] == before
    assert len(provider.requests) == 1


def test_what_is_sent_again_when_redis_has_forgotten_it_is_not_asked_again(
    send, run_jobs, messages, provider, redis_server
):
    client_id = str(uuid.uuid4())
    for _ in range(2):
        assert send("Hello", client_id=client_id).status_code == 204
        run_jobs()
        with redis_server.client() as client:
            client.flushall()
    assert len(messages()) == 2
    assert len(provider.requests) == 1


def test_a_request_whose_worker_died_before_saving_the_message_is_on_the_books(
    app, ada, chat, send, run_jobs, messages, provider
):
    client_id = str(uuid.uuid4())
    with app.app_context():
        live.claim(f"{chat}-{client_id}")
    provider.says("At last.").uses(1000, 100)
    send("a long question " * 100, client_id=client_id, model="gpt-4o")
    run_jobs()
    lost, question, reply = messages()
    assert (lost.status, lost.unseen, lost.usage_estimated) == ("failed", True, True)
    assert lost.prompt_token_usage == 404
    assert (question.role, reply.status) == ("user", "complete")
    with app.app_context():
        total = db.session.get(Chat, chat).cost
    assert total == lost.input_cost + reply.input_cost + reply.output_cost
    assert len(articles(ada.get(f"/chats/{chat}"))) == 2
    with app.app_context():
        _, frames = db.session.get(Chat, chat).catch_up(0)
    assert f"message-{lost.id}" not in "".join(frames)


def test_the_same_id_in_another_chat_is_another_message(ada, send, run_jobs, messages, provider):
    client_id = str(uuid.uuid4())
    other = int(ada.post("/chats").location.rsplit("/", 1)[1])
    for fields in ({}, {"chat_id": other}):
        send("Hello", client_id=client_id, **fields)
        run_jobs()
    assert len(messages()) == 4
    assert len(provider.requests) == 2


def test_what_two_webs_enqueue_at_once_keeps_its_turn(send, monkeypatch):
    client_id = str(uuid.uuid4())
    assert send("Hello", client_id=client_id).status_code == 204
    with monkeypatch.context() as late:
        # it took the turn first, and is the second to enqueue
        late.setattr(queue, "take_turn", lambda *_: "taken")
        assert send("Hello", client_id=client_id).status_code == 204
    assert send("And?").status_code == 409


def test_what_broke_off_is_done_when_it_is_sent_again(send, queued):
    client_id = str(uuid.uuid4())
    send("Hello", client_id=client_id)
    queued()[0].cancel()
    assert queued() == []
    for _ in range(2):
        assert send("Hello", client_id=client_id).status_code == 204
        assert len(queued()) == 1


def test_what_failed_long_ago_is_forgotten_and_what_failed_now_is_not(app, send, queued):
    send("Hello")
    (job,) = queued()
    with app.app_context():
        failed = queue.queue().failed_job_registry
        for ttl, kept in ((queue.KEPT_WHEN_FAILED, True), (365 * 86400, False)):
            failed.add(job, ttl)
            queue.delete_cancelled_jobs()
            assert Job.exists(job.id, connection=live.redis()) is kept


def test_a_turn_stays_with_who_took_it_though_what_is_sent_again_cannot_be_enqueued(app, chat):
    unfit = jobs.create_message_and_stream, threading.Lock()
    with app.app_context():
        mine = db.session.get(Chat, chat)
        live.take_turn(chat, "mine")  # as who will enqueue it in a moment
        for token, holder in (("mine", "mine"), ("theirs", "")):
            with pytest.raises(TypeError, match="pickle"):
                queue.enqueue_turn(mine, token, *unfit)
            assert live.turn_holder(chat)[0] == holder
            live.end_turn(chat)


def test_a_reply_holds_its_lease_from_its_beginning_on(app, chat):
    with app.app_context():
        reply_id = db.session.get(Chat, chat).begin_reply("gpt-4o").id
    # whose end has waited for what was announced in it
    with app.app_context():
        assert live.leased([reply_id]) == {reply_id}


def test_what_waited_in_the_queue_of_an_earlier_version_is_answered(
    app, chat, run_jobs, messages, provider
):
    words = ["Hello", "gpt-4o", str(uuid.uuid4())]
    with app.app_context():
        earlier = Queue("replies", connection=live.redis())
        earlier.enqueue("jobs.create_message_and_stream", chat, *words, job_id=f"{chat}-{words[2]}")
        jobs.adopt_jobs()
        assert earlier.job_ids == []
    run_jobs()
    assert [message.status for message in messages()] == ["complete"] * 2
    assert len(provider.requests) == 1


def test_a_message_whose_worker_died_before_telling_is_shown_when_the_job_runs_again(
    app, chat, frames, send, run_jobs
):
    send("Hello", client_id=left_by_a_dead_worker(app, chat))
    run_jobs()
    shown = frames()
    assert states(shown)[0] == ("user", "complete")
    assert any("<title>Hello" in frame for frame in shown)


def test_an_end_whose_worker_died_before_telling_is_shown_when_the_job_runs_again(
    app, chat, frames, send, run_jobs, provider
):
    reply = Message(chat_id=chat, role="assistant", status="complete", content="Done.", model="m")
    send("Hello", client_id=left_by_a_dead_worker(app, chat, reply))
    run_jobs()
    assert states(frames())[-1] == ("assistant", "complete")
    assert provider.requests == []


def left_by_a_dead_worker(app, chat_id, *replies):
    """Store a person's message that nobody was told of, and replies; return its client id."""
    said = {"role": "user", "content": "Hello", "client_id": str(uuid.uuid4())}
    with app.app_context():
        db.session.get(Chat, chat_id).title = "Hello"
        db.session.add(Message(chat_id=chat_id, status="complete", **said))
        db.session.add_all(replies)
        db.session.commit()
        live.claim(f"{chat_id}-{said['client_id']}")
    return said["client_id"]


def test_a_job_that_runs_again_forgets_nothing_of_the_reply_its_worker_left(
    app, chat, send, run_jobs, messages
):
    reply = Message(chat_id=chat, role="assistant", status="streaming", content="saved ", model="m")
    client_id = left_by_a_dead_worker(app, chat, reply)
    reply_id = messages()[-1].id
    redis = app.extensions["chattable_redis"]
    redis.set(f"{PREFIX}:chat:{chat}:text", "saved and shown")
    redis.set(f"{PREFIX}:chat:{chat}:key", f"{reply_id} <p>saved and shown</p>")
    send("Hello", client_id=client_id)
    run_jobs()
    with app.app_context():
        Message.interrupt(reply_id)
    assert messages()[-1].content == "saved and shown"


def test_a_reply_that_was_declared_dead_is_not_announced_as_beginning(app, chat, frames):
    reply = Message(chat_id=chat, role="assistant", status="pending", content="", model="m")
    with app.app_context():
        db.session.add(reply)
        db.session.commit()
        with app.app_context():  # elsewhere, meanwhile
            Message.interrupt(reply.id)
        assert states(frames()) == [("assistant", "failed")]
        live.broadcast_message(reply)
        reply.chat.broadcast_title()
    assert states(frames()) == []


def test_the_same_text_with_another_id_is_another_message(send, run_jobs, messages):
    for _ in range(2):
        send("Hello")
        run_jobs()
    assert [message.content for message in messages() if message.role == "user"] == ["Hello"] * 2


def test_sending_again_after_the_reply_changes_nothing(send, run_jobs, messages, provider):
    client_id = str(uuid.uuid4())
    for spelling in (client_id, client_id.upper(), f"{{{client_id}}}"):
        assert send("Hello", client_id=spelling).status_code == 204
        run_jobs()
    assert len(messages()) == 2
    assert len(provider.requests) == 1


def test_enqueued_twice_at_once_it_is_stored_and_billed_once(stack, provider):
    ada = stack.signup()
    chat = ada.new_chat()
    script = provider.says("Only ", hold=True).says("once.")
    socket = ada.socket(chat)
    client_id = str(uuid.uuid4())
    posts = [
        threading.Thread(target=ada.say, args=[chat, "Hello"], kwargs={"client_id": client_id})
        for _ in range(4)
    ]
    for post in posts:
        post.start()
    for post in posts:
        post.join()
    script.wait_for_hold()
    script.release()
    socket.wait_for('data-role="assistant" data-status="complete"')
    redis = stack.redis.client()
    wait_until(lambda: not redis.exists(f"{PREFIX}:chat:{chat}:turn"), 10, "the jobs' end")
    wait_until(lambda: not redis.exists(f"rq:queue:{QUEUE}"), 10, "the queue's end")
    page = parse(ada.get(f"/chats/{chat}").text)
    shown = [article["data-role"] for article in page.select("#messages > article")]
    assert shown == ["user", "assistant"]
    assert len(provider.requests) == 1
    assert not FailedJobRegistry(QUEUE, connection=redis).get_job_ids()


def test_a_second_message_while_a_reply_is_written_has_to_wait(stack, provider):
    ada = stack.signup()
    chat = ada.new_chat()
    script = provider.says("one ", hold=True).says("two")
    socket = ada.socket(chat)
    assert ada.say(chat, "first").status == 204
    script.wait_for_hold()
    answer = ada.say(chat, "second")
    assert answer.status == 409
    assert KEPT in parse(answer.text).select_one("[data-problem]").get_text()
    script.release()
    socket.wait_for('data-role="assistant" data-status="complete"')
    wait_for_turn(stack, chat)
    assert ada.say(chat, "second").status == 204
    wait_for_turn(stack, chat)


def wait_for_turn(stack, chat):
    """Wait until nothing is said or answered in a chat any more."""
    with stack.redis.client() as redis:
        wait_until(lambda: not redis.exists(f"{PREFIX}:chat:{chat}:turn"), 5, "the job's end")


def test_a_second_message_before_a_worker_took_the_first_has_to_wait(send, queued):
    assert send("first").status_code == 204
    answer = send("second")
    assert answer.status_code == 409
    assert KEPT in sentence(answer)
    assert len(queued()) == 1


@pytest.fixture
def stop(ada, chat):
    """Press Stop."""
    return lambda: ada.post(f"/chats/{chat}/stop", headers=HTMX)


def said(messages):
    return [(message.content, message.status) for message in messages()]


@pytest.mark.parametrize("taken", [False, True])
def test_a_reply_that_nobody_has_begun_can_be_stopped(
    app, send, stop, queued, run_jobs, messages, provider, taken
):
    send("first")
    (job,) = queued()
    if taken:  # by a worker that has not begun yet
        with app.app_context():
            queue.queue().remove(job)
    assert stop().status_code == 204
    assert said(messages) == [("first", "complete"), ("", "stopped")]
    if taken:
        with app.app_context():
            jobs.create_message_and_stream(*job.args)
    assert send("second").status_code == 204
    run_jobs()
    assert [request.prompt for request in provider.requests] == ["first\n\nsecond"]
    assert [status for _, status in said(messages)] == ["complete", "stopped"] + 2 * ["complete"]


def test_a_reply_stays_if_asking_for_it_again_is_stopped_before_anybody_has(
    ada, send, stop, run_jobs, messages, provider
):
    provider.says("Hello!")
    send("Hi")
    run_jobs()
    reply = messages()[1].id
    for _ in range(2):
        assert ada.post(f"/messages/{reply}/retry", headers=HTMX).status_code == 204
        stop()
    run_jobs()
    assert said(messages) == [("Hi", "complete"), ("Hello!", "complete")]
    assert len(provider.requests) == 1


@pytest.fixture
def lose_job(app, chat):
    """Have the chat's turn belong, since a while, to a job that Redis has lost."""

    def lose(seconds=10):
        with app.app_context():
            live.end_turn(chat)
            live.take_turn(chat, "lost")
            live.redis().expire(live.turn_key(chat), live.TURN - seconds)

    return lose


def test_a_turn_whose_job_was_lost_is_taken_over_but_not_at_once(send, queued, lose_job):
    lose_job(seconds=0)
    assert send("now").status_code == 409
    lose_job()
    assert send("a little later").status_code == 204
    assert len(queued()) == 1
    assert send("and again").status_code == 409


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.STARTED, JobStatus.SCHEDULED])
def test_a_turn_is_left_to_a_job_that_is_still_to_be_done(app, chat, send, queued, status):
    assert send("first").status_code == 204
    with app.app_context():
        queued()[0].set_status(status)
        live.redis().expire(live.turn_key(chat), live.TURN - 10)
    assert send("second").status_code == 409
    assert len(queued()) == 1


def test_a_turn_is_left_to_a_reply_that_is_being_written(app, chat, send, lose_job):
    with app.app_context():
        reply = db.session.get(Chat, chat).begin_reply("gpt-4o-mini")
        lose_job()
        assert send("too early").status_code == 409
        reply.status = "stopped"
        db.session.commit()
    assert send("now").status_code == 204


def test_a_job_does_not_wait_for_a_turn_whose_job_was_lost(send, run_jobs, messages, lose_job):
    assert send("precious words").status_code == 204
    lose_job()
    run_jobs()
    assert [message.status for message in messages()] == ["complete", "complete"]


def test_a_turn_that_somebody_took_over_is_not_ended_by_whom_it_was_taken_from(app, chat, lose_job):
    lose_job()
    with app.app_context():
        assert live.take_over_turn(chat, "mine", "lost")
        assert not live.take_over_turn(chat, "yours", "lost")
        live.end_turn(chat, "lost")
        assert live.turn_holder(chat)[0] == "mine"


def test_a_turn_ends_with_the_announcement_of_an_end(app, chat):
    with app.app_context():
        reply = db.session.get(Chat, chat).begin_reply("gpt-4o-mini")
        reply.status = "stopped"
        db.session.commit()
        live.take_turn(chat, "a retry")
        live.broadcast_message(reply)
        assert live.turn_holder(chat)[0] == ""


# asking again


@pytest.fixture
def replied(chat, send, run_jobs, provider, messages):
    """Ada has asked "Hello" and got a reply: its id."""
    provider.says("First.").uses(1000, 100)
    send("Hello", model="gpt-4o")
    run_jobs()
    return messages()[-1].id


@pytest.mark.parametrize("ending", ["complete", "failed"])
def test_asking_again_keeps_one_question_and_shows_one_reply(
    ada, chat, send, run_jobs, messages, provider, ending
):
    if ending == "failed":
        provider.fails(400)
    send("Hello")
    run_jobs()
    first = messages()[-1]
    assert first.status == ending
    button = articles(ada.get(f"/chats/{chat}"))[-1].select_one(".message__retry")
    assert button.get_text() == {"complete": "Regenerate", "failed": "Retry"}[ending]
    provider.says("Second.")
    assert ada.post(button["hx-post"], headers=HTMX).status_code == 204
    run_jobs()
    question, reply = articles(ada.get(f"/chats/{chat}"))
    assert question["data-role"] == "user"
    assert reply.select_one(".message__body").get_text() == "Second."
    assert provider.requests[-1].json["messages"] == [{"role": "user", "content": "Hello"}]


def test_what_the_first_reply_cost_still_counts(
    app, ada, chat, replied, run_jobs, messages, provider
):
    provider.says("Second.").uses(1000, 200)
    ada.post(f"/messages/{replied}/retry")
    run_jobs()
    assert messages()[-1].output_cost == Decimal("0.002")
    with app.app_context():
        total = db.session.get(Chat, chat).cost
    assert total == Decimal("0.0025") + Decimal("0.001") + Decimal("0.0025") + Decimal("0.002")
    assert "$0.0080" in parse(ada.get(f"/chats/{chat}").text).select_one(".chat__cost").get_text()


def test_asking_again_can_pick_another_model(ada, replied, run_jobs, messages):
    ada.post(f"/messages/{replied}/retry", data={"model": "gpt-4o-mini"})
    run_jobs()
    assert [message.model for message in messages()] == [None, "gpt-4o", "gpt-4o-mini"]


def test_asking_again_twice_at_once_asks_once(ada, replied, run_jobs, provider, messages):
    again = f"/messages/{replied}/retry"
    answers = [ada.post(again, headers=HTMX).status_code for _ in range(2)]
    assert answers[0] == 204
    run_jobs()
    assert len(provider.requests) == 2
    assert len(messages()) == 3


def test_only_a_reply_that_has_ended_can_be_asked_for_again(ada, replied, messages):
    answer = ada.post(f"/messages/{messages()[0].id}/retry", headers=HTMX)
    assert answer.status_code == 409
    assert "Only a reply that has ended" in sentence(answer)
    assert len(messages()) == 2


def test_a_model_that_is_gone_cannot_be_asked_again(app, ada, replied, queued):
    app.config["MODELS"] = ["gpt-4o-mini"]
    answer = ada.post(f"/messages/{replied}/retry", headers=HTMX)
    assert answer.status_code == 422
    assert "Pick another one" in sentence(answer)
    assert queued() == []


def test_a_provider_that_fails_leaves_a_sentence_and_no_bill(
    ada, chat, send, run_jobs, messages, provider
):
    provider.fails(401)
    send("Hello")
    run_jobs()
    reply = messages()[-1]
    assert reply.status == "failed"
    assert (reply.input_cost, reply.output_cost) == (None, None)
    article = articles(ada.get(f"/chats/{chat}"))[-1]
    assert "OPENAI_API_KEY" in article.select_one(".message__error").get_text()
    assert "sk-test" not in str(article)


# when Redis is away


@pytest.fixture
def away(make_app):
    """Ada's browser at an app whose Redis is away, and its app."""
    app = make_app(REDIS_URL="redis://127.0.0.1:9/0")
    client = app.test_client()
    form = {"name": "Ada", "email": "ada@example.com", "password": "correct horse battery"}
    assert client.post("/signup", data=form).status_code == 302
    client.post("/chats")
    return client


def test_without_redis_a_message_is_refused_and_its_text_kept(away):
    fields = {"chat_id": 1, "content": "precious", "client_id": str(uuid.uuid4())}
    answer = away.post("/messages", data=fields, headers=HTMX)
    assert answer.status_code == 503
    assert KEPT in sentence(answer).lower()
    answer = away.post("/messages", data=fields)
    assert answer.status_code == 503
    assert parse(answer.text).textarea.get_text() == "precious"


def test_without_redis_a_new_chat_is_refused_and_its_text_kept(away):
    answer = away.post("/chats", data={"content": "precious"})
    assert answer.status_code == 503
    assert parse(answer.text).textarea.get_text() == "precious"
    assert len(parse(away.get("/chats").text).select(".listing__link")) == 1


@pytest.mark.parametrize("path", ["/chats", "/chats/new", "/chats/1", "/chats/1/edit"])
def test_without_redis_pages_can_still_be_read(away, path):
    assert away.get(path).status_code == 200


def test_without_redis_a_chat_can_be_renamed_and_deleted(away):
    assert away.post("/chats/1", data={"title": "Renamed"}).status_code == 303
    assert parse(away.get("/chats/1").text).h1.get_text() == "Renamed"
    assert away.post("/chats/1/delete").status_code == 303
    assert away.get("/chats/1").status_code == 404


def test_without_redis_a_chat_whose_reply_is_being_written_can_be_deleted(away):
    with away.application.app_context():
        db.session.add(Message(chat_id=1, role="assistant", status="streaming", model="gpt-4o"))
        db.session.commit()
    assert away.post("/chats/1/delete").status_code == 303
    assert away.get("/chats/1").status_code == 404
