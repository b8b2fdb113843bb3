"""Ask a provider by the openai SDK: it builds the request, asks again, and says what went wrong.

It takes half a second to import, and 25 MB: none of it is, until somebody asks.
"""

import logging
import re
from contextlib import contextmanager
from functools import cached_property
from threading import Timer

import httpx2
import openai
from flask import current_app

from chattable.provider.dialect import decode, fields, plain
from chattable.provider.errors import (
    BROKEN_OFF,
    NOT_REACHED,
    NOT_SENT,
    NOT_UNDERSTOOD,
    TOO_LATE,
    ProviderError,
    explain_body,
    sentence,
)
from chattable.provider.transport import HungUp, Line, NotUnderstood, Pool, Transport, asking_on

OPENAI = "https://api.openai.com/v1"
# Seconds.
MODELS_TIMEOUT = 30
# Silence before the first token is thinking; it may last this many read timeouts.
THINKING = 5

log = logging.getLogger(__name__)


def current():
    """Return the app's `Provider`; its kept connections save each reply a handshake."""
    kept = current_app.extensions["chattable_provider"]
    return kept.get("provider") or kept.setdefault("provider", Provider(current_app.config))


class Provider:
    """A provider's address, our key, and connections to it that are kept."""

    def __init__(self, config):
        self._url = (config.get("OPENAI_BASE_URL") or OPENAI).strip()
        self._key = (config.get("OPENAI_API_KEY") or "").strip() or "none"
        # Longer than a completion waits.
        self._silence = config["READ_TIMEOUT"] * THINKING + 10
        self._pool = Pool(self._url)

    def line(self):
        """Return a `Line` to ask on, which any thread may cut."""
        return Line(self._pool)

    @cached_property
    def _client(self):
        if not re.fullmatch("[!-~]+", self._key):
            raise ProviderError(sentence(401, "", None))
        try:
            url = httpx2.URL(self._url)
        except httpx2.InvalidURL as error:
            raise ProviderError(NOT_REACHED) from error
        return openai.OpenAI(
            api_key=self._key,
            base_url=url.copy_with(query=None, userinfo=b""),
            default_query=dict(url.params),
            timeout=self._silence,
            default_headers={"Accept-Encoding": "identity"},
            # The pool knows the environment's proxies; a netrc file is not meant for us.
            http_client=httpx2.Client(transport=Transport(), trust_env=False),
        )

    def complete(self, line, data):
        """Return the open response to a completion's request; `explain` explains what it raises.

        The SDK's `create` would check every message of the conversation against its types: 0.24 ms
        each, 48 ms for 200 of them.
        """
        asking_on.set(line)
        path = "/chat/completions"
        return self._client.post(path, cast_to=httpx2.Response, body=data, stream=True)

    def models(self, line):
        """Return the body (bytes) of the list of models, like `complete`.

        Some providers list them in a form of their own, which the SDK does not take.
        """
        asking_on.set(line)
        return self._client.models.with_raw_response.list().content


def list_models() -> list[str]:
    """Return the ids of the chat models the provider lists, sorted. Raises `ProviderError`."""
    other = ("embed", "whisper", "tts", "dall-e", "image", "moderation", "realtime", "transcribe")
    provider = current()
    line = provider.line()
    try:
        with deadline(line, MODELS_TIMEOUT):
            listed = decode(provider.models(line))
    except UnicodeEncodeError as error:
        raise explain(error, None) from error
    except ValueError as error:
        raise ProviderError(NOT_UNDERSTOOD) from error
    except (openai.OpenAIError, httpx2.HTTPError, NotUnderstood) as error:
        raise explain(error, None) from error
    models = fields(listed).get("data") or listed
    ids = {plain(fields(model).get("id")) for model in (models if type(models) is list else ())}
    return sorted(name for name in ids if name and not any(word in name for word in other))


@contextmanager
def deadline(line, seconds):
    """Hang up when it takes too long. Raises `ProviderError`."""
    timer = Timer(seconds, line.hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except HungUp as end:
        raise ProviderError(TOO_LATE) from end
    finally:
        timer.cancel()


def explain(error, model):
    """Return the `ProviderError` for what ended a request; a bug is raised as it is."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, openai.APIStatusError):
        return explain_body(body_of(error.response), error.status_code, model)
    log.warning("model %s failed: %s", model, type(error).__name__)
    match error:
        case openai.APITimeoutError() | httpx2.TimeoutException():
            return ProviderError(TOO_LATE)
        case openai.APIConnectionError() if isinstance(error.__cause__, httpx2.DecodingError):
            return ProviderError(NOT_UNDERSTOOD)
        case openai.APIConnectionError() if isinstance(error.__cause__, httpx2.ProxyError):
            return ProviderError(str(error.__cause__))
        case openai.APIConnectionError():
            return ProviderError(NOT_REACHED)
        case httpx2.DecodingError() | NotUnderstood():
            return ProviderError(NOT_UNDERSTOOD)
        case UnicodeEncodeError():
            return ProviderError(NOT_SENT)
        case httpx2.HTTPError():
            return ProviderError(BROKEN_OFF)
    raise error


def body_of(response):
    """Return what an error says: JSON decoded, else its text."""
    try:
        return decode(response.content)
    except ValueError:
        return response.text
