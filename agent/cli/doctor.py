"""`agentctl doctor`: is the installation itself sound? Looks only; each complaint says what mends it."""

import grp
import os
import stat
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from agent import spawn
from agent.cli.blocks import Line, Table
from agent.cli.output import emit
from agent.config.load import load
from agent.host import calendar, transactions
from agent.model.errors import AgentError, Exit, Kind
from agent.model.facts import Host
from agent.model.restarts import OWN_UNIT
from agent.varlink import wire

HOOK = Path("/usr/lib/aftercare/post-invoke")
HOOK_LINE = Path("/etc/dpkg/dpkg.cfg.d/aftercare")
HOOK_FILE = Path("/run/aftercare/hook")
HISTORY = Path("/var/lib/aftercare/history.sqlite")
NEIGHBOURS = {
    "needrestart": "/usr/lib/needrestart/apt-pinvoke",
    "checkrestart (debian-goodies)": "/usr/sbin/checkrestart",
    "whatmaps": "/usr/bin/whatmaps",
}
"""Others in the same trade, by a file that each has."""


class State(StrEnum):
    """How one thing is."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was looked at."""

    state: State
    what: str
    remedy: str = ""


def doctor(options: Namespace) -> int:
    """Print a verdict for everything that the daemon stands on; 1 where something is bad."""
    verdicts = [verdict for examine in EXAMINATIONS for verdict in _safely(examine, options)]
    bad = [verdict for verdict in verdicts if verdict.state is State.BAD]
    rows = tuple((verdict.state.value, _sentence(verdict)) for verdict in verdicts)
    headline = f"{len(bad)} of {len(verdicts)} things are bad." if bad else "The installation is sound."
    data = {"v": 1, "sound": not bad, "verdicts": [asdict(verdict) for verdict in verdicts]}
    emit(options, data, [Line(headline, "error" if bad else ""), Table("Looked at", ("", "what"), rows)])
    return Exit.FINDINGS if bad else Exit.CLEAN


def _sentence(verdict: Verdict) -> str:
    return f"{verdict.what}\n→ {verdict.remedy}" if verdict.remedy else verdict.what


def _safely(examine: Callable[[Namespace], Iterator[Verdict]], options: Namespace) -> Iterator[Verdict]:
    try:
        yield from examine(options)
    except AgentError as problem:
        yield Verdict(State.BAD, problem.message, problem.hint)
    except PermissionError as problem:
        yield Verdict(State.NOTE, f"{problem.filename}: only root may look", "sudo agentctl doctor")


def _service(_options: Namespace) -> Iterator[Verdict]:
    if not Path("/run/systemd/system").is_dir():
        yield Verdict(State.BAD, "systemd is not running here: units cannot be restarted", "agentctl check still works")
        return
    active = spawn.run(["systemctl", "is-active", OWN_UNIT]).stdout.strip()
    remedy = f"systemctl status {OWN_UNIT}; journalctl -u {OWN_UNIT}"
    yield (
        Verdict(State.GOOD, f"{OWN_UNIT} is active")
        if active == "active"
        else Verdict(State.BAD, f"{OWN_UNIT} is {active or 'unknown'}", remedy)
    )
    enabled = spawn.run(["systemctl", "is-enabled", OWN_UNIT]).stdout.strip()
    if enabled != "enabled":
        yield Verdict(State.BAD, f"{OWN_UNIT} is {enabled or 'unknown'}", f"systemctl enable {OWN_UNIT}")


def _socket(options: Namespace) -> Iterator[Verdict]:
    answer = wire.call("Counts", path=options.socket, timeout=5)
    yield Verdict(State.GOOD, f"aftercared answers on {options.socket}: {answer['phase']}")
    try:
        view = wire.call("Status", path=options.socket, timeout=5)["status"]
    except AgentError as problem:
        if problem.kind is not Kind.DENIED:
            raise
        yield Verdict(State.NOTE, "whether its looks succeed, only root may ask", "sudo agentctl doctor")
        return
    if view["trouble"]:
        yield Verdict(State.BAD, view["trouble"], f"df {HISTORY.parent}; journalctl -u {OWN_UNIT}")


def _hook(_options: Namespace) -> Iterator[Verdict]:
    remedy = "apt install --reinstall -o Dpkg::Options::=--force-confmiss aftercare"
    if not HOOK_LINE.is_file() or str(HOOK) not in HOOK_LINE.read_text(errors="replace"):
        yield Verdict(State.BAD, f"{HOOK_LINE} does not call the hook; the watch of dpkg's lock still works", remedy)
    elif not os.access(HOOK, os.X_OK) or _foreign(HOOK):
        yield Verdict(State.BAD, f"{HOOK} is not an executable of root's alone", remedy)
    elif not HOOK_FILE.exists():
        yield Verdict(State.BAD, f"{HOOK_FILE} is missing: the hook does nothing", "systemd-tmpfiles --create")
    else:
        yield Verdict(State.GOOD, "dpkg calls the hook after each run")


def _configuration(_options: Namespace) -> Iterator[Verdict]:
    settings = load(check_window=calendar.check_expression)
    yield Verdict(State.GOOD, f"the configuration is valid; mode is {settings.mode}, {len(settings.rules)} rules")
    if settings.mode == "observe":
        yield Verdict(State.NOTE, "mode is observe: nothing is restarted by itself", 'mode = "auto" in aftercare.toml')


def _history(_options: Namespace) -> Iterator[Verdict]:
    if not HISTORY.exists():
        yield Verdict(State.BAD, f"{HISTORY} does not exist", f"systemctl restart {OWN_UNIT}")
    elif _foreign(HISTORY) or HISTORY.stat().st_mode & 0o077:
        yield Verdict(State.BAD, f"{HISTORY} is open to others", f"chown root: {HISTORY}; chmod 600 {HISTORY}")
    else:
        yield Verdict(State.GOOD, "the history is for root alone")


def _group(_options: Namespace) -> Iterator[Verdict]:
    try:
        members = grp.getgrnam("aftercare").gr_mem
    except KeyError:
        yield Verdict(State.BAD, "the group aftercare is missing: only root may read", "systemd-sysusers")
        return
    yield Verdict(State.GOOD, f"members of the group aftercare may read all: {', '.join(members) or 'nobody yet'}")


def _dpkg(_options: Namespace) -> Iterator[Verdict]:
    host = Host()
    unfinished = transactions.unfinished(transactions.read_snapshot(host))
    if unfinished or (transactions.is_interrupted(host) and not transactions.is_locked(host)):
        names = ", ".join(state.name for state in unfinished[:3]) or "its journal is not empty"
        yield Verdict(State.BAD, f"dpkg was interrupted: {names}", "dpkg --configure -a")
    else:
        yield Verdict(State.GOOD, "every package of dpkg's is configured")


def _neighbours(_options: Namespace) -> Iterator[Verdict]:
    for name, path in NEIGHBOURS.items():
        if os.path.exists(path):
            what = f"{name} is installed too: what it restarts inside apt, aftercare finds fresh afterwards"
            yield Verdict(State.NOTE, what, f"one of the two is enough: apt remove {name.split()[0]}")


def _foreign(path: Path) -> bool:
    facts = path.stat()
    return facts.st_uid != 0 or bool(facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


EXAMINATIONS = (_service, _socket, _hook, _configuration, _history, _group, _dpkg, _neighbours)
