"""The command `chattable`: it finds the app, and then what runs it."""

import sys
from importlib.util import find_spec

from chattable.serve.home import home
from chattable.serve.sentences import CannotStart


def main():
    """Run the app that lies here until Ctrl-C; exit with 1 and one sentence if it cannot start."""
    if sys.argv[1:]:
        sys.exit("usage: chattable\nIt takes no arguments; .env.example lists its settings.")
    try:
        check_place()
    except CannotStart as sentence:
        sys.exit(f"chattable: {sentence}")
    # Only here is what the launcher needs and the library does not.
    from chattable.serve.launcher import launch

    launch()


def check_place():
    """Refuse to start where there is no app, or not the packages that it needs."""
    home()
    if not find_spec("dotenv"):
        raise CannotStart(
            "the packages of the app are not installed; `uv run chattable` does it, or "
            "`pip install -e '.[app]'`."
        )


if __name__ == "__main__":
    main()
