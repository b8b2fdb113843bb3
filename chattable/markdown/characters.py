"""Characters of every script: which make up words. The lowest room: all others may come in."""

import re
import unicodedata
from functools import lru_cache
from itertools import groupby

CARET = "\ua7f7"  # a rare letter: stands where the next character of a growing message will go
# Scripts written without spaces, with their punctuation: a sentence goes on where a word, a link
# or a formula ends. Thai to Burmese, Khmer, Hangul, Chinese and Japanese, and rare ones beside.
UNSPACED = (
    "\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u2e80-\ua4cf\ua960-\ua97f"
    "\ua9e0-\ua9ff\uaa60-\uaadf\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
    "\U00016fe0-\U00018dff\U0001aff0-\U0001b2ff\U0001f200-\U0001f2ff\U00020000-\U0003ffff"
)
WITHIN_TEXT = re.compile(f"[{UNSPACED}]")


def _ranges(characters):
    """Return what stands in brackets of a pattern for these: half the text, half the time."""
    for _, run in groupby(enumerate(characters), lambda numbered: ord(numbered[1]) - numbered[0]):
        (_, first), *_, (_, last) = [*run] * 2
        yield first if first == last else f"{first}-{last}"


# Marks on the letters before them, or between them: no letters to `re`. They end below U+1F000, and
# what picks a form of emoji is none.
COMBINING = "\u200c\u200d" + "".join(
    _ranges(
        mark
        for mark in map(chr, range(0x300, 0x1F000))
        if unicodedata.category(mark) in ("Mn", "Mc") and not "\ufe00" <= mark <= "\ufe0f"
    )
)
# A letter or a digit, in a script with spaces between words.
LETTER = rf"(?:(?![{UNSPACED}])[\w{COMBINING}])"


@lru_cache(maxsize=4096)
def kind_of(character):
    """Return what a character is beside marks of emphasis."""
    if character.isspace():
        return "space"
    if WITHIN_TEXT.match(character):
        return "unspaced"
    return "punctuation" if unicodedata.category(character)[0] in "PS" else "word"
