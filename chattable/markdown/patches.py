"""Patches: what turns the HTML that a page shows into what it is to show. Only growth comes in."""

import re
from typing import NamedTuple

TAG = re.compile(r"<(/?)([a-z0-9]+)[^>]*>")
VOID = {"br", "hr", "input"}


class Patch(NamedTuple):
    """A change to the shown HTML: where on the spine (depth below the body), how, and with what."""

    depth: int
    swap: str
    html: str


def difference(old, new, depth):
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
    starts: list[int] = []
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


def split_closing(shown):
    """Split HTML before the closing tags at its end."""
    end = len(shown)
    while (
        end and shown[end - 1] == ">" and shown.startswith("</", start := shown.rindex("<", 0, end))
    ):
        end = start
    return shown[:end], re.findall(r"</\w+>", shown[end:])


def closing(tags):
    return "".join(f"</{tag}>" for tag in reversed(tags))
