"""What likely runs old code or data without a mapping that proves it: joins programs, packages and times.

`find_doubts` looks whether there is anybody to ask about, in a few milliseconds; `weigh` then asks. Nothing found
here is certain, and nothing of a process is executed, parsed or opened.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Any

from agent.checks.libraries.outdated_data import find_data, tell
from agent.checks.progress import PROGRESS
from agent.host import dependencies, interpreted, packages, processes
from agent.host.interpreted import Interpreted
from agent.host.mappings import Engine
from agent.model.errors import AgentError
from agent.model.facts import Host, Process, Replaced, Snapshot, Unit
from agent.model.findings import Finding, Request
from agent.stale import likely
from agent.stale.blame import unit_of
from agent.stale.judge import Verdict
from agent.stale.outdated_data import Datum

Holder = Callable[[str], Unit | None]
"""Control group → the unit that holds it."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A process of an interpreter that is older than some package."""

    runs: Interpreted
    process: Process


@dataclass(frozen=True, slots=True)
class Doubts:
    """What there is to ask about. keep: what the next look is to be given as `kept`."""

    suspects: tuple[Suspect, ...]
    data: tuple[Datum, ...]
    keep: dict[str, Any]

    @property
    def any(self) -> bool:
        """Return whether `weigh` has anything to do, for which it needs the units."""
        return bool(self.suspects or self.data)


@dataclass(frozen=True, slots=True)
class Guess:
    """What came of it. firm: units of whose main process systemd itself names the program that is likely old.

    findings: on data. detail: how many processes were asked about, and how many run no program of any package.
    """

    verdicts: tuple[Verdict, ...] = ()
    firm: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a process runs: `scripts` by systemd's word where `firm`, else by its own."""

    suspect: Suspect
    unit: str
    scripts: tuple[str, ...]
    firm: bool


def find_doubts(host: Host, snapshot: Snapshot, request: Request) -> Doubts:
    """Return the interpreted processes that began before any package was unpacked last, and data that changed.

    Of `request` it takes what is to be skipped, and as `kept` the `Doubts.keep` of an earlier look.
    """
    newest = max(filter(None, map(likely.unpacked_at, snapshot.values())), default=None)
    return Doubts(tuple(_suspects(host, newest, request)), *find_data(host, snapshot, request.kept))


def _suspects(host: Host, newest: datetime | None, request: Request) -> Iterator[Suspect]:
    for runs in interpreted.read_interpreted(host):
        process = processes.read_process(host, runs.pid)
        if process and likely.is_older(process.start, newest) and not _is_shunned(host, runs.pid, request):
            yield Suspect(runs, process)


def _is_shunned(host: Host, pid: int, request: Request) -> bool:
    return pid in request.skip or (bool(request.crowds) and processes.read_crowd(host, pid) in request.crowds)


def weigh(
    host: Host,
    doubts: Doubts,
    snapshot: Snapshot,
    units: Mapping[str, Unit],
    proven: Iterable[Verdict],
    engine: Engine,
    request: Request,
    past: Sequence[Replaced] = (),
) -> Guess:
    """Return what likely runs old code. Who runs replaced code for certain, and his unit, is left out.

    proven: what the mappings say. Of `request` it takes what is to be skipped. past: what history knows of changed
    packages. Raises AgentError(UNREADABLE) where dpkg's database cannot be read.
    """
    holder = cache(lambda cgroup: unit_of(cgroup, units))
    asked = _left(host, doubts.suspects, holder, proven)
    guess = _judge(host, list(_claims(host, asked, holder)), snapshot, past) if asked else Guess()
    services = [unit for unit in units.values() if doubts.data and not _is_shunned(host, unit.main_pid, request)]
    return replace(guess, findings=tell(host, doubts.data, snapshot, services, engine))


def _left(host: Host, suspects: Sequence[Suspect], holder: Holder, proven: Iterable[Verdict]) -> list[Suspect]:
    stale = [verdict.process for verdict in proven if verdict.stale]
    known = {process.pid for process in stale}
    settled = {unit.name for process in stale if (unit := holder(process.cgroup))}
    witness = processes.read_witness(host)
    return [
        suspect
        for suspect in suspects
        if suspect.process.pid not in known
        and _name(holder(suspect.process.cgroup)) not in settled
        and processes.shares_root(host, suspect.process.pid, witness)
    ]


def _name(unit: Unit | None) -> str:
    return unit.name if unit else ""


def _claims(host: Host, suspects: Sequence[Suspect], holder: Holder) -> Iterator[_Claim]:
    """Yield what each of them runs. A path that systemd was told is another file under a root of the unit's own."""
    mains = {
        suspect: unit.name
        for suspect in suspects
        if (unit := holder(suspect.process.cgroup)) and unit.programs and unit.main_pid == suspect.process.pid
    }
    try:
        told = interpreted.read_commands(host, mains.values())
    except AgentError:
        told = {}
    by_pid = {suspect.process.pid: suspect for suspect in suspects}
    for pid in PROGRESS.over(by_pid):  # whoever reads a command line waits for the lock of that memory
        suspect = by_pid[pid]
        scripts = interpreted.read_scripts(host, pid)
        if processes.read_process(host, pid) != suspect.process:
            continue
        name = _name(holder(suspect.process.cgroup))
        words = told.get(mains.get(suspect, ""), ())
        yield from (_Claim(suspect, name, some, firm) for some, firm in ((words, True), (scripts, False)) if some)


def _judge(host: Host, claims: Sequence[_Claim], snapshot: Snapshot, past: Sequence[Replaced]) -> Guess:
    named = {packages.canonical(host, path) for claim in claims for path in claim.scripts}
    owners = packages.read_owners(host, named | {claim.suspect.runs.exe for claim in claims})
    reach = _reach(host, snapshot)
    installed = dependencies.by_name(snapshot)
    changes: dict[str, list[Replaced]] = {}
    for change in past:
        changes.setdefault(change.package, []).append(change)
    found: dict[int, Verdict] = {}
    firm, owned = set(), set()
    for claim in claims:
        process, language = claim.suspect.process, claim.suspect.runs.language
        places = (packages.canonical(host, path) for path in claim.scripts)
        scripts = {path: owners[path] for path in places if path in owners and not interpreted.is_binary(host, path)}
        if not scripts or claim.suspect.runs.exe not in owners or process.pid in found:
            continue
        owned.add(process.pid)
        reached: dict[str, str] = {}
        for package in sorted(set(scripts.values())):
            reached = reach(package, language) | reached
        if verdict := likely.judge(process, scripts, reached, installed, changes):
            found[process.pid] = verdict
            firm |= {claim.unit} if claim.firm else set()
    asked = {claim.suspect.process.pid for claim in claims}
    detail = {"interpreted": len(asked), "unowned": len(asked - owned)}
    return Guess(tuple(found.values()), frozenset(firm), detail=detail)


def _reach(host: Host, snapshot: Snapshot) -> Callable[[str, str], dict[str, str]]:
    """Return what gives the packages that a program of a package reaches in a language, each looked for once.

    Any user may start thousands of processes that claim to run whatever there is.
    """
    installed = dependencies.by_name(snapshot)
    relations = dependencies.read_relations(host, installed.keys())

    @cache
    def bears(package: str, language: str) -> str:
        return dependencies.read_imported(host, installed[package], language)

    @cache
    def reach(package: str, language: str) -> dict[str, str]:
        return likely.reach(package, relations.needs, relations.source, lambda name: bears(name, language))

    return reach
