"""How often one may do a thing: what is counted in Redis, for all processes, and how one is told.

Who did too much is answered with 429, a sentence that says when to come again, and `Retry-After`.
"""

import logging
import math
import secrets
import threading
import time
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Any

import gevent
import humanize
from flask import after_this_request, current_app, request
from flask_login import current_user
from itsdangerous import BadSignature, URLSafeSerializer
from redis.exceptions import RedisError
from werkzeug.exceptions import TooManyRequests

from chattable import live, provider
from chattable.connections import beside
from pages import people
from pages.cookies import cookie_name, guarded

# Seconds.
MINUTE, QUARTER, HOUR = 60, 15 * 60, 3600
YEAR = 365 * 24 * 3600
# How many, in how many seconds: attempts at one account's password from one network, from the range
# of networks it is in, and from all; beyond these, one from each range that has made none so far:
# the owner's may be among them, and whoever wants to keep them out needs many ranges.
FROM_ONE, FROM_RANGE, FROM_ALL = (10, MINUTE), (15, QUARTER), (20, QUARTER)
FIRST, ALL_FIRST = (1, QUARTER), (100, QUARTER)
# Of a network, and of the range of networks it is in: attempts at any password, accounts, letters.
GUESSES = (100, QUARTER), (1000, QUARTER)
SIGN_UPS = (10, HOUR), (100, HOUR)
RESETS = (10, HOUR), (100, HOUR)
RESETS_OF_ONE = (3, HOUR)

TOO_MANY = "Too many attempts. Wait {}, then try again."
TOO_MANY_ACCOUNTS = "Too many accounts were made from your network. Wait {}, then try again."
TOO_MANY_LETTERS = "Too many letters were asked for. Wait {}, then try again."
TOO_MANY_SENDS = "You may send {} messages a minute. Your text is kept; wait {{}}, then send it."
TOO_MANY_CHATS = "You may begin {} chats a minute. Wait {{}}, then begin another."
# Seconds in which Redis counts, or this process does.
COUNTED_WITHIN = 1
# Counters that this process keeps while Redis is away.
MOST_HERE = 10_000

HERE: dict[str, dict[str, float]] = {}
COUNTING = threading.Lock()

# Each counter is a set of what was done, by time. Either all of them count once more, or none: then
# the answer is after how many milliseconds there is room.
COUNT = """
local time, id, wait = redis.call('TIME'), ARGV[1], 0
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
  local most, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
  if redis.call('ZCARD', key) >= most then
    wait = math.max(wait, tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) + window - now)
  end
end
if wait > 0 then return wait end
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, now, id)
  redis.call('PEXPIRE', key, ARGV[2 * i + 1])
end
return 0
"""

log = logging.getLogger(__name__)


def try_password(email):
    """Count an attempt at the password of an account, there or not; raise 429 if it may not be.

    To be called before a password is compared, with the address in the form we store. Return the
    attempt, for `forgive` to take back if the password was right.
    """
    (network, range), here = networks(), of_network("guess", GUESSES)
    ours = f"account:{mark(email)}"
    if knows_browser(email):
        # Its owner was logged in there: what strangers try elsewhere does not keep them out.
        return demand(TOO_MANY, {f"{ours}:known": FROM_ONE, **here})
    around = f"{ours}:range:{range}"
    usual = {f"{ours}:{network}": FROM_ONE, around: FROM_RANGE, ours: FROM_ALL, **here}
    first = {around: FIRST, f"{ours}:first": ALL_FIRST, **here}
    attempt, wait = count(usual)
    return attempt if wait == 0 else demand(TOO_MANY, first, wait)


def forgive(attempt):
    """Do not count an attempt: the password was right."""
    id, counters, away = attempt
    if away:
        for counter in counters:
            HERE.get(counter, {}).pop(id, None)
    # Else it is forgotten by itself.
    with suppress(RedisError), soon(), live.redis().pipeline(transaction=False) as pipeline:
        for counter in () if away else counters:
            pipeline.zrem(key(counter), id)
        pipeline.execute()


def know_browser(user):
    """Let this browser try an account's password whatever others do: its owner is logged in."""
    known = signed().dumps(acquaintance(user))
    options = {"httponly": True, "samesite": "Lax", "secure": request.is_secure}
    path = request.script_root or "/"

    @after_this_request
    def set_cookie(response):
        response.set_cookie(guarded(cookie_name("browser")), known, YEAR, path=path, **options)
        return response


def knows_browser(email):
    """Return whether the owner of an account has logged in with this browser, by this password."""
    try:
        known = signed().loads(request.cookies.get(guarded(cookie_name("browser")), ""))
    except BadSignature:
        return False
    user = people.with_email(email)
    return user is not None and known == acquaintance(user)


