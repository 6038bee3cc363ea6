"""The rows of dpkg's files: its status as it was last settled, the index, and the retired inodes."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from agent.model.facts import Indexed, PackageState, Retired, Snapshot
from agent.store import rows
from agent.store.database import Database


def read_snapshot(database: Database) -> Snapshot:
    """Return dpkg's status as it was last settled."""
    found = database.execute("SELECT name, arch, version, state, stamp FROM packages")
    return {state.key: state for state in (PackageState(*row) for row in found)}


def replace_snapshot(database: Database, snapshot: Snapshot) -> None:
    """Put `snapshot` in the place of the last one."""
    database.execute("DELETE FROM packages")
    database.insert(
        "packages", ((state.name, state.arch, state.version, state.state, state.stamp) for state in snapshot.values())
    )


def read_retired(database: Database) -> Iterator[Retired]:
    """Yield the files that dpkg had once and that somebody may still map."""
    return (rows.retired(row) for row in database.execute("SELECT * FROM retired"))


def replace_index(database: Database, packages: set[str], index: Iterable[Indexed], cause: int) -> None:
    """Put `index` in the place of the files of `packages`; those that are not among them any more are retired."""
    old: list[tuple[Any, ...]] = []
    for package in packages:
        old += database.execute("DELETE FROM files WHERE package=? RETURNING *", (package,)).fetchall()
    kept = _add(database, index)
    database.insert("retired", ((*row, cause) for row in old if row[3:6] not in kept))
    _revive(database, kept)


def begin_index(database: Database, index: Iterable[Indexed]) -> None:
    """Make the index anew, from the files of all packages: what was retired before is of another boot or disk."""
    database.execute("DELETE FROM files")
    database.execute("DELETE FROM retired")
    _add(database, index)


def add_retired(database: Database, retired: Iterable[Retired]) -> None:
    """Add files that turned out to be old."""
    database.insert(
        "retired",
        ((os.fsencode(old.path), old.package, old.version, *rows.columns(old.id), old.transaction) for old in retired),
    )


def replace_retired(database: Database, retired: Iterable[Retired]) -> None:
    """Keep only these of the retired files."""
    database.execute("DELETE FROM retired")
    add_retired(database, retired)


def _add(database: Database, index: Iterable[Indexed]) -> set[tuple[int, int, int]]:
    ids = set()
    for item in index:
        id = rows.columns(item.id)
        ids.add(id)
        database.insert("files", [(os.fsencode(item.path), item.package, item.version, *id)])
    return ids


def _revive(database: Database, kept: set[tuple[int, int, int]]) -> None:
    """What dpkg has again is not retired."""
    for device, inode, _ in kept:
        database.execute("DELETE FROM retired WHERE device=? AND inode=?", (device, inode))
