"""What ld.so would load with one shared object, read from disk and remembered for one run. Loads and judges nothing.

A name that an object loaded earlier goes by satisfies a later need of it, as in ld.so; each object has the path by
which it is loaded (libmkl_rt looks for its siblings beside that) and the one without symlinks.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.host.loader.blas import Alternative, read_alternatives, read_oneapi, read_present
from agent.host.loader.cpu import Cpu, read_cpu
from agent.host.loader.dynamic import NO_SYMBOLS, Dynamic, NotElf, OtherMachine, Symbols, read_dynamic, read_symbols
from agent.host.loader.linker import Loader, Scope, System, locate, open_regular, read_system, search
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host

MOST_LIBRARIES = 512
MOST_DIRECTORIES = 256
MOST_NAMES = 300_000
"""How many names of symbols are remembered at a time: about two releases of MKL, 40 MiB."""
LARGEST_HASHED = 128 << 20

Identity = tuple[int, int, int, int, int]
"""Device, inode, size, and times of change (ns): the same for two reads of the same content."""


@dataclass(frozen=True, slots=True)
class Library:
    """A shared object. path: by which ld.so loads it; real: without symlinks; loader: its place among the loaders."""

    path: str
    real: str
    identity: Identity
    dynamic: Dynamic
    loader: Loader


@dataclass(frozen=True, slots=True)
class Closure:
    """What is loaded with the first of `libraries`, in ld.so's order of search.

    missing: (name, path of what needs it) that is nowhere; broken: (path, reason) of what is there and is unsound.
    """

    libraries: tuple[Library, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    broken: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """One run's look at one host, and what it has read already: by `Identity`; `present` by directory."""

    host: Host
    system: System
    cpu: Cpu
    alternatives: tuple[Alternative, ...] = ()
    oneapi: tuple[str, ...] = ()
    present: dict[str, tuple[str, ...]] = field(default_factory=dict)
    dynamics: dict[Identity, Dynamic | AgentError] = field(default_factory=dict)
    symbols: dict[Identity, Symbols] = field(default_factory=dict)
    marks: dict[Identity, str] = field(default_factory=dict)


def begin(host: Host) -> Reading:
    """Return the beginning of a run."""
    return Reading(host, read_system(host), read_cpu(host), read_alternatives(host), read_oneapi(host))


