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


@lru_cache(maxsize=64)
def coloured(code, language):
    """Colour code by Pygments' short classes; what it does not know, or is slow at, stays plain."""
    plain = escape(code, quote=False)
    if not language or len(code) > COLOURED or max(map(len, code.split("\n"))) > WIDE:
        return plain
    try:
        tokens = pygments.lex(code, get_lexer_by_name(language, stripnl=False))
        tokens = in_time(tokens, PATIENCE + PATIENCE_EACH * len(code))
        return pygments.format(tokens, SPANS)
    except (ClassNotFound, TimeoutError):
        return plain


INFO = re.compile(r"(?:\{\s*\.?)?([^\s:{}=,]*)(?::([^\s{}]+))?")
INFO_FILE = re.compile(r"\b(?:title|file|filename|path)=(?:\"([^\"]+)\"|'([^']+)'|([^\s\"'{}]+))")


def language_and_file(info):
    """Return what a fence says: of "python:app.py", "{.python}", "js{1,3}", "py title=app.py"."""
    language, file = next(INFO.finditer(info.strip())).groups()
    named = INFO_FILE.search(info)
    return language, file or named and next(filter(None, named.groups()))
