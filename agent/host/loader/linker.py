"""Where ld.so looks for a shared object, in its order. Loads nothing, runs nothing, judges nothing.

The order is that of glibc's elf/dl-load.c: the RPATHs of the object that needs it and of those that loaded that one
(only where it has no RUNPATH), LD_LIBRARY_PATH, its own RUNPATH, /etc/ld.so.cache, the default directories. Symlinks
are followed within the root of the host. The old hwcaps (`tls`, `haswell`), gone since glibc 2.37, are not looked into.
"""

import errno
import os
import posixpath
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.host.kernel import read_beginning
from agent.host.loader.cpu import levels, read_cpu
from agent.model.facts import Host

CACHE = "/etc/ld.so.cache"
LARGEST_CACHE = 16 << 20
MOST_ENTRIES = 200_000
OLD_MAGIC, MAGIC = b"ld.so-1.7.0\0", b"glibc-ld.so.cache1.1"
X86_64 = 0x0303
"""FLAG_ELF_LIBC6 with FLAG_X8664_LIB64."""
LIB, PLATFORM = "lib/x86_64-linux-gnu", "x86_64"
"""What $LIB and $PLATFORM stand for on Debian's amd64."""
DEFAULT = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib")
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
MOST_LINKS = 40
MOST_DIRECTORIES = 64
LONGEST_PATH = 4096
TOKEN = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM)(?![A-Za-z0-9_]))")
MKL = "libmkl_"
REPLACED = (MKL, "libiomp5")
"""How the names of files begin that `Scope.instead` moves; an OpenMP runtime is kept where the other place has none."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What decides beside the files. library_path: LD_LIBRARY_PATH, split.

    executable: the interpreter whose RPATH and directory count; empty where unknown. instead: directory without
    symlinks → the directory whose MKL files are taken to lie there, to tell what another MKL would do.
    """

    library_path: tuple[str, ...] = ()
    executable: str = ""
    instead: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loader:
    """An object as a loader of others: the path by which it was loaded, its own lists, and who loaded it."""

    path: str
    rpath: str = ""
    runpath: str = ""
    parent: "Loader | None" = None


@dataclass(frozen=True, slots=True)
class System:
    """What holds for all programs of a host: name → paths of ld.so.cache, and the hwcaps directories, best first."""

    cache: Mapping[str, tuple[str, ...]]
    levels: tuple[str, ...]


def read_system(host: Host) -> System:
    """Return the cache of ld.so (empty where it is missing or unsound) and what this processor can do."""
    known = levels(read_cpu(host))
    return System(parse_cache(read_beginning(host.under(CACHE), LARGEST_CACHE) or b"", known), known)


