"""From a likelihood to what is done about it: only what systemd itself was told to start is restarted on one."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.checks import libraries
from agent.config.settings import Settings
from agent.daemon import workers
from agent.host import interpreted
from agent.host.processes import read_process
from agent.model.facts import Host, Unit
from agent.model.findings import Confidence, Finding, Request
from agent.model.restarts import Disposition, Rule
from tests.integration import stuck
from tests.integration.herd import (
    IN_A_NAMESPACE_OF_HIS_OWN,
    LIBRARY,
    WORKER,
    Root,
    evidence,
    files,
    fuse_device,
    holding,
    stale_pids,
    started,
    until_state,
)
from tests.integration.test_likely import PYTHON, SCRIPT, SOON, UNIT, machine, unpack

__all__ = ["machine"]
RESTART = {"likely": "restart"}


@dataclass
class Daemon:
    """A unit whose program's package was unpacked again since it began."""

    root: Root
    pid: int

    def finding(self, **request: Any) -> Finding:
        return stale_pids(self.root.check((), **request))[self.pid]


@pytest.fixture
def daemon(machine: Root, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with started([str(machine.at(PYTHON)), "-I", str(machine.at(SCRIPT))]) as pid:
        unpack(machine, "demo", SOON)
        process = read_process(Host(), pid)
        assert process
        units = {UNIT: Unit(UNIT, control_group=process.cgroup, main_pid=pid, programs=(PYTHON,))}
        monkeypatch.setattr(libraries, "read_units", lambda host: units)
        monkeypatch.setattr(interpreted, "read_commands", lambda host, units: {UNIT: (SCRIPT,)})
        yield Daemon(machine, pid)


def test_what_is_likely_is_reported(daemon: Daemon) -> None:
    finding = daemon.finding()
    assert finding.severity == "info" and finding.advice == f"agentctl restart {UNIT}"
    assert (evidence(finding).confidence, evidence(finding).disposition) == (Confidence.LIKELY, Disposition.DEFER)


def test_policy_may_have_it_restarted_for_all_or_by_rule(daemon: Daemon) -> None:
    assert evidence(daemon.finding(options=RESTART)).disposition is Disposition.RESTART
    by_rule = (Rule("demo*", likely="restart"),)
    assert evidence(daemon.finding(rules=by_rule)).disposition is Disposition.RESTART
    spared = (Rule("demo*", likely="report"),)
    assert evidence(daemon.finding(options=RESTART, rules=spared)).disposition is Disposition.DEFER


def test_the_word_of_a_process_restarts_nothing(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreted, "read_commands", lambda host, units: {UNIT: ("/usr/local/sbin/web",)})
    assert evidence(daemon.finding(options=RESTART)).disposition is Disposition.DEFER


def test_a_nameless_file_without_history_restarts_nothing_either(daemon: Daemon) -> None:
    """Any user can forge one (SEC-10c), and bring it into a unit that runs what users ask for."""
    with holding(daemon.root.at(LIBRARY)) as forger:
        daemon.root.upgrade()
        unpack(daemon.root, "demo", -SOON * 1000)
        found = stale_pids(daemon.root.check(None, options=RESTART))[forger]
        assert evidence(found).disposition is Disposition.DEFER


def test_code_that_is_stale_for_certain_is_told_alone(daemon: Daemon) -> None:
    with holding(daemon.root.at(LIBRARY)) as pid:
        retired = daemon.root.upgrade()
        unpack(daemon.root, "demo", SOON)
        result = daemon.root.check(retired)
        assert stale_pids(result).keys() == {pid}, "both are of one unit, which is restarted as it is"
        assert files(result, pid)[0][1] == "libdemo" and Path(f"/proc/{daemon.pid}").exists()


def test_who_hangs_whoever_reads_his_maps_hangs_nobody_who_reads_his_command_line(
    machine: Root, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both wait for the same lock, and the second look knows it. Break: neither skip nor announce it among the suspects."""
    monkeypatch.setattr(workers, "command", lambda: ["/usr/bin/python3", "-B", "-c", WORKER])
    monkeypatch.setattr(workers, "MOST_BEATS", 2)
    mountpoint = place / "mount"
    mountpoint.mkdir()
    mountpoint.chmod(0o777)
    script = place / "stuck.py"
    shutil.copy(str(stuck.__file__), script)
    python = str(machine.at(PYTHON))
    hanging = [*IN_A_NAMESPACE_OF_HIS_OWN, python, "-B", str(script), str(fuse_device(place)), str(mountpoint)]
    with started(hanging) as victim, started([python, "-I", str(machine.at(SCRIPT))]) as honest:
        unpack(machine, "demo", SOON)
        until_state(victim, "D")
        request = Request("libraries", datetime.now(UTC), retired=())
        result = asyncio.run(workers.check(machine.host, Settings(check_limit=20), request))
        assert stale_pids(result).keys() == {honest}
        assert any("stuck" in line and str(victim) in line for line in result.unseen)
