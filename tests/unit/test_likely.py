"""What is likely stale: times, dependencies and history in, a verdict out."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.checks.libraries.outdated_data import data_finding
from agent.model.facts import PackageState, Process, Replaced, StaleFile, Unit
from agent.model.findings import Confidence
from agent.stale import outdated_data
from agent.stale.judge import Verdict
from agent.stale.likely import is_older, judge, reach, unpacked_at

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SCRIPT = "/usr/bin/demod"
MODULE = "/usr/lib/python3/dist-packages/part/__init__.py"


def package(name: str, at: datetime = NOON, version: str = "2") -> PackageState:
    return PackageState(name, "all", version, "installed", f"4711-{int(at.timestamp() * 1e9)}")


def process(start: datetime = NOON - HOUR) -> Process:
    return Process(42, start, 0, "/usr/bin/python3.11", "demod", "/system.slice/demo.service")


def change(id: int, package: str, ended: datetime, old: str | None, new: str | None, took: int = 60) -> Replaced:
    return Replaced(id, package, ended - timedelta(seconds=took), ended, old, new)


def verdict(*past: Replaced, start: datetime = NOON - HOUR, **packages: datetime) -> Verdict | None:
    installed = {name: package(name, at) for name, at in packages.items()}
    reached = {"demo": "", "part": MODULE}
    changes = {name: [one for one in past if one.package == name] for name in installed}
    return judge(process(start), {SCRIPT: "demo"}, reached, installed, changes)


def files(found: Verdict | None) -> list[StaleFile]:
    assert found and found.stale
    return list(found.stale.files)


def test_a_program_that_began_before_its_package_was_unpacked_is_likely_stale() -> None:
    found = verdict(demo=NOON, part=NOON - 2 * HOUR)
    assert files(found) == [StaleFile(SCRIPT, "demo", None, "2")]
    assert found and found.confidence is Confidence.LIKELY and found.transaction == 0 and not found.identical


def test_a_dependency_is_told_by_a_file_of_its_own() -> None:
    assert files(verdict(demo=NOON - 2 * HOUR, part=NOON)) == [StaleFile(MODULE, "part", None, "2")]


def test_each_changed_package_is_listed() -> None:
    assert [file.package for file in files(verdict(demo=NOON, part=NOON))] == ["demo", "part"]


@pytest.mark.parametrize("seconds", [-1, 0, 1, 2, 3600])
def test_a_program_that_began_with_or_after_the_change_is_fresh(seconds: int) -> None:
    """The kernel's boot time is in whole seconds: who was restarted by a postinst at once must not be told."""
    assert verdict(start=NOON + timedelta(seconds=seconds), demo=NOON, part=NOON) is None


def test_a_package_that_is_gone_or_has_no_files_tells_nothing() -> None:
    assert verdict() is None
    none = PackageState("demo", "all", "1", "installed", "")
    assert unpacked_at(none) is None and not is_older(NOON, None)
    assert judge(process(), {SCRIPT: "demo"}, {"demo": ""}, {"demo": none}) is None


def test_history_knows_which_version_runs_and_which_transaction_replaced_it() -> None:
    found = verdict(change(7, "demo", NOON + HOUR, "1", "2", 7200), demo=NOON)
    assert files(found) == [StaleFile(SCRIPT, "demo", "1", "2")]
    assert found and found.transaction == 7


def test_of_several_changes_the_first_one_since_the_start_tells_the_version() -> None:
    past = [change(7, "demo", NOON - HOUR / 2, "0", "1"), change(8, "demo", NOON, "1", "2")]
    past += [change(6, "demo", NOON - 2 * HOUR, "-1", "0")]
    found = verdict(*past, demo=NOON)
    assert files(found) == [StaleFile(SCRIPT, "demo", "0", "2")]
    assert found and found.transaction == 8


def test_a_program_that_began_while_a_package_was_replaced_runs_an_unknown_version() -> None:
    past = [change(7, "demo", NOON - HOUR / 2, "0", "1", 3600), change(8, "demo", NOON, "1", "2")]
    assert files(verdict(*past, demo=NOON)) == [StaleFile(SCRIPT, "demo", None, "2")]


