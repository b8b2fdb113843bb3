"""What a provider may say or leave unsaid, over real HTTP, and what becomes of it."""

import gzip
import json
import logging
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from email.utils import formatdate
from itertools import combinations, pairwise
from pathlib import Path

import genai_prices
import pytest
from flask import Flask, current_app, render_template

from chattable import provider as engine
from chattable.provider.dialect import EventReader
from chattable.provider.thoughts import ThoughtReader
from chattable.provider.transport import KEPT_CONNECTIONS, Chunks
from tests import wire
from tests.asking import KEY, MODEL, Answer
from tests.gate import Gate, make_certificate
from tests.patience import patient

HTML = f"<!DOCTYPE html><html><body><h1>Oops</h1>context length {KEY}</body></html>"
FLAG = "🏴‍☠️"


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    """Do not wait longer than a test needs."""
    monkeypatch.setattr("chattable.provider.stream.TICK", 0.005)


@pytest.fixture(scope="module")
def bare_app():
    """An app that has a provider and nothing else."""
    return Flask("chattable")


@pytest.fixture
def config(bare_app, provider):
    """The configuration of the bare app, whose context is open."""
    usual = {
        "OPENAI_BASE_URL": provider.url,
        "OPENAI_API_KEY": KEY,
        "READ_TIMEOUT": 5,
        "PRICES": {},
    }
    if not usual.items() <= bare_app.config.items():
        bare_app.config.update(usual)
        engine.init_app(bare_app)  # a new client: it keeps what it was made with
    with bare_app.app_context():
        yield bare_app.config


@pytest.fixture
def ask(bare_app, config):
    """Ask the provider and return the `Answer`; keyword arguments configure the app."""

    def ask_once(prompt="Hello", model=MODEL, **changes):
        if changes:
            config.update(changes)
            engine.init_app(bare_app)
        with engine.Completion(model, [{"role": "user", "content": prompt}]) as completion:
            return Answer(completion).read()

    return ask_once


@pytest.fixture
def chat(make_app):
    """A chat in which Ada has asked something; `chat.run(model)` answers on SQLite."""
    from models import Chat, db
    from pages.people import sign_up

    with make_app(OPENAI_API_KEY=KEY).app_context():
        ada = sign_up("Ada", "ada@example.com", "correct horse")
        ada.chats.append(Chat())
        db.session.commit()
        ada.chats[0].say("user", "Hello")
        yield ada.chats[0]


def writes(reply, data):
    """Add a step that writes these bytes of the body; an empty piece would end a chunked one."""
    reply.steps.append(lambda exchange: data and exchange.body(data))
    return reply


def said(text, **fields):
    return wire.event(wire.chunk(MODEL, {"content": text}, **fields))


def delta(**fields):
    return wire.event(wire.chunk(MODEL, fields))


FINISH = wire.event(wire.chunk(MODEL, {}, finish_reason="stop"))


# The stream's form.


def small_stream():
    comment = ": ping é\n\n".encode()
    parts = [{"content": text} for text in ("é", "€", FLAG, "end")]
    events = [b"data: " + wire.compact({"choices": [{"delta": part}]}).encode() for part in parts]
    finish = b'data: {"choices":\ndata: [{"delta":{},"finish_reason":"stop"}]}'
    return comment + b"\n\n".join([*events, finish, b"data: [DONE]", b""])


