"""Why a unit or a process is stale, or was restarted: the chain from the apt command to the result.

Pure. While something is stale the chain is told from the finding; afterwards from the recorded restart.
What is not known is left out or said to be unknown, never guessed.
"""

import shlex
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from agent.model.contract import outcome, stamp
from agent.model.facts import Change, StaleFile, StaleProcess, Transaction
from agent.model.findings import StaleUnit
from agent.model.memory import Recorded
from agent.model.restarts import UNTOUCHED, Disposition, Outcome, Result
from agent.model.text import printable
from agent.model.view import View

SHOWN = 8
"""So many packages, files or processes are told one by one."""

UNRECORDED = "a version that is not on record"

ACTIONS = {
    Disposition.RESTART: "will be restarted",
    Disposition.DEFER: "is not restarted now",
    Disposition.REBOOT: "needs a reboot",
    Disposition.SESSION: "is left to its user",
    Disposition.CONTAINER: "is left to its container",
    Disposition.NEVER: "is never restarted",
    Disposition.LEFTOVER: "stayed behind after a restart",
}
RESULTS = {
    Result.FRESH: "fresh again: active, with new processes, none of them stale",
    Result.LEFTOVER: "active again, but something of it stayed behind",
    Result.PRECHECK_FAILED: "not restarted: a look beforehand showed that it would not go well",
    Result.FAILED: "failed to come back",
    Result.TIMED_OUT: "did not come back in time",
    Result.DIED_AFTER: "came back and died soon afterwards",
    Result.PROBE_FAILED: "came back, but does not answer as it should",
    Result.DEPENDANT_DOWN: "came back, but a unit that depends on it did not",
    Result.START_LIMIT: "systemd refused: it was started too often",
    Result.NOT_RUN: "not restarted: its turn never came",
}
"""Results of attempts in which nothing was restarted."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a chain. step: command, package, file, process, reason, unit, action or result.

    text: one printable line. at: when it happened, where that is known. detail: the same as JSON.
    """

    step: str
    text: str
    at: datetime | None
    detail: dict[str, Any]


def explain(view: View, subject: str, history: Sequence[Recorded] = ()) -> tuple[Link, ...]:
    """Return the chain for `subject`: a unit, with or without `.service`, or a pid. Empty: nothing is known.

    history: restarts of the past, newest first; those of other units are looked at only for their
    transactions. A pid is known while its process is stale; for another one, ask for its unit.
    """
    evidence = _evidence(view, subject)
    names = {evidence.unit} if evidence else {subject, f"{subject}.service"}
    recorded = next((entry for entry in history if entry.attempt.unit in names), None)
    if evidence and recorded and not evidence.processes:
        return *_afterwards(recorded), _action(evidence, view)
    if evidence:
        return _while_stale(view, evidence, recorded, history)
    return _afterwards(recorded) if recorded else ()


def chain_json(chain: Iterable[Link]) -> list[dict[str, Any]]:
    """Return a chain as `agentctl why --json` shows it."""
    return [{"step": link.step, "text": link.text, "at": stamp(link.at), "detail": link.detail} for link in chain]


def lines(chain: Sequence[Link], width: int = 80, zone: tzinfo = UTC) -> list[str]:
    """Return a chain for a terminal of `width` columns, times in `zone`; a date is shown where it changes."""
    shown: list[str] = []
    day = ""
    for link in chain:
        moment = link.at.astimezone(zone) if link.at else None
        date = f"{moment:%Y-%m-%d}" if moment else day
        clock = f"{moment:%H:%M:%S}" if moment else ""
        head = f"{date if date != day else '':10} {clock:8}  {link.step:8}"
        day = date
        body = textwrap.wrap(link.text, max(width - len(head) - 1, 20), break_on_hyphens=False) or [""]
        shown += [f"{head} {body[0]}".rstrip(), *(f"{'':{len(head)}} {part}" for part in body[1:])]
    return shown


def _evidence(view: View, subject: str) -> StaleUnit | None:
    stale = [finding.evidence for finding in view.findings if isinstance(finding.evidence, StaleUnit)]
    for evidence in stale:
        if evidence.unit in (subject, f"{subject}.service"):
            return evidence
    holds = (item for item in stale if any(str(process.pid) == subject for process in item.processes))
    return next(holds, None)


def _while_stale(
    view: View, evidence: StaleUnit, recorded: Recorded | None, history: Sequence[Recorded]
) -> tuple[Link, ...]:
    files = tuple(dict.fromkeys(file for process in evidence.processes for file in process.files))
    packages = {file.package for file in files}
    transaction = _cause(packages, view, history)
    if recorded and (transaction is None or recorded.attempt.transaction < transaction.id):
        recorded = None
    return (
        _command(transaction),
        *(_packages(transaction, packages) if transaction else _from_files(files)),
        *_few([_file(file) for file in files], "file"),
        *_few([_process(process) for process in evidence.processes], "process"),
        _unit(evidence),
        *([_attempted(recorded)] if recorded else []),
        *_result(recorded, evidence.outcome),
        _action(evidence, view),
    )


def _afterwards(recorded: Recorded) -> tuple[Link, ...]:
    unit = recorded.attempt.unit
    files = tuple(dict.fromkeys(file for process in recorded.processes for file in process.files))
    names = {file.package for file in files}
    changes = _packages(recorded.transaction, names) if recorded.transaction else []
    return (
        _command(recorded.transaction),
        *(changes or _few([_reason(reason) for reason in recorded.reasons], "reason")),
        *_few([_file(file) for file in files], "file"),
        *_few([_process(process) for process in recorded.processes], "process"),
        Link("unit", printable(unit), None, {"unit": printable(unit), "cves": []}),
        _attempted(recorded),
        *_result(recorded, None),
    )


