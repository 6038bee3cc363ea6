"""All that a record authorises, term by term, and what it costs to find out: the nouns of `addresses`. Pure."""

from dataclasses import dataclass

from agent.spf.ranges import Network


@dataclass(frozen=True, slots=True)
class Hop:
    """A term on the way to an address: whose record it is in, where, and as written."""

    domain: str
    start: int
    end: int
    term: str


Path = tuple[Hop, ...]
"""From the term of the record itself to the one, perhaps of an include, that it is about."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A network and what becomes of it. qualifier: `+`, `-`, `~` or `?`, as the record itself has it."""

    network: Network
    qualifier: str
    path: Path


@dataclass(frozen=True, slots=True)
class Opaque:
    """A term whose addresses cannot be listed, and why not."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """What breaks the record for whoever gets there.

    kind: `temperror`, `permerror`, `dead` (leads to a name without a record), `absent` (to a name that nobody has).
    """

    kind: str
    path: Path
    message: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What one term of the record costs a sender that nothing matches. voids4, voids6: for a sender of that family."""

    hop: Hop
    lookups: int
    voids4: int
    voids6: int


@dataclass(frozen=True, slots=True)
class Reach:
    """All that a record authorises: the first entry that covers an address decides, where nothing opaque is before it.

    ttl: the smallest that was met, in seconds; None where there was none.
    """

    entries: tuple[Entry, ...] = ()
    opaque: tuple[Opaque, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    costs: tuple[Cost, ...] = ()
    ttl: int | None = None

    @property
    def lookups(self) -> int:
        """Terms that need DNS, on the longest way."""
        return sum(cost.lookups for cost in self.costs)

    @property
    def voids(self) -> int:
        """Terms for which DNS has nothing, on the longest way of the family that fares worse."""
        return max(sum(cost.voids4 for cost in self.costs), sum(cost.voids6 for cost in self.costs))

    def authorised(self, version: int) -> tuple[Network, ...]:
        """Return the networks of one family that pass."""
        listed = (entry for entry in self.entries if entry.qualifier == "+")
        return tuple(entry.network for entry in listed if entry.network.version == version)

    def networks_of(self, start: int) -> tuple[Network, ...] | None:
        """Return what the record's term at `start` can match; None where that cannot be listed."""
        unlisted = (*(item.path for item in self.opaque), *(item.path for item in self.troubles))
        if any(path[0].start == start for path in unlisted):
            return None
        return tuple(entry.network for entry in self.entries if entry.path[0].start == start)
