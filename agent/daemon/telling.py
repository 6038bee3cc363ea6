"""What the journal is told of transactions and findings: each thing once, when it is new."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from agent.model.events import Checked, Looked
from agent.model.facts import Change, Transaction
from agent.model.findings import Confidence, Finding, Severity, StaleUnit
from agent.model.restarts import BROKEN, MANAGER, Attempt, Disposition, Outcome, Result
from agent.model.view import View, told
from agent.restart.plan import reasons

Tell = Callable[..., Any]
ALARMING = (Severity.CRITICAL, Severity.ERROR)


def transaction(tell: Tell, done: Transaction) -> None:
    """Tell that a transaction is over, and whether dpkg was interrupted in it."""
    changes = [_change(change) for change in done.changes]
    fields = {"transaction": done.id, "changes": changes, "requester": done.requester or None}
    tell("transaction-settled", command=done.command or "dpkg", **fields)
    if done.unfinished:
        tell("interrupted", transaction=done.id, packages=[state.name for state in done.unfinished])


def _change(change: Change) -> str:
    if change.old == change.new:
        return f"{change.package} {change.new} again"
    return f"{change.package} {change.old or 'new'} → {change.new or 'removed'}"


def findings(tell: Tell, before: View, after: View, looked: Looked, now: datetime) -> None:
    """Tell what is stale, deferred, identical or waits for a reboot where that is new, and nobody silenced it.

    That is: first seen `now`, or put otherwise in `before`.
    """
    known = {finding.id: _news(finding) for finding in before.findings}
    for finding in told(after):
        changed = known.get(finding.id, _news(finding)) != _news(finding)
        if not changed and finding.since != now:
            continue
        if isinstance(finding.evidence, StaleUnit):
            _stale(tell, finding.evidence)
        elif finding.check == "reboot":
            _reboot(tell, finding.summary, finding.evidence)
    if looked.transaction and not any(finding.check == "libraries" for finding in after.findings):
        tell("nothing-stale", transaction=looked.transaction.id)
    same = [result.detail.get("identical", {}) for result in looked.results if result.check == "libraries"]
    identical: dict[str, list[str]] = same[0] if same else {}
    if looked.transaction and identical:
        files = sorted({path for paths in identical.values() for path in paths})
        tell("identical", transaction=looked.transaction.id, files=files, units=sorted(identical))


def changes(tell: Tell, before: View, after: View, checked: Checked) -> None:
    """Tell what a check that runs apart found new or worse, and what is right again; or why it could not be run."""
    check = checked.check
    if checked.problem and before.unseen.get(check) != after.unseen.get(check):
        tell("check-failed", error=f"{check}: {checked.problem.message}", hint=checked.problem.hint)
    known = {finding.id: finding for finding in before.findings if finding.check == check}
    found = {finding.id: finding for finding in told(after) if finding.check == check}
    for finding in found.values():
        old = known.get(finding.id)
        if old is None or (old.severity, old.summary) != (finding.severity, finding.summary):
            kind = "alarm" if finding.severity in ALARMING else "remark"
            fields = {"severity": finding.severity.value, "advice": finding.advice}
            tell(kind, check=check, subject=finding.subject, summary=finding.summary, **fields)
    still = {finding.id for finding in after.findings}
    for finding in known.values():
        if finding.id not in still:
            tell("set-right", check=check, subject=finding.subject, summary=finding.summary)


def _stale(tell: Tell, stale: StaleUnit) -> None:
    files = [file for process in stale.processes for file in process.files]
    packages = sorted({file.package for file in files})
    fields = {"unit": stale.unit, "packages": packages, "cves": list(stale.cves)}
    if stale.disposition is Disposition.RESTART and stale.confidence is Confidence.CERTAIN:
        tell("stale-found", reasons=reasons(stale), **fields)
    elif stale.outcome is None:
        tell("deferred", reason=stale.reason or stale.disposition.value, reasons=reasons(stale), **fields)


def _reboot(tell: Tell, summary: str, evidence: dict[str, Any]) -> None:
    sides = {"running": evidence["running"], "expected": evidence["expected"]}
    tell("reboot-needed", summary=summary, packages=evidence["packages"], **sides)


def outcome(tell: Tell, attempt: Attempt, done: Outcome, why: Sequence[str]) -> None:
    """Tell what came of one restart."""
    fields: dict[str, Any] = {
        "unit": done.unit,
        "transaction": attempt.transaction,
        "result": done.result.value,
        "took": dict(done.took).get("job", 0.0),
        "reasons": list(why),
    }
    if done.result is Result.FRESH:
        tell("manager-reexecuted" if done.unit == MANAGER else "restart-verified", **fields)
    elif done.result is Result.LEFTOVER:
        tell("leftover", leftovers=list(done.leftovers), hint=done.hint, **fields)
    else:
        kind = "restart-failed" if done.result in BROKEN else "not-restarted"
        tell(kind, hint=done.hint, journal="\n".join(done.journal), **fields)


def _news(finding: Finding) -> str:
    """Return what, where it changes, makes news of a finding that is known."""
    if finding.check == "reboot":
        return finding.summary
    return finding.evidence.disposition if isinstance(finding.evidence, StaleUnit) else ""
