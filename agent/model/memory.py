"""What the store hands out: everything that the daemon decides upon, as one frozen value."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.model.facts import Retired, StaleProcess, Transaction
from agent.model.restarts import Attempt, Outcome


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered.

    begun: when the index was first made (None: there is no index yet). boot: the boot that it belongs to.
    attempts: the last ended attempt of each unit. unended: attempts that were begun and have no outcome.
    broken: outcomes that left a unit down and were not seen mended since. brake: why no further wave is begun by
    itself; empty where none failed. silences: those in force.
    """

    begun: datetime | None
    boot: str
    retired: tuple[Retired, ...]
    transaction: Transaction | None
    attempts: tuple[Attempt, ...]
    unended: tuple[Attempt, ...]
    broken: tuple[Outcome, ...]
    brake: str = ""
    silences: tuple["Silence", ...] = ()


class SilenceKind(StrEnum):
    """`snooze` ends at a time, `ack` when the finding does."""

    SNOOZE = "snooze"
    ACK = "ack"


@dataclass(frozen=True, slots=True)
class Silence:
    """A finding that somebody does not want to be told of. `id`: the finding's; `uid`: who said so, `at` when."""

    id: str
    kind: SilenceKind
    reason: str
    uid: int
    at: datetime
    until: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """One restart of the past: the transaction that it was for, the reasons given, and what was stale before it.

    cves: those whose fixes it was to bring into effect.
    """

    transaction: Transaction | None
    attempt: Attempt
    reasons: tuple[str, ...]
    processes: tuple[StaleProcess, ...] = ()
    cves: tuple[str, ...] = ()
