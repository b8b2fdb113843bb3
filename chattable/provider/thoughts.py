"""What a model thinks, told from what it says where it writes both into its reply."""

import re


class ThoughtReader:
    """Tell what a model thinks from what it says, where it writes both into its reply.

    Local models begin with `<think>…</think>`, or with the thought itself when their template has
    written the opening tag: then what was taken for the reply is taken back at the closing one, if
    that stands alone on its line. Later tags, and those in code or in a sentence, are text.
    """

    OPENING = re.compile(r"\s*<think(?:ing)?>\s*", re.I)
    CLOSING = re.compile(r"</think(?:ing)?>\s*", re.I)
    CLOSING_LINE = re.compile(r"^</think(?:ing)?>[ \t]*\r?\n", re.I | re.M)
    LONGEST_BLANK = 200

    def __init__(self):
        self.took_back = False
        self._held = ""
        self._said = []
        self._judged = 0  # how many pieces of it
        self._code = CodeFinder()
        self._look = self._begin

    def feed(self, text):
        """Return (thought, said) of the reply's next piece of text."""
        text, self._held = self._held + text, ""
        return self._look(text) if text else ("", "")

    def close(self):
        """Return what was held back: the beginning of a tag that never came."""
        held, self._held = self._held, ""
        return "" if self._look == self._think else held

    def _begin(self, text):
        if opening := self.OPENING.match(text):
            self._look = self._begin_thought
            return self._begin_thought(text[opening.end() :])
        if closing := self.CLOSING.match(text, len(text) - len(text.lstrip())):
            self._look = self._pause
            return self._pause(text[closing.end() :])
        half = any(tag.startswith(text.strip().lower()) for tag in ("<thinking>", "</thinking>"))
        if half and len(text) < self.LONGEST_BLANK:
            self._held = text
            return "", ""
        self._look = self._speak
        return self._speak(text)

    def _begin_thought(self, text):
        if not (text := text.lstrip()):
            return "", ""
        self._look = self._think
        return self._think(text)

    def _think(self, text):
        if closing := self.CLOSING.search(text):
            self._look = self._pause
            return text[: closing.start()].rstrip(), self._pause(text[closing.end() :])[1]
        return self._hold(text), ""

    def _speak(self, text):
        text, position = self._hold_line(text), 0
        for closing in self.CLOSING_LINE.finditer(text):
            if not (closing.start() or self._at_line):
                continue
            self._say(text[position : closing.start()])
            position = closing.start()
            if self._was_thought():
                self.took_back, self._look = True, self._pause
                return "".join(self._said).strip(), self._pause(text[closing.end() :])[1]
        self._say(text[position:])
        return "", text

    def _say(self, text):
        self._said += [text] if text else []

    @property
    def _at_line(self):
        return not self._said or self._said[-1].endswith("\n")

    def _was_thought(self):
        """Tell whether what was said may be a thought: it ends in no code and opens no other."""
        new, self._judged = "".join(self._said[self._judged :]), len(self._said)
        self._code.feed(new)
        return not (self._code.open or self._code.mentions_thought)

    def _pause(self, text):
        self._look = self._go_on if text.strip() else self._pause
        return "", text.lstrip()

    def _go_on(self, text):
        return "", text

    def _hold(self, text):
        """Hold back the beginning of a closing tag, and the blanks that it would end."""
        start = text.rfind("<", -len("</thinking>"))
        if start < 0 or not "</thinking>".startswith(text[start:].lower()):
            start = len(text)
        blank = start - len(text[:start].rstrip())
        start -= blank if blank < self.LONGEST_BLANK else 0
        text, self._held = text[:start], text[start:]
        return text

    def _hold_line(self, text):
        """Hold back a last line that may be a closing tag alone on it."""
        start = text.rfind("\n") + 1
        line = text[start:].lower()
        half = "</thinking>".startswith(line) or self.CLOSING.fullmatch(line)
        if half and (start or self._at_line) and len(line) < self.LONGEST_BLANK:
            text, self._held = text[:start], text[start:]
        return text


class CodeFinder:
    """Tell whether lines of Markdown end in code: within a fence, or a span over several lines."""

    FENCE = re.compile(r"(?:[ \t>]|[-+*][ \t]|\d{1,9}[.)][ \t])*+(`{3,}(?=[^`]*$)|~{3,})")
    TICKS = re.compile(r"`+")

    def __init__(self):
        self.open = ""  # the marks that opened it
        self.mentions_thought = False
        self._fenced = False

    def feed(self, lines):
        self.mentions_thought = self.mentions_thought or "<think" in lines
        for line in lines.split("\n")[:-1]:
            self._read(line)

    def _read(self, line):
        bare = line.strip(" \t\r>")
        if self._fenced:
            if bare.startswith(self.open) and not bare.strip(self.open[0]):
                self.open, self._fenced = "", False
        elif fence := self.FENCE.match(line):
            self.open, self._fenced = fence[1], True
        elif not bare:
            self.open = ""
        else:
            self._read_spans(line)

    def _read_spans(self, line):
        for ticks in self.TICKS.findall(line):
            if ticks == self.open:
                self.open = ""
            else:
                self.open = self.open or ticks
