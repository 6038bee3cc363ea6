"""The check `libraries`: which units execute code that dpkg has replaced, and what to do about it.

It looks and says; it changes nothing. It executes nothing that it finds, and reads nobody's environment.
"""

import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent.checks.libraries import wording
from agent.checks.libraries.likely import find_doubts, weigh
from agent.checks.libraries.ownership import find_command, place
from agent.checks.libraries.sighting import search_retired, search_strangers
from agent.checks.libraries.sweep import describe_unseen, sweep_processes
from agent.checks.libraries.timing import waits
from agent.host import mappings, transactions
from agent.host.packages import read_owners
from agent.host.units import read_units
from agent.host.user_units import read_user_units
from agent.model import users
from agent.model.errors import AgentError
from agent.model.facts import Host, StaleFile, StaleProcess, Unit
from agent.model.findings import CheckResult, Confidence, Finding, Request, Severity, StaleUnit
from agent.model.restarts import UNTOUCHED, Attempt, Disposition, Outcome, Result, rule_for
from agent.model.text import printable
from agent.stale.blame import unit_of
from agent.stale.disposition import dispose
from agent.stale.judge import Verdict
from agent.stale.owners import group_of

LOOK_AGAIN = timedelta(minutes=5)
MOST_FILES = 100
"""So many old files of a process are told one by one: any user may map all that there are before they are replaced."""
REFUSED = Result.PRECHECK_FAILED
OUTSIDE = (Disposition.CONTAINER, Disposition.SESSION)
"""What aftercare does not restart because somebody else's tool does."""
SETTLED = (*wording.UP, "inactive", "failed")


@dataclass(frozen=True, slots=True)
class Group:
    """The processes that map old files and belong to one unit; to one program where they belong to none.

    firm: systemd itself names what its main process likely runs an old version of.
    """

    subject: str
    unit: Unit | None
    verdicts: tuple[Verdict, ...]
    firm: bool = False

    @property
    def stale(self) -> tuple[StaleProcess, ...]:
        """Return the processes that run other code than what is installed."""
        return tuple(verdict.stale for verdict in self.verdicts if verdict.stale)

    @property
    def packages(self) -> set[str]:
        """Return the packages whose old code they run."""
        return {file.package for process in self.stale for file in process.files}


def run(host: Host, request: Request) -> CheckResult:
    """Return what still runs replaced code.

    Without history (`request.retired` None) nothing is certain. Raises AgentError(UNREADABLE) where dpkg's
    database cannot be read; whatever else cannot be seen is told in `unseen`.
    """
    begun = time.monotonic()
    snapshot = transactions.read_snapshot(host)
    engine = mappings.choose_engine(host)
    known = request.retired is not None
    search = (
        search_strangers(host, snapshot, engine)
        if request.retired is None
        else search_retired(host, request.retired, snapshot, engine)
    )
    seen = sweep_processes(
        host, search, {state.name: state.version for state in snapshot.values()}, request.skip, request.crowds
    )
    doubts = find_doubts(host, snapshot, request)
    units, silent = _read_units(host, request.broken) if seen.verdicts or request.broken or doubts.any else ({}, ())
    guess = weigh(host, doubts, snapshot, units, seen.verdicts, engine, request, request.past)
    groups = tuple(_group((*seen.verdicts, *guess.verdicts), units, guess.firm))
    findings = (*_find(host, request, groups, units), *guess.findings)
    ordered = tuple(sorted(seen.old, key=lambda old: (old.path, old.transaction)))
    return CheckResult(
        check=request.check,
        findings=findings,
        detail=guess.detail
        | {
            "identical": _identical(groups),
            "processes": seen.count,
            "engine": engine.name,
            "seconds": round(time.monotonic() - begun, 3),
        },
        unseen=(*describe_unseen(seen, search), *(silent if groups or request.broken else ())),
        again_at=_again_at(request, findings, groups),
        mapped=ordered if known else (),
        learnt=() if known else ordered,
        keep=doubts.keep,
    )


