"""What of a request a provider does not take, and how it is asked without that.

Only `stream` and `client` come in here. Of what providers may refuse, a request has
`stream_options`, `stream` and messages of the role `system`; limits and temperatures are never
sent.
"""

import os
import re
import time
from bisect import bisect
from contextlib import suppress

from flask import current_app

from chattable.provider.dialect import decode
from chattable.provider.errors import KINDS, TLS_PORT, UNKNOWN_MODEL, fits
from chattable.provider.window import Told

# Where an error says what is wrong. Elsewhere, as in `input`, it may quote all of a request.
WHERE = ("error", "errors", "detail", "details", "metadata", "raw", "innererror", "fieldviolations")
WHAT = (
    *("message", "msg", "error_msg", "errormessage", "reason", "description", "title"),
    *("type", "code", "param", "loc", "field", "n_ctx"),
)
# What a text does not tell apart from what it quotes behind it.
INPUT = re.compile(r"""(["']input["']\s*:|\binput_value=).*""", re.DOTALL)
# Errors in errors.
DEEPEST = 10
# Characters of an error that are looked at, and with which a quotation begins.
MOST_WORDS, BEGINNING = 2**14, 10
# Bytes. Words as short as a name of ours are not taken for a quotation.
SHORT = len("stream_options")
# A word that we sent, and what tells that it is the trouble.
OPTIONS = re.compile(r"stream(?:ing)?[ _-]?(?:options?|usage)\b|include[ _-]?usage|usage in stream")
# As people say that there is no such thing, in a sentence without quotation marks.
NOT = (
    r"(?:un(?:supported|available|implemented)|disabled|must be (?:false|off|disabled|verified)"
    r"|(?:not|cannot|(?:is|are|do|does)nt)(?: \w+)?"
    r" (?:support|allow|permit|available|implement|enabled|accept|verified)\w*)"
)
FEW_WORDS = r"(?:[^\w.;!?\n]+\w+){0,4}?[^\w.;!?\n]+"
STREAM = r"\b(?:stream(?:ing|ed)?|server-sent events)\b(?:\W{1,3}true\b)?"
STREAM_ITSELF = re.compile(r"^(?:param|loc|field): (?:body\.)?stream$", re.MULTILINE)
NO_STREAM = re.compile(
    # What comes after a colon is another matter.
    rf"{NOT}{FEW_WORDS}{STREAM}|{STREAM}{FEW_WORDS.replace(';', ':;')}{NOT}"
    r"|不支持流式|流式.{0,6}(?:不|未)"
)
SYSTEM = re.compile(
    r"(?<!the )\bsystem\b(?! error)|system (?:role|message|prompt|instruction)|\broles?\b"
    r"|developer instruction|should be user|系统|角色"
)
REFUSED = (
    *("not support", "nt support", "unsupported", "not enabled", "not allowed", "not permitted"),
    *("invalid", "unexpected", "unknown", "unrecognized", "should be", "must be", "must alternate"),
    *("not accept", "nt accept", "not available", "unavailable", "disabled", "rejected"),
    *("only ", "不支持", "不允许", "无效", "错误", "仅支持", "不可用"),
)
# In whose words there is something too much, which they need not name.
TOO_MUCH = re.compile(
    r"(unknown|unrecognized|unsupported|unexpected|additional|extra|unrecognised)"
    r"[ _-](request[ _-])?(field|parameter|argument|propert|keyword|input|key|param|option)"
    r"|extra_forbidden|(未知|多余|不支持|无效|非法|无法识别)的?(请求)?(参数|字段)|参数.{0,12}(不支持|无效|未知|非法)"
)
# An error in an answer that has begun has no status; a template that raises for a role is a 500 of
# its server. Of 4xx these are about something else, whatever they say.
ERRORS = (None, 500, 501)
OTHERS = (401, 402, 408, 429)
# Whoever names something that is not refused here.
NAMED = re.compile(r"^(?:param|loc|field): (?!body$)\S|^message: <", re.MULTILINE)
# Of these a refusal is remembered, for so long (s): the others may be an accident.
LASTING = (400, 422, 501)
REMEMBERED = 3600
PARTS = ("stream_options", "stream", "system")


