"""Joins Python environments to the verdicts on MKL: of each environment the worst one of its modules.

An environment without MKL is judged again only where it, or the linking of the whole host, has changed: that is what
nearly all of them are. One with MKL is judged each time.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.checks.numpy.mkl import read_facts
from agent.checks.numpy.users import Use, Users, uses
from agent.host.loader.closure import Reading, read_library
from agent.host.loader.linker import Scope, split_path
from agent.host.loader.variables import Variables, read_activation
from agent.host.mounts import Mounts
from agent.host.packages import read_owners
from agent.host.python.pyconfig import read_build
from agent.host.python.pyfacts import Environment
from agent.host.python.pyopenmp import read_openmp
from agent.host.transactions import read_snapshot
from agent.mkl.facts import Around, Built
from agent.mkl.linkage import Linkage
from agent.mkl.verdict import Kind, Verdict, judge, worst
from agent.model.errors import AgentError
from agent.model.facts import Host

NOT_MKL = Verdict(Kind.NOT_MKL, "info", "not bound to MKL", Linkage.NONE)
"""What is said of an environment that was judged before."""
OPENBLAS = re.compile(r"lib(?:scipy_)?openblas\w*-[-\w.]+\.so")
"""As the wheels of numpy and scipy bring it along, renamed by auditwheel."""
HARMLESS = re.compile(
    rf"{OPENBLAS.pattern}|lib(?:c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so\.\d|ld-linux[-\w]*\.so\.\d"
    r"|lib(?:gfortran|quadmath)(?:-[0-9a-f]+)?\.so[.\d]*"
)
OWN_PYTHON = ("conda", "pyenv", "asdf", "venv", "virtualenv", "uv", "pipx", "poetry")
"""Kinds that have a Python in their own bin/."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An environment and its verdict, that for logins. units: where systemd's variables make it another one."""

    environment: Environment
    verdict: Verdict
    built: Built = Built()
    units: Mapping[str, tuple[Variables, Verdict]] = field(default_factory=dict)

    @property
    def worst(self) -> Verdict:
        """Return the verdict that counts."""
        return worst((self.verdict, *(verdict for _, verdict in self.units.values()))) if self.units else self.verdict


@dataclass(frozen=True, slots=True)
class Look:
    """What one run judges with. login: the variables that logins get; instead: see `linker.Scope`."""

    host: Host
    mounts: Mounts
    reading: Reading
    login: Variables = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)


def judge_all(
    begin: Callable[[], Look],
    environments: Sequence[Environment],
    users: Users,
    states: Mapping[str, dict[str, Any]] = {},
    same: frozenset[str] = frozenset(),
) -> tuple[list[Judged], tuple[str, ...]]:
    """Return the verdicts in the order of `environments`, and what could not be seen, in sentences.

    begin: is called once, if there is anything to judge. states: of an earlier run, by site directory, see `state_of`.
    same: those of which nothing has changed since.
    """
    known = {item.site: NOT_MKL for item in environments if item.site in same and _is_free(states.get(item.site))}
    rest = [item for item in environments if item.site not in known]
    if not rest:
        return [Judged(item, NOT_MKL) for item in environments], ()
    look = begin()
    first = known | {item.site: judge_one(look, item, logins_of(look, item), Around()) for item in rest}
    bound = [item for item in rest if first[item.site].kind is not Kind.NOT_MKL]
    used, untold = uses(look.host, users, bound, look.mounts) if bound else ({}, ())
    owners, unknown = _read_owners(look.host, {path for item in bound for path in first[item.site].marks})
    judged = [
        judge_bound(look, item, states.get(item.site, {}), used[item.site], owners)
        if item.site in used
        else Judged(item, first[item.site])
        for item in environments
    ]
    return judged, (*untold, *([unknown] if unknown else ()))


def _is_free(state: Mapping[str, Any] | None) -> bool:
    return state is not None and state.get("kind") == Kind.NOT_MKL


def state_of(judged: Judged) -> dict[str, Any]:
    """Return what the next run needs to know of this one, as plain JSON."""
    return {"kind": judged.worst.kind.value, "marks": dict(judged.verdict.marks)}


