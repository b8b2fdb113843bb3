"""Turn Markdown into safe HTML: a whole message (`render`) or one that is still growing (`Growth`).

The Markdown is CommonMark with tables, ~~strikethrough~~, ==mark==, task lists, bare links and
LaTeX math. A newline in a paragraph is a line break, as in most chats. `_x_` is emphasis, as
CommonMark has it (Redcarpet's underline is deliberately not taken). Raw HTML is never passed
through; a few harmless tags without attributes (<br>, <sub>, <details> and the like; <details open>
alone may have one) are read as if they were Markdown, all others are shown as text. Images are
links (a loaded image would tell its host what is being read), links go to http, https and mailto
only, and no style attribute is written. No whitespace is written between blocks, and a list item
looks the same in a tight and a loose list, so that what is shown of a growing message need not
change when more of it arrives.
"""

import html
import re
import time
import unicodedata
from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

import mistune
import pygments
from latex2mathml.converter import Converter
from markupsafe import Markup
from mistune.core import token_depth
from mistune.plugins.formatting import parse_mark, render_mark, strikethrough
from mistune.plugins.task_lists import task_lists
from mistune.util import escape, escape_url, unescape
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

CARET = "\ua7f7"  # a rare letter: stands where the next character of a growing message will go
HALF_LINK = "about:half"  # the address of a link whose address is still arriving
HALF_ADDRESS = re.compile(f"{CARET}|{escape_url(CARET)}")  # in one that was not known for half
COLOURED, WIDE = (
    100_000,
    1_000,
)  # characters of code, and of a line of it, beyond which it is not coloured
# Seconds of CPU that colouring may take, in all and for each character: several times the usual,
# but some lexers can be made to take minutes, and every other reply would wait.
PATIENCE, PATIENCE_EACH = 0.2, 10e-6


# A table with more columns is text, and a short row gets no more empty cells, or a few characters
# could make a page of any size.
COLUMNS, EMPTY_CELLS = 100, 20
DEEPEST = 20  # levels of markup within markup, as mistune has it
# Steps of work, about ten microseconds each, and seconds of it, after which others get a turn.
STEPS, TURN = 1_000, 0.01
NO_TIME = 1e-6  # 0 would let other greenlets run, but not look what has arrived for them


def render(text: str) -> Markup:
    """Render a whole message as safe HTML; what cannot be parsed is shown as it was written."""
    text = text.replace("\r", "")
    try:
        return Markup(_markdown(text)(text))
    except RecursionError:
        return Markup(f"<pre>{escape(text, quote=False)}</pre>")


# --- Rules of the Markdown dialect

# Scripts written without spaces, with their punctuation: a sentence goes on where a word, a link
# or a formula ends. Thai to Burmese, Khmer, Hangul, Chinese and Japanese, and rare ones beside.
UNSPACED = (
    "\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u2e80-\ua4cf\ua960-\ua97f"
    "\ua9e0-\ua9ff\uaa60-\uaadf\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
    "\U00016fe0-\U00018dff\U0001aff0-\U0001b2ff\U0001f200-\U0001f2ff\U00020000-\U0003ffff"
)
WITHIN_TEXT = re.compile(f"[{UNSPACED}]")
# Marks on the letters before them, or between them: no letters to `re`. They end below U+1F000, and
# what picks a form of emoji is none.
COMBINING = "\u200c\u200d" + "".join(
    mark
    for mark in map(chr, range(0x300, 0x1F000))
    if unicodedata.category(mark) in ("Mn", "Mc") and not "\ufe00" <= mark <= "\ufe0f"
)
# A letter or a digit, in a script with spaces between words.
LETTER = rf"(?:(?![{UNSPACED}])[\w{COMBINING}])"
LINK = re.compile(r"(?:https?://|mailto:)[^\s]", re.I)
BRACKETED = re.compile(r"(https?://)%5B([\dA-F:.]+)%5D", re.I)  # as mistune writes IPv6 hosts
IN_URL = rf"(?:{LETTER}|[-.~:/?#\[\]@!$&'()*+,;=%])"
HOST_LETTER = rf"[\w{COMBINING}-]"
HOST = (
    rf"(?P<url_bracketed>\[[\dA-Fa-f:.]{{2,45}}+\])"
    rf"|(?:www\.)?(?=[{UNSPACED}]){HOST_LETTER}{{1,63}}+(?:\.{HOST_LETTER}{{1,63}}+(?=\.)){{0,9}}+"
    rf"\.(?:{LETTER}{{1,63}}+|{HOST_LETTER}{{1,63}}+)|{LETTER}"
)
URL = rf"(?<!{LETTER})(?<![/@.-])(?:(?i:https?)://|www\.)(?:{HOST}){IN_URL}{{0,2000}}+"
URL_END = "?!.,:;*_~'])"
TABLE = (
    r"^ {0,3}(?P<table_head>(?=[^\n]*\|)[^\n]*)\n"
    r" {0,3}(?P<table_aligns>\|?[ \t]*:?-[-:| \t]*)(?:\n|$)"
)
ALIGN = re.compile(r":?-+:?")
CELL_CODE = re.compile(r"(?<!`)(`{1,3}+)(?!`).{1,1000}?(?<!`)\1(?!`)")
THEMATIC_BREAK = r"^ {0,3}(?:(?:-[ \t]*+){3,}+|(?:_[ \t]*+){3,}+|(?:\*[ \t]*+){3,}+)$"
HARMLESS = r"(?i:sub|sup|kbd|mark|u)"
SUMMARY_TAG = r"(?i:b|strong|i|em|code)"  # instead of Markdown, which GitHub does not read there
TAGS = (
    rf"<(?:(?P<html_break>[Bb][Rr])[ \t]?/?|(?P<html_tag>{HARMLESS})"
    rf"|(?P<summary_tag>{SUMMARY_TAG}))>"
)
MEANT = {"b": "strong", "i": "em"}
DETAILS = (
    r"^ {0,3}(?i:<details(?P<opened> open)?>)[ \t]*+(?:\n[ \t]*+){0,3}+"
    r"(?i:<summary>(?P<summary>(?:(?!</?summary>|\n[ \t]*+\n)[\s\S]){0,1000}+)</summary>)"
)
DETAILS_EDGE = re.compile(
    r"^ {0,3}(?P<opens><details(?: open)?>)|</details>[ \t]*$"
    r"|(?:^|</summary>)[ \t]*+(?P<fence>`{3,}+|~{3,}+)(?P<info>[^`\n]*)$",
    re.M | re.I,
)
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
IN_TEXT = r"(?:\\.|[^{}$\\\n]|\{[^{}$\n]*+\})*+"
TEXT_WITH_MATH = rf"\\(?:text|mbox)\{{(?:{IN_TEXT}\${IN_TEXT}\$)++{IN_TEXT}\}}"
UNBROKEN = r"\\?\n(?![ \t]*\n)"  # by a blank line
WORD_LETTER = rf"(?:[^\W\d_{CARET}]|[{COMBINING}])"
TWO_LETTERS = rf"(?<!{WORD_LETTER}){WORD_LETTER}{{2,}}+"
IN_PROSE = rf"[\w{COMBINING} \t.,:;!?'’\"-]*?"
# What a line begins with that is no formula: another block, or a few words; or it is words only.
PROSE = (
    rf"[ \t]*+(?:#{{1,6}}[ \t]|`{{3}}|~{{3}}|-{{3}}|\*\*|</?[A-Za-z]|>[ \t]*{WORD_LETTER}{{2}}"
    rf"|(?:[-+*]|\d{{1,9}}[.)])[ \t]+(?:\*\*|{WORD_LETTER}{{3}})"
    rf"|(?:[^\\{{\n]*?[ \t(])??{TWO_LETTERS}(?:[ \t,]+{TWO_LETTERS}){{2}}"
    rf"|[^\\{{\n]*?[{UNSPACED}]{{6}}"
    rf"|(?={IN_PROSE}{WORD_LETTER}{{3}}){IN_PROSE}(?:$|{CARET}))"
)
IN_PARTS = rf"\\?\n(?:(?![ \t]*\n)|(?:[ \t]*+\n)++(?!{PROSE}))"  # with blank lines, too


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


