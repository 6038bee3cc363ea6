"""What will be done about a unit that runs replaced code, and why, in words that a person is shown.

First what the unit is (a session, a container, something that cannot be started again), then the state that
it and its packages are in, and only then policy. It decides on one unit at a time and knows nothing of order.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from posixpath import basename

from agent.model import users
from agent.model.facts import StaleProcess, Unit
from agent.model.findings import Confidence
from agent.model.restarts import MANAGER, Disposition, Rule, rule_for
from agent.model.users import UserUnit

Verdict = tuple[Disposition, str]


CONTAINERS = (
    "docker-*.scope",
    "libpod-*.scope",
    "crio-*.scope",
    "cri-containerd-*.scope",
    "lxc*.scope",
    "machine-*.scope",
)
STARTERS = (
    "docker",
    "docker-compose",
    "kvm",
    "lxc-start",
    "nerdctl",
    "podman",
    "podman-compose",
    "qemu-system-*",
    "systemd-nspawn",
)
"""Programs that run a container or a virtual machine, which ends with the unit that started it."""
SHIM = "containerd-shim"
CONTAINER_SLICES = ("/machine.slice/", "/kubepods.slice/")
SESSIONS = ("session-*.scope", "user@*.service", "*getty@*.service", "console-getty.service")
RUNNING = ("active", "reloading", "refreshing")
STAYS = (Disposition.DEFER, Disposition.REBOOT, Disposition.NEVER)


def dispose(
    unit: Unit | None,
    processes: tuple[StaleProcess, ...],
    rules: tuple[Rule, ...],
    confidence: Confidence,
    attempted: bool,
    held: tuple[str, ...],
    likely: str = "report",
) -> Verdict:
    """Return what will be done about `unit`, and the reason in one line.

    processes: those of the unit that are stale. attempted: it was restarted (or refused) for this transaction
    already. held: packages that its stale files belong to and that dpkg left half done. likely: what is done where it
    is not proven: `report` or `restart`.
    """
    if unit is None:
        return Disposition.NEVER, "belongs to no unit that systemd could restart: end or restart it by hand"
    return (
        (None if unit.name == MANAGER else _by_nature(unit, rules))
        or _by_history(attempted, held)
        or (None if unit.name == MANAGER else _by_state(unit, processes))
        or _by_policy(unit, rules, confidence, likely)
    )


def _by_user(theirs: UserUnit, rules: tuple[Rule, ...]) -> Verdict | None:
    """A unit of a user's own is his: it is touched only where a rule says so, and where it can be started again."""
    if theirs.is_scope:
        return (
            Disposition.SESSION,
            "programs that the user's own systemd only groups: fresh once they are started again",
        )
    if theirs.runs_once:
        return (
            Disposition.SESSION,
            "a command that the user gave to systemd-run: started again it would do its work again",
        )
    rule = rule_for(theirs.subject, rules)
    if rule.disposition is Disposition.SESSION:
        return (
            Disposition.SESSION,
            rule.why or "runs under systemd --user: its user restarts it, or a rule that names it",
        )
    return None


def _by_nature(unit: Unit, rules: tuple[Rule, ...]) -> Verdict | None:
    if theirs := users.parse(unit.name):
        return _by_user(theirs, rules)
    if _matches(unit.name, SESSIONS):
        return Disposition.SESSION, "a login session or what a user runs: fresh after the next login"
    if _matches(unit.name, CONTAINERS) or unit.control_group.startswith(CONTAINER_SLICES):
        return Disposition.CONTAINER, "a container or virtual machine: restart it with the tool that runs it"
    if unit.name.endswith(".scope"):
        return (
            Disposition.NEVER,
            "processes that another program started and systemd only groups: it cannot restart them",
        )
    if not unit.name.endswith(".service"):
        return (Disposition.NEVER, f"a {unit.name.rpartition('.')[2]} unit: not something to restart for new code")
    if unit.transient:
        return Disposition.NEVER, "a transient unit: whoever started it knows whether it may be ended"
    if unit.kind == "oneshot":
        return Disposition.NEVER, "runs once (Type=oneshot): started again it would do its work again"
    if unit.accept:
        return Disposition.NEVER, "serves one connection (Accept=yes) and ends with it"
    return None


def _by_history(attempted: bool, held: tuple[str, ...]) -> Verdict | None:
    if attempted:
        return (Disposition.LEFTOVER, "already dealt with for this package transaction: what is left needs a person")
    if held:
        return Disposition.DEFER, f"dpkg has not finished {', '.join(held)}: run dpkg --configure -a"
    return None


def _by_state(unit: Unit, processes: Sequence[StaleProcess]) -> Verdict | None:
    if unit.active in ("inactive", "failed"):
        return (Disposition.LEFTOVER, "the unit is not running: these processes stayed behind from an earlier run")
    if unit.active not in RUNNING:
        return Disposition.DEFER, f"it is {unit.active} just now: nothing is done until that is over"
    if unit.load != "loaded":
        return Disposition.NEVER, f"its unit file is {unit.load}: once stopped it could not be started again"
    if not (unit.can_start and unit.can_stop):
        return (Disposition.NEVER, "may not be started or stopped by hand (RefuseManualStart= or RefuseManualStop=)")
    if unit.needs_reload:
        return Disposition.DEFER, "its unit file changed since systemd read it: run systemctl daemon-reload"
    spares_rest = unit.kill_mode in ("process", "none") and unit.main_pid
    if spares_rest and unit.main_pid not in {process.pid for process in processes}:
        if all(basename(process.exe).startswith(SHIM) for process in processes):
            return Disposition.LEFTOVER, "each of them keeps one container and ends with it: restart the containers"
        return (
            Disposition.LEFTOVER,
            f"its main process is fresh, and a restart would spare the rest (KillMode={unit.kill_mode})",
        )
    return None


def _by_policy(unit: Unit, rules: tuple[Rule, ...], confidence: Confidence, likely: str) -> Verdict:
    rule = rule_for(unit.name, rules)
    if rule.disposition is Disposition.DEFER:
        return Disposition.DEFER, rule.why or "deferred by policy"
    if rule.disposition is not Disposition.RESTART:
        return rule.disposition, rule.why or f"policy says {rule.disposition.value}"
    if _starts_container(unit) and not _is_told(unit, rules):
        return Disposition.DEFER, "it runs a container or virtual machine, which would end: choose the moment yourself"
    if spared := [name for name in unit.pulls if rule_for(name, rules).disposition in STAYS]:
        return Disposition.DEFER, f"would take {', '.join(spared)} down with it, which policy spares"
    if confidence is Confidence.LIKELY and likely != "restart":
        return Disposition.DEFER, "not proven, so it is reported and never restarted by itself"
    return Disposition.RESTART, rule.why or "runs replaced code"


def _starts_container(unit: Unit) -> bool:
    return any(_matches(basename(program), STARTERS) for program in unit.programs)


def _is_told(unit: Unit, rules: Sequence[Rule]) -> bool:
    """Whether it is somebody's word what is done about it, and not for want of one that it is restarted."""
    speaking = (rule for rule in rules if rule.given is None or "disposition" in rule.given)
    return any(fnmatchcase(unit.name, rule.pattern) for rule in speaking)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
