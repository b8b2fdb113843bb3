"""The words around what was found, and which of them it was. For the search alone."""

import re
import unicodedata

from markupsafe import Markup, escape

BEFORE, LENGTH = 50, 160  # characters
# Scripts that are written without spaces; and Korean, whose words have endings of all kinds.
CLOSE = "฀-໿က-႟ក-៿々-〇ぁ-ヿ㐀-鿿가-힣豈-﫿ｦ-ﾟ"
# A letter or digit, as \w has it, without the underscore.
LETTER = r"[^\W_]"


def plain_letters(*ranges):
    """Return the table by which `str.translate` drops cases and accents, but no character."""
    letters = (chr(code) for first, last in ranges for code in range(first, last))
    plain = {letter: unicodedata.normalize("NFD", letter)[0].lower() for letter in letters}
    return {ord(letter): small for letter, small in plain.items() if len(small) == 1}


PLAIN = plain_letters((0x41, 0x5B), (0xC0, 0x250), (0x370, 0x590), (0x1E00, 0x2000))


def snippet(content: str, terms: list[list[str]]) -> Markup:
    """Return what stands around the first of the terms in a text, as one line; they are marked.

    A term is a list of words that follow each other; the last may be the beginning of one.
    """
    pattern, plain = re.compile("|".join(map(pattern_of, terms))), content.translate(PLAIN)
    first = pattern.search(plain)
    start = beginning(content, first.start()) if first else 0
    end = min(len(content), start + LENGTH)
    line, at = Markup("…" if start else ""), start
    for match in pattern.finditer(plain, start, end):
        found = one_line(content[match.start() : match.end()])
        line += one_line(content[at : match.start()]) + Markup("<mark>{}</mark>").format(found)
        at = match.end()
    return line + one_line(content[at:end]) + ("…" if end < len(content) else "")


def pattern_of(words):
    words = [word.translate(PLAIN) for word in words]
    begins = "" if re.match(f"[{CLOSE}]", words[0]) else f"(?<!{LETTER})"
    return begins + r"[\W_]+".join(map(re.escape, words))


def beginning(content, match):
    """Return where to begin: at a word, not too far before the match."""
    start = max(0, match - BEFORE)
    space = content.find(" ", start, match) if start else -1
    return space + 1 or start


def one_line(text):
    return escape(re.sub(r"\s+", " ", text))
