"""Which files processes execute code from, as numbers.

Two engines with one answer: `query` asks the kernel for one executable file mapping after the other (the
ioctl PROCMAP_QUERY, Linux 6.11), `text` takes three columns of `/proc/PID/maps`. No path of a process is
looked at. Ids are (device, inode), with the device as maps shows it or as `stat` does (`st_dev`): the two
differ on btrfs and overlayfs, and `calibrate` finds out how.
"""

import errno
import fcntl
import mmap
import os
import re
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import repeat

from agent.host import processes
from agent.host.inodes import identify
from agent.model.facts import Host, Mapped

Ids = frozenset[tuple[int, int]]
Pick = Callable[[set[bytes]], Ids]
NOTHING: Ids = frozenset()

CHUNK = 64 << 10
MOST_SAMPLES = 3
TEXT_PER_MAPPING = 256

PROCMAP_QUERY = 0xC0686611
"""_IOWR('f', 17, struct procmap_query); where an architecture has other numbers, the text engine serves."""
QUERY_SIZE = 104
FROM_HERE = 0x10
EXECUTABLE_FILE = 0x04 | 0x20

_question = bytearray(struct.pack("=QQ", QUERY_SIZE, EXECUTABLE_FILE | FROM_HERE).ljust(QUERY_SIZE, b"\0"))
_asked, _ended, _answer = (memoryview(_question)[part] for part in (slice(16, 24), slice(32, 40), slice(64, 80)))
"""One for all of a worker's processes, which are asked about one after the other, and views of what changes in it."""

_EXECUTABLE = re.compile(rb"\n[0-9a-f]+-[0-9a-f]+ ..x. [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+ [1-9][0-9]*)")
"""Anchored to the line: a newline in a name is shown as \\012, anything else of a row can be part of one. What begins
with a literal is looked for from line to line; `^` is tried at each byte, which takes half as long again.
"""


class Why(StrEnum):
    """Why a process was not read."""

    DENIED = "denied"
    MANY = "many"
    FAILED = "failed"
    LATE = "late"
    STUCK = "stuck"
    CROWD = "crowd"


