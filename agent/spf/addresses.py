"""The addresses that a record authorises, includes and all. Pure: it asks through a `Resolver`.

Nobody's mail is judged here: what a record says of one sender is for `check_host`. What depends on the mail (macros,
`exists`, `ptr`) is named and not guessed at. Look-ups are counted as for a sender that no term matches.
"""

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TypeVar

from agent.spf.answers import Answer, Outcome, Resolver
from agent.spf.mechanisms import MOST_EXCHANGERS, fault_of_name
from agent.spf.ranges import Network, without
from agent.spf.reach import Cost, Entry, Hop, Opaque, Path, Reach, Trouble
from agent.spf.record import Mechanism, Modifier, Record, is_record, parse, text_of

__all__ = ["Cost", "Entry", "Hop", "Opaque", "Path", "Reach", "Trouble", "flatten"]

T = TypeVar("T")

EVERYBODY: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))

MOST_RECORDS = 50
MOST_LEVELS = 10
MOST_TERMS = 100
"""Terms that are looked up: ten times of what any receiver does."""
MOST_ENTRIES = 5000
MOST_DENIED = 32
"""What is subtracted from one include."""
TOO_MANY = "there are too many addresses to list"
TOO_FAR = "it leads through more terms than any receiver follows"


async def flatten(domain: str, record: Record, resolver: Resolver) -> Reach:
    """Return what the record of `domain` authorises. Never raises for what DNS says: that is in the `troubles`."""
    walk = _Walk(resolver)
    entries = await _walk_record(walk, domain, record, ())
    return Reach(tuple(entries), tuple(walk.opaque), tuple(walk.troubles), tuple(walk.costs), walk.ttl)


@dataclass(slots=True)
class _Walk:
    """What was met so far."""

    resolver: Resolver
    opaque: list[Opaque] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    ttl: int | None = None
    entries: int = 0
    records: int = 0
    lookups: int = 0
    voids4: int = 0
    voids6: int = 0

    async def ask(self, question: Awaitable[Answer[T]], path: Path, name: str) -> Answer[T]:
        """Return an answer, its TTL noted, and noted as trouble if it failed."""
        answer = await question
        if answer.ttl is not None and (self.ttl is None or answer.ttl < self.ttl):
            self.ttl = answer.ttl
        if answer.outcome is Outcome.FAILED:
            self.trouble("temperror", path, f"{name}: {answer.reason or 'no answer'}")
        return answer

    def enter(self, networks: Iterable[Network], qualifier: str, path: Path) -> list[Entry]:
        """Return networks as entries; too many are not listed."""
        found = [Entry(network, qualifier, path) for network in networks]
        self.entries += len(found)
        return found if self.entries <= MOST_ENTRIES else self.overflow(path)

    def overflow(self, path: Path) -> list[Entry]:
        """List no more addresses, and say so once for each term of the record itself."""
        self.entries = MOST_ENTRIES + 1
        if not self.opaque or self.opaque[-1].path[0] != path[0]:
            self.opaque.append(Opaque(path, TOO_MANY))
        return []

    def give_up(self, path: Path) -> list[Entry]:
        """Look no more terms up."""
        if not any(item.message == TOO_FAR for item in self.troubles):
            self.trouble("permerror", path, TOO_FAR)
        return []

    def trouble(self, kind: str, path: Path, message: str) -> None:
        self.troubles.append(Trouble(kind, path, message))


async def _walk_record(walk: _Walk, domain: str, record: Record, path: Path) -> list[Entry]:
    """Return the entries of one record, with its own qualifiers, up to its `all`, its redirect's after them."""
    entries: list[Entry] = []
    redirect: Modifier | None = None
    for term in record.terms:
        if isinstance(term, Modifier):
            redirect = term if term.name == "redirect" else redirect
            continue
        entries += await _walk_term(walk, domain, record, term, path)
        if term.name == "all":
            return entries
    if redirect:
        entries += await _walk_term(walk, domain, record, redirect, path)
    return entries


async def _walk_term(walk: _Walk, domain: str, record: Record, term: Mechanism | Modifier, path: Path) -> list[Entry]:
    here = (*path, Hop(domain, term.start, term.end, text_of(record, term)))
    if isinstance(term, Mechanism) and term.name == "all":
        return [Entry(network, term.qualifier, here) for network in EVERYBODY]
    if isinstance(term, Mechanism) and term.network:
        return walk.enter([term.network], term.qualifier, here)
    if walk.lookups == MOST_TERMS:
        return walk.give_up(here)
    before = (walk.lookups, walk.voids4, walk.voids6)
    walk.lookups += 1
    entries = await _walk_names(walk, domain, term, here)
    if not path:
        after = (walk.lookups, walk.voids4, walk.voids6)
        walk.costs.append(Cost(here[0], *(new - old for new, old in zip(after, before, strict=True))))
    return entries


