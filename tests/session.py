"""A person's HTTP session and WebSocket, as a browser would hold them but without one."""

import html
import http.client
import re
import socket
import threading
import time
import uuid
from contextlib import suppress
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit

from tests import websocket
from tests.patience import patient

PASSWORD = "correct horse battery"
CSRF = re.compile(r'name="csrf_token"[^>]*?value="([^"]+)"|value="([^"]+)"[^>]*?name="csrf_token"')
CSRF_HEADER = re.compile(r"X-CSRFToken[^:]*:\s*(?:\"|&#34;|&quot;)([^\"&]+)")


class Answer:
    """An HTTP answer: `status`, `headers`, `text`, `location`."""

    def __init__(self, response):
        self.status, self.headers = response.status, response.headers
        self.text = response.read().decode(errors="replace")
        self.location = response.headers.get("Location")


class Session:
    """Requests to one web process with cookies kept and the CSRF token sent."""

    def __init__(self, url):
        self.url = url
        self.host = urlsplit(url).netloc
        self.cookies = {}
        self.csrf = None

    @property
    def cookie(self):
        """Return the Cookie header's value."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def request(self, method, path, fields=None, headers=None):
        """Send one request and return its `Answer`; redirects are not followed."""
        sent = {"Cookie": self.cookie, "Accept": "text/html"} | (headers or {})
        body = None
        if fields is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(fields)
        connection = http.client.HTTPConnection(self.host, timeout=patient(10))
        try:
            connection.request(method, path, body, {k: v for k, v in sent.items() if v})
            return self._remember(Answer(connection.getresponse()))
        finally:
            connection.close()

    def _remember(self, answer):
        for header in answer.headers.get_all("Set-Cookie") or []:
            for name, morsel in SimpleCookie(header).items():
                self.cookies[name] = morsel.value
        if found := CSRF.search(answer.text) or CSRF_HEADER.search(answer.text):
            self.csrf = html.unescape(next(group for group in found.groups() if group))
        return answer

    def get(self, path, **headers):
        """Fetch a page."""
        return self.request("GET", path, headers=headers)

    def post(self, path, htmx=False, **fields):
        """Submit a form with its CSRF token, as HTMX does if asked."""
        headers = {"X-CSRFToken": self.csrf or "", "HX-Request": "true" if htmx else ""}
        return self.request("POST", path, fields, headers)

    def signup(self, name, email, password=PASSWORD):
        """Create an account; the session is logged in afterwards."""
        return self._enter("/signup", name=name, email=email, password=password)

    def login(self, email, password=PASSWORD):
        """Log in."""
        return self._enter("/login", email=email, password=password)

    def _enter(self, path, **fields):
        self.get(path)
        answer = self.post(path, csrf_token=self.csrf, **fields)
        assert answer.status in (302, 303), f"{path} answered {answer.status}: {answer.text[:2000]}"
        self.email = fields["email"]
        self.get("/chats/new")
        return self

    def new_chat(self):
        """Create an empty chat and return its id."""
        answer = self.post("/chats")
        assert answer.status == 303, f"/chats answered {answer.status}: {answer.text[:2000]}"
        return int(answer.location.rsplit("/", 1)[1])

    def say(self, chat_id, content, model="gpt-4o-mini", client_id=None):
        """Send a message; return the `Answer` (204 when accepted)."""
        client_id = client_id or str(uuid.uuid4())
        fields = {"chat_id": chat_id, "content": content, "model": model, "client_id": client_id}
        return self.post("/messages", htmx=True, **fields)

    def stop(self, message_id):
        """Press Stop."""
        return self.post(f"/messages/{message_id}/stop", htmx=True)

    def retry(self, message_id):
        """Press Retry or Regenerate."""
        return self.post(f"/messages/{message_id}/retry", htmx=True)

    def socket(self, chat_id, since=None, **options):
        """Open the chat's WebSocket; without `since` at the revision a fresh page load names."""
        if since is None:
            since = self.revision(chat_id)
        path = f"/chats/{chat_id}/updates?since={since}"
        return Socket(self.host, path, self.cookie, **options)

    def revision(self, chat_id):
        """Return the revision that a fresh load of the chat names."""
        page = self.get(f"/chats/{chat_id}").text
        return re.search(r"/updates\?since=([^\"&]*)", page)[1]


