"""What detection can see, and what it says of the rest: fewer rights, many mappings, changing pids."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent.checks.libraries import sweep
from agent.checks.libraries.sighting import search_retired
from agent.host import mapped, processes
from agent.host.inodes import Inode
from agent.host.mapped import MappedFile
from agent.host.mappings import QUERY
from agent.host.transactions import read_snapshot
from agent.model import contract
from agent.model.facts import Host, Retired
from agent.model.findings import CheckResult, Confidence, StaleUnit
from tests.integration.herd import (
    LIBRARY,
    OLD,
    OTHER,
    REPOSITORY,
    UNPRIVILEGED,
    WITH_BOTH,
    Root,
    evidence,
    holding,
    stale_pids,
    until_state,
)

LOOK = """
import json, sys
from datetime import UTC, datetime
from agent.checks.libraries import run
from agent.model import contract
from agent.model.facts import Host, Retired
from agent.model.findings import Request
root, retired = json.loads(sys.argv[1])
known = None if retired is None else tuple(contract.decode(Retired, row) for row in retired)
result = run(Host(root=root), Request("libraries", datetime.now(UTC), retired=known))
print(json.dumps(contract.encode(result)))
"""
WITHOUT_MAP_FILES = ("setpriv", "--inh-caps=-all", "--bounding-set=-sys_admin,-checkpoint_restore")


def look(root: Root, retired: tuple[Retired, ...] | None, argv: tuple[str, ...]) -> CheckResult:
    """Run the check in a process that `argv` starts with fewer rights."""
    order = json.dumps([str(root.path), None if retired is None else contract.encode(retired)])
    done = subprocess.run(
        [*argv, sys.executable, "-B", "-c", LOOK, order], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
    return contract.decode(CheckResult, json.loads(done.stdout))


MAP_OFTEN = """
import ctypes
libc = ctypes.CDLL(None)
fd = os.open({path!r}, os.O_RDONLY)
for _ in range({count}):
    libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
"""
END_MAIN_THREAD = """
import ctypes, threading
threading.Thread(target=sys.stdin.read).start()
print("ready", os.getpid(), flush=True)
ctypes.CDLL(None).syscall(60, 0)
"""
"""exit(2), of one thread alone."""


def test_without_the_capability_for_map_files_everything_is_likely_at_most(root: Root) -> None:
    with holding(root.at(LIBRARY)) as pid:
        retired = root.upgrade()
        for known in (retired, None):
            result = look(root, known, WITHOUT_MAP_FILES)
            assert evidence(stale_pids(result)[pid]).confidence is Confidence.LIKELY
        root.install("libdemo", "1.0", {LIBRARY: OLD})
        if result.detail["engine"] == "query":
            assert look(root, retired, WITHOUT_MAP_FILES).detail["identical"]


def test_without_root_ones_own_processes_are_listed_and_the_others_counted(root: Root) -> None:
    with holding(root.at(LIBRARY), argv=UNPRIVILEGED) as own, holding(root.at(LIBRARY)) as foreign:
        root.upgrade()
        threads = sum(processes.is_kernel_thread(Host(), pid) for pid in processes.read_pids(Host()))
        result = look(root, None, UNPRIVILEGED)
        assert stale_pids(result).keys() == {own} and own != foreign
        count, words = result.unseen[0].split(" ", 1)
        assert words in ("processes of other users (not root)", "process of other users (not root)")
        assert 1 <= int(count) <= result.detail["processes"] - threads


@WITH_BOTH
def test_sixty_thousand_mappings_delay_nobody_and_hide_nothing(
    root: Root, on_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = MAP_OFTEN.format(path=str(OTHER), count=60000)
    with (
        holding(code=many) as hostile,
        holding(root.at(LIBRARY), code=many) as large,
        holding(root.at(LIBRARY)) as usual,
    ):
        retired = root.upgrade()
        monkeypatch.setattr(sweep, "PATIENCE", 300.0)
        assert stale_pids(root.check(retired)).keys() == {usual, large}
        monkeypatch.setattr(sweep, "PATIENCE", -1.0)
        hurried = root.check(retired)
        assert stale_pids(hurried).keys() == {usual}
        assert any("for want of time" in line and str(hostile) in line for line in hurried.unseen)
        monkeypatch.setattr(sweep, "PATIENCE", 300.0)
        monkeypatch.setattr(sweep, "MOST_MAPPINGS", 10_000)
        assert any(line.startswith("2 processes with more than") for line in root.check(retired).unseen)


def test_what_an_earlier_worker_got_stuck_at_is_skipped_and_told(root: Root) -> None:
    with holding(root.at(LIBRARY)) as pid, holding(root.at(LIBRARY)) as other:
        result = root.check(root.upgrade(), skip=(pid, 2**22 + 1))
        assert stale_pids(result).keys() == {other}
        assert f"1 process at which an earlier look got stuck: {pid}" in result.unseen
        assert result.again_at, "whether it still hangs is looked at again"


def test_a_pid_that_is_another_process_by_the_end_is_not_blamed(root: Root, place: Path) -> None:
    """A procfs in which pid 4711 becomes another process while its mappings are looked at."""
    proc = place / "proc"
    proc.mkdir()
    (proc / "self").symlink_to("/proc/self")
    (proc / "stat").symlink_to("/proc/stat")
    (proc / str(os.getpid())).symlink_to("/proc/self")
    later = "import time; time.sleep(0.05)"
    with holding(root.at(LIBRARY), code=later) as stale, holding(OTHER) as fresh:
        retired = root.upgrade()
        (proc / "4711").symlink_to(f"/proc/{stale}")
        host = Host(str(root.path), str(proc))
        search = search_retired(host, retired, read_snapshot(host), QUERY)
        assert [verdict.process.pid for verdict in sweep.sweep_processes(host, search, {}, ()).verdicts] == [4711]

        def reuse(id: tuple[int, int], file: MappedFile, inode: Inode | None) -> Sequence[Retired]:
            (proc / "4711").unlink()
            (proc / "4711").symlink_to(f"/proc/{fresh}")
            return search.candidates(id, file, inode)

        done = sweep.sweep_processes(host, replace(search, candidates=reuse), {}, ())
        assert os.readlink(proc / "4711") == f"/proc/{fresh}"
        assert done.verdicts == [] and done.unseen == {}


def test_a_device_of_which_nothing_can_be_mapped_is_told(root: Root) -> None:
    (before,) = root.index()
    elsewhere = Retired(LIBRARY, "libdemo", "0.9", replace(before.id, device=os.makedev(250, 77)), 1)
    assert "replaced files on device 250:77: no file there can be mapped" in root.check([elsewhere]).unseen


def test_nothing_that_is_found_is_opened_nor_executed_nor_asked_for_its_environment(root: Root, place: Path) -> None:
    """The interpreter's own audit events tell what the check does to processes with hostile names."""
    events: list[tuple[str, str]] = []
    armed = [False]

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        if armed[0] and event in WATCHED:
            events.append((event, str(arguments[0])))

    sys.addaudithook(listen)
    bait = place / "a;touch pwned"
    bait.write_bytes(Path("/usr/bin/python3").resolve().read_bytes())
    bait.chmod(0o755)
    (place / "own.so").write_bytes(OTHER.read_bytes())
    with holding(root.at(LIBRARY), place / "own.so", executable=str(bait)) as pid:
        replaced = root.upgrade()
        bait.unlink()
        for retired in (replaced, None):
            armed[0] = True
            result = root.check(retired)
            armed[0] = False
            assert stale_pids(result)[pid].subject == str(bait)
    opened = {name for event, name in events if event == "open"}
    assert any(name.endswith(f"/{pid}/maps") for name in opened)
    assert not any(name.endswith(("/environ", "/cmdline", "/mem")) or name.startswith(str(bait)) for name in opened)
    assert all(name.startswith(("/proc/", str(root.path))) or name.isdigit() for name in opened), opened
    assert {event for event, _ in events} == {"open"}


