"""How math is written, whole and half: what the parser and a growing message look for."""

import re

from chattable.markdown.characters import CARET, COMBINING, LETTER, UNSPACED
from chattable.markdown.latex import TEXT_WITH_MATH


def parse_math(parser, match, state):
    groups = [group for group in match.groupdict().items() if group[1] and "math_" in group[0]]
    name, latex = next(group for group in groups if group[0][-1].isdigit())
    if len(match[0]) > LONGEST_MATH:
        return None
    if name == "math_4" and PRICE.match(latex):
        return None
    if name == "math_6" and not SPACED_MATH.match(latex):
        return None
    display = name[-1] in "12" or name == "block_math_5"
    kind = "block_math" if name.startswith("block") else "math"
    state.append_token({"type": kind, "raw": latex.strip(), "attrs": {"display": display}})
    return match.end()


ENVIRONMENT = (
    r"(?:equation|displaymath|eqnarray|multline|split|array|[dr]?cases|gather(?:ed)?"
    r"|(?:fl)?align(?:at|ed|edat)?|(?:[pbBvV]|small)?matrix)\*?"
)
# Scripts whose prefixes and suffixes are written right beside a formula: Hebrew and Arabic.
PREFIXING = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"
IN_WORD = rf"(?:(?![{UNSPACED}_]|(?!\d)[{PREFIXING}])[\w{COMBINING}])"
BEFORE_MATH, AFTER_MATH = rf"(?<!{IN_WORD})(?<![^\W_]_)", rf"(?!{IN_WORD}|\$|_++[^\W_])"
# The end of $math$: no letter follows, but for the end of a word: the $n$th of the $x_i$s, $25$C.
MATH_END = (
    rf"\$(?:{AFTER_MATH}|(?<=[\w}})\]]\$)(?=(?:ths?|st|nd|rd|e?s|[CFK])"
    rf"(?:{CARET}|(?!{LETTER}))|[tnre]{CARET}))"
)
UNBROKEN = r"\\?\n(?![ \t]*\n)"  # by a blank line
WORD_LETTER = rf"(?:[^\W\d_{CARET}]|[{COMBINING}])"
TWO_LETTERS = rf"(?<!{WORD_LETTER}){WORD_LETTER}{{2,}}+"
IN_PROSE = rf"[\w{COMBINING} \t.,:;!?'’\"-]*?"
# What a line begins with that is no formula: another block, or a few words; or it is words only.
NO_FORMULA = (
    rf"[ \t]*+(?:#{{1,6}}[ \t]|`{{3}}|~{{3}}|-{{3}}|\*\*|</?[A-Za-z]|>[ \t]*{WORD_LETTER}{{2}}"
    rf"|(?:[-+*]|\d{{1,9}}[.)])[ \t]+(?:\*\*|{WORD_LETTER}{{3}})"
    rf"|(?:[^\\{{\n]*?[ \t(])??{TWO_LETTERS}(?:[ \t,]+{TWO_LETTERS}){{2}}"
    rf"|[^\\{{\n]*?[{UNSPACED}]{{6}}"
    rf"|(?={IN_PROSE}{WORD_LETTER}{{3}}){IN_PROSE}(?:$|{CARET}))"
)
IN_PARTS = rf"\\?\n(?:(?![ \t]*\n)|(?:[ \t]*+\n)++(?!{NO_FORMULA}))"  # with blank lines, too


def _display(prefix, newline, end=None):
    """Return the pattern of display math in several lines, or of its beginning, up to an end.

    What opens math cannot be inside it, or each that is never closed is looked through anew.
    """
    name = rf"\{{(?P={prefix}name)\}}"
    return (
        rf"\$\$(?!\s*+\$\$)(?P<{prefix}1>(?:{TEXT_WITH_MATH}|\\.|[^$\\\n]|{newline}){{1,4000}})"
        + (end or r"\$\$")
        + rf"|\\\[(?!\s*+\\\])(?P<{prefix}2>(?:[^\\\n]|\\[^][\n]|{newline}){{1,4000}})"
        + (end or r"\\\]")
        + rf"|(?P<{prefix}5>\\begin\{{(?P<{prefix}name>{ENVIRONMENT})\}}"
        + rf"(?:[^\\\n]|\\(?!(?:begin|end){name})[^\n]|{newline}){{1,4000}}"
        + (end or rf"\\end{name}")
        + ")"
    )


LONGEST_MATH = 8000  # characters of a block
BLOCK_MATH = r"^ {0,3}(?:" + _display("block_math_", IN_PARTS) + rf")[ \t]*(?:\n|{CARET}?\n?\Z)"
INLINE_MATH = (
    _display("math_", UNBROKEN)
    + r"|\\\((?P<math_3>(?:[^\\\n]|\\[^()\n]){1,1000})\\\)"
    + r"|(?<![$\\])\$`(?P<math_7>[^`\n]{1,1000})`\$(?!\$)"  # as GitHub has it
    + rf"|{BEFORE_MATH}(?<![$\\])\$(?![\s$`])(?P<math_4>(?:\\.|[^$\\\n]){{1,500}})(?<!\s)"
    + MATH_END
    + rf"|{BEFORE_MATH}(?<![$\\])(?<!\d )\$(?P<math_6> (?:\\.|[^$\\\n]){{1,500}} )"
    + rf"\${AFTER_MATH}"
)
# "a $ b $ c": dollars; "$ \pi $", "$ x = 5 $": math
SPACED_MATH = re.compile(r".*\\[A-Za-z]|(?!.*[A-Za-z]{2})(?! *[=<>]).*[=<>^_]")
# "$5 (US$)": money, not math; "$5 \text{ km}$", "$2ab + cd$": math
PRICE = re.compile(
    rf"(?!.*(?:\\[A-Za-z]|[{{}}]))\d.*?"
    rf"(?:(?<![\\{{a-zA-Z0-9^_*+=])(?<![+=*<>-] )[A-Za-z]{{2}}|[{UNSPACED}])"
)
FLUSH_MATH = re.compile(BLOCK_MATH.replace(" {0,3}", "", 1), re.M)
WHOLE_MATH = re.compile(BLOCK_MATH, re.M)
HALF_MATH = re.compile(" {0,3}(?:" + _display("half_", IN_PARTS, r"\Z") + ")", re.M)
MATH_START = re.compile(rf" {{0,3}}(?:\$\$(?!\$)|\\\[|\\begin\{{{ENVIRONMENT}\}})")
