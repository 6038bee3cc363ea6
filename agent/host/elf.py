"""A bounded reader of ELF files: build-ids and sameness of content. Maps no file and trusts no size in one.

A few `pread`s of at most 64 KiB each, whatever the file claims; 32 and 64 bit, both byte orders.
Layout: elf(5), and the notes of /usr/include/elf.h.
"""

import os
import stat
import struct
from dataclasses import dataclass

from agent.model.errors import AgentError, Kind

MOST_BYTES = 64 << 10
MOST_SEGMENTS = 128
MOST_NOTE_SEGMENTS = 8
LONGEST_BUILD_ID = 64
LARGEST_COMPARED = 512 << 20
PT_NOTE = 4
NT_GNU_BUILD_ID = 3
GNU = b"GNU\0"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where fields lie. header: phoff, phentsize, phnum; segment: type, offset, size, align."""

    header: str
    segment: str
    segment_size: int


_LAYOUTS = {1: _Layout("28xI10xHH", "II8xI8xI", 32), 2: _Layout("32xQ14xHH", "I4xQ16xQ8xQ", 56)}
_ORDERS = {1: "<", 2: ">"}


def build_id(fd: int) -> bytes | None:
    """Return the GNU build-id of the file behind `fd`; None where it has none or is no sound ELF file.

    Raises AgentError(UNREADABLE) where the file cannot be read.
    """
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return _build_id(fd)
    except OSError as problem:
        raise AgentError(Kind.UNREADABLE, f"an ELF file cannot be read: {problem.strerror}") from problem


def _build_id(fd: int) -> bytes | None:
    head = os.pread(fd, 64, 0)
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in _LAYOUTS or head[5] not in _ORDERS:
        return None
    layout, order = _LAYOUTS[head[4]], _ORDERS[head[5]]
    if struct.calcsize(order + layout.header) > len(head):
        return None
    offset, entry_size, count = struct.unpack_from(order + layout.header, head)
    if entry_size != layout.segment_size or not 0 < count <= MOST_SEGMENTS:
        return None
    table = _read(fd, offset, entry_size * count)
    if len(table) != entry_size * count:
        return None
    notes = [row for row in struct.iter_unpack(order + layout.segment, table) if row[0] == PT_NOTE]
    for _, start, size, alignment in notes[:MOST_NOTE_SEGMENTS]:
        found = _find_note(_read(fd, start, min(size, MOST_BYTES)), order, 8 if alignment == 8 else 4)
        if found:
            return found
    return None


def _read(fd: int, offset: int, size: int) -> bytes:
    """Return up to `size` bytes; what lies beyond the end of the file, or of any file, is empty."""
    if offset >= 1 << 62:
        return b""
    return os.pread(fd, size, offset)


def _find_note(notes: bytes, order: str, alignment: int) -> bytes | None:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from(f"{order}III", notes, at)
        start = at + 12 + _padded(name_size, alignment)
        if start + size > len(notes):
            return None
        if kind == NT_GNU_BUILD_ID and notes[at + 12 : at + 12 + name_size] == GNU and 0 < size <= LONGEST_BUILD_ID:
            return notes[start : start + size]
        at = start + _padded(size, alignment)
    return None


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def same_content(old: int, new: int) -> bool:
    """Return whether two open files hold the same code: the same build-id; the same bytes where one has none.

    Files above 512 MiB without build-ids count as different. Raises AgentError(UNREADABLE).
    """
    first, second = build_id(old), build_id(new)
    if first and second:
        return first == second
    try:
        return _same_bytes(old, new)
    except OSError as problem:
        raise AgentError(Kind.UNREADABLE, f"a file cannot be read: {problem.strerror}") from problem


def _same_bytes(old: int, new: int) -> bool:
    rows = os.fstat(old), os.fstat(new)
    if not all(stat.S_ISREG(row.st_mode) for row in rows):
        return False
    size = rows[0].st_size
    if size != rows[1].st_size or size > LARGEST_COMPARED:
        return False
    step = 1 << 20
    return all(os.pread(old, step, at) == os.pread(new, step, at) for at in range(0, size, step))