def test_a_stream_may_be_split_at_every_byte(ask, provider):
    stream = small_stream()
    for at in range(1, len(stream)):
        provider.sends_raw([stream[:at], stream[at:]], framing="close")
        answer = ask()
        assert (answer.text, answer.error, answer.completion.note) == (f"é€{FLAG}end", None, None)


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_stream_may_come_byte_by_byte(ask, provider, framing):
    stream = small_stream()
    provider.reply(framing=framing).sends_raw([stream[i : i + 1] for i in range(len(stream))], 0)
    assert ask().text == f"é€{FLAG}end"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_lines_end_in_lf_crlf_or_cr_wherever_they_are_split(end, size):
    stream = small_stream().replace(b"\n", end.encode())
    reader = EventReader()
    events = []
    for at in range(0, len(stream), size):
        events += reader.feed(stream[at : at + size])
    events += reader.close()
    assert len(events) == 6
    assert events[-1] is reader.DONE
    texts = [event["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(texts) == f"é€{FLAG}end"


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_other_line_ends_arrive_over_http(ask, provider, end):
    provider.sends_raw([small_stream().replace(b"\n", end.encode())])
    answer = ask()
    assert (answer.text, answer.error) == (f"é€{FLAG}end", None)


HI = said("Hi") + FINISH
DIALECTS = {
    "comments": b": OPENROUTER PROCESSING\n\n:\n\n" + said("Hi") + b": x\n" + FINISH,
    "no space": HI.replace(b"data: ", b"data:"),
    "more space": HI.replace(b"data: ", b"data:   "),
    "one newline": HI.replace(b"\n\n", b"\n"),
    "other fields": b"id: 7\nretry: 10\nevent: message\n" + HI,
    "byte order mark": b"\xef\xbb\xbf" + HI,
    "blank lines": b"\n\r\n\n" + said("Hi") + b"\n\n\n" + FINISH,
    "keep-alive JSON": said("Hi") + b"data: {}\n\ndata: null\n\ndata:\n\n" + FINISH,
    "two data lines": HI.replace(b',"', b',\ndata: "', 1),
    "a fragment that is JSON": b'data: {"choices":[\ndata: {"delta":{"content":"Hi"}}\ndata: ]}\n\n'
    + FINISH,
    "after the end": HI + wire.DONE + said("ignored"),
    "null choices": wire.event({"choices": None}) + HI,
    "empty choices": wire.event({"choices": []}) + HI,
    "odd choices": wire.event({"choices": {"a": 1}}) + wire.event({"choices": ["x"]}) + HI,
    "no choices": wire.event({"object": "ping"}) + HI,
    "null delta": wire.event(wire.chunk(MODEL, None)) + HI,
    "no delta": wire.event({"choices": [{"index": 0}]}) + HI,
    "odd delta": wire.event({"choices": [{"delta": ["x"], "finish_reason": 7}]}) + HI,
    "null content": delta(content=None) + HI,
    "number content": delta(content=5) + HI,
    "null extras": wire.event({"choices": [], "error": None, "x_groq": None, "usage": []}) + HI,
    "parts": delta(content=[{"type": "text", "text": "H"}, {"text": None}, "i", 3]) + FINISH,
    "empty finishes": said("H", finish_reason="") + said("i", finish_reason="") + FINISH,
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_is_understood(ask, provider, dialect):
    provider.sends_raw([DIALECTS[dialect]])
    answer = ask()
    assert (answer.text, answer.error, answer.completion.note) == ("Hi", None, None)


def test_a_compressed_stream_is_read(ask, provider):
    data = gzip.compress(small_stream())
    provider.sends_raw([data[:40], data[40:]], headers={"content-encoding": "gzip"})
    assert ask().text == f"é€{FLAG}end"


def test_an_unparsable_line_costs_only_itself(ask, provider):
    garbled = wire.event('{"choices": [{"delta": {"content": "lo')
    provider.sends_raw([said("one ") + garbled + garbled + said("two") + FINISH + wire.DONE])
    answer = ask()
    assert (answer.text, answer.error) == ("one two", None)
    assert answer.completion.note == "A part of the answer could not be read."


def test_an_unparsable_line_without_a_blank_one_after_it_costs_only_itself(ask, provider):
    stream = said("one ") + wire.event("{broken") + said("two") + FINISH + wire.DONE
    provider.sends_raw([stream.replace(b"\n\n", b"\n")])
    answer = ask()
    assert (answer.text, answer.error) == ("one two", None)
    assert answer.completion.note == "A part of the answer could not be read."


def test_json_nested_absurdly_deep_is_garbled_and_no_crash(ask, provider):
    provider.sends_raw([said("fine"), wire.event("[" * 100_000), FINISH])
    assert ask().text == "fine"


@pytest.mark.parametrize("size", [1_000_000])
def test_one_event_may_be_huge(ask, provider, size):
    text = "é" * (size // 2)
    provider.says(text)
    assert ask().text == text


def test_ten_thousand_tokens_may_come_at_once(ask, provider):
    provider.sends_raw([b"".join(said(f"{n} ") for n in range(10_000)) + FINISH + wire.DONE])
    assert ask().text == "".join(f"{n} " for n in range(10_000))


def test_the_first_token_waits_for_no_tick(config, provider, monkeypatch):
    monkeypatch.setattr("chattable.provider.stream.TICK", 3600)
    # the empty delta that opens an answer comes a little earlier, as it does from OpenAI
    provider.reply().begins().pauses(0.01).says("0 ").holds()
    with engine.Completion(MODEL, [{"role": "user", "content": "Hello"}]) as completion:
        assert next(step for step in completion if step) == "0 "


def test_after_the_first_token_what_comes_within_a_tick_comes_together(ask, provider, monkeypatch):
    monkeypatch.setattr("chattable.provider.stream.TICK", 1)
    reply = provider.reply()
    for n in range(20):
        reply.says(f"{n} ").pauses(0.01)
    answer = ask()
    assert answer.text == "".join(f"{n} " for n in range(20))
    assert len([step for step in answer.steps if step]) < 6


# Characters.


def escaped(text):
    return wire.event(json.dumps(wire.chunk(MODEL, {"content": text})))


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["\ud83d", "\ude00"], "😀"),
        (["a\ud83d", "\ude00b", "\ud83d\ude00"], "a😀b😀"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["a\ude00b"], "a\ufffdb"),
        (["a\ud83d"], "a\ufffd"),
        (["\0a\0", "\0", "b"], "ab"),
    ],
)
def test_text_is_always_what_a_database_takes(ask, provider, pieces, text):
    provider.reply().sends_raw([escaped(piece) for piece in pieces] + [FINISH], gap=0.02)
    answer = ask()
    assert answer.text == text
    assert answer.text.encode()


def test_thoughts_and_reasons_are_saved_whatever_they_contain(chat, provider):
    odd = {"reasoning": "a\ud83d\0", "content": "fine"}
    choice = {"delta": odd, "finish_reason": "st\0op\ud83d" + "p" * 90}
    provider.sends_raw([wire.event(json.dumps({"choices": [choice]})), wire.DONE])
    message = chat.run(MODEL)
    assert (message.status, message.content) == ("complete", "fine")
    assert message.reasoning == "a\ufffd"
    assert len(message.finish_reason) == 40


# What is said besides text.


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart(ask, provider, field):
    provider.reply().thinks("Let me ", "think. ", field=field).says("42")
    answer = ask()
    assert (answer.text, answer.completion.reasoning) == ("42", "Let me think. ")


THOUGHTS = [
    ("<think>Hm. <b</think>42", "Hm. <b", "42"),
    ("\n<thinking>\nHm.\n</thinking>\n\n42 < 43", "Hm.", "42 < 43"),
    ("<think>\n\n</think>\n\n42", "", "42"),
    ("Hm.\nYes?\n</think>\n\n42", "Hm.\nYes?", "42"),
    ("</think>42", "", "42"),
    ("<think>Hm.</think>42 </think> <think>x</think>", "Hm.", "42 </think> <think>x</think>"),
    ("<think>never closed </thi", "never closed", ""),
    ("42 </thi", "", "42 </thi"),
    ("<thin ice>", "", "<thin ice>"),
    ("So: <think>a</think> b", "", "So: <think>a</think> b"),
    ("Say `</think>` at the end", "", "Say `</think>` at the end"),
    (
        "```xml\n<a/>\n</think>\n```\nend</think>",
        "",
        "```xml\n<a/>\n</think>\n```\nend</think>",
    ),
    ("<think>\n\n  Hm.</think>42", "Hm.", "42"),
    ("A `b` and ``c`\n\n</think> \n\n42", "A `b` and ``c`", "42"),
    ("1. ```\n   x\n   ```\n</think>\n42", "1. ```\n   x\n   ```", "42"),
    ("So `</think>` it is.\n</think>\n\n42", "So `</think>` it is.", "42"),
    *(
        (said, "", said)
        for said in (
            "Models end with </think> tags, so strip all before.",
            "Yes</think>",
            "Yes\n</think> ends\n",
            "Use ``</think>`` here",
            "1. ```xml\n</think>\n   ```\n2. b",
            "- a\n  - b\n    ```\n</think>\n    ```\nb",
            "> ~~~\n> a\n</think>\n> ~~~\nb",
            "a\n\n    </think>\n\nb",
            "a `b\n</think>\nc` d",
            "a ` b `</think>`\nc",
            "a \\</think>\nb",
            "a\n</think",
        )
    ),
]


@pytest.mark.parametrize("said, thought, text", THOUGHTS)
def test_thoughts_written_into_the_reply_are_kept_apart(ask, provider, said, thought, text):
    provider.says(*said)
    provider.says(said)
    for cut in (0, len(said) // 3, len(said) // 2):
        provider.says(said[:cut], said[cut:])
    for _ in range(5):
        answer = ask()
        assert (answer.text, answer.completion.reasoning) == (text, thought)


@pytest.mark.parametrize("said, thought, text", THOUGHTS)
def test_thoughts_are_told_wherever_the_reply_is_cut(said, thought, text):
    for cuts in combinations(range(1, len(said)), 2):
        assert read_thoughts(cut(said, *cuts)) == (text, thought)


def test_a_run_of_blanks_in_a_thought_is_not_held_for_ever():
    reader = ThoughtReader()
    thoughts = [reader.feed(piece)[0] for piece in ("<think>a", " " * 150, " " * 150, "b")]
    assert ["".join(thoughts[:3]), thoughts[3]] == ["a" + " " * 300, "b"]


def read_thoughts(pieces):
    """Return (text, thought) as a reply is told that arrives in these pieces."""
    reader, thought, text = ThoughtReader(), "", ""
    for piece in pieces:
        took_back = reader.took_back
        thinks, says = reader.feed(piece)
        text = says if reader.took_back > took_back else text + says
        thought += thinks
    return text + reader.close(), thought


def cut(text, *places):
    return [text[start:end] for start, end in pairwise((0, *places, len(text)))]


def test_reasoning_may_be_a_part_of_the_content(ask, provider):
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    provider.sends_raw([delta(content=[thought, {"type": "text", "text": "42"}]), FINISH])
    answer = ask()
    assert (answer.text, answer.completion.reasoning) == ("42", "Hm.")


@pytest.mark.parametrize(
    "detail",
    [
        {"type": "reasoning.text", "text": "Hm."},
        {"type": "reasoning.summary", "summary": "Hm."},
    ],
)
def test_reasoning_may_be_told_in_details_alone_or_beside_it(ask, provider, detail):
    hidden = {"type": "reasoning.encrypted", "data": "c2VjcmV0"}
    provider.sends_raw(
        [
            delta(content="", reasoning_details=[detail, hidden]),
            delta(content="42", reasoning="Yes.", reasoning_details=[{**detail, "text": "Yes."}]),
            FINISH,
        ]
    )
    answer = ask()
    assert (answer.text, answer.completion.reasoning) == ("42", "Hm.Yes.")


def test_a_refusal_is_an_answer(ask, provider):
    provider.reply().refuses("I cannot ", "help with that.")
    answer = ask()
    assert (answer.text, answer.error) == ("I cannot help with that.", None)


@pytest.mark.parametrize(
    ("reason", "note"),
    [
        ("stop", None),
        ("tool_calls", None),
        ("length", "length limit"),
        ("MAX_TOKENS", "length limit"),
        ("model_length", "length limit"),
        ("content_filter", "content filter"),
        ("SAFETY", "content filter"),
    ],
)
def test_the_reader_learns_why_an_answer_is_short(chat, provider, reason, note):
    provider.reply().says("Once upon").finishes(reason)
    message = chat.run(MODEL)
    assert (message.status, message.finish_reason) == ("complete", reason)
    assert note in message.note if note else message.note is None


# Answers that were not streamed.


def test_an_answer_may_come_as_a_whole(ask, provider):
    provider.reply(streamed=False).says("All ", "at once").uses(7, 3)
    answer = ask()
    assert (answer.text, answer.error, answer.tokens) == ("All at once", None, (7, 3, False))
    assert answer.completion.finish_reason == "stop"


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "application/json"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_whole_answer_may_be_labelled_anything(ask, provider, kind, indent):
    whole = wire.completion(MODEL, {"content": "All"}, None, wire.usage(7, 3))
    body = "\n " + json.dumps(whole, indent=indent)
    provider.fails(200, body, {"content-type": kind})
    answer = ask()
    assert (answer.text, answer.error, answer.tokens) == ("All", None, (7, 3, False))


def test_a_stream_may_be_labelled_json(ask, provider):
    provider.sends_raw([small_stream()], headers={"content-type": "application/json"})
    assert ask().text == f"é€{FLAG}end"


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: [error]])
def test_an_error_may_come_with_status_200(ask, provider, kind, wrap):
    body = json.dumps(wrap(wire.error(f"Bad key {KEY}", code="invalid_api_key")), indent=1)
    provider.fails(200, body, {"content-type": kind})
    assert ask().error == "The provider refused the API key. Check OPENAI_API_KEY, then try again."


