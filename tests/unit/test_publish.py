"""state.json, the one sentence, and what systemd is told, over real datagram sockets."""

import errno
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.model.facts import Transaction
from agent.model.findings import Confidence, Finding, Severity, StaleUnit
from agent.model.restarts import Disposition, Outcome, Plan, Result, Rule, Step, Wave
from agent.model.view import Phase, View
from agent.report.publish import Notifier, publish, sentence, watchdog_interval

NOW = datetime(2026, 11, 22, 15, 16, tzinfo=timezone(timedelta(hours=1)))
TRANSACTION = Transaction(7, None, datetime(2026, 11, 22, 13, 2, 5, tzinfo=UTC), "apt-get upgrade", "root", (), ())
IDLE = View(Phase.IDLE, "auto")


def stale(unit: str, disposition: Disposition, severity: Severity = Severity.WARNING) -> Finding:
    evidence = StaleUnit(unit, disposition, Confidence.CERTAIN, ())
    return Finding("libraries", unit, severity, f"{unit} runs replaced code", "", evidence)


def broken(unit: str) -> Finding:
    evidence = StaleUnit(unit, Disposition.NEVER, Confidence.CERTAIN, (), outcome=Outcome(unit, Result.FAILED))
    return Finding("libraries", unit, Severity.CRITICAL, "not running since its restart", "", evidence)


FRESH = (Outcome("nginx.service", Result.FRESH), Outcome("ssh.service", Result.FRESH))
DEFERRED = tuple(stale(f"db{number}.service", Disposition.DEFER) for number in range(3))


# state.json


def test_the_state_is_there_whole_and_for_root_alone(tmp_path: Path) -> None:
    assert publish(replace(IDLE, findings=DEFERRED, transaction=TRANSACTION), str(tmp_path)) == ""
    path = tmp_path / "state.json"
    state = json.loads(path.read_text())
    assert state["v"] == 1 and state["findings"][0]["subject"] == "db0.service"
    assert path.stat().st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path) == ["state.json"]


def test_the_group_may_read_it(tmp_path: Path) -> None:
    assert publish(IDLE, str(tmp_path), 4242) == ""
    found = (tmp_path / "state.json").stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o640, os.geteuid(), 4242)


def test_in_a_directory_of_the_group_no_right_to_give_files_away_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(tmp_path, -1, 4242)
    os.chmod(tmp_path, 0o2755)
    monkeypatch.delattr(os, "fchown")
    assert publish(IDLE, str(tmp_path), 4242) == ""
    assert (tmp_path / "state.json").stat().st_gid == 4242


def test_a_new_state_replaces_the_old_one_at_once(tmp_path: Path) -> None:
    publish(IDLE, str(tmp_path))
    path = tmp_path / "state.json"
    with path.open() as reader:
        publish(replace(IDLE, mode="observe"), str(tmp_path))
        assert json.load(reader)["mode"] == "auto"
    assert json.loads(path.read_text())["mode"] == "observe"


def test_what_was_left_behind_or_laid_in_wait_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".state.json.new").symlink_to(victim)
    assert publish(IDLE, str(tmp_path)) == ""
    assert victim.read_text() == "precious" and json.loads((tmp_path / "state.json").read_text())


