"""The check `spf`: may this host send its mail, by what DNS publishes of its names, from where it sends today?

Domains and the HELO name × both families, judged by the zones' own servers. It asks exim, the kernel and DNS, sends no
mail and changes nothing. A DNS that fails is unknown and never an alarm; what fails for long is a warning.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import ip_network
from itertools import islice
from typing import Any

from agent.checks.spf import lookups, remembered, senders, wording
from agent.checks.spf.lookups import COMPARED, Dns, Looked, View, look_around, look_at
from agent.checks.spf.nuances import nuanced
from agent.checks.spf.remembered import Memory, Row
from agent.checks.spf.senders import Listen, Sender, Trace, hear, read_sender, sending_of
from agent.checks.spf.wording import Judged, Proposal
from agent.host.mail.exim import Ask, ask_exim
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request
from agent.model.text import printable
from agent.spf.drift import HELO, MAIL_FROM, Published, Sending, judge, judge_sources, repair
from agent.spf.lint import UNKNOWN
from agent.spf.ranges import is_publishable

LIMIT = 27.0
"""Seconds for all of DNS: exim and the kernel have had theirs, and a worker is killed after 45."""
DETOUR = 6.0
"""Seconds for asking this host's resolver instead: what it does not know soon it does not know."""
AT_ONCE = 64
"""Names that are looked at side by side, so that some are done when time is over."""
SOONEST, LATEST = timedelta(seconds=60), timedelta(hours=6)
AFTER_FAILURE = timedelta(minutes=15)
JITTER = 0.1
MOST_ROWS = 300
MOST_NAMED = 5


def dns_of(host: Host, nameservers: Sequence[str]) -> Dns:
    """Return DNS as this machine, or the settings, have it. Raises AgentError."""
    try:
        return lookups.views(nameservers, host.under("/etc/resolv.conf"))
    except ValueError as problem:
        kind = Kind.CONFIG if nameservers else Kind.UNREADABLE
        raise AgentError(kind, printable(str(problem)), "set nameservers in [spf] of aftercare.toml") from problem


@dataclass(frozen=True, slots=True)
class Tools:
    """How the machine and the world are asked; tests ask recordings."""

    ask: Ask = ask_exim
    trace: Trace = senders.trace
    listen: Listen = senders.listen
    dns: Callable[[Host, Sequence[str]], Dns] = dns_of
    chance: Callable[[], float] = random.random
    limit: float = LIMIT


MACHINE = Tools()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to. late: names for which there was no time, and what is remembered of them."""

    sender: Sender
    sending: Sending
    judged: tuple[Judged, ...] = ()
    late: Mapping[str, Row] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True)
class Case:
    """What all names of one run are judged by. compare: whether each of a zone's servers is asked."""

    sender: Sender
    sending: Sending
    dns: Dns
    now: datetime
    compare: bool


def run(host: Host, request: Request, tools: Tools = MACHINE) -> CheckResult:
    """Return which domains this host may not send for, with the record that would let it.

    Where exim or the kernel cannot be asked (a resolver that is down stops exim too), what was wrong stays wrong, and
    it is tried again.
    """
    if host.root != "/" and tools is MACHINE:
        return CheckResult(
            request.check, (), {"sends": None, "silent": "mail is only asked about where it leaves from"}
        )
    try:
        return tell(examine(host, request, tools), request, tools)
    except AgentError as problem:
        rows = remembered.recall(request.kept).rows
        told = (wording.recalled(name, row.told) for name, row in rows.items())
        return CheckResult(
            check=request.check,
            findings=tuple(finding for finding in told if finding),
            detail={
                "sends": None,
                "silent": printable(problem.message),
                "last_known": [wording.remembered_row(name, row) for name, row in islice(rows.items(), MOST_ROWS)],
            },
            unseen=(printable(problem.message),),
            again_at=request.now + AFTER_FAILURE,
        )


