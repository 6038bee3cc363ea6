"""Where mail leaves from: the source address that the kernel picks for exim's user, TCP and the port of SMTP.

Asks the kernel (`ip -j route get … uid N ipproto tcp dport 25`) and sends no packet. Under policy routing nothing
simpler is right: a UDP connect() of root misses rules for a uid and for a port (both tried). Facts, never a verdict.
Not seen: a route with several next hops may pick another source for another connection.
"""

import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import ip_address
from typing import Any

from agent.host.kernel import read_beginning
from agent.host.network import addresses, echo
from agent.host.network.addresses import INSIDE, Address, Sort, family_of, parse_list, sort_of
from agent.host.network.echo import Echo
from agent.host.network.nftables import Flow
from agent.host.network.translation import Translation, Verdict, read_rules, read_translation
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.model.text import printable
from agent.spawn import Done, last_words, run
from agent.spawn.transient import run_as

DESTINATIONS = ("198.41.0.4", "2001:503:ba3e::2:30")
"""One of each family that stands for the Internet (a root name server, whose addresses do not change)."""
USER = "Debian-exim"
PORT = 25
MOST_PASSWD = 4 << 20
REFUSED = "RTNETLINK answers: "
"""How iproute2 begins what the kernel says where it has no route."""


@dataclass(frozen=True, slots=True)
class Way:
    """How mail to `destination` leaves. source: "" where it cannot; `problem` says why then.

    pinned: the address that exim's `interface` names for this family, "" where it names none; lost: this host does
    not have it, so all mail that way is deferred. address: the row of the source, None where no interface has it.
    rivals: how many addresses of its prefix the kernel might take, it included.
    seen: the addresses that a receiver may see; empty: not known, and `unseen` says why.
    """

    destination: str
    source: str = ""
    problem: str = ""
    interface: str = ""
    pinned: str = ""
    lost: bool = False
    sort: Sort | None = None
    address: Address | None = None
    rivals: int = 0
    translation: Translation | None = None
    seen: tuple[str, ...] = ()
    unseen: str = ""

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.destination)


@dataclass(frozen=True, slots=True)
class Egress:
    """All of it. uid None: there is no such user, so rules for a uid were not taken into account."""

    user: str
    uid: int | None
    ways: tuple[Way, ...]
    addresses: tuple[Address, ...]


def read_egress(
    host: Host,
    user: str = USER,
    destinations: Sequence[str] = DESTINATIONS,
    interfaces: Sequence[str] = (),
    public_addresses: Sequence[str] = (),
    port: int = PORT,
    rules: Callable[[], str] = read_rules,
) -> Egress:
    """Return how mail of `user` leaves to `port` of each of `destinations`, which are addresses.

    interfaces: the values of the transport's option `interface`, expanded. public_addresses: what the world sees,
    as the operator or an echo says; it counts where this host cannot know. rules: reads those of nftables, once.
    Raises AgentError where the kernel cannot be asked, ValueError where a destination or a public address is none.
    """
    uid, rules = _uid_of(host, user), cache(rules)
    known = addresses.read_addresses()
    ways = []
    for destination in destinations:
        way = _way(destination, port, uid, interfaces, known)
        if way.source:
            flow = Flow(way.source, destination, way.interface, uid, _choices(way, known), port)
            way = _outside(way, read_translation(host, flow, rules), public_addresses)
        ways.append(way)
    return Egress(user, uid, tuple(ways), known)


def _uid_of(host: Host, user: str) -> int | None:
    """Look in /etc/passwd alone: a system user is there, and a directory server may not answer."""
    if user.isdecimal():
        return int(user)
    rows = (read_beginning(host.under("/etc/passwd"), MOST_PASSWD) or b"").split(b"\n")
    fields = (row.split(b":") for row in rows)
    return next((int(row[2]) for row in fields if row[0] == os.fsencode(user) and row[2:] and row[2].isdigit()), None)


def _way(destination: str, port: int, uid: int | None, interfaces: Sequence[str], known: tuple[Address, ...]) -> Way:
    pinned, problem = choose_interface(interfaces, family_of(destination))
    if problem:
        return Way(destination, problem=problem)
    if pinned and (problem := _why_unusable(pinned)):
        return Way(destination, problem=f"exim's interface {pinned}: {problem}", pinned=pinned, lost=True)
    source, interface, problem = read_route(destination, port, uid, pinned)
    if not source:
        return Way(destination, problem=problem, pinned=pinned)
    row = next((item for item in known if item.address == source), None)
    count = addresses.rivals(row, known) if row else 0
    return Way(destination, source, "", interface, pinned, False, sort_of(source), row, count)


