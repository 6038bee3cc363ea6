"""What can be said of one Python environment by names, stamps and a little metadata. Nothing is judged, nothing run.

The names of installed distributions give versions (PEP 376: `numpy-2.3.5.dist-info`), pyvenv.cfg (PEP 405) and
conda-meta say what kind it is. All of it is foreign text, bounded, and not yet printable.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import EACCES, ELOOP, ENOENT, ENOTDIR
from itertools import islice

from agent.host.beneath import LOOK, Stamp, list_beneath, open_beneath, read_beneath, read_stamp

USERS = frozenset({"numpy", "scipy", "mkl", "mkl_fft", "mkl_random", "numexpr"})
"""Packages of which one must be there, for an environment to be of interest."""
MODULES: Mapping[str, tuple[str, ...]] = {
    "numpy/_core": ("_multiarray_umath",),
    "numpy/core": ("_multiarray_umath",),
    "numpy/linalg": ("_umath_linalg", "lapack_lite"),
    "scipy/linalg": ("_fblas", "_flapack", "cython_blas", "cython_lapack"),
    "scipy/sparse/linalg/_eigen/arpack": ("_arpack", "_arpacklib"),
    "scipy/sparse/linalg/eigen/arpack": ("_arpack",),
    "scipy/sparse/linalg/_dsolve": ("_superlu",),
    "scipy/sparse/linalg/dsolve": ("_superlu",),
    "mkl": ("_py_mkl_service", "_mklinit"),
    "mkl_fft": ("_pydfti",),
    "mkl_random": ("mklrand",),
    "numexpr": ("interpreter",),
}
"""The extension modules that link to BLAS, LAPACK or MKL: directory → names without what follows the first dot."""
MOST_NAMES = 20_000
MOST_MODULES = 40
MOST_REQUIRED = 10
MOST_PROBLEMS = 5
LARGEST_TEXT = 64 << 10
LONGEST_WORD = 100
PLAIN = (stat.S_IFREG, stat.S_IFLNK)

KINDS = (("pipx", "/pipx/"), ("poetry", "/pypoetry/"), ("pyenv", "/.pyenv/versions/"), ("asdf", "/.asdf/installs/"))
_PREFIX = re.compile(r"(.*)/lib(?:64)?/python[^/]*/(?:site|dist)-packages")
_DISTRIBUTION = re.compile(r"([A-Za-z0-9_.]+?)-([0-9][^-/]*)(?:-py[0-9.]+)?\.(?:dist|egg)-info")
_CONDA = re.compile(r"(mkl|numpy|scipy|python)-([^-]+)-[^-]+\.json")
_TAG = re.compile(r"\.cpython-(\d)(\d+)t?-")
_LIBRARY = re.compile(r"/python(\d\.\d+)t?/")
_REQUIRED = re.compile(rb"Requires-Dist:[ \t]*((?:mkl|intel[-_]openmp)\b[^\r\n]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Module:
    """An extension module: its path relative to the site directory."""

    path: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Environment:
    """Packages that one Python imports from one directory. Versions are empty where not known.

    path: what it goes by. prefix, site: where it is installed, and its site-packages. uid: whose site-packages it is.
    mkl: the version of an MKL that is installed as a package in it, by `manager` (pip or conda). requires: what its
    packages want of MKL. problems: what could not be looked at. marks: what else must stay as it is for all of this to
    hold, as path relative to the prefix and stamp; the site directory comes first.
    """

    path: str
    prefix: str
    site: str
    kind: str
    uid: int
    python: str
    numpy: str
    scipy: str
    mkl: str
    manager: str
    requires: tuple[str, ...]
    modules: tuple[Module, ...]
    problems: tuple[str, ...]
    marks: tuple[tuple[str, Stamp], ...]


def prefix_of(site: str) -> str:
    """Return where the environment of a site directory is installed: three levels up, as a rule. Pure."""
    found = _PREFIX.fullmatch(site)
    return (found[1] or "/") if found else site.rpartition("/")[0] or "/"


def read_environment(descriptor: int, prefix: str, site: str) -> Environment | None:
    """Return what is in `site`, `descriptor` being its prefix; None where nothing is that is of interest.

    Raises OSError where the site directory cannot be read.
    """
    inner = site[len(prefix.rstrip("/")) + 1 :]
    own, facts = read_stamp(descriptor, inner)
    names = list_beneath(descriptor, inner, MOST_NAMES)
    if not USERS.intersection(names):
        return None
    beside = {name: stamp for name in ("pyvenv.cfg", "conda-meta") if (stamp := _mark(descriptor, name))}
    conda = _read_conda(descriptor) if "conda-meta" in beside else {}
    settings = _read_settings(descriptor) if "pyvenv.cfg" in beside else {}
    packages = _versions(names)
    modules, problems = _read_modules(descriptor, inner, frozenset(names))
    return Environment(
        path=prefix if conda or settings else site,
        prefix=prefix,
        site=site,
        kind=_kind(site, settings, conda),
        uid=facts.st_uid,
        python=_python(site, settings, conda, modules),
        numpy=packages.get("numpy", ""),
        scipy=packages.get("scipy", ""),
        mkl=packages.get("mkl", "") or conda.get("mkl", ""),
        manager="pip" if "mkl" in packages else "conda" if "mkl" in conda else "",
        requires=tuple(islice(_required(descriptor, inner, names), MOST_REQUIRED)),
        modules=modules,
        problems=problems,
        marks=((inner, own), *beside.items()),
    )


def is_unchanged(descriptor: int, environment: Environment) -> bool:
    """Return whether every stamp of an environment still holds, `descriptor` being its prefix. Raises OSError."""
    if any(_mark(descriptor, path) != stamp for path, stamp in environment.marks):
        return False
    site = open_beneath(descriptor, environment.marks[0][0], LOOK)
    try:
        return all(_mark(site, item.path) == item.stamp for item in environment.modules)
    finally:
        os.close(site)


def _mark(descriptor: int, path: str) -> Stamp | None:
    try:
        return read_stamp(descriptor, path)[0]
    except OSError:
        return None


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = (_DISTRIBUTION.fullmatch(name) for name in names if name.endswith("-info"))
    return {match[1].lower(): match[2][:LONGEST_WORD] for match in found if match}


def _read_conda(descriptor: int) -> dict[str, str]:
    """Return versions by package, and an entry for conda itself: an empty answer means that there is none."""
    try:
        found = map(_CONDA.fullmatch, list_beneath(descriptor, "conda-meta", MOST_NAMES))
        return {"conda": ""} | {match[1]: match[2][:LONGEST_WORD] for match in found if match}
    except OSError:
        return {}


def _read_settings(descriptor: int) -> dict[str, str]:
    text = os.fsdecode(read_beneath(descriptor, "pyvenv.cfg", LARGEST_TEXT) or b"")
    rows = (line.partition("=") for line in text.split("\n"))
    return {name.strip().lower(): value.strip()[:LONGEST_WORD] for name, equals, value in rows if equals}


def _kind(site: str, settings: Mapping[str, str], conda: Mapping[str, str]) -> str:
    if conda:
        return "conda"
    named = next((kind for kind, part in KINDS if part in site), "")
    if settings:
        return named or next((kind for kind in ("uv", "virtualenv") if kind in settings), "venv")
    if named:
        return named
    if site.startswith("/usr/local/"):
        return "local"
    if site.startswith("/usr/lib/python3"):
        return "debian"
    return "user" if "/.local/lib/python" in site else "other"


def _python(site: str, settings: Mapping[str, str], conda: Mapping[str, str], modules: Sequence[Module]) -> str:
    """Return the version of Python, as exactly as anything tells it."""
    told = conda.get("python") or settings.get("version_info") or settings.get("version") or ""
    if found := re.match(r"\d+(?:\.\d+)*", told):
        return found[0]
    if library := _LIBRARY.search(site):
        return library[1]
    tag = next((match for module in modules if (match := _TAG.search(module.path))), None)
    return f"{tag[1]}.{tag[2]}" if tag else ""


def _required(descriptor: int, inner: str, names: Iterable[str]) -> Iterator[str]:
    """Yield what the packages of interest require of MKL, as they write it."""
    for name in sorted(name for name in names if name.endswith(".dist-info") and name.partition("-")[0] in USERS):
        text = read_beneath(descriptor, f"{inner}/{name}/METADATA", LARGEST_TEXT) or b""
        lines = text.partition(b"\n\n")[0].split(b"\n") if b"Requires-Dist:" in text else []
        for found in filter(None, map(_REQUIRED.match, lines)):
            yield f"{name.partition('-')[0]}: {os.fsdecode(found[1])[:LONGEST_WORD]}"


def _read_modules(descriptor: int, inner: str, names: frozenset[str]) -> tuple[tuple[Module, ...], tuple[str, ...]]:
    """Return the modules that are there, and a sentence for each thing that is in the way."""
    modules: list[Module] = []
    problems: list[str] = []
    for directory, stems in MODULES.items():
        if directory.partition("/")[0] not in names:
            continue
        try:
            found = list_beneath(descriptor, f"{inner}/{directory}", MOST_NAMES)
        except OSError as problem:
            problems += _complain(directory, problem)
            continue
        for name in sorted(name for name in found if name.endswith(".so") and name.partition(".")[0] in stems):
            module = _read_module(descriptor, inner, f"{directory}/{name}")
            if isinstance(module, str):
                problems.append(module)
            else:
                modules.append(module)
    if len(modules) > MOST_MODULES:
        problems.insert(0, f"there are {len(modules)} modules of the names looked for; {MOST_MODULES} are looked at")
    return tuple(modules[:MOST_MODULES]), tuple(dict.fromkeys(problems))[:MOST_PROBLEMS]


def _read_module(descriptor: int, inner: str, path: str) -> Module | str:
    """Return a module, or why it cannot be one. Of a link to a file, as uv may make them, the link's stamp serves."""
    try:
        stamp, facts = read_stamp(descriptor, f"{inner}/{path}")
    except OSError as problem:
        return f"{path}: {problem.strerror}"
    return Module(path, stamp) if stat.S_IFMT(facts.st_mode) in PLAIN else f"{path} is no regular file"


def _complain(directory: str, problem: OSError) -> list[str]:
    """A directory that is not there says nothing; what is none, or may not be entered, is told."""
    if problem.errno == ENOENT:
        return []
    words = {ENOTDIR: "is no directory", ELOOP: "is a symbolic link, which is not followed", EACCES: "may not be read"}
    return [f"{directory} {words.get(problem.errno or 0, problem.strerror)}"]