def acquaintance(user):
    """Return what is another for another account, and once the password is another."""
    return [user.public_id, mark(user.password_hash)]


def signed():
    return URLSafeSerializer(current_app.config["SECRET_KEY"], salt="known browser")


def sign_up():
    """Count an account that is made from here; raise 429 if there were too many."""
    demand(TOO_MANY_ACCOUNTS, of_network("signup", SIGN_UPS))


def ask_reset(email):
    """Count a letter that is asked for, there being such an account or not; or raise 429."""
    demand(TOO_MANY_LETTERS, {f"reset:{mark(email)}": RESETS_OF_ONE, **of_network("reset", RESETS)})


def send():
    """Count what a person sends, edits or asks for again; raise 429 if it is too much."""
    if most := current_app.config["SENDS_PER_MINUTE"]:
        demand(TOO_MANY_SENDS.format(f"{most:,}"), {f"sends:{current_user.id}": (most, MINUTE)})


def begin_chat():
    """Count a chat that is begun without a message; raise 429 if it is too much."""
    if most := current_app.config["SENDS_PER_MINUTE"]:
        demand(TOO_MANY_CHATS.format(f"{most:,}"), {f"chats:{current_user.id}": (most, MINUTE)})


def spend(chat, draft):
    """Set aside what a reply may cost a person; raise 429 if it is more than they may spend."""
    if current_user.allowance is None:
        return
    beside(provider.know_models)
    model = draft["model"]
    tokens = chat.carries(model)[0] + provider.estimate_tokens(draft.get("content", ""))
    if refusal := current_user.reserve(chat.id, model, tokens):
        refuse(f"{refusal.sentence} Your text is kept.", refusal.seconds)


# Who comes.


def mark(secret):
    """Return what stands for an address or a hash: whoever reads Redis or a cookie is not told."""
    return sha256(f"{current_app.config['SECRET_KEY']} {secret}".encode()).hexdigest()[:24]


def networks():
    """Return (network, range of networks) of whoever asks, which a person has for themselves.

    One is given /64 of IPv6 and buys /48 of it; of IPv4 it is an address and the 256 around it.
    """
    try:
        address = ip_address((request.remote_addr or "").partition("%")[0])
    except ValueError:  # a socket file
        return "local", "local"
    address = getattr(address, "ipv4_mapped", None) or address
    lengths = (32, 24) if address.version == 4 else (64, 48)
    one, range = (ip_network(f"{address}/{length}", strict=False) for length in lengths)
    return str(one), str(range)


def of_network(what, limits):
    return dict(zip((f"{what}:{network}" for network in networks()), limits, strict=True))


# Counting.


def demand(sentence, counters, latest=math.inf):
    """Count one more thing, or raise 429 with a sentence that has a {} for how long to wait."""
    attempt, wait = count(counters)
    if wait:
        refuse(sentence, min(wait, latest))
    return attempt


def refuse(sentence, seconds):
    """Raise 429; whatever is made of it, the answer says when to come again."""

    @after_this_request
    def say_when(response):
        response.headers["Retry-After"] = str(math.ceil(seconds))
        return response

    raise TooManyRequests(sentence.format(in_words(seconds)))


def in_words(seconds):
    """Return a time to wait, in whole minutes: "a minute", "15 minutes"."""
    return humanize.naturaldelta(timedelta(minutes=max(1, math.ceil(seconds / 60))))


def count(counters):
    """Count one more thing in all `counters` ({name: (most, seconds)}), or in none.

    Return (the attempt, seconds to wait until there is room: 0 if it was counted).
    """
    id = secrets.token_urlsafe(9)
    if not current_app.config["RATELIMIT_ENABLED"]:
        return (id, (), False), 0
    limits = [number for most, window in counters.values() for number in (most, window * 1000)]
    keys = [key(counter) for counter in counters]
    with suppress(RedisError), soon():
        wait: Any = live.run(COUNT, keys, [id, *limits])
        return (id, [*counters], False), wait / 1000
    log.debug("counted in this process alone")
    return (id, [*counters], True), count_here(counters, id)


def soon():
    """Go on without Redis if it says nothing: its own connections wait for longer."""
    return gevent.Timeout(COUNTED_WITHIN, False)


def key(counter):
    return f"{live.prefix()}:limit:{counter}"


def count_here(counters, id):
    """Do what `COUNT` does, for this process alone: without Redis, people log in all the same."""
    now = time.time()
    with COUNTING:
        if len(HERE) > MOST_HERE:
            HERE.clear()
        waits = []
        for name, (most, window) in counters.items():
            done = HERE[name] = {
                each: then for each, then in HERE.get(name, {}).items() if then > now - window
            }
            if len(done) >= most:
                waits.append(min(done.values()) + window - now)
        if not waits:
            for name in counters:
                HERE[name][id] = now
    return max(waits, default=0)
