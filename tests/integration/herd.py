"""Roots with a dpkg database and real libraries in them, and processes that map what a test wants."""

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.checks.libraries import run
from agent.host.mappings import QUERY, TEXT
from agent.host.packages import read_index
from agent.host.transactions import read_snapshot
from agent.model.facts import Host, Indexed, Retired
from agent.model.findings import CheckResult, Finding, Request, StaleUnit
from tests.integration.waiting import until

OLD, NEW, OTHER = (
    next(Path("/usr/lib").glob(f"*-linux-gnu*/{name}")) for name in ("libdl.so.2", "librt.so.1", "libutil.so.1")
)
"""Three small real libraries with different build-ids, which every libc6 has."""

REPOSITORY = Path(__file__).parents[2]
WORKER = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from agent.checks.worker import main; sys.exit(main())"
LIBRARY = "/usr/lib/x86_64-linux-gnu/libdemo.so.1"
PROGRAM = "/usr/sbin/demod"
NOBODY = 65534
WITH_BOTH = pytest.mark.parametrize("engine", [QUERY, TEXT], ids=lambda engine: engine.name)
"""The engines that read what a process maps."""

HOLD = """
import mmap, os, sys
def hold(path):
    fd = os.open(path, os.O_RDONLY)
    held.append(mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC))
    os.close(fd)
held = []
"""
WAIT = """
print("ready", os.getpid(), flush=True)
sys.stdin.read()
"""


def until_state(pid: int, state: str) -> None:
    """Wait until the kernel gives a process that state: D (waits and cannot be interrupted), Z (its main thread ended)."""
    line = Path(f"/proc/{pid}/stat")
    until(lambda: line.read_text().rpartition(")")[2].split()[0] == state, f"{pid} in the state {state}")


@dataclass
class Root:
    """A root with a dpkg database of its own; `install` replaces files as dpkg does."""

    path: Path
    versions: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    @property
    def host(self) -> Host:
        return Host(root=str(self.path))

    def at(self, path: str) -> Path:
        return self.path / path.lstrip("/")

    def install(self, package: str, version: str, content: dict[str, Path]) -> None:
        for path, source in content.items():
            self.replace(path, source)
        self.versions[package] = version
        self.lists[package] = sorted(content)
        self._write()

    def replace(self, path: str, source: Path) -> None:
        new = self.at(f"{path}.dpkg-new")
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, new)
        new.chmod(0o755)
        os.rename(new, self.at(path))

    def remove(self, package: str) -> None:
        for path in self.lists.pop(package):
            self.at(path).unlink()
        del self.versions[package]
        self._write()

    def index(self) -> tuple[Indexed, ...]:
        return tuple(read_index(self.host, read_snapshot(self.host).values()))

    def retire(self, before: Sequence[Indexed], transaction: int = 1) -> tuple[Retired, ...]:
        """Return the files of `before` that are others now, as the store does."""
        kept = {item.id for item in self.index()}
        return tuple(
            Retired(item.path, item.package, item.version, item.id, transaction)
            for item in before
            if item.id not in kept
        )

    def upgrade(self, transaction: int = 1) -> tuple[Retired, ...]:
        """Replace libdemo 1.0 by 1.1 and return what the store would know of it."""
        before = self.index()
        self.install("libdemo", "1.1", {LIBRARY: NEW})
        return self.retire(before, transaction)

    def _write(self) -> None:
        database = self.at("/var/lib/dpkg")
        (database / "info").mkdir(parents=True, exist_ok=True)
        (database / "status").write_text("".join(map(self._stanza, sorted(self.versions))) or "\n\n")
        for path in (database / "info").iterdir():
            path.unlink()
        for package, paths in self.lists.items():
            lines = {str(parent) for path in paths for parent in Path(path).parents if str(parent) != "/"} | {*paths}
            (database / f"info/{package}.list").write_bytes(os.fsencode("\n".join(["/.", *sorted(lines), ""])))

    def _stanza(self, package: str) -> str:
        return (
            f"Package: {package}\nStatus: install ok installed\nArchitecture: amd64\n"
            f"Version: {self.versions[package]}\n\n"
        )

    def check(self, retired: Sequence[Retired] | None, **request: Any) -> CheckResult:
        known = None if retired is None else tuple(retired)
        return run(self.host, Request("libraries", datetime.now(UTC), retired=known, **request))


def stale_pids(result: CheckResult) -> dict[int, Finding]:
    """Return the findings by process."""
    return {
        process.pid: finding
        for finding in result.findings
        if isinstance(finding.evidence, StaleUnit)
        for process in finding.evidence.processes
    }


@contextmanager
def holding(
    *paths: str | bytes | Path, code: str = "", argv: Sequence[str] = (), executable: str = "/usr/bin/python3"
) -> Iterator[int]:
    """Run a process that maps `paths` executable, then runs `code`, and give its pid. argv: starts it."""
    names = [os.fsencode(path) for path in paths]
    script = f"{HOLD}\nfor path in {names!r}:\n    hold(path)\n{code}\n{WAIT}"
    with started([*argv, executable, "-I", "-c", script]) as pid:
        yield pid


@contextmanager
def started(argv: Sequence[str]) -> Iterator[int]:
    """Run a program that prints `ready PID` and ends with its input; its children are killed with it."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdin and process.stdout
    try:
        words = process.stdout.readline().split()
        assert words[:1] == ["ready"], f"{argv[:4]} did not start"
        yield int(words[1])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdin.close()
        process.stdout.close()
        process.wait()


UNPRIVILEGED = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
IN_A_NAMESPACE_OF_HIS_OWN = (*UNPRIVILEGED, "unshare", "-Urm")
"""An unprivileged user who makes himself root of a user namespace, and a mount namespace in it."""


def fuse_device(place: Path) -> Path:
    """Make a door to FUSE that every user may open; that of the host need not be there."""
    device = place / "fuse"
    os.mknod(device, stat.S_IFCHR, os.makedev(10, 229))
    device.chmod(0o666)
    return device


def evidence(finding: Finding) -> StaleUnit:
    assert isinstance(finding.evidence, StaleUnit)
    return finding.evidence


def files(result: CheckResult, pid: int) -> list[tuple[str, str, str | None, str | None]]:
    (process,) = [item for item in evidence(stale_pids(result)[pid]).processes if item.pid == pid]
    return [(file.path, file.package, file.running, file.installed) for file in process.files]
