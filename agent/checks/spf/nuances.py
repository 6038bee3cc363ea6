"""What the check knows and the engine does not, said in the engine's judgements. Pure.

Whether the domain exists, whether it is ours, whether this host's resolver has an answer, and what nobody can see.
"""

from collections.abc import Iterable
from dataclasses import replace

from agent.checks.spf.lookups import Looked
from agent.checks.spf.remembered import Row
from agent.checks.spf.senders import Sender
from agent.spf.drift import Cell, Judgement, Sending
from agent.spf.evaluate import Outcome
from agent.spf.lint import CRITICAL, WARNING, Remark
from agent.spf.record import Mechanism, Result

NEVER_BEFORE = "; it never was judged before"
"""Who looks for the first time cannot know: others, or the daemon, may have looked."""
WALLED = (
    "this host's own resolver has an answer, so receivers may well have one: see whether a firewall stops port 53, or "
    "whether the zone's name servers and this host share no IP version"
)
UNREGISTERED = "send as a domain that exists, or register it, with an MX or address record beside its SPF record"


def nuanced(judgement: Judgement, looked: Looked, row: Row, sender: Sender, sending: Sending) -> Judgement:
    """Return a judgement with what only the check knows. row: after this look."""
    remarks: Iterable[Remark] = _sure(judgement.remarks, looked, sending)
    cells: Iterable[Cell] = judgement.cells
    if sender.stranger:
        remarks = map(_would, remarks)
    if looked.temperror:
        remarks = [_failing(remark, looked, row) for remark in remarks]
        cells = [replace(cell, reason=_first(cell.reason, row)) for cell in cells]
    if looked.absent:
        severity = CRITICAL if looked.name in sender.used else WARNING
        remarks = [_absent(remark, looked.name, severity) for remark in remarks]
        if any(remark.code == "no-domain" for remark in remarks):
            cells = [_nowhere(cell, severity) for cell in cells]
    return replace(judgement, cells=tuple(cells), remarks=tuple(remarks))


def _sure(remarks: Iterable[Remark], looked: Looked, sending: Sending) -> list[Remark]:
    """Leave out that an address of the record is not ours where nobody knows what the world sees of us."""
    used = [source for source in sending.sources if source.address]
    blind = {source.family for source in used if not source.seen} if used else {4, 6}
    terms = [term for term in looked.record.terms if isinstance(term, Mechanism)] if looked.record else []
    families = {term.start: term.network.version for term in terms if term.network}
    return [item for item in remarks if item.code != "not-ours" or families.get(item.start, 0) not in blind]


def _would(remark: Remark) -> Remark:
    """Of a domain that is not ours nothing is sent."""
    return replace(remark, message=remark.message.replace("` sends for `", "` would send for `", 1))


def _failing(remark: Remark, looked: Looked, row: Row) -> Remark:
    if remark.code != "dns-failed":
        return remark
    answered = looked.seen.outcome is not Outcome.FAILED and not looked.detour
    return replace(remark, message=_first(remark.message, row), advice=WALLED if answered else remark.advice)


def _first(words: str, row: Row) -> str:
    return words.removesuffix(NEVER_BEFORE) if row.count <= 1 else words


def _absent(remark: Remark, name: str, severity: str) -> Remark:
    if remark.code != "no-record":
        return remark
    message = f"`{name}` does not exist in DNS: receivers refuse mail from it"
    return replace(remark, code="no-domain", severity=severity, message=message, advice=UNREGISTERED)


def _nowhere(cell: Cell, severity: str) -> Cell:
    if cell.verdict != Result.NONE:
        return cell
    return replace(cell, reason="the domain does not exist in DNS", severity=severity)
