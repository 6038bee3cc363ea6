"""Watches the kernel's network, its packet filter and the host name, and tells when one of them moved.

Netlink's messages are wake-ups: nothing is taken from them but whether they repeat what was said before (a router
advertisement renews every address, a bridge chats about its ports). Never polls, never asks, never sends. Any user may
listen to addresses and routes; to the rules of nftables only who was given a socket by somebody with CAP_NET_ADMIN.
"""

import asyncio
import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice

from agent.model.errors import AgentError, Kind
from agent.model.events import Touched
from agent.model.topics import Topic

HOST_NAME = "/proc/sys/kernel/hostname"

SOL_NETLINK, ADD_MEMBERSHIP = 270, 1
LINK, IPV4_ADDRESS, IPV4_ROUTE, IPV4_RULE, IPV6_ADDRESS, IPV6_ROUTE, IPV6_RULE = 1, 5, 7, 8, 9, 11, 19
GROUPS = (LINK, IPV4_ADDRESS, IPV4_ROUTE, IPV4_RULE, IPV6_ADDRESS, IPV6_ROUTE, IPV6_RULE)
"""RTNLGRP_* of linux/rtnetlink.h. Not among them: neighbours, who come and go all day."""

NEW_LINK, DELETE_LINK, NEW_ADDRESS, DELETE_ADDRESS = 16, 17, 20, 21
WORDS = {
    NEW_LINK: "a link",
    DELETE_LINK: "a link",
    NEW_ADDRESS: "an address",
    DELETE_ADDRESS: "an address",
    24: "a route",
    25: "a route",
    32: "a routing rule",
    33: "a routing rule",
    **{0xA00 + kind: "the packet filter" for kind in (0, 2, 3, 5, 6, 8)},
}
"""RTM_* of linux/rtnetlink.h; of linux/netfilter/nf_tables.h tables, chains and rules, not what sets contain."""

HEADER = struct.Struct("=IHHII")
ABOUT_LINK = struct.Struct("=BxHiII")
ABOUT_ADDRESS = struct.Struct("=BBBBI")
ATTRIBUTE = struct.Struct("=HH")
LINK_NAME = 3
ADDRESS_PEER, ADDRESS_LOCAL, ADDRESS_FLAGS = 1, 2, 8
LINK_STATE = 0x10041
"""IFF_UP, IFF_RUNNING, IFF_LOWER_UP: not whether somebody listens to all that passes."""

ROOM = 1 << 16
MOST_READS = 1024
"""How many messages are read at one go: more than wait in a socket's buffer. What comes meanwhile wakes again."""
MOST_KNOWN = 4096
"""How many links and addresses are remembered; with more of them, some wake that need not."""


