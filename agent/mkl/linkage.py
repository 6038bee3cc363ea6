"""How a module is bound to MKL, and which files MKL will open by itself when it is first called. Pure.

Layered: it names the interface, threading and core libraries. Single dynamic library (`sdl`): it names libmkl_rt, which
picks those at run time, or it names libblas.so.3 and Debian's alternative leads to libmkl_rt. In both cases the core
opens a kernel for the processor. The names, their order and the variables were read off real releases with strace.
"""

import posixpath
import re
from collections.abc import Mapping
from enum import StrEnum

from agent.mkl.facts import Cpu, Library, Load, Wanted

FILE = re.compile(r"libmkl_(?P<part>[a-z0-9_]+?)(?:-[0-9a-f]{6,})?(?P<suffix>\.so(?:\.\d+)?)")
"""libmkl_core.so.2, libmkl_rt.so, and libmkl_rt-1a2b3c4d.so.2 as auditwheel renames it."""
OPENMP = re.compile(r"lib(?:iomp5|omp5?)(?:-[0-9a-f]{6,})?\.so(?:\..*)?")
BLAS = re.compile(r"lib(?:c?blas|lapacke?)(?:64)?\.so\.3")
INTEL_OPENMP, GOMP, GOMP_OF_COMPILER = "libiomp5.so", "libgomp.so.1", "libgomp.so"
"""Up to 2020, libmkl_rt asks not for GOMP: the name by which a compiler links is out of ld.so's sight on Debian."""
THREADING: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "intel": ("intel_thread", (INTEL_OPENMP,)),
    "sequential": ("sequential", ()),
    "gnu": ("gnu_thread", (GOMP, GOMP_OF_COMPILER, INTEL_OPENMP)),
    "tbb": ("tbb_thread", ()),
    "pgi": ("pgi_thread", ()),
}
"""MKL_THREADING_LAYER → the library, and the OpenMP runtimes of which it wants the first that is there before it."""
KERNELS = (("avx512", "avx512f avx512bw avx512cd avx512dq avx512vl"), ("avx2", "avx2 fma"), ("mc3", "sse4_2"))
"""What Intel's processors get, best first; all others get `def`."""
INTEL = "GenuineIntel"


class Linkage(StrEnum):
    """How a module is bound to MKL. ALTERNATIVE: as SDL, by way of libblas.so.3 or liblapack.so.3."""

    NONE = "none"
    LAYERED = "layered"
    SDL = "sdl"
    ALTERNATIVE = "alternative"
    STATIC = "static"


def part_of(path: str) -> str:
    """Return `core` of …/libmkl_core.so.2; empty where the name is not one of MKL's."""
    found = FILE.fullmatch(posixpath.basename(path))
    return found["part"] if found else ""


def suffix_of(library: Library) -> str:
    """Return what MKL's own names end in where `library` was made: `.so.2`."""
    found = FILE.fullmatch(library.soname) or FILE.fullmatch(posixpath.basename(library.real))
    return found["suffix"] if found and library.soname else ".so"


def is_mkl(library: Library) -> bool:
    """Return whether the file is one of MKL's, whatever the name by which it was asked for."""
    return bool(part_of(library.real) or part_of(library.soname))


def find(load: Load, part: str) -> Library | None:
    """Return MKL's library `part` among those that are loaded."""
    return next((item for item in load.libraries if part in (part_of(item.real), part_of(item.soname))), None)


def find_linkage(load: Load) -> Linkage:
    """Return how the first library of `load` is bound to MKL."""
    module = load.libraries[0] if load.libraries else Library("", "")
    names = (*module.needed, *(name for name, _ in load.missing))
    if find(load, "rt"):
        return Linkage.SDL if any(part_of(name) for name in names) else Linkage.ALTERNATIVE
    parts = {part_of(name) for name in names} - {""}
    if parts or any(is_mkl(item) for item in load.libraries[1:]):
        return Linkage.SDL if parts == {"rt"} else Linkage.LAYERED
    return Linkage.STATIC if any(name.startswith("mkl_serv_") for name in module.defined) else Linkage.NONE


def threading(environment: Mapping[str, str]) -> str:
    """Return the threading layer that libmkl_rt picks. It takes a word in capitals or in none, and else the default."""
    word = environment.get("MKL_THREADING_LAYER", "").strip()
    return word.lower() if word in (word.lower(), word.upper()) and word.lower() in THREADING else "intel"


def interface(environment: Mapping[str, str]) -> str:
    """Return the interface layer that libmkl_rt picks: `intel_lp64`, `gf_ilp64`, …"""
    words = environment.get("MKL_INTERFACE_LAYER", "")
    compiler = "gf" if "GNU" in words or "gnu" in words else "intel"
    return f"{compiler}_ilp64" if "ILP64" in words or "ilp64" in words else f"{compiler}_lp64"


def kernels(cpu: Cpu, suffix: str) -> tuple[str, ...]:
    """Return the kernel libraries in the order in which MKL tries them on `cpu`; the last is the one for all."""
    able = (name for name, flags in KERNELS if cpu.vendor == INTEL and set(flags.split()) <= cpu.flags)
    best = next(able, None)
    return (*([f"libmkl_{best}{suffix}"] if best else []), f"libmkl_def{suffix}")


def layers(load: Load, environment: Mapping[str, str]) -> tuple[Wanted, ...]:
    """Return the files that libmkl_rt opens at its first call, in order; none where libmkl_rt is not loaded.

    Of several OpenMP runtimes it takes the first that is there.
    """
    runtime = find(load, "rt")
    if runtime is None:
        return ()
    suffix = suffix_of(runtime)
    library, runtimes = THREADING[threading(environment)]
    openmp = [name for name in runtimes if name != GOMP or suffix != ".so"]
    own = [f"libmkl_{part}{suffix}" for part in ("core", library, interface(environment))]
    return tuple(Wanted(name, runtime.path, name in openmp) for name in (own[0], *openmp, *own[1:]))


def wanted_kernels(load: Load, cpu: Cpu) -> tuple[Wanted, ...]:
    """Return the kernels that libmkl_core tries, in order. `by` is its path, or its name where libmkl_rt opens it."""
    core, runtime = find(load, "core"), find(load, "rt")
    loader = runtime or core
    if loader is None:
        return ()
    suffix = suffix_of(loader)
    by = core.path if core and not runtime else f"libmkl_core{suffix}"
    return tuple(Wanted(name, by) for name in kernels(cpu, suffix))
