"""What happens when a module bound to MKL is imported and first called: the first thing that goes wrong, if any. Pure.

It plays ld.so and MKL's own loader. CPython opens a module with RTLD_NOW and RTLD_LOCAL: every symbol must be there at
once, and what MKL opens later sees of the module's libraries only those that it names itself. libmkl_rt opens its own
with RTLD_LAZY and RTLD_GLOBAL: each sees what was opened before. With LD_BIND_NOW, RTLD_LAZY counts for nothing.
"""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.mkl.facts import Facts, Library, Load
from agent.mkl.linkage import find, is_mkl, layers, wanted_kernels

BLAS_NAMES = re.compile(r"(?:cblas_|LAPACKE_|Dfti).*|.*(?:mkl_|MKL_).*|[a-z][a-z0-9]*(?:_64)?_")
"""What only a BLAS, a LAPACK or MKL offers. The rest of what is lacking may come from the interpreter and its libm."""
RENAMED = ("DGELST", "mkl_lapack_dgelst")
"""LAPACK 3.11 came to MKL together with its new name, oneMKL; libmkl_rt has the first, libmkl_core the second."""
FIRST_CALL = "omp_get_num_procs"
NOWHERE = "cannot open shared object file: No such file or directory"
LOOKUP = "symbol lookup error"


class Stage(StrEnum):
    """Where it goes wrong: while the module is loaded; in libmkl_rt; in the kernel; in the OpenMP runtime; later on."""

    MODULE = "module"
    LAYER = "layer"
    KERNEL = "kernel"
    OPENMP = "openmp"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Failure:
    """The first thing that goes wrong. name: the file; symbol: what it lacks, empty where the file itself is missing.

    count: how many symbols are lacking. path: by which it is, or would be, loaded. status: what Python ends with;
    text: what is printed. by: the path of what asked for it. reason: what ld.so told MKL, which may keep it to itself.
    """

    stage: Stage
    name: str
    path: str
    symbol: str
    count: int
    status: int
    text: str
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Unbound:
    """A library with symbols that nothing offers; `symbol` is the first that ld.so asks for."""

    library: Library
    symbol: str
    count: int


def first_failure(facts: Facts) -> Failure | None:
    """Return what goes wrong when the module is imported and MKL is first called; None: nothing does."""
    return _load_module(facts.load) or _open_layers(facts) or _open_kernels(facts) or _call_openmp(facts)


def is_eager(facts: Facts) -> bool:
    """Return whether LD_BIND_NOW makes ld.so look for every symbol at once."""
    return bool(facts.around.environment.get("LD_BIND_NOW"))


def _load_module(load: Load) -> Failure | None:
    if load.missing:
        name, by = load.missing[0]
        return Failure(Stage.MODULE, name, name, "", 0, 1, f"ImportError: {name}: {NOWHERE}", by)
    found = find_unbound(load.libraries, offered(load.libraries), eager=True)
    if found is None:
        return None
    path = found.library.path
    text = f"ImportError: {path}: undefined symbol: {found.symbol}"
    return Failure(Stage.MODULE, posixpath.basename(path), path, found.symbol, found.count, 1, text)


def offered(libraries: Iterable[Library]) -> frozenset[str]:
    """Return the names that one can bind to in `libraries`."""
    return frozenset().union(*(library.defined for library in libraries))


def find_unbound(libraries: Iterable[Library], names: frozenset[str], eager: bool) -> Unbound | None:
    """Return the first library that ld.so gives up on, given the `names` in scope. It begins with the last loaded."""
    for library in reversed(tuple(libraries)):
        asked = (*library.at_load, *library.at_call) if eager else library.at_load
        lacking = [name for name in asked if name not in names and BLAS_NAMES.fullmatch(name)]
        if lacking:
            return Unbound(library, lacking[0], len(lacking))
    return None


def _open_layers(facts: Facts) -> Failure | None:
    runtime = find(facts.load, "rt")
    scope: list[Library] = []
    for item in layers(facts.load, facts.around.environment):
        load = facts.opened.get(item.name, Load())
        failure = _open(facts, runtime, item.name, load, scope, Stage.LAYER) if runtime and not item.openmp else None
        if failure:
            return failure
        scope += load.libraries
    return None


