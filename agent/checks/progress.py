"""Where a check is just now, so that its worker can say what it got stuck at. Nothing depends on it."""

import mmap
import threading
from collections.abc import Iterable, Iterator


class Progress:
    """The subjects at hand, pids: one for each of the processes that go through some at once, by its number."""

    def __init__(self) -> None:
        self._at = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
        self.ended = threading.Event()

    def over(self, subjects: Iterable[int], number: int = 0) -> Iterator[int]:
        """Yield `subjects`, each being the one at hand until the next is asked for. Forks share what is at hand."""
        at = self._at
        for subject in subjects:
            at[number] = subject
            yield subject
        at[number] = 0

    def subjects(self) -> frozenset[int]:
        """Return all that are at hand."""
        return frozenset(self._at) - {0}


PROGRESS = Progress()
"""There is one check at a time in a process."""
