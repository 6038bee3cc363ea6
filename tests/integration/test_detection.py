"""Detection on the real kernel: real libraries, mapped by real processes, replaced as dpkg replaces them."""

import fcntl
import os
import subprocess
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.checks import libraries
from agent.host import mappings, processes
from agent.host.inodes import identify
from agent.host.mappings import QUERY, TEXT, Engine, TooMany, Unseen, Why, calibrate, choose_engine, read_ids, scan
from agent.model.facts import Host, Mapped, Retired
from agent.model.findings import Confidence, Request, Severity
from tests.integration.herd import (
    IN_A_NAMESPACE_OF_HIS_OWN,
    LIBRARY,
    NEW,
    OLD,
    OTHER,
    PROGRAM,
    WITH_BOTH,
    Root,
    evidence,
    files,
    holding,
    stale_pids,
)

HERE = Host()


# Both engines


def test_this_kernel_has_the_fast_engine_or_the_text_engine_is_chosen() -> None:
    with open("/proc/self/maps", "rb") as maps:
        try:
            fcntl.ioctl(maps, mappings.PROCMAP_QUERY, bytearray(mappings.QUERY_SIZE))
            known = True
        except OSError as problem:
            known = problem.errno != 25
    assert choose_engine(HERE).name == ("query" if known else "text")


def test_both_engines_see_the_same_in_every_process(place: Path) -> None:
    odd = [b"plain", b"with space", b"new\nline", b"caf\xe9 \xff", b"a (deleted)", b"x r-xp 00000000 08:01 4711 y"]
    paths = [os.fsencode(place) + b"/" + name for name in odd]
    for path in paths:
        Path(os.fsdecode(path)).write_bytes(OLD.read_bytes())
    memory = "fd = os.memfd_create('jit'); os.truncate(fd, 8192); held.append(mmap.mmap(fd, 8192, 1, 7))"
    anonymous = "held.append(mmap.mmap(-1, 8192, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7))"
    with holding(*paths, code=f"{memory}\n{anonymous}") as pid, holding(OTHER, argv=IN_A_NAMESPACE_OF_HIS_OWN) as other:
        for path in paths[:3]:
            os.unlink(path)
        ids = read_ids(HERE, pid, QUERY, 9999)
        inodes = {inode for _, inode in ids}
        assert {os.stat(path).st_ino for path in paths[3:]} < inodes
        assert 4711 not in inodes
        assert ids == read_ids(HERE, pid, TEXT, 9999)
        assert read_ids(HERE, other, QUERY, 9999) == read_ids(HERE, other, TEXT, 9999)
        assert len({pid, other} & set(processes.read_pids(HERE))) == 2
    for found in processes.read_pids(HERE):
        assert agree(found), f"process {found}"


def agree(pid: int) -> bool:
    """Processes of others move while they are read: they get a few tries."""
    for _ in range(5):
        try:
            if read_ids(HERE, pid, QUERY, 9999) == read_ids(HERE, pid, TEXT, 9999):
                return True
        except OSError:
            return True
    return False


@WITH_BOTH
def test_a_vanished_process_is_neither_found_nor_missed(engine: Engine) -> None:
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    assert list(scan(HERE, [child.pid], lambda read: frozenset({(1, 1)}), engine, 9999)) == []


@WITH_BOTH
def test_kernel_threads_and_zombies_have_no_mappings(engine: Engine) -> None:
    child = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert read_ids(HERE, child.pid, engine, 9999) == frozenset()
    threads = [pid for pid in processes.read_pids(HERE) if processes.is_kernel_thread(HERE, pid)]
    assert list(scan(HERE, threads, lambda read: frozenset((0, len(key)) for key in read), engine, 9999)) == []
    assert os.getpid() not in threads
    child.wait()


@WITH_BOTH
def test_reading_stops_at_the_limit_and_says_so(engine: Engine) -> None:
    with holding(code="for _ in range(400): hold('/bin/true'); held.append(mmap.mmap(-1, 4096))") as pid:
        with pytest.raises(TooMany):
            read_ids(HERE, pid, engine, 50)
        assert list(scan(HERE, [pid], lambda read: frozenset(), engine, 50)) == [Unseen(pid, Why.MANY)]
        assert list(scan(HERE, [pid], lambda read: frozenset({(0, 1)}), engine, 9999)) == [
            Mapped(pid, frozenset({(0, 1)}))
        ]


