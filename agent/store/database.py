"""The SQLite file itself: opened, brought to the present form, put aside where it is none, changed all or nothing."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from agent.model.errors import AgentError, Kind
from agent.store import rows

FULL = "is the disk of /var/lib/aftercare full or read-only?"


class Database:
    """The open file. `recovered` says, in words, that its predecessor was put aside."""

    def __init__(self, connection: sqlite3.Connection, recovered: str = "") -> None:
        self._connection = connection
        self.recovered = recovered
        self.close = connection.close
        self.execute = connection.execute

    @classmethod
    def open(cls, path: Path, now: datetime) -> Self:
        """Open or make the file at `path`; raise AgentError(UNREADABLE) where neither is possible."""
        recovered = ""
        try:
            connection = _connect(path)
        except (sqlite3.DatabaseError, OSError) as problem:
            if isinstance(problem, sqlite3.OperationalError | OSError):
                raise AgentError(Kind.UNREADABLE, f"{path}: {problem}", FULL) from problem
            aside = path.with_name(f"{path.name}.broken-{now:%Y%m%dT%H%M%S}")
            _put_aside(path, aside)
            recovered = f"{path} was no database any more ({problem}): it is kept as {aside}, a new one is begun"
            connection = _connect(path)
        return cls(connection, recovered)

    @contextlib.contextmanager
    def commit(self) -> Iterator[None]:
        """All or nothing; AgentError(UNREADABLE) where SQLite cannot write. Damage is for the next `open` to mend."""
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.execute("COMMIT")
        except BaseException as problem:
            if self._connection.in_transaction:
                self.execute("ROLLBACK")
            if isinstance(problem, sqlite3.OperationalError):
                raise AgentError(Kind.UNREADABLE, f"the history cannot be written: {problem}", FULL) from problem
            raise

    def insert(self, table: str, values: Iterable[Iterable[Any]]) -> None:
        """Add rows whose values stand for all columns of `table`, in order."""
        for row in values:
            columns = tuple(row)
            self.execute(f"INSERT INTO {table} VALUES({','.join('?' * len(columns))})", columns)

    def get(self, key: str) -> str:
        """Return the single value `key`; empty where it was never set."""
        row = self.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def set(self, key: str, value: str) -> None:
        """Keep the single value `key`."""
        self.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, value))


def _connect(path: Path) -> sqlite3.Connection:
    """Return an open file with our schema; raise sqlite3.DatabaseError where it holds something else."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-512")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= version <= rows.SCHEMA:
        raise sqlite3.DatabaseError(f"schema {version}, expected {rows.SCHEMA}")
    if version < rows.SCHEMA:
        steps = "".join(rows.STEPS[version:])
        connection.executescript(f"BEGIN; {steps} PRAGMA user_version={rows.SCHEMA}; COMMIT;")
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("damaged")
    return connection


def _put_aside(path: Path, aside: Path) -> None:
    os.replace(path, aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
