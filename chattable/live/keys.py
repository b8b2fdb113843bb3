"""Keys and channels: what is where in Redis, for every other module of the live page.

Channels know no database numbers: another install on the same Redis hears them all. So each name
begins with ours, and so does each text that is published.
"""

from flask import current_app

# What Redis keeps of a running reply, and a turn that waits for its worker, last this long.
LIFETIME = 6 * 3600


def install() -> str:
    """Return the random name of this install, asked of the database once in a process.

    Raises `SQLAlchemyError` when that is not there.
    """
    extensions = current_app.extensions
    if "chattable_install" not in extensions:
        extensions["chattable_install"] = extensions["chattable_find_name"]()
    return extensions["chattable_install"]


def prefix() -> str:
    """Return what every key and channel of ours begins with."""
    return current_app.config["REDIS_PREFIX"] or f"chattable:{install()}"


def own(name: str, data: bytes) -> str | None:
    """Return what the install called `name` has published as `data`, None if it was another."""
    head, _, words = data.partition(b" ")
    return words.decode() if head == name.encode() else None


def channel(chat_id: int) -> str:
    return f"{prefix()}:chat:{chat_id}"


def seq_key(chat_id):
    return number_key(channel(chat_id))


def number_key(channel):
    """Return where Redis counts the frames of a channel."""
    return f"{channel}:seq"


def owner_channel(kind: str, owner_id: int) -> str:
    """Return the channel of what becomes of somebody's chats."""
    return f"{prefix()}:{kind}:{owner_id}"


def reply_keys(chat_id):
    """Return where Redis keeps the reply of a chat that is being written: there is at most one."""
    return [f"{channel(chat_id)}:{part}" for part in ("text", "key", "patches")]


def turn_key(chat_id: int) -> str:
    return f"{channel(chat_id)}:turn"


def lease_key(message_id: int) -> str:
    return f"{prefix()}:message:{message_id}:lease"


def stop_key(message_id):
    return f"{prefix()}:message:{message_id}:stop"


def over_key(message_id):
    return f"{prefix()}:message:{message_id}:over"


def pass_key(message_id):
    return f"{prefix()}:message:{message_id}:pass"


def claim_key(token):
    return f"{prefix()}:claim:{token}"


def quiet_channel():
    """Return a channel on which nobody says anything."""
    return f"{prefix()}:quiet"


def stops_channel() -> str:
    return f"{prefix()}:stops"


def models_key():
    return f"{prefix()}:models"
