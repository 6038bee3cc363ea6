"""Opens what lies below a directory, never over a mount and never through a symbolic link.

Whoever owns a tree may change it while it is looked at: put a link, a FIFO or a FUSE mount in the place of what was
just seen. One call of openat2(2), Linux 5.6, rules that out; there is nothing to check afterwards. Nothing is written.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterator
from functools import cache
from itertools import islice

OPENAT2 = 437
"""The number of openat2 on every architecture that Debian has (asm-generic); the C library has no name for it."""
NO_MOUNTS, NO_MAGIC, NO_LINKS, BENEATH = 0x01, 0x02, 0x04, 0x08
"""RESOLVE_* of linux/openat2.h."""
STRICT = NO_MOUNTS | NO_MAGIC | NO_LINKS | BENEATH
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
LOOK = os.O_PATH | os.O_NOFOLLOW
"""A link at the end is looked at itself."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, mtime (ns), ctime (ns): while these are the same, so is the content."""

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
_syscall.restype = ctypes.c_long
_LENGTH = 24


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Return a descriptor of `path`, relative to the descriptor `directory`.

    Raises OSError: EXDEV where a mount is in the way, ELOOP where a link is.
    """
    descriptor: int = _syscall(OPENAT2, directory, os.fsencode(path or "."), _how(flags), _LENGTH)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return descriptor


def probe() -> None:
    """Raise OSError where the kernel has no openat2, or a sandbox forbids it."""
    top = os.open("/", DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(open_beneath(top, "", LOOK))
    finally:
        os.close(top)


@cache
def _how(flags: int) -> bytes:
    """`struct open_how`: flags, mode, resolve."""
    return struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, STRICT)


def read_stamp(directory: int, path: str) -> tuple[Stamp, os.stat_result]:
    """Return the stamp of what is at `path`, and all that stat says of it; it is not opened. Raises OSError."""
    descriptor = open_beneath(directory, path, LOOK)
    try:
        facts = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns), facts


def read_beneath(directory: int, path: str, most: int) -> bytes | None:
    """Return up to `most` bytes of a regular file; None where there is none that may be read."""
    try:
        descriptor = open_beneath(directory, path, READ)
    except OSError:
        return None
    try:
        return os.pread(descriptor, most, 0) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def list_beneath(directory: int, path: str, most: int) -> list[str]:
    """Return the names in a directory, in no order, at most `most` of them. Raises OSError."""
    return [entry.name for entry in islice(scan_beneath(directory, path), most)]


def scan_beneath(directory: int, path: str) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a directory. Only `name` and what needs no stat may be asked of them. Raises OSError."""
    descriptor = open_beneath(directory, path, DIRECTORY)
    try:
        with os.scandir(descriptor) as entries:
            yield from entries
    finally:
        os.close(descriptor)
