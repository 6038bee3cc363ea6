"""dpkg's database and the logs beside it, from files as they are found in the field."""

import gzip
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.host.transactions import Story, diff, is_interrupted, read_snapshot, read_story, unfinished
from agent.model.errors import AgentError, Kind
from agent.model.facts import Change, Host, PackageState, Snapshot

SINCE = datetime(2026, 11, 22, 12, tzinfo=UTC)
UNTIL = SINCE + timedelta(hours=1)
LIBSSL = Change("libssl3", "amd64", "3.0.20", "3.0.22")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for directory in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log/apt"):
        (tmp_path / directory).mkdir(parents=True)
    return Host(root=str(tmp_path))


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return what sets the local time zone for the length of a test."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def utc(zone: Callable[[str], None]) -> None:
    zone("UTC")


def stanza(name: str, version: str = "1", state: str = "installed", extra: str = "") -> str:
    return (
        f"Package: {name}\nStatus: install ok {state}\nArchitecture: amd64\n{extra}Version: {version}\n"
        f"Description: first line\n Package: not-a-field\n .\n Version: 99\n"
    )


def write_status(host: Host, *stanzas: str) -> None:
    write(host, "/var/lib/dpkg/status", "".join(f"{text}\n" for text in stanzas))


def write(host: Host, path: str, content: str | bytes) -> Path:
    """Write a file as if it had last been written to within the window."""
    file = Path(host.under(path))
    file.write_bytes(content if isinstance(content, bytes) else os.fsencode(content))
    os.utime(file, (UNTIL.timestamp(), UNTIL.timestamp()))
    return file


def package(name: str, version: str = "1", state: str = "installed", stamp: str = "") -> PackageState:
    return PackageState(name, "amd64", version, state, stamp)


def snapshot(*states: PackageState) -> Snapshot:
    return {state.key: state for state in states}


# The snapshot


def test_packages_without_files_are_left_out(host: Host) -> None:
    write_status(
        host,
        stanza("kept"),
        stanza("half", state="half-configured"),
        stanza("removed", state="config-files"),
        stanza("never", state="not-installed"),
    )
    assert read_snapshot(host) == snapshot(package("kept"), package("half", state="half-configured"))


def test_the_stamp_is_the_file_list_under_its_multi_arch_name(host: Host) -> None:
    kinds = {"lib": "Multi-Arch: same\n", "tool": "Multi-Arch: foreign\n", "bare": ""}
    write_status(host, *(stanza(name, extra=extra) for name, extra in kinds.items()))
    lib = write(host, "/var/lib/dpkg/info/lib:amd64.list", "").stat()
    tool = write(host, "/var/lib/dpkg/info/tool.list", "").stat()
    found = read_snapshot(host)
    assert found["lib:amd64"].stamp == f"{lib.st_ino}-{lib.st_mtime_ns}"
    assert found["tool:amd64"].stamp == f"{tool.st_ino}-{tool.st_mtime_ns}"
    assert found["bare:amd64"].stamp == ""


def test_a_journal_that_was_left_behind_stands_above_status_in_numeric_order(host: Host) -> None:
    write_status(host, stanza("one"), stanza("two"), stanza("three"))
    for number, text in {
        "9": stanza("one", "2", "half-installed"),
        "10": stanza("one", "2", "unpacked"),
        "11": stanza("two", state="not-installed"),
        "tmp.i": stanza("three", "2"),
    }.items():
        write(host, f"/var/lib/dpkg/updates/{number}", text)
    assert read_snapshot(host) == snapshot(package("one", "2", "unpacked"), package("three"))
    assert is_interrupted(host)


def test_the_scratch_file_of_dpkg_alone_is_no_interruption(host: Host) -> None:
    write(host, "/var/lib/dpkg/updates/tmp.i", "#padding\n")
    assert not is_interrupted(host)
    os.unlink(host.under("/var/lib/dpkg/updates/tmp.i"))
    os.rmdir(host.under("/var/lib/dpkg/updates"))
    assert not is_interrupted(host)
    write(host, "/var/lib/dpkg/updates", "")
    with pytest.raises(AgentError, match="updates: Not a directory"):
        is_interrupted(host)


WHOLE = f"{stanza('one')}\n{stanza('two')}\n"


@pytest.mark.parametrize("text", ["", WHOLE[:-1], WHOLE[:-9], f"{WHOLE}\0\0\0\0"])
def test_a_status_that_is_cut_off_is_an_error_and_not_a_mass_removal(host: Host, text: str) -> None:
    path = write(host, "/var/lib/dpkg/status", text)
    with pytest.raises(AgentError, match="is damaged: it is empty or cut off") as caught:
        read_snapshot(host)
    assert (caught.value.kind, caught.value.hint) == (Kind.UNREADABLE, f"compare it with {path}-old")


@pytest.mark.parametrize("text", ["Package: one\nVersion: 1\n\n", "Status: install ok installed\n\n"])
def test_a_stanza_without_a_name_or_a_state_is_an_error(host: Host, text: str) -> None:
    write(host, "/var/lib/dpkg/status", text)
    with pytest.raises(AgentError, match="has no state") as caught:
        read_snapshot(host)
    assert caught.value.kind is Kind.UNREADABLE


