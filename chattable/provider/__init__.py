"""Ask an OpenAI-compatible provider for a completion and read its stream, whatever its dialect."""

import json
import logging
import random
import re
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import gevent
import jiter
from flask import current_app
from gevent.event import Event
from gevent.lock import DummySemaphore
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

OPENAI = "https://api.openai.com/v1"
# Seconds. A reply is looked at this often: the rhythm in which a page grows. Each other one in the
# process adds a little, twice as much from `MANY` on: frames cost more than tokens do.
TICK = 0.075
TICK_EACH = 0.0005
MANY = 100
CONNECT_TIMEOUT = 10
MODELS_TIMEOUT = 30
# Before each time that a busy provider is asked again, if it does not say itself.
RETRY_DELAYS = (0.5, 1)
LONGEST_RETRY_DELAY = 60
# HTTP statuses of a provider that may answer if it is asked again; so may 500 and above.
BUSY = {408, 409, 429}
# Idle connections that wait for the next request.
KEPT_CONNECTIONS = 10
# Bytes.
BLOCK = 65_536
# While nothing arrives, the caller gets to look around this often.
IDLE = 0.1
# Once the model has finished, only its usage is still to come.
LAST_WORDS = 10
# Silence before the first token is thinking; it may last this many read timeouts.
THINKING = 5
CUT_SHORT = "The answer was cut at the model's length limit."
FILTERED = "The provider's content filter cut this answer short."
FINISH_NOTES = {
    "length": CUT_SHORT,
    "max_tokens": CUT_SHORT,
    "model_length": CUT_SHORT,
    "content_filter": FILTERED,
    "safety": FILTERED,
}
TOO_LATE = "The provider took too long to answer. Try again."
NOT_REACHED = "The provider could not be reached. Try again in a moment."
NOT_UNDERSTOOD = "The provider's answer could not be understood. Try again."
BROKEN_OFF = "The connection to the provider broke off. Try again."
GARBLED = "A part of the answer could not be read."
HTTP_ERRORS = {str(status) for status in range(400, 600)}
# How providers say that the context window is full.
TOO_LONG = (
    *("context length", "context_length", "context size", "context_size", "context window"),
    *("prompt is too long", "input is too long", "too long for", "too many tokens"),
    *("prompt length", "token count", "reduce the length"),
)
# What a database column holds.
MOST_TOKENS = 2**31 - 1
LONGEST_REASON = 40

log = logging.getLogger(__name__)


class ProviderError(Exception):
    """A completion that failed, said in one sentence that is safe to show."""


