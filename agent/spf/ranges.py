"""Ranges of addresses: which can send mail over the Internet at all, what covers what. Pure, and of no record."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

LOW_64 = (1 << 64) - 1

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DOCUMENTATION = "documentation"
SPECIAL = tuple(
    (ip_network(text), kind)
    for kind, texts in {
        "v4-mapped": "::ffff:0:0/96",
        "loopback": "127.0.0.0/8 ::1",
        "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
        "shared": "100.64.0.0/10",
        "link-local": "169.254.0.0/16 fe80::/10",
        "unique-local": "fc00::/7",
        "multicast": "224.0.0.0/4 ff00::/8",
        DOCUMENTATION: "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
        "reserved": "0.0.0.0/8 192.0.0.0/24 198.18.0.0/15 240.0.0.0/4 ::/3 4000::/2 8000::/1",
    }.items()
    for text in texts.split()
)
"""IANA's special-purpose registries, narrower ranges first; of IPv6 only 2000::/3 is handed out at all."""
PROXIES = tuple(
    ip_network(text)
    for text in (
        "173.245.48.0/20 103.21.244.0/22 103.22.200.0/22 103.31.4.0/22 141.101.64.0/18 108.162.192.0/18 "
        "190.93.240.0/20 188.114.96.0/20 197.234.240.0/22 198.41.128.0/17 162.158.0.0/15 104.16.0.0/13 104.24.0.0/14 "
        "172.64.0.0/13 131.0.72.0/22 "
        "2400:cb00::/32 2606:4700::/32 2803:f800::/32 2405:b500::/32 2405:8100::/32 2a06:98c0::/29 2c0f:f248::/32"
    ).split()
)
"""Cloudflare's published ranges: a name that leads there leads to its web proxy, never to a host that sends mail."""


def kind_of(network: Network) -> str:
    """Return why no address of `network` can be a source on the Internet, as a word; empty where one can."""
    return next((kind for special, kind in SPECIAL if _is_within(network, special)), "")


def is_publishable(network: Network) -> bool:
    """Return whether a network can stand in a record. Those for examples pass for real ones, in texts and in tests."""
    return kind_of(network) in ("", DOCUMENTATION)


def is_proxy(network: Network) -> bool:
    """Return whether all of `network` is a web proxy's."""
    return any(_is_within(network, proxy) for proxy in PROXIES)


def covers(network: Network, other: Address | Network) -> bool:
    """Return whether all of `other` is in `network`; never across families."""
    return _is_within(ip_network(other), network)


def literal(network: Network) -> str:
    """Return a network as the shortest mechanism that matches it."""
    shown = network.network_address if network.prefixlen == network.max_prefixlen else network
    return f"ip{network.version}:{shown}"


def twin_of(address: IPv6Address, others: Iterable[Address]) -> IPv6Address | None:
    """Return which of `others` has the interface id, the low 64 bits, of `address`: it is the same interface's."""
    wanted = int(address) & LOW_64
    twins = (item for item in others if isinstance(item, IPv6Address) and int(item) & LOW_64 == wanted)
    return next((twin for twin in twins if wanted and twin != address), None)


def without(network: Network, other: Network) -> list[Network]:
    """Return the rest of `network` once all of `other` is taken out of it."""
    if _is_within(network, other):
        return []
    if isinstance(network, IPv4Network) and isinstance(other, IPv4Network) and other.subnet_of(network):
        return list(network.address_exclude(other))
    if isinstance(network, IPv6Network) and isinstance(other, IPv6Network) and other.subnet_of(network):
        return list(network.address_exclude(other))
    return [network]


def _is_within(network: Network, other: Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(other, IPv4Network) and network.subnet_of(other)
    return isinstance(other, IPv6Network) and network.subnet_of(other)
