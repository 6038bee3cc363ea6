"""The repair of exim's files: what is proposed, what is written, what is undone, and what is refused. Real files."""

import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.host.mail.exim_config import CHOICES, GENERATED
from agent.host.mail.exim_pending import Pending
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.repair.apply import Mended, apply
from agent.repair.files import back_up, read, replace
from agent.repair.propose import HOSTS, Repair, propose
from agent.spawn import Done
from tests.unit.small_root import put

NOW = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
TEXT = "# comment\ndc_other_hostnames='a.example;b.example'  # ours\ndc_minimaldns='false'\n"
OWN = {"kind": "own-name", "names": ["host1.example.org"], "current": "", "wanted": "", "files": []}
HELO = {"kind": "helo", "names": ["host1"], "current": "host1", "wanted": "host1.example.org", "files": []}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(str(tmp_path))
    put(host, CHOICES, TEXT)
    put(host, GENERATED, "generated\n")
    put(host, HOSTS, "127.0.0.1\tlocalhost\n127.0.1.1\thost1\n")
    os.chmod(host.under(CHOICES), 0o640)
    for directory in (tmp_path / "etc", tmp_path / "etc/exim4", tmp_path / "var/lib/exim4"):
        directory.chmod(0o755)
    return host


class Exim:
    """Stands in for the programs that a repair runs: `generates` what it is told, and refuses when told so."""

    def __init__(self, host: Host, refuses: str = "") -> None:
        self.host, self.refuses = host, refuses
        self.called: list[str] = []

    def __call__(self, argv: Sequence[str]) -> Done:
        self.called.append(" ".join(argv))
        if argv[0] == "update-exim4.conf":
            put(self.host, f"{GENERATED}.tmp", "half")
            os.chmod(self.host.under(GENERATED), 0o600)
            if argv[0] != self.refuses:
                os.rename(self.host.under(f"{GENERATED}.tmp"), self.host.under(GENERATED))
        return Done(tuple(argv), int(argv[0] == self.refuses), "", "no such\nthing" if self.refuses else "")


def state(host: Host) -> dict[str, tuple[bytes, int, int]]:
    found = {}
    for path in sorted(Path(host.root).rglob("*")):
        if path.is_file():
            status = path.lstat()
            found[str(path.relative_to(host.root))] = (path.read_bytes(), status.st_mode, status.st_uid)
    return found


def own(host: Host) -> Repair:
    return propose(host, "exim/own-name", OWN, None)


def carry_out(host: Host, repair: Repair, exim: Exim, left: str = "") -> Mended:
    return apply(host, repair, NOW, lambda: left, exim)


# What is proposed


def test_a_name_is_added_and_quotes_separators_and_comments_stay(host: Host) -> None:
    repair = own(host)
    assert repair.regenerate and [edit.path for edit in repair.edits] == [CHOICES]
    assert repair.edits[0].after.decode() == TEXT.replace("b.example'", "b.example;host1.example.org'")
    assert repair.diff() == (
        f"--- {CHOICES}",
        f"+++ {CHOICES}",
        "@@ -1,3 +1,3 @@",
        " # comment",
        "-dc_other_hostnames='a.example;b.example'  # ours",
        "+dc_other_hostnames='a.example;b.example;host1.example.org'  # ours",
        " dc_minimaldns='false'",
    )


def test_a_name_that_is_there_already_is_not_added_again(host: Host) -> None:
    repair = propose(host, "exim/own-name", OWN | {"names": ["b.example"]}, None)
    assert repair.edits == () and repair.regenerate


@pytest.mark.parametrize("name", ["x}${run{id}}", "a'b", "-a", "a b", "$(id)"])
def test_a_name_that_is_no_host_name_is_never_written(host: Host, name: str) -> None:
    assert propose(host, "exim/own-name", OWN | {"names": [name]}, None).edits == ()


