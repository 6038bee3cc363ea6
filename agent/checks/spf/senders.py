"""Whom this host sends mail as, and from where: what the check `spf` judges records by. Asks exim and the kernel.

It resolves nothing but the name of the server that the operator lets be asked for an echo, and judges nothing.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import ip_address, ip_network
from itertools import islice

from agent.host.mail.exim import Ask, Exim, ask_exim, looked_up_domains, read_exim, sending
from agent.host.mail.exim_config import items_of, read_text
from agent.host.mail.exim_mainlog import read_observed
from agent.host.mail.exim_routes import Verdict, read_route
from agent.host.network.addresses import INSIDE, sort_of
from agent.host.network.echo import Echo
from agent.host.network.egress import USER, Egress, Way, ask_echo_as, read_egress
from agent.model.errors import AgentError
from agent.model.facts import Host
from agent.model.findings import Request
from agent.model.text import printable
from agent.spf.drift import Held, Sending, Source
from agent.spf.evaluate import Resolver
from agent.spf.ranges import Address

OBSERVED = timedelta(days=7)
ECHO_LIMIT = 6.0
"""Seconds that a mail server may take to say which address it sees."""
MOST_ASKED = 10
"""Domains of the log of which exim is asked whether they are its own, the most frequent first."""
PATIENCE = 3.0
"""Seconds after which no more are asked about: a resolver that is slow makes exim slow."""
CONTROL = "control.invalid"
"""No domain of anybody's. Who keeps mail for it keeps all, as one that has all mail scanned may seem to."""
NAMESERVER = re.compile(r"^nameserver\s+(\S+)", re.MULTILINE)
SILENT = ("local", "none")
"""Types of Debian's configuration with which no mail leaves."""
Trace = Callable[[Host, Sequence[str], Sequence[str]], Egress]
"""Asks the kernel for the ways of mail, given exim's `interface` and the public addresses."""
Listen = Callable[[Way, str, str], Echo]
"""Asks the server at an address, greeting with a name, which address it sees of a way."""


@dataclass(frozen=True, slots=True)
class Sender:
    """How this host sends. silent: why it sends nothing to others, in words; the rest is empty then.

    domains: those of MAIL FROM that are its own. passed_over: that cannot have a record. forwarded: of others, that
    it lately sent as. used: those of its domains that surely send, and not merely receive. stranger: the one that was
    asked about is not its own. looked_up: parts of local_domains that only exim can read. helo: "" where exim only
    knows at delivery.
    """

    kind: str = ""
    silent: str = ""
    helo: str = ""
    domains: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    forwarded: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    stranger: bool = False
    looked_up: tuple[str, ...] = ()
    smarthost: str = ""
    ways: tuple[Way, ...] = ()
    held: tuple[Held, ...] = ()
    unseen: tuple[str, ...] = ()


def trace(host: Host, interfaces: Sequence[str], public: Sequence[str]) -> Egress:
    """Ask the kernel of this machine: its `Trace`."""
    return read_egress(host, interfaces=interfaces, public_addresses=public)


def listen(way: Way, server: str, name: str) -> Echo:
    """Ask as exim's user: the `Listen` of this machine."""
    return ask_echo_as(USER, way, server, name, limit=ECHO_LIMIT)


def read_sender(host: Host, request: Request, only: str = "", ask: Ask = ask_exim, traced: Trace = trace) -> Sender:
    """Return how this host sends. only: the one domain that is asked about, whether it is ours or not.

    Raises AgentError where exim or the kernel cannot be asked.
    """
    exim = _asked(host, ask)
    silent = _why_silent(exim)
    if silent and not only:
        return Sender(exim.kind if exim else "", silent)
    exim = exim or Exim()
    public = tuple(request.options.get("public_addresses", ()))
    transport = sending(exim.transports, exim.kind)
    interface = transport.interface if transport else ""
    expanded = "$" in interface
    egress = traced(host, () if expanded else items_of(interface), public)
    ways = tuple(_known(way, expanded, exim.disable_ipv6) for way in egress.ways)
    names = [item.name for item in exim.transports]
    lately = [domain for domain, _ in read_observed(host, request.now - OBSERVED, names).domains]
    sender = _named(exim, lately, request.options.get("domains", ()), only.lower().rstrip("."), ask)
    return replace(
        sender,
        kind=exim.kind,
        smarthost=", ".join(exim.smarthosts) or _unnamed(exim.kind),
        ways=ways,
        held=tuple(
            Held(ip_address(item.address), item.interface, "temporary" in item.flags)
            for item in egress.addresses
            if item.scope == "global"
        ),
        unseen=() if only else tuple(_unseen(exim)),
    )


def _named(exim: Exim, lately: Sequence[str], extra: Iterable[str], only: str, ask: Ask) -> Sender:
    """Return the names alone of a `Sender`."""
    extra = [name.lower().rstrip(".") for name in extra]
    helo = exim.helo.lower()
    known = _domains(exim, lately, extra)
    listed = {*known, *exim.envelope_domains, *((helo,) if only else ())}
    others = [name for name in ([only] if only else lately) if name not in listed]
    ours = _kept_here(exim, others, ask) if exim.transports else []
    domains = [only] if only else [*known, *ours]
    strange = tuple(name for name in others if name not in ours)
    return Sender(
        helo=helo if not only or helo == only else "",
        domains=tuple(name for name in domains if "." in name),
        passed_over=tuple(name for name in domains if "." not in name),
        forwarded=() if only else strange,
        used=(exim.qualify_domain.lower(), only, *lately, *extra),
        stranger=bool(only and strange),
        looked_up=() if only else tuple(looked_up_domains(exim)),
    )