@dataclass
class Usage:
    """Tokens of one completion, and its cost in dollars if the provider reported one.

    `completion` includes reasoning tokens, `prompt` includes cached ones, as OpenAI counts them.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    cost: Decimal | None = None
    estimated: bool = False


def init_app(app):
    """Keep one client per app: a kept connection saves a TLS handshake for each reply."""
    config = app.config
    app.extensions["provider"] = Client(
        config.get("OPENAI_BASE_URL") or OPENAI,
        (config.get("OPENAI_API_KEY") or "").strip() or "none",
        # Longer than a completion waits.
        config["READ_TIMEOUT"] * THINKING + 10,
    )


def warm_up():
    """Import what a first reply would otherwise wait for."""
    costs("gpt-4o-mini", Usage(prompt=1, completion=1))


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


# HTTP. A general client takes every chunk of a stream through a parser in Python, seven times the
# CPU of this one's, and knows no way to take just what has arrived.


class Refused(Exception):
    """An HTTP error: its `status`, its `body` (decoded JSON, else text) and when to ask again."""

    def __init__(self, response):
        self.status = response.status_code
        self.retry_after = retry_after(response)
        body = b""
        with suppress(ProviderError):
            for piece in arriving(response):
                body += piece
                if len(body) > BLOCK:
                    break
        try:
            self.body = decode(body)
        except ValueError:
            self.body = body.decode(errors="replace")


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
            raise Refused(response)

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


class Completion:
    """One streamed chat completion: a context that asks at once, to iterate over for the text.

    Each step gives the text (str, maybe empty) that arrived since the last one, at least every
    `IDLE` seconds. Afterwards `usage`, `finish_reason` and `reasoning` tell the rest. Raises
    `ProviderError` when the provider fails, after the last text; `stop()` ends it from another
    greenlet.
    """

    # In this process.
    running = 0

    def __init__(self, model, messages):
        self.model = model
        self.messages = messages
        self.usage = Usage()
        self.finish_reason = None
        self.stopped = False
        self._events = EventReader()
        self._text, self._reasoning = TextJoiner(), TextJoiner()
        self._aloud = ThoughtReader()
        self._thoughts = []
        self._chunks = []
        self._wake = Event()
        self._reader = self._error = self._failure = None
        self._ended = self._done = self._spoke = self._usage_is_stale = False
        self._read_timeout = current_app.config["READ_TIMEOUT"]
        self._client = current_app.extensions["provider"]

    def __enter__(self):
        self._heard_at = time.monotonic()
        self._reader = gevent.spawn(self._read)
        gevent.sleep(0)  # the request leaves now, while the caller prepares for the answer
        return self

    def __exit__(self, *_):
        self._hang_up()

    def __iter__(self):
        ended = False
        while not (ended or self._done or self._failure or self.stopped):
            self._wake.wait(IDLE)
            self._wake.clear()
            ended = self._ended or self._silent_too_long()
            yield self._take()
        self._hang_up()
        yield self._take() + self._rest()
        if not self.stopped:
            self._judge()

    def stop(self):
        """End the completion now: the provider's connection is closed at once."""
        self.stopped = True
        self._hang_up()
        self._wake.set()

    @property
    def reasoning(self):
        """What the model thought before it spoke, if the provider tells."""
        return "".join(self._thoughts)

    def takes_back(self):
        """Return whether, as this step has told, all the text before it was a thought."""
        told, self._aloud.took_back = self._aloud.took_back, False
        return told

    @property
    def note(self):
        """A sentence the reader should see under the text, or None."""
        garbled = GARBLED if self._events.garbled else ""
        finish = FINISH_NOTES.get((self.finish_reason or "").lower(), "")
        return f"{garbled} {finish}".strip() or None

    # The reader: its own greenlet, so that killing it can never hurt what the caller is doing.

    def _read(self):
        Completion.running += 1
        try:
            self._ask()
        except Exception as error:  # the caller's greenlet raises or explains it
            self._error = error
        finally:
            Completion.running -= 1
            self._ended = True
            self._wake.set()

    def _ask(self):
        try:
            self._receive(stream_options={"include_usage": True})
        except Refused as refusal:
            # Some providers refuse the option instead of ignoring it.
            if "stream_options" not in str(refusal.body):
                raise
            self._receive()

    def _receive(self, **options):
        asked = {"model": self.model, "messages": self.messages, "stream": True, **options}
        with self._client.post("/chat/completions", asked) as response:
            self._heard_at = time.monotonic()
            self._collect(arriving(response))

    def _collect(self, pieces):
        """Take what has arrived, wake the caller, sleep a tick: batching comes for free."""
        for piece in pieces:
            self._chunks.append(piece)
            self._heard_at = time.monotonic()
            self._wake.set()
            # Nobody waits a tick for the first word.
            gevent.sleep(rhythm() if self._spoke or self._thoughts else 0)

    def _hang_up(self):
        # After [DONE] the body's last bytes are about to come: read them and the connection
        # can serve the next reply. In any other case closing it is the point.
        reader, self._reader = self._reader, None
        if reader and self._done and not self.stopped:
            gevent.spawn_later(1, reader.kill, block=False)
        elif reader:
            reader.kill(block=False)

    # The caller's side: from bytes to text, usage and endings.

    def _take(self):
        chunks, self._chunks = self._chunks, []
        return self._understand(self._events.feed(b"".join(chunks))) if chunks else ""

    def _rest(self):
        """Return the text that only the end of the stream completes."""
        text = self._understand(self._events.close()) + self._without_thoughts(self._text.close())
        return text + self._aloud.close()

    def _judge(self):
        """Raise the `ProviderError` this ended with, unless the answer is all there."""
        if self._failure:
            raise self._failure
        if not (self._done or self.finish_reason):
            raise explain(self._error, self.model) if self._error else self._no_end()

    def _no_end(self):
        return ProviderError(BROKEN_OFF if self._events.understood else NOT_UNDERSTOOD)

    def _silent_too_long(self):
        limit = self._read_timeout * (1 if self._spoke else THINKING)
        if self.finish_reason:
            limit = min(limit, LAST_WORDS)
        silent = time.monotonic() - self._heard_at > limit and not self._chunks
        if silent and not self.finish_reason:
            sentence = f"The model has said nothing for {limit:.0f} seconds. Try again."
            self._failure = ProviderError(sentence)
        return silent

    def _understand(self, events):
        """Return the text of events; the failure one of them tells takes no text away."""
        pieces = []
        try:
            for event in events:
                if not self._done:
                    pieces.append(self._understand_one(event))
        except ProviderError as failure:
            self._failure = failure
        return self._without_thoughts(self._text.feed("".join(pieces)))

    def _without_thoughts(self, text):
        thought, said = self._aloud.feed(text)
        self._thoughts += [thought] if thought else []
        return said

    def _understand_one(self, event):
        if event is EventReader.DONE:
            self._done = True
        elif event.get("error") or event.get("object") == "error":
            raise explain_body(event.get("error") or event, None, self.model)
        else:
            text = self._choice_text(first_choice(event))
            self._count(event.get("usage") or fields(event.get("x_groq")).get("usage"), text)
            return text
        return ""

    def _choice_text(self, choice):
        delta = fields(choice.get("delta") or choice.get("message"))
        finish = whole_characters(plain(choice.get("finish_reason")))
        self.finish_reason = finish[:LONGEST_REASON] or self.finish_reason
        if self.finish_reason == "error":
            raise ProviderError("The provider broke off with an error. Try again.")
        content = delta.get("content")
        thought = plain(delta.get("reasoning_content") or delta.get("reasoning"))
        if thought := thought + thinking(content):
            self._thoughts.append(self._reasoning.feed(thought))
        text = plain(content) + plain(delta.get("refusal"))
        self._spoke = self._spoke or bool(text)
        return text

    def _count(self, usage, text):
        if usage and isinstance(usage, dict):
            self.usage = read_usage(usage, self.usage)
            self._usage_is_stale = False
        elif text:
            self._usage_is_stale = True

    def settle_usage(self, text, refused=False):
        """Return the usage of `text`; what the provider did not report is estimated and marked.

        A request that was `refused` has used nothing but what the provider says.
        """
        prompt, completion = self.usage.prompt, self.usage.completion
        if refused:
            return self.usage
        if not prompt:
            prompt, self.usage.estimated = estimate_prompt(self.messages), True
        if completion is None or self._usage_is_stale or (text and not completion):
            estimate = estimate_tokens(text) + estimate_tokens(self.reasoning)
            completion, self.usage.estimated = max(completion or 0, estimate), True
        self.usage.prompt, self.usage.completion = prompt, completion
        return self.usage


