"""Chats for any Flask app: replies that stream, with their tokens and their cost.

`Chattable` gives a model chats and two hooks, `ChatMixin` and `MessageMixin` make two models of an
app its chats and messages, `init_app(app, db)` prepares the app.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chattable.chat import ChatMixin, ReplyInProgress
    from chattable.message import MessageMixin
    from chattable.owner import Chattable
    from chattable.setup import init_app

HOMES = {
    "Chattable": "owner",
    "ChatMixin": "chat",
    "MessageMixin": "message",
    "ReplyInProgress": "chat",
    "init_app": "setup",
}
__all__ = ["ChatMixin", "Chattable", "MessageMixin", "ReplyInProgress", "init_app"]


if not TYPE_CHECKING:  # or a checker takes any name for one of ours

    def __getattr__(name):
        # Only now: the launcher needs this package, and none of what takes long to import.
        if name not in HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
