"""One look at the machine: survey what dpkg did, remember it, and run the check where its verdict may have changed."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.checks.registry import CHECKS
from agent.config.settings import Settings, options_of
from agent.daemon import workers
from agent.daemon.workers import Outdated, Surveyed
from agent.host import transactions, units
from agent.model.errors import AgentError, Kind
from agent.model.events import Checked, Looked
from agent.model.facts import Host, Replaced, Transaction
from agent.model.findings import CheckResult, Request, Severity
from agent.model.restarts import Result, rule_for
from agent.restart.probe import probe
from agent.stale.pace import LONGEST
from agent.store import Store

MOST_TOLD = 50
"""So many processes of a unit are told one by one: any user may have thousands, with names as long as a page."""
MOST_PAST = 50
"""So many transactions tell what an interpreted program was when it began."""
PROBED = 5.0
"""Seconds that a unit which did not answer has to answer again."""
LIBRARIES = "libraries"
"""The check by whose verdict units are restarted."""


async def look(host: Host, store: Store, settings: Settings, locked: Callable[[], bool], *, force: bool) -> Looked:
    """Return what is wrong now; `force`: also where dpkg did nothing since the last look.

    Given up, and nothing is remembered, where dpkg's lock turns out to be held after the survey: its end is another
    wake-up.
    """
    transaction = None
    try:
        store.write_back()
        memory = store.memory()
        known = memory.begun is not None and memory.boot == boot_id(host)
        now = datetime.now(UTC)
        since = memory.transaction.ended if memory.transaction else memory.begun
        surveyed = await workers.survey(host, settings, store.snapshot() if known else None, since, now)
        if locked():
            return Looked(abandoned=True)
        transaction = _settle(host, store, surveyed, now)
        store.forget(now - timedelta(days=settings.keep_days))
        await _probe_again(store, settings)
        if known and transaction is None and not force:
            return Looked()
        request = _request(store, settings, surveyed.survey.unfinished, known)
        results, problem = await _run_all(host, settings, request)
        _remember(store, request, results)
        return Looked(results, transaction, await asyncio.to_thread(units.read_units, host), problem)
    except AgentError as problem:
        return Looked(transaction=transaction, problem=problem)
    except Outdated as version:
        return Looked(transaction=transaction, outdated=str(version))


async def _probe_again(store: Store, settings: Settings) -> None:
    """A unit that did not answer after its restart is well again once it does, or nobody asks it any more."""
    failing = [outcome.unit for outcome in store.memory().broken if outcome.result is Result.PROBE_FAILED]
    asked = {unit: wanted for unit in failing if (wanted := rule_for(unit, settings.rules).probe)}
    wrong = await asyncio.gather(*(probe(wanted, limit=PROBED) for wanted in asked.values()))
    ailing = {unit for unit, words in zip(asked, wrong, strict=True) if words}
    store.mend([unit for unit in failing if unit not in ailing])


def _settle(host: Host, store: Store, surveyed: Surveyed, now: datetime) -> Transaction | None:
    """Remember a survey; return the transaction that it found, if any.

    After a boot the disk may be a copy, on which every file has another inode: only versions tell a change then.
    """
    old = store.snapshot()
    changes = transactions.diff(old, surveyed.survey.snapshot) if old is not None else ()
    if surveyed.survey.full:
        changes = tuple(change for change in changes if change.old != change.new)
    return store.settle(surveyed.survey, changes, surveyed, boot_id(host), now)


def _request(store: Store, settings: Settings, unfinished: tuple[str, ...], known: bool) -> Request:
    memory, now = store.memory(), datetime.now(UTC)
    recent = store.recent(now - LONGEST)
    past = store.transactions(MOST_PAST)
    return Request(
        check=LIBRARIES,
        now=now,
        rules=settings.rules,
        retired=memory.retired if known else None,
        attempts=memory.attempts,
        broken=memory.broken,
        unfinished=unfinished,
        recent=recent,
        kept=store.kept(LIBRARIES),
        past=tuple(
            Replaced(done.id, change.package, done.begun, done.ended, change.old, change.new)
            for done in past
            for change in done.changes
        ),
        options=options_of(settings, LIBRARIES) | {"most_told": MOST_TOLD},
    )


async def _run_all(
    host: Host, settings: Settings, request: Request
) -> tuple[tuple[CheckResult, ...], AgentError | None]:
    """Run every check, side by side. One that cannot be run keeps no other from being run; its problem is told."""

    async def run(name: str) -> CheckResult | AgentError:
        retired = request.retired if name == LIBRARIES else ()
        try:
            return await workers.check(host, settings, replace(request, check=name, retired=retired))
        except AgentError as failed:
            return failed

    done = await asyncio.gather(*(run(check.name) for check in CHECKS.values() if not check.is_apart))
    problems = [item for item in done if isinstance(item, AgentError)]
    return tuple(item for item in done if isinstance(item, CheckResult)), next(iter(problems), None)


def _remember(store: Store, request: Request, results: tuple[CheckResult, ...]) -> None:
    for result in results:
        store.learn(result)
        if result.check == LIBRARIES:
            down = {finding.subject for finding in result.findings if finding.severity is Severity.CRITICAL}
            store.mend([outcome.unit for outcome in request.broken if outcome.unit not in down])


async def check(host: Host, store: Store, settings: Settings, name: str) -> Checked:
    """Return what one of the checks that run apart finds now."""
    now = datetime.now(UTC)
    try:
        request = Request(name, now, settings.rules, options=options_of(settings, name), kept=store.kept(name))
        result = await workers.check(host, settings, request)
        store.learn(result)
        return Checked(name, result)
    except AgentError as problem:
        return Checked(name, problem=problem)
    except Outdated as version:
        hint = "it restarts itself at its next look; or: systemctl restart aftercare"
        return Checked(name, problem=AgentError(Kind.SPAWN, f"aftercare on disk is {version}, aftercared is not", hint))


async def recheck(host: Host, store: Store, settings: Settings) -> CheckResult:
    """Return the same check asked again, for the verification of restarts; raises AgentError."""
    return await workers.check(host, settings, _request(store, settings, (), known=True))


def boot_id(host: Host) -> str:
    """Return what the kernel calls this boot, and where dpkg's database lies: a container on a copied disk may see the
    boot of its host, and yet every file has another inode. That there is no database is for the survey to say."""
    boot = Path(host.proc, "sys/kernel/random/boot_id").read_text().strip()
    try:
        database = Path(host.under(transactions.DATABASE)).stat()
    except FileNotFoundError:
        return boot
    return f"{boot} {database.st_dev}:{database.st_ino}"
