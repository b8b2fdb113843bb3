"""How long a test waits for what has to come."""

# Whoever waits says how many seconds a quiet machine needs at most. A busy one takes a multiple,
# and a wait costs nothing once the event is there; so no test says how busy the machine may be.
BUSY = 6


def patient(seconds):
    """Return how long to wait for what takes so many seconds on a quiet machine."""
    return seconds * BUSY
