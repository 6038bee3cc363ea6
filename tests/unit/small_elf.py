"""Small ELF64 shared objects made in memory, with what a test wants in their dynamic section and symbols."""

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.model.facts import Host

BASE = 0x40000
"""Where the file is loaded: addresses must not be taken for offsets."""
X86_64, ARM64 = 62, 183
NARROW = (
    b"\x7fELF\x01\x01\x01"
    + bytes(9)
    + struct.pack("<HHIIIIIHHHHHH", 3, 3, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    + bytes(32)
)
"""A sound file of 32 bits."""


@dataclass
class _Strings:
    data: bytearray = field(default_factory=lambda: bytearray(1))

    def add(self, text: str) -> int:
        at = len(self.data)
        self.data += text.encode(errors="surrogateescape") + b"\0"
        return at


def made(
    needed: Sequence[str] = (),
    soname: str = "",
    rpath: str = "",
    runpath: str = "",
    defined: Sequence[str] = (),
    at_load: Sequence[str] = (),
    at_call: Sequence[str] = (),
    now: bool = False,
    gnu_hash: bool = True,
    machine: int = X86_64,
    build_id: bytes = b"",
) -> bytes:
    """Return a shared object; `defined` are functions that it offers, the others names that it must be given."""
    strings = _Strings()
    rows = [(1, strings.add(name)) for name in needed]
    rows += [(tag, strings.add(text)) for tag, text in ((14, soname), (15, rpath), (29, runpath)) if text]
    wanted = [*at_load, *at_call]
    symbols = bytes(24) + b"".join(_symbol(strings.add(name), 0) for name in wanted)
    symbols += b"".join(_symbol(strings.add(name), 7) for name in defined)
    data = b"".join(_relocation(6, 1 + at) for at in range(len(at_load)))
    calls = b"".join(_relocation(7, 1 + len(at_load) + at) for at in range(len(at_call)))
    hashed = _gnu(1 + len(wanted), len(defined)) if gnu_hash else _sysv(1 + len(wanted) + len(defined))
    note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id if build_id else b""
    rows += [(24, 0)] if now else []
    parts = [bytes(strings.data), symbols, data, calls, hashed, note]
    start, places = 64 + 3 * 56, []
    for part in parts:
        places.append(start)
        start += -(-len(part) // 8) * 8
    rows += [(5, BASE + places[0]), (10, len(parts[0])), (6, BASE + places[1])]
    rows += [(7, BASE + places[2]), (8, len(data))] if data else []
    rows += [(23, BASE + places[3]), (2, len(calls))] if calls else []
    rows += [(0x6FFFFEF5 if gnu_hash else 4, BASE + places[4]), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *row) for row in rows)
    body = b"".join(part + bytes(-len(part) % 8) for part in parts) + dynamic
    segments = [(1, 0, start + len(dynamic)), (2, start, len(dynamic)), (4, places[5], len(note))]
    return _header(machine) + b"".join(_segment(*row) for row in segments) + body


def _symbol(name: int, section: int) -> bytes:
    return struct.pack("<IBBHQQ", name, 0x12, 0, section, 0x10 if section else 0, 0)


def _relocation(kind: int, symbol: int) -> bytes:
    return struct.pack("<QIIq", 0x100, kind, symbol, 0)


def _gnu(first: int, count: int) -> bytes:
    chain = [2] * (count - 1) + [3] if count else []
    return struct.pack("<IIIIQI", 1, first, 1, 0, 0, first if count else 0) + struct.pack(f"<{count}I", *chain)


def _sysv(count: int) -> bytes:
    return struct.pack(f"<III{count}I", 1, count, 0, *[0] * count)


def _header(machine: int) -> bytes:
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0)


def _segment(kind: int, start: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, 4, start, BASE + start, BASE + start, size, size, 4)


def link(host: Host, path: str, target: str) -> None:
    """Make a symlink below the root of `host`."""
    place = Path(host.under(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def cache(*entries: tuple[str, str], flags: int = 0x0303, special: int = 0, old: bytes = b"") -> bytes:
    """Return an ld.so.cache; entries: (name, path)."""
    start = 48 + 24 * len(entries)
    texts, rows = bytearray(), b""
    for name, path in entries:
        at = [start + len(texts), start + len(texts) + len(name) + 1]
        texts += f"{name}\0{path}\0".encode()
        rows += struct.pack("<iIIIQ", flags, *at, 0, special)
    return old + b"glibc-ld.so.cache1.1" + struct.pack("<II20x", len(entries), len(texts)) + rows + bytes(texts)


@contextmanager
def opened(content: bytes) -> Iterator[int]:
    """Give a descriptor of a file in memory."""
    fd = os.memfd_create("elf")
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)
