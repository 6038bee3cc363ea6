"""What DNS says of the names that a host sends as: the published record, whom it lets pass, who still serves another.

Judged is what a zone's own servers say, the newest of them where they differ. Asks, never decides what is wrong.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agent.spf.addresses import Reach, flatten
from agent.spf.answers import ServerAnswer
from agent.spf.drift import HELO, Verdict, verdict_of
from agent.spf.evaluate import Answer, Evaluation, Outcome, Query, Resolver, check_host
from agent.spf.mend import Question
from agent.spf.ranges import Address
from agent.spf.record import Record, Result, is_record, parse
from agent.spf.resolver import SECONDS, Authoritative, Recursive
from agent.spf.servers import parse_server
from agent.spf.session import Budget

NOT_ASKED: Answer[str] = Answer(Outcome.FAILED)
NOWHERE = Reach()
COMPARED = 200
"""With more names than these, not every server of each zone is asked, but one."""


class View(Protocol):
    """A view of DNS, as `resolver.Recursive` is one."""

    def within(self, seconds: float = SECONDS) -> Resolver:
        """Return a resolver for one evaluation."""
        ...

    async def ask(self, kind: str, name: str, budget: Budget) -> Answer[Any]:
        """Return one answer."""
        ...


class Zones(View, Protocol):
    """The view of the zones' own servers, as `resolver.Authoritative` is one."""

    async def ask_each(self, name: str, seconds: float = SECONDS) -> tuple[ServerAnswer, ...]:
        """Return what each server has as TXT of a name."""
        ...


@dataclass(frozen=True, slots=True)
class Dns:
    """Both views: what is published, and what this host's own resolver has."""

    zones: Zones
    seen: View


@dataclass(frozen=True, slots=True)
class Looked:
    """What DNS says of one name. failed: why its TXT cannot be had; the rest is empty then.

    texts: all TXT records. ttl: of them; smallest: of all that was asked; both in seconds. servers: what each server
    of the zone says, where all were asked; differing: those that have another SPF record than `texts`. seen: what
    this host's own resolver still has. strings: those that the record was joined from. verdicts: by identity. detour:
    it is judged by that resolver alone. absent: DNS has no such name. addresses: those of a HELO name without a record;
    None where they are not known.
    """

    name: str
    failed: str = ""
    texts: tuple[str, ...] = ()
    ttl: int = 0
    smallest: int | None = None
    servers: tuple[ServerAnswer, ...] = ()
    differing: tuple[ServerAnswer, ...] = ()
    seen: Answer[str] = NOT_ASKED
    record: Record | None = None
    strings: tuple[bytes, ...] = ()
    reach: Reach = NOWHERE
    verdicts: Mapping[str, tuple[Verdict, ...]] = field(default_factory=dict)
    of_type_spf: bool = False
    detour: bool = False
    absent: bool = False
    addresses: tuple[Address, ...] | None = None

    @property
    def spf(self) -> tuple[str, ...]:
        """The SPF records among the texts."""
        return spf_of(self.texts)

    @property
    def temperror(self) -> str:
        """Why nothing could be judged, for now; empty where something could, or where nothing was to be."""
        found = [verdict for several in self.verdicts.values() for verdict in several]
        broken = [verdict for verdict in found if verdict.result is Result.TEMPERROR]
        return self.failed or (broken[0].message if found and len(broken) == len(found) else "")

    @property
    def is_partial(self) -> bool:
        """Whether some address could not be judged, for now."""
        return any(verdict.result is Result.TEMPERROR for several in self.verdicts.values() for verdict in several)


def views(nameservers: Sequence[str], resolv_conf: str) -> Dns:
    """Return the two views that this machine has of DNS. Raises ValueError where there is no name server to ask."""
    seen = Recursive([parse_server(text) for text in nameservers], resolv_conf)
    return Dns(Authoritative(seen), seen)


