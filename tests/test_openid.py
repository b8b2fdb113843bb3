"""Logging in by an OpenID Connect provider, which runs here."""

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from chattable.serve import CannotStart
from models import User, db
from pages.identities import Identity
from pages.invitations import invite
from pages.issuer import openid_settings
from tests.openid import ADA, CLIENT, SECRET, OpenIdProvider
from tests.page import parse
from tests.services import free_port

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def running_provider():
    with closing(OpenIdProvider()) as provider:
        yield provider


@pytest.fixture
def op(running_provider):
    running_provider.forget()
    return running_provider


@pytest.fixture
def settings(op):
    named = {"OIDC_NAME": "Lovelace & Co", "OIDC_ISSUER": op.url}
    return named | {"OIDC_CLIENT_ID": CLIENT, "OIDC_CLIENT_SECRET": SECRET}


@pytest.fixture
def app(make_app, settings):
    return make_app(**settings)


def come(client, op, path="/login/openid"):
    """Log in by the provider, and return the answer to its last step."""
    return client.get(*back(client, op, path))


def back(client, op, path="/login/openid", **changes):
    answer = client.get(path)
    onward = answer.location or answer.headers["Refresh"].partition("url=")[2]
    path, query = op.visit(onward)
    query = {k: v for k, v in (query | changes).items() if v is not None}
    return (path + "?" + "&".join(f"{k}={v}" for k, v in query.items()),)


def told(client, answer):
    """Return the sentence on the log-in page that an answer leads to."""
    assert answer.status_code == 302
    assert answer.location.partition("?")[0] == "/login"
    page = client.get(answer.location)
    assert page.status_code == 200
    return parse(page.text).select_one(".note:not([hidden])").get_text()


def is_logged_in(client):
    return client.get("/chats").status_code == 200


def people(app):
    with app.app_context():
        return {user.email: user.name for user in db.session.scalars(db.select(User))}


# there and back


def test_a_page_offers_to_log_in_by_the_provider(client):
    for path in ("/login", "/signup"):
        page = parse(client.get(f"{path}?next=/chats/7").text)
        link = page.find("a", string="Log in with Lovelace & Co")
        assert link["href"] == "/login/openid?next=/chats/7"


def test_nothing_is_offered_where_there_is_no_provider(make_app):
    client = make_app().test_client()
    assert "Log in with" not in client.get("/login").text
    assert client.get("/login/openid").status_code == 404
    assert client.get("/login/openid/callback?state=1&code=2").status_code == 404


def test_who_comes_for_the_first_time_gets_an_account(app, client, op):
    answer = come(client, op)
    assert answer.location == "/chats/new"
    assert is_logged_in(client)
    assert people(app) == {"ada@example.com": "Ada Lovelace"}


def test_who_comes_again_has_the_same_account_whatever_the_address_is_now(app, client, op):
    come(client, op)
    op.person |= {"email": "other@example.com", "email_verified": False, "name": "Countess"}
    other = app.test_client()
    assert come(other, op).location == "/chats"
    assert is_logged_in(other)
    assert people(app) == {"ada@example.com": "Ada Lovelace"}


def test_a_browser_is_sent_with_all_that_protects_the_way(client, op):
    address = client.get("/login/openid").location
    assert address.startswith(f"{op.url}/enter?")
    query = dict(parse_qsl(urlsplit(address).query))
    assert query["code_challenge_method"] == "S256"
    assert query["response_type"] == "code"
    assert query["scope"] == "openid email profile"
    assert query["redirect_uri"] == "http://localhost/login/openid/callback"
    assert min(len(query[name]) for name in ("state", "nonce", "code_challenge")) >= 20
    assert SECRET not in address


