"""A message's blocks, parsed at a cost that is linear in its length. The dialect comes in."""

import re

import mistune

from chattable.markdown.bounds import step
from chattable.markdown.fences import quoted_markdown
from chattable.markdown.math import FLUSH_MATH
from chattable.markdown.notes import name_callout

THEMATIC_BREAK = r"^ {0,3}(?:(?:-[ \t]*+){3,}+|(?:_[ \t]*+){3,}+|(?:\*[ \t]*+){3,}+)$"


class Lines(mistune.BlockState):
    within = False  # whether the lines of a list or a quote are being looked for

    def get_line(self, start_pos):
        math = self.within and FLUSH_MATH.match(self.src, start_pos)
        line = math[0] if math else super().get_line(start_pos)
        step(1 + len(line) // 100)
        return line


class Blocks(mistune.BlockParser):
    """Parse one block after the other: mistune parses those that end lists and quotes within."""

    state_cls = Lines

    def parse_method(self, m, state):
        step(1 + (m.end() - m.start()) // 100)
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
        code_end, end = quoted_markdown(m, state)
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

    def parse_block_quote(self, m, state):
        end = super().parse_block_quote(m, state)
        if state.parent or not state.env.get("within"):
            name_callout(state.tokens[-1])
        return end

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
