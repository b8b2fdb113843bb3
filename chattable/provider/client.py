"""Ask a provider by the openai SDK: it builds the request, asks again, and says what went wrong.

It takes half a second to import, and 25 MB: none of it is, until somebody asks.
"""

import logging
import re
import socket
import ssl
from base64 import b64encode
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property, partial
from itertools import chain
from threading import Timer

import httpx2
import openai
from flask import current_app

from chattable.provider.address import OPENAI, api_version, deployment, elsewhere, read_address
from chattable.provider.dialect import decode, fields, plain
from chattable.provider.errors import (
    BROKEN_OFF,
    NO_TLS,
    NOT_REACHED,
    NOT_SENT,
    NOT_UNDERSTOOD,
    TOO_LATE,
    TOO_MUCH,
    UNTRUSTED,
    ProviderError,
    explain_body,
    sentence,
    tells_nowhere,
)
from chattable.provider.refusals import named_parts, words_of
from chattable.provider.transport import (
    HungUp,
    Line,
    NotUnderstood,
    Pool,
    TooMuch,
    Transport,
    asking_on,
)

# Seconds.
MODELS_TIMEOUT = 30
# Silence before the first token is thinking; it may last this many read timeouts.
THINKING = 5
# Bytes, unpacked, of an answer and of a list of models: 128,000 tokens at 300 bytes each are 2**25.
MOST, MOST_OF_LIST = 2**28, 2**24
# OpenSSL's words for bytes that are no TLS.
NOT_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
# With these a provider says something of a request that it has read.
ABOUT_REQUESTS = (400, 404, 413, 422)
# What comes of asking where no provider is.
UNFIT = (openai.APIConnectionError, httpx2.HTTPError, NotUnderstood, TooMuch, ValueError)
CAUSES = {
    socket.gaierror: "its name is unknown",
    ConnectionRefusedError: "it refused the connection",
    TimeoutError: "it took too long",
    ConnectionError: "it broke off the connection",
}

log = logging.getLogger(__name__)


def current():
    """Return the app's `Provider`; its kept connections save each reply a handshake."""
    kept = current_app.extensions["chattable_provider"]
    return kept.get("provider") or kept.setdefault("provider", Provider(current_app.config))


class Provider:
    """A provider's address, our key, and connections to it that are kept."""

    def __init__(self, config):
        self._url, self._wrong = "", None
        try:
            self._url = read_address(config.get("OPENAI_BASE_URL") or OPENAI)
        except ValueError as sentence:
            self._wrong = ProviderError(str(sentence))
        self._key = (config.get("OPENAI_API_KEY") or "").strip() or "none"
        # Longer than a completion waits.
        self._silence = config["READ_TIMEOUT"] * THINKING + 10
        self._pool = Pool(self._url)
        # Who answered beside the address, where nothing was at it.
        self._found = None

    def line(self, most=MOST):
        """Return a `Line` to ask on, which any thread may cut; no answer is longer than `most`."""
        return Line(self._pool, most)

    @cached_property
    def _client(self):
        if self._wrong:
            raise self._wrong
        if not re.fullmatch("[!-~]+", self._key):
            raise ProviderError(sentence(401, "", None))
        url = httpx2.URL(self._url)
        # Azure's older API takes keys, and finds deployments, in a way of its own.
        version = api_version(self._url)
        azures = partial(openai.AzureOpenAI, api_version=version)
        return (azures if version else openai.OpenAI)(
            api_key=self._key,
            base_url=bare(url),
            default_query=dict(url.params),
            timeout=self._silence,
            default_headers={"Accept-Encoding": "identity", **self._credentials(url)},
            # The pool knows the environment's proxies; a netrc file is not meant for us.
            http_client=httpx2.Client(transport=Transport(), trust_env=False),
        )

    def _credentials(self, url):
        """Return the header for a name and a password in the address; a key goes before them."""
        if not url.userinfo or self._key != "none":
            return {}
        encoded = b64encode(f"{url.username}:{url.password}".encode()).decode()
        return {"Authorization": f"Basic {encoded}"}

    def _find(self, ask, model=None):
        """Return what `ask(client, known)` does: at the address, or beside it if nothing is there.

        Of what is said beside it only a word on the request counts: who is asked for what it does
        not know, as a gateway in a restart is, may want a key or show a page.
        """
        first = self._found or self._client
        try:
            return ask(first, True)
        except openai.APIStatusError as refusal:
            if not is_nowhere(refusal, model):
                raise
            for client in self._clients:
                try:
                    if client is not first:
                        return ask(client, False)
                except openai.APIStatusError as answered:
                    if answered.status_code in ABOUT_REQUESTS and not is_nowhere(answered, model):
                        raise
                except UNFIT:
                    continue
            raise

    @cached_property
    def _clients(self):
        others = (httpx2.URL(url) for url in elsewhere(self._url))
        beside = (self._client.with_options(base_url=bare(url)) for url in others)
        return [self._client, *beside]

    @contextmanager
    def complete(self, line, data):
        """Open a completion: what arrives of its answer (bytes); `explain` explains what it raises.

        The SDK's `create` would check every message of the conversation against its types: 0.24 ms
        each, 48 ms for 200 of them.
        """
        asking_on.set(line)
        with ExitStack() as opened:

            def ask(client, known):
                path, kind = "/chat/completions", httpx2.Response
                response = client.post(path, cast_to=kind, body=data, stream=True)
                pieces = opened.enter_context(closing(response)).iter_bytes()
                return pieces if known else self._found_at(client, pieces)

            yield self._find(ask, data["model"])

    def _found_at(self, client, pieces):
        """Return the pieces of an answer, if it is no page, from where nobody was asked before."""
        begun = next(pieces, b"").lstrip()
        if not begun or begun.startswith(b"<"):
            raise NotUnderstood
        return self._moving(client, chain([begun], pieces))

    def _moving(self, client, pieces):
        for piece in pieces:
            if b'"choices"' in piece:
                # From now on it is asked first: one stray 404 moves nobody.
                self._found = client
            yield piece

    def models(self, line):
        """Return the list of models, decoded, like `complete`; who lists them may answer nothing.

        Some providers list them in a form of their own, which the SDK does not take.
        """
        asking_on.set(line)
        return self._find(lambda client, _: decode(client.models.with_raw_response.list().content))

    @property
    def only_model(self):
        """The one model that is at this address, if the address says so."""
        return deployment(self._url)


