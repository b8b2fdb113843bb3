"""What a provider says that was told more than a model reads, and what to tell it instead."""

import re

from chattable.provider.errors import tells_too_long
from chattable.provider.window import Told, room

# No model has a window this small: a number below it, in an error, means something else.
SMALLEST = 256
# How providers name the window in an error. Each has a wording of its own:
# "maximum context length is 8192 tokens" (OpenAI, OpenRouter, DeepSeek, vLLM), "213462 tokens >
# 200000 maximum" (Anthropic), "exceeds the available context size (4096 tokens)" and `n_ctx`
# (llama.cpp), "too large for model with 32768 maximum context length" (Mistral), "maximum number of
# tokens allowed (1048575)" (Gemini), "maximum prompt length is 131072" (xAI), "model token limit:
# 262144" (Kimi), "while limit is 8192" (Cerebras), "configured limit of 272000" (OpenAI), "maximum
# model length of 4096" (vLLM), "context length of only 4096" (LM Studio), "must have less than 4096
# tokens" (TGI), "cannot exceed 4081" (Cohere).
NUMBER = r"\d{1,3}(?:[,_]\d{3})+|\d+"
LIMIT = re.compile(
    r"""(?: maximum\ (?:context|prompt|model)\ length(?:\ is|\ of|:)?
          | context\ (?:length|window|size)\ of(?:\ only)? | available\ context\ size
          | limit\ (?:of|is) | token\ limit: | tokens\ allowed | cannot\ exceed | have\ less\ than
          | must\ be\ <= | (?:tokens|\d)\ > | n_ctx"?:
        ) \s* \(? (NUMBER) (?![\d_]|[.,]\d|\ ?[km]\b) | (NUMBER) \ maximum\ context\ length
    """.replace("NUMBER", NUMBER),
    re.VERBOSE,
)


def shorten(told: Told, model: str, status: int | None, words: str, windows: dict) -> Told | None:
    """Return what to send instead of what a provider has refused with these words, if anything.

    It was told more than the model reads. `windows` is what `refused` returns, and gets to know
    the window if the words name it.
    """
    words = words.lower()
    if not tells_too_long(status, words):
        return None
    limit = named_limit(words)
    if limit:
        windows[model] = min(limit, windows.get(model, limit))
    # What should have fitted has more tokens than we think.
    fits = limit and room(limit) < told.size
    shorter = told.fit(room(limit) if fits else told.size // 2)
    return None if shorter is told else shorter


def named_limit(words):
    """Return the window (tokens) that an error names, or None."""
    named = (one or other for one, other in LIMIT.findall(words))
    found = (int(number.replace(",", "").replace("_", "")) for number in named)
    return next((tokens for tokens in found if SMALLEST <= tokens < 2**31), None)
