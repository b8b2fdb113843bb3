"""What tokens cost: a price belongs to a payee, so the address and the model tell it together."""

import functools
import re
from decimal import Decimal
from urllib.parse import urlsplit

from flask import current_app

from chattable.provider.address import OPENAI, is_near
from chattable.provider.usage import Usage, money
from chattable.provider.window import know_models, names_of

# Addresses that the price list does not know yet.
ALSO = {"api.together.ai": "api.together.xyz"}
# Who gives their models to nobody else to run: a private address that has one passes on to them.
CLOSED = {"openai", "anthropic", "google", "x-ai"}
OPEN = "gpt-oss"
# Nobody is paid: there is no price, and nothing to pay.
LOCAL = None, Decimal(0)
DEAREST = 1000  # dollars a million tokens
# As people write it; Decimal takes 1_0, and the digits of every script.
AMOUNT = re.compile(r"[0-9.]+(e-?[0-9]+)?", re.IGNORECASE)
WRONG = (
    "PRICES must be dollars a million tokens of input and output (house-model=0.25/2), "
    "or whose list holds (openai, openrouter, … or local), separated by commas."
)
Costs = tuple[Decimal | None, Decimal | None]


def costs(model: str, usage: Usage) -> Costs:
    """Return (input, output) costs in exact dollars.

    (None, None) if nobody knows the price, `LOCAL` if nobody is paid. First comes what `PRICES`
    says of the model, then what the provider reported, divided as the prices are; then the list
    prices of `genai-prices`.
    """
    if usage.prompt is None:
        return None, None
    if own := own_prices(model, usage):
        return own
    into, out = list_prices(model, usage)
    if usage.cost is None:
        return into, out
    priced = into is not None and into + out
    weights = (into, out) if priced else (usage.prompt, usage.completion or 0)
    share = Decimal(weights[0]) / Decimal(sum(weights) or 1)
    input_cost = (usage.cost * share).quantize(Decimal("1e-12"))
    return input_cost, usage.cost - input_cost


def own_prices(model, usage):
    prices = current_app.config["PRICES"]
    for name in names_of(model, usage.model):
        if name in prices:
            into, out = prices[name]
            return usage.prompt * into / 10**6, (usage.completion or 0) * out / 10**6
    return None


def list_prices(model, usage):
    config = current_app.config
    url, payee = config["OPENAI_BASE_URL"] or OPENAI, config["PRICES"].get(None)
    found = find(model, usage.model, url, payee)
    if found is None or found is LOCAL:
        return found or (None, None)
    import genai_prices

    tokens = genai_prices.Usage(
        input_tokens=usage.prompt,
        output_tokens=usage.completion or 0,
        cache_read_tokens=min(usage.cached or 0, usage.prompt),
    )
    provider, sold = found
    try:
        price = sold.calc_price(tokens, provider)
    except (LookupError, ValueError):
        return None, None
    return price.input_price, price.total_price - price.input_price


@functools.lru_cache(1024)
def find(model, answered, url, payee):
    """Return (provider, model) of the price list, `LOCAL` if nobody is paid, None if nobody knows.

    `answered` is the name that the provider has for it, `payee` the provider behind an address
    that says nothing of it.
    """
    if payee == "local":
        return LOCAL
    private = not payee and is_near(urlsplit(url).hostname or "")
    address = None if private or payee else listed_address(url)
    for name in names_of(model, answered):
        try:
            provider, sold = know_models().find_provider_model(name, None, payee, address)
        except (LookupError, ValueError):
            continue
        if not private or (provider.id in CLOSED and OPEN not in name):
            return provider, sold
    return LOCAL if private else None


def listed_address(url):
    """Return an address as the price list has them."""
    parts = urlsplit(url)
    return f"https://{ALSO.get(parts.hostname, parts.hostname)}{parts.path}"


def read_prices(text: str) -> dict[str | None, tuple[Decimal, Decimal] | str]:
    """Return {model: (input, output)}, {None: payee}, of "openai, house-model=0.25/2".

    A price is in dollars a million tokens. A payee is one of `genai-prices`, or "local" for
    nobody, whatever the address. Raises ValueError with the sentence of its fault.
    """
    prices: dict = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        model, priced, price = (each.strip() for each in part.rpartition("="))
        if ";" in part:
            raise ValueError("PRICES: a comma parts one price from the next, no semicolon.")
        if priced and not model:
            raise ValueError("PRICES has a price without the name of its model before the =.")
        if (model or None) in prices:
            raise ValueError(f"PRICES has {'a model' if model else 'a list'} twice; one can hold.")
        into, _, out = price.partition("/")
        prices[model or None] = (amount(into), amount(out)) if priced else payee(part)
    return prices


def amount(text):
    dollars = money(text) if AMOUNT.fullmatch(text.strip()) else None
    if dollars is None or dollars > DEAREST:
        raise ValueError(WRONG)
    return dollars


def payee(name):
    known = {"local", "litellm", *(provider.id for provider in know_models().providers)}
    if name not in known:
        raise ValueError(WRONG)
    return name
