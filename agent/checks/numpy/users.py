"""Which processes use which Python environments, which of them still run a replaced MKL, and in which units.

All of it is told and none of it acted upon: the names come from maps, which any process can make say anything.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.checks.progress import PROGRESS
from agent.host import mappings, processes
from agent.host.loader.variables import Variables
from agent.host.loader.variables import read_units as read_unit_variables
from agent.host.mounts import Mounts
from agent.host.python.pyfacts import Environment
from agent.host.python.pyusers import Loaded, read_loaded
from agent.host.units import read_units
from agent.model.errors import AgentError
from agent.model.facts import Host, Unit
from agent.model.users import parse
from agent.stale.blame import unit_of

MOST_SITES = 500
MOST_TOLD = 5


@dataclass(frozen=True, slots=True)
class Users:
    """Processes that map something of Python packages or of MKL. skipped: those that were not read."""

    loaded: tuple[Loaded, ...] = ()
    skipped: tuple[int, ...] = ()

    @property
    def sites(self) -> frozenset[str]:
        """Return the site directories that they show, a bounded number of them."""
        return frozenset(sorted({site for item in self.loaded for site in item.sites})[:MOST_SITES])


@dataclass(frozen=True, slots=True)
class Use:
    """Who uses one environment: units, with the variables that systemd sets for them, and who runs a replaced MKL."""

    units: Mapping[str, Variables] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()


def look_at_users(host: Host, skip: Collection[int] = (), crowds: Collection[str] = ()) -> Users:
    """Return who uses Python packages. skip, crowds: see `Request`. Another root than the running one has no users."""
    if host.root != "/":
        return Users()
    loaded: list[Loaded] = []
    skipped: list[int] = []
    witness = processes.read_witness(host)
    for pid in PROGRESS.over(pid for pid in processes.read_pids(host) if pid != os.getpid()):
        if pid in skip or (crowds and processes.read_crowd(host, pid) in crowds):
            skipped.append(pid)
            continue
        try:
            found = read_loaded(host, pid)
        except mappings.TooMany:
            skipped.append(pid)
        except OSError:
            continue
        else:
            loaded += [found] if found and processes.shares_root(host, pid, witness) else []
    return Users(tuple(loaded), tuple(skipped))


def uses(
    host: Host, users: Users, environments: Sequence[Environment], mounts: Mounts = {}
) -> tuple[dict[str, Use], tuple[str, ...]]:
    """Return who uses which of `environments`, by site directory, and what of units is not known, in sentences."""
    units, problem = _read_units(host)
    running = {item.site: [one for one in users.loaded if item.site in one.sites] for item in environments}
    named = {item.site: set(_units_of(host, item, running[item.site], units)) for item in environments}
    every = sorted({name for some in named.values() for name in some})
    unread: tuple[str, ...] = ()
    try:
        variables, unread = read_unit_variables(host, mounts, [name for name in every if not parse(name)])
    except AgentError as failed:
        variables, problem = {}, failed.message
    found = {
        item.site: Use(
            {name: variables.get(name, {}) for name in sorted(named[item.site])},
            tuple(dict.fromkeys(_name(host, one, units) for one in _old(item, users.loaded))),
        )
        for item in environments
    }
    return found, (*([f"which units use MKL: {problem}"] if problem else ()), *unread[:MOST_TOLD])


def _read_units(host: Host) -> tuple[dict[str, Unit], str]:
    if host.root != "/" or not os.path.isdir("/run/systemd/system"):
        return {}, ""
    try:
        return read_units(host), ""
    except AgentError as problem:
        return {}, problem.message


def _units_of(
    host: Host, environment: Environment, running: Iterable[Loaded], units: Mapping[str, Unit]
) -> Iterator[str]:
    """Yield the units that run something of an environment now, or would if they were started."""
    for item in running:
        process = processes.read_process(host, item.pid)
        unit = unit_of(process.cgroup, units) if process else None
        if unit:
            yield unit.name
    if environment.prefix != environment.path:
        return
    inside = f"{environment.prefix}/"
    yield from (unit.name for unit in units.values() if any(path.startswith(inside) for path in unit.programs))


def _old(environment: Environment, loaded: Iterable[Loaded]) -> Iterator[Loaded]:
    """Yield who maps MKL files that were replaced in an environment; those of dpkg are told by `libraries`."""
    if environment.kind != "debian":
        inside = f"{environment.prefix}/"
        yield from (item for item in loaded if any(path.startswith(inside) for path in item.replaced))


def _name(host: Host, loaded: Loaded, units: Mapping[str, Unit]) -> str:
    process = processes.read_process(host, loaded.pid)
    unit = unit_of(process.cgroup, units) if process else None
    return unit.name if unit else f"process {loaded.pid} ({process.comm if process else 'gone'})"
