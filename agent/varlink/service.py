"""The Varlink server: who may call what, within bounds that no caller can stretch.

Whatever a client does (bad JSON, endless frames, never reading, a hundred connections) costs that client
alone. A handler is never run for one who may not call it, and nothing here knows what a method means.
"""

import asyncio
import contextlib
import logging
import os
import select
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.model.errors import AgentError, Kind
from agent.model.events import Peer
from agent.varlink import interface, wire
from agent.varlink.interface import Refused

LOG = logging.getLogger(__name__)
SO_PEERGROUPS = 59
GROUPS_SIZE = 1024
"""Bytes for SO_PEERGROUPS: Python takes no larger buffer."""
BACKLOG = 64

Send = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[Peer, dict[str, Any], Send], Awaitable[dict[str, Any]]]


class Right(StrEnum):
    """Who may call a method."""

    EVERYBODY = "everybody"
    READER = "root and the group aftercare"
    ACTOR = "root"


@dataclass(frozen=True, slots=True)
class Method:
    """A handler and who may call it.

    The handler gets the peer, the parameters (checked against the interface, those that are null left out)
    and `send`, which gives a reply before the last one to a caller that asked for `more`, and does nothing
    for others. It is cancelled when its caller goes away. `more`: the method makes no sense without that
    flag.
    """

    handler: Handler
    right: Right
    more: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections: of one user but root, of all of those, of all. Seconds: between calls, for one reply."""

    of_one: int = 8
    of_others: int = 48
    of_all: int = 64
    idle: float = 60.0
    write: float = 10.0


class _Gone(Exception):
    """The caller closed the connection, or does not read."""


class Service:
    """The methods of our interface, served to whoever connects.

    methods: exactly those of the interface text, else ValueError. version: for GetInfo. readers: the gid of
    the group that may read, None where there is none.
    """

    def __init__(
        self, methods: Mapping[str, Method], version: str, readers: int | None, limits: Limits = Limits()
    ) -> None:
        if set(methods) != set(interface.SIGNATURES[wire.INTERFACE]):
            raise ValueError(f"not the methods of the interface: {sorted(methods)}")
        own = {
            "GetInfo": Method(self._info, Right.EVERYBODY),
            "GetInterfaceDescription": Method(_description, Right.EVERYBODY),
        }
        self._methods: dict[str, Mapping[str, Method]] = {wire.INTERFACE: methods, interface.SERVICE: own}
        self._version = version
        self._readers = readers
        self._limits = limits
        self._open: dict[asyncio.Task[None], int] = {}

    @contextlib.asynccontextmanager
    async def serving(self, path: str = wire.SOCKET) -> AsyncIterator[None]:
        """Listen on `path`, whose directory exists, until the context ends; then every connection is closed.

        A socket left behind by a dead daemon is replaced. Raises OSError where that is not possible.
        """
        limit = wire.LARGEST_REQUEST
        server = await asyncio.start_unix_server(self._welcome, sock=_listen(path), limit=limit, backlog=BACKLOG)
        try:
            yield
        finally:
            server.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            await self._close()

    async def _close(self) -> None:
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = peer_of(writer.get_extra_info("socket"))
        except OSError:
            writer.transport.abort()
            return
        if self._is_full(peer.uid):
            busy = AgentError(Kind.UNREACHABLE, "too many connections to aftercared", "close some of them")
            writer.write(wire.frame(wire.refusal(busy)))
            writer.close()
            return
        writer.transport.set_write_buffer_limits(high=0)
        task = asyncio.create_task(self._converse(peer, reader, writer))
        self._open[task] = peer.uid
        task.add_done_callback(self._open.pop)

    def _is_full(self, uid: int) -> bool:
        users = list(self._open.values())
        if uid == 0:
            return len(users) >= self._limits.of_all
        others = len(users) - users.count(0)
        return users.count(uid) >= self._limits.of_one or others >= self._limits.of_others

    async def _converse(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end. A frame is always read ahead: a hang-up is noticed at once."""
        ahead = asyncio.create_task(_next(reader))
        try:
            while raw := await asyncio.wait_for(ahead, self._limits.idle):
                ahead = asyncio.create_task(_next(reader))
                await self._serve(peer, wire.parse(raw), writer, ahead)
        except (_Gone, AgentError, TimeoutError):
            return
        finally:
            ahead.cancel()
            writer.transport.abort()

    async def _serve(
        self, peer: Peer, request: dict[str, Any], writer: asyncio.StreamWriter, ahead: asyncio.Task[bytes]
    ) -> None:
        """Answer one request; raise _Gone where the caller left before the answer.

        A caller that is only done with sending still gets the answer to a plain call; a stream ends with it.
        """
        answering = asyncio.create_task(self._answer(peer, request, writer))
        try:
            await asyncio.wait({answering, ahead}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and (request.get("more") is True or _hung_up(writer)):
                raise _Gone
            await answering
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _answer(self, peer: Peer, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        more, oneway = request.get("more") is True, request.get("oneway") is True

        async def send(parameters: dict[str, Any]) -> None:
            if more and not oneway:
                await self._write(writer, _framed({"parameters": parameters, "continues": True}))

        reply = await self._reply(peer, request, send)
        if not oneway:
            await self._write(writer, reply)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        try:
            async with asyncio.timeout(self._limits.write):
                await writer.drain()
        except OSError as problem:
            raise _Gone from problem

    async def _reply(self, peer: Peer, request: dict[str, Any], send: Send) -> bytes:
        """Return the last reply; a bug of a handler becomes an error reply and a traceback in the log."""
        try:
            method, parameters = self._admit(peer, request)
            return _framed({"parameters": await method.handler(peer, parameters, send)})
        except Refused as refused:
            return wire.frame(refused.reply)
        except AgentError as problem:
            return wire.frame(wire.refusal(problem))
        except _Gone:
            raise
        except Exception:
            name = request["method"]
            LOG.exception("%s failed", name)
            bug = AgentError(Kind.PROTOCOL, f"{name} failed: a bug in aftercared", "journalctl -u aftercare")
            return wire.frame(wire.refusal(bug))

    def _admit(self, peer: Peer, request: dict[str, Any]) -> tuple[Method, dict[str, Any]]:
        """Return what to run for `request`, and with what; raise Refused or AgentError where it may not."""
        full, parameters = request.get("method"), request.get("parameters") or {}
        if not isinstance(full, str):
            raise Refused("InvalidParameter", parameter="method")
        if not isinstance(parameters, dict):
            raise Refused("InvalidParameter", parameter="parameters")
        where, name = interface.find(full)
        method = self._methods[where][name]
        self._permit(peer, method.right)
        if method.more and request.get("more") is not True:
            raise Refused("ExpectedMore")
        return method, interface.checked(interface.SIGNATURES[where][name], parameters)

    def _permit(self, peer: Peer, right: Right) -> None:
        reads = right is Right.READER and self._readers in peer.gids
        if peer.uid != 0 and right is not Right.EVERYBODY and not reads:
            raise AgentError(Kind.DENIED, f"this is for {right.value} alone", "ask as root, for instance with sudo")

    async def _info(self, _peer: Peer, _parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        return {
            "vendor": "aftercare",
            "product": "aftercare",
            "version": self._version,
            "url": "man:aftercared(8)",
            "interfaces": sorted(interface.TEXTS),
        }


async def _description(_peer: Peer, parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
    name = parameters["interface"]
    if name not in interface.TEXTS:
        raise Refused("InterfaceNotFound", interface=name)
    return {"description": interface.TEXTS[name]}


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end, as the kernel knew him when he connected. Raises OSError.

    A user in more groups than fit (256) counts as one in his first group alone.
    """
    pid, uid, gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_SIZE)
    except OSError:
        raw = b""
    return Peer(pid, uid, frozenset({gid, *struct.unpack(f"{len(raw) // 4}I", raw)}))


def _framed(reply: dict[str, Any]) -> bytes:
    data = wire.frame(reply)
    if len(data) > wire.LARGEST_REPLY:
        raise AgentError(Kind.UNREADABLE, f"the answer is longer than {wire.LARGEST_REPLY} bytes", "ask for less")
    return data


async def _next(reader: asyncio.StreamReader) -> bytes:
    """Return the next frame without its NUL; nothing where there is none, or none within the bounds."""
    try:
        return (await reader.readuntil(b"\0"))[:-1]
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return b""


def _hung_up(writer: asyncio.StreamWriter) -> bool:
    """Whether the other end is closed, and not only done with sending."""
    if writer.transport.is_closing():
        return True
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), 0)
    return bool(poll.poll(0))


def _listen(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, 0o666)
    except OSError:
        listener.close()
        raise
    return listener
