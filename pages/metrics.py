"""What a Prometheus reads: counts of the whole install, whichever of its processes answers.

What replies took, workers count in Redis (`chattable.tallies`); requests and sockets, each web
process adds there every few seconds.
"""

import hmac
import os
import secrets
import socket
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from flask import Blueprint, abort, current_app, request
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from chattable import live, vitals
from chattable.live.threads import Keeper
from chattable.tallies import BOUNDS, tallies_key
from models import Message

# Seconds. How often a web process tells, and when one that does not is gone.
TELL, GONE = 5, 30
TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Add what has happened, say how many sockets are open here, forget processes that are gone; return
# how many are open in all.
REPORT = """
local now = tonumber(redis.call('TIME')[1])
for n = 4, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[n], ARGV[n + 1]) end
if ARGV[1] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], now .. ' ' .. ARGV[2]) end
local open, told = 0, redis.call('HGETALL', KEYS[2])
for n = 1, #told, 2 do
  local at, count = string.match(told[n + 1], '(%d+) (%d+)')
  if tonumber(at) + tonumber(ARGV[3]) < now then
    redis.call('HDEL', KEYS[2], told[n])
  else
    open = open + tonumber(count)
  end
end
return open
"""

routes = Blueprint("metrics", __name__)


def init_app(app):
    """Let an app be asked for its counts, if `METRICS_TOKEN` says who may."""
    app.register_blueprint(routes)
    if app.config["METRICS_TOKEN"]:
        app.extensions["teller"] = Teller(app)
        app.after_request(app.extensions["teller"].count)


@routes.get("/metrics")
def show_metrics():
    """Give the counts to whoever knows the token."""
    token = current_app.config["METRICS_TOKEN"] or abort(404)
    given = request.headers.get("Authorization", "").encode()
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        answer = {"Content-Type": "text/plain", "WWW-Authenticate": 'Bearer realm="metrics"'}
        return "Send METRICS_TOKEN as Authorization: Bearer.\n", 401, answer
    # Here, for nobody else needs it.
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Counts())
    try:
        return generate_latest(registry), 200, {"Content-Type": TYPE, "Cache-Control": "no-store"}
    except RedisError:
        return "Redis is away.\n", 503, {"Content-Type": "text/plain"}


class Teller:
    """Tell Redis what has happened in this process."""

    def __init__(self, app):
        self.app = app
        self._keeper = Keeper(self._step, self._reset)

    def _reset(self):
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._happened: Counter = Counter()

    def count(self, response):
        self._keeper.begin()
        if not (request.url_rule and request.url_rule.websocket):
            self._happened[f"requests:{response.status_code // 100}xx"] += 1
        return response

    def _step(self):
        time.sleep(TELL)
        with self.app.app_context():
            self.tell()

    def tell(self):
        """Send what has happened since the last time; keep it where Redis does not take it."""
        happened, self._happened = self._happened, Counter()
        try:
            report(self.name, len(self.app.extensions["chattable_sockets"]), happened)
        except RedisError:
            self._happened.update(happened)


def report(name="", sockets=0, happened=()):
    values = [word for item in dict(happened).items() for word in item]
    keys = [tallies_key(), f"{tallies_key()}:sockets"]
    return live.redis().eval(REPORT, len(keys), *keys, name, sockets, GONE, *values)


class Counts:
    """All counts, as a collector of `prometheus_client`'s."""

    def collect(self):
        current_app.extensions["teller"].tell()
        stored: Any = live.redis().hgetall(tallies_key())
        self.tallies = {name.decode(): int(amount) for name, amount in stored.items()}
        yield from self.present()
        yield self.counter("requests", "Requests by the class of their status.", "status")
        yield self.counter("replies", "Replies by how they ended.", "end")
        yield self.counter("errors", "Replies that failed, by kind.", "kind")
        tokens = "Tokens of {} by model."
        yield self.counter("prompt_tokens", tokens.format("prompts"), "model", "prompt")
        yield self.counter("completion_tokens", tokens.format("replies"), "model", "completion")
        dollars = "What replies cost in dollars by model, where a price is known."
        yield self.counter("cost_dollars", dollars, "model", "picodollars", 10**-12)
        yield self.first_words()

    def present(self):
        """Give what is now."""
        from prometheus_client.core import GaugeMetricFamily as Gauge

        jobs = Gauge("chattable_jobs", "Jobs by state.", labels=["state"])
        for state, number in vitals.jobs_by_state().items():
            jobs.add_metric([state], number)
        yield jobs
        yield Gauge("chattable_longest_wait_seconds", "Of the next job.", vitals.longest_wait())
        yield Gauge("chattable_workers", "Workers that live.", vitals.living_workers())
        with suppress(SQLAlchemyError):  # the others are of interest also while it is away
            running = vitals.replies_written(Message.running_ids())
            yield Gauge("chattable_replies_running", "Replies being written.", running)
        yield Gauge("chattable_sockets", "Sockets that are open.", report())

    def counter(self, name, help, label, of=None, scale=1):
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(f"chattable_{name}", help, labels=[label])
        for field, amount in self.tallies.items():
            kind, _, value = field.partition(":")
            if kind == (of or name):
                family.add_metric([value], amount * scale)
        return family

    def first_words(self):
        from prometheus_client.core import HistogramMetricFamily

        buckets, total = [], 0
        for bound in (*BOUNDS, "+Inf"):
            total += self.tallies.get(f"first:{bound}", 0)
            buckets.append((str(bound), total))
        seconds = self.tallies.get("first_ms", 0) / 1000
        family = HistogramMetricFamily(
            "chattable_first_token_seconds",
            "From asking the provider to its first word or thought.",
        )
        family.add_metric([], buckets, seconds)
        return family
