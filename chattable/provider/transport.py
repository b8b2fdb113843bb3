"""HTTP as a stream of a provider needs it: connections that are kept, and that can be cut.

The openai SDK asks by it instead of its own transport, which costs three times as much a token and
ends nothing that another thread wants to have ended. Only `client` comes in here, and whoever asks
somebody else as carefully.
"""

import os
import socket
import ssl
import time
from collections import deque
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from functools import cached_property
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
)
from threading import Event, Lock

import httpx2

from chattable.provider.proxy import proxy_for

# Seconds.
CONNECT_TIMEOUT = 10
# A provider may want so long a wait before it is asked again, two times; else it has refused.
LONGEST_WAIT = 10
# Idle connections that wait for the next request.
KEPT_CONNECTIONS = 10
# Seconds after which a kept connection is not used again: somebody on the way may forget it.
KEPT_FOR = 60
# Bytes: what one look at a connection takes at once, and at most; more is not read of an error.
BLOCK = 65_536
MOST_AT_ONCE = 2**20
# Of what is packed, though nobody asked for it, so much is unpacked at once, and so many times what
# has arrived.
MOST_UNPACKED, MOST_TIMES = 2**22, 64
# What is read of an error, unpacked.
MOST_OF_ERROR = 2**20
# The statuses with which a proxy of plain HTTP says that it cannot, or may not, reach somebody.
PROXY_ERRORS = (403, 407, 500, 502, 503, 504)
# What the SDK is told of an answer's headers: a cookie would be sent with every later request, and
# errors are JSON, whatever charset they claim.
HEARD = ("content-encoding", "retry-after", "retry-after-ms", "x-should-retry")


class HungUp(Exception):
    """Raised in the thread that waits for an answer when another one has hung up."""


class TooMuch(Exception):
    """Raised for an answer that is longer than any model writes."""


class NotUnderstood(Exception):
    """Raised for an answer that is no HTTP: to ask again might be billed again."""


class Transport(httpx2.BaseTransport):
    """How the SDK's one client sends: on the `Line` of the thread that asks."""

    def handle_request(self, request):
        """Return the answer, its body as it arrives.

        Raises `httpx2.TransportError`, `NotUnderstood`, `HungUp`.
        """
        return asking_on.get().request(request)


# The line on which this thread, or greenlet, asks.
asking_on: ContextVar["Line"] = ContextVar("asking_on")


class Line:
    """One caller's way to a provider, request after request, until any thread hangs up."""

    def __init__(self, pool, most):
        self._pool, self._most = pool, most
        self._lock, self._over = Lock(), Event()
        self._sock = None

    def request(self, request):
        """See `Transport.handle_request`."""
        self.check()
        with translated():
            if kept := self._pool.take():
                # It may end as it is used: that says nothing about the provider.
                with suppress(ConnectionError):
                    return self._ask(kept, request)
            return self._ask(self._pool.open(), request)

    def _ask(self, connection, request):
        target, more = self._pool.address(request.url)
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers.raw}
        try:
            with self.listening():
                sock = self._connect(connection, request.extensions["timeout"]["read"])
                body = request.read() or None
                connection.request(request.method, target, body, headers | more)
                answer = connection.getresponse()
                self._pool.check(answer)
        except BaseException:
            self.drop(connection)
            raise
        heard = {name: answer.headers.get(name) for name in HEARD if name in answer.headers}
        if answer.status >= 300 and wait_in(heard) > LONGEST_WAIT:
            # Nobody would know why nothing comes.
            heard["x-should-retry"] = "false"
        return Bounded(
            self._most if answer.status < 300 else MOST_OF_ERROR,
            answer.status,
            headers=[(name.encode(), text.encode("latin-1")) for name, text in heard.items()],
            stream=Body(self, connection, sock, answer),
        )

    def _connect(self, connection, timeout):
        self.check()
        if not connection.sock:
            connection.connect()
        sock = connection.sock
        sock.settimeout(timeout)
        with self._lock:
            self.check()
            self._sock = sock
        return sock

    @contextmanager
    def listening(self):
        """Let a connection that breaks because it was cut raise `HungUp`."""
        try:
            yield
        except (OSError, HTTPException):
            self.check()
            raise

    def check(self):
        if self._over.is_set():
            raise HungUp

    def hang_up(self):
        """Cut what goes on, from any thread; who still connects finds out once it is through."""
        with self._lock:
            self._over.set()
            if self._sock:
                # `SSLSocket.shutdown` forgets the encryption, by which a thread is reading.
                with suppress(OSError):
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def keep(self, connection):
        """Leave a connection whose answer is over to the next request."""
        self._let_go()
        self._pool.keep(connection)

    def drop(self, connection):
        self._let_go()
        connection.close()

    def _let_go(self):
        # Before anything is closed: its number may be another connection's at once.
        with self._lock:
            self._sock = None


