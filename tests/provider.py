"""A local HTTP server that speaks a model provider's wire format, scripted by each test."""

import re
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress

from tests import wire
from tests.exchange import Exchange, Gone, Request
from tests.patience import patient
from tests.script import Reply

MODELS = ("gpt-4o-mini", "gpt-4o")
PARTS = r"/(chat/completions|models)(\?.*)?"


class Provider:
    """Serve `GET /v1/models` and `POST /v1/chat/completions` on loopback in own threads.

    Scripts are taken in the order they were queued, one by each request; one made with
    `when="text"` is taken only by a request whose last message contains that text.
    Without a script a request is answered with a short echo.
    """

    def __init__(self, models=MODELS):
        self.models = list(models)
        self.changed = threading.Condition()
        self.connections = set()
        self.scripts, self.requests, self.model_requests = deque(), [], []
        self.only_at = self.astray = None
        self.port = 0
        self.comes_back()

    @property
    def url(self):
        """Return what `OPENAI_BASE_URL` should hold."""
        return f"http://127.0.0.1:{self.port}/v1"

    # scripting

    def reply(self, when=None, streamed=True, framing="chunked", headers=None):
        """Queue a script and return it, empty; `framing` is "chunked" or "close"."""
        script = Reply(self.changed, when, streamed, framing, headers)
        with self.changed:
            self.scripts.append(script)
        return script

    def says(self, *tokens, hold=False, when=None, **options):
        """Queue a reply of these tokens that, with `hold`, waits for `release()` to finish."""
        script = self.reply(when, **options).says(*tokens)
        return script.holds() if hold else script

    def fails(self, status=500, body=None, headers=None, times=1, when=None):
        """Queue `times` HTTP errors; without a body, OpenAI's JSON for that status.

        Without headers, one says that the next time may come soon.
        """
        body = wire.error(f"Failed with {status}", param="messages") if body is None else body
        headers = {"retry-after-ms": "20"} if headers is None else headers
        for _ in range(times):
            script = self.reply(when).fails(status, body, headers)
        return script

    def sends_raw(self, pieces, when=None, **options):
        """Queue a reply of exact body bytes, each piece a chunk and a TCP segment of its own."""
        return self.reply(when, **options).sends_raw(pieces)

    def hangs(self, when=None):
        """Queue a reply that never begins."""
        return self.reply(when).hangs()

    def serves_only_at(self, path, status=404, body="404 page not found"):
        """Answer beneath this path alone; elsewhere with an error, until `forget()`.

        `astray` then holds the paths that were asked for elsewhere.
        """
        self.only_at, self.astray = (path, status, body), []

    def release(self):
        """Let every reply that holds go on, and every one queued pass its next hold."""
        with self.changed:
            scripts = [*self.scripts, *(request.reply for request in self.requests)]
        for script in scripts:
            script.release()

    # watching

    def wait_for_request(self, count=1, timeout=5):
        """Wait for the `count`-th request for a completion and return it."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.requests) >= count, patient(timeout)):
                raise TimeoutError(f"{len(self.requests)} of {count} requests")
            return self.requests[count - 1]

    def wait_for_disconnect(self, timeout=5):
        """Wait for the reader of the latest request to hang up; return the moment."""
        self.wait_for_request(timeout=timeout)
        return self.requests[-1].wait_for_disconnect(timeout)

    def forget(self):
        """Drop scripts, records and open connections, as between two tests."""
        with self.changed:
            self.scripts.clear()
            connections = list(self.connections)
        for connection in connections:
            connection.close()
        with self.changed:
            self.changed.wait_for(lambda: not self.connections, patient(5))
            self.requests, self.model_requests = [], []
            self.only_at = None

    # listening

    def comes_back(self):
        """Listen, on the same port as before if there was one."""
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[self.listener], daemon=True).start()

    def goes_away(self):
        """Refuse connections and drop those that are open, until `comes_back()`."""
        # close() alone would leave the accepting thread asleep on the old socket
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.forget()

    close = goes_away

    def _accept(self, listener):
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            connection = Connection(self, connected)
            with self.changed:
                self.connections.add(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def answer(self, connection, request):
        """Answer one request by its script."""
        if self.only_at and not re.fullmatch(self.only_at[0] + PARTS, request.path):
            return self._lead_nowhere(connection, request)
        if not request.path.partition("?")[0].endswith("/chat/completions"):
            return self._list_models(connection, request)
        with self.changed:
            request.reply = self.script_for(request)
            request.reply.request = request
            self.requests.append(request)
            self.changed.notify_all()
        exchange = Exchange(connection, request, request.reply)
        request.reply.play(exchange)
        return self._answered(request)

    def script_for(self, request):
        """Return the script that answers a request: the first that may, else an echo."""
        for script in self.scripts:
            if script.matches(request):
                self.scripts.remove(script)
                return script
        words = request.prompt.split()[:8]
        return Reply(self.changed).says("You ", "said: ", *(f"{word} " for word in words))

    def _answered(self, request):
        with self.changed:
            request.answered_at = time.monotonic()
            self.changed.notify_all()

    def _lead_nowhere(self, connection, request):
        _, status, body = self.only_at
        self.astray.append(request.path)
        kind = "text/html" if isinstance(body, str) else "application/json"
        data = (body if isinstance(body, str) else wire.compact(body)).encode()
        headers = {"content-type": kind, "content-length": len(data)}
        connection.send(wire.http_head(status, headers) + data)

    def _list_models(self, connection, request):
        self.model_requests.append(request)
        known = request.method == "GET" and request.path.partition("?")[0].endswith("/models")
        body = wire.model_list(self.models) if known else wire.error("Unknown request URL")
        data = wire.compact(body).encode()
        headers = {"content-type": "application/json", "content-length": len(data)}
        connection.send(wire.http_head(200 if known else 404, headers) + data)


class Connection:
    """Read requests from one client; a thread of its own writes each answer.

    The reader never stops reading, so it knows at once when the client hangs up.
    """

    def __init__(self, provider, connected):
        self.provider, self.socket = provider, connected
        self.changed = provider.changed
        self.gone_at = None
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self):
        """Read requests until the client or the script closes the connection."""
        # a reset is a way to hang up
        with suppress(OSError), self.socket.makefile("rb") as lines:
            while request := read_request(lines, self.changed):
                threading.Thread(target=self._answer, args=[request], daemon=True).start()
        with self.changed:
            self.gone_at = self.gone_at or time.monotonic()
            self.provider.connections.discard(self)
            self.changed.notify_all()

    def _answer(self, request):
        try:
            self.provider.answer(self, request)
        except (Gone, OSError):
            with self.changed:
                request.disconnected_at = self.gone_at or time.monotonic()
                self.changed.notify_all()

    def send(self, data):
        """Write bytes at once; raise OSError when the client has reset the connection."""
        self.socket.sendall(data)

    def wait(self, condition, timeout):
        """Wait for a condition or the timeout (seconds); raise `Gone` if the client leaves."""
        with self.changed:
            self.changed.wait_for(lambda: self.gone_at or condition(), timeout)
            if self.gone_at:
                raise Gone

    def reset(self):
        """Close with a TCP reset, as a crashed provider or a proxy does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.shutdown(socket.SHUT_RD)  # wakes the reader and sends nothing
        self.socket.close()

    def close(self):
        """Close both directions; the reader notices and ends."""
        with suppress(OSError):  # the client may have been first
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def read_request(lines, changed):
    """Read one request from a binary file; return None at its end."""
    first = lines.readline().split()
    if len(first) < 2:
        return None
    headers = {}
    while line := lines.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = lines.read(int(headers.get("content-length", 0)))
    return Request(changed, first[0].decode(), first[1].decode(), headers, body)
