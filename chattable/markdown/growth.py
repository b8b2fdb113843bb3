"""A message as it grows: text comes in, patches go out. Whoever streams a message comes in."""

import re

from mistune.util import escape

from chattable.markdown.characters import CARET
from chattable.markdown.closers import closers, inline_closers
from chattable.markdown.code_blocks import language_and_file
from chattable.markdown.colours import Colours, colours_of
from chattable.markdown.dialect import render_blocks, render_inline, render_row
from chattable.markdown.patches import TAG, Patch, closing, difference, names, split_closing
from chattable.markdown.regions import LONG, SETEXT, Region
from chattable.markdown.tags import ends_details
from chattable.markdown.tail import ACTIVE, WORD, WORD_END, with_whole_link, without_tail

QUOTE_MARK = re.compile(r"\n {0,3}> ?")
UNDERLINE = re.compile(rf"\n{SETEXT.pattern}$")
# What is open around a paragraph's text, by the kind of its region.
SETTLED: dict = {"paragraph": ["p"], "text": ["span"], "quote": ["blockquote", "p"]}


class Growth:
    """One message as it grows: `feed` returns the patches that bring the page up to date.

    The source is cut into regions (a block, a list's item, a table's row, a stretch of a long
    paragraph) as soon as the line that follows tells that one is finished. Only the open region
    is ever rendered again, so cost is linear. Inside it, text that cannot be markup is appended
    as it is; else the region is rendered with its half-open markup closed and what differs is
    sent. A tail that the next characters may turn into something else is held back.
    """

    def __init__(self):
        self._head = []  # the HTML of the finished regions
        self._stack = []  # (tag, index in head) of the elements in it that are still open
        self._references = {}  # what links by reference lead to
        self._begin("block")

    def _begin(self, context, source="", table=None):
        self._region = Region(context, source, table, "blockquote" in self._tags)  # the open one
        self._stem, self._after = [], ""  # its HTML up to where text goes; its closing tags
        self._colours: Colours | None = None  # of its code
        self._uncoloured = 0  # where in the stem the code begins that has none yet
        self._opened: tuple[str, ...] = ()  # the names of the elements that those close
        self._gap = ""  # the end of its source that is held back
        self._hoped = False  # whether markup is shown of which the end has not come
        self._plain = False  # whether ordinary text can go to the end of the stem
        self._rendered = 0  # its weight when it was last rendered
        self._work = 0  # characters rendered for it in all
        self._tried = 0  # the length of its source when it could not be cut

    @property
    def html(self):
        """The HTML shown now, as the browser has it after all patches."""
        return "".join(self._head) + "".join(self._stem) + self._after + closing(self._tags)

    @property
    def _tags(self):
        return [tag for tag, _ in self._stack]

    @property
    def _path(self):
        return (*self._tags, *self._opened)

    def feed(self, text):
        """Take what is new of the text and return the patches that show it."""
        text = text.replace("\r", "")
        if self._work > LONG and len(self._region.source) > max(LONG / 15, self._tried * 1.05):
            self._settle(text)
        self._region.source += text
        patches = self._append_code() if self._region.fence else self._append_text(text)
        return self._update(text) if patches is None else patches

    def finish(self, html):
        """Return the patches that turn what is shown into the HTML of the whole message."""
        if html == self.html:
            return []
        shown = "".join(self._head) + "".join(self._stem)
        patches = difference(shown, html, self._path)
        return [Patch((), "innerMorph", html)] if patches is None else patches

    # Appending

    def _append_code(self):
        """Append code to the fence that is open; None if it is closed."""
        if self._region.code_ends():
            return None
        code, colours = self._region.new_code(), self._colours
        lines = colours.feed(code) if colours else ""
        if not colours or not lines:
            return self._append(code)
        path, shown = self._path, "".join(self._stem[self._uncoloured :])
        self._stem[self._uncoloured :] = [lines]
        self._show_rest(colours.rest)
        inside = ("span.lines", "span.rest")[not colours.grouped :]
        self._opened = (*self._opened[: self._opened.index("code") + 1], *inside)
        self._close_code()
        return difference(shown, "".join(self._stem[self._uncoloured - 1 :]), path)

    def _show_rest(self, code):
        """Show the code that has no colours yet after the code that has."""
        self._uncoloured = len(self._stem)
        self._stem += ['<span class="rest">', escape(code, quote=False)]

    def _close_code(self):
        self._after = closing([name.partition(".")[0] for name in self._opened])

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

    def _append(self, text):
        shown = escape(text, quote=False)
        self._stem.append(shown)
        return [Patch(self._path, "beforeend", shown)] if shown else []

    # Rendering

    def _update(self, text):
        """Finish what is finished, render what is open, and return what differs."""
        stem, path = "".join(self._stem), self._path
        stack, mark = list(self._stack), len(self._head)
        self._stem = [stem]
        while (cut := self._region.next_cut()) is not None:
            self._finish(*cut)
        if len(self._head) == mark and not self._region.fence and self._can_wait:
            return self._append_raw(text)
        self._render_open()
        shown = "".join(self._stem)
        self._opened = names(shown)
        new = "".join(self._head[mark:]) + shown + self._after + closing(self._tags)
        return self._difference(stem, new, path, stack, mark)

    @property
    def _can_wait(self):
        return self._work > LONG and LONG / 4 < self._region.weight < self._rendered * 1.25

    def _difference(self, old, new, path, stack, mark):
        """Return the patches that turn the old open end of the HTML into the new one."""
        patches = difference(old, new, path)
        if patches is None and stack:
            before = "".join(self._head[stack[-1][1] : mark])
            patches = difference(before + old, before + new, path)
        return [Patch((), "innerMorph", self.html)] if patches is None else patches

    def _render_open(self):
        """Render the open region as far as it can be shown."""
        region = self._region
        self._rendered = region.weight
        self._work += region.weight
        self._stem, self._after, self._plain, self._hoped = [""], "", False, False
        self._colours = None
        if region.fence:
            return self._render_open_code()
        text = without_tail(region.source, region.context == "text")
        self._gap = region.source[len(text) :]
        if len(text) <= region.solid:
            text = region.source[: region.solid]
            return self._show("", text, False) if text else None
        if ends_details(text):  # nothing may stand on that line
            return self._show("", text, False)
        self._render_half_open(text)

    def _render_open_code(self):
        region = self._region
        source = region.source[: region.fence.start] + " " * region.fence.indent + CARET
        stem, _, rest = (self._translate(source) or "").rpartition(CARET)
        code = region.new_code()
        self._stem, self._after = [stem], rest.strip()
        self._colours = colours_of(language_and_file(region.fence.info)[0])
        if not self._colours:
            return self._stem.append(escape(code, quote=False))
        self._stem.append(self._colours.feed(code))
        self._show_rest(self._colours.rest)
        self._opened = names("".join(self._stem))
        self._close_code()

    def _render_half_open(self, text):
        linked = with_whole_link(text)
        text = linked or text
        ends = closers(text, self._region.kind)
        self._hoped = bool(ends)
        self._show(self._translate(text + CARET + ends) or "", text, not linked)

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
            stem, tags = split_closing(stem + "".join(tags))
        self._stem, self._after = [stem], "".join(tags)

    def _translate(self, source, references=None):
        """Render a region to the HTML that goes into its context; None if it is no such region.

        `references` is where links that it defines are kept.
        """
        context = self._region.context
        # Half an address must not be.
        links = self._references.copy() if references is None else references
        if context == "text":
            source = QUOTE_MARK.sub("\n", source) if "blockquote" in self._tags else source
            shown = render_inline(UNDERLINE.sub("", source.rstrip()), links)
            return f'<span class="rest">{shown}</span>' if shown else ""
        if context == "row":
            return render_row(source, self._region.table[1], links)
        shown, kinds = render_blocks(source, links, within=context == "quote")
        if context == "block":
            return shown
        tag = {"item": "list", "quote": "block_quote"}[context]
        return shown[shown.index(">") + 1 : shown.rindex("<")] if kinds == [tag] else None

    # Finishing

    def _finish(self, end, follows):
        """Render the region up to where it ends, for the last time, and begin the next one."""
        region = self._region
        shown = self._translate(region.source[:end], self._references)
        if shown is None:  # the region is no part of what is open around it
            self._head.append(closing(self._tags))
            self._stack = []
            return self._begin("block", region.source)
        if region.context == "block":
            follows = self._finish_block(shown, follows)
        elif region.context == follows:
            self._head.append(shown)
        else:
            kept = 1 if follows == "quote" else 0
            self._head.append(shown + closing(self._tags[kept:]))
            del self._stack[kept:]
        self._begin(follows, region.source[end:], region.table)

    def _finish_block(self, shown, follows):
        """Leave a block open for what follows in it; return what does follow."""
        opened = {"item": [shown[-3:-1]], "row": ["table", "tbody"], "quote": ["blockquote"]}
        tags = opened.get(follows, [])
        if not tags or not shown.endswith(closing(tags)):
            self._head.append(shown)
            return "block"
        self._stack = [(tag, len(self._head)) for tag in tags]
        self._head.append(shown.removesuffix(closing(tags)))
        return follows

    def _settle(self, text):
        """Finish a long paragraph's beginning: cut between two words, where no markup is open."""
        region, stem = self._region, "".join(self._stem)
        source = region.source.removesuffix(self._gap)
        tags = SETTLED.get(region.kind, [])[region.context == "quote" :]
        paragraphs = len(re.findall(r"<p\b", stem))
        between = self._plain and not self._gap.strip() and (self._gap + text)[:1].isspace()
        if not between or self._after != closing(tags) or paragraphs > 1:
            return
        self._tried = len(source)
        if inline_closers(source) or self._translate(source) != stem + self._after:
            return
        if region.context == "text":
            self._head.append(stem + self._after)
        else:
            self._stack += [(tag, len(self._head)) for tag in tags]
            self._head.append(stem)
        rest = self._gap
        self._begin("text", rest)
        self._gap = rest
