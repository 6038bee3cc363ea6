"""The tables of the history, and their rows ↔ nouns of the model. Pure."""

import json
import os
from datetime import datetime
from typing import Any

from agent.model import contract
from agent.model.facts import Change, FileId, PackageState, Retired, StaleProcess, Transaction
from agent.model.memory import Recorded, Silence, SilenceKind
from agent.model.restarts import Attempt, Outcome

FIRST = """
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
SILENCES = """
CREATE TABLE silences(number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, kind TEXT, until TEXT, reason TEXT,
                      uid INTEGER, at TEXT, ended TEXT);
ALTER TABLE attempts ADD COLUMN cves TEXT NOT NULL DEFAULT '[]';
"""
STEPS = (FIRST, SILENCES)
"""How a file of each earlier form becomes one of the next; it is begun as one of form 0."""
SCHEMA = len(STEPS)

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
    id, cause, unit, invocation, begun, _, _, pulls, _, outcome, *_ = row
    ended = contract.decode(Outcome, json.loads(outcome)) if outcome else None
    at = datetime.fromisoformat(begun)
    return Attempt(id, cause, unit, invocation, at, ended, tuple(json.loads(pulls)))


def recorded(row: Row, cause: Transaction | None) -> Recorded:
    """Return a row of `attempts` with all that is on record of it."""
    processes = contract.decode(tuple[StaleProcess, ...], json.loads(row[6]))
    return Recorded(cause, attempt(row), tuple(json.loads(row[5])), processes, tuple(json.loads(row[11])))


def silence(row: Row) -> Silence:
    """Return a row of `silences`."""
    _, id, kind, until, reason, uid, at, ended = row
    times = (datetime.fromisoformat(text) if text else None for text in (until, ended))
    return Silence(id, SilenceKind(kind), reason, uid, datetime.fromisoformat(at), *times)


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
