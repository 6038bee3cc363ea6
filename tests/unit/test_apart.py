"""Checks that run apart: a burst of wake-ups makes one run, nothing is lost, and nothing runs all the time."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.checks.registry import CHECKS, Check
from agent.daemon import apart
from agent.daemon.apart import AFTER_TROUBLE, DEBOUNCE, MOST, PATIENCE, SPAN, Apart, soonest
from agent.model.errors import AgentError, Kind
from agent.model.events import Checked
from agent.model.findings import CheckResult
from agent.model.topics import Topic

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


class Scene:
    """Writes down when what is to be woken, and what was begun."""

    def __init__(self) -> None:
        self.wakes: dict[str, datetime | None] = {}
        self.begun: list[str] = []
        self.apart = Apart(self.wakes.__setitem__, self.begun.append)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(apart, "APART", frozenset({"mail"}))
    monkeypatch.setitem(CHECKS, "mail", Check("mail", frozenset({Topic.MAIL})))
    return Scene()


def test_a_burst_of_wake_ups_makes_one_run(scene: Scene) -> None:
    for _ in range(100):
        scene.apart.touch(Topic.MAIL, NOW)
    assert scene.wakes == {"check mail": NOW + DEBOUNCE}
    scene.apart.due("check mail", NOW + DEBOUNCE)
    assert scene.begun == ["mail"]


def test_what_moves_elsewhere_wakes_nobody(scene: Scene) -> None:
    scene.apart.touch(Topic.LINKING, NOW)
    assert not scene.wakes and not scene.apart.is_busy


def test_what_moves_during_a_run_makes_another(scene: Scene) -> None:
    scene.apart.touch(Topic.MAIL, NOW)
    scene.apart.due("check mail", NOW)
    scene.apart.touch(Topic.MAIL, NOW)
    scene.apart.due("check mail", NOW)
    assert scene.begun == ["mail"], "two runs of one check at once"
    scene.apart.ended(Checked("mail", CheckResult("mail", ())), NOW)
    assert scene.wakes["check mail"] == NOW + DEBOUNCE
    scene.apart.due("check mail", NOW + DEBOUNCE)
    assert scene.begun == ["mail", "mail"]


def test_what_looks_at_libraries_waits_until_dpkg_is_done(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, "mail", Check("mail", frozenset({Topic.LINKING})))
    scene.apart.touch(Topic.LINKING, NOW)
    scene.apart.due("check mail", NOW, unpacking=True)
    assert not scene.begun and scene.apart.is_busy and scene.wakes["check mail"] == NOW + PATIENCE
    scene.apart.due("check mail", NOW + PATIENCE)
    assert scene.begun == ["mail"]


def test_others_do_not_wait_for_dpkg(scene: Scene) -> None:
    scene.apart.due("check mail", NOW, unpacking=True)
    assert scene.begun == ["mail"]


def test_a_check_is_run_again_when_it_wants_to_be_and_sooner_where_it_failed(scene: Scene) -> None:
    scene.apart.due("check mail", NOW)
    scene.apart.ended(Checked("mail", CheckResult("mail", (), again_at=NOW + SPAN)), NOW)
    assert scene.wakes["again mail"] == NOW + SPAN
    scene.apart.due("again mail", NOW + SPAN)
    assert scene.wakes["check mail"] == NOW + SPAN + DEBOUNCE, "it passed by the limit on runs"
    scene.apart.due("check mail", NOW + SPAN)
    scene.apart.ended(Checked("mail", problem=AgentError(Kind.TIMED_OUT, "no")), NOW + SPAN)
    assert scene.wakes["again mail"] == NOW + SPAN + AFTER_TROUBLE


def test_it_is_busy_from_the_first_wake_up_to_the_end(scene: Scene) -> None:
    scene.apart.touch(Topic.MAIL, NOW)
    assert scene.apart.is_busy
    scene.apart.due("check mail", NOW)
    assert scene.apart.is_busy
    scene.apart.ended(Checked("mail", CheckResult("mail", ())), NOW)
    assert not scene.apart.is_busy


def test_no_check_runs_more_than_so_many_times_a_minute() -> None:
    begun = [NOW - timedelta(seconds=30 - number) for number in range(MOST)]
    assert soonest(begun[1:], NOW) == NOW + DEBOUNCE
    assert soonest(begun, NOW) == begun[0] + SPAN
    assert soonest(begun, NOW + SPAN) == NOW + SPAN + DEBOUNCE