def test_a_status_that_is_missing_or_no_file_says_which_and_why(host: Host) -> None:
    status = host.under("/var/lib/dpkg/status")
    with pytest.raises(AgentError, match=f"{status}: No such file or directory"):
        read_snapshot(host)
    os.mkdir(status)
    with pytest.raises(AgentError, match=f"{status}: Is a directory"):
        read_snapshot(host)


def test_changes_are_sorted_and_tell_what_happened() -> None:
    same = package("same", stamp="7-7")
    old = snapshot(package("up", "1"), package("gone"), same, package("again", stamp="7-7"))
    new = snapshot(package("up", "2"), package("fresh"), same, package("again", stamp="8-8"))
    assert diff(old, new) == (
        Change("again", "amd64", "1", "1"),
        Change("fresh", "amd64", None, "1"),
        Change("gone", "amd64", "1", None),
        Change("up", "amd64", "1", "2"),
    )


def test_architectures_are_packages_of_their_own() -> None:
    native, foreign = package("lib"), PackageState("lib", "i386", "1", "installed", "")
    old, new = snapshot(native, foreign), snapshot(native, replace(foreign, version="2"))
    assert diff(old, new) == (Change("lib", "i386", "1", "2"),)


def test_a_change_of_state_alone_is_a_change() -> None:
    old, new = snapshot(package("lib")), snapshot(package("lib", state="half-installed"))
    assert diff(old, new) == diff(new, old) == (Change("lib", "amd64", "1", "1"),)


def test_pending_triggers_are_unfinished_too() -> None:
    names = ("triggers-pending", "installed", "half-configured", "triggers-awaited", "unpacked")
    found = unfinished(snapshot(*(package(name, state=name) for name in names)))
    expected = ["half-configured", "triggers-awaited", "triggers-pending", "unpacked"]
    assert [state.name for state in found] == expected


# What the logs tell

APT = """
Start-Date: 2026-11-22  11:30:00
Commandline: apt install earlier
End-Date: 2026-11-22  11:30:09

Start-Date: 2026-11-22  12:10:00
Commandline: apt-get upgrade
Requested-By: alice (1000)
Upgrade: libssl3:amd64 (3.0.20, 3.0.22)
End-Date: 2026-11-22  12:10:20
"""
DPKG = """2026-11-22 12:10:01 startup archives unpack
2026-11-22 12:10:01 upgrade libssl3:amd64 3.0.20 3.0.22
2026-11-22 12:10:02 status unpacked libssl3:amd64 3.0.22
"""


def apt_run(begun: str, command: str, ended: str) -> str:
    return f"\nStart-Date: 2026-11-22  {begun}\nCommandline: {command}\nEnd-Date: 2026-11-22  {ended}\n"


def at(hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2026, 11, 22, hour, minute, second, tzinfo=UTC)


def write_logs(host: Host, apt: str | None = None, dpkg: str | None = None) -> None:
    if apt is not None:
        write(host, "/var/log/apt/history.log", apt)
    if dpkg is not None:
        write(host, "/var/log/dpkg.log", dpkg)


def test_apt_tells_command_and_requester_and_its_dpkg_runs_are_not_told_twice(host: Host, utc: None) -> None:
    write_logs(host, APT, DPKG)
    assert read_story(host, SINCE, UNTIL, [LIBSSL]) == Story(at(12, 10), "apt-get upgrade", "alice (1000)")


def test_without_a_beginning_nothing_is_told(host: Host, utc: None) -> None:
    write_logs(host, APT, DPKG)
    assert read_story(host, None, UNTIL, [LIBSSL]) == Story()


def test_without_logs_nothing_is_told(host: Host) -> None:
    assert read_story(host, SINCE, UNTIL, [LIBSSL]) == Story()


def test_several_commands_are_joined_in_order_and_each_once(host: Host, utc: None) -> None:
    steps = [
        apt_run("12:10:00", "apt install b", "12:10:30"),
        apt_run("12:20:00", "/usr/bin/unattended-upgrade", "12:20:30"),
        apt_run("12:21:00", "/usr/bin/unattended-upgrade", "12:21:30"),
    ]
    write_logs(host, "".join(steps), DPKG.replace("12:10", "12:15"))
    told = read_story(host, SINCE, UNTIL, [LIBSSL])
    assert told == Story(at(12, 10), "apt install b; dpkg; /usr/bin/unattended-upgrade", "")


def test_plain_dpkg_is_told_from_its_own_log(host: Host, utc: None) -> None:
    write_logs(host, dpkg=DPKG)
    assert read_story(host, SINCE, UNTIL, [LIBSSL]) == Story(at(12, 10, 1), "dpkg", "")


def test_a_dpkg_run_for_another_root_is_not_ours(host: Host, utc: None) -> None:
    foreign = DPKG.replace("12:10", "12:05").replace("libssl3", "base-files")
    write_logs(host, dpkg=foreign + DPKG)
    assert read_story(host, SINCE, UNTIL, [LIBSSL]).begun == at(12, 10, 1)


