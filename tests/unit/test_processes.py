"""What is read of one process, on a procfs made of plain files with names that want to be something else."""

import os
from pathlib import Path

import pytest

from agent.host.processes import (
    is_kernel_thread,
    parse_cgroup,
    read_pids,
    read_process,
    read_start,
    read_witness,
    shares_root,
    tty_name,
)
from agent.model.facts import Host

STAT = "{pid} ({comm}) S 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0 0 0\n"
ROOT = "25 1 254:0 {root} / rw - ext4 /dev/vda rw\n26 25 0:22 / /proc rw - proc proc rw\n"


def put(proc: Path, name: str, text: str) -> None:
    path = proc / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("comm", ["nginx", "a) R 1 (b", "x\n7 (y) S 1 1 1 0 -1 0 0 0", ")", ""])
def test_the_start_time_cannot_be_moved_by_a_name(tmp_path: Path, comm: str) -> None:
    put(tmp_path, "7/stat", STAT.format(pid=7, comm=comm, flags=0x400000, start=4711))
    put(tmp_path, "8/stat", STAT.format(pid=8, comm=comm, flags=0x208040, start=9))
    host = Host(proc=str(tmp_path))
    assert read_start(host, 7) == 4711
    assert is_kernel_thread(host, 8) and not is_kernel_thread(host, 7) and not is_kernel_thread(host, 9)


def test_a_process_without_a_start_is_gone(tmp_path: Path) -> None:
    put(tmp_path, "7/stat", "")
    for pid in (7, 8):
        with pytest.raises(OSError):
            read_start(Host(proc=str(tmp_path)), pid)


def test_pids_are_numbers_only(tmp_path: Path) -> None:
    for name in ("10", "9", "self", "1x", "sys", "²"):
        (tmp_path / name).mkdir()
    assert read_pids(Host(proc=str(tmp_path))) == [9, 10]


@pytest.mark.parametrize(
    ("text", "cgroup"),
    [
        ("0::/system.slice/nginx.service\n", "/system.slice/nginx.service"),
        ("9:name=systemd:/\n3:cpu,cpuacct:/\n0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("1:name=systemd:/system.slice/a.service\n0::/\n", "/system.slice/a.service"),
        ("1:name=systemd:/system.slice/a.service\n", "/system.slice/a.service"),
        ("0::/a:b::c\n", "/a:b::c"),
        ("0::/\n", "/"),
        ("", ""),
        ("0::/user.slice/u\x0b0::/system.slice/ssh.service\n", "/user.slice/u\x0b0::/system.slice/ssh.service"),
        ("0::/user.slice/\u2028 1:name=systemd:/x\n", "/user.slice/\u2028 1:name=systemd:/x"),
    ],
)
def test_the_cgroup_is_the_one_that_systemd_uses_whatever_its_name_holds(text: str, cgroup: str) -> None:
    assert parse_cgroup(text) == cgroup


def test_one_root_is_one_namespace_or_the_same_directory_of_the_same_file_system(tmp_path: Path) -> None:
    roots = {1: "/", 2: "/", 3: "/var/lib/machines/x", 4: "/", 5: "/"}
    for pid, root in roots.items():
        put(tmp_path, f"{pid}/mountinfo", ROOT.format(root=root))
        (tmp_path / f"{pid}/ns").mkdir()
        (tmp_path / f"{pid}/ns/mnt").symlink_to("mnt:[1]" if pid == 1 else f"mnt:[{pid}]")
    put(tmp_path, "4/mountinfo", "26 25 0:22 / /proc rw - proc proc rw\n")
    put(tmp_path, "5/mountinfo", "26 25 0:22 / /a\x0b25 1 254:0 / / rw - proc proc rw\n")
    put(tmp_path, "6/mountinfo", "")
    (tmp_path / "6/ns").mkdir()
    (tmp_path / "6/ns/mnt").symlink_to("mnt:[1]")
    host = Host(proc=str(tmp_path))
    assert [shares_root(host, pid, read_witness(host)) for pid in (2, 3, 4, 5, 6, 7)] == [
        True,
        False,
        False,
        False,
        True,
        False,
    ]


def test_a_process_is_read_as_the_kernel_shows_it() -> None:
    process = read_process(Host(), os.getpid())
    assert process is not None
    assert (process.pid, process.uid) == (os.getpid(), os.getuid())
    assert process.exe == os.readlink("/proc/self/exe")
    assert process.comm == Path("/proc/self/comm").read_text().rstrip("\n")
    assert process.start.tzinfo is not None
    assert read_process(Host(), 1 << 22) is None


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, ""), (0x8803, "pts/3"), (0x8900 | 5, "pts/261"), (0x401, "tty1"), (0x440, "ttyS0"), (0x0500, "")],
)
def test_terminals_have_the_names_that_people_know(number: int, name: str) -> None:
    assert tty_name(number) == name