def _read_units(host: Host, broken: Sequence[Outcome]) -> tuple[dict[str, Unit], tuple[str, ...]]:
    """Return the units, or why there are none: what is stale is told by program then.

    Of users' units those too that did not come back: a user may run more than are looked at.
    """
    theirs = [outcome.unit for outcome in broken if users.parse(outcome.unit)]
    try:
        units = read_units(host)
        return units | (read_user_units(units, theirs) if theirs else {}), ()
    except AgentError as problem:
        return {}, (f"which units processes belong to: {problem.message}",)


def _group(verdicts: Iterable[Verdict], units: Mapping[str, Unit], firm: Container[str] = ()) -> Iterator[Group]:
    members: dict[str, list[Verdict]] = {}
    owners: dict[str, Unit | None] = {}
    for verdict in verdicts:
        unit = unit_of(verdict.process.cgroup, units)
        program = group_of(verdict.process.cgroup) or verdict.process.exe
        subject = wording.subject_of(unit, program, verdict.process.comm)
        members.setdefault(subject, []).append(verdict)
        owners[subject] = unit
    for subject in sorted(members):
        yield Group(subject, owners[subject], tuple(members[subject]), subject in firm)


def _identical(groups: Iterable[Group]) -> dict[str, list[str]]:
    paths = {group.subject: {path for verdict in group.verdicts for path in verdict.identical} for group in groups}
    return {printable(subject): sorted(map(printable, some)) for subject, some in paths.items() if some}


def _find(host: Host, request: Request, groups: Sequence[Group], units: Mapping[str, Unit]) -> tuple[Finding, ...]:
    stale = [group for group in groups if group.stale]
    held = _read_held(host, request, stale)
    found = {group.subject: _stale_finding(host, request, group, held[group.subject], units) for group in stale}
    for outcome in request.broken:
        if wording.is_down(outcome, units):
            known = found.get(outcome.unit)
            evidence = known.evidence if known and isinstance(known.evidence, StaleUnit) else None
            found[outcome.unit] = wording.broken_finding(outcome, evidence)
    interrupted = (wording.interrupted_finding(request.unfinished),) if request.unfinished else ()
    return (*interrupted, *found.values())


def _stale_finding(
    host: Host, request: Request, group: Group, held: tuple[str, ...], units: Mapping[str, Unit]
) -> Finding:
    judged = [verdict for verdict in group.verdicts if verdict.stale]
    certain = any(verdict.confidence is Confidence.CERTAIN for verdict in judged)
    confidence = Confidence.CERTAIN if certain else Confidence.LIKELY
    last = max(verdict.transaction for verdict in judged)
    attempt = _settling(request, group.subject, last)
    refused = attempt.outcome if attempt and attempt.outcome and attempt.outcome.result is REFUSED else None
    likely = _likely_policy(request, group)
    disposition, reason = dispose(group.unit, group.stale, request.rules, confidence, attempt is not None, held, likely)
    people = [verdict.process for verdict in judged]
    disposition, reason = place(host, group.unit, people, disposition, reason)
    opens_at = None
    if disposition is Disposition.LEFTOVER and attempt and refused:
        disposition, reason = Disposition.DEFER, f"{refused.hint} (tested at {attempt.begun.astimezone():%F %R})"
    if disposition is Disposition.RESTART and group.unit and (wait := waits(request, group.unit)):
        disposition, (opens_at, reason) = Disposition.DEFER, wait
    fixes, unlisted = _read_fixes(host, group.stale)
    stale = StaleUnit(group.subject, disposition, confidence, group.stale, fixes, reason, refused, opens_at, unlisted)
    finding = wording.stale_finding(stale, held)
    if disposition in OUTSIDE and not held and (command := find_command(host, group.unit, people[0], units)):
        finding = replace(finding, advice=command)
    if refused and not held:
        finding = replace(finding, advice=f"mend that, then: {finding.advice}")
    most = request.options.get("most_told")
    told = group.stale[: users.FEW if most and users.parse(group.subject) else most]
    told = tuple(replace(process, files=_told(process.files)) for process in told) if most else told
    return replace(finding, evidence=replace(stale, processes=told, total=len(group.stale)))


