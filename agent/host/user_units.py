"""The units of users' own managers, as the kernel has them: by their control groups, and by no manager's word.

A user's manager belongs to the user: it may lie, hang, or be another program. It is not asked. What its user calls his
control groups is his own word, and names nothing but units of his own; how much of it is read is bounded.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from agent.model import users
from agent.model.facts import Unit
from agent.model.users import UserUnit

CGROUPS = "/sys/fs/cgroup"
MOST_GROUPS = 2_000
"""So many control groups of one user are looked through."""
RESTING = ("", "inactive", "failed")


def read_user_units(units: Mapping[str, Unit], names: Sequence[str] = (), cgroups: str = CGROUPS) -> dict[str, Unit]:
    """Return the users' units `names`, or all that run, by the name of `UserUnit.subject`.

    units: what systemd says of the managers that they are of, and of the units in which restarts are asked for. A name
    without processes comes back inactive. Its invocation is the number of its control group, which the kernel gives
    once: the manager makes another one for each start, unless processes of the last one are still there.
    """
    wanted = [theirs for name in names if (theirs := users.parse(name))]
    managers = {theirs.manager for theirs in wanted} if names else units.keys()
    groups: dict[UserUnit, str] = {}
    for manager in (units[name] for name in managers if name in units):
        uid = users.uid_of(manager.name)
        if uid is not None and manager.control_group:
            found = _find(uid, manager.control_group, cgroups)
            groups |= {theirs: found[theirs] for theirs in (found if names else users.kept_apart(found))}
    chosen = wanted if names else groups
    return {theirs.subject: _read(theirs, groups.get(theirs, ""), units, cgroups) for theirs in chosen}


def _find(uid: int, top: str, cgroups: str) -> dict[UserUnit, str]:
    """Return the control group of each unit below `top`: the first on a way through slices that is none itself."""
    found: dict[UserUnit, str] = {}
    waiting = [top]
    left = MOST_GROUPS
    for group in waiting:
        for name in _directories(f"{cgroups}{group}", left):
            left -= 1
            unit = name.removeprefix("_")  # before what would look like a file of the kernel's own
            if unit.endswith(".slice"):
                waiting.append(f"{group}/{name}")
            elif theirs := users.named(uid, unit):
                found.setdefault(theirs, f"{group}/{name}")
    return found


def _directories(path: str, most: int) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if most <= 0:
                return
            if entry.is_dir(follow_symlinks=False):
                most -= 1
                yield entry.name


def _read(theirs: UserUnit, group: str, units: Mapping[str, Unit], cgroups: str) -> Unit:
    number = _number(f"{cgroups}{group}") if group else ""
    job = units.get(theirs.job)
    return Unit(
        theirs.subject,
        active="active" if number else "inactive",
        sub="",
        kind=theirs.name.rpartition(".")[2],
        control_group=group,
        invocation=number,
        job=theirs.job if job and job.active not in RESTING else "",
        start_burst=0,
    )


def _number(path: str) -> str:
    """Return the number of the control group at `path`; empty where no process is in it or below."""
    try:
        with open(f"{path}/cgroup.events", "rb") as events:
            is_populated = b"populated 1" in events.read(4096).split(b"\n")
        return str(os.stat(path).st_ino) if is_populated else ""
    except OSError:
        return ""


def beside(names: Iterable[str]) -> set[str]:
    """Return the system's units that tell of the users' units among `names`: their managers and their restarts."""
    found = [theirs for name in names if (theirs := users.parse(name))]
    return {unit for theirs in found for unit in (theirs.manager, theirs.job)}
