"""Ask an OpenAI-compatible provider for a completion and read its stream, whatever its dialect.

Whoever wants something of a provider comes in here. Behind it `stream` asks by `client`, which asks
by `transport`; `window`, `thoughts`, `prices`, `errors` and `usage` help, and `dialect` is below
them all.
"""

import importlib
from typing import TYPE_CHECKING

from flask import Flask

from chattable.provider.address import is_openai, read_address
from chattable.provider.dialect import whole_characters
from chattable.provider.errors import UNNAMED, ProviderError
from chattable.provider.prices import costs, read_prices
from chattable.provider.usage import Usage, estimate_tokens, estimate_usage
from chattable.provider.window import (
    AROUND,
    Told,
    context_window,
    know_models,
    read_windows,
    room,
    size,
)

if TYPE_CHECKING:
    from chattable.provider.client import list_models
    from chattable.provider.stream import Completion

# Who asks imports the SDK. A web process does not, nor does a command.
ASKING = {"Completion": "stream", "list_models": "client"}
__all__ = [
    "AROUND",
    "Completion",
    "ProviderError",
    "UNNAMED",
    "Told",
    "Usage",
    "context_window",
    "costs",
    "estimate_tokens",
    "estimate_usage",
    "init_app",
    "is_openai",
    "know_models",
    "list_models",
    "read_address",
    "read_prices",
    "read_windows",
    "room",
    "size",
    "warm_up",
    "whole_characters",
]


def init_app(app: Flask) -> None:
    """Prepare the app for asking: its `Provider` is made when it is first asked."""
    app.extensions["chattable_provider"] = {}


def warm_up() -> None:
    """Import what a first reply would otherwise wait for."""
    for module in ASKING.values():
        importlib.import_module(f"{__name__}.{module}")
    costs("gpt-4o-mini", Usage(prompt=1, completion=1))


if not TYPE_CHECKING:  # or a checker takes any name for one of ours

    def __getattr__(name):
        if name not in ASKING:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{ASKING[name]}"), name)