@pytest.mark.parametrize("body", ["", "\n\n", "OK", "null", "[]", "7", '"text"', "{broken"])
def test_what_is_no_answer_at_all_says_so(ask, provider, body):
    provider.fails(200, body)
    answer = ask()
    assert answer.text == ""
    assert answer.error == "The provider's answer could not be understood. Try again."


def test_json_that_is_no_answer_is_an_error(ask, provider):
    provider.fails(200, {"detail": f"nope {KEY}"})
    assert ask().error == "The provider reported an error. Try again."


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_answer_is_a_failure(chat, provider, text):
    provider.says(text)
    message = chat.run(MODEL)
    assert message.status == "failed"
    assert message.error == "The model gave an empty answer. Try again."


# Tokens and dollars.


@pytest.mark.parametrize("at", ["end", "every", "finish"])
def test_usage_is_found_wherever_it_is(ask, provider, at):
    provider.says("Hi", " you").uses(11, 2, at=at)
    assert ask().tokens == (11, 2, False)


def test_usage_that_came_before_the_text_counts_at_least(ask, provider):
    provider.says("a" * 400, "b" * 400).uses(11, 3, at="early")
    assert ask().tokens == (11, 200, True)


def test_groq_hides_usage_in_a_drawer(ask, provider):
    drawer = wire.event({"choices": [], "x_groq": {"usage": wire.usage(11, 2)}})
    provider.sends_raw([said("Hi"), FINISH, drawer, wire.DONE])
    assert ask().tokens == (11, 2, False)


def test_usage_nobody_reported_is_estimated_and_marked(chat, provider):
    provider.says("a" * 40).without_usage()
    message = chat.run(MODEL)
    assert (message.prompt_token_usage, message.completion_token_usage) == (6, 10)
    assert message.usage_estimated


def test_estimates_count_what_was_thought(ask, provider):
    provider.reply().thinks("t" * 40).says("a" * 40).without_usage()
    answer = ask()
    assert (answer.tokens, answer.usage.reasoning) == ((6, 20, True), 10)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": -1, "completion_tokens": "12"},
        {"prompt_tokens": 10**30, "completion_tokens": True},
        {"prompt_tokens": 0, "completion_tokens": 0, "prompt_tokens_details": [1]},
        "none",
    ],
)
def test_usage_that_cannot_be_is_estimated(chat, provider, usage):
    provider.sends_raw([said("a" * 40), FINISH, wire.event({"usage": usage}), wire.DONE])
    message = chat.run(MODEL)
    assert message.status == "complete"
    assert (message.prompt_token_usage, message.completion_token_usage) == (6, 10)
    assert message.usage_estimated


