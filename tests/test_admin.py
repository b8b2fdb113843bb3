"""The administrator, invitations, and who may sign up."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from functools import partial
from threading import Barrier

import click
import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from sqlalchemy import event
from werkzeug.security import generate_password_hash

from chattable.database import now
from models import Message, Spending, User, db
from pages import invitations, people
from pages.invitations import Invitation, Uninvited
from pages.people import list_people
from pages.policy import Setting, choose, public_name
from tests.page import parse
from tests.patience import patient
from tests.test_accounts import ADA, error_beside, is_logged_in, values

BOB = {"name": "Bob Ross", "email": "bob@example.com", "password": "correct horse battery"}
PUBLIC = "https://chat.example.org"


@pytest.fixture(autouse=True)
def quick_hashing(monkeypatch):
    """Hash passwords as quickly as there are many of them here."""
    hash_quickly = partial(generate_password_hash, method="pbkdf2:sha256:1")
    monkeypatch.setattr(people, "generate_password_hash", hash_quickly)


@pytest.fixture
def boss(app, let_in):
    """The browser of Ada, who is the administrator."""
    ada = let_in()
    change(app, "ada@example.com", admin=True)
    return ada


@pytest.fixture
def bob(boss, let_in):
    """The browser of Bob, who is not."""
    return let_in("Bob Ross", "bob@example.com")


def person(email="bob@example.com"):
    return db.session.scalars(db.select(User).filter_by(email=email)).one()


def change(app, email, **attributes):
    with app.app_context():
        for name, value in attributes.items():
            setattr(person(email), name, value)
        db.session.commit()


def words(answer, selector="main"):
    return " ".join(parse(answer.text).select_one(selector).get_text().split())


def names(answer):
    return [link.get_text() for link in parse(answer.text).select("main .listing__link")]


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


@pytest.fixture
def meeting(monkeypatch):
    """Let two only go on who have both got as far as where one at a time does."""
    both, take_turn, thread = Barrier(2), Setting.take_turn, threading.local()

    def meet():
        if not hasattr(thread, "met"):
            thread.met = both.wait(patient(10))
        take_turn()

    monkeypatch.setattr(Setting, "take_turn", meet)


def join(form, **admission):
    try:
        return people.sign_up(*form.values(), **admission) is not None
    except Uninvited:
        return None


# The first account.


def test_the_first_account_is_the_administrators_and_nothing_is_in_its_way(app, client):
    assert client.post("/signup", data=ADA).location == "/chats/new"
    assert app.test_client().post("/signup", data=BOB).location == "/chats/new"
    assert admins(app) == ["Ada Lovelace"]


@pytest.mark.parametrize("uninvited", ["everybody", "the first"])
def test_of_two_first_accounts_at_once_one_is_the_administrators(either, meeting, uninvited):
    made = at_once(either, lambda form: join(form, uninvited=uninvited), ADA, BOB)
    assert len(admins(either)) == 1
    # On a public server the second one has no invitation.
    assert sorted(made, key=str) == ([True, True] if uninvited == "everybody" else [None, True])


def test_an_administrator_is_made_where_there_is_none(app, bob):
    change(app, "ada@example.com", admin=False)
    made = app.test_cli_runner().invoke(args=["make-admin", " BOB@example.com"])
    assert made.output == "bob@example.com is an administrator now.\n"
    assert admins(app) == ["Bob Ross"]
    assert bob.get("/admin").status_code == 200


def test_an_administrator_who_is_nobody_is_not_made(app):
    made = app.test_cli_runner().invoke(args=["make-admin", "eve@example.com"])
    assert made.exit_code == 1
    assert made.output == "Error: There is no account with the e-mail address eve@example.com.\n"


# Who may come in.


def test_for_everybody_else_there_is_no_administration(app, bob):
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("admin.")]
    assert len(rules) > 6
    for rule in rules:
        path = rule.rule.replace("<int:user_id>", "1").replace("<int:invitation_id>", "1")
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            form = {"admin": "1", "budget": "5", "rule": "closed", "days": "7"}
            assert bob.open(path, method=method, data=form).status_code == 404, rule
            stranger = app.test_client().open(path, method=method, data=form)
            assert stranger.location.startswith("/login"), rule
    assert admins(app) == ["Ada Lovelace"]


def test_the_sidebar_leads_administrators_there(boss, bob):
    assert parse(boss.get("/chats").text).select_one("aside a[href='/admin']")
    assert not parse(bob.get("/chats").text).select_one("aside a[href='/admin']")


# People.


def test_people_are_listed_with_what_they_take_and_nothing_they_said(app, boss, bob):
    bob.post("/chats", data={"content": "a secret", "model": "gpt-4o"})
    bob.post("/chats")
    with app.app_context():
        user = person()
        user.chats[0].rename("a secret title")
        user.seen_at, user.budget = now() - timedelta(hours=3), 20
        for month, dollars in ((f"{now():%Y-%m}", 1.5), ("2020-01", 70)):
            spent = {"user_id": user.id, "month": month, "picodollars": int(dollars * 10**12)}
            db.session.add(Spending(**spent))
        db.session.commit()
    page = boss.get("/admin")
    assert names(page) == ["Bob Ross", "Ada Lovelace"]
    for part in ("bob@example.com", "3 hours ago", "2 chats", "$1.5000 this month of $20.00"):
        assert part in words(page)
    assert f"since {now().day} {now():%B %Y}" in words(page)
    for path in ("/admin", "/admin/people/2"):
        assert "secret" not in boss.get(path).text


def test_ten_thousand_people_are_a_few_queries_and_pages_of_fifty(app, boss):
    with app.app_context():
        many = [
            {"name": f"Person {n}", "email": f"{n}@example.com", "password_hash": ""}
            for n in range(10_000)
        ]
        db.session.execute(db.insert(User), many)
        db.session.commit()
        asked = []
        event.listen(db.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    page = boss.get("/admin")
    assert len(asked) <= 5
    assert names(page) == [f"Person {n}" for n in range(9999, 9949, -1)]
    more = parse(page.text).find("a", string="More people")["href"]
    assert names(boss.get(more))[0] == "Person 9949"
    assert names(boss.get("/admin?q=4711@example")) == ["Person 4711"]
    assert names(boss.get("/admin?before=2")) == ["Ada Lovelace"]
    found = boss.get("/admin?q=person+77")
    assert len(names(found)) == 50
    more = parse(found.text).find("a", string="More people")["href"]
    assert names(boss.get(more))[0] == "Person 7749"


def test_every_page_of_the_administration_is_there_on_either_database(either):
    boss = either.test_client()
    boss.post("/signup", data=ADA)
    for path in ("/admin?q=ada&before=9", "/admin", "/admin/people/1", "/admin/signup"):
        assert boss.get(path).status_code == 200, path
    assert boss.post("/admin/invitations", data={"days": "7"}).status_code == 303
    assert boss.post("/admin/invitations/1/delete").status_code == 303
    assert boss.post("/admin/signup", data={"rule": "closed"}).status_code == 303
    assert boss.post("/admin/people/1", data={"budget": "999999.99"}).status_code == 303


def test_people_are_found_by_a_part_of_their_name_or_address(boss, bob):
    for query in ("ross", "BOB@", " Bob  Ross ", "b"):
        assert names(boss.get("/admin", query_string={"q": query})) == ["Bob Ross"], query


def test_a_query_is_nothing_but_words(boss):
    for query in ("%", "_", "\\", "' OR 1=1 --", "\0", "x" * 5000):
        answer = boss.get("/admin", query_string={"q": query})
        assert answer.status_code == 200
        assert len(names(answer)) == (query == "\0"), query  # which is no word


def test_people_are_found_in_any_script(either):
    with either.app_context():
        people.sign_up("Ada", "ada@example.com", "correct horse")
        for name in ("Émile Zola", "ЛЕВ ТОЛСТОЙ", "李小龍"):
            db.session.add(User(name=name, email=f"{name[:2]}@example.com", password_hash=""))
        db.session.commit()
        found = [list_people(9, 99, each)[0].User.name for each in ("émile", "лев", "小龍")]
    assert found == ["Émile Zola", "ЛЕВ ТОЛСТОЙ", "李小龍"]


def test_a_place_that_is_none_is_the_beginning(boss):
    for before in ("x", "-1", "9" * 30, "٣", ""):
        assert names(boss.get("/admin", query_string={"before": before})) == ["Ada Lovelace"]
        assert boss.get("/admin/signup", query_string={"before": before}).status_code == 200


def budget_of(app):
    with app.app_context():
        return person().budget


def test_an_administrator_sets_a_persons_budget(app, boss, bob):
    budgets = {"12.5": "12.5", "": None, " $20 ": "20", "0": "0", "0.01": "0.01", "7\0": "7"}
    for typed, dollars in budgets.items():
        assert boss.post("/admin/people/2", data={"budget": typed}).status_code == 303
        assert budget_of(app) == (dollars and Decimal(dollars)), typed


def test_what_is_no_budget_is_said_and_kept_as_it_was_typed(app, boss, bob):
    change(app, "bob@example.com", budget=7)
    for typed in ("-1", "12,50", "1e3", "NaN", "inf", "٣", "1234567", "0.001", "much"):
        answer = boss.post("/admin/people/2", data={"budget": typed})
        assert answer.status_code == 422
        assert "12.50" in error_beside(answer, "budget")
        assert values(answer)["budget"] == typed
    assert budget_of(app) == 7


def test_somebody_is_disabled_and_enabled_again(app, boss, bob):
    for value in ("1", "0"):
        assert boss.post("/admin/people/2", data={"disabled": value}).status_code == 303
        with app.app_context():
            assert person().disabled == (value == "1")
        assert ("disabled" in words(boss.get("/admin"))) == (value == "1")


def test_what_waits_of_somebody_who_is_disabled_is_not_asked_for(
    app, boss, bob, provider, run_jobs
):
    chat_id = int(bob.post("/chats").location.rsplit("/", 1)[1])
    bob.post("/messages", data={"chat_id": chat_id, "content": "Hi", "model": "gpt-4o-mini"})
    boss.post("/admin/people/2", data={"disabled": "1"})
    run_jobs()
    with app.app_context():
        said, reply = db.session.scalars(db.select(Message).order_by(Message.id))
        assert (said.content, reply.status) == ("Hi", "failed") and "disabled" in reply.error
    assert provider.requests == []


def test_no_title_is_asked_for_in_the_name_of_somebody_who_is_disabled(app, boss, bob):
    change(app, "bob@example.com", disabled=True)
    with app.app_context():
        assert not person().may_spend()


def test_an_administrator_makes_and_unmakes_others(app, boss, bob):
    boss.post("/admin/people/2", data={"admin": "1"})
    assert bob.get("/admin").status_code == 200
    boss.post("/admin/people/2", data={"admin": "0"})
    assert bob.get("/admin").status_code == 404


@pytest.mark.parametrize("form", [{"admin": "0"}, {"disabled": "1"}])
def test_nobody_takes_the_role_from_themselves(app, boss, bob, form):
    change(app, "bob@example.com", admin=True)
    answer = boss.post("/admin/people/1", data=form)
    assert answer.status_code == 409
    assert "Another administrator" in words(answer, "[role=alert]")
    assert boss.get("/admin").status_code == 200
    assert not parse(boss.get("/admin/people/1").text).select("[name=admin], [name=disabled]")


@pytest.mark.parametrize("form", [{"admin": "0"}, {"disabled": "1"}])
def test_an_administrator_is_left_when_two_end_each_other_at_once(either, request, form):
    browsers = [either.test_client(), either.test_client()]
    for browser, each in zip(browsers, (ADA, BOB), strict=True):
        assert browser.post("/signup", data=each).status_code == 302
        change(either, each["email"], admin=True)
    request.getfixturevalue("meeting")
    with ThreadPoolExecutor(2) as pool:
        ended = [
            pool.submit(browser.post, f"/admin/people/{other}", data=form)
            for browser, other in zip(browsers, (2, 1), strict=True)
        ]
        answers = [each.result() for each in ended]
    assert sorted(answer.status_code for answer in answers) == [303, 409]
    assert "no administrator left" in "".join(answer.text for answer in answers)


def test_a_link_for_a_new_password_is_shown_once(app, boss, bob):
    button = parse(boss.get("/admin/people/2").text).select_one("[action$='/reset']")
    assert boss.post(button["action"]).location == "/admin/people/2"
    shown, again = (parse(boss.get("/admin/people/2").text).select_one(".handed pre") for _ in "12")
    assert again is None
    link = shown.get_text()
    assert link.startswith("http://localhost/reset?token=")
    assert app.test_client().post(link, data={"password": "a new password"}).location == "/chats"


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


def test_an_invitation_is_made_shown_once_and_lets_one_person_in(app, boss):
    app.config.update(SIGNUP="invite", SIGNUP_IS_SET=True)
    form = {"note": " Bob  from accounting ", "days": "3"}
    assert boss.post("/admin/invitations", data=form).location == "/admin/signup"
    page = boss.get("/admin/signup")
    link = parse(page.text).select_one(".handed pre").get_text()
    assert link.startswith("http://localhost/signup?invitation=")
    assert names(page) == ["Bob from accounting"]
    until = now() + timedelta(days=3)
    assert f"valid until {until.day} {until:%B %Y}" in words(page)
    again = boss.get("/admin/signup").text
    assert link.partition("=")[2] not in again
    assert app.test_client().post(link, data=BOB).location == "/chats/new"
    assert "used by Bob Ross" in words(boss.get("/admin/signup"))
    eve = BOB | {"name": "Eve", "email": "eve@example.com"}
    answer = app.test_client().post(link, data=eve)
    assert answer.status_code == 403
    assert "has been used" in words(answer, "[role=alert]")
    assert values(answer)["email"] == "eve@example.com"
    assert values(answer)["password"] == ""


def test_the_database_does_not_know_the_links(invited):
    word = invited.link().partition("=")[2]
    assert latest(invited).token not in ("", word)


def test_an_invitation_is_valid_for_one_to_thirty_days(app, boss):
    for days in ("", "0", "-1", "31", "x", "٣", "1.5", "9" * 50):
        answer = boss.post("/admin/invitations", data={"note": "Bob", "days": days})
        assert answer.status_code == 422
        assert "from 1 to 30" in error_beside(answer, "days")
        assert (values(answer)["note"], values(answer)["days"]) == ("Bob", days)
    with app.app_context():
        assert not db.session.query(Invitation).count()


def test_a_note_too_long_is_said_and_kept(boss):
    answer = boss.post("/admin/invitations", data={"note": "x" * 201, "days": "30"})
    assert answer.status_code == 422
    assert "200 characters" in error_beside(answer, "note")
    assert (values(answer)["note"], values(answer)["days"]) == ("x" * 201, "30")


def test_an_invitation_is_revoked(app, boss):
    app.config.update(SIGNUP="invite", SIGNUP_IS_SET=True)
    boss.post("/admin/invitations", data={"days": "7"})
    page = parse(boss.get("/admin/signup").text)
    assert boss.post(page.select_one("[action$='/delete']")["action"]).status_code == 303
    link = page.select_one(".handed pre").get_text()
    answer = app.test_client().get(link)
    assert answer.status_code == 403
    assert "revoked" in words(answer)
    assert boss.post("/admin/invitations/1/delete").status_code == 404


def test_a_used_invitation_stays_on_the_list(app, boss, invited):
    invited.test_client().post(invited.link(), data=BOB)
    change(invited, "bob@example.com", admin=True)
    with invited.app_context():
        assert not invitations.revoke(1)
        db.session.delete(person())
        db.session.commit()
        ((invitation, user),) = invitations.list_invitations(9, 9)
        assert invitation.used_at
        assert user is None


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


def test_what_is_no_invitation_is_told_in_a_sentence(invited):
    some = "", "x", "x" * 20_000, "\0", "é", "a.b.c", "..", "'; --"
    for word, method in itertools.product(some, ("GET", "POST")):
        query, visitor = {"invitation": word}, invited.test_client()
        answer = visitor.open("/signup", method=method, query_string=query, data=BOB)
        assert answer.status_code == 403
        assert "nvitation" in words(answer)


def test_of_two_who_use_an_invitation_at_once_one_is_let_in(either):
    with either.app_context():
        word = invitations.invite()
        offered = invitations.find_invitation(word)
        db.session.expunge(offered)
    both = Barrier(2)

    def use(form):
        both.wait(patient(10))
        return join(form, invitation=offered, uninvited="nobody")

    assert sorted(at_once(either, use, ADA, BOB), key=str) == [None, True]
    with either.app_context():
        assert db.session.query(User).count() == 1
        assert person(db.session.query(User).one().email).id == latest(either).used_by_id


def test_who_was_slower_loses_nothing_they_typed(invited, monkeypatch):
    link, sign_up = invited.link(), people.sign_up

    def slower(*args, **admission):
        latest(invited, used_at=now())
        return sign_up(*args, **admission)

    monkeypatch.setattr(people, "sign_up", slower)
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


@pytest.mark.parametrize(
    ("hosts", "begin"),
    [
        (None, "/signup?"),
        (["*.example.org"], "/signup?"),
        (["*.example.org", "chat.example.org"], "https://chat.example.org/signup?"),
        (["localhost"], "http://localhost/signup?"),
    ],
)
def test_the_command_line_prints_an_invitation(app, boss, hosts, begin):
    app.config["ALLOWED_HOSTS"] = hosts
    printed = app.test_cli_runner().invoke(args=["invite", "--note", "Bob", "--days", "1"]).output
    assert printed.startswith(begin)
    assert "valid 1 day)" in printed
    link = printed.split()[0].removeprefix(begin.partition("/signup")[0])
    assert names(boss.get("/admin/signup")) == ["Bob"]
    assert app.test_client().get(link).status_code == 200


def test_the_command_line_says_when_nobody_can_use_it(make_app):
    done = make_app(SIGNUP="closed").test_cli_runner().invoke(args=["invite"])
    assert "signing up is closed" in done.stderr
    assert make_app().test_cli_runner().invoke(args=["invite", "--days", "31"]).exit_code == 2


# Who may sign up.


def may_sign_up(app, form=BOB, **options):
    return app.test_client().post("/signup", data=form, **options).status_code == 302


HERE = (
    "localhost chat.localhost:5000 127.0.0.1:5000 [::1]:5000 10.1.2.3 192.168.0.9:80"
    " 172.20.0.2 169.254.1.1 100.64.0.7 [fd12::1] [fe80::1] nas"
    " NAS.local. chat.internal chat.lan chat.home.arpa"
).split()
OUTSIDE = (
    "chat.example.org localhost.example.org 127.0.0.1.example.org 8.8.8.8"
    " [2a00:1450:4001::1]:443 internal.example"
).split()


def test_a_name_tells_whether_a_browser_comes_from_outside(app):
    for host in HERE + OUTSIDE:
        with app.test_request_context(base_url=f"http://{host}"):
            assert bool(public_name()) == (host in OUTSIDE), host


@pytest.mark.parametrize(("address", "public"), [("http://localhost", False), (PUBLIC, True)])
def test_after_the_first_account_a_public_server_asks_for_an_invitation(app, address, public):
    assert may_sign_up(app, ADA, base_url=address)
    assert may_sign_up(app, BOB, base_url=address) != public


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


def test_an_origin_that_is_none_tells_nothing(app):
    for origin in ("null", "http://[", "", "https://"):
        with app.test_request_context(headers={"Origin": origin}):
            assert public_name() is None, origin


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


def test_what_an_administrator_has_chosen_needs_no_word_at_the_start(make_app, caplog):
    app = make_app()
    with app.app_context():
        choose("open")
    make_app(DYNO="web.1")
    assert "SIGNUP" not in caplog.text


@pytest.mark.parametrize(("command", "said"), [("invite", False), ("run", True)])
def test_a_command_does_not_say_what_the_web_says_at_its_start(make_app, caplog, command, said):
    with click.Context(click.Command(command), info_name=command):
        make_app(DYNO="web.1", OPENAI_API_KEY="", OPENAI_BASE_URL="", SECRET_KEY="short")
    for name in ("SIGNUP", "OPENAI_API_KEY", "SECRET_KEY"):
        assert (name in caplog.text) == said, name


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


def test_an_administrator_chooses_who_may_sign_up(app, boss):
    assert "Not chosen yet" in words(boss.get("/admin/signup"))
    for rule, may in (("closed", False), ("invite", False), ("open", True)):
        assert boss.post("/admin/signup", data={"rule": rule}).status_code == 303
        checked = parse(boss.get("/admin/signup").text).select_one("[name=rule][checked]")
        assert checked["value"] == rule
        assert may_sign_up(app, BOB, base_url=PUBLIC) == may
    assert "Not chosen yet" not in words(boss.get("/admin/signup"))


def test_what_signup_says_is_not_to_be_chosen(app, boss):
    app.config.update(SIGNUP="invite", SIGNUP_IS_SET=True)
    page = parse(boss.get("/admin/signup").text)
    assert page.select_one("fieldset[disabled] [checked]")["value"] == "invite"
    answer = boss.post("/admin/signup", data={"rule": "open"})
    assert answer.status_code == 409
    assert "SIGNUP decides" in words(answer, "[role=alert]")
    with app.app_context():
        assert not Setting.kept()


def test_what_is_no_choice_is_refused(boss):
    for form in ({"rule": ""}, {"rule": "first"}, {"rule": "OPEN"}, {}):
        assert boss.post("/admin/signup", data=form).status_code == 422


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
