"""What a restart came to, judged by what systemd and the check say afterwards. Pure.

The exit status of systemctl is not part of it: it is 0 for a masked unit, and for one whose condition failed
and which stayed down (tried on systemd 252 and 257).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.model import users
from agent.model.facts import StaleProcess, Unit
from agent.model.restarts import Outcome, Result, Step, Took

GONE = Unit("", active="inactive")

WHY_DOWN = {
    "success": "it was stopped and not started again: a condition or a unit that it needs failed",
    "exit-code": "its program ended with an error",
    "signal": "its program was ended by a signal",
    "core-dump": "its program crashed",
    "timeout": "it did not start in time",
    "watchdog": "its watchdog ended it",
    "oom-kill": "it ran out of memory",
    "resources": "systemd could not set it up",
    "protocol": "it did not start as its unit says",
    "exec-condition": "its ExecCondition= did not hold",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one step after its job.

    first: the unit when its job and those of its dependants had ended (None: they had not within the limit).
    last: the unit after its settle time (None: systemd did not answer). dependants: the units of
    `Step.pulls`, after it. stale: its processes that still run replaced code; None where that could not be
    checked. took: seconds by stage. ailment: what its probe finds wrong.
    """

    first: Unit | None
    last: Unit | None
    dependants: Mapping[str, Unit]
    stale: tuple[StaleProcess, ...] | None
    took: Took = ()
    ailment: str = ""


def is_up(unit: Unit) -> bool:
    """Return whether the unit does its work: active, or active and reloading."""
    return unit.active in ("active", "reloading", "refreshing")


def was_started_since(unit: Unit, invocation_before: str) -> bool:
    """Return whether systemd started the unit anew; a unit that is gone (257) has no invocation at all."""
    return unit.invocation not in ("", invocation_before)


def judge(step: Step, seen: Seen) -> Outcome:
    """Return what came of `step`, with a hint on what to do where that is anything but fresh.

    Its leftovers are the processes that outlived it, or for DEPENDANT_DOWN the units that stayed down.
    """
    down = tuple(name for name in step.pulls if not is_up(seen.dependants.get(name, GONE)))
    fault = _judge_theirs(step, seen) if users.parse(step.unit) else _judge_unit(step, seen)
    result, hint = fault or _judge_dependants(down) or _judge_health(seen) or _judge_code(seen)
    left = {
        Result.LEFTOVER: tuple(sorted(_named(process) for process in seen.stale or ())),
        Result.DEPENDANT_DOWN: down,
    }
    return Outcome(step.unit, result, seen.took, left.get(result, ()), hint=hint, expected=step.expected)


def _named(process: StaleProcess) -> str:
    place = f", {process.tty}" if process.tty else ""
    return f"{process.comm} ({process.pid}, {process.user or f'uid {process.uid}'}{place})"


def _judge_theirs(step: Step, seen: Seen) -> tuple[Result, str] | None:
    """Judge a user's unit, of which only the kernel speaks: are there processes, and are they still those of before.

    A control group that stayed what it was may hold what the manager spared: whether any of it is old says the check.
    """
    first, last, closer = seen.first, seen.last, users.by_hand("status", step.unit)
    if last is None or (first is None and last.job):
        return Result.TIMED_OUT, f"the user's own systemd was not done after {step.rule.limit:g} s: {closer}"
    if not is_up(last):
        result = Result.DIED_AFTER if first is not None and is_up(first) else Result.FAILED
        return result, f"none of its processes is left: {closer}"
    if first is not None and first.invocation != last.invocation:
        return Result.DIED_AFTER, f"it ended soon after its start and was started again: {closer}"
    if seen.stale and not was_started_since(last, step.invocation_before):
        return Result.LEFTOVER, f"the user's own systemd did not restart it, or some of it outlived that: {closer}"
    return None


def _judge_unit(step: Step, seen: Seen) -> tuple[Result, str] | None:
    last = seen.last
    if last is None or (seen.first is None and last.job):
        return (Result.TIMED_OUT, f"not done after {step.rule.limit:g} s, and systemd goes on: systemctl list-jobs")
    if not is_up(last):
        return _judge_down(step, seen.first, last)
    if not was_started_since(last, step.invocation_before):
        return Result.NOT_RUN, f"systemd did not restart it: systemctl status {step.unit}"
    if seen.first is not None and seen.first.invocation != last.invocation:
        return (Result.DIED_AFTER, f"it ended soon after its start and was started again: systemctl status {step.unit}")
    return None


def _judge_down(step: Step, first: Unit | None, last: Unit) -> tuple[Result, str]:
    if last.result == "start-limit-hit":
        by_hand = f"systemctl reset-failed {step.unit} && systemctl start {step.unit}"
        return Result.START_LIMIT, f"started too often in a short time, so systemd refuses: {by_hand}"
    why = f"{WHY_DOWN.get(last.result, last.result)}: systemctl status {step.unit}"
    is_new = was_started_since(last, step.invocation_before)
    if is_new and first is not None and is_up(first) and first.invocation == last.invocation:
        return Result.DIED_AFTER, why
    return Result.FAILED, why


def _judge_dependants(down: tuple[str, ...]) -> tuple[Result, str] | None:
    if not down:
        return None
    names = ", ".join(down)
    return (Result.DEPENDANT_DOWN, f"{names} went down with it and stayed down: systemctl start {' '.join(down)}")


def _judge_health(seen: Seen) -> tuple[Result, str] | None:
    return (Result.PROBE_FAILED, f"it runs, and does not do its work: {seen.ailment}") if seen.ailment else None


def _judge_code(seen: Seen) -> tuple[Result, str]:
    if seen.stale is None:
        return Result.LEFTOVER, "it is back, but whether it is fresh could not be checked: agentctl check"
    if seen.stale:
        return (Result.LEFTOVER, "these processes outlived the restart: end them by hand, or log their users out")
    return Result.FRESH, ""
