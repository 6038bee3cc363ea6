"""What a machine has on the host: its cgroup, its files, its traces in /run; and how all of it goes away.

A machine has a lock for as long as its test run lives, so that the next run can tell what was left behind.
"""

import contextlib
import fcntl
import itertools
import os
import shutil
import time
from pathlib import Path
from typing import IO

from tests.e2e import host

CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
TRACES = Path("/run/systemd/nspawn")
NUMBER = itertools.count(1)


def new_name() -> str:
    """Return a name for a machine that nothing else has."""
    return f"aftercare-{os.getpid()}-{next(NUMBER)}"


def claim(name: str) -> tuple[Path, IO[str]]:
    """Make the folder of a new machine and return it with its lock, which is held until it is closed."""
    home = host.cache() / "machines" / name
    with host.locked(host.cache() / "machines.lock"):
        home.mkdir(parents=True)
        lock = open(_lock_of(home), "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return home, lock


def _lock_of(home: Path) -> Path:
    """It lies beside the folder, and outlives it."""
    return home.with_name(f"{home.name}.lock")


def sweep() -> None:
    """Remove the machines of test runs that were killed: those whose lock nobody holds any more."""
    with host.locked(host.cache() / "machines.lock"):
        for path in (host.cache() / "machines").glob("*.lock"):
            with contextlib.suppress(FileNotFoundError, BlockingIOError), open(path) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                host.progress(f"removing {path.stem}, left over from an earlier run")
                discard(path.with_name(path.stem))


def discard(home: Path) -> None:
    """Kill and remove everything of the machine whose files are at `home`."""
    cgroup = hierarchy() / home.name
    kill(cgroup)
    remove(cgroup)
    tidy(home.name, home / "root")
    assert str(home) not in Path("/proc/self/mounts").read_text(), f"something is still mounted below {home}"
    if home.exists():
        shutil.rmtree(home)
    _lock_of(home).unlink(missing_ok=True)


def tidy(name: str, root: Path) -> None:
    """Remove what systemd-nspawn leaves in /run: a folder unless that is a tmpfs, a lock if it was killed."""
    shutil.rmtree(TRACES / "propagate" / name, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        about = root.stat()
        os.unlink(TRACES / f"locks/inode-{about.st_dev}:{about.st_ino}")


def hierarchy() -> Path:
    """Return where cgroup v2 is mounted."""
    for top in CGROUPS:
        if (top / "cgroup.procs").exists() and (top / "cgroup.controllers").exists():
            return top
    places = " or ".join(map(str, CGROUPS))
    raise host.Missing(f"no cgroup v2 hierarchy at {places}: systemd cannot be booted here")


def own_cgroup(name: str) -> Path:
    """Make a cgroup for a machine: two that shared one would take each other's units for their own."""
    path = hierarchy() / name
    path.mkdir()
    return path


def into(cgroup: Path | None, argv: list[str]) -> list[str]:
    """Return an argv that moves itself into `cgroup` and becomes `argv`."""
    if cgroup is None:
        return argv
    return ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup), *argv]


def kill(cgroup: Path) -> None:
    """Kill all that is in a cgroup."""
    with contextlib.suppress(FileNotFoundError):
        (cgroup / "cgroup.kill").write_text("1")


def remove(cgroup: Path) -> None:
    """Remove a cgroup and those below it, whose processes have ended or are about to."""
    deadline = time.monotonic() + 10
    for directory, _, _ in os.walk(cgroup, topdown=False):
        while os.path.isdir(directory):
            try:
                os.rmdir(directory)
            except OSError:
                assert time.monotonic() < deadline, f"{directory} is still in use"
                time.sleep(0.02)


def inside(root: Path, script: str, *options: str) -> str:
    """Run a shell script in an unbooted root, without network, and return what it printed.

    options: systemd-nspawn's. Raises Missing where the script ends with another status than 0.
    """
    name = new_name()
    cgroup = own_cgroup(name)
    argv = ["systemd-nspawn", "-q", "-D", str(root), "-M", name, "--register=no", "--keep-unit"]
    argv += ["--private-network", "--resolv-conf=off", "--timezone=off", "--as-pid2", "--console=pipe"]
    try:
        return host.output(into(cgroup, [*argv, *options, "sh", "-c", script]))
    finally:
        kill(cgroup)
        remove(cgroup)
        tidy(name, root)
