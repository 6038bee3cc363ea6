"""When a restart that policy allows may be begun: in the maintenance window of its rule, and not too often.

It reads the calendar and decides nothing else: what is not to be restarted at all is none of its business.
"""

from datetime import datetime

from agent.host.calendar import read_window
from agent.model.contract import stamp
from agent.model.errors import AgentError
from agent.model.facts import Unit
from agent.model.findings import Request
from agent.model.restarts import rule_for
from agent.stale.pace import next_restart

Wait = tuple[datetime | None, str]


def waits(request: Request, unit: Unit) -> Wait | None:
    """Return until when the restart of `unit` must wait (None: not known), and why; None where it need not."""
    rule = rule_for(unit.name, request.rules)
    most = int(request.options.get("most_per_hour", 3))
    paced = next_restart(request.recent.get(unit.name, ()), request.now, most, unit)
    if paced:
        return paced, f"restarted too often in a short time: not by itself again before {stamp(paced)}"
    if not rule.window:
        return None
    try:
        window = read_window(rule.window, rule.window_length, request.now)
    except AgentError as problem:
        return None, f"its window cannot be told: {problem.message}"
    if window.is_open:
        return None
    return window.opens_at, f"waits for its window ({rule.window}), which opens at {stamp(window.opens_at)}"