def _cause(packages: set[str], view: View, history: Sequence[Recorded]) -> Transaction | None:
    """Return the newest transaction that changed one of `packages`."""
    known = (view.transaction, *(entry.transaction for entry in history))
    causes = (item for item in known if item and any(change.package in packages for change in item.changes))
    return next(causes, None)


def _reason(reason: str) -> Link:
    text = printable(reason)
    return Link("reason", text, None, {"reason": text})


def _command(transaction: Transaction | None) -> Link:
    if transaction is None:
        return Link("command", "a package transaction that is not on record", None, {})
    command = printable(transaction.command) or "dpkg, by a command that is not on record"
    who = printable(transaction.requester)
    detail = {"transaction": transaction.id, "command": printable(transaction.command), "requester": who}
    text = f"{command}, asked for by {who}" if who else command
    return Link("command", text, transaction.begun or transaction.ended, detail)


def _packages(transaction: Transaction, names: set[str]) -> list[Link]:
    changes = [change for change in transaction.changes if change.package in names]
    return _few([_change(change, transaction.ended) for change in changes], "package")


def _change(change: Change, at: datetime) -> Link:
    old, new = printable(change.old or ""), printable(change.new or "")
    if not old:
        what = f"{new} newly installed"
    elif not new:
        what = f"{old} removed"
    else:
        what = f"{old} installed again" if old == new else f"{old} → {new}"
    detail = {"package": printable(change.package), "arch": printable(change.arch)}
    versions = {"old": _version(change.old), "new": _version(change.new)}
    return Link("package", f"{detail['package']} {what}", at, {**detail, **versions})


def _from_files(files: Iterable[StaleFile]) -> list[Link]:
    """Return the packages where no transaction is known to have changed them."""
    pairs = dict.fromkeys((file.package, file.running, file.installed) for file in files if file.package)
    return _few([_pair(*pair) for pair in pairs], "package")


def _pair(package: str, running: str | None, installed: str | None) -> Link:
    name, old, new = printable(package), _version(running), _version(installed)
    text = f"{name}: {f'{new} installed' if new else 'removed'}, {old or UNRECORDED} running"
    return Link("package", text, None, {"package": name, "old": old, "new": new})


def _version(version: str | None) -> str | None:
    return None if version is None else printable(version)


def _file(file: StaleFile) -> Link:
    detail = {
        "path": printable(file.path),
        "package": printable(file.package),
        "running": _version(file.running),
        "installed": _version(file.installed),
    }
    text = f"{detail['path']} replaced; in memory: {detail['running'] or UNRECORDED}"
    return Link("file", text, None, detail)


def _process(process: StaleProcess) -> Link:
    exe, comm = printable(process.exe), printable(process.comm)
    detail = {"pid": process.pid, "start": stamp(process.start), "exe": exe, "comm": comm, "uid": process.uid}
    return Link("process", f"{comm}[{process.pid}] {exe}, started then", process.start, detail)


def _unit(evidence: StaleUnit) -> Link:
    name, cves = printable(evidence.unit), [printable(cve) for cve in evidence.cves]
    exposed = f"; fixes installed, not in effect: {', '.join(cves)}" if cves else ""
    return Link("unit", f"{name}{exposed}", None, {"unit": name, "cves": cves})


def _attempted(recorded: Recorded) -> Link:
    detail = {"disposition": Disposition.RESTART.value, "reason": "", "attempt": recorded.attempt.id}
    came = recorded.attempt.outcome
    spared = came is not None and came.result in UNTOUCHED
    text = "looked at by aftercare before its restart" if spared else "restarted by aftercare"
    return Link("action", text, recorded.attempt.begun, detail)


def _action(evidence: StaleUnit, view: View) -> Link:
    reason = printable(evidence.reason)
    text = ACTIONS[evidence.disposition] + (f": {reason}" if reason else "")
    if evidence.disposition is Disposition.RESTART and (waits := _hindrance(evidence, view)):
        text = f"would be restarted ({reason or 'runs replaced code'}), but {waits}"
    return Link("action", text, None, {"disposition": evidence.disposition.value, "reason": reason})


def _hindrance(evidence: StaleUnit, view: View) -> str:
    """Return what keeps it from being restarted by itself, and the way round that; empty where nothing does."""
    by_hand = f"agentctl restart {shlex.quote(printable(evidence.unit))}"
    if view.mode != "auto":
        return f"the mode is {view.mode}: {by_hand}"
    if view.braked:
        return f"restarts are held, {printable(view.held)}: agentctl restart --resume"
    return printable(view.held)


def _result(recorded: Recorded | None, known: Outcome | None) -> list[Link]:
    """Return what came of the restart; nothing where there was none."""
    came = recorded.attempt.outcome if recorded and recorded.attempt.outcome else known
    if came is None:
        unknown = "not known: aftercare was stopped before it was over"
        return [Link("result", unknown, None, {})] if recorded else []
    seconds = sum(taken for _, taken in came.took)
    parts = [RESULTS[came.result], f"after {seconds:.1f} s" if came.took else "", printable(came.hint)]
    at = recorded.attempt.begun + timedelta(seconds=seconds) if recorded else None
    return [Link("result", "; ".join(part for part in parts if part), at, outcome(came))]


def _few(links: list[Link], step: str) -> list[Link]:
    """Return the first of many links, and one that counts the rest."""
    if len(links) <= SHOWN + 1:
        return links
    rest = len(links) - SHOWN
    return [*links[:SHOWN], Link(step, f"and {rest} more", None, {"more": rest})]
