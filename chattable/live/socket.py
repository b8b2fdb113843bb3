"""A page's socket: let it in, catch it up, send it what comes until either side ends."""

import logging
import socket as system
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from flask import current_app
from flask.globals import app_ctx
from redis.exceptions import RedisError
from simple_websocket import ConnectionClosed
from sqlalchemy.exc import SQLAlchemyError
from wsproto.events import Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from chattable.database import db
from chattable.live.connection import severity
from chattable.live.frames import ANEW, listed_frame, rooted
from chattable.live.keys import channel
from chattable.live.origin import same_origin
from chattable.live.relay import CROWDED, FOREIGN, NOT_YOURS, TRY_AGAIN, Beside, Code, Watcher

PING = 25
# Pages of a process that catch up at the same time: fewer than it has connections to the database.
CATCHING_UP = 4
# A reader that takes nothing for so long is cut off.
STUCK = 60
# A page may only ask whether the socket lives: what else it might say is not worth more memory.
MOST_SAID = 100
# The answer: scripts do not see pings. A text frame of two bytes (RFC 6455, 5.2), which htmx takes
# for data; made by hand, for it is not worth a compressor.
ALIVE = b"\x81\x02{}"
# Linux has these two. TCP_ESTABLISHED is the state while both ends are there (tcp_states.h).
TCP_INFO = getattr(system, "TCP_INFO", None)
TCP_USER_TIMEOUT = getattr(system, "TCP_USER_TIMEOUT", None)
TCP_ESTABLISHED = 1

log = logging.getLogger(__name__)


def relay_chat(socket: Any, chat: Any, since: int = 0) -> None:
    """Relay a chat to one socket of Flask-Sock until either side ends.

    `chat` is what the socket's reader may see, None if nothing; `since` is the chat's `revision`
    when the page was made: what has changed meanwhile comes first.
    """
    kind, chat_id = type(chat), chat and chat.id
    refusal = None if chat is not None else NOT_YOURS
    # A socket must not hold a database connection while it waits.
    db.session.remove()

    def catch_up():
        try:
            return db.session.get_one(kind, chat_id).catch_up(since)
        finally:
            db.session.remove()

    serve(socket, chat_id, lambda: refusal, catch_up)


def serve(
    socket: Any,
    chat_id: int | None,
    refuses: Callable[[], Code | None],
    catch_up: Callable[[], tuple[int, list[str]]],
    beside: Callable[[], str] | None = None,
    key: Callable[[], str | int | None] = lambda: None,
) -> None:
    """Relay a chat to one socket until either side ends.

    `refuses()` returns None if this page may watch it, else a close code, `NOT_YOURS` or `GONE`,
    `catch_up()` returns (seq, frames): the page's present state and the number it stands at;
    `beside()` the name of a channel that it follows, too, or instead: see `announce_on`. `key()`
    names by what this page is let in, a log-in for one: `end_sockets` closes it there. If that has
    ended before the page followed the channel, `catch_up()` raises `Refused`.
    """
    code: Code = TRY_AGAIN
    opened, all_open = time.monotonic(), current_app.extensions["chattable_sockets"]
    all_open.add(socket)
    try:
        with ExitStack() as stay:
            watcher, seq, frames = let_in(socket, chat_id, refuses, catch_up, beside, key, stay)
            show_all(socket, watcher, frames)
            follow(socket, watcher, seq, catch_up)
            code = watcher.code or TRY_AGAIN
            if watcher.beside and watcher.beside.missed:
                show(socket, listed_frame(0))
    except Refused as refusal:
        code = refusal.code
    except LocalProtocolError:
        log.debug("chat %s: the socket was closed from outside", chat_id)
    except (RedisError, SQLAlchemyError, OSError) as error:
        code = TRY_AGAIN
        log.log(severity(error), "chat %s: socket closed: %s", chat_id, error)
    except Exception:
        # An upgraded socket must not be answered in HTTP, whatever the bug is.
        code = TRY_AGAIN
        log.exception("chat %s: socket closed", chat_id)
    finally:
        all_open.discard(socket)
        # Whatever we would say then, it is the page that has left.
        said = int(socket.close_reason) if code == TRY_AGAIN and socket.event.is_set() else code
        say_farewell(socket, code)
        note_end(chat_id, opened, socket, said)


def note_end(chat_id, opened, socket, code):
    seconds, frames = time.monotonic() - opened, vars(socket).get("shown", 0)
    number, why = code if isinstance(code, tuple) else (code, None)
    told = {"chat_id": chat_id, "seconds": round(seconds, 1), "frames": frames}
    log.info("socket closed", extra={"fields": {**told, "code": number, "why": why}})


class Refused(Exception):
    """Close the socket of a page that may not watch, or not any more, with a code."""

    def __init__(self, code: Code = NOT_YOURS) -> None:
        super().__init__(code)
        self.code = code


def let_in(socket, chat_id, refuses, catch_up, beside, key, stay):
    """Return the (watcher, seq, frames) of a page, nothing to watch if it has left or is refused.

    It goes on watching until `stay`, an `ExitStack`, ends.
    """
    leaving = Leaving.of(socket)
    set_limits(socket)
    with current_app.extensions["chattable_line"].place(leaving) as entered:
        code: Code | None = TRY_AGAIN if not entered or gone(socket) else None
        if not code:
            # First: who examines an install has no login, and wants to know.
            code = refuses() if same_origin() else FOREIGN
        if not code and beside and not has_seat(beside(), stay):
            code = CROWDED
        if code or gone(socket):
            return Watcher(code or TRY_AGAIN), 0, []
        current_app.extensions["chattable_on_watch"](app_ctx.app)
        # Subscribe before reading, or a frame can fall between the two.
        relay, watcher = current_app.extensions["chattable_relay"], Watcher()
        if chat_id is not None:
            stay.enter_context(relay.watch(channel(chat_id), watcher))
        if beside:
            watcher.beside = Beside(watcher, key())
            stay.enter_context(relay.watch(beside(), watcher.beside))
        leaving.tell(lambda: watcher.close(TRY_AGAIN))
        # Said at first unasked: the page is up to date then, and may ask from then on.
        watcher.ask()
        leaving.asked = watcher.ask
        if gone(socket):
            return watcher, 0, []
        return watcher, *catch_up()


