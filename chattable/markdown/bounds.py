"""Bounds of the work that one text can cause, so that others go on. All other rooms may come in."""

import time

DEEPEST = 20  # levels of markup within markup, as mistune has it
# Steps of work, about ten microseconds each, and seconds of it, after which others get a turn.
STEPS, TURN = 1_000, 0.01
NO_TIME = 1e-6  # 0 would let other greenlets run, but not look what has arrived for them
_steps = 0


def step(count=1):
    """Count the work of this process, and let its other greenlets (or threads) go on in between."""
    global _steps
    _steps += count
    if _steps > STEPS:
        _steps = 0
        time.sleep(NO_TIME)


def in_time(tokens, seconds):
    """Give tokens on, others a turn; raise TimeoutError when they have taken so much CPU."""
    spent, began = 0.0, time.thread_time()
    for token in tokens:
        taken = time.thread_time() - began
        if spent + taken > seconds:
            raise TimeoutError
        if taken > TURN:
            time.sleep(NO_TIME)
            spent, began = spent + taken, time.thread_time()
        yield token
