"""Where ld.so looks, in made-up roots, and against ld.so itself; and what a closure of objects is."""

import os
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agent.host.loader import closure
from agent.host.loader.closure import (
    MOST_LIBRARIES,
    Closure,
    begin,
    read_closure,
    read_library,
    read_mark,
    read_mkl_in,
    read_names,
)
from agent.host.loader.cpu import Cpu, levels, read_cpu
from agent.host.loader.dynamic import Dynamic, NotElf, read_dynamic
from agent.host.loader.linker import (
    DEFAULT,
    Loader,
    Scope,
    System,
    expand,
    follow,
    locate,
    open_regular,
    parse_cache,
    read_system,
    search,
    split_path,
)
from agent.model.errors import AgentError
from agent.model.facts import Host
from tests.unit.small_elf import ARM64, NARROW, cache, link, made
from tests.unit.small_root import put

NOTHING = System({}, ())
LIB = "/usr/lib/x86_64-linux-gnu"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "root").mkdir()
    return Host(str(tmp_path / "root"), str(tmp_path / "proc"))


def paths(loader: Loader, scope: Scope = Scope(), system: System = NOTHING) -> list[str]:
    return [path for path in search("liba.so", loader, scope, system) if path.rpartition("/")[0] not in DEFAULT]


# Directories in order


def test_what_stands_for_a_directory_is_expanded() -> None:
    assert expand("$ORIGIN/../lib:${ORIGIN}:/x/$LIB/:/p/${PLATFORM}", "/a/b") == (
        "/a/b/../lib",
        "/a/b",
        "/x/lib/x86_64-linux-gnu",
        "/p/x86_64",
    )
    assert expand("$ORIGINAL/x:relative::/ok", "/a") == ("/ok",)


def test_of_ld_library_path_only_full_directories_are_known() -> None:
    assert split_path("/a:/b;/c::.:rel:/d/") == ("/a", "/b", "/c", "/d")
    assert split_path("") == ()


def test_rpath_comes_before_ld_library_path_and_runpath_after_it() -> None:
    scope = Scope(("/env",))
    assert paths(Loader("/m.so", rpath="/r"), scope) == ["/r/liba.so", "/env/liba.so"]
    assert paths(Loader("/m.so", runpath="/r"), scope) == ["/env/liba.so", "/r/liba.so"]


def test_the_rpaths_of_those_that_loaded_it_count_but_their_runpaths_do_not() -> None:
    above = Loader("/bin/python", rpath="$ORIGIN/../lib")
    middle = Loader("/x/m.so", rpath="/m", parent=above)
    assert paths(Loader("/x/n.so", rpath="/n", parent=middle)) == ["/n/liba.so", "/m/liba.so", "/bin/../lib/liba.so"]
    silent = replace(middle, rpath="/ignored", runpath="/only-its-own")
    assert paths(Loader("/x/n.so", parent=silent)) == ["/bin/../lib/liba.so"]


def test_who_has_a_runpath_uses_no_rpath_at_all() -> None:
    above = Loader("/bin/python", rpath="/above")
    assert paths(Loader("/m.so", rpath="/mine", runpath="/run", parent=above)) == ["/run/liba.so"]


def test_the_cache_comes_before_the_default_directories() -> None:
    system = System({"liba.so": ("/opt/liba.so",)}, ("x86-64-v2",))
    found = list(search("liba.so", Loader("/m.so"), Scope(), system))
    assert found[:3] == [
        "/opt/liba.so",
        "/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v2/liba.so",
        f"{DEFAULT[0]}/liba.so",
    ]
    assert found[-1] == "/usr/lib/liba.so"


def test_a_name_with_a_slash_is_a_path() -> None:
    assert list(search("$ORIGIN/x/liba.so", Loader("/d/m.so"), Scope(("/env",)), NOTHING)) == ["/d/x/liba.so"]


def test_what_a_processor_can_do_decides_on_directories() -> None:
    v3 = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
    assert levels(Cpu("", frozenset(v3.split()))) == ("x86-64-v3", "x86-64-v2")
    assert levels(Cpu("", frozenset(v3.replace("popcnt", "").split()))) == ()
    assert levels(Cpu()) == ()


def test_the_processor_is_the_first_of_cpuinfo(host: Host) -> None:
    put(Host(host.proc), "/cpuinfo", b"vendor_id\t: GenuineIntel\nflags\t\t: sse4_2 avx2\n\nvendor_id\t: Other\n")
    assert read_cpu(host) == Cpu("GenuineIntel", frozenset({"sse4_2", "avx2"}))
    assert read_cpu(Host(host.root, "/nowhere")) == Cpu()


# The cache