async def _walk_names(walk: _Walk, domain: str, term: Mechanism | Modifier, path: Path) -> list[Entry]:
    """What needs DNS: all but literals and `all`."""
    name = (term.value if isinstance(term, Modifier) else term.domain or domain).removesuffix(".")
    if "%" in name or term.name == "ptr":
        walk.opaque.append(Opaque(path, "it depends on the client" if term.name == "ptr" else "it depends on the mail"))
        return []
    if isinstance(term, Modifier):
        return await _walk_other(walk, name, path)
    if term.name == "include":
        return _included(walk, await _walk_other(walk, name, path), term.qualifier, path)
    if fault_of_name(name):
        return []
    hosts = await _exchangers(walk, name, path) if term.name == "mx" else [name]
    return await _walk_hosts(walk, hosts, term, path)


async def _walk_other(walk: _Walk, name: str, path: Path) -> list[Entry]:
    """Go through the record of another domain."""
    walk.records += 1
    if any(hop.domain.lower() == name.lower() for hop in path):
        walk.trouble("permerror", path, f"{name} leads back to itself")
    elif walk.records > MOST_RECORDS or len(path) > MOST_LEVELS:
        walk.give_up(path)
    elif fault := fault_of_name(name):
        walk.trouble("dead", path, f"{name} is no domain: {fault}")
    else:
        answer = await walk.ask(walk.resolver.txt(name), path, name)
        records = [text for text in answer.data if is_record(text)]
        if len(records) == 1:
            return await _walk_sound(walk, name, parse(records[0], hints=False), path)
        if records:
            walk.trouble("permerror", path, f"{name} has {len(records)} SPF records")
        elif answer.outcome is not Outcome.FAILED:
            absent = answer.outcome is Outcome.NXDOMAIN
            missing = "does not exist" if absent else "has no SPF record"
            walk.trouble("absent" if absent else "dead", path, f"{name} {missing}")
    return []


async def _walk_sound(walk: _Walk, name: str, record: Record, path: Path) -> list[Entry]:
    if record.faults:
        walk.trouble("permerror", path, f"the record of {name} is broken: {record.faults[0].message}")
        return []
    return await _walk_record(walk, name, record, path)


async def _exchangers(walk: _Walk, name: str, path: Path) -> list[str]:
    answer = await walk.ask(walk.resolver.mx(name), path, name)
    walk.voids4 += answer.is_void
    walk.voids6 += answer.is_void
    if len(answer.data) > MOST_EXCHANGERS:
        walk.trouble("permerror", path, f"{name} has {len(answer.data)} MX records: more than {MOST_EXCHANGERS}")
    return [host for _, host in sorted(answer.data)[:MOST_EXCHANGERS] if not fault_of_name(host)]


async def _walk_hosts(walk: _Walk, hosts: Sequence[str], term: Mechanism, path: Path) -> list[Entry]:
    """The addresses of `a`, `mx` and a fixed `exists`; a term that finds nothing is void once."""
    networks: list[Network] = []
    void4 = void6 = False
    for host in hosts:
        answer4 = await walk.ask(walk.resolver.a(host), path, host)
        void4 = void4 or answer4.is_void
        if term.name == "exists":
            networks += EVERYBODY if answer4.data else ()
            void6 = void4
            continue
        answer6 = await walk.ask(walk.resolver.aaaa(host), path, host)
        void6 = void6 or answer6.is_void
        networks += (ip_network((address, term.cidr4), strict=False) for address in answer4.data)
        networks += (ip_network((address, term.cidr6), strict=False) for address in answer6.data)
    walk.voids4 += void4
    walk.voids6 += void6
    return walk.enter(dict.fromkeys(networks), term.qualifier, path)


def _included(walk: _Walk, entries: Iterable[Entry], qualifier: str, path: Path) -> list[Entry]:
    """Return what an include matches: what passes there, less what another of its terms had denied before."""
    if walk.entries > MOST_ENTRIES:
        return walk.overflow(path)
    denied: list[Network] = []
    found: list[Entry] = []
    for entry in entries:
        if entry.qualifier != "+":
            denied.append(entry.network)
            continue
        rest = [entry.network]
        for other in denied[:MOST_DENIED]:
            rest = [part for network in rest for part in without(network, other)]
        found += (Entry(network, qualifier, entry.path) for network in rest)
        walk.entries += len(rest)
        if len(denied) > MOST_DENIED or walk.entries > MOST_ENTRIES:
            return walk.overflow(path)
    return found
