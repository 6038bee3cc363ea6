"""When a maintenance window opens and closes, as systemd itself reads the expression; it sets no timer.

A window is an expression of systemd.time(7) for its openings, and a length. systemd-analyze works without a running
systemd and reads the local time zone anew each time. A local time that a change of the clocks leaves out has no
opening on that day, and one that comes twice has one (systemd's own way, tried on 252 and 257).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent.model.errors import AgentError, Kind
from agent.model.text import printable
from agent.spawn import Done, run

Run = Callable[[Sequence[str]], Done]

LONGEST = 200
"""Characters of an expression."""
MANUAL = "see systemd.time(7), and try it: systemd-analyze calendar EXPRESSION"
ELAPSE = re.compile(
    r"^ *(?:Next elapse|\(in UTC\)): (?:never|\w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)? UTC)$", re.M
)


@dataclass(frozen=True, slots=True)
class Window:
    """A window at one moment. opens_at: when it opened, or opens next (None: never again); closes_at: its end."""

    is_open: bool
    opens_at: datetime | None = None
    closes_at: datetime | None = None


def read_window(expression: str, length: float, now: datetime, run: Run = run) -> Window:
    """Return the window that is open at `now`, or the next one.

    expression: when it opens; length: seconds that it stays open; now: aware. Where windows overlap, `closes_at` is
    the end of the earliest that is open. Raises AgentError: CONFIG where systemd does not understand the expression
    (its own words in the message), SPAWN, TIMED_OUT or PROTOCOL where it cannot be asked.
    """
    span = timedelta(seconds=length)
    opens_at = _next(expression, now - span, run)
    if opens_at is None:
        return Window(is_open=False)
    return Window(opens_at <= now, opens_at, opens_at + span)


def check_expression(expression: str, run: Run = run) -> None:
    """Raise AgentError as `read_window` does where `expression` is none."""
    _next(expression, datetime(2001, 1, 1, tzinfo=UTC), run)


def _next(expression: str, after: datetime, run: Run) -> datetime | None:
    """Return the first opening later than `after`."""
    if not expression.isprintable() or len(expression) > LONGEST:
        message = f"calendar expression {printable(expression[:LONGEST])!r}: not {LONGEST} printable characters"
        raise AgentError(Kind.CONFIG, message, MANUAL)
    base = f"--base-time=@{after.timestamp():.6f}"
    done = run(("systemd-analyze", "calendar", base, "--iterations=1", "--", expression))
    if done.status != 0:
        raise AgentError(Kind.CONFIG, printable(done.stderr.strip()) or f"{expression}: not understood", MANUAL)
    found = ELAPSE.findall(done.stdout)
    if not found:
        raise AgentError(Kind.PROTOCOL, f"systemd-analyze calendar {expression}: no time in its answer")
    return datetime.strptime(found[-1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) if found[-1] else None
