"""All that is remembered, in one SQLite file: nobody else opens it, and nobody else remembers.

The snapshot of dpkg's status, the index and the retired files change together with the transaction that caused
them, in one commit: after a crash either all of it happened or nothing. A file that is no database any more is put
aside, never deleted, and a new one begun; `recovered` then says so.
"""

import json
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from agent.model import contract
from agent.model.errors import AgentError, Kind
from agent.model.facts import Change, Indexed, Snapshot, Transaction
from agent.model.findings import CheckResult, Finding, Survey
from agent.model.memory import Memory, Recorded, Silence
from agent.model.restarts import BROKEN, CAME_BACK, UNTOUCHED, Attempt, Outcome, Step, brake_after
from agent.model.text import printable
from agent.store import files, rows, silences
from agent.store.database import FULL, Database

LONGEST = 300
COUNTED = 5
"""So many of the last restarts say how long the next one will take."""
LAST_ENDED = """SELECT * FROM attempts
    WHERE id IN (SELECT max(id) FROM attempts WHERE outcome IS NOT NULL GROUP BY unit)
    AND (unit NOT LIKE 'user@%.service/%' OR id > (SELECT max(id) FROM attempts) - 1000)"""
"""The last attempt at each unit; of users' units, which have any number of names, those among the last thousand."""

P = ParamSpec("P")
T = TypeVar("T")


def commits(method: Callable[Concatenate["Store", P], T]) -> Callable[Concatenate["Store", P], T]:
    """Make a method one commit; it may be called twice, the second time for the copy in memory."""

    @wraps(method)
    def commit(store: "Store", /, *arguments: P.args, **others: P.kwargs) -> T:
        return store._database.commit(lambda: method(store, *arguments, **others))

    return commit


