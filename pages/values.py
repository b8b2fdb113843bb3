"""How a setting is read: one of a few words, a number, a share; and refused, in a sentence."""

import re
from decimal import Decimal

from chattable import serve

MOST = 10**9


def choice(settings, name, allowed):
    value = settings.get(name, allowed[0]).lower()
    return value if value in allowed else refuse(f"{name} must be one of {', '.join(allowed)}.")


def whole_number(settings, name, default, least=1, most=MOST):
    value = str(settings.get(name, default))
    if re.fullmatch("[0-9]{1,10}", value) and least <= int(value) <= most:
        return int(value)
    refuse(f"{name} must be a whole number from {least} to {most}.")


def limits_hold(settings):
    """Return whether anything is limited: for load tests, `RATELIMIT_ENABLED=0` lifts it."""
    return settings.get("RATELIMIT_ENABLED", "1") not in ("0", False)


def limit(settings, name, default):
    """Return how many of a thing a person may have; 0 for any number."""
    return whole_number(settings, name, default, least=0) if limits_hold(settings) else 0


def dollars(settings, name):
    """Return a sum of dollars (Decimal), None if none is set."""
    value = str(settings.get(name, "")).strip().removeprefix("$")
    if value and not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,12})?", value):
        refuse(f"{name} must be dollars, as in 5 or 2.50.")
    return Decimal(value) if value else None


def share(settings, name, default):
    try:
        value = float(settings.get(name) or default)
    except ValueError:
        value = -1
    return value if 0 <= value <= 1 else refuse(f"{name} must be a share, from 0 to 1.")


def refuse(sentence):
    raise serve.CannotStart(sentence)