def parts_refused() -> dict[tuple[str, str], float]:
    """Return {(model, part of a request): the moment it was refused}, as learnt in this process."""
    return current_app.extensions["chattable_provider"].setdefault("without", {})


def still_refused(learnt, model):
    """Return the parts that a model is asked without."""
    since = time.monotonic() - REMEMBERED
    return frozenset(part for part in PARTS if learnt.get((model, part), since) > since)


def words_of(body, messages=()):
    """Return what an error (JSON decoded, or its text) says, without what it quotes of messages.

    In lower case, without quotation marks, a line for each "name: value".
    """
    lines = "\n".join(f"{name}: {value}" for name, value in told("message", body))
    return without_quotations(bare(lines[:MOST_WORDS]), messages)


def told(name, value, depth=0):
    """Yield (name, text) of all that an error says of what is wrong."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        # What somebody behind them has said.
        with suppress(ValueError):
            value = decode(value.encode())
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else ((name, each) for each in value)
        for key, each in inside:
            if depth < DEEPEST and key.lower() in WHERE + WHAT:
                yield from told("message" if key.lower() in WHERE else key, each, depth + 1)
    elif value is not None:
        yield name, INPUT.sub("", str(value))


def bare(text):
    text = re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), text.lower())
    return re.sub(r"""[\\"']""", "", re.sub(r"\\[nrt]", "\n", text))


def without_quotations(words, messages):
    """Return words without the lines of messages, as far as each is quoted from its beginning."""
    said = {line.strip() for each in messages for line in bare(each["content"]).splitlines()}
    lines = sorted(line for line in said if len(line.encode()) > SHORT)
    kept, at = [], 0
    while at < len(words):
        quoted = quotation(words[at:], lines)
        kept.append(" " if quoted else words[at])
        at += quoted or 1
    return "".join(kept)


def quotation(words, lines):
    """Return how many characters, with which words begin, are quoted of sorted lines."""
    # The line that has most of them in common is beside where they would stand.
    at = bisect(lines, words)
    near = lines[max(at - 1, 0) : at + 1]
    common = [(len(os.path.commonprefix([words, line])), line) for line in near]
    return max((n for n, line in common if n >= min(BEGINNING, len(line))), default=0)


def refused_part(status, words, request):
    """Return which part of a request (a dict) a provider refuses with these words, or None."""
    if status in OTHERS or status not in ERRORS and not 400 <= status < 500:
        return None
    has_system = any(message["role"] == "system" for message in request["messages"])
    asked = {*request, "system"} if has_system else request
    too_much = status in (400, 422) and TOO_MUCH.search(words)
    parts = [*named_parts(words), *(["stream_options"] if too_much else [])]
    return next((part for part in parts if part in asked), None)


def named_parts(words):
    """Yield the parts of a request that are refused outright, the surest first."""
    if STREAM_ITSELF.search(words):
        yield "stream"
    if OPTIONS.search(words):
        yield "stream_options"
    if SYSTEM.search(words) and says(words, REFUSED):
        yield "system"
    if NO_STREAM.search(words):
        yield "stream"


def guessed_part(status, words, request):
    """Return what to leave out where a provider takes a request for wrong, and tells no more."""
    vague = status in (400, 422) and not (
        any(fits(kind, status, words) for kind in KINDS)
        or says(words, (*UNKNOWN_MODEL, *TLS_PORT, bare(request["model"])))
        or NAMED.search(words)
    )
    return "stream_options" if vague and "stream_options" in request else None


def says(words, signs):
    return any(sign in words for sign in signs)


def build_request(model, messages, without):
    """Return the body of a request, without the parts that are refused."""
    request = {
        "model": model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if "system" in without:
        request["messages"] = as_said_by_user(messages)
    if "stream" in without:
        without = {*without, "stream_options"}
    return {name: value for name, value in request.items() if name not in without}


def as_said_by_user(messages):
    """Return messages whose system's words open the turn of the person after them."""
    users = ({**each, "role": "user"} if each["role"] == "system" else each for each in messages)
    return Told.of(users).messages