def rhythm():
    """Return how long (s) a reply waits before it looks again, while so many run."""
    running = Completion.running
    return TICK + TICK_EACH * max(running, 2 * running - MANY)


class EventReader:
    """Bytes of a server-sent event stream in, decoded JSON objects out.

    Lines may be split anywhere, end in LF, CRLF or CR, and lack the space after "data:". A body
    that was not streamed at all is one event.
    """

    DONE = object()
    NO_JSON = object()

    def __init__(self):
        self.understood = self.garbled = False
        self._whole = None
        self._rest = []
        self._data = []
        self._name = b""
        self._after_cr = False

    def feed(self, chunk):
        """Return the events that `chunk` completes, in order."""
        if self._whole is None:
            # No line of an event stream begins like JSON, whatever the headers say.
            chunk = chunk.lstrip(b"\xef\xbb\xbf \t\r\n")
            self._whole = chunk.startswith((b"{", b"[")) if chunk else None
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        if self._whole or not (b"\n" in chunk or b"\r" in chunk):
            self._rest.append(chunk)
            return []
        lines = b"".join([*self._rest, chunk]).splitlines()
        self._rest = [] if chunk.endswith((b"\n", b"\r")) else [lines.pop()]
        return [event for line in lines if (event := self._line(line)) is not None]

    def close(self):
        """Return what the end of the stream completes."""
        rest, self._rest = b"".join(self._rest).strip(), []
        if self._whole:
            return self._whole_body(rest)
        garbled = self.garbled
        events = (self._line(rest), self._line(b""))
        self.garbled = garbled  # what is cut off is not
        return [event for event in events if event is not None]

    def _whole_body(self, body):
        try:
            found = decode(body)
        except ValueError:
            return []
        event = found[0] if isinstance(found, list) and found else found
        self.understood = isinstance(event, dict)
        if not self.understood:
            return []
        return [
            event if event.get("choices") else {"error": event.get("error") or event},
            self.DONE,
        ]

    def _line(self, line):
        if line.startswith(b"data:"):
            return self._datum(line[5:].strip())
        if not line:
            return self._blank() if self._data or self._name else None
        if line.startswith(b"event:"):
            self._name = line[6:].strip()
        # Anything else is a comment, an id, or a page that is no event stream.
        return None

    def _datum(self, data):
        if data == b"[DONE]":
            self.understood = True
            return self.DONE
        event = self._event(data)
        if isinstance(event, dict) and not self._data:
            return event
        # Among the lines of one event this may be a fragment that happens to be JSON; if it is
        # not, what was pending is lost.
        if fields(event).keys() & {"choices", "error"}:
            self._data, self.garbled = [], True
            return event
        self._data.append(data)
        return None

    def _blank(self):
        data, self._data = b"\n".join(self._data).strip(), []
        event = self._event(data) if data else None
        self._name = b""
        self.garbled = self.garbled or event is self.NO_JSON
        return event if isinstance(event, dict) else None

    def _event(self, data):
        """Return what `data` says: a dict, or another JSON value, or `NO_JSON`."""
        failed = self._name == b"error"
        try:
            event = decode(data)
        except ValueError:
            if not failed:
                return self.NO_JSON
            event = {"message": data.decode(errors="replace")}
        event = event[0] if isinstance(event, list) and event else event
        self.understood = self.understood or isinstance(event, dict)
        return {"error": event} if failed and "error" not in fields(event) else event


