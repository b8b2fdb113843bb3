"""What replies took and how they ended: for the log, and counted in Redis over all processes."""

from decimal import Decimal
from typing import Any

from flask import current_app, g

from chattable import live, provider
from chattable.database import id_of, now, picodollars

# Names of models that are counted by themselves: a gateway may have thousands.
MOST_MODELS = 50
LONGEST_NAME = 100
# Seconds to the first word or thought, the upper bounds of a histogram.
BOUNDS = 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60
# Of the sentences that people read, what tells the kind of an error.
KINDS = {
    "was interrupted": "interrupted",
    "took too long": "timeout",
    "has said nothing for": "timeout",
    "could not be reached": "unreachable",
    "nothing at this address": "unreachable",
    "could not be understood": "not understood",
    "broke off": "broken off",
    "too many requests": "rate limit",
    "is overloaded": "overloaded",
    "having trouble": "overloaded",
    "used up its credit": "credit",
    "refused the API key": "key",
    "too long for the model": "too long",
    "too much text": "too long",
    "rules do not allow": "content",
    "does not know the model": "model",
    "gave an empty answer": "empty",
    "gave no answer": "empty",
}
# {model} stands for the name that this script finds for it. Amounts are whole numbers: exact.
COUNT = f"""
local model = ARGV[1]
if redis.call('SISMEMBER', KEYS[2], model) == 0 then
  if redis.call('SCARD', KEYS[2]) < {MOST_MODELS} then
    redis.call('SADD', KEYS[2], model)
  else
    model = 'other'
  end
end
for n = 2, #ARGV, 2 do
  local field = string.gsub(ARGV[n], '{{model}}', function() return model end)
  redis.call('HINCRBY', KEYS[1], field, ARGV[n + 1])
end
"""


def tallies_key() -> str:
    return f"{live.prefix()}:tallies"


def note_reply(message: Any, begun: Any, completion: Any = None) -> None:
    """Have the log tell of a reply that has ended, and count it.

    `begun` is when (datetime) it was, `completion` what was asked for here, if anything was.
    """
    first = (
        completion.first_at - completion.asked_at if completion and completion.first_at else None
    )
    dollars = message.output_cost  # with an input that costs nothing, where nobody is paid
    dollars = None if dollars is None else dollars + (message.input_cost or Decimal(0))
    g.chattable_reply = {
        "chat_id": message.chat_id,
        "message_id": id_of(message),
        "model": message.model,
        "reply": message.status,
        "error": kind_of(message.error),
        "reply_ms": round(1000 * (now() - begun).total_seconds()),
        "first_ms": None if first is None else round(1000 * first),
        "prompt_tokens": message.prompt_token_usage,
        "completion_tokens": message.completion_token_usage,
        "dollars": dollars if dollars is None else f"{dollars:f}",
    }
    count(message.model, {**ends(message), **first_word(first)} | spent(message))


def note_usage(message: Any) -> None:
    """Count what was paid for and nobody sees."""
    count(message.model, spent(message))


def ends(message):
    kind = kind_of(message.error)
    end = kind if kind == "interrupted" else message.status
    return {f"replies:{end}": 1} | ({f"errors:{kind}": 1} if kind else {})


def first_word(seconds):
    if seconds is None:
        return {}
    bound = next((bound for bound in BOUNDS if seconds <= bound), "+Inf")
    return {f"first:{bound}": 1, "first_ms": round(1000 * seconds)}


def spent(message):
    cost = sum(picodollars(each) or 0 for each in (message.input_cost, message.output_cost))
    return {
        "prompt:{model}": message.prompt_token_usage or 0,
        "completion:{model}": message.completion_token_usage or 0,
        "picodollars:{model}": cost,
    }


def kind_of(sentence):
    """Return in a word or two what an error is, None if there is none."""
    if not sentence:
        return None
    return next((kind for words, kind in KINDS.items() if words in sentence), "other")


def count(model, amounts):
    """Have counts go up, with what is sent to Redis next; they are not waited for."""
    values = [word for name, amount in amounts.items() if amount for word in (name, amount)]
    if values:
        keys = [tallies_key(), f"{tallies_key()}:models"]
        name = provider.whole_characters(model or "")[:LONGEST_NAME]
        current_app.extensions["chattable_outbox"].post(COUNT, keys, [name, *values])
