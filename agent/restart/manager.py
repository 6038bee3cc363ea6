"""Re-executes PID 1: last of all, when it has nothing under way. Its processes, and its start time, stay."""

import contextlib
from collections.abc import Awaitable, Callable

from agent.model.errors import AgentError
from agent.model.restarts import MANAGER, Attempt, Outcome, Result, Rule, Step, Took
from agent.restart.hands import Hands, held, still_stale

PATIENCE = 60.0
"""Seconds that it waits for an empty job queue, and then for an answer."""
PAUSE = 0.5
STALE = "it still runs replaced code: reboot"
STEP = Step(MANAGER, Rule(MANAGER, limit=PATIENCE), "", 1, (), ("systemctl daemon-reexec",))


async def reexecute(attempt: Attempt, hands: Hands) -> Outcome:
    """Have PID 1 execute its new code and return whether it does."""
    begun = hands.clock()

    async def is_idle() -> bool:
        return await hands.jobs_queued() == 0

    if not await _wait(is_idle, hands):
        hint = "systemd is busy (systemctl list-jobs): systemctl daemon-reexec"
        return _close(attempt, hands, Result.NOT_RUN, hint)
    hands.tell("restart-begun", unit=MANAGER, reasons=STEP.reasons)
    with contextlib.suppress(AgentError):
        await hands.run(("systemctl", "daemon-reexec"))
    result, hint = await _prove(hands)
    return _close(attempt, hands, result, hint, (("job", hands.clock() - begun),))


async def resume_reexecution(attempt: Attempt, hands: Hands) -> Outcome:
    """Finish what an earlier process of ours began: only the code that PID 1 runs tells whether it did."""
    result, hint = await _prove(hands)
    if hint != STALE:
        return _close(attempt, hands, result, hint)
    if reason := await held(hands):
        return _close(attempt, hands, Result.NOT_RUN, reason)
    return await reexecute(attempt, hands)


async def _prove(hands: Hands) -> tuple[Result, str]:
    async def is_back() -> bool:
        return MANAGER in await hands.units((MANAGER,))

    if not await _wait(is_back, hands):
        return Result.TIMED_OUT, "systemd does not answer: journalctl -b _PID=1"
    stale = await still_stale(hands)
    if stale is None:
        return Result.LEFTOVER, "whether it is fresh could not be checked: agentctl check"
    return (Result.LEFTOVER, STALE) if MANAGER in stale else (Result.FRESH, "")


def _close(attempt: Attempt, hands: Hands, result: Result, hint: str = "", took: Took = ()) -> Outcome:
    outcome = Outcome(MANAGER, result, took, hint=hint)
    hands.note_outcome(attempt, outcome)
    return outcome


async def _wait(is_so: Callable[[], Awaitable[bool]], hands: Hands) -> bool:
    """Ask until it is so, or PATIENCE is over; no answer is an answer that it is not."""
    deadline = hands.clock() + PATIENCE
    while hands.clock() < deadline:
        with contextlib.suppress(AgentError):
            if await is_so():
                return True
        await hands.sleep(PAUSE)
    return False
