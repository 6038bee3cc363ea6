"""Which unit a control group belongs to: systemd's own word, whatever others call their groups."""

import pytest

from agent.model.facts import Unit
from agent.stale.blame import unit_of

UNITS = {
    unit.name: unit
    for unit in (
        Unit("-.slice", kind="slice", control_group="/"),
        Unit("system.slice", kind="slice", control_group="/system.slice"),
        Unit("init.scope", kind="scope", control_group="/init.scope"),
        Unit("ssh.service", control_group="/system.slice/ssh.service"),
        Unit("ssh.socket", kind="socket", control_group="/system.slice/ssh.socket"),
        Unit("app.service", control_group="/system.slice/app.service"),
        Unit("a\\x2db.service", control_group="/system.slice/a\\x2db.service"),
        Unit("user@1000.service", control_group="/user.slice/user-1000.slice/user@1000.service"),
        Unit("session-3.scope", kind="scope", control_group="/user.slice/user-1000.slice/session-3.scope"),
        Unit("stopped.service", active="inactive", control_group=""),
    )
}
MANAGER = "/user.slice/user-1000.slice/user@1000.service"
THEIRS = UNITS | {
    unit.name: unit
    for unit in (
        Unit("user@1000.service/dbus.service", control_group=f"{MANAGER}/app.slice/dbus.service"),
        Unit("user@1000.service/ssh.service", control_group=f"{MANAGER}/system.slice/ssh.service"),
        Unit("user@1000.service/session-1.scope", control_group=f"{MANAGER}/user-0.slice/session-1.scope"),
        Unit("user@1000.service/down.service", active="inactive", control_group=""),
    )
}


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/init.scope", "init.scope"),
        ("/system.slice/ssh.service", "ssh.service"),
        ("/system.slice/a\\x2db.service", "a\\x2db.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/dbus.service", "user@1000.service"),
    ],
)
def test_a_process_belongs_to_the_unit_whose_group_it_is_in(cgroup: str, unit: str) -> None:
    found = unit_of(cgroup, UNITS)
    assert found is not None and found.name == unit


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/app.service/ssh.service", "app.service"),
        ("/system.slice/app.service/system.slice/ssh.service", "app.service"),
        ("/system.slice/app.service/init.scope", "app.service"),
        ("/user.slice/user-1000.slice/user@1000.service/user-0.slice/session-1.scope", "user@1000.service"),
        ("/user.slice/user-1000.slice/user@1000.service/system.slice/ssh.service", "user@1000.service"),
        ("/user.slice/user-1000.slice/session-3.scope/$(reboot)", "session-3.scope"),
    ],
)
def test_names_below_a_delegated_unit_move_no_blame(cgroup: str, unit: str) -> None:
    """SEC-7 and SEC-9."""
    found = unit_of(cgroup, UNITS)
    assert found is not None and found.name == unit


@pytest.mark.parametrize(
    "cgroup",
    [
        "",
        "/",
        "/system.slice",
        "/system.slice/ssh.services",
        "/system.slice/ssh.service2/x",
        "/system.slice/stopped.service",
        "/system.slice/ssh.service (deleted)",
        "/docker/0123",
        "/ssh.service",
        "ssh.service",
        "/../system.slice/ssh.service",
        "/system.slice/ssh.service/../app.service",
    ],
)
def test_what_lies_in_no_unit_is_nobodys(cgroup: str) -> None:
    assert unit_of(cgroup, UNITS) is None


@pytest.mark.parametrize(
    ("below", "unit"),
    [
        ("app.slice/dbus.service", "user@1000.service/dbus.service"),
        ("app.slice/dbus.service/ssh.service", "user@1000.service/dbus.service"),
        ("system.slice/ssh.service", "user@1000.service/ssh.service"),
        ("user-0.slice/session-1.scope", "user@1000.service/session-1.scope"),
        ("user-0.slice/session-1.scope/init.scope", "user@1000.service/session-1.scope"),
        ("init.scope", "user@1000.service"),
        ("app.slice", "user@1000.service"),
        ("app.slice/dbus.services", "user@1000.service"),
        ("down.service", "user@1000.service"),
        ("$(reboot).service", "user@1000.service"),
    ],
)
def test_below_a_users_manager_blame_goes_to_his_own_units_and_nowhere_else(below: str, unit: str) -> None:
    """SEC-7 and SEC-9, with the names that he chose for his units."""
    found = unit_of(f"{MANAGER}/{below}", THEIRS)
    assert found is not None and found.name == unit


def test_the_group_of_a_users_unit_below_another_unit_is_that_units() -> None:
    found = unit_of(f"/system.slice/app.service{MANAGER}/app.slice/dbus.service", THEIRS)
    assert found is not None and found.name == "app.service"
