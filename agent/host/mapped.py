"""What is behind the few mappings that matter: name, inode, content.

The name is foreign text, for any user can make maps say anything. Inode and content are reached through the
kernel's own link in `/proc/PID/map_files`, never through a path.
"""

import ctypes
import errno
import fcntl
import os
import re
import struct
from collections.abc import Collection
from dataclasses import dataclass

from agent.host.inodes import Inode, read_inode
from agent.host.mappings import EXECUTABLE_FILE, PROCMAP_QUERY, QUERY_SIZE, TEXT, read_text
from agent.model.facts import Host

MOST_RANGES = 8
BUILD_ID_SIZE = 64
_ROW = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ..x. [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+ [1-9][0-9]*) *(.*)$", re.M)


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A file that `pid` executes code from: the name that maps shows, and at which addresses it lies."""

    pid: int
    name: str
    ranges: tuple[str, ...]


def find_files(host: Host, pid: int, ids: Collection[tuple[int, int]], limit: int) -> dict[tuple[int, int], MappedFile]:
    """Return where `pid` executes which of `ids` (device as maps shows it). Raises as `read_ids` does."""
    wanted = {TEXT.pack(*id): id for id in ids}
    found: dict[tuple[int, int], MappedFile] = {}
    for chunk in read_text(host, pid, limit):
        for row in _ROW.finditer(chunk):
            id = wanted.get(row[3])
            earlier = found.get(id) if id else None
            if id and (earlier is None or len(earlier.ranges) < MOST_RANGES):
                name = os.fsdecode(row[4].replace(b"\\012", b"\n"))
                found[id] = MappedFile(pid, name, (*(earlier.ranges if earlier else ()), _range(row[1], row[2])))
    return found


def _range(start: bytes, end: bytes) -> str:
    """Maps pads addresses with zeros, the names in map_files are without."""
    return f"{int(start, 16):x}-{int(end, 16):x}"


def read_mapped(host: Host, file: MappedFile) -> Inode | None:
    """Return the inode behind a mapping; None where that is not permitted (it takes CAP_CHECKPOINT_RESTORE).

    Raises OSError, ProcessLookupError among them where the mapping is gone.
    """
    for place in file.ranges:
        try:
            return read_inode(f"{host.proc}/{file.pid}/map_files/{place}", follow=True)
        except PermissionError:
            return None
        except FileNotFoundError:
            continue
    raise ProcessLookupError(errno.ESRCH, "the mapping is gone")


def open_mapped(host: Host, file: MappedFile) -> int:
    """Return a descriptor to read what is mapped, once its inode was looked at. Raises OSError."""
    for place in file.ranges:
        try:
            return os.open(
                f"{host.proc}/{file.pid}/map_files/{place}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            )
        except FileNotFoundError:
            continue
    raise ProcessLookupError(errno.ESRCH, "the mapping is gone")


def read_build_id(host: Host, file: MappedFile) -> bytes | None:
    """Return the GNU build-id that the kernel finds in what we may not open; None: unknown."""
    target = ctypes.create_string_buffer(BUILD_ID_SIZE)
    question = bytearray(QUERY_SIZE)
    start = int(file.ranges[0].partition("-")[0], 16)
    struct.pack_into("=QQQ", question, 0, QUERY_SIZE, EXECUTABLE_FILE, start)
    struct.pack_into("=I", question, 84, BUILD_ID_SIZE)
    struct.pack_into("=Q", question, 96, ctypes.addressof(target))
    try:
        with open(f"{host.proc}/{file.pid}/maps", "rb", buffering=0) as maps:
            fcntl.ioctl(maps, PROCMAP_QUERY, question)
    except OSError:
        return None
    return target.raw[: struct.unpack_from("=I", question, 84)[0]] or None
