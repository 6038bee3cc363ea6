"""Carries a plan out, wave by wave, and after a crash finishes what was begun.

Exactly once: an attempt is written down before its job, with the unit's invocation. Whoever comes later
restarts only what is still in that invocation and has no job, and merely follows the rest. systemd does the
restarting; this module stops and starts nothing itself, and never takes the exit status of systemctl for a
result.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.model import users
from agent.model.errors import AgentError
from agent.model.facts import Unit
from agent.model.restarts import MANAGER, Attempt, Outcome, Performed, Plan, Result, Rule, Step, Took, Wave, brake_after
from agent.restart.follow import Watch, close, follow
from agent.restart.hands import Hands, held, look
from agent.restart.manager import STEP as MANAGER_STEP
from agent.restart.manager import reexecute, resume_reexecution
from agent.restart.plan import USERS_WAVE, make_step
from agent.restart.theirs import ask
from agent.restart.verify import is_up, was_started_since

__all__ = ["Hands", "execute", "resume"]


async def execute(plan: Plan, hands: Hands) -> Performed:
    """Do what the plan says; return what came of each unit, and why it stopped early.

    A unit that was started since the plan was made, by an earlier wave say, is only proven. One that does not come back
    stops all later waves: that is the brake. Tests of configurations take time, so whether a wave may begin is asked
    once more after them. Every outcome was noted for an attempt. Users' own units are last: nobody waits for them.
    The agent's own restart is left to the daemon. Raises no AgentError.
    """
    outcomes: list[Outcome] = []
    reason = await _go([wave for wave in plan.waves if wave.number != USERS_WAVE], hands, outcomes)
    if not reason and (plan.manager or plan.agent):
        reason = brake_after(outcomes)
    if not reason and plan.manager:
        reason = await held(hands)
        if not reason:
            outcomes.append(await reexecute(hands.note_attempt(MANAGER_STEP), hands))
    reason = reason or await _go([wave for wave in plan.waves if wave.number == USERS_WAVE], hands, outcomes)
    return Performed(tuple(outcomes), reason)


async def _go(waves: Sequence[Wave], hands: Hands, outcomes: list[Outcome]) -> str:
    """Do one wave after the other, add what came of each unit to `outcomes`, and return why the last was not done."""
    for wave in waves:
        if reason := brake_after(outcomes) or await held(hands):
            return reason
        units = await look(hands, sorted({name for step in wave.steps for name in (step.unit, *step.pulls)}))
        if units is None:
            return "systemd does not answer"
        due = [step for step in wave.steps if not _is_renewed(step, units.get(step.unit))]
        refused, tested = await _refuse(due, units, hands)
        if reason := await held(hands):
            return reason
        watches = [
            Watch(step, hands.note_attempt(step), hands.clock(), tested.get(step.unit, ())) for step in wave.steps
        ]
        outcomes += await _carry_out(watches, due, refused, hands)
    return ""


async def resume(attempts: Sequence[Attempt], rules: Sequence[Rule], hands: Hands) -> Performed:
    """Finish attempts that an earlier process of ours began; return what came of each. Raises no AgentError.

    What systemd has started anew since is only proven, what has a job is followed, and the rest is restarted
    now if it still may be. A unit that is down without a job is not restarted: it was up before, so that is
    its outcome.
    """
    units = await look(hands, ()) or {}
    pending = {attempt.unit: attempt for attempt in attempts if attempt.unit != MANAGER}
    steps = {name: _step_again(attempt, units, rules) for name, attempt in pending.items()}
    due = [step for step in steps.values() if _is_untouched(step, units.get(step.unit))]
    reason = await held(hands)
    refused, tested = await _refuse([] if reason else due, units, hands)
    reason = reason or await held(hands)
    refused |= {step.unit: _not_run(step, reason) for step in due if reason}
    watches = [Watch(steps[name], attempt, hands.clock(), tested.get(name, ())) for name, attempt in pending.items()]
    outcomes = await _carry_out(watches, due, refused, hands)
    for attempt in attempts:
        if attempt.unit == MANAGER:
            outcomes.append(await resume_reexecution(attempt, hands))
    return Performed(tuple(outcomes), brake_after(outcomes))


async def _carry_out(
    watches: Sequence[Watch], due: Sequence[Step], refused: Mapping[str, Outcome], hands: Hands
) -> list[Outcome]:
    """Do the steps that are `due` and not `refused`, and follow all but the refused to their end."""
    closed = [
        close(watch, replace(refused[watch.step.unit], took=watch.tested), hands)
        for watch in watches
        if watch.step.unit in refused
    ]
    going = [watch for watch in watches if watch.step.unit not in refused]
    await _begin([step for step in due if step.unit not in refused], hands)
    return closed + await follow(going, hands)


async def _refuse(
    steps: Sequence[Step], units: Mapping[str, Unit], hands: Hands
) -> tuple[dict[str, Outcome], dict[str, Took]]:
    """Return what may not be restarted and why, and how long each test of a configuration took."""
    found = await asyncio.gather(*(_test(step, units, hands) for step in steps))
    refused = {step.unit: outcome for step, (outcome, _) in zip(steps, found, strict=True) if outcome}
    return refused, {
        step.unit: (("precheck", took),) for step, (_, took) in zip(steps, found, strict=True) if step.tests
    }


async def _test(step: Step, units: Mapping[str, Unit], hands: Hands) -> tuple[Outcome | None, float]:
    begun = hands.clock()
    return await hands.precheck(step, units), hands.clock() - begun


async def _begin(steps: Sequence[Step], hands: Hands) -> None:
    """Hand one wave to systemd at once. What came of it is seen on the units, not on the client."""
    for step in steps:
        hands.tell("restart-begun", unit=step.unit, reasons=step.reasons)
    own = [step for step in steps if not users.parse(step.unit)]
    orders = [("systemctl", "--no-block", "try-restart", "--", *names)] if (names := _leaders(own)) else []
    orders += [ask(step, theirs) for step in steps if (theirs := users.parse(step.unit))]
    for order in orders:
        with contextlib.suppress(AgentError):
            await hands.run(order)


def _leaders(steps: Sequence[Step]) -> list[str]:
    """Return the units that need a job of their own; the others are restarted as dependants of these.

    A job for both could restart the dependant twice: systemd begins a job anew that another request catches
    running.
    """
    leaders: list[str] = []
    covered: set[str] = set()
    for step in sorted(steps, key=lambda step: (-len(step.pulls), step.unit)):
        if step.unit not in covered:
            leaders.append(step.unit)
            covered.update(step.pulls)
    return sorted(leaders)


def _step_again(attempt: Attempt, units: Mapping[str, Unit], rules: Sequence[Rule]) -> Step:
    """A dependant that was up before the crash must come up again, also where it is down by now."""
    unit = units.get(attempt.unit, Unit(attempt.unit, active="unknown"))
    step = make_step(unit, units, rules)
    pulls = tuple(sorted({*step.pulls, *attempt.pulls}))
    return replace(step, invocation_before=attempt.invocation_before, pulls=pulls)


def _is_renewed(step: Step, unit: Unit | None) -> bool:
    return unit is not None and was_started_since(unit, step.invocation_before)


def _is_untouched(step: Step, unit: Unit | None) -> bool:
    return unit is not None and is_up(unit) and not unit.job and not _is_renewed(step, unit)


def _not_run(step: Step, why: str) -> Outcome:
    return Outcome(step.unit, Result.NOT_RUN, hint=why)
