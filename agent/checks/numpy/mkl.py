"""Joins what lies on disk to the engine of MKL: the facts on one extension module, for `agent.mkl.verdict.judge`.

Nothing that is found is run or imported, and no process is asked for its environment: that comes from the caller.
"""

import posixpath
from collections.abc import Iterable, Iterator

from agent.host.loader.closure import (
    Closure,
    Library,
    Reading,
    read_closure,
    read_library,
    read_mark,
    read_mkl_in,
    read_names,
)
from agent.host.loader.dynamic import NO_SYMBOLS
from agent.host.loader.linker import Loader, Scope, directories, follow, search
from agent.mkl import facts, linkage
from agent.model.errors import AgentError

BESIDE_COMPILER = "../../../compiler/lib/intel64"
"""Where libmkl_rt looks for an OpenMP runtime in Intel's old layout, from its own directory."""


def read_facts(reading: Reading, module: str, scope: Scope, around: facts.Around) -> facts.Facts:
    """Return what is known of the extension module at `module`. What cannot be read is among the facts.

    reading: of this run, shared by all modules. scope: LD_LIBRARY_PATH is taken from there, not from `around`.
    """
    closure = read_closure(reading, [module], scope, _program(reading, scope))
    cpu = facts.Cpu(reading.cpu.vendor, reading.cpu.flags)
    bound = _is_bound(closure)
    load = _load(reading, closure, bound)
    opened = dict(_opened(reading, closure, load, scope, around, cpu)) if bound else {}
    present = _present(reading, closure, scope) if bound or closure.missing else ()
    alternatives = (facts.Alternative(item.name, item.target, item.exists) for item in reading.alternatives)
    return facts.Facts(module, load, opened, present, tuple(alternatives), cpu, around)


def _program(reading: Reading, scope: Scope) -> Loader | None:
    """Return the interpreter as the loader of the module: conda's has an RPATH that counts for what it loads."""
    if not scope.executable:
        return None
    path = follow(reading.host, scope.executable)
    try:
        found = read_library(reading, path, scope)
    except AgentError:
        found = None
    return found.loader if found else Loader(path)


def _is_bound(closure: Closure) -> bool:
    return any(linkage.part_of(item.real) or linkage.part_of(item.dynamic.soname) for item in closure.libraries)


def _load(reading: Reading, closure: Closure, bound: bool) -> facts.Load:
    """Return the closure as the engine wants it. Symbols are read of what is bound to MKL, else of the module alone."""
    broken = list(closure.broken)
    libraries = [
        _library(reading, library, bound or library is closure.libraries[0], broken) for library in closure.libraries
    ]
    return facts.Load(tuple(libraries), closure.missing, tuple(broken))


def _library(reading: Reading, library: Library, with_symbols: bool, broken: list[tuple[str, str]]) -> facts.Library:
    symbols, mark = NO_SYMBOLS, ""
    try:
        symbols = read_names(reading, library) if with_symbols else NO_SYMBOLS
        mark = read_mark(reading, library) if linkage.part_of(library.real) else ""
    except AgentError as problem:
        broken.append((library.path, problem.message))
    eager = library.dynamic.bind_now
    return facts.Library(
        library.path,
        library.real,
        library.dynamic.soname,
        library.dynamic.needed,
        mark,
        symbols.defined,
        (*symbols.at_load, *symbols.at_call) if eager else symbols.at_load,
        () if eager else symbols.at_call,
    )


def _opened(
    reading: Reading, closure: Closure, load: facts.Load, scope: Scope, around: facts.Around, cpu: facts.Cpu
) -> Iterator[tuple[str, facts.Load]]:
    """Yield what MKL opens by itself: its layers, then the kernels. It needs one OpenMP runtime and no other."""
    loaded = {library.path: library for library in closure.libraries}
    threaded = False
    for item in (*linkage.layers(load, around.environment), *linkage.wanted_kernels(load, cpu)):
        loader = loaded.get(item.by)
        if loader is None or (item.openmp and threaded):
            continue
        paths = _paths(reading, item, loader, scope)
        found = read_closure(reading, paths, scope, loader.loader, loaded.values())
        loaded |= {library.path: library for library in found.libraries}
        loaded |= {item.name: library for library in found.libraries[:1]}
        threaded |= item.openmp and bool(found.libraries)
        yield item.name, _load(reading, found, bound=True)


def _paths(reading: Reading, item: facts.Wanted, loader: Library, scope: Scope) -> Iterable[str]:
    """Return where MKL looks for a file, in order: beside itself, beside the program, and as ld.so would."""
    beside = posixpath.dirname(loader.path)
    yield f"{beside}/{item.name}"
    if scope.executable:
        yield f"{posixpath.dirname(follow(reading.host, scope.executable))}/{item.name}"
    if item.openmp:
        yield f"{beside}/{BESIDE_COMPILER}/{item.name}"
    yield from search(item.name, loader.loader, scope, reading.system)


def _present(reading: Reading, closure: Closure, scope: Scope) -> tuple[str, ...]:
    """Return the MKL files of any release in all directories that are searched for what is loaded or missing."""
    searched = (place for library in closure.libraries[:8] for place in directories(library.loader, scope))
    cached = (
        posixpath.dirname(path) for name, paths in reading.system.cache.items() if "mkl" in name for path in paths
    )
    moved = scope.instead.values()
    real = (posixpath.dirname(library.real) for library in closure.libraries if linkage.part_of(library.real))
    places = dict.fromkeys((*searched, *cached, *real, *moved))
    return read_mkl_in(reading, (place for place in places if place not in scope.instead))
