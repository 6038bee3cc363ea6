"""When a restart that policy allows may be begun: in the maintenance window of its rule, and not too often.

It reads the calendar and decides nothing else: what is not to be restarted at all is none of its business.
"""

from datetime import datetime, timedelta
from functools import cache

from agent.host.calendar import Window, read_window
from agent.model.errors import AgentError
from agent.model.facts import Unit
from agent.model.findings import Request
from agent.model.restarts import rule_for
from agent.stale.pace import next_restart

ASK_AGAIN = timedelta(minutes=5)
Wait = tuple[datetime | None, str]


def waits(request: Request, unit: Unit) -> Wait | None:
    """Return until when the restart of `unit` must wait (None: not known), and why; None where it need not."""
    rule = rule_for(unit.name, request.rules)
    most = int(request.options.get("most_per_hour", 3))
    paced = next_restart(request.recent.get(unit.name, ()), request.now, most, unit)
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


@cache
def _window(expression: str, length: float, now: datetime) -> Window:
    """Many units may have one window: systemd is asked once."""
    return read_window(expression, length, now)
