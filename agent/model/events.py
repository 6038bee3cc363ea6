"""What wakes the daemon up. Events carry no facts: the truth is read once, when it is settled."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.model.errors import AgentError
from agent.model.facts import Transaction, Unit
from agent.model.findings import CheckResult
from agent.model.restarts import Performed
from agent.model.topics import Topic


@dataclass(frozen=True, slots=True)
class Touched:
    """Something moved in `topic`; `why` is for the log alone."""

    topic: Topic
    why: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """A time that somebody asked to be woken at has come."""

    what: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks over the socket, as the kernel says."""

    pid: int
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is more than reading; the answer goes to the future that `ticket` is."""

    method: str
    arguments: dict[str, Any]
    peer: Peer
    ticket: Any = field(compare=False)


@dataclass(frozen=True, slots=True)
class RestartsDone:
    """The restart task ended."""

    transaction: int
    performed: Performed


@dataclass(frozen=True, slots=True)
class Reload:
    """SIGHUP."""


@dataclass(frozen=True, slots=True)
class Stop:
    """SIGTERM, SIGINT, or an end of our own."""

    exit_status: int = 0


@dataclass(frozen=True, slots=True)
class Looked:
    """A look at the machine ended. `results`: of the checks that ran; none ran where nothing had changed.

    problem: why one of them, or all, could not be run. transaction: what the survey found that dpkg did. units: what
    systemd said right after the checks. outdated: the files of this very program are another version by now.
    abandoned: a transaction opened meanwhile.
    """

    results: tuple[CheckResult, ...] = ()
    transaction: Transaction | None = None
    units: dict[str, Unit] = field(default_factory=dict)
    problem: AgentError | None = None
    outdated: str = ""
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """A check that runs apart from transactions has ended; `problem`: why it could not be run."""

    check: str
    result: CheckResult | None = None
    problem: AgentError | None = None


Event = Touched | Due | Asked | Looked | Checked | RestartsDone | Reload | Stop
