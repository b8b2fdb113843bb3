"""What may be said of an exception in a log: its kind and where it was, not what people wrote."""

import os
import sys
import traceback
from collections.abc import Iterator

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from chattable.database import reason
from chattable.provider.errors import ProviderError

# What they say is about the code, or is a sentence of ours.
PLAIN = RuntimeError, TypeError, AttributeError, NameError, ImportError, ProviderError
# What follows it, in an error of redis-py's, names the whole command before.
OF_PIPELINE = "of pipeline caused error: "


def what(error: BaseException) -> str:
    """Return the kind of an exception, with its words where these are nobody's."""
    words = words_of(error).partition("\n")[0]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def words_of(error):
    if isinstance(error, SQLAlchemyError):
        cause = reason(error)
        return "" if cause is error else str(cause)
    if isinstance(error, RedisError):
        return str(error).rpartition(OF_PIPELINE)[2]
    if isinstance(error, OSError):
        return error.strerror or ""
    return str(error) if isinstance(error, PLAIN) else ""


def trace(error: BaseException) -> list[str]:
    """Return, a line each, where an exception was raised and what it is; its cause is the first."""
    return [line for each in chain(error) for line in [*frames(each), what(each)]]


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an exception's causes and itself, the first cause first."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    yield from reversed(seen)


def frames(error):
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {short(frame.filename)}:{frame.lineno} {frame.name}"


def short(path):
    """Return a module's path without the folder of this machine that it is in."""
    places = [f"{place}{os.sep}" for place in (os.getcwd(), *sys.path) if place]
    fitting = [place for place in places if path.startswith(place)]
    return path[len(max(fitting, key=len)) :] if fitting else os.path.basename(path)
