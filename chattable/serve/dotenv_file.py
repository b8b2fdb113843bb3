"""The file .env: read as python-dotenv does, but for a line of which it makes nothing."""

import io
import re
from pathlib import Path

from dotenv import load_dotenv
from dotenv.parser import parse_stream

from chattable.serve.sentences import CannotStart


def load_file(path: Path) -> None:
    """Put what a file says, if it is there, into the environment, or raise `CannotStart`."""
    load_dotenv(stream=io.StringIO(checked(path)))


def checked(path: Path) -> str:
    """Return what a file holds, "" if there is none.

    Raises `CannotStart` with the first line that sets nothing: a start without it might be open to
    everybody.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        raise CannotStart(f"{path} cannot be read, or is no text in UTF-8.") from None
    for each in parse_stream(io.StringIO(text)):
        if each.error or (each.key and each.value is None):
            statement = each.original.string
            blank = statement[: len(statement) - len(statement.lstrip())]
            line = each.original.line + len(re.findall("\r\n|\r|\n", blank))
            raise CannotStart(
                f"{path}, line {line}: write NAME=value, and close each quote that is opened."
            )
    return text
