"""Whether browsers reach an install: its pages and its socket, through what stands before it."""

import http.client
import socket
import ssl
import time
from contextlib import closing
from urllib.parse import urlsplit

from flask import current_app
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection, Request

from chattable.live import NOT_YOURS
from pages import hosts

OK, WARNING, PROBLEM = "ok", "warning", "problem"
PATIENCE = 4  # seconds
EXPIRES_SOON = 14 * 86400
LOOPBACK = "localhost", "127.0.0.1", "::1"


class Unreachable(Exception):
    """Say why browsers do not get through, and what to do."""


def browsers_address():
    """Return where browsers find this install, as far as it knows, or None."""
    config = current_app.config
    address = hosts.own_address() or (config["PORT"] and f"http://127.0.0.1:{config['PORT']}")
    return address and address + config["APPLICATION_ROOT"].rstrip("/")


def check(url):
    """Give findings about an address as a browser would have them."""
    if not url:
        yield WARNING, "nobody has said where browsers come: --url https://chat.example.org"
        return
    try:
        place = urlsplit(url if "://" in url else f"https://{url}")
        wrong = place.scheme not in ("http", "https") or not place.hostname or place.port == 0
    except ValueError:
        wrong = True
    if wrong:
        yield PROBLEM, "--url must be like https://chat.example.org"
        return
    try:
        yield from look(place)
    except Unreachable as words:
        yield PROBLEM, f"{place.scheme}://{place.netloc}{place.path}: {words}"


def look(place):
    if place.scheme == "http" and place.hostname not in LOOPBACK:
        yield WARNING, "it has no TLS: who is between reads passwords. Have a proxy speak it."
    answer, _ = ask(place, "/up")
    if answer.status != 200 or answer.words.strip() != "up":
        raise Unreachable(why_not_up(answer))
    yield OK, f"{place.scheme}://{place.netloc} answers"
    yield from judge_certificate(place)
    answer, cookies = ask(place, "/login")
    if answer.status == 200 and place.scheme == "https" and "secure" not in cookies.lower():
        yield (
            PROBLEM,
            "the app does not know that browsers come by TLS: have the proxy send "
            "X-Forwarded-Proto, and name it in TRUSTED_PROXIES",
        )
    if answer.status in (400, 403, 421):
        yield PROBLEM, "the app refuses this name: add it to ALLOWED_HOSTS"
    yield from judge_socket(place)


def why_not_up(answer):
    if 300 <= answer.status < 400:
        return "it leads elsewhere (a redirect): give --url the address that browsers end up at"
    if answer.status in (502, 503, 504):
        return f"the proxy finds no web process ({answer.status}): does it run, and where?"
    if answer.status in (400, 421):
        return f"the app or its proxy refuses this name ({answer.status}): see ALLOWED_HOSTS"
    return f"something else answers there ({answer.status}): check the proxy's address and path"


class Answer:
    """What came back: `status` and `words`."""

    def __init__(self, status, words):
        self.status, self.words = status, words


def ask(place, path):
    """Return the (Answer, cookies) of a page; raise Unreachable."""
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        with closing(kinds[place.scheme](place.hostname, place.port, timeout=PATIENCE)) as asked:
            asked.request("GET", place.path.rstrip("/") + path, headers={"Host": place.netloc})
            got = asked.getresponse()
            words = got.read(10_000).decode(errors="replace")
            return Answer(got.status, words), "\n".join(got.headers.get_all("Set-Cookie") or [])
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(why(error)) from None


def why(error):
    match error:
        case ssl.SSLCertVerificationError():
            return f"browsers do not trust its certificate: {error.verify_message}"
        case ssl.SSLError():
            return "it speaks no TLS there: check the scheme and the port of the address"
        case socket.gaierror():
            return "its name is unknown: check the DNS"
        case ConnectionRefusedError():
            return "nobody listens there: does the web process or the proxy run?"
        case TimeoutError():
            return f"it says nothing for {PATIENCE} s: a firewall, or a process that hangs?"
    return f"what answers there is no web server ({type(error).__name__})"


def connect(place):
    """Return a connected socket, with TLS where the address has it."""
    port = place.port or (443 if place.scheme == "https" else 80)
    plain = socket.create_connection((place.hostname, port), timeout=PATIENCE)
    if place.scheme == "http":
        return plain
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context.wrap_socket(plain, server_hostname=place.hostname)


def judge_certificate(place):
    if place.scheme == "https":
        with closing(connect(place)) as there:
            left = ssl.cert_time_to_seconds(there.getpeercert()["notAfter"]) - time.time()
        if left < EXPIRES_SOON:
            yield WARNING, f"its certificate ends in {left / 86400:.0f} days: renew it"


def judge_socket(place):
    """Open a socket as a page does. Who is not logged in is let in, and closed at once."""
    try:
        code, reason = open_socket(place)
    except (OSError, ValueError) as error:
        raise Unreachable(f"no socket gets through: {why(error)}") from None
    if (code, reason) == (NOT_YOURS, ""):
        yield OK, "sockets get through"
    elif reason == "origin":
        yield (
            PROBLEM,
            "the app takes sockets for another site's, for it is not told the name that browsers "
            "use: have the proxy pass on Host (proxy_set_header Host $http_host)",
        )
    elif isinstance(code, str):
        yield (
            PROBLEM,
            f"no socket gets through ({code}): have the proxy speak HTTP/1.1 and pass on Upgrade "
            "and Connection (proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
            'proxy_set_header Connection "upgrade")',
        )
    else:
        yield WARNING, f"a socket gets through, and is closed with {code}: is the database there?"


def open_socket(place):
    """Return (close code, reason) of a socket, (what came instead, "") where none was let in."""
    origin = f"{place.scheme}://{place.netloc}".encode()
    # The path is the one that pages of no chat have.
    path = f"{place.path.rstrip('/')}/updates"
    line = WSConnection(ConnectionType.CLIENT)
    extra = [(b"Origin", origin), (b"User-Agent", b"chattable-doctor")]
    with closing(connect(place)) as there:
        there.sendall(line.send(Request(host=place.netloc, target=path, extra_headers=extra)))
        for _ in range(100):
            data = there.recv(65536)
            line.receive_data(data or None)
            for event in line.events():
                if isinstance(event, RejectConnection):
                    return f"status {event.status_code}", ""
                if isinstance(event, CloseConnection):
                    return event.code, event.reason or ""
                if not isinstance(event, AcceptConnection):
                    return f"{type(event).__name__}", ""
            if not data:
                break
    return "it was broken off", ""
