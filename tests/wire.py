"""The OpenAI chat-completions wire format, as the bytes a provider writes."""

import json

CREATED = 1_760_000_000
COMPLETION_ID = "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"
DONE = b"data: [DONE]\n\n"


def event(data):
    """Frame one server-sent event as OpenAI does: `data: ` and compact JSON."""
    text = data if isinstance(data, str) else compact(data)
    return f"data: {text}\n\n".encode()


def compact(data):
    """Encode JSON without spaces and with real characters instead of escapes."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def chunk(model, delta, finish_reason=None, usage=None):
    """Build one `chat.completion.chunk`; a delta of None is sent as null."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": COMPLETION_ID,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [choice],
        "usage": usage,
    }


def last_chunk(model, usage):
    """Build the chunk that carries the usage after the end, with empty `choices`."""
    return chunk(model, {}, usage=usage) | {"choices": []}


def completion(model, message, finish_reason, usage):
    """Build one whole `chat.completion`, the answer to a request that is not streamed."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "refusal": None, "annotations": []} | message,
        "logprobs": None,
        "finish_reason": finish_reason,
    }
    whole = {
        "id": COMPLETION_ID,
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [choice],
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
    }
    return whole if usage is None else whole | {"usage": usage}


def usage(prompt, completion, cached=None, reasoning=None, cost=None):
    """Build a usage object in tokens; `cost` (dollars) is OpenRouter's addition.

    Cached tokens are a part of the prompt's and reasoning tokens of the completion's.
    """
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cached is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached, "audio_tokens": 0}
    if reasoning is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning, "audio_tokens": 0}
    return counts if cost is None else counts | {"cost": cost}


def error(message, type="invalid_request_error", code=None, param=None):
    """Build the error object that OpenAI sends with every 4xx and 5xx."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def model_list(names):
    """Build the answer to `GET /v1/models`."""
    models = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "system"} for name in names
    ]
    return {"object": "list", "data": models}


def http_head(status, headers):
    """Build the status line and headers of an HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def http_chunk(data):
    """Frame bytes as one piece of a chunked HTTP body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_HTTP_CHUNK = b"0\r\n\r\n"
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    413: "Payload Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    529: "Overloaded",
}
