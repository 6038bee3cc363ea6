"""How the daemon talks with its workers, which may hang, die, babble, or not start at all."""

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.config.settings import Settings
from agent.daemon import workers
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request
from agent.spawn import beside

pytestmark = pytest.mark.real
NOW = datetime(2026, 11, 22, tzinfo=UTC)
HANGING = """
import json, sys, time
request = json.load(sys.stdin)["request"]
stuck = {stuck!r}
for pid, crowd in stuck:
    if pid not in request["skip"] and crowd not in request["crowds"]:
        for _ in range(50):
            print(json.dumps({{"at": pid, "crowd": crowd}}), flush=True)
            time.sleep(0.02)
        time.sleep(60)
unseen = [*map(str, request["skip"]), *request["crowds"]]
print(json.dumps({{"result": {{"check": "libraries", "findings": [], "unseen": unseen}}}}))
"""


def check(monkeypatch: pytest.MonkeyPatch, script: str, limit: float = 20) -> CheckResult:
    monkeypatch.setattr(workers, "command", lambda: [sys.executable, "-c", script])
    settings = Settings(check_limit=limit)
    return asyncio.run(workers.check(Host(), settings, Request("libraries", NOW)))


def problem(monkeypatch: pytest.MonkeyPatch, script: str, limit: float = 20) -> AgentError:
    with pytest.raises(AgentError) as caught:
        check(monkeypatch, script, limit)
    return caught.value


def test_each_that_hangs_is_skipped_and_at_the_second_of_a_crowd_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = [(1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "a"), (6, "c")]
    assert check(monkeypatch, HANGING.format(stuck=stuck)).unseen == ("1", "2", "3", "6", "a")


def test_one_who_is_never_twice_of_a_crowd_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MOST_LIMITS", 0.01)
    stuck = [(pid, f"crowd {pid}") for pid in range(1, 1000)]
    assert problem(monkeypatch, HANGING.format(stuck=stuck)).kind is Kind.TIMED_OUT


def test_a_subject_that_takes_long_and_ends_is_not_taken_for_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = """
import json
for pid in (1, 2, 3):
    for _ in range({beats}):
        print(json.dumps({{"at": pid, "crowd": ""}}), flush=True)
print(json.dumps({{"result": {{"check": "libraries", "findings": []}}}}))
"""
    assert check(monkeypatch, slow.format(beats=workers.MOST_BEATS - 1)).unseen == ()


def test_a_worker_that_dies_says_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    died = problem(monkeypatch, "import sys; sys.exit('out of memory')")
    assert (died.kind, died.hint) == (Kind.SPAWN, "out of memory")


@pytest.mark.parametrize("babble", ["hello", "17", "null", '["at"]', '"result"', '{"at": 1}', '{"result": 5}'])
def test_a_worker_that_babbles_is_an_error_and_no_bug(monkeypatch: pytest.MonkeyPatch, babble: str) -> None:
    assert problem(monkeypatch, f"print({babble!r})").kind is Kind.PROTOCOL


def test_a_worker_that_says_nothing_has_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem(monkeypatch, "").kind is Kind.PROTOCOL


def test_a_line_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "LONGEST_LINE", 1 << 16)
    assert problem(monkeypatch, "print('x' * (1 << 20))").kind is Kind.PROTOCOL


def test_a_worker_that_cannot_be_started_is_an_error_and_no_bug(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = str(tmp_path / "worker")
    monkeypatch.setattr(workers, "command", lambda: [missing])
    with pytest.raises(AgentError) as caught:
        asyncio.run(workers.check(Host(), Settings(), Request("libraries", NOW)))
    assert caught.value.kind is Kind.SPAWN and missing in caught.value.message


def test_those_that_a_worker_made_are_killed_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other readers of a scan: one may hang for ever, and holds what its worker held."""
    made = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {made!r}])"
    assert problem(monkeypatch, script, limit=2).kind is Kind.TIMED_OUT
    pid, end = (tmp_path / "pid").read_text(), time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < end
        time.sleep(0.02)