class Socket:
    """A WebSocket that gathers `frames` (str) and `times` (monotonic seconds) in a thread.

    `code` is the close code, or 1006 when the connection broke; `status` the HTTP status; `pings`
    counts how often the server has asked whether anybody is there.
    """

    def __init__(self, host, path, cookie="", origin="", deflate=True):
        self.frames, self.times = [], []
        self.code = None
        self.pings = 0
        self.changed = threading.Condition()
        self.decoder = websocket.Decoder()
        self._reading = threading.Event()
        self._reading.set()
        name, port = host.split(":")
        self._socket = socket.create_connection((name, int(port)), timeout=patient(10))
        self._socket.settimeout(None)
        origin = f"http://{host}" if origin == "" else origin
        self._socket.sendall(websocket.handshake(host, path, cookie, origin, deflate))
        threading.Thread(target=self._read, daemon=True).start()
        self._wait(lambda: self.decoder.status or self.code, 10, "an answer to the handshake")

    @property
    def status(self):
        return self.decoder.status

    def wait_for(self, text, timeout=10):
        """Wait for a frame that contains `text`, or for which `text(frame)` holds; return it."""
        matches = text if callable(text) else lambda frame: text in frame
        return self._wait(lambda: next(filter(matches, self.frames), None), timeout, text)

    def wait_for_status(self, message_id, status, timeout=10):
        """Wait for the article of a message in this status; return its frame."""
        head = re.compile(rf'id="message-{message_id}"[^>]*data-status="{status}"')
        return self.wait_for(head.search, timeout)

    def wait_for_close(self, timeout=10):
        """Wait until the server has closed the socket; return the close code."""
        return self._wait(lambda: self.code, timeout, "the close")

    def say(self, text="?"):
        """Send a message: a page asks whether the server lives."""
        self._send(websocket.TEXT, text.encode())

    def stop_reading(self):
        """Leave what comes in the kernel's buffers, as a stalled client does."""
        self._reading.clear()

    def read_on(self):
        """Read again."""
        self._reading.set()

    def close(self):
        """Close politely and wait for the end."""
        self._send(websocket.CLOSE, (1000).to_bytes(2, "big"))
        return self.wait_for_close()

    def drop(self):
        """Vanish without a word, as a train in a tunnel does."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def _wait(self, condition, timeout, what):
        with self.changed:
            if not self.changed.wait_for(condition, patient(timeout)):
                last = "\n".join(self.frames[-3:])
                raise TimeoutError(f"no {what!r}; last of {len(self.frames)}: {last}")
            return condition()

    def _read(self):
        code = 1006
        try:
            while self._reading.wait() and (data := self._socket.recv(65536)):
                code = self._take(data) or code
        except OSError:
            pass  # the connection broke: 1006
        with self.changed:
            self.code = code
            self.changed.notify_all()
        self._socket.close()

    def _take(self, data):
        code = None
        with self.changed:
            for opcode, payload in self.decoder.feed(data):
                if opcode == websocket.TEXT:
                    self.frames.append(payload.decode())
                    self.times.append(time.monotonic())
                elif opcode == websocket.PING:
                    self.pings += 1
                    self._send(websocket.PONG, payload)
                elif opcode == websocket.CLOSE:
                    code = int.from_bytes(payload[:2], "big") or 1005
                    self._send(websocket.CLOSE, payload[:2])
            self.changed.notify_all()
        return code

    def _send(self, opcode, payload=b""):
        with suppress(OSError):  # the reader sees the same and says so
            self._socket.sendall(websocket.encode(opcode, payload))
