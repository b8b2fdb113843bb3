"""The few harmless HTML tags that are read as Markdown, and <details>, which is a block."""

import re

from chattable.markdown.fences import MARKDOWN, fence_step

HARMLESS = r"(?i:sub|sup|kbd|mark|u)"
SUMMARY_TAG = r"(?i:b|strong|i|em|code)"  # instead of Markdown, which GitHub does not read there
TAGS = (
    rf"<(?:(?P<html_break>[Bb][Rr])[ \t]?/?|(?P<html_tag>{HARMLESS})"
    rf"|(?P<summary_tag>{SUMMARY_TAG}))>"
)
MEANING = {"b": "strong", "i": "em"}
DETAILS = (
    r"^ {0,3}(?i:<details(?P<opened> open)?>)[ \t]*+(?:\n[ \t]*+){0,3}+"
    r"(?i:<summary>(?P<summary>(?:(?!</?summary>|\n[ \t]*+\n)[\s\S]){0,1000}+)</summary>)"
)
DETAILS_EDGE = re.compile(
    r"^ {0,3}(?P<opens><details(?: open)?>)|</details>[ \t]*$"
    r"|(?:^|</summary>)[ \t]*+(?P<fence>`{3,}+|~{3,}+)(?P<info>[^`\n]*)$",
    re.M | re.I,
)


def parse_tag(inline, match, state):
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
    children, name = inline.render(inner), MEANING.get(tag.lower(), tag.lower())
    state.append_token({"type": "html_tag", "children": children, "attrs": {"tag": name}})
    return end + len(f"</{tag}>")


class Summary(str):
    """The text of a summary, told from other text to read a few more tags in it."""

    def strip(self, *characters):
        return Summary(super().strip(*characters))


def parse_details(block, match, state):
    """Take blocks up to the end of <details>, or all the rest, into it."""
    if state.depth() >= block.max_nested_level - 1:
        return None
    end = _details_end(state.src, match.start()) or state.cursor_max
    source = state.src[match.end() : end].rstrip()
    inner = state.child_state(source[: -len("</details>")] if ends_details(source) else source)
    block.parse(inner, block.rules)
    summary = {"type": "summary", "text": Summary(match.group("summary"))}
    token = {"type": "details", "children": [summary, *inner.tokens]}
    state.append_token(token | {"attrs": {"opened": bool(match.group("opened"))}})
    return end


def ends_details(text):
    return text[-len("</details>") :].lower() == "</details>"


def _details_end(source, start):
    """Return where <details> that begins there ends, and others in it before; None if nowhere."""
    depth, fence = 0, None
    for edge in DETAILS_EDGE.finditer(source, start):
        depth, fence = beyond_edge(edge, depth, fence)
        if not depth:
            return edge.end() + 1
    return None


def beyond_edge(edge, depth, fence):
    """Return how many <details> are open after an edge, and the fence that is.

    A fence is (its marks, whether it holds Markdown, how many are open in that).
    """
    marks, info = edge.group("fence", "info")
    if not fence:
        if marks:
            return depth, (marks, bool(MARKDOWN.match(info.strip())), 0)
        return depth + (1 if edge.group("opens") else -1), None
    if not marks or not (step := fence_step(fence[0], marks, info)) or step > 0 and not fence[1]:
        return depth, fence
    inner = fence[2] + step
    return depth, None if inner < 0 else (*fence[:2], inner)
