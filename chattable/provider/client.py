"""Ask a provider: its address and key, whom to ask again and when."""

import json
import logging
import random
import re
import time
import zlib
from contextlib import suppress
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import gevent
from flask import current_app
from gevent.lock import DummySemaphore
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

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

OPENAI = "https://api.openai.com/v1"
# Seconds.
CONNECT_TIMEOUT = 10
MODELS_TIMEOUT = 30
# Before each time that a busy provider is asked again, if it does not say itself.
RETRY_DELAYS = (0.5, 1)
LONGEST_RETRY_DELAY = 60
# HTTP statuses of a provider that may answer if it is asked again; so may 500 and above.
BUSY = {408, 409, 429}
# Silence before the first token is thinking; it may last this many read timeouts.
THINKING = 5
# Idle connections that wait for the next request.
KEPT_CONNECTIONS = 10
# Bytes.
BLOCK = 65_536

log = logging.getLogger(__name__)


def init_app(app):
    """Keep one client per app: a kept connection saves a TLS handshake for each reply."""
    config = app.config
    app.extensions["provider"] = Client(
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
    client = current_app.extensions["provider"]
    with gevent.Timeout(MODELS_TIMEOUT, ProviderError(TOO_LATE)), client.get("/models") as response:
        listed = decode(b"".join(arriving(response)))
    models = fields(listed).get("data") or listed
    ids = {plain(fields(model).get("id")) for model in (models if type(models) is list else ())}
    return sorted(name for name in ids if name and not any(word in name for word in other))


class Client:
    """One provider's address, key and kept connections. `timeout` (s): the longest silence."""

    def __init__(self, url, key, timeout):
        self._url, self._key, self._timeout = urlsplit(url), key, timeout
        self._http = None

    def get(self, path):
        """Return the open response to a request; asks again while the provider is busy.

        Raises `Refused` for an HTTP error, `ProviderError` when nobody answers.
        """
        return self._request("GET", path)

    def post(self, path, data):
        """Return the open response to a request with a JSON body; otherwise like `get`."""
        return self._request("POST", path, json.dumps(data).encode())

    def _request(self, method, path, body=b""):
        for delay in RETRY_DELAYS:
            try:
                return self._try(method, path, body)
            except Refused as refusal:
                if refusal.status not in BUSY and refusal.status < 500:
                    raise
                if refusal.retry_after:
                    delay = refusal.retry_after
                if delay > LONGEST_RETRY_DELAY:
                    raise
            except (OSError, HTTPConnectionClosed) as error:
                log.warning("asking the provider again: %s", type(error).__name__)
            gevent.sleep(delay * random.uniform(1, 1.25))
        try:
            return self._try(method, path, body)
        except TimeoutError as error:
            raise ProviderError(TOO_LATE) from error
        except (OSError, HTTPConnectionClosed) as error:
            raise ProviderError(NOT_REACHED) from error

    def _try(self, method, path, body):
        self._http = self._http or self._connect()
        try:
            response = self._http.request(method, self._url.path.rstrip("/") + path, body)
        except HTTPConnectionClosed:
            raise
        except HTTPParseError as error:
            raise ProviderError(NOT_UNDERSTOOD) from error
        except (RuntimeError, ValueError) as error:  # a proxy that refuses; an address that is none
            raise ProviderError(NOT_REACHED) from error
        if response.status_code == 200:
            return response
        with response:
            raise refusal(response)

    def _connect(self):
        if not re.fullmatch("[!-~]+", self._key):
            raise ProviderError(sentence(401, "", None))
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "Chattable",
        }
        try:
            return Http.from_url(
                self._url.geturl(),
                headers=headers,
                connection_timeout=CONNECT_TIMEOUT,
                network_timeout=self._timeout,
                **proxy_for(self._url),
            )
        except ValueError as error:
            raise ProviderError(NOT_REACHED) from error


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
    return Refused(response.status_code, body, retry_after(response))


class Http(HTTPClient):
    """The library's client, but any number of requests at once and few connections kept."""

    def __init__(self, *args, **options):
        super().__init__(*args, concurrency=KEPT_CONNECTIONS, **options)
        pool = self._pool = self._connection_pool
        # Its permits are lost with readers that are killed; the worker limits itself.
        pool._semaphore = DummySemaphore()
        # How often it repeats a GET that got no answer; `Client` does that, and waits in between.
        pool.size = 0
        self._keep, pool.return_socket = pool.return_socket, self._keep_or_close

    def _keep_or_close(self, sock):
        full = self._pool._socket_queue.full()
        self._pool.release_socket(sock) if full else self._keep(sock)


def proxy_for(url):
    """Return how to reach `url` as the environment says (`HTTPS_PROXY`, `NO_PROXY`)."""
    proxy = getproxies().get(url.scheme) or getproxies().get("all")
    if not proxy or proxy_bypass(url.hostname):
        return {}
    proxy = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return {
        "proxy_host": proxy.hostname,
        "proxy_port": proxy.port or 80,
        "proxy_user": proxy.username and unquote(proxy.username),
        "proxy_password": proxy.password and unquote(proxy.password),
    }


def retry_after(response):
    """Return the seconds after which a busy provider wants to be asked again, or None."""
    told = str(response.get("retry-after"))
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
    encoding = response.get("content-encoding", "identity")
    # Not asked for, but some send it all the same.
    unpack = zlib.decompressobj(wbits=47).decompress if encoding in ("gzip", "deflate") else bytes
    failure = None
    try:
        while not failure:
            if response._body_buffer:
                yield unpack(response._body_buffer)
                response._body_buffer.clear()
            if response.message_complete:
                return
            failure = receive(response)
        yield unpack(response._body_buffer)
    except zlib.error:
        failure = NOT_UNDERSTOOD
    raise ProviderError(failure)


def receive(response):
    """Wait for more of a body, take all that is there; return what went wrong, or None.

    The library's own `read` waits until a block is full.
    """
    sock, patience = response._sock, response._sock.gettimeout()
    try:
        data = sock.recv(BLOCK)
        response.feed(data)
        if not data and not response.message_complete:
            return BROKEN_OFF
        # TLS comes in records. Whatever is wrong, the next wait tells.
        sock.settimeout(0)
        with suppress(OSError):
            while not response.message_complete and (data := sock.recv(BLOCK)):
                response.feed(data)
    except TimeoutError:
        return TOO_LATE
    except (OSError, HTTPParseError):
        return BROKEN_OFF
    finally:
        sock.settimeout(patience)
    return None