WATCHED = {"open", "os.exec", "os.fork", "os.posix_spawn", "os.system", "subprocess.Popen", "import", "exec", "compile"}


@WITH_BOTH
def test_a_process_whose_main_thread_has_ended_is_seen(root: Root, on_engine: None) -> None:
    with holding(root.at(LIBRARY), code=END_MAIN_THREAD) as pid:
        retired = root.upgrade()
        until_state(pid, "Z")
        (found,) = stale_pids(root.check(retired)).values()
        (process,) = evidence(found).processes
        assert str(process.pid) in os.listdir(f"/proc/{pid}/task") and evidence(found).confidence is Confidence.CERTAIN
        assert os.path.realpath(f"/proc/{process.pid}/exe") == process.exe


def test_a_thousand_processes_of_one_unit_are_counted_and_not_all_told(root: Root) -> None:
    with holding(root.at(LIBRARY)), holding(root.at(LIBRARY)), holding(root.at(LIBRARY)):
        retired = root.upgrade()
        result, whole = root.check(retired, options={"most_told": 2}), root.check(retired)
    (found,) = result.findings
    assert isinstance(found.evidence, StaleUnit)
    assert len(stale_pids(result)) == 2 and found.evidence.total == 3 and found.summary.startswith("3 processes")
    assert len(stale_pids(whole)) == 3, "without a limit all of them are told"


def test_who_swaps_a_mapping_while_it_is_compared_hides_nobody_else(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He maps the new library at the very place where the old one was seen: the two compare as equal."""
    with holding(root.at(LIBRARY)) as racing, holding(root.at(LIBRARY)) as honest:
        retired = root.upgrade()
        opened = mapped.open_mapped

        def open_other(host: Host, file: MappedFile) -> int:
            return os.open(root.at(LIBRARY), os.O_RDONLY) if file.pid == racing else opened(host, file)

        monkeypatch.setattr(mapped, "open_mapped", open_other)
        assert min(racing, honest) == racing
        result = root.check(retired)
        assert honest in stale_pids(result) and not result.detail["identical"]
        assert evidence(stale_pids(result)[honest]).confidence is Confidence.CERTAIN
