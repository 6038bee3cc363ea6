"""The SQLite file itself: opened, brought to the present form, put aside where it is none, changed all or nothing.

A full disk ends nothing: what is to be remembered is remembered in memory, and written when there is room again.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from agent.model.errors import AgentError, Kind
from agent.store import rows

FULL = "is the disk of /var/lib/aftercare full or read-only?"

T = TypeVar("T")


class Database:
    """The open file; or, for as long as that cannot be written, a copy of it in memory.

    recovered: says, in words, that its predecessor was put aside. unwritten: why it is the copy; empty: it is the file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, unwritten: str = "") -> None:
        self._path = path
        self._connection = connection
        self.recovered = ""
        self.unwritten = unwritten

    @classmethod
    def open(cls, path: Path, now: datetime) -> Self:
        """Open or make the file at `path`, or a copy of it where it cannot be written; raise AgentError(UNREADABLE)."""
        try:
            return cls(path, _connect(path))
        except (sqlite3.OperationalError, OSError) as problem:
            return cls(path, _copy(path), _words(path, problem))
        except sqlite3.DatabaseError as problem:
            aside = path.with_name(f"{path.name}.broken-{now:%Y%m%dT%H%M%S}")
            _put_aside(path, aside)
            opened = cls.open(path, now)
            opened.recovered = f"{path} was no database any more ({problem}): it is kept as {aside}, a new one is begun"
            return opened

    def close(self) -> None:
        self._connection.close()

    def execute(self, query: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        """Have SQLite execute one statement."""
        return self._connection.execute(query, tuple(values))

    def commit(self, work: Callable[[], T]) -> T:
        """Return what `work` does, all of it or nothing. Where the file cannot be written it is done in a copy.

        Damage is for the next `open` to mend.
        """
        try:
            return self._commit(work)
        except sqlite3.OperationalError as problem:
            if self.unwritten:
                raise
            memory = _memory()
            self._connection.backup(memory)
            self._replace(memory, _words(self._path, problem))
        return self._commit(work)

    def _commit(self, work: Callable[[], T]) -> T:
        try:
            self.execute("BEGIN IMMEDIATE")
            done = work()
            self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self.execute("ROLLBACK")
            raise
        return done

    def write_back(self) -> None:
        """Put the copy in the place of what the file holds, if it can be written again, and go on with the file."""
        if not self.unwritten:
            return
        try:
            file = _connect(self._path)
        except (sqlite3.Error, OSError) as problem:
            self.unwritten = _words(self._path, problem)
            return
        try:
            file.execute("BEGIN IMMEDIATE")
            file.execute("ROLLBACK")
            self._connection.backup(file)
        except sqlite3.Error as problem:
            file.close()
            self.unwritten = _words(self._path, problem)
            return
        self._replace(file)

    def _replace(self, connection: sqlite3.Connection, unwritten: str = "") -> None:
        self._connection.close()
        self._connection, self.unwritten = connection, unwritten

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
    try:
        _set_up(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-512")
    _bring_up(connection)
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("damaged")


def _bring_up(connection: sqlite3.Connection) -> None:
    """Bring the tables to the present form; those of a later one are not ours."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= version <= rows.SCHEMA:
        raise sqlite3.DatabaseError(f"schema {version}, expected {rows.SCHEMA}")
    if version < rows.SCHEMA:
        steps = "".join(rows.STEPS[version:])
        connection.executescript(f"BEGIN; {steps} PRAGMA user_version={rows.SCHEMA}; COMMIT;")


def _memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def _copy(path: Path) -> sqlite3.Connection:
    """Return what the file holds, in memory; nothing where there is none. Raises AgentError(UNREADABLE)."""
    memory = _memory()
    try:
        if path.exists():
            try:
                _read(path, memory)
            except sqlite3.OperationalError:
                _read_elsewhere(path, memory)
        _bring_up(memory)
    except (sqlite3.Error, OSError) as problem:
        raise AgentError(Kind.UNREADABLE, f"{path}: {problem}", FULL) from problem
    return memory


def _read(path: Path, memory: sqlite3.Connection) -> None:
    """It takes no room on the disk: behind an exclusive lock SQLite keeps no index beside its log."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA locking_mode=EXCLUSIVE")
        file.execute("PRAGMA user_version").fetchone()
        file.backup(memory)


def _read_elsewhere(path: Path, memory: sqlite3.Connection) -> None:
    """A log of changes is not read where its file cannot be written, as on a disk that was made read-only."""
    with tempfile.TemporaryDirectory() as directory:
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{directory}/{path.name}{suffix}")
        _read(Path(directory, path.name), memory)


def _words(path: Path, problem: Exception) -> str:
    return f"the history, {path}, cannot be written: {problem}; nothing is restarted until it can be"


def _put_aside(path: Path, aside: Path) -> None:
    os.replace(path, aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