def parse_cache(data: bytes, known: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Return the x86-64 entries of an ld.so.cache as name → paths in ld.so's order; empty where unsound. Pure.

    known: the hwcaps directories that count, best first. Layout: glibc's sysdeps/generic/dl-cache.h.
    """
    start = _skip_old(data)
    if data[start : start + 20] != MAGIC or len(data) < start + 48:
        return {}
    (count,) = struct.unpack_from("<I", data, start + 20)
    found: dict[str, list[tuple[int, str]]] = {}
    rows = data[start + 48 : start + 48 + 24 * min(count, MOST_ENTRIES)]
    for flags, key, value, _, special in struct.iter_unpack("<iIIIQ", rows[: len(rows) // 24 * 24]):
        name, path = (_text(data, start + at) for at in (key, value))
        order = _rank(path, known) if special else len(known)
        if flags == X86_64 and name and path.startswith("/") and order is not None:
            found.setdefault(name, []).append((order, path))
    return {name: tuple(path for _, path in sorted(rows, key=lambda row: row[0])) for name, rows in found.items()}


def _skip_old(data: bytes) -> int:
    """A cache for the oldest programs may precede: 16 bytes and 12 an entry, aligned to 8."""
    if data[:12] != OLD_MAGIC or len(data) < 16:
        return 0
    count: int = struct.unpack_from("<I", data, 12)[0]
    return -(-(16 + 12 * count) // 8) * 8


def _text(data: bytes, at: int) -> str:
    end = data.find(b"\0", at, at + LONGEST_PATH)
    return os.fsdecode(data[at:end]) if end > at else ""


def _rank(path: str, known: tuple[str, ...]) -> int | None:
    """Return how good the hwcaps directory is that `path` lies in; None where this processor has no use for it."""
    level = path.partition("/glibc-hwcaps/")[2].partition("/")[0]
    return known.index(level) if level in known else None


def split_path(value: str) -> tuple[str, ...]:
    """Return the directories of an LD_LIBRARY_PATH; empty and relative ones depend on a working directory: left out."""
    return tuple(part.rstrip("/") for part in re.split("[:;]", value) if part.startswith("/"))[:MOST_DIRECTORIES]


def expand(text: str, origin: str) -> tuple[str, ...]:
    """Return the directories of an RPATH or RUNPATH of an object that was loaded from the directory `origin`. Pure."""
    values = {"ORIGIN": origin, "LIB": LIB, "PLATFORM": PLATFORM}
    parts = (TOKEN.sub(lambda found: values[found[1] or found[2]], part) for part in text.split(":"))
    return tuple(part.rstrip("/") for part in parts if part.startswith("/"))[:MOST_DIRECTORIES]


def search(name: str, loader: Loader, scope: Scope, system: System) -> Iterator[str]:
    """Yield the paths at which ld.so looks for `name` on behalf of `loader`, in its order. Pure.

    A path that is the right one is what ld.so then calls the object: not normalised, symlinks not followed.
    """
    if "/" in name:
        yield from expand(name, posixpath.dirname(loader.path))
        return
    for directory in _configured(loader, scope):
        yield from _in_directory(directory, name, system)
    yield from system.cache.get(name, ())
    for directory in DEFAULT:
        yield from _in_directory(directory, name, system)


def _configured(loader: Loader, scope: Scope) -> Iterator[str]:
    if not loader.runpath:
        above: Loader | None = loader
        while above:
            if not above.runpath:
                yield from expand(above.rpath, posixpath.dirname(above.path))
            above = above.parent
    yield from scope.library_path
    yield from expand(loader.runpath, posixpath.dirname(loader.path))


def _in_directory(directory: str, name: str, system: System) -> Iterator[str]:
    for level in system.levels:
        yield f"{directory}/glibc-hwcaps/{level}/{name}"
    yield f"{directory}/{name}"


def directories(loader: Loader, scope: Scope) -> tuple[str, ...]:
    """Return every directory that is searched for `loader`, the default ones last. Pure."""
    return tuple(dict.fromkeys((*_configured(loader, scope), *DEFAULT)))


def follow(host: Host, path: str) -> str:
    """Return `path` without symlinks and `..`, as the kernel would walk it within the host's root.

    What does not exist is kept as it is written; empty where there are more than 40 links.
    """
    parts = path.split("/")[::-1]
    done, links = "", 0
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        target = _link(host, f"{done}/{part}")
        if target is None:
            done = f"{done}/{part}"
            continue
        links += 1
        if links > MOST_LINKS or len(parts) > LONGEST_PATH:
            return ""
        done = "" if target.startswith("/") else done
        parts += target.split("/")[::-1]
    return done or "/"


def _link(host: Host, path: str) -> str | None:
    try:
        return os.readlink(host.under(path))
    except (OSError, ValueError):
        return None


def locate(host: Host, path: str, scope: Scope) -> str:
    """Return the file that `path` leads to, without symlinks; another's place taken into account (`Scope.instead`)."""
    real = follow(host, path)
    directory, _, name = real.rpartition("/")
    if directory not in scope.instead or not name.startswith(REPLACED):
        return real
    other = follow(host, f"{scope.instead[directory]}/{name}")
    return other if name.startswith(MKL) or os.path.lexists(host.under(other)) else real


def open_regular(host: Host, real: str) -> int | None:
    """Return a descriptor of the regular file at `real`, a path without symlinks; None where there is none.

    Never opens a device, a socket or a FIFO, and follows no symlink that was put there since. Raises OSError.
    """
    path = host.under(real)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as problem:
        if isinstance(problem, OSError) and problem.errno not in NOWHERE:
            raise
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None