PROSE = ' dir="auto"'  # written in either direction, as its first letter is
FOREIGN = ' dir="ltr"'  # whatever is written around it, whose direction it says nothing about


def _wrapped(tag, attributes=""):
    # A block takes its direction from text in it that has none of its own.
    return lambda self, text: f"<{tag}{attributes}>{text.replace('<p' + PROSE, '<p')}</{tag}>"


_steps = 0


def _step(count=1):
    """Count the work of this process, and let its other greenlets (or threads) go on in between."""
    global _steps
    _steps += count
    if _steps > STEPS:
        _steps = 0
        time.sleep(NO_TIME)


class Renderer(mistune.HTMLRenderer):
    """Write the HTML: nothing between blocks, no inline style, no foreign content."""

    def iter_tokens(self, tokens, state):
        for token in tokens:
            _step()
            yield self.render_token(token, state)

    paragraph = block_text = _wrapped("p", PROSE)
    block_quote, list_item = _wrapped("blockquote", PROSE), _wrapped("li", PROSE)
    table, table_body, table_row = _wrapped("table", PROSE), _wrapped("tbody"), _wrapped("tr")

    def text(self, text):
        return escape(unescape(text), quote=False)

    def heading(self, text, level, **attrs):
        return f"<h{level}{PROSE}>{text}</h{level}>"

    def linebreak(self):
        return "<br>\n"

    softbreak = linebreak

    def thematic_break(self):
        return "<hr>"

    def list(self, text, ordered, start=None, **attrs):
        if not ordered:
            return f"<ul>{text}</ul>"
        # Numbers need room: of fifty items at least.
        first = "" if start is None else f' class="digits-{len(str(start + 50))}" start="{start}"'
        return f"<ol{first}>{text}</ol>"

    def task_list_item(self, text, checked=False):
        box = f'<input type="checkbox" disabled{" checked" * checked}> '
        item = self.list_item(text).replace("<li", '<li class="task"', 1)
        return item.replace("<p>", f"<p>{box}", 1)

    def block_code(self, code, info=None):
        # Where the caret is in a fence's info, it must not get into an attribute.
        language, file = _language_and_file((info or "").replace(CARET, ""))
        if language == "math" and len(code) <= LONGEST_MATH:
            return _mathml(code.strip(), display=True)
        body = escape(code, quote=False) if CARET in code else _coloured(code, language)
        button = '<button type="button" class="code__copy">Copy</button>'
        name = html.escape(file or language or "text")
        head = f'<div class="code__head"><span>{name}</span>{button}</div>'
        code = f'<code class="language-{html.escape(language or "text")}">{body}</code>'
        return f'<div class="code"{FOREIGN}>{head}<pre>{code}</pre></div>'

    def codespan(self, text):
        return f"<code{FOREIGN}>{escape(text, quote=False)}</code>"

    def link(self, text, url, title=None):
        text = re.sub(r"</?a\b[^>]*>", "", text)  # an image in a link would be a link in a link
        if url == HALF_LINK or HALF_ADDRESS.search(f"{url} {title}"):
            return f"<a>{text}</a>"
        if not LINK.match(url):
            return text
        title = f' title="{html.escape(title)}"' if title else ""
        url = BRACKETED.sub(r"\1[\2]", url)
        rel = 'rel="noopener noreferrer nofollow" target="_blank"'
        return f'<a href="{html.escape(url)}"{title} {rel}>{text}</a>'

    def image(self, text, url, title=None):
        return self.link(text or escape(url, quote=False), url, title)

    def html_tag(self, text, tag):
        return f"<{tag}>{text}</{tag}>"

    summary = _wrapped("summary", PROSE)

    def details(self, text, opened):
        return f"<details{' open' * opened}>{text}</details>"

    def math(self, latex, display):
        return _mathml(latex, display)

    def table_head(self, text):
        return f"<thead><tr>{text}</tr></thead>"

    def table_cell(self, text, align=None, head=False):
        tag = "th" if head else "td"
        return f'<{tag} class="align-{align}">{text}</{tag}>' if align else f"<{tag}>{text}</{tag}>"


INFO = re.compile(r"(?:\{\s*\.?)?([^\s:{}=,]*)(?::([^\s{}]+))?")
INFO_FILE = re.compile(r"\b(?:title|file|filename|path)=(?:\"([^\"]+)\"|'([^']+)'|([^\s\"'{}]+))")


def _language_and_file(info):
    """Return what a fence says: of "python:app.py", "{.python}", "js{1,3}", "py title=app.py"."""
    language, file = INFO.match(info.strip()).groups()
    named = INFO_FILE.search(info)
    return language, file or named and next(filter(None, named.groups()))


SPANS = HtmlFormatter(nowrap=True)


@lru_cache(maxsize=64)
def _coloured(code, language):
    """Colour code by Pygments' short classes; what it does not know, or is slow at, stays plain."""
    plain = escape(code, quote=False)
    if not language or len(code) > COLOURED or max(map(len, code.split("\n"))) > WIDE:
        return plain
    try:
        tokens = pygments.lex(code, get_lexer_by_name(language, stripnl=False))
        tokens = _in_time(tokens, PATIENCE + PATIENCE_EACH * len(code))
        return pygments.format(tokens, SPANS)
    except (ClassNotFound, TimeoutError):
        return plain


def _in_time(tokens, seconds):
    """Give tokens on, others a turn; raise TimeoutError when they have taken so much CPU."""
    spent, began = 0, time.thread_time()
    for token in tokens:
        taken = time.thread_time() - began
        if spent + taken > seconds:
            raise TimeoutError
        if taken > TURN:
            time.sleep(NO_TIME)
            spent, began = spent + taken, time.thread_time()
        yield token


MATH_ATTRIBUTES = set(
    "accent columnalign columnlines columnspacing depth display displaystyle fence form"
    " height largeop linebreak linethickness lspace mathbackground mathcolor mathsize"
    " mathvariant maxsize minsize movablelimits notation rowlines rowspacing rspace"
    " scriptlevel separator stretchy voffset width".split()
)


@lru_cache(maxsize=512)
def _mathml(latex, display):
    """Turn LaTeX into MathML; LaTeX that cannot be turned is shown as it was written."""
    try:
        if CARET in latex or re.search(
            r"\\(?:\w*def|\w*command|Declare)", latex
        ):  # macros can grow without bound
            raise ValueError(latex)
        converter = Converter(display="block" if display else "inline")
        return _written(converter.convert_to_element(_in_known_terms(latex)), latex)
    except Exception:  # the converter raises whatever its parser stumbles over
        return f'<code class="math">{escape(latex, quote=False)}</code>'


ARGUMENT = r"[ \t]*+\{((?:[^{}]|\{[^{}]*+\})*+)\}"
# What mhchem and siunitx write in short.
CHEMISTRY = (
    (re.compile(r"<=>>?|<<=>"), r"\\rightleftharpoons "),
    (re.compile(r"<--?>"), r"\\leftrightarrow "),
    (re.compile(r"->\[([^][]*)\]"), r"\\xrightarrow{\\mathrm{\1}} "),
    (re.compile(r"->"), r"\\rightarrow "),
    (re.compile(r"<-"), r"\\leftarrow "),
    (re.compile(r"(?<=[A-Za-z)\]])\d+"), r"_{\g<0>}"),
    (re.compile(r"\^(\d*[+-])"), r"^{\1}"),
    (re.compile(r"(?<=[A-Za-z)\]}])[+-](?=[\s)\]]|$)"), r"^{\g<0>}"),
    (re.compile(r"[*.] ?(?=\d*[A-Z])"), r"\\cdot "),
)
UNITS = dict(
    pair.split(":")
    for pair in "meter:m metre:m gram:g kilogram:kg second:s minute:min hour:h day:d ampere:A"
    " kelvin:K mole:mol candela:cd newton:N joule:J watt:W pascal:Pa hertz:Hz volt:V ohm:Ω farad:F"
    " coulomb:C tesla:T henry:H liter:L litre:L bar:bar electronvolt:eV degreeCelsius:°C celsius:°C"
    r" percent:\% degree:° pico:p nano:n micro:μ milli:m centi:c deci:d kilo:k mega:M giga:G tera:T"
    " per:/ squared:^{2} cubed:^{3}".split()
)


