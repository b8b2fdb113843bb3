"""Frames: what a page swaps in. They are built from the same partials the page uses."""

import html
import json
import re
from typing import Any

from flask import current_app, request
from markupsafe import Markup, escape

TAG = re.compile(r"<[^>]*>")
# htmx leaves the children of such an element; its value is how long their text is, in UTF-16.
KEPT = "hx-morph-skip-children"
# Not for pages: it has their sockets look again what there is, as if the page had been away.
ANEW = '{"anew":true}'
# Nor is what begins like this: it closes sockets, see `end_sockets`.
ENDED = '{"ended":'
# Stands in a frame for where the app is mounted, which whoever makes it may not know: a character
# that no text has, for no database takes it.
ROOT = "\0"


def render(template: str, **context: Any) -> str:
    """Return what a template makes for pages anywhere; see `rooted`."""
    context = {"chattable_root": ROOT} | context
    return current_app.jinja_env.get_template(template).render(context)


def rooted(frame):
    """Return a frame for the page that asks, whose addresses begin where it has found the app."""
    return frame.replace(ROOT, escape(request.script_root)) if ROOT in frame else frame


def article_frame(*articles):
    """Return the frame that replaces or inserts rendered articles, in order of their ids.

    The role: a layout may have a `#messages` of its own, which is a common name.
    """
    return f'<hx-upsert hx-target="#messages[role=log]">{"".join(articles)}</hx-upsert>'


def article(message, body=None):
    """Return the HTML of one message; `body` if it shows something else than `message.body`."""
    body = message.body if body is None else Markup(body)
    return render("chattable/_message.html", message=message, body=body)


def ending_frame(message, patches):
    """Return the frame that ends a reply on pages whose body of it `patches` make the whole.

    The rest is morphed into what the page has. A page that shows the end already is left alone.
    """
    running = "[data-status=streaming] "
    news = [partial(running + address(message, *patch[:1]), *patch[1:]) for patch in patches]
    around = article_without_body(message)
    if around is None:
        return article_frame(article(message))
    return "".join(news) + partial(f"#message-{message.id}", "outerMorph", around)


def article_without_body(message):
    """Return the HTML of a message that leaves its body as a page shows it.

    None if a template of the app's own writes the body in another way than ours.
    """
    start, mark, rest = article(message).partition(f'id="message-{message.id}-body"')
    attributes, _, rest = rest.partition(">")
    if not mark or not rest.startswith(message.body):
        return None
    # A page that shows another text, whatever it has met, connects anew and is sent the whole.
    length = len(html.unescape(TAG.sub("", message.body)).encode("utf-16-le", "surrogatepass")) // 2
    return f'{start}{mark} {KEPT}="{length}"{attributes}>{rest[len(message.body) :]}'


def unsent_frame(chat):
    """Return the frame that says, between two messages, what is no longer sent to the model."""
    return render("chattable/_unsent_frame.html", chat=chat).strip()


def since_frame(revision):
    """Return the frame that tells a page at which revision it is now, for when it comes again."""
    return f'{{"since":{revision}}}'


def listed_frame(number):
    """Return the frame that tells a page how many frames of its owner's it has seen."""
    return f'{{"listed":{number}}}'


def ended_frame(key, but):
    """Return the frame that closes the sockets of `key`, or without one all but those of `but`."""
    return f"{ENDED}{json.dumps([key, but])}}}"


def ends(frame, key):
    """Return whether an `ended_frame` closes the sockets of `key`."""
    ended, but = json.loads(frame)["ended"]
    return key == ended if ended is not None else key is None or key != but


def growth_frame(message, patches):
    """Return the frame that applies `patches` to the body of a message.

    It is JSON, the shortest form htmx's socket extension knows: most frames carry few words.
    """
    # htmx drops a frame's own content if it is blank and others go with it.
    first = next((patch for patch in patches if patch.html.strip()), patches[0])
    others = [patch for patch in patches if patch is not first]
    # Found in the chat: a copy that something has made of a message elsewhere has the same id.
    frame = {"target": f"find {address(message, first.path)}", "content": first.html}
    if first.swap != "beforeend":
        frame["swap"] = first.swap
    frame["content"] += "".join(
        partial(address(message, patch.path), patch.swap, patch.html) for patch in others
    )
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def partial(target, swap, content):
    return f'<hx-partial hx-target="{target}" hx-swap="{swap}">{content}</hx-partial>'


def address(message, path):
    """Return the selector of the element in the body of a message that a patch's path leads to."""
    steps = (
        f">:nth-last-child(1 of {name})" if "." in name else f">{name}:last-of-type"
        for name in path
    )
    return f"#message-{message.id}-body{''.join(steps)}"
