"""How often one may do a thing: guess a password, sign up, send; and who is not kept out."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from werkzeug.exceptions import TooManyRequests

from chattable.serve import CannotStart
from models import Chat, db
from pages import limits
from tests.page import parse

PASSWORD = "correct horse battery"
ADA = "ada@example.com"


def log_in(person, address="192.0.2.1", email=ADA, password="wrong horse"):
    """Post the form of the log-in from an address; return the answer."""
    here = {"REMOTE_ADDR": address}
    return person.post("/login", data={"email": email, "password": password}, environ_base=here)


def sign_up(app, number, address="198.51.0.1"):
    form = {"name": "Eve", "email": f"eve{number}@example.com", "password": PASSWORD}
    return app.test_client().post("/signup", data=form, environ_base={"REMOTE_ADDR": address})


def guesses(app, times, networks=1, email=ADA):
    """Return how many of so many guesses may be compared: nothing is hashed."""
    return sum(guess(app, f"198.51.{number % networks}.1", email) for number in range(times))


def guess(app, address, email=ADA, **environ):
    return passes(app, address, lambda: limits.try_password(email), **environ)


def passes(app, address, work, **environ):
    """Tell whether something may be done from an address."""
    with app.test_request_context(environ_base={"REMOTE_ADDR": address, **environ}):
        try:
            work()
        except TooManyRequests:
            return False
        return True


def test_many_wrong_log_ins_from_ten_networks_and_two_processes_try_few(make_app, sign_up):
    sign_up().post("/logout")
    apps = make_app(), make_app()
    assert sum(guesses(app, 500, networks=10) for app in apps) <= 30
    assert log_in(apps[0].test_client(), "198.51.1.1", password=PASSWORD).status_code == 429
    # Its owner comes from a network where nobody has guessed.
    assert log_in(apps[0].test_client(), "203.0.113.7", password=PASSWORD).status_code == 302


def test_of_however_many_networks_few_guess_at_one_account(app):
    assert guesses(app, 1000, networks=200) <= 120


@pytest.mark.parametrize("network", ["2001:db8:7:{:x}::1", "198.51.100.{}"])
def test_a_range_of_networks_does_not_keep_the_owner_out(app, network):
    tried = [guess(app, network.format(number)) for number in range(60)]
    assert sum(tried) <= 15
    assert guess(app, "77.1.1.1")


def test_some_ranges_of_networks_do_not_keep_the_owner_out(app):
    for number in range(60):
        for _ in range(20):
            guess(app, f"198.51.{number}.1")
    assert guess(app, "77.1.1.1")


def test_a_network_guesses_at_few_accounts_a_range_of_them_at_some_more(app):
    tried = [guess(app, "198.51.100.1", f"person{number}@example.com") for number in range(150)]
    assert sum(tried) == 100
    assert guess(app, "198.51.100.2", "person@example.com")


def test_a_browser_that_was_logged_in_is_not_kept_out_by_strangers(app, client, sign_up):
    sign_up(person=client).post("/logout")
    guesses(app, 100, networks=50)
    assert log_in(app.test_client(), "198.51.7.1", password=PASSWORD).status_code == 429
    assert log_in(client, "198.51.7.1", password=PASSWORD).status_code == 302


def test_a_known_browser_guesses_ten_times_a_minute_itself(app, client, sign_up):
    sign_up(person=client).post("/logout")
    jar = jar_of(client)
    assert sum(guess(app, f"198.51.{number}.1", HTTP_COOKIE=jar) for number in range(30)) == 10


def jar_of(person):
    return "; ".join(f"{each.key}={each.value}" for each in person._cookies.values())


def test_all_known_browsers_of_an_account_guess_as_often_as_one(app, sign_up):
    sign_up().post("/logout")
    jars = [jar_of(browser_of_ada(app)) for _ in range(3)]
    tried = [guess(app, "198.51.0.1", HTTP_COOKIE=jar) for jar in jars for _ in range(10)]
    assert sum(tried) == 10


def test_a_network_guesses_no_more_for_knowing_browsers(app, client, sign_up):
    sign_up(person=client).post("/logout")
    for number in range(100):
        guess(app, "198.51.0.1", f"person{number}@example.com")
    assert not guess(app, "198.51.0.1", HTTP_COOKIE=jar_of(client))


def browser_of_ada(app):
    browser = app.test_client()
    assert log_in(browser, "203.0.113.7", password=PASSWORD).status_code == 302
    return browser


def test_another_password_makes_the_browsers_that_knew_the_old_one_strangers(app, client, sign_up):
    sign_up(person=client)
    other = browser_of_ada(app)
    form = {"old_password": PASSWORD, "new_password": "another horse battery"}
    assert client.post("/account/password", data=form).status_code == 303
    guesses(app, 20)
    assert log_in(other, "198.51.0.1").status_code == 429
    assert log_in(client, "198.51.0.1").status_code == 422


def test_who_comes_by_the_address_of_a_deleted_account_is_no_acquaintance(app, client, sign_up):
    sign_up(person=client)
    other = browser_of_ada(app)
    assert client.post("/account/delete", data={"leaving_password": PASSWORD}).status_code == 200
    guesses(app, 20)
    assert log_in(other, "198.51.0.1").status_code == 429
    sign_up()
    assert log_in(other, "198.51.0.1").status_code == 429


def test_another_address_leaves_a_browser_known(app, client, sign_up):
    sign_up(person=client)
    form = {"email": "lady@example.com", "password": PASSWORD}
    assert client.post("/account/email", data=form).status_code == 303
    guesses(app, 20, email="lady@example.com")
    assert log_in(client, "198.51.0.1", email="lady@example.com").status_code == 422


@pytest.mark.parametrize("cookie", ["ZZ.ZZ", "[]", "", "WyJhIl0.x"])
def test_a_browser_is_known_by_nothing_it_made_itself(app, client, sign_up, cookie):
    sign_up(person=client)
    jar = client._cookies.values()
    known = next(each.key for each in jar if each.key.endswith("_browser"))
    stranger = app.test_client()
    stranger.set_cookie(known, cookie)
    guesses(app, 20)
    assert log_in(stranger, "198.51.0.1", password=PASSWORD).status_code == 429


def test_the_browser_of_one_account_is_a_stranger_to_another(app, client, sign_up):
    sign_up(person=client)
    eve = sign_up("Eve", "eve@example.com")
    guesses(app, 20)
    assert log_in(eve, "198.51.0.1").status_code == 429


@pytest.mark.parametrize("spelling", ["ADA@example.com", " ada@EXAMPLE.com", "ada@example.com."])
def test_an_account_is_counted_however_its_address_is_spelt(app, client, spelling):
    guesses(app, 10)
    assert log_in(client, "198.51.0.1", email=spelling).status_code == 429


def test_nobody_learns_by_being_refused_whether_there_is_an_account(app, client):
    assert guesses(app, 11, email="nobody@example.com") == 10
    assert log_in(client, "198.51.0.1", email="nobody@example.com").status_code == 429


def test_who_is_refused_is_told_when_to_come_again(app, client):
    guesses(app, 10)
    answer = log_in(client, "198.51.0.1")
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert "Wait a minute" in answer.text


def test_who_is_refused_does_not_wait_longer_for_asking(app, client):
    guesses(app, 10)
    waits = [int(log_in(client, "198.51.0.1").headers["Retry-After"]) for _ in range(20)]
    assert waits == sorted(waits, reverse=True)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("", "nonsense", True),
    ],
)
def test_a_network_is_what_one_person_has(app, one, other, same):
    found = []
    for address in (one, other):
        with app.test_request_context(environ_base={"REMOTE_ADDR": address}):
            found.append(limits.networks()[0])
    assert (found[0] == found[1]) is same


def test_without_redis_people_log_in_and_guesses_are_counted(make_app):
    limits.HERE.clear()
    app = make_app(REDIS_URL="redis://127.0.0.1:9/0")
    visitor = app.test_client()
    form = {"name": "Ada", "email": ADA, "password": PASSWORD}
    assert visitor.post("/signup", data=form).status_code == 302
    visitor.post("/logout")
    assert guesses(app, 11) == 10
    assert log_in(app.test_client(), "198.51.0.1").status_code == 429
    assert log_in(visitor, password=PASSWORD).status_code == 302


def test_not_more_than_the_limit_pass_at_once(app):
    def count(_):
        with app.app_context():
            return limits.count({"test": (10, 60), "other": (20, 60)})[1]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(count, range(60))).count(0) == 10


def test_where_one_counter_is_full_no_other_counts(app):
    with app.app_context():
        assert limits.count({"full": (1, 60)})[1] == 0
        assert all(limits.count({"full": (1, 60), "other": (1, 60)})[1] for _ in range(3))
        assert limits.count({"other": (1, 60)})[1] == 0


def test_what_is_counted_is_under_this_installs_name_and_does_not_stay(app, client, redis_server):
    log_in(client)
    with redis_server.client() as redis:
        keys = redis.keys("*:limit:*")
        assert keys and all(key.startswith(b"tests:limit:") for key in keys)
        assert all(0 < redis.ttl(key) <= 900 for key in keys)
        assert not any(b"ada" in key for key in keys)


def test_twelve_accounts_in_a_row_from_one_address_are_too_many(app):
    made = [passes(app, "198.51.0.1", limits.sign_up) for _ in range(9)]
    assert all(made) and sign_up(app, 1).status_code == 302
    answer = sign_up(app, 2)
    assert answer.status_code == 429 and "Wait an hour" in answer.text
    assert int(answer.headers["Retry-After"]) > 3000
    assert passes(app, "203.0.113.1", limits.sign_up)


def test_a_form_with_a_mistake_is_no_account(app):
    for _ in range(12):
        assert app.test_client().post("/signup", data={"name": "Eve"}).status_code == 422
    assert sign_up(app, 1).status_code == 302


def test_letters_for_one_account_are_few_whoever_asks(app):
    def ask():
        limits.ask_reset(ADA)

    assert [passes(app, f"198.51.{number}.1", ask) for number in range(4)] == [True] * 3 + [False]


def test_a_load_test_lifts_all_limits(make_app):
    app = make_app(RATELIMIT_ENABLED="0")
    assert guesses(app, 100) == 100
    assert all(passes(app, "198.51.0.1", limits.sign_up) for _ in range(20))


# sending


def send(person, chat_id, htmx=True, **form):
    form = {"chat_id": chat_id, "content": "A long story", "model": "gpt-4o-mini"} | form
    return person.post("/messages", data=form, headers={"HX-Request": "true"} if htmx else {})


def test_a_person_sends_as_much_a_minute_as_is_set_over_all_chats(app, let_in):
    ada = let_in()
    chats = [int(ada.post("/chats").location.rsplit("/", 1)[1]) for _ in range(4)]
    app.config["SENDS_PER_MINUTE"] = 3
    answers = [send(ada, chat_id) for chat_id in chats]
    assert [answer.status_code for answer in answers] == [204] * 3 + [429]
    said = parse(answers[-1].text).select_one("[data-problem]").get_text()
    assert "3 messages a minute" in said and "Your text is kept" in said
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    page = parse(send(ada, chats[3], htmx=False).text)
    assert page.select_one("#content").get_text() == "A long story"
    assert "3 messages" in page.select_one("#composer-error").get_text()
    eve = let_in("Eve", "eve@example.com")
    assert send(eve, int(eve.post("/chats").location.rsplit("/", 1)[1])).status_code == 204


def test_versions_and_first_messages_are_sent_too(app, let_in):
    app.config["SENDS_PER_MINUTE"] = 1
    ada = let_in()
    chat_id = int(ada.post("/chats").location.rsplit("/", 1)[1])
    with app.app_context():
        chat = db.session.get(Chat, chat_id)
        said = chat.say("user", "Hello").id
        reply = chat.run("gpt-4o-mini").id
    assert send(ada, chat_id).status_code == 204
    draft = {"content": "Another", "model": "gpt-4o-mini"}
    for path in (f"/messages/{said}/edit", f"/messages/{reply}/retry", "/chats"):
        answer = ada.post(path, data=draft)
        assert answer.status_code == 429 and "Retry-After" in answer.headers
    assert "Another" in ada.post("/chats", data=draft).text
    with app.app_context():
        assert len(db.session.scalars(db.select(Chat)).all()) == 1


def test_empty_chats_are_begun_as_often_as_is_set(app, let_in):
    app.config["SENDS_PER_MINUTE"] = 3
    ada = let_in()
    answers = [ada.post("/chats") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [303] * 3 + [429]
    assert "3 chats a minute" in answers[-1].text
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    with app.app_context():
        assert len(db.session.scalars(db.select(Chat)).all()) == 3


def test_a_message_with_a_mistake_is_not_sent(app, let_in):
    app.config["SENDS_PER_MINUTE"] = 1
    ada = let_in()
    chat_id = int(ada.post("/chats").location.rsplit("/", 1)[1])
    assert send(ada, chat_id, content="").status_code == 422
    assert send(ada, chat_id).status_code == 204


@pytest.mark.parametrize("lifted", [{"SENDS_PER_MINUTE": 0}, {"RATELIMIT_ENABLED": "0"}])
def test_zero_lifts_a_limit(make_app, lifted):
    assert make_app(**lifted).config["SENDS_PER_MINUTE"] == 0


def test_a_limit_is_thirty_unless_it_is_set(app):
    assert app.config["SENDS_PER_MINUTE"] == 30


@pytest.mark.parametrize("wrong", ["-1", "many", "1.5", "99999999999"])
def test_a_limit_that_is_no_number_stops_the_start(make_app, wrong):
    with pytest.raises(CannotStart, match="SENDS_PER_MINUTE must be a whole number from 0"):
        make_app(SENDS_PER_MINUTE=wrong)
