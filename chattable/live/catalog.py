"""The provider's models, as a worker last heard them."""

import json
from urllib.parse import urlsplit

from flask import current_app
from redis.exceptions import RedisError

from chattable.live.connection import redis
from chattable.live.keys import models_key


def keep_models(names: list[str]) -> None:
    redis().set(models_key(), json.dumps({"at": host(), "names": names}))


def known_models() -> list[str]:
    """Return the list a worker fetched of this provider, or [] if none has or Redis is away."""
    try:
        kept = json.loads(redis().get(models_key()) or "{}")
    except RedisError:
        return []
    # An earlier version kept names alone.
    return kept["names"] if isinstance(kept, dict) and kept.get("at") == host() else []


def host():
    """Return where the provider is; not the whole address, which may hold a password."""
    return urlsplit(current_app.config["OPENAI_BASE_URL"] or "").netloc.rpartition("@")[2]