def _told(files: tuple[StaleFile, ...]) -> tuple[StaleFile, ...]:
    """Return no more than MOST_FILES of the old files of a process, of as many packages as possible."""
    one_each = {file.package: file for file in reversed(files)}.values()
    return tuple(dict.fromkeys((*one_each, *files)))[:MOST_FILES]


def _settling(request: Request, unit: str, last: int) -> Attempt | None:
    """Return the attempt that settles the matter for a unit whose files were replaced by the transaction `last`.

    One that restarted nothing does so only until the next transaction, whatever that changes: the reason may be gone.
    """
    newest = max((change.transaction for change in request.past), default=last)
    for attempt in request.attempts:
        untouched = attempt.outcome is not None and attempt.outcome.result in UNTOUCHED
        if attempt.unit == unit and attempt.transaction >= (newest if untouched else last):
            return attempt
    return None


def _likely_policy(request: Request, group: Group) -> str:
    """Only what systemd itself was told to start is restarted on a likelihood: all else is a process's own word."""
    rule = rule_for(group.subject, request.rules)
    return (rule.likely or str(request.options.get("likely", "report"))) if group.firm else "report"


def _read_held(host: Host, request: Request, groups: Sequence[Group]) -> dict[str, tuple[str, ...]]:
    """Return, by subject, the unfinished packages that its unit, its programs or its old files come from."""
    if not request.unfinished:
        return {group.subject: () for group in groups}
    paths = {group.subject: _paths(group) for group in groups}
    owners = read_owners(host, {path for some in paths.values() for path in some})
    unfinished = set(request.unfinished)
    return {
        group.subject: tuple(
            sorted(unfinished & (group.packages | {owners[path] for path in paths[group.subject] if path in owners}))
        )
        for group in groups
    }


def _paths(group: Group) -> set[str]:
    unit = group.unit
    named = (unit.fragment, *unit.programs) if unit else ()
    return {path for path in (*named, *(process.exe for process in group.stale)) if path}


def _read_fixes(host: Host, processes: Sequence[StaleProcess]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the CVE ids that changelogs list as fixed between what runs and what is installed.

    And the packages of which that is not known: no changelog, or one that does not know the version that runs.
    """
    from agent.host.changelogs import read_fixes  # takes a tenth of a look to load, and most looks find nothing

    files = (file for process in processes for file in process.files)
    steps = {(file.package, file.running, file.installed) for file in files}
    fixes = {
        package: read_fixes(host, package, running, installed)
        for package, running, installed in sorted(steps, key=str)
        if running and installed and running != installed
    }
    known = dict.fromkeys(cve for some in fixes.values() for cve in some or ())
    return tuple(known), tuple(package for package, some in fixes.items() if some is None)


def _again_at(request: Request, findings: Iterable[Finding], groups: Iterable[Group]) -> datetime | None:
    """Return when time alone may have changed the verdict: a window opens, or a unit is on its way up or down."""
    stale = [finding.evidence for finding in findings if isinstance(finding.evidence, StaleUnit)]
    times = [item.opens_at for item in stale if item.opens_at]
    if request.skip or _is_open(findings, groups):
        times.append(request.now + LOOK_AGAIN)
    return min(times, default=None)


def _is_open(findings: Iterable[Finding], groups: Iterable[Group]) -> bool:
    """Return whether time alone may change the verdict: a unit is down, or on its way up or down."""
    down = any(finding.severity is Severity.CRITICAL and not _is_refused(finding) for finding in findings)
    return down or any(group.unit and group.unit.active not in SETTLED for group in groups)


def _is_refused(finding: Finding) -> bool:
    """A unit that was not restarted because it would not come back waits for a person, and not for the clock."""
    outcome = finding.evidence.outcome if isinstance(finding.evidence, StaleUnit) else None
    return outcome is not None and outcome.result is REFUSED