def test_cached_tokens_are_cheaper(ask, provider):
    provider.says("Hi").uses(1000, 50, cached=400, reasoning=20)
    usage = ask().usage
    assert (usage.prompt, usage.completion, usage.cached) == (1000, 50, 400)
    assert usage.reasoning == 20
    tokens = genai_prices.Usage(input_tokens=1000, output_tokens=50, cache_read_tokens=400)
    price = genai_prices.calc_price(tokens, MODEL)
    assert engine.costs(MODEL, usage) == (price.input_price, price.output_price)
    assert price.input_price < Decimal("0.15") / 1000


def test_deepseek_reports_cache_hits_in_its_own_field(ask, provider):
    usage = wire.usage(1000, 50) | {"prompt_cache_hit_tokens": 300}
    provider.sends_raw([said("Hi"), FINISH, wire.event({"usage": usage}), wire.DONE])
    assert ask().usage.cached == 300


def test_xai_counts_reasoning_beside_the_completion(ask, provider):
    def reported(completion):
        usage = wire.usage(100, completion, reasoning=70) | {"total_tokens": 170 + completion}
        return {"usage": usage}

    events = [said("Hi", **reported(1)), said(" you", **reported(2)), FINISH]
    provider.sends_raw([*events, wire.DONE])
    assert ask().tokens == (100, 72, False)


@pytest.mark.parametrize("cost", [0.00042, "0.00042"])
def test_a_reported_cost_is_divided_as_the_list_prices_are(ask, provider, cost):
    provider.says("Hi").uses(1000, 100, cost=cost)
    into, out = engine.costs(MODEL, ask().usage)
    assert into + out == Decimal("0.00042")
    price = genai_prices.calc_price(genai_prices.Usage(input_tokens=1000, output_tokens=100), MODEL)
    assert abs(into / out - price.input_price / price.output_price) < Decimal("1e-6")


def test_a_reported_cost_of_an_unknown_model_is_divided_by_tokens(ask, provider):
    provider.says("Hi").uses(300, 100, cost=0.04)
    assert engine.costs("secret-9b", ask(model="secret-9b").usage) == (
        Decimal("0.03"),
        Decimal("0.01"),
    )


def test_free_is_zero_and_not_unknown(chat, provider):
    provider.says("Hi").uses(300, 100, cost=0)
    message = chat.run("secret-9b")
    assert (message.input_cost, message.output_cost) == (0, 0)


@pytest.mark.parametrize("cost", ["NaN", "Infinity", -1, "much", {"total": 1}, True, 1e300])
def test_a_cost_that_cannot_be_is_not_believed(chat, provider, cost):
    provider.says("Hi").uses(300, 100, cost=cost)
    message = chat.run("secret-9b")
    assert (message.status, message.local) == ("complete", True)


def test_a_model_without_a_price_has_tokens_and_no_cost(chat, provider):
    provider.says("Hi").uses(300, 100)
    message = chat.run("secret-9b")
    assert (message.prompt_token_usage, message.completion_token_usage) == (300, 100)
    assert message.local


def test_costs_are_exact(chat, provider):
    provider.says("Hi").uses(812, 243)
    message = chat.run(MODEL)
    price = genai_prices.calc_price(genai_prices.Usage(input_tokens=812, output_tokens=243), MODEL)
    assert (message.input_cost, message.output_cost) == (price.input_price, price.output_price)
    assert message.input_cost == Decimal("0.0001218")


# Endings.

BROKE = "The connection to the provider broke off. Try again."


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("rest", [b"", said("three")[:40], said("é")[:-10]])
def test_a_connection_cut_in_mid_stream_is_a_failure_that_keeps_the_text(
    chat, provider, framing, rest
):
    writes(provider.reply(framing=framing).says("one ", "two"), rest).cuts()
    message = chat.run(MODEL)
    assert (message.status, message.content, message.error) == ("failed", "one two", BROKE)
    assert message.note is None
    assert message.usage_estimated


@pytest.mark.parametrize("how", [{"reset": True}, {"inside_chunk": True}])
def test_every_way_to_break_off_is_a_failure(ask, provider, how):
    provider.reply().says("one ", "two").pauses(0.05).cuts(**how)
    answer = ask()
    assert (answer.text, answer.error) == ("one two", BROKE)


def test_a_proper_end_of_http_without_an_end_of_the_answer_is_a_failure(ask, provider):
    provider.says("one ", "two").ends()
    answer = ask()
    assert (answer.text, answer.error) == ("one two", BROKE)


@pytest.mark.parametrize("ending", ["ends", "cuts"])
def test_what_ends_after_the_finish_reason_is_complete(ask, provider, ending):
    reply = provider.says("one ", "two").sends_event(json.loads(FINISH[6:]))
    getattr(reply, ending)()
    answer = ask()
    assert (answer.text, answer.error) == ("one two", None)


def test_a_provider_that_forgets_to_hang_up_after_the_finish_is_not_waited_for(
    ask, provider, monkeypatch
):
    monkeypatch.setattr("chattable.provider.stream.LAST_WORDS", 0.1)
    reply = provider.says("one").sends_event(json.loads(FINISH[6:])).hangs()
    answer = ask()
    assert (answer.text, answer.error) == ("one", None)
    assert reply.wait_for_disconnect()


def test_a_connection_cut_before_the_first_token_is_a_failure(ask, provider):
    provider.reply().begins().cuts()
    assert ask().error == BROKE


@pytest.mark.parametrize(
    "event",
    [
        wire.error(f"Overloaded {KEY}", code=503),
        {"error": f"Overloaded {KEY}", "choices": [{"delta": {"content": ""}}]},
        {"object": "error", "message": f"Overloaded {KEY}", "code": 503},
        {"choices": [{"delta": {}, "finish_reason": "error"}]},
    ],
)
def test_an_error_in_mid_stream_is_a_failure_that_keeps_the_text(chat, provider, event, caplog):
    provider.sends_raw([said("one ") + said("two") + wire.event(event) + said("three")])
    message = chat.run(MODEL)
    assert (message.status, message.content) == ("failed", "one two")
    assert message.error
    assert KEY not in message.error + caplog.text


@pytest.mark.parametrize("data", [f"Odd {KEY}", '{"message": "x"}', '["x"]'])
def test_an_event_may_be_named_error(ask, provider, data):
    provider.sends_raw([said("one"), f"event: error\ndata: {data}\n\n".encode(), FINISH])
    answer = ask()
    assert (answer.text, answer.error) == ("one", "The provider reported an error. Try again.")


