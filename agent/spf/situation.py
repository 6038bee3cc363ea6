"""What the drift between a record and a host is judged by: facts that others gather, as plain values. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network

from agent.spf.ranges import Address, Network, covers, is_publishable
from agent.spf.reach import Reach
from agent.spf.record import Record, Result

MAIL_FROM, HELO = "mailfrom", "helo"
PREFIX = 64
"""The network of IPv6 within which one interface has its temporary addresses."""
MANY = 3
A_WHILE = timedelta(minutes=15)
"""So many failures in a row, over longer than this, are more than a passing fault."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where mail of one family leaves from. address: None where none can, and `problem` says why.

    rivals: how many addresses of its prefix the kernel might take, it included. dynamic: its lifetime has an end.
    pinned: the mail server's configuration names it. seen: the addresses that a receiver may see; empty: not known,
    and `problem` says why.
    """

    family: int
    address: Address | None = None
    interface: str = ""
    temporary: bool = False
    dynamic: bool = False
    rivals: int = 1
    pinned: bool = False
    seen: tuple[Address, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """An address of an interface of this host."""

    address: Address
    interface: str = ""
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class Sending:
    """How this host sends. declared: public addresses that its operator calls his own, other servers of his included.

    former: addresses that it once sent from and no longer has. smarthost: who delivers its mail; empty: it does.
    """

    sources: tuple[Source, ...]
    held: tuple[Held, ...] = ()
    declared: tuple[Network, ...] = ()
    former: tuple[Address, ...] = ()
    smarthost: str = ""

    @property
    def seen(self) -> tuple[Address, ...]:
        """What receivers see, of all families."""
        return tuple(dict.fromkeys(address for source in self.sources for address in source.seen))

    @property
    def stable(self) -> tuple[Address, ...]:
        """The addresses of the interfaces that stay, and that the world can reach."""
        lasting = (held.address for held in self.held if not held.temporary)
        return tuple(address for address in lasting if is_publishable(ip_network(address)))

    def publishable_of(self, source: Source) -> tuple[Address, ...]:
        """Return what can stand in a record for a source: never a temporary address, but a stable one of its net."""
        if not source.temporary or source.address is None:
            return source.seen
        near = ip_network((source.address, PREFIX), strict=False)
        return tuple(address for address in self.stable if covers(near, address))[:1]

    @property
    def lasting(self) -> tuple[Address, ...]:
        """What has to stand in a record for all that this host sends from."""
        found = (address for source in self.sources for address in self.publishable_of(source))
        return tuple(address for address in dict.fromkeys(found) if is_publishable(ip_network(address)))

    def is_own(self, network: Network) -> bool:
        """Return whether a network has, or is within, addresses that the operator has."""
        addresses = (*self.seen, *(held.address for held in self.held))
        if any(covers(network, address) for address in addresses):
            return True
        return any(covers(other, network) or covers(network, other) for other in self.declared)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `check_host` says of one address. term: the decisive one of the domain's own record; message: what broke."""

    address: Address
    result: Result
    term: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Views:
    """What the name servers say of a record. Names are those of servers.

    differing: those that serve another record than the rest. refusing: those that cut the answer off and refuse TCP.
    size: of that answer, in bytes. old_until: until when resolvers may still have the record before this one.
    split: this host's own resolver serves another zone than the world sees.
    """

    differing: tuple[str, ...] = ()
    refusing: tuple[str, ...] = ()
    size: int = 0
    old_until: datetime | None = None
    split: bool = False


@dataclass(frozen=True, slots=True)
class Failures:
    """DNS has failed `count` times in a row since `since`. ttl: of the last good answer, in seconds.

    good: the last verdict that was one, and since when it is known; None where there never was any.
    """

    count: int
    since: datetime
    reason: str = ""
    ttl: int = 0
    good: tuple[Result, datetime] | None = None

    def is_lasting(self, now: datetime) -> bool:
        """Return whether that is more than a passing fault: several in a row, over more than a TTL and a while."""
        return self.count >= MANY and now - self.since > max(timedelta(seconds=self.ttl), A_WHILE)


@dataclass(frozen=True, slots=True)
class Published:
    """One identity that this host sends as, and what DNS has for it.

    identity: MAIL_FROM or HELO. texts: all TXT records of the name, SPF or not, strings joined. strings: those of the
    SPF record before they were joined. record: the one that counts; None where there is not exactly one.
    ttl: of the record, in seconds. of_type_spf: there is a record of type 99. sender: the domain of the From header,
    where it is another one. addresses: what its A and AAAA records are; None where they were not asked for.
    """

    domain: str
    identity: str = MAIL_FROM
    texts: tuple[str, ...] = ()
    strings: tuple[bytes, ...] = ()
    record: Record | None = None
    reach: Reach = Reach()
    verdicts: tuple[Verdict, ...] = ()
    ttl: int = 0
    of_type_spf: bool = False
    views: Views = Views()
    failures: Failures | None = None
    sender: str = ""
    addresses: tuple[Address, ...] | None = None

    @property
    def helo_fault(self) -> str:
        """Why the name that is given as HELO can have no record; empty where it can, or for a MAIL FROM."""
        if self.identity != HELO:
            return ""
        if self.domain.startswith("["):
            return f"the HELO name `{self.domain}` is an address, and some receivers refuse that"
        if "." not in self.domain.strip("."):
            return f"the HELO name `{self.domain}` is not a full host name, and some receivers refuse that"
        return ""


@dataclass(frozen=True, slots=True)
class Cell:
    """The state of one domain, identity and family. verdict: a Result's word, `unknown`, `not used`, `not required`.

    severity: as of a Remark; empty where nothing is wrong.
    """

    domain: str
    identity: str
    family: int
    verdict: str
    reason: str
    severity: str = ""
