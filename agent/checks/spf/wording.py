"""What the check `spf` says: a finding for each domain that needs something, and a row for each that was looked at.

Pure. All text of records, servers and names is foreign and made printable here. What is merely worth knowing (a macro,
a HELO name without a record, an old answer that expires) is in the rows and is no finding; nor is the unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.checks.spf.lookups import Looked
from agent.checks.spf.remembered import Row
from agent.model.contract import stamp
from agent.model.findings import Finding, Severity
from agent.model.text import printable
from agent.spf.causes import ORDER
from agent.spf.drift import Cell, Judgement, Source, Views
from agent.spf.lint import CRITICAL, ERROR, LONGEST_STRING, WARNING, Remark

CHECK = "spf"
SOURCES = "sources"
"""The subject of what is wrong with the addresses themselves; no domain is called so, for it has no dot."""
GRAVE = (CRITICAL, ERROR, WARNING)
NOT_BY_RECORD = (
    "servers-differ",
    "answer-too-large",
    "split-horizon",
    "dns-failed",
    "helo-literal",
    "helo-unqualified",
    "type-spf",
    "no-domain",
)
"""What no other text would mend."""
SHOWN = 4096
MOST_REMARKS = 20


MOST_LEFT = 5


@dataclass(frozen=True, slots=True)
class Proposal:
    """A replacement for a record, judged by all that it must answer. Empty: there is none. lost: terms left out."""

    text: str = ""
    changes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """One name, looked at and judged. row: what is remembered of it, after this look. identities: a judgement each."""

    looked: Looked
    row: Row
    views: Views
    identities: tuple[Judgement, ...]
    proposal: Proposal = Proposal()

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """All that there is to say, worst first, once where both identities have it."""
        found = {(item.code, item.start, item.message): item for one in self.identities[::-1] for item in one.remarks}
        return tuple(sorted(found.values(), key=lambda remark: ORDER.index(remark.severity)))

    @property
    def rank(self) -> int:
        """Where it comes: the worst first."""
        return min((ORDER.index(remark.severity) for remark in self.remarks), default=len(ORDER))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of all identities."""
        return tuple(cell for one in self.identities for cell in one.cells)


def finding_of(judged: Judged, sources: Sequence[Source]) -> Finding | None:
    """Return what is wrong with a name, None where nothing is.

    While DNS fails, what was wrong before stands: that nobody can look does not mend it.
    """
    before = recalled(judged.looked.name, judged.row.told, sources) if judged.looked.temperror else None
    if before:
        return before
    worst = next((remark for remark in judged.remarks if remark.severity in GRAVE), None)
    if worst is None:
        return None
    advice = publish(judged) if worst.code not in NOT_BY_RECORD else ""
    evidence = row_of(judged) | {"sources": list(map(source_row, sources))}
    severity = Severity(worst.severity)
    return Finding(
        CHECK,
        printable(judged.looked.name),
        severity,
        printable(_headline(worst, judged.looked)),
        advice or printable(worst.advice),
        evidence,
    )


def _headline(worst: Remark, looked: Looked) -> str:
    """The consequence comes first, and whose word it is last."""
    fails = worst.code == "link-local" and worst.severity in (CRITICAL, ERROR)
    message = f"mail over IPv6 does not pass: {worst.message}" if fails else worst.message
    return f"{message} (by this host's resolver alone)" if looked.detour else message


def told_of(finding: Finding | None) -> dict[str, Any] | None:
    """Return a finding as it is remembered."""
    if finding is None:
        return None
    parts = {"severity": finding.severity.value, "summary": finding.summary, "advice": finding.advice}
    return parts | {"evidence": finding.evidence}


def recalled(name: str, told: Mapping[str, Any] | None, sources: Sequence[Source] = ()) -> Finding | None:
    """Return a finding that was remembered, said as of then; None where it is about an address that is gone.

    Its evidence is of then too, and says so by its `checked_at`.
    """
    if not told or _is_over(told, sources):
        return None
    at = told["evidence"]["checked_at"][:16].replace("T", " ")
    summary = f"when last looked at ({at} UTC): {told['summary']}"
    return Finding(CHECK, printable(name), Severity(told["severity"]), summary, told["advice"], told["evidence"])


