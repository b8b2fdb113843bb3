"""By which names the server is asked: its own, if ALLOWED_HOSTS says which they are."""

import pytest

from tests.page import parse

OURS = "chat.example.org, *.teams.example.org:8443, .bücher.example, [fd00:0::7], 192.0.2.7, my_app"


@pytest.fixture
def ask(make_app):
    """Ask for a page by a name; returns the answer."""
    visitor = make_app(ALLOWED_HOSTS=OURS, TRUSTED_PROXIES="10.0.0.0/8").test_client()

    def ask(host, path="/login", peer="127.0.0.1", **headers):
        said = {"Host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
        return visitor.get(path, headers=said, environ_overrides={"REMOTE_ADDR": peer})

    return ask


NAMES = [
    *("chat.example.org", "chat.example.org:8080", "CHAT.Example.org", "chat.example.org."),
    *("a.teams.example.org", "a.b.teams.example.org:5000", "chat.example.org.:443"),
    *("xn--bcher-kva.example", "www.xn--bcher-kva.example", "my_app", "my_app:8000"),
    *("[fd00::7]", "[FD00::7]:5000", "[fd00:0:0::7]", "192.0.2.7", "192.0.2.7:80"),
]
OTHERS = [
    *("evil.example", "example.org", "teams.example.org", "evilteams.example.org"),
    *("chat.example.org.evil.example", "chat.example.org@evil.example", "localhost"),
    *("chat.example.org/x", "chat.example.org:80@evil.example", "chat.example.org evil"),
    *("chat.example.org, evil.example", "evil.example:chat.example.org", "", "*", ":80"),
    *("[::1]", "[fd00::7", "fd00::7]", "127.0.0.1", "chat.example.org:x"),
    *('"><script>alert(1)</script>', "chat.exämple.org", "chat.ex\N{POUND SIGN}ample.org"),
]


def test_a_name_of_ours_is_answered(ask):
    assert [host for host in NAMES if ask(host).status_code != 200] == []


def test_another_name_is_refused_in_a_sentence_for_who_runs_the_server(ask):
    for host in OTHERS:
        answer = ask(host)
        assert answer.status_code == 400, host
        assert "add the name to ALLOWED_HOSTS" in parse(answer.text).main.get_text()
        assert "evil" not in answer.text and "<script>" not in answer.text
        assert "Content-Security-Policy" in answer.headers


@pytest.mark.parametrize("allowed", [None, OURS])
def test_what_is_no_name_at_all_is_told_so(make_app, caplog, allowed):
    visitor = make_app(ALLOWED_HOSTS=allowed).test_client()
    for host in (".", "a..b", "chat.example.org..", f"{'a' * 64}.example"):
        answer = visitor.get("/login", headers={"Host": host})
        assert (answer.status_code, answer.text) == (400, "The name in this address is none.\n")
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_whatever_is_asked_for_by_another_name_is_refused(ask, app):
    socket = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Key": "x3JJHMbDL1Ez"}
    for path in ("/", "/chats/1", "/nowhere", f"{app.static_url_path}/app.css", "/login/"):
        assert ask("evil.example", path).status_code == 400, path
    assert ask("evil.example", "/chats/1/updates", **socket).status_code == 400
    assert ask("evil.example", "/login", HX_Request="true").text.count("ALLOWED_HOSTS") == 1


def test_a_platform_may_ask_by_any_address_whether_the_server_is_well(ask):
    assert ask("10.1.2.3:5000", "/up").status_code == 200


def test_the_name_that_a_proxy_passes_on_counts_where_it_is_trusted(ask):
    forged = {"X_Forwarded_Host": "chat.example.org"}
    assert ask("evil.example", peer="198.51.100.7", **forged).status_code == 400
    assert ask("inner:8000", peer="10.0.0.1", **forged).status_code == 200
    outside = {"X_Forwarded_Host": "evil.example"}
    assert ask("chat.example.org", peer="10.0.0.1", **outside).status_code == 400


@pytest.mark.parametrize("value", [None, "", " "])
def test_without_a_name_any_is_answered(make_app, value):
    visitor = make_app(ALLOWED_HOSTS=value).test_client()
    assert visitor.get("/login", headers={"Host": "whatever.example"}).status_code == 200


def test_the_first_is_the_name_for_others(make_app):
    names = make_app(ALLOWED_HOSTS=" .Example.org:443 , [::0:1]").config["ALLOWED_HOSTS"]
    assert names == ["example.org", "*.example.org", "[::1]"]


def test_where_the_launcher_says_that_it_runs_it_is_known(make_app):
    here = {"CHATTABLE_URL": "http://127.0.0.1:5000/chat"}
    visitor = make_app(ALLOWED_HOSTS="chat.example.org", **here).test_client()
    for host, status in (("127.0.0.1:5000", 200), ("chat.example.org", 200), ("evil", 400)):
        assert visitor.get("/login", headers={"Host": host}).status_code == status
    assert make_app(**here).config["ALLOWED_HOSTS"] == []


WRONG = [
    *("https://chat.example.org", "chat.example.org/", "chat.example.org/chat", "two words"),
    *(",", "chat.example.org;other", "a..b", "..", ".", "*", "*.", "a.*", "**", "ada@chat", "[x]"),
    *("chat.example.org:port", "a" * 64 + ".example", "chat.example.org\nother", '<"a">'),
]


def test_what_is_no_name_stops_the_start_in_a_sentence(make_app):
    for value in WRONG:
        with pytest.raises(SystemExit, match=r"^ALLOWED_HOSTS must be .*\.$"):
            make_app(ALLOWED_HOSTS=value)
