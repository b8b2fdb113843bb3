"""Scripted replies: what the test's provider does with one request, step by step."""

from tests import wire
from tests.patience import patient


class Reply:
    """Hold the steps that answer one request; every verb adds a step and returns self.

    A script without an ending of its own finishes like a healthy provider: finish
    reason "stop", usage when it was asked for, `[DONE]`.
    """

    def __init__(self, changed, when=None, streamed=True, framing="chunked", headers=None):
        self.changed = changed
        self.when = when
        self.streamed = streamed
        self.framing = framing
        self.headers = headers or {}
        self.steps = []
        self.finish = "stop"
        self.usage_at = "end"
        self.usage_counts = None
        self.ended = False
        self.holding = 0
        self.released = 0
        self.request = None

    # what is said

    def begins(self, role=True):
        """Send the headers and, with `role`, the empty first delta that OpenAI sends."""
        return self._step(lambda exchange: exchange.begin(role))

    def says(self, *tokens):
        """Send each token as a content delta in an event of its own."""
        return self._deltas({"content": token} for token in tokens)

    def thinks(self, *tokens, field="reasoning_content"):
        """Send each token as a reasoning delta, in DeepSeek's field or OpenRouter's `reasoning`."""
        return self._deltas({field: token} for token in tokens)

    def refuses(self, *tokens):
        """Send each token as a refusal delta."""
        return self._deltas({"refusal": token} for token in tokens)

    def sends_delta(self, delta):
        """Send one chunk with any delta: None for `"delta": null`, {} for an empty one."""
        return self._step(lambda exchange: exchange.delta(delta))

    def sends_event(self, data):
        """Send one event: a dict as JSON, a string as it is (unparsable, if you like)."""
        return self._step(lambda exchange: exchange.body(wire.event(data)))

    def sends_raw(self, pieces, gap=0.005):
        """Send these bytes of the body, each piece an HTTP chunk and a TCP segment of its own.

        `gap` seconds lie between pieces so that the reader meets them one by one.
        """
        for piece in pieces:
            self._step(lambda exchange, piece=piece: exchange.body(piece, gap))
        return self.ends()

    def sends_bytes(self, pieces, gap=0.005):
        """Send these bytes on the bare connection, HTTP head included, then close it."""
        for piece in pieces:
            self._step(lambda exchange, piece=piece: exchange.raw(piece, gap))
        return self._ending(lambda exchange: exchange.drop())

    # when it is said

    def holds(self):
        """Wait for `release()`, or for the reader to go."""
        return self._step(lambda exchange: exchange.hold())

    def pauses(self, seconds):
        """Wait so many seconds, or for the reader to go."""
        return self._step(lambda exchange: exchange.pause(seconds))

    # how it ends

    def finishes(self, reason="stop"):
        """End with this finish reason ("length", "content_filter", None to leave it out)."""
        self.finish = reason
        return self

    def uses(self, prompt, completion, at="end", **details):
        """Report this usage; `details` are `cached`, `reasoning` (tokens), `cost` (dollars).

        `at` is "end" (a chunk of its own with empty choices), "early" (in the first
        chunk), "every" (in each chunk) or "finish" (beside the finish reason).
        """
        self.usage_counts = wire.usage(prompt, completion, **details)
        self.usage_at = at
        return self

    def without_usage(self):
        """Never report usage, asked or not."""
        self.usage_at = None
        return self

    def fails(self, status, body, headers):
        """Answer with an HTTP error: `body` a dict (JSON), a string (HTML) or bytes."""
        return self._ending(lambda exchange: exchange.answer(status, body, headers))

    def errors(self, message="The server had an error", **fields):
        """Send an error object as an event in mid-stream, then end the answer."""
        return self.sends_event(wire.error(message, **fields)).ends()

    def ends(self):
        """End the HTTP answer properly but with no finish reason and no `[DONE]`."""
        return self._ending(lambda exchange: exchange.end())

    def cuts(self, inside_chunk=False, reset=False):
        """Close the connection before the end, `inside_chunk` or with a TCP reset if asked."""
        return self._ending(lambda exchange: exchange.drop(inside_chunk, reset))

    def hangs(self):
        """Say nothing more until the reader goes."""
        return self._ending(lambda exchange: exchange.pause(None))

    # what the test does and sees

    def release(self):
        """Let one `holds()` go on, the present one or the next."""
        with self.changed:
            self.released += 1
            self.changed.notify_all()

    def wait_for_hold(self, count=1, timeout=5):
        """Wait until everything before the `count`-th `holds()` has been written."""
        self._wait_for(lambda: self.holding >= count, timeout, "reached the hold")

    def wait_for_request(self, timeout=5):
        """Wait for the request that takes this script and return it."""
        self._wait_for(lambda: self.request, timeout, "was asked for")
        return self.request

    def wait_for_disconnect(self, timeout=5):
        """Wait for the reader to hang up in mid-answer; return the moment (monotonic seconds)."""
        return self.wait_for_request(timeout).wait_for_disconnect(timeout)

    def matches(self, request):
        """Tell whether this script may answer the request."""
        return self.when is None or self.when in request.prompt

    def play(self, exchange):
        """Answer one request."""
        for step in self.steps:
            step(exchange)
        if not self.ended:
            exchange.finish()

    def _wait_for(self, condition, timeout, what):
        with self.changed:
            if not self.changed.wait_for(condition, patient(timeout)):
                raise TimeoutError(f"no request {what} within {patient(timeout)} s")

    def _deltas(self, deltas):
        for delta in deltas:
            self.sends_delta(delta)
        return self

    def _step(self, step):
        assert not self.ended, "this script has ended already"
        self.steps.append(step)
        return self

    def _ending(self, step):
        self._step(step)
        self.ended = True
        return self