def _chemistry(match):
    formula = match[1]
    for short, known in CHEMISTRY:
        formula = short.sub(known, formula)
    return rf"\mathrm{{{formula}}}"


def _number(match):
    return re.sub(r"(?<=\d)[eE]([+-]?\d+)", r"\\times 10^{\1}", match[1])


def _unit(match):
    unit = re.sub(
        r"\\([A-Za-z]+) ?", lambda name: UNITS.get(name[1], name[0]), match[match.lastindex]
    )
    unit = unit.replace(".", r"\,").replace("~", r"\,")
    return rf"\mathrm{{{unit}}}"


def _quantity(match):
    return rf"{_number(match)}\,{_unit(match)}"


# What the converter does not know, in terms of what it does.
KNOWN_TERMS = (
    (re.compile(r"\\label\{[^{}]*\}|\\(?:nonumber|notag)\b"), ""),
    (re.compile(r"\\begin\{(?:aligned|gathered)\}\[[tbc]\]"), lambda match: match[0][:-3]),
    (re.compile(r"\\begin\{(?:fl)?align(?:ed)?at\*?\}\{\d\}"), r"\\begin{aligned}"),
    (
        re.compile(r"\\(begin|end)\{(?:aligned|flalign\*?|(?:fl)?align(?:ed)?at\*?)\}"),
        r"\\\1{align*}",
    ),
    (re.compile(r"\\begin\{eqnarray\*?\}"), r"\\begin{array}{rcl}"),
    (re.compile(r"\\begin\{(?:gather(?:ed)?|multline)\*?\}"), r"\\begin{array}{c}"),
    (re.compile(r"\\end\{(?:eqnarray|gather(?:ed)?|multline)\*?\}"), r"\\end{array}"),
    (re.compile(r"\\(begin|end)\{[dr]cases\*?\}"), r"\\\1{cases}"),
    (
        re.compile(r"\\operatorname\*?\{(\w+)(?:\\[,;: ]|[ ~])(\w+)\}"),
        "\\\\operatorname{\\1\u2006\\2}",
    ),
    (re.compile(r"(?<!\\)((?:\\\\)+)\*?[ \t]*+\[-?[\d.]+[ \t]*[a-z]{2}\]"), r"\1"),
    (re.compile(r"\\operatorname\*"), r"\\operatorname"),
    (re.compile(r"\\(arg|argmax|argmin)(?![A-Za-z])"), r"\\operatorname{\1}"),
    (re.compile(r"\\([RNZQC])(?![A-Za-z])"), r"\\mathbb{\1}"),
    (re.compile(rf"\\ce{ARGUMENT}"), _chemistry),
    (re.compile(rf"\\(?:SI|qty){ARGUMENT}{ARGUMENT}"), _quantity),
    (re.compile(rf"\\(?:si|unit){ARGUMENT}"), _unit),
    (re.compile(rf"\\num{ARGUMENT}"), _number),
    (re.compile(rf"\\abs{ARGUMENT}"), r"\\left|\1\\right|"),
    (re.compile(rf"\\norm{ARGUMENT}"), r"\\left\\|\1\\right\\|"),
)


def _apart(match):
    """Put the $math$ in a \\text{} between texts of their own."""
    command, _, text = match[0][:-1].partition("{")
    parts = enumerate(re.split(r"(?<!\\)\$", text))
    return "".join(f"{command * (number % 2 == 0)}{{{part}}}" for number, part in parts if part)


def _in_known_terms(latex):
    latex = re.sub(TEXT_WITH_MATH, _apart, latex)
    for term, known in KNOWN_TERMS:
        latex = term.sub(known, latex)
    return latex


UNKNOWN = re.compile(r"\\[A-Za-z]")  # a command that the converter took for a letter


def _written(math, latex):
    """Write a MathML tree, escaped and with harmless attributes only, and the TeX it says."""
    for element in math.iter():
        element.text = html.unescape(element.text or "")
        if element.tag == "mtext":
            element.text = re.sub(r"\\([%_$&#{}])", r"\1", element.text)
        if element.tag in ("mi", "mo") and UNKNOWN.match(element.text):
            raise ValueError(element.text)
        element.attrib = {
            name: value for name, value in element.attrib.items() if name in MATH_ATTRIBUTES
        }
    meaning = Element("semantics")
    meaning[:], math[:] = math[:], [meaning]
    SubElement(meaning, "annotation", encoding="application/x-tex").text = latex
    return tostring(math, encoding="unicode", short_empty_elements=False)


def _parse_math(parser, match, state):
    groups = [group for group in match.groupdict().items() if group[1] and "math_" in group[0]]
    name, latex = next(group for group in groups if group[0][-1].isdigit())
    if len(match[0]) > LONGEST_MATH:
        return None
    if name == "math_4" and PRICE.match(latex):
        return None
    if name == "math_6" and not SPACED_MATH.match(latex):
        return None
    display = name[-1] in "12" or name == "block_math_5"
    state.append_token({"type": "math", "raw": latex.strip(), "attrs": {"display": display}})
    return match.end()


def _parse_tag(inline, match, state):
    if match.group("html_break"):
        state.append_token({"type": "linebreak"})
        return match.end()
    tag = match.group("html_tag") or match.group("summary_tag")
    if match.group("summary_tag") and "in_summary" not in state.env:
        return None
    end = state.delimiters.find(f"</{tag}>", match.end())
    if end is None or state.depth >= inline.max_nested_level:
        return None
    inner = state.copy()
    inner.src = state.src[match.end() : end]
    children, name = inline.render(inner), MEANT.get(tag.lower(), tag.lower())
    state.append_token({"type": "html_tag", "children": children, "attrs": {"tag": name}})
    return end + len(f"</{tag}>")


class Summary(str):
    """The text of a summary, told from other text to read a few more tags in it."""

    def strip(self, *characters):
        return Summary(super().strip(*characters))


def _parse_details(block, match, state):
    """Take blocks up to the end of <details>, or all the rest, into it."""
    if state.depth() >= block.max_nested_level - 1:
        return None
    end = _details_end(state.src, match.start()) or state.cursor_max
    source = state.src[match.end() : end].rstrip()
    inner = state.child_state(source[: -len("</details>")] if _ends_details(source) else source)
    block.parse(inner, block.rules)
    summary = {"type": "summary", "text": Summary(match.group("summary"))}
    token = {"type": "details", "children": [summary, *inner.tokens]}
    state.append_token(token | {"attrs": {"opened": bool(match.group("opened"))}})
    return end


def _ends_details(text):
    return text[-len("</details>") :].lower() == "</details>"


def _details_end(source, start):
    """Return where <details> that begins there ends, and others in it before; None if nowhere."""
    depth, fence = 0, None
    for edge in DETAILS_EDGE.finditer(source, start):
        depth, fence = _beyond_edge(edge, depth, fence)
        if not depth:
            return edge.end() + 1
    return None


