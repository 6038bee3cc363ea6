"""Watches a few directories and tells which area was touched.

Directories, never files: a watch on a file dies when somebody removes it. Never recursive, never polls,
never reads or writes what it watches. pyinotify gives the watches alone: its reader loses a batch at the
first name that is not UTF-8.
"""

import asyncio
import contextlib
import importlib
import importlib.util
import os
import struct
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.model.errors import AgentError, Kind
from agent.model.events import Topic, Touched


def _import_pyinotify() -> Any:
    """Import it on any Python: it wants asyncore, gone since 3.12, for a class that is not used here."""
    missing = importlib.util.find_spec("asyncore") is None
    if missing:
        stub = types.ModuleType("asyncore")
        vars(stub)["file_dispatcher"] = type("file_dispatcher", (), {})
        sys.modules["asyncore"] = stub
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = importlib.import_module("pyinotify")
    finally:
        if missing:
            del sys.modules["asyncore"]
    module.log.handlers.clear()
    return module


pyinotify = _import_pyinotify()

CHANGED = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO | pyinotify.IN_DELETE | pyinotify.IN_CREATE
LOST = pyinotify.IN_DELETE_SELF | pyinotify.IN_MOVE_SELF | pyinotify.IN_UNMOUNT | pyinotify.IN_IGNORED
MASK = CHANGED | pyinotify.IN_DELETE_SELF | pyinotify.IN_MOVE_SELF | pyinotify.IN_ONLYDIR
HEADER = struct.Struct("iIII")
ROOM = 1 << 16


@dataclass(frozen=True, slots=True)
class Watch:
    """The `names` in `directory` whose change touches `topic`."""

    directory: str
    names: frozenset[str]
    topic: Topic


WATCHES = (
    Watch("/var/lib/dpkg", frozenset({"lock-frontend", "lock", "status"}), Topic.PACKAGES),
    Watch("/run/aftercare", frozenset({"hook"}), Topic.PACKAGES),
)


@dataclass(frozen=True, slots=True)
class _Armed:
    """Where a watch stands: at its directory, or at the nearest parent until the directory comes back."""

    descriptor: int
    path: str


class FileWatch:
    """The watches in `watches`. `tell` gets each wake-up, `complain` what can no longer be watched."""

    def __init__(
        self,
        tell: Callable[[Touched], None],
        complain: Callable[[AgentError], None],
        watches: tuple[Watch, ...] = WATCHES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tell = tell
        self._complain = complain
        self._watches = watches
        self._clock = clock
        self._armed: dict[Watch, _Armed] = {}
        self._manager: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch; raise AgentError(UNREADABLE) where the kernel refuses."""
        try:
            self._manager = pyinotify.WatchManager()
        except OSError as problem:
            hint = "is fs.inotify.max_user_instances used up?"
            raise AgentError(Kind.UNREADABLE, f"files cannot be watched: {problem}", hint) from problem
        os.set_inheritable(self._manager.get_fd(), False)
        os.set_blocking(self._manager.get_fd(), False)
        self._loop = loop
        loop.add_reader(self._manager.get_fd(), self.drain)
        try:
            for watch in self._watches:
                self._armed[watch] = self._arm(watch.directory)
        except AgentError:
            self.close()
            raise

    def close(self) -> None:
        """Stop watching. May be called twice."""
        if self._loop is not None:
            self._loop.remove_reader(self._manager.get_fd())
            self._manager.close()
            self._loop = None
            self._armed.clear()

    def drain(self) -> bool:
        """Read all that is pending, tell each touched topic once, and return whether there was one.

        Does nothing when it is not started: the descriptor's number may be somebody else's by then.
        """
        touched: dict[Topic, str] = {}
        while self._loop is not None and (pending := self._read()):
            for descriptor, mask, name in _events(pending):
                self._take(descriptor, mask, name, touched)
        for topic, why in touched.items():
            self._tell(Touched(topic, why, self._clock()))
        return bool(touched)

    def _read(self) -> bytes:
        try:
            return os.read(self._manager.get_fd(), ROOM)
        except BlockingIOError:
            return b""

    def _take(self, descriptor: int, mask: int, name: str, touched: dict[Topic, str]) -> None:
        """Find out which topics one event touches, and follow directories that come and go."""
        overflow = mask & pyinotify.IN_Q_OVERFLOW
        for watch, armed in tuple(self._armed.items()):
            if not overflow and armed.descriptor != descriptor:
                continue
            if overflow or mask & LOST or _leads_to(watch.directory, armed.path, name):
                self._arm_again(watch)
                touched[watch.topic] = f"the watch of {watch.directory} was renewed"
            elif armed.path == watch.directory and name in watch.names:
                touched[watch.topic] = f"{watch.directory}/{name}"

    def _arm_again(self, watch: Watch) -> None:
        """Set up a watch anew; events may have been lost, and the directory may be another one now."""
        self._let_go(self._armed.pop(watch).descriptor)
        try:
            self._armed[watch] = self._arm(watch.directory)
        except AgentError as problem:
            self._complain(problem)

    def _arm(self, directory: str) -> _Armed:
        while True:
            path = _nearest(directory)
            descriptor = self._add(path)
            if descriptor is not None and _nearest(directory) == path:
                return _Armed(descriptor, path)
            if descriptor is not None:
                self._let_go(descriptor)

    def _add(self, path: str) -> int | None:
        """Return the descriptor of a watch on `path`, None where it has just vanished."""
        try:
            return int(self._manager.add_watch(path, MASK, quiet=False)[path])
        except pyinotify.WatchManagerError as problem:
            if not os.path.isdir(path):
                return None
            hint = "is fs.inotify.max_user_watches used up?"
            raise AgentError(Kind.UNREADABLE, f"{path} cannot be watched: {problem}", hint) from problem

    def _let_go(self, descriptor: int) -> None:
        """Remove a kernel watch that did not go with its directory; who shares it is told by IN_IGNORED."""
        with contextlib.suppress(pyinotify.WatchManagerError):
            self._manager.rm_watch(descriptor, quiet=False)


def _events(pending: bytes) -> Iterator[tuple[int, int, str]]:
    """Yield descriptor, mask and name of each event in what the kernel gave."""
    offset = 0
    while offset < len(pending):
        descriptor, mask, _, length = HEADER.unpack_from(pending, offset)
        offset += HEADER.size
        yield descriptor, mask, os.fsdecode(pending[offset : offset + length].rstrip(b"\0"))
        offset += length


def _nearest(path: str) -> str:
    """Return `path`, or the nearest parent that is a directory now."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _leads_to(directory: str, parent: str, name: str) -> bool:
    """Return whether `name`, an entry of `parent`, is on the way to `directory`."""
    return f"{directory}/".startswith(f"{os.path.join(parent, name)}/")