def test_what_was_installed_again_in_the_same_version_is_not_stale() -> None:
    assert verdict(change(7, "demo", NOON, "2", "2"), demo=NOON) is None
    assert verdict(change(7, "demo", NOON, "2", "2"), change(8, "demo", NOON, "2", "3"), demo=NOON)


NEEDS = {
    "demo": {"demo-data", "part", "libc6", "cpart"},
    "part": {"deep", "demo"},
    "deep": {"part"},
    "libc6": {"debconf"},
    "cpart": {"beyond"},
}
BEARS = {"part": "/p.py", "deep": "/d.py", "debconf": "/debconf.py", "beyond": "/b.py"}
SOURCE = {"demo": "demo", "demo-data": "demo", "part": "part", "libc6": "glibc"}


def test_only_packages_with_code_of_the_language_are_reached_and_led_through() -> None:
    """debconf has a module for Python, and is needed by the C library's maintainer scripts."""
    assert reach("demo", NEEDS, SOURCE, lambda name: BEARS.get(name, "")) == {
        "demo": "",
        "demo-data": "",
        "part": "/p.py",
        "deep": "/d.py",
    }


def test_a_shell_script_reaches_what_is_built_with_it_alone() -> None:
    assert reach("demo", NEEDS, SOURCE, lambda name: "") == {"demo": "", "demo-data": ""}


def test_a_package_that_nobody_knows_reaches_itself() -> None:
    assert reach("other", NEEDS, SOURCE, lambda name: "") == {"other": ""}


# Data


def test_certificates_changed_when_their_package_did_as_long_as_nothing_else_is_known() -> None:
    datum, keep = outdated_data.certificates(package("ca-certificates"), "a", NOON + HOUR, {})
    assert datum and datum.changed == NOON and datum.tls
    again, _ = outdated_data.certificates(package("ca-certificates", NOON + 3 * HOUR), "a", NOON + 3 * HOUR, keep)
    assert again and again.changed == NOON, "written anew with the same content"


def test_other_certificates_changed_when_they_were_written_and_that_is_kept() -> None:
    _, keep = outdated_data.certificates(package("ca-certificates"), "a", NOON, {})
    datum, keep = outdated_data.certificates(package("ca-certificates"), "b", NOON + HOUR, keep)
    assert datum and datum.changed == NOON + HOUR
    datum, _ = outdated_data.certificates(package("ca-certificates"), "b", NOON + 2 * HOUR, keep)
    assert datum and datum.changed == NOON + HOUR


def test_certificates_of_no_package_are_told_from_their_second_content_on() -> None:
    datum, keep = outdated_data.certificates(None, "a", NOON, {})
    assert datum is None
    assert outdated_data.certificates(None, "b", NOON + HOUR, keep)[0]


@pytest.mark.parametrize(
    ("zone", "matters"), [("Europe/Berlin", True), ("UTC", False), ("Etc/UTC", False), ("", False), ("EST5EDT", True)]
)
def test_rules_of_time_zones_matter_where_the_zone_has_rules(zone: str, matters: bool) -> None:
    assert (outdated_data.zones(package("tzdata"), zone) is not None) is matters
    assert outdated_data.zones(None, zone) is None


def test_who_began_before_the_data_changed_is_told() -> None:
    datum = outdated_data.zones(package("tzdata"), "Europe/Berlin")
    assert datum
    starts = {"late.service": NOON + HOUR, "b.service": NOON - HOUR, "a.service": NOON - HOUR}
    assert outdated_data.began_before(datum, starts) == ("a.service", "b.service")


def test_the_services_are_named_in_what_people_read() -> None:
    datum = outdated_data.certificates(package("ca-certificates"), "a", NOON, {})[0]
    assert datum and data_finding(datum, ["nginx.service"]).advice.endswith("when it suits: nginx.service")
    advice = data_finding(datum, [f"{letter}.service" for letter in "abcdefg"]).advice
    assert advice.endswith("suits: a.service, b.service, c.service, d.service, e.service and 2 more")


def test_only_services_with_a_main_process_count() -> None:
    units = (
        Unit("a.service", main_pid=1),
        Unit("once.service"),
        Unit("user@0.service", main_pid=2),
        Unit("s.scope", main_pid=3),
    )
    assert [unit.name for unit in outdated_data.services(units)] == ["a.service"]
