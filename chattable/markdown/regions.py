"""Regions: the blocks, items, rows and stretches of text that a growing message is cut into.

Its lines tell where each ends, as soon as that is certain. Only growth comes in.
"""

import re
from typing import Any, NamedTuple

from chattable.markdown.blocks import THEMATIC_BREAK
from chattable.markdown.fences import FENCE_LINE, MARKDOWN, fence_step
from chattable.markdown.math import HALF_MATH, LONGEST_MATH, MATH_START, WHOLE_MATH
from chattable.markdown.tables import COLUMNS, aligns_of, cells_of, in_table
from chattable.markdown.tags import DETAILS, DETAILS_EDGE, beyond_edge
from chattable.markdown.tail import HELD_CODE, UNDECIDED

LONG = 6000  # characters of a region beyond which less is done at every feed
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
QUOTE = re.compile(r" {0,3}>")
OTHER_QUOTE = re.compile(
    r"^[ >]*(?:[-+*\d`~]|\s{4}|<details(?: open)?>|\$\$|\\\[|\\begin)|\A[ >]*\n", re.M | re.I
)
QUOTED = re.compile(r" {0,3}> ?[^\s>#`~*+\d-]")
EMPTY_QUOTE = re.compile(r" {0,3}>[ \t]*")
SETEXT = re.compile(r" {0,3}(?:=+|-+)[ \t]*")
BLANK = " \t\v\f"  # what a line is blank with: other spaces, like a Chinese one, are text
BLANK_LINES = re.compile(rf"(?:[{BLANK}]*+\n)++")
BLANK_QUOTE_LINES = re.compile(rf"(?:[{BLANK}>]*+\n)++")
KINDS = (  # what a region can be, by how its first line begins
    ("fence", re.compile(r" {0,3}(?:`{3,}[^`]*$|~{3,})")),
    ("line", re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")),
    ("line", RULE),
    ("list", MARKER),
    ("indented", re.compile(r" {4}| {0,3}\t")),
    ("quote", QUOTE),
    ("details", DETAILS_START),
    ("table", re.compile(r" {0,3}\|")),
    ("paragraph", re.compile("")),
)


class Fence(NamedTuple):
    """A fence that is open."""

    indent: int
    marker: str
    start: int  # where its code begins in the source
    info: str  # what it says of the code
    holds_markdown: bool


class Region:
    """The open end of a message: its Markdown, and what its lines have told of it."""

    def __init__(self, context, source="", table=None, quoted=False):
        self.context = context  # what it is a part of: block, item, row, quote, text of a paragraph
        self.source = source
        self.kind = context if context in ("row", "text") else None  # what its first line makes it
        self.table = table  # the header and delimiter row of the table that is open
        self.fence: Any = None  # the one that is open
        self.solid = 0  # where the last fence that is closed ends
        self._quoted = quoted  # whether it is in a quote
        self._line = self._lines = 0  # where the line to be judged begins; its number
        self._judged = 0  # how much of that line there was when it was last looked at
        self._blank = False  # whether the line before it is blank
        self._half_math = -1, 0  # where display math may begin; how far it has been looked through
        self._margin, self._bullet = 0, ""  # how a list's item begins
        self._above = 0  # where <details> begin
        self._details, self._fenced = 0, None  # how many <details> are open; the fence in them
        self._code_margin = 0  # how far lines are indented that are in the item that code is in
        self._code_shown = 0  # how far code has been shown
        self._fences = 0  # how many fences are open in the one that is
        self._coloured = 0  # characters of code that is finished: cheap to render again

    @property
    def weight(self):
        """The characters that are dear to render."""
        return len(self.source) - self._coloured

    def next_cut(self):
        """Return where the region ends and what follows there, or None."""
        if self.kind is None:
            self._skip_blank_lines()
        while self._line < len(self.source):
            if self.fence and not self.code_ends():
                return None
            start, end = self._line, self.source.find("\n", self._line)
            line = self.source[start:] if end < 0 else self.source[start:end]
            if end < 0 and (self._judged_lately(line) or UNDECIDED.match(line)):
                return None
            if context := line.strip(BLANK) and self._follows(line, end >= 0):
                return start, context
            math = self._math_end(line)
            if math > 0 and start and self.kind in ("paragraph", "text"):
                return start, "block"
            if math > 0:
                self._pass_math(math)
                continue
            if math == 0 or end < 0:
                return None
            self._pass_line(line, end)
        return None

    def _skip_blank_lines(self):
        blank = BLANK_QUOTE_LINES if self.context == "quote" else BLANK_LINES
        if lines := blank.match(self.source):
            self.source = self.source[lines.end() :]

    def _judged_lately(self, line):
        """Tell whether a long line has grown little since it was judged."""
        lately = LONG / 10 < len(line) < self._judged * 1.25
        self._judged = self._judged if lately else len(line)
        return lately

    def _pass_math(self, end):
        self.kind = self.kind if self._line else "math"
        self._line, self._lines, self._blank = end, self._lines + 1, False

    def _pass_line(self, line, end):
        self._blank, self._line = not line.strip(BLANK), end + 1
        self._lines += 1
        self._judged = 0
        self._enter_details(line)
        self._enter_code(line)

    # Telling what a line begins

    def _follows(self, line, complete):
        """Tell what a line begins after the region: a context, or None if it is part of it."""
        if self.kind is None:
            return self._classify(line)
        if not self._lines:
            return None
        if self.kind == "details" and (context := self._follows_details()) is not False:
            return context
        first_line = self.kind == "paragraph" and self._lines == 1 and not self._blank
        if first_line or self.kind in ("row", "table"):
            context = self._follows_row(line, complete)
            if context is not False:
                return context
        if self.kind == "list":
            return self._follows_item(line)
        if self.kind == "indented":
            return None if line.startswith(("    ", "\t")) or not line.strip() else "block"
        if self._blank:
            return "block"
        if self.kind in ("paragraph", "text"):
            return self._follows_text(line)
        return self._follows_quote(line) if self.kind == "quote" else "block"

    def _classify(self, line):
        self.kind, begins = next((kind, m) for kind, start in KINDS if (m := start.match(line)))
        if self.kind == "list":
            spaces, self._bullet = begins.groups()
            self._margin = len(spaces) + len(self._bullet) + 1

    def _follows_details(self):
        """Tell what follows <details>; False if these are none."""
        if FULL_DETAILS.match(self.source, self._above, self._line):
            return "block" if self._details < 1 else None
        if self._in_summary():
            return None
        self.kind = "paragraph"
        return False

    def _in_summary(self):
        """Tell whether a line may be a part of the summary that begins <details>."""
        above = ABOVE_SUMMARY.match(self.source, self._above)
        long = self.source.count("\n", self._above, self._line) > 5
        return above and (above.end() >= self._line or not (self._blank or long))

    def _follows_row(self, line, complete):
        """Tell whether a line is a row; False if this is no table."""
        if self.kind != "row" and self._lines == 1:
            head = self.source[: self._line - 1]
            aligns = "|" in head and "-" in line and aligns_of(line)
            table = aligns and not self._blank and len(aligns) == len(cells_of(head)) <= COLUMNS
            self.kind, self.table = ("table", (head, line)) if table else ("paragraph", None)
            return None if table else False
        if self._blank:
            return "block"
        if in_table(line, self.table[0]):
            return "row"
        return "block" if complete or line.startswith("|") else None

    def _follows_item(self, line):
        """Tell what a line begins after an item: another one, or a block after the list."""
        inside = len(line) - len(line.lstrip(" ")) >= self._margin or "\t" in line[: self._margin]
        marker = not RULE.match(line) and MARKER.match(line)
        if not inside and marker and marker.group(2)[-1] == self._bullet[-1]:
            return "item"
        if self._blank and self.source[: self._line].strip() == self._bullet:
            return "block"  # after an item without text
        ends = not inside and (self._blank or marker or BREAK.match(line) or RULE.match(line))
        return "block" if ends else None

    def _follows_text(self, line):
        """Tell what a line begins after one of a paragraph."""
        if self.kind == "text" and self._quoted and (quote := QUOTE.match(line)):
            line = line[quote.end() :].removeprefix(" ")
            return "quote" if not line or INTERRUPT.match(line) else None
        if INTERRUPT.match(line):
            return "block"
        if self.kind == "paragraph" and SETEXT.fullmatch(self.source, *self._last_line):
            return "block"
        if self.kind == "paragraph" and DETAILS_START.match(line):
            self.kind, self._above = "details", self._line
            self._details, self._fenced = 0, None
        return None

    def _follows_quote(self, line):
        """Tell what a line begins after a quote: a block, or another paragraph of it."""
        apart = EMPTY_QUOTE.fullmatch(self.source, *self._last_line)
        if not QUOTE.match(line):
            ends = apart or FENCE.match(line) or RULE.match(line) or MARKER.match(line)
            return "block" if ends else None
        alone = apart and not OTHER_QUOTE.search(self.source, 0, self._line)
        return "quote" if alone and QUOTED.match(line) else None

    @property
    def _last_line(self):
        """Where the line before the one that is judged begins and ends."""
        return self.source.rfind("\n", 0, self._line - 1) + 1, self._line - 1

    def _math_end(self, line):
        """Return where display math ends that a line begins: -1 if it is none, 0 if it may be."""
        lazy = self.kind in ("list", "quote") and line[:1] != " "
        if not (lazy or self.kind in ("paragraph", "text")) or not MATH_START.match(line):
            return -1
        known, long = self.source.rfind("\n") + 1, len(self.source) - self._line > LONGEST_MATH
        tried, before = self._half_math
        if tried == self._line and (known - before) * 20 < known - tried + 1 and not long:
            return 0  # all of it would be looked through at every line
        if math := WHOLE_MATH.match(self.source, self._line, known):
            return math.end() if len(math[0]) <= LONGEST_MATH else -1
        self._half_math = self._line, known
        half = known <= self._line or HALF_MATH.match(self.source, self._line, known)
        return 0 if half and not long else -1

    # Following details and code

    def _enter_details(self, line):
        """Note the <details> that a line opens, or ends."""
        for edge in DETAILS_EDGE.finditer(line) if self.kind == "details" else ():
            self._details, self._fenced = beyond_edge(edge, self._details, self._fenced)

    def _enter_code(self, line):
        """Note the fence that a line opens."""
        markers = self.kind == "list" and MARKERS.match(line)
        margin = markers.end() if markers else 0
        fence = FENCE.match(" " * margin + line[margin:])
        inside = self.kind == "list" and fence and len(fence[1]) >= self._margin
        if fence and (inside or self.kind == "fence" and self._lines == 1):
            info = line[fence.end() :].strip()
            markdown = bool(MARKDOWN.match(info))
            self.fence = Fence(len(fence[1]), fence[2], self._line, info, markdown)
            self._code_margin = max(margin, self._margin)
            self._code_shown = self._line

    def new_code(self):
        """Return the code not shown yet, unindented, but for what may be the closing fence."""
        held = HELD_CODE.match(self.source, self._line)
        start, end = self._code_shown, self._line if held else len(self.source)
        self._code_shown = max(start, end)
        margin = "\n" if self.source[start - 1] == "\n" else ""
        code = margin + self.source[start:end]
        return re.sub(rf"(?<=\n) {{0,{self.fence.indent}}}", "", code)[len(margin) :]

    def code_ends(self):
        """Skip the complete lines of code; tell whether one of them, or the next, ends it."""
        while (end := self.source.find("\n", self._line)) >= 0:
            line = self.source[self._line : end]
            text = line.strip(BLANK)
            if text and self._ends_item(line):
                break
            self._blank, self._line = not text, end + 1
            self._fences += self._fence_step(text)
            if self._fences < 0:
                break
        else:
            line = self.source[self._line : self._line + 100]
            if not self._code_margin or UNDECIDED.match(line) or not self._ends_item(line):
                return False
        self._fences = 0
        self._coloured += self._line - self.fence.start
        self.solid = self._line
        self.fence = None
        return True

    def _ends_item(self, line):
        """Tell whether a line ends the item that code is in, and the code with it."""
        inside, line = _indent(line) >= self._code_margin, line.lstrip(" \t")
        begins = MARKER.match(line) or BREAK.match(line) or RULE.match(line)
        return not inside and (self._blank or begins)

    def _fence_step(self, line):
        fence = FENCE_LINE.match(line)
        step = fence_step(self.fence.marker, *fence.groups()) if fence else 0
        return step if step < 0 or self.fence.holds_markdown else 0


def _indent(line):
    return len(line) - len(line.lstrip(" \t"))