def decode(data):
    """Return what JSON bytes say. Raises ValueError."""
    try:
        return jiter.from_json(data)
    except ValueError:
        # Half a surrogate pair, which Python takes and the faster reader does not.
        try:
            return json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


class TextJoiner:
    """Join text whose emoji may be cut in two: JSON escapes halves of a surrogate pair apart."""

    def __init__(self):
        self._half = ""

    def feed(self, text):
        """Return `text` as valid Unicode without NULs (no database takes them)."""
        if not text:
            return ""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return whole_characters(text)

    def close(self):
        """Return what is left: a half whose other half never came."""
        half, self._half = self._half, ""
        return whole_characters(half)


class ThoughtReader:
    """Tell what a model thinks from what it says, where it writes both into its reply.

    Local models begin with `<think>…</think>`, or with the thought itself when their template has
    written the opening tag: then what was taken for the reply is taken back at the closing one, if
    that stands alone on its line. Later tags, and those in code or in a sentence, are text.
    """

    OPENING = re.compile(r"\s*<think(?:ing)?>\s*", re.I)
    CLOSING = re.compile(r"</think(?:ing)?>\s*", re.I)
    CLOSING_LINE = re.compile(r"^</think(?:ing)?>[ \t]*\r?\n", re.I | re.M)
    LONGEST_BLANK = 200

    def __init__(self):
        self.took_back = False
        self._held = ""
        self._said = []
        self._judged = 0  # how many pieces of it
        self._code = CodeFinder()
        self._look = self._begin

    def feed(self, text):
        """Return (thought, said) of the reply's next piece of text."""
        text, self._held = self._held + text, ""
        return self._look(text) if text else ("", "")

    def close(self):
        """Return what was held back: the beginning of a tag that never came."""
        held, self._held = self._held, ""
        return "" if self._look == self._think else held

    def _begin(self, text):
        if opening := self.OPENING.match(text):
            self._look = self._begin_thought
            return self._begin_thought(text[opening.end() :])
        if closing := self.CLOSING.match(text, len(text) - len(text.lstrip())):
            self._look = self._pause
            return self._pause(text[closing.end() :])
        half = any(tag.startswith(text.strip().lower()) for tag in ("<thinking>", "</thinking>"))
        if half and len(text) < self.LONGEST_BLANK:
            self._held = text
            return "", ""
        self._look = self._speak
        return self._speak(text)

    def _begin_thought(self, text):
        if not (text := text.lstrip()):
            return "", ""
        self._look = self._think
        return self._think(text)

    def _think(self, text):
        if closing := self.CLOSING.search(text):
            self._look = self._pause
            return text[: closing.start()].rstrip(), self._pause(text[closing.end() :])[1]
        return self._hold(text), ""

    def _speak(self, text):
        text, position = self._hold_line(text), 0
        for closing in self.CLOSING_LINE.finditer(text):
            if not (closing.start() or self._at_line):
                continue
            self._say(text[position : closing.start()])
            position = closing.start()
            if self._was_thought():
                self.took_back, self._look = True, self._pause
                return "".join(self._said).strip(), self._pause(text[closing.end() :])[1]
        self._say(text[position:])
        return "", text

    def _say(self, text):
        self._said += [text] if text else []

    @property
    def _at_line(self):
        return not self._said or self._said[-1].endswith("\n")

    def _was_thought(self):
        """Tell whether what was said may be a thought: it ends in no code and opens no other."""
        new, self._judged = "".join(self._said[self._judged :]), len(self._said)
        self._code.feed(new)
        return not (self._code.open or self._code.mentions_thought)

    def _pause(self, text):
        self._look = self._go_on if text.strip() else self._pause
        return "", text.lstrip()

    def _go_on(self, text):
        return "", text

    def _hold(self, text):
        """Hold back the beginning of a closing tag, and the blanks that it would end."""
        start = text.rfind("<", -len("</thinking>"))
        if start < 0 or not "</thinking>".startswith(text[start:].lower()):
            start = len(text)
        blank = start - len(text[:start].rstrip())
        start -= blank if blank < self.LONGEST_BLANK else 0
        text, self._held = text[:start], text[start:]
        return text

    def _hold_line(self, text):
        """Hold back a last line that may be a closing tag alone on it."""
        start = text.rfind("\n") + 1
        line = text[start:].lower()
        half = "</thinking>".startswith(line) or self.CLOSING.fullmatch(line)
        if half and (start or self._at_line) and len(line) < self.LONGEST_BLANK:
            text, self._held = text[:start], text[start:]
        return text


