"""The provider's models, as a worker last heard them, or why it could not."""

import json
from urllib.parse import urlsplit

from flask import current_app
from redis.exceptions import RedisError

from chattable.live.connection import redis
from chattable.live.keys import models_key


def keep_models(names: list[str], trouble: str | None = None) -> None:
    redis().set(models_key(), json.dumps({"at": host(), "names": names, "trouble": trouble}))


def keep_trouble(sentence: str) -> None:
    """Keep why nobody knows the list; one that was heard before stays."""
    if not known_models():
        keep_models([], sentence)


def forget_trouble() -> None:
    """Know as little of the list as at first, unless there is one."""
    if not known_models():
        redis().delete(models_key())


def known_models() -> list[str]:
    """Return the list a worker fetched of this provider, or [] if none has or Redis is away."""
    return heard_models()[0] or []


def heard_models() -> tuple[list[str] | None, str | None]:
    """Return (names, trouble): no names while nobody has asked, or while Redis is away."""
    try:
        kept = json.loads(redis().get(models_key()) or "{}")
    except RedisError:
        return None, None
    # An earlier version kept names alone.
    if not isinstance(kept, dict) or kept.get("at") != host():
        return None, None
    return kept["names"], kept.get("trouble")


def host():
    """Return where the provider is; not the whole address, which may hold a password."""
    return urlsplit(current_app.config["OPENAI_BASE_URL"] or "").netloc.rpartition("@")[2]
