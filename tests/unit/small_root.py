"""A made-up system to look at: its root, its /proc, and the headers of kernels and microcode."""

import struct
from pathlib import Path

from agent.model.facts import Host

RELEASE = "6.1.0-56-cloud-amd64"
TEXT = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)"
BANNER = f"{RELEASE} (debian-kernel@lists.debian.org) {TEXT}"
CPUINFO = """\
processor\t: 0
vendor_id\t: {vendor}
cpu family\t: {family}
model\t\t: {model}
model name\t: Some: thing
stepping\t: {stepping}
microcode\t: 0x2f
flags\t\t: fpu vme{flags}
power management:

processor\t: 1
microcode\t: 0x11
"""


def booted(directory: Path) -> Host:
    """Return a system that was booted: its PID 1 has its root."""
    (directory / "root/run/systemd/system").mkdir(parents=True)
    (directory / "proc/1").mkdir(parents=True)
    (directory / "proc/1/root").symlink_to(directory / "root")
    return Host(str(directory / "root"), str(directory / "proc"))


def put(host: Host, path: str, data: bytes | str) -> Path:
    """Write a file below the root, and return where."""
    place = Path(host.under(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data if isinstance(data, bytes) else data.encode())
    return place


def proc(host: Host, path: str, text: str) -> None:
    """Write a file of /proc."""
    put(Host("/"), f"{host.proc}/{path}", text)


def bzimage(banner: str = BANNER, pointer: int = 0x42C0, sectors: int = 39, magic: bytes = b"HdrS") -> bytes:
    """Return the beginning of an x86 kernel image, as Debian's 6.1 is laid out."""
    head = bytearray(0x8000)
    head[0x1F1] = sectors
    head[0x202:0x206] = magic
    struct.pack_into("<H", head, 0x20E, pointer)
    text = banner.encode() + b"\0"
    head[pointer + 0x200 : pointer + 0x200 + len(text)] = text
    return bytes(head)


def intel(
    revision: int, signature: int = 0x50654, mask: int = 0xB7, extra: tuple[tuple[int, int], ...] = (), size: int = 2000
) -> bytes:
    """Return one of Intel's updates; `extra`: signatures and platforms beside its own."""
    table = struct.pack("<II12x", len(extra), 0) if extra else b""
    table += b"".join(struct.pack("<III", sign, other, 0) for sign, other in extra)
    total = 48 + size + len(table)
    sizes = (0, 0) if size == 2000 and not extra else (size, total)
    return struct.pack("<IIIIIIIII12x", 1, revision, 0x11222026, signature, 0, 1, mask, *sizes) + bytes(size) + table


def amd(
    *patches: tuple[int, int], equivalents: tuple[tuple[int, int], ...] = ((0xA00F11, 0xA011),), size: int = 5568
) -> bytes:
    """Return one of AMD's containers; patches: (revision, what processors it is for equal)."""
    table = b"".join(struct.pack("<I8xHH", installed, equal, 0) for installed, equal in (*equivalents, (0, 0)))
    data = b"DMA\0" + struct.pack("<II", 0, len(table)) + table
    for revision, processor in patches:
        head = struct.pack("<II16xH", 0x20261122, revision, processor)
        data += struct.pack("<II", 1, size) + head + bytes(size - len(head))
    return data
