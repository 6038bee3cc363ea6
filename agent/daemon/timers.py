"""The times at which the corridor is to be woken, each by a `Due`. Nobody else owns a timer."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from agent.model.events import Due, Event


class Timers:
    """At most one time for each purpose. `put` takes the events."""

    def __init__(self, put: Callable[[Event], None]) -> None:
        self._put = put
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def wake(self, what: str, at: datetime | None) -> None:
        """Have `Due(what)` come at `at`, and at no other time; None: never."""
        if what in self._handles:
            self._handles.pop(what).cancel()
        if at is None:
            return
        delay = max((at - datetime.now(UTC)).total_seconds(), 0)
        loop = asyncio.get_running_loop()
        self._handles[what] = loop.call_later(delay, lambda: self._put(Due(what, datetime.now(UTC))))
