"""Which files dpkg's packages own: the index of rule 3. Reads dpkg's file lists, never a file that they name.

Paths are absolute in the host (without its root) and as the kernel shows them: diversions applied,
merged-/usr resolved. Package names are without architecture: what is co-installed for several has one
version.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from agent.host.inodes import identify
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, Indexed, PackageState

DATABASE = "/var/lib/dpkg"
ALIASED = frozenset({"bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"})
"""Directories of / that merged-/usr made links into /usr; dpkg's lists may still name them."""

DATA_TREES = (
    "/boot/",
    "/etc/",
    "/usr/include/",
    "/usr/lib/debug/",
    "/usr/lib/firmware/",
    "/usr/lib/locale/",
    "/usr/lib/modules/",
    "/usr/share/bash-completion/",
    "/usr/share/doc/",
    "/usr/share/doc-base/",
    "/usr/share/fonts/",
    "/usr/share/i18n/",
    "/usr/share/icons/",
    "/usr/share/info/",
    "/usr/share/lintian/",
    "/usr/share/locale/",
    "/usr/share/man/",
    "/usr/share/mime/",
    "/usr/share/zoneinfo/",
    "/usr/src/",
)
DATA_SUFFIXES = frozenset(
    "a al am bc bz2 c cc cfg class cmake conf control cpp crt css csv def desktop dtd el elc f90 fw gif gir"
    " gpg gz h hpp html ico in inc info ini ipp jar java jmod jpg js json ko la lang lua m4 map md mo msg o"
    " pc pem ph php pl pm png po pod pom properties proto ps py pyc pyi pyx rb rs rst rules sample service sh"
    " socket sql svg t target tcl td tex tm tmac toml tpl ts ttf txt typed typelib vim wav xml xz yaml yml"
    " zst".split()
)
"""What ends the names of files that nobody executes mapped. No digits: `libssl.so.3`, `perl5.36.0`."""
LARGEST_LIST = 64 << 20


@dataclass(frozen=True, slots=True)
class _Diversion:
    """Of a path: what any package but `package` (":", a local one: any at all) ships there lies at `to`."""

    to: str
    package: str


def may_hold_code(path: str) -> bool:
    """Return whether the file at that path of a package may be one that processes execute.

    Pure, and by exclusion: programs and plugins have any name, anywhere.
    """
    return path[path.rfind(".") + 1 :] not in DATA_SUFFIXES and not path.startswith(DATA_TREES)


def canonical(host: Host, path: str) -> str:
    """Return the name that the kernel shows for a package's path: `/usr/lib/x` for `/lib/x` if that links."""
    top, separator, rest = path[1:].partition("/")
    if not separator or top not in ALIASED:
        return path
    try:
        target = os.readlink(host.under(f"/{top}"))
    except OSError:
        return path
    return f"/usr/{top}/{rest}" if target.lstrip("/") == f"usr/{top}" else path


def within(host: Host, path: str) -> str | None:
    """Return the name inside the host of this machine's `path`; None where it lies outside of its root."""
    if host.root == "/":
        return path
    return path.removeprefix(host.root) if path.startswith(f"{host.root}/") else None


def code_paths(host: Host, packages: Iterable[PackageState]) -> Iterator[tuple[str, PackageState]]:
    """Yield the path of each file that may hold code and its package, whether it is there or not.

    Raises AgentError(UNREADABLE) where a file list cannot be read; one that is missing is a package without
    files.
    """
    diversions = _read_diversions(host)
    for package in packages:
        lines = os.fsdecode(_read_list(host, package)).split("\n")
        for path, following in pairwise(lines):
            if path not in diversions and not may_hold_code(path):
                continue  # most of them, so that they are done with first
            if path != "/." and not following.startswith(f"{path}/"):
                place = _place(host, diversions, package.name, path)
                if may_hold_code(place):
                    yield place, package


def read_index(host: Host, packages: Iterable[PackageState]) -> Iterator[Indexed]:
    """Yield the files of `packages` that may hold code, as they are now. Raises as `code_paths` does."""
    for path, package in code_paths(host, packages):
        id = identify(host.under(path))
        if id:
            yield Indexed(path, package.name, package.version, id)


def read_owners(host: Host, paths: Collection[str]) -> dict[str, str]:
    """Return the package of each of `paths` that has one, whatever state that package is in.

    Raises AgentError(UNREADABLE) where a file list cannot be read.
    """
    diversions = _read_diversions(host)
    meant: dict[bytes, list[tuple[str, str]]] = {}
    for path in paths:
        spelt = _spellings(host, diversions, path)
        for name in spelt:
            meant.setdefault(os.fsencode(name), []).append((path, spelt[0]))
    owners: dict[str, str] = {}
    for package, text in _read_lists(host) if paths else ():
        for line in meant.keys() & text.split(b"\n"):  # one pass, however many paths somebody makes us ask for
            lies_at = _place(host, diversions, package, os.fsdecode(line))
            owners |= {path: package for path, place in meant[line] if place == lies_at}
    return owners


def _spellings(host: Host, diversions: Mapping[str, _Diversion], path: str) -> list[str]:
    """Return the canonical name of `path`, and the names under which lists may have what lies there."""
    place = canonical(host, path)
    moved = [source for source, diversion in diversions.items() if canonical(host, diversion.to) == place]
    short = [name.removeprefix("/usr") for name in (place, *moved) if name.startswith("/usr/")]
    return [place, *moved, *(name for name in short if name[1:].partition("/")[0] in ALIASED)]


def _place(host: Host, diversions: Mapping[str, _Diversion], package: str, path: str) -> str:
    """Return where that package's `path` lies. dpkg compares diversions to the letter, aliases unresolved."""
    diversion = diversions.get(path)
    moved = diversion is not None and diversion.package != package
    return canonical(host, diversion.to if diversion and moved else path)


def _read_diversions(host: Host) -> dict[str, _Diversion]:
    lines = os.fsdecode(_read(host.under(f"{DATABASE}/diversions"))).split("\n")
    return {
        path: _Diversion(to, package) for path, to, package in zip(lines[::3], lines[1::3], lines[2::3], strict=False)
    }


def _read_list(host: Host, package: PackageState) -> bytes:
    """dpkg adds the architecture to the name of a list where a package may be installed for several."""
    info = host.under(f"{DATABASE}/info")
    return _read(f"{info}/{package.name}:{package.arch}.list") or _read(f"{info}/{package.name}.list")


def _read_lists(host: Host) -> Iterator[tuple[str, bytes]]:
    """Yield (package, its list)."""
    info = host.under(f"{DATABASE}/info")
    try:
        names = os.listdir(info)
    except OSError as problem:
        raise AgentError(Kind.UNREADABLE, f"{info}: {problem.strerror}", "is this a Debian system?") from problem
    for name in names:
        if name.endswith(".list"):
            yield name.removesuffix(".list").partition(":")[0], _read(f"{info}/{name}")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST_LIST)
    except FileNotFoundError:
        return b""
    except OSError as problem:
        raise AgentError(Kind.UNREADABLE, f"{path}: {problem.strerror}") from problem
