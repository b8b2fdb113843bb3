"""How much a provider may send, and how long it may let somebody wait."""

import gzip
import json
import time
from email.utils import formatdate

import pytest

from chattable.provider import Completion
from tests import wire
from tests.asking import Asker

MEGABYTE = 2**20


def packed(data):
    return {"content-encoding": "gzip"}, gzip.compress(data)


def said(text):
    return wire.event(wire.chunk("m", {"content": text}))


@pytest.mark.parametrize("begin", [b"data: ", b": ", b"{", b"<html>", said("Hi")])
def test_a_line_without_end_is_given_up(provider, begin):
    provider.sends_raw([begin, *[b"x" * MEGABYTE] * 40])
    told = Asker(provider.url).ask()
    assert told.error.startswith("The provider sent more than any reply has.")
    assert told.text == ("Hi" if b"Hi" in begin else "")


def test_a_long_line_is_read(provider):
    event = said("x" * 3 * MEGABYTE)
    provider.sends_raw([event[:MEGABYTE], event[MEGABYTE:], said("Hi"), wire.DONE])
    answer = Asker(provider.url).ask()
    assert (len(answer.text), answer.error) == (3 * MEGABYTE + 2, None)


@pytest.mark.parametrize("field", ["content", "reasoning"])
def test_a_reply_without_end_is_given_up(provider, monkeypatch, field):
    monkeypatch.setattr("chattable.provider.stream.LONGEST_REPLY", 1000)
    event = wire.event(wire.chunk("m", {field: "x" * 100}))
    provider.sends_raw([event] * 100)
    told = Asker(provider.url).ask()
    assert told.error.startswith("The provider sent more than any reply has.")
    assert told.completion.settle_usage(told.text).completion >= 250


def test_data_without_an_end_of_the_event_is_given_up(provider):
    lines = (b'data: "' + b"x" * 1000 + b"\n") * 1000
    provider.sends_raw([lines] * 20)
    assert Asker(provider.url).ask().error.startswith("The provider sent more than any reply has.")


def test_a_stream_is_unpacked_no_further_than_anybody_reads(provider, monkeypatch):
    monkeypatch.setattr("chattable.provider.client.Provider.line.__defaults__", (4 * MEGABYTE,))
    headers, body = packed(b": ping\n" * 2 * MEGABYTE)
    provider.fails(200, body, headers)
    assert Asker(provider.url).ask().error.startswith("The provider sent more than any reply has.")


def test_nor_to_many_times_what_has_arrived(provider):
    headers, body = packed(b": ping\n" * 2 * MEGABYTE)
    provider.fails(200, body, headers)
    assert Asker(provider.url).ask().error.startswith("The provider sent more than any reply has.")


def test_what_nobody_takes_waits_at_the_provider(provider):
    provider.sends_raw([b": ping\n" * 2**17] * 40 + [said("Hi"), wire.DONE])
    asker = Asker(provider.url)
    with asker.app.app_context(), Completion("m", [{"role": "user", "content": "Hi"}]) as asked:
        time.sleep(1)
        assert provider.requests[0].answered_at is None
        assert "".join(asked) == "Hi"


def test_nor_is_an_error(provider):
    error = json.dumps(wire.error("prompt is too long")).encode()
    headers, body = packed(error + b" " * 200 * MEGABYTE)
    provider.fails(400, body, headers)
    assert "too long for the model" in Asker(provider.url).ask().error


def test_nor_is_a_list_of_models(provider, monkeypatch):
    monkeypatch.setattr("chattable.provider.client.MOST_OF_LIST", 10)
    assert Asker(provider.url).models().startswith("The provider sent more")


@pytest.mark.parametrize("wait", ["11", "119", "3600", "date", "ms"])
def test_who_would_wait_long_is_told_at_once(provider, wait):
    headers = {"retry-after": formatdate(time.time() + 60, usegmt=True) if wait == "date" else wait}
    headers = {"retry-after-ms": "11000"} if wait == "ms" else headers
    provider.fails(429, headers=headers)
    assert "too many requests" in Asker(provider.url).ask().error
    assert len(provider.requests) == 1
