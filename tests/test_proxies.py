"""Who is asked through a proxy, who is not, and what is said where it does not let us through."""

import shutil
import socket
from base64 import b64encode

import httpx2
import pytest

from chattable.provider.proxy import proxy_for
from tests import wire
from tests.asking import KEY, Asker
from tests.gate import Gate, make_certificate

ELSEWHERE = "http://models.example/v1"
SECURE = "https://models.example/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No proxy is set, however this machine is; tests set theirs on what this returns."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    # Nobody waits before the SDK asks again.
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0)
    return monkeypatch


@pytest.fixture
def certificate(tmp_path, environment):
    """The certificate of `models.example`, which this process trusts."""
    if not shutil.which("openssl"):
        pytest.skip("nothing makes a certificate here: no openssl")
    path = make_certificate(tmp_path, "models.example")
    environment.setenv("SSL_CERT_FILE", str(path))
    return path


@pytest.fixture
def proxy(provider):
    """The provider's double as a proxy: it hears the whole address of what it is asked for."""
    return provider.url.removesuffix("/v1")


def proxied(url):
    return proxy_for(httpx2.URL(url)) is not None


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"])
def test_this_machine_is_asked_without_a_proxy(provider, environment, variable):
    environment.setenv(variable, "http://127.0.0.1:9")
    provider.says("Hi")
    assert Asker(provider.url).ask().text == "Hi"


HERE = [
    *("localhost", "LOCALHOST", "localhost.", "my.localhost", "localhost.localdomain"),
    *("ip6-localhost", "127.0.0.1", "127.1.2.3", "127.1", "0x7f.1", "2130706433", "0.0.0.0", "0"),
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "host.docker.internal", "gateway.docker.internal"),
    *("host.containers.internal", "localhost6", "localhost6.localdomain6", "[::127.0.0.1]"),
    *(socket.gethostname(), f"{socket.gethostname().upper()}.", socket.getfqdn()),
    # On the cable of this machine, where no proxy is asked.
    *("[fe80::1%25eth0]", "[fe80::1]", "169.254.1.1"),
]


def test_nor_is_this_machine_by_any_other_name(environment):
    environment.setenv("ALL_PROXY", "http://proxy.example")
    for scheme in ("http", "https"):
        assert [host for host in HERE if proxied(f"{scheme}://{host}:8080/v1")] == []


def test_a_name_is_this_machine_where_it_leads_nowhere_else(environment):
    asked, found = [], {"models": ["127.0.1.1", "::1"], "both": ["127.0.0.1", "10.0.0.1"]}

    def resolve(host, port):
        asked.append(host)
        if host not in found:
            raise socket.gaierror
        return [(None, None, None, "", (address, port)) for address in found[host]]

    environment.setattr("socket.getaddrinfo", resolve)
    assert not proxied("http://models:8080/v1")
    assert asked == []
    environment.setenv("ALL_PROXY", "http://proxy.example")
    hosts = "models", "both", "unknown", "10.0.0.1"
    assert [host for host in hosts if proxied(f"http://{host}:8080/v1")] == list(hosts[1:])
    assert asked == ["models", "both", "unknown"]


def test_what_only_looks_like_this_machine_is_asked_by_the_proxy(environment):
    environment.setenv("ALL_PROXY", "http://proxy.example")
    others = "localhost.example", "mylocalhost", "128.0.0.1", "[::2]", "10.0.0.1", "ollama", "1.2"
    assert [host for host in others if not proxied(f"http://{host}/v1")] == []


SPARED = [
    *("models.example", "MODELS.example", ".example", "example", "*.example", "models.example."),
    *("*", "other, *", " other ,  models.example ", "other models.example", "models.example:80"),
    *("http://models.example", '"models.example"', "m*.example", "other;models.example"),
]
NOT_SPARED = ["other", "dels.example", "models.example:8080", "1.2.3.4", "10.0.0.0/8", "[", "", ","]


