"""One request and its answer on a connection of the test's provider."""

import json
import time
from functools import cached_property

from tests import wire
from tests.patience import patient


class Gone(Exception):
    """The reader closed the connection before the answer was complete."""


class Request:
    """What was asked: `path`, `headers` (lower-case names), `json`, `at` (monotonic seconds)."""

    def __init__(self, changed, method, path, headers, body):
        self.changed = changed
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.at = time.monotonic()
        self.answered_at = None
        self.disconnected_at = None

    @cached_property
    def json(self):
        return json.loads(self.body or "null")

    @property
    def prompt(self):
        """Return the text of the last message, or "" when there is none."""
        messages = (self.json or {}).get("messages") or [{}]
        return messages[-1].get("content") or ""

    def wait_for_disconnect(self, timeout=5):
        """Wait for the reader to hang up in mid-answer; return the moment (monotonic seconds)."""
        return self._wait_for("disconnected_at", timeout)

    def wait_for_answer(self, timeout=5):
        """Wait until the answer was written to its end; return the moment (monotonic seconds)."""
        return self._wait_for("answered_at", timeout)

    def _wait_for(self, moment, timeout):
        with self.changed:
            if not self.changed.wait_for(lambda: getattr(self, moment), patient(timeout)):
                raise TimeoutError(f"{moment} is unset after {patient(timeout)} s: {self.prompt!r}")
        return getattr(self, moment)


class Exchange:
    """Write one scripted answer; every method raises `Gone` when the reader has left."""

    def __init__(self, connection, request, reply):
        self.connection, self.request, self.reply = connection, request, reply
        self.model = request.json.get("model", "gpt-4o-mini")
        self.streamed = bool(request.json.get("stream")) and reply.streamed
        self.tokens = 0
        self.message = {"content": None}
        self.started = False

    def begin(self, role=True):
        """Send the head of the answer and the empty delta that names the role."""
        if self.started or not self.streamed:
            return
        self._start()
        if role:
            self._chunk({"role": "assistant", "content": "", "refusal": None})

    def delta(self, delta):
        """Send one delta, or gather it when the answer is not streamed."""
        self.begin()
        self.tokens += 1
        if self.streamed:
            self._chunk(delta, usage=self._running_usage())
        else:
            self._gather(delta or {})

    def _chunk(self, delta, **fields):
        self.body(wire.event(wire.chunk(self.model, delta, **fields)))

    def _gather(self, delta):
        for name, text in delta.items():
            self.message[name] = (self.message.get(name) or "") + text

    def body(self, data, gap=0):
        """Send bytes of the body, framed as this answer frames them."""
        if not self.started:
            self._start()
        chunked = self.reply.framing == "chunked"
        self.raw(wire.http_chunk(data) if chunked else data, gap)

    def raw(self, data, gap=0):
        """Send bytes on the connection, then stay silent for `gap` seconds."""
        self.connection.send(data)
        if gap:
            self.pause(gap)

    def hold(self):
        """Wait until the test releases this reply once more."""
        reply = self.reply
        with self.connection.changed:
            reply.holding += 1
            self.connection.changed.notify_all()
        self.connection.wait(lambda: reply.released >= reply.holding, None)

    def pause(self, seconds):
        """Stay silent for so many seconds; None is for ever."""
        self.connection.wait(lambda: False, seconds)

    def finish(self):
        """End like a healthy provider: finish reason, usage if asked for, `[DONE]`."""
        if not self.streamed:
            whole = wire.completion(self.model, self.message, self.reply.finish, self._usage())
            return self.answer(200, whole)
        self.begin()
        at_finish = self._usage() if self.reply.usage_at in ("finish", "every") else None
        self._chunk({}, finish_reason=self.reply.finish, usage=at_finish)
        if self.reply.usage_at == "end" and self._usage_asked():
            self.body(wire.event(wire.last_chunk(self.model, self._usage())))
        self.body(wire.DONE)
        return self.end()

    def answer(self, status, body, headers=None):
        """Answer at once with a status and a whole body: a dict (JSON), a string or bytes."""
        kind = "text/html; charset=utf-8"
        if isinstance(body, dict):
            kind, body = "application/json", wire.compact(body)
        data = body.encode() if isinstance(body, str) else body
        given = {"content-type": kind, "content-length": len(data), "x-request-id": "req_test"}
        self.raw(wire.http_head(status, given | (headers or {}) | self.reply.headers) + data)

    def end(self):
        """End the HTTP answer properly."""
        if not self.started:
            self._start()
        if self.reply.framing == "chunked":
            self.raw(wire.LAST_HTTP_CHUNK)
        else:
            self.drop()

    def drop(self, inside_chunk=False, reset=False):
        """Close the connection, with a chunk half written or a TCP reset if asked."""
        if inside_chunk:
            self.raw(b'40\r\ndata: {"id":"chatcmpl')
        if reset:
            self.connection.reset()
        else:
            self.connection.close()

    def _start(self):
        self.started = True
        headers = {"content-type": "text/event-stream; charset=utf-8", "x-request-id": "req_test"}
        chunked = self.reply.framing == "chunked"
        framing = {"transfer-encoding": "chunked"} if chunked else {"connection": "close"}
        self.raw(wire.http_head(200, headers | framing | self.reply.headers))

    def _usage_asked(self):
        return (self.request.json.get("stream_options") or {}).get("include_usage")

    def _usage(self):
        if self.reply.usage_at is None:
            return None
        counts = self.reply.usage_counts
        return counts or wire.usage(len(self.request.prompt) // 4 + 8, self.tokens)

    def _running_usage(self):
        if self.reply.usage_at == "every":
            so_far = min(self._usage()["completion_tokens"], self.tokens)
            return wire.usage(self._usage()["prompt_tokens"], so_far)
        early = self.reply.usage_at == "early" and self.tokens == 1
        return self._usage() if early else None
