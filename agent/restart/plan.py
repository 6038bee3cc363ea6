"""Which units are restarted, in which waves, and what goes down with them. Pure: it starts nothing.

systemd restarts the active dependants of a unit together with it, so a dependant that is stale itself needs
no job of its own, and must not get one in another wave: it would be restarted twice. Units whose dependants
overlap therefore share a wave. Units of users' own have the last wave to themselves, after PID 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, groupby

from agent.model import users
from agent.model.facts import StaleFile, Unit
from agent.model.findings import StaleUnit
from agent.model.restarts import MANAGER, Disposition, Plan, Rule, Step, Wave, rule_for
from agent.restart.verify import is_up

USERS_WAVE = 100
"""After all that a rule may say."""
MOST_RECORDED = 20
"""So many stale processes of a unit are kept for `agentctl why`."""


def make_plan(
    transaction: int,
    stale: Sequence[StaleUnit],
    units: Mapping[str, Unit],
    rules: Sequence[Rule],
    own_unit: str,
    *,
    named: frozenset[str] = frozenset(),
    now: bool = False,
    downtimes: Mapping[str, float] = {},
) -> Plan:
    """Return what will be restarted for `transaction`.

    units: all that systemd has. named: units that an administrator asked for, which includes those that are
    only likely stale or deferred, and nothing that policy or nature forbids. now: also what waits for a time alone.
    downtimes: seconds that units were away for before. own_unit: the daemon's, which
    goes last and by itself. Units that systemd no longer has are left out.
    """
    chosen = {item.unit: item for item in stale if _is_chosen(item, named, now)}
    steps = [
        replace(make_step(units[name], units, rules, reasons(item), item), expected=downtimes.get(name))
        for name, item in sorted(chosen.items())
        if name in units and name not in (MANAGER, own_unit)
    ]
    return Plan(transaction, _waves(steps), manager=MANAGER in chosen, agent=own_unit in chosen)


def make_step(
    unit: Unit,
    units: Mapping[str, Unit],
    rules: Sequence[Rule],
    reasons: tuple[str, ...] = (),
    stale: StaleUnit | None = None,
) -> Step:
    """Return the restart of `unit` as it is now; the reasons, and what is stale, are for the record."""
    rule, pulls = rule_for(unit.name, rules), _dependants(unit, units)
    processes, cves = (stale.processes[:MOST_RECORDED], stale.cves) if stale else ((), ())
    tests = tuple((name, its) for name in (unit.name, *pulls) if (its := rule_for(name, rules)).precheck)
    return Step(unit.name, rule, unit.invocation, unit.main_pid, pulls, reasons, processes, cves, tests=tests)


def _is_chosen(item: StaleUnit, named: frozenset[str], now: bool) -> bool:
    """Whether a unit that is only likely stale may be restarted by itself was decided with its disposition."""
    if item.unit in named:
        return item.disposition in (Disposition.RESTART, Disposition.DEFER)
    return item.disposition is Disposition.RESTART or (now and item.opens_at is not None)


def _dependants(unit: Unit, units: Mapping[str, Unit]) -> tuple[str, ...]:
    """Return the units that are up now and go down with `unit`, and with those in turn, sorted."""
    found: set[str] = set()
    waiting = list(unit.pulls)
    while waiting:
        name = waiting.pop()
        if name not in found and name != unit.name and name in units and _is_wanted_up(units[name]):
            found.add(name)
            waiting.extend(units[name].pulls)
    return tuple(sorted(found))


def _is_wanted_up(unit: Unit) -> bool:
    """A dependant that has a job is on its way up, or down with a restart that is under way."""
    return is_up(unit) or bool(unit.job)


def reasons(item: StaleUnit) -> tuple[str, ...]:
    """Return `package running → installed` for every package that a unit is stale for."""
    return tuple(sorted({_reason(file) for process in item.processes for file in process.files}))


def _reason(file: StaleFile) -> str:
    return f"{file.package or file.path} {file.running or 'of unknown version'} → {file.installed or 'removed'}"


def _waves(steps: Sequence[Step]) -> tuple[Wave, ...]:
    numbers = _numbers(steps)
    ordered = sorted(steps, key=lambda step: (numbers[step.unit], step.unit))
    grouped = groupby(ordered, key=lambda step: numbers[step.unit])
    return tuple(Wave(number, tuple(group)) for number, group in grouped)


def _numbers(steps: Sequence[Step]) -> dict[str, int]:
    """Return the wave of each unit: its rule's, or the latest among those that share services with it."""
    numbers = {step.unit: USERS_WAVE if users.parse(step.unit) else step.rule.wave for step in steps}
    touched = {step.unit: {name for name in (step.unit, *step.pulls) if name.endswith(".service")} for step in steps}
    joined = [(one, two) for one, two in combinations(numbers, 2) if not touched[one].isdisjoint(touched[two])]
    while any(numbers[one] != numbers[two] for one, two in joined):
        for one, two in joined:
            numbers[one] = numbers[two] = max(numbers[one], numbers[two])
    return numbers