def choose_interface(interfaces: Sequence[str], family: int) -> tuple[str, str]:
    """Return the address that exim takes of its option `interface`, and why it takes none but gives up. Pure.

    Like exim's smtp_get_interface(): the first one of the family; the kernel chooses where there is none; what is no
    address stops it, unless it had found one before.
    """
    for text in interfaces:
        try:
            if family_of(text) == family:
                return text, ""
        except ValueError:
            return "", f"exim's interface {printable(text)!r} is not an IP address"
    return "", ""


def _why_unusable(address: str) -> str:
    """Return what the kernel says to a program that wants to send from `address`; empty where it may."""
    family = socket.AF_INET if family_of(address) == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trying:
            trying.bind((address, 0))
    except OSError as problem:
        return os.strerror(problem.errno) if problem.errno else printable(str(problem))
    return ""


def read_route(destination: str, port: int, uid: int | None, pinned: str = "") -> tuple[str, str, str]:
    """Return source and interface of a connection to a port of `destination`; where there is none, the third says why.

    pinned: the source that it is bound to. Raises AgentError.
    """
    done = run(route_question(destination, port, uid, pinned), timeout=addresses.LIMIT)
    if done.status != 0:
        return "", "", _why_none(done)
    try:
        (row,) = parse_list(done.stdout)
        return _source_of(row, pinned), str(row["dev"]), ""
    except (KeyError, ValueError) as problem:
        raise AgentError(Kind.PROTOCOL, f"`ip -j route get` printed something else: {problem}") from problem


def route_question(destination: str, port: int, uid: int | None, pinned: str = "") -> list[str]:
    """Return how iproute2 is asked. Pure."""
    origin = ["from", pinned] if pinned else []
    who = [] if uid is None else ["uid", str(uid)]
    return ["ip", "-j", "route", "get", destination, *origin, *who, "ipproto", "tcp", "dport", str(port)]


def _source_of(row: dict[str, Any], pinned: str) -> str:
    """The kernel does not repeat a source that it was given."""
    source = pinned or str(row["prefsrc"])
    family_of(source)
    return source


def _why_none(done: Done) -> str:
    words = last_words(done)
    if not words.startswith(REFUSED):
        raise AgentError(Kind.UNREADABLE, f"the route of mail cannot be read: {words}")
    return f"the kernel has no route: {words.removeprefix(REFUSED)}"


def _outside(way: Way, translation: Translation, public_addresses: Sequence[str]) -> Way:
    """Add what becomes of the source on its way out of this host, and what a receiver sees in the end."""
    public = tuple(address for address in public_addresses if family_of(address) == way.family)
    seen, unseen = what_is_seen(way.source, way.destination, translation, public)
    return replace(way, translation=translation, seen=seen, unseen=unseen)


def _choices(way: Way, known: tuple[Address, ...]) -> tuple[str, ...]:
    """Return what a masquerade takes one of: the outgoing interface's own, of this family; empty: hard to say."""
    here = [item for item in known if item.interface == way.interface and item.scope == "global"]
    same = [item for item in here if family_of(item.address) == way.family]
    return tuple(item.address for item in same) if all(item.preferable for item in same) else ()


def what_is_seen(
    source: str, destination: str, translation: Translation, public: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """Return the addresses that a receiver may see; where none is known, the second says why. Pure.

    public: of this family, as somebody outside says; asked only where this host cannot know.
    """
    outside = translation.address or source
    if translation.verdict is Verdict.UNKNOWN:
        lately = f"; its last connections left as {', '.join(translation.observed)}" if translation.observed else ""
        return public, "" if public else f"{source} may be rewritten on its way out: {translation.reason}{lately}"
    if sort_of(outside) not in INSIDE or sort_of(destination) in INSIDE:
        return (outside,), ""
    if public:
        return public, ""
    return (), f"{outside} is {sort_of(outside)}: somebody outside of this host rewrites it, and nobody said to what"


def ask_echo_as(user: str, way: Way, server: str, name: str, port: int = PORT, limit: float = echo.LIMIT) -> Echo:
    """Ask as `user`, from the source of `way`, which address the mail server at the address `server` sees.

    name: what we greet with. The program goes in by its standard input, for that user may not be able to read our
    files. Raises AgentError where it cannot be run.
    """
    with open(echo.__file__) as file:
        program = file.read()
    question = (server, str(port), way.source, name, f"{limit:g}")
    done = run_as(user, ["/usr/bin/python3", "-I", "-S", "-", *question], timeout=limit + 5, stdin=program)
    try:
        answer = json.loads(done.stdout)
        seen = str(ip_address(answer["seen"])) if answer["seen"] else ""
        return Echo(seen, printable(str(answer["problem"])))
    except (KeyError, TypeError, ValueError) as problem:
        raise AgentError(Kind.SPAWN, f"the echo could not be asked as {user}: {last_words(done)}") from problem
