"""Blocks of code: colour them, and read what their fences say. The renderer comes in."""

import re
from functools import lru_cache

import pygments
from mistune.util import escape
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from chattable.markdown.bounds import in_time

# Characters of code, and of a line of it, beyond which it is not coloured.
COLOURED, WIDE = 100_000, 1_000
# Seconds of CPU that colouring may take, in all and for each character: several times the usual,
# but some lexers can be made to take minutes, and every other reply would wait.
PATIENCE, PATIENCE_EACH = 0.2, 10e-6
SPANS = HtmlFormatter(nowrap=True)
# Lines that a browser lays out together: when one is written, it leaves the others.
GROUP = 20


@lru_cache(maxsize=64)
def coloured(code, language):
    """Colour code by Pygments' short classes; what it does not know, or is slow at, stays plain."""
    plain = escape(code, quote=False)
    lexer = lexer_of(language)
    if not lexer or len(code) > COLOURED or max(map(len, code.split("\n"))) > WIDE:
        return plain
    try:
        tokens = in_time(pygments.lex(code, lexer), patience(len(code)))
        return grouped(pygments.format(tokens, SPANS))
    except TimeoutError:
        return plain


def grouped(lines, first=0):
    """Put coloured lines into groups, but for the first ones, which most code does not go beyond.

    `first` is how many lines come before; a group that those have opened is closed with the rest.
    """
    parts = []
    for number, line in enumerate(re.findall(r"[^\n]*+\n|[^\n]++", lines), first):
        if number and number % GROUP == 0:
            parts.append("</span>" * (number > GROUP) + '<span class="lines">')
        parts.append(line)
    return "".join(parts) + "</span>" * (first + lines.count("\n") > GROUP)


def patience(length):
    return PATIENCE + PATIENCE_EACH * length


def lexer_of(language):
    """Return Pygments' lexer of a language; None if it knows none."""
    try:
        return get_lexer_by_name(language, stripnl=False) if language else None
    except ClassNotFound:
        return None


INFO = re.compile(r"(?:\{\s*\.?)?([^\s:{}=,]*)(?::([^\s{}]+))?")
INFO_FILE = re.compile(r"\b(?:title|file|filename|path)=(?:\"([^\"]+)\"|'([^']+)'|([^\s\"'{}]+))")


def language_and_file(info):
    """Return what a fence says: of "python:app.py", "{.python}", "js{1,3}", "py title=app.py"."""
    language, file = next(INFO.finditer(info.strip())).groups()
    named = INFO_FILE.search(info)
    return language, file or named and next(filter(None, named.groups()))
