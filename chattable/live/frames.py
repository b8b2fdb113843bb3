"""Frames: what a page swaps in. They are built from the same partials the page uses."""

import json
from typing import Any

from flask import current_app
from markupsafe import Markup


def render(template: str, **context: Any) -> str:
    return current_app.jinja_env.get_template(template).render(context)


def article_frame(*articles):
    """Return the frame that replaces or inserts rendered articles, in order of their ids.

    The role: a layout may have a `#messages` of its own, which is a common name.
    """
    return f'<hx-upsert hx-target="#messages[role=log]">{"".join(articles)}</hx-upsert>'


def article(message, body=None):
    """Return the HTML of one message; `body` if it shows something else than `message.body`."""
    body = message.body if body is None else Markup(body)
    return render("chattable/_message.html", message=message, body=body)


def since_frame(revision):
    """Return the frame that tells a page at which revision it is now, for when it comes again."""
    return f'{{"since":{revision}}}'


def removal(message):
    return partial(f"#message-{message.id}", "delete", "")


def growth_frame(message, patches):
    """Return the frame that applies `patches` to the body of a message.

    It is JSON, the shortest form htmx's socket extension knows: most frames carry few words.
    """
    first, *others = patches
    # Found in the chat: a copy that something has made of a message elsewhere has the same id.
    frame = {"target": f"find {address(message, first.path)}", "content": first.html}
    if first.swap != "beforeend":
        frame["swap"] = first.swap
    frame["content"] += "".join(
        partial(address(message, patch.path), patch.swap, patch.html) for patch in others
    )
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def partial(target, swap, html):
    return f'<hx-partial hx-target="{target}" hx-swap="{swap}">{html}</hx-partial>'


def address(message, path):
    """Return the selector of the element in the body of a message that a patch's path leads to."""
    steps = (
        f">:nth-last-child(1 of {name})" if "." in name else f">{name}:last-of-type"
        for name in path
    )
    return f"#message-{message.id}-body{''.join(steps)}"
