"""No other site can act in a person's name, or look in: forms, headers, markup."""

import re
import shutil
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.front import Front
from tests.gate import Gate, make_certificate
from tests.page import parse
from tests.patience import patient
from tests.test_accounts import ADA, rules, values
from tests.test_browser import Person

# cross-site requests


def test_every_change_needs_a_csrf_token(make_app):
    app = make_app(WTF_CSRF_ENABLED=True)
    visitor = app.test_client()
    changes = [rule for rule in rules(app) if rule[0] != "GET"]
    changes += [("POST", "/signup", "accounts.sign_up"), ("POST", "/login", "accounts.log_in")]
    assert len(changes) > 9
    for method, path, endpoint in changes:
        for headers in ({}, {"HX-Request": "true"}):
            answer = visitor.open(path, method=method, data=ADA, headers=headers)
            assert answer.status_code == 400, endpoint
            assert "Reload" in answer.text, endpoint


def test_the_token_of_a_form_and_the_one_htmx_sends_are_accepted(make_app):
    ada = make_app(WTF_CSRF_ENABLED=True).test_client()
    token = values(ada.get("/signup"))["csrf_token"]
    assert ada.post("/signup", data=ADA | {"csrf_token": token}).status_code == 302
    body = parse(ada.get("/chats/new").text).body
    header = re.search(r'"X-CSRFToken": "([^"]+)"', body["hx-headers:inherited"])[1]
    assert ada.post("/chats", headers={"X-CSRFToken": header}).status_code == 303
    assert ada.delete("/chats/1", headers={"X-CSRFToken": header}).status_code == 303
    assert ada.post("/chats", headers={"X-CSRFToken": header + "x"}).status_code == 400


def test_the_token_of_another_session_is_not_accepted(make_app):
    app = make_app(WTF_CSRF_ENABLED=True)
    token = values(app.test_client().get("/signup"))["csrf_token"]
    visitor = app.test_client()
    visitor.get("/signup")
    assert visitor.post("/signup", data=ADA | {"csrf_token": token}).status_code == 400


def test_every_form_that_changes_something_carries_a_token(app, sign_up):
    ada = sign_up()
    ada.post("/chats")
    for path in ("/chats", "/chats/new", "/chats/1", "/chats/1/edit"):
        forms = parse(ada.get(path).text).select("form[method=post]")
        assert forms, path
        assert all(form.select_one("input[name=csrf_token]") for form in forms), path


# headers and markup


MARKDOWN = """# Head\n\n```python\nprint("hi")\n```\n\n$x^2$ ==marked== <b onclick="x()">bold</b>

- [x] done\n\n| a | b |\n|:-:|--:|\n| 1 | 2 |\n\n[link](https://example.com) ![image](https://example.com/x.png)
[bad](javascript:alert(1)) <script>alert(1)</script> <style>p{}</style>"""


@pytest.fixture
def every_page(app, client, sign_up, provider, run_jobs):
    """Return the answers of all pages: open ones, with errors, and with a rich reply."""
    open_pages = [client.get(path) for path in ("/login", "/signup", "/nowhere")]
    wrong = [client.post(path, data={}) for path in ("/login", "/signup")]
    ada = sign_up()
    empty = [ada.get("/chats")]
    provider.says(MARKDOWN)
    ada.post("/chats", data={"content": "Hello <script>alert(1)</script>"})
    run_jobs()
    paths = ("/chats", "/chats/new", "/chats/1", "/chats/1/edit", "/chats/99", "/nowhere")
    wrong += [ada.post("/chats/1", data={"title": ""})]
    return [*open_pages, *wrong, *empty, *map(ada.get, paths)]


def test_every_answer_has_a_strict_content_security_policy(every_page, client):
    for answer in [
        *every_page,
        client.get(f"{client.application.static_url_path}/app.css"),
        client.get("/up"),
    ]:
        policy = answer.headers["Content-Security-Policy"]
        assert re.search(r"default-src 'self'(;|$)", policy)
        assert "unsafe" not in policy
        assert not re.search(r"\*|https?:|data:", policy)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "microphone=(), " in answer.headers["Permissions-Policy"]


def test_no_cache_keeps_a_page_and_only_files_are_anybodys(every_page, client):
    for answer in every_page:
        assert answer.headers["Cache-Control"] == "no-store"
    files = client.application.static_url_path
    assert client.get(f"{files}/nothing.js").headers["Cache-Control"] == "no-store"
    answer = client.get(f"{files}/app.css")
    assert answer.cache_control.public
    assert "Set-Cookie" not in answer.headers


def test_no_page_has_inline_script_or_style_or_loads_from_elsewhere(every_page):
    for answer in every_page:
        page = parse(answer.text)
        path = answer.request.path
        assert all(script.get("src") for script in page.find_all("script")), path
        assert not page.find_all("style"), path
        assert not page.select("iframe, object, embed, base, img[src*='//']"), path
        for tag in page.find_all(True):
            inline = [name for name in tag.attrs if re.match(r"style$|on|hx-on", name)]
            assert not inline, f"{path}: <{tag.name} {inline}>"
            assert not str(tag.get("href", "")).lower().startswith(("javascript:", "data:")), path
        for loaded in page.select("script[src], link[href]"):
            ours = ("/static/", "/chattable/static/")
            assert (loaded.get("src") or loaded.get("href")).startswith(ours), path