def test_what_is_more_than_plain_text_is_left_to_people(host: Host) -> None:
    put(host, CHOICES, 'dc_other_hostnames="$(hostname)"\n')
    with pytest.raises(AgentError, match="more than plain text"):
        own(host)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.1.1\thost1.example.org host1\n"),
        ("127.0.0.1 localhost", "127.0.0.1 localhost\n127.0.1.1\thost1.example.org host1\n"),
        ("127.0.1.1\thost1 # me\n::1 x\n", "127.0.1.1\thost1.example.org host1 # me\n::1 x\n"),
        ("192.0.2.1 other host1\n", "192.0.2.1 host1.example.org other host1\n"),
        ("# 127.0.1.1 host1\n", "# 127.0.1.1 host1\n127.0.1.1\thost1.example.org host1\n"),
        ("", "127.0.1.1\thost1.example.org host1\n"),
    ],
)
def test_a_full_name_is_put_first_in_etc_hosts(host: Host, before: str, after: str) -> None:
    put(host, HOSTS, before)
    repair = propose(host, "exim/helo", HELO, None)
    assert repair.edits[0].after.decode() == after and not repair.regenerate


@pytest.mark.parametrize("text", ["127.0.0.1 localhost host1\n", "::1 host1\n", "127.0.1.1 host1\n192.0.2.1 host1\n"])
def test_an_unusual_etc_hosts_is_left_to_people(host: Host, text: str) -> None:
    put(host, HOSTS, text)
    with pytest.raises(AgentError, match="unusual place"):
        propose(host, "exim/helo", HELO, None)


def test_a_frozen_name_is_generated_anew_with_a_full_one(host: Host) -> None:
    put(host, CHOICES, TEXT.replace("'false'", "'true'"))
    assert propose(host, "exim/helo", HELO, None).regenerate


def test_what_comes_into_effect_along_with_it_is_shown_and_not_written(host: Host) -> None:
    repair = propose(host, "exim/not-regenerated", OWN | {"kind": "not-regenerated"}, Pending("a\x1b\n", "b\n"))
    assert repair.diff()[3:] == ("-a\\x1b", "+b") and [edit.generated for edit in repair.edits] == [True]
    assert carry_out(host, repair, Exim(host)) == Mended(True)


def test_what_has_no_repair_says_so(host: Host) -> None:
    with pytest.raises(AgentError, match="cannot be mended automatically"):
        propose(host, "exim/interface", OWN | {"kind": "interface"}, None)


# What is carried out


def test_a_repair_is_written_generated_judged_and_leaves_a_backup(host: Host) -> None:
    exim = Exim(host)
    before = state(host)
    mended = carry_out(host, own(host), exim)
    backup = f"{CHOICES}.aftercare-20261122T160000Z"
    assert mended == Mended(True, "", (host.under(backup),))
    assert exim.called == ["update-exim4.conf", "exim4 -bV"]
    after = state(host)
    assert after[backup[1:]] == before[CHOICES[1:]]
    assert b"host1.example.org" in after[CHOICES[1:]][0] and after[CHOICES[1:]][1:] == before[CHOICES[1:]][1:]
    assert set(after) - set(before) == {backup[1:]}


def test_the_listening_exim_is_reloaded_where_systemd_runs_it(host: Host) -> None:
    Path(host.under("/run/systemd/system")).mkdir(parents=True)
    exim = Exim(host)
    carry_out(host, own(host), exim)
    assert exim.called[2:] == ["systemctl is-active --quiet exim4.service", "systemctl reload exim4.service"]


@pytest.mark.parametrize("refuses", ["update-exim4.conf", "exim4"])
def test_what_exim_refuses_is_undone_to_the_last_bit(host: Host, refuses: str) -> None:
    before = state(host)
    mended = carry_out(host, own(host), Exim(host, refuses))
    assert not mended.mended and "refuses: no such thing; everything is as it was" in mended.words
    assert state(host) == before


def test_what_the_check_does_not_confirm_is_undone(host: Host) -> None:
    before = state(host)
    mended = carry_out(host, own(host), Exim(host), left="the check still finds: x")
    assert mended == Mended(False, "the check still finds: x; everything is as it was")
    assert state(host) == before


def test_a_configuration_that_was_not_there_is_not_left_behind(host: Host) -> None:
    os.unlink(host.under(GENERATED))
    before = state(host)

    class Fresh(Exim):
        def __call__(self, argv: Sequence[str]) -> Done:
            put(self.host, GENERATED, "new")
            return Done(tuple(argv), int(argv[0] == "exim4"), "", "")

    assert not carry_out(host, own(host), Fresh(host)).mended
    assert state(host) == before


