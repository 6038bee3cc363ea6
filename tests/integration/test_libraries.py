"""From stale processes to findings: real processes, and units as systemd would give them."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.checks import libraries
from agent.host.processes import read_process
from agent.model import contract, users
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, Retired, Unit
from agent.model.findings import CheckResult, Finding, Severity
from agent.model.restarts import Attempt, Disposition, Outcome, Result, Rule
from tests.integration.herd import LIBRARY, OLD, OTHER, PROGRAM, Root, evidence, holding

NOW = datetime(2026, 11, 22, 15, 16, 58, tzinfo=UTC)
UNIT = "demo.service"


@dataclass
class Stale:
    """A process of `demo.service` that runs libdemo 1.0, 1.1 being installed."""

    root: Root
    retired: tuple[Retired, ...]
    pid: int
    units: dict[str, Unit]

    def check(self, **request: Any) -> CheckResult:
        return self.root.check(self.retired, **request)

    def finding(self, **request: Any) -> Finding:
        (finding,) = [item for item in self.check(**request).findings if item.subject == UNIT]
        return finding


@pytest.fixture
def stale(root: Root, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stale]:
    with holding(root.at(LIBRARY)) as pid:
        retired = root.upgrade(transaction=4)
        process = read_process(Host(), pid)
        assert process
        unit = Unit(
            UNIT, control_group=process.cgroup, main_pid=pid, fragment="/usr/lib/demo/unit", programs=(PROGRAM,)
        )
        units = {UNIT: unit}
        monkeypatch.setattr(libraries, "read_units", lambda host: units)
        yield Stale(root, retired, pid, units)


def test_a_stale_unit_is_restarted_and_said_so(stale: Stale) -> None:
    finding = stale.finding()
    assert evidence(finding).disposition is Disposition.RESTART
    assert (finding.check, finding.severity) == ("libraries", Severity.WARNING)
    assert finding.advice == "agentctl restart demo.service"
    assert evidence(finding).processes[0].pid == stale.pid


def test_a_users_unit_is_his_until_a_rule_speaks_of_it_and_few_of_its_processes_are_told(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holding(root.at(LIBRARY), code="import os, signal; [os.fork() or signal.pause() for _ in range(7)]") as pid:
        retired = root.upgrade()
        process = read_process(Host(), pid)
        assert process
        his = Unit("user@1000.service/demo.service", kind="service", control_group=process.cgroup, start_burst=0)
        monkeypatch.setattr(libraries, "read_units", lambda host: {his.name: his})
        (finding,) = root.check(retired, options={"most_told": 50}).findings
        (ruled,) = root.check(retired, rules=(Rule("user@*.service/*", Disposition.RESTART),)).findings
    assert (len(evidence(finding).processes), evidence(finding).total) == (users.FEW, 8)
    assert finding.subject == his.name and evidence(finding).disposition is Disposition.SESSION
    assert evidence(finding).reason.startswith("user ") and "--uid=1000" in finding.advice
    assert evidence(ruled).disposition is Disposition.RESTART and ruled.advice == f"agentctl restart {his.name}"


def test_of_very_many_old_files_of_a_process_some_of_each_package_are_told(root: Root) -> None:
    """Any user may map all that there are: what is told of him must not outgrow an answer."""
    names = {f"/usr/lib/gconv/{number}.so": OLD for number in range(libraries.MOST_FILES + 20)}
    root.install("libc6", "1", names)
    before = root.index()
    with holding(*map(root.at, names), root.at(LIBRARY)):
        root.install("libc6", "2", dict.fromkeys(names, OTHER))
        root.upgrade()
        retired = root.retire(before)
        (finding,), (whole,) = (root.check(retired, options=some).findings for some in ({"most_told": 50}, {}))
    told, every = evidence(finding).processes[0].files, evidence(whole).processes[0].files
    assert (len(set(told)), len(every)) == (libraries.MOST_FILES, len(names) + 1)
    assert {file.package for file in told} == {"libc6", "libdemo"}


def test_policy_and_likelihood_reach_the_finding(stale: Stale) -> None:
    ruled = stale.finding(rules=(Rule("demo*", Disposition.DEFER, why="a database"),))
    assert evidence(ruled).disposition is Disposition.DEFER and "a database" in evidence(ruled).reason
    assert ruled.severity is Severity.WARNING
    stale.retired = (replace(stale.retired[0], version=None, transaction=0),)
    likely = stale.finding()
    assert evidence(likely).disposition is Disposition.DEFER and likely.severity is Severity.INFO
    assert likely.summary == "1 process likely still runs an old libdemo, replaced by 1.1"


@pytest.mark.parametrize(("transaction", "left"), [(3, False), (4, True), (5, True)])
def test_an_attempt_settles_what_was_replaced_until_then(stale: Stale, transaction: int, left: bool) -> None:
    attempt = Attempt(1, transaction, UNIT, "", NOW, Outcome(UNIT, Result.LEFTOVER))
    expected = Disposition.LEFTOVER if left else Disposition.RESTART
    assert evidence(stale.finding(attempts=(attempt,))).disposition is expected
    other = replace(attempt, unit="other.service")
    assert evidence(stale.finding(attempts=(other,))).disposition is Disposition.RESTART


@pytest.mark.parametrize("package", ["libdemo", "demo-program", "demo-unit"])
def test_a_unit_of_which_any_package_is_half_done_is_held(stale: Stale, package: str) -> None:
    stale.root.install("demo-program", "1", {PROGRAM: OTHER})
    stale.root.install("demo-unit", "1", {"/usr/lib/demo/unit": OTHER})
    result = stale.check(unfinished=(package,))
    (interrupted,) = [item for item in result.findings if item.subject == "dpkg"]
    assert interrupted.summary == "dpkg was interrupted: 1 package is not configured"
    assert (interrupted.severity, interrupted.advice) == (Severity.ERROR, "dpkg --configure -a")
    assert isinstance(interrupted.evidence, dict) and interrupted.evidence["packages"] == [package]
    held = stale.finding(unfinished=(package,))
    assert evidence(held).disposition is Disposition.DEFER and held.advice == "dpkg --configure -a"


def test_a_half_done_package_of_others_holds_nothing(stale: Stale) -> None:
    finding = stale.finding(unfinished=("elsewhere", "dpkg"))
    assert evidence(finding).disposition is Disposition.RESTART


@pytest.mark.parametrize(
    ("active", "down"), [("failed", True), ("inactive", True), ("activating", True), ("active", False)]
)
def test_a_unit_that_did_not_come_back_is_critical_until_it_runs(stale: Stale, active: str, down: bool) -> None:
    outcome = Outcome("web.service", Result.FAILED, journal=("bind() failed",), hint="its program ended with an error")
    stale.units["web.service"] = Unit("web.service", active=active)
    result = stale.root.check((), broken=(outcome,))
    assert (len(result.findings), result.again_at is not None) == ((1, True) if down else (0, False))
    if down:
        (finding,) = result.findings
        assert finding.severity is Severity.CRITICAL and finding.subject == "web.service"
        assert evidence(finding).outcome == outcome
        assert finding.advice == "systemctl status web.service; journalctl -u web.service"
        assert contract.finding(finding)["evidence"]["outcome"]["journal"] == ["bind() failed"]


def test_a_unit_that_is_gone_or_whose_dependant_is_down_is_critical(stale: Stale) -> None:
    gone = Outcome("gone.service", Result.START_LIMIT)
    dependant = Outcome(UNIT, Result.DEPENDANT_DOWN, leftovers=("web.service",))
    stale.units["web.service"] = Unit("web.service", active="failed")
    found = {item.subject: item for item in stale.check(broken=(gone, dependant)).findings}
    assert found.keys() == {"gone.service", UNIT}
    assert found[UNIT].severity is Severity.CRITICAL
    assert evidence(found[UNIT]).processes[0].pid == stale.pid, "what is stale about it is not forgotten"
    stale.units["web.service"] = Unit("web.service")
    again = {item.subject: item for item in stale.check(broken=(gone, dependant)).findings}
    assert again[UNIT].severity is Severity.WARNING


def test_a_unit_on_its_way_up_is_looked_at_again(stale: Stale) -> None:
    assert stale.check().again_at is None
    stale.units[UNIT] = replace(stale.units[UNIT], active="activating")
    again = stale.check().again_at
    assert again and again - datetime.now(UTC) < timedelta(minutes=5, seconds=1)


def test_without_systemd_the_program_is_named_and_a_broken_unit_is_still_down(
    stale: Stale, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(host: Host) -> dict[str, Unit]:
        raise AgentError(Kind.UNREACHABLE, "systemd is not running here")

    monkeypatch.setattr(libraries, "read_units", absent)
    result = stale.check()
    (finding,) = result.findings
    assert result.unseen[-1] == "which units processes belong to: systemd is not running here"
    assert finding.subject.startswith("/usr/bin/python3")
    assert evidence(finding).disposition is Disposition.NEVER and finding.severity is Severity.INFO
    assert finding.advice == f"ps -f -p {stale.pid}"
    broken = stale.check(broken=(Outcome(UNIT, Result.FAILED),)).findings
    assert {item.subject for item in broken if item.severity is Severity.CRITICAL} == {UNIT}


def test_identical_files_are_told_by_unit(stale: Stale) -> None:
    stale.root.install("libdemo", "1.0", {LIBRARY: OLD})
    result = stale.check()
    assert result.findings == () and result.detail["identical"] == {UNIT: [LIBRARY]}


def test_fixes_between_the_two_versions_are_listed(stale: Stale) -> None:
    text = "".join(
        f"libdemo ({version}) stable; urgency=high\n\n  * Fix {cve}.\n\n"
        " -- A <a@b.c>  Sun, 22 Nov 2026 00:00:00 +0000\n\n"
        for version, cve in (("1.1", "CVE-2026-11111"), ("1.0", "CVE-2025-22222"))
    )
    place = stale.root.at("/usr/share/doc/libdemo/changelog.Debian.gz")
    place.parent.mkdir(parents=True)
    place.write_bytes(gzip.compress(text.encode()))
    assert evidence(stale.finding()).cves == ("CVE-2026-11111",)
