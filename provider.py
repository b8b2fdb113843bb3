"""Ask an OpenAI-compatible provider for a chat completion and read its stream, whatever its dialect."""

import json
import logging
import time
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import gevent
from flask import current_app
from gevent.event import Event

# A reply is looked at this often (seconds): the rhythm in which a page grows.
TICK = 0.075
# A read that took this long (seconds) waited for the network: all that had arrived has been read.
BLOCKED = 0.001
# Silence before the first token is thinking; it may last this many read timeouts.
THINKING = 5
FINISH_NOTES = {
    "length": "The answer was cut at the model's length limit.",
    "max_tokens": "The answer was cut at the model's length limit.",
    "content_filter": "The provider's content filter cut this answer short.",
}

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
    """Keep one client per app: its pool saves a TLS handshake for each reply."""
    app.extensions["provider"] = None


def client():
    """Return the app's OpenAI client, made on first use so that web processes never import it."""
    if current_app.extensions["provider"] is None:
        import openai

        config = current_app.config
        current_app.extensions["provider"] = openai.OpenAI(
            api_key=config["OPENAI_API_KEY"] or "none",
            base_url=config["OPENAI_BASE_URL"] or "https://api.openai.com/v1",
            timeout=openai.Timeout(config["READ_TIMEOUT"] * THINKING, connect=10.0),
        )
    return current_app.extensions["provider"]


def warm_up():
    """Import and build what a first reply would otherwise wait for."""
    client()
    costs("gpt-4o-mini", Usage(prompt=1, completion=1))


def list_models():
    """Return the ids of the chat models the provider lists, sorted.

    Raises `openai.OpenAIError` when the provider cannot be asked.
    """
    other = ("embed", "whisper", "tts", "dall-e", "image", "moderation", "realtime", "transcribe")
    ids = {model.id for model in client().models.list()}
    return sorted(name for name in ids if not any(word in name for word in other))


