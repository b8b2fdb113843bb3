"""The tokens that a completion used: what the provider reports, or else an estimate."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from chattable.provider.dialect import fields

# What a database column holds.
MOST_TOKENS = 2**31 - 1


@dataclass
class Usage:
    """Tokens of one completion, and its cost in dollars if the provider reported one.

    `completion` includes `reasoning` tokens, `prompt` includes cached ones, as OpenAI counts them.
    `model` is the name by which the provider says who answered.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    cost: Decimal | None = None
    estimated: bool = False
    reasoning: int | None = None
    model: str | None = None


def read_usage(reported, known, model=None):
    """Return `known` usage, raised to what `reported` (a provider's usage object) says."""
    prompt, completion = (
        tokens(reported.get("prompt_tokens")),
        tokens(reported.get("completion_tokens")),
    )
    details = fields(reported.get("prompt_tokens_details"))
    cached = tokens(details.get("cached_tokens") or reported.get("prompt_cache_hit_tokens"))
    thought = tokens(fields(reported.get("completion_tokens_details")).get("reasoning_tokens"))
    # Some count reasoning beside the completion, not inside it; the total tells. Of those Google
    # does not say what it is.
    beside = (tokens(reported.get("total_tokens")) or 0) - (prompt or 0) - (completion or 0)
    alone = thought in (beside, 0, None) and beside != cached
    if prompt and completion is not None and beside > 0 and alone:
        completion, thought = completion + beside, beside
    cost = reported_cost(reported)
    return Usage(
        larger(prompt, known.prompt),
        larger(completion, known.completion),
        larger(cached, known.cached),
        larger(cost, known.cost),
        reasoning=larger(thought, known.reasoning),
        model=model or known.model,
    )


def tokens(value):
    """Return a number of tokens that can be believed, or None."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if number and 0 <= value <= MOST_TOKENS else None


def larger(new, old):
    return old if new is None else max(new, old or 0)


def reported_cost(reported):
    """Return what a provider says it takes, in dollars, or None.

    Who asks OpenRouter with a key of their own pays whom it asks, too.
    """
    details = fields(reported.get("cost_details"))
    if str(reported.get("currency") or details.get("currency") or "USD").upper() != "USD":
        return None
    # DeepInfra's name of it, and Perplexity's sum of parts.
    cost = reported.get("cost")
    cost = reported.get("estimated_cost") if cost is None else cost
    cost = money(fields(cost).get("total_cost", cost))
    upstream = money(details.get("upstream_inference_cost"))
    own_key = reported.get("is_byok")
    if upstream and (not cost if own_key is None else own_key):
        return (cost or 0) + upstream
    return cost


def money(value):
    """Return a reported cost in dollars, exact to a picodollar, or None if it is no such thing."""
    try:
        cost = Decimal(str(value)) if isinstance(value, int | float | str) else None
    except InvalidOperation:
        return None
    if cost is None or not (cost.is_finite() and 0 <= cost < 10**6):
        return None
    # That is how it is kept; and more than 28 digits would not add up.
    return round(cost, 12)


def estimate_tokens(text):
    """Estimate the tokens of `text`, or of so many bytes: four of UTF-8 each, a rule of thumb."""
    return -(-(text if isinstance(text, int) else len(text.encode())) // 4)


def estimate_usage(messages: list[dict[str, str]], text: str = "") -> Usage:
    """Return the estimated `Usage` of a request of which nobody was told the usage."""
    return Usage(estimate_prompt(messages), estimate_tokens(text), estimated=True)


def estimate_prompt(messages):
    return sum(estimate_tokens(message["content"]) + 4 for message in messages)