OVERLOADS = [
    wire.event({"error": {"type": "overloaded_error", "message": "Overloaded"}}),
    b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error"}}\n\n',
    wire.event(wire.error("The server is overloaded or not ready yet", type="server_error")),
    wire.event([{"error": {"code": 503, "status": "UNAVAILABLE", "message": "No."}}]),
    wire.event({"error": {"code": 429, "message": "Model is currently over capacity."}}),
    wire.event({"object": "error", "message": "Service is too busy"}),
]


@pytest.mark.parametrize("event", OVERLOADS)
def test_an_overloaded_provider_is_told_as_one(ask, provider, event):
    provider.sends_raw([said("one"), event])
    answer = ask()
    assert (answer.text, answer.error) == (
        "one",
        "The provider is overloaded. Try again in a moment.",
    )


def test_after_the_first_token_nothing_is_asked_again(ask, provider):
    provider.says("one").cuts()
    assert ask().text == "one"
    assert len(provider.requests) == 1


# Silence.


def test_silence_after_some_tokens_is_a_failure(ask, provider):
    reply = provider.says("one ", "two").hangs()
    started = time.monotonic()
    answer = ask(READ_TIMEOUT=0.4)
    assert time.monotonic() - started > 0.4
    assert answer.text == "one two"
    assert answer.error == "The model has said nothing for 0 seconds. Try again."
    assert reply.wait_for_disconnect()


def test_the_first_token_may_take_longer(ask, provider):
    provider.reply().pauses(0.6).begins().pauses(0.6).says("Hello")
    assert ask(READ_TIMEOUT=0.5).text == "Hello"


def test_the_first_token_may_not_take_for_ever(ask, provider):
    provider.hangs()
    answer = ask(READ_TIMEOUT=0.06)
    assert answer.text == ""
    assert "nothing" in answer.error or "too long" in answer.error


def test_a_provider_that_says_it_is_working_is_waited_for(ask, provider):
    reply = provider.reply().begins()
    for _ in range(6):
        writes(reply, b": PROCESSING\n\n").pauses(0.3)
    reply.says("Hello")
    assert ask(READ_TIMEOUT=0.2).text == "Hello"


def test_every_step_of_waiting_lets_the_caller_look_around(ask, provider, monkeypatch):
    monkeypatch.setattr("chattable.provider.stream.IDLE", 0.02)
    provider.reply().begins().pauses(0.5).says("Hello")
    assert ask().steps.count("") >= 5


# HTTP errors, each with a sentence of ours.

TOO_LONG = "too long for the model"
SENTENCES = [
    (400, wire.error(f"Bad {KEY}"), "did not accept the request (error 400)"),
    (400, wire.error("maximum context length is 128000", code="context_length_exceeded"), TOO_LONG),
    (400, wire.error("the request exceeds the available context size", code=400), TOO_LONG),
    (400, wire.error("prompt is too long: 210000 tokens > 200000 maximum"), TOO_LONG),
    (400, [wire.error("API key not valid. Please pass a valid API key.")], "refused the API key"),
    (400, HTML, "error 400"),
    (401, wire.error(f"Incorrect API key provided: {KEY}"), "refused the API key"),
    (401, "", "refused the API key"),
    (402, {}, "used up its credit"),
    (403, HTML, "does not let this key use the model"),
    (404, {"error": f"model not found {KEY}"}, "does not know the model “gpt-4o-mini”"),
    (404, HTML, "has nothing at this address"),
    (404, "404 page not found", "has nothing at this address"),
    (408, "", "took too long to answer"),
    (413, HTML, "too much text"),
    (422, wire.error("unprocessable"), "error 422"),
    (
        429,
        wire.error("slow down", type="requests", code="rate_limit_exceeded"),
        "too many requests",
    ),
    (429, wire.error("You exceeded your quota", code="insufficient_quota"), "used up its credit"),
    (429, "", "too many requests"),
    (500, wire.error("context deadline exceeded"), "having trouble (error 500)"),
    (500, {"error": {"message": ["odd"], "code": {}}}, "having trouble (error 500)"),
    (502, HTML, "having trouble (error 502)"),
    (502, wire.error("Provider returned error", code=502), "having trouble (error 502)"),
    (503, "", "is overloaded"),
    (503, {"error": {"message": "Loading model", "code": 503}}, "still being loaded"),
    (504, HTML, "took too long to answer"),
    (529, "\0{", "is overloaded"),
    (429, wire.error("Service tier capacity exceeded for this model."), "is overloaded"),
    (500, wire.error("The engine is currently overloaded, please try later"), "is overloaded"),
    (429, wire.error("Rate limit reached. Add a payment method at /billing"), "too many requests"),
    (429, wire.error("Quota exceeded. Please retry in 34.07s."), "too many requests"),
    (429, wire.error("Request too large for gpt-4o: Limit 30000"), "too much text"),
    (400, wire.error("The response was filtered", code="content_filter"), "rules do not allow"),
    (403, wire.error("Your input was flagged"), "rules do not allow"),
    (400, wire.error("User location is not supported for the API use."), "the country"),
    (403, wire.error("No.", code="unsupported_country_region_territory"), "the country"),
    (400, wire.error("x/y is not a valid model ID"), "does not know the model “gpt-4o-mini”"),
    (400, wire.error("Model Not Exist"), "does not know the model “gpt-4o-mini”"),
]


@pytest.mark.parametrize(("status", "body", "sentence"), SENTENCES)
def test_an_http_error_becomes_a_helpful_sentence(ask, provider, caplog, status, body, sentence):
    body = json.dumps(body) if isinstance(body, list) else body
    provider.fails(status, body, times=3)
    with caplog.at_level(logging.DEBUG, logger="chattable.provider"):
        answer = ask()
    assert sentence in answer.error
    assert KEY not in answer.error + caplog.text
    assert answer.text == ""


@pytest.mark.parametrize("error", [None, "", {}, "Bad Request"])
def test_an_error_may_say_beside_its_error_what_went_wrong(ask, provider, error):
    provider.fails(400, {"error": error, "message": "maximum context length exceeded"})
    assert TOO_LONG in ask().error


@pytest.mark.parametrize("charset", ["utf-16", "idna", "base64", "nonsense"])
def test_an_error_is_read_whatever_charset_it_claims(ask, provider, charset):
    kind = {"content-type": f"application/json; charset={charset}"}
    provider.fails(401, wire.error("no"), headers=kind)
    assert "refused the API key" in ask().error


@pytest.mark.parametrize("status", [302, 403])
def test_of_an_error_without_end_only_the_beginning_is_read(ask, provider, status):
    script = provider.fails(status, b"x" * 100_000, headers={"content-length": str(10**9)})
    script.steps.append(lambda exchange: exchange.pause(None))
    assert ask().error.startswith("The provider")
    assert script.wait_for_disconnect()


