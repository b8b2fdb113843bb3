"""What texts that were made to be slow cost, and how long another reply pauses beside them.

`uv run python -m bench.hostile` prints a line for each: microseconds of CPU a character as it grows
and once more as a whole, at three lengths (flat is linear), and the longest time between two frames
of a reply in another chat of the same worker (its rhythm alone is some 80 ms). Names of texts, as
arguments, choose some of them.
"""

import sys
import time
from contextlib import closing
from itertools import pairwise

from chattable.markdown import Growth, render
from tests.provider import Provider
from tests.stack import Stack
from tests.tab import Tab, send

LENGTHS = (1_000, 10_000, 100_000)
PIECE = 300  # characters that come at once
END = " and a word.\n\nThe end."
TEXTS = {
    "ordinary prose": "The **quick** brown fox `jumps`, and then plain words follow.\n\n",
    "blanks": " ",
    "tabs": "\t",
    "blanks in a quoted list": "\n> -  ",
    "quotes": "> ",
    "list markers": "- ",
    "markers, a line each": "-\n",
    "nested lists": "  - a\n",
    "asterisks": "*",
    "emphasis that never ends": "*a **b ",
    "emphasis that ends late": "*a ** b** c*",
    "backticks": "`a ``b ",
    "brackets": "[",
    "half links": "[a](",
    "images": "![",
    "addresses": "https://a.b/!!!",
    "dollars": "$a ",
    "brackets of math": "\\[",
    "half displays with gaps": "\\[\n\nx\n\n",
    "formulas": "$x^2$ ",
    "half environments": "\\begin{align}",
    "cells": "|a",
    "short rows": "|\n",
    "half tags": "<kbd>",
    "details": "<details><summary>a</summary>\n",
    "fences in Markdown": "```md\n```a\n```\n",
    "definitions": "[a]: b\n",
    "escapes": "\\*",
    "half entities": "&a",
    "Chinese": "**重点。**然后",
    "one line of JSON": '{"name_of": "thing", "list": [1, 2, 3]}, ',
    "code of dots": "```ts\n" + "a." * 400 + "\n```\n",
}


def text(run, length):
    return run * (length // len(run)) + END


def pieces(whole):
    return [whole[start : start + PIECE] for start in range(0, len(whole), PIECE)]


def cost(whole):
    """Return microseconds of CPU a character: (as it grows, as a whole)."""
    growth, began = Growth(), time.process_time()
    for piece in pieces(whole):
        growth.feed(piece)
    grown = time.process_time()
    render(whole)
    return [1e6 * spent / len(whole) for spent in (grown - began, time.process_time() - grown)]


def longest_pause(provider, ada, whole):
    """Return the longest time (s) between two frames of a reply beside one that says `whole`."""
    other, hostile = Tab(ada, ada.new_chat()), Tab(ada, ada.new_chat())
    steady = provider.reply(when="other")
    for number in range(200):
        steady.says(f"w{number} ").pauses(0.02)
    half = len(whole) // 2
    provider.reply(when="hostile").says(*pieces(whole[:half]), whole[half:])
    send(other, "other")
    other.wait_for_words("w20")
    # Its frames arrive; to swap them in would take the time of this process.
    send(hostile, "hostile")
    other.wait_for_status("complete", timeout=60)
    hostile.socket.close()
    frames = zip(other.socket.times, other.socket.frames, strict=True)
    return max(after - before for before, after in pairwise(at for at, f in frames if f[0] == "{"))


def main():
    with closing(Provider()) as provider, closing(Stack(provider.url)) as stack:
        stack.start()
        ada = stack.signup("Ada")
        print(f"{'':26}{'grown: 1k 10k 100k us':>26}{'whole: 1k 10k 100k us':>26}{'pause':>9}")
        for name in sys.argv[1:] or TEXTS:
            run = TEXTS[name]
            grown, whole = zip(*(cost(text(run, length)) for length in LENGTHS), strict=True)
            pause = longest_pause(provider, ada, text(run, LENGTHS[-1]))
            figures = "".join(f"{figure:8.1f}" for figure in (*grown, *whole))
            print(f"{name:28}{figures}{1000 * pause:8.0f} ms", flush=True)


if __name__ == "__main__":
    main()
