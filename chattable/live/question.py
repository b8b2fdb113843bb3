"""The frames of a chat over HTTP, for a page whose network lets no socket through."""

import hashlib
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import urlencode

from flask import Response, current_app, jsonify, request

from chattable.live.frames import rooted
from chattable.live.socket import Leaving

log = logging.getLogger(__name__)


def give_updates(chat: Any, beside: tuple[Sequence[str], dict] = ((), {})) -> Response:
    """Answer a page that asks what is new in a chat: JSON with `frames` and with its `next` query.

    A query has `since`, the chat's `revision` when the page was made, and what it `had`: how many
    frames since then, and their digest. Frames that it had already are left out. `beside` are
    frames of what the page shows beside the chat (None: it shows no other), and their own query.
    """
    if "Sec-WebSocket-Key" in request.headers:
        tell_of_proxy()
    if chat is None:
        return answer(*beside)
    # First: what changes while we read is then sent again, never missed.
    revision = chat.revision
    since = min(max(request.args.get("since", 0, int), 0), revision)
    had, digest = request.args.get("had", 0, int), request.args.get("digest")
    with current_app.extensions["chattable_line"].place(Leaving([])):
        _, frames = chat.catch_up(since)
    if revision > since:
        following = {"since": revision}
    else:
        following = {"since": since, "had": len(frames), "digest": digest_of(frames)}
    new = frames[had:] if digest == digest_of(frames[:had]) else frames
    return answer([*new, *beside[0]], following | beside[1])


@cache  # once, however often pages try
def tell_of_proxy():
    log.warning(
        "a page has asked for a socket, and a proxy before this server has made plain HTTP of it. "
        "nginx needs: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
        'proxy_set_header Connection "upgrade";'
    )


def answer(frames, following):
    response = jsonify(frames=[*map(rooted, frames)], next=urlencode(following))
    response.cache_control.no_store = True
    return response


def digest_of(frames):
    return hashlib.sha256("\0".join(frames).encode()).hexdigest()[:12]