def test_an_apt_run_that_was_killed_still_covers_its_dpkg_runs(host: Host, utc: None) -> None:
    write_logs(host, APT.rsplit("End-Date", 1)[0], DPKG)
    assert read_story(host, SINCE, UNTIL, [LIBSSL]).command == "apt-get upgrade"


def test_rotated_and_packed_logs_are_read_back_to_the_beginning(host: Host, utc: None) -> None:
    write_logs(host, APT.replace("12:10", "12:40").replace("upgrade", "autoremove"))
    write(host, "/var/log/apt/history.log.1.gz", gzip.compress(APT.encode()))
    write(host, "/var/log/dpkg.log.1", DPKG.replace("12:10", "12:30"))
    told = read_story(host, SINCE, UNTIL, [LIBSSL])
    assert told == Story(at(12, 10), "apt-get upgrade; dpkg; apt-get autoremove", "alice (1000)")


def test_a_log_that_was_last_written_before_the_beginning_is_not_read(host: Host, utc: None) -> None:
    write_logs(host, APT)
    before = SINCE.timestamp() - 1
    os.utime(host.under("/var/log/apt/history.log"), (before, before))
    assert read_story(host, SINCE, UNTIL, [LIBSSL]) == Story()


def test_a_run_in_the_same_second_as_the_last_look_counts(host: Host, utc: None) -> None:
    write_logs(host, APT)
    assert read_story(host, at(12, 10) + timedelta(milliseconds=700), UNTIL, []).command == "apt-get upgrade"


@pytest.mark.parametrize("hour", [0, 1])
def test_the_hour_that_comes_twice_is_understood_both_times(host: Host, zone: Callable[[str], None], hour: int) -> None:
    zone("CET-1CEST,M3.5.0,M10.5.0/3")
    write_logs(host, apt_run("02:30:00", "apt upgrade", "02:30:09").replace("11-22", "10-25"))
    since = datetime(2026, 10, 25, hour, 15, tzinfo=UTC)
    told = read_story(host, since, since + timedelta(minutes=30), [])
    assert told == Story(datetime(2026, 10, 25, hour, 30, tzinfo=UTC), "apt upgrade", "")


def test_only_the_end_of_a_long_log_is_read(host: Host, utc: None) -> None:
    write_logs(host, APT.replace("apt-get upgrade", "too far up") + "x" * (1 << 20) + "\n" + APT)
    assert read_story(host, SINCE, UNTIL, [LIBSSL]).command == "apt-get upgrade"


def test_an_endless_command_is_cut(host: Host, utc: None) -> None:
    write_logs(host, APT.replace("apt-get upgrade", "apt install " + "x" * 5000))
    assert len(read_story(host, SINCE, UNTIL, [LIBSSL]).command) == 1001


def test_a_pipe_or_a_broken_archive_in_place_of_a_log_is_passed_over(host: Host, utc: None) -> None:
    os.mkfifo(host.under("/var/log/apt/history.log"))
    write(host, "/var/log/dpkg.log.1.gz", gzip.compress(DPKG.encode())[:-20])
    write(host, "/var/log/dpkg.log.2.gz", b"\x1f\x8bnonsense")
    os.mkdir(host.under("/var/log/dpkg.log.1"))
    write_logs(host, dpkg=DPKG)
    assert read_story(host, SINCE, UNTIL, [LIBSSL]) == Story(at(12, 10, 1), "dpkg", "")


@pytest.mark.parametrize("date", ["0001-01-01 00:00:00", "9999-12-31 23:59:59", "2026-11-22 12:61:00", "?"])
@pytest.mark.parametrize("name", ["EAST-14", "WEST+12"])
def test_a_date_that_no_calendar_has_is_passed_over(
    host: Host, zone: Callable[[str], None], name: str, date: str
) -> None:
    zone(name)
    write_logs(host, f"\nStart-Date: {date}\nCommandline: apt upgrade\n")
    assert read_story(host, SINCE, UNTIL, []) == Story()


WORDS = [b"Start-Date: ", b"\n", b"End-Date: ", b" startup ", b"0001-01-01 00:00:00", b"9999-12-31 23:59:59"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(WORDS))))
def test_no_content_of_a_log_is_an_error(host: Host, pieces: list[bytes]) -> None:
    for path in ("/var/log/apt/history.log", "/var/log/dpkg.log"):
        write(host, path, b"".join(pieces))
    assert read_story(host, SINCE, UNTIL, [LIBSSL]).begun is None


def test_a_package_whose_fields_are_not_ascii_can_still_be_stored(host: Host) -> None:
    text = stanza("evil", "1.0-\udcff").replace("amd64", "\u202eamd\udc80") + "\n"
    write(host, "/var/lib/dpkg/status", text.encode(errors="surrogateescape"))
    (state,) = read_snapshot(host).values()
    assert state.version == r"1.0-\xff" and f"{state.name}{state.arch}{state.version}".isascii()
