"""The relay: one subscription per web process, fanned out to its sockets."""

import logging
import math
import threading
import time
from collections import defaultdict, deque
from contextlib import contextmanager

from redis import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chattable.live.frames import ENDED, ends, listed_frame
from chattable.live.keys import install, own, quiet_channel
from chattable.live.outbox import CATCH_UP

# A Redis that says nothing for so long is asked whether it lives; then it has as long to answer.
SILENCE = 5
# A socket this far behind is closed; it catches up when it can read again.
BACKLOG_FRAMES = 1_000
BACKLOG_BYTES = 2_000_000

# WebSocket close codes.
NOT_YOURS = 1008
TRY_AGAIN = 1012
# The same with a reason beside it: the chat is no more; the page is another site's, or a proxy has
# given us another name than the browser knows.
GONE, FOREIGN = (NOT_YOURS, "gone"), (NOT_YOURS, "origin")
# An owner has too many sockets: a page that hears so asks over HTTP, and tries again now and then.
CROWDED = (1013, "crowded")
Code = int | tuple[int, str]

log = logging.getLogger(__name__)


class Relay:
    """Hand each frame of a chat to every socket that watches it."""

    def __init__(self, url, connection_class):
        self._url, self._connection_class = url, connection_class
        self._pool = self._connection = None
        # For what both the reader and those who watch change, and for writing to the connection.
        self._changing = threading.RLock()
        self._watchers = defaultdict(set)
        self._subscribed = {}
        self._last = {}
        self._tidy_at = 0.0

    @contextmanager
    def watch(self, name, watcher=None):
        """Subscribe to a channel; once this has given a `Watcher`, no frame is missed."""
        watcher = watcher or Watcher()
        try:
            self._subscribe(name, watcher)
            yield watcher
        finally:
            with self._changing:
                self._watchers[name].discard(watcher)

    def _subscribe(self, name, watcher):
        with self._changing:
            self._watchers[name].add(watcher)
            # A process that forks has not its parent's reader.
            if self._connection is None or not self._reader.is_alive():
                self._connect()
            if name not in self._subscribed:
                self._subscribed[name] = threading.Event()
                self._send("SUBSCRIBE", name)
            answered = self._subscribed[name]
        if not answered.wait(SILENCE):
            raise TimeoutError(f"no answer to SUBSCRIBE {name}")

    def _connect(self):
        self._install = install()
        # A bare connection: redis-py's PubSub would reconnect in silence, and frames be missed.
        # A break must close the sockets instead. One thread reads it, any may write.
        # The pool closes its connections when it is collected: it is kept.
        self._pool = ConnectionPool.from_url(self._url, protocol=2, socket_connect_timeout=2)
        self._pool.connection_class = self._connection_class
        connection = self._pool.make_connection()
        connection.connect()
        # One subscription that always holds: PING has another answer where there is none.
        connection.send_command("SUBSCRIBE", quiet_channel(), check_health=False)
        self._connection = connection
        self._subscribed.clear()
        self._reader = threading.Thread(
            target=self._listen, args=[connection], name="chattable relay", daemon=True
        )
        self._reader.start()

    def _send(self, *command):
        with self._changing:
            if self._connection is None:
                raise RedisConnectionError("the relay has no connection")
            self._connection.send_command(*command, check_health=False)

    def _listen(self, connection):
        try:
            # What had been the primary may go on, and miss what the new one publishes.
            while not connection.outdated:
                self._receive(*self._read(connection))
                if time.monotonic() > self._tidy_at:
                    self._unsubscribe_idle()
        except (RedisError, OSError) as error:
            log.warning("the relay lost Redis: %s", error)
        except Exception:  # whatever the bug is, sockets must not wait for frames in vain
            log.exception("the relay broke")
        finally:
            self._break(connection)

    def _read(self, connection):
        try:
            return connection.read_response(timeout=SILENCE, disconnect_on_error=False)
        except RedisTimeoutError:
            self._send("PING")
            return connection.read_response(timeout=SILENCE)

    def _break(self, connection):
        """Close every socket: each reconnects, and catches up, by itself."""
        with self._changing:
            self._connection = None
            self._last.clear()
            for name in self._watchers:
                self._close(name, TRY_AGAIN)
            for answered in self._subscribed.values():
                answered.set()
            self._subscribed.clear()
        connection.disconnect()

    def _receive(self, kind, name, data=None):
        name = name.decode()
        if kind == b"subscribe" and name in self._subscribed:
            self._subscribed[name].set()
        elif kind == b"message" and name in self._subscribed:
            words = own(self._install, data)
            if words is not None:
                number, _, frame = words.partition(" ")
                self._fan_out(name, int(number), frame)

    def _fan_out(self, name, seq, frame):
        if seq == CATCH_UP:
            return self._close(name, TRY_AGAIN, time.monotonic() - float(frame))
        last, self._last[name] = self._last.get(name), seq
        if last is not None and seq != last + 1:
            self._close(name, TRY_AGAIN)  # Redis has lost frames, or its memory
        elif not frame:
            self._close(name, GONE)
        for watcher in self._watching(name):
            watcher.offer(seq, frame)

    def _close(self, name, code, before=math.inf):
        for watcher in self._watching(name):
            if watcher.since <= before:
                watcher.close(code)

    def _watching(self, name):
        return list(self._watchers.get(name, ()))

    def _unsubscribe_idle(self):
        # Lazily: a page that reloads comes back at once.
        self._tidy_at = time.monotonic() + SILENCE
        with self._changing:
            idle = [name for name, watchers in self._watchers.items() if not watchers]
            for name in idle:
                del self._watchers[name]
                self._subscribed.pop(name, None)
                self._last.pop(name, None)
            if idle:
                self._send("UNSUBSCRIBE", *idle)


