"""Where the app lies that the launcher runs, and what its Procfile names."""

import re
from pathlib import Path

from chattable.serve.sentences import CannotStart

PACKAGE = Path(__file__).resolve().parent.parent


def home():
    """Return the folder of the app: where we are called, else where this package is a part of it.

    Raises CannotStart where neither holds an app, as where the library is installed alone.
    """
    for folder in (Path.cwd(), PACKAGE.parent):
        if (folder / "app.py").is_file() and (folder / "Procfile").is_file():
            return folder
    raise CannotStart(
        "there is no app here; call it where app.py and Procfile are, as in a clone of Chattable."
    )


def check_files():
    """Refuse to start without the files that the build hook brings."""
    if not (PACKAGE / "static" / "vendor" / "htmx.min.js").exists():
        raise CannotStart(
            "chattable/static/vendor/ is empty; "
            "fill it with `uv sync --reinstall-package chattable`."
        )


def command(name):
    """Return the arguments that run what the Procfile names, without leaving the shell behind."""
    if name not in procfile():
        raise CannotStart(f"the Procfile names no {name}; it needs release, web and worker.")
    return ["sh", "-c", f"exec {procfile()[name]}"]


def procfile():
    """Return the Procfile's commands by name."""
    return dict(re.findall(r"^(\w+): *(.+)$", (home() / "Procfile").read_text(), re.MULTILINE))
