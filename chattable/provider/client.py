"""Ask a provider: its address and key, whom to ask again and when."""

import json
import logging
import random
import re
import time
import zlib
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException, InvalidURL
from threading import Timer

from flask import current_app

from chattable.provider.dialect import decode, fields, plain
from chattable.provider.errors import (
    BROKEN_OFF,
    NOT_REACHED,
    NOT_UNDERSTOOD,
    TOO_LATE,
    ProviderError,
    Refused,
    sentence,
)
from chattable.provider.transport import BLOCK, HungUp, Line, Pool

OPENAI = "https://api.openai.com/v1"
# Seconds.
MODELS_TIMEOUT = 30
# Before each time that a busy provider is asked again, if it does not say itself.
RETRY_DELAYS = (0.5, 1)
LONGEST_RETRY_DELAY = 60
# HTTP statuses of a provider that may answer if it is asked again; so may 500 and above.
BUSY = {408, 409, 429}
# Silence before the first token is thinking; it may last this many read timeouts.
THINKING = 5

log = logging.getLogger(__name__)


def init_app(app):
    """Keep one client per app: a kept connection saves a TLS handshake for each reply."""
    config = app.config
    app.extensions["chattable_provider"] = Client(
        config.get("OPENAI_BASE_URL") or OPENAI,
        (config.get("OPENAI_API_KEY") or "").strip() or "none",
        # Longer than a completion waits.
        config["READ_TIMEOUT"] * THINKING + 10,
    )


def list_models():
    """Return the ids of the chat models the provider lists, sorted.

    Raises `ProviderError`, `Refused` or ValueError when the provider does not tell.
    """
    other = ("embed", "whisper", "tts", "dall-e", "image", "moderation", "realtime", "transcribe")
    client = current_app.extensions["chattable_provider"]
    line = client.line()
    with deadline(line, MODELS_TIMEOUT), client.get(line, "/models") as response:
        listed = decode(b"".join(arriving(response)))
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


class Client:
    """One provider's address, key and kept connections. `timeout` (s): the longest silence."""

    def __init__(self, url, key, timeout):
        self._key, self._pool = key, Pool(url, timeout)

    def line(self):
        """Return a `Line` to ask on, which any thread may cut."""
        return Line(self._pool)

    def get(self, line, path):
        """Return the open response to a request; asks again while the provider is busy.

        Raises `Refused` for an HTTP error, `ProviderError` when nobody answers, `HungUp`.
        """
        return self._request(line, "GET", path)

    def post(self, line, path, data):
        """Return the open response to a request with a JSON body; otherwise like `get`."""
        return self._request(line, "POST", path, json.dumps(data).encode())

    def _request(self, line, *asked):
        for delay in RETRY_DELAYS:
            try:
                return self._try(line, *asked)
            except Refused as refusal:
                if refusal.status not in BUSY and refusal.status < 500:
                    raise
                if refusal.retry_after:
                    delay = refusal.retry_after
                if delay > LONGEST_RETRY_DELAY:
                    raise
            except OSError as error:
                log.warning("asking the provider again: %s", type(error).__name__)
            line.wait(delay * random.uniform(1, 1.25))
        try:
            return self._try(line, *asked)
        except TimeoutError as error:
            raise ProviderError(TOO_LATE) from error
        except OSError as error:
            raise ProviderError(NOT_REACHED) from error

    def _try(self, line, method, path, body=None):
        try:
            response = line.request(method, path, self._headers(), body)
        except (ValueError, InvalidURL) as error:  # an address that is none, a false certificate
            raise ProviderError(NOT_REACHED) from error
        except ConnectionError:  # one of them is an HTTPException, too
            raise
        except HTTPException as error:
            raise ProviderError(NOT_UNDERSTOOD) from error
        if response.status == 200:
            return response
        with response:
            raise refusal(response)

    def _headers(self):
        if not re.fullmatch("[!-~]+", self._key):
            raise ProviderError(sentence(401, "", None))
        return {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "Chattable",
        }


def refusal(response):
    """Return the `Refused` that a response with an HTTP error says."""
    body = b""
    with suppress(ProviderError):
        for piece in arriving(response):
            body += piece
            if len(body) > BLOCK:
                break
    try:
        body = decode(body)
    except ValueError:
        body = body.decode(errors="replace")
    return Refused(response.status, body, retry_after(response))


def retry_after(response):
    """Return the seconds after which a busy provider wants to be asked again, or None."""
    told = str(response.headers.get("retry-after"))
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return seconds if seconds > 0 else None


def arriving(response):
    """Yield the bytes of a body, all that has arrived each time. Raises `ProviderError`."""
    try:
        yield from response.arriving()
    except TimeoutError as error:
        raise ProviderError(TOO_LATE) from error
    except zlib.error as error:
        raise ProviderError(NOT_UNDERSTOOD) from error
    except (OSError, HTTPException) as error:
        raise ProviderError(BROKEN_OFF) from error
