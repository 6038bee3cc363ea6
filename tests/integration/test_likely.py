"""Programs of real interpreters on the real kernel: who began before his packages changed is likely stale."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.checks.libraries.likely import Guess, find_doubts, weigh
from agent.checks.progress import PROGRESS
from agent.host import interpreted, processes
from agent.host.interpreted import read_interpreted
from agent.host.mappings import choose_engine
from agent.host.processes import read_crowd, read_process
from agent.host.transactions import read_snapshot
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, Process, Replaced, StaleFile, Unit
from agent.model.findings import Confidence, Request
from agent.stale.judge import Verdict
from tests.integration.herd import (
    IN_A_NAMESPACE_OF_HIS_OWN,
    LIBRARY,
    NEW,
    OLD,
    WAIT,
    Root,
    evidence,
    files,
    holding,
    stale_pids,
    started,
)

PYTHON = "/usr/bin/python3.11"
SCRIPT = "/usr/sbin/demod"
MODULE = "/usr/lib/python3/dist-packages/part/__init__.py"
UNIT = "demo.service"
SOON = timedelta(minutes=10)
LONG_AGO = timedelta(days=-365)


def unpack(root: Root, package: str, after: timedelta) -> None:
    """Have dpkg's list of a package say that it was unpacked then."""
    at = (datetime.now(UTC) + after).timestamp()
    os.utime(root.at(f"/var/lib/dpkg/info/{package}.list"), (at, at))


@pytest.fixture
def machine(root: Root, place: Path) -> Root:
    """A root with Python, a daemon in it and a module that this needs; all unpacked long ago."""
    script = place / "script"
    script.write_text(f"import sys, os\n{WAIT}")
    root.install("python3-minimal", "3", {PYTHON: Path("/usr/bin/python3").resolve()})
    root.install("demo", "1", {SCRIPT: script})
    root.install("part", "1", {MODULE: script})
    status = root.at("/var/lib/dpkg/status")
    status.write_text(status.read_text().replace("Package: demo\n", "Package: demo\nDepends: part (>= 1), libdemo\n"))
    for package in root.versions:
        unpack(root, package, LONG_AGO)
    return root


@contextmanager
def daemon(root: Root, *argv: str, script: str = SCRIPT) -> Iterator[int]:
    with started([*argv, str(root.at(PYTHON)), "-I", str(root.at(script))]) as pid:
        yield pid


def look(root: Root, *past: Replaced, units: dict[str, Unit] | None = None, proven: tuple[Verdict, ...] = ()) -> Guess:
    snapshot = read_snapshot(root.host)
    doubts = find_doubts(root.host, snapshot, request())
    return weigh(root.host, doubts, snapshot, units or {}, proven, choose_engine(root.host), request(), past)


def request(**facts: Any) -> Request:
    return Request("libraries", datetime.now(UTC), **facts)


def stale(guess: Guess) -> dict[int, list[StaleFile]]:
    return {item.process.pid: list(item.stale.files) for item in guess.verdicts if item.stale}


def unit_of(pid: int, **facts: object) -> dict[str, Unit]:
    process = read_process(Host(), pid)
    assert process
    unit = Unit(UNIT, control_group=process.cgroup, main_pid=pid, programs=(PYTHON,))
    return {UNIT: replace(unit, **facts)}  # type: ignore[arg-type]


def test_a_daemon_is_fresh_until_its_package_is_unpacked_again(machine: Root) -> None:
    with daemon(machine) as pid:
        assert look(machine) == Guess()
        unpack(machine, "demo", SOON)
        guess = look(machine)
        assert stale(guess) == {pid: [StaleFile(SCRIPT, "demo", None, "1")]}
        assert guess.verdicts[0].confidence is Confidence.LIKELY
        assert guess.detail == {"interpreted": 1, "unowned": 0}
    assert stale(look(machine)) == {}


