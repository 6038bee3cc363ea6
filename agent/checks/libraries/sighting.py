"""Finds old files in processes: joins what is mapped, by number, to what dpkg's files were or are.

With a history the retired inodes are looked for; without one, mapped files that are none of dpkg's present
ones. Of a process nothing is executed, and no path is looked at but dpkg's own.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import BinaryIO

from agent.host import elf, mapped, mappings, packages, processes
from agent.host.inodes import Inode, identify, read_inode
from agent.host.mapped import MappedFile
from agent.host.mappings import Engine, Ids, Pick
from agent.model.errors import AgentError
from agent.model.facts import FileId, Host, Retired, Snapshot
from agent.stale import judge
from agent.stale.judge import BEFORE_US, Sighting

MOST_MAPPINGS = 200_000

Candidates = Callable[[tuple[int, int], MappedFile, Inode | None], Sequence[Retired]]


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for. devices: see `mappings.calibrate`; lost: wanted ones that it could not learn.

    pick: which ids of a process are worth a look. concerns: whether its names mean files of this host, where it
    goes by names. candidates: what one of the ids may be, by id and what is known of it. compared: content found
    the same or not, by the mapped file and the path of the new one. alive: picked ids that turned out to have names
    still, and are nobody's old files.
    """

    engine: Engine
    devices: dict[int, int]
    lost: frozenset[int]
    pick: Pick
    concerns: Callable[[int], bool]
    candidates: Candidates
    compared: dict[tuple[FileId, str], bool] = field(default_factory=dict)
    alive: set[tuple[int, int]] = field(default_factory=set)


def search_retired(host: Host, retired: Sequence[Retired], snapshot: Snapshot, engine: Engine) -> Search:
    """Look for the inodes that dpkg's files had, whatever they are called by now."""
    by_id: dict[tuple[int, int], list[Retired]] = {}
    for old in retired:
        by_id.setdefault((old.id.device, old.id.inode), []).append(old)
    wanted = frozenset(device for device, _ in by_id)
    others = (path for path, _ in packages.code_paths(host, snapshot.values()))
    samples = chain((old.path for old in retired), (f"{packages.DATABASE}/status",), others)
    devices = mappings.calibrate(host, samples, wanted)
    return Search(
        engine,
        devices,
        lost=wanted - devices.keys(),
        pick=mappings.among(by_id, devices, engine),
        concerns=lambda pid: True,
        candidates=lambda id, file, inode: by_id[id],
    )


def search_strangers(host: Host, snapshot: Snapshot, engine: Engine) -> Search:
    """Look for files that by their names were dpkg's, are not what lies there now, and have no name left."""
    owners = {path: package.name for path, package in packages.code_paths(host, snapshot.values())}
    known = {path: id for path in owners if (id := identify(host.under(path)))}
    present = {id.device for id in known.values()}
    devices = mappings.calibrate(host, known, present)
    pick = mappings.strangers(((id.device, id.inode) for id in known.values()), devices, engine)
    witness = processes.read_witness(host)
    alive: set[tuple[int, int]] = set()

    def candidates(id: tuple[int, int], file: MappedFile, inode: Inode | None) -> Sequence[Retired]:
        if inode is not None and inode.links:
            alive.add((inode.id.device, inode.id.inode))  # nobody's old file then, whoever else maps it
        name = packages.within(host, judge.original_name(file.name))
        path = packages.canonical(host, name) if name else ""
        if path not in owners or not judge.is_gone(file.name, inode.links if inode else None):
            return ()
        return (Retired(path, owners[path], None, FileId(*id, inode.id.born if inode else 0), BEFORE_US),)

    return Search(
        engine,
        devices,
        lost=frozenset(present - devices.keys()),
        pick=pick,
        concerns=lambda pid: processes.shares_root(host, pid, witness),
        candidates=candidates,
        alive=alive,
    )


def find_sightings(host: Host, search: Search, pid: int, ids: Ids) -> Iterator[Sighting]:
    """Yield the old files among `ids` (by `st_dev`) in `pid`. Raises OSError and mappings.TooMany."""
    if not search.concerns(pid):
        return
    shown = {id: (search.devices[id[0]], id[1]) for id in ids}
    files = mapped.find_files(host, pid, set(shown.values()), MOST_MAPPINGS)
    for id in ids:
        file = files.get(shown[id])
        if file:
            with contextlib.suppress(ProcessLookupError):
                yield from _look(host, search, id, file)


def _look(host: Host, search: Search, id: tuple[int, int], file: MappedFile) -> Iterator[Sighting]:
    inode = mapped.read_mapped(host, file)
    for old in search.candidates(id, file, inode):
        confidence = judge.confirm(old, inode.id if inode else None)
        if confidence:
            yield Sighting(old, confidence, _is_same(host, search, old, file, inode))


def _is_same(host: Host, search: Search, old: Retired, file: MappedFile, inode: Inode | None) -> bool | None:
    """Return whether the file now at `old.path` has the content that is mapped; None: it cannot be told."""
    path = host.under(old.path)
    current = identify(path)
    if current is None:
        return False
    if inode is None:
        return _is_same_build(host, file, path)
    if current == inode.id:
        return True
    if (inode.id, path) not in search.compared:
        try:
            with open(mapped.open_mapped(host, file), "rb") as before, _open(path) as now:
                if read_inode(f"/proc/self/fd/{before.fileno()}", follow=True).id != inode.id:
                    return None  # what is said here counts for everybody who maps it: it is proven once more
                search.compared[inode.id, path] = elf.same_content(before.fileno(), now.fileno())
        except (OSError, AgentError):
            return None
    return search.compared[inode.id, path]


def _is_same_build(host: Host, file: MappedFile, path: str) -> bool | None:
    """Compare by what the kernel alone says of the mapped file, which may not be opened."""
    try:
        with _open(path) as now:
            before, after = mapped.read_build_id(host, file), elf.build_id(now.fileno())
    except (OSError, AgentError):
        return None
    return before == after if before and after else None


def _open(path: str) -> BinaryIO:
    return open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW), "rb")
