"""The flag for a reboot: one line, once, beside those of others."""

from pathlib import Path

import pytest

from agent.daemon.flag import is_wanted
from agent.model.events import Looked
from agent.model.findings import CheckResult, Finding, Severity
from agent.report.flag import raise_flag


def append(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def raised(directory: Path) -> bool:
    return raise_flag(append, str(directory))


def test_a_flag_is_raised_once(tmp_path: Path) -> None:
    assert raised(tmp_path)
    assert (tmp_path / "reboot-required").read_text() == "*** System restart required ***\n"
    assert (tmp_path / "reboot-required.pkgs").read_text() == "aftercare\n"
    assert not raised(tmp_path)
    assert (tmp_path / "reboot-required.pkgs").read_text() == "aftercare\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("dbus\n", "dbus\naftercare\n"),
        ("dbus", "dbus\naftercare\n"),
        ("not-aftercare\n", "not-aftercare\naftercare\n"),
        ("aftercare\ndbus\n", "aftercare\ndbus\n"),
    ],
)
def test_what_others_wrote_stays_as_it_is(tmp_path: Path, before: str, after: str) -> None:
    (tmp_path / "reboot-required").write_text("theirs")
    (tmp_path / "reboot-required.pkgs").write_text(before)
    assert raised(tmp_path) is (before != after)
    assert (tmp_path / "reboot-required").read_text() == "theirs"
    assert (tmp_path / "reboot-required.pkgs").read_text() == after


def test_names_without_a_flag_get_one(tmp_path: Path) -> None:
    (tmp_path / "reboot-required.pkgs").write_text("aftercare\n")
    assert raised(tmp_path)
    assert (tmp_path / "reboot-required").exists()


def test_what_cannot_be_written_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        raised(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("check", "kind", "wanted"),
    [
        ("reboot", "kernel", True),
        ("reboot", "microcode", True),
        ("reboot", "flag", False),
        ("libraries", "kernel", False),
    ],
)
def test_it_is_raised_for_what_we_found_ourselves(check: str, kind: str, wanted: bool) -> None:
    finding = Finding(check, "x", Severity.WARNING, "", "", {"kind": kind})
    other = CheckResult("libraries", (Finding("libraries", "dpkg", Severity.ERROR, "", "", {}),))
    assert is_wanted(Looked((other, CheckResult(check, (finding,))))) is wanted
    assert not is_wanted(Looked((other,)))