def test_a_directory_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    assert publish(IDLE, str(tmp_path / "gone")) == f"{tmp_path}/gone/state.json: {os.strerror(errno.ENOENT)}"


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_full_disk_is_one_sentence_and_the_old_state_stays(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", tmp_path], check=False).returncode:
        pytest.skip("may not mount here")
    try:
        assert publish(IDLE, str(tmp_path)) == ""
        findings = tuple(stale(f"unit{number}.service", Disposition.DEFER) for number in range(1000))
        problem = publish(replace(IDLE, findings=findings), str(tmp_path))
        assert problem == f"{tmp_path}/state.json: {os.strerror(errno.ENOSPC)}"
        assert json.loads((tmp_path / "state.json").read_text())["findings"] == []
        assert os.listdir(tmp_path) == ["state.json"]
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        assert publish(IDLE, str(tmp_path)) == f"{tmp_path}/state.json: {os.strerror(errno.EROFS)}"
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_name_that_is_not_utf8_can_be_published(tmp_path: Path) -> None:
    view = replace(
        IDLE, detail={"identical": ["/usr/lib/\udcff.so"]}, findings=(stale("\udcff.service", Disposition.DEFER),)
    )
    assert publish(view, str(tmp_path)) == ""
    assert json.loads((tmp_path / "state.json").read_bytes())["findings"][0]["subject"] == "\\xff.service"


# The sentence


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (IDLE, "Idle: nothing runs replaced code"),
        (View(Phase.STARTING, "auto"), "Starting: reading what dpkg has installed"),
        (View(Phase.SETTLING, "auto"), "Waiting until the package transaction is over"),
        (View(Phase.CHECKING, "auto"), "Looking for processes that run replaced code"),
        (
            replace(IDLE, outcomes=FRESH, transaction=TRANSACTION, findings=DEFERRED),
            "Idle: 2 units restarted 14:02, all fresh; 3 wait for you",
        ),
        (
            replace(IDLE, outcomes=FRESH[:1], transaction=TRANSACTION),
            "Idle: 1 unit restarted 14:02, all fresh; nothing waits for you",
        ),
        (
            replace(
                IDLE,
                transaction=TRANSACTION,
                outcomes=(*FRESH, Outcome("exim4.service", Result.FAILED), Outcome("a.service", Result.NOT_RUN)),
                findings=(broken("exim4.service"), DEFERRED[0]),
            ),
            "Idle: 3 units restarted 14:02, 2 fresh; 1 did not come back; 1 waits for you",
        ),
        (replace(IDLE, findings=(stale("nginx.service", Disposition.RESTART),)), "Idle: 1 to be restarted"),
        (View(Phase.IDLE, "observe", findings=(stale("nginx.service", Disposition.RESTART),)), "Idle: 1 waits for you"),
        (
            replace(IDLE, blind=True, trouble="the worker did not end"),
            "Idle: what runs replaced code now is not known; the worker did not end",
        ),
        (
            replace(IDLE, held="the disk is full", trouble="the disk is full"),
            "Idle: nothing runs replaced code; the disk is full",
        ),
        (
            replace(IDLE, held="a package transaction is under way", rejected="the new configuration is not used"),
            "Idle: nothing runs replaced code; a package transaction is under way; the new configuration is not used",
        ),
    ],
)
def test_the_sentence(view: View, text: str) -> None:
    assert sentence(view, NOW) == text


def test_the_sentence_names_what_is_restarted() -> None:
    steps = tuple(Step(f"{name}.service", Rule("*"), "", 1, (), ()) for name in ("nginx", "ssh"))
    view = View(Phase.RESTARTING, "auto", plan=Plan(7, (Wave(1, steps[:1]), Wave(2, steps[1:]))))
    assert sentence(view, NOW) == "Restarting 2 units: nginx.service, ssh.service"


def test_yesterday_has_a_date() -> None:
    view = replace(IDLE, outcomes=FRESH, transaction=TRANSACTION)
    assert "restarted 2026-11-22 14:02, all" in sentence(view, NOW + timedelta(days=1))


def test_the_sentence_is_one_line_whatever_a_unit_is_called() -> None:
    steps = (Step("x\nMAINPID=1\x1b" + "y" * 1000, Rule("*"), "", 1, (), ()),)
    text = sentence(View(Phase.RESTARTING, "auto", plan=Plan(7, (Wave(1, steps),))), NOW)
    assert text.isprintable() and len(text) == 240


# systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    address = str(tmp_path / "notify") if request.param == "path" else f"\0aftercare-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        yield listener


@pytest.mark.real
def test_systemd_is_told_in_its_own_words(manager: socket.socket) -> None:
    notifier = Notifier()
    notifier.ready("Idle: 2 units → fresh, naïve")
    assert manager.recv(4096).decode() == "READY=1\nSTATUS=Idle: 2 units → fresh, naïve"
    notifier.status("Ça va → 日本")
    assert manager.recv(4096).decode() == "STATUS=Ça va → 日本"
    notifier.reloading(12.345678)
    assert manager.recv(4096) == b"RELOADING=1\nMONOTONIC_USEC=12345678"
    notifier.alive()
    assert manager.recv(4096) == b"WATCHDOG=1"
    notifier.extend(1.5)
    assert manager.recv(4096) == b"EXTEND_TIMEOUT_USEC=1500000"
    notifier.stopping("Stopping")
    assert manager.recv(4096) == b"STOPPING=1\nSTATUS=Stopping"


@pytest.mark.real
def test_a_status_can_tell_systemd_nothing_else(manager: socket.socket) -> None:
    Notifier().status("x\nMAINPID=1\udcff")
    assert manager.recv(4096) == b"STATUS=x\\x0aMAINPID=1\\xff"


@pytest.mark.real
def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().ready("Idle")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nowhere"))
    Notifier().ready("Idle")


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "42"}, 20.0),
        ({"WATCHDOG_USEC": "60000000"}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_thrice_in_its_time(environ: dict[str, str], interval: float | None) -> None:
    assert watchdog_interval(environ, 42) == interval
