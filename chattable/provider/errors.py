"""What goes wrong at a provider, and the sentence that a person reads about it."""

import logging
import re

from chattable.provider.dialect import fields, plain

TOO_LATE = "The provider took too long to answer. Try again."
NOT_REACHED = "The provider could not be reached. Try again in a moment."
NO_TLS = " It speaks no TLS: OPENAI_BASE_URL may have to begin with http://."
ONLY_TLS = "The provider is asked without TLS: OPENAI_BASE_URL has to begin with https://."
UNTRUSTED = (
    " Nobody whom this server trusts vouches for its certificate: SSL_CERT_FILE may name who does."
)
MOVED = "The provider has moved. Check OPENAI_BASE_URL, which may have to begin with https://."
A_PAGE = "This address answers with a web page, not as a provider does. Check OPENAI_BASE_URL."
NOT_SENT = "The request cannot be sent as it is. Check the settings that begin with OPENAI_."
NOWHERE = "The provider has nothing at this address. Check OPENAI_BASE_URL, then try again."
NO_LIST = (
    "The provider has no list of models at this address: set MODELS to those it has, or check"
    " OPENAI_BASE_URL."
)
NOT_UNDERSTOOD = "The provider's answer could not be understood. Try again."
TOO_MANY = "The provider is receiving too many requests. Wait a moment, then try again."
TOO_MUCH = "The provider sent more than any reply has. What came before is kept. Try again."
BROKEN_OFF = "The connection to the provider broke off. Try again."
HTTP_ERRORS = {str(status) for status in range(400, 600)}
# What goes wrong, the first that fits: as a status, in the words of providers, in ours.
Kinds = tuple[tuple[set[int], tuple[str, ...], str], ...]
TOO_LONG: Kinds = (
    (
        set(),
        (
            *("context length", "context_length", "context size", "context_size"),
            *("prompt is too long", "input is too long", "too long for", "too many tokens"),
            *("context window", "prompt length", "token count", "reduce the length"),
            *("context limit", "model length", "model token limit", "`inputs` must have"),
        ),
        "This conversation is too long for the model. Start a new chat or pick a model with"
        " a larger context window.",
    ),
    (
        {413},
        ("request too large", "request_too_large"),
        "This is too much text for the provider. Shorten it or start a new chat.",
    ),
)
KINDS: Kinds = (
    *TOO_LONG,
    (
        # It comes with 503, which overloaded is without it.
        set(),
        ("loading model", "currently loading", "model is loading"),
        "The model is still being loaded. Try again in a moment.",
    ),
    (
        {503, 529},
        ("overloaded", "over capacity", "capacity exceeded", "capacity_exceeded", "too busy"),
        "The provider is overloaded. Try again in a moment.",
    ),
    (
        # Before the credit: where to buy more of it is a part of what they say.
        set(),
        ("rate_limit", "rate limit", "per minute", "retry in"),
        TOO_MANY,
    ),
    (
        {402},
        ("quota", "billing", "insufficient balance"),
        "The provider account has used up its credit. Top it up, then try again.",
    ),
    (
        {401},
        ("api_key", "api key", "authentication"),
        "The provider refused the API key. Check OPENAI_API_KEY, then try again.",
    ),
    ({408, 504, 524}, ("timeout_error",), TOO_LATE),
    ({429}, (), TOO_MANY),
    (
        set(),
        ("content_filter", "content_policy", "content management policy", "flagged"),
        "The provider's rules do not allow this message. Change it, then try again.",
    ),
    (
        set(),
        ("country, region", "unsupported_country", "user location"),
        "The provider does not serve the country that this server is in.",
    ),
)
UNKNOWN_MODEL = (
    *("model_not_found", "model not found", "model not exist", "model does not exist"),
    *("not a valid model", "invalid model", "unknown model", "unknown_model", "模型不存在"),
)
# What a 404 is about: an address, in whatever it says besides, or else a model.
NO_ROUTE = (
    *("invalid url", "unknown request url", "unknown_url", "unexpected endpoint", "no route"),
    *("unknown endpoint", "route not found", "page not found", "path not found", "not found: /"),
    *("cannot post", "cannot get", "resource not found", "no static resource", "/chat/completions"),
)
TLS_PORT = ("http request was sent to https port", "http request to an https server")
A_MODEL = (
    *("model", "模型", "deployment", "no endpoints found", "no allowed providers"),
    *("entity was not found", "engine not found", "no provider for", "not found for account"),
)
# Shorter names of models are found in any words.
SHORTEST = 4

