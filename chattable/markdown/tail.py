"""The end of a text that still grows: what the next characters may change. Growth comes in."""

import re

from chattable.markdown.characters import LETTER, UNSPACED
from chattable.markdown.links import HALF_LINK, HOST_LETTER, IN_URL

# Possessive: neighbours that match the same character would try every way to share a run of it.
UNDECIDED = re.compile(
    r"(?:[ \t>]|(?:[-+*]|\d{1,9}+[.)])[ \t])*+"
    r"(?:[-=_*:|][-=_*:| \t]*+$|(?:\+|\d{1,9}+[.)]?|#{1,6}+|`{1,2}+(?!`)|`{3,}+[^`\n]*+"
    r"|~{1,2}+(?!~)|~{3}[^\n]*+|\$\$?+|\\\[?+|\\[begin]{1,5}(?:\{[a-zA-Z]*+\*?\}?)?"
    r"|<(?i:[details]{0,7}(?: [open]{0,4}+)?>?|[sumary]{1,7})"
    r"|\[(?!\^)[^\[\]\n]{1,99}\]:[ \t]*+\S*+(?:[ \t]++[\"'(][^\n]{0,100}+)?)?"
    r"[ \t]*+$)"
)
HELD_CODE = re.compile(r"[ \t]*+(?:`*+|~*+)[ \t]*+$")
DELIMITERS = " \t\n*_~=`$!\\|<&"
# The first test is cheap and fails at most characters; those that look back are dear.
TAIL = re.compile(
    r"(?=[&<!\[HhWw])(?:&#?\w{0,31}|<[A-Za-z][\w+.-]{0,31}(?::[^\s<>]{0,200})?"
    r"|(?i:</[a-z]{0,8}|<br ?/?)"
    r"|!?\[(?=.{0,80}$)(?:[^\s\[\]]++ ?){0,6}+(?:\](?:\[[^\[\]\n]{0,80}+)?)?"
    rf"|(?<!{LETTER})(?:(?i:h|ht|htt|https?|https?:|https?:/)|w|ww|www"
    rf"|(?i:https?)://(?:(?:www\.)?(?=[{UNSPACED}])(?:{HOST_LETTER}|\.){{1,99}}+)?{IN_URL}*+|www\.{IN_URL}*+))$"
)
WORD = re.compile(rf"(?=[HhWw])(?<!{LETTER})(?:(?i:h|ht|htt|https?:?)|w|ww|www)\.?/?$")
NAME = re.compile(r"(?<=>)[ \t]*+\[!\w{3,9}\]$")  # of a note, whose text is still to come
HALF = re.compile(
    r"(\[[^\[\]\n]{1,300}\])\((?:[^\s()]|\([^\s()]*\)){0,2000}+(?:\s++[\"'][^\"'\n]{0,100}+[\"']?)?$"
)
ACTIVE = re.compile(r"[^\S ]|[\\`*_~=$!<>&|\[\]#]")
WORD_END = re.compile(rf"[\s{UNSPACED}]")


def without_tail(source, in_paragraph):
    """Return the source without the tail that the next characters may change."""
    text = source.rstrip(DELIMITERS)
    if tail := TAIL.search(text[-260:]):
        text = text[: len(text) - len(tail.group())].rstrip(DELIMITERS)
    start = text.rfind("\n") + 1
    if UNDECIDED.match(text, start) and (start or not in_paragraph):
        text = text[:start].rstrip(DELIMITERS)
        if name := NAME.search(text, max(0, start - 30)):
            text = text[: name.start()]
    return text


def with_whole_link(text):
    """Return the text with a link where one with half an address ends it; None if none does."""
    half = HALF.search(text[-2500:])
    if not half:
        return None
    return text[: len(text) - len(half.group()) + len(half[1])] + f"({HALF_LINK})"