def judge_one(look: Look, environment: Environment, variables: Variables, around: Around) -> Verdict:
    """Return the verdict on an environment under some variables. What numpy says of its build holds for numpy alone."""
    if not environment.modules:
        lines = environment.problems or ("none of the modules that are bound to BLAS was found",)
        return Verdict(Kind.UNKNOWN if environment.problems else Kind.NOT_MKL, *_plain(environment), evidence=lines)
    library_path = split_path(variables.get("LD_LIBRARY_PATH", ""))
    scope = Scope(library_path, interpreter(environment), look.instead)
    if all(_has_own_blas(look, f"{environment.site}/{module.path}") for module in environment.modules):
        return NOT_MKL
    own = replace(around, environment=variables)
    foreign = replace(own, built=Built())
    pairs = ((module.path, own if module.path.startswith("numpy/") else foreign) for module in environment.modules)
    found = [judge(read_facts(look.reading, f"{environment.site}/{path}", scope, some)) for path, some in pairs]
    return replace(worst(found), marks={path: mark for item in found for path, mark in item.marks.items()})


def _has_own_blas(look: Look, path: str) -> bool:
    """Return whether a module needs an OpenBLAS that came with it, and nothing else that could lead to MKL.

    That is so in nearly every wheel, is told by the names alone, and spares the search for what they lead to.
    """
    try:
        library = read_library(look.reading, path, Scope())
    except AgentError:
        return False
    needed = library.dynamic.needed if library else ()
    return any(map(OPENBLAS.fullmatch, needed)) and all(map(HARMLESS.fullmatch, needed))


def _plain(environment: Environment) -> tuple[str, str, Linkage]:
    if environment.problems:
        return "unknown", "what this environment loads could not be looked at", Linkage.NONE
    return "info", NOT_MKL.summary, Linkage.NONE


def interpreter(environment: Environment) -> str:
    """Return the path of the Python that runs an environment, as far as its kind tells; it need not exist."""
    if environment.kind in OWN_PYTHON:
        return posixpath.join(environment.prefix, "bin/python3")
    version = ".".join(environment.python.split(".")[:2])
    return f"/usr/bin/python{version or '3'}"


def judge_bound(
    look: Look, environment: Environment, state: Mapping[str, Any], use: Use, owners: Mapping[str, tuple[str, str]] = {}
) -> Judged:
    """Return the verdicts on an environment that is bound to MKL: for logins, and for the units that use it.

    state: what `state_of` gave before. owners: path of an MKL file → dpkg's package (empty: none) and version.
    """
    build = read_build(look.host, look.mounts, environment.site)
    built = Built(build.name, build.version, build.directory)
    around = Around(
        previous=state.get("marks", {}),
        manager=environment.manager,
        owners=dict(_owned(environment, owners)),
        built=built,
        old_mappings=use.replaced,
        openmp=read_openmp(look.host, look.mounts, environment.site),
    )
    verdict = judge_one(look, environment, logins_of(look, environment), around)
    units = {
        name: (variables, judge_one(look, environment, variables, around))
        for name, variables in use.units.items()
        if variables != logins_of(look, environment)
    }
    other = {name: pair for name, pair in units.items() if pair[1].kind is not verdict.kind}
    return Judged(environment, verdict, built, other)


def logins_of(look: Look, environment: Environment) -> Variables:
    """Return the variables for whoever works in an environment: conda's activation sets some, units do without it."""
    if environment.kind != "conda":
        return look.login
    return {**look.login, **read_activation(look.host, look.mounts, environment.prefix)}


def _owned(environment: Environment, owners: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield who brought an MKL file: dpkg's package, else the environment's own."""
    for path, owner in owners.items():
        if owner[0]:
            yield path, owner
        elif environment.mkl and path.startswith(f"{environment.prefix}/"):
            yield path, ("mkl", environment.mkl)


def _read_owners(host: Host, paths: Iterable[str]) -> tuple[dict[str, tuple[str, str]], str]:
    """Return path → (package, version), empty where it has none; and why dpkg could not be asked."""
    wanted = sorted(paths)
    if not wanted:
        return {}, ""
    try:
        owners = read_owners(host, wanted)
        versions = {state.name: state.version for state in read_snapshot(host).values()} if owners else {}
    except AgentError as problem:
        return {}, f"which packages MKL comes from: {problem.message}"
    return {path: (owners.get(path, ""), versions.get(owners.get(path, ""), "")) for path in wanted}, ""
