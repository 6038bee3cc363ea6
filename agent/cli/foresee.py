"""`agentctl plan`: what would be restarted now, by the daemon's word; or, foreseen here, if packages were replaced.

It changes nothing, and asks apt only what it would do.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agent.checks import foresight
from agent.cli import ask, records
from agent.cli.ask import call
from agent.cli.blocks import Line
from agent.cli.output import emit
from agent.config.load import load
from agent.config.settings import options_of
from agent.host.units import read_units
from agent.model import contract
from agent.model.errors import AgentError, Exit
from agent.model.facts import Host
from agent.model.findings import Request, StaleUnit
from agent.model.restarts import CAME_BACK, OWN_UNIT, Disposition
from agent.model.text import printable
from agent.model.view import plan_json
from agent.restart.plan import make_plan


def plan(options: Namespace) -> int:
    """Print what would be restarted, now or after an upgrade that is still to come."""
    if not (options.packages or options.for_upgrade):
        return ask.plan(options)
    settings, host = load(), Host()
    wanted = {"packages": options.packages or [], "upgrade": options.for_upgrade}
    given = options_of(settings, foresight.CHECK) | wanted
    found = foresight.run(host, Request(foresight.CHECK, datetime.now(UTC), settings.rules, options=given))
    stale = [finding.evidence for finding in found.findings if isinstance(finding.evidence, StaleUnit)]
    known = read_units(host) if stale else {}
    foreseen = make_plan(0, stale, known, settings.rules, OWN_UNIT, downtimes=_downtimes(options))
    shown = plan_json(replace(foreseen, agent=OWN_UNIT in {item.unit for item in stale}))
    unseen = [printable(line) for line in found.unseen]
    data = {"v": 1, "plan": shown, "findings": [contract.finding(item) for item in found.findings], "unseen": unseen}
    lines = [Line(f"not restarted: {line}") for line in _others(stale)]
    emit(options, data | found.detail, [*records.plan(shown), *lines, *(Line(f"not seen: {line}") for line in unseen)])
    return Exit.FINDINGS if stale else Exit.CLEAN


def _others(stale: Sequence[StaleUnit]) -> list[str]:
    return [printable(f"{item.unit}: {item.reason}") for item in stale if item.disposition is not Disposition.RESTART]


def _downtimes(options: Namespace) -> dict[str, float]:
    """Return what the last restart of each unit took, where the daemon tells; it need not run for a foresight."""
    try:
        past: list[dict[str, Any]] = call(options, "History", {"since": None, "unit": None})["restarts"]
    except AgentError as problem:
        print(f"agentctl: how long units took before is not known: {problem.message}", file=sys.stderr)
        return {}
    good = [item for item in reversed(past) if item["outcome"] and item["outcome"]["result"] in CAME_BACK]
    return {item["unit"]: item["outcome"]["took"]["job"] for item in good if "job" in item["outcome"]["took"]}