def test_the_way_back_is_the_address_that_a_proxy_tells(make_app, settings):
    app = make_app(**settings, TRUSTED_PROXIES="127.0.0.1")
    said = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "chat.example.org"}
    headers = said | {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Prefix": "/chat"}
    address = app.test_client().get("/login/openid", headers=headers).location
    assert (
        "redirect_uri=https%3A%2F%2Fchat.example.org%2Fchat%2Flogin%2Fopenid%2Fcallback" in address
    )


def test_one_comes_to_the_page_one_had_asked_for(client, op):
    assert come(client, op, "/login/openid?next=/chats/7").location == "/chats/7"


def test_one_never_comes_to_another_site(app, op):
    for foreign in ("https://evil.example/", "//evil.example", "/\\evil.example"):
        answer = come(app.test_client(), op, f"/login/openid?next={foreign}")
        assert answer.location in ("/chats/new", "/chats")


def test_a_client_without_a_secret_logs_in_by_its_challenge_alone(make_app, settings, op):
    op.method = "none"
    client = make_app(**settings | {"OIDC_CLIENT_SECRET": ""}).test_client()
    come(client, op)
    assert is_logged_in(client)


def test_a_secret_is_told_in_the_form_where_the_provider_wants_it_there(client, op):
    op.method = "client_secret_post"
    come(client, op)
    assert is_logged_in(client)


def test_a_provider_may_tell_the_address_apart_from_the_token(app, client, op):
    op.info = dict(ADA)
    come(client, op)
    assert people(app) == {"ada@example.com": "Ada Lovelace"}


def test_what_is_told_of_another_person_is_not_believed(app, client, op):
    op.info = ADA | {"sub": "bob-1", "email": "bob@example.com"}
    assert "not right" in told(client, come(client, op))
    assert people(app) == {}


# what is not let in


def test_an_unfinished_way_of_another_browser_lets_nobody_in(app, client, op):
    """Who sends a victim the address that they were sent back to themselves."""
    address = back(app.test_client(), op)
    assert "Try again" in told(client, client.get(*address))
    assert not is_logged_in(client)
    assert people(app) == {}


def test_an_answer_counts_once(app, client, op):
    address = back(client, op)
    client.get(*address)
    client.post("/logout")
    assert "Try again" in told(client, client.get(*address))
    assert not is_logged_in(client)


def test_an_answer_that_failed_counts_no_more_either(client, op):
    address = back(client, op)
    op.broken = {"/token"}
    assert "not right" in told(client, client.get(*address))
    op.broken = set()
    assert "took too long" in told(client, client.get(*address))


def test_who_has_no_provider_does_not_pay_for_one():
    code = "import app, sys; sys.exit('authlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_whoever_goes_back_when_logged_in_stays_so(client, op):
    address = back(client, op)
    client.get(*address)
    assert client.get(*address).location == "/chats"


def test_two_tabs_may_be_on_the_way_at_once(client, op):
    one, other = back(client, op, "/login/openid?next=/chats/1"), back(client, op)
    assert client.get(*one).location == "/chats/1"
    assert client.get(*other).location == "/chats"


def test_an_answer_that_comes_late_is_not_taken(client, op, monkeypatch):
    address, now = back(client, op), time.time()
    monkeypatch.setattr("pages.openid.time.time", lambda: now + 3601)
    assert "too long" in told(client, client.get(*address))


NOT_WHOLE = [
    {"state": None},
    {"state": ""},
    {"state": "guessed"},
    {"code": None},
    {"code": "guessed"},
    {"iss": "https://evil.example"},
    {"error": "access_denied", "code": None},
    {"error": "<script>alert(1)</script>\r\nforged line", "code": None},
]


def test_an_answer_that_is_not_whole_is_told_in_a_sentence(app, client, op, caplog):
    for changes in NOT_WHOLE:
        answer = client.get(*back(client, op, "/login/openid?next=/chats/7", **changes))
        sentence = told(client, answer)
        assert sentence.endswith("."), changes
        assert "script" not in sentence
        assert not is_logged_in(client)
    assert "\nforged" not in caplog.text
    assert people(app) == {}


def test_who_does_not_agree_keeps_the_page_that_was_asked_for(client, op):
    address = back(client, op, "/login/openid?next=/chats/7", error="access_denied", code=None)
    assert client.get(*address).location == "/login?next=/chats/7"


def test_a_provider_that_names_itself_in_answers_is_to_do_so_always(app, client, op):
    op.metadata = {"authorization_response_iss_parameter_supported": True}
    assert "not right" in told(client, client.get(*back(client, op)))
    assert client.get(*back(client, op, iss=op.url)).location == "/chats/new"


FALSE_CLAIMS = [
    {"iss": "https://evil.example"},
    {"iss": None},
    {"aud": "somebody-else"},
    {"aud": ["somebody-else"]},
    {"aud": "somebody-else", "azp": CLIENT},
    {"aud": [CLIENT, "somebody-else"]},  # and no azp
    {"aud": [CLIENT, "somebody-else"], "azp": "somebody-else"},
    {"aud": None},
    {"nonce": "another"},
    {"nonce": None},
    {"exp": int(time.time()) - 3600},
    {"exp": None},
    {"iat": int(time.time()) + 3600},
    {"nbf": int(time.time()) + 3600},
    {"sub": None},
    {"sub": ""},
    {"sub": 1},
    {"sub": "x" * 256},
    {"sub": "ada\0"},
    {"at_hash": "another"},
]


def test_a_token_for_somebody_else_is_not_believed(app, client, op):
    for claims in FALSE_CLAIMS:
        op.claims = claims
        assert "not right" in told(client, come(client, op)), claims
        assert not is_logged_in(client)
    assert people(app) == {}


def test_a_token_that_anybody_could_sign_is_not_believed(app, client, op):
    for op.algorithm in ("none", "HS256"):
        assert "not right" in told(client, come(client, op)), op.algorithm
    assert people(app) == {}


def test_a_provider_may_have_another_key_tomorrow(app, client, op):
    come(app.test_client(), op)
    for kid in ("second", "second"):
        op.rotate(kid)
        assert come(client, op).location == "/chats"


def test_a_key_of_nobodys_is_not_believed(app, client, op):
    published, op.keys = op.keys, None
    op.rotate("first")
    forged, op.keys = op.keys, published
    op.sign = lambda claims: type(op).sign(Signer(forged), claims)
    try:
        assert "not right" in told(client, come(client, op))
    finally:
        del op.sign
    assert people(app) == {}


class Signer:
    algorithm = "RS256"

    def __init__(self, keys):
        self.keys = keys


UNCONFIRMED = [
    {"email_verified": False},
    {"email_verified": None},
    {"email_verified": "false"},
    {"email_verified": 1.5},
    {"email": None},
    {"email": ""},
    {"email": "no address"},
    {"email": ["ada@example.com"]},
    {"email": "ada@example.com\r\nBcc: eve@example.com"},
]


def test_an_address_that_nobody_confirmed_makes_no_account(app, client, op):
    for person in UNCONFIRMED:
        op.person = ADA | person
        assert "confirm" in told(client, come(client, op)), person
    assert people(app) == {}


def test_a_confirmation_may_be_a_word(app, client, op):
    op.person |= {"email_verified": "true"}
    come(client, op)
    assert is_logged_in(client)


NAMES = [
    ({"name": " Ada \n\0 King "}, "Ada King"),
    ({"name": None}, "ada"),
    ({"name": "", "preferred_username": "countess"}, "countess"),
    ({"name": ["Ada"]}, "ada"),
    ({"name": "x" * 200}, "x" * 80),
]


def test_a_name_is_one_that_an_account_can_have(app, op):
    for number, (person, _) in enumerate(NAMES):
        email = f"ada@{number}.example"
        op.person = ADA | {"sub": email, "email": email} | person
        come(app.test_client(), op)
    assert [*people(app).values()] == [name for _, name in NAMES]


# a provider that is away or wrong


def test_a_provider_that_is_away_is_told_when_one_goes_there(make_app, settings):
    away = f"http://localhost:{free_port()}"
    client = make_app(**settings | {"OIDC_ISSUER": away}).test_client()
    assert "cannot be reached" in told(client, client.get("/login/openid?next=/chats/7"))


def test_a_provider_that_comes_back_is_asked_again(client, op):
    op.broken = {"/.well-known/openid-configuration"}
    assert "cannot be reached" in told(client, client.get("/login/openid"))
    op.broken = set()
    assert come(client, op).location == "/chats/new"


def test_a_provider_that_breaks_on_the_way_is_told(app, client, op):
    for part in ("/token", "/keys"):
        op.broken = {part}
        assert "not right" in told(client, come(client, op)), part
    assert people(app) == {}


PARTS = {"/.well-known/openid-configuration": "reached", "/token": "right", "/keys": "right"}


@pytest.mark.parametrize("part", PARTS)
def test_an_answer_that_never_ends_is_not_waited_for(client, op, monkeypatch, part):
    monkeypatch.setattr("pages.openid_provider.TIMEOUT", 1)
    op.floods[part] = (time.sleep(0.2) or b" " for _ in range(50))
    begun = time.monotonic()
    assert PARTS[part] in told(client, come_as_far(client, op))
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize("part", PARTS)
def test_of_an_answer_that_is_too_much_no_more_is_read(client, op, part):
    sent = []
    op.floods[part] = (sent.append(1) or b" " * 2**16 for _ in range(2000))
    assert PARTS[part] in told(client, come_as_far(client, op))
    assert len(sent) < 500


def come_as_far(client, op):
    answer = client.get("/login/openid")
    return answer if answer.location.startswith("/login") else come(client, op)


def test_a_description_of_another_provider_is_not_believed(client, op):
    for issuer in ("https://evil.example", None):
        op.metadata = {"issuer": issuer}
        assert "cannot be reached" in told(client, client.get("/login/openid"))


def test_a_provider_describes_itself_once(app, op):
    for _ in range(3):
        come(app.test_client(), op)
    assert op.asked.count("/.well-known/openid-configuration") == 1
    assert op.asked.count("/keys") == 1


def test_no_secret_and_no_code_is_in_the_log(client, op, caplog):
    address = back(client, op, code="codeword")
    client.get(*address)
    assert "OpenID Connect" in caplog.text
    assert SECRET not in caplog.text
    assert "codeword" not in caplog.text


# whose account


def test_an_address_that_a_stranger_signed_up_with_lets_neither_in_by_the_other(app, client, op):
    """A stranger takes the victim's address first, and waits for the victim to come."""
    stranger = app.test_client()
    stranger.post("/signup", data={"name": "Eve", "email": ADA["email"], "password": PASSWORD})
    assert "Log in with its password once" in told(client, come(client, op))
    assert not is_logged_in(client)
    with app.app_context():
        assert db.session.query(Identity).count() == 0


def test_who_gives_the_password_once_needs_it_no_more(app, client, op, sign_up):
    sign_up(email="ada@example.com")
    page = come(client, op, "/login/openid?next=/chats/7").location
    shown = parse(client.get(page).text)
    assert "address, ada@example.com. Log in" in shown.select_one(".note").get_text()
    assert shown.find(id="email")["value"] == "ada@example.com"
    onward = client.post(page, data={"email": "ada@example.com", "password": PASSWORD}).location
    assert onward == "/login/openid?next=/chats/7"
    # A browser lets no form lead to another site, not even by the way of ours.
    assert client.get(onward).status_code == 200
    assert come(client, op, onward).location == "/chats/7"
    other = app.test_client()
    assert come(other, op).location == "/chats"
    assert is_logged_in(other)
    assert len(people(app)) == 1


def test_another_persons_login_gives_nothing_away(app, client, op, sign_up):
    sign_up(email="ada@example.com")
    eve = sign_up("Eve", "eve@example.com")
    assert "once" in told(eve, come(eve, op))
    with app.app_context():
        assert db.session.query(Identity).count() == 0


def test_the_same_name_at_another_provider_is_somebody_else(app, client, op):
    come(app.test_client(), op)
    with app.app_context():
        db.session.scalars(db.select(Identity)).one().issuer = "https://other.example"
        db.session.commit()
    assert "Log in with its password once" in told(client, come(client, op))


def test_an_account_without_a_password_is_opened_by_none(app, client, op):
    come(client, op)
    visitor = app.test_client()
    for password in ("", "none", "None", "!", " "):
        form = {"email": "ada@example.com", "password": password}
        assert visitor.post("/login", data=form).status_code == 422


def test_who_is_disabled_is_not_let_in(app, client, op):
    come(client, op)
    client.post("/logout")
    with app.app_context():
        db.session.scalars(db.select(User)).one().disabled = True
        db.session.commit()
    assert come(client, op).status_code == 403
    assert not is_logged_in(client)


def test_nobody_signs_up_by_the_provider_where_nobody_may(make_app, settings, op, let_in):
    app = make_app(**settings, SIGNUP="invite")
    let_in("First", "first@example.com")
    client = app.test_client()
    assert "invitation" in told(client, come(client, op))
    app.config["SIGNUP"] = "closed"
    assert "No new accounts" in told(client, come(client, op))
    assert not is_logged_in(client)
    assert len(people(app)) == 1


def test_an_invitation_is_kept_on_the_way_and_good_for_one(make_app, settings, op, let_in):
    app = make_app(**settings, SIGNUP="invite")
    let_in("First", "first@example.com")
    with app.app_context():
        word = invite()
    client, other = app.test_client(), app.test_client()
    page = parse(client.get(f"/signup?invitation={word}").text)
    link = page.find("a", string="Log in with Lovelace & Co")["href"]
    assert come(client, op, link).location == "/chats/new"
    op.person |= {"sub": "bob-1", "email": "bob@example.com"}
    assert "has been used" in told(other, come(other, op, link))
    assert len(people(app)) == 2


def test_the_first_who_comes_by_the_provider_is_the_administrator(app, client, op):
    come(client, op)
    with app.app_context():
        assert db.session.scalars(db.select(User)).one().admin


# parting from it


def test_an_account_shows_who_lets_one_in_and_parts_from_it_by_the_password(
    app, client, op, sign_up
):
    assert (
        "You can log in by"
        not in sign_up(email="ada@example.com", person=client).get("/account").text
    )
    come(client, op)
    assert "You can log in by Lovelace &amp; Co," in client.get("/account").text
    wrong = client.post("/account/identities/delete", data={"identity_password": "guessed"})
    assert wrong.status_code == 422
    assert come(app.test_client(), op).location == "/chats"
    form = {"identity_password": PASSWORD}
    assert client.post("/account/identities/delete", data=form).status_code == 303
    assert "You can log in by" not in client.get("/account").text
    visitor = app.test_client()
    assert "Log in with its password once" in told(visitor, come(visitor, op))


def test_nobody_parts_from_the_only_way_into_an_account(app, client, op):
    come(client, op)
    refused = client.post("/account/identities/delete")
    assert refused.status_code == 409
    assert "only way into your account" in parse(refused.text).select_one(".alert").get_text()
    assert come(app.test_client(), op).location == "/chats"


# settings


def test_an_issuer_is_read_kindly():
    for given, read in READ.items():
        settings = {"OIDC_ISSUER": given, "OIDC_CLIENT_ID": CLIENT}
        assert openid_settings(settings)["OIDC_ISSUER"] == read


READ = {
    "https://login.example.org/": "https://login.example.org",
    "https://a.example/realms/b/.well-known/openid-configuration": "https://a.example/realms/b",
    "login.example.org": "https://login.example.org",
    "http://keycloak:8080/realms/a": "http://keycloak:8080/realms/a",
}


WRONG = [
    {"OIDC_ISSUER": "http://login.example.org"},
    {"OIDC_ISSUER": "https://"},
    {"OIDC_ISSUER": "https://a b.example"},
    {"OIDC_ISSUER": "https://user:secret@a.example"},
    {"OIDC_ISSUER": "https://a.example?x=1"},
    {"OIDC_ISSUER": "https://a.example:port"},
    {"OIDC_ISSUER": "ftp://a.example"},
    {"OIDC_ISSUER": ""},
    {"OIDC_CLIENT_ID": ""},
]


def test_a_wrong_setting_is_told_in_a_sentence(settings):
    for wrong in WRONG:
        with pytest.raises(CannotStart, match=r"^OIDC_\w+ .*\.$") as error:
            openid_settings(settings | wrong)
        assert "secret" not in str(error.value)


def test_the_provider_has_the_name_of_its_host_where_it_has_none(settings):
    given = settings | {"OIDC_NAME": "", "OIDC_ISSUER": "https://login.example.org"}
    assert openid_settings(given)["OIDC_NAME"] == "login.example.org"


def test_more_may_be_asked_of_the_provider(settings):
    given = settings | {"OIDC_SCOPES": "email groups"}
    assert openid_settings(given)["OIDC_SCOPES"] == "openid email groups"
