"""A budget: what an owner's replies may cost in a month, reserved before a provider is asked.

An owner has `allowance` (dollars a month, None for any) and `spent_this_month()` (dollars). What
is spent is kept first, and given back then: whoever sets aside first and reads what is spent then
may count a reply twice, but none never. What is set aside grows with the reply: a budget is overrun
by no more than what is being written when it is reached.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from flask import current_app
from redis.exceptions import RedisError

from chattable import live, provider
from chattable.database import now, picodollars, release
from chattable.provider.prices import LOCAL
from chattable.templating import dollars

# Tokens that an answer is expected to have.
ANSWER = 2_000
# Seconds: soon one of the replies that are written has ended.
SOON = 30

SPENT = "Your replies have cost the {} that you may spend a month. The next month begins on {}."
RUNNING = (
    "The replies that you wait for may cost the rest of the {} that you may spend a month. "
    "Wait for them, then try again."
)


@dataclass
class Refusal:
    """Why a reply is not asked for: a sentence, and after how many seconds it may be."""

    sentence: str
    seconds: int


class Budgeted:
    """The hooks by which an owner's replies are kept within their allowance; mix it in."""

    chats_channel: Any
    allowance: Any
    spent_this_month: Any
    # Whether something was set aside for a reply that this process writes.
    sets_aside = False

    def on_ask(self, chat: Any, model: str, told: "provider.Told") -> str | None:
        refusal = self.reserve(chat.id, model, provider.estimate_tokens(told.size))
        return refusal.sentence if refusal else None

    def on_growing(self, chat_id: int, completion: "provider.Completion", text: str) -> None:
        if not self.sets_aside:
            return
        tokens = provider.estimate_tokens(completion.told.size)
        said = provider.estimate_tokens(text) + provider.estimate_tokens(completion.reasoning)
        # What it has cost, and as much as another one is expected to.
        if cost := estimate(completion.model, tokens, said + ANSWER):
            with suppress(RedisError):  # the next time
                self._set_aside(chat_id, cost)

    def on_settled(self, chat_id: int) -> None:
        """Set nothing aside for a chat any more: what its reply has cost is kept, or it has none.

        Also where I am gone, and nobody knows my allowance.
        """
        with suppress(RedisError):  # it is given back by itself
            live.give_back(self.chats_channel, chat_id)

    def reserve(self, chat_id: int, model: str, tokens: int) -> Refusal | None:
        """Set aside what a reply to so many tokens may cost; return why not, if it is too much.

        Raises `RedisError`.
        """
        allowance = self.allowance
        cost = None if allowance is None else estimate(model, tokens)
        if cost is None:
            return None
        before = self._set_aside(chat_id, cost)
        # As it is now: a transaction may show what was before.
        release()
        spent = self.spent_this_month()
        release()
        if spent + Decimal(before).scaleb(-12) < allowance:
            self.sets_aside = True
            return None
        self.on_settled(chat_id)
        return refusal(spent, allowance)

    def _set_aside(self, chat_id, cost):
        lasting = current_app.config["JOB_TIMEOUT"] + 60
        return live.set_aside(self.chats_channel, chat_id, picodollars(cost), lasting)

    def may_spend(self) -> bool:
        """Return whether I have not reached my allowance."""
        return self.allowance is None or self.spent_this_month() < self.allowance


def estimate(model, tokens, answer=ANSWER):
    """Return what a reply may cost (dollars): 0 if nobody knows, None if nobody is paid."""
    into, out = provider.costs(model, provider.Usage(prompt=tokens, completion=answer))
    return None if (into, out) == LOCAL else (into or 0) + (out or 0)


def refusal(spent, allowance):
    if spent < allowance:
        return Refusal(RUNNING.format(in_dollars(allowance)), SOON)
    words = SPENT.format(in_dollars(allowance), day(renewal()))
    return Refusal(words, int((renewal() - now()).total_seconds()) + 1)


def month() -> str:
    """Return this month's name (UTC): "2026-11"."""
    return f"{now():%Y-%m}"


def renewal() -> datetime:
    """Return when the next month begins."""
    today = now()
    year, zero_based = divmod(today.year * 12 + today.month, 12)
    return datetime(year, zero_based + 1, 1, tzinfo=UTC)


def day(moment: datetime) -> str:
    """Return a day in words: "1 December"."""
    return f"{moment.day} {moment:%B}"


def in_dollars(amount: Decimal) -> str:
    """Return a sum with cents, or with more digits where it has them."""
    return f"${amount:,.2f}" if amount == round(amount, 2) else dollars(amount)
