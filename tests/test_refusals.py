"""A provider that does not take a part of a request is asked once more, without it."""

import json

import pytest

from chattable.provider.window import refused
from tests import wire
from tests.asking import Asker


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nobody waits before the SDK asks again."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0)


BOTH = ["stream", "stream_options"]
EXTRA = {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs"}
VAGUE = [wire.error(words) for words in ("Invalid request body", "Bad request", "参数错误")]
OPTIONS = [
    (400, wire.error("Unrecognized request argument supplied: stream_options")),
    (400, wire.error('json: unknown field "stream_options"')),
    (400, wire.error("Unknown parameter: 'stream_options'.", param="stream_options")),
    (400, wire.error("stream_options is only allowed with streams")),
    (400, {"message": "property 'stream_options' is unsupported"}),
    (400, {"message": "Additional properties are not allowed ('stream_options' was unexpected)"}),
    (400, {"message": "request/body must NOT have additional properties"}),
    (400, wire.error("不支持的参数: stream_options")),
    (400, {"code": "InvalidParameter", "message": "未知参数"}),
    (400, json.dumps({"error": "参数 x 不支持"}).encode()),
    (400, "unknown field, expected one of `model`, `messages`"),
    (422, {"detail": [EXTRA]}),
    (422, {"detail": [EXTRA | {"loc": ["body"], "msg": "Extra inputs are not permitted"}]}),
    (404, wire.error("stream_options not supported")),
    (405, wire.error("stream_options not supported")),
    (403, wire.error("stream_options forbidden")),
    (409, wire.error("stream_options")),
    (415, wire.error("Stream options are not supported")),
    (400, wire.error("Option include usage is not available")),
    (400, wire.error("Usage in stream cannot be requested")),
    (400, wire.error("Unsupported value", param="stream_options.include_usage")),
    *((400, body) for body in VAGUE),
    (422, VAGUE[0]),
    (500, wire.error("unexpected keyword argument 'stream_options'")),
    (501, wire.error("include_usage is not implemented")),
]


# What a person may write about, and an error then quotes.
QUOTED = [
    "Safari does not support streaming, why?",
    'Is it `stream_options`,\nor "include_usage"?',
    "这个模型不支持流式输出吗？",
    "Why does it say that the system role is not supported?",
    "What is a maximum context length of 300 tokens?",
]


def quoting(words):
    """Return the errors that quote these words: (status, body), None for one in a stream."""
    messages = [{"role": "user", "content": words}]
    asked = {"model": "m", "messages": messages, "stream_options": {"include_usage": True}}
    detail = {"type": "too_long", "loc": ["body", "messages", 0, "content"], "msg": "flagged"}
    return [
        (400, wire.error(f"flagged: {words}", code="content_filter")),
        (400, wire.error(f"flagged: {words[:-2]}...", code="content_filter")),
        (400, wire.error(json.dumps(wire.error(f"flagged: {words}")))),
        (422, {"detail": [detail | {"input": asked}]}),
        (422, wire.error(str([detail | {"input": asked}]))),
        (422, wire.error(f"1 validation error\nmessages: flagged [input_value={asked}")),
        (500, wire.error(f"crashed at: {words}")),
        (None, wire.error(f"lost while asking: {words}")),
    ]


@pytest.mark.parametrize("words", QUOTED)
def test_a_persons_own_words_refuse_nothing(provider, words):
    asker = Asker(provider.url, PRICES={}, CONTEXT_WINDOW={})
    for status, body in quoting(words):
        times = 3 if status == 500 else 1
        if status:
            provider.fails(status, body, times=times)
        else:
            provider.sends_raw([wire.event(body)])
        assert asker.ask("An earlier one", ("assistant", "Yes"), words).error, (status, body)
        assert asker.ask(("system", "Be brief."), "Hello").error is None
    with asker.app.app_context():
        assert refused() == {}
    assert parts(provider) == [["stream", "stream_options"]] * 18
    assert [said[0] for said in told(provider.requests[-1])] == ["system", "user"]


def tries(status):
    """Return how often the SDK asks by itself."""
    return 3 if status == 409 or status >= 500 else 1


def parts(provider):
    return [
        [name for name in ("stream", "stream_options") if name in request.json]
        for request in provider.requests
    ]


@pytest.mark.parametrize(("status", "body"), OPTIONS)
def test_stream_options_may_be_refused_in_any_words(provider, status, body):
    asker = Asker(provider.url)
    provider.fails(status, body, times=tries(status))
    provider.says("Fine then").without_usage()
    assert asker.ask().text == "Fine then"
    assert parts(provider)[-2:] == [BOTH, ["stream"]]
    # From now on it is asked rightly at once, unless that was an accident; other models as ever.
    assert asker.ask().error is None
    assert asker.ask(model="another").error is None
    remembered = status in (400, 422, 501) and body not in VAGUE
    assert parts(provider)[-2:] == [["stream"] if remembered else BOTH, BOTH]


def test_what_was_refused_is_tried_again_some_day(provider, monkeypatch):
    monkeypatch.setattr("chattable.provider.refusals.REMEMBERED", 0)
    asker = Asker(provider.url)
    provider.fails(*OPTIONS[0])
    assert asker.ask().error is None
    assert asker.ask().error is None
    assert parts(provider) == [BOTH, ["stream"], BOTH]


SYSTEM = [
    (400, wire.error("System role not supported")),
    (500, wire.error("System role not supported")),
    (400, wire.error("Unsupported value: 'messages[0].role' does not support 'system'")),
    (400, wire.error("Developer instruction is not enabled for models/gemma-3-27b-it")),
    (400, wire.error("Conversation roles must alternate user/assistant/user/assistant/...")),
    (400, wire.error("不支持 system 角色")),
    (400, wire.error("Only user and assistant roles are supported; got system")),
    (
        422,
        {"detail": [{"loc": ["messages", 0], "msg": "Input should be 'user'", "input": "system"}]},
    ),
]
SYSTEM += [
    (400, wire.error(words))
    for words in (
        "invalid role: system",
        "role must be one of user, assistant",
        "Only user and assistant roles are supported!",
        "System messages are not accepted",
        "System messages are not allowed",
        "role 'system' is not available",
        "The role system is unknown",
        "system prompt is disabled for this model",
        "System instructions are unavailable",
        "Roles other than user and assistant are rejected",
        "仅支持 user 和 assistant 角色",
    )
]
SYSTEM += [(status, SYSTEM[0][1]) for status in (403, 404, 405, 409, 415)]
TOLD = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi"), ("user", "And now?")]
FOLDED = [("user", "Be brief.\n\nHello"), ("assistant", "Hi"), ("user", "And now?")]


def told(request):
    return [(message["role"], message["content"]) for message in request.json["messages"]]


@pytest.mark.parametrize(("status", "body"), SYSTEM)
def test_the_systems_words_are_told_as_the_persons_where_there_is_no_system(provider, status, body):
    asker = Asker(provider.url)
    provider.fails(status, body, times=tries(status))
    assert asker.ask(*TOLD).error is None
    assert asker.ask(*TOLD).error is None
    after = FOLDED if status in (400, 422) else TOLD
    assert [told(request) for request in provider.requests[-3:]] == [TOLD, FOLDED, after]
    assert all("stream_options" in request.json for request in provider.requests)


UNVERIFIED = (
    "Your organization must be verified to stream this model. Please go to: https://x.example"
)
NO_STREAM = [
    (400, wire.error(UNVERIFIED, param="stream", code="unsupported_value")),
    (400, wire.error(UNVERIFIED)),
    (400, wire.error("Unsupported value", param="stream")),
    (422, {"detail": [{"loc": ["body", "stream"], "msg": "Input should be False"}]}),
    (400, wire.error("Unsupported value: 'stream' does not support true with this model.")),
    (400, wire.error("Streaming is not supported for this model")),
    (400, wire.error("This model does not support streaming")),
    (400, wire.error("This model doesn't support streaming responses.")),
    (400, wire.error("'stream' is unsupported")),
    (400, wire.error("Parameter stream is not supported")),
    (400, wire.error("Unsupported parameter: 'stream'")),
    (400, wire.error("stream: true is not supported")),
    (400, wire.error("stream=true is not available")),
    (400, wire.error("stream must be false")),
    (400, wire.error("Streaming is disabled")),
    (400, wire.error("Streaming unsupported")),
    (400, wire.error("Streaming not available")),
    (400, wire.error("streaming responses are not supported")),
    (400, wire.error("Streaming is not yet enabled for your account")),
    (400, wire.error("You are not allowed to stream this model")),
    (422, wire.error("stream not allowed")),
    (400, wire.error("Server-sent events not supported")),
    (501, wire.error("Streaming not implemented")),
    (400, wire.error("该模型不支持流式输出")),
    (400, wire.error("该模型流式输出暂不可用")),
]


NO_STREAM += [(status, NO_STREAM[5][1]) for status in (403, 404, 405, 409, 415)]


@pytest.mark.parametrize(("status", "body"), NO_STREAM)
def test_a_model_that_does_not_stream_answers_as_a_whole(provider, status, body):
    asker = Asker(provider.url)
    provider.fails(status, body, times=tries(status))
    provider.says("All of it", streamed=False)
    assert asker.ask().text == "All of it"
    assert parts(provider)[-2:] == [BOTH, []]


@pytest.mark.parametrize(
    "words",
    [
        "The upstream is not available",
        "Error while streaming: flagged, not allowed",
        "Streaming failed. The text was flagged, which is not allowed",
    ],
)
def test_who_only_speaks_of_a_stream_refuses_none(provider, words):
    provider.fails(400, wire.error(words, code="content_filter"))
    assert Asker(provider.url).ask().error
    assert parts(provider) == [BOTH]


def test_a_part_that_is_named_beside_others_is_the_trouble(provider):
    asker = Asker(provider.url)
    words = "Invalid value. Only some roles may stream; see stream_options."
    provider.fails(400, wire.error(words, param="stream"))
    provider.fails(400, wire.error("Only user roles are supported, with or without stream_options"))
    provider.says("All of it", streamed=False)
    assert asker.ask(*TOLD).text == "All of it"
    assert parts(provider) == [BOTH, [], []]
    assert [told(request) for request in provider.requests] == [TOLD, TOLD, FOLDED]


def test_each_part_is_left_out_once_and_all_of_them_together(provider):
    asker = Asker(provider.url)
    provider.fails(400, OPTIONS[0][1])
    provider.fails(400, SYSTEM[0][1])
    provider.says("Fine")
    assert asker.ask(*TOLD).text == "Fine"
    assert [told(request) for request in provider.requests] == [TOLD, TOLD, FOLDED]
    provider.fails(400, SYSTEM[0][1], times=2)
    assert "error 400" in asker.ask(*TOLD).error
    assert len(provider.requests) == 4


def test_a_refusal_may_come_in_a_stream(provider):
    provider.reply().errors("stream_options: Extra inputs are not permitted")
    provider.says("Fine")
    assert Asker(provider.url).ask().text == "Fine"
    assert parts(provider) == [["stream", "stream_options"], ["stream"]]


def test_what_did_not_help_is_not_remembered(provider):
    asker = Asker(provider.url)
    provider.fails(400, wire.error("Unknown parameter"), times=2)
    assert "error 400" in asker.ask().error
    assert asker.ask().error is None
    assert parts(provider) == [
        ["stream", "stream_options"],
        ["stream"],
        ["stream", "stream_options"],
    ]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, wire.error("Invalid API key")),
        (400, wire.error("Unknown model")),
        (400, wire.error("Input validation error", param="messages")),
        (401, wire.error("Unknown key: unsupported parameter")),
        (401, wire.error("stream_options")),
        (402, wire.error("stream_options")),
        (403, wire.error("The system is not available")),
        (404, wire.error("Streams of model gpt-4o-mini: none")),
        (422, {"detail": [{"loc": ["body", "messages", 0], "msg": "Field required"}]}),
    ],
)
def test_what_is_refused_for_another_reason_is_asked_once(provider, status, body):
    provider.fails(status, body)
    assert Asker(provider.url).ask(*TOLD).error
    assert len(provider.requests) == 1


def test_what_was_refused_is_billed_once(provider):
    provider.fails(400, SYSTEM[0][1])
    provider.says("Fine").uses(7, 2)
    answer = Asker(provider.url).ask(*TOLD)
    assert answer.tokens == (7, 2, False)
