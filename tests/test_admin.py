"""The administrator, invitations, and who may sign up."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from threading import Barrier

import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from werkzeug.security import generate_password_hash

import models
from chattable.database import now
from models import Invitation, Setting, Uninvited, User, db
from pages import invitations
from tests.page import parse
from tests.test_accounts import ADA, is_logged_in, values

BOB = {"name": "Bob Ross", "email": "bob@example.com", "password": "correct horse battery"}
PUBLIC = "https://chat.example.org"


@pytest.fixture(autouse=True)
def quick_hashing(monkeypatch):
    """Hash passwords as quickly as there are many of them here."""
    hash_quickly = partial(generate_password_hash, method="pbkdf2:sha256:1")
    monkeypatch.setattr(models, "generate_password_hash", hash_quickly)


def person(email="bob@example.com"):
    return db.session.scalars(db.select(User).filter_by(email=email)).one()


def change(app, email, **attributes):
    with app.app_context():
        for name, value in attributes.items():
            setattr(person(email), name, value)
        db.session.commit()


def words(answer, selector="main"):
    return " ".join(parse(answer.text).select_one(selector).get_text().split())


def admins(app):
    with app.app_context():
        return [user.name for user in db.session.scalars(db.select(User).filter_by(admin=True))]


@pytest.fixture(params=["sqlite", "postgres"])
def either(request, make_app):
    """The app on either database."""
    return make_app(DATABASE_URL=request.getfixturevalue(f"{request.param}_url"))


def at_once(app, work, *many):
    """Do some work with each of many, in threads and app contexts of their own."""

    def one(each):
        with app.app_context():
            return work(each)

    with ThreadPoolExecutor(len(many)) as pool:
        return list(pool.map(one, many))


def join(form, **admission):
    try:
        return User.sign_up(*form.values(), **admission) is not None
    except Uninvited:
        return None


# The first account.


def test_the_first_account_is_the_administrators_and_nothing_is_in_its_way(app, client):
    assert client.post("/signup", data=ADA).location == "/chats/new"
    assert app.test_client().post("/signup", data=BOB).location == "/chats/new"
    assert admins(app) == ["Ada Lovelace"]


@pytest.mark.parametrize("uninvited", ["everybody", "the first"])
def test_of_two_first_accounts_at_once_one_is_the_administrators(either, monkeypatch, uninvited):
    both, take_turn = Barrier(2), Setting.take_turn

    def meet():
        both.wait(10)  # each has seen that there is nobody
        take_turn()

    monkeypatch.setattr(Setting, "take_turn", meet)
    made = at_once(either, lambda form: join(form, uninvited=uninvited), ADA, BOB)
    assert len(admins(either)) == 1
    # On a public server the second one has no invitation.
    assert sorted(made, key=str) == ([True, True] if uninvited == "everybody" else [None, True])


# Invitations.


@pytest.fixture
def invited(make_app):
    """The app where one signs up by invitation, and how: `invited.link(days=7)`."""
    app = make_app(SIGNUP="invite")

    def link(note="", days=7):
        with app.app_context():
            return f"/signup?invitation={invitations.invite(note, days)}"

    app.link = link
    return app


def latest(app, **attributes):
    """Change the latest invitation."""
    with app.app_context():
        newest = db.select(Invitation).order_by(Invitation.id.desc()).limit(1)
        invitation = db.session.scalars(newest).one()
        for name, value in attributes.items():
            setattr(invitation, name, value)
        db.session.commit()
        return invitation


def test_the_database_does_not_know_the_links(invited):
    word = invited.link().partition("=")[2]
    assert latest(invited).token not in ("", word)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"used_at": now()}, "has been used"),
        ({"expires_at": now() - timedelta(seconds=1)}, "has expired"),
        ({"token": "another"}, "not known here"),
    ],
)
def test_what_is_wrong_with_an_invitation_is_said(invited, attributes, said):
    link = invited.link()
    latest(invited, **attributes)
    answer = invited.test_client().get(link)
    assert answer.status_code == 403
    assert said in words(answer)
    assert said in words(invited.test_client().post(link, data=BOB), "[role=alert]")
    with invited.app_context():
        assert not db.session.query(User).count()


@pytest.mark.parametrize("word", ["", "x", "x" * 20_000, "\0", "é", "a.b.c", "..", "'; --"])
def test_what_is_no_invitation_is_told_in_a_sentence(invited, word):
    for method in ("GET", "POST"):
        query, answer = {"invitation": word}, invited.test_client()
        answer = answer.open("/signup", method=method, query_string=query, data=BOB)
        assert answer.status_code == 403
        assert "nvitation" in words(answer)


def test_of_two_who_use_an_invitation_at_once_one_is_let_in(either):
    with either.app_context():
        word = invitations.invite()
        offered = invitations.find_invitation(word)
        db.session.expunge(offered)
    both = Barrier(2)

    def use(form):
        both.wait(10)
        return join(form, invitation=offered, uninvited="nobody")

    assert sorted(at_once(either, use, ADA, BOB), key=str) == [None, True]
    with either.app_context():
        assert db.session.query(User).count() == 1
        assert person(db.session.query(User).one().email).id == latest(either).used_by_id


def test_who_was_slower_loses_nothing_they_typed(invited, monkeypatch):
    link, sign_up = invited.link(), User.sign_up

    def slower(*args, **admission):
        latest(invited, used_at=now())
        return sign_up(*args, **admission)

    monkeypatch.setattr(User, "sign_up", slower)
    answer = invited.test_client().post(link, data=BOB)
    assert answer.status_code == 403
    assert "has been used" in words(answer, "[role=alert]")
    assert (values(answer)["name"], values(answer)["email"]) == (BOB["name"], BOB["email"])


def test_an_invitation_is_not_used_up_by_a_form_that_is_refused(invited):
    link = invited.link()
    for form in (BOB | {"email": "bob"}, BOB, ADA | {"email": BOB["email"]}):
        invited.test_client().post(link, data=form)
        assert bool(latest(invited).used_at) == (form != BOB | {"email": "bob"})
    second = invited.link()
    assert invited.test_client().post(second, data=BOB).status_code == 422  # the address is taken
    assert not latest(invited).used_at
    assert invited.test_client().post(second, data=ADA).status_code == 302


def test_who_is_logged_in_is_told_so_by_an_invitation(invited):
    bob = invited.test_client()
    bob.post(invited.link(), data=BOB)
    answer = bob.get(invited.link())
    assert answer.status_code == 409
    assert "logged in already" in words(answer)
    assert bob.post(invited.link(), data=ADA).status_code == 409
    assert not latest(invited).used_at


def test_an_invitation_is_kept_for_whom_it_is_where_everybody_may_sign_up(app):
    with app.app_context():
        word = invitations.invite()
    app.test_client().post(f"/signup?invitation={word}", data=BOB)
    assert latest(app).used_at
    eve = ADA | {"email": "eve@example.com"}
    assert app.test_client().post(f"/signup?invitation={word}", data=eve).status_code == 302


def signed(app, days=0):
    """Return an invitation as it was signed before there were rows, so many days ago."""

    class Earlier(TimestampSigner):
        def get_timestamp(self):
            return super().get_timestamp() - days * 86400

    key = app.config["SECRET_KEY"]
    return URLSafeTimedSerializer(key, salt="invitation", signer=Earlier).dumps("any")


def test_an_invitation_of_before_they_were_kept_is_good_once(invited):
    link = f"/signup?invitation={signed(invited, days=6)}"
    assert invited.test_client().get(link).status_code == 200
    assert invited.test_client().post(link, data=BOB).status_code == 302
    answer = invited.test_client().post(link, data=ADA)
    assert "has been used" in words(answer, "[role=alert]")


def test_an_invitation_of_before_they_were_kept_ends_after_its_week(invited):
    link = f"/signup?invitation={signed(invited, days=8)}"
    assert invited.test_client().get(link).status_code == 403


def test_the_command_line_says_when_nobody_can_use_it(make_app):
    done = make_app(SIGNUP="closed").test_cli_runner().invoke(args=["invite"])
    assert "signing up is closed" in done.stderr
    assert make_app().test_cli_runner().invoke(args=["invite", "--days", "31"]).exit_code == 2


# Who may sign up.


def may_sign_up(app, form=BOB, **options):
    return app.test_client().post("/signup", data=form, **options).status_code == 302


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("localhost", False),
        ("chat.localhost:5000", False),
        ("127.0.0.1:5000", False),
        ("[::1]:5000", False),
        ("10.1.2.3", False),
        ("192.168.0.9:80", False),
        ("172.20.0.2", False),
        ("169.254.1.1", False),
        ("100.64.0.7", False),
        ("[fd12::1]", False),
        ("[fe80::1]", False),
        ("nas", False),
        ("NAS.local.", False),
        ("chat.internal", False),
        ("chat.lan", False),
        ("chat.home.arpa", False),
        ("chat.example.org", True),
        ("localhost.example.org", True),
        ("127.0.0.1.example.org", True),
        ("8.8.8.8", True),
        ("[2a00:1450:4001::1]:443", True),
        ("internal.example", True),
    ],
)
def test_after_the_first_account_a_public_server_asks_for_an_invitation(app, host, public):
    assert may_sign_up(app, ADA, base_url=f"http://{host}")
    assert may_sign_up(app, BOB, base_url=f"http://{host}") != public


def test_a_server_that_was_reached_from_outside_stays_public_whatever_is_forged(app):
    assert may_sign_up(app, ADA, base_url=PUBLIC)
    assert not may_sign_up(app, BOB)
    assert not may_sign_up(app, BOB, headers={"Host": "localhost"})


def test_whoever_logs_in_from_outside_shows_that_it_is_public(app):
    assert may_sign_up(app, ADA)
    login = {name: ADA[name] for name in ("email", "password")}
    # A proxy that passes on its own name, and a browser that knows better.
    app.test_client().post("/login", data=login, headers={"Origin": PUBLIC})
    assert not may_sign_up(app, BOB)


def test_a_stranger_does_not_make_a_server_public(app):
    assert may_sign_up(app, ADA)
    app.test_client().post("/login", data={"email": "x"}, base_url=PUBLIC)
    assert not may_sign_up(app, BOB, base_url=PUBLIC)
    assert may_sign_up(app, BOB)


@pytest.mark.parametrize("origin", ["null", "http://[", "", "https://"])
def test_an_origin_that_is_none_tells_nothing(app, origin):
    assert may_sign_up(app, ADA, headers={"Origin": origin})
    assert may_sign_up(app, BOB)


@pytest.mark.parametrize(
    "mark", ["DYNO", "RENDER", "FLY_APP_NAME", "K_SERVICE", "KUBERNETES_SERVICE_HOST", "VERCEL"]
)
def test_a_platform_is_public_and_the_start_says_what_holds(make_app, caplog, mark):
    app = make_app(**{mark: "some value"})
    said = [line for line in caplog.messages if "SIGNUP" in line]
    assert len(said) == 1
    assert mark in said[0]
    assert "invitation" in said[0]
    assert may_sign_up(app, ADA)
    assert not may_sign_up(app, BOB)


def test_a_name_in_allowed_hosts_makes_a_server_public(app):
    app.config["ALLOWED_HOSTS"] = ["localhost", "chat.example.org"]
    assert may_sign_up(app, ADA)
    assert not may_sign_up(app, BOB)
    app.config["ALLOWED_HOSTS"] = ["localhost", "nas.local"]
    assert may_sign_up(app, BOB)


@pytest.mark.parametrize(("host", "open"), [("", True), ("127.0.0.1", True), ("0.0.0.0", False)])
def test_the_one_command_is_open_in_a_clouds_editor_but_not_to_its_street(
    make_app, caplog, host, open
):
    here = {"CHATTABLE_URL": "http://127.0.0.1:5000", "HOST": host}
    app = make_app(KUBERNETES_SERVICE_HOST="10.0.0.1", **here)
    assert ("SIGNUP" not in caplog.text) == open
    assert may_sign_up(app, ADA)
    assert may_sign_up(app, BOB) == open


@pytest.mark.parametrize("rule", ["open", "invite", "closed"])
def test_what_signup_says_holds_wherever_it_runs(make_app, caplog, rule):
    app = make_app(SIGNUP=rule, DYNO="web.1")
    assert "SIGNUP" not in caplog.text
    for form in (ADA, BOB):
        assert may_sign_up(app, form, base_url=PUBLIC) == (rule == "open")
    with app.app_context():
        word = invitations.invite()
    eve = ADA | {"email": "eve@example.com"}
    assert may_sign_up(app, eve, query_string={"invitation": word}) == (rule != "closed")


@pytest.mark.parametrize(
    ("rule", "said"),
    [("open", "Sign up"), ("invite", "by invitation"), ("closed", "No new accounts")],
)
def test_the_log_in_page_says_how_one_gets_in(make_app, rule, said):
    page = make_app(SIGNUP=rule).test_client().get("/login")
    assert said in words(page, "main")
    assert bool(parse(page.text).select("main a[href^='/signup']")) == (rule == "open")


def test_the_log_in_page_of_a_public_server_offers_the_first_account(app):
    visitor = app.test_client()
    offers = []
    for _ in range(2):
        page = parse(visitor.get("/login", base_url=PUBLIC).text)
        offers.append(bool(page.select("main a[href^='/signup']")))
        may_sign_up(app, ADA, base_url=PUBLIC)
    assert offers == [True, False]


def test_the_log_in_page_is_there_without_a_database(app):
    with app.app_context():
        db.drop_all()
    page = app.test_client().get("/login")
    assert page.status_code == 200
    assert "New here" not in page.text
    assert not is_logged_in(app.test_client())
