"""Which units would be restarted if packages were replaced: the look at old files, with those that are there now.

It answers `agentctl plan --for` and `--for-upgrade`, changes nothing and remembers nothing. Its findings are those of
the check `libraries` as it would have them afterwards.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from agent.checks.libraries.likely import Doubts, find_doubts, weigh
from agent.checks.libraries.sighting import search_retired
from agent.checks.libraries.sweep import describe_unseen, sweep_processes
from agent.checks.libraries.wording import subject_of
from agent.host import mappings, packages, transactions
from agent.host.mappings import Engine
from agent.host.units import read_units
from agent.host.upgrades import Upgrades, read_upgrades
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, Indexed, Process, Retired, Snapshot, StaleFile, StaleProcess, Unit
from agent.model.findings import CheckResult, Confidence, Finding, Request, Severity, StaleUnit
from agent.model.restarts import Disposition
from agent.model.text import printable
from agent.stale.blame import unit_of
from agent.stale.disposition import dispose
from agent.stale.judge import BEFORE_US, Verdict
from agent.stale.owners import group_of

CHECK = "libraries"
ANOTHER = "another version"
LATER = 1 << 62
"""A time of unpacking that no process of today is younger than."""

Running = dict[Process, tuple[Confidence, tuple[StaleFile, ...]]]


def run(host: Host, request: Request) -> CheckResult:
    """Return what would run replaced code, as findings on units.

    options: `packages`, names of installed packages; `upgrade`: those besides that apt would upgrade now. Raises
    AgentError(USAGE) for a package that is not installed, and as `read_upgrades` and `libraries.run` do.
    """
    snapshot = transactions.read_snapshot(host)
    new = _replaced(host, snapshot, request)
    engine = mappings.choose_engine(host)
    rows = list(packages.read_index(host, (state for state in snapshot.values() if state.name in new)))
    retired = [Retired(row.path, row.package, row.version, row.id, BEFORE_US) for row in rows]
    search = search_retired(host, retired, snapshot, engine)
    seen = sweep_processes(host, search, {}, request.skip, request.crowds)
    units, silent = _read_units(host)
    running = _mapping(seen.verdicts, rows, new)
    running |= _interpreting(host, request, snapshot, units, new, engine, running)
    return CheckResult(
        check=request.check,
        findings=tuple(_findings(request, running, units)),
        detail={"packages": {printable(name): new[name] for name in sorted(new)}, "processes": seen.count},
        unseen=(*describe_unseen(seen, search), *silent),
    )


def _replaced(host: Host, snapshot: Snapshot, request: Request) -> Upgrades:
    installed = {state.name for state in snapshot.values()}
    named = [str(name).partition(":")[0] for name in request.options.get("packages", ())]
    if unknown := [name for name in named if name not in installed]:
        raise AgentError(Kind.USAGE, f"no package {printable(unknown[0])} is installed", "dpkg -l lists those that are")
    upgrades = read_upgrades(host) if request.options.get("upgrade") else {}
    return {name: new for name, new in upgrades.items() if name in installed} | {
        name: upgrades.get(name, ANOTHER) for name in named
    }


def _read_units(host: Host) -> tuple[dict[str, Unit], tuple[str, ...]]:
    try:
        return read_units(host), ()
    except AgentError as problem:
        return {}, (f"which units processes belong to: {problem.message}",)


def _mapping(verdicts: Iterable[Verdict], rows: Iterable[Indexed], new: Upgrades) -> Running:
    """Return who executes code from the files in `rows`: what is installed counts as identical with itself."""
    owners = {row.path: row for row in rows}
    found: Running = {}
    for verdict in verdicts:
        different = verdict.stale.files if verdict.stale else ()
        paths = {*verdict.identical, *(file.path for file in different)}
        files = (
            StaleFile(path, (row := owners[path]).package, row.version, new[row.package]) for path in sorted(paths)
        )
        found[verdict.process] = (Confidence.CERTAIN, tuple(files))
    return found


def _interpreting(
    host: Host,
    request: Request,
    snapshot: Snapshot,
    units: Mapping[str, Unit],
    new: Upgrades,
    engine: Engine,
    known: Running,
) -> Running:
    """Return who likely has read code of these packages: they are taken as unpacked later, and no other at all."""
    later = {key: replace(state, stamp=f"0-{LATER}" if state.name in new else "") for key, state in snapshot.items()}
    doubts = find_doubts(host, later, request)
    guess = weigh(host, Doubts(doubts.suspects, (), {}), later, units, (), engine, request)
    return {
        verdict.process: (Confidence.LIKELY, tuple(_to_come(file, new) for file in verdict.stale.files))
        for verdict in guess.verdicts
        if verdict.stale and verdict.process not in known
    }


def _to_come(file: StaleFile, new: Upgrades) -> StaleFile:
    return StaleFile(file.path, file.package, file.installed, new[file.package])


def _findings(request: Request, running: Running, units: Mapping[str, Unit]) -> Iterator[Finding]:
    members: dict[str, list[Process]] = {}
    for process in running:
        unit = unit_of(process.cgroup, units)
        program = group_of(process.cgroup) or process.exe
        members.setdefault(subject_of(unit, program, process.comm), []).append(process)
    for subject, some in sorted(members.items()):
        certain = any(running[process][0] is Confidence.CERTAIN for process in some)
        confidence = Confidence.CERTAIN if certain else Confidence.LIKELY
        stale = tuple(
            StaleProcess(item.pid, item.start, item.exe, item.comm, item.uid, running[item][1]) for item in some
        )
        unit = unit_of(some[0].cgroup, units)
        disposition, why = dispose(unit, stale, request.rules, confidence, False, ())
        reason = "would be restarted" if disposition is Disposition.RESTART else why
        evidence = StaleUnit(subject, disposition, confidence, stale, reason=reason)
        yield Finding(CHECK, subject, Severity.INFO, _summary(stale, confidence), reason, evidence)


def _summary(stale: tuple[StaleProcess, ...], confidence: Confidence) -> str:
    names = sorted({file.package for process in stale for file in process.files})
    count = f"{len(stale)} process{'' if len(stale) == 1 else 'es'}"
    likely = " likely" if confidence is Confidence.LIKELY else ""
    runs = "runs" if len(stale) == 1 else "run"
    return f"{count}{likely} {runs} code of {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