# Asked for where nobody knows a name: who serves a single model takes any.
UNNAMED = "default"
NAME_IT = "The provider wants a model by its name, and lists none: set MODELS to those it has."

log = logging.getLogger(__name__)


class ProviderError(Exception):
    """A completion that failed, said in one sentence that is safe to show."""


def explain_body(body, status, model):
    """Return the `ProviderError` for an error object a provider sent.

    The provider's own words are read for what went wrong and never shown or logged: they may
    quote a key.
    """
    status, words = what_went_wrong(body, status)
    plain_to_tls = any(sign in plain(body).lower() for sign in TLS_PORT)
    said = ONLY_TLS if plain_to_tls else sentence(status, words, model)
    log.warning("model %s: provider error %s: %s", model, status, said)
    return ProviderError(said)


def what_went_wrong(body, status):
    """Return (status, words) of an error object: its HTTP status, or None, and all that it says."""
    body = body[0] if isinstance(body, list) and body else body
    error = fields(body).get("error") or body
    told = fields(error) or {"message": error if plain(error)[:1] != "<" else None}
    code = str(told.get("code"))
    status = status or (int(code) if code in HTTP_ERRORS else None)
    parts = [told.get(key) for key in ("code", "type", "message")] + [fields(body).get("message")]
    parts.append(plain(fields(body).get("detail")))
    return status, " ".join(str(part) for part in parts if part).lower()


def tells_nowhere(status, body, model):
    """Return whether a provider says that nothing is at an address, whatever the model."""
    status, words = what_went_wrong(body, status)
    return is_nowhere(status, words, model)


def is_nowhere(status, words, model):
    if any(sign in words for sign in NO_ROUTE):
        return status in (None, 404, 405)
    return status == 405 or status == 404 and not tells_of(model, words)


def tells_of(model, words):
    """Return whether the words of a 404 are about a model, by its name or without."""
    if not model or any(sign in words for sign in A_MODEL):
        return bool(model)
    name = str(model).lower()
    said = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
    return len(name) >= SHORTEST and bool(re.search(said, words.replace("not found", "", 1)))


def tells_too_long(status, words):
    """Return whether a provider says that it was told more than the model reads."""
    return any(fits(kind, status, words) for kind in TOO_LONG)


def fits(kind, status, words):
    statuses, signs, _ = kind
    return status in statuses or any(sign in words for sign in signs)


def sentence(status, words, model):
    for kind in KINDS:
        if fits(kind, status, words):
            return kind[2]
    if is_nowhere(status, words, model):
        return NOWHERE if model else NO_LIST
    if model == UNNAMED and status in (400, 403, 404, 422):
        return NAME_IT
    if status == 404 or model and any(sign in words for sign in UNKNOWN_MODEL):
        return f"The provider does not know the model “{model}”. Pick another one."
    if status == 403 and not model:
        return "The provider does not let this key list its models."
    if status == 403:
        return f"The provider does not let this key use the model “{model}”. Pick another one."
    if status and 300 <= status < 400:
        return MOVED
    if status and 400 <= status < 500:
        return f"The provider did not accept the request (error {status}). Try another model."
    if status:
        return f"The provider is having trouble (error {status}). Try again in a moment."
    return "The provider reported an error. Try again."
