"""Behind a reverse proxy: by which name pages may watch, and whose word is taken for the rest."""

import re
from contextlib import closing
from ipaddress import ip_network
from urllib.parse import urlsplit

import pytest
from flask import request
from playwright.sync_api import expect
from werkzeug.test import create_environ
from werkzeug.wrappers import Request

from chattable import live
from pages.proxies import BehindProxies
from tests.front import Front
from tests.patience import patient
from tests.test_browser import Person

NAME_ALONE = {"host": "{name}"}
ANOTHER_NAME = {"host": "upstream"}


def ours(app, host, origin, site=None, port="5000", address="127.0.0.1", **proxy):
    """Return whether a page is ours; `proxy` is what one says that is trusted."""
    said = {"Host": host, "Origin": origin, "Sec-Fetch-Site": site}
    said |= {f"X-Forwarded-{name}": value for name, value in proxy.items()}
    headers = {name: value for name, value in said.items() if value is not None}
    asked = {"SERVER_PORT": port, "REMOTE_ADDR": address}
    environ = create_environ(headers=headers, environ_overrides=asked)
    BehindProxies(lambda *_: [], 1)(environ, None)
    with app.request_context(environ):
        return live.same_origin()


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("chat.example", "https://chat.example"),
        ("chat.example", "http://chat.example:8080"),  # nginx: proxy_set_header Host $host
        ("chat.example:8443", "https://chat.example:8443"),
        ("chat.example:443", "https://chat.example"),  # TLS that ends at the proxy
        ("CHAT.example:8080", "http://chat.example:8080"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("[::1]", "http://[::1]:5000"),
        ("anything", None),
    ],
)
def test_a_page_is_ours_by_the_name_that_the_proxy_passes_on(app, host, origin):
    assert ours(app, host, origin)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("chat.example", "https://evil.example"),
        ("chat.example", "https://chat.example.evil.example"),
        ("chat.example:8080", "http://chat.example"),
        ("chat.example:8080", "http://chat.example:8081"),
        ("chat.example:443", "http://chat.example"),
        ("upstream", "https://chat.example"),
        ("chat.example", "null"),
        ("chat.example", "https://"),
        ("chat.example", ""),
        ("chat.example", "http://chat.example:port"),
        ("chat.example", "http://[::1"),
    ],
)
def test_a_page_of_another_name_is_not(app, host, origin):
    assert not ours(app, host, origin)


@pytest.mark.parametrize(
    ("host", "origin", "told"),
    [
        ("chat.example", "http://chat.example", {"port": "80"}),  # we are asked ourselves
        ("chat.example", "https://chat.example", {"port": "80"}),
        # By a socket file, where gunicorn calls 80 what the Host does not tell.
        ("chat.example", "http://chat.example:8080", {"port": "80", "address": ""}),
        ("chat.example", "http://chat.example", {"Port": "80"}),
        ("chat.example", "http://chat.example:8080", {"Port": "8080"}),
        ("chat.example", "https://chat.example", {"Port": "443", "Proto": "https"}),
        ("chat.example", "https://chat.example:8443", {"Proto": "https"}),
        # The port inside a container.
        ("lan:8080", "http://lan:8080", {"Port": "3000"}),
        ("LAN:8080", "http://lan:8080", {"Port": "3000"}),
        ("lan", "http://lan", {"Port": "3000"}),
        ("chat.example", "https://chat.example", {"Port": "8443", "Proto": "https"}),
        ("chat.example", "https://chat.example", {"Port": "80"}),  # TLS ends before it
        ("upstream:8000", "http://lan:8080", {"Host": "lan", "Port": "8080"}),
        ("upstream:8000", "http://lan:8080", {"Host": "lan"}),
        ("lan:8080", "http://lan:8080", {"Proto": "ws"}),  # Traefik
        ("chat.example", "https://chat.example", {"Proto": "wss"}),
    ],
)
def test_a_page_is_ours_by_the_port_that_is_told(app, host, origin, told):
    assert ours(app, host, origin, **told)


@pytest.mark.parametrize(
    ("host", "origin", "told"),
    [
        ("chat.example", "http://chat.example:8080", {"port": "80"}),
        ("chat.example", "https://chat.example:8443", {"port": "443"}),
        ("chat.example", "http://chat.example:8080", {"Port": "80"}),
        ("chat.example", "https://chat.example:8443", {"Port": "443", "Proto": "https"}),
        ("chat.example", "http://chat.example:8080", {"Port": "3000"}),
        ("chat.example:8080", "http://chat.example:8081", {"Port": "3000"}),
        # Cookies know no scheme either.
        ("chat.example", "http://chat.example", {"Proto": "https"}),
        ("chat.example", "http://chat.example", {"Port": "443", "Proto": "https"}),
        ("chat.example", "http://chat.example", {"Proto": "wss"}),
        # An inner name says nothing of the outer one.
        ("upstream:8000", "http://lan:8000", {"Host": "lan", "Port": "8080"}),
        ("upstream:8000", "http://upstream:8000", {"Host": "lan"}),
    ],
)
def test_a_page_of_another_port_of_the_host_is_not(app, host, origin, told):
    assert not ours(app, host, origin, **told)


