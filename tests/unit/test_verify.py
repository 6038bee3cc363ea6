"""The verdict on one restart."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.model.facts import StaleProcess, Unit
from agent.model.restarts import Outcome, Result, Rule, Step
from agent.restart.verify import Seen, judge

STEP = Step("a.service", Rule("*", limit=30.0), "old", 5, ("b.service", "c.target"), ())
UP = Unit("a.service", invocation="new", main_pid=6)
DEPENDANTS = {"b.service": Unit("b.service"), "c.target": Unit("c.target")}
STALE = (StaleProcess(9, datetime(2026, 11, 20, tzinfo=UTC), "/usr/sbin/x", "x", 0, ()),)
FRESH = Seen(UP, UP, DEPENDANTS, ())
DEAD = replace(UP, active="failed", result="exit-code")


def test_fresh_needs_all_of_it() -> None:
    assert judge(STEP, replace(FRESH, took=(("job", 0.5),))) == Outcome("a.service", Result.FRESH, (("job", 0.5),))


@pytest.mark.parametrize(
    ("seen", "result"),
    [
        (replace(FRESH, first=DEAD, last=DEAD), Result.FAILED),
        (replace(FRESH, last=DEAD), Result.DIED_AFTER),
        (replace(FRESH, first=replace(UP, invocation="old"), last=DEAD), Result.FAILED),
        (replace(FRESH, last=replace(UP, invocation="newer")), Result.DIED_AFTER),
        (replace(FRESH, last=replace(DEAD, invocation="newer")), Result.FAILED),
        (replace(FRESH, last=replace(UP, active="activating")), Result.DIED_AFTER),
        (replace(FRESH, first=DEAD, last=replace(UP, active="activating")), Result.FAILED),
        (replace(FRESH, first=DEAD, last=replace(DEAD, result="start-limit-hit")), Result.START_LIMIT),
        (replace(FRESH, first=None, last=replace(UP, active="deactivating", job="4")), Result.TIMED_OUT),
        (replace(FRESH, first=None, last=None), Result.TIMED_OUT),
        (replace(FRESH, first=replace(UP, invocation="old"), last=replace(UP, invocation="old")), Result.NOT_RUN),
        (
            replace(
                FRESH,
                first=replace(UP, active="inactive", invocation=""),
                last=replace(UP, active="inactive", invocation=""),
            ),
            Result.FAILED,
        ),
        (replace(FRESH, dependants={"b.service": Unit("b.service")}), Result.DEPENDANT_DOWN),
        (
            replace(FRESH, dependants={**DEPENDANTS, "b.service": Unit("b.service", active="inactive")}),
            Result.DEPENDANT_DOWN,
        ),
        (replace(FRESH, first=None, dependants={}), Result.DEPENDANT_DOWN),
        (replace(FRESH, stale=STALE), Result.LEFTOVER),
        (replace(FRESH, stale=None), Result.LEFTOVER),
        (replace(FRESH, last=replace(UP, active="reloading")), Result.FRESH),
    ],
)
def test_each_way_to_fall_short_has_its_own_name_and_a_hint(seen: Seen, result: Result) -> None:
    outcome = judge(STEP, seen)
    assert outcome.result is result
    assert bool(outcome.hint) == (result is not Result.FRESH)


def test_leftovers_are_named() -> None:
    assert judge(STEP, replace(FRESH, stale=STALE)).leftovers == ("x (9, uid 0)",)
    at_home = replace(STALE[0], tty="pts/3", user="alice")
    assert judge(STEP, replace(FRESH, stale=(at_home,))).leftovers == ("x (9, alice, pts/3)",)
    assert judge(STEP, replace(FRESH, last=DEAD, stale=STALE)).leftovers == ()
    down = {**DEPENDANTS, "b.service": Unit("b.service", active="failed")}
    assert judge(STEP, replace(FRESH, dependants=down)).leftovers == ("b.service",)


def test_a_unit_that_has_no_invocation_was_not_started_anew() -> None:
    """systemd 257 forgets the invocation of a unit whose condition failed."""
    gone = replace(UP, invocation="")
    assert judge(STEP, replace(FRESH, first=gone, last=gone)).result is Result.NOT_RUN


def test_the_hint_after_a_start_limit_is_what_has_to_be_typed() -> None:
    hint = judge(STEP, replace(FRESH, last=replace(DEAD, result="start-limit-hit"))).hint
    assert "systemctl reset-failed a.service && systemctl start a.service" in hint


HIS = Unit("user@7.service/a.service", invocation="new")
GONE = replace(HIS, active="inactive", invocation="")
SAME = replace(HIS, invocation="old")


@pytest.mark.parametrize(
    ("seen", "result"),
    [
        (Seen(HIS, HIS, {}, ()), Result.FRESH),
        (Seen(HIS, HIS, {}, STALE), Result.LEFTOVER),
        (Seen(HIS, HIS, {}, None), Result.LEFTOVER),
        (Seen(SAME, SAME, {}, STALE), Result.LEFTOVER),
        (Seen(SAME, SAME, {}, ()), Result.FRESH),
        (Seen(GONE, GONE, {}, ()), Result.FAILED),
        (Seen(None, GONE, {}, ()), Result.FAILED),
        (Seen(HIS, GONE, {}, ()), Result.DIED_AFTER),
        (Seen(HIS, replace(HIS, invocation="newer"), {}, ()), Result.DIED_AFTER),
        (Seen(None, replace(SAME, job="asked.service"), {}, STALE), Result.TIMED_OUT),
        (Seen(None, replace(GONE, job="asked.service"), {}, ()), Result.TIMED_OUT),
        (Seen(None, None, {}, ()), Result.TIMED_OUT),
        (Seen(HIS, HIS, {}, (), ailment="no answer"), Result.PROBE_FAILED),
    ],
)
def test_a_users_unit_is_judged_by_its_processes_alone(seen: Seen, result: Result) -> None:
    step = Step(HIS.name, Rule("*", limit=30.0), "old", 0, (), ())
    outcome = judge(step, seen)
    assert outcome.result is result
    assert bool(outcome.hint) == (result is not Result.FRESH)
    if result not in (Result.FRESH, Result.PROBE_FAILED) and seen.stale is not None and seen.last is not HIS:
        assert outcome.hint.endswith("--setenv=XDG_RUNTIME_DIR=/run/user/7 systemctl --user status a.service")


def test_whoever_did_not_restart_it_is_not_systemd() -> None:
    step = Step(HIS.name, Rule("*"), "old", 0, (), ())
    outcome = judge(step, Seen(SAME, SAME, {}, STALE))
    assert "did not restart it" in outcome.hint and outcome.leftovers == ("x (9, uid 0)",)