class CodeFinder:
    """Tell whether lines of Markdown end in code: within a fence, or a span over several lines."""

    FENCE = re.compile(r"(?:[ \t>]|[-+*][ \t]|\d{1,9}[.)][ \t])*+(`{3,}(?=[^`]*$)|~{3,})")
    TICKS = re.compile(r"`+")

    def __init__(self):
        self.open = None  # the marks that opened it
        self.mentions_thought = False
        self._fenced = False

    def feed(self, lines):
        self.mentions_thought = self.mentions_thought or "<think" in lines
        for line in lines.split("\n")[:-1]:
            self._read(line)

    def _read(self, line):
        bare = line.strip(" \t\r>")
        if self._fenced:
            if bare.startswith(self.open) and not bare.strip(self.open[0]):
                self.open, self._fenced = None, False
        elif fence := self.FENCE.match(line):
            self.open, self._fenced = fence[1], True
        elif not bare:
            self.open = None
        else:
            self._read_spans(line)

    def _read_spans(self, line):
        for ticks in self.TICKS.findall(line):
            if ticks == self.open:
                self.open = None
            else:
                self.open = self.open or ticks


def whole_characters(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "")


def fields(value):
    """Return a JSON object's fields; none if it is anything else."""
    return value if isinstance(value, dict) else {}


def first_choice(event):
    choices = event.get("choices")
    return fields(choices[0]) if choices and isinstance(choices, list) else {}