class TooMany(Exception):
    """A process has more mappings than its reader was told to wait for."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A way to read. `read(host, pid, limit)` gives keys: `pack` makes one of an id, `unpack` undoes that."""

    name: str
    read: Callable[[Host, int, int], set[bytes]]
    pack: Callable[[int, int], bytes]
    unpack: Callable[[bytes], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Unseen:
    """A process whose mappings were not read, or not to their end."""

    pid: int
    why: Why


def choose_engine(host: Host) -> Engine:
    """Return the fastest engine that works here, which is tried and not looked up."""
    try:
        _query(host, os.getpid(), 1)
    except TooMany:
        return QUERY
    except OSError:
        return TEXT
    return QUERY


def read_ids(host: Host, pid: int, engine: Engine, limit: int) -> Ids:
    """Return the ids (device as maps shows it) of the files that `pid` executes code from.

    Raises OSError, or TooMany where it has more than `limit` mappings. A process that is gone may have none.
    """
    return frozenset(map(engine.unpack, engine.read(host, pid, limit)))


def scan(host: Host, pids: Iterable[int], pick: Pick, engine: Engine, limit: int) -> Iterator[Mapped | Unseen]:
    """Yield the processes of which `pick` picks something, and those that were not read. Gone is neither.

    A process whose main thread has ended goes by another thread of it, which procfs knows by its number too.
    """
    for leader in pids:
        pid = leader
        try:
            pid, keys = _read_living(host, leader, engine, limit)
            ids = pick(keys)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            yield Unseen(pid, Why.DENIED)
        except TooMany:
            yield Unseen(pid, Why.MANY)
        except OSError:
            yield Unseen(pid, Why.FAILED)
        else:
            if ids:
                yield Mapped(pid, ids)


def _read_living(host: Host, pid: int, engine: Engine, limit: int) -> tuple[int, set[bytes]]:
    """Return whom to ask of the process `pid`, and the keys of its mappings."""
    try:
        if keys := engine.read(host, pid, limit):
            return pid, keys
    except ProcessLookupError:
        pass
    thread = processes.read_other_thread(host, pid)
    return (thread, engine.read(host, thread, limit)) if thread else (pid, set())


def among(wanted: Collection[tuple[int, int]], devices: Mapping[int, int], engine: Engine) -> Pick:
    """Return what picks the `wanted` ids, given and returned by `st_dev`. devices: see `calibrate`."""
    meant: dict[bytes, list[tuple[int, int]]] = {}
    for device, inode in wanted:
        if device in devices:
            meant.setdefault(engine.pack(devices[device], inode), []).append((device, inode))
    keys = frozenset(meant)

    def pick(read: set[bytes]) -> Ids:
        return NOTHING if keys.isdisjoint(read) else frozenset(id for key in read & keys for id in meant[key])

    return pick


def strangers(known: Iterable[tuple[int, int]], devices: Mapping[int, int], engine: Engine) -> Pick:
    """Return what picks ids on `devices` that are not `known`, by `st_dev`: each that its file may be on."""
    keys = frozenset(engine.pack(devices[device], inode) for device, inode in known if device in devices)
    places: dict[int, list[int]] = {}
    for device, shown in devices.items():
        places.setdefault(shown, []).append(device)

    def pick(read: set[bytes]) -> Ids:
        others = map(engine.unpack, read - keys)
        return frozenset((device, inode) for shown, inode in others for device in places.get(shown, ()))

    return pick


def calibrate(host: Host, samples: Iterable[str], wanted: Collection[int]) -> dict[int, int]:
    """Return, by `st_dev`, the device that maps shows for files on it, found out on a mapping of our own.

    samples: paths in the host, read on until each `wanted` device is known, or was tried a few times. Devices of
    which no file can be mapped are left out, and those where even the inode is shown differently.
    """
    devices: dict[int, int] = {}
    left = dict.fromkeys(wanted, MOST_SAMPLES)
    for path in samples if left else ():
        id = identify(host.under(path))
        if id is None or id.device not in left:
            continue
        left[id.device] -= 1
        shown = _map_once(host, host.under(path), id.inode)
        if shown is not None:
            devices[id.device] = shown
        if shown is not None or not left[id.device]:
            del left[id.device]
        if not left:
            break
    return devices


def _map_once(host: Host, path: str, inode: int) -> int | None:
    """Map a page of a file, not executable, and return the device that our maps then show with its inode."""
    before = set(_own_rows(host))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        with mmap.mmap(fd, 1, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ):
            added = set(_own_rows(host)) - before
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
    shown = (TEXT.unpack(b" ".join(row.split(maxsplit=5)[3:5])) for row in added)
    return next((device for device, number in shown if number == inode), None)


def _own_rows(host: Host) -> list[bytes]:
    return [row for lines in read_text(host, os.getpid(), 1 << 20) for row in lines.split(b"\n") if row]


def _query(host: Host, pid: int, limit: int) -> set[bytes]:
    """Ask for one mapping at a time. Keys: the 16 bytes of inode and device numbers in an answer."""
    found: set[bytes] = set()
    ask, key, add = fcntl.ioctl, _answer.tobytes, found.add
    _asked[:] = bytes(8)
    maps = os.open(f"{host.proc}/{pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in repeat(None, limit):
            ask(maps, PROCMAP_QUERY, _question)
            add(key())
            _asked[:] = _ended
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ESRCH):
            return found
        raise
    finally:
        os.close(maps)
    raise TooMany


def _text(host: Host, pid: int, limit: int) -> set[bytes]:
    """Read maps once. Keys: device and inode as they stand there."""
    found: set[bytes] = set()
    for chunk in read_text(host, pid, limit):
        found.update(_EXECUTABLE.findall(b"\n" + chunk))
    return found


def read_text(host: Host, pid: int, limit: int) -> Iterator[bytes]:
    """Yield the rows of maps, whole, some at a time; raise TooMany after `limit` rows of the usual length."""
    left = limit * TEXT_PER_MAPPING
    rest = b""
    with open(f"{host.proc}/{pid}/maps", "rb", buffering=0) as maps:
        while chunk := maps.read(CHUNK):
            whole, newline, beginning = chunk.rpartition(b"\n")
            if newline:
                yield rest + whole + newline
            rest = beginning if newline else rest + chunk
            left -= len(chunk)
            if left < 0:
                raise TooMany


def _unpack_text(key: bytes) -> tuple[int, int]:
    device, _, inode = key.partition(b" ")
    major, _, minor = device.partition(b":")
    return os.makedev(int(major, 16), int(minor, 16)), int(inode)


QUERY = Engine(
    "query",
    _query,
    lambda device, inode: struct.pack("=QII", inode, os.major(device), os.minor(device)),
    lambda key: (os.makedev(*struct.unpack_from("=II", key, 8)), int.from_bytes(key[:8], sys.byteorder)),
)
TEXT = Engine(
    "text", _text, lambda device, inode: b"%02x:%02x %d" % (os.major(device), os.minor(device), inode), _unpack_text
)
