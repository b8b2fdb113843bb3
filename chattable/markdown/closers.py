"""What closes the markup that is half open at the end of a text. Only growth comes in."""

import re
from bisect import bisect_left
from functools import lru_cache

from chattable.markdown.bounds import DEEPEST
from chattable.markdown.characters import CARET, UNSPACED
from chattable.markdown.emphasis import flanks, flanks_mark
from chattable.markdown.math import AFTER_MATH, BEFORE_MATH, ENVIRONMENT, MATH_END
from chattable.markdown.tables import cells_of
from chattable.markdown.tags import HARMLESS, SUMMARY_TAG

BLOCK_START = re.compile(r"\n[ \t>]*(?:\n|[-+*][ \t]|\d{1,9}[.)][ \t]|#{1,6} )")
INLINE = re.compile(
    rf"(?=[\\<`*_~=$])(?:\\begin\{{{ENVIRONMENT}\}}|</?{HARMLESS}>|\\.|`+|\*+|_+|~~|==|\$\$"
    rf"|(?<!\$)\$`(?!`)|{BEFORE_MATH}(?<!\$)\$(?![\s\d$`]|[A-Za-z]{{2}})"
    rf"|{BEFORE_MATH}(?<![\d$])(?<!\d )\$ (?=\\[A-Za-z]))",
    re.S,
)
INLINE_IN_SUMMARY = re.compile(rf"</?{SUMMARY_TAG}>|{INLINE.pattern}", re.S)
MATH_ENDS = {
    "$": rf"(?<![\s\\]){MATH_END}|\n",
    "$ ": rf" \${AFTER_MATH}|\n",
    "$$": r"\$\$",
    "$`": r"`\$|\n",
    "\\(": r"\\\)|\n",
    "\\[": r"\\\]",
}
MATH_BEGINS = re.compile(
    rf"^[ \t>]*(?:(?:[-+*]|\d{{1,9}}[.)])[ \t]+)*(\$\$(?!\$)|\\\[|\\begin(\{{{ENVIRONMENT}\}}))",
    re.M,
)
MATH_CLOSERS = {"$ ": " $", "$`": "`$", "\\(": r"\)", "\\[": r"\]"}
WORD_START = re.compile(rf"[{UNSPACED}]{{2}}|(?<!\S)[^\s{UNSPACED}]")
MATH_WORDS = re.compile(r"(?<![\\{a-zA-Z])[A-Za-z]{2,}\s+[A-Za-z]{2,}")
# Words after which what was taken for the beginning of markup, and has no end, is not any more.
PATIENT = {
    "$": 1,
    "$ ": 3,
    "$$": 3,
    "$`": 3,
    "\\(": 3,
    "\\[": 3,
    "**": 10,
    "~~": 10,
    "==": 10,
    "<mark>": 10,
    "<u>": 10,
    "<b>": 20,
    "<strong>": 20,
}
FEW = 6


def closers(text, kind):
    """Return what closes the markup that is open at the end of a region of some kind."""
    lower = text.lower() if kind == "details" else ""
    in_summary = lower.rfind("<summary>") > lower.rfind("</summary>")
    closing = inline_closers(text, INLINE_IN_SUMMARY if in_summary else INLINE)
    if kind == "table" and "\n" not in text:
        closing += _delimiter_row(text)
    return closing + "</summary>" if in_summary else closing


def _delimiter_row(head):
    """Return the row that makes a line the head of a table, while its cells may be such."""
    cells = cells_of(head + CARET)
    hoped = all(_words_from(0, cell) <= FEW for cell in cells)
    return "\n|" + "-|" * len(cells) if hoped else ""


def inline_closers(text, inline=INLINE):
    """Return what closes the inline markup that is open at the end of Markdown."""
    stack, unending, position = [], set(), _last_block(text)
    while match := inline.search(text, position):
        run, position = match.group(), match.end()
        if run[0] == "`" or run in MATH_ENDS or run.startswith("\\begin"):
            if run not in unending and (end := _end(run).search(text, position)):
                position = end.end()
            elif _is_hoped(run, position, text):
                stack.append((run, position))
                break
            else:
                unending.add(run)
        elif run[0] == "<":
            _toggle_tag(stack, run, position)
        elif run[0] not in "\\$":
            _toggle(stack, match)
    return "".join(_closer(mark) for mark, at in reversed(stack) if _is_hoped(mark, at, text))


def _last_block(text):
    """Return where the last block begins, or display math that may have begun before it."""
    after = 0
    while math := MATH_BEGINS.search(text, after):
        ends = MATH_ENDS.get(math[1]) or rf"\\end{re.escape(math[2])}"
        end = re.compile(ends).search(text, math.end())
        if not end and _is_hoped(math[1], math.end(1), text):
            return math.start(1)
        after = end.end() if end else math.end()
    return max((match.end() for match in BLOCK_START.finditer(text, after)), default=after)


@lru_cache
def _end(mark):
    """Return the pattern of what ends code or math that a mark begins."""
    return re.compile(MATH_ENDS.get(mark, rf"(?<!`){re.escape(_closer(mark))}(?!`)"))


def _closer(mark):
    return MATH_CLOSERS.get(mark) or mark.replace("\\begin", "\\end").replace("<", "</")


def _toggle_tag(stack, tag, position):
    opening = tag.replace("/", "")
    if tag == opening:
        stack.append((tag, position))
    elif any(mark == opening for mark, _ in stack):
        while stack.pop()[0] != opening:
            pass


def _toggle(stack, match):
    """Close or open emphasis on the stack of (mark, where it ends), as a run of marks does."""
    run, text = match.group(), match.string
    before = text[match.start() - 1 : match.start()] or " "
    after = text[match.end() : match.end() + 1] or CARET
    opens, closes = flanks(run, before, after) if run[0] in "*_" else (True, True)
    if run == "==":
        opens, closes = flanks_mark(before, after)
    while run and closes and not before.isspace() and any(mark[0] == run[0] for mark, _ in stack):
        while (opener := stack.pop()[0])[0] != run[0]:
            pass
        run = run[len(opener) :]
    if run and opens and not after.isspace() and len(stack) < DEEPEST:
        marks = [run[0]] if len(run) == 1 else [run[:2], run[0]] if len(run) == 3 else [run[:2]]
        stack += [(mark, match.end()) for mark in marks]


def _is_hoped(mark, position, text):
    """Tell whether the end of markup may still come: only a few words have since it began."""
    if mark[0] in "\\$":
        return _words_from(position, text, MATH_WORDS) < PATIENT.get(mark, 20)
    return _words_from(position, text) <= PATIENT.get(mark, FEW)


def _words_from(position, text, pattern=WORD_START):
    starts = _starts(pattern, text)
    return len(starts) - bisect_left(starts, position)


@lru_cache(maxsize=4)
def _starts(pattern, text):
    return [match.start() for match in pattern.finditer(text)]
