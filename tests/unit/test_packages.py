"""Which files the index holds, and whose they are, on small roots with a dpkg database."""

import os
from pathlib import Path

import pytest

from agent.host.inodes import EARLIEST, identify, read_inode
from agent.host.packages import canonical, code_paths, may_hold_code, read_index, read_owners, within
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, PackageState


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A merged-/usr root: /lib and /bin are links, /sbin is a directory."""
    for directory in ("usr/lib", "usr/bin", "sbin", "var/lib/dpkg/info", "opt/demo"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "bin").symlink_to("/usr/bin")
    return Host(root=str(tmp_path))


def package(name: str, arch: str = "amd64", version: str = "1") -> PackageState:
    return PackageState(name, arch, version, "installed", "")


def listed(host: Host, name: str, *paths: str) -> None:
    text = "\n".join(["/.", *paths, ""])
    Path(host.under(f"/var/lib/dpkg/info/{name}.list")).write_bytes(os.fsencode(text))


def diverted(host: Host, *rows: tuple[str, str, str]) -> None:
    text = "".join(f"{line}\n" for row in rows for line in row)
    Path(host.under("/var/lib/dpkg/diversions")).write_text(text)


def put(host: Host, path: str) -> None:
    place = Path(host.under(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(os.fsencode(path))


@pytest.mark.parametrize(
    "path",
    [
        "/usr/lib/x86_64-linux-gnu/libssl.so.3",
        "/usr/lib/x86_64-linux-gnu/libperl.so.5.36",
        "/usr/lib/postgresql/15/bin/postgres",
        "/usr/lib/node_modules/foo/build/foo.node",
        "/usr/lib/jvm/java-17-openjdk-amd64/bin/java",
        "/usr/bin/perl5.36.0",
        "/usr/bin/python3.11",
        "/usr/sbin/mkfs.ext4",
        "/usr/share/code/code",
        "/opt/vendor/daemon",
        "/usr/lib/python3/dist-packages/numpy/core/_multiarray.cpython-311-x86_64-linux-gnu.so",
        "/usr/lib/mono/4.5/mscorlib.dll",
    ],
)
def test_what_processes_may_execute_is_in_the_index(path: str) -> None:
    assert may_hold_code(path)


@pytest.mark.parametrize(
    "path",
    [
        "/usr/share/doc/libssl3/changelog.Debian.gz",
        "/usr/share/man/man1/ls.1.gz",
        "/usr/share/locale/de/LC_MESSAGES/x.mo",
        "/usr/include/zlib.h",
        "/usr/lib/python3/dist-packages/x.py",
        "/usr/lib/x86_64-linux-gnu/libz.a",
        "/usr/lib/modules/6.1.0-18-amd64/kernel/fs/ext4/ext4.ko",
        "/boot/vmlinuz-6.1.0-18-amd64",
        "/etc/nginx/mime.types",
        "/usr/lib/systemd/system/nginx.service",
    ],
)
def test_data_is_not(path: str) -> None:
    assert not may_hold_code(path)


def test_every_executable_mapping_of_this_very_process_may_hold_code() -> None:
    rows = (row.split(maxsplit=5) for row in Path("/proc/self/maps").read_text().splitlines())
    mapped = {row[5] for row in rows if len(row) > 5 and row[1][2] == "x" and row[5].startswith("/usr/")}
    assert mapped and all(may_hold_code(path) for path in mapped)


def test_merged_usr_is_resolved_where_the_root_really_has_the_link(host: Host) -> None:
    assert canonical(host, "/lib/x/liba.so") == "/usr/lib/x/liba.so"
    assert canonical(host, "/bin/sh") == "/usr/bin/sh"
    assert canonical(host, "/sbin/init") == "/sbin/init"
    assert canonical(host, "/lib") == "/lib"
    assert canonical(host, "/library/x") == "/library/x"
    Path(host.under("/lib64")).symlink_to("/opt/demo")
    assert canonical(host, "/lib64/ld.so") == "/lib64/ld.so"


def test_a_path_is_inside_the_host_only_below_its_root() -> None:
    assert within(Host(), "/usr/bin/x") == "/usr/bin/x"
    assert within(Host(root="/srv/a"), "/srv/a/usr/bin/x") == "/usr/bin/x"
    assert within(Host(root="/srv/a"), "/srv/ab/usr/bin/x") is None


def test_the_index_holds_regular_files_with_their_package_and_version(host: Host) -> None:
    listed(host, "demo:amd64", "/lib", "/lib/liba.so.1", "/lib/liba.so", "/usr/lib/gone.so", "/usr/share/doc/demo/x")
    put(host, "/usr/lib/liba.so.1")
    put(host, "/usr/share/doc/demo/x")
    Path(host.under("/usr/lib/liba.so")).symlink_to("liba.so.1")
    (item,) = read_index(host, [package("demo", version="1:2.3-4"), package("unknown")])
    assert (item.path, item.package, item.version) == ("/usr/lib/liba.so.1", "demo", "1:2.3-4")
    found = os.stat(host.under("/usr/lib/liba.so.1"))
    assert (item.id.device, item.id.inode) == (found.st_dev, found.st_ino) and item.id.born > EARLIEST


def test_names_of_any_bytes_survive(host: Host) -> None:
    name = os.fsdecode(b"/opt/demo/caf\xe9 \x85x")
    listed(host, "demo", "/opt", "/opt/demo", name)
    put(host, name)
    assert [item.path for item in read_index(host, [package("demo")])] == [name]


def test_diversions_move_the_file_of_everybody_else(host: Host) -> None:
    diverted(
        host, ("/usr/bin/pager", "/usr/bin/pager.real", "wrapper"), ("/usr/bin/tool", "/usr/bin/tool.distrib", ":")
    )
    listed(host, "less", "/usr/bin/pager")
    listed(host, "wrapper", "/usr/bin/pager")
    listed(host, "tools", "/usr/bin/tool")
    both = [package("less"), package("wrapper"), package("tools")]
    assert [(path, owner.name) for path, owner in code_paths(host, both)] == [
        ("/usr/bin/pager.real", "less"),
        ("/usr/bin/pager", "wrapper"),
        ("/usr/bin/tool.distrib", "tools"),
    ]
    asked = ["/usr/bin/pager", "/usr/bin/pager.real", "/usr/bin/tool", "/usr/bin/tool.distrib"]
    assert read_owners(host, asked) == {
        "/usr/bin/pager": "wrapper",
        "/usr/bin/pager.real": "less",
        "/usr/bin/tool.distrib": "tools",
    }


def test_owners_are_found_by_any_spelling(host: Host) -> None:
    listed(host, "init", "/lib/systemd/systemd", "/usr/lib/systemd/new")
    listed(host, "libc6:amd64", "/usr/lib/libc.so.6")
    asked = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/lib/systemd/new", "/lib/libc.so.6", "/usr/lib/libc"]
    assert read_owners(host, asked) == {
        "/usr/lib/systemd/systemd": "init",
        "/lib/systemd/systemd": "init",
        "/lib/systemd/new": "init",
        "/lib/libc.so.6": "libc6",
    }
    assert read_owners(host, []) == {}


def test_a_database_that_cannot_be_read_is_told(host: Host) -> None:
    os.mkdir(host.under("/var/lib/dpkg/info/demo.list"))
    with pytest.raises(AgentError, match=r"demo\.list") as problem:
        list(read_index(host, [package("demo")]))
    assert problem.value.kind is Kind.UNREADABLE
    with pytest.raises(AgentError, match="is this a Debian system"):
        raise_hint(Host(root="/nowhere"))


def raise_hint(host: Host) -> None:
    try:
        read_owners(host, ["/usr/bin/x"])
    except AgentError as problem:
        raise AgentError(problem.kind, f"{problem.message}: {problem.hint}") from problem


def test_an_inode_is_known_by_device_number_and_birth(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1234")
    inode, found = read_inode(str(path)), path.stat()
    assert (inode.id.device, inode.id.inode, inode.links, inode.size) == (found.st_dev, found.st_ino, 1, 4)
    assert abs(inode.id.born - found.st_ctime_ns) < 10**9
    os.link(path, tmp_path / "y")
    assert read_inode(str(tmp_path / "y")).links == 2 and identify(str(tmp_path / "y")) == inode.id


def test_only_regular_files_are_identified(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr/bin/env")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "link", tmp_path / "pipe", tmp_path / "nothing", "/dev/null", "a\0b"):
        assert identify(str(path)) is None
    assert read_inode(str(tmp_path / "link"), follow=True).regular
