"""How often one may do a thing: guess a password, sign up; who is not kept out by strangers."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from werkzeug.exceptions import TooManyRequests

from pages import limits

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
    assert guesses(app, 1000, networks=200) <= 40


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
    jar = "; ".join(f"{each.key}={each.value}" for each in client._cookies.values())
    assert sum(guess(app, f"198.51.{number}.1", HTTP_COOKIE=jar) for number in range(30)) == 10


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
