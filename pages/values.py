"""How a setting is read: one of a few words, a number, a share; and refused, in a sentence."""

import re

from chattable import serve

MOST = 10**9


def choice(settings, name, allowed):
    value = settings.get(name, allowed[0]).lower()
    return value if value in allowed else refuse(f"{name} must be one of {', '.join(allowed)}.")


def whole_number(settings, name, default):
    value = str(settings.get(name) or default)
    if re.fullmatch("[0-9]{1,10}", value) and 1 <= int(value) <= MOST:
        return int(value)
    refuse(f"{name} must be a whole number from 1 to {MOST}.")


def limits_hold(settings):
    """Return whether anything is limited: for load tests, `RATELIMIT_ENABLED=0` lifts it."""
    return settings.get("RATELIMIT_ENABLED", "1") not in ("0", False)


def share(settings, name, default):
    try:
        value = float(settings.get(name) or default)
    except ValueError:
        value = -1
    return value if 0 <= value <= 1 else refuse(f"{name} must be a share, from 0 to 1.")


def refuse(sentence):
    raise serve.CannotStart(sentence)
