"""How much a browser may send, and how slowly, before it costs others anything."""

import io
import zlib
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from werkzeug import formparser

from models import db
from pages import bounds
from tests.page import parse
from tests.services import wait_until
from tests.test_accounts import ADA, values

FORM = {"content_type": "application/x-www-form-urlencoded"}
MANY = "a&" * 200_000


class Body(io.RawIOBase):
    """The body of a request that does something when it is read."""

    def __init__(self, acts, body=b""):
        self.acts, self.body = acts, body

    def readable(self):
        return True

    def readinto(self, buffer):
        self.acts()
        said, self.body = self.body[: len(buffer)], self.body[len(buffer) :]
        buffer[: len(said)] = said
        return len(said)


def test_a_form_of_very_many_fields_is_refused_unread(let_in, monkeypatch):
    ada, read = let_in(), []
    monkeypatch.setattr(formparser, "parse_qsl", lambda text, **_: read.append(text) or [])
    for path in ("/chats", "/messages", "/theme", "/logout", "/nowhere"):
        answer = ada.post(path, data=MANY, **FORM)
        assert answer.status_code == 413
        assert "Shorten it" in parse(answer.text).main.get_text()
    assert read == []


def test_of_either_kind_of_form_a_hundred_fields_are_taken(let_in):
    ada, fields = let_in(), {f"f{number}": "" for number in range(90)}
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        assert ada.post("/chats", data=fields, content_type=kind).status_code == 303
    more = {f"f{number}": "" for number in range(2000)}
    assert ada.post("/chats", data=more, content_type="multipart/form-data").status_code == 413


def test_from_who_is_not_logged_in_little_is_read(client):
    for path in ("/login", "/signup", "/chats", "/messages", "/nowhere"):
        answer = client.post(path, data={**ADA, "content": "x" * 200_000})
        assert answer.status_code == 413
        assert "Shorten it" in parse(answer.text).main.get_text()


def slowly(person, connection=None, reads=None, **headers):
    """Send a form whose reading calls `reads`, over a connection; return the answer."""
    body = urlencode({"content": "words"}).encode()
    over = {"wsgi.input": Body(reads or (lambda: None), body), "CONTENT_LENGTH": str(len(body))}
    over |= {"gunicorn.socket": connection}
    return person.post("/chats", headers=headers, environ_overrides=over, **FORM)


def test_who_sends_a_form_slowly_holds_no_connection_to_the_database(app, let_in):
    ada, held = let_in(), []
    with app.app_context():
        reader = values(ada.get("/chats/new"))["reader"]
        pool = db.engine.pool
    slowly(ada, reads=lambda: held.append(pool.checkedout()), **{"X-Reader": reader})
    assert held and not any(held)


class Connection(SimpleNamespace):
    """What gunicorn reads from: it remembers how long was waited."""

    waits = None

    def gettimeout(self):
        return self.waits

    def settimeout(self, seconds):
        self.waits = seconds


def test_who_sends_nothing_more_is_not_waited_for(let_in):
    ada, connection, waited = let_in(), Connection(), []

    def stop():
        waited.append(connection.waits)
        raise TimeoutError

    assert slowly(ada, connection, stop).status_code == 400
    assert waited == [bounds.PATIENCE]
    assert connection.waits is None


def test_a_connection_waits_as_before_for_what_comes_next(let_in):
    connection = Connection()
    assert slowly(let_in(), connection).status_code == 303
    assert connection.waits is None


def message(data, packed=False):
    """Return a text message as a browser sends it (RFC 6455, 7692), in one frame, masked with 0."""
    if packed:
        squeezer = zlib.compressobj(wbits=-15)
        data = squeezer.compress(data) + squeezer.flush(zlib.Z_SYNC_FLUSH)[:-4]
    return bytes([0xC1 if packed else 0x81, 0xFE]) + len(data).to_bytes(2, "big") + bytes(4) + data


@pytest.mark.parametrize(
    "said", [message(b"x" * 200), message(b"x" * 10_000_000, packed=True)], ids=["plain", "packed"]
)
def test_a_page_that_says_more_than_a_page_does_is_cut_off(stack, said):
    ada = stack.signup()
    socket = ada.socket(ada.new_chat())
    wait_until(lambda: socket.decoder.beats, 10, "the first word")
    socket._socket.sendall(said)
    assert socket.wait_for_close() == 1009
