"""Which units would be restarted: real processes that run what is installed now."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.checks import foresight
from agent.host.processes import read_process
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, Unit
from agent.model.findings import CheckResult, Confidence, Finding, Request, Severity
from agent.model.restarts import Disposition, Rule
from agent.restart.plan import make_plan
from tests.integration.herd import LIBRARY, OTHER, PROGRAM, WAIT, Root, evidence, files, holding, stale_pids, started

UNIT = "demo.service"
SECOND = "/usr/lib/x86_64-linux-gnu/libsecond.so.1"


def foresee(root: Root, *packages: str, **options: Any) -> CheckResult:
    request = Request("foresight", datetime.now(UTC), options={"packages": list(packages)}, **options)
    return foresight.run(root.host, request)


@contextmanager
def unit_holding(monkeypatch: pytest.MonkeyPatch, *pids: int) -> Iterator[dict[str, Unit]]:
    process = read_process(Host(), pids[0])
    assert process
    units = {UNIT: Unit(UNIT, control_group=process.cgroup, main_pid=pids[0], programs=(PROGRAM,))}
    with monkeypatch.context() as patch:
        patch.setattr(foresight, "read_units", lambda host: units)
        yield units


def only(result: CheckResult) -> Finding:
    (finding,) = result.findings
    return finding


def test_who_runs_what_is_installed_would_run_replaced_code(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    root.install("libsecond", "2.0", {SECOND: OTHER})
    with holding(root.at(LIBRARY)) as pid, holding(root.at(SECOND)) as other:
        with unit_holding(monkeypatch, pid) as units:
            result = foresee(root, "libdemo")
            assert stale_pids(result).keys() == {pid} and other not in stale_pids(result)
            assert files(result, pid) == [(LIBRARY, "libdemo", "1.0", foresight.ANOTHER)]
            assert only(result).severity is Severity.INFO
            assert only(result).summary == "1 process runs code of libdemo"
            assert result.mapped == result.learnt == () and result.keep is None and result.again_at is None
            plan = make_plan(0, [evidence(only(result))], units, (), "aftercare.service")
            assert [step.unit for wave in plan.waves for step in wave.steps] == [UNIT]
            assert plan.waves[0].steps[0].reasons == ("libdemo 1.0 → another version",)
        assert stale_pids(foresee(root, "libdemo", "libsecond")).keys() == {pid, other}


def test_policy_and_nature_have_their_say(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    with holding(root.at(LIBRARY)) as pid, unit_holding(monkeypatch, pid):
        restarted = only(foresee(root, "libdemo"))
        assert evidence(restarted).disposition is Disposition.RESTART and restarted.advice == "would be restarted"
        rule = Rule("demo*", Disposition.DEFER, why="a database")
        deferred = only(foresee(root, "libdemo", rules=(rule,)))
        assert evidence(deferred).disposition is Disposition.DEFER and deferred.advice == "a database"


def test_who_runs_an_older_file_already_is_not_part_of_it(root: Root) -> None:
    with holding(root.at(LIBRARY)):
        root.upgrade()
        assert foresee(root, "libdemo").findings == ()


def test_a_package_that_is_not_installed_is_wrong_usage(root: Root) -> None:
    with pytest.raises(AgentError, match="no package other is installed") as caught:
        foresee(root, "libdemo", "other")
    assert caught.value.kind is Kind.USAGE


def test_what_apt_would_upgrade_is_told_with_its_new_version(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that are not here, and those that would be new, are none of it."""
    root.install("libsecond", "2.0", {SECOND: OTHER})
    upgrades = {"libdemo": "1.1", "libsecond": None, "elsewhere": "7"}
    monkeypatch.setattr(foresight, "read_upgrades", lambda host: upgrades)
    with holding(root.at(LIBRARY), root.at(SECOND)) as pid:
        request = Request("foresight", datetime.now(UTC), options={"upgrade": True})
        result = foresight.run(root.host, request)
        assert files(result, pid) == [(LIBRARY, "libdemo", "1.0", "1.1"), (SECOND, "libsecond", "2.0", None)]
        assert result.detail["packages"] == {"libdemo": "1.1", "libsecond": None}


def test_programs_that_would_read_other_modules_are_likely(root: Root, place: Path) -> None:
    script = place / "script"
    script.write_text(f"import sys, os\n{WAIT}")
    python, own, module = "/usr/bin/python3.11", "/usr/sbin/demod", "/usr/lib/python3/dist-packages/part.py"
    root.install("python3-minimal", "3", {python: Path("/usr/bin/python3").resolve()})
    root.install("demo", "1", {own: script})
    root.install("python3-part", "1", {module: script})
    status = root.at("/var/lib/dpkg/status")
    status.write_text(status.read_text().replace("Package: demo\n", "Package: demo\nDepends: python3-part\n"))
    with started([str(root.at(python)), "-I", str(root.at(own))]) as pid:
        for package, path in (("demo", own), ("python3-part", module)):
            result = foresee(root, package)
            assert files(result, pid) == [(path, package, "1", foresight.ANOTHER)]
            assert evidence(only(result)).confidence is Confidence.LIKELY
            assert only(result).summary == f"1 process likely runs code of {package}"
        assert evidence(only(foresee(root, "python3-minimal", "demo"))).confidence is Confidence.CERTAIN
        assert foresee(root, "libdemo").findings == ()


def test_without_systemd_programs_are_named_and_that_is_said(root: Root) -> None:
    with holding(root.at(LIBRARY)) as pid:
        result = foresee(root, "libdemo")
        assert (
            stale_pids(result)[pid].subject.startswith("/") and "which units processes belong to" in result.unseen[-1]
        )
