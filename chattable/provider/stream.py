"""Read the stream of a completion as it grows: its text, its usage and its end."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Self

import openai
from flask import current_app

from chattable.provider.client import THINKING, body_of, current, explain
from chattable.provider.dialect import (
    EventReader,
    TextJoiner,
    TooLong,
    fields,
    first_choice,
    plain,
    read_events,
    reasoning,
    whole_characters,
)
from chattable.provider.errors import (
    A_PAGE,
    BROKEN_OFF,
    NOT_UNDERSTOOD,
    TOO_MUCH,
    ProviderError,
    explain_body,
)
from chattable.provider.overflow import shorten
from chattable.provider.refusals import (
    LASTING,
    build_request,
    guessed_part,
    parts_refused,
    refused_part,
    still_refused,
    words_of,
)
from chattable.provider.thoughts import ThoughtReader
from chattable.provider.usage import Usage, estimate_prompt, estimate_tokens, read_usage
from chattable.provider.window import Told, refused

# Seconds. A reply is looked at this often: the rhythm in which a page grows. Each other one in the
# process adds a little, twice as much from `MANY` on: frames cost more than tokens do.
TICK = 0.075
TICK_EACH = 0.0005
MANY = 100
# Seconds. While nothing arrives, the caller gets to look around this often.
IDLE = 0.1
# Bytes that may lie unread here, while the provider waits; and how long (s) until the next look.
MOST_UNREAD, BREATH = 2**20, 0.01
# Once the model has finished, only its usage is still to come.
LAST_WORDS = 10
# After its last event a stream may take so long to end, and its connection is kept.
FAREWELL = 1
CUT_SHORT = "The answer was cut at the model's length limit."
FILTERED = "The provider's content filter cut this answer short."
FINISH_NOTES = {
    "length": CUT_SHORT,
    "max_tokens": CUT_SHORT,
    "model_length": CUT_SHORT,
    "content_filter": FILTERED,
    "safety": FILTERED,
}
GARBLED = "A part of the answer could not be read."
LONGEST_REASON = 40
# Characters, with what the model thought: several times what 128,000 tokens are.
LONGEST_REPLY = 2**22
LONGEST_NAME = 200

log = logging.getLogger(__name__)

# The completions that are read in this process; adding and discarding needs no lock.
readers: set["Completion"] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=readers.clear)


class AskAgain(Exception):
    """A provider says in its stream that it does not take what it was asked."""


class Completion:
    """One streamed chat completion: a context that asks at once, to iterate over for the text.

    Each step gives the text (str, maybe empty) that arrived since the last one, at least every
    `IDLE` seconds. Afterwards `usage`, `finish_reason` and `reasoning` tell the rest. Raises
    `ProviderError` when the provider fails, after the last text; `stop()` ends it from another
    thread. A provider that was told more than the model reads is asked once more, with less, and
    one that does not take a part of the request without that. With a `refusal`, a sentence, nobody
    is asked, and it fails with that.
    """

    def __init__(
        self, model: str, messages: list[dict[str, str]] | Told, refusal: str | None = None
    ):
        self.model = model
        self.told = messages if isinstance(messages, Told) else Told.of(messages)
        self.usage = Usage()
        self.finish_reason: str | None = None
        self.stopped = False
        # Monotonic seconds: the question left, the first word or thought came.
        self.asked_at = self.first_at = 0.0
        self._events = EventReader()
        self._text, self._reasoning = TextJoiner(), TextJoiner()
        self._aloud = ThoughtReader()
        self._thoughts: list[str] = []
        self._chunks: deque[bytes] = deque()
        self._wake = threading.Event()
        self._error: Exception | None = None
        self._failure = ProviderError(refusal) if refusal else None
        self._asks = not refusal
        self._farewell: threading.Timer | None = None
        self._ended = self._done = self._spoke = self._usage_is_stale = self._shortened = False
        self._windows = refused()
        self._length = self._arrived = self._taken = 0
        self._learnt = parts_refused()
        self._without = still_refused(self._learnt, model)
        self._refused: set[str] = set()
        self._read_timeout = current_app.config["READ_TIMEOUT"]
        self._provider = current()
        self._line = self._provider.line()

    def __enter__(self) -> Self:
        self._heard_at = self.asked_at = time.monotonic()
        if self._asks:
            # The request leaves now, while the caller prepares for the answer.
            threading.Thread(target=self._read, name="provider", daemon=True).start()
        return self

    def __exit__(self, *_):
        self._hang_up()

    def __iter__(self) -> Iterator[str]:
        ended = False
        while not (ended or self._done or self._failure or self.stopped):
            self._wake.wait(IDLE)
            self._wake.clear()
            ended = self._ended or self._silent_too_long()
            yield self._take()
        self._hang_up()
        yield self._take() + self._rest()
        # A stop may come at the same moment: why nobody was asked is what counts.
        if not (self.stopped and self._asks):
            self._judge()

    def stop(self) -> None:
        """End the completion now: the provider's connection is closed at once."""
        self.stopped = True
        self._hang_up()
        # It may still sleep before it would ask again.
        readers.discard(self)
        self._wake.set()

    @property
    def thought(self) -> bool:
        """Whether the model has thought, as far as the provider tells."""
        return bool(self._thoughts)

    @property
    def reasoning(self) -> str:
        """What the model thought before it spoke, if the provider tells."""
        return "".join(self._thoughts)

    def takes_back(self) -> bool:
        """Return whether, as this step has told, all the text before it was a thought."""
        told, self._aloud.took_back = self._aloud.took_back, False
        return told

    @property
    def note(self) -> str | None:
        """A sentence the reader should see under the text, or None."""
        garbled = GARBLED if self._events.garbled else ""
        finish = FINISH_NOTES.get((self.finish_reason or "").lower(), "")
        return f"{garbled} {finish}".strip() or None

    # The reader, a thread of its own: what happens to the caller never stops it half-way.

    def _read(self):
        readers.add(self)
        try:
            self._ask()
        except Exception as error:  # the caller raises or explains it
            self._error = error
        finally:
            readers.discard(self)
            self._ended = True
            self._wake.set()

    def _ask(self):
        while True:
            try:
                return self._receive()
            except openai.APIStatusError as refusal:
                if not self._asks_again(refusal.status_code, body_of(refusal.response)):
                    raise
            except AskAgain:
                pass

    def _asks_again(self, status, body):
        """Ask for less from now on if an error's words want it and nothing has come of it yet."""
        words = words_of(body, self._request()["messages"])
        return self._shortens(status, words) or self._does_without(status, words)

    def _does_without(self, status, words):
        part = refused_part(status, words, self._request())
        guess = guessed_part(status, words, self._request())
        if self.stopped or not (part or guess):
            return False
        self._without |= {part or guess}
        self._refused |= {part} if part and status in LASTING else set()
        return True

    def _learn(self):
        """Let the next request be right at once, where this one was in the end."""
        self._learnt |= {(self.model, part): time.monotonic() for part in self._refused}

    def _request(self):
        return build_request(self.model, self.told.messages, self._without)

    def _shortens(self, status, words):
        if self.stopped or self._shortened:
            return False
        shorter = shorten(self.told, self.model, status, words, self._windows)
        self.told, self._shortened = shorter or self.told, bool(shorter)
        return self._shortened

    def _receive(self):
        with self._provider.complete(self._line, self._request()) as pieces:
            self._heard_at = time.monotonic()
            self._collect(pieces)

    def _collect(self, pieces):
        """Take what has arrived, wake the caller, sleep a tick: batching comes for free."""
        answered = False
        for piece in pieces:
            if not answered and b'"choices"' in piece:
                answered = True
                self._learn()
            # Some servers begin an answer before they look how long the question is.
            if not answered and b"error" in piece and self._asks_again(None, read_events(piece)):
                raise AskAgain
            self._chunks.append(piece)
            self._arrived += len(piece)
            self._wake.set()
            while self._arrived - self._taken > MOST_UNREAD:
                self._line.check()
                time.sleep(BREATH)
            self._heard_at = time.monotonic()
            # Nobody waits a tick for the first word.
            time.sleep(rhythm() if self._spoke or self._thoughts else 0)

    def _hang_up(self):
        if self.stopped or not self._done:
            self._line.hang_up()
        elif not (self._ended or self._farewell):
            # After [DONE] the body's last bytes are about to come: read them and the connection
            # can serve the next reply. In any other case closing it is the point.
            self._farewell = threading.Timer(FAREWELL, self._line.hang_up)
            self._farewell.daemon = True
            self._farewell.start()

    # The caller's side: from bytes to text, usage and endings.

    def _take(self):
        # The reader adds to them meanwhile.
        chunks = [self._chunks.popleft() for _ in range(len(self._chunks))]
        self._taken += sum(map(len, chunks))
        try:
            events = self._events.feed(b"".join(chunks)) if chunks else []
        except TooLong:
            self._failure = ProviderError(TOO_MUCH)
            return ""
        return self._measured(self._understand(events)) if events else ""

    def _measured(self, text):
        """Return what was said or thought, and fail where it is more than any reply."""
        if text and not self._length:
            self.first_at = time.monotonic()
        self._length += len(text)
        if self._length > LONGEST_REPLY:
            self._failure = self._failure or ProviderError(TOO_MUCH)
        return text

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
        if self._events.page and not self._events.understood:
            return ProviderError(A_PAGE)
        return ProviderError(BROKEN_OFF if self._events.understood else NOT_UNDERSTOOD)

    def _silent_too_long(self):
        limit = self._read_timeout * (1 if self._spoke else THINKING)
        if self.finish_reason:
            limit = min(limit, LAST_WORDS)
        silent = time.monotonic() - self._heard_at > limit and not self._chunks
        if silent and not self.finish_reason:
            sentence = f"The model has said nothing for {limit:.0f} seconds. Try again."
            log.warning("model %s: %s", self.model, sentence)
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
        self._note_thought(thought)
        return said

    def _note_thought(self, thought):
        self._thoughts += [self._measured(thought)] if thought else []

    def _understand_one(self, event):
        if event is EventReader.DONE:
            self._done = True
        elif event.get("error") or event.get("object") == "error":
            raise explain_body(event.get("error") or event, None, self.model)
        else:
            text = self._choice_text(first_choice(event))
            self._count(event, text)
            return text
        return ""

    def _choice_text(self, choice):
        delta = fields(choice.get("delta") or choice.get("message"))
        finish = whole_characters(plain(choice.get("finish_reason")))
        self.finish_reason = finish[:LONGEST_REASON] or self.finish_reason
        if self.finish_reason == "error":
            raise ProviderError("The provider broke off with an error. Try again.")
        content = delta.get("content")
        if thought := reasoning(delta):
            self._note_thought(self._reasoning.feed(thought))
        text = plain(content) + plain(delta.get("refusal"))
        self._spoke = self._spoke or bool(text)
        return text

    def _count(self, event, text):
        usage = event.get("usage") or fields(event.get("x_groq")).get("usage")
        if usage and isinstance(usage, dict):
            self.usage = read_usage(usage, self.usage, plain(event.get("model"))[:LONGEST_NAME])
            self._usage_is_stale = False
        elif text:
            self._usage_is_stale = True

    def settle_usage(self, text: str, refused: bool = False) -> Usage:
        """Return the usage of `text`; what the provider did not report is estimated and marked.

        A request that was `refused` has used nothing but what the provider says.
        """
        prompt, completion = self.usage.prompt, self.usage.completion
        if refused or not self._asks:
            return self.usage
        if not prompt:
            prompt, self.usage.estimated = estimate_prompt(self.told.messages), True
        if completion is None or self._usage_is_stale or (text and not completion):
            thought = estimate_tokens(self.reasoning)
            estimate = estimate_tokens(text) + thought
            completion, self.usage.estimated = max(completion or 0, estimate), True
            self.usage.reasoning = max(self.usage.reasoning or 0, thought) or None
        self.usage.prompt, self.usage.completion = prompt, completion
        return self.usage


def rhythm():
    """Return how long (s) a reply waits before it looks again, while so many run."""
    running = len(readers)
    return TICK + TICK_EACH * max(running, 2 * running - MANY)
