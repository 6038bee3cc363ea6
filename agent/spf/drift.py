"""Whether what is published and what sends still belong together, for one domain and this host. Pure.

Facts in, cells and remarks out. A DNS that fails and an address that nobody has seen from outside are unknown, never
an alarm; only a failure that lasts is a warning. `repair` hands the same facts to `mend`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network

from agent.spf.causes import leads_elsewhere, remarks_on
from agent.spf.evaluate import Evaluation
from agent.spf.lint import CRITICAL, ERROR, INFO, UNKNOWN, WARNING, Remark, is_meant
from agent.spf.mend import Known, Mended, Question, Senders, mend, questions
from agent.spf.publication import last_known
from agent.spf.ranges import Address
from agent.spf.record import Result, is_record
from agent.spf.situation import HELO, MAIL_FROM, Cell, Failures, Held, Published, Sending, Source, Verdict, Views
from agent.spf.terms import bare

__all__ = [
    "HELO",
    "MAIL_FROM",
    "Cell",
    "Failures",
    "Held",
    "Judgement",
    "Published",
    "Sending",
    "Source",
    "Verdict",
    "Views",
    "judge",
    "judge_sources",
    "repair",
    "senders",
    "verdict_of",
]

SEVERITIES = {
    MAIL_FROM: {
        Result.PERMERROR: CRITICAL,
        Result.FAIL: CRITICAL,
        Result.SOFTFAIL: ERROR,
        Result.NEUTRAL: WARNING,
        Result.NONE: WARNING,
    },
    HELO: {
        Result.PERMERROR: ERROR,
        Result.FAIL: ERROR,
        Result.SOFTFAIL: WARNING,
        Result.NEUTRAL: INFO,
        Result.NONE: INFO,
    },
}
"""Worst first. A result that is not here is no fault of the record's."""
DEAD = ("dead", "absent")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came out for one domain and identity: a cell for each family, and what to say, worst first."""

    domain: str
    identity: str
    cells: tuple[Cell, ...]
    remarks: tuple[Remark, ...]


def judge(published: Published, sending: Sending, now: datetime) -> Judgement:
    """Return the drift of one domain and identity; what is wrong with the sources themselves: `judge_sources`."""
    cells = tuple(_cell(published, source, sending, now) for source in sending.sources)
    return Judgement(published.domain, published.identity, cells, remarks_on(published, sending, cells, now))


def verdict_of(address: Address, evaluation: Evaluation) -> Verdict:
    """Return an evaluation as a fact: with the decisive term of the domain's own record, whatever it led to."""
    steps = [step for step in evaluation.trace if step.depth == 1]
    decisive = [step.text for step in steps if step.verdict == "match" or step.text.lower().startswith("redirect=")]
    message = evaluation.problem.message if evaluation.problem else ""
    return Verdict(address, evaluation.result, decisive[-1] if decisive else "", message)


def repair(published: Published, sending: Sending) -> tuple[Mended, tuple[Question, ...]]:
    """Return the replacement for what is published, and what it has to be asked before it is shown to anybody.

    Its text is empty where there is no record and nothing is known to send, and where DNS failed, for what cannot be
    seen is not to be replaced. Without changes it is what is published.
    """
    if published.failures:
        return Mended(""), ()
    known = senders(published, sending)
    texts = tuple(filter(is_record, published.texts)) or tuple(filter(is_meant, published.texts))[:1]
    mended = mend(texts, known)
    return mended, questions(mended.text, known)


def senders(published: Published, sending: Sending) -> Senders:
    """Return what the record has to be mended for. Through a smarthost nothing of this host is to be added."""
    former = tuple(network for network in map(ip_network, sending.former) if not sending.is_own(network))
    reach = published.reach
    broken = {trouble.path[0].start for trouble in reach.troubles if len(trouble.path) == 1 and trouble.kind in DEAD}
    known = [
        Known(
            term=bare(cost.hop.term),
            lookups=cost.lookups,
            networks=reach.networks_of(cost.hop.start),
            dead=cost.hop.start in broken,
            elsewhere=leads_elsewhere(reach, cost.hop, sending),
        )
        for cost in reach.costs
    ]
    sends = tuple(address for source in sending.sources for address in sending.publishable_of(source))
    passing = [(item.address, item.term) for item in published.verdicts if item.result is Result.PASS and item.term]
    return Senders(
        sends=() if sending.smarthost else sends,
        held=sending.stable,
        gone=() if sending.smarthost else former,
        passing=tuple(passing),
        known=tuple(known),
    )


