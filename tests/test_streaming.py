"""A reply on its way from the provider into open pages, and what people do to it meanwhile."""

import random
import re
import socket
import threading
import time
import uuid
from itertools import pairwise
from types import SimpleNamespace

import pytest
from simple_websocket import Server
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from chattable import live
from chattable.provider.stream import TICK
from models import Chat, Message, db
from tests.page import Page
from tests.patience import patient
from tests.services import wait_until
from tests.stack import PREFIX
from tests.tab import Tab, numbered, paced, prose, send, step_by_step, words

DOLLARS = re.compile(r"\$(\d+\.\d+)")


# What a page shows while the reply grows.


def test_a_page_shows_what_was_said_so_far_at_every_frame_and_never_less(tab, provider):
    history = []
    tab.seen = lambda tab: history.append(words(tab.text) if tab.reply else [])
    step_by_step(tab, provider, prose(400))
    assert len(history) >= 20
    assert all(shown == numbered(len(shown)) for shown in history)
    assert all(len(before) <= len(after) for before, after in pairwise(history))
    assert history[-1] == numbered(400)
    assert tab.html == tab.reloaded()


def test_what_turns_out_to_be_a_thought_is_taken_back_everywhere(tab, provider):
    script = provider.reply().says("Let me think.").pauses(1.5).says(" Hm.").holds()
    script.says("\n</think>\n\nIt is ").holds().says("42.").finishes()
    send(tab)
    tab.wait_for_words("Let me think. Hm.")
    script.release()
    tab.wait_until(lambda tab: tab.text == "It is")
    assert Tab(tab.person, tab.chat_id).wait_for_words("It is") and "Let me" not in tab.reloaded()
    script.release()
    tab.wait_for_status("complete")
    assert tab.text == "It is 42."
    assert (tab.summary, tab.thoughts()) == ("Thought for …", ("Let me think. Hm.", None))
    assert tab.html == tab.reloaded()


def test_the_end_of_a_reply_sends_again_only_what_differs(tab, provider):
    provider.says("Some words.\n\n```python\nx = 1\n```")
    send(tab)
    tab.wait_for_status("complete")
    ended = 'data-role="assistant" data-status="complete"'
    ends = [frame for frame in tab.socket.frames if ended in frame]
    said = ("Some words", 'class="mi"', "span.rest")
    assert [[words in end for words in said] for end in ends] == [[False, False, True]]
    assert tab.html == tab.reloaded()


def test_pages_catch_up_if_redis_has_lost_what_the_end_goes_by(stack, tab, provider):
    script = provider.says("one two", hold=True)
    send(tab)
    script.wait_for_hold(1)
    tab.wait_for_words("one two")
    with stack.redis.client() as client:
        assert client.delete(f"{PREFIX}:chat:{tab.chat_id}:text")
    script.release()
    tab.wait_until(lambda tab: tab.socket.code)
    tab.connect()
    tab.wait_for_status("complete")
    assert tab.text == "one two" and tab.html == tab.reloaded()


def test_frames_are_few_however_fast_the_provider_is(tab, provider):
    script = paced(provider, prose(500), gap=0.003)
    send(tab)
    tab.wait_for_status("complete")
    grown = sum(frame[0] == "{" for frame in tab.socket.frames)
    # The slower the machine, the longer it took: one frame a tick is always the most.
    assert grown <= (tab.socket.times[-1] - script.request.at) / TICK + 2


def test_a_reply_costs_bytes_in_proportion_to_its_length(ada, provider):
    def cost(tokens):
        tab = Tab(ada, ada.new_chat())
        step_by_step(tab, provider, prose(tokens))
        return sum(map(len, tab.socket.frames)) / tokens

    # a reply four times as long must not cost more for each of its tokens
    assert cost(800) < 1.5 * cost(200)


def test_a_page_loaded_in_mid_reply_shows_every_character_so_far(tab, provider):
    script = provider.says(*prose(200), "the en", hold=True).says("d.")
    send(tab)
    tab.wait_for_words("the en")
    late = Page(tab.person.get(f"/chats/{tab.chat_id}").text)
    assert late.text(tab.reply_id) == tab.text
    assert words(tab.text) == numbered(200)
    assert late.status(tab.reply_id) == "streaming"
    script.release()
    tab.wait_for_status("complete")
    assert tab.text.endswith("the end.")


def test_a_tab_opened_in_mid_reply_goes_on_without_gap_or_repetition(tab, provider):
    script = provider.reply().says(*prose(150)).holds().says(*prose(150, start=150))
    send(tab)
    tab.wait_for_words("w149")
    late = Tab(tab.person, tab.chat_id)
    assert words(late.text) == numbered(150)
    script.release()
    late.wait_for_status("complete")
    tab.wait_for_status("complete")
    assert words(late.text) == numbered(300)
    assert late.html == tab.html == tab.reloaded()


