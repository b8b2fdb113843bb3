"""Where the app lies that the launcher runs, and what its Procfile names."""

from pathlib import Path

from chattable.serve.sentences import CannotStart

PACKAGE = Path(__file__).resolve().parent.parent
HOME = PACKAGE.parent


def check_files():
    """Refuse to start without the files that the build hook brings."""
    if not (PACKAGE / "static" / "vendor" / "htmx.min.js").exists():
        raise CannotStart(
            "chattable/static/vendor/ is empty; "
            "fill it with `uv sync --reinstall-package chattable`."
        )


def command(name):
    """Return the arguments that run what the Procfile names, without leaving the shell behind."""
    return ["sh", "-c", f"exec {procfile()[name]}"]


def procfile():
    """Return the Procfile's commands by name."""
    lines = (HOME / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if line)