def spf_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return those of the texts that are SPF records, in an order of their own."""
    return tuple(sorted(filter(is_record, texts)))


async def look_at(
    name: str, identities: Iterable[str], addresses: Sequence[Address], dns: Dns, compare: bool = True
) -> Looked:
    """Return what DNS says of a name. compare: whether each of its servers is asked, and not the first that answers."""
    answers, seen = await asyncio.gather(_ask(name, dns, compare), dns.seen.within().txt(name))
    best = newest(answers)
    if best is None:
        reasons = dict.fromkeys(f"{each.server} {each.answer.reason}".strip() for each in answers)
        return Looked(name, failed="; ".join(reasons)[:300] or "no answer", servers=answers, seen=seen)
    looked = await _look_on(name, best.answer, identities, addresses, dns.zones)
    differing = tuple(each for each in answers if _knows(each) and spf_of(each.answer.data) != looked.spf)
    return replace(looked, servers=answers, differing=differing, seen=seen)


async def look_around(looked: Looked, identities: Iterable[str], addresses: Sequence[Address], dns: Dns) -> Looked:
    """Return what this host's own resolver says of a name whose servers it alone can reach."""
    found = await _look_on(looked.name, looked.seen, identities, addresses, dns.seen)
    return replace(found, servers=looked.servers, seen=looked.seen, detour=True)


async def _look_on(
    name: str, answer: Answer[str], identities: Iterable[str], addresses: Sequence[Address], view: View
) -> Looked:
    """Judge all addresses by the texts that were found, and follow all that their terms lead to."""
    records = spf_of(answer.data)
    record = parse(records[0]) if len(records) == 1 else None
    wanted = [(identity, address) for identity in identities for address in addresses]
    found, reach, of_type_spf = await asyncio.gather(
        asyncio.gather(*(judge(name, identity, address, record, view) for identity, address in wanted)),
        flatten(name, record, view.within()) if record and not record.faults else _nothing(),
        _has_type_spf(name, view) if not records else _no(),
    )
    verdicts: dict[str, tuple[Verdict, ...]] = {}
    for (identity, address), evaluation in zip(wanted, found, strict=True):
        verdicts[identity] = (*verdicts.get(identity, ()), verdict_of(address, evaluation))
    ttls = [answer.ttl, reach.ttl, *(evaluation.ttl for evaluation in found)]
    return Looked(
        name=name,
        texts=answer.data,
        ttl=answer.ttl or 0,
        smallest=min((ttl for ttl in ttls if ttl is not None), default=None),
        record=record,
        strings=answer.strings[answer.data.index(records[0])] if record and answer.strings else (),
        reach=reach,
        verdicts=verdicts,
        of_type_spf=of_type_spf,
        absent=answer.outcome is Outcome.NXDOMAIN,
        addresses=await _addresses(name, view) if HELO in identities and not records else None,
    )


async def _addresses(name: str, view: View) -> tuple[Address, ...] | None:
    resolver = view.within()
    four, six = await asyncio.gather(resolver.a(name), resolver.aaaa(name))
    if Outcome.FAILED in (four.outcome, six.outcome):
        return None
    return (*four.data, *six.data)


async def _ask(name: str, dns: Dns, compare: bool) -> tuple[ServerAnswer, ...]:
    if compare:
        return await dns.zones.ask_each(name)
    return (ServerAnswer("", "", await dns.zones.within().txt(name)),)


async def _nothing() -> Reach:
    return NOWHERE


async def _no() -> bool:
    return False


async def _has_type_spf(name: str, view: View) -> bool:
    return bool((await view.ask("SPF", name, Budget(SECONDS))).data)


def _knows(each: ServerAnswer) -> bool:
    return each.answer.outcome is not Outcome.FAILED


def newest(answers: Iterable[ServerAnswer]) -> ServerAnswer | None:
    """Return the answer of a server that has the newest zone; of equally new ones, what most of them say. Pure."""
    known = [each for each in answers if _knows(each)]
    said = Counter(spf_of(each.answer.data) for each in known)
    ranked = sorted(known, key=lambda each: (each.serial or 0, said[spf_of(each.answer.data)]))
    return ranked[-1] if ranked else None


async def judge(name: str, identity: str, address: Address, record: Record | None, view: View) -> Evaluation:
    """Return what a receiver makes of one address and identity. record: the one to judge; None: what DNS has."""
    mail_from = "" if identity == HELO else f"postmaster@{name}"
    query = Query(address, mail_from, name, record=record.text if record else None)
    return await check_host(query, view.within())


async def prove(name: str, identity: str, text: str, questions: Iterable[Question], view: View) -> bool:
    """Return whether a record that is not published yet answers all questions as it must."""
    record = parse(text)
    asked = [(item, judge(name, identity, item.address, record, view)) for item in questions]
    results = await asyncio.gather(*(coroutine for _, coroutine in asked))
    wrong = (Result.TEMPERROR, Result.PERMERROR)
    return not record.faults and all(
        (one.result is Result.PASS) == item.passes and one.result not in wrong
        for (item, _), one in zip(asked, results, strict=True)
    )
