"""What a reply costs: a price belongs to a payee, and nobody is paid for a model of one's own."""

from decimal import Decimal

import pytest
from flask import Flask

from chattable import provider as engine
from chattable.provider.usage import Usage, read_usage
from tests import wire

OPENROUTER = "https://openrouter.ai/api/v1"


def prices(url, model, usage):
    """Return what a model costs at an address."""
    app = Flask(__name__)
    app.config.update(OPENAI_BASE_URL=url)
    with app.app_context():
        return engine.costs(model, usage)


# what the provider says


@pytest.mark.parametrize(
    ("said", "cost"),
    [
        ({"cost": 0, "cost_details": {"upstream_inference_cost": 0.036}}, "0.036"),
        (
            {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.03}},
            ".031",
        ),
        (
            {"cost": 0.03, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.03}},
            ".03",
        ),
        ({"cost": 0, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.03}}, "0"),
        ({"cost": 0, "cost_details": {"upstream_inference_cost": "NaN"}}, "0"),
        ({"cost": 0.02, "cost_details": [1]}, "0.02"),
        ({"cost": {"request_cost": 0.005, "total_cost": 0.006}}, "0.006"),
        ({"estimated_cost": "0.0002"}, "0.0002"),
        ({"cost": 0.02, "currency": "usd"}, "0.02"),
        ({"cost": 0.02, "currency": "CNY"}, None),
        ({"cost": 0.02, "cost_details": {"currency": "EUR"}}, None),
        ({"cost": -0.02}, None),
    ],
)
def test_a_cost_that_the_provider_tells_is_believed(said, cost):
    usage = read_usage(wire.usage(1000, 100) | said, Usage())
    paid = prices(OPENROUTER, "openai/gpt-5-mini", usage)
    assert sum(paid) == Decimal(cost or "0.00045")


def test_a_cost_that_grows_is_what_it_has_grown_to():
    usage = read_usage(wire.usage(1000, 10, cost=0.01), Usage())
    usage = read_usage(wire.usage(1000, 100, cost=0.03), usage)
    assert read_usage(wire.usage(1000, 100), usage).cost == Decimal("0.03")


def test_tokens_that_only_the_total_has_were_thought_and_are_paid():
    usage = read_usage(wire.usage(100, 20) | {"total_tokens": 420}, Usage())
    assert (usage.completion, usage.reasoning) == (320, 300)
