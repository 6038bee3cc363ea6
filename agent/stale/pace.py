"""How often a unit may be restarted by itself: a loop of restarts is worse than old code. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from agent.model.facts import Unit

HOUR = timedelta(hours=1)
LONGEST = timedelta(days=1)
"""systemd may be told to count over years; what is older than this does not count here."""


def next_restart(begun: Sequence[datetime], now: datetime, most: int, unit: Unit) -> datetime | None:
    """Return when `unit` may be restarted next; None: now.

    begun: its restarts by us, oldest first. most: so many an hour may be. It stays below systemd's own limit, at which
    a unit is not started again at all: one start is left for whoever comes next.
    """
    waits = [_wait(begun, now, most, HOUR)]
    if unit.start_burst > 0 and unit.start_interval > 0:
        span = min(timedelta(seconds=min(unit.start_interval, LONGEST.total_seconds())), LONGEST)
        waits.append(_wait(begun, now, max(unit.start_burst - 1, 1), span))
    return max((at for at in waits if at), default=None)


def _wait(begun: Sequence[datetime], now: datetime, most: int, span: timedelta) -> datetime | None:
    lately = [at for at in begun if now - span < at <= now]
    return lately[-most] + span if len(lately) >= most else None
