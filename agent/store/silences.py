"""The rows of what people do not want to be told of."""

from collections.abc import Container, Iterator
from datetime import datetime
from typing import Any

from agent.model.memory import Silence, SilenceKind
from agent.store import rows
from agent.store.database import Database

IN_FORCE = "SELECT * FROM silences WHERE ended IS NULL ORDER BY number"
NEWEST_FIRST = "SELECT * FROM silences WHERE at >= ? ORDER BY number DESC LIMIT ?"


def read(database: Database, query: str = IN_FORCE, values: tuple[Any, ...] = ()) -> Iterator[Silence]:
    """Yield those in force, or those that `query` finds."""
    return (rows.silence(row) for row in database.execute(query, values).fetchall())


def add(database: Database, silence: Silence) -> None:
    """Add one; an earlier word on the same finding is over."""
    end(database, silence.id, silence.at)
    until = silence.until.isoformat() if silence.until else None
    row = (silence.id, silence.kind.value, until, silence.reason, silence.uid, silence.at.isoformat())
    database.execute("INSERT INTO silences(id, kind, until, reason, uid, at) VALUES(?, ?, ?, ?, ?, ?)", row)


def end(database: Database, id: str, now: datetime) -> None:
    """End what is in force on a finding."""
    _end(database, "id = ?", id, now)


def end_over(database: Database, ids: Container[str], now: datetime) -> None:
    """A snooze ends with its time; what was acknowledged is over with the finding. ids: of the findings there are."""
    _end(database, "until <= ?", now.isoformat(), now)
    for silence in tuple(read(database)):
        if silence.kind is SilenceKind.ACK and silence.id not in ids:
            end(database, silence.id, now)


def _end(database: Database, which: str, value: str, now: datetime) -> None:
    query = f"UPDATE silences SET ended = ? WHERE ended IS NULL AND {which}"
    database.execute(query, (now.isoformat(), value))
