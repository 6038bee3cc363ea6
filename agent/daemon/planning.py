"""From a verdict to a plan: what would be restarted of what was found last, and nothing twice. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.model.errors import AgentError, Kind
from agent.model.facts import Unit
from agent.model.findings import CheckResult, Finding, StaleUnit
from agent.model.memory import Memory
from agent.model.restarts import OWN_UNIT, Plan, Rule, Wave
from agent.model.view import Phase, View
from agent.restart.narrow import only, unit_names
from agent.restart.plan import make_plan, make_step

LAST_WAVE = 100
LOOK_CLOSER = "it is looked again every minute; agentctl doctor; journalctl -u aftercare"
PENDING = {
    Phase.STARTING: "aftercare is starting",
    Phase.SETTLING: "a package transaction is under way, or has just ended",
    Phase.CHECKING: "processes are being looked at",
    Phase.RESTARTING: "units are being restarted",
}
"""What a view waits for that is about to change."""


def plan_for(
    view: View,
    units: Mapping[str, Unit],
    rules: Sequence[Rule],
    named: frozenset[str] = frozenset(),
    *,
    now: bool = False,
    downtimes: Mapping[str, float] = {},
) -> Plan:
    """Return what would be restarted of the findings in `view`; named, now, downtimes: see `make_plan`."""
    stale = [finding.evidence for finding in view.findings if isinstance(finding.evidence, StaleUnit)]
    return make_plan(_cause(view), stale, units, rules, OWN_UNIT, named=named, now=now, downtimes=downtimes)


def be_sure(view: View, pending: str) -> None:
    """Raise AgentError where it is not known what runs replaced code. pending: what must be over before it can be."""
    if pending:
        raise AgentError(Kind.UNREADABLE, f"not yet known: {pending}", "agentctl wait, and ask again")
    if view.blind or view.checked_at is None:
        trouble = view.trouble or "no look has been made yet"
        raise AgentError(Kind.UNREADABLE, f"what runs replaced code is not known: {trouble}", LOOK_CLOSER)


def not_twice(plan: Plan, memory: Memory) -> Plan:
    """Return `plan` without what was attempted for its transaction already, whatever the check says."""
    attempts = (*memory.attempts, *memory.unended)
    done = frozenset(attempt.unit for attempt in attempts if attempt.transaction == plan.transaction)
    return replace(only(plan, unit_names(plan) - done), agent=plan.agent and OWN_UNIT not in done)


def own_plan(view: View, units: Mapping[str, Unit], rules: Sequence[Rule], reason: str) -> Plan:
    """Return the plan in which the agent goes itself."""
    step = make_step(units.get(OWN_UNIT, Unit(OWN_UNIT)), {}, rules, (reason,))
    return Plan(_cause(view), (Wave(LAST_WAVE, (step,)),))


def together(view: View, results: Sequence[CheckResult]) -> tuple[Finding, ...]:
    """Return what was found now, and the last findings of the checks that were not run, or could not be."""
    ran = {result.check for result in results}
    kept = (finding for finding in view.findings if finding.check not in ran)
    return (*(finding for result in results for finding in result.findings), *kept)


def remarks(view: View, results: Sequence[CheckResult]) -> dict[str, Any]:
    """Return what else a view shows of these results: details, and what was not seen, by check."""
    detail = view.detail | {result.check: result.detail for result in results}
    return {"detail": detail, "unseen": view.unseen | {result.check: result.unseen for result in results}}


def unit_of_main(units: Mapping[str, Unit], pid: int) -> str:
    """Return the unit whose main process `pid` is; empty where there is none."""
    return next((unit.name for unit in units.values() if unit.main_pid == pid), "")


def _cause(view: View) -> int:
    return view.transaction.id if view.transaction else 0