def test_an_http_error_that_breaks_off_is_explained_by_its_status(ask, provider):
    for _ in range(3):
        script = provider.fails(503, b"{", headers={"content-length": "100"})
        script.steps.append(lambda exchange: exchange.drop())
    assert "is overloaded" in ask().error
    assert len(provider.requests) == 3


def test_a_compressed_error_is_read(ask, provider):
    body = gzip.compress(json.dumps(wire.error("prompt is too long")).encode())
    provider.fails(400, body, headers={"content-encoding": "gzip"})
    assert TOO_LONG in ask().error


def test_a_key_the_provider_quotes_reaches_no_page_and_no_log(chat, provider, caplog):
    caplog.set_level(logging.INFO)
    error = wire.error(f"Incorrect key {KEY}", type=KEY, code=KEY, param=KEY)
    provider.fails(401, error, headers={"x-key": KEY})
    message = chat.run(MODEL)
    with current_app.test_request_context():
        page = render_template("chattable/_message.html", message=message, body=message.body)
    assert message.status == "failed"
    assert "refused the API key" in page
    assert KEY not in page + caplog.text + repr(message.error)


def test_a_refused_request_costs_nothing(chat, provider):
    provider.fails(401)
    message = chat.run(MODEL)
    assert (message.prompt_token_usage, message.completion_token_usage) == (None, None)
    assert (message.input_cost, message.output_cost) == (None, None)


def test_a_provider_nobody_listens_at_cannot_be_reached(ask, caplog):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = ask(OPENAI_BASE_URL=f"http://ada:s3cret@127.0.0.1:{port}/v1?key=s3cret")
    assert answer.error == "The provider could not be reached. Try again in a moment."
    assert f"at 127.0.0.1:{port}: it refused the connection" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_provider_whose_name_nobody_knows_cannot_be_reached(ask, caplog):
    told = ask(OPENAI_BASE_URL="https://provider.invalid/v1").error
    assert told == "The provider could not be reached. Try again in a moment."
    assert "at provider.invalid:443: its name is unknown" in caplog.text


@pytest.mark.parametrize(("key", "sent"), [(None, "none"), (" ", "none"), (" sk-1\n", "sk-1")])
def test_a_key_is_sent_without_the_blanks_around_it(ask, provider, key, sent):
    provider.says("Hi")
    assert ask(OPENAI_API_KEY=key).text == "Hi"
    assert provider.requests[0].headers["authorization"] == f"Bearer {sent}"


def test_a_key_that_cannot_be_sent_is_a_wrong_key(ask, caplog):
    assert "refused the API key" in ask(OPENAI_API_KEY="“sk-secret”").error
    assert "sk-" not in caplog.text


def test_a_base_url_may_have_a_query_a_name_and_blanks_around_it(ask, provider):
    provider.says("Hi")
    url = provider.url.replace("//", "//ada:secret@")
    assert ask(OPENAI_BASE_URL=f" {url}?api-version=7\n").text == "Hi"
    asked = provider.requests[0]
    assert asked.path == "/v1/chat/completions?api-version=7"
    assert asked.headers["authorization"] == f"Bearer {KEY}"


@pytest.fixture
def unsent(request, bare_app, config, monkeypatch):
    """The environment has a setting that no header can have."""
    monkeypatch.setenv(*request.param)
    engine.init_app(bare_app)  # a new client: the SDK reads it once
    yield
    engine.init_app(bare_app)


SETTINGS = [("OPENAI_ORG_ID", "org-1\n"), ("OPENAI_ORG_ID", "örg"), ("OPENAI_PROJECT_ID", "p\n")]


@pytest.mark.parametrize("unsent", SETTINGS, indirect=True)
def test_a_setting_that_cannot_be_sent_is_told_in_a_sentence(ask, unsent):
    assert ask().error.startswith(("The request cannot be sent", "The provider could not be"))


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_base_url_may_end_in_a_slash(ask, provider, slash):
    provider.says("Hi")
    assert ask(OPENAI_BASE_URL=provider.url + slash).text == "Hi"
    assert provider.requests[0].path == "/v1/chat/completions"


def test_the_request_says_what_it_should(ask, provider):
    provider.says("Hi")
    ask("What?")
    asked = provider.requests[0]
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.json == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


# Asking again.


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
def test_a_busy_provider_is_asked_again(ask, provider, status):
    provider.fails(status, times=2)
    provider.says("Here now")
    answer = ask()
    assert (answer.text, answer.error) == ("Here now", None)
    assert len(provider.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 413, 422])
def test_what_would_fail_again_is_not_asked_again(ask, provider, status):
    provider.fails(status)
    assert ask().error
    assert len(provider.requests) == 1


@pytest.mark.parametrize("how", [{}, {"reset": True}])
def test_a_connection_cut_before_the_answer_began_is_tried_again(ask, provider, how):
    provider.reply().cuts(**how)
    provider.says("Here now")
    assert ask().text == "Here now"


@pytest.mark.parametrize("wait", ["0.3", "date"])
def test_asking_again_waits_as_long_as_it_was_told(ask, provider, wait):
    seconds = formatdate(time.time() + 3, usegmt=True) if wait == "date" else wait
    provider.fails(429, headers={"retry-after": seconds})
    provider.says("Here now")
    assert ask().text == "Here now"
    first, second = provider.requests
    assert second.at - first.at > 0.28


def test_a_provider_that_wants_an_hour_is_not_waited_for(ask, provider):
    provider.fails(429, headers={"retry-after": "3600"})
    assert "too many requests" in ask().error
    assert len(provider.requests) == 1


@pytest.mark.parametrize("wait", ["soon", "-5", "nan", ""])
def test_a_senseless_retry_after_is_ignored(ask, provider, wait):
    provider.fails(503, headers={"retry-after": wait})
    provider.says("Here now")
    assert ask().text == "Here now"


# Stopping.


def completion():
    return engine.Completion(MODEL, [{"role": "user", "content": "Hello"}])


def stopped(completion, *waits, text=""):
    """Read until `waits` are over and `text` is here; stop from outside; return the answer."""
    answer, said = Answer(completion), threading.Event()

    def read():
        for more in completion:
            answer.steps.append(more)
            if answer.text == text:
                said.set()

    with completion, ThreadPoolExecutor() as pool:
        reading = pool.submit(read)
        for wait in waits:
            wait()
        assert said.wait(patient(5))
        completion.stop()
        reading.result(patient(5))
    return answer


