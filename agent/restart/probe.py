"""Asks a restarted unit whether it does its work: connects to it, asks it for a page, or runs a command.

It tries again until it is answered or the time is over, since a daemon may need a moment; what it reads is bounded.
Certificates are not verified: the question is whether somebody answers here, under names such as localhost that no
certificate has, and nothing is sent that is worth stealing. Sockets in the file system are reached by a small program
with a right that the daemon lacks: to write to what belongs to others. It also sees the /tmp that is not ours alone.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agent.model.errors import AgentError
from agent.model.probes import PORTS, Probe, Way
from agent.model.text import printable
from agent.spawn import Done
from agent.spawn.transient import run_as

LIMIT = 10.0
PAUSE = 0.5
PATIENCE = 5.0
"""Seconds for one try to connect and be answered; a command has all that is left."""
LEAST = 1.0
LONGEST_LINE = 4096
LONGEST_WORDS = 300

USER = "aftercare-probe"
"""A user that systemd makes up for the time of a command."""
BOXED = {
    "DynamicUser": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateDevices": "yes",
    "ProtectProc": "invisible",
    "CapabilityBoundingSet": "",
    "NoNewPrivileges": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces": "yes",
    "TimeoutStopSec": "2",
}
REACHING = {
    "ProtectSystem": "strict",
    "PrivateDevices": "yes",
    "PrivateNetwork": "yes",
    "CapabilityBoundingSet": "CAP_DAC_OVERRIDE",
    "NoNewPrivileges": "yes",
    "RestrictAddressFamilies": "AF_UNIX",
    "TimeoutStopSec": "2",
}
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
ANSWER = re.compile(rb"HTTP/1\.[01] (?P<status>[1-5][0-9]{2})(?: (?P<reason>[ -~]*))?\r?\n")


async def probe(
    target: Probe,
    *,
    limit: float = LIMIT,
    act: Callable[..., Done] = run_as,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> str:
    """Return what is wrong with what `target` asks for, in words; empty: it does its work.

    limit: seconds until the last try begins. act: as `spawn.transient.run_as`. Raises nothing.
    """
    until = clock() + limit
    while wrong := await _try(target, max(until - clock(), LEAST), act):
        if clock() + PAUSE >= until:
            return f"{printable(str(target))}: {printable(wrong[:LONGEST_WORDS])}"
        await sleep(PAUSE)
    return ""


async def _try(target: Probe, left: float, act: Callable[..., Done]) -> str:
    patience = min(left, PATIENCE)
    match target.way:
        case Way.COMMAND:
            return await asyncio.to_thread(_run, act, USER, target.command, left, BOXED)
        case Way.UNIX:
            argv = ("/usr/bin/python3", "-IS", "-c", CONNECT, target.path)
            return await asyncio.to_thread(_run, act, "root", argv, patience, REACHING)
    try:
        async with asyncio.timeout(patience):
            return await _connect(target)
    except TimeoutError:
        return f"no answer within {patience:.0f} s"
    except (OSError, ValueError) as problem:
        return str(problem)


def _run(
    act: Callable[..., Done], user: str, argv: Sequence[str], timeout: float, properties: Mapping[str, str]
) -> str:
    try:
        done = act(user, argv, timeout=timeout, properties=properties)
    except AgentError as problem:
        return problem.message
    said = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    return "" if done.status == 0 else said[-1] if said else f"ended with status {done.status}"


async def _connect(target: Probe) -> str:
    secure = _unverified() if target.way is Way.HTTPS else None
    reader, writer = await asyncio.open_connection(target.host, target.port, ssl=secure, limit=LONGEST_LINE)
    try:
        if target.way is Way.TCP:
            return ""
        writer.write(_request(target))
        return _judge(await reader.readline())
    finally:
        writer.transport.abort()


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _request(target: Probe) -> bytes:
    host = f"[{target.host}]" if ":" in target.host else target.host
    if target.port != PORTS[target.way]:
        host = f"{host}:{target.port}"
    lines = (f"GET {target.path} HTTP/1.1", f"Host: {host}", "User-Agent: aftercare", "Accept: */*")
    return "\r\n".join((*lines, "Connection: close", "", "")).encode("ascii")


def _judge(line: bytes) -> str:
    """A page that is elsewhere, or is as it was, is an answer; an error of the client's or the server's is none."""
    if not line:
        return "it closed the connection without an answer"
    found = ANSWER.fullmatch(line)
    if not found:
        return "its answer is not HTTP"
    if found["status"][:1] in (b"2", b"3"):
        return ""
    return f"it answers {found['status'].decode()} {(found['reason'] or b'').decode()}".rstrip()
