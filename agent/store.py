"""All that is remembered, in one SQLite file: nobody else opens it, and nobody else remembers.

The snapshot of dpkg's status, the index and the retired files change together with the transaction that caused
them, in one commit: after a crash either all of it happened or nothing. A file that is no database any more is put
aside, never deleted, and a new one begun; `recovered` then says so.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from agent import rows
from agent.model import contract
from agent.model.errors import AgentError, Kind
from agent.model.events import Change, Transaction
from agent.model.facts import Indexed, PackageState, Retired, Snapshot
from agent.model.findings import CheckResult, Finding, Survey
from agent.model.memory import Memory, Recorded
from agent.model.restarts import BROKEN, Attempt, Outcome, Step

FULL = "is the disk of /var/lib/aftercare full or read-only?"


class Store:
    """The open history. Every method is one commit; times are given by the caller."""

    def __init__(self, database: sqlite3.Connection, recovered: str = "") -> None:
        self._database = database
        self.recovered = recovered

    @classmethod
    def open(cls, path: Path, now: datetime) -> Self:
        """Open or make the history at `path`; raise AgentError(UNREADABLE) where neither is possible."""
        recovered = ""
        try:
            database = _connect(path)
        except (sqlite3.DatabaseError, OSError) as problem:
            if isinstance(problem, sqlite3.OperationalError | OSError):
                raise AgentError(Kind.UNREADABLE, f"{path}: {problem}", FULL) from problem
            aside = path.with_name(f"{path.name}.broken-{now:%Y%m%dT%H%M%S}")
            _put_aside(path, aside)
            recovered = f"{path} was no database any more ({problem}): it is kept as {aside}, a new one is begun"
            database = _connect(path)
        return cls(database, recovered)

    def close(self) -> None:
        self._database.close()

    # What the daemon decides upon

    def memory(self) -> Memory:
        """Return all that is remembered but the snapshot and the index."""
        begun = self._get("begun")
        return Memory(
            begun=datetime.fromisoformat(begun) if begun else None,
            boot=self._get("boot"),
            retired=tuple(rows.retired(row) for row in self._database.execute("SELECT * FROM retired")),
            transaction=next(iter(self.transactions(1)), None),
            attempts=tuple(self._attempts(LAST_ENDED)),
            unended=tuple(self._attempts("SELECT * FROM attempts WHERE outcome IS NULL ORDER BY id")),
            broken=tuple(
                attempt.outcome
                for attempt in self._attempts(f"SELECT * FROM ({LAST_ENDED}) WHERE NOT mended")
                if attempt.outcome and attempt.outcome.result in BROKEN
            ),
        )

    def snapshot(self) -> Snapshot | None:
        """Return dpkg's status as it was last settled; None before the first survey."""
        if not self._get("begun"):
            return None
        found = self._database.execute("SELECT name, arch, version, state, stamp FROM packages")
        states = (PackageState(*row) for row in found)
        return {state.key: state for state in states}

    # What the checks learnt

    def settle(
        self, survey: Survey, changes: Sequence[Change], index: Iterable[Indexed], boot: str, now: datetime
    ) -> Transaction | None:
        """Commit a survey: snapshot, index, retired files and the transaction that caused them, which is returned.

        None where nothing changed, and for the very first survey: what was installed before us is no transaction.
        """
        with self._commit():
            first = not self._get("begun")
            transaction = None if first or not changes else self._add_transaction(survey, changes, now)
            cause = transaction.id if transaction else 0
            old = self._forget_files(None if survey.full else {change.package for change in changes})
            kept = self._add_files(index)
            if not survey.full:
                self._retire((row for row in old if row[3:6] not in kept), cause)
            self._database.executemany("DELETE FROM retired WHERE device=? AND inode=?", {id[:2] for id in kept})
            self._replace_snapshot(survey.snapshot)
            if survey.full:
                self._database.execute("DELETE FROM retired")
                self._set("begun", now.isoformat())
                self._set("boot", boot)
        return transaction

    def learn(self, result: CheckResult) -> None:
        """Keep what a check learnt: newly found old files; retired files that nobody maps any more are dropped."""
        with self._commit():
            if not result.unseen and result.check == "libraries":
                self._database.execute("DELETE FROM retired")
                self._add_retired(result.mapped)
            self._add_retired(result.learnt)

    def date(self, findings: Sequence[Finding], now: datetime) -> tuple[Finding, ...]:
        """Return `findings` with `since`: the time at which each of them was first seen without a gap."""
        with self._commit():
            ids = [contract.printable(finding.id) for finding in findings]
            marks = ",".join("?" * len(ids))
            self._database.execute(f"DELETE FROM since WHERE id NOT IN ({marks})", ids)
            found = [(id, now.isoformat()) for id in ids]
            self._database.executemany("INSERT OR IGNORE INTO since VALUES(?, ?)", found)
            since = dict(self._database.execute("SELECT id, at FROM since").fetchall())
        dated = zip(findings, ids, strict=True)
        return tuple(replace(finding, since=datetime.fromisoformat(since[id])) for finding, id in dated)

    # Restarts

    def begin(self, transaction: int, step: Step, now: datetime) -> Attempt:
        """Write down that `step` is about to be done; on disk when this returns."""
        record = [json.dumps(contract.encode(item)) for item in (step.reasons, step.processes, step.pulls)]
        columns = "cause, unit, invocation, begun, reasons, processes, pulls"
        with self._commit():
            row = self._database.execute(
                f"INSERT INTO attempts({columns}) VALUES(?, ?, ?, ?, ?, ?, ?) RETURNING id",
                (transaction, step.unit, step.invocation_before, now.isoformat(), *record),
            ).fetchone()
        return Attempt(row[0], transaction, step.unit, step.invocation_before, now, pulls=step.pulls)

    def end(self, attempt: int, outcome: Outcome, now: datetime) -> tuple[str, ...]:
        """Write down what came of an attempt; return the reasons that it was begun for."""
        with self._commit():
            row = self._database.execute(
                "UPDATE attempts SET ended=?, outcome=? WHERE id=? RETURNING reasons",
                (now.isoformat(), json.dumps(contract.encode(outcome)), attempt),
            ).fetchone()
        return tuple(json.loads(row[0]))

    def mend(self, units: Iterable[str]) -> None:
        """Write down that units which a restart had left broken were seen to be up again."""
        with self._commit():
            self._database.executemany("UPDATE attempts SET mended=1 WHERE unit=?", [(unit,) for unit in units])

    # History

    def transactions(self, limit: int = 50, since: datetime | None = None) -> Iterator[Transaction]:
        """Yield transactions, newest first."""
        found = self._database.execute(
            "SELECT * FROM transactions WHERE ended >= ? ORDER BY id DESC LIMIT ?", (rows.text(since), limit)
        )
        return (rows.transaction(row) for row in found.fetchall())

    def restarts(self, unit: str | None = None, since: datetime | None = None, limit: int = 200) -> list[Recorded]:
        """Return restarts of the past, newest first, of one unit or of all."""
        found = self._database.execute(
            "SELECT * FROM attempts WHERE begun >= ? AND (? IS NULL OR unit = ?) ORDER BY id DESC LIMIT ?",
            (rows.text(since), unit, unit, limit),
        ).fetchall()
        causes = {row[1] for row in found}
        known = {cause: self._transaction(cause) for cause in causes}
        return [Recorded(known[row[1]], rows.attempt(row), *rows.reasons(row)) for row in found]

    def forget(self, before: datetime) -> None:
        """Drop transactions and attempts that ended before `before`."""
        with self._commit():
            last, limit = "SELECT max(id) FROM attempts GROUP BY unit", (before.isoformat(),)
            self._database.execute(f"DELETE FROM attempts WHERE ended < ? AND id NOT IN ({last})", limit)
            self._database.execute("DELETE FROM transactions WHERE ended < ?", limit)

    # The last good configuration

    def keep_settings(self, data: str) -> None:
        with self._commit():
            self._set("settings", data)

    def kept_settings(self) -> str:
        """Return what `keep_settings` kept last; empty where nothing was."""
        return self._get("settings")

    # Rows

    @contextlib.contextmanager
    def _commit(self) -> Iterator[None]:
        """All or nothing; AgentError(UNREADABLE) where SQLite cannot write. Damage is for the next `open` to mend."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except BaseException as problem:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            if isinstance(problem, sqlite3.OperationalError):
                raise AgentError(Kind.UNREADABLE, f"the history cannot be written: {problem}", FULL) from problem
            raise

    def _get(self, key: str) -> str:
        row = self._database.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def _set(self, key: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, value))

    def _add_transaction(self, survey: Survey, changes: Sequence[Change], now: datetime) -> Transaction:
        unfinished = tuple(state for state in survey.snapshot.values() if state.name in survey.unfinished)
        row = (
            survey.begun.isoformat() if survey.begun else None,
            now.isoformat(),
            survey.command.encode(errors="backslashreplace").decode(),
            survey.requester.encode(errors="backslashreplace").decode(),
            json.dumps(contract.encode(changes)),
            json.dumps(contract.encode(unfinished)),
        )
        columns = "begun, ended, command, requester, changes, unfinished"
        insert = f"INSERT INTO transactions({columns}) VALUES(?, ?, ?, ?, ?, ?) RETURNING id"
        id = self._database.execute(insert, row).fetchone()[0]
        return Transaction(id, survey.begun, now, survey.command, survey.requester, tuple(changes), unfinished)

    def _transaction(self, id: int) -> Transaction | None:
        row = self._database.execute("SELECT * FROM transactions WHERE id=?", (id,)).fetchone()
        return rows.transaction(row) if row else None

    def _forget_files(self, packages: set[str] | None) -> list[tuple[Any, ...]]:
        """Delete the index rows of `packages` (None: all) and return them."""
        if packages is None:
            self._database.execute("DELETE FROM files")
            return []
        found: list[tuple[Any, ...]] = []
        for package in packages:
            found += self._database.execute("DELETE FROM files WHERE package=? RETURNING *", (package,)).fetchall()
        return found

    def _add_files(self, index: Iterable[Indexed]) -> set[tuple[int, int, int]]:
        ids = set()
        for item in index:
            id = rows.columns(item.id)
            ids.add(id)
            row = (os.fsencode(item.path), item.package, item.version, *id)
            self._database.execute("INSERT INTO files VALUES(?, ?, ?, ?, ?, ?)", row)
        return ids

    def _retire(self, found: Iterable[tuple[Any, ...]], cause: int) -> None:
        self._database.executemany("INSERT INTO retired VALUES(?, ?, ?, ?, ?, ?, ?)", [(*row, cause) for row in found])

    def _add_retired(self, retired: Iterable[Retired]) -> None:
        self._database.executemany(
            "INSERT INTO retired VALUES(?, ?, ?, ?, ?, ?, ?)",
            [
                (os.fsencode(old.path), old.package, old.version, *rows.columns(old.id), old.transaction)
                for old in retired
            ],
        )

    def _replace_snapshot(self, snapshot: Snapshot) -> None:
        self._database.execute("DELETE FROM packages")
        self._database.executemany(
            "INSERT INTO packages VALUES(?, ?, ?, ?, ?)",
            [(state.name, state.arch, state.version, state.state, state.stamp) for state in snapshot.values()],
        )

    def _attempts(self, query: str) -> Iterator[Attempt]:
        return (rows.attempt(row) for row in self._database.execute(query).fetchall())


LAST_ENDED = "SELECT * FROM attempts WHERE id IN (SELECT max(id) FROM attempts WHERE outcome IS NOT NULL GROUP BY unit)"


def _connect(path: Path) -> sqlite3.Connection:
    """Return an open database with our schema; raise sqlite3.DatabaseError where the file holds something else."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("PRAGMA cache_size=-512")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        database.executescript(f"BEGIN; {rows.TABLES} PRAGMA user_version={rows.SCHEMA}; COMMIT;")
    elif version != rows.SCHEMA:
        raise sqlite3.DatabaseError(f"schema {version}, expected {rows.SCHEMA}")
    if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("damaged")
    return database


def _put_aside(path: Path, aside: Path) -> None:
    os.replace(path, aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
