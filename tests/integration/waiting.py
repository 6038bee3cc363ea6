"""Waiting for what comes in its own time, and for no longer than that can take."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Return as soon as `condition` holds; fail with the name of `what` did not come within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.02)
