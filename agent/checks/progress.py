"""Where a check is just now, so that its worker can say what it got stuck at. Nothing depends on it."""

import threading
from collections.abc import Iterable, Iterator


class Progress:
    """The subject at hand: a pid, 0 for none."""

    def __init__(self) -> None:
        self.subject = 0
        self.ended = threading.Event()

    def over(self, subjects: Iterable[int]) -> Iterator[int]:
        """Yield `subjects`, each being the one at hand until the next is asked for."""
        for self.subject in subjects:
            yield self.subject
        self.subject = 0


PROGRESS = Progress()
"""There is one check at a time in a process."""