def has_seat(owner, stay):
    """Return whether an owner may have one more socket; it counts until `stay` ends."""
    most = current_app.config["SOCKETS_AT_ONCE"]
    seats = current_app.extensions["chattable_seats"]
    return not most or stay.enter_context(seats.seat(owner, most))


class Leaving:
    """What a socket's reader sets when the page has left, or asks; it tells who wants to know."""

    def __init__(self, said):
        self.asked = lambda: None
        self._said = said
        self._set = False
        self._listeners = []

    @classmethod
    def of(cls, socket):
        """Take the place of a socket's event, on which one can only wait."""
        event, socket.event = socket.event, cls(socket.input_buffer)
        if event.is_set():
            socket.event.set()
        return socket.event

    def is_set(self):
        return self._set

    def set(self):
        if self._said:
            self._said.clear()
            return self.asked()
        self._set = True
        for listener in list(self._listeners):
            listener()

    def tell(self, listener):
        """Call `listener` when the page leaves, at once if it has; maybe twice."""
        self._listeners.append(listener)
        if self._set:
            listener()


def set_limits(socket):
    socket.max_message_size = MOST_SAID
    # The kernel cuts off: nobody else can interrupt a thread that sends.
    if TCP_USER_TIMEOUT:
        with suppress(OSError):  # a socket file: who listens there has limits of its own
            socket.sock.setsockopt(system.IPPROTO_TCP, TCP_USER_TIMEOUT, STUCK * 1000)


def gone(socket):
    """Return whether a page has left, though nobody may have read so yet."""
    return socket.event.is_set() or not socket.connected or hung_up(socket.sock)


def hung_up(sock):
    """Return whether the other side has closed, if the system tells at once."""
    try:
        return bool(TCP_INFO) and (
            sock.getsockopt(system.IPPROTO_TCP, TCP_INFO, 1)[0] != TCP_ESTABLISHED
        )
    except OSError:
        return False  # a socket file


def follow(socket, watcher, seq, catch_up):
    while socket.connected and not watcher.code:
        news = watcher.next(PING)
        if news and not news[1]:
            socket.sock.sendall(ALIVE)
        elif news and news[1] == ANEW:
            seq = look_again(socket, watcher, catch_up)
        elif news and news[0] > seq:
            show(socket, news[1])
        elif not news and not watcher.code:
            if not socket.pong_received:
                return  # it has vanished without a word
            socket.pong_received = False
            socket.sock.sendall(socket.ws.send(Ping()) + ALIVE)
            rest(socket)


def look_again(socket, watcher, catch_up):
    """Send a page what it would be given if it came now; return the number where it stands."""
    with current_app.extensions["chattable_line"].place(socket.event) as entered:
        if not entered:
            return 0
        seq, frames = catch_up()
    show_all(socket, watcher, frames)
    return seq


def show_all(socket, watcher, frames):
    """Send frames, as long as the page may see them."""
    for frame in frames:
        if not watcher.code:
            show(socket, frame)


def rest(socket):
    """Free the compressor of a quiet socket; the next frame makes another.

    Any message may begin a new stream (RFC 7692, 7.2.1); the browser's side does not notice.
    wsproto has no public way. A page takes 53 kB of a web process, its compressor 90 to 260 more.
    """
    for extension in getattr(getattr(socket.ws.connection, "_proto", None), "extensions", ()):
        extension._compressor = None


def show(socket, frame):
    send(socket, TextMessage(rooted(frame)))
    socket.shown = getattr(socket, "shown", 0) + 1


def send(socket, event):
    """Send one WebSocket event whole.

    `socket.send` may write a part of a large frame only, and its own pings would come from
    another thread, maybe in the middle of a frame; so both are done here.
    """
    socket.sock.sendall(socket.ws.send(event))


def say_farewell(socket, code):
    with suppress(OSError, ConnectionClosed, LocalProtocolError):
        socket.close(*code) if isinstance(code, tuple) else socket.close(code)
        # The last word: a server for development would still answer the upgrade in HTTP.
        socket.sock.shutdown(system.SHUT_WR)


class Line:
    """Let a few at a time come in, in the order they came; who leaves meanwhile costs nothing."""

    def __init__(self, places):
        self._free = places
        self._waiting = OrderedDict()
        self._changing = threading.Lock()

    @contextmanager
    def place(self, leaving):
        """Wait for a place; give False if there was none until `leaving` (a `Leaving`) was set."""
        entered = self._enter(leaving)
        try:
            yield entered
        finally:
            if entered:
                self._leave()

    def _enter(self, leaving):
        with self._changing:
            if self._free:
                self._free -= 1
                return True
            turn = threading.Event()
            self._waiting[turn] = True
        leaving.tell(turn.set)
        turn.wait()
        with self._changing:
            return self._waiting.pop(turn, False) is False

    def _leave(self):
        with self._changing:
            if self._waiting:
                self._waiting.popitem(last=False)[0].set()
            else:
                self._free += 1
