"""Which of the addresses that exim's transports are told to send from this host does not have.

Asks the kernel what exim will ask it, by `bind` to the address: nothing is sent, and addresses that the kernel lets
anyone bind (net.ipv4.ip_nonlocal_bind) are rightly not lost. Never judges.
"""

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from agent.host.mail.exim import Transport
from agent.host.mail.exim_config import items_of

LOST = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


@dataclass(frozen=True, slots=True)
class Lost:
    """An address that a transport's `interface` names and that this host cannot send from."""

    transport: str
    interface: str
    address: str


def is_bindable(address: str) -> bool:
    """Return whether a socket can be bound to an address; only a clear no is one."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as handle:
            handle.bind((address, 0))
    except OSError as problem:
        return problem.errno not in LOST
    return True


def read_lost(transports: Sequence[Transport], bindable: Callable[[str], bool] = is_bindable) -> tuple[Lost, ...]:
    """Return the lost ones, in order. What exim expands at delivery is not known and not told."""
    return tuple(
        Lost(item.name, item.interface, address)
        for item in transports
        for address in _taken(item.interface)
        if not bindable(address)
    )


def _taken(interface: str) -> Iterator[str]:
    """Of several addresses exim takes the first of each family; link-local ones mean nothing without a zone."""
    if "$" in interface:
        return
    seen = set()
    for item in items_of(interface):
        try:
            address = ip_address(item)
        except ValueError:
            continue
        if address.version not in seen and not address.is_link_local:
            yield str(address)
        seen.add(address.version)
