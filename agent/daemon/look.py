"""One look at the machine: survey what dpkg did, remember it, and run the check where its verdict may have changed."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from agent.config.settings import Settings
from agent.daemon import workers
from agent.daemon.workers import Outdated
from agent.host import transactions, units
from agent.model.errors import AgentError
from agent.model.events import Looked, Transaction
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request, Severity
from agent.model.memory import Memory
from agent.store import Store


async def look(host: Host, store: Store, settings: Settings, locked: Callable[[], bool], *, force: bool) -> Looked:
    """Return what is wrong now; `force`: also where dpkg did nothing since the last look.

    Given up where dpkg's lock turns out to be held after the survey: its end is another wake-up.
    """
    transaction = None
    try:
        memory = store.memory()
        known = memory.begun is not None and memory.boot == boot_id(host)
        transaction, unfinished = await _survey(host, store, settings, memory, known)
        if locked():
            return Looked(transaction=transaction, abandoned=True)
        if known and transaction is None and not force:
            return Looked()
        request = _request(store.memory(), settings, unfinished, known)
        result = await workers.check(host, settings, request)
        _remember(store, request, result)
        return Looked(result, transaction, await asyncio.to_thread(units.read_units, host))
    except AgentError as problem:
        return Looked(transaction=transaction, problem=problem)
    except Outdated as version:
        return Looked(transaction=transaction, outdated=str(version))


async def _survey(
    host: Host, store: Store, settings: Settings, memory: Memory, known: bool
) -> tuple[Transaction | None, tuple[str, ...]]:
    now = datetime.now(UTC)
    old = store.snapshot()
    since = memory.transaction.ended if memory.transaction else memory.begun
    surveyed = await workers.survey(host, settings, old if known else None, since, now)
    changes = transactions.diff(old, surveyed.survey.snapshot) if old is not None else ()
    committed = store.settle(surveyed.survey, changes, surveyed.index(), boot_id(host), now)
    return committed, surveyed.survey.unfinished


def _request(memory: Memory, settings: Settings, unfinished: tuple[str, ...], known: bool) -> Request:
    return Request(
        check="libraries",
        now=datetime.now(UTC),
        rules=settings.rules,
        retired=memory.retired if known else None,
        attempts=memory.attempts,
        broken=memory.broken,
        unfinished=unfinished,
    )


def _remember(store: Store, request: Request, result: CheckResult) -> None:
    store.learn(result)
    still = {finding.subject for finding in result.findings if finding.severity is Severity.CRITICAL}
    store.mend(outcome.unit for outcome in request.broken if outcome.unit not in still)


async def recheck(host: Host, store: Store, settings: Settings) -> CheckResult:
    """Return the same check asked again, for the verification of restarts; raises AgentError."""
    return await workers.check(host, settings, _request(store.memory(), settings, (), known=True))


def boot_id(host: Host) -> str:
    """Return what the kernel calls this boot."""
    return Path(host.proc, "sys/kernel/random/boot_id").read_text().strip()
