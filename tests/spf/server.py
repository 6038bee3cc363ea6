"""A DNS server on loopback, UDP and TCP, over a `Zone`: in a thread of its own, and able to misbehave.

As a recursive server does, it follows aliases inside its zone. It is authoritative for all it has, for the zones
that `apexes` names.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rrset

from agent.spf.servers import Server
from tests.spf.zone import NEGATIVE_TTL, TTL, Zone

IN = dns.rdataclass.IN
PIECE = 255
CHAIN = 12


@dataclass(slots=True)
class Behaviour:
    """How a server answers. rcodes, mute: by lower-case name. lying: sets TC where nothing was cut off. tcp: whether
    it listens there. delay: seconds before each answer. raw: bytes in the place of the answer for a name."""

    apexes: tuple[str, ...] = ("",)
    serial: int = 1
    rcodes: dict[str, str] = field(default_factory=dict)
    unchecked: frozenset[str] = frozenset()
    """Names that have an rcode only while CD is not set, as those whose signatures are bad."""
    mute: frozenset[str] = frozenset()
    lying: frozenset[str] = frozenset()
    raw: dict[str, bytes] = field(default_factory=dict)
    tcp: bool = True
    delay: float = 0.0
    lame: bool = False


@dataclass(slots=True)
class Running:
    """A server that runs. asked: lower-case names and types, in order. most: the most questions at one time."""

    server: Server
    asked: list[tuple[str, str]] = field(default_factory=list)
    now: int = 0
    most: int = 0


@contextlib.contextmanager
def serve(
    zone: Zone, behaviour: Behaviour | None = None, address: str = "127.0.0.1", port: int = 0
) -> Iterator[Running]:
    """Run a server while the context lasts, on a free port unless told."""
    ready = threading.Event()
    box: list[tuple[Running, asyncio.AbstractEventLoop, asyncio.Event]] = []

    def run() -> None:
        asyncio.run(_run(_Desk(zone, behaviour or Behaviour()), address, port, box, ready))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    running, loop, stop = box[0]
    try:
        yield running
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@dataclass(slots=True)
class _Desk:
    zone: Zone
    behaviour: Behaviour
    running: Running = field(init=False)

    async def answer(self, wire: bytes, udp: bool) -> bytes | None:
        """Return the answer to a question, or None where there is to be none."""
        try:
            question = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        name = text_of(question.question[0].name).lower()
        kind = dns.rdatatype.to_text(question.question[0].rdtype)
        self.running.asked.append((name, kind))
        self.running.now += 1
        self.running.most = max(self.running.most, self.running.now)
        await asyncio.sleep(self.behaviour.delay)
        self.running.now -= 1
        if name in self.behaviour.mute or (name, kind) in self.zone.silent:
            return None
        if name in self.behaviour.raw:
            return wire[:2] + self.behaviour.raw[name]
        return self._wire(question, name, kind, udp)

    def _wire(self, question: dns.message.Message, name: str, kind: str, udp: bool) -> bytes:
        response = dns.message.make_response(question, recursion_available=True)
        response.flags |= 0 if self.behaviour.lame else dns.flags.AA
        unchecked = name in self.behaviour.unchecked and question.flags & dns.flags.CD
        if name in self.behaviour.rcodes and not unchecked:
            response.set_rcode(dns.rcode.from_text(self.behaviour.rcodes[name]))
        else:
            self._fill(response, question.question[0].name, name, kind)
        if not udp:
            return response.to_wire(max_size=65535)
        return self._cut(response, question.payload if question.edns >= 0 else 512, name)

    def _cut(self, response: dns.message.Message, size: int, name: str) -> bytes:
        wire = response.to_wire(max_size=65535)
        if len(wire) <= size and name not in self.behaviour.lying:
            return wire
        response.answer, response.authority = [], []
        response.flags |= dns.flags.TC
        return response.to_wire()

    def _fill(self, response: dns.message.Message, owner: dns.name.Name, name: str, kind: str) -> None:
        for _ in range(CHAIN):
            here = self.zone.names.get(name)
            ttl = self.zone.ttls.get(name, TTL)
            if kind == "SOA" and name in self.behaviour.apexes:
                response.answer.append(self._start(name))
                return
            if here is not None and kind in here:
                response.answer.append(_rrset(owner, ttl, kind, here[kind]))
                return
            if here is None or "CNAME" not in here:
                break
            response.answer.append(_rrset(owner, ttl, "CNAME", here["CNAME"]))
            name = here["CNAME"][0].lower()
            owner = name_of(name)
        below = any(other.endswith(f".{name}") for other in self.zone.names)
        if here is None and not below and name not in self.behaviour.apexes:
            response.set_rcode(dns.rcode.NXDOMAIN)
        apexes = [apex for apex in self.behaviour.apexes if not apex or f".{name}".endswith(f".{apex}")]
        response.authority += [self._start(max(apexes, key=len))] if apexes else []

    def _start(self, apex: str) -> dns.rrset.RRset:
        host = name_of("ns.invalid")
        start = dns.rdtypes.ANY.SOA.SOA(IN, dns.rdatatype.SOA, host, host, self.behaviour.serial, 9, 9, 9, NEGATIVE_TTL)
        return dns.rrset.from_rdata(name_of(apex), TTL, start)


def name_of(text: str) -> dns.name.Name:
    """Return a name whose labels are the parts of `text`, whatever is in them."""
    return dns.name.Name([*(text.encode("utf-8", "surrogateescape").split(b".") if text else []), b""])


def text_of(name: dns.name.Name) -> str:
    """The reverse of `name_of`."""
    return b".".join(name.labels[:-1]).decode("utf-8", "surrogateescape")


def _rrset(owner: dns.name.Name, ttl: int, kind: str, data: tuple[object, ...]) -> dns.rrset.RRset:
    rrset = dns.rrset.RRset(owner, IN, dns.rdatatype.from_text(kind))
    rrset.update_ttl(ttl)
    for value in data:
        rrset.add(_rdata(kind, value))
    return rrset


def _rdata(kind: str, value: object) -> dns.rdata.Rdata:
    if kind == "TXT":
        text = str(value).encode("utf-8", "surrogateescape")
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        return dns.rdtypes.ANY.TXT.TXT(IN, dns.rdatatype.TXT, pieces or [b""])
    if kind == "MX":
        assert isinstance(value, tuple)
        return dns.rdtypes.ANY.MX.MX(IN, dns.rdatatype.MX, value[0], name_of(value[1]))
    if kind in ("PTR", "CNAME", "NS"):
        wire = name_of(str(value)).to_wire()
        assert wire
        return dns.rdata.from_wire(IN, dns.rdatatype.from_text(kind), wire, 0, len(wire))
    return dns.rdata.from_text(IN, dns.rdatatype.from_text(kind), str(value))


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        wire = await self._desk.answer(data, udp=True)
        if wire is not None:
            self._transport.sendto(wire, addr)


async def _run(
    desk: _Desk,
    address: str,
    port: int,
    box: list[tuple[Running, asyncio.AbstractEventLoop, asyncio.Event]],
    ready: threading.Event,
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            size = int.from_bytes(await reader.readexactly(2), "big")
            wire = await desk.answer(await reader.readexactly(size), udp=False)
            if wire is not None:
                writer.write(len(wire).to_bytes(2, "big") + wire)
                await writer.drain()
        writer.close()

    while True:
        streams = await asyncio.start_server(stream, address, port)
        number = streams.sockets[0].getsockname()[1]
        try:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(desk), local_addr=(address, number))
            break
        except OSError:  # somebody has this number for UDP
            streams.close()
            if port:
                raise
    if not desk.behaviour.tcp:
        streams.close()
    desk.running = Running(Server(address, number))
    box.append((desk.running, loop, stop))
    ready.set()
    await stop.wait()
    transport.close()
    streams.close()
