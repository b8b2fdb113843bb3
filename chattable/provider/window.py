"""A model's context window: how much it reads at once, and what of a conversation fits."""

import functools
import re
from dataclasses import dataclass, field
from itertools import groupby, product

from flask import current_app

# Tokens. What a small model serves: a larger one is known, or named in the configuration. A server
# that reads less says so and is asked again, but for Ollama, which forgets in silence.
USUAL_WINDOW = 8_192
# Of each window so much is for what is read; the rest is room for the answer.
READ = 0.75
# Bytes of UTF-8. A token of English has over 4; of code, and of Chinese or Japanese, about 3.
TOKEN = 3
# What a message takes beside its words, in bytes.
AROUND = 4 * TOKEN
# How OpenRouter serves a model at its usual price; ":free" is another's.
SERVED = re.compile(r":(online|nitro|floor|exacto|extended|thinking)$")


def context_window(model: str) -> int:
    """Return how many tokens a model reads and writes at once, as far as anybody knows.

    `CONTEXT_WINDOW` may name it, then `genai-prices` knows it, then comes what is usual here; and
    no more than the provider has refused in this process.
    """
    named = current_app.config["CONTEXT_WINDOW"]
    known = named.get(model) or listed(model, current_app.config["OPENAI_BASE_URL"])
    return min(known or named.get(None) or USUAL_WINDOW, refused().get(model, 2**31))


def window_known(model: str) -> bool:
    """Return whether anybody has said how many tokens a model reads and writes."""
    named = current_app.config["CONTEXT_WINDOW"]
    known = named.get(model) or named.get(None)
    return bool(known or listed(model, current_app.config["OPENAI_BASE_URL"]))


def refused():
    """Return {model: window}: those that the provider has named when it refused more."""
    return current_app.extensions["chattable_provider"].setdefault("windows", {})


@functools.cache
def know_models():
    """Return what `genai-prices` knows; to read it takes half a second, once."""
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


@functools.lru_cache(1024)
def listed(model, url):
    for name, address in product(names_of(model), (url, None)):
        try:
            _, found = know_models().find_provider_model(name, None, None, address)
        except (LookupError, ValueError):
            continue
        if found.context_window:
            return found.context_window
    return None


def names_of(*models: str | None) -> list[str]:
    """Return what models may be called in that list: without the way they are served, or a maker.

    As in "openai/gpt-5-mini:nitro" and "models/gemini-2.5-flash".
    """
    names: dict = {}
    for model in filter(None, models):
        plain = SERVED.sub("", model)
        names |= dict.fromkeys((model, plain, plain.rpartition("/")[2]))
    return list(names)


def read_windows(text: str) -> dict[str | None, int]:
    """Return {model: tokens}, {None: tokens} for all others, of "8192, gpt-4o=64000".

    Raises ValueError with a sentence.
    """
    windows = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        model, mark, tokens = (each.strip() for each in part.rpartition("="))
        name = model or None
        wrong = name in windows or (mark and not name)  # as in 8,192
        if wrong or not re.fullmatch("[0-9]{1,12}", tokens) or not int(tokens):
            raise ValueError(
                "CONTEXT_WINDOW must be tokens, of all models or of some: 8192 or gpt-4o=64000."
            )
        windows[name] = int(tokens)
    return windows


def room(window: int) -> int:
    """Return how many bytes of a conversation are sent to a model with this window (tokens)."""
    return min(int(window * READ * TOKEN), 2**30)


def size(text):
    """Return the bytes that a message of these words takes."""
    return len(text.encode()) + AROUND


@dataclass
class Told:
    """What a provider is told: (id, role, words) of each message, the first first.

    `cut` says that the conversation has more before the first turn.
    """

    lines: list[tuple[int | None, str, str]] = field(repr=False)
    cut: bool = False
    _messages: list[dict[str, str]] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, messages):
        return cls([(None, message["role"], message["content"]) for message in messages])

    @property
    def messages(self) -> list[dict[str, str]]:
        """As providers take them: no role twice in a row.

        A reply that failed leaves its question next to the following one: they are joined.
        """
        if not self._messages:
            self._messages = [
                {"role": role, "content": "\n\n".join(words for *_, words in lines)}
                for role, lines in groupby(self.lines, key=lambda line: line[1])
            ]
        return self._messages

    @property
    def begins(self) -> int | None:
        """The id of the first message that is told, the system's aside; None if all of them are."""
        said = self.lines[self._spoken() :]
        return said[0][0] if self.cut and said else None

    @property
    def size(self) -> int:
        return sum(size(words) for *_, words in self.lines)

    def fit(self, room: int) -> "Told":
        """Return what is sent where so many bytes are read: system messages, the newest turns.

        A turn is a person's message and what follows. The last one is sent in any case: where it
        alone is too long, the provider says so.
        """
        top = self._spoken()
        left = room - sum(size(words) for *_, words in self.lines[:top])
        start = end = len(self.lines)
        for index in range(end - 1, top - 1, -1):
            _, role, words = self.lines[index]
            left -= size(words)
            if left < 0 and start < end:
                break
            if role == "user" or (index == top and not self.cut):
                start = index
        if start in (top, end):
            return self
        return Told([*self.lines[:top], *self.lines[start:]], cut=True)

    def _spoken(self):
        """Return where the system's messages end that come before all others."""
        roles = [role for _, role, _ in self.lines]
        return next((at for at, role in enumerate(roles) if role != "system"), len(roles))
