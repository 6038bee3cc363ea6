"""Is a package transaction over? A pure state machine over wake-ups, the clock and dpkg's lock.

It never polls: while the lock is held there is nothing to wait for but the next wake-up, since whoever
releases the lock closes a file in dpkg's directory, and that is one.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent.model.events import Due, Touched
from agent.model.topics import Topic


@dataclass(frozen=True, slots=True)
class Settling:
    """`quiet`: how long nothing must move; `touched`: the last move not settled yet, None when idle."""

    quiet: timedelta = timedelta(seconds=3)
    touched: datetime | None = None


def step(state: Settling, event: Touched | Due, now: datetime, locked: bool) -> tuple[Settling, bool, datetime | None]:
    """Return the next state, whether dpkg has just settled, and when to be woken by a `Due` (None: never).

    Only a `Due` can settle. One that comes early, or that was meant for somebody else, does no harm.
    """
    if isinstance(event, Touched):
        return _touch(state, now) if event.topic is Topic.PACKAGES else (state, False, None)
    if state.touched is None:
        return state, False, None
    if now < state.touched:
        return _touch(state, now)
    over_at = state.touched + state.quiet
    if now < over_at:
        return state, False, over_at
    if locked:
        return state, False, None
    return replace(state, touched=None), True, None


def _touch(state: Settling, now: datetime) -> tuple[Settling, bool, datetime | None]:
    """Begin the quiet period anew; also where the clock was set back, or its end would lie an hour ahead."""
    return replace(state, touched=now), False, now + state.quiet
