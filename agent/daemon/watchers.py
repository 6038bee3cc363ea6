"""Hands what is told to whoever watches over the socket. One who does not read loses events, not memory of ours."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

LONGEST_QUEUE = 256

Events = asyncio.Queue[dict[str, Any]]


class Watchers:
    """Those who watch just now."""

    def __init__(self) -> None:
        self._queues: set[Events] = set()

    def tell(self, event: dict[str, Any]) -> None:
        """Give `event` to everybody who watches; the oldest event of a full queue is dropped for it."""
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @contextlib.contextmanager
    def watching(self) -> Iterator[Events]:
        """Watch for as long as the context lasts."""
        queue: Events = asyncio.Queue(LONGEST_QUEUE)
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)