def test_the_device_in_maps_is_learnt_for_each_file_system(place: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        paths = [place / "a", Path(memory) / "b"]
        for path in paths:
            path.write_bytes(OLD.read_bytes())
        wanted = {path.stat().st_dev for path in paths}
        devices = calibrate(HERE, [str(place), "/dev/null", *map(str, paths)], wanted)
        with holding(*paths) as pid:
            shown = read_ids(HERE, pid, TEXT, 9999)
        for path in paths:
            assert (devices[path.stat().st_dev], path.stat().st_ino) in shown
        assert calibrate(HERE, map(str, paths), {paths[1].stat().st_dev}).keys() == {paths[1].stat().st_dev}


# What is stale


@WITH_BOTH
def test_with_history_a_replaced_library_is_certainly_stale(root: Root, on_engine: None, engine: Engine) -> None:
    with holding(root.at(LIBRARY)) as pid, holding(OTHER) as bystander:
        retired = root.upgrade()
        result = root.check(retired)
        finding = stale_pids(result)[pid]
        assert bystander not in stale_pids(result)
        assert files(result, pid) == [(LIBRARY, "libdemo", "1.0", "1.1")]
        assert evidence(finding).confidence is Confidence.CERTAIN
        assert finding.summary == "1 process still runs libdemo 1.0, replaced by 1.1"
        assert finding.subject == os.readlink(f"/proc/{pid}/exe")
        assert result.mapped == retired and result.learnt == ()
        assert result.detail["engine"] == engine.name and result.detail["processes"] > 2
    assert root.check(retired).mapped == ()


@WITH_BOTH
def test_without_history_it_is_likely_and_what_runs_is_unknown(root: Root, on_engine: None, engine: Engine) -> None:
    with holding(root.at(LIBRARY), OTHER) as pid:
        root.upgrade()
        result = root.check(None)
        assert files(result, pid) == [(LIBRARY, "libdemo", None, "1.1")]
        assert evidence(stale_pids(result)[pid]).confidence is Confidence.LIKELY
        assert stale_pids(result)[pid].severity is Severity.INFO
        (learnt,) = result.learnt
        assert (learnt.path, learnt.version, learnt.transaction) == (LIBRARY, None, 0) and learnt.id.born
        again = root.check(result.learnt)
        assert evidence(stale_pids(again)[pid]).confidence is Confidence.LIKELY
        assert again.mapped == result.learnt and again.learnt == ()


def test_every_replaced_file_is_listed_the_program_itself_too(root: Root) -> None:
    second = "/usr/lib/demo/plugin.node"
    root.install("demo", "2-1", {PROGRAM: Path("/usr/bin/python3").resolve(), second: OTHER})
    before = root.index()
    with holding(root.at(LIBRARY), root.at(second), executable=str(root.at(PROGRAM))) as pid:
        root.upgrade()
        root.install("demo", "2-2", {PROGRAM: Path("/bin/sh").resolve(), second: OLD})
        result = root.check(root.retire(before))
        assert [path for path, *_ in files(result, pid)] == [second, LIBRARY, PROGRAM]
        assert stale_pids(result)[pid].subject == str(root.at(PROGRAM))
        assert stale_pids(result)[pid].summary == "1 process still runs demo 2-1, replaced by 2-2 and 1 other package"
        assert [path for path, *_ in files(root.check(None), pid)] == [second, LIBRARY, PROGRAM]


@pytest.mark.parametrize("known", [True, False], ids=["with history", "without"])
def test_a_file_replaced_by_the_same_bytes_is_identical_and_not_stale(root: Root, known: bool) -> None:
    before = root.index()
    with holding(root.at(LIBRARY)) as pid:
        root.install("libdemo", "1.0", {LIBRARY: OLD})
        retired = root.retire(before)
        assert retired
        result = root.check(retired if known else None)
        assert stale_pids(result) == {}
        assert result.detail["identical"] == {os.readlink(f"/proc/{pid}/exe"): [LIBRARY]}
        assert [item.id for item in (result.mapped if known else result.learnt)] == [item.id for item in retired]
        root.upgrade()
        assert files(root.check(retired), pid) == [(LIBRARY, "libdemo", "1.0", "1.1")]


def test_the_same_build_id_is_identical_and_without_one_the_bytes_decide(root: Root, place: Path) -> None:
    stripped, scripts = place / "stripped", [place / "a", place / "b"]
    stripped.write_bytes(OLD.read_bytes() + b"another section")
    for path, text in zip(scripts, (b"x" * 5000, b"x" * 4999 + b"y"), strict=True):
        path.write_bytes(text)
    table = "/usr/lib/demo/table"
    root.install("demo", "1", {table: scripts[0]})
    before = root.index()
    with holding(root.at(LIBRARY)) as pid, holding(root.at(table)) as other:
        root.install("libdemo", "1.0+b1", {LIBRARY: stripped})
        root.install("demo", "2", {table: scripts[1]})
        result = root.check(root.retire(before))
        assert stale_pids(result).keys() == {other} and pid != other
        assert result.detail["identical"][os.readlink(f"/proc/{pid}/exe")] == [LIBRARY]


def test_a_removed_package_has_no_installed_version(root: Root) -> None:
    before = root.index()
    with holding(root.at(LIBRARY)) as pid:
        root.remove("libdemo")
        result = root.check(root.retire(before))
        assert files(result, pid) == [(LIBRARY, "libdemo", "1.0", None)]
        assert stale_pids(result)[pid].summary.endswith("libdemo 1.0, removed since")


def test_fresh_processes_and_files_of_nobody_are_never_stale(root: Root, place: Path) -> None:
    own = place / "libdemo.so.1 (deleted)"
    own.write_bytes(OLD.read_bytes())
    gone = place / "gone.so"
    gone.write_bytes(OLD.read_bytes())
    replaced = root.upgrade()
    memory = "fd = os.memfd_create('libdemo.so.1'); os.truncate(fd, 4096); held.append(mmap.mmap(fd, 4096, 1, 7))"
    with holding(root.at(LIBRARY), own, gone, code=memory):
        gone.unlink()
        for retired in (replaced, None):
            result = root.check(retired)
            assert stale_pids(result) == {} and result.detail["identical"] == {}
            assert result.mapped == result.learnt == ()


def test_an_inode_number_that_went_to_another_file_proves_nothing(root: Root) -> None:
    root.install("demo", "1", {PROGRAM: OTHER})
    id = identify(str(root.at(PROGRAM)))
    assert id
    reused = Retired(LIBRARY, "libdemo", "0.9", replace(id, born=id.born - 1), 1)
    with holding(root.at(PROGRAM)) as pid:
        assert stale_pids(root.check([reused])) == {} and root.check([reused]).mapped == ()
        assert pid in stale_pids(root.check([replace(reused, id=id)]))
        unknown = root.check([replace(reused, id=replace(id, born=0))])
        assert evidence(stale_pids(unknown)[pid]).confidence is Confidence.LIKELY


def test_names_that_are_no_text_are_told_as_they_are(root: Root, place: Path) -> None:
    name = os.fsdecode(b"/usr/lib/d\xe9mo/a b\xff.so")
    root.install("demo", "1", {name: OLD})
    before = root.index()
    with holding(root.at(name)) as pid:
        root.install("demo", "2", {name: NEW})
        for retired in (root.retire(before), None):
            assert [path for path, *_ in files(root.check(retired), pid)] == [name]


# Whose file it is


def test_a_sandboxed_service_and_a_chroot_are_seen_without_history(root: Root) -> None:
    chroot = f"os.chroot({str(root.path)!r})"
    with (
        holding(root.at(LIBRARY), argv=["unshare", "-m"]) as sandboxed,
        holding(root.at(LIBRARY), code=chroot) as jailed,
    ):
        root.upgrade()
        assert stale_pids(root.check(None)).keys() == {sandboxed, jailed}


def test_a_container_on_the_same_file_system_is_not_the_host(root: Root, place: Path) -> None:
    """Its library has the host's device and the host's name in maps, and was replaced: by its own dpkg."""
    name = OLD.resolve()
    inside = place / "container"
    library = inside / str(name).lstrip("/")
    library.parent.mkdir(parents=True)
    library.write_bytes(NEW.read_bytes())
    enter = f"""
import ctypes
libc = ctypes.CDLL(None)
assert libc.mount({str(inside)!r}.encode(), {str(inside)!r}.encode(), None, 4096 | 16384, None) == 0
os.chdir({str(inside)!r})
assert libc.syscall({PIVOT_ROOT}, b'.', b'.') == 0 and libc.umount2(b'.', 2) == 0
hold({str(name)!r})
os.unlink({str(name)!r})
"""
    with holding(code=enter, argv=["unshare", "-m"]) as pid:
        assert f" {name} (deleted)" in Path(f"/proc/{pid}/maps").read_text()
        host = Host()
        result = libraries.run(host, Request("libraries", datetime.now(UTC)))
        assert pid not in stale_pids(result)
        assert not processes.shares_root(host, pid, processes.read_witness(host))


PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, 155)
