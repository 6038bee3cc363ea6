"""When a restart that policy allows may be begun: in the maintenance window of its rule, and not too often.

It reads the calendar and decides nothing else: what is not to be restarted at all is none of its business.
"""

from datetime import datetime, timedelta
from functools import cache

from agent.host.calendar import Window, read_window
from agent.model import users
from agent.model.errors import AgentError
from agent.model.facts import Unit
from agent.model.findings import Request
from agent.model.restarts import rule_for
from agent.stale.pace import LONGEST, next_restart

ASK_AGAIN = timedelta(minutes=5)
Wait = tuple[datetime | None, str]


def waits(request: Request, unit: Unit) -> Wait | None:
    """Return until when the restart of `unit` must wait (None: not known), and why; None where it need not."""
    rule = rule_for(unit.name, request.rules)
    most = int(request.options.get("most_per_hour", 3))
    paced = next_restart(request.recent.get(unit.name, ()), request.now, most, unit) or _paced_user(request, unit)
    if paced:
        return paced, "restarted too often in a short time"
    if not rule.window:
        return None
    try:
        window = _window(rule.window, rule.window_length, request.now)
    except AgentError as problem:
        return request.now + ASK_AGAIN, f"its window cannot be told: {problem.message}"
    if window.is_open:
        return None
    never = "" if window.opens_at else ", which never opens again"
    return window.opens_at, f"waits for its window ({rule.window}){never}"


def _paced_user(request: Request, unit: Unit) -> datetime | None:
    """Return when the user of `unit` may have the next of his restarted: all of his are taken as one unit."""
    theirs = users.parse(unit.name)
    if theirs is None:
        return None
    his = [times for name, times in request.recent.items() if (other := users.parse(name)) and other.uid == theirs.uid]
    together = Unit(theirs.manager, start_burst=users.MOST_A_DAY + 1, start_interval=LONGEST.total_seconds())
    return next_restart(sorted(at for times in his for at in times), request.now, users.MOST_A_DAY, together)


@cache
def _window(expression: str, length: float, now: datetime) -> Window:
    """Many units may have one window: systemd is asked once."""
    return read_window(expression, length, now)
