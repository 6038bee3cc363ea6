"""What the store hands out: everything that the daemon decides upon, as one frozen value."""

from dataclasses import dataclass
from datetime import datetime

from agent.model.events import Transaction
from agent.model.facts import Retired, StaleProcess
from agent.model.restarts import Attempt, Outcome


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered.

    begun: when the index was first made (None: there is no index yet). boot: the boot that it belongs to.
    attempts: the last ended attempt of each unit. unended: attempts that were begun and have no outcome.
    broken: outcomes that left a unit down and were not seen mended since.
    """

    begun: datetime | None
    boot: str
    retired: tuple[Retired, ...]
    transaction: Transaction | None
    attempts: tuple[Attempt, ...]
    unended: tuple[Attempt, ...]
    broken: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One restart of the past: the transaction that it was for, the reasons given, and what was stale before it."""

    transaction: Transaction | None
    attempt: Attempt
    reasons: tuple[str, ...]
    processes: tuple[StaleProcess, ...] = ()
