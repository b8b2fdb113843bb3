"""Patches: what turns the HTML that a page shows into what it is to show. Only growth comes in."""

import re
from typing import NamedTuple

TAG = re.compile(r"<(/?)([a-z0-9]+)[^>]*>")
NAME = re.compile(r'<(\w+)(?:[^>]*? class="([\w-]+))?')
VOID, COMMON = {"br", "hr", "input"}, {"div", "span"}


class Patch(NamedTuple):
    """A change to the shown HTML: where, how, and with what.

    The path has the names of the elements that lead there from the body, each the last of ours in
    the one before: ("ul", "li", "p"), ("div.code", "pre", "code").
    """

    path: tuple[str, ...]
    swap: str
    html: str


def difference(old, new, path):
    """Return the patches from HTML open at a path to new HTML; None if nothing is in common."""
    if new.startswith(old):
        return _appended(new[len(old) :], path)
    common, opened = _common(old, new), _open_elements(old)
    starts = [start for start in opened if start <= common]
    if not starts:
        return None
    path = path[: len(path) - len(opened) + len(starts)]
    (_, first), *rest = _chunks(new[starts[-1] :], len(path) - 1)
    added = [Patch(path[:depth], "beforeend", html) for depth, html in rest if html]
    # htmx exchanges nothing for nothing.
    return [Patch(path, "outerHTML" if first else "delete", first), *added]


def _appended(html, path):
    chunks = _chunks(html, len(path))
    return [Patch(path[:depth], "beforeend", added) for depth, added in chunks if added]


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


def names(shown):
    """Return the path of the elements that are open at the end of HTML.

    Others append to a page, too, mostly a <div> or a <span>: ours have a class that tells them.
    """
    return tuple(_name(NAME.search(shown, start)) for start in _open_elements(shown))


def _name(opening):
    tag, own = opening.groups()
    return f"{tag}.{own}" if own and tag in COMMON else tag


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