@pytest.mark.parametrize("where", ["headers", "token", "middle"])
def test_stopping_hangs_up_at_once_and_keeps_the_text(config, provider, where):
    reply = provider.reply()
    if where != "headers":
        reply.begins()
    if where == "middle":
        reply.says("one ", "two")
    reply.holds()
    text = "one two" if where == "middle" else ""
    answer = stopped(completion(), reply.wait_for_hold, text=text)
    assert reply.wait_for_disconnect()
    assert answer.text == text


def test_stopping_does_not_wait_for_a_busy_caller(config, provider):
    reply = provider.says("one").holds()
    with completion() as asked:
        assert next(step for step in asked if step) == "one"
        asked.stop()
        assert reply.wait_for_disconnect()
        assert Answer(asked).read().text == ""


def test_stopping_between_two_attempts_asks_no_more(config, provider):
    reply = provider.fails(429, headers={"retry-after": "1"})
    stopped(completion(), reply.wait_for_request, lambda: reply.request.wait_for_answer())
    readers_end()
    assert len(provider.requests) == 1


def test_a_caller_that_fails_hangs_up(config, provider):
    reply = provider.says("one").hangs()
    with pytest.raises(ZeroDivisionError), completion() as asked:
        for more in asked:
            assert not more or 1 / 0
    assert reply.wait_for_disconnect()


def readers_end():
    """Wait until no completion is read any more."""
    for thread in threading.enumerate():
        if thread.name == "provider":
            thread.join(patient(5))
            assert not thread.is_alive()


# Connections.


def test_fifty_stops_leave_no_connection_behind_and_the_pool_sound(config, provider):
    for n in range(50):
        reply = provider.says("one ").holds() if n % 2 else provider.reply().holds()
        stopped(completion(), reply.wait_for_hold, text="one " if n % 2 else "")
        reply.wait_for_disconnect()
    wait_for_connections(provider, 0)
    for _ in range(3):
        provider.says("Still here")
        with completion() as asked:
            assert Answer(asked).read().text == "Still here"
        readers_end()
    wait_for_connections(provider, 1)


def wait_for_connections(provider, count):
    with provider.changed:
        assert provider.changed.wait_for(lambda: len(provider.connections) <= count, patient(3))


def test_a_connection_serves_one_reply_after_the_other(ask, provider):
    seen = set()
    for _ in range(3):
        reply = provider.says("Hi").sends_event(json.loads(FINISH[6:])).sends_event("[DONE]")
        reply.pauses(0.1).ends()
        assert ask().text == "Hi"
        readers_end()
        seen |= provider.connections
    assert len(seen) == 1


def test_a_body_that_goes_on_after_the_last_event_is_not_waited_for(ask, provider, monkeypatch):
    monkeypatch.setattr("chattable.provider.stream.FAREWELL", 0.1)
    reply = provider.says("Hi").sends_event("[DONE]").hangs()
    assert ask().error is None
    assert reply.wait_for_disconnect()
    readers_end()


def test_few_idle_connections_are_kept(config, provider):
    replies = [provider.says("one", hold=True) for _ in range(30)]
    with ThreadPoolExecutor(len(replies)) as pool:
        reading = [pool.submit(read, completion()) for _ in replies]
        provider.wait_for_request(len(replies))
        provider.release()
    assert [text.result() for text in reading] == ["one"] * len(replies)
    readers_end()
    wait_for_connections(provider, KEPT_CONNECTIONS)


def read(asked):
    with asked:
        return Answer(asked).read().text


def test_a_connection_that_was_closed_while_idle_is_replaced(ask, provider, caplog):
    provider.says("one")
    assert ask().text == "one"
    readers_end()
    provider.forget()
    provider.says("two")
    assert ask().text == "two"
    assert not caplog.records


def test_a_connection_that_has_idled_for_long_is_replaced(ask, provider, monkeypatch):
    provider.says("one")
    assert ask().text == "one"
    readers_end()
    [before] = provider.connections
    monkeypatch.setattr("chattable.provider.transport.KEPT_FOR", 0)
    provider.says("two")
    assert ask().text == "two"
    assert before not in provider.connections


def test_a_busy_provider_is_asked_again_on_the_same_connection(ask, provider):
    seen = set()
    for script in (provider.fails(429), provider.fails(429), provider.says("Here now")):
        script.steps.insert(0, lambda exchange: seen.add(exchange.connection))
    assert ask().text == "Here now"
    assert len(seen) == 1


def test_what_only_announces_an_answer_is_passed_over(ask, provider):
    for _ in range(2):
        script = provider.reply()
        script.steps.append(lambda exchange: exchange.raw(EARLY))
        script.says("Hi")
        assert ask().text == "Hi"
        readers_end()


EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"


@pytest.mark.parametrize("status", [101, 204])
def test_a_body_where_none_should_be_answers_nobody_else(ask, provider, status):
    script = provider.reply()
    script.steps.append(lambda exchange: exchange.raw(wire.http_head(status, {})))
    late = wire.http_head(200, {"content-length": 2}) + b"{}"
    script.holds().steps.append(lambda exchange: exchange.raw(late))
    ask()
    readers_end()
    answer = provider.says("two")
    answer.steps.insert(0, lambda exchange: (script.release(), exchange.pause(0.1)))
    assert ask().text == "two"


def test_a_cookie_is_not_sent_back(ask, provider):
    provider.fails(429, headers={"set-cookie": "a=\xe9", "retry-after-ms": "20"})
    provider.says("Hi")
    assert ask().text == "Hi"
    assert "cookie" not in provider.requests[1].headers


def test_an_answer_that_is_no_http_is_not_asked_for_again(ask, provider):
    script = provider.reply()
    script.steps.append(lambda exchange: exchange.raw(b"what?\r\n\r\n"))
    script.cuts()
    assert ask().error == "The provider's answer could not be understood. Try again."
    assert len(provider.requests) == 1


def test_what_a_provider_says_while_nobody_asks_answers_nobody(ask, provider):
    provider.says("one")
    assert ask().text == "one"
    readers_end()
    [connection] = provider.connections
    connection.send(wire.http_head(400, {"content-length": 0}))
    provider.says("two")
    assert ask().text == "two"


def test_a_kept_connection_that_ends_as_it_is_used_is_replaced_at_once(ask, provider, caplog):
    provider.says("one")
    assert ask().text == "one"
    readers_end()
    provider.reply().cuts()
    provider.says("two")
    assert ask().text == "two"
    assert not caplog.records