def read_mkl_in(reading: Reading, directories: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of libmkl_rt and libmkl_core, of any release, in `directories` and below Intel's own."""
    places = list(dict.fromkeys((*directories, *reading.oneapi)))[:MOST_DIRECTORIES]
    for place in places:
        if place not in reading.present:
            reading.present[place] = read_present(reading.host, place)
    return tuple(sorted({path for place in places for path in reading.present[place]}))


def read_library(reading: Reading, path: str, scope: Scope, parent: Loader | None = None) -> Library | None:
    """Return the shared object at `path`; None where there is no regular file.

    Raises NotElf, OtherMachine, AgentError(UNREADABLE); messages begin with the path, which is foreign text.
    """
    real = locate(reading.host, path, scope)
    with _opened(reading, real) as opened:
        if opened is None:
            return None
        descriptor, identity = opened
        if identity not in reading.dynamics:
            reading.dynamics[identity] = _read_dynamic(descriptor, identity)
    found = reading.dynamics[identity]
    if isinstance(found, AgentError):
        raise type(found)(f"{path} {found.message}") if isinstance(found, NotElf | OtherMachine) else found
    return Library(path, real, identity, found, Loader(path, found.rpath, found.runpath, parent))


def _read_dynamic(descriptor: int, identity: Identity) -> Dynamic | AgentError:
    try:
        found = read_dynamic(descriptor)
    except (NotElf, OtherMachine) as problem:
        return problem
    return found if _identity(descriptor) == identity else NotElf("changed while it was read")


@contextmanager
def _opened(reading: Reading, real: str) -> Iterator[tuple[int, Identity] | None]:
    try:
        descriptor = open_regular(reading.host, real)
        if descriptor is None:
            yield None
            return
        try:
            yield descriptor, _identity(descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise AgentError(Kind.UNREADABLE, f"{real} cannot be read: {problem.strerror}") from problem


def _identity(descriptor: int) -> Identity:
    row = os.fstat(descriptor)
    return row.st_dev, row.st_ino, row.st_size, row.st_mtime_ns, row.st_ctime_ns


def read_closure(
    reading: Reading, paths: Iterable[str], scope: Scope, parent: Loader | None = None, loaded: Iterable[Library] = ()
) -> Closure:
    """Return what ld.so loads for the first of `paths` at which there is a shared object; nothing if there is none.

    parent: what asks for it. loaded: what is there already, in this process: found by name, it is not searched for.
    """
    broken: list[tuple[str, str]] = []
    for path in paths:
        first = _try(reading, path, scope, parent, broken)
        if first or broken:
            return _complete(reading, first, scope, loaded) if first else Closure(broken=tuple(broken))
    return Closure()


def _try(
    reading: Reading, path: str, scope: Scope, parent: Loader | None, broken: list[tuple[str, str]]
) -> Library | None:
    try:
        return read_library(reading, path, scope, parent)
    except OtherMachine:
        return None
    except AgentError as problem:
        broken.append((path, problem.message))
        return None


def _complete(reading: Reading, first: Library, scope: Scope, loaded: Iterable[Library]) -> Closure:
    known: dict[str, Library | None] = {name: library for library in (*loaded, first) for name in _names(library)}
    found, there = [first], {first.identity}
    missing: list[tuple[str, str]] = []
    broken: list[tuple[str, str]] = []
    for library, name in _needs(found):
        if name not in known:
            if len(known) > 2 * MOST_LIBRARIES:  # its name and its path
                broken.append((first.path, f"{first.path} needs more than {MOST_LIBRARIES} libraries"))
                break
            other = known[name] = _find(reading, name, library, scope, missing, broken)
            known |= {alias: other for alias in _names(other) if not known.get(alias)} if other else {}
        other = known[name]
        if other and other.identity not in there:
            found.append(other)
            there.add(other.identity)
    return Closure(tuple(found), tuple(missing), tuple(broken))


def _needs(found: list[Library]) -> Iterator[tuple[Library, str]]:
    """Yield what each library needs, also of those that are put into `found` meanwhile."""
    for library in found:
        for name in library.dynamic.needed:
            yield library, name


def _find(
    reading: Reading,
    name: str,
    asking: Library,
    scope: Scope,
    missing: list[tuple[str, str]],
    broken: list[tuple[str, str]],
) -> Library | None:
    """Return what ld.so finds for `name`; what is nowhere or unsound is added to `missing` or `broken`."""
    before = len(broken)
    for path in search(name, asking.loader, scope, reading.system):
        found = _try(reading, path, scope, asking.loader, broken)
        if len(broken) > before or (found and found.dynamic.machine == asking.dynamic.machine):
            return found
    missing.append((name, asking.path))
    return None


def _names(library: Library) -> tuple[str, ...]:
    return tuple(name for name in (library.path, library.dynamic.soname) if name)


def read_names(reading: Reading, library: Library) -> Symbols:
    """Return the dynamic symbols of `library`, as a rule read once a run. Raises NotElf, AgentError(UNREADABLE)."""
    found = reading.symbols.get(library.identity)
    if found is None:
        with _opened(reading, library.real) as opened:
            if opened is None or opened[1] != library.identity:
                raise NotElf(f"{library.path} changed while it was read")
            found = read_symbols(opened[0], library.dynamic.tables) if library.dynamic.tables.symbols else NO_SYMBOLS
        reading.symbols[library.identity] = found
        while len(reading.symbols) > 1 and sum(len(kept.defined) for kept in reading.symbols.values()) > MOST_NAMES:
            reading.symbols.pop(next(iter(reading.symbols)))
    return found


def read_mark(reading: Reading, library: Library) -> str:
    """Return what tells the content of `library` from another's: its build-id, else a hash; empty where too large."""
    if library.dynamic.build_id:
        return library.dynamic.build_id
    if library.identity not in reading.marks:
        with _opened(reading, library.real) as opened:
            small = opened is not None and opened[1][2] <= LARGEST_HASHED
            reading.marks[library.identity] = _hash(opened[0], opened[1][2]) if opened and small else ""
    return reading.marks[library.identity]


def _hash(descriptor: int, size: int) -> str:
    digest, step = hashlib.sha256(), 1 << 20
    for at in range(0, size, step):
        digest.update(os.pread(descriptor, step, at))
    return f"sha256:{digest.hexdigest()}"