class Watcher:
    """The frames one socket has yet to send: bounded, so that a slow reader costs no memory."""

    # Set if the page follows something beside its chat.
    beside: "Beside | None" = None

    def __init__(self, code=None):
        self.code = code
        self.since = time.monotonic()
        self._frames: deque[tuple[int, str]] = deque()
        # Two counts, for each is written by one thread.
        self._offered = self._taken = 0
        self._news = threading.Event()

    def offer(self, seq, frame):
        """Queue a frame; too many of them close the socket, which then catches up."""
        if self.code:
            return
        self._frames.append((seq, frame))
        self._offered += len(frame)
        waiting = self._offered - self._taken
        if len(self._frames) > BACKLOG_FRAMES or waiting > BACKLOG_BYTES:
            self.close(TRY_AGAIN)
        self._news.set()

    def ask(self):
        """Have the page told that the socket lives: `next` returns an empty frame."""
        self.offer(math.inf, "")

    def close(self, code):
        """Have the socket closed with `code`, whatever is still queued."""
        self.code = self.code or code
        self._frames.clear()
        self._news.set()

    def next(self, timeout):
        """Return the next (seq, frame), or None after `timeout` seconds or when it is closed."""
        if not self._frames:
            self._news.clear()
            # Only now: what is offered from here on is heard of.
            if not self._frames and not self.code:
                self._news.wait(timeout)
        try:
            seq, frame = self._frames.popleft()
        except IndexError:
            return None
        self._taken += len(frame)
        return seq, frame


class Beside:
    """What a page follows beside its chat, as another watcher of the same socket.

    Its frames may come twice, and tell their number: the page names it when it comes again.
    """

    def __init__(self, watcher, key=None):
        self.watcher = watcher
        self.key = key
        self.since = watcher.since
        self.missed = False

    def offer(self, seq, frame):
        if not frame.startswith(ENDED):
            self.watcher.offer(math.inf, frame)
        elif ends(frame, self.key):
            self.watcher.close(NOT_YOURS)
        self.watcher.offer(math.inf, listed_frame(seq))

    def close(self, code):
        self.missed = True
        self.watcher.close(code)
