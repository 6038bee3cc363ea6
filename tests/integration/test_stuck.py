"""Processes that keep whoever looks at them: they cost a bounded time, and hide nobody but their owner's own."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.config.settings import Settings
from agent.daemon import workers
from agent.host import processes, readers
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request
from tests.integration import stuck
from tests.integration.herd import (
    IN_A_NAMESPACE_OF_HIS_OWN,
    LIBRARY,
    NEW,
    OLD,
    UNPRIVILEGED,
    WORKER,
    Root,
    files,
    fuse_device,
    holding,
    stale_pids,
    started,
    until_state,
)

PYTHON = ("/usr/bin/python3", "-B")
MANY = 400


@pytest.fixture
def victims(place: Path) -> Iterator[list[int]]:
    """Three processes of an unprivileged user whose maps nobody can read."""
    script = place / "stuck.py"
    fuse_device(place)
    script.write_text(Path(stuck.__file__).read_text())
    script.chmod(0o644)
    with ExitStack() as stack:
        yield [stack.enter_context(started(stuck_argv(place, number))) for number in range(3)]


def stuck_argv(place: Path, number: int) -> list[str]:
    mountpoint = place / f"mount{number}"
    mountpoint.mkdir(mode=0o777)
    return [*IN_A_NAMESPACE_OF_HIS_OWN, *PYTHON, str(place / "stuck.py"), str(place / "fuse"), str(mountpoint)]


def work_with(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers do `code` before anything else."""
    monkeypatch.setattr(workers, "command", lambda: [*PYTHON, "-c", WORKER.replace("; from", f"; {code}; from")])


def check(root: Root, request: Request) -> CheckResult:
    return asyncio.run(workers.check(Host(root=str(root.path)), Settings(check_limit=20), request))


@pytest.mark.parametrize("share", [readers.SHARE, 1])
def test_any_number_of_stuck_processes_of_a_user_hides_nobody_elses(
    root: Root, victims: list[int], share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many read at once."""
    work_with(f"from agent.host import readers; readers.SHARE = {share}", monkeypatch)
    monkeypatch.setattr(workers, "MOST_BEATS", 2)
    with holding(root.at(LIBRARY)) as pid:
        retired = root.upgrade()
        for victim in victims:
            until_state(victim, "D")
        request = Request("libraries", datetime.now(UTC), retired=retired)
        result = check(root, request)
    assert stale_pids(result).keys() == {pid}
    assert sum(line.count("stuck") for line in result.unseen) == 2
    assert any(str(victims[2]) in line for line in result.unseen)


FORKS = f"""
for _ in range({MANY}):
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
"""


def test_a_crowd_of_processes_that_map_all_there_is_takes_its_time_and_hides_nobody_elses(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever maps all libraries of a package and forks has hundreds of old files in thousands of processes."""
    work_with("from agent.checks.libraries import sweep; sweep.ALLOWANCE = 0.3", monkeypatch)
    names = {f"/usr/lib/x86_64-linux-gnu/gconv/{number}.so": OLD for number in range(200)}
    root.install("libc6", "1", names)
    before = root.index()
    with holding(*map(root.at, names), code=FORKS, argv=UNPRIVILEGED), holding(root.at(LIBRARY)) as victim:
        root.install("libc6", "2", dict.fromkeys(names, NEW))
        root.upgrade()
        result = check(root, Request("libraries", datetime.now(UTC), retired=root.retire(before)))
    told = stale_pids(result)
    assert victim in told and 1 < len(told)
    assert len(files(result, victim)) == 1
    (late,) = [line for line in result.unseen if "for want of time" in line]
    assert 0 < int(late.split()[0]) < MANY


def test_a_crowd_is_a_unit_or_a_login_user_and_root_is_never_in_that_of_others(victims: list[int]) -> None:
    crowds = {processes.read_crowd(Host(), pid) for pid in victims}
    own = processes.read_crowd(Host(), os.getpid())
    assert len(crowds) == 1 and own.endswith(" root") and crowds == {own.replace(" root", " others")}
    assert processes.read_crowd(Host(), 2**22 + 1) == ""
