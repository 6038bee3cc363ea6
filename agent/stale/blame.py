"""Which unit a process belongs to, from its control group and what systemd says of its units.

The answer is the one of `GetUnitByPID`: the innermost control group that systemd itself gave to a unit, or in which a
user's own manager runs one. All else that lies below a unit that was delegated its group is somebody's own text and
names nothing here, whatever it is called.
"""

from collections.abc import Mapping

from agent.model.facts import Unit


def unit_of(cgroup: str, units: Mapping[str, Unit]) -> Unit | None:
    """Return the unit whose processes include those in `cgroup`, as the kernel writes it after `0::`.

    None where systemd runs no unit there: a slice runs nothing itself, and a path that leads out of our view
    of the hierarchy (`/../x`) cannot be told.
    """
    if ".." in cgroup.split("/"):
        return None
    holders = [unit for unit in units.values() if _holds(unit, cgroup)]
    found = max(holders, key=lambda unit: len(unit.control_group), default=None)
    return None if found is None or found.name.endswith(".slice") else found


def _holds(unit: Unit, cgroup: str) -> bool:
    own = unit.control_group.rstrip("/")
    return bool(unit.control_group) and (cgroup == own or cgroup.startswith(f"{own}/"))