def _is_over(told: Mapping[str, Any], sources: Sequence[Source]) -> bool:
    """A host that has no address of a family, for its network is down, has not lost those of then."""
    seen = {str(address) for source in sources for address in source.seen}
    families = {source.family for source in sources if source.seen}
    then = {address for row in told["evidence"]["sources"] if row["family"] in families for address in row["seen"]}
    return any(f"`{address}`" in told["summary"] for address in then - seen)


def remembered_row(name: str, row: Row) -> dict[str, Any]:
    """Return the last good verdicts of a name as JSON, by identity, and of when they are."""
    return {"domain": printable(name), "verdicts": dict(row.good), "checked_at": stamp(row.at)}


def publish(judged: Judged) -> str:
    """Return the line to publish; empty where there is none to propose."""
    text, lost = judged.proposal.text, judged.proposal.lost
    line = f"publish this TXT record for {printable(judged.looked.name)}: {quoted(text)}" if text else ""
    if line and lost:
        left = ", ".join(f"`{printable(term)}`" for term in lost[:MOST_LEFT])
        return f"add by hand what {left} was meant to name, for it is left out here; then {line}"
    return line


def quoted(text: str) -> str:
    """Return a record as a zone file has it: strings of at most 255 bytes, cut where a blank is kept."""
    pieces, rest = [], printable(text)
    while len(rest) > LONGEST_STRING:
        cut = rest.rfind(" ", 0, LONGEST_STRING) + 1 or LONGEST_STRING
        pieces.append(rest[:cut])
        rest = rest[cut:]
    return " ".join(f'"{piece}"' for piece in (*pieces, rest))


def on_sources(remarks: Sequence[Remark], sources: Sequence[Source]) -> Finding | None:
    """Return what is wrong with the addresses that mail leaves from, for this host as a whole."""
    grave = sorted((item for item in remarks if item.severity in GRAVE), key=lambda item: ORDER.index(item.severity))
    if not grave:
        return None
    rows = {"remarks": list(map(remark_row, grave)), "sources": list(map(source_row, sources))}
    worst = grave[0]
    return Finding(CHECK, SOURCES, Severity(worst.severity), printable(worst.message), printable(worst.advice), rows)


def row_of(judged: Judged) -> dict[str, Any]:
    """Return all that is known of a name, bounded: the row of the detail, and the evidence of a finding."""
    looked, views = judged.looked, judged.views
    return {
        "domain": printable(looked.name),
        "identities": [one.identity for one in judged.identities],
        "record": _cut(" | ".join(looked.spf)),
        "ttl": looked.ttl,
        "cells": [cell_row(cell) for cell in judged.cells],
        "remarks": [remark_row(remark) for remark in judged.remarks[:MOST_REMARKS]],
        "proposed": _cut(judged.proposal.text),
        "changes": [printable(change) for change in judged.proposal.changes],
        "servers": [
            {
                "server": printable(each.server),
                "address": each.address,
                "serial": each.serial,
                "answer": each.answer.outcome.value,
                "reason": printable(each.answer.reason),
                "differs": each in looked.differing,
            }
            for each in looked.servers
            if each.server
        ],
        "judged_by": "resolver" if looked.detour else "servers",
        "old_until": stamp(views.old_until),
        "checked_at": stamp(judged.row.at),
        "failed": printable(looked.temperror),
        "failures": judged.row.count,
    }


def cell_row(cell: Cell) -> dict[str, Any]:
    """Return a cell as JSON: one identity and family."""
    return {
        "identity": cell.identity,
        "family": cell.family,
        "verdict": cell.verdict,
        "reason": printable(cell.reason),
        "severity": cell.severity,
    }


def remark_row(remark: Remark) -> dict[str, Any]:
    """Return a remark as JSON; `start` and `end` are places in the record, both 0 for the whole of it."""
    return {
        "code": remark.code,
        "severity": remark.severity,
        "message": printable(remark.message),
        "advice": printable(remark.advice),
        "start": remark.start,
        "end": remark.end,
    }


def source_row(source: Source) -> dict[str, Any]:
    """Return a source as JSON; `address` is null where no mail leaves over that family."""
    return {
        "family": source.family,
        "address": str(source.address) if source.address else None,
        "interface": printable(source.interface),
        "seen": [str(address) for address in source.seen],
        "temporary": source.temporary,
        "dynamic": source.dynamic,
        "pinned": source.pinned,
        "rivals": source.rivals,
        "problem": printable(source.problem),
    }


def _cut(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