class Answer(HTTPResponse):
    """An answer behind all that only announces it: `HTTPResponse` knows that of 100 alone."""

    def begin(self):
        super().begin()
        while 101 < self.status < 200:
            self.headers = None  # type: ignore[assignment] # for `begin` to read on
            super().begin()


class Bounded(httpx2.Response):
    """A response of whose body, unpacked, no more than `most` bytes are read."""

    def __init__(self, most, *args, **options):
        super().__init__(*args, **options)
        self.most = most

    def iter_bytes(self, chunk_size=None):
        length = 0
        for piece in super().iter_bytes(chunk_size):
            yield piece
            length += len(piece)
            unpacked = MOST_UNPACKED + MOST_TIMES * self.num_bytes_downloaded
            if length > min(self.most, unpacked):
                if self.status_code < 300:
                    raise TooMuch
                return


def wait_in(headers):
    """Return the seconds for which an answer wants not to be asked again; 0 if it does not say."""
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(KeyError, ValueError):
            return float(headers[name]) / divisor
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        return parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
    return 0


@contextmanager
def translated():
    """Raise what goes wrong as `httpx2` does, which the SDK understands."""
    try:
        yield
    except TimeoutError as error:
        raise httpx2.ReadTimeout(str(error)) from error
    except (ConnectionError, IncompleteRead) as error:  # one of them is an HTTPException, too
        raise httpx2.NetworkError(str(error)) from error
    except HTTPException as error:
        raise NotUnderstood from error
    except (OSError, ValueError) as error:  # a name, or a header, that can be none is the latter
        raise httpx2.ConnectError(str(error)) from error


class Pool:
    """Connections to one address, few of them kept."""

    def __init__(self, url, patience=CONNECT_TIMEOUT):
        self._address, self._patience = url, patience
        self._kept: deque[tuple[HTTPConnection, float]] = deque()
        self._process = os.getpid()

    def take(self):
        """Return the connection that was kept last, if there is one that still lives, or None."""
        self._notice_fork()
        while True:
            try:
                connection, since = self._kept.pop()
            except IndexError:
                return None
            if time.monotonic() - since < KEPT_FOR and is_silent(connection.sock):
                return connection
            connection.close()

    def keep(self, connection):
        self._notice_fork()
        self._kept.append((connection, time.monotonic()))
        while len(self._kept) > KEPT_CONNECTIONS:
            self._kept.popleft()[0].close()

    def _notice_fork(self):
        if self._process != os.getpid():
            # Its parent speaks on them.
            self._kept, self._process = deque(), os.getpid()

    def open(self):
        """Return a new connection, not connected yet."""
        host = self._url.raw_host.decode()
        connection: HTTPConnection
        if self._proxy:
            connection = Through(host, self._port, self._open_by_proxy)
        elif self._secure:
            connection = HTTPSConnection(
                host, self._port, timeout=self._patience, context=self._tls
            )
        else:
            connection = HTTPConnection(host, self._port, timeout=self._patience)
        connection.response_class = Answer
        return connection

    def _open_by_proxy(self, host, port):
        if not self._secure:
            return self._proxy.connect(self._patience)
        tunnel = self._proxy.reach(host, port, self._patience)
        return self._tls.wrap_socket(tunnel, server_hostname=host)

    def address(self, url):
        """Return (target, headers) that a request for `url` needs besides its own."""
        path = url.raw_path.decode()
        if self._secure or not self._proxy:
            return path, {}
        return f"http://{url.netloc.decode()}{path}", self._proxy.credentials

    def check(self, answer):
        """Raise what an answer means that is the proxy's own: providers speak JSON."""
        page = answer.status in PROXY_ERRORS and "html" in answer.headers.get("content-type", "")
        if self._proxy and not self._secure and (page or answer.status == 407):
            self._proxy.check(answer.status)

    @cached_property
    def _url(self):
        url = httpx2.URL(self._address)
        if url.scheme not in ("http", "https") or not url.host:
            raise httpx2.UnsupportedProtocol("no address of a provider")
        return url

    @property
    def _secure(self):
        return self._url.scheme == "https"

    @property
    def _port(self):
        return self._url.port or (443 if self._secure else 80)

    @cached_property
    def _tls(self):
        context = httpx2.create_ssl_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    @cached_property
    def _proxy(self):
        return proxy_for(self._url)


