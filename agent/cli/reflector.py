"""`agentctl spf reflector`: tells who sends it a probe what SPF makes of the very connection that the probe came by.

For another machine of the same admin. The verdict is in the text of its 250 answers, so the sender's own log has it
and no mail has to come back. It takes nothing but probes of `agentctl spf verify`, keeps nothing, passes nothing on,
and bounds connections, time and size. It talks to strangers and needs no rights but its port: root is refused.
"""

import asyncio
import errno
import importlib
import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from agent.model.contract import stamp
from agent.model.errors import AgentError, Exit, Kind
from agent.model.text import printable
from agent.spf.evaluate import Evaluation, Query, Resolver, check_host
from agent.spf.resolver import Recursive
from agent.spf.servers import Server, parse_server

PROBE = re.compile(r"spf-verify\+[A-Za-z0-9]{8,64}@[^@\s]{1,255}")
LISTEN = re.compile(r"\[?(?P<address>[0-9A-Fa-f.:]*?)\]?:(?P<port>[0-9]{1,5})")
ANYWHERE = ":25"
MOST_AT_ONCE = 32
MOST_BYTES = 64 << 10
MOST_COMMANDS = 20
SILENCE, SESSION = 30.0, 120.0
"""Seconds without a word, and of a whole connection."""
LONGEST = 400
"""Characters of a verdict: a line of SMTP has 512 bytes."""
PORT_ALONE = (
    "as root: setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps=+net_bind_service "
    "--ambient-caps=+net_bind_service agentctl spf reflector"
)
UNIT = (
    "for good: systemd-run --unit=spf-reflector -p DynamicUser=yes -p AmbientCapabilities=CAP_NET_BIND_SERVICE "
    "agentctl spf reflector"
)
INSTALL = "apt-get install python3-aiosmtpd"


def spf_reflector(options: Namespace) -> int:
    """Answer probes until interrupted; print a line for each. JSON: {"at", "client", "helo", "mail_from", "said"}."""
    if os.geteuid() == 0:
        message = "the reflector does not run as root: it talks to strangers and needs nothing but its port"
        raise AgentError(Kind.DENIED, message, f"{PORT_ALONE}\n  {UNIT}")
    smtp = _library()
    places = [parse_place(text) for text in options.listen or [ANYWHERE]]
    try:
        servers = [parse_server(text) for text in options.nameserver or ()]
        Recursive(servers)
    except ValueError as problem:
        raise AgentError(Kind.USAGE, printable(str(problem)), "name one with --nameserver ADDR[#PORT]") from problem
    asyncio.run(_serve(smtp, places, servers, options.json))
    return Exit.CLEAN


def _library() -> Any:
    try:
        return importlib.import_module("aiosmtpd.smtp")
    except ImportError as problem:
        raise AgentError(Kind.SPAWN, "the reflector needs python3-aiosmtpd, which is missing", INSTALL) from problem


def parse_place(text: str) -> tuple[str, int]:
    """Return the address and port of ADDR:PORT, [ADDR]:PORT or :PORT; an empty address is every one."""
    found = LISTEN.fullmatch(text)
    try:
        if not found or not 0 < int(found["port"]) < 65536:
            raise ValueError
        return (str(ip_address(found["address"])) if found["address"] else "", int(found["port"]))
    except ValueError:
        hint = "write 192.0.2.1:25, [2001:db8::1]:25 or :25"
        raise AgentError(Kind.USAGE, f"{printable(text)!r} is no address with a port", hint) from None


async def _serve(smtp: Any, places: Sequence[tuple[str, int]], servers: Sequence[Server], as_json: bool) -> None:
    guests: set[Guest] = set()
    loop = asyncio.get_running_loop()
    options = {"data_size_limit": MOST_BYTES, "command_call_limit": MOST_COMMANDS, "timeout": SILENCE, "loop": loop}
    options |= {"hostname": os.uname().nodename, "ident": "SPF reflector", "enable_SMTPUTF8": False}

    def welcome() -> Guest:
        return Guest(smtp.SMTP(Judge(servers, as_json), **options), guests)

    for address, port in places:
        try:
            await loop.create_server(welcome, address or None, port)
        except OSError as problem:
            place = f"{address or 'every address'}, port {port}"
            kind = Kind.DENIED if problem.errno in (errno.EACCES, errno.EPERM) else Kind.UNREACHABLE
            raise AgentError(kind, f"cannot listen on {place}: {problem.strerror}", PORT_ALONE) from problem
        print(f"listening on {address or 'every address'}, port {port}", file=sys.stderr, flush=True)
    await loop.create_future()


