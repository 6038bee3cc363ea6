"""The checks that run apart from package transactions: each by itself, soon after something that it looks at moved.

A burst of wake-ups makes one run, and no check runs more than `MOST` times a minute, whatever moves.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.checks.registry import CHECKS
from agent.model.events import Checked
from agent.model.topics import Topic

DEBOUNCE = timedelta(seconds=0.5)
PATIENCE = timedelta(seconds=0.5)
MOST = 20
SPAN = timedelta(minutes=1)
AFTER_TROUBLE = timedelta(minutes=5)
APART = frozenset(check.name for check in CHECKS.values() if check.is_apart)


@dataclass(slots=True)
class Round:
    """One check: its last beginnings, and whether it runs now, is about to, or must run again after that."""

    begun: list[datetime] = field(default_factory=list)
    running: bool = False
    pending: bool = False
    again: bool = False


class Apart:
    """When each of them runs. wake: as `Agenda.wake`; start: begins a check, whose end is told by `ended`."""

    def __init__(self, wake: Callable[[str, datetime | None], None], start: Callable[[str], None]) -> None:
        self._wake = wake
        self._start = start
        self._rounds = {name: Round() for name in APART}

    @property
    def is_busy(self) -> bool:
        """Whether any of them runs or is about to."""
        return any(item.running or item.pending for item in self._rounds.values())

    def touch(self, topic: Topic, now: datetime) -> None:
        """Something moved in `topic`."""
        self.want((name for name in APART if topic in CHECKS[name].topics), now)

    def want(self, names: Iterable[str], now: datetime) -> None:
        """Have these run soon; what runs already is run once more after that."""
        for name in names:
            item = self._rounds[name]
            if item.running:
                item.again = True
            elif not item.pending:
                item.pending = True
                self._wake(f"check {name}", soonest(item.begun, now))

    def due(self, what: str, now: datetime, unpacking: bool = False) -> None:
        """A time has come that was asked for: `check NAME` begins it, `again NAME` has it wanted once more.

        unpacking: dpkg holds its lock. What looks at libraries waits for its end: half of them would be the old ones.
        """
        why, _, name = what.partition(" ")
        if why == "again":
            self.want((name,), now)
            return
        if unpacking and Topic.LINKING in CHECKS[name].topics:
            self._wake(what, now + PATIENCE)
            return
        item = self._rounds[name]
        item.pending = False
        if item.running:
            item.again = True
            return
        item.begun = [*(at for at in item.begun if now - SPAN < at <= now), now]
        item.running = True
        self._start(name)

    def ended(self, checked: Checked, now: datetime) -> None:
        """One has ended: it runs again when it wants to, and soon where something moved meanwhile."""
        item = self._rounds[checked.check]
        again, item.running, item.again = item.again, False, False
        self._wake(f"again {checked.check}", checked.result.again_at if checked.result else now + AFTER_TROUBLE)
        if again:
            self.want((checked.check,), now)


def soonest(begun: Sequence[datetime], now: datetime) -> datetime:
    """Return when a check may begin that began at these times, and that somebody wants now; pure."""
    lately = [at for at in begun if now - SPAN < at <= now]
    first = now + DEBOUNCE
    return max(first, lately[-MOST] + SPAN) if len(lately) >= MOST else first