class Through(HTTPConnection):
    """A connection to a host whose socket somebody else opens: `opens(host, port)`."""

    def __init__(self, host, port, opens):
        super().__init__(host, port)
        self._opens = opens

    def connect(self):
        self.sock = self._opens(self.host, self.port)


def is_silent(sock):
    """Return whether an idle connection is open and, as it should be, has nothing to read."""
    sock.settimeout(0)
    try:
        sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False


class Body(httpx2.SyncByteStream):
    """The body of an answer as it arrives; closing it keeps the connection or drops it."""

    def __init__(self, line, connection, sock, answer):
        self._line, self._connection, self._sock = line, connection, sock
        self._answer, self._timeout = answer, sock.gettimeout()
        self._framing = Chunks() if answer.chunked else Plain(answer.length)

    def close(self):
        if self._answer.status >= 300 and not self._framing.over:
            # Of a refusal that nobody reads: to keep the connection, for the next try.
            self._framing.feed(bytes(self._drain(self._answer.fp.read1)))
        self._answer.close()
        if self._framing.clean and not self._answer.will_close:
            self._line.keep(self._connection)
        else:
            self._line.drop(self._connection)

    def __iter__(self):
        """Yield the bytes of the body, all that has arrived each time."""
        with translated(), self._line.listening():
            if self._answer.status < 300:
                yield from self._arriving()
            else:
                yield from self._error()

    def _error(self):
        """Yield the beginning of an error: its status tells enough if the rest does not come."""
        length = 0
        with suppress(OSError, HTTPException):
            for piece in self._arriving():
                yield piece
                length += len(piece)
                if length > BLOCK:
                    break
        self._line.check()

    def _arriving(self):
        received = self._received()
        while not self._framing.over:
            piece = self._framing.feed(next(received))
            self._line.check()
            if piece:
                yield piece
            if self._framing.broken:
                raise IncompleteRead(b"")

    def _received(self):
        """Wait for more and yield all that is there, nothing at the connection's end."""
        if with_head := self._drain(self._answer.fp.read1):
            yield with_head
        secure = hasattr(self._sock, "pending")
        while True:
            data = self._sock.recv(BLOCK)
            # TLS comes in records, and a full block is hardly all.
            if data and (secure or len(data) == BLOCK):
                data += self._drain(self._sock.recv)
            yield data

    def _drain(self, read):
        """Return what can be read without waiting."""
        data = bytearray()
        self._sock.settimeout(0)
        # Whatever is wrong, the next wait tells.
        with suppress(OSError):
            while len(data) < MOST_AT_ONCE and (more := read(BLOCK)):
                data += more
        self._sock.settimeout(self._timeout)
        return data


class Plain:
    """A body of a known `length` (bytes), or up to the end of the connection."""

    broken = False

    def __init__(self, length):
        self._left = length
        # What should have no body may have one all the same.
        self.over, self.clean = length == 0, False

    def feed(self, data):
        """Return the body's part of what has arrived; of nothing, at the connection's end."""
        if self._left is None:
            self.over = not data
            return data
        data, surplus = data[: self._left], data[self._left :]
        self._left -= len(data)
        self.over, self.broken = not self._left, not data
        self.clean = self.over and not surplus
        return data


class Chunks:
    """A body in chunks, each behind a line with its size; `http.client` reads one at a time.

    It would wait for the rest of a chunk, too, with what has arrived of it.
    """

    over = broken = clean = False
    LONGEST_LINE = 65_536

    def __init__(self):
        self._rest = b""
        self._left = 0  # of a chunk and the end of line after it
        self._ending = False

    def feed(self, data):
        """Return the body's part of what has arrived; of nothing, at the connection's end."""
        self.broken = not data
        data, at, pieces = self._rest + data, 0, []
        while at < len(data) and not (self.over or self.broken):
            if not self._left:
                end = data.find(b"\n", at)
                if end < 0:
                    break
                self._read_line(data[at:end])
                at = end + 1
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            pieces.append(piece if self._left > 1 else piece[: self._left - 2])
        self._rest = data[at:]
        self.broken = self.broken or len(self._rest) > self.LONGEST_LINE
        self.clean = self.over and not self._rest
        return b"".join(pieces)

    def _read_line(self, line):
        if self._ending:
            self.over = not line.strip()
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            size = -1
        self.broken, self._ending = size < 0, not size
        self._left = size + 2 if size > 0 else 0