def test_a_cache_names_paths_in_its_order() -> None:
    data = cache(("libb.so", "/2/libb.so"), ("liba.so", "/1/liba.so"), ("liba.so", "/0/liba.so"))
    assert parse_cache(data) == {"libb.so": ("/2/libb.so",), "liba.so": ("/1/liba.so", "/0/liba.so")}


def test_an_older_cache_may_precede_it() -> None:
    old = b"ld.so-1.7.0\0" + struct.pack("<I", 1) + bytes(12) + bytes(4)
    assert parse_cache(cache(("liba.so", "/1/liba.so"), old=old)) == {"liba.so": ("/1/liba.so",)}


def test_entries_for_other_processors_do_not_count() -> None:
    assert parse_cache(cache(("liba.so", "/1/liba.so"), flags=0x0003)) == {}
    better = ("liba.so", "/lib/glibc-hwcaps/x86-64-v3/liba.so")
    assert parse_cache(cache(better, special=1 << 62)) == {}
    assert parse_cache(cache(better, special=1 << 62), ("x86-64-v3",)) == {"liba.so": (better[1],)}


@pytest.mark.parametrize("size", [0, 10, 47, 60, 80])
def test_a_cache_that_was_cut_off_is_empty(size: int) -> None:
    assert parse_cache(cache(("liba.so", "/1/liba.so"))[:size]) == {}


def test_a_cache_that_lies_about_its_size_is_read_in_bounds() -> None:
    data = bytearray(cache(("liba.so", "/1/liba.so")))
    data[20:24] = b"\xff" * 4
    assert parse_cache(bytes(data)) in ({}, {"liba.so": ("/1/liba.so",)})


@pytest.mark.real
def test_the_cache_of_this_machine_is_what_ldconfig_prints() -> None:
    done = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
    rows = [line.strip().split(" => ") for line in done.stdout.splitlines() if "(libc6,x86-64)" in line]
    listed: dict[str, tuple[str, ...]] = {}
    for name, path in rows:
        listed[name.split(" ")[0]] = (*listed.get(name.split(" ")[0], ()), path)
    assert listed and dict(read_system(Host()).cache) == listed


# Links and traps


def test_links_are_followed_within_the_root(host: Host) -> None:
    put(host, "/opt/mkl/libmkl_rt.so.2", b"x")
    link(host, "/etc/alternatives/libblas.so.3-x86_64-linux-gnu", "/opt/latest/libmkl_rt.so.2")
    link(host, "/opt/latest", "mkl/../mkl")
    link(host, f"{LIB}/libblas.so.3", "/etc/alternatives/libblas.so.3-x86_64-linux-gnu")
    assert follow(host, f"{LIB}/libblas.so.3") == "/opt/mkl/libmkl_rt.so.2"
    assert follow(host, "/../../opt/./mkl//x/..") == "/opt/mkl"
    assert follow(host, "/") == "/"


def test_a_link_that_leads_out_of_the_root_stays_in_it(host: Host) -> None:
    link(host, "/a/out", "../../../../etc/passwd")
    assert follow(host, "/a/out") == "/etc/passwd"
    assert open_regular(host, "/etc/passwd") is None


def test_a_loop_of_links_is_nowhere(host: Host) -> None:
    link(host, "/a", "/b")
    link(host, "/b", "/a")
    assert follow(host, "/a/x") == ""


def test_only_regular_files_are_opened(host: Host, tmp_path: Path) -> None:
    os.mkfifo(host.under("/fifo"))
    (Path(host.root) / "directory").mkdir()
    link(host, "/link", "/file")
    put(host, "/file", b"x")
    for path in ("/fifo", "/directory", "/link", "/nowhere", "/file/below", "/bad\0name", "/" + "x" * 300):
        assert open_regular(host, path) is None
    assert open_regular(Host(), "/dev/null") is None
    fd = open_regular(host, "/file")
    assert fd is not None
    os.close(fd)


def test_a_link_put_in_the_place_of_a_file_meanwhile_is_not_followed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(host, "/secret", b"x")
    link(host, "/file", "secret")
    monkeypatch.setattr(os, "lstat", os.stat)
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(host, "/file")


def test_another_mkl_can_be_taken_to_lie_in_a_place(host: Host) -> None:
    put(host, "/opt/1/libmkl_rt.so.2", b"x")
    put(host, "/opt/2/libmkl_rt.so.2", b"y")
    link(host, "/opt/latest", "1")
    scope = Scope(instead={"/opt/1": "/opt/2"})
    assert locate(host, "/opt/latest/libmkl_rt.so.2", scope) == "/opt/2/libmkl_rt.so.2"
    assert locate(host, "/opt/latest/libmkl_core.so.2", scope) == "/opt/2/libmkl_core.so.2"
    assert locate(host, "/opt/latest/libother.so", scope) == "/opt/1/libother.so"


