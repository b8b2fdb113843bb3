"""The same page under other web servers than the Procfile's: threads instead of greenlets."""

from contextlib import closing

import pytest

from tests.services import wait_until
from tests.session import Socket
from tests.stack import PREFIX, Stack
from tests.tab import Tab, numbered, prose, send, step_by_step, words

SERVERS = {
    "flask run": "flask --app tests.own_socket run --port $PORT",
    "flask run --debug": "flask --app tests.own_socket run --port $PORT --debug",
    "gthread": 'gunicorn --worker-class gthread --threads 24 --no-control-socket "{app}"',
    "gevent": 'gunicorn --worker-class gevent --no-control-socket "{app}"',
}


@pytest.fixture(scope="module", params=SERVERS)
def served(request, provider_server):
    """A stack whose web is another server, with a worker as ever."""
    command = SERVERS[request.param].format(app="tests.own_socket:app")
    with closing(Stack(provider_server.url)) as stack:
        stack.release()
        stack.start_worker()
        stack.start_web(command=command)
        yield stack


@pytest.fixture
def stack(served, provider):
    return served


def test_a_page_shows_a_reply_as_it_grows_and_ends_equal_to_a_fresh_load(tab, provider):
    step_by_step(tab, provider, prose(100))
    assert sum(frame[0] == "{" for frame in tab.socket.frames) >= 4
    assert tab.html == tab.reloaded()


def test_a_tab_opened_in_mid_reply_catches_up_and_stop_ends_it(tab, provider):
    script = provider.says(*prose(40), hold=True)
    send(tab)
    tab.wait_for_words("w39")
    late = Tab(tab.person, tab.chat_id)
    assert words(late.wait_until(lambda late: late.text)) == numbered(40)
    assert tab.person.stop(tab.reply_id).status == 204
    script.wait_for_disconnect()
    for each in (tab, late):
        each.wait_for_status("stopped")
        assert each.html == each.reloaded()


def test_pages_that_left_cost_no_thread_and_no_subscription(stack, ada):
    """In all they are more than a server with a thread for each has threads."""
    chat = ada.new_chat()
    with stack.redis.client() as client:
        for number in range(5):
            sockets = [ada.socket(chat) for _ in range(8)]
            assert ada.post(f"/chats/{chat}", title=f"Visit {number}").status == 303
            for each in sockets:
                each.wait_for(f"Visit {number}")
                each.drop()
        wait_until(lambda: listeners(client, chat) == 0, 15, "the web to listen no more")


def listeners(client, chat):
    return client.pubsub_numsub(f"{PREFIX}:chat:{chat}")[0][1]


def test_the_socket_of_an_own_app_shows_what_has_changed_since_and_what_comes(tab, provider):
    provider.says("Welcome.")
    send(tab)
    tab.wait_for_status("complete")
    own = own_socket(tab.person, tab.chat_id)
    own.wait_for("Welcome.")
    provider.says("And more.")
    send(tab)
    own.wait_for("And more.")
    own.wait_for_status(tab.wait_for_status("complete", replies=2).reply_id, "complete")


def test_the_socket_of_an_own_app_shows_nobody_what_is_not_theirs(stack, tab):
    assert own_socket(stack.signup(), tab.chat_id).wait_for_close() == 1008
    assert own_socket(tab.person, 12345).wait_for_close() == 1008
    foreign = own_socket(tab.person, tab.chat_id, origin="http://elsewhere.example")
    assert foreign.wait_for_close() == 1008
    assert not foreign.frames


def own_socket(person, chat_id, **options):
    return Socket(person.host, f"/own/{chat_id}?since=0", person.cookie, **options)


def test_many_sockets_hold_no_connection_to_the_database(stack, ada):
    """There are six; with one held by each socket, the page would wait for the seventh."""
    chat = ada.new_chat()
    sockets = [own_socket(ada, chat) for _ in range(10)]
    assert ada.post(f"/chats/{chat}", title="Many watch").status == 303
    for each in sockets:
        each.wait_for("Many watch")
    assert ada.get(f"/chats/{chat}").status == 200
    for each in sockets:
        each.drop()
