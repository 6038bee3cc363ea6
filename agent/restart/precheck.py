"""What must hold right before a unit is restarted, so that nothing that works is stopped and cannot come
back.

Changes nothing. A question that cannot be answered (a tool is missing, systemd-analyze does not know a generated
unit) is no objection: the verdict after the restart is what counts.
"""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.model import users
from agent.model.errors import AgentError
from agent.model.facts import Unit
from agent.model.restarts import Outcome, Result, Rule, Step
from agent.restart.configtest import Verdict, test_configuration
from agent.restart.verify import is_up
from agent.spawn import Done
from agent.spawn.beside import run_async

ALLOWED = (0, 1, 104, 105)
"""Answers of policy-rc.d after which invoke-rc.d goes on: allowed, or undefined."""
UNKNOWN_SERVICE = 100


@dataclass(frozen=True, slots=True)
class Places:
    """Where to ask and look. tell: see `Hands`; views: prefixes of a program's path (our sandbox hides /home, /tmp)."""

    run: Callable[[Sequence[str]], Awaitable[Done]] = run_async
    test: Callable[..., Awaitable[Verdict]] = test_configuration
    tell: Callable[..., object] = lambda kind, **fields: None
    policy: str = "/usr/sbin/policy-rc.d"
    init_scripts: str = "/etc/init.d"
    views: tuple[str, ...] = ("", "/proc/1/root")


HERE = Places()


async def precheck(step: Step, units: Mapping[str, Unit], places: Places = HERE) -> Outcome | None:
    """Return why `step` must not be done now, or None where it may.

    units: what systemd says at this moment of the unit and its dependants, which have to come back as well.
    The result is NOT_RUN where there is nothing to restart any more, PRECHECK_FAILED where a restart would do
    harm, as with a configuration that no longer parses. Of a user's unit nothing more is known than the kernel says.
    """
    unit = units.get(step.unit)
    if unit is None or unit.load == "not-found":
        return Outcome(step.unit, Result.NOT_RUN, hint="systemd no longer has this unit")
    if not is_up(unit):
        return Outcome(step.unit, Result.NOT_RUN, hint=f"it is {unit.active} and not running any more")
    if unit.job:
        return Outcome(step.unit, Result.NOT_RUN, hint="systemd has a job for it already: systemctl list-jobs")
    if users.parse(unit.name):
        return None
    objection = _object_to_hands(unit) or await _object(unit, places)
    for dependant in (units[name] for name in step.pulls if name in units):
        if not objection and dependant.name.endswith(".service") and is_up(dependant):
            objection = _about(dependant, await _object(dependant, places))
    for name, rule in step.tests:
        if not objection and name in units and is_up(units[name]):
            words = await _object_to_configuration(name, rule, places)
            objection = words if name == step.unit else _about(units[name], words)
    return Outcome(step.unit, Result.PRECHECK_FAILED, hint=objection) if objection else None


async def _object_to_configuration(name: str, rule: Rule, places: Places) -> str:
    verdict = await places.test(name, rule.precheck, rule.broken, places.run)
    if verdict.is_broken is None:
        places.tell("configuration-unknown", unit=name, words=verdict.words)
    return verdict.objection


def _about(dependant: Unit, objection: str) -> str:
    return objection and f"{dependant.name} would go down with it and not come back: {objection}"


async def _object(unit: Unit, places: Places) -> str:
    """Return why `unit` would not come back, or should not be touched; empty where there is no reason."""
    if unit.load != "loaded":
        return f"its unit file is {unit.load}: once stopped it could not be started again"
    return (
        await asyncio.to_thread(_object_to_programs, unit, places.views)
        or await _object_to_conditions(unit, places)
        or await _object_to_policy(unit, places)
    )


def _object_to_hands(unit: Unit) -> str:
    """What keeps it from being restarted by hand does not keep systemd from restarting it as a dependant."""
    if unit.load == "loaded" and not (unit.can_start and unit.can_stop):
        return "it may not be started or stopped by hand (RefuseManualStart= or RefuseManualStop=)"
    if unit.needs_reload:
        return "its unit file changed since systemd read it: systemctl daemon-reload"
    return ""


def _object_to_programs(unit: Unit, views: Sequence[str]) -> str:
    missing = [path for path in unit.programs if not any(_is_program(f"{view}{path}") for view in views)]
    return f"{missing[0]} is not a program that can be started" if missing else ""


def _is_program(path: str) -> bool:
    """Relative names in ExecStart= are resolved by systemd, not by us."""
    if not os.path.isabs(path):
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)


async def _object_to_conditions(unit: Unit, places: Places) -> str:
    """Ask twice: our sandbox has fewer rights and sees less than PID 1 (udevd wants a writable /sys)."""
    argv = ("systemd-analyze", "condition", f"--unit={unit.name}")
    outside = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--", *argv)
    return await _unmet(argv, unit.name, places) and await _unmet(outside, unit.name, places)


async def _unmet(argv: Sequence[str], name: str, places: Places) -> str:
    try:
        done = await places.run(argv)
    except AgentError:
        return ""
    rows = f"{done.stdout}\n{done.stderr}".splitlines()
    if "Conditions failed." not in rows and "Asserts failed." not in rows:
        return ""
    failed = [row.removeprefix(f"{name}: ") for row in rows if row.startswith(f"{name}: ") and row.endswith(" failed.")]
    return f"systemd would not start it again: {' '.join(failed)}"


async def _object_to_policy(unit: Unit, places: Places) -> str:
    if not await asyncio.to_thread(_is_trusted, places.policy):
        return ""
    service = unit.name.removesuffix(".service")
    try:
        status = (await places.run((places.policy, service, "restart"))).status
    except AgentError as problem:
        return f"{places.policy} gave no answer: {problem.message}"
    if status in ALLOWED or (status == UNKNOWN_SERVICE and not os.path.exists(f"{places.init_scripts}/{service}")):
        return ""
    return f"{places.policy} forbids it (status {status})"


def _is_trusted(path: str) -> bool:
    """A program that root runs belongs to root, and nobody else may write it."""
    try:
        facts = os.stat(path)
    except OSError:
        return False
    writable = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(facts.st_mode) and bool(facts.st_mode & 0o111) and facts.st_uid == 0 and not writable
