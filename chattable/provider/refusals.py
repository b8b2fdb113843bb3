"""What of a request a provider does not take, and how it is asked without that.

Only `stream` comes in here. Of what providers may refuse, a request has `stream_options`, `stream`
and messages of the role `system`; limits and temperatures are never sent.
"""

import re

from flask import current_app

from chattable.provider.window import Told

# A word that we sent, and what tells that it is the trouble.
OPTIONS = ("stream_options", "streamoptions", "include_usage", "includeusage")
NO_STREAM = re.compile(
    r"stream\W+(does not support|is not supported|must be false|not supported)"
    r"|(does not|doesn't|not) support (stream|streaming)\b|streaming (is )?(not |un)supported"
    r"|不支持流式"
)
SYSTEM = ("system", "developer instruction", "roles must alternate", "系统")
REFUSED = (
    *("not support", "n't support", "unsupported", "not enabled", "not allowed", "not permitted"),
    *("invalid", "unexpected", "unknown", "unrecognized", "should be", "must be", "must alternate"),
    *("only ", "不支持", "不允许", "无效", "错误"),
)
# In whose words there is something too much, which they need not name.
TOO_MUCH = re.compile(
    r"(unknown|unrecognized|unsupported|unexpected|additional|extra|unrecognised)"
    r"[ _-](request[ _-])?(field|parameter|argument|propert|keyword|input|key|param|option)"
    r"|extra_forbidden|(未知|多余|不支持|无效|非法|无法识别)的?(请求)?(参数|字段)|参数.{0,12}(不支持|无效|未知|非法)"
)
# The statuses of such a refusal; None is that of an error in an answer that has begun. A template
# that raises for a role is a 500 of its server.
STATUSES = (None, 400, 422, 500, 501)


def parts_refused() -> dict[str, frozenset]:
    """Return {model: parts of a request that it is asked without}, as learnt in this process."""
    return current_app.extensions["chattable_provider"].setdefault("without", {})


def refused_part(status, words, request):
    """Return which part of a request (a dict) a provider refuses with these words, or None."""
    words = re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), words.lower())
    if status not in STATUSES:
        return None
    if "stream_options" in request and any(word in words for word in OPTIONS):
        return "stream_options"
    has_system = any(message["role"] == "system" for message in request["messages"])
    if has_system and says(words, SYSTEM) and says(words, REFUSED):
        return "system"
    if "stream" in request and NO_STREAM.search(words):
        return "stream"
    if "stream_options" in request and status in (400, 422) and TOO_MUCH.search(words):
        return "stream_options"
    return None


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