class Guest(asyncio.Protocol):
    """A connection, handed on to SMTP if there are not too many, and ended when its time is over."""

    def __init__(self, inner: Any, guests: "set[Guest]") -> None:
        self._inner = inner
        self._guests = guests

    def connection_made(self, transport: Any) -> None:
        """Let it in, or send it away."""
        if len(self._guests) >= MOST_AT_ONCE:
            transport.write(b"421 4.7.0 too many connections\r\n")
            transport.close()
            return
        self._guests.add(self)
        self._end = asyncio.get_running_loop().call_later(SESSION, transport.abort)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for others."""
        if self in self._guests:
            self._guests.remove(self)
            self._end.cancel()
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand on what it says."""
        if self in self._guests:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on that it has no more to say."""
        return bool(self._inner.eof_received()) if self in self._guests else False

    def pause_writing(self) -> None:
        """Hand on that it does not listen."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on that it listens again."""
        self._inner.resume_writing()


class Judge:
    """Answers the commands of one connection. Its methods have the names that aiosmtpd looks for."""

    def __init__(self, servers: Sequence[Server], as_json: bool) -> None:
        self._servers = servers
        self._as_json = as_json
        self._said = ""

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """Take any sender: it is what is judged."""
        envelope.mail_from = address
        return "250 2.1.0 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """Judge the connection, where the recipient is that of a probe."""
        if not PROBE.fullmatch(address):
            return "550 5.7.1 nothing is taken here but probes of agentctl spf verify"
        if envelope.rcpt_tos:
            return "452 4.5.3 one recipient is enough"
        envelope.rcpt_tos.append(address)
        client, helo = session.peer[0].partition("%")[0], session.host_name or ""
        resolver = Recursive(self._servers)  # with a cache of its own: who mends a record asks again at once
        self._said = await judge(client, helo, envelope.mail_from, resolver.within)
        self._tell(client, helo, envelope.mail_from)
        return f"250 2.1.5 {self._said}"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Forget the mail and repeat the verdict."""
        return f"250 2.0.0 {self._said}"

    def _tell(self, client: str, helo: str, mail_from: str) -> None:
        row = {"at": stamp(datetime.now(UTC)), "client": client, "helo": printable(helo)}
        row |= {"mail_from": printable(mail_from), "said": self._said}
        print(json.dumps(row) if self._as_json else f"{row['at']} {row['said']}", flush=True)


async def judge(client: str, helo: str, mail_from: str, resolver: Callable[[], Resolver]) -> str:
    """Return the verdict on both identities, in words. An empty sender is judged by the HELO name, as by receivers.

    resolver: makes one for an evaluation.
    """
    address, sender = ip_address(client), mail_from.strip("<>")
    asked = (Query(address, sender, helo), Query(address, "", helo))
    mail, greeting = await asyncio.gather(*(check_host(query, resolver()) for query in asked))
    return words_of(client, sender.rpartition("@")[2] or helo, mail, helo, greeting)


def words_of(client: str, domain: str, mail: Evaluation, helo: str, greeting: Evaluation) -> str:
    """Return what a probe is answered: `client=ADDRESS spf=RESULT helo=RESULT for …`; ASCII, one line. Pure."""
    said = f"client={client} spf={mail.result.value} helo={greeting.result.value}"
    said += f" for mail from {domain:.80}{_why(mail)}; for helo {helo:.80}{_why(greeting)}"
    plain = printable(said).encode("ascii", "backslashreplace").decode().replace('"', "'")
    return plain[:LONGEST]


def _why(found: Evaluation) -> str:
    if found.matched:
        return f" by {found.matched.term:.60}"
    return f" ({found.problem.message:.100})" if found.problem else ""