def examine(host: Host, request: Request, tools: Tools = MACHINE, only: str = "") -> Outcome:
    """Look and judge. only: the one domain that is asked about, whether this host sends for it or not.

    Raises AgentError where exim or the kernel cannot be asked, or where there is no name server to ask.
    """
    sender = read_sender(host, request, only, tools.ask, tools.trace)
    if sender.silent and not only:
        return Outcome(sender, Sending(()), memory=remembered.recall(request.kept))
    dns = tools.dns(host, request.options.get("nameservers", ()))
    return asyncio.run(_examine(sender, request, dns, tools))


async def _examine(sender: Sender, request: Request, dns: Dns, tools: Tools) -> Outcome:
    end = asyncio.get_running_loop().time() + tools.limit
    public = request.options.get("public_addresses", ())
    sender = await hear(sender, request.options.get("echo", ""), dns.seen.within(), tools.listen)
    memory = remembered.recall(request.kept)
    sending = sending_of(sender, public, ())
    seen = [address for source in sending.sources if not source.temporary for address in source.seen]
    lasting = [str(address) for address in (*sending.stable, *seen) if is_publishable(ip_network(address))]
    memory = remembered.with_addresses(memory, lasting, request.now)
    sending = sending_of(sender, (*public, *memory.own), memory.former)
    names = _identities(sender)
    order = sorted(names, key=lambda name: _last(memory.rows.get(name, Row())))
    turn = asyncio.Semaphore(AT_ONCE)
    case = Case(sender, sending, dns, request.now, len(names) <= COMPARED)

    async def one(name: str) -> Judged:
        async with turn:
            return await _judge(name, names[name], memory.rows.get(name, Row()), case)

    tasks = {name: asyncio.create_task(one(name)) for name in order}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=max(end - asyncio.get_running_loop().time(), 0.1))
    late = {name: memory.rows.get(name, Row()) for name, task in tasks.items() if not task.done()}
    for name in late:
        tasks[name].cancel()
    await asyncio.gather(*(tasks[name] for name in late), return_exceptions=True)
    return Outcome(sender, sending, tuple(tasks[name].result() for name in names if name not in late), late, memory)


def _last(row: Row) -> float:
    return row.at.timestamp() if row.at else 0.0


def _identities(sender: Sender) -> dict[str, tuple[str, ...]]:
    """Return the names to judge, and as what. Only the smarthost hears what it is greeted with."""
    found: dict[str, tuple[str, ...]] = {name: (MAIL_FROM,) for name in sender.domains}
    if sender.helo and not sender.smarthost:
        found[sender.helo] = (*found.get(sender.helo, ()), HELO)
    return found


async def _judge(name: str, identities: Sequence[str], row: Row, case: Case) -> Judged:
    sending, dns, now = case.sending, case.dns, case.now
    addresses = () if sending.smarthost else sending.seen
    nameless = tuple(identities) == (HELO,) and Published(name, HELO).helo_fault
    looked = Looked(name) if nameless else await look_at(name, identities, addresses, dns, case.compare)
    if remembered.needs_detour(row, looked, now):
        with contextlib.suppress(TimeoutError):
            looked = await asyncio.wait_for(look_around(looked, identities, addresses, dns), DETOUR)
    row = remembered.after(row, looked, now)
    views = remembered.views_of(row, looked, now)
    published = [
        Published(
            domain=name,
            identity=identity,
            texts=looked.texts,
            strings=looked.strings,
            record=looked.record,
            reach=looked.reach,
            verdicts=looked.verdicts.get(identity, ()),
            ttl=looked.ttl,
            of_type_spf=looked.of_type_spf,
            views=views,
            failures=remembered.failures_of(row, looked, identity, now),
            addresses=looked.addresses,
        )
        for identity in identities
    ]
    judgements = tuple(nuanced(judge(item, sending, now), looked, row, case.sender, sending) for item in published)
    judged = Judged(looked, row, views, judgements)
    if looked.absent or not any(remark.severity in wording.GRAVE for remark in judged.remarks):
        return _remembered(judged, sending)
    view = dns.seen if looked.detour else dns.zones
    return _remembered(replace(judged, proposal=await _propose(published, sending, view)), sending)


def _remembered(judged: Judged, sending: Sending) -> Judged:
    """Keep what is told of a name, for as long as nobody can look again."""
    told = wording.told_of(wording.finding_of(judged, sending.sources))
    return judged if judged.looked.temperror else replace(judged, row=replace(judged.row, told=told))