OTHERS = [
    ("http://models.example:8080/v1", "models.example:8080", False),
    ("http://models.example:8080/v1", "models.example", False),
    ("https://models.example/v1", "models.example:443", False),
    ("http://10.1.2.3:8080/v1", "10.0.0.0/8", False),
    ("http://10.1.2.3:8080/v1", "10.1.2.3", False),
    ("http://10.1.2.3:8080/v1", "10.1.2.3:8080", False),
    ("http://10.1.2.3:8080/v1", "10.*", False),
    ("http://10.1.2.3:8080/v1", "10.1.2.3:80", True),
    ("http://10.1.2.3:8080/v1", "192.168.0.0/16", True),
    ("http://[fd00::7]:8080/v1", "fd00::/8", False),
    ("http://[fd00::7]:8080/v1", "fd00::7", False),
    ("http://[fd00::7]:8080/v1", "[fd00::7]", False),
    ("http://[fd00::7]:8080/v1", "[fd00::7]:8080", False),
    ("http://[fd00::7]:8080/v1", "[fd00::7]:80", True),
    ("http://[fd00::7]:8080/v1", "fe80::/10", True),
    ("http://modèles.example/v1", "modèles.example", False),
    ("http://modèles.example/v1", "xn--modles-5ua.example", False),
]


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_names_whom_no_proxy_is_asked_for(environment, variable):
    environment.setenv("ALL_PROXY", "http://proxy.example")
    cases = [
        *((ELSEWHERE, entry, False) for entry in SPARED),
        *((ELSEWHERE, entry, True) for entry in NOT_SPARED),
        *OTHERS,
    ]
    found = []
    for url, entry, _ in cases:
        environment.setenv(variable, entry)
        found.append((url, entry, proxied(url)))
    assert found == cases


def test_lower_case_wins(environment):
    environment.setenv("HTTP_PROXY", "http://one.example")
    environment.setenv("http_proxy", "http://other.example")
    assert proxy_for(httpx2.URL(ELSEWHERE)).host == "other.example"
    environment.setenv("NO_PROXY", "models.example")
    environment.setenv("no_proxy", "")
    assert proxied(ELSEWHERE)


def test_who_asks_a_cgi_script_names_it_no_proxy(environment):
    environment.setenv("HTTP_PROXY", "http://proxy.example")
    environment.setenv("REQUEST_METHOD", "GET")
    assert not proxied(ELSEWHERE)


@pytest.mark.parametrize("written", [" http://{} ", '"{}"', "http://{}/"])
def test_a_provider_is_asked_through_the_proxy_of_the_environment(provider, environment, written):
    environment.setenv("HTTP_PROXY", written.format(f"ada:s%40cret@127.0.0.1:{provider.port}"))
    provider.says("Hi")
    assert Asker(ELSEWHERE).ask().text == "Hi"
    asked = provider.requests[0]
    assert asked.path == "http://models.example/v1/chat/completions"
    assert asked.headers["proxy-authorization"] == f"Basic {b64encode(b'ada:s@cret').decode()}"


# What a proxy is asked for, and what it may say.


def test_a_proxy_is_asked_for_a_tunnel_and_hears_nothing_of_it(provider, certificate, environment):
    provider.says("Hi")
    with Gate(provider.port, certificate) as tls, Gate(tls.port, proxy=True) as proxy:
        environment.setenv("HTTPS_PROXY", f"http://ada:s%40cret@127.0.0.1:{proxy.port}")
        assert Asker("https://models.example:4711/v1").ask().text == "Hi"
    [asked] = proxy.asked
    assert asked.startswith("CONNECT models.example:4711 HTTP/1.1\r\nHost: models.example:4711\r\n")
    assert f"Basic {b64encode(b'ada:s@cret').decode()}" in asked
    assert KEY not in asked


def test_an_address_of_ipv6_stands_in_brackets_in_what_a_proxy_is_asked_for(environment):
    with Gate(0, proxy=True, says=b"HTTP/1.1 403 No\r\n\r\n") as proxy:
        environment.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        Asker("https://[fd00::7]/v1").ask()
    assert proxy.asked[0].startswith("CONNECT [fd00::7]:443 HTTP/1.1\r\nHost: [fd00::7]:443\r\n")


