"""Which CVEs a changelog lists between two versions, and when it does not say."""

import gzip
import os
import time
from pathlib import Path

import pytest

from agent.host.changelogs import read_fixes
from agent.model.facts import Host

ENTRY = """\
openssl ({version}) bookworm-security; urgency=medium

  * {text}

 -- Somebody <somebody@example.org>  Sun, 01 Nov 2026 00:00:00 +0000

"""
HISTORY = "".join(
    ENTRY.format(version=version, text=text)
    for version, text in (
        ("3.0.22-1~deb12u2", "CVE-2026-84782 (a hole). CVE-2026-9999"),
        ("3.0.22-1~deb12u1", "New upstream; CVE-2026-84782 again, and CVE-2026-10000"),
        ("3.0.20-1~deb12u2", "CVE-2025-1111"),
        ("3.0.20-1~deb12u1", "CVE-2024-2222"),
    )
)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    write(tmp_path, "libssl3", gzip.compress(HISTORY.encode()))
    return Host(root=str(tmp_path))


def write(root: Path, package: str, data: bytes, name: str = "changelog.Debian.gz") -> None:
    folder = root / "usr/share/doc" / package
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)


def test_the_fixes_after_the_running_version_up_to_the_installed_one_are_listed_once(host: Host) -> None:
    expected = ("CVE-2026-9999", "CVE-2026-10000", "CVE-2026-84782")
    assert read_fixes(host, "libssl3", "3.0.20-1~deb12u2", "3.0.22-1~deb12u2") == expected


def test_what_the_running_version_already_has_is_not_listed(host: Host) -> None:
    assert read_fixes(host, "libssl3", "3.0.22-1~deb12u1", "3.0.22-1~deb12u2") == ("CVE-2026-9999", "CVE-2026-84782")


def test_a_rebuild_by_the_archive_is_told_by_the_version_without_its_mark(host: Host) -> None:
    fixes = read_fixes(host, "libssl3", "3.0.20-1~deb12u2+b1", "3.0.22-1~deb12u2+b3")
    assert fixes is not None and len(fixes) == 3


def test_a_version_that_the_changelog_does_not_know_is_not_told(host: Host) -> None:
    assert read_fixes(host, "libssl3", "3.0.20-1~deb12u2", "3.0.23-1") is None


def test_a_package_without_a_changelog_is_not_told(host: Host) -> None:
    assert read_fixes(host, "nothing", "1", "2") is None


@pytest.mark.parametrize(
    "data",
    [b"", b"\x1f\x8b rubbish", gzip.compress(b"\xff\0 no changelog at all\n"), gzip.compress(HISTORY.encode())[:90]],
)
def test_a_broken_changelog_is_not_told(tmp_path: Path, data: bytes) -> None:
    write(tmp_path, "p", data)
    assert read_fixes(Host(root=str(tmp_path)), "p", "3.0.20-1~deb12u2", "3.0.22-1~deb12u2") is None


def test_a_fifo_in_place_of_a_changelog_does_not_hold_anybody_up(tmp_path: Path) -> None:
    (tmp_path / "usr/share/doc/p").mkdir(parents=True)
    os.mkfifo(tmp_path / "usr/share/doc/p/changelog.Debian.gz")
    assert read_fixes(Host(root=str(tmp_path)), "p", "1", "2") is None


def test_a_bomb_is_unpacked_only_to_its_bound(tmp_path: Path) -> None:
    write(tmp_path, "p", gzip.compress(HISTORY.encode() + b"\n" * (64 << 20)))
    assert read_fixes(Host(root=str(tmp_path)), "p", "3.0.22-1~deb12u1", "3.0.22-1~deb12u2") is not None


@pytest.mark.parametrize("version", ["1_0", "", "1:2:", "a b", "\x1b[31m"])
def test_a_version_that_is_none_costs_only_its_own_answer(host: Host, version: str) -> None:
    assert read_fixes(host, "libssl3", version, "3.0.22-1~deb12u2") is None
    assert read_fixes(host, "libssl3", "3.0.20-1~deb12u1", version) is None


HOSTILE = {"one line": " -- " + " <>" * 500_000, "many lines": "\n".join([" -- " + " <>" * 90] * 3_000)}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_changelog_does_not_keep_the_check_busy(tmp_path: Path, line: str) -> None:
    write(tmp_path, "evil", gzip.compress(f"evil (2) sid; urgency=low\n\n  * x\n\n{line}\n".encode()))
    begun = time.process_time()
    read_fixes(Host(root=str(tmp_path)), "evil", "1", "2")
    assert time.process_time() - begun < 5