def test_an_interrupted_repair_is_undone_too(host: Host) -> None:
    before = state(host)

    def interrupted() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(host, own(host), NOW, interrupted, Exim(host))
    assert state(host) == before


def test_a_check_that_cannot_be_run_undoes_the_repair(host: Host) -> None:
    before = state(host)

    def failing() -> str:
        raise AgentError(Kind.SPAWN, "no exim")

    assert "no exim" in apply(host, own(host), NOW, failing, Exim(host)).words
    assert state(host) == before


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_in_the_midst_of_writing_is_undone(
    host: Host, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    before, repair, rename = state(host), own(host), os.replace

    def interrupted(source: str, target: str) -> None:
        monkeypatch.undo()
        if after:
            rename(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        carry_out(host, repair, Exim(host))
    assert state(host) == before


# What is refused


def test_a_file_that_changed_since_it_was_shown_is_not_touched(host: Host) -> None:
    repair = own(host)
    put(host, CHOICES, TEXT + "# mine\n")
    exim = Exim(host)
    before = state(host)
    mended = carry_out(host, repair, exim)
    assert not mended.mended and "was changed by somebody else meanwhile" in mended.words
    assert state(host) == before and exim.called == []


def test_what_was_edited_after_the_repair_is_not_undone_over_somebodys_head(host: Host) -> None:
    def edit_and_fail() -> str:
        put(host, CHOICES, "# mine\n")
        return "the check still finds: x"

    mended = apply(host, own(host), NOW, edit_and_fail, Exim(host))
    assert "could not be put back" in mended.words and ".aftercare-20261122T160000Z" in mended.words
    assert read(host, CHOICES) == b"# mine\n"
    assert Path(host.under(f"{CHOICES}.aftercare-20261122T160000Z")).read_text() == TEXT


def test_a_link_within_etc_stays_a_link(host: Host) -> None:
    os.rename(host.under(CHOICES), host.under("/etc/exim4/real"))
    os.symlink("real", host.under(CHOICES))
    assert carry_out(host, own(host), Exim(host)).mended
    assert os.readlink(host.under(CHOICES)) == "real"
    assert b"host1.example.org" in Path(host.under("/etc/exim4/real")).read_bytes()
    assert stat.S_IMODE(os.stat(host.under("/etc/exim4/real")).st_mode) == 0o640


def test_a_link_out_of_etc_is_refused(host: Host, tmp_path: Path) -> None:
    put(host, "/home/user/mine", TEXT)
    os.unlink(host.under(CHOICES))
    os.symlink(tmp_path / "home/user/mine", host.under(CHOICES))
    before = state(host)
    assert "out of" in carry_out(host, own(host), Exim(host)).words
    assert state(host) == before


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_a_place_where_others_may_write_is_refused(host: Host, mode: int) -> None:
    os.chmod(host.under("/etc/exim4"), mode)
    assert "where others may write" in carry_out(host, own(host), Exim(host)).words


def test_a_file_with_a_second_name_is_refused(host: Host) -> None:
    os.link(host.under(CHOICES), host.under("/etc/exim4/second"))
    assert "hard link" in carry_out(host, own(host), Exim(host)).words


def test_what_is_no_regular_file_is_not_read(host: Host) -> None:
    os.unlink(host.under(CHOICES))
    os.mkfifo(host.under(CHOICES))
    with pytest.raises(AgentError, match="no regular file"):
        own(host)


def test_a_backup_is_never_overwritten(host: Host) -> None:
    first = back_up(host, CHOICES, b"one", NOW)
    with pytest.raises(AgentError, match="exists already"):
        back_up(host, CHOICES, b"two", NOW)
    assert Path(first).read_bytes() == b"one"


def test_attributes_of_a_file_are_kept(host: Host) -> None:
    path = host.under(CHOICES)
    try:
        os.setxattr(path, "user.kept", b"yes")
    except OSError:
        pytest.skip("this file system has no attributes")
    replace(host, CHOICES, TEXT.encode(), b"new")
    assert os.getxattr(path, "user.kept") == b"yes" and Path(path).read_bytes() == b"new"
