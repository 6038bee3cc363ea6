"""Those who wait for an answer of the corridor's, and what is decided about what they ask. No door is opened here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.daemon.planning import plan_for
from agent.model import users
from agent.model.errors import AgentError, Kind
from agent.model.events import Asked
from agent.model.facts import Unit
from agent.model.findings import Finding, StaleUnit
from agent.model.restarts import OWN_UNIT, Plan, Rule
from agent.model.view import View
from agent.restart.narrow import only, unit_names
from agent.restart.verify import is_up

WAITED = "waited"
UNFORCED = ("", WAITED, "packages")
"""What a look is wanted for, if it need not be made where dpkg did nothing; the later ones weigh more."""


@dataclass(slots=True)
class Errand:
    """Somebody who waits for an answer. `seen`: a look was begun after he came.

    reply: what he gets after the look that follows, so that whatever he asks next is told what is so by then.
    fresh: units that he named and that need no restart.
    """

    asked: Asked
    seen: bool = False
    reply: dict[str, Any] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)

    @property
    def is_order(self) -> bool:
        """Whether he asks for restarts, and may have them now: what there is to restart was looked at since."""
        return self.seen and self.asked.method == "restart"

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return bool(self.asked.ticket.done())

    def answer(self, reply: dict[str, Any]) -> None:
        """Answer, unless he went away meanwhile."""
        if not self.asked.ticket.done():
            self.asked.ticket.set_result(reply)

    def refuse(self, problem: AgentError) -> None:
        """Say why not, unless he went away meanwhile."""
        if not self.asked.ticket.done():
            self.asked.ticket.set_exception(problem)


class Errands:
    """All of them, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: list[Errand] = []

    def add(self, asked: Asked) -> None:
        """One more; those who went away are forgotten."""
        self._waiting = [*(errand for errand in self._waiting if not errand.is_gone), Errand(asked)]

    def see(self) -> None:
        """A look begins: all who came before it are served by it."""
        for errand in self._waiting:
            errand.seen = True

    def take_order(self) -> Errand | None:
        """Return the first who asks for restarts and may have them, and forget him."""
        order = next((errand for errand in self._waiting if errand.is_order and not errand.is_gone), None)
        if order:
            self._waiting.remove(order)
        return order

    def answer(self, reply: dict[str, Any], *, checks: bool) -> None:
        """Answer all who only waited for a look; checks: also those who waited for every check there is."""
        for errand in [errand for errand in self._waiting if errand.seen]:
            if checks or errand.asked.method != "check":
                self._waiting.remove(errand)
                errand.answer(reply)


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, as a plan. `goes`: the agent itself restarts, last; `dry_run`: it is only to be shown.

    everything: not some units by name, but all there is, which takes the brake off. fresh: named, and not stale.
    """

    plan: Plan
    goes: bool
    dry_run: bool
    everything: bool
    fresh: list[str]


def order_of(
    view: View,
    units: Mapping[str, Unit],
    rules: Sequence[Rule],
    arguments: Mapping[str, Any],
    downtimes: Mapping[str, float],
) -> Order:
    """Return what is to be restarted for somebody; raise AgentError(USAGE) naming a unit that cannot be.

    arguments: `units` by name, or `all` that policy would restart, or `resume` what a brake had stopped; `now`: also
    what waits for its window.
    """
    names, everything = frozenset(arguments["units"]), arguments["all"] or arguments["resume"]
    plan = plan_for(view, units, rules, names, now=arguments["now"], downtimes=downtimes)
    goes = plan.agent and (everything or OWN_UNIT in names)
    if not everything:
        plan = only(plan, names)
    found = {finding.subject for finding in view.findings}
    fresh = sorted(name for name in names - found if name in units and is_up(units[name]))
    if missing := sorted(names - unit_names(plan) - set(fresh) - ({OWN_UNIT} if goes else set())):
        raise AgentError(Kind.USAGE, why_not(view.findings, missing[0]), by_hand(units.get(missing[0])))
    if arguments["resume"] and not view.braked:
        raise AgentError(Kind.USAGE, "no restart is held", "agentctl restart --all restarts what is stale")
    return Order(replace(plan, agent=goes), goes, arguments["dry_run"], everything, fresh)


def weightier(wanted: str, why: str) -> str:
    """Return which of two reasons for a look counts: all but UNFORCED force one, the first of those stays."""
    if wanted not in UNFORCED:
        return wanted
    return max(wanted, why, key=UNFORCED.index) if why in UNFORCED else why


def why_not(findings: Sequence[Finding], unit: str) -> str:
    """Return why `unit` cannot be restarted by us, in words."""
    evidence = next((finding.evidence for finding in findings if finding.subject == unit), None)
    if isinstance(evidence, StaleUnit):
        return f"{unit} is not restarted: {evidence.reason or evidence.disposition}"
    if other := next((finding for finding in findings if finding.subject == unit.removesuffix(".service")), None):
        return f"{other.subject} is a finding, and no unit: {other.advice}"
    return f"{unit} is not stale: systemd runs nothing of that name"


def by_hand(unit: Unit | None) -> str:
    """Return how somebody may restart a unit all the same; nothing where systemd would refuse him as well."""
    if unit is None or not (unit.can_start and unit.can_stop) or unit.name.endswith((".scope", ".slice")):
        return ""
    return f"{users.by_hand('restart', unit.name)} restarts it all the same"
