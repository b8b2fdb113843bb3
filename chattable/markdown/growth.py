"""A message as it grows."""

import re
from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from mistune.util import escape

from chattable.markdown.blocks import THEMATIC_BREAK
from chattable.markdown.bounds import DEEPEST
from chattable.markdown.characters import CARET, LETTER, UNSPACED
from chattable.markdown.dialect import render_blocks, render_inline, render_row
from chattable.markdown.emphasis import flanks, flanks_mark
from chattable.markdown.fences import FENCE_LINE, MARKDOWN, fence_step
from chattable.markdown.links import HALF_LINK, HOST_LETTER, IN_URL
from chattable.markdown.math import (
    AFTER_MATH,
    BEFORE_MATH,
    ENVIRONMENT,
    HALF_MATH,
    LONGEST_MATH,
    MATH_END,
    MATH_START,
    WHOLE_MATH,
)
from chattable.markdown.tables import COLUMNS, aligns_of, cells_of, in_table
from chattable.markdown.tags import (
    DETAILS,
    DETAILS_EDGE,
    HARMLESS,
    SUMMARY_TAG,
    beyond_edge,
    ends_details,
)

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
        step = fence_step(marker, *fence.groups()) if fence else 0
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
        if ends_details(text):  # nothing may stand on that line
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
        links = self._references.copy() if references is None else references
        if self._context == "text":
            source = QUOTE_MARK.sub("\n", source) if "blockquote" in self._tags else source
            shown = render_inline(UNDERLINE.sub("", source.rstrip()), links)
            return f"<span>{shown}</span>" if shown else ""
        if self._context == "row":
            return render_row(source, self._table[1], links)
        shown, kinds = render_blocks(source, links)
        if self._context == "block":
            return shown
        tag = {"item": "list", "quote": "block_quote"}[self._context]
        return shown[shown.index(">") + 1 : shown.rindex("<")] if kinds == [tag] else None

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
            cells = cells_of(text + CARET)
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
        if not (lazy or self._kind in ("paragraph", "text")) or not MATH_START.match(line):
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
            aligns = "|" in head and "-" in line and aligns_of(line)
            table = aligns and not self._blank and len(aligns) == len(cells_of(head)) <= COLUMNS
            self._kind, self._table = ("table", (head, line)) if table else ("paragraph", None)
            return None if table else False
        if self._blank:
            return "block"
        if in_table(line, self._table[0]):
            return "row"
        return "block" if complete or line.startswith("|") else None

    def _enter_code(self, line):
        """Note the fence or the details that a line opens, or ends."""
        if self._kind == "details":
            for edge in DETAILS_EDGE.finditer(line):
                self._details, self._fenced = beyond_edge(edge, self._details, self._fenced)
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
