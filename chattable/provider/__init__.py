"""Ask an OpenAI-compatible provider for a completion and read its stream, whatever its dialect.

Whoever wants something of a provider comes in here. Behind it `stream` asks by `client`, which asks
by `transport`; `thoughts`, `prices`, `errors` and `usage` help, and `dialect` is below them all.
"""

from chattable.provider.client import init_app, list_models
from chattable.provider.dialect import whole_characters
from chattable.provider.errors import ProviderError, Refused
from chattable.provider.prices import costs, warm_up
from chattable.provider.stream import TICK, Completion
from chattable.provider.usage import Usage, estimate_usage

__all__ = [
    "TICK",
    "Completion",
    "ProviderError",
    "Refused",
    "Usage",
    "costs",
    "estimate_usage",
    "init_app",
    "list_models",
    "warm_up",
    "whole_characters",
]
