"""Several installs on one Redis: nothing of one is seen, taken or ended by another."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from chattable import install, live, queue
from models import Chat, db
from tests.services import Redis, wait_until
from tests.stack import Stack
from tests.tab import Tab, numbered, prose, send, words
from tests.test_accounts import ADA


@pytest.fixture(scope="module", params=[1, 0], ids=["two databases", "one database"])
def neighbours(request, provider_server):
    """Two installs with nothing in common but a Redis server, or even one database of it."""
    unnamed = {"REDIS_PREFIX": ""}
    with closing(Redis()) as redis, ExitStack() as started:
        databases = [redis.database(0), redis.database(request.param)]
        stacks = [Stack(provider_server.url, redis=each, env=unnamed) for each in databases]
        for stack in stacks:
            started.enter_context(closing(stack))
            stack.start()
        yield stacks


@pytest.fixture
def tabs(neighbours, provider):
    """A tab in each install, of chats with the same number."""
    people = [stack.signup() for stack in neighbours]
    tabs = [Tab(person, person.new_chat()) for person in people]
    assert tabs[0].chat_id == tabs[1].chat_id
    return tabs


def heard_nothing(tab):
    """Return whether a tab has got no frame but one that is made now."""
    assert tab.person.post(f"/chats/{tab.chat_id}", title="All quiet here").status == 303
    tab.socket.wait_for("All quiet here")
    own = ("All quiet here", '{"listed":')  # the title, in the list of chats, too
    heard = [frame for frame in tab.socket.frames if not any(word in frame for word in own)]
    return not heard and tab.socket.code is None


def test_what_is_said_in_one_install_is_neither_heard_nor_stored_in_another(tabs, provider):
    for number in range(1, 5):
        for owner, tab in zip(["my", "their"], tabs, strict=True):
            provider.says(f"{owner} answer")
            send(tab, f"{owner} question")
            tab.wait_for_status("complete", replies=number)
    for tab, others in zip(tabs, ["their", "my"], strict=True):
        assert not any(others in frame for frame in tab.socket.frames)
        assert tab.html == tab.reloaded()
        assert others not in tab.html


def test_the_same_message_may_be_sent_in_both_at_once(tabs, provider):
    client_id = str(uuid.uuid4())
    scripts = [provider.says(f"answer {n} ", hold=True, when=f"chat {n}") for n in range(2)]
    for n, tab in enumerate(tabs):
        send(tab, f"chat {n}", client_id=client_id)
    for n, (tab, script) in enumerate(zip(tabs, scripts, strict=True)):
        tab.wait_for_words(f"answer {n}")
        script.release()
        tab.wait_for_status("complete")
        assert tab.html == tab.reloaded()


def test_stop_in_one_install_leaves_the_reply_of_another_alone(tabs, provider):
    scripts = [provider.says(*prose(20), hold=True, when=f"chat {n}") for n in range(2)]
    for n, tab in enumerate(tabs):
        send(tab, f"chat {n}")
        tab.wait_for_words("w19")
    assert tabs[0].reply_id == tabs[1].reply_id
    assert tabs[0].person.stop(tabs[0].reply_id).status == 204
    tabs[0].wait_for_status("stopped")
    scripts[1].says(" w20").release()
    tabs[1].wait_for_status("complete")
    assert words(tabs[1].text) == numbered(21)


def test_deleting_a_chat_closes_no_page_of_another_install(tabs):
    mine, theirs = tabs
    assert mine.person.post(f"/chats/{mine.chat_id}/delete").status == 303
    assert mine.socket.wait_for_close() == 1008
    assert heard_nothing(theirs)


@pytest.fixture
def two_apps(make_app, tmp_path):
    """Two apps that share a database of Redis and nothing else."""
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("one", "two")]
    return [make_app(DATABASE_URL=url, REDIS_PREFIX="") for url in urls]


def test_the_models_of_one_install_are_not_offered_in_another(two_apps):
    one, two = two_apps
    with one.app_context():
        live.keep_models(["my own model"])
        assert live.known_models() == ["my own model"]
    with two.app_context():
        assert live.known_models() == []


def test_each_install_names_its_queue_so_that_dashboards_tell_them_apart(two_apps):
    names = []
    for app in two_apps:
        with app.app_context():
            names.append(queue.queue().name)
            assert names[-1] == f"chattable:{install.own_name()}:replies"
    assert len(set(names)) == 2


def test_even_with_the_same_prefix_nobody_is_shown_what_another_install_says(stack, tab, make_app):
    stranger = make_app(REDIS_URL=stack.redis.database(1).url)
    with stranger.app_context():
        live.announce(tab.chat_id, "<p>a stranger's words</p>", wait=True)
        live.broadcast_deletion(tab.chat_id)
    assert heard_nothing(tab)


def test_even_with_the_same_prefix_nobody_stops_the_reply_of_another_install(
    stack, tab, provider, make_app
):
    script = provider.says(*prose(20), hold=True)
    send(tab)
    tab.wait_for_words("w19")
    stranger = make_app(REDIS_URL=stack.redis.database(1).url)
    with stranger.app_context():
        live.request_stop(tab.reply_id)
    script.says(" w20").release()
    tab.wait_for_status("complete")
    assert words(tab.text) == numbered(21)


def test_two_installs_on_one_host_do_not_sign_each_other_out(make_app):
    """Browsers send the cookies of all its ports; the same install has the same after a restart."""
    names = []
    for key in ("one", "another", "one"):
        visitor = make_app(SECRET_KEY=f"{key} secret for tests only").test_client()
        form = ADA | {"email": f"{len(names)}@example.com"}
        answer = visitor.post("/signup", data=form)
        assert answer.status_code == 302
        names.append({cookie.partition("=")[0] for cookie in answer.headers.getlist("Set-Cookie")})
    assert names[0] == names[2]
    assert names[0].isdisjoint(names[1])


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_whoever_asks_first_names_the_install_for_all(make_app, request, database):
    app = make_app(DATABASE_URL=request.getfixturevalue(f"{database}_url"))

    def ask(_):
        with app.app_context():
            return install.own_name()

    with ThreadPoolExecutor(5) as pool:
        names = set(pool.map(ask, range(20)))
    with app.app_context():
        assert names == set(db.session.scalars(db.select(Chat.installs.c.name)))
    assert len(names) == 1


def test_a_worker_that_comes_before_the_database_waits_for_it(provider):
    with closing(Stack(provider.url)) as stack, ThreadPoolExecutor() as pool:
        worker = pool.submit(stack.start_worker)
        told = "waiting for the database: it has no tables yet"
        wait_until(lambda: told in stack.log("worker"), 30, "its patience")
        stack.release()
        assert worker.result().poll() is None
        assert stack.log("worker").count(told) == 1