@pytest.mark.parametrize(
    ("site", "may"),
    [("same-origin", True), ("same-site", False), ("cross-site", False), ("none", False)],
)
def test_a_browser_knows_better_than_any_name(app, site, may):
    assert ours(app, "upstream", "https://chat.example", site) == may
    assert ours(app, "chat.example", "https://chat.example", site) == may


def test_the_log_has_both_names_once(app, caplog):
    for _ in range(3):
        ours(app, "inner:8000", "https://outer.example")
    assert [
        ("inner:8000" in line, "outer.example" in line)
        for line in [each.message for each in caplog.records if each.levelname == "WARNING"]
    ] == [(True, True)]


def test_the_log_has_what_a_proxy_lacks_that_lets_no_socket_through_once(client, sign_up, caplog):
    sign_up(person=client)
    client.post("/chats")
    client.get("/chats/1/updates", headers={"HX-Request": "true"})
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == []
    for path in ("/chats/1/updates", "/updates", "/chats/1/updates"):  # nginx, without Upgrade
        assert client.get(path, headers={"Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9"}).json
    assert [
        "proxy_set_header Upgrade $http_upgrade;" in line
        for line in [each.message for each in caplog.records if each.levelname == "WARNING"]
    ] == [True]


# In a browser.


@pytest.fixture
def behind(browser, stack):
    """Give a page behind a proxy that changes some headers: `behind(headers)`."""
    opened = []

    def open_page(headers):
        opened.append(between := Front(urlsplit(stack.url).port, headers=headers))
        context = browser.new_context(base_url=between.url)
        context.set_default_timeout(1000 * patient(10))
        opened.insert(0, context)
        return Person(context.new_page())

    yield open_page
    for each in opened:
        each.close()


def test_a_proxy_that_drops_the_port_lets_a_page_live(behind, provider):
    ada = behind(NAME_ALONE).sign_up()
    provider.says("Some words", hold=True)
    ada.begin("Hello")
    expect(ada.body).to_contain_text("Some words")
    expect(ada.page.locator("#connection")).to_be_hidden()
    provider.release()
    ada.wait_for("complete")
    assert ada.complaints == []


def test_behind_another_name_a_page_asks_over_http_and_is_never_signed_out(behind, provider, stack):
    ada = behind(ANOTHER_NAME).sign_up()
    provider.says("Some words.")
    ada.begin("Hello")
    expect(ada.page.locator("#connection")).to_contain_text("Live updates are blocked here.")
    ada.wait_for("complete")
    expect(ada.page.locator("#connection")).not_to_contain_text("logged out")
    assert re.search(r"http://127\.0\.0\.1:\d+.*upstream", stack.log("web"))


def test_a_page_that_a_stranger_made_has_no_socket(stack, browser):
    """Of this host and another port, so that the browser sends it our cookies."""
    ada = stack.signup()
    chat = ada.new_chat()
    with closing(Front(urlsplit(stack.url).port)) as elsewhere:
        socket = ada.socket(chat, origin=elsewhere.url)
        assert socket.wait_for_close() == 1008
        assert not socket.frames


# Whose word is taken.


LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1")]
SAID = {
    "Host": "upstream:8000",
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "chat.example",
    "X-Forwarded-Port": "8443",
    "X-Forwarded-Prefix": "/chat",
}


def request_as_seen(trusted, peer="127.0.0.1", **headers):
    """Return a request as the app sees it."""
    said = SAID | {name.replace("_", "-"): value for name, value in headers.items()}
    over = {"REMOTE_ADDR": peer}
    environ = create_environ("/up", "http://upstream:8000", headers=said, environ_overrides=over)
    BehindProxies(lambda *_: [], trusted)(environ, None)
    return Request(environ)


@pytest.mark.parametrize(
    ("trusted", "peer"),
    [
        (1, "10.1.2.3"),
        (LOOPBACK, "127.0.0.1"),
        (LOOPBACK, "::1"),
        (LOOPBACK, "::ffff:127.0.0.1"),
        (LOOPBACK, ""),  # a socket file
    ],
)
def test_a_trusted_proxy_is_believed(trusted, peer):
    seen = request_as_seen(trusted, peer)
    assert seen.remote_addr == "198.51.100.7"
    assert seen.url == "https://chat.example:8443/chat/up"


