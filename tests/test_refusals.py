"""A Redis that answers but takes nothing new: full, a replica, without replicas, without a disk."""

from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from chattable import keepers, live
from models import Chat, Message, User, db
from tests.page import parse
from tests.services import wait_until
from tests.stack import Stack
from tests.tab import numbered, prose, send, words

# Seconds within which a page is told what Redis did not take.
TOLD_WITHIN = 15


@contextmanager
def full(server, client):
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@contextmanager
def replica(server, client):
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def lonely(server, client):
    client.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        client.config_set("min-replicas-to-write", 0)


@contextmanager
def diskless(server, client):
    in_its_way = Path(server.folder) / "dump.rdb"
    in_its_way.mkdir()
    client.config_set("save", "3600 1")
    client.bgsave()
    wait_until(lambda: failed(client.info()), 10, "a snapshot to fail")
    try:
        yield
    finally:
        client.config_set("save", "")
        in_its_way.rmdir()


def failed(info):
    return not info["rdb_bgsave_in_progress"] and info["rdb_last_bgsave_status"] != "ok"


@pytest.fixture(params=[full, replica, lonely, diskless], ids=lambda kind: kind.__name__)
def refusing(request):
    """Have a server take nothing new: `with refusing(server):`."""

    @contextmanager
    def refuse(server):
        with server.client() as client, request.param(server, client):
            with pytest.raises(ResponseError):
                client.set("anything", 1)
            yield

    return refuse


# What one process does.


@pytest.fixture
def reply(app):
    """The id of a reply that is being written, whose lease has run out."""
    with app.app_context():
        ada = User(name="Ada", email="ada@example.com", password_hash="none", chats=[Chat()])
        db.session.add(ada)
        db.session.commit()
        reply = ada.chats[0].begin_reply("gpt-4o-mini")
        wait_until(lambda: live.leased([reply.id]), 5, "the lease, which is told beside")
        live.redis().delete(live.lease_key(reply.id))
        return reply.id


def test_nobody_is_declared_dead_while_no_lease_can_be_renewed(app, reply, redis_server, refusing):
    with app.app_context():
        with refusing(redis_server):
            with pytest.raises(ResponseError):
                keepers.interrupt_orphans({reply: 0})
            with pytest.raises(ResponseError):
                Message.interrupt(reply)
        assert reply in keepers.interrupt_orphans({})
        assert Message.running_ids() == [reply]


def test_up_says_that_nothing_can_be_sent(app, client, redis_server, refusing):
    assert client.get("/up").status_code == 200
    with refusing(redis_server):
        assert client.get("/up").status_code == 503
    assert client.get("/up").status_code == 200


def test_a_message_is_refused_in_a_sentence_that_keeps_its_text(
    user, client, reply_less_chat, redis_server, refusing
):
    form = {"chat_id": reply_less_chat, "content": "precious", "model": "gpt-4o-mini"}
    with refusing(redis_server):
        answer = client.post("/messages", data=form, headers={"HX-Request": "true"})
        assert answer.status_code == 503
        assert "text is kept" in parse(answer.text).select_one("[data-problem]").get_text()
    assert client.post("/messages", data=form, headers={"HX-Request": "true"}).status_code == 204


@pytest.fixture
def reply_less_chat(user):
    user.chats.append(Chat())
    db.session.commit()
    return user.chats[0].id


def test_stop_says_so_where_no_worker_hears_it(app, reply, redis_server, refusing):
    with app.app_context(), refusing(redis_server), pytest.raises(ResponseError):
        live.request_stop(reply)


def test_a_page_loaded_now_shows_what_the_database_has(app, reply, redis_server, refusing):
    with app.app_context():
        message = db.session.get(Message, reply)
        message.broadcast = live.Broadcast()
        message.content, message.status = "one", "streaming"
        message.broadcast.update(message)
        with refusing(redis_server):
            message.content = "one two"
            message.broadcast.update(message)
            db.session.commit()
            _, frames = message.chat.catch_up(0)
        assert "one two" in "".join(frames)


# What a person sees.


@pytest.fixture(scope="module")
def workless(provider_server):
    with closing(Stack(provider_server.url, env={"SHUTDOWN_GRACE": "60"})) as stack:
        yield stack.start(workers=0)


@pytest.fixture
def tab(tab):
    """A tab that connects anew when it is told to, as all are after a failover."""
    tab.persists = True
    return tab


@pytest.fixture
def stack(workless, provider):
    """A stack whose worker has seen no refusal yet, and lets its replies finish in any case."""
    workless.start_worker()
    yield workless
    workless.kill_worker()


def catch_up(tab, until):
    """Connect anew, whenever a tab is told to, until it shows what `until(tab)` looks for."""
    while not until(tab):
        told = tab.wait_until(lambda tab: tab.socket.code or until(tab), TOLD_WITHIN)
        if told == 1012:
            back(tab)


def back(tab, timeout=TOLD_WITHIN):
    """Wait until a tab was told to connect anew, and do."""
    assert tab.socket.wait_for_close(timeout) == 1012
    tab.show()
    tab.connect()


def test_an_open_page_hears_of_the_end_that_redis_did_not_take(stack, tab, provider, refusing):
    script = provider.says(*prose(20), hold=True)
    send(tab)
    tab.wait_for_words("w19")
    with refusing(stack.redis):
        script.says(" w20").release()
        catch_up(tab, lambda tab: tab.status == "complete")
        assert words(tab.text) == numbered(21)
        assert tab.html == tab.reloaded()


def test_a_reply_goes_on_once_redis_takes_its_words_again(stack, tab, provider, refusing):
    script = provider.says(*prose(20), hold=True).says(" w20").holds().says(" w21").holds()
    send(tab)
    tab.wait_for_words("w19")
    with refusing(stack.redis):
        script.release()
        catch_up(tab, lambda tab: tab.reply and "w20" in words(tab.text))
    script.says(" w22").release()
    tab.wait_for_words("w21", TOLD_WITHIN)
    script.release()
    tab.wait_for_status("complete")
    assert words(tab.text) == numbered(23)
    assert tab.html == tab.reloaded()


def test_stop_is_heard_although_redis_keeps_no_word_of_it(stack, tab, provider, refusing):
    script = provider.says(*prose(20), hold=True)
    send(tab)
    tab.wait_for_words("w19")
    with refusing(stack.redis):
        assert tab.person.stop(tab.reply_id).status == 204
        script.wait_for_disconnect()
        catch_up(tab, lambda tab: tab.status == "stopped")
    assert tab.html == tab.reloaded()