def _open(
    facts: Facts, loader: Library, name: str, load: Load, scope: Iterable[Library], stage: Stage
) -> Failure | None:
    """Return why MKL cannot open `name`: it is nowhere, needs what is nowhere, or a symbol is in nothing so far."""
    path = load.libraries[0].path if load.libraries else f"{posixpath.dirname(loader.path)}/{name}"
    there = {library.real for library in facts.load.libraries}
    found = find_unbound(
        (library for library in load.libraries if library.real not in there),
        offered((*scope, *load.libraries)),
        is_eager(facts),
    )
    if not load.libraries:
        reason = f"{path}: {NOWHERE}"
    elif load.missing:
        reason = f"{load.missing[0][0]}: {NOWHERE}"
    elif found:
        reason = f"{found.library.path}: undefined symbol: {found.symbol}"
    else:
        return None
    text = f"{_brand(loader)} FATAL ERROR: Cannot load {name}."
    if loader.soname:  # Up to 2019, MKL's libraries had none; nor did they say what ld.so told them.
        text = f"{_brand(loader, upper=True)} ERROR: {reason}.\n{text}"
    symbol, count = (found.symbol, found.count) if found and not load.missing else ("", 0)
    return Failure(stage, name, path, symbol, count, 2, text, loader.path, reason)


def _brand(library: Library, upper: bool = False) -> str:
    name = "oneMKL" if any(mark in library.defined for mark in RENAMED) else "MKL"
    return f"INTEL {name}" if upper else f"Intel {name}"


def _open_kernels(facts: Facts) -> Failure | None:
    """Return why no kernel can be opened. Where one fails and the one for all processors does not, nothing is said."""
    failures = _try_kernels(facts)
    first = failures[0] if failures and all(failures) else None
    if first is None:
        return None
    names = " or ".join(failure.name for failure in failures if failure)
    before, _, _ = first.text.rpartition("Cannot load ")
    return replace(first, text=f"{before}Cannot load {names}.")


def slow_kernel(facts: Facts) -> Failure | None:
    """Return why MKL falls back to the kernel for all processors, where nothing else goes wrong; None: it does not."""
    return next(iter(_try_kernels(facts)), None)


def _try_kernels(facts: Facts) -> list[Failure | None]:
    """Return for each kernel, in the order in which they are tried, why it cannot be opened."""
    core = find_core(facts)
    if core is None:
        return []
    scope = [item for wanted in layers(facts.load, facts.around.environment) for item in _opened(facts, wanted.name)]
    return [
        _open(facts, core, item.name, facts.opened.get(item.name, Load()), scope, Stage.KERNEL)
        for item in wanted_kernels(facts.load, facts.cpu)
    ]


def _opened(facts: Facts, name: str) -> tuple[Library, ...]:
    return facts.opened.get(name, Load()).libraries


def find_core(facts: Facts) -> Library | None:
    """Return the libmkl_core that the module comes to use."""
    return next((core for load in (facts.load, *facts.opened.values()) if (core := find(load, "core"))), None)


def _call_openmp(facts: Facts) -> Failure | None:
    """A threading layer is opened without its OpenMP runtime; the first call into that ends the program."""
    lacking = [item for item in layers(facts.load, facts.around.environment) if item.openmp]
    names = offered((*facts.load.libraries, *(item for load in facts.opened.values() for item in load.libraries)))
    if not lacking or any(_opened(facts, item.name) for item in lacking) or FIRST_CALL in names:
        return None
    for library in (item for load in facts.opened.values() for item in load.libraries):
        if FIRST_CALL in library.at_call:
            text = f"{LOOKUP}: {library.path}: undefined symbol: {FIRST_CALL}"
            name = lacking[0].name
            return Failure(Stage.OPENMP, name, name, FIRST_CALL, 1, 127, text, lacking[0].by)
    return None


def late_failures(facts: Facts) -> tuple[Failure, ...]:
    """Return what goes wrong only when some function is called, one for each library that lacks a symbol for it.

    facts: where `first_failure` finds nothing. What MKL opens by itself is bound call by call, and nothing on disk
    tells which function comes to which symbol. A whole release lacks none.
    """
    usable = zip(wanted_kernels(facts.load, facts.cpu), _try_kernels(facts), strict=False)
    kernel = next((_opened(facts, item.name) for item, failure in usable if failure is None), ())
    runtimes = (item for wanted in layers(facts.load, facts.around.environment) for item in _opened(facts, wanted.name))
    opened = {item.real: item for item in (*runtimes, *kernel)}
    names = offered(opened.values())
    bound = {item.real for item in facts.load.libraries}
    late = (item for item in opened.values() if is_mkl(item) and item.real not in bound)
    found = (find_unbound((item,), names, eager=True) for item in late)
    return tuple(_call(item) for item in found if item)


def _call(found: Unbound) -> Failure:
    path = found.library.path
    text = f"{LOOKUP}: {path}: undefined symbol: {found.symbol}"
    return Failure(Stage.CALL, posixpath.basename(path), path, found.symbol, found.count, 127, text)