async def _propose(published: Sequence[Published], sending: Sending, view: View) -> Proposal:
    """Return a record in the place of the published one, where it was tried and does what it must.

    What is published with a type that nobody reads is not known here, so nothing can take its place.
    Where a name still leads to an address that was ours no text can keep that out; one that lets us pass will do.
    """
    without = replace(sending, former=())
    tries = [(item, how) for how in dict.fromkeys((sending, without)) for item in published if not item.of_type_spf]
    for item, how in tries:
        mended, questions = repair(item, how)
        if mended.changes and await lookups.prove(item.domain, item.identity, mended.text, questions, view):
            return Proposal(mended.text, mended.changes, mended.lost)
    return Proposal()


def tell(outcome: Outcome, request: Request, tools: Tools = MACHINE) -> CheckResult:
    """Return what came out, as the result of the check."""
    sender, sending, judged = outcome.sender, outcome.sending, outcome.judged
    if sender.silent:
        return CheckResult(request.check, (), {"sends": False, "silent": printable(sender.silent)})
    remarks = judge_sources(sending)
    told = [
        wording.on_sources(remarks, sending.sources),
        *(wording.finding_of(item, sending.sources) for item in judged),
        *(wording.recalled(name, row.told, sending.sources) for name, row in outcome.late.items()),
    ]
    blind = [remark.message for remark in remarks if remark.severity == UNKNOWN]
    return CheckResult(
        check=request.check,
        findings=tuple(finding for finding in told if finding),
        detail=_detail(outcome),
        unseen=(*sender.unseen, *map(printable, blind), *_unseen(outcome)),
        again_at=_again(outcome, request.now, tools.chance()),
        keep=remembered.keep(
            replace(outcome.memory, rows={item.looked.name: item.row for item in judged} | dict(outcome.late))
        ),
    )


def _detail(outcome: Outcome) -> dict[str, Any]:
    """Every cell and record, the clean ones too, the worst first."""
    sender = outcome.sender
    ordered = sorted(outcome.judged, key=lambda item: (item.rank, item.looked.name))
    return {
        "sends": True,
        "kind": sender.kind,
        "helo": printable(sender.helo),
        "smarthost": printable(sender.smarthost),
        "sources": [wording.source_row(source) for source in outcome.sending.sources],
        "former": [str(address) for address in outcome.sending.former],
        "passed_over": list(map(printable, sender.passed_over)),
        "forwarded": list(map(printable, sender.forwarded)),
        "looked_up": list(map(printable, sender.looked_up)),
        "domains": [wording.row_of(item) for item in ordered[:MOST_ROWS]],
        "not_shown": max(len(ordered) - MOST_ROWS, 0),
    }


def _unseen(outcome: Outcome) -> Iterator[str]:
    failed = [item.looked for item in outcome.judged if item.looked.temperror]
    for looked in failed[:MOST_NAMED]:
        yield f"the record of {printable(looked.name)}: {printable(looked.temperror)}"
    if len(failed) > MOST_NAMED:
        yield f"{len(failed) - MOST_NAMED} more domains whose record could not be looked up"
    if outcome.late:
        yield f"{len(outcome.late)} domains for which there was no time; they come first in the next run"


def _again(outcome: Outcome, now: datetime, chance: float) -> datetime:
    """Return when the first answer has expired; sooner where DNS failed. Many hosts do not ask at the same moment."""
    waits = [LATEST, *(_wait(item, now) for item in outcome.judged)]
    wait = SOONEST if outcome.late else max(min(waits), SOONEST)
    return now + wait * (1 + JITTER * chance)


def _wait(judged: Judged, now: datetime) -> timedelta:
    looked = judged.looked
    waits = [LATEST if looked.smallest is None else timedelta(seconds=looked.smallest)]
    if looked.temperror:
        waits = [min(SOONEST * 2 ** min(judged.row.count - 1, 8), AFTER_FAILURE)]
    elif looked.is_partial:
        waits.append(AFTER_FAILURE)
    if judged.views.old_until:
        waits.append(judged.views.old_until - now)
    return min(waits)
