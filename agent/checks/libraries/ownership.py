"""Whom stale processes belong to, with the name that people know: joins control groups to what tools wrote down.

Names are for people alone: nothing is decided by one.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.host.containers import is_lxc, read_chroot, read_container_name, read_keeper
from agent.host.processes import read_users
from agent.model import users
from agent.model.facts import Host, Process, Unit
from agent.model.restarts import Disposition
from agent.stale.owners import CONTAINERS, Owner, owner_of, restart_words

OUTSIDE = "restart it with the tool that runs it"


def find_owner(host: Host, unit: Unit | None, process: Process) -> Owner | None:
    """Return the container, guest, snap, flatpak or user that `process`, held by `unit`, belongs to; None: the host.

    A container of a user's own has no name here: it would be looked up in files that he may write.
    """
    owner = owner_of(unit, process.cgroup)
    if owner and owner.uid is not None:
        return replace(owner, name=read_users(host).get(owner.uid, owner.name))
    if owner and owner.id and not owner.own_word:
        return replace(owner, name=read_container_name(host, owner.kind, owner.id))
    return owner


def place(
    host: Host, unit: Unit | None, processes: Sequence[Process], disposition: Disposition, reason: str
) -> tuple[Disposition, str]:
    """Return both, the reason beginning with whose the processes are or where they are locked in, if that can be said.

    A container that an engine put into a control group of its own, beside systemd's units, is a container as well.
    """
    owner = find_owner(host, unit, processes[0])
    if owner:
        is_outside = unit is None or disposition is Disposition.CONTAINER
        is_container = is_outside and owner.kind in CONTAINERS
        what, why = (Disposition.CONTAINER, OUTSIDE) if is_container else (disposition, reason)
        return what, f"{owner.text}: {why}"
    chroots = sorted({root for process in processes if (root := read_chroot(host, process.pid))})
    where = [f"locked into {chroots[0]}{' and elsewhere' if len(chroots) > 1 else ''}"] if chroots else []
    return disposition, ": ".join((*where, reason))


def find_command(host: Host, unit: Unit | None, process: Process, units: Mapping[str, Unit]) -> str:
    """Return the command by which root has that restarted which `process` belongs to; empty: none that surely helps."""
    owner = find_owner(host, unit, process)
    if owner is None or (owner.kind == "lxc" and not is_lxc(host, owner.name)):
        return ""
    keeper = read_keeper(host, owner.id) if owner.kind == "podman" and not owner.own_word else 0
    words = restart_words(owner, unit, units, keeper)
    uid = users.uid_of(unit.name.partition("/")[0]) if unit and owner.own_word else None
    return shlex.join(words if uid is None or not words else (*users.as_user(uid), *words))
