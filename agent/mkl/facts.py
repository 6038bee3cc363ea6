"""What the verdicts are made from: shared objects, what ld.so would load, and what surrounds an environment.

Values alone. Paths are text with surrogateescape, raw: whoever shows one makes it printable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Library:
    """A shared object as ld.so sees it. path: by which it is loaded; real: without symlinks.

    mark: what tells its content from another's (build-id or hash; empty: unknown). defined: names that others may bind
    to. at_load, at_call: names that must come from elsewhere when it is loaded and when it is first called, in order.
    """

    path: str
    real: str
    soname: str = ""
    needed: tuple[str, ...] = ()
    mark: str = ""
    defined: frozenset[str] = frozenset()
    at_load: tuple[str, ...] = ()
    at_call: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What comes of opening one shared object, the first of `libraries`; none: it is nowhere.

    missing: (name, path of what needs it); broken: (path, reason) of what is there and cannot be read.
    """

    libraries: tuple[Library, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    broken: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that MKL itself will open. by: which library opens it: the path by which that was loaded, or its name."""

    name: str
    by: str
    openmp: bool = False


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor that the environment runs on, in the words of /proc/cpuinfo."""

    vendor: str = ""
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of Debian's alternatives for BLAS or LAPACK. target: what is chosen; exists: whether that is there."""

    name: str
    target: str
    exists: bool


@dataclass(frozen=True, slots=True)
class Built:
    """What numpy/__config__.py says of the build: history, nothing of today. Empty where it says nothing."""

    name: str = ""
    version: str = ""
    directory: str = ""


@dataclass(frozen=True, slots=True)
class Around:
    """What the caller knows of an environment.

    environment: LD_LIBRARY_PATH, LD_BIND_NOW, MKL_INTERFACE_LAYER, MKL_THREADING_LAYER of the unit or host.
    previous: `Verdict.marks` of the run before. manager: who provides MKL inside of this environment: `pip`, `conda`,
    or nobody. owners: real path of an MKL file → (package, version). old_mappings: who still runs a replaced MKL.
    openmp: real paths of the OpenMP runtimes that other packages of the environment bring.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    previous: Mapping[str, str] = field(default_factory=dict)
    manager: str = ""
    owners: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    built: Built = Built()
    old_mappings: tuple[str, ...] = ()
    openmp: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one extension module.

    load: what ld.so makes of it, all symbols at once (as CPython opens it). opened: the same for each `Wanted.name`.
    present: paths of libmkl_rt and libmkl_core files of any version that lie where one was looked for.
    """

    module: str
    load: Load
    opened: Mapping[str, Load] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    cpu: Cpu = Cpu()
    around: Around = Around()
