"""Which processes there are, and what the kernel says of one. Never reads an environment or a command line.

psutil gives start and owner. What it would do for the executable's name is not wanted here: it stats the path
that a process claims to run, which may lie on a mount that hangs.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import psutil

from agent.model.facts import Host, Process

DELETED = " (deleted)"
MOST_BYTES = 64 << 10
MOST_MOUNTS = 1_000
"""That are gone through for the one that is the root, which is among the first."""
MANAGER = 1
OTHERS = "others"
KERNEL_THREAD = 0x200000
"""PF_KTHREAD in linux/sched.h."""


def read_pids(host: Host) -> list[int]:
    """Return the process ids that there are, ascending."""
    return sorted(int(name) for name in os.listdir(host.proc) if name.isdecimal())


def read_start(host: Host, pid: int) -> int:
    """Return when `pid` started, in clock ticks since boot: both together name one process and no later one.

    Raises OSError.
    """
    return int(_read_stat(host, pid)[19])


def read_other_thread(host: Host, pid: int) -> int:
    """Return a thread of the process `pid` beside its main one; 0 where there is none."""
    directory = f"{host.proc}/{pid}/task"
    try:
        alone = os.stat(directory).st_nlink <= 3
        return 0 if alone else next((int(name) for name in sorted(os.listdir(directory)) if name != str(pid)), 0)
    except OSError:
        return 0


def is_kernel_thread(host: Host, pid: int) -> bool:
    """Return whether `pid` is a thread of the kernel's own; False where it is gone."""
    try:
        return bool(int(_read_stat(host, pid)[6]) & KERNEL_THREAD)
    except OSError:
        return False


def _read_stat(host: Host, pid: int) -> list[bytes]:
    """Return the fields of proc(5) `stat` after the name, foreign text that ends at the last parenthesis."""
    text = _read(f"{host.proc}/{pid}/stat")
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        raise ProcessLookupError(pid)
    return fields


def read_process(host: Host, pid: int) -> Process | None:
    """Return what the kernel says of `pid`; None where it is gone, or will not say it to us."""
    psutil.PROCFS_PATH = host.proc
    directory = f"{host.proc}/{pid}"
    try:
        process = psutil.Process(pid)
        return Process(
            pid=pid,
            start=datetime.fromtimestamp(process.create_time(), UTC),
            uid=process.uids().real,
            exe=_read_link(f"{directory}/exe").removesuffix(DELETED),
            comm=os.fsdecode(_read(f"{directory}/comm")).removesuffix("\n"),
            cgroup=read_cgroup(host, pid),
            tty=tty_name(int(_read_stat(host, pid)[4])),
            user=read_users(host).get(process.uids().real, ""),
        )
    except (psutil.Error, OSError):
        return None


def tty_name(number: int) -> str:
    """Return what a terminal is called below /dev, from `tty_nr` of proc(5); empty for none that people sit at."""
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
    if 136 <= major <= 143:
        return f"pts/{minor + (major - 136 << 8)}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return ""


def read_users(host: Host) -> dict[int, str]:
    """Return the names of local users by id; those that a directory service knows are not asked for."""
    try:
        rows = os.fsdecode(_read(host.under("/etc/passwd"))).split("\n")
    except OSError:
        return {}
    fields = (row.split(":") for row in rows)
    return {int(field[2]): field[0] for field in fields if len(field) > 2 and field[2].isdecimal()}


def read_crowd(host: Host, pid: int) -> str:
    """Return those whom `pid` is one of: the processes of root's, or of all others, in one unit or of one login user.

    However many processes, users and control groups somebody may make for himself, he stays in his crowd. Empty
    where it is gone.
    """
    process = read_process(host, pid)
    if process is None:
        return ""
    place = "/".join(process.cgroup.split("/")[:3])
    return f"{place} {'root' if process.uid == 0 else OTHERS}"


def read_cgroup(host: Host, pid: int) -> str:
    """Return the cgroup of `pid`, see `parse_cgroup`. Raises OSError."""
    return parse_cgroup(os.fsdecode(_read(f"{host.proc}/{pid}/cgroup")))


def parse_cgroup(text: str) -> str:
    """Return the cgroup by which systemd knows a process, from `/proc/PID/cgroup`: unified, else named.

    Under a unified hierarchy the legacy ones, where the kernel has any, all say `/`. Only a newline ends a
    row: whoever may make cgroups may put any other separator of `splitlines` into their names.
    """
    rows = [line.split(":", 2) for line in text.split("\n") if line.count(":") >= 2]
    named = {controllers: path for _, controllers, path in rows}
    unified = named.get("", "")
    return unified if unified not in ("", "/") else named.get("name=systemd", unified)


@dataclass(frozen=True, slots=True)
class View:
    """Which files the paths of a process mean: its mount namespace, and (device, directory there) of its root.

    Empty and None: it cannot be seen.
    """

    namespace: str
    root: tuple[str, str] | None


def read_witness(host: Host) -> View:
    """Return the host's own view of files: that of PID 1, or ours where we may not ask about it."""
    if namespace := _read_namespace(host, MANAGER):
        return View(namespace, _read_root_mount(host, MANAGER))
    return View(_read_namespace(host, os.getpid()), _read_root_mount(host, os.getpid()))


def shares_root(host: Host, pid: int, witness: View) -> bool:
    """Return whether a path that the kernel shows for `pid` means the same file as for the `witness`.

    So it is in one mount namespace (whatever the process was chrooted to), or where both have the same
    directory of the same file system as their root: a sandboxed service, but no container. False where that
    cannot be seen.
    """
    if witness.namespace and _read_namespace(host, pid) == witness.namespace:
        return True
    return witness.root is not None and _read_root_mount(host, pid) == witness.root


def _read_namespace(host: Host, pid: int) -> str:
    try:
        return _read_link(f"{host.proc}/{pid}/ns/mnt")
    except OSError:
        return ""


def _read_root_mount(host: Host, pid: int) -> tuple[str, str] | None:
    """Return (device, directory in its file system) of the mount that `pid` has as its root; None: none."""
    try:
        with open(f"{host.proc}/{pid}/mountinfo", "rb") as mounts:
            rows = (line.split(b" ", 5) for line in islice(mounts, MOST_MOUNTS))
            found = next((row for row in rows if len(row) > 5 and row[4] == b"/"), None)
    except OSError:
        return None
    return (os.fsdecode(found[2]), os.fsdecode(found[3])) if found else None


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except PermissionError:
        return ""


def _read(path: str) -> bytes:
    """Return the beginning of a file of procfs, which hands out at most a page or so at a time."""
    with open(path, "rb", buffering=0) as file:
        whole = b""
        while len(whole) < MOST_BYTES and (chunk := file.read(MOST_BYTES - len(whole))):
            whole += chunk
    return whole