@pytest.mark.parametrize("seed", range(2))
def test_a_page_that_reconnects_ten_times_a_reply_ends_equal_to_a_fresh_load(ada, provider, seed):
    chance = random.Random(seed)
    tabs = [Tab(ada, ada.new_chat())]
    tabs += [Tab(ada, tabs[0].chat_id) for _ in range(2)]
    paced(provider, prose(300), gap=0.01)
    send(tabs[0])
    for moment in sorted(chance.sample(range(300), 10)):
        for tab in tabs:
            tab.wait_until(lambda tab, n=moment: tab.reply and len(words(tab.text)) >= n)
            tab.drop()
            assert words(tab.text) == numbered(len(words(tab.text)))
            time.sleep(chance.choice([0, 0, 0.02, 0.1]))  # how long the tunnel is
            tab.connect() if chance.random() < 0.7 else tab.__init__(ada, tab.chat_id)
    for tab in tabs:
        tab.wait_for_status("complete")
        assert words(tab.text) == numbered(300)
        assert tab.html == tab.reloaded()


def test_many_tabs_that_come_at_once_in_mid_reply_miss_nothing(ada, provider):
    tabs = [Tab(ada, ada.new_chat())]
    tabs += [Tab(ada, tabs[0].chat_id) for _ in range(7)]
    for tab in tabs:
        tab.seen = shows_no_gap
        tab.drop()
    script = paced(provider, prose(500), gap=0.004)
    send(tabs[0])
    script.wait_for_request()
    while not script.request.answered_at:
        at_once(lambda n: tabs[n].connect(), len(tabs))
        for tab in tabs:
            tab.wait_for_words("w")
            tab.drop()
    for tab in tabs:
        tab.connect()
        tab.wait_for_status("complete")
        assert tab.html == tab.reloaded()


def shows_no_gap(tab):
    shown = words(tab.text) if tab.reply else []
    assert shown == numbered(len(shown))


def test_whoever_comes_late_to_a_long_reply_gets_it_once_not_every_frame_of_it(tab, provider):
    early = Tab(tab.person, tab.chat_id)
    early.drop()
    # a short first frame: what is shown whole at the beginning is little
    script = provider.reply().says("start ").pauses(0.1)
    for _ in range(12):
        script.says("lorem ipsum dolor sit amet, " * 40, "\n\n").pauses(0.1)
    script.says("w0 ").holds().says("w1")
    send(tab)
    tab.wait_for_words("w0")
    early.connect()
    early.wait_for_words("w0")
    assert early.text == tab.text
    assert len(tab.text) > 10_000
    assert sum(map(len, early.socket.frames)) < 1.6 * len(tab.text)
    script.release()
    for each in (early, tab):
        each.wait_for_status("complete")
    assert early.html == tab.html == tab.reloaded()


def test_what_whoever_comes_late_begins_with_is_made_anew_ever_more_rarely(app, user):
    chat = Chat()
    user.chats.append(chat)
    reply = chat.begin_reply("gpt-4o")
    broadcast, made = live.Broadcast(), [b""]
    for _ in range(160):
        reply.show(reply.content + "lorem ipsum dolor sit amet, " * 16 + "\n\n")
        broadcast.update(reply)
        if (latest := live.redis().get(f"{live.channel(chat.id)}:key")) != made[-1]:
            made.append(latest)
    # in sum linear: a reply twice as long costs twice as much, not four times
    assert len(made) > 2
    assert sum(map(len, made)) < 3 * len(reply.content)


def test_silence_does_not_hold_back_what_was_said(tab, provider):
    script = provider.reply().says("one ").holds().says("two ").holds()
    send(tab)
    for number, said in enumerate(["one", "two"], 1):
        script.wait_for_hold(number)
        tab.wait_for_words(said)
        script.release()
    tab.wait_for_status("complete")


def test_what_was_said_before_an_error_is_kept(tab, provider):
    provider.reply().says("one ", "two ", "three").errors("overloaded")
    send(tab)
    tab.wait_for_status("failed")
    assert tab.text.strip() == "one two three"
    assert tab.html == tab.reloaded()


def test_what_was_said_before_the_line_was_cut_is_kept(tab, provider):
    provider.reply().says("one ", "two ", "three").cuts()
    send(tab)
    tab.wait_for_status("failed")
    assert tab.text.strip() == "one two three"


