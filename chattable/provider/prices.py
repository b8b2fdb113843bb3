"""What tokens cost: the list prices, and the cost that a provider reports itself."""

from decimal import Decimal

from flask import current_app

from chattable.provider.usage import Usage


def costs(model: str, usage: Usage) -> tuple[Decimal | None, Decimal | None]:
    """Return (input, output) costs in exact dollars, or (None, None) if nobody knows the price.

    Prices are the list prices of `genai-prices`, by the provider's address and the model, else
    by the model alone. A cost the provider itself reported wins and is divided in proportion.
    """
    if usage.prompt is None:
        return None, None
    prices = list_prices(model, usage)
    if usage.cost is None:
        return prices or (None, None)
    weights = prices if prices and sum(prices) else (usage.prompt or 0, usage.completion or 0)
    share = Decimal(weights[0]) / Decimal(sum(weights) or 1)
    input_cost = (usage.cost * share).quantize(Decimal("1e-12"))
    return input_cost, usage.cost - input_cost


def list_prices(model, usage):
    import genai_prices

    tokens = genai_prices.Usage(
        input_tokens=usage.prompt,
        output_tokens=usage.completion or 0,
        cache_read_tokens=min(usage.cached or 0, usage.prompt or 0),
    )
    for url in (current_app.config["OPENAI_BASE_URL"], None):
        try:
            price = genai_prices.calc_price(tokens, model, provider_api_url=url)
        except (LookupError, ValueError):
            continue
        return price.input_price, price.total_price - price.input_price
    return None
