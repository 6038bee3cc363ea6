"""SPF records as values: terms with their places in the text, so that whoever reads a message finds the spot. Pure.

Syntax: RFC 7208, sections 4.6.1, 5, 6 and 12.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network


class Result(StrEnum):
    """What `check_host` returns (RFC 7208 section 2.6)."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One directive. `start` and `end` are places in `Record.text`, the qualifier included.

    name: lower case. domain: the domain-spec as written, macros unexpanded; empty where there is none. network: of
    `ip4` and `ip6` alone, host bits as written are kept in `address`. cidr4, cidr6: of `a` and `mx`, 32 and 128 by
    default.
    """

    start: int
    end: int
    qualifier: str
    name: str
    domain: str = ""
    address: str = ""
    network: IPv4Network | IPv6Network | None = None
    cidr4: int = 32
    cidr6: int = 128


@dataclass(frozen=True, slots=True)
class Modifier:
    """`redirect=`, `exp=` or one that RFC 7208 does not know; `value` is unexpanded."""

    start: int
    end: int
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A spot that makes the record a permerror: what is wrong there, and what was perhaps meant (may be empty)."""

    start: int
    end: int
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A whole record. `terms` are in the order of the text; where there are `faults` it is a permerror."""

    text: str
    terms: tuple[Mechanism | Modifier, ...]
    faults: tuple[Fault, ...]