@pytest.mark.parametrize(("trusted", "peer"), [(LOOPBACK, "198.51.100.9"), (LOOPBACK, "nonsense")])
def test_nobody_else_is(trusted, peer):
    seen = request_as_seen(trusted, peer)
    assert seen.remote_addr == peer
    assert seen.url == "http://upstream:8000/up"


@pytest.mark.parametrize("trusted", [2, [*LOOPBACK, ip_network("10.0.0.0/8")]])
def test_proxies_one_behind_the_other_lead_to_the_browser(trusted):
    chain = {"X_Forwarded_For": "192.0.2.1, 198.51.100.7, 10.0.0.3"}
    seen = request_as_seen(trusted, X_Forwarded_Proto="https, http", **chain)
    assert (seen.remote_addr, seen.scheme) == ("198.51.100.7", "https")
    assert request_as_seen(trusted, X_Forwarded_Proto="https", **chain).scheme == "https"


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("198.51.100.7:1234", "198.51.100.7"),  # Azure's gateway
        ("[2001:db8::7]:1234", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("192.0.2.1:9, 198.51.100.7:1234", "198.51.100.7"),
        ('"x, 198.51.100.7', "198.51.100.7"),  # what the browser sent is before the comma
        ("unknown", "unknown"),
        ("", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("trusted", [1, LOOPBACK])
def test_each_connection_of_a_browser_has_its_one_address(trusted, said, address):
    assert request_as_seen(trusted, X_Forwarded_For=said).remote_addr == address


@pytest.mark.parametrize("trusted", [2, [*LOOPBACK, ip_network("10.0.0.0/8")]])
def test_a_proxy_is_known_whatever_its_port(trusted):
    chain = '"192.0.2.1, 198.51.100.7:1234, 10.0.0.3:5678'
    assert request_as_seen(trusted, X_Forwarded_For=chain).remote_addr == "198.51.100.7"


@pytest.mark.parametrize(
    "prefix",
    [
        *("//evil.example", "chat", "/", "/a b", '/"><script>', ""),
        *("/..", "/../x", "/x/..", "/x/../", "/.", "/./x"),
        *("//evil.example, /chat", "/chat, //evil.example", "/chat, //evil.example, /chat"),
        *("javascript:x, /b, /chat", "/.., /chat"),
    ],
)
@pytest.mark.parametrize("trusted", [1, 2, 3])
def test_a_prefix_that_is_no_path_is_none(trusted, prefix):
    assert request_as_seen(trusted, X_Forwarded_Prefix=prefix).root_path == ""


@pytest.mark.parametrize(
    ("trusted", "prefix"), [(1, "/b, /a.b/..c"), (2, "/a.b/..c, /b"), (3, "/a.b/..c/,/b")]
)
def test_the_farthest_proxy_that_is_trusted_names_the_path(trusted, prefix):
    assert request_as_seen(trusted, X_Forwarded_Prefix=prefix).root_path == "/a.b/..c"


@pytest.mark.parametrize(
    ("prefix", "path", "asked"),
    [
        ("/chat", "/chats/3", "/chat/chats/3"),
        ("/chat", "/chat/chats/3", "/chat/chats/3"),  # it is named, and still there
        ("/chat/", "/chat/chats/3", "/chat/chats/3"),
        ("/chats", "/chats/3", "/chats/chats/3"),
        ("/chats", "/search", "/chats/search"),
        ("/chats", "/chats/chats/3", "/chats/chats/3"),
        ("/chats", "/chats/search", "/chats/search"),
    ],
)
def test_a_path_that_the_proxy_names_is_part_of_every_address(make_app, prefix, path, asked):
    visitor = make_app(TRUSTED_PROXIES="127.0.0.1").test_client()
    answer = visitor.get(path, headers={"X-Forwarded-Prefix": prefix})
    assert answer.location == f"{prefix.rstrip('/')}/login?next={asked}"


def known_by(app, peer):
    """Return the (address, scheme) that an app takes for its visitor's."""
    seen = []
    app.before_request(lambda: seen.append((request.remote_addr, request.scheme)))
    headers = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}
    app.test_client().get("/up", headers=headers, environ_overrides={"REMOTE_ADDR": peer})
    return seen[0]


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({}, ("10.1.2.3", "http")),
        ({"TRUSTED_PROXIES": "10.0.0.0/8, 127.0.0.1"}, ("198.51.100.7", "https")),
        ({"TRUSTED_PROXIES": "192.0.2.1"}, ("10.1.2.3", "http")),
        ({"TRUSTED_PROXIES": "1"}, ("198.51.100.7", "https")),
        ({"DYNO": "web.1"}, ("198.51.100.7", "https")),  # Heroku
        ({"DYNO": "web.1", "TRUSTED_PROXIES": "0"}, ("10.1.2.3", "http")),
    ],
)
def test_the_configuration_says_who_is_trusted(make_app, settings, known):
    assert known_by(make_app(**settings), "10.1.2.3") == known
