"""What one person may have at once, over all processes: sockets, and replies that are written."""

import time
from contextlib import closing

import pytest

from chattable.live import seats
from chattable.live.seats import Seats
from tests.services import wait_until
from tests.stack import PREFIX, Stack

CROWDED = 1013


@pytest.fixture(scope="module")
def crowded(provider_server):
    """Two webs and a worker, where a person has three sockets and two replies at once."""
    env = {"RATELIMIT_ENABLED": "1", "SOCKETS_AT_ONCE": "3", "REPLIES_AT_ONCE": "2"}
    with closing(Stack(provider_server.url, env=env)) as stack:
        yield stack.start(webs=2)


@pytest.fixture
def stack(crowded, provider):
    return crowded


def articles(person, chat_id, status):
    return person.get(f"/chats/{chat_id}").text.count(f'data-status="{status}"')


# sockets


def test_a_socket_too_many_is_closed_wherever_it_comes(stack, ada):
    chat_id = ada.new_chat()
    other = stack.session(1)
    other.cookies = ada.cookies
    sockets = [person.socket(chat_id) for person in (ada, other, ada)]
    for person in (ada, other):
        assert person.socket(chat_id).wait_for_close() == CROWDED
    assert all(socket.code is None for socket in sockets)
    # Its page asks over HTTP.
    assert ada.get(f"/chats/{chat_id}/updates", **{"HX-Request": "true"}).status == 200
    eve = stack.signup("Eve")
    assert has_room(eve, eve.new_chat())
    sockets[0].close()
    wait_until(lambda: has_room(other, chat_id), 10, "a place")


def has_room(person, chat_id):
    socket = person.socket(chat_id)
    wait_until(lambda: socket.code or socket.decoder.beats, 5, "a word")
    return not socket.code


@pytest.fixture
def two(app):
    """Two processes' counts of sockets."""
    return [Seats(app.extensions["chattable_redis"]) for _ in range(2)]


def test_a_process_that_was_killed_has_no_sockets_for_long(app, two, redis_server):
    one, other = two
    with one.seat("ada", 1) as first, other.seat("ada", 1) as second:
        assert (first, second) == (True, False)
        with redis_server.client() as redis:
            count, ends = redis.hvals("ada:sockets")[0].split()
            assert count == b"1" and 0 < int(ends) - time.time() <= seats.LIFE
            redis.hset("ada:sockets", one._process, f"1 {int(time.time()) - 1}")
    with other.seat("ada", 1) as third:
        assert third


def test_what_is_open_goes_on_being_told(app, two, redis_server, monkeypatch):
    monkeypatch.setattr(seats, "SOON", 0.05)
    with two[0].seat("ada", 5), redis_server.client() as redis:
        redis.delete("ada:sockets")
        wait_until(lambda: redis.hlen("ada:sockets"), 5, "a count")
    with redis_server.client() as redis:
        wait_until(lambda: not redis.exists("ada:sockets"), 5, "no count")


def test_where_redis_is_away_no_socket_is_refused(make_app):
    app = make_app(REDIS_URL="redis://127.0.0.1:9/0")
    with Seats(app.extensions["chattable_redis"]).seat("ada", 1) as seat:
        assert seat


# replies


def test_no_more_replies_are_written_at_once_and_all_are_in_order(stack, ada, provider):
    chats = [ada.new_chat() for _ in range(5)]
    scripts = [provider.says("Hi", hold=True, when=f"number {n}") for n in range(5)]
    for number, chat_id in enumerate(chats):
        assert ada.say(chat_id, f"number {number}").status == 204
    assert articles(ada, chats[4], "pending") == 1
    for number in range(5):
        provider.wait_for_request(min(number + 2, 5))
        assert len(provider.requests) == min(number + 2, 5)
        scripts[number].release()
        wait_until(lambda: articles(ada, chats[number], "pending") == 0, 5, "an end")  # noqa: B023
    wait_until(lambda: articles(ada, chats[4], "complete") == 2, 5, "the last end")
    prompts = [request.prompt for request in provider.requests]
    assert sorted(prompts) == prompts or prompts[:2] == ["number 1", "number 0"]


def test_a_chat_that_is_deleted_while_it_is_written_gives_its_place(stack, ada, provider):
    chats = [ada.new_chat() for _ in range(3)]
    for number, chat_id in enumerate(chats):
        provider.says("Hi", hold=True, when=f"number {number}")
        assert ada.say(chat_id, f"number {number}").status == 204
    provider.wait_for_request(2)
    ada.post(f"/chats/{chats[0]}/delete")
    assert provider.wait_for_request(3).prompt == "number 2"
    provider.release()
    wait_until(lambda: articles(ada, chats[2], "complete") == 2, 5, "its reply")


def test_what_waits_goes_on_when_the_worker_was_killed(stack, ada, provider):
    chats = [ada.new_chat() for _ in range(3)]
    for number, chat_id in enumerate(chats):
        provider.says("Hi", hold=True, when=f"number {number}")
        assert ada.say(chat_id, f"number {number}").status == 204
    provider.wait_for_request(2)
    stack.kill_worker()
    stack.start_worker()
    provider.wait_for_request(3, timeout=30)
    assert provider.requests[-1].prompt == "number 2"
    provider.release()
    wait_until(lambda: articles(ada, chats[2], "complete") == 2, 5, "its reply")
    for chat_id in chats[:2]:
        wait_until(lambda: articles(ada, chat_id, "failed"), 15, "an end")  # noqa: B023


def test_what_waits_outlives_a_restart_of_redis_and_worker(stack, ada, provider):
    chats = [ada.new_chat() for _ in range(3)]
    scripts = [provider.says("Hi", hold=True, when=f"number {n}") for n in range(3)]
    for number, chat_id in enumerate(chats):
        assert ada.say(chat_id, f"number {number}").status == 204
    provider.wait_for_request(2)
    stack.redis.kill()
    stack.redis.start()
    for script in scripts:
        script.release()
    wait_until(lambda: articles(ada, chats[2], "complete") == 2, 30, "the reply that waited")
    with stack.redis.client() as redis:
        wait_until(lambda: not redis.keys(f"rq:rl:{PREFIX}:User:*:allowed"), 30, "free places")
