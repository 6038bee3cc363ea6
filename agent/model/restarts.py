"""The nouns of restarting: what may be done about a unit, what was done, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase

from agent.model import users
from agent.model.facts import StaleProcess
from agent.model.probes import Probe


class Disposition(StrEnum):
    """What will be done about a stale unit (DESIGN §2)."""

    RESTART = "restart"
    DEFER = "defer"
    REBOOT = "reboot"
    SESSION = "session"
    CONTAINER = "container"
    NEVER = "never"
    LEFTOVER = "leftover"


class Result(StrEnum):
    """How one attempt ended. FRESH alone is success; LEFTOVER means back, but something of it stayed behind."""

    FRESH = "fresh"
    LEFTOVER = "leftover"
    PRECHECK_FAILED = "precheck-failed"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    DIED_AFTER = "died-after"
    PROBE_FAILED = "probe-failed"
    DEPENDANT_DOWN = "dependant-down"
    START_LIMIT = "start-limit"
    NOT_RUN = "not-run"


MANAGER = "init.scope"
"""The unit of PID 1, which is re-executed and not restarted."""
OWN_UNIT = "aftercare.service"
USERS_LIMIT = 30.0
"""Seconds for a user's unit, where no rule says otherwise: so long may its user keep the next transaction waiting."""
MOST_NAMED = 3
Took = tuple[tuple[str, float], ...]
"""Stages of a restart and their seconds: precheck, job, settle, probe, recheck; those that there were, in order."""
BROKEN = frozenset(
    {Result.FAILED, Result.TIMED_OUT, Result.DIED_AFTER, Result.PROBE_FAILED, Result.DEPENDANT_DOWN, Result.START_LIMIT}
)
"""Results after which the machine is worse off than before: they become critical findings."""
CAME_BACK = (Result.FRESH, Result.LEFTOVER)
UNTOUCHED = (Result.PRECHECK_FAILED, Result.NOT_RUN)
"""Results of what was refused before anything was done to the unit: it is no restart."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Policy for units whose name matches the glob `pattern`. Seconds.

    window: a calendar expression of systemd's at which its maintenance window opens, for `window_length`; empty: it is
    always open. precheck: commands that test its configuration; broken: what it says then, see `restart.configtest`.
    probe: see `model.probes`. likely: `restart` or `report`, over the setting of that name. given: the fields that it
    speaks of; None: of all.
    """

    pattern: str
    disposition: Disposition = Disposition.RESTART
    wave: int = 50
    settle: float = 2.0
    limit: float = 120.0
    why: str = ""
    window: str = ""
    window_length: float = 3600.0
    precheck: tuple[tuple[str, ...], ...] = ()
    broken: tuple[str, ...] = ()
    probe: Probe | None = None
    likely: str = ""
    given: tuple[str, ...] | None = None


def rule_for(name: str, rules: Sequence[Rule]) -> Rule:
    """Return what holds for the unit `name`: of the rules whose glob matches, the last that speaks of a field decides.

    Where none does, it is the default: restart, and for a user's own unit nothing. Of such a unit only those patterns
    speak that have a slash in them, as its name has. The reason of another disposition is no reason for this one.
    """
    theirs = users.parse(name)
    whole = Rule("*", Disposition.SESSION, limit=USERS_LIMIT) if theirs else Rule("*")
    for rule in rules:
        if fnmatchcase(name, rule.pattern) and not (theirs and "/" not in rule.pattern):
            given = (
                fields(rule)[1:-1] if rule.given is None else [item for item in fields(rule) if item.name in rule.given]
            )
            values = {item.name: getattr(rule, item.name) for item in given}
            reason = {"why": ""} if "disposition" in values else {}
            whole = replace(whole, pattern=rule.pattern, **(reason | values))
    return whole


@dataclass(frozen=True, slots=True)
class Step:
    """One unit in a wave. `pulls`: dependants that go down with it and must be up again after it.

    processes: those that are stale, for the record. cves: those whose fixes it brings into effect. expected: seconds
    that it will be away, by what its last restarts took. tests: the units whose configuration is tested first, with
    their rules: it and those that go down with it.
    """

    unit: str
    rule: Rule
    invocation_before: str
    main_pid: int
    pulls: tuple[str, ...]
    reasons: tuple[str, ...]
    processes: tuple[StaleProcess, ...] = ()
    cves: tuple[str, ...] = ()
    expected: float | None = None
    tests: tuple[tuple[str, Rule], ...] = ()


@dataclass(frozen=True, slots=True)
class Wave:
    """Steps whose jobs are handed to systemd at once; it orders them by After=."""

    number: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be restarted for `transaction`, in order; `manager`: PID 1 re-executes; `agent`: we go last."""

    transaction: int
    waves: tuple[Wave, ...]
    manager: bool = False
    agent: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One restart of one unit, written down before it is begun; `outcome` None: not known to have ended.

    pulls: the units that were up and go down with it.
    """

    id: int
    transaction: int
    unit: str
    invocation_before: str
    begun: datetime
    outcome: "Outcome | None" = None
    pulls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Performed:
    """What came of a plan. `held`: why it stopped before its last wave."""

    outcomes: "tuple[Outcome, ...]"
    held: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt. `took`: seconds by stage; `journal`: the unit's last lines where it failed.

    expected: what was said before of the seconds that it would be away.
    """

    unit: str
    result: Result
    took: Took = ()
    leftovers: tuple[str, ...] = ()
    journal: tuple[str, ...] = ()
    hint: str = ""
    expected: float | None = None


def brake_after(outcomes: Sequence[Outcome]) -> str:
    """Return why no further wave may begin by itself; empty where every unit came back.

    A user's own unit holds nobody up.
    """
    broken = [outcome for outcome in outcomes if outcome.result in BROKEN and not users.parse(outcome.unit)]
    if not broken:
        return ""
    names = ", ".join(f"{outcome.unit} ({outcome.result.value})" for outcome in broken[:MOST_NAMED])
    more = f" and {len(broken) - MOST_NAMED} more" if len(broken) > MOST_NAMED else ""
    return f"{names}{more} did not come back"