class Completion:
    """One streamed chat completion: a context that asks at once, to iterate over for the text.

    Each step gives the text (str, maybe empty) that arrived since the last one, at least every
    `TICK` seconds. Afterwards `usage`, `finish_reason` and `reasoning` tell the rest. Raises
    `ProviderError` when the provider fails; `stop()` ends it from another greenlet.
    """

    def __init__(self, model, messages):
        self.model = model
        self.messages = messages
        self.usage = Usage()
        self.finish_reason = None
        self.reasoning = ""
        self.stopped = False
        self.notes = []
        self._events = EventReader()
        self._text = TextJoiner()
        self._chunks = []
        self._wake = Event()
        self._error = None
        self._ended = self._done = self._spoke = self._usage_is_stale = False
        self._read_timeout = current_app.config["READ_TIMEOUT"]
        self._client = client()

    def __enter__(self):
        self._heard_at = time.monotonic()
        self._reader = gevent.spawn(self._read)
        gevent.sleep(0)  # the request leaves now, while the caller prepares for the answer
        return self

    def __exit__(self, *_):
        # After [DONE] the body's last bytes are about to come: read them and the connection
        # can serve the next reply. In any other case closing it is the point.
        if self._done and not self.stopped:
            gevent.spawn_later(1, self._reader.kill, block=False)
        else:
            self._reader.kill(block=False)

    def __iter__(self):
        while not (self.stopped or self._done):
            self._wake.wait(TICK)
            self._wake.clear()
            ended = self._ended
            yield self._take()
            if ended:
                yield self._close()
                return
            self._check_silence()

    def stop(self):
        """End the completion now: the provider's connection is closed at once."""
        self.stopped = True
        self._wake.set()

    @property
    def note(self):
        """A sentence the reader should see under the text, or None."""
        return " ".join([*self.notes, FINISH_NOTES.get(self.finish_reason, "")]).strip() or None

    # The reader: its own greenlet, so that killing it can never hurt what the caller is doing.

    def _read(self):
        try:
            self._ask()
        except Exception as error:  # the caller's greenlet raises or explains it
            self._error = error
        finally:
            self._ended = True
            self._wake.set()

    def _ask(self):
        from openai import APIStatusError

        try:
            self._receive(stream_options={"include_usage": True})
        except APIStatusError as error:
            # Some providers refuse the option instead of ignoring it.
            if "stream_options" not in str(error.body):
                raise
            self._receive()

    def _receive(self, **options):
        create = self._client.chat.completions.with_streaming_response.create
        with create(model=self.model, messages=self.messages, stream=True, **options) as response:
            self._events.whole = "json" in response.headers.get("content-type", "")
            self._collect(response.iter_bytes())

    def _collect(self, chunks):
        """Take what has arrived, wake the caller, sleep a tick: batching comes for free."""
        asked = time.monotonic()
        for chunk in chunks:
            self._chunks.append(chunk)
            self._heard_at = now = time.monotonic()
            if now - asked > BLOCKED:
                self._wake.set()
                gevent.sleep(TICK)
                now = time.monotonic()
            asked = now

    # The caller's side: from bytes to text, usage and endings.

    def _take(self):
        chunks, self._chunks = self._chunks, []
        if not chunks:
            return ""
        return "".join(self._understand(event) for event in self._events.feed(b"".join(chunks)))

    def _close(self):
        text = "".join(self._understand(event) for event in self._events.close())
        text += self._text.close()
        if not (self._done or self.finish_reason):
            raise explain(self._error, self.model) if self._error else self._no_end()
        return text

    def _no_end(self):
        if self._events.understood:
            return ProviderError("The connection to the provider broke off. Try again.")
        return ProviderError("The provider's answer could not be understood. Try again.")

    def _check_silence(self):
        limit = self._read_timeout * (1 if self._spoke else THINKING)
        if not self._done and time.monotonic() - self._heard_at > limit:
            raise ProviderError(f"The model has said nothing for {limit:.0f} seconds. Try again.")

    def _understand(self, event):
        """Return the text one event of the stream adds; note what else it says."""
        if event is EventReader.DONE:
            self._done = True
            return self._text.close()
        if event is EventReader.GARBLED:
            log.warning("unparsable line in the stream of model %s", self.model)
            self.notes = ["A part of the answer could not be read."]
            return ""
        if event.get("error"):
            raise explain_body(event["error"], None, self.model)
        text = self._choice_text((event.get("choices") or [None])[0] or {})
        self._count(event.get("usage") or (event.get("x_groq") or {}).get("usage"), text)
        return text

    def _choice_text(self, choice):
        delta = choice.get("delta") or choice.get("message") or {}
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if self.finish_reason == "error":
            raise ProviderError("The provider broke off with an error. Try again.")
        self.reasoning += plain(delta.get("reasoning_content") or delta.get("reasoning"))
        text = plain(delta.get("content")) + plain(delta.get("refusal"))
        self._spoke = self._spoke or bool(text)
        return self._text.feed(text) if text else ""

    def _count(self, usage, text):
        if isinstance(usage, dict):
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


class EventReader:
    """Bytes of a server-sent event stream in, decoded JSON objects out.

    Lines may be split anywhere, end in LF, CRLF or CR, and lack the space after "data:". A body
    that was not streamed at all (`whole`) is one event.
    """

    DONE = object()
    GARBLED = object()

    def __init__(self):
        self.whole = False
        self.understood = False
        self._rest = b""
        self._data = b""

    def feed(self, chunk):
        """Return the events that `chunk` completes, in order."""
        if self.whole:
            self._rest += chunk
            return []
        data = self._rest + chunk
        # A CR at the very end may be half of a CRLF: it waits.
        held = b"\r" if data.endswith(b"\r") else b""
        data = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        self._rest = rest + held
        return [event for line in lines for event in self._line(line)]

    def close(self):
        """Return what the end of the stream completes."""
        rest, self._rest = self._rest.strip(), b""
        if rest.startswith(b"{"):
            return self._whole_body(rest)
        return [*self._line(rest), *self._line(b"")]

    def _whole_body(self, body):
        try:
            event = json.loads(body)
        except ValueError:
            return []
        self.understood = True
        return [event, self.DONE] if isinstance(event, dict) and event.get("choices") else [event]

    def _line(self, line):
        if not line:
            garbled, self._data = self._data, b""
            return [self.GARBLED] if garbled else []
        if not line.startswith(b"data:"):
            # A stray line of a body that is JSON after all (or a comment, an id, an event name).
            return []
        data = self._data + line[5:].strip()
        if data == b"[DONE]":
            return [self.DONE]
        return self._decode(data)

    def _decode(self, data):
        try:
            event = json.loads(data)
        except ValueError:
            # An event may be cut into several data lines; a blank line says it was not.
            self._data = data + b"\n"
            return []
        self._data = b""
        self.understood = True
        return [event] if isinstance(event, dict) else []


