"""Which program an interpreter runs, and what that needs: a made-up /proc and dpkg database."""

import os
from pathlib import Path

import pytest

from agent.host import dependencies, interpreted
from agent.host.dependencies import read_imported, read_relations
from agent.host.interpreted import Interpreted, parse_commands, read_interpreted, read_scripts, script_of
from agent.host.shared_data import read_bundle, read_zone
from agent.model.facts import Host, PackageState
from tests.unit.small_root import booted, put

STATUS = """\
Package: demo
Status: install ok installed
Architecture: all
Source: demo-source (1.0)
Version: 1
Pre-Depends: init-system-helpers (>= 1.54~)
Depends: python3:any, part (>= 1) | other, virtual, gone
Description: a demo
 Depends: trap

Package: part
Status: install ok installed
Architecture: amd64
Version: 1
Provides: virtual (= 1), python3-part

Package: python3
Status: install ok installed
Architecture: amd64
Version: 3

Package: other
Status: deinstall ok config-files
Architecture: amd64
Version: 1
Provides: virtual
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return booted(tmp_path)


def start(host: Host, pid: int, exe: str, *words: str, there: bool = True) -> None:
    """Make a process of /proc whose executable is that file of the host."""
    if there and not os.path.exists(host.under(exe)):
        put(host, exe, exe)
    directory = Path(host.proc, str(pid))
    (directory / "fd").mkdir(parents=True)
    (directory / "exe").symlink_to(host.under(exe))
    (directory / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))


@pytest.mark.parametrize(
    ("exe", "language"),
    [
        ("/usr/bin/python3.11", "python"),
        ("/usr/bin/perl", "perl"),
        ("/usr/bin/perl5.36.0", "perl"),
        ("/usr/bin/ruby3.1", "ruby"),
        ("/usr/bin/php8.2", "php"),
        ("/usr/bin/node", "node"),
        ("/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "java"),
        ("/usr/lib/erlang/erts-13.1.5/bin/beam.smp", "erlang"),
        ("/usr/bin/dash", "shell"),
        ("/usr/bin/bash", "shell"),
        ("/bin/dash", "shell"),
        ("/usr/sbin/php-fpm8.2", ""),
        ("/home/u/usr/bin/python3", ""),
        ("/usr/local/bin/python3.12", ""),
        ("/mnt/dead/bin/perl", ""),
        ("/usr/sbin/nginx", ""),
        ("/usr/bin/python3-config", ""),
        ("/usr/bin/bashtop", ""),
    ],
)
def test_an_interpreter_is_known_by_its_name(host: Host, exe: str, language: str) -> None:
    start(host, 7, exe)
    assert read_interpreted(host) == ((Interpreted(7, exe, language),) if language else ())


def test_an_interpreter_that_is_not_the_file_at_its_path_is_nobodys_business(host: Host) -> None:
    """One that was replaced is found by its mapping; one of a container's, or behind a mount, is another file."""
    start(host, 7, "/usr/bin/perl")
    start(host, 8, "/usr/bin/ruby3.1 (deleted)", there=False)
    start(host, 9, "/usr/bin/node", there=False)
    Path(host.proc, "10").mkdir()
    os.symlink("/usr/bin/python3", f"{host.proc}/10/exe")
    Path(host.proc, "11").mkdir()
    assert [found.pid for found in read_interpreted(host)] == [7]


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (["/usr/bin/demod"], ("/usr/bin/demod",)),
        (["-I", "-Es", "/usr/bin/demod", "/etc/demo.conf"], ("/usr/bin/demod",)),
        (["-m", "demo", "/srv"], ()),
        (["-c", "print()"], ()),
        (["-Xmx1g", "-Dx=/y", "-jar", "/usr/share/java/demo.jar"], ("/usr/share/java/demo.jar",)),
        (["-cp", "/usr/share/java/a.jar:b.jar:/c.jar", "Main"], ("/usr/share/java/a.jar", "/c.jar")),
        (["demo.py", "/usr/bin/demod"], ()),
        (["", "/usr/bin/demod"], ("/usr/bin/demod",)),
        ([], ()),
    ],
)
def test_the_program_is_the_first_word_that_is_no_option(words: list[str], script: tuple[str, ...]) -> None:
    assert script_of(words) == script


def test_of_a_class_path_no_more_than_a_bounded_part_is_asked_about() -> None:
    assert len(script_of([":".join(f"/{number}" for number in range(5000))])) == interpreted.MOST_SCRIPTS


def test_what_a_process_runs_is_its_word_and_its_open_archives(host: Host) -> None:
    jar, gone = "/usr/share/java/lib.jar", "/usr/share/java/old.jar (deleted)"
    start(host, 7, "/usr/bin/java", "java", "-jar", f"{host.root}/usr/share/demo/../demo/demo.jar")
    for number, link in enumerate((host.under(jar), host.under(gone), "/elsewhere/x.jar", "socket:[1]", "/etc/passwd")):
        os.symlink(link, f"{host.proc}/7/fd/{number}")
    assert sorted(read_scripts(host, 7)) == ["/usr/share/demo/demo.jar", jar, "/usr/share/java/old.jar"]
    assert read_scripts(host, 8) == ()