def test_ids_are_unique_and_labels_and_targets_exist_on_every_page(every_page):
    for answer in every_page:
        page = parse(answer.text)
        ids = [tag["id"] for tag in page.select("[id]")]
        assert len(ids) == len(set(ids)), answer.request.path
        refers = ("for", "aria-describedby", "aria-labelledby", "popovertarget")
        named = {tag[name] for name in refers for tag in page.select(f"[{name}]")}
        assert named <= set(ids), answer.request.path


# whose page it is


@pytest.mark.parametrize(("part", "name"), [("data", "reader"), ("headers", "X-Reader")])
def test_a_page_of_somebody_else_changes_nothing(let_in, part, name):
    ada, bob = let_in(), let_in("Bob", "bob@example.com")
    ada_is, bob_is = (values(person.get("/chats/new"))["reader"] for person in (ada, bob))
    refused = bob.post("/chats", **{part: {name: ada_is}})
    assert refused.status_code == 403
    assert "Somebody else has logged in" in refused.text
    assert bob.post("/chats", **{part: {name: bob_is}}).location == "/chats/1"


def test_forms_are_too_old_once_who_is_logged_in_has_changed(make_app):
    person = make_app(WTF_CSRF_ENABLED=True).test_client()
    tokens = []

    def act(path, page, **form):
        tokens.append(values(person.get(page))["csrf_token"])
        answer = person.post(path, data=form | {"csrf_token": tokens[-1]})
        assert answer.status_code == 302

    act("/signup", "/signup", **ADA)
    act("/logout", "/chats/new")
    act("/login", "/login", **ADA)
    tokens.append(values(person.get("/chats/new"))["csrf_token"])
    for token in tokens[:-1]:
        assert person.post("/chats", data={"csrf_token": token}).status_code == 400
    assert person.post("/chats", data={"csrf_token": tokens[-1]}).status_code == 303


# over TLS


@pytest.mark.parametrize(
    ("scheme", "root", "begins", "lasts"),
    [
        ("https", "", "__Host-chattable_", "max-age=31536000"),
        ("https", "/chat", "__Secure-chattable_", None),  # others have the host, too
        ("http", "", "chattable_", None),
    ],
)
def test_a_browser_that_came_over_tls_stays_there(client, scheme, root, begins, lasts):
    over = {"SCRIPT_NAME": root}
    answer = client.get("/login", base_url=f"{scheme}://chat.example", environ_overrides=over)
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(begins)
    assert f"; Path={root or '/'}" in cookie and "Domain" not in cookie
    assert ("; Secure" in cookie) == (scheme == "https")
    assert answer.headers.get("Strict-Transport-Security") == lasts


def test_a_session_from_a_connection_without_tls_is_none_over_tls(app, sign_up):
    ada = sign_up()
    name = app.config["SESSION_COOKIE_NAME"]
    planted = {"Cookie": f"{name}={ada.get_cookie(name).value}"}
    visitor = app.test_client(use_cookies=False)
    assert visitor.get("/chats", headers=planted).status_code == 200
    assert visitor.get("/chats", headers=planted, base_url="https://chat.example").location


def test_who_came_over_tls_logs_in_and_out_there(app, sign_up):
    sign_up()
    visitor, there = app.test_client(), {"base_url": "https://localhost"}
    visitor.post("/login", data=ADA, **there)
    assert visitor.get("/chats", **there).status_code == 200
    assert visitor.get("/chats").status_code == 302
    visitor.post("/logout", **there)
    assert visitor.get("/chats", **there).status_code == 302


def test_a_browser_over_tls_lives_with_all_of_it(browser, stack, provider, tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("nothing makes a certificate here: no openssl")
    web = stack.start_web(TRUSTED_PROXIES="127.0.0.1")
    said = {"x-forwarded-proto": "https"}
    certificate = make_certificate(tmp_path, "localhost")
    with (
        closing(Front(urlsplit(web.url).port, headers=said)) as front,
        Gate(front.port, certificate) as tls,
    ):
        url = f"https://localhost:{tls.port}"
        with closing(browser.new_context(base_url=url, ignore_https_errors=True)) as context:
            context.set_default_timeout(1000 * patient(10))
            context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
            ada = Person(context.new_page())
            chat_and_copy(ada.sign_up(), provider)
            kept = [each for each in context.cookies() if each["httpOnly"]]
            assert kept and all(each["name"].startswith("__Host-") for each in kept)
            assert all(each["secure"] for each in kept)
            assert ada.errors == []


def chat_and_copy(ada, provider):
    provider.says("Copied words")
    ada.begin("Hello")
    ada.wait_for("complete")
    expect(ada.page.locator("#connection")).to_be_hidden()
    ada.press("Copy")
    expect(ada.page.get_by_text("Copied", exact=True)).to_be_visible()


def test_no_script_reads_the_theme(let_in):
    answer = let_in().post("/theme", data={"theme": "dark"})
    assert "; HttpOnly; " in answer.headers["Set-Cookie"]
