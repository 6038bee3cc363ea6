"""What a check says: findings in the shape of DESIGN §3, and what the daemon should remember of the run."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from agent.model.facts import Indexed, Replaced, Retired, Snapshot, StaleProcess
from agent.model.restarts import Attempt, Disposition, Outcome, Rule


class Severity(StrEnum):
    """Worst first."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    UNKNOWN = "unknown"


class Confidence(StrEnum):
    """`certain`: proven by recorded inodes; everything else is `likely` and never acted upon by itself."""

    CERTAIN = "certain"
    LIKELY = "likely"


@dataclass(frozen=True, slots=True)
class StaleUnit:
    """Evidence of the check `libraries`. `reason`: why this disposition, in words.

    opens_at: when it may be restarted by itself, where time alone is in the way. unlisted: packages of which no
    changelog tells what the installed version fixed. total: how many processes, where not all are told.
    """

    unit: str
    disposition: Disposition
    confidence: Confidence
    processes: tuple[StaleProcess, ...]
    cves: tuple[str, ...] = ()
    reason: str = ""
    outcome: Outcome | None = None
    opens_at: datetime | None = None
    unlisted: tuple[str, ...] = ()
    total: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one subject. `id` is stable over runs; `since` is set by the store."""

    check: str
    subject: str
    severity: Severity
    summary: str
    advice: str
    evidence: StaleUnit | dict[str, Any]
    since: datetime | None = None

    @property
    def id(self) -> str:
        return f"{self.check}/{self.subject}"


@dataclass(frozen=True, slots=True)
class Request:
    """What a worker is told. `retired` None: no history, so nothing can be certain.

    attempts: the last ended attempt of each unit. It settles the matter for a unit all of whose stale files were
    retired by `Attempt.transaction` or an earlier one: what is still stale then is a leftover (or was refused).
    broken: outcomes that left a unit down, to be looked at again.
    unfinished: packages that dpkg left half done.
    recent: when each unit was restarted by us in the last day, oldest first.
    skip: processes at which an earlier worker got stuck; crowds: whole ones of them, see `processes.read_crowd`. They
    are reported as unseen.
    options: the settings of the check's own table, encoded. kept: what its last run that succeeded wanted kept.
    past: changes of packages that history knows, for what only times tell.
    """

    check: str
    now: datetime
    rules: tuple[Rule, ...] = ()
    retired: tuple[Retired, ...] | None = None
    attempts: tuple[Attempt, ...] = ()
    broken: tuple[Outcome, ...] = ()
    unfinished: tuple[str, ...] = ()
    recent: dict[str, tuple[datetime, ...]] = field(default_factory=dict)
    skip: tuple[int, ...] = ()
    crowds: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    past: tuple[Replaced, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found. `unseen`: what it could not look at; `again_at`: when it wants to be run again.

    mapped: retired files that somebody still maps (the rest can be forgotten when nothing was unseen).
    learnt: files found to be old that the history did not know (version unknown).
    keep: plain JSON data that the next run is to get as `Request.kept`; None: leave what is kept as it is.
    """

    check: str
    findings: tuple[Finding, ...]
    detail: dict[str, Any] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    again_at: datetime | None = None
    mapped: tuple[Retired, ...] = ()
    learnt: tuple[Retired, ...] = ()
    keep: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What dpkg did since the last snapshot: facts for the store, no judgement.

    index: the code files of every package in `changed`, as they are now. full: the index was made anew.
    """

    snapshot: Snapshot
    changed: tuple[str, ...]
    index: tuple[Indexed, ...]
    unfinished: tuple[str, ...]
    begun: datetime | None
    command: str
    requester: str
    full: bool