def test_a_daemon_whose_module_changed_is_told_with_the_version_that_history_knows(machine: Root) -> None:
    with daemon(machine) as pid:
        unpack(machine, "part", SOON)
        ended = datetime.now(UTC) + SOON
        assert stale(look(machine)) == {pid: [StaleFile(MODULE, "part", None, "1")]}
        known = look(machine, Replaced(5, "part", None, ended, "0.9", "1"))
        assert stale(known) == {pid: [StaleFile(MODULE, "part", "0.9", "1")]} and known.verdicts[0].transaction == 5
        assert stale(look(machine, Replaced(5, "part", None, ended, "1", "1"))) == {}


def test_a_library_that_a_mapping_would_show_is_left_to_the_mappings(machine: Root) -> None:
    with daemon(machine):
        unpack(machine, "libdemo", SOON)
        assert stale(look(machine)) == {}


def test_a_program_that_no_package_owns_is_counted_and_never_told(machine: Root, place: Path) -> None:
    shutil.copy(machine.at(SCRIPT), machine.at("/opt-demod"))
    with daemon(machine, script="/opt-demod"):
        unpack(machine, "demo", SOON)
        guess = look(machine)
        assert guess.verdicts == () and guess.detail == {"interpreted": 1, "unowned": 1}


def test_an_interpreter_that_no_package_owns_is_believed_nothing(machine: Root) -> None:
    shutil.copy(machine.at(PYTHON), machine.at("/usr/bin/python3.99"))
    with started([str(machine.at("/usr/bin/python3.99")), "-I", str(machine.at(SCRIPT))]) as pid:
        unpack(machine, "demo", SOON)
        assert pid in {found.pid for found in read_interpreted(machine.host)}
        assert stale(look(machine)) == {}


def test_a_copy_of_an_interpreter_mounted_over_it_is_nobody(machine: Root, place: Path) -> None:
    """In a namespace of his own anybody runs what the kernel calls /usr/bin/python3.11."""
    own = place / "own"
    shutil.copy(machine.at(PYTHON), own)
    own.chmod(0o755)
    script = f"mount --bind {own} {machine.at(PYTHON)} && exec {machine.at(PYTHON)} -I {machine.at(SCRIPT)}"
    with started([*IN_A_NAMESPACE_OF_HIS_OWN, "sh", "-c", script]) as pid, daemon(machine) as honest:
        assert os.readlink(f"/proc/{pid}/exe") == str(machine.at(PYTHON))
        unpack(machine, "demo", SOON)
        assert stale(look(machine)).keys() == {honest}


def test_an_interpreter_that_was_replaced_is_left_to_the_mappings(machine: Root) -> None:
    with daemon(machine) as pid:
        machine.replace(PYTHON, Path("/bin/true").resolve())
        unpack(machine, "demo", SOON)
        assert pid not in {found.pid for found in read_interpreted(machine.host)}


def test_a_process_in_another_root_is_not_judged_by_this_hosts_files(machine: Root) -> None:
    """A container that shares the host's /usr and nothing else."""
    with daemon(machine, "unshare", "-m", "sh", "-c", PIVOT, str(machine.path)) as pid:
        assert os.readlink(f"/proc/{pid}/exe").endswith(PYTHON)
        unpack(machine, "demo", SOON)
        assert stale(look(machine)) == {}


PIVOT = """
mount --bind /var/tmp /mnt && mount -t tmpfs none /mnt && mkdir -p /mnt/old
for each in usr var proc dev; do mkdir -p /mnt/$each && mount --rbind /$each /mnt/$each; done
ln -s usr/lib /mnt/lib; ln -s usr/lib64 /mnt/lib64; ln -s usr/bin /mnt/bin
cd /mnt && pivot_root . old && cd / && shift 0 && exec "$@"
"""


def test_who_runs_replaced_code_for_certain_is_not_told_twice(machine: Root) -> None:
    with daemon(machine) as pid, daemon(machine) as other:
        unpack(machine, "demo", SOON)
        guess = look(machine)
        assert stale(guess).keys() == {pid, other}
        certain = tuple(item for item in guess.verdicts if item.process.pid == pid)
        assert stale(look(machine, proven=certain)).keys() == {other}
        assert stale(look(machine, proven=certain, units=unit_of(pid))) == {}, "its unit is told already"


