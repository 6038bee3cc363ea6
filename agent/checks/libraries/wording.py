"""How the findings of the check `libraries` are put: severity, one line, and the command to apply. Pure."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.model import users
from agent.model.facts import StaleFile, StaleProcess, Unit
from agent.model.findings import Confidence, Finding, Severity, StaleUnit
from agent.model.restarts import MANAGER, Disposition, Outcome, Result

CHECK = "libraries"
LONGEST_SUMMARY = 100
CONFIGURE = "dpkg --configure -a"
UP = ("active", "reloading", "refreshing")
LEFT_ALONE = (Disposition.SESSION, Disposition.CONTAINER, Disposition.NEVER)


def subject_of(unit: Unit | None, exe: str, comm: str) -> str:
    """Return what a finding is about: a unit, else a program by its path, which is like no unit's name."""
    return unit.name if unit else exe or f"[{comm}]"


def stale_finding(evidence: StaleUnit, held: Sequence[str]) -> Finding:
    """Return the finding on a unit that runs replaced code. held: its packages that dpkg left half done."""
    certain = evidence.confidence is Confidence.CERTAIN and evidence.disposition not in LEFT_ALONE
    return Finding(
        check=CHECK,
        subject=evidence.unit,
        severity=Severity.CRITICAL if evidence.outcome else _severity(certain, bool(evidence.cves)),
        summary=_summary(evidence.processes, evidence.confidence),
        advice=CONFIGURE if held else _advice(evidence),
        evidence=evidence,
    )


def _severity(acted_upon: bool, exposed: bool) -> Severity:
    """What is exposed weighs more, and what a person has to see to himself less."""
    if acted_upon:
        return Severity.ERROR if exposed else Severity.WARNING
    return Severity.WARNING if exposed else Severity.INFO


def broken_finding(outcome: Outcome, stale: StaleUnit | None) -> Finding:
    """Return the finding on a unit that a restart left down. stale: what else is known of it."""
    known = stale or StaleUnit(outcome.unit, Disposition.NEVER, Confidence.CERTAIN, (), reason=outcome.hint)
    return Finding(
        check=CHECK,
        subject=outcome.unit,
        severity=Severity.CRITICAL,
        summary=_cut(_trouble(outcome)),
        advice=_look_closer(outcome.unit),
        evidence=replace(known, outcome=outcome),
    )


def _look_closer(unit: str) -> str:
    status = users.by_hand("status", unit)
    return status if users.parse(unit) else f"{status}; journalctl -u {shlex.quote(unit)}"


def _trouble(outcome: Outcome) -> str:
    if outcome.result is Result.PROBE_FAILED:
        return f"does not do its work since its restart: {outcome.hint}"
    return f"not running since its restart ({outcome.result.value})"


def interrupted_finding(packages: Sequence[str]) -> Finding:
    """Return the finding on a dpkg that did not finish its work."""
    some = "1 package is" if len(packages) == 1 else f"{len(packages)} packages are"
    return Finding(
        check=CHECK,
        subject="dpkg",
        severity=Severity.ERROR,
        summary=f"dpkg was interrupted: {some} not configured",
        advice=CONFIGURE,
        evidence={
            "disposition": Disposition.NEVER.value,
            "confidence": Confidence.CERTAIN.value,
            "cves": [],
            "processes": [],
            "packages": list(packages),
        },
    )


def is_down(outcome: Outcome, units: Mapping[str, Unit]) -> bool:
    """Return whether what a restart broke is still so: the unit is down, or one that went down with it.

    A unit that runs and does not answer is well again when the daemon, which asks, says so. Nothing of a user's is
    expected to run where his manager does not.
    """
    if outcome.result is Result.PROBE_FAILED:
        return True
    theirs = users.parse(outcome.unit)
    if theirs and units and (theirs.manager not in units or units[theirs.manager].active not in UP):
        return False
    with_it = outcome.leftovers if outcome.result is Result.DEPENDANT_DOWN else ()
    return any(name not in units or units[name].active not in UP for name in (outcome.unit, *with_it))


def _advice(evidence: StaleUnit) -> str:
    name = shlex.quote(evidence.unit)
    if evidence.unit.startswith(("/", "[")):
        return f"ps -f -p {','.join(str(process.pid) for process in evidence.processes)}"
    if evidence.unit == MANAGER:
        return "systemctl daemon-reexec"
    match evidence.disposition:
        case Disposition.RESTART | Disposition.DEFER:
            return f"agentctl restart {name}"
        case Disposition.REBOOT:
            return "systemctl reboot"
        case Disposition.SESSION if evidence.unit.startswith("session-"):
            return f"loginctl terminate-session {evidence.unit.removeprefix('session-').removesuffix('.scope')}"
        case Disposition.SESSION if (theirs := users.parse(evidence.unit)) and not (
            theirs.is_scope or theirs.runs_once
        ):
            return users.by_hand("restart", evidence.unit)
    return users.by_hand("status", evidence.unit)


def _summary(processes: Sequence[StaleProcess], confidence: Confidence) -> str:
    count = len(processes)
    who = f"{count} process{'' if count == 1 else 'es'}{' likely' if confidence is Confidence.LIKELY else ''}"
    runs = f"{who} still run{'s' if count == 1 else ''}"
    packages = {file.package: file for process in processes for file in process.files}
    names = sorted(packages)
    others = f" and {len(names) - 1} other package{'' if len(names) == 2 else 's'}" if len(names) > 1 else ""
    whole = f"{runs} {_replaced(packages[names[0]])}{others}"
    return whole if len(whole) <= LONGEST_SUMMARY else _cut(f"{runs} replaced code of {', '.join(names)}")


def _replaced(file: StaleFile) -> str:
    what = f"{file.package} {file.running}" if file.running else f"an old {file.package}"
    return f"{what}, replaced by {file.installed}" if file.installed else f"{what}, removed since"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SUMMARY else f"{text[: LONGEST_SUMMARY - 1]}…"