def test_no_more_of_a_process_is_read_than_has_a_bound(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    start(host, 7, "/usr/bin/java", "java", "-" + "x" * interpreted.LONGEST_COMMAND, f"{host.root}/usr/bin/demod")
    assert read_scripts(host, 7) == ()
    monkeypatch.setattr(interpreted, "MOST_DESCRIPTORS", 3)
    for number in range(9):
        os.symlink(host.under(f"/{number}.jar"), f"{host.proc}/7/fd/{number}")
    assert len(read_scripts(host, 7)) == 3


def test_systemds_own_words_are_read_unit_by_unit() -> None:
    text = """\
ExecStart={ path=/usr/bin/python3 ; argv[]=/usr/bin/python3 -Es /usr/share/demo/demo.py -x ; ignore_errors=no ; \
start_time=[Sun 2026-11-22 12:00:00 UTC] ; stop_time=[n/a] ; pid=7 ; code=(null) ; status=0/0 }
Id=demo.service

ExecStart={ path=/usr/bin/fail2ban-server ; argv[]=/usr/bin/fail2ban-server -xf start ; ignore_errors=no ; pid=8 }
Id=fail2ban.service

ExecStart={ path=/bin/sh ; argv[]=/bin/sh -c echo

Id=forged.service
ExecStart={ path=/usr/bin/x ; argv[]=/usr/bin/x ; ignore_errors=no ; pid=9 } ; ignore_errors=no ; pid=9 }
Id=odd.service

Id=dev-sda.device
"""
    found = parse_commands(text)
    assert found == {
        "demo.service": ("/usr/bin/python3", "/usr/share/demo/demo.py"),
        "fail2ban.service": ("/usr/bin/fail2ban-server",),
    }


def test_without_this_machines_systemd_nothing_is_asked(host: Host) -> None:
    assert interpreted.read_commands(host, ["demo.service"]) == {}
    assert interpreted.read_commands(Host(), []) == {}


# Packages


def test_dependencies_are_those_that_are_installed_alternatives_and_virtual_ones_too(host: Host) -> None:
    put(host, "/var/lib/dpkg/status", STATUS)
    found = read_relations(host, {"demo", "part", "python3"})
    assert found.needs == {"demo": {"python3", "part"}, "part": frozenset(), "python3": frozenset()}
    assert found.source == {"demo": "demo-source", "part": "part", "python3": "python3"}


@pytest.mark.parametrize(
    ("language", "path"),
    [
        ("python", "/usr/lib/python3/dist-packages/part/__init__.py"),
        ("python", "/usr/lib/python3.11/json/decoder.py"),
        ("perl", "/usr/share/perl5/Part.pm"),
        ("perl", "/usr/lib/x86_64-linux-gnu/perl-base/POSIX.pm"),
        ("ruby", "/usr/share/rubygems-integration/all/gems/x-1/lib/x.rb"),
        ("ruby", "/usr/lib/ruby/vendor_ruby/x.rb"),
        ("php", "/usr/share/php/Part/autoload.php"),
        ("node", "/usr/share/nodejs/part/index.js"),
        ("java", "/usr/share/java/part.jar"),
    ],
)
def test_a_file_that_programs_import_is_found_in_a_packages_list(host: Host, language: str, path: str) -> None:
    put(host, "/var/lib/dpkg/info/part:amd64.list", f"/.\n/usr\n/usr/share/doc/part/x.py\n{path}\n/usr/z\n")
    state = PackageState("part", "amd64", "1", "installed", "1-1")
    assert read_imported(host, state, language) == path
    assert [name for name in dependencies.IMPORTED if read_imported(host, state, name)] == [language]


@pytest.mark.parametrize(
    "path",
    [
        "/usr/share/gcc/python/libstdcxx/v6/printers.py",
        "/usr/share/gdb/auto-load/usr/lib/libglib-2.0.so.0-gdb.py",
        "/usr/share/doc/part/examples/a.py",
        "/usr/share/python3/runtime.d/x.rtupdate",
        "/usr/lib/x86_64-linux-gnu/libpart.so.1",
    ],
)
def test_scripts_of_debuggers_and_examples_are_no_modules(host: Host, path: str) -> None:
    put(host, "/var/lib/dpkg/info/part.list", f"/.\n{path}\n")
    state = PackageState("part", "all", "1", "installed", "1-1")
    assert not any(read_imported(host, state, language) for language in (*dependencies.IMPORTED, "shell"))


# Data


def test_the_zone_of_the_host_is_where_its_link_leads(host: Host) -> None:
    assert read_zone(host) == ""
    os.makedirs(host.under("/etc"))
    os.symlink("/usr/share/zoneinfo/Europe/Berlin", host.under("/etc/localtime"))
    assert read_zone(host) == "Europe/Berlin"


def test_the_bundle_is_told_by_its_content(host: Host) -> None:
    assert read_bundle(host) is None
    path = "/etc/ssl/certs/ca-certificates.crt"
    put(host, path, "one")
    first = read_bundle(host)
    put(host, path, "two")
    second = read_bundle(host)
    put(host, path, "one")
    assert first and second and (again := read_bundle(host))
    assert first.digest == again.digest != second.digest
    assert abs(first.written.timestamp() - os.stat(host.under(path)).st_mtime) < 60