def test_a_list_of_models_that_never_ends_is_given_up(config, bare_app, monkeypatch):
    monkeypatch.setattr("chattable.provider.client.MODELS_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        config["OPENAI_BASE_URL"] = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        engine.init_app(bare_app)
        pool.submit(drip, listener)
        with pytest.raises(engine.ProviderError, match="took too long"):
            engine.list_models()


def drip(listener):
    """Answer one request with a byte now and then, until the other side leaves."""
    connected, _ = listener.accept()
    with connected, suppress(OSError):
        connected.recv(65_536)
        connected.sendall(wire.http_head(200, {"content-type": "application/json"}))
        while True:
            connected.sendall(b" ")
            time.sleep(0.02)


CHUNKED = b"5;name=value\r\none \n\r\n001\r\n2\r\n3\nabc\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
def test_chunks_of_a_body_may_be_split_anywhere(size):
    body = Chunks()
    pieces = [body.feed(CHUNKED[at : at + size]) for at in range(0, len(CHUNKED), size)]
    assert (b"".join(pieces), body.over, body.clean, body.broken) == (
        b"one \n2abc",
        True,
        True,
        False,
    )


@pytest.mark.parametrize("line", [b"x\r\n", b"-5\r\n", b"\r\n", b"1" * 70_000, b""])
def test_a_chunk_without_a_size_breaks_the_answer_off(line):
    body = Chunks()
    assert body.feed(b"3\r\none\r\n" + line) == b"one"
    if not body.broken:
        body.feed(b"")
    assert (body.over, body.broken) == (False, True)


# TLS.


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """The certificate of `localhost`, which this process trusts."""
    if not shutil.which("openssl"):
        pytest.skip("nothing makes a certificate here: no openssl")
    path = make_certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


@pytest.fixture
def secure_url(provider, certificate):
    """The provider's address over TLS."""
    with Gate(provider.port, certificate) as gate:
        yield f"https://localhost:{gate.port}/v1"


def test_a_provider_is_asked_over_tls_on_a_kept_connection(ask, provider, secure_url):
    seen = set()
    for changes in ({"OPENAI_BASE_URL": secure_url}, {}):
        provider.says("One ", "two")
        assert ask(**changes).text == "One two"
        readers_end()
        seen |= provider.connections
    assert len(seen) == 1


def test_a_provider_whose_certificate_nobody_vouches_for_is_told_nothing(
    ask, provider, secure_url, monkeypatch
):
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "could not be reached" in ask(OPENAI_BASE_URL=secure_url).error
    assert not provider.requests


def test_a_silent_reply_over_tls_is_stopped(ask, config, bare_app, provider, secure_url):
    reply = provider.says("one ").holds()
    config["OPENAI_BASE_URL"] = secure_url
    engine.init_app(bare_app)
    assert stopped(completion(), reply.wait_for_hold, text="one ").text == "one "
    assert reply.wait_for_disconnect()
    readers_end()


# Threads and greenlets, and the child of a fork.

PATCH = "from gevent.monkey import patch_all; patch_all()"
PROCESS = """
import os, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
from flask import Flask
from chattable import provider

app = Flask("process")
app.config.update(OPENAI_API_KEY="k", OPENAI_BASE_URL=sys.argv[1], READ_TIMEOUT=30)
provider.init_app(app)

told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append("to stop"))

def reply(stop_at=None):
    with app.app_context(), provider.Completion("m", [{"role": "user", "content": "x"}]) as asked:
        text = ""
        for more in asked:
            text += more
            if text == stop_at or told:
                threading.Thread(target=asked.stop).start()
        return text

def replies(*stops):
    with ThreadPoolExecutor(len(stops)) as pool:
        return " ".join(pool.map(reply, stops))

def end():
    for thread in threading.enumerate():
        if thread.name == "provider":
            thread.join(30)
            assert not thread.is_alive()
"""
WORLDS = pytest.mark.parametrize("world", [PATCH, ""], ids=["greenlets", "threads"])


@pytest.fixture
def run(provider):
    """Run lines of Python in a process that may use `reply`, `replies` and `end`; its output."""
    where = Path(engine.__file__).parent.parent.parent

    def run_lines(world, lines, url=provider.url, stop=None):
        command = [sys.executable, "-c", f"{world}\n{PROCESS}\n{lines}", url]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=where, **pipes) as process:
            if stop:
                stop(process)
            said, errors = process.communicate(timeout=patient(30))
        assert process.returncode == 0, errors
        return said.split("\n")[:-1]

    return run_lines


@WORLDS
def test_fifty_replies_are_stopped_and_the_process_goes_on(provider, run, world):
    for _ in range(50):
        provider.says("one ").holds()
    provider.says("Still ", "here")
    told = run(world, "replies(*['one '] * 50); end(); print(reply()); end()")
    assert told == ["Still here"]
    for request in provider.requests[:50]:
        assert request.wait_for_disconnect()


@WORLDS
def test_twenty_replies_come_at_once(provider, run, world):
    held = [provider.says("one ", hold=True).says("two") for _ in range(20)]
    with ThreadPoolExecutor() as pool:
        told = pool.submit(run, world, "print(replies(*[None] * 20)); end()")
        for reply in held:
            reply.wait_for_hold(timeout=20)
        provider.release()
        assert told.result() == [" ".join(["one two"] * 20)]


@WORLDS
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("text", ["", "one "], ids=["headers", "token"])
def test_a_silent_reply_is_stopped_from_another_thread(
    provider, secure_url, run, world, secure, text
):
    reply = provider.says(text).holds() if text else provider.hangs()

    def stop(process):
        reply.wait_for_request(timeout=20)
        process.send_signal(signal.SIGUSR1)

    lines = f"print(repr(reply({text or None!r}))); end()"
    url = secure_url if secure else provider.url
    assert run(world, lines, url, None if text else stop) == [repr(text)]
    assert reply.wait_for_disconnect()


FORK = """
print(reply(), flush=True); end()
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
    print(reply(), flush=True); end()
else:
    print(reply(), flush=True); end(); os._exit(0)
"""


@WORLDS
def test_a_forked_child_asks_on_a_connection_of_its_own(provider, run, world):
    provider.says("parent")
    child, parent = provider.says("child", hold=True), provider.says("parent again", hold=True)
    with ThreadPoolExecutor() as pool:
        told = pool.submit(run, world, FORK)
        child.wait_for_hold(timeout=20)
        assert len(provider.connections) == 2
        child.release()
        parent.wait_for_hold()
        wait_for_connections(provider, 1)
        parent.release()
        assert told.result() == ["parent", "child", "parent again"]


def test_a_shell_sees_the_answer_grow(ask, provider):
    provider.says("One ").pauses(0.1).says("two ").pauses(0.1).says("three")
    answer = ask(READ_TIMEOUT=1)
    assert [step for step in answer.steps if step][0] == "One "
    assert answer.text == "One two three"
    provider.says("one").cuts()
    assert ask().error == BROKE