def _cell(published: Published, source: Source, sending: Sending, now: datetime) -> Cell:
    def cell(verdict: str, reason: str, severity: str = "") -> Cell:
        return Cell(published.domain, published.identity, source.family, verdict, reason, severity)

    if source.address is None:
        return cell("not used", source.problem or f"no mail leaves over IPv{source.family}")
    if sending.smarthost:
        return cell("not required", f"{sending.smarthost} delivers the mail, from addresses of its own")
    if published.helo_fault:
        return cell(Result.NONE.value, published.helo_fault, WARNING)
    if published.failures:
        severity = WARNING if published.failures.is_lasting(now) else UNKNOWN
        return cell("unknown", last_known(published.failures, now), severity)
    if not source.seen:
        return cell("unknown", source.problem or "what receivers see is not known", UNKNOWN)
    verdicts = [item for item in published.verdicts if item.address in source.seen]
    severities = SEVERITIES[published.identity]
    for result in severities:
        if worst := next((item for item in verdicts if item.result is result), None):
            return cell(result.value, _reason(worst), severities[result])
    if {item.address for item in verdicts if item.result is Result.PASS} != set(source.seen):
        return cell("unknown", next((item.message for item in verdicts if item.message), "not judged"), UNKNOWN)
    return cell(Result.PASS.value, ", ".join(map(_reason, verdicts)))


def _reason(verdict: Verdict) -> str:
    if verdict.message:
        return f"{verdict.address}: {verdict.message}"
    return f"{verdict.address} by `{verdict.term}`" if verdict.term else f"{verdict.address} by no term"


def judge_sources(sending: Sending) -> tuple[Remark, ...]:
    """Return what is wrong with the addresses that mail leaves from, whatever the records say."""
    if sending.smarthost:
        return ()
    used = [source for source in sending.sources if source.address is not None]
    return tuple(remark for source in used for remark in _on_source(source, sending))


def _on_source(source: Source, sending: Sending) -> Iterator[Remark]:
    stable = sending.publishable_of(source)
    pin = f"REMOTE_SMTP_INTERFACE = <; {' ; '.join(map(str, _pinned(sending)))}"
    if source.temporary:
        message = f"mail leaves from the temporary address `{source.address}`, which is another one within a day"
        advice = f"set net.ipv6.conf.{source.interface}.use_tempaddr=0"
        advice += f", or pin the stable address: {pin}" if stable else ""
        yield Remark("temporary-source", CRITICAL, 0, 0, message, advice)
    elif not source.pinned and (source.dynamic or source.rivals > 1):
        why = f"is one of {source.rivals} that the kernel may take" if source.rivals > 1 else "is leased and may change"
        message = f"`{source.address}` on {source.interface}, which mail leaves from, {why}"
        yield Remark("unstable-source", WARNING, 0, 0, message, f"pin it: {pin}")
    if not source.seen:
        message = f"mail leaves from `{source.address}`, and what receivers see is not known: {source.problem}"
        advice = "set public_addresses, or allow the EHLO echo"
        yield Remark("unseen-source", UNKNOWN, 0, 0, message, advice)


def _pinned(sending: Sending) -> list[Address]:
    """Both families, for an `interface` that names one leaves the other to the kernel."""
    used = (source for source in sending.sources if source.address is not None)
    stable = {source: next(iter(sending.publishable_of(source)), None) for source in used}
    found = [address if source.temporary else source.address for source, address in stable.items()]
    return [address for address in found if address is not None]
