"""A scan by several processes: it finds what one finds, whatever becomes of the others, and leaves nobody behind."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.checks.progress import Progress
from agent.host import mappings, readers
from agent.host.mappings import TEXT, Engine, Pick, Unseen, Why
from agent.model.facts import Host, Mapped
from tests.integration.herd import LIBRARY, WITH_BOTH, Root, holding

HERE = Host()
OURS = os.getpid()
MANY = 10_000


def children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()))


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three readers, however few processes and cores there are."""
    monkeypatch.setattr(readers, "SHARE", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})


@pytest.fixture
def pids(root: Root) -> Iterator[list[int]]:
    """Seven processes that map one library, each its own copy."""
    with ExitStack() as stack:
        yield [stack.enter_context(holding(copy(root, number))) for number in range(7)]


def copy(root: Root, number: int) -> Path:
    root.install(f"libdemo{number}", "1.0", {f"{LIBRARY}.{number}": Path("/bin/true")})
    return root.at(f"{LIBRARY}.{number}")


def everything(engine: Engine) -> Pick:
    return lambda read: frozenset(map(engine.unpack, read))


def in_another(do: signal.Signals | type[BaseException]) -> Pick:
    """Return what picks everything here, and is the end of a reader that is another process."""

    def pick(read: set[bytes]) -> mappings.Ids:
        if os.getpid() == OURS:
            return everything(TEXT)(read)
        if isinstance(do, signal.Signals):
            os.kill(os.getpid(), do)
        else:
            raise do
        return mappings.NOTHING

    return pick


@WITH_BOTH
def test_several_readers_find_what_one_finds(several: None, pids: list[int], engine: Engine) -> None:
    alone = list(mappings.scan(HERE, pids, everything(engine), engine, MANY))
    together = list(readers.scan(HERE, pids, everything(engine), engine, MANY, Progress().over))
    assert len(alone) == 7 and all(isinstance(found, Mapped) and found.ids for found in alone)
    assert sorted(together, key=lambda found: found.pid) == alone
    assert [found.pid for found in together] != pids, "it was shared"


def test_who_was_not_read_is_told_by_every_reader(several: None, pids: list[int]) -> None:
    found = list(readers.scan(HERE, pids, everything(TEXT), TEXT, 0, Progress().over))
    assert sorted(found, key=lambda item: item.pid) == [Unseen(pid, Why.MANY) for pid in pids]


@pytest.mark.parametrize("end", [signal.SIGKILL, MemoryError, SystemExit, KeyboardInterrupt])
def test_what_a_reader_did_not_end_is_read_here(
    several: None, pids: list[int], end: signal.Signals | type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    found = readers.scan(HERE, pids, in_another(end), TEXT, MANY, Progress().over)
    assert {item.pid for item in found if isinstance(item, Mapped)} == set(pids)
    assert capfd.readouterr() == ("", "")
    assert children() == set(pids)


def test_without_another_process_everything_is_read_here(
    several: None, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise BlockingIOError("EAGAIN, as where a limit of tasks is reached")

    opened = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "fork", refuse)
    assert len(list(readers.scan(HERE, pids, everything(TEXT), TEXT, MANY, Progress().over))) == 7
    assert os.listdir("/proc/self/fd") == opened


def test_few_processes_are_not_shared(pids: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    assert len(list(readers.scan(HERE, pids, everything(TEXT), TEXT, MANY, Progress().over))) == 7


def test_a_reader_that_hangs_is_seen_and_is_killed_with_the_scan(several: None, pids: list[int]) -> None:
    progress, seen = Progress(), threading.Event()

    def hang(read: set[bytes]) -> mappings.Ids:
        if os.getpid() != OURS:
            time.sleep(60)
        return everything(TEXT)(read)

    def watch() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end and not progress.subjects() >= {pids[1], pids[2]}:
            time.sleep(0.01)
        seen.set()

    watching = threading.Thread(target=watch)
    watching.start()
    found = readers.scan(HERE, pids, hang, TEXT, MANY, progress.over)
    assert [next(found).pid for _ in range(3)] == [pids[0], pids[3], pids[6]]
    watching.join()
    assert progress.subjects() >= {pids[1], pids[2]}
    others = children() - set(pids)
    assert len(others) == 2
    del found
    for pid in others & children():
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
