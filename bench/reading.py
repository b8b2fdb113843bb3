"""What a reader saw and when: from frames of HTML back to the provider's tokens."""

import html
import json
import re
from bisect import bisect_right

from bench.text import letters, visible_letters

CODE_HEAD = re.compile(r'<div class="code__head">.*?</div>', re.DOTALL)
TAG = re.compile(r"""<(?:"[^"]*"|'[^']*'|[^'">])*>""")
ASSISTANT = re.compile(r'<article[^>]*id="message-(\d+)"[^>]*data-role="assistant"')


def figures(reader, said):
    """Return `first` (seconds added to the provider's), `lags` (seconds by token), `strays`.

    A stray is a frame whose text is not what the provider said at that place.
    """
    plan = reader.plan
    text, growth = visible_letters(plan["kind"], plan["count"])
    lags, strays, seen, token = [], 0, 0, 0
    first = None
    for moment, frame in reader.frames:
        reached = progress(text, seen, shown_by(frame))
        strays += reached is None
        seen = max(seen, reached or 0)
        upto = bisect_right(growth, seen)
        lags += lags_of(said, growth, token, upto, moment)
        token = max(token, upto)
        if seen and first is None:
            first = moment
    return {"lags": lags, "strays": strays, "seen": token, "first": added(reader, said, first)}


def shown_by(frame):
    """Return the letters of the reply that a frame brings; None if it brings no reply's text."""
    if frame.startswith("{"):
        return visible(json.loads(frame).get("content", ""))
    found = ASSISTANT.search(frame)
    return visible(inner_html(frame, f"message-{found[1]}-body")) if found else None


def inner_html(markup, element_id):
    """Return what is inside the element with this id, as written; "" if there is none."""
    opening = re.search(rf'<(\w+)[^>]*\bid="{element_id}"[^>]*>', markup)
    if not opening:
        return ""
    depth = 1
    for tag in re.finditer(rf"<(/?){opening[1]}\b[^>]*>", markup[opening.end() :]):
        depth += -1 if tag[1] else 1
        if not depth:
            return markup[opening.end() : opening.end() + tag.start()]
    return ""


def visible(markup):
    """Return the letters and digits that a piece of a reply's HTML shows."""
    return letters(html.unescape(TAG.sub("", CODE_HEAD.sub("", markup))))


def progress(text, seen, shown):
    """Return how many letters of the text are visible after a frame; None if it fits nowhere.

    The frame ends at or after what was seen, so its start is at `seen - len(shown)` or later.
    """
    if not shown:
        return seen
    start = text.find(shown, max(0, seen - len(shown)))
    return start + len(shown) if start >= 0 else None


def lags_of(said, growth, token, upto, moment):
    """Return the lag of each token from `token` to `upto` that has something to show."""
    written = (said or {"written": []})["written"]
    return [
        round(moment - written[index], 5)
        for index in range(token, min(upto, len(written)))
        if growth[index] > (growth[index - 1] if index else 0)
    ]


def added(reader, said, first):
    """Return what the product added, from the click to the first token on the page, in seconds."""
    if first is None or not said or not said["written"]:
        return None
    own = said["written"][0] - said["asked"]
    return first - reader.posted_at - own