def _asked(host: Host, ask: Ask) -> Exim | None:
    """Ask exim who it is. Where it is silent for want of a name server: say which those are."""
    try:
        return read_exim(host, ask)
    except AgentError as problem:
        if "name server" not in problem.message:
            raise
        named = NAMESERVER.findall(read_text(host, "/etc/resolv.conf") or "")[:3]
        hint = f"/etc/resolv.conf names {', '.join(map(printable, named)) or 'none'}: see whether they answer"
        raise AgentError(problem.kind, problem.message, hint) from problem


def _kept_here(exim: Exim, names: Iterable[str], ask: Ask) -> list[str]:
    """Return those of the names that exim keeps mail for, by its own routing: they are ours, though no list says so."""
    end = time.monotonic() + PATIENCE
    asked = (name for name in islice(names, MOST_ASKED) if time.monotonic() < end)
    found = [name for name in asked if read_route(exim, name, ask).verdict is Verdict.LOCAL]
    return found if found and read_route(exim, CONTROL, ask).verdict is not Verdict.LOCAL else []


def _why_silent(exim: Exim | None) -> str:
    if exim is None:
        return "exim is not installed"
    if exim.complaint:
        return "exim's configuration is broken, so no mail leaves: see the check exim"
    if exim.kind in SILENT:
        return f"exim's configuration is of the type {exim.kind}: no mail leaves this host"
    return "" if exim.transports else "exim has no transport that speaks SMTP to others"


def _unnamed(kind: str) -> str:
    return "the smarthost" if kind in ("smarthost", "satellite") else ""


def _domains(exim: Exim, lately: Iterable[str], extra: Iterable[str]) -> list[str]:
    """Return the domains of MAIL FROM. The host's own name is one where it qualifies addresses, or lately did.

    Else it sends bounces alone, and those are judged by the HELO identity.
    """
    used = {exim.qualify_domain.lower(), *lately}
    own = [name for name in exim.envelope_domains if name != exim.primary_hostname.lower() or name in used]
    return list(dict.fromkeys([*own, *extra]))


def _unseen(exim: Exim) -> Iterable[str]:
    if not exim.helo:
        yield "which name exim says HELO with: it is expanded at delivery"
    if exim.smarthosts and exim.hubbed:
        yield "what leaves past the smarthost, to the hosts that hubbed_hosts names"


def _known(way: Way, expanded: bool, without_ipv6: bool) -> Way:
    if without_ipv6 and way.family == 6:
        return replace(way, source="", seen=(), problem="disable_ipv6 is set in exim")
    if expanded and way.source:
        return replace(way, seen=(), unseen="exim expands the `interface` of its transport at delivery")
    return way


async def hear(sender: Sender, server: str, resolver: Resolver, listened: Listen = listen) -> Sender:
    """Return `sender` with what a mail server outside sees of the ways of which this host cannot know."""
    if not server or not sender.helo or sender.silent:
        return sender
    ways = await asyncio.gather(*(_hear(way, server, sender.helo, resolver, listened) for way in sender.ways))
    return replace(sender, ways=tuple(ways))


async def _hear(way: Way, server: str, name: str, resolver: Resolver, listened: Listen) -> Way:
    if not way.source or way.seen:
        return way
    place = await _address_of(server, way.family, resolver)
    if not place:
        return replace(way, unseen=f"{way.unseen}; {server} has no IPv{way.family} address to ask")
    try:
        echo = await asyncio.to_thread(listened, way, place, name)
    except AgentError as problem:
        echo = Echo(problem=problem.message)
    if echo.problem or sort_of(echo.seen) in INSIDE:
        heard = echo.problem or f"it sees {echo.seen}, which is no address of the Internet"
        return replace(way, unseen=f"{way.unseen}; {server} was asked: {printable(heard)}")
    return replace(way, seen=(echo.seen,), unseen="")


async def _address_of(server: str, family: int, resolver: Resolver) -> str:
    try:
        address: Address = ip_address(server)
        return server if address.version == family else ""
    except ValueError:
        found = await resolver.a(server) if family == 4 else await resolver.aaaa(server)
        return str(found.data[0]) if found.data else ""


def sending_of(sender: Sender, public: Iterable[str], former: Iterable[str]) -> Sending:
    """Return the facts as the engine wants them. public: what the operator calls his own; former: what was ours."""
    return Sending(
        sources=tuple(_source(way) for way in sender.ways),
        held=sender.held,
        declared=tuple(ip_network(address) for address in public),
        former=tuple(ip_address(address) for address in former),
        smarthost=printable(sender.smarthost),
    )


def _source(way: Way) -> Source:
    row = way.address
    return Source(
        family=way.family,
        address=ip_address(way.source) if way.source else None,
        interface=way.interface,
        temporary=row is not None and "temporary" in row.flags,
        dynamic=row is not None and row.valid is not None,
        rivals=max(way.rivals, 1),
        pinned=bool(way.pinned),
        seen=tuple(map(ip_address, way.seen)),
        problem=way.unseen or way.problem,
    )
