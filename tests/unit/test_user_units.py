"""What the kernel says of users' units, in a small tree of control groups; nobody's manager is asked."""

from pathlib import Path

import pytest

from agent.host.user_units import MOST_GROUPS, beside, read_user_units
from agent.model.facts import Unit
from agent.model.users import MOST, UserUnit
from agent.stale.blame import unit_of

GROUP = "/user.slice/user-1000.slice/user@1000.service"
MANAGERS = {
    "user@1000.service": Unit("user@1000.service", control_group=GROUP),
    "user@1001.service": Unit("user@1001.service", control_group="/user.slice/user-1001.slice/user@1001.service"),
    "user@alice.service": Unit("user@alice.service", control_group="/user.slice/user@alice.service"),
    "app.service": Unit("app.service", control_group="/system.slice/app.service"),
}


def put(root: Path, group: str, populated: bool = True) -> Path:
    place = root / group.lstrip("/")
    place.mkdir(parents=True)
    (place / "cgroup.events").write_text(f"populated {int(populated)}\nfrozen 0\n")
    return place


def read(root: Path, *names: str, units: dict[str, Unit] = MANAGERS) -> dict[str, Unit]:
    return read_user_units(units, names, str(root))


def test_a_users_units_are_the_first_groups_below_his_slices(tmp_path: Path) -> None:
    inner = f"{GROUP}/app.slice/app-mail.slice/mail@a\\x2db.service"
    for group in (f"{GROUP}/app.slice/foo.service", inner, f"{inner}/ssh.service", f"{GROUP}/init.scope"):
        put(tmp_path, group)
    put(tmp_path, f"{GROUP}/session.slice/app-x.scope")
    found = read(tmp_path)
    assert set(found) == {
        "user@1000.service/foo.service",
        "user@1000.service/mail@a\\x2db.service",
        "user@1000.service/app-x.scope",
    }
    unit = found["user@1000.service/mail@a\\x2db.service"]
    assert (unit.control_group, unit.active, unit.kind, unit.job) == (inner, "active", "service", "")
    assert unit.invocation == str((tmp_path / inner.lstrip("/")).stat().st_ino)
    assert unit.load == "loaded" and unit.can_start and unit.can_stop and not unit.pulls and not unit.programs


def test_what_lies_below_another_unit_or_below_a_manager_without_a_number_is_nobodys(tmp_path: Path) -> None:
    put(tmp_path, "/system.slice/app.service/user@1000.service/foo.service")
    put(tmp_path, "/user.slice/user@alice.service/foo.service")
    assert read(tmp_path) == {}


def test_a_name_that_the_kernel_might_take_for_a_file_of_its_own_comes_out_as_the_unit_has_it(tmp_path: Path) -> None:
    put(tmp_path, f"{GROUP}/app.slice/_memory.service")
    found = read(tmp_path)
    assert found["user@1000.service/memory.service"].control_group.endswith("/_memory.service")


@pytest.mark.parametrize(
    "name", ["$(reboot).service", "x\n.service", "-rf.service", "foo@.service", "x.socket", "plain"]
)
def test_other_names_are_left_to_the_manager(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"{GROUP}/{name}")
    units = MANAGERS | read(tmp_path)
    assert units.keys() == MANAGERS.keys()
    found = unit_of(f"{GROUP}/{name}", units)
    assert found and found.name == "user@1000.service"


def test_a_unit_that_is_named_and_has_no_processes_is_down(tmp_path: Path) -> None:
    put(tmp_path, f"{GROUP}/empty.service", populated=False)
    names = ("user@1000.service/empty.service", "user@1000.service/gone.service", "user@7.service/foo.service")
    found = read(tmp_path, *names)
    assert {(unit.active, unit.invocation) for unit in found.values()} == {("inactive", "")}
    assert tuple(found) == names


def test_only_what_is_named_is_read_and_names_of_the_systems_are_not_for_us(tmp_path: Path) -> None:
    put(tmp_path, f"{GROUP}/foo.service")
    put(tmp_path, f"{GROUP}/bar.service")
    found = read(tmp_path, "user@1000.service/foo.service", "nginx.service")
    assert set(found) == {"user@1000.service/foo.service"}
    assert read(tmp_path, "nginx.service") == {}


def test_another_start_has_another_invocation(tmp_path: Path) -> None:
    place = put(tmp_path, f"{GROUP}/foo.service")
    before = read(tmp_path)["user@1000.service/foo.service"].invocation
    place.rename(tmp_path / "old")
    put(tmp_path, f"{GROUP}/foo.service")
    assert read(tmp_path)["user@1000.service/foo.service"].invocation not in ("", before)


@pytest.mark.parametrize(("active", "is_asked"), [("activating", True), ("inactive", False), ("failed", False)])
def test_a_restart_is_under_way_as_long_as_the_systems_unit_that_asks_for_it_runs(
    tmp_path: Path, active: str, is_asked: bool
) -> None:
    theirs = UserUnit(1000, "foo.service")
    units = MANAGERS | {theirs.job: Unit(theirs.job, active=active)}
    assert bool(read(tmp_path, theirs.subject, units=units)[theirs.subject].job) is is_asked
    assert beside([theirs.subject, "nginx.service"]) == {"user@1000.service", theirs.job}


def test_a_user_who_makes_very_many_groups_costs_so_much_and_takes_nobodys_place(tmp_path: Path) -> None:
    for number in range(MOST_GROUPS + 50):
        put(tmp_path, f"{GROUP}/x{number}.service")
    put(tmp_path, "/user.slice/user-1001.slice/user@1001.service/good.service")
    found = read(tmp_path)
    assert "user@1001.service/good.service" in found
    assert len(found) == MOST + 1


def test_a_unit_that_is_followed_is_found_also_where_others_have_taken_its_place(tmp_path: Path) -> None:
    for number in range(MOST):
        put(tmp_path, f"{GROUP}/a{number}.service")
    put(tmp_path, f"{GROUP}/z.service")
    assert "user@1000.service/z.service" not in read(tmp_path)
    assert read(tmp_path, "user@1000.service/z.service")["user@1000.service/z.service"].active == "active"


def test_groups_within_groups_within_groups_are_not_followed_for_ever(tmp_path: Path) -> None:
    for number in range(MOST_GROUPS + 10):
        put(tmp_path, f"{GROUP}/x{number}.slice")
    put(tmp_path, f"{GROUP}/x0.slice/beyond.service")
    assert read(tmp_path) == {}


def test_links_and_files_are_no_groups(tmp_path: Path) -> None:
    put(tmp_path, "/elsewhere/foo.service")
    (tmp_path / GROUP.lstrip("/")).mkdir(parents=True)
    (tmp_path / GROUP.lstrip("/") / "x.slice").symlink_to(tmp_path / "elsewhere")
    (tmp_path / GROUP.lstrip("/") / "foo.service").write_text("")
    assert read(tmp_path) == {}