# Closures


def names(closure: Closure) -> list[str]:
    return [library.path for library in closure.libraries]


def test_a_closure_is_in_the_order_of_breadth(host: Host) -> None:
    put(host, "/m.so", made(needed=["liba.so", "libb.so", "libno.so"], runpath="/lib"))
    put(host, "/lib/liba.so", made(needed=["libc.so", "libb.so"]))
    put(host, "/lib/libb.so", made(needed=["libgone.so"]))
    put(host, "/usr/lib/libc.so", made())
    found = read_closure(begin(host), ["/m.so"], Scope())
    assert names(found) == ["/m.so", "/lib/liba.so", "/lib/libb.so", "/usr/lib/libc.so"]
    assert found.missing == (("libno.so", "/m.so"), ("libgone.so", "/lib/libb.so"))


def test_a_name_that_something_loaded_goes_by_is_not_searched_for(host: Host) -> None:
    put(host, "/m.so", made(needed=["libblas.so.3", "libmkl_rt.so"], runpath="/lib"))
    put(host, "/opt/libmkl_rt.so", made(soname="libmkl_rt.so"))
    link(host, "/lib/libblas.so.3", "/opt/libmkl_rt.so")
    found = read_closure(begin(host), ["/m.so"], Scope())
    assert names(found) == ["/m.so", "/lib/libblas.so.3"]
    assert found.libraries[1].real == "/opt/libmkl_rt.so"
    assert not found.missing


def test_one_file_by_two_names_is_loaded_once(host: Host) -> None:
    put(host, "/m.so", made(needed=["libblas.so.3", "liblapack.so.3"], runpath="/lib"))
    put(host, "/opt/libopen.so", made())
    for name in ("libblas.so.3", "liblapack.so.3"):
        link(host, f"/lib/{name}", "/opt/libopen.so")
    assert names(read_closure(begin(host), ["/m.so"], Scope())) == ["/m.so", "/lib/libblas.so.3"]


def test_who_is_loaded_by_an_rpath_passes_it_on(host: Host) -> None:
    put(host, "/site/m.so", made(needed=["liba.so"], rpath="$ORIGIN/lib"))
    put(host, "/site/lib/liba.so", made(needed=["libb.so"]))
    put(host, "/site/lib/libb.so", made())
    assert len(read_closure(begin(host), ["/site/m.so"], Scope()).libraries) == 3
    put(host, "/site/m.so", made(needed=["liba.so"], runpath="$ORIGIN/lib"))
    assert read_closure(begin(host), ["/site/m.so"], Scope()).missing == (("libb.so", "/site/lib/liba.so"),)


def test_a_library_for_another_processor_is_passed_over(host: Host) -> None:
    put(host, "/m.so", made(needed=["liba.so"]))
    put(host, "/lib/x86_64-linux-gnu/liba.so", NARROW)
    put(host, "/usr/lib/x86_64-linux-gnu/liba.so", made(machine=ARM64))
    put(host, "/usr/lib/liba.so", made())
    assert names(read_closure(begin(host), ["/m.so"], Scope())) == ["/m.so", "/usr/lib/liba.so"]
    assert read_closure(begin(host), ["/lib/x86_64-linux-gnu/liba.so"], Scope()) == Closure()


def test_rubbish_in_the_way_is_told_and_nothing_behind_it_is_looked_at(host: Host) -> None:
    put(host, "/m.so", made(needed=["liba.so"], runpath="/mine"))
    put(host, "/mine/liba.so", b"rubbish")
    put(host, "/usr/lib/liba.so", made())
    found = read_closure(begin(host), ["/m.so"], Scope())
    assert names(found) == ["/m.so"] and not found.missing
    assert found.broken == (("/mine/liba.so", "/mine/liba.so is no sound ELF file"),)


def test_a_fifo_in_the_way_holds_nobody_up(host: Host) -> None:
    put(host, "/m.so", made(needed=["liba.so"], runpath="/mine"))
    (Path(host.root) / "mine").mkdir()
    os.mkfifo(host.under("/mine/liba.so"))
    assert read_closure(begin(host), ["/m.so"], Scope()).missing == (("liba.so", "/m.so"),)


def test_libraries_without_end_come_to_one(host: Host) -> None:
    for number in range(600):
        put(host, f"/lib/lib{number}.so", made(needed=[f"lib{number + 1}.so"]))
    found = read_closure(begin(host), ["/lib/lib0.so"], Scope())
    assert len(found.libraries) == MOST_LIBRARIES + 1
    assert found.broken == (("/lib/lib0.so", "/lib/lib0.so needs more than 512 libraries"),)


