"""Fences of code, and those in Markdown that is quoted whole. Who looks for a block comes in."""

import re

from chattable.markdown.bounds import DEEPEST, step

MARKDOWN = re.compile(r"(?:markdown|md)\b", re.I)
FENCE_LINE = re.compile(r"^ {0,3}(`{3,}+|~{3,}+)[ \t]*+([^`\n]*)(?:\n|$)", re.M)


def quoted_markdown(m, state):
    """Return where quoted Markdown and its fence end, if fences in it come in pairs; else Nones."""
    tried = state.env.get("quotes_tried", 0)
    if not MARKDOWN.match(m.group("fenced_3")) or tried > DEEPEST:
        return None, None
    marker, depth = m.group("fenced_2"), 0
    for fence in FENCE_LINE.finditer(state.src, m.end()):
        step()
        change = fence_step(marker, *fence.groups())
        if depth + change < 0:
            return fence.start(), fence.end()
        depth += change
    # To look to the end again and again would take the square.
    state.env["quotes_tried"] = tried + 1
    return None, None


def fence_step(marker, run, info):
    """Return 1 for a fence that opens code within one of `marker`, -1 for one that ends code."""
    if not run.startswith(marker):
        return 0
    return 1 if info.strip() else -1
