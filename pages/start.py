"""`python -m pages.start gunicorn …`: the web's command, once nothing is in its way.

gunicorn would begin its processes again and again, and end with a status and words of its own.
"""

import logging
import os
import sys

from chattable.serve.settings import tidy_environment, whole_number


def main(command):
    """Become a command (list of str), or exit with one sentence and status 1."""
    # The launcher has looked, and hears the rest from the web itself.
    if "CHATTABLE_GATE" not in os.environ:
        read_numbers()
        refuse_what_never_works()
    os.execvp(command[0], command)


def read_numbers():
    """Have the numbers that gunicorn reads as it reads them, or not at all."""
    tidy_environment()
    for name, most in (("WEB_CONCURRENCY", 64), ("PORT", 65535)):
        if os.environ.get(name):
            os.environ[name] = str(whole_number(name, None, range(1, most + 1)))
        else:
            os.environ.pop(name, None)


def refuse_what_never_works():
    # Here, for to load them takes a second.
    from app import create_app
    from pages.services import refuse_closed_services

    logging.disable()  # the web says it again
    refuse_closed_services(create_app())


if __name__ == "__main__":
    main(sys.argv[1:])
