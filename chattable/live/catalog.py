"""The provider's models, as a worker last heard them."""

import json

from redis.exceptions import RedisError

from chattable.live.connection import redis
from chattable.live.keys import models_key


def keep_models(names: list[str]) -> None:
    redis().set(models_key(), json.dumps(names))


def known_models() -> list[str]:
    """Return the list a worker fetched, or [] if none has yet or Redis is away."""
    try:
        return json.loads(redis().get(models_key()) or "[]")
    except RedisError:
        return []
