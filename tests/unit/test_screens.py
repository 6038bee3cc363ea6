"""What `status`, `plan`, `history` and `watch` say where the whole truth is not known, or not told."""

import json
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import pytest

from agent.cli import ask, blocks, doctor, main, records, screens
from agent.model.errors import AgentError, Kind
from agent.varlink import wire

NGINX: dict[str, Any] = {
    "id": "libraries/nginx.service",
    "check": "libraries",
    "subject": "nginx.service",
    "severity": "error",
    "summary": "2 processes still run libssl3 1, replaced by 2",
    "advice": "agentctl restart nginx.service",
    "since": "2026-11-22T15:16:58Z",
    "evidence": {"disposition": "restart", "reason": "", "cves": ["CVE-2026-1"], "processes": []},
}
SEEN: dict[str, Any] = {
    "phase": "idle",
    "mode": "auto",
    "findings": [NGINX],
    "checked_at": "2026-11-22T15:16:58Z",
    "held": "",
    "braked": False,
    "trouble": "",
}
PLAN: dict[str, Any] = {"transaction": 1, "waves": [], "manager": False, "agent": False}
QUIET = {"kind": "ack", "reason": "", "uid": 0, "at": "2026-11-22T15:16:58Z", "until": None, "ended": None}
GONE = AgentError(Kind.UNREACHABLE, "aftercared went away without an answer")


def said(view: dict[str, Any]) -> str:
    return blocks.write(screens.status(view), 400)


def answer(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
    def call(_options: object, method: str, *_others: object, **_more: object) -> Any:
        return answers[method]

    monkeypatch.setattr(ask, "call", call)


def test_what_is_wrong_comes_first_with_the_time_of_what_follows() -> None:
    first, second = said(SEEN | {"trouble": "the history cannot be written"}).splitlines()[:2]
    at = blocks.local("2026-11-22T15:16:58Z")
    assert said(SEEN | {"trouble": "full", "held": "full"}).count("full") == 1
    assert first == f"the history cannot be written. What follows is as of {at}." and second.startswith("1 to be")


@pytest.mark.parametrize("phase", ["settling", "checking", "restarting"])
def test_what_is_known_stays_told_while_something_goes_on(phase: str) -> None:
    lines = said(SEEN | {"phase": phase}).splitlines()
    assert lines[0] == screens.PHASES[phase] and lines[1].startswith("1 to be restarted; 1 CVE fixed on disk")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 1),
        ({"phase": "settling"}, 1),
        ({"findings": []}, 0),
        ({"findings": [], "phase": "checking"}, 0),
        ({"findings": [], "phase": "checking", "checked_at": None}, 3),
        ({"findings": [], "trouble": "the worker did not end"}, 3),
    ],
)
def test_nothing_is_well_where_it_is_not_known(
    changes: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, Status={"status": SEEN | changes})
    assert main.main(["status"]) == status
    assert ("Every process runs" in capsys.readouterr().out) == (status == 0)


