"""What the kernel says of one inode, birth time included, which `os.stat` does not give. Reads no content.

statx(2) through the C library; where that lacks it (birth 0, unknown) `os.stat` answers.
"""

import ctypes
import os
import stat
import struct
from dataclasses import dataclass

from agent.model.facts import FileId

AT_FDCWD = -100
AT_NO_AUTOMOUNT = 0x800
AT_SYMLINK_NOFOLLOW = 0x100
AT_STATX_DONT_SYNC = 0x4000
BASIC_STATS = 0x7FF
BIRTH = 0x800
EARLIEST = 1
"""What a birth at the epoch is given as, 0 meaning unknown: some images of file systems are full of them."""

_FIELDS = struct.Struct("=I12xI8xH2xQQ32xqI44xII").unpack_from
"""mask, links, mode, inode, size, birth (s, ns), device (major, minor): `struct statx` of linux/stat.h."""
_buffer = ctypes.create_string_buffer(256)
_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
if _statx is not None:
    _statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]


@dataclass(frozen=True, slots=True)
class Inode:
    """An inode: `links` names are left of it, `size` in bytes."""

    id: FileId
    links: int
    size: int
    regular: bool


def read_inode(path: str, *, follow: bool = False) -> Inode:
    """Return the inode at `path` without asking a server for news of it, nor mounting anything.

    follow: through a symbolic link at its end (the magic links of `/proc/PID/map_files` need it). Raises
    OSError.
    """
    flags = AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC | (0 if follow else AT_SYMLINK_NOFOLLOW)
    if _statx is None:
        return _from_stat(os.stat(path, follow_symlinks=follow))
    if _statx(AT_FDCWD, os.fsencode(path), flags, BASIC_STATS | BIRTH, ctypes.addressof(_buffer)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    mask, links, mode, inode, size, seconds, nanoseconds, major, minor = _FIELDS(_buffer)
    born = max(seconds * 1_000_000_000 + nanoseconds, EARLIEST) if mask & BIRTH else 0
    return Inode(FileId(os.makedev(major, minor), inode, born), links, size, stat.S_ISREG(mode))


def _from_stat(row: os.stat_result) -> Inode:
    return Inode(FileId(row.st_dev, row.st_ino, 0), row.st_nlink, row.st_size, stat.S_ISREG(row.st_mode))


def identify(path: str) -> FileId | None:
    """Return which regular file is at `path` (an absolute path of this machine); None where there is none."""
    try:
        inode = read_inode(path)
    except (OSError, ValueError):
        return None
    return inode.id if inode.regular else None