class Store:
    """The open history. Every method is one commit; times are given by the caller.

    Where the file cannot be written all but attempts go on in memory, `unwritten` says so, and `write_back` ends it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.recovered = database.recovered
        self.write_back = database.write_back

    @property
    def unwritten(self) -> AgentError | None:
        """Why nothing can be written down; None where it can be."""
        words = self._database.unwritten
        return AgentError(Kind.UNREADABLE, words, FULL) if words else None

    @classmethod
    def open(cls, path: Path, now: datetime) -> Self:
        """Open or make the history at `path`; raise AgentError(UNREADABLE) where it cannot even be read."""
        return cls(Database.open(path, now))

    def close(self) -> None:
        """Close the file, after a last try at writing what is in memory alone."""
        self.write_back()
        self._database.close()

    # What the daemon decides upon

    def memory(self) -> Memory:
        """Return all that is remembered but the snapshot and the index."""
        begun = self._database.get("begun")
        return Memory(
            begun=datetime.fromisoformat(begun) if begun else None,
            boot=self._database.get("boot"),
            retired=tuple(files.read_retired(self._database)),
            transaction=next(iter(self.transactions(1)), None),
            attempts=tuple(self._attempts(LAST_ENDED)),
            unended=tuple(self._attempts("SELECT * FROM attempts WHERE outcome IS NULL ORDER BY id")),
            broken=self._broken(),
            brake=self._database.get("brake"),
            silences=tuple(silences.read(self._database)),
        )

    def snapshot(self) -> Snapshot | None:
        """Return dpkg's status as it was last settled; None before the first survey."""
        if not self._database.get("begun"):
            return None
        return files.read_snapshot(self._database)

    # What the checks learnt

    @commits
    def settle(
        self, survey: Survey, changes: Sequence[Change], index: Iterable[Indexed], boot: str, now: datetime
    ) -> Transaction | None:
        """Commit a survey: snapshot, index, retired files and the transaction that caused them, which is returned.

        index: can be gone through twice.

        None where nothing changed, and for the very first survey: what was installed before us is no transaction.
        """
        first = not self._database.get("begun")
        transaction = None if first or not changes else self._add_transaction(survey, changes, now)
        if survey.full:
            files.begin_index(self._database, index)
            self._database.set("begun", now.isoformat())
            self._database.set("boot", boot)
        else:
            changed = {change.package for change in changes}
            files.replace_index(self._database, changed, index, transaction.id if transaction else 0)
        files.replace_snapshot(self._database, survey.snapshot)
        if transaction and not brake_after(self._broken()):
            self._database.set("brake", "")
        return transaction

    @commits
    def learn(self, result: CheckResult) -> None:
        """Keep what a check learnt: newly found old files; retired files that nobody maps any more are dropped."""
        if not result.unseen and result.check == "libraries":
            files.replace_retired(self._database, result.mapped)
        files.add_retired(self._database, result.learnt)
        if result.keep is not None:
            self._database.set(f"kept {result.check}", json.dumps(result.keep))

    def kept(self, check: str) -> dict[str, Any]:
        """Return what the last good run of `check` wanted kept for the next one."""
        found: dict[str, Any] = json.loads(self._database.get(f"kept {check}") or "{}")
        return found

    @commits
    def date(self, findings: Sequence[Finding], now: datetime, ran: Container[str]) -> tuple[Finding, ...]:
        """Return `findings` with `since`: the time at which each of them was first seen without a gap.

        ran: the checks that these come from; what was known of others stays so.
        """
        ids = [printable(finding.id) for finding in findings]
        known = dict(self._database.execute("SELECT id, at FROM since").fetchall())
        since = {id: at for id, at in known.items() if id.partition("/")[0] not in ran}
        since |= {id: known.get(id, now.isoformat()) for id in ids}
        if since != known:
            self._database.execute("DELETE FROM since")
            self._database.insert("since", since.items())
        silences.end_over(self._database, since, now)
        dated = zip(findings, ids, strict=True)
        return tuple(replace(finding, since=datetime.fromisoformat(since[id])) for finding, id in dated)

    # Restarts

    @commits
    def begin(self, transaction: int, step: Step, now: datetime) -> Attempt:
        """Write down that `step` is about to be done; on disk when this returns, else AgentError(UNREADABLE)."""
        if self.unwritten:
            raise self.unwritten
        parts = (step.reasons, step.processes, step.pulls, step.cves)
        record = [json.dumps(contract.encode(item)) for item in parts]
        columns = "cause, unit, invocation, begun, reasons, processes, pulls, cves"
        row = self._database.execute(
            f"INSERT INTO attempts({columns}) VALUES(?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (transaction, step.unit, step.invocation_before, now.isoformat(), *record),
        ).fetchone()
        return Attempt(row[0], transaction, step.unit, step.invocation_before, now, pulls=step.pulls)

    @commits
    def end(self, attempt: int, outcome: Outcome, now: datetime) -> tuple[str, ...]:
        """Write down what came of an attempt, with the brake where it failed; return why it was begun."""
        row = self._database.execute(
            "UPDATE attempts SET ended=?, outcome=? WHERE id=? RETURNING reasons",
            (now.isoformat(), json.dumps(contract.encode(outcome)), attempt),
        ).fetchone()
        if brake := brake_after((outcome,)):
            self._database.set("brake", "; ".join(filter(None, (self._database.get("brake"), brake)))[:LONGEST])
        return tuple(json.loads(row[0]))

    @commits
    def mend(self, units: Collection[str]) -> None:
        """Write down that units which a restart had left broken were seen to be up again."""
        for unit in units:
            self._database.execute("UPDATE attempts SET mended=1 WHERE unit=?", (unit,))

    @commits
    def release(self) -> None:
        """Take the brake off: waves may be begun again. A transaction does so too, once nothing is broken any more."""
        self._database.set("brake", "")

    # What people do not want to be told of

    @commits
    def silence(self, silence: Silence) -> None:
        """Write down that a finding is not to be told of for a while; an earlier word on it is over."""
        silences.add(self._database, silence)

    @commits
    def speak(self, id: str, now: datetime) -> None:
        """End a silence before its time."""
        silences.end(self._database, id, now)

    def silences(self, since: datetime | None = None, limit: int = 200) -> list[Silence]:
        """Return silences of the past and present, newest first."""
        return list(silences.read(self._database, silences.NEWEST_FIRST, (rows.text(since), limit)))

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
        known = {cause: self._transaction(cause) for cause in {row[1] for row in found}}
        return [rows.recorded(row, known[row[1]]) for row in found]

    def downtimes(self) -> dict[str, float]:
        """Return how many seconds the restart of each unit took, in the median of the last few that succeeded."""
        taken: dict[str, list[float]] = {}
        for attempt in self._attempts("SELECT * FROM attempts WHERE outcome IS NOT NULL ORDER BY id DESC LIMIT 1000"):
            outcome, known = attempt.outcome, taken.setdefault(attempt.unit, [])
            if outcome and outcome.result in CAME_BACK and len(known) < COUNTED:
                known.append(dict(outcome.took).get("job", 0.0))
        return {unit: median(known) for unit, known in taken.items() if known}

    def recent(self, since: datetime) -> dict[str, tuple[datetime, ...]]:
        """Return when each unit was restarted since then, oldest first; what was refused is no restart."""
        begun: dict[str, tuple[datetime, ...]] = {}
        for attempt in self._attempts("SELECT * FROM attempts WHERE begun >= ? ORDER BY id", (rows.text(since),)):
            if not (attempt.outcome and attempt.outcome.result in UNTOUCHED):
                begun[attempt.unit] = (*begun.get(attempt.unit, ()), attempt.begun)
        return begun

    @commits
    def forget(self, before: datetime) -> None:
        """Drop transactions and attempts that ended before `before`, but for the last attempt at each unit.

        A user has any number of names for units of his own.
        """
        last, limit = "SELECT max(id) FROM attempts GROUP BY unit", (before.isoformat(),)
        kept = f"id IN ({last}) AND unit NOT LIKE 'user@%.service/%'"
        self._database.execute(f"DELETE FROM attempts WHERE ended < ? AND NOT ({kept})", limit)
        self._database.execute("DELETE FROM transactions WHERE ended < ?", limit)
        self._database.execute("DELETE FROM silences WHERE ended < ?", limit)

    # The last good configuration

    @commits
    def keep_settings(self, data: str) -> None:
        self._database.set("settings", data)

    def kept_settings(self) -> str:
        """Return what `keep_settings` kept last; empty where nothing was."""
        return self._database.get("settings")

    # Rows

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

    def _broken(self) -> tuple[Outcome, ...]:
        """Return the outcomes that left a unit down and were not seen mended since."""
        ended = self._attempts(f"SELECT * FROM ({LAST_ENDED}) WHERE NOT mended")
        return tuple(item.outcome for item in ended if item.outcome and item.outcome.result in BROKEN)

    def _attempts(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[Attempt]:
        return (rows.attempt(row) for row in self._database.execute(query, values).fetchall())