@pytest.mark.parametrize(
    ("says", "sentence", "times"),
    [
        (b"HTTP/1.1 407 Who are you\r\nContent-Length: 2\r\n\r\nNo", "a name and a password", 1),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", "does not let this server through", 1),
        (b"HTTP/1.1 405 Not Allowed\r\n\r\n", "does not let this server through", 1),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "could not reach the provider (error 502)", 3),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "could not reach the provider (error 503)", 3),
        (b"\x05\xff no HTTP\r\n\r\n", "opened no way to the provider", 3),
    ],
)
def test_what_a_proxy_refuses_is_told_of_the_proxy(environment, caplog, says, sentence, times):
    with Gate(0, proxy=True, says=says) as proxy:
        environment.setenv("HTTPS_PROXY", f"http://ada:s%40cret@127.0.0.1:{proxy.port}")
        told = Asker(SECURE).ask().error
    assert told.startswith("The proxy that HTTPS_PROXY names") and sentence in told
    assert len(proxy.asked) == times
    assert not {"s@cret", "s%40cret", KEY} & set((told + caplog.text).split())


@pytest.mark.parametrize("status", [403, 407, 500, 502, 503, 504])
def test_the_page_of_a_proxy_of_plain_http_is_told_as_the_proxys(
    provider, proxy, environment, status
):
    environment.setenv("ALL_PROXY", proxy)
    provider.fails(status, "<html>Sorry</html>", {"content-type": "text/html"}, times=3)
    assert Asker(ELSEWHERE).ask().error.startswith("The proxy that ALL_PROXY names")


@pytest.mark.parametrize("url", [ELSEWHERE, SECURE])
def test_a_proxy_that_is_away_is_told_as_the_proxy(environment, url):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    environment.setenv("all_proxy", f"http://127.0.0.1:{port}")
    told = Asker(url).ask().error
    assert told == "The proxy that all_proxy names could not be reached. Try again."


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://", "is not the address of a proxy"),
        ("http://proxy:port", "is not the address of a proxy"),
        ("http://proxy:99999", "is not the address of a proxy"),
        ("http://[::1", "is not the address of a proxy"),
        ("http://ada:se#cret@proxy:3128", "is not the address of a proxy"),
        ("http://ada:se/cret@proxy:3128", "is not the address of a proxy"),
        ("http://ada:12/34@proxy:3128", "is not the address of a proxy"),
        ("http://ada:12?34@proxy:3128", "is not the address of a proxy"),
        ("http://two words:3128", "is not the address of a proxy"),
        ("https://ada:secret@proxy:3128", "begins with https://"),
        ("ftp://ada:secret@proxy:3128", "begins with ftp://"),
        ("socks4://ada:secret@proxy:1080", "begins with socks4://"),
        ("socks5://ada:secret@proxy:1080", "begins with socks5://"),
        ("socks5h://ada:secret@proxy:1080", "begins with socks5h://"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_in_a_sentence(
    environment, caplog, address, sentence
):
    environment.setenv("ALL_PROXY", address)
    told = Asker(SECURE).ask().error
    assert told.startswith("ALL_PROXY ") and sentence in told
    assert told == Asker(ELSEWHERE).models()
    for secret in ("secret", "se#cret", "se/cret", "12/34", "ada"):
        assert secret not in told + caplog.text


def test_a_proxy_that_cannot_be_used_stops_the_start_where_it_is_on_the_way(make_app, environment):
    environment.setenv("ALL_PROXY", "socks5://ada:secret@proxy:1080")
    make_app()
    with pytest.raises(SystemExit, match=r"^ALL_PROXY begins with socks5://, .*\.$") as stopped:
        make_app(OPENAI_BASE_URL=SECURE)
    assert "secret" not in str(stopped.value)


def test_a_refusal_by_the_provider_itself_is_not_the_proxys(provider, proxy, environment):
    environment.setenv("HTTP_PROXY", proxy)
    provider.fails(403, wire.error("no"))
    assert "does not let this key use the model" in Asker(ELSEWHERE).ask().error
