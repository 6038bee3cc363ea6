"""What DNS answers, as an evaluation wants to know it: found, nothing there, or not to be learnt now. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, Protocol, TypeVar

CUT_OFF = "its answer is cut off, and over TCP"
"""In the reason where an answer fits no datagram and its server refuses TCP."""
T_co = TypeVar("T_co", covariant=True)


class Outcome(StrEnum):
    """NODATA: the name exists, without such records. FAILED: whoever asks again later may learn it."""

    FOUND = "found"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer(Generic[T_co]):
    """What came back for one name and type.

    data: empty unless FOUND. ttl: seconds for which it may be kept, also that there is nothing; None where nobody
    said. reason: why it FAILED, in words; may hold text of the server's. strings: of a TXT, those that each datum was
    joined from.
    """

    outcome: Outcome
    data: tuple[T_co, ...] = ()
    ttl: int | None = None
    reason: str = ""
    strings: tuple[tuple[bytes, ...], ...] = ()

    @property
    def is_void(self) -> bool:
        """Whether there is nothing (RFC 7208 section 4.6.4)."""
        return self.outcome is Outcome.NODATA or self.outcome is Outcome.NXDOMAIN


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """What one of a zone's own servers says. server, address: empty where not to be had. serial: of the zone there."""

    server: str
    address: str
    answer: Answer[str]
    serial: int | None = None


class Resolver(Protocol):
    """Who looks names up. They are absolute, without a dot at the end; any character may be in them.

    A string that is not ASCII is the bytes of a label, or of a TXT record, as UTF-8 with surrogateescape.
    """

    async def txt(self, name: str) -> Answer[str]:
        """Return the TXT records, the strings of each joined without anything between them."""
        ...

    async def a(self, name: str) -> Answer[IPv4Address]:
        """Return the IPv4 addresses."""
        ...

    async def aaaa(self, name: str) -> Answer[IPv6Address]:
        """Return the IPv6 addresses."""
        ...

    async def mx(self, name: str) -> Answer[tuple[int, str]]:
        """Return the mail exchangers with their preference; a null MX has an empty name."""
        ...

    async def ptr(self, name: str) -> Answer[str]:
        """Return the names that a name in `in-addr.arpa` or `ip6.arpa` points to."""
        ...
