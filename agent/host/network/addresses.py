"""Which addresses the interfaces of this machine have, with their flags, and what sort of address one is.

Asks `ip -j` (iproute2), which needs no rights. Facts of the moment, never judged: whether an address should send mail
is for others to say.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import Any

from agent.model.errors import AgentError, Kind
from agent.spawn import last_words, run

LIMIT = 10.0
"""Seconds that one question to the kernel may take."""
FOREVER = 0xFFFFFFFF
FLAGS = (
    "dadfailed",
    "deprecated",
    "dynamic",
    "mngtmpaddr",
    "optimistic",
    "secondary",
    "stable-privacy",
    "temporary",
    "tentative",
)
"""iproute2's words. `dynamic`: not for ever. `mngtmpaddr`: the kernel makes temporary ones from it."""
NOT_PREFERRED = frozenset({"dadfailed", "deprecated", "tentative"})


class Sort(StrEnum):
    """Where an address means something: on the Internet, in examples, or only inside of some network."""

    GLOBAL = "global"
    PRIVATE = "private"
    SHARED = "shared"
    UNIQUE_LOCAL = "unique-local"
    LINK_LOCAL = "link-local"
    LOOPBACK = "loopback"
    DOCUMENTATION = "documentation"
    OTHER = "other"


INSIDE = frozenset({Sort.PRIVATE, Sort.SHARED, Sort.UNIQUE_LOCAL, Sort.LINK_LOCAL, Sort.LOOPBACK})
"""What the world can only see translated."""

SORTS = tuple(
    (ip_network(text), sort)
    for sort, texts in {
        Sort.LOOPBACK: "127.0.0.0/8 ::1",
        Sort.PRIVATE: "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
        Sort.SHARED: "100.64.0.0/10",
        Sort.LINK_LOCAL: "169.254.0.0/16 fe80::/10",
        Sort.UNIQUE_LOCAL: "fc00::/7",
        Sort.DOCUMENTATION: "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
        Sort.OTHER: "0.0.0.0/8 192.0.0.0/24 198.18.0.0/15 224.0.0.0/3 ::/128 ::ffff:0:0/96 100::/64 fec0::/10 ff00::/8",
    }.items()
    for text in texts.split()
)
"""IANA's special-purpose registries (RFC 6890 and later), as far as they bear on who sends mail."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address of an interface. flags: those of FLAGS that it has, sorted.

    valid, preferred: seconds that it still is so; None: for ever.
    """

    address: str
    prefix: int
    interface: str
    scope: str
    flags: tuple[str, ...]
    valid: int | None
    preferred: int | None

    @property
    def preferable(self) -> bool:
        """Whether the kernel may take it for a new connection to the world of its own accord."""
        return self.scope == "global" and not NOT_PREFERRED.intersection(self.flags)


def sort_of(address: str) -> Sort:
    """Return what sort of address this is. Raises ValueError where it is none. Pure."""
    parsed = ip_address(address)
    return next((sort for network, sort in SORTS if parsed in network), Sort.GLOBAL)


def family_of(address: str) -> int:
    """Return 4 or 6. Raises ValueError where it is no address. Pure."""
    return ip_address(address).version


def read_addresses() -> tuple[Address, ...]:
    """Return all addresses of all interfaces, in the kernel's order. Raises AgentError."""
    done = run(["ip", "-j", "address", "show"], timeout=LIMIT)
    if done.status != 0:
        raise AgentError(Kind.UNREADABLE, f"the addresses of this host cannot be read: {last_words(done)}")
    return parse_addresses(done.stdout)


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Return the addresses in what `ip -j address show` printed. Raises AgentError(PROTOCOL). Pure."""
    links = parse_list(text)
    try:
        return tuple(_address(link, row) for link in links for row in link.get("addr_info", ()) if "local" in row)
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise AgentError(Kind.PROTOCOL, f"`ip -j address show` printed something else: {problem}") from problem


def _address(link: dict[str, Any], row: dict[str, Any]) -> Address:
    flags = tuple(flag for flag in FLAGS if row.get(flag) is True)
    parsed: IPv4Address | IPv6Address = ip_address(row["local"])
    return Address(
        str(parsed),
        int(row["prefixlen"]),
        str(link["ifname"]),
        str(row["scope"]),
        flags,
        _seconds(row["valid_life_time"]),
        _seconds(row["preferred_life_time"]),
    )


def _seconds(life: int) -> int | None:
    return None if life == FOREVER else int(life)


def rivals(source: Address, addresses: tuple[Address, ...]) -> int:
    """Return how many addresses of its prefix and interface the kernel might take, `source` among them. Pure."""
    network = ip_interface(f"{source.address}/{source.prefix}").network
    return sum(
        item.interface == source.interface
        and item.preferable
        and ip_interface(f"{item.address}/{item.prefix}").network == network
        for item in addresses
    )


def parse_list(text: str) -> list[dict[str, Any]]:
    """Return the list of objects that `ip -j` printed; nothing is an empty one. Raises AgentError(PROTOCOL). Pure."""
    try:
        rows = json.loads(text or "[]")
    except (ValueError, RecursionError) as problem:
        raise AgentError(Kind.PROTOCOL, f"`ip -j` printed no JSON: {problem}") from problem
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise AgentError(Kind.PROTOCOL, "`ip -j` printed no list of objects")
    return rows
