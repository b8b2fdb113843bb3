"""A page's socket: let it in, catch it up, send it what comes until either side ends."""

import logging
import select
from collections import OrderedDict
from contextlib import ExitStack, contextmanager

import gevent
from flask import current_app
from gevent.event import Event
from gevent.monkey import get_original
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from wsproto.events import Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from chattable.live.keys import channel
from chattable.live.relay import NOT_YOURS, TRY_AGAIN

PING = 25
# Pages of a process that catch up at the same time: fewer than it has connections to the database.
CATCHING_UP = 4
# Linux tells at once that the other side has closed.
HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
SEND_TIMEOUT = 60
FAREWELL = 1

log = logging.getLogger(__name__)


def serve(socket, chat_id, admits, catch_up):
    """Relay a chat to one socket until either side ends.

    `admits()` says whether this page may watch it, `catch_up()` returns (seq, frames): the page's
    present state and the number it stands at.
    """
    code = NOT_YOURS
    try:
        with ExitStack() as stay:
            if welcome := let_in(socket, chat_id, admits, catch_up, stay):
                watcher, seq, frames = welcome
                for frame in frames:
                    send(socket, TextMessage(frame))
                follow(socket, watcher, seq)
                code = watcher.code or TRY_AGAIN
    except LocalProtocolError:
        log.debug("chat %s: the socket was closed from outside", chat_id)
    except (RedisError, SQLAlchemyError, OSError) as error:
        code = TRY_AGAIN
        log.warning("chat %s: socket closed: %s", chat_id, error)
    except Exception:
        # An upgraded socket must not be answered in HTTP, whatever the bug is.
        code = TRY_AGAIN
        log.exception("chat %s: socket closed", chat_id)
    finally:
        # To a reader that is stuck, not even this can be said.
        with gevent.Timeout(FAREWELL, False):
            if socket.connected:
                socket.close(code)


def let_in(socket, chat_id, admits, catch_up, stay):
    """Return the (watcher, seq, frames) of a page, or None if it has left or may not come.

    It goes on watching until `stay`, an `ExitStack`, ends.
    """
    with current_app.extensions["line"].place(socket.event) as entered:
        if not entered or gone(socket) or not admits() or gone(socket):
            return None
        # Subscribe before reading, or a frame can fall between the two.
        watcher = stay.enter_context(current_app.extensions["relay"].watch(channel(chat_id)))
        # The page has left, or has spoken: no page of ours does.
        socket.event.rawlink(lambda _: watcher.close(NOT_YOURS))
        return None if gone(socket) else (watcher, *catch_up())


def gone(socket):
    """Return whether a page has left, though nobody may have read so yet, or has spoken."""
    if socket.event.is_set() or not socket.connected:
        return True
    poll = get_original("select", "poll")()
    poll.register(socket.sock, HUNG_UP)
    return bool(poll.poll(0))


def follow(socket, watcher, seq):
    while socket.connected and not watcher.code:
        news = watcher.next(PING)
        if news and news[0] > seq:
            send(socket, TextMessage(news[1]))
        elif not news and not watcher.code:
            if not socket.pong_received:
                return  # it has vanished without a word
            socket.pong_received = False
            send(socket, Ping())
            rest(socket)


def rest(socket):
    """Free the compressor of a quiet socket, a quarter of a megabyte; the next frame makes one.

    Any message may begin a new stream (RFC 7692, 7.2.1); the browser's side does not notice.
    """
    for extension in getattr(getattr(socket.ws.connection, "_proto", None), "extensions", ()):
        extension._compressor = None


def send(socket, event):
    """Send one WebSocket event whole; a reader that takes nothing for a minute is cut off.

    `socket.send` may write a part of a large frame only, and its own pings would come from
    another greenlet, maybe in the middle of a frame; so both are done here.
    """
    with gevent.Timeout(SEND_TIMEOUT, TimeoutError("the reader is stuck")):
        socket.sock.sendall(socket.ws.send(event))


class Line:
    """Let a few at a time come in, in the order they came; who leaves meanwhile costs nothing."""

    def __init__(self, places):
        self._free = places
        self._waiting = OrderedDict()

    @contextmanager
    def place(self, leaving):
        """Wait for a place; give False if the event `leaving` was set before there was one."""
        entered = self._enter(leaving)
        try:
            yield entered
        finally:
            if entered:
                self._leave()

    def _enter(self, leaving):
        if self._free:
            self._free -= 1
            return True
        turn = Event()
        self._waiting[turn] = True
        gevent.wait([turn, leaving], count=1)
        return self._waiting.pop(turn, False) is False

    def _leave(self):
        if self._waiting:
            self._waiting.popitem(last=False)[0].set()
        else:
            self._free += 1
