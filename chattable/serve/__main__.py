"""The command `chattable`."""

import sys

from chattable.serve.launcher import launch


def main():
    """Run the app that lies here; what it needs is asked of the environment, not of arguments."""
    if sys.argv[1:]:
        sys.exit("usage: chattable\nIt takes no arguments; .env.example lists its settings.")
    launch()


if __name__ == "__main__":
    main()
