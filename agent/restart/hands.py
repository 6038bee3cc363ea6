"""What a restart needs and may not reach for itself: the daemon hands it in, or a test does."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.model.errors import AgentError
from agent.model.facts import StaleProcess, Unit
from agent.model.probes import Probe
from agent.model.restarts import Attempt, Outcome, Step
from agent.restart.precheck import precheck as look_before
from agent.restart.probe import probe as ask
from agent.spawn import Done
from agent.spawn.beside import run_async

Stale = Mapping[str, tuple[StaleProcess, ...]]
"""Unit → its processes that still run replaced code; units without any are left out."""


@dataclass(frozen=True, slots=True)
class Hands:
    """Callables. Those that read may raise AgentError; an attempt is on disk when `note_attempt` returns.

    units: as `host.units.read_units`; nothing named: all. journal: as `host.units.read_journal`. recheck: the
    check of libraries, run again. may_go_on: empty, or why nothing new may begin; asked before every wave.
    tell: a kind of journal message and its fields. clock: monotonic seconds.
    """

    units: Callable[[Sequence[str]], Awaitable[Mapping[str, Unit]]]
    journal: Callable[[str, str], Awaitable[tuple[str, ...]]]
    shutting_down: Callable[[], Awaitable[bool]]
    jobs_queued: Callable[[], Awaitable[int]]
    recheck: Callable[[], Awaitable[Stale]]
    note_attempt: Callable[[Step], Attempt]
    note_outcome: Callable[[Attempt, Outcome], None]
    may_go_on: Callable[[], str]
    tell: Callable[..., object]
    precheck: Callable[[Step, Mapping[str, Unit]], Awaitable[Outcome | None]] = look_before
    probe: Callable[[Probe], Awaitable[str]] = ask
    run: Callable[[Sequence[str]], Awaitable[Done]] = run_async
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


async def look(hands: Hands, names: Sequence[str]) -> Mapping[str, Unit] | None:
    """Return the units, or None where systemd does not answer now (it does not while it re-executes)."""
    try:
        return await hands.units(names)
    except AgentError:
        return None


async def still_stale(hands: Hands) -> Stale | None:
    """Return what still runs replaced code, or None where that could not be checked."""
    try:
        return await hands.recheck()
    except AgentError:
        return None


async def held(hands: Hands) -> str:
    """Return why nothing may be begun now; empty where it may."""
    if reason := hands.may_go_on():
        return reason
    try:
        return "the system is shutting down" if await hands.shutting_down() else ""
    except AgentError as problem:
        return problem.message