def _beyond_edge(edge, depth, fence):
    """Return how many <details> are open after an edge, and the fence that is.

    A fence is (its marks, whether it holds Markdown, how many are open in that).
    """
    marks, info = edge.group("fence", "info")
    if not fence:
        if marks:
            return depth, (marks, bool(MARKDOWN.match(info.strip())), 0)
        return depth + (1 if edge.group("opens") else -1), None
    if not marks or not (step := _fence_step(fence[0], marks, info)) or step > 0 and not fence[1]:
        return depth, fence
    inner = fence[2] + step
    return depth, None if inner < 0 else (*fence[:2], inner)


def _parse_url(inline, match, state):
    url = match.group("url_link")
    bracketed = max(0, match.end("url_bracketed") - match.start())
    host, url = url[:bracketed], url[bracketed:]
    if state.brackets:
        url = url.partition("]")[0]
    url = host + _without_end_of_sentence(url)
    if state.in_link or state.depth >= inline.max_nested_level:
        return None
    href = "https://" + url if url.startswith("www.") else url
    text = {"type": "text", "raw": url}
    token = {
        "type": "link",
        "children": [text],
        "attrs": {"url": escape_url(href)},
        "_autolink": url,
    }
    state.append_token(token)
    return match.start() + len(url)


def _without_end_of_sentence(url):
    """Cut punctuation off an address's end, but for brackets that were opened in it."""
    end, unopened = len(url.rstrip(URL_END)), url.count(")") - url.count("(")
    while (bracket := url.rfind(")", end)) >= 0 and unopened > 0:
        url, unopened = url[:bracket], unopened - 1
    return url[: bracket + 1] if bracket >= 0 else url[:end]


def _cells(line):
    """Split a table's row into the sources of its cells."""
    line = line.strip().removeprefix("|")
    cells = [""]
    for part in re.findall(r"\\.|\||[^|\\]+|\\", line):
        if part == "|":
            cells.append("")
        else:
            cells[-1] += part
    if not cells[-1].strip() and len(cells) > 1:
        cells.pop()
    return [CELL_CODE.sub(lambda code: code[0].replace(r"\|", "|"), cell.strip()) for cell in cells]


def _aligns(line):
    """Return the alignments that a delimiter row gives, or None if it is not one."""
    cells = _cells(line)
    if not all(ALIGN.fullmatch(cell) for cell in cells):
        return None
    names = {
        (True, True): "center",
        (True, False): "left",
        (False, True): "right",
        (False, False): None,
    }
    return [names[cell[0] == ":", cell[-1] == ":"] for cell in cells]


def _in_table(line, head):
    """Tell whether a line goes on with the table that the head begins."""
    return line.lstrip().startswith("|") if head.lstrip().startswith("|") else "|" in line


def _parse_table(block, match, state):
    head, aligns = match.group("table_head"), _aligns(match.group("table_aligns"))
    if aligns is None or len(aligns) != len(_cells(head)) or len(aligns) > COLUMNS:
        return None
    rows, end = [], match.end()
    while _in_table(line := state.get_line(end), head):
        rows.append(_row(line, aligns, "table_row"))
        end += len(line)
    children = [_row(head, aligns, "table_head"), {"type": "table_body", "children": rows}]
    state.append_token({"type": "table", "children": children})
    return end


def _row(line, aligns, kind):
    """Return a row's token with the table's number of cells, or fewer while it is written."""
    cells = _cells(line)
    if CARET not in line:
        cells += [""] * min(len(aligns) - len(cells), EMPTY_CELLS)
    children = [
        {
            "type": "table_cell",
            "text": cell,
            "attrs": {"align": align, "head": kind == "table_head"},
        }
        for cell, align in zip(cells, aligns, strict=False)
    ]
    return {"type": kind, "children": children}


def _dialect(md):
    """Set the rules: no HTML (its text is escaped like any other), tables, math, bare links."""
    md.block.specification |= {"block_html": r"(?!)", "thematic_break": THEMATIC_BREAK}
    # A footnote's note is no address: it and its mark are shown as they are written.
    definition = md.block.specification["ref_link"].replace(r"\[", r"\[(?!\^)", 1)
    md.block.specification["ref_link"] = definition
    lists = (md.block.rules, md.block.block_quote_rules, md.block.list_rules)
    for rules in lists:
        rules.remove("raw_html")
    md.inline.rules.remove("inline_html")
    md.block.register("block_math", BLOCK_MATH, _parse_math, before="list")
    md.block.register("table", TABLE, _parse_table)
    md.block.register("details", DETAILS, _parse_details, before="list")
    md.inline.register("html_tags", TAGS, _parse_tag, before="auto_link", start_chars="<")
    for rules in lists[1:]:
        rules[:] = ["block_math", "details", *rules, "table"]
    md.inline.register(
        "inline_math", INLINE_MATH, _parse_math, before="escape", start_chars=("$", "\\")
    )


def _marks(md):
    md.inline.register("mark", r"==(?=[^\s=])", _parse_mark, before="link")
    md.renderer.register("mark", render_mark)


def _parse_mark(inline, match, state):
    before, count = state.src[match.start() - 1 : match.start()], len(state.tokens)
    end = parse_mark(inline, match, state) if _flanks_mark(before, "")[0] else None
    if end and not _flanks_mark("", state.src[end : end + 1])[1]:
        del state.tokens[count:]
        return None
    return end


def _flanks_mark(before, after):
    """Tell whether == between two characters can (open, close) a mark: x==1 compares."""
    return not VALUE_END.match(before), not VALUE_START.match(after)


def _bare_links(md):
    md.inline.register("url_link", URL, _parse_url, start_chars=("h", "H", "w"))


_renderer = Renderer()
FLUSH_MATH = re.compile(BLOCK_MATH.replace(" {0,3}", "", 1), re.M)