@pytest.mark.parametrize(
    ("words", "known", "status"),
    [([], False, 3), ([], True, 0), (["--format", "nagios"], False, 3), (["--format", "nagios"], True, 0)],
)
def test_nothing_is_well_for_one_who_gets_counts_alone_either(
    words: list[str], known: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(_options: object, method: str, *_others: object, **_more: object) -> Any:
        if method == "Status":
            raise AgentError(Kind.DENIED, "not for you")
        return {"counts": {"error": 0}, "phase": "idle", "known": known}

    monkeypatch.setattr(ask, "call", call)
    assert main.main(["status", *words]) == status


def test_who_only_observes_is_told_so_and_promised_nothing() -> None:
    text = said(SEEN | {"mode": "observe"})
    assert "1 that would be restarted" in text and "The mode is observe: nothing is restarted by itself." in text
    assert "Would be restarted, but the mode is observe:" in text and "by themselves" not in text
    assert "observe" not in said(SEEN)


def test_what_is_silenced_is_counted_with_what_it_hides() -> None:
    other = NGINX | {"id": "libraries/ssh.service", "evidence": {"cves": ["CVE-2026-1", "CVE-2026-2"]}}
    silenced = [{"finding": item, "silence": QUIET | {"id": item["id"]}} for item in (NGINX, other)]
    text = said(SEEN | {"findings": [], "silenced": silenced})
    line = "2 more findings are silenced, with 2 CVEs not in effect: libraries/nginx.service, libraries/ssh.service."
    assert text.splitlines()[1] == line


@pytest.mark.parametrize(
    ("times", "until"),
    [
        ({}, "it is gone"),
        ({"until": "2026-12-01T00:00:00Z"}, blocks.local("2026-12-01T00:00:00Z")),
        (
            {"until": "2026-12-01T00:00:00Z", "ended": "2026-11-23T00:00:00Z"},
            f"ended {blocks.local('2026-11-23T00:00:00Z')}",
        ),
    ],
)
def test_a_silence_that_was_ended_is_told_as_ended(times: dict[str, str], until: str) -> None:
    silence = QUIET | {"id": "spf/a"} | times
    (table,) = records.history({"transactions": [], "restarts": [], "silences": [silence]})
    assert isinstance(table, blocks.Table) and table.rows[0][1] == until


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"mode": "observe"}, "The mode is observe: it happens where agentctl restart asks for it alone."),
        ({"held": "the disk is full"}, "It does not happen now: the disk is full."),
        (
            {"braked": True, "held": "a.service (failed) did not come back"},
            "It does not happen by itself: a.service (failed) did not come back; agentctl restart --resume goes on.",
        ),
    ],
)
def test_a_plan_says_what_it_waits_for(
    changes: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, Plan={"plan": PLAN}, Status={"status": SEEN | changes})
    assert main.main(["plan"]) == 0
    assert line in " ".join(capsys.readouterr().out.split())


def test_a_plan_names_what_waits_for_its_time() -> None:
    evidence = NGINX["evidence"] | {"opens_at": "2026-11-23T03:00:00Z", "reason": "waits for its window (Mon 3:00)"}
    (line,) = records.waiting(SEEN | {"findings": [NGINX | {"evidence": evidence}]})
    at = blocks.local("2026-11-23T03:00:00Z")
    assert isinstance(line, blocks.Line)
    assert line.text == f"Not before {at}: nginx.service: waits for its window (Mon 3:00)"


class Away:
    """A daemon that is called, and a clock that goes on as one sleeps. replies: what it does, call by call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *replies: Any) -> None:
        self.replies, self.now = list(replies), 1.0
        monkeypatch.setattr(ask, "call", self.call)
        monkeypatch.setattr(wire, "stream", self.stream)
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def call(self, *_arguments: object, **_others: object) -> dict[str, Any]:
        reply = self.replies.pop(0) if self.replies else GONE
        if isinstance(reply, AgentError):
            raise reply
        return {}

    def stream(self, *_arguments: object, **_others: object) -> Iterator[dict[str, Any]]:
        yield {"kind": "started", "at": "2026-11-22T15:16:58Z", "message": "hello", "fields": {}}
        raise GONE


def test_one_who_watches_waits_for_a_daemon_that_restarts_itself_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = Away(monkeypatch, {}, GONE, GONE, {})
    assert main.main(["watch", "--json"]) == 3
    captured = capsys.readouterr()
    assert [json.loads(line)["message"] for line in captured.out.splitlines()] == ["hello", "hello"]
    assert captured.err.count("waiting for it") == 2 and captured.err.count("aftercared is back") == 1
    assert 30 < away.now < 40


def test_one_who_watches_does_not_wait_for_a_daemon_that_was_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(monkeypatch)
    assert main.main(["watch"]) == 3 and away.now == 1.0


def test_the_doctor_says_what_ails_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"Counts": {"phase": "idle"}, "Status": {"status": SEEN | {"trouble": "the history cannot be written"}}}
    monkeypatch.setattr(wire, "call", lambda method, **_others: answers[method])
    verdicts = list(doctor._socket(Namespace(socket="/x")))
    assert [item.state for item in verdicts] == [doctor.State.GOOD, doctor.State.BAD]
    assert verdicts[1].what == "the history cannot be written" and verdicts[1].remedy
