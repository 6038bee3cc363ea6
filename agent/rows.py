"""The tables of the history, and their rows ↔ nouns of the model. Pure."""

import json
import os
from datetime import datetime
from typing import Any

from agent.model import contract
from agent.model.events import Change, Transaction
from agent.model.facts import FileId, PackageState, Retired, StaleProcess
from agent.model.restarts import Attempt, Outcome

SCHEMA = 1
TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE packages(name TEXT, arch TEXT, version TEXT, state TEXT, stamp TEXT, PRIMARY KEY(name, arch))
    WITHOUT ROWID;
CREATE TABLE files(path BLOB, package TEXT, version TEXT, device INTEGER, inode INTEGER, born INTEGER);
CREATE INDEX files_package ON files(package);
CREATE TABLE retired(path BLOB, package TEXT, version TEXT, device INTEGER, inode INTEGER, born INTEGER, cause INTEGER);
CREATE TABLE transactions(id INTEGER PRIMARY KEY AUTOINCREMENT, begun TEXT, ended TEXT, command TEXT, requester TEXT,
                          changes TEXT, unfinished TEXT);
CREATE TABLE attempts(id INTEGER PRIMARY KEY AUTOINCREMENT, cause INTEGER, unit TEXT, invocation TEXT, begun TEXT,
                      reasons TEXT, processes TEXT, pulls TEXT, ended TEXT, outcome TEXT,
                      mended INTEGER NOT NULL DEFAULT 0);
CREATE INDEX attempts_unit ON attempts(unit);
CREATE TABLE since(id TEXT PRIMARY KEY, at TEXT) WITHOUT ROWID;
"""

Row = tuple[Any, ...]


def columns(id: FileId) -> tuple[int, int, int]:
    """SQLite's integers are signed, and overlayfs uses the highest bit of inode numbers."""
    return id.device, id.inode - (id.inode >> 63 << 64), id.born


def text(since: datetime | None) -> str:
    """Return a time to compare the texts of times with; None: before all of them."""
    return since.isoformat() if since else ""


def retired(row: Row) -> Retired:
    """Return a row of `retired`."""
    path, package, version, device, inode, born, cause = row
    return Retired(os.fsdecode(path), package, version, FileId(device, inode % (1 << 64), born), cause)


def attempt(row: Row) -> Attempt:
    """Return a row of `attempts`."""
    id, cause, unit, invocation, begun, _, _, pulls, _, outcome, _ = row
    ended = contract.decode(Outcome, json.loads(outcome)) if outcome else None
    at = datetime.fromisoformat(begun)
    return Attempt(id, cause, unit, invocation, at, ended, tuple(json.loads(pulls)))


def reasons(row: Row) -> tuple[tuple[str, ...], tuple[StaleProcess, ...]]:
    """Return why an attempt was begun: in words, and the processes that were stale."""
    return tuple(json.loads(row[5])), contract.decode(tuple[StaleProcess, ...], json.loads(row[6]))


def transaction(row: Row) -> Transaction:
    """Return a row of `transactions`."""
    id, begun, ended, command, requester, changes, unfinished = row
    return Transaction(
        id,
        datetime.fromisoformat(begun) if begun else None,
        datetime.fromisoformat(ended),
        command,
        requester,
        contract.decode(tuple[Change, ...], json.loads(changes)),
        contract.decode(tuple[PackageState, ...], json.loads(unfinished)),
    )
