"""Which Python environments have numpy, scipy or another user of MKL, found and described without running any of it.

Names, stamps and a few lines of metadata are read; no module is opened here. An environment is read again only where
a stamp of it has changed. See `beneath` for why nobody can lead this astray, `pywalk` for what is not entered.
"""

import time
from binascii import a2b_base64, b2a_base64
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from errno import ENOENT, ENOTDIR
from itertools import islice, starmap
from struct import Struct
from typing import Any, cast

from agent.host.beneath import Stamp
from agent.host.mounts import Mounts, mount_of, open_local
from agent.host.python.pyfacts import Environment, Module, is_unchanged, prefix_of, read_environment
from agent.host.python.pywalk import Limits, Walk, walk
from agent.model.facts import Host

WORDS = {
    "entries": "{root} has more than {entries:,} files and directories: the rest was not looked at",
    "seconds": "{root} was not looked at to its end for want of time",
    "environments": "{root} has more than {environments:,} Python environments: the rest was not looked at",
}
"""What is said of a root at which a limit was reached, by the name of the limit."""
MOST_NAMED = 5
MOST_KNOWN = 5_000
STAMP = Struct("<3Q2q")
"""Of a `Stamp`. Times may lie before 1970."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found. incomplete: a sentence for each limit that was reached. left: roots for the next time.

    passed_over: what is not looked at by design: other machines' file systems, containers, very deep directories.
    """

    environments: tuple[Environment, ...]
    incomplete: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    entries: int = 0


@dataclass(slots=True)
class _Found:
    """What has been found so far; environments by site directory."""

    environments: dict[str, Environment] = field(default_factory=dict)
    incomplete: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    entries: int = 0


def discover(
    host: Host,
    mounts: Mounts,
    roots: Sequence[str],
    limits: Limits = Limits(),
    clock: Clock = time.monotonic,
    begin: Callable[[str], None] = lambda root: None,
) -> Discovery:
    """Return the environments below `roots` (absolute in the host), in that order, each root on its own mount.

    begin: is told each root whose turn it is, for whoever waits.
    """
    end = clock() + limits.seconds
    found = _Found()
    waiting = list(roots)
    while waiting and clock() < end and len(found.environments) < limits.all_environments:
        root = waiting.pop(0)
        begin(root)
        mount = mount_of(mounts, host.under(root))
        if mount.is_local:
            _look_below(
                host, mounts, root, frozenset(roots), limits, min(end, clock() + limits.root_seconds), clock, found
            )
        else:
            found.passed_over.append(f"{root} is on {mount.kind}")
    if waiting:
        why = "for want of time" if clock() >= end else f"after {limits.all_environments:,} Python environments"
        found.incomplete.append(f"not looked at {why}: {_name(waiting)}")
    environments = tuple(_with_names(found.environments.values()))
    return Discovery(environments, tuple(found.incomplete), tuple(found.passed_over), tuple(waiting), found.entries)


def _look_below(
    host: Host,
    mounts: Mounts,
    root: str,
    skip: frozenset[str],
    limits: Limits,
    until: float,
    clock: Clock,
    found: _Found,
) -> None:
    """Add what is below one root. One that is not there says nothing."""
    try:
        with open_local(mounts, host.under(root)) as descriptor:
            met = walk(descriptor, root, skip, limits, until, clock)
    except OSError as problem:
        if problem.errno not in (ENOENT, ENOTDIR):
            found.incomplete.append(f"{root} could not be opened: {problem.strerror}")
        return
    left = limits.environments
    for place in met.sites:
        if clock() > until or not left:
            met.limit = met.limit or ("environments" if not left else "seconds")
            break
        environment = _read(host, mounts, f"{root.rstrip('/')}/{place}")
        if isinstance(environment, OSError):
            met.closed += environment.errno != ENOENT
        elif environment:
            found.environments.setdefault(environment.site, environment)
            left -= 1
    _tell(root, met, limits, found)


def read_sites(host: Host, mounts: Mounts, sites: Iterable[str]) -> tuple[Environment, ...]:
    """Return the environments in site directories that somebody has named; nothing of those that cannot be read."""
    found = (_read(host, mounts, site) for site in sites)
    return tuple(item for item in found if isinstance(item, Environment))


