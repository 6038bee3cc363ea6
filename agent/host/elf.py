"""A bounded reader of ELF files: headers, build-ids and sameness of content. Maps no file and trusts no size in one.

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
class Segment:
    """One program header: where `size` bytes lie in the file and at which address they are loaded."""

    kind: int
    offset: int
    address: int
    size: int
    alignment: int


@dataclass(frozen=True, slots=True)
class Header:
    """What an ELF file is. order: `<` or `>`, as struct has it; machine: e_machine, 62 for x86-64."""

    bits: int
    order: str
    machine: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where fields lie. header: machine, phoff, phentsize, phnum; segment: type, offset, address, size, align."""

    bits: int
    header: str
    segment: str
    segment_size: int


_LAYOUTS = {1: _Layout(32, "18xH8xI10xHH", "III4xI8xI", 32), 2: _Layout(64, "18xH12xQ14xHH", "I4xQQ8xQ8xQ", 56)}
_ORDERS = {1: "<", 2: ">"}


def read_header(fd: int) -> Header | None:
    """Return the header and segments of the file behind `fd`; None where it is no sound ELF file. Raises OSError."""
    head = os.pread(fd, 64, 0)
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in _LAYOUTS or head[5] not in _ORDERS:
        return None
    layout, order = _LAYOUTS[head[4]], _ORDERS[head[5]]
    if struct.calcsize(order + layout.header) > len(head):
        return None
    machine, offset, entry_size, count = struct.unpack_from(order + layout.header, head)
    if entry_size != layout.segment_size or not 0 < count <= MOST_SEGMENTS:
        return None
    table = read_at(fd, offset, entry_size * count)
    if len(table) != entry_size * count:
        return None
    rows = struct.iter_unpack(order + layout.segment, table)
    return Header(layout.bits, order, machine, tuple(Segment(*row) for row in rows))


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Return up to `size` bytes; what lies beyond the end of the file, or of any file, is empty. Raises OSError."""
    if offset >= 1 << 62:
        return b""
    return os.pread(fd, size, offset)


def build_id(fd: int) -> bytes | None:
    """Return the GNU build-id of the file behind `fd`; None where it has none or is no sound ELF file.

    Raises AgentError(UNREADABLE) where the file cannot be read.
    """
    try:
        header = read_header(fd) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        return find_build_id(fd, header) if header else None
    except OSError as problem:
        raise AgentError(Kind.UNREADABLE, f"an ELF file cannot be read: {problem.strerror}") from problem


def find_build_id(fd: int, header: Header) -> bytes | None:
    """Return the GNU build-id among the notes of a file whose header is known. Raises OSError."""
    notes = [segment for segment in header.segments if segment.kind == PT_NOTE]
    for part in notes[:MOST_NOTE_SEGMENTS]:
        content = read_at(fd, part.offset, min(part.size, MOST_BYTES))
        found = _find_note(content, header.order, 8 if part.alignment == 8 else 4)
        if found:
            return found
    return None


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