def test_the_reply_of_one_chat_is_not_seen_in_another(ada, provider):
    tabs = [Tab(ada, ada.new_chat()) for _ in range(4)]
    for n, tab in enumerate(tabs):
        paced(provider, [f"secret{n} " for _ in range(20)], when=f"chat {n}")
        send(tab, f"chat {n}")
    for n, tab in enumerate(tabs):
        tab.wait_for_status("complete")
        said = "".join(tab.socket.frames)
        assert f"secret{n}" in said
        assert not any(f"secret{other}" in said for other in range(4) if other != n)


# Stop.


def press_stop(tab, script):
    """Press Stop; return once the provider, which has more to say, has seen its reader go."""
    assert tab.person.stop(tab.reply_id).status == 204
    script.wait_for_disconnect()


def test_stop_closes_the_providers_connection_and_keeps_the_text(tab, provider):
    script = provider.says(*prose(40), hold=True)
    send(tab)
    tab.wait_for_words("w39")
    press_stop(tab, script)
    tab.wait_for_status("stopped")
    assert words(tab.text) == numbered(40)
    assert tab.html == tab.reloaded()


def test_stop_while_tokens_rain_keeps_all_that_was_shown(tab, provider):
    script = paced(provider, prose(5000), gap=0.001)
    send(tab)
    tab.wait_for_words("w99")
    shown = len(words(tab.text))
    press_stop(tab, script)
    tab.wait_for_status("stopped")
    assert words(tab.text) == numbered(len(words(tab.text)))
    assert len(words(tab.text)) >= shown
    assert tab.html == tab.reloaded()


def test_a_stopped_reply_has_estimated_tokens_and_a_cost(tab, provider):
    script = provider.says(*prose(40), hold=True)
    send(tab)
    tab.wait_for_words("w39")
    press_stop(tab, script)
    tab.wait_for_status("stopped")
    usage = tab.reply.select_one(".message__usage").get_text()
    assert usage.count("≈") == 2
    assert all(float(sum_) > 0 for sum_ in DOLLARS.findall(usage))
    assert len(DOLLARS.findall(usage)) == 2


@pytest.mark.parametrize("headers", [True, False])
def test_stop_before_the_first_token_closes_the_connection(tab, provider, headers):
    script = provider.reply().begins().hangs() if headers else provider.hangs()
    send(tab)
    script.wait_for_request()
    tab.wait_for_status("pending")
    press_stop(tab, script)
    tab.wait_for_status("stopped")
    assert tab.html == tab.reloaded()


def test_stop_of_a_reply_that_has_ended_changes_nothing(tab, provider):
    provider.says("done")
    send(tab)
    tab.wait_for_status("complete")
    assert tab.person.stop(tab.reply_id).status == 204
    provider.says("again")
    send(tab)
    tab.wait_for_status("complete", replies=2)
    assert tab.html == tab.reloaded()


def test_stop_in_one_chat_leaves_the_others_running(ada, provider):
    tabs = [Tab(ada, ada.new_chat()) for _ in range(2)]
    scripts = [provider.says(f"w{n} ", hold=True, when=f"chat {n}") for n in range(2)]
    for n, tab in enumerate(tabs):
        send(tab, f"chat {n}")
        tab.wait_for_words(f"w{n}")
    press_stop(tabs[0], scripts[0])
    tabs[0].wait_for_status("stopped")
    scripts[1].release()
    tabs[1].wait_for_status("complete")