def _read(host: Host, mounts: Mounts, site: str) -> Environment | OSError | None:
    """Return what is in a site directory, None where nothing of interest is, or why it cannot be read."""
    prefix = prefix_of(site)
    try:
        with open_local(mounts, host.under(prefix)) as descriptor:
            return read_environment(descriptor, prefix, site)
    except OSError as problem:
        return problem


def _directories(count: int) -> str:
    return f"{count} director{'y' if count == 1 else 'ies'}"


def _tell(root: str, met: Walk, limits: Limits, found: _Found) -> None:
    found.entries += met.entries
    if met.limit:
        numbers = {"entries": limits.entries, "environments": limits.environments}
        found.incomplete.append(WORDS[met.limit].format(root=root, **numbers))
    if met.closed:
        found.incomplete.append(f"{_directories(met.closed)} below {root} could not be read")
    if met.deep:
        found.passed_over.append(f"deeper than {limits.depth} levels below {root}: {_directories(met.deep)}")
    if met.containers:
        found.passed_over.append(f"other systems are not looked at: {_name(met.containers)}")


def _with_names(environments: Iterable[Environment]) -> Iterator[Environment]:
    """Where two lie in one prefix (it was upgraded to another Python), each goes by its site directory."""
    some = list(environments)
    paths = Counter(item.path for item in some)
    for item in some:
        yield item if paths[item.path] == 1 else replace(item, path=item.site)


def _name(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else ""
    return f"{', '.join(paths[:MOST_NAMED])}{more}"


def recheck(host: Host, mounts: Mounts, environments: Iterable[Environment]) -> tuple[Environment, ...]:
    """Return known environments as they are now: the very same objects where no stamp has changed; none that is gone.

    Costs one stat for each module and two or three beside.
    """
    return tuple(now for item in environments if (now := _look_again(host, mounts, item)))


def _look_again(host: Host, mounts: Mounts, known: Environment) -> Environment | None:
    try:
        with open_local(mounts, host.under(known.prefix)) as descriptor:
            if is_unchanged(descriptor, known):
                return known
            now = read_environment(descriptor, known.prefix, known.site)
            return replace(now, path=known.path) if now else None
    except OSError:
        return None


def merge(known: Iterable[Environment], found: Iterable[Environment]) -> tuple[Environment, ...]:
    """Return both, by site directory; what was found now counts, and comes first where there are very many. Pure."""
    now = {item.site: item for item in found}
    rest = (item for item in known if item.site not in now)
    return tuple(_with_names(islice((*now.values(), *rest), MOST_KNOWN)))


def pack(environment: Environment) -> list[Any]:
    """Return an environment as plain JSON data without names, and its stamps as one text: there may be thousands."""
    modules = [item.path for item in environment.modules]
    marks = [path for path, _ in environment.marks]
    stamps = (*(item.stamp for item in environment.modules), *(stamp for _, stamp in environment.marks))
    return [
        *(environment.path, environment.prefix, environment.site, environment.kind, environment.uid),
        *(environment.python, environment.numpy, environment.scipy, environment.mkl, environment.manager),
        *(environment.requires, modules, environment.problems, marks),
        b2a_base64(b"".join(starmap(STAMP.pack, stamps)), newline=False).decode("ascii"),
    ]


def unpack(row: Sequence[Any]) -> Environment:
    """The reverse of `pack`. Raises ValueError or TypeError where `row` is no such thing."""
    path, prefix, site, kind, uid, python, numpy, scipy, mkl, manager, requires, modules, problems, marks, text = row
    numbers = a2b_base64(text)
    if len(numbers) != STAMP.size * (len(modules) + len(marks)):
        raise ValueError("not as many stamps as paths")
    stamps = cast(list[Stamp], list(STAMP.iter_unpack(numbers)))
    return Environment(
        *(path, prefix, site, kind, uid, python, numpy, scipy, mkl, manager),
        tuple(requires),
        tuple(map(Module, modules, stamps)),
        tuple(problems),
        tuple(zip(marks, stamps[len(modules) :], strict=True)),
    )