def is_nowhere(refusal, model):
    body = body_of(refusal.response)
    # Who refuses a part of a request is there.
    refuses = any(named_parts(words_of(body)))
    return not refuses and tells_nowhere(refusal.status_code, body, model)


def bare(url):
    return url.copy_with(query=None, userinfo=b"", fragment=None)


def list_models() -> list[str]:
    """Return the ids of the chat models the provider lists, sorted. Raises `ProviderError`."""
    other = ("embed", "whisper", "tts", "dall-e", "image", "moderation", "realtime", "transcribe")
    provider = current()
    if provider.only_model:
        return [provider.only_model]
    line = provider.line(MOST_OF_LIST)
    try:
        with deadline(line, MODELS_TIMEOUT):
            listed = provider.models(line)
    except UnicodeEncodeError as error:
        raise explain(error, None) from error
    except ValueError as error:
        raise ProviderError(NOT_UNDERSTOOD) from error
    except (openai.OpenAIError, httpx2.HTTPError, NotUnderstood, TooMuch) as error:
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
    what = f"model {model}" if model else "the list of models"
    log.warning("%s failed: %s%s", what, type(error).__name__, whereabouts(error))
    match error:
        case openai.APITimeoutError() | httpx2.TimeoutException():
            return ProviderError(TOO_LATE)
        case openai.APIConnectionError() if isinstance(error.__cause__, httpx2.DecodingError):
            return ProviderError(NOT_UNDERSTOOD)
        case openai.APIConnectionError() if isinstance(error.__cause__, httpx2.ProxyError):
            return ProviderError(str(error.__cause__))
        case openai.APIConnectionError():
            return ProviderError(NOT_REACHED + tls_hint(error))
        case TooMuch():
            return ProviderError(TOO_MUCH)
        case httpx2.DecodingError() | NotUnderstood():
            return ProviderError(NOT_UNDERSTOOD)
        case UnicodeEncodeError():
            return ProviderError(NOT_SENT)
        case httpx2.HTTPError():
            return ProviderError(BROKEN_OFF)
    raise error


def whereabouts(error):
    """Return for the log at which host and port nobody was reached, and why; no more of a URL."""
    if not isinstance(error, openai.APIConnectionError):
        return ""
    cause: BaseException = error
    # What a proxy says is not the provider's.
    while cause.__cause__ and not isinstance(cause, httpx2.ProxyError):
        cause = cause.__cause__
    url = error.request.url
    why = next((words for kind, words in CAUSES.items() if isinstance(cause, kind)), None)
    port = url.port or (443 if url.scheme == "https" else 80)
    return f" at {url.host}:{port}: {why or type(cause).__name__}"


def tls_hint(error):
    """Return what else to say where a connection ends because of TLS."""
    while error and not isinstance(error, ssl.SSLError):
        error = error.__cause__
    if isinstance(error, ssl.SSLCertVerificationError):
        return UNTRUSTED
    return NO_TLS if error and error.reason in NOT_TLS else ""


def body_of(response):
    """Return what an error says: JSON decoded, else its text."""
    try:
        return decode(response.content)
    except ValueError:
        return response.text
