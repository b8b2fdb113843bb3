"""REDIS_URL, as people write it: read kindly, or refused in the sentence of its own fault."""

from contextlib import closing
from urllib.parse import quote

import pytest
from redis import Redis as Client

from chattable.addresses import redis_address
from tests.services import Redis

PASSWORDS = ["p#w", "p?w", "p?w=1", "p/w", "p@w", "p:w", "[p]w", "p w", "100%", "50%de", "p+w", "é"]


@pytest.fixture(scope="module")
def guarded():
    """A Redis that wants passwords, any of PASSWORDS."""
    with closing(Redis()) as server:
        with server.client() as client:
            client.acl_setuser(
                "default", enabled=True, passwords=[f"+{each}" for each in PASSWORDS]
            )
        yield server


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_stands_in_the_address_as_it_is_or_encoded(guarded, password):
    for text in (password, quote(password, "")):
        for user in ("", "default"):
            url = redis_address(f"redis://{user}:{text}@127.0.0.1:{guarded.port}/0")
            assert redis_address(url) == url
            with closing(Client.from_url(url)) as client:
                assert client.ping()


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("redis://", "redis://"),
        ("REDIS://host/2/", "redis://host/2/"),
        ("valkey://host", "redis://host"),
        ("redis://[::1]:1", "redis://[::1]:1"),
        ("redis://host:1/0?client_name=a@b", "redis://host:1/0?client_name=a@b"),
        ("redis://:p@w@host:1/0?client_name=a@b", "redis://:p%40w@host:1/0?client_name=a@b"),
        ("redis://:pw@host:1/0?client_name=a@b", "redis://:pw@host:1/0?client_name=a@b"),
        ("rediss://ada:12/ab@host:1/0?db=1", "rediss://ada:12%2Fab@host:1/0?db=1"),
        ("unix://:p/w@/my.sock", "unix://:p%2Fw@/my.sock"),
        ("unix:///a b/what?/#1/my.sock?db=2", "unix:///a%20b/what%3F/%231/my.sock?db=2"),
        ("unix:///a%20b/100%/my.sock", "unix:///a%20b/100%25/my.sock"),
        ("unix://:p#w@/my.sock", "unix://:p%23w@/my.sock"),
    ],
)
def test_an_address_is_read_as_it_was_meant(url, meant):
    assert redis_address(url) == meant
    assert redis_address(meant) == meant


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("valkeys://host/1", "rediss://host/1?ssl_cert_reqs=none"),
        ("rediss://host?db=1", "rediss://host?db=1&ssl_cert_reqs=none"),
        ("rediss://host?ssl_cert_reqs=required", "rediss://host?ssl_cert_reqs=required"),
        ("rediss://host?ssl_ca_certs=/own.pem", "rediss://host?ssl_ca_certs=/own.pem"),
        ("redis://host", "redis://host"),
    ],
)
def test_certificates_are_looked_at_where_the_address_says_so(url, meant):
    assert redis_address(url, trusting=True) == meant


BEGIN, SERVER, OPTION = "must begin with redis://", "a port is a number", "an option"


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("localhost:6379", BEGIN),
        ("hidden", BEGIN),
        ("http://:hidden@host", BEGIN),
        ("/run/redis.sock", BEGIN),
        ("redis+sentinel://:hidden@host:26379/main", "no Sentinel"),
        ("redis-cluster://:hidden@host", "no cluster"),
        ("redis://:hidden@one:1,two:2/0", "several servers"),
        ("redis://:hidden@host:port/0", SERVER),
        ("redis://:hidden@host:65536/0", SERVER),
        ("redis://:hidden@::1:6379/0", SERVER),
        ("redis://:hidden@[::1/0", SERVER),
        ("redis://:hidden@local host/0", SERVER),
        ("redis://hidden#more@host/0", "%23"),
        ("redis://hidden/more@host/0", "the number of a database"),
        ("redis://host/first", "the number of a database"),
        ("redis://host/-1", "the number of a database"),
        ("redis://host/0?hidden=1", OPTION),
        ("redis://host/0?db=first", OPTION),
        ("redis://host/0?decode_responses=1", OPTION),
        ("redis://host/0?protocol=3", OPTION),
        ("rediss://host/0?ssl_cert_reqs=perhaps", OPTION),
        ("unix://run/redis.sock", "path begins with /"),
    ],
)
def test_each_fault_has_a_sentence_of_its_own_which_tells_no_secret(url, fault):
    with pytest.raises(ValueError) as refusal:
        redis_address(url)
    sentence = str(refusal.value)
    assert sentence.startswith("REDIS_URL")
    assert fault in sentence
    assert "hidden" not in sentence
    assert sentence.endswith(".")