def plain(content):
    """Return the text of a delta: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part if isinstance(part, str) else fields(part).get("text") for part in content)
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def thinking(content):
    """Return the reasoning that Mistral sends as parts of the content."""
    parts = content if isinstance(content, list) else ()
    return "".join(plain(fields(part).get("thinking")) for part in parts)


def read_usage(reported, known):
    """Return `known` usage, raised to what `reported` (a provider's usage object) says."""
    prompt, completion = (
        tokens(reported.get("prompt_tokens")),
        tokens(reported.get("completion_tokens")),
    )
    details = fields(reported.get("prompt_tokens_details"))
    cached = tokens(details.get("cached_tokens") or reported.get("prompt_cache_hit_tokens"))
    thought = tokens(fields(reported.get("completion_tokens_details")).get("reasoning_tokens"))
    # Some (xAI) count reasoning beside the completion, not inside it; the total tells.
    if thought and reported.get("total_tokens") == (prompt or 0) + (completion or 0) + thought:
        completion = (completion or 0) + thought
    cost = money(reported.get("cost"))
    return Usage(
        larger(prompt, known.prompt),
        larger(completion, known.completion),
        larger(cached, known.cached),
        known.cost if cost is None else cost,
    )


def tokens(value):
    """Return a number of tokens that can be believed, or None."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if number and 0 <= value <= MOST_TOKENS else None


def larger(new, old):
    return old if new is None else max(new, old or 0)


def money(value):
    """Return a reported cost in dollars as an exact decimal, or None if it is no such thing."""
    try:
        cost = Decimal(str(value)) if isinstance(value, int | float | str) else None
    except InvalidOperation:
        return None
    return cost if cost is not None and cost.is_finite() and 0 <= cost < 10**6 else None


def estimate_tokens(text):
    """Estimate the tokens of `text`: four bytes of UTF-8 each, the usual rule of thumb."""
    return -(-len(text.encode()) // 4)


def estimate_usage(messages, text=""):
    """Return the estimated `Usage` of a request of which nobody was told the usage."""
    return Usage(estimate_prompt(messages), estimate_tokens(text), estimated=True)


def estimate_prompt(messages):
    return sum(estimate_tokens(message["content"]) + 4 for message in messages)


def costs(model, usage):
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


# Failures, and what to say about them.


def explain(error, model):
    """Return the `ProviderError` for what ended a request; a bug is raised as it is."""
    log.warning("model %s failed: %s", model, type(error).__name__)
    if isinstance(error, Refused):
        return explain_body(error.body, error.status, model)
    if isinstance(error, ProviderError):
        return error
    raise error


def explain_body(body, status, model):
    """Return the `ProviderError` for an error object a provider sent.

    The provider's own words are read for what went wrong and never shown or logged: they may
    quote a key.
    """
    body = body[0] if isinstance(body, list) and body else body
    error = fields(body).get("error") or body
    told = fields(error) or {"message": error if plain(error)[:1] != "<" else None}
    code = told.get("code")
    status = status or (int(code) if str(code) in HTTP_ERRORS else None)
    words = " ".join(str(told.get(key) or "") for key in ("code", "type", "message")).lower()
    said = sentence(status, words, model)
    log.warning("model %s: provider error %s: %s", model, status, said)
    return ProviderError(said)


def sentence(status, words, model):
    if any(sign in words for sign in TOO_LONG):
        return (
            "This conversation is too long for the model. Start a new chat or pick a model with"
            " a larger context window."
        )
    if status == 402 or any(sign in words for sign in ("quota", "billing", "insufficient balance")):
        return "The provider account has used up its credit. Top it up, then try again."
    if status == 401 or any(sign in words for sign in ("api_key", "api key", "authentication")):
        return "The provider refused the API key. Check OPENAI_API_KEY, then try again."
    if status == 404 or "model_not_found" in words:
        return f"The provider does not know the model “{model}”. Pick another one."
    if status == 429 or "rate_limit" in words or "rate limit" in words:
        return "The provider is receiving too many requests. Wait a moment, then try again."
    if status == 403:
        return f"The provider does not let this key use the model “{model}”. Pick another one."
    if status == 413:
        return "This is too much text for the provider. Shorten it or start a new chat."
    if status and 300 <= status < 400:
        return "The provider has moved. Check OPENAI_BASE_URL, then try again."
    if status and 400 <= status < 500:
        return f"The provider did not accept the request (error {status}). Try another model."
    if status:
        return f"The provider is having trouble (error {status}). Try again in a moment."
    return "The provider reported an error. Try again."