class Lines(mistune.BlockState):
    within = False  # whether the lines of a list or a quote are being looked for

    def get_line(self, start_pos):
        math = self.within and FLUSH_MATH.match(self.src, start_pos)
        line = math[0] if math else super().get_line(start_pos)
        _step(1 + len(line) // 100)
        return line


class Blocks(mistune.BlockParser):
    """Parse one block after the other: mistune parses those that end lists and quotes within."""

    state_cls = Lines

    def parse_method(self, m, state):
        _step(1 + (m.end() - m.start()) // 100)
        if state.within:
            return _next_block(m)
        return super().parse_method(m, state)

    def parse_list(self, m, state):
        state.within = True
        end = super().parse_list(m, state)
        state.within = False
        return end

    def parse_fenced_code(self, m, state):
        """Keep code in Markdown that is quoted whole: its fence does not end the one around it."""
        code_end, end = _quoted_markdown(m, state)
        if not end:
            return super().parse_fenced_code(m, state)
        code = re.sub(
            f"(?m)^ {{0,{len(m.group('fenced_1'))}}}", "", state.src[m.end() + 1 : code_end]
        )
        info = {"info": m.group("fenced_3").strip()}
        state.append_token({"type": "block_code", "raw": code, "style": "fenced", "attrs": info})
        return end

    def parse_atx_heading(self, m, state):
        """Take the closing marks off in one go: mistune looks again from each blank."""
        text = m.group("atx_2").strip()
        bare = text.rstrip("#")
        text = bare.rstrip() if not bare or bare[-1].isspace() else text
        level = {"level": len(m.group("atx_1"))}
        state.append_token({"type": "heading", "text": text, "attrs": level, "style": "atx"})
        return m.end() + 1

    def extract_block_quote(self, m, state):
        state.within = True
        text, end, lazy = super().extract_block_quote(m, state)
        state.within, state.cursor = False, end or state.cursor
        return text, None, lazy


def _next_block(m):
    """Return where the block begins that ends a list or a quote; None if it does not."""
    if m.lastgroup == "fenced_code" and m["fenced_2"][0] == "`" and "`" in m["fenced_3"]:
        return None
    return m.end() if m.lastgroup == "blank_line" else m.start()


MARKDOWN = re.compile(r"(?:markdown|md)\b", re.I)
FENCE_LINE = re.compile(r"^ {0,3}(`{3,}+|~{3,}+)[ \t]*+([^`\n]*)(?:\n|$)", re.M)


def _quoted_markdown(m, state):
    """Return where quoted Markdown and its fence end, if fences in it come in pairs; else Nones."""
    tried = state.env.get("quotes_tried", 0)
    if not MARKDOWN.match(m.group("fenced_3")) or tried > DEEPEST:
        return None, None
    marker, depth = m.group("fenced_2"), 0
    for fence in FENCE_LINE.finditer(state.src, m.end()):
        _step()
        step = _fence_step(marker, *fence.groups())
        if depth + step < 0:
            return fence.start(), fence.end()
        depth += step
    # To look to the end again and again would take the square.
    state.env["quotes_tried"] = tried + 1
    return None, None


def _fence_step(marker, run, info):
    """Return 1 for a fence that opens code within one of `marker`, -1 for one that ends code."""
    if not run.startswith(marker):
        return 0
    return 1 if info.strip() else -1


class Inline(mistune.InlineParser):
    """Parse what is inside a block, at a cost that is linear in its length."""

    def __call__(self, s, env):
        _step()
        env = {**env, "in_summary": True} if isinstance(s, Summary) else env
        return super().__call__(s, env) if s else []

    def parse_method(self, m, state):
        _step()
        return super().parse_method(m, state)

    def process_text(self, text, state, parse_emphasis=True):
        _step()
        super().process_text(text, state, parse_emphasis)

    def parse_emphasis(self, m, state):
        for run in MARKS.finditer(state.src, *m.span()):
            start, end = run.span()
            before, after = state.src[start - 1 : start], state.src[end : end + 1]
            opens, closes = _flanks(run.group(), before or "\n", after or "\n")
            token = {"raw": run.group(), "opens": opens, "closes": closes}
            state.append_token(token | {"type": "mark_of_emphasis", "length": len(run.group())})
        return m.end()

    def finalize_tokens(self, tokens, depth):
        """Pair the marks of emphasis (mistune knows spaced scripts only, and takes the square)."""
        _step(len(tokens))
        tokens = super().finalize_tokens(tokens, depth)
        done, openers = [], []
        for token in tokens:
            if token["type"] == "mark_of_emphasis":
                token["type"] = "text"
                _close(token, done, openers, self.max_nested_level - depth)
                openers += [len(done)] if token["opens"] and token["raw"] else []
                del openers[:-DEEPEST]
            done.append(token)
        return [token for token in done if token.get("raw") != ""]


MARKS = re.compile(r"\*+|_+")
VALUE_END, VALUE_START = re.compile(r"[A-Za-z0-9_)\]]"), re.compile(r"[A-Za-z0-9_(\[]")


def _close(closer, done, openers, levels):
    """Put what is between a mark and those it closes into tokens of emphasis."""
    while found := _opener(closer, done, openers):
        at = openers[found - 1]
        opener, children = done[at], done[at + 1 :]
        _step(len(children))
        depth = 1 + max((_depth(child) for child in children), default=0)
        if depth > levels:
            del openers[:found]  # what is between these and any later mark is as deep
            return
        double = min(len(opener["raw"]), len(closer["raw"])) > 1
        kind = "strong" if double else "emphasis"
        done[at + 1 :] = [{"type": kind, "children": children, "depth": depth}]
        for run in (opener, closer):
            run["raw"] = run["raw"][1 + double :]
        del openers[found if opener["raw"] else found - 1 :]


def _depth(token):
    return token.get("depth") or token_depth([token])


def _opener(closer, done, openers):
    """Return how many openers there are up to the one that a mark closes; 0 if it closes none."""
    for number in range(len(openers) if closer["closes"] and closer["raw"] else 0, 0, -1):
        opener = done[openers[number - 1]]
        length = opener["length"] + closer["length"]
        # CommonMark's rule of three, for marks that could both open and close.
        apart = (opener["closes"] or closer["opens"]) and length % 3 == 0 and closer["length"] % 3
        if opener["raw"][0] == closer["raw"][0] and not apart:
            return number
    return 0


def _flanks(run, before, after):
    """Tell whether a run of * or _ between two characters can (open, close) emphasis.

    As CommonMark has it, amended for scripts without spaces: beside those, marks always can.
    """
    kinds = _kind(before), _kind(after)
    if run[0] == "_" and {"word", "unspaced"}.issuperset(kinds):
        return False, False
    free = {"space", "punctuation", "unspaced"}
    opens = kinds[1] != "space" and (kinds[1] != "punctuation" or kinds[0] in free)
    closes = kinds[0] != "space" and (kinds[0] != "punctuation" or kinds[1] in free)
    return opens, closes


@lru_cache(maxsize=4096)
def _kind(character):
    if character.isspace():
        return "space"
    if WITHIN_TEXT.match(character):
        return "unspaced"
    return "punctuation" if unicodedata.category(character)[0] in "PS" else "word"


def _parser(*plugins):
    plugins = [strikethrough, _marks, task_lists, _dialect, *plugins]
    return mistune.Markdown(_renderer, Blocks(), Inline(), plugins=plugins)


_with_links, _without_links = _parser(_bare_links), _parser()


def _markdown(source):
    # looking for bare links at every h and w costs a third of the time
    return _with_links if "://" in source or "www." in source else _without_links


# --- A message as it grows

FENCE = re.compile(r"( *)(`{3,}(?=[^`]*$)|~{3,})")
MARKER = re.compile(r"( {0,3})([-+*]|\d{1,9}[.)])(?:[ \t]|$)")
MARKERS = re.compile(r"(?: *(?:[-+*]|\d{1,9}[.)]) {1,4}(?! ))+")
RULE = re.compile(THEMATIC_BREAK)
INTERRUPT = re.compile(r" {0,3}(?:#{1,6}(?:\s|$)|`{3}|~{3}|>|[-+*][ \t]+\S|1[.)][ \t]+\S)")
BREAK = re.compile(r" {0,3}(?:#{1,6}(?:\s|$)|`{3}|~{3}|>)")
FULL_DETAILS = re.compile(DETAILS, re.M)
DETAILS_START = re.compile(r" {0,3}<details(?: open)?>", re.I)
ABOVE_SUMMARY = re.compile(
    rf"{DETAILS_START.pattern}[ \t]*+(?:\n[ \t]*+){{0,3}}+(?=<summary>)", re.I
)
QUOTE_MARK = re.compile(r"\n {0,3}> ?")
QUOTE = re.compile(r" {0,3}>")
OTHER_QUOTE = re.compile(
    r"^[ >]*(?:[-+*\d`~]|\s{4}|<details(?: open)?>|\$\$|\\\[|\\begin)|\A[ >]*\n", re.M | re.I
)
WHOLE_MATH = re.compile(BLOCK_MATH, re.M)
HALF_MATH = re.compile(" {0,3}(?:" + _display("half_", IN_PARTS, r"\Z") + ")", re.M)
QUOTED = re.compile(r" {0,3}> ?[^\s>#`~*+\d-]")
EMPTY_QUOTE = re.compile(r" {0,3}>[ \t]*")
SETEXT = re.compile(r" {0,3}(?:=+|-+)[ \t]*")
UNDERLINE = re.compile(rf"\n{SETEXT.pattern}$")
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
BLANK = " \t\v\f"  # what a line is blank with: other spaces, like a Chinese one, are text
BLANK_LINES = re.compile(rf"(?:[{BLANK}]*+\n)++")
BLANK_QUOTE_LINES = re.compile(rf"(?:[{BLANK}>]*+\n)++")
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
HALF = re.compile(
    r"(\[[^\[\]\n]{1,300}\])\((?:[^\s()]|\([^\s()]*\)){0,2000}+(?:\s++[\"'][^\"'\n]{0,100}+[\"']?)?$"
)
ACTIVE = re.compile(r"[^\S ]|[\\`*_~=$!<>&|\[\]#]")
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
WORD_END = re.compile(rf"[\s{UNSPACED}]")
TAG = re.compile(r"<(/?)([a-z0-9]+)[^>]*>")
VOID = {"br", "hr", "input"}
MATH = re.compile(rf" {{0,3}}(?:\$\$(?!\$)|\\\[|\\begin\{{{ENVIRONMENT}\}})")
KINDS = (  # what a region can be, by how its first line begins
    ("fence", re.compile(r" {0,3}(?:`{3,}[^`]*$|~{3,})")),
    ("line", re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")),
    ("line", RULE),
    ("list", MARKER),
    ("indented", re.compile(r" {4}| {0,3}\t")),
    ("quote", re.compile(r" {0,3}>")),
    ("details", DETAILS_START),
    ("table", re.compile(r" {0,3}\|")),
    ("paragraph", re.compile("")),
)


class Patch(NamedTuple):
    """A change to the shown HTML: where on the spine (depth below the body), how, and with what."""

    depth: int
    swap: str
    html: str


class Growth:
    """One message as it grows: `feed` returns the patches that bring the page up to date.

    The source is cut into regions (a block, a list's item, a table's row, a stretch of a long
    paragraph) as soon as the line that follows tells that one is finished. Only the open region
    is ever rendered again, so cost is linear. Inside it, text that cannot be markup is appended
    as it is; else the region is rendered with its half-open markup closed and what differs is
    sent. A tail that the next characters may turn into something else is held back.
    """

    # Characters rendered beyond which a paragraph is cut, and other regions rendered less often.
    LONG = 6000

    def __init__(self):
        self._head = []  # the HTML of the finished regions
        self._stack = []  # (tag, index in head) of the elements in it that are still open
        self._source = ""  # the open region's Markdown
        self._table = None  # the header and delimiter row of the table that is open
        self._references = {}  # what links by reference lead to
        self._begin("block")

    def _begin(self, context):
        self._context = (
            context  # what the region is a part of: block, item, row, or text of a paragraph
        )
        self._kind = context if context in ("row", "text") else None  # what its first line makes it
        self._line = self._lines = (
            0  # where the first line begins that is not yet judged; its number
        )
        self._judged = 0  # how much of that line there was when it was last looked at
        self._blank = False  # whether the line before it is blank
        self._stem, self._after = (
            [],
            "",
        )  # the region's HTML up to where text goes; its closing tags
        self._gap = ""  # the end of the source that is held back
        self._hoped = False  # whether markup is shown of which the end has not come
        self._plain = False  # whether ordinary text can go to the end of the stem
        self._half_math = (
            -1,
            0,
        )  # where display math may begin; how far it has been looked through
        self._solid = 0  # where the last fence that is closed ends
        self._details, self._fenced = 0, None  # how many <details> are open; the fence in them
        # The fence that is open: its indent, its marker, where its code begins, whether Markdown.
        self._code = None
        self._code_margin = 0  # how far lines are indented that are in the item that it is in
        self._fences = 0  # how many fences are open in it
        self._coloured = 0  # characters of code that is finished: cheap to render again
        self._rendered = 0  # the region's weight when it was last rendered
        self._work = 0  # characters rendered for it in all
        self._tried = 0  # the length of the source when it could not be cut

    @property
    def html(self):
        """The HTML shown now, as the browser has it after all patches."""
        return "".join(self._head) + "".join(self._stem) + self._after + _closing(self._tags)

    def feed(self, text):
        """Take what is new of the text and return the patches that show it."""
        text = text.replace("\r", "")
        if self._work > self.LONG and len(self._source) > max(self.LONG / 15, self._tried * 1.05):
            self._settle(text)
        self._source += text
        patches = self._append_code() if self._code else self._append_text(text)
        return self._update(text) if patches is None else patches

    # Appending

    @property
    def _tags(self):
        return [tag for tag, _ in self._stack]

    @property
    def _depth(self):
        return len(self._stack) + self._after.count("</")

    def _append(self, text):
        shown = escape(text, quote=False)
        self._stem.append(shown)
        return [Patch(self._depth, "beforeend", shown)] if shown else []

    def _append_text(self, text):
        """Append text that cannot be markup; None if it could be."""
        new = self._gap + text
        if not self._plain or ACTIVE.search(new) or "://" in new or "www." in new:
            return None
        if self._hoped and WORD_END.search(new):
            return None
        shown = new.rstrip(" ")
        recent = (self._stem[-1][-8:] + shown)[-8:]
        if WORD.search(recent):
            return None
        self._gap = new[len(shown) :]
        return self._append(shown)

    def _append_raw(self, text):
        """Append text of a long region as it is, until its next rendering."""
        new = self._gap + text
        shown = new.rstrip() if self._plain else ""
        self._gap = new[len(shown) :]
        return self._append(shown)

    def _append_code(self):
        """Append code to the fence that is open; None if it is closed."""
        if self._code_ends():
            return None
        return self._append(self._new_code())

    def _new_code(self):
        """Return the code not shown yet, unindented, but for what may be the closing fence."""
        held = HELD_CODE.match(self._source, self._line)
        start, end = self._code_shown, self._line if held else len(self._source)
        self._code_shown = max(start, end)
        margin = "\n" if self._source[start - 1] == "\n" else ""
        return re.sub(rf"(?<=\n) {{0,{self._code[0]}}}", "", margin + self._source[start:end])[
            len(margin) :
        ]

    def _code_ends(self):
        """Skip the complete lines of code; tell whether one of them, or the next, ends it."""
        indent, marker, *_ = self._code
        while (end := self._source.find("\n", self._line)) >= 0:
            line = self._source[self._line : end]
            text = line.strip(BLANK)
            if text and self._ends_item(line):
                break
            self._blank, self._line = not text, end + 1
            self._fences += self._fence_step(text, marker)
            if self._fences < 0:
                break
        else:
            line = self._source[self._line : self._line + 100]
            if not self._code_margin or UNDECIDED.match(line) or not self._ends_item(line):
                return False
        self._fences = 0
        self._coloured += self._line - self._code[2]
        self._solid = self._line
        self._code = None
        return True

    def _ends_item(self, line):
        """Tell whether a line ends the item that code is in, and the code with it."""
        inside, line = _indent(line) >= self._code_margin, line.lstrip(" \t")
        begins = MARKER.match(line) or BREAK.match(line) or RULE.match(line)
        return not inside and (self._blank or begins)

    def _fence_step(self, line, marker):
        fence = FENCE_LINE.match(line)
        step = _fence_step(marker, *fence.groups()) if fence else 0
        return step if step < 0 or self._code[3] else 0

    # Rendering

    def _update(self, text):
        """Finish what is finished, render what is open, and return what differs."""
        stem, depth, stack, mark = (
            "".join(self._stem),
            self._depth,
            list(self._stack),
            len(self._head),
        )
        self._stem = [stem]
        while (cut := self._next_cut()) is not None:
            self._finish(*cut)
        if len(self._head) == mark and not self._code and self._can_wait:
            return self._append_raw(text)
        self._render_open()
        new = "".join(self._head[mark:]) + self._stem[0] + self._after + _closing(self._tags)
        return self._difference(stem, new, depth, stack, mark)

    @property
    def _can_wait(self):
        return self._work > self.LONG and self.LONG / 4 < self._weight < self._rendered * 1.25

    @property
    def _weight(self):
        return len(self._source) - self._coloured

    def _render_open(self):
        """Render the open region as far as it can be shown."""
        self._rendered = self._weight
        self._work += self._weight
        self._stem, self._after, self._plain, self._hoped = [""], "", False, False
        if self._code:
            return self._render_open_code()
        text = self._visible()
        self._gap = self._source[len(text) :]
        if len(text) <= self._solid:
            text = self._source[: self._solid]
            return self._show("", text, False) if text else None
        if _ends_details(text):  # nothing may stand on that line
            return self._show("", text, False)
        half = HALF.search(text[-2500:])
        if half:
            text = (
                text[: len(text) - len(half.group()) + half.end(1) - half.start()]
                + f"({HALF_LINK})"
            )
        closers = self._closers(text)
        self._show(self._translate(text + CARET + closers) or "", text, not half)

    def _show(self, shown, text, plain):
        """Split HTML at the caret: what comes after it is tags only."""
        stem, caret, rest = shown.rpartition(CARET)
        if not caret:
            stem, rest = self._translate(text) or "", ""
        tags = [match.group() for match in TAG.finditer(rest)]
        # What comes after an address may not be a part of it.
        plain = plain and "</a>" not in tags
        self._plain = bool(caret) and plain and all(tag.startswith("</") for tag in tags)
        if not self._plain:
            stem, tags = _split(stem + "".join(tags))
        self._stem, self._after = [stem], "".join(tags)

    def _render_open_code(self):
        indent, _, start, _ = self._code
        stem, caret, rest = (
            self._translate(self._source[:start] + " " * indent + CARET) or ""
        ).rpartition(CARET)
        self._after, self._code_shown = rest.strip(), start
        self._stem = [stem + escape(self._new_code(), quote=False)]

    def _translate(self, source, references=None):
        """Render a region to the HTML that goes into its context; None if it is no such region.

        `references` is where links that it defines are kept.
        """
        # Half an address must not be.
        links = {"ref_links": self._references.copy() if references is None else references}
        if self._context == "text":
            source = QUOTE_MARK.sub("\n", source) if "blockquote" in self._tags else source
            shown = _inline(UNDERLINE.sub("", source.rstrip()), links)
            return f"<span>{shown}</span>" if shown else ""
        if self._context == "row":
            return _table_row(self._table[1], source, links)
        state = Lines()
        state.env = links
        shown, state = _markdown(source).parse(source, state)
        if self._context == "block":
            return shown
        tag = {"item": "list", "quote": "block_quote"}[self._context]
        blocks = [token["type"] for token in state.tokens if token["type"] != "blank_line"]
        return shown[shown.index(">") + 1 : shown.rindex("<")] if blocks == [tag] else None

    def _visible(self):
        """Return the source without the tail that the next characters may change."""
        text = self._source.rstrip(DELIMITERS)
        if tail := TAIL.search(text[-260:]):
            text = text[: len(text) - len(tail.group())].rstrip(DELIMITERS)
        start = text.rfind("\n") + 1
        if UNDECIDED.match(text, start) and (start or self._context != "text"):
            text = text[:start].rstrip(DELIMITERS)
        return text

    def _closers(self, text):
        """Return what closes the markup that is open at the end of the text."""
        lower = text.lower() if self._kind == "details" else ""
        in_summary = lower.rfind("<summary>") > lower.rfind("</summary>")
        inline = INLINE_IN_SUMMARY if in_summary else INLINE
        closers = _closers(text, inline)
        if self._kind == "table" and "\n" not in text:
            cells = _cells(text + CARET)
            if all(_words_from(0, cell) <= FEW for cell in cells):
                closers += "\n|" + "-|" * len(cells)
        if in_summary:
            closers += "</summary>"
        self._hoped = bool(closers)
        return closers

    def _difference(self, old, new, depth, stack, mark):
        """Return the patches that turn the old open end of the HTML into the new one."""
        patches = _difference(old, new, depth)
        if patches is None and stack:
            before = "".join(self._head[stack[-1][1] : mark])
            patches = _difference(before + old, before + new, depth)
        return [Patch(0, "innerHTML", self.html)] if patches is None else patches

    # Finding where a region ends

    def _next_cut(self):
        """Return where the open region ends and what follows there, or None."""
        if self._kind is None:
            blank = BLANK_QUOTE_LINES if self._context == "quote" else BLANK_LINES
            if lines := blank.match(self._source):
                self._source = self._source[lines.end() :]
        while self._line < len(self._source):
            if self._code and not self._code_ends():
                return None
            start, end = self._line, self._source.find("\n", self._line)
            line = self._source[start:] if end < 0 else self._source[start:end]
            if end < 0 and (self._judged_lately(line) or UNDECIDED.match(line)):
                return None
            if context := line.strip(BLANK) and self._follows(line, end >= 0):
                return start, context
            math = self._math_end(line)
            if math > 0 and start and self._kind in ("paragraph", "text"):
                return start, "block"
            if math > 0:
                self._kind = self._kind if start else "math"
                self._line, self._lines, self._blank = math, self._lines + 1, False
                continue
            if math == 0 or end < 0:
                return None
            self._blank, self._line = not line.strip(BLANK), end + 1
            self._lines += 1
            self._judged = 0
            self._enter_code(line)
        return None

    def _math_end(self, line):
        """Return where display math ends that a line begins: -1 if it is none, 0 if it may be."""
        lazy = self._kind in ("list", "quote") and line[:1] != " "
        if not (lazy or self._kind in ("paragraph", "text")) or not MATH.match(line):
            return -1
        known, long = self._source.rfind("\n") + 1, len(self._source) - self._line > LONGEST_MATH
        tried, before = self._half_math
        if tried == self._line and (known - before) * 20 < known - tried + 1 and not long:
            return 0  # all of it would be looked through at every line
        if math := WHOLE_MATH.match(self._source, self._line, known):
            return math.end() if len(math[0]) <= LONGEST_MATH else -1
        self._half_math = self._line, known
        half = known <= self._line or HALF_MATH.match(self._source, self._line, known)
        return 0 if half and not long else -1

    def _judged_lately(self, line):
        """Tell whether a long line has grown little since it was judged."""
        lately = self.LONG / 10 < len(line) < self._judged * 1.25
        self._judged = self._judged if lately else len(line)
        return lately

    def _follows(self, line, complete):
        """Tell what a line begins after the open region: a context, or None if it is part of it."""
        if self._kind is None:
            return self._classify(line)
        if not self._lines:
            return None
        if self._kind == "details":
            if FULL_DETAILS.match(self._source, self._above, self._line):
                return "block" if self._details < 1 else None
            if self._in_summary():
                return None
            self._kind = "paragraph"
        first_line = self._kind == "paragraph" and self._lines == 1 and not self._blank
        if first_line or self._kind in ("row", "table"):
            context = self._follows_row(line, complete)
            if context is not False:
                return context
        if self._kind == "list":
            return self._follows_item(line)
        if self._kind == "indented":
            return None if line.startswith(("    ", "\t")) or not line.strip() else "block"
        if self._blank:
            return "block"
        if self._kind == "text" and "blockquote" in self._tags and (quote := QUOTE.match(line)):
            line = line[quote.end() :].removeprefix(" ")
            return "quote" if not line or INTERRUPT.match(line) else None
        if self._kind in ("paragraph", "text") and INTERRUPT.match(line):
            return "block"
        if self._kind == "paragraph" and SETEXT.fullmatch(self._source, *self._last_line):
            return "block"
        if self._kind == "paragraph" and DETAILS_START.match(line):
            self._kind, self._above = "details", self._line
            self._details, self._fenced = 0, None
            return None
        if self._kind == "quote":
            return self._follows_quote(line)
        return "block" if self._kind in ("line", "fence", "math") else None

    @property
    def _last_line(self):
        """Where the line before the one that is judged begins and ends."""
        return self._source.rfind("\n", 0, self._line - 1) + 1, self._line - 1

    def _in_summary(self):
        """Tell whether a line may be a part of the summary that begins <details>."""
        above = ABOVE_SUMMARY.match(self._source, self._above)
        long = self._source.count("\n", self._above, self._line) > 5
        return above and (above.end() >= self._line or not (self._blank or long))

    def _follows_quote(self, line):
        """Tell what a line begins after a quote: a block, or another paragraph of it."""
        apart = EMPTY_QUOTE.fullmatch(self._source, *self._last_line)
        if not QUOTE.match(line):
            ends = apart or FENCE.match(line) or RULE.match(line) or MARKER.match(line)
            return "block" if ends else None
        return (
            "quote"
            if QUOTED.match(line) and apart and not OTHER_QUOTE.search(self._source, 0, self._line)
            else None
        )

    def _classify(self, line):
        self._kind = next(kind for kind, start in KINDS if start.match(line))
        self._margin = self._above = 0
        if self._kind == "list":
            spaces, self._bullet = MARKER.match(line).groups()
            self._margin = len(spaces) + len(self._bullet) + 1

    def _follows_item(self, line):
        inside = len(line) - len(line.lstrip(" ")) >= self._margin or "\t" in line[: self._margin]
        marker = not RULE.match(line) and MARKER.match(line)
        if not inside and marker and marker.group(2)[-1] == self._bullet[-1]:
            return "item"
        if self._blank and self._source[: self._line].strip() == self._bullet:
            return "block"  # after an item without text
        ends = not inside and (self._blank or marker or BREAK.match(line) or RULE.match(line))
        return "block" if ends else None

    def _follows_row(self, line, complete):
        """Tell whether a line is a row; False if this is no table."""
        if self._kind != "row" and self._lines == 1:
            head = self._source[: self._line - 1]
            aligns = "|" in head and "-" in line and _aligns(line)
            table = aligns and not self._blank and len(aligns) == len(_cells(head)) <= COLUMNS
            self._kind, self._table = ("table", (head, line)) if table else ("paragraph", None)
            return None if table else False
        if self._blank:
            return "block"
        if _in_table(line, self._table[0]):
            return "row"
        return "block" if complete or line.startswith("|") else None

    def _enter_code(self, line):
        """Note the fence or the details that a line opens, or ends."""
        if self._kind == "details":
            for edge in DETAILS_EDGE.finditer(line):
                self._details, self._fenced = _beyond_edge(edge, self._details, self._fenced)
        markers = self._kind == "list" and MARKERS.match(line)
        margin = markers.end() if markers else 0
        fence = FENCE.match(" " * margin + line[margin:])
        inside = self._kind == "list" and fence and len(fence.group(1)) >= self._margin
        if fence and (inside or self._kind == "fence" and self._lines == 1):
            markdown = MARKDOWN.match(line[fence.end() :].strip())
            self._code = (len(fence.group(1)), fence.group(2), self._line, bool(markdown))
            self._code_margin = max(margin, self._margin)

    # Finishing

    def _finish(self, end, context):
        """Render the region up to where it ends, for the last time, and begin the next one."""
        shown = self._translate(self._source[:end], self._references)
        if shown is None:  # the region is no part of what is open around it
            self._head.append(_closing(self._tags))
            self._stack = []
            return self._begin("block")
        self._source = self._source[end:]
        opened = {"item": [shown[-3:-1]], "row": ["table", "tbody"], "quote": ["blockquote"]}.get(
            context, []
        )
        if self._context == "block" and not shown.endswith(_closing(opened)):
            context = "block"
        if context == self._context:
            self._head.append(shown)
        elif self._context == "block":
            self._stack = [(tag, len(self._head)) for tag in opened]
            self._head.append(shown.removesuffix(_closing(opened)))
        else:
            kept = 1 if context == "quote" else 0
            self._head.append(shown + _closing(self._tags[kept:]))
            del self._stack[kept:]
        self._begin(context)

    def _settle(self, text):
        """Finish a long paragraph's beginning: cut between two words, where no markup is open."""
        stem, source = "".join(self._stem), self._source.removesuffix(self._gap)
        tags = {"paragraph": ["p"], "text": ["span"], "quote": ["blockquote", "p"]}.get(
            self._kind, []
        )
        tags = tags[self._context == "quote" :]
        paragraphs = len(re.findall(r"<p\b", stem))
        between = self._plain and not self._gap.strip() and (self._gap + text)[:1].isspace()
        if not between or self._after != _closing(tags) or paragraphs > 1:
            return
        self._tried = len(source)
        if _closers(source) or self._translate(source) != stem + self._after:
            return
        if self._context != "text":
            self._stack += [(tag, len(self._head)) for tag in tags]
        self._head.append(stem + self._after if self._context == "text" else stem)
        rest = self._gap
        self._begin("text")
        self._source = self._gap = rest


def _indent(line):
    return len(line) - len(line.lstrip(" \t"))


def _inline(source, links):
    return _renderer.render_tokens(_markdown(source).inline(source, links), None)


def _table_row(aligns, source, links):
    """Render one row of a table whose delimiter row is given."""
    cells = _row(source, _aligns(aligns), "table_row")["children"]
    return (
        "<tr>"
        + "".join(
            _renderer.table_cell(_inline(cell["text"], links), **cell["attrs"]) for cell in cells
        )
        + "</tr>"
    )


def _closing(tags):
    return "".join(f"</{tag}>" for tag in reversed(tags))


def _split(shown):
    """Split HTML before the closing tags at its end."""
    end = len(shown)
    while (
        end and shown[end - 1] == ">" and shown.startswith("</", start := shown.rindex("<", 0, end))
    ):
        end = start
    return shown[:end], re.findall(r"</\w+>", shown[end:])


def _difference(old, new, depth):
    """Return the patches from HTML open at a depth to new HTML; None if nothing is in common."""
    if new.startswith(old):
        return [
            Patch(level, "beforeend", added)
            for level, added in _chunks(new[len(old) :], depth)
            if added
        ]
    common = _common(old, new)
    starts = [start for start in _open_elements(old) if start <= common]
    if not starts:
        return None
    level = depth - len(_open_elements(old)) + len(starts)
    (_, first), *rest = _chunks(new[starts[-1] :], level - 1)
    return [Patch(level, "outerHTML", first)] + [
        Patch(at, "beforeend", added) for at, added in rest if added
    ]


def _common(old, new):
    """Return how many characters two texts begin with alike."""
    alike, end = 0, min(len(old), len(new))
    while alike < end:
        middle = (alike + end + 1) // 2
        if new.startswith(old[alike:middle], alike):
            alike = middle
        else:
            end = middle - 1
    return alike


def _open_elements(shown):
    """Return where the elements start that are open at the end of HTML."""
    starts = []
    for match in TAG.finditer(shown):
        if match.group(1):
            starts.pop()
        elif match.group(2) not in VOID:
            starts.append(match.start())
    return starts


def _chunks(shown, depth):
    """Cut HTML at the tags that close what it did not open, each one level up: (depth, HTML)."""
    start = opened = 0
    for match in TAG.finditer(shown):
        if not match.group(1):
            opened += match.group(2) not in VOID
        elif opened:
            opened -= 1
        else:
            yield depth, shown[start : match.start()]
            start, depth = match.end(), depth - 1
    yield depth, shown[start:]


def _closers(text, inline=INLINE):
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


def _toggle(stack, match):
    """Close or open emphasis on the stack of (mark, where it ends), as a run of marks does."""
    run, text = match.group(), match.string
    before = text[match.start() - 1 : match.start()] or " "
    after = text[match.end() : match.end() + 1] or CARET
    opens, closes = _flanks(run, before, after) if run[0] in "*_" else (True, True)
    if run == "==":
        opens, closes = _flanks_mark(before, after)
    while run and closes and not before.isspace() and any(mark[0] == run[0] for mark, _ in stack):
        while (opener := stack.pop()[0])[0] != run[0]:
            pass
        run = run[len(opener) :]
    if run and opens and not after.isspace() and len(stack) < DEEPEST:
        marks = [run[0]] if len(run) == 1 else [run[:2], run[0]] if len(run) == 3 else [run[:2]]
        stack += [(mark, match.end()) for mark in marks]
