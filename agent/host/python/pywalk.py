"""Finds the directories that Python imports packages from, below a root, without opening any file.

Bounded in depth, in the number of entries and in time, for the tree may be somebody's who wants it to have no end.
Of a hit nothing but its name is taken; caches, containers and what is mounted on the way are not entered.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from agent.host.beneath import scan_beneath

SITES = frozenset({"site-packages", "dist-packages"})
LIBRARY: Final = re.compile(r"python\d[0-9.]*t?")
"""What the directory of a standard library is called: beside its site-packages there is nothing to look for."""
PRUNED = frozenset({".git", ".hg", ".svn", ".cache", "__pycache__", "node_modules"})
CONDA = frozenset({"conda-meta", "envs", "environments.txt"})
"""A directory `pkgs` beside one of these is conda's cache of unpacked packages."""
CONDA_PREFIX = frozenset({"lib", "envs"})
"""Where a conda environment can have site-packages, or other environments."""
CONTAINERS = frozenset(
    "containerd containers docker flatpak incus kubelet lxc lxd machines rancher snapd waydroid".split()
)
CONTAINER_PARENTS = ("/var/lib", "/.local/share")
"""Below these, directories of the names above hold other systems, with an MKL of their own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is looked at: levels below a root; entries, environments and seconds of one root, and of all."""

    depth: int = 12
    entries: int = 1_000_000
    environments: int = 1_000
    all_environments: int = 4_000
    root_seconds: float = 10.0
    seconds: float = 20.0


@dataclass(slots=True)
class Walk:
    """What a walk has met so far. `limit` is the name of the one that ended it; empty: it came to its end.

    sites: relative to the root. containers: absolute. deep: directories that lay too deep to enter. closed: those
    that could not be read.
    """

    sites: list[str] = field(default_factory=list)
    entries: int = 0
    limit: str = ""
    deep: int = 0
    closed: int = 0
    containers: list[str] = field(default_factory=list)


def walk(root: int, base: str, skip: frozenset[str], limits: Limits, until: float, clock: Callable[[], float]) -> Walk:
    """Go through what is below the descriptor `root`, the directory that is called `base` in the host.

    skip: absolute directories that are somebody else's turn. until: the time by `clock` at which to stop.
    """
    met = Walk()
    waiting = [""]
    while waiting and not met.limit:
        place = waiting.pop()
        absolute = f"{base.rstrip('/')}/{place}".rstrip("/")
        inner = _enter(root, place, absolute, met, limits.entries)
        if clock() > until:
            met.limit = "seconds"
        elif place.count("/") + 1 >= limits.depth and inner:
            met.deep += len(inner)
        else:
            waiting += (below for name in inner if f"{absolute}/{name}" not in skip for below in (_join(place, name),))
    return met


def _enter(root: int, place: str, absolute: str, met: Walk, most: int) -> list[str]:
    """Note the site directories in `place`; return the other directories in it that are worth entering."""
    directories: list[str] = []
    marks: set[str] = set()
    try:
        for name, is_directory in _entries(root, place):
            met.entries += 1
            if met.entries > most:
                met.limit = "entries"
                break
            if name in CONDA:
                marks.add(name)
            if is_directory and name not in PRUNED:
                directories.append(name)
    except OSError:
        met.closed += 1
    sites = [name for name in directories if name in SITES]
    met.sites += (_join(place, name) for name in sites)
    if sites and LIBRARY.fullmatch(absolute.rpartition("/")[2]):
        return []
    return list(_worth(directories, marks, absolute, met))


def _entries(root: int, place: str) -> Iterator[tuple[str, bool]]:
    for entry in scan_beneath(root, place):
        yield entry.name, entry.is_dir(follow_symlinks=False)


def _worth(directories: Iterable[str], marks: set[str], absolute: str, met: Walk) -> Iterator[str]:
    holds_containers = absolute.endswith(CONTAINER_PARENTS)
    for name in directories:
        if name in SITES or (name == "pkgs" and marks):
            continue
        if "conda-meta" in marks and name not in CONDA_PREFIX:
            continue
        if holds_containers and name in CONTAINERS:
            met.containers.append(f"{absolute}/{name}")
            continue
        yield name


def is_passed_over(path: str) -> bool:
    """Return whether a walk would not get to the absolute `path`: by its text, for mounts that lie there. Pure."""
    parts = path.split("/")
    if PRUNED.intersection(parts):
        return True
    places = ("/".join(parts[: number + 1]) for number in range(len(parts)))
    return any(
        place.endswith(CONTAINER_PARENTS) and parts[number + 1 : number + 2] and parts[number + 1] in CONTAINERS
        for number, place in enumerate(places)
    )


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name
