"""What the corridor goes by: the queue of events, the times at which it is woken, and the slow work beside it.

Nobody else owns a timer or a task, and all that they lead to comes back as an event.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from typing import Any

from agent.model.events import Due, Event

LONGEST_SLEEP = 900.0
"""Seconds after which it is looked whether a time has come."""


class Agenda:
    """Events wait in `events`; work can be begun while it is `open`."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._handles: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let work be begun; what is not done at the end is given up. A bug in it ends the whole with its traceback."""
        async with asyncio.TaskGroup() as self._group:
            yield
            for task in self._tasks:
                task.cancel()

    def put(self, event: Event) -> None:
        """Add an event; callable from callbacks of the loop."""
        self.events.put_nowait(event)

    def wake(self, what: str, at: datetime | None) -> None:
        """Have `Due(what)` come at `at`, and at no other time; None: never."""
        if what in self._handles:
            self._handles.pop(what).cancel()
        if at is None:
            return
        now = datetime.now(UTC)
        delay = min(max((at - now).total_seconds(), 0), LONGEST_SLEEP)
        self._handles[what] = asyncio.get_running_loop().call_later(delay, self._ring, what, at, now)

    def _ring(self, what: str, at: datetime, asked: datetime) -> None:
        """The loop's clock stands still while the machine sleeps, and knows of no clock that was set."""
        now = datetime.now(UTC)
        if asked <= now < at:
            self.wake(what, at)
        else:
            self.put(Due(what, now))

    def begin(self, work: Coroutine[Any, Any, Event]) -> None:
        """Have something slow done beside the loop; its end is an event."""

        async def have_done() -> None:
            self.put(await work)

        task = self._group.create_task(have_done())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