class TextJoiner:
    """Join text whose emoji may be cut in two: JSON escapes halves of a surrogate pair apart."""

    def __init__(self):
        self._half = ""

    def feed(self, text):
        """Return `text` as valid Unicode without NULs (no database takes them)."""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return whole_characters(text)

    def close(self):
        """Return what is left: a half whose other half never came."""
        half, self._half = self._half, ""
        return whole_characters(half)


def whole_characters(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "")


def plain(content):
    """Return the text of a delta: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(plain(part.get("text")) for part in content if isinstance(part, dict))
    return ""


def read_usage(reported, known):
    """Return `known` usage, raised to what `reported` (a provider's usage object) says."""
    prompt = larger(reported.get("prompt_tokens"), known.prompt)
    completion = larger(reported.get("completion_tokens"), known.completion)
    prompt_details = reported.get("prompt_tokens_details") or {}
    cached = prompt_details.get("cached_tokens") or reported.get("prompt_cache_hit_tokens")
    thought = (reported.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    # Some (xAI) count reasoning beside the completion, not inside it; the total tells.
    if thought and reported.get("total_tokens") == (prompt or 0) + (completion or 0) + thought:
        completion += thought
    return Usage(prompt, completion, larger(cached, known.cached), money(reported.get("cost")))


def larger(new, old):
    return max(new, old or 0) if isinstance(new, int) and new >= 0 else old


def money(value):
    try:
        return Decimal(str(value)) if isinstance(value, int | float | str) else None
    except InvalidOperation:
        return None


def estimate_tokens(text):
    """Estimate the tokens of `text`: four bytes of UTF-8 each, the usual rule of thumb."""
    return -(-len(text.encode()) // 4)


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
        except LookupError:
            continue
        return price.input_price, price.output_price
    return None


def explain(error, model):
    """Return the `ProviderError` for an exception of the client; anything else is a bug, raised."""
    import httpx2
    import openai

    log.warning("model %s failed: %s", model, type(error).__name__)
    if isinstance(error, openai.APIStatusError):
        return explain_body(error.body, error.status_code, model)
    if isinstance(error, openai.APITimeoutError | httpx2.ReadTimeout):
        return ProviderError("The provider took too long to answer. Try again.")
    if isinstance(error, openai.APIConnectionError):
        return ProviderError("The provider could not be reached. Try again in a moment.")
    if isinstance(error, httpx2.HTTPError | OSError):
        return ProviderError("The connection to the provider broke off. Try again.")
    if isinstance(error, openai.OpenAIError):
        return ProviderError("The provider's answer could not be understood. Try again.")
    raise error


def explain_body(body, status, model):
    """Return the `ProviderError` for an error object a provider sent.

    The provider's own words are read for what went wrong and never shown: they may quote a key.
    """
    fields = body if isinstance(body, dict) else {"message": body}
    fields = fields["error"] if isinstance(fields.get("error"), dict) else fields
    code = fields.get("code")
    status = status or (code if isinstance(code, int) else None)
    words = " ".join(str(fields.get(key) or "") for key in ("code", "type", "message")).lower()
    log.warning("model %s: provider error %s (%s)", model, status, fields.get("type") or code)
    return ProviderError(sentence(status, words, model))


def sentence(status, words, model):
    if any(sign in words for sign in ("context", "too long", "too many tokens", "too large")):
        return (
            "This conversation is too long for the model. Start a new chat or pick a model with"
            " a larger context window."
        )
    if "quota" in words or "billing" in words or status == 402:
        return "The provider account is out of credit. Top it up, then try again."
    if status == 401 or "api_key" in words or "authentication" in words:
        return "The provider refused the API key. Check OPENAI_API_KEY, then try again."
    if status == 404 or "model_not_found" in words:
        return f"The provider does not know the model “{model}”. Pick another one."
    if status == 429 or "rate_limit" in words or "rate limit" in words:
        return "The provider is receiving too many requests. Wait a moment, then try again."
    if status == 403:
        return f"The provider does not let this key use the model “{model}”. Pick another one."
    if status == 413:
        return "The message is too large for the provider. Shorten it, then try again."
    if status and 400 <= status < 500:
        return f"The provider did not accept the request (error {status}). Try another model."
    if status:
        return f"The provider is having trouble (error {status}). Try again in a moment."
    return "The provider reported an error. Try again."