def test_what_systemd_starts_is_firm_and_what_a_process_says_is_not(
    machine: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def told(host: Host, units: object) -> dict[str, tuple[str, ...]]:
        asked.append(sorted(units))  # type: ignore[call-overload]
        return {UNIT: (PYTHON, SCRIPT)}

    with daemon(machine) as pid:
        unpack(machine, "demo", SOON)
        units = unit_of(pid)
        assert look(machine, units=units).firm == frozenset(), "systemd says nothing about another root"
        monkeypatch.setattr(interpreted, "read_commands", told)
        guess = look(machine, units=units)
        assert guess.firm == {UNIT} and stale(guess).keys() == {pid} and asked == [[UNIT]]
        assert look(machine, units=unit_of(pid, main_pid=pid + 1)).firm == frozenset()
        assert look(machine, units=unit_of(pid, programs=())).firm == frozenset(), "its unit has a root of its own"


def test_a_process_that_names_another_program_makes_nothing_firm(
    machine: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command line says that it runs demod; systemd knows that it was started as something else."""
    monkeypatch.setattr(interpreted, "read_commands", lambda host, units: {UNIT: ("/usr/local/sbin/web",)})
    with daemon(machine) as pid:
        unpack(machine, "demo", SOON)
        guess = look(machine, units=unit_of(pid))
        assert stale(guess).keys() == {pid} and guess.firm == frozenset()


def test_what_systemd_starts_is_no_program_of_the_interpreters_if_the_kernel_runs_it(
    machine: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/usr/bin/env python3 …`, `/usr/bin/python3 /opt/app.py`: their packages say nothing about what is read."""
    shutil.copy(machine.at(SCRIPT), machine.at("/opt-demod"))
    machine.install("coreutils", "9", {"/usr/bin/env": OLD})
    monkeypatch.setattr(interpreted, "read_commands", lambda host, units: {UNIT: ("/usr/bin/env", "/usr/bin/python3")})
    machine.at("/usr/bin/python3").symlink_to("python3.11")
    machine.install("python3-link", "3", {})
    listed = machine.at("/var/lib/dpkg/info/python3-link.list")
    listed.write_text("/.\n/usr\n/usr/bin\n/usr/bin/python3\n")
    with daemon(machine, script="/opt-demod") as pid:
        for package in ("coreutils", "python3-link"):
            unpack(machine, package, SOON)
        guess = look(machine, units=unit_of(pid))
        assert guess.verdicts == () and guess.firm == frozenset() and guess.detail["unowned"] == 1


def test_without_an_answer_of_systemds_the_process_itself_is_asked(
    machine: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(host: Host, units: object) -> dict[str, tuple[str, ...]]:
        raise AgentError(Kind.UNREACHABLE, "systemd does not answer")

    monkeypatch.setattr(interpreted, "read_commands", silent)
    with daemon(machine) as pid:
        unpack(machine, "demo", SOON)
        assert stale(look(machine, units=unit_of(pid))).keys() == {pid}


def test_what_an_earlier_look_got_stuck_at_is_not_asked_for_its_command_line(machine: Root) -> None:
    with daemon(machine) as pid:
        unpack(machine, "demo", SOON)
        crowd = read_crowd(Host(), pid)
        for shunned, found in (({"skip": (pid,)}, set()), ({"crowds": (crowd,)}, set()), ({"crowds": ("x",)}, {pid})):
            doubts = find_doubts(machine.host, read_snapshot(machine.host), request(**shunned))
            assert {suspect.process.pid for suspect in doubts.suspects} == found


def test_who_is_asked_for_his_command_line_is_announced_first(machine: Root) -> None:
    """Whoever reads it waits for the lock of his memory, which he may hold for ever."""
    beats: list[frozenset[int]] = []
    with daemon(machine) as pid:
        unpack(machine, "demo", SOON)
        original = interpreted.read_scripts

        def watched(host: Host, pid: int) -> tuple[str, ...]:
            beats.append(PROGRESS.subjects())
            return original(host, pid)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interpreted, "read_scripts", watched)
            assert stale(look(machine)).keys() == {pid}
    assert beats == [{pid}] and not PROGRESS.subjects()


def test_a_pid_that_is_another_process_by_the_end_is_not_blamed(machine: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command line was read of somebody else. He who becomes another program is no other case."""
    with daemon(machine) as pid, holding() as other:
        unpack(machine, "demo", SOON)
        real, seen = processes.read_process, []

        def read(host: Host, asked: int) -> Process | None:
            seen.append(asked)
            return real(host, other if asked == pid and seen.count(pid) > 1 else asked)

        monkeypatch.setattr(processes, "read_process", read)
        assert stale(look(machine)) == {} and seen.count(pid) == 2


def test_programs_that_no_interpreter_runs_cost_next_to_nothing(machine: Root) -> None:
    """The best of five, for others work here too: 5 ms for a thousand when quiet, and here are 300."""
    snapshot = read_snapshot(machine.host)
    sleeping = [subprocess.Popen(["/usr/bin/sleep", "60"]) for _ in range(300)]
    try:
        took = []
        for _ in range(5):
            begun = time.process_time()
            assert not find_doubts(machine.host, snapshot, request()).any
            took.append(time.process_time() - begun)
        assert min(took) < 0.010 * len(os.listdir("/proc")) / 1000 + 0.001
    finally:
        for process in sleeping:
            process.kill()
        for process in sleeping:
            process.wait()


# Data


def test_a_replaced_module_of_the_name_service_switch_is_code_like_any_other(root: Root) -> None:
    """It is mapped, so it is certain; nothing needs to be guessed about it."""
    module = "/usr/lib/x86_64-linux-gnu/libnss_demo.so.2"
    root.install("libnss-demo", "1", {module: OLD})
    before = root.index()
    with holding(root.at(module)) as pid:
        root.install("libnss-demo", "2", {module: NEW})
        result = root.check(root.retire(before))
        assert [path for path, *_ in files(result, pid)] == [module]
        assert evidence(stale_pids(result)[pid]).confidence is Confidence.CERTAIN


def test_services_that_use_tls_are_told_when_the_certificates_changed(root: Root) -> None:
    tls, bundle = "/usr/lib/x86_64-linux-gnu/libssl.so.3", root.at("/etc/ssl/certs/ca-certificates.crt")
    root.install("libssl3", "3", {tls: OLD})
    root.install("ca-certificates", "20260101", {})
    bundle.parent.mkdir(parents=True)
    bundle.write_text("one")
    unpack(root, "ca-certificates", LONG_AGO)
    with holding(root.at(tls)) as user, holding(root.at(LIBRARY)) as bystander:
        units = {f"{pid}.service": Unit(f"{pid}.service", main_pid=pid) for pid in (user, bystander)}
        keep, told = tell(root, units, {})
        assert told == {}
        bundle.write_text("two")
        os.utime(bundle, (time.time() + 600,) * 2)
        keep, told = tell(root, units, keep)
        assert told == {"ca-certificates": [f"{user}.service"]}
        assert tell(root, units, keep)[1] == told, "remembered"
        assert tell(root, units, keep, skip=(user,))[1] == {}, "an earlier look got stuck at it"


def test_services_are_told_when_the_rules_of_time_zones_changed(root: Root) -> None:
    root.install("tzdata", "2026b", {})
    root.at("/etc").mkdir()
    root.at("/etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    with holding() as pid:
        units = {"cron.service": Unit("cron.service", main_pid=pid)}
        for after, told in ((LONG_AGO, {}), (SOON, {"tzdata": ["cron.service"]})):
            unpack(root, "tzdata", after)
            assert find_doubts(root.host, read_snapshot(root.host), request()).any is bool(told), "of before the boot?"
            assert tell(root, units, {})[1] == told


def tell(
    root: Root, units: dict[str, Unit], kept: dict[str, Any], **facts: Any
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return what is kept, and the services told by package."""
    snapshot = read_snapshot(root.host)
    doubts = find_doubts(root.host, snapshot, request(kept=kept))
    found = weigh(root.host, doubts, snapshot, units, (), choose_engine(root.host), request(**facts)).findings
    assert all(item.severity == "info" for item in found)
    return doubts.keep, {item.subject: item.evidence["units"] for item in found if isinstance(item.evidence, dict)}