def test_a_chat_goes_on_after_stop(tab, provider):
    script = provider.says("partial", hold=True)
    send(tab, "first")
    tab.wait_for_words("partial")
    press_stop(tab, script)
    tab.wait_for_status("stopped")
    provider.says("whole")
    send(tab, "second")
    tab.wait_for_status("complete", replies=2)
    roles = [message["role"] for message in provider.requests[-1].json["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert tab.html == tab.reloaded()


# Retry.


@pytest.mark.parametrize("ending", ["failed", "stopped", "complete"])
def test_retry_asks_again_and_never_repeats_the_question(tab, provider, ending):
    script = provider.reply().says("first try").holds()
    if ending == "failed":
        script.cuts()
    send(tab, "the question")
    tab.wait_for_words("first try")
    press_stop(tab, script) if ending == "stopped" else script.release()
    tab.wait_for_status(ending)
    provider.says("second try")
    assert tab.person.retry(tab.reply_id).status == 204
    tab.wait_for_words("second try")
    tab.wait_for_status("complete")
    assert provider.requests[1].json["messages"] == provider.requests[0].json["messages"]
    assert [article["data-role"] for article in tab.page.messages] == ["user", "assistant"]
    assert "first try" not in tab.page.html
    assert tab.html == tab.reloaded()


def test_retry_of_a_running_reply_is_refused(tab, provider):
    script = provider.says("one", hold=True)
    send(tab)
    tab.wait_for_words("one")
    assert tab.person.retry(tab.reply_id).status == 409
    script.release()
    tab.wait_for_status("complete")
    assert len(provider.requests) == 1


def test_two_retries_at_once_ask_the_provider_once(tab, provider):
    provider.fails(400)
    send(tab)
    tab.wait_for_status("failed")
    script = provider.says("better", hold=True)
    statuses = at_once(lambda _: tab.person.retry(tab.reply_id).status, 2)
    assert 204 in statuses
    tab.wait_for_words("better")
    script.release()
    tab.wait_for_status("complete")
    assert len(provider.requests) == 2


# One reply at a time.


def at_once(act, count):
    """Call `act(n)` in `count` threads at the same moment; return what they returned."""
    gate, results = threading.Barrier(count), [None] * count

    def run(n):
        gate.wait()
        results[n] = act(n)

    threads = [threading.Thread(target=run, args=[n]) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_second_message_while_a_reply_runs_is_refused_and_not_stored(tab, provider):
    script = provider.says("one ", hold=True)
    send(tab, "first")
    tab.wait_for_words("one")
    answer = tab.person.say(tab.chat_id, "second")
    assert answer.status == 409
    assert "still being written" in answer.text
    script.release()
    tab.wait_for_status("complete")
    assert [article["data-role"] for article in tab.page.messages] == ["user", "assistant"]
    assert "second" not in tab.reloaded()
    assert len(provider.requests) == 1


def test_a_message_right_after_another_is_refused_before_its_reply_has_begun(tab, provider):
    # With its headers: cut off without them it would be asked for again, in the next test.
    script = provider.reply().begins(role=False).holds()
    send(tab, "first")
    assert tab.person.say(tab.chat_id, "second").status == 409
    script.wait_for_hold()


def test_two_tabs_that_send_at_once_never_interleave(ada, provider):
    tabs = [Tab(ada, ada.new_chat())]
    tabs.append(Tab(ada, tabs[0].chat_id))
    for turn in range(1, 5):
        script = provider.says("one", hold=True)
        statuses = at_once(lambda n: ada.say(tabs[n].chat_id, f"from tab {n}").status, 2)
        assert sorted(statuses) == [204, 409]
        script.release()
        for tab in tabs:
            tab.wait_for_status("complete", replies=turn)
    roles = [article["data-role"] for article in tabs[0].page.messages]
    assert roles == ["user", "assistant"] * 4
    assert tabs[0].html == tabs[1].html == tabs[0].reloaded()


def test_a_message_sent_twice_is_saved_and_answered_once(tab, provider):
    client_id = str(uuid.uuid4())
    script = provider.says("one", hold=True)
    statuses = at_once(lambda _: tab.person.say(tab.chat_id, "hi", client_id=client_id).status, 3)
    assert 204 in statuses
    assert set(statuses) <= {204, 409}
    tab.wait_for_words("one")
    script.release()
    tab.wait_for_status("complete")
    provider.says("two")
    send(tab, "next")
    tab.wait_for_status("complete", replies=2)
    assert [request.prompt for request in provider.requests] == ["hi", "next"]
    assert len(tab.page.messages) == 4


# Pages that have left.

UPGRADE = {
    "HTTP_HOST": "localhost",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


def connected():
    """Return both ends of a WebSocket: the page's plain one, and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        page = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    environ = UPGRADE | {"werkzeug.socket": ours}
    return page, Server(environ, thread_class=Idle)


@pytest.fixture
def open_page(app):
    """Open a page's socket and serve it: `open_page()`; what is asked for it is in `asked`."""
    handlers, asked, gate = [], [], threading.Event()

    def refuses():
        asked.append(1)
        gate.wait(patient(10))
        return live.NOT_YOURS

    def handle(server):
        with app.test_request_context():
            live.serve(server, 1, refuses, None)

    def open_one(left=False):
        page, server = connected()
        if left:
            page.close()
        handlers.append(threading.Thread(target=handle, args=[server]))
        handlers[-1].start()
        return SimpleNamespace(page=page, server=server, handler=handlers[-1])

    yield SimpleNamespace(open=open_one, asked=asked, gate=gate)
    gate.set()
    join(handlers)


def join(threads):
    for thread in threads:
        thread.join(patient(10))
        assert not thread.is_alive()


class Idle:
    """The thread that would read a socket, if it came to it."""

    name = "(_thread)"

    def __init__(self, target):
        pass

    def start(self):
        pass


def test_for_pages_that_left_at_once_nothing_is_asked(open_page):
    join([open_page.open(left=True).handler for _ in range(200)])
    assert open_page.asked == []


def test_a_few_pages_are_let_in_at_a_time_and_who_leaves_the_line_is_forgotten(open_page):
    inside = [open_page.open() for _ in range(live.CATCHING_UP)]
    wait_until(lambda: len(open_page.asked) == live.CATCHING_UP, 5, "them to be let in")
    waiting = [open_page.open() for _ in range(50)]
    for each in waiting[:-1]:
        each.server.event.set()  # as who reads the socket does at its end
    join([each.handler for each in waiting[:-1]])
    assert waiting[-1].handler.is_alive()
    assert all(each.handler.is_alive() for each in inside)
    assert len(open_page.asked) == live.CATCHING_UP
    open_page.gate.set()
    join([waiting[-1].handler])
    assert len(open_page.asked) == live.CATCHING_UP + 1


def test_a_page_that_answers_no_ping_has_vanished(monkeypatch):
    monkeypatch.setattr("chattable.live.socket.PING", 0)
    page, server = connected()
    live.follow(server, live.Watcher(), 0, None)
    assert server.pong_received is False
    page.close()


def test_a_socket_that_rested_goes_on():
    """What follows a rest is understood, though its compressor has forgotten what came before."""
    page, server = WSConnection(ConnectionType.CLIENT), WSConnection(ConnectionType.SERVER)
    hello = Request("localhost", "/", extensions=[PerMessageDeflate()])
    server.receive_data(page.send(hello))
    page.receive_data(server.send(AcceptConnection(extensions=[PerMessageDeflate()])))
    frame = "<p>What was said is said again.</p>"
    sent = [server.send(TextMessage(frame)), server.send(TextMessage(frame))]
    live.rest(SimpleNamespace(ws=server))
    sent.append(server.send(TextMessage(frame)))
    page.receive_data(b"".join(sent))
    heard = [event.data for event in page.events() if isinstance(event, TextMessage)]
    assert heard == [frame] * 3
    assert len(sent[1]) < len(sent[2]) == len(sent[0])


def test_a_page_that_catches_up_is_told_what_changed_while_it_was_let_in(app, user):
    chat = Chat()
    user.chats.append(chat)
    db.session.commit()
    with app.app_context():
        db.session.get(Chat, chat.id).rename("Called otherwise")
    _, frames = chat.catch_up(since=0)
    assert "Called otherwise" in "".join(frames)


def test_a_word_saved_while_a_page_catches_up_is_left_to_its_own_frame(app, user):
    chat, broadcast = Chat(), live.Broadcast()
    user.chats.append(chat)
    reply = chat.begin_reply("gpt-4o")
    reply.show("one ")
    broadcast.update(reply)
    snapshot = live.Snapshot(chat.id)
    reply.show("one two ")
    broadcast.update(reply)
    shown = "".join(snapshot.frames([reply]))
    assert "one" in shown
    assert "two" not in shown


def test_the_last_words_of_a_reply_that_ends_while_a_page_catches_up_are_shown_once(
    app, user, monkeypatch
):
    chat, broadcast = Chat(), live.Broadcast()
    user.chats.append(chat)
    reply = chat.begin_reply("gpt-4o")
    reply.show("one ")
    broadcast.update(reply)

    def ends(id, snapshot=live.Snapshot):
        """Look, and have the reply say its last words and end before anybody looks again."""
        monkeypatch.setattr(live, "Snapshot", snapshot)
        seen = snapshot(id)
        reply.show("one two")
        broadcast.update(reply)
        values = {"status": "complete", "content": "one two", "revision": chat.next_revision()}
        db.session.execute(Message.__table__.update().values(values))
        db.session.commit()
        db.session.expire_all()
        return seen

    monkeypatch.setattr(live, "Snapshot", ends)
    seq, frames = chat.catch_up(0)
    assert "one two" in "".join(frames)
    assert seq == live.Snapshot(chat.id).seq


def test_an_open_page_hears_what_comes_after_redis_forgot_its_chat(stack, ada, provider):
    chat = ada.new_chat()
    ada.say(chat, "nobody watches")
    wait_until(
        lambda: (
            'data-status="complete"' in ada.get(f"/chats/{chat}").text.partition("assistant")[2]
        ),
        10,
        "the reply",
    )
    tab = Tab(ada, chat)
    with stack.redis.client() as client:
        assert client.delete(f"{PREFIX}:chat:{chat}:seq")
    send(tab, "is anybody there?")
    tab.wait_for_status("complete", replies=2)
    assert tab.html == tab.reloaded()