class KernelWatch:
    """The kernel's messages. `tell` gets each wake-up: one for all that is pending.

    rules: the descriptor of a socket of NETLINK_NETFILTER that is bound to the group of nftables (mask 64); it is
    closed with the watch. None: changes of the packet filter are not noticed.
    """

    def __init__(
        self,
        tell: Callable[[Touched], None],
        rules: int | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tell = tell
        self._rules = rules
        self._clock = clock
        self._sockets: list[socket.socket] = []
        self._descriptors: list[int] = []
        self._known: dict[bytes, bytes] = {}
        self._name = ""
        self._opened = contextlib.ExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch; raise AgentError(UNREADABLE) where the kernel refuses."""
        try:
            with contextlib.ExitStack() as opened:
                self._sockets = [opened.enter_context(each) for each in self._subscribe()]
                self._renamed = _wait_for_rename(opened)
                self._opened = opened.pop_all()
        except OSError as problem:
            hint = "does the unit allow AF_NETLINK, and is /proc mounted?"
            raise AgentError(Kind.UNREADABLE, f"the kernel's network cannot be watched: {problem}", hint) from problem
        self._name = os.uname().nodename
        self._loop = loop
        self._descriptors = [*(source.fileno() for source in self._sockets), self._renamed.fileno()]
        for descriptor in self._descriptors:
            loop.add_reader(descriptor, self.drain)

    def _subscribe(self) -> Iterator[socket.socket]:
        if self._rules is not None:
            os.set_blocking(self._rules, False)
            os.set_inheritable(self._rules, False)
            yield socket.socket(fileno=self._rules)
        yield _listen()

    def close(self) -> None:
        """Stop watching. May be called twice."""
        if self._loop is not None:
            for descriptor in self._descriptors:
                self._loop.remove_reader(descriptor)
            self._opened.close()
            self._loop = None
            self._known.clear()

    def drain(self) -> bool:
        """Read what is pending, tell it once, and return whether there was something. Does nothing when not started."""
        if self._loop is None:
            return False
        moved = dict.fromkeys(self._read_name())
        for source in self._sockets:
            for data in islice(_pending(source), MOST_READS):
                moved |= dict.fromkeys(self._take(data))
        if moved:
            self._tell(Touched(Topic.NETWORK, ", ".join(moved), self._clock()))
        return bool(moved)

    def _read_name(self) -> Iterator[str]:
        """Say whether the host has another name. Renaming another UTS namespace wakes too, and is nothing."""
        name = os.uname().nodename
        if name != self._name:
            yield "the host name"
        self._name = name

    def _take(self, data: bytes) -> Iterator[str]:
        """Yield what moved, in words."""
        if not data:
            self._known.clear()
            yield "messages of the kernel were lost"
        for kind, body in _messages(data):
            if kind in WORDS and self._is_news(kind, body):
                yield WORDS[kind]

    def _is_news(self, kind: int, body: bytes) -> bool:
        """Return whether a message says something else of its link or address than the last one did."""
        if kind not in (NEW_LINK, NEW_ADDRESS, DELETE_LINK, DELETE_ADDRESS):
            return True
        key, state = _link(body) if kind in (NEW_LINK, DELETE_LINK) else _address(body)
        if kind in (DELETE_LINK, DELETE_ADDRESS):
            self._known.pop(key, None)
            return True
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        known, self._known[key] = self._known.get(key), state
        return known != state


def _listen() -> socket.socket:
    """Return a socket that gets the messages of GROUPS."""
    listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        listening.bind((0, 0))
        for group in GROUPS:
            listening.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)
    except OSError:
        listening.close()
        raise
    return listening


def _pending(source: socket.socket) -> Iterator[bytes]:
    """Yield the batches of messages that wait to be read; an empty one: some were lost."""
    while True:
        try:
            yield source.recv(ROOM)
        except BlockingIOError:
            return
        except OSError as problem:
            if problem.errno != errno.ENOBUFS:
                raise
            yield b""


def _wait_for_rename(opened: contextlib.ExitStack) -> select.epoll:
    """Return an epoll that wakes when a host is renamed, and closes with `opened`.

    The file is always readable, so a plain reader of it would spin; it is asked for EPOLLPRI alone.
    """
    descriptor = os.open(HOST_NAME, os.O_RDONLY | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    renamed = opened.enter_context(select.epoll())
    renamed.register(descriptor, select.EPOLLPRI)
    return renamed


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each message in one batch."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            return
        yield kind, data[offset + HEADER.size : offset + length]
        offset += _aligned(length)


def _link(body: bytes) -> tuple[bytes, bytes]:
    """Return which link a message is about, and what is said of it that matters: its name, and whether it is up."""
    _, _, index, flags, _ = ABOUT_LINK.unpack_from(body)
    name = _attributes(body, ABOUT_LINK.size).get(LINK_NAME, b"")
    return b"link %d" % index, b"%d %s" % (flags & LINK_STATE, name)


def _address(body: bytes) -> tuple[bytes, bytes]:
    """Return which address of which link a message is about, and its flags. Lifetimes run; they do not matter."""
    family, prefix, flags, _, index = ABOUT_ADDRESS.unpack_from(body)
    found = _attributes(body, ABOUT_ADDRESS.size)
    address = found.get(ADDRESS_LOCAL, found.get(ADDRESS_PEER, b""))
    return b"address %d %d %d %s" % (index, family, prefix, address), found.get(ADDRESS_FLAGS, bytes([flags]))


def _attributes(body: bytes, offset: int) -> dict[int, bytes]:
    """Return the attributes of a message, from `offset`, by their type."""
    found = {}
    while offset + ATTRIBUTE.size <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, offset)
        if length < ATTRIBUTE.size:
            break
        found[kind] = body[offset + ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return found


def _aligned(length: int) -> int:
    """Netlink pads to four bytes."""
    return (length + 3) & ~3
