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


def removal(message):
    return f'<hx-partial hx-target="#message-{message.id}" hx-swap="delete"></hx-partial>'


def growth_frame(message, patches):
    """Return the frame that applies `patches` to the body of a message.

    It is JSON, the shortest form htmx's socket extension knows: most frames carry few words.
    """
    first, *others = patches
    frame = {"target": spine(message, first.depth), "content": first.html}
    if first.swap != "beforeend":
        frame["swap"] = first.swap
    frame["content"] += "".join(
        f'<hx-partial hx-target="{spine(message, patch.depth)}" hx-swap="{patch.swap}">'
        f"{patch.html}</hx-partial>"
        for patch in others
    )
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def spine(message, depth):
    """Return the selector of the element at `depth` in the chain of last children of the body."""
    return f"#message-{message.id}-body" + ">:last-child" * depth