def test_what_is_read_once_is_not_read_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    put(host, "/a.so", made(defined=["one"]))
    os.link(host.under("/a.so"), host.under("/b.so"))
    reading = begin(host)
    found = [read_library(reading, path, Scope()) for path in ("/a.so", "/b.so")]
    assert len(reading.dynamics) == 1
    assert [read_names(reading, library).defined for library in found if library] == [{"one"}] * 2
    assert len(reading.symbols) == 1
    put(host, "/a.so", made(defined=["two", "three"]))
    changed = read_library(reading, "/a.so", Scope())
    assert changed and read_names(reading, changed).defined == {"two", "three"}


def test_what_changes_between_two_looks_is_told(host: Host) -> None:
    put(host, "/a.so", made(defined=["one"]))
    reading = begin(host)
    library = read_library(reading, "/a.so", Scope())
    assert library
    put(host, "/a.so", made(defined=["one", "two"]))
    with pytest.raises(NotElf, match="/a.so changed while it was read"):
        read_names(reading, library)
    Path(host.under("/a.so")).unlink()
    with pytest.raises(NotElf, match="changed"):
        read_names(reading, library)


def test_what_changes_during_a_look_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    put(host, "/a.so", made())

    def read(descriptor: int) -> Dynamic:
        found = read_dynamic(descriptor)
        put(host, "/a.so", made(needed=["libother.so"]))
        return found

    monkeypatch.setattr(closure, "read_dynamic", read)
    found = read_closure(begin(host), ["/a.so"], Scope())
    assert found.broken == (("/a.so", "/a.so changed while it was read"),)


def test_not_all_names_are_kept_for_ever(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closure, "MOST_NAMES", 5)
    reading = begin(host)
    for number in range(4):
        put(host, f"/{number}.so", made(defined=[f"name{number}", "x", "y"]))
        library = read_library(reading, f"/{number}.so", Scope())
        assert library and f"name{number}" in read_names(reading, library).defined
    assert len(reading.symbols) == 1


def test_content_is_told_apart_by_build_id_or_else_by_its_bytes(host: Host) -> None:
    reading = begin(host)
    contents = {
        "/a.so": made(build_id=b"\1" * 20),
        "/b.so": made(build_id=b"\1" * 20, soname="other"),
        "/c.so": made(),
        "/d.so": made(),
        "/e.so": made(soname="x"),
    }
    marks = []
    for path, content in contents.items():
        put(host, path, content)
        library = read_library(reading, path, Scope())
        marks.append(read_mark(reading, library) if library else "")
    assert marks[0] == marks[1] == "01" * 20
    assert marks[2] == marks[3] != marks[4] and marks[2].startswith("sha256:")


def test_a_file_that_may_not_be_read_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    put(host, "/a.so", made())

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AgentError, match="/a.so cannot be read: Permission denied"):
        read_library(begin(host), "/a.so", Scope())


def test_libraries_of_arm_are_read_as_well(host: Host) -> None:
    put(host, "/a.so", made(machine=ARM64))
    library = read_library(begin(host), "/a.so", Scope())
    assert library and library.dynamic.machine == ARM64


def test_mkl_is_looked_for_where_intel_puts_its_releases(host: Host) -> None:
    put(host, "/opt/intel/oneapi/mkl/2026.0/lib/libmkl_rt.so.3", b"")
    link(host, "/opt/intel/oneapi/mkl/latest", "2026.0")
    put(host, "/mine/libmkl_core.so.2", b"")
    put(host, "/mine/libmkl_def.so.2", b"")
    assert read_mkl_in(begin(host), ["/mine", "/nowhere"]) == (
        "/mine/libmkl_core.so.2",
        "/opt/intel/oneapi/mkl/2026.0/lib/libmkl_rt.so.3",
    )


@pytest.mark.real
def test_it_finds_what_ld_so_finds_for_the_programs_here() -> None:
    reading = begin(Host())
    programs = sorted(path for path in Path("/usr/bin").iterdir() if path.is_file() and not path.is_symlink())
    compared = 0
    for path in programs[:: max(1, len(programs) // 60)]:
        if path.read_bytes()[:5] != b"\x7fELF\x02":
            continue
        done = subprocess.run(
            ["/lib64/ld-linux-x86-64.so.2", "--list", str(path)], capture_output=True, text=True, env={}, check=False
        )
        listed = [line.split(" => ")[1].split(" (")[0] for line in done.stdout.splitlines() if " => /" in line]
        found = read_closure(reading, [str(path)], Scope())
        ours = [item.path for item in found.libraries[1:] if "/ld-linux" not in item.path]
        assert ours == listed or done.returncode, path
        compared += not done.returncode
    assert compared > 10
