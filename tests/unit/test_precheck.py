"""What has to hold before a restart: real files, and answers that systemd-analyze and policy-rc.d gave."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent.model.errors import AgentError, Kind
from agent.model.facts import Unit
from agent.model.restarts import Outcome, Result, Rule, Step
from agent.restart.configtest import Verdict
from agent.restart.precheck import Places, precheck
from agent.spawn import Done

TRUSTED = "/usr/bin/true"
"""Any program of root's: what it is asked is answered by the test."""
UNIT = Unit("a.service", invocation="1", main_pid=5)
UNMET = """a.service: AssertPathExists=/etc/hostname succeeded.
Asserts succeeded.
a.service: ConditionPathExists=/etc/a failed.
Conditions failed.
"""
TRIGGERED = """a.service: ConditionPathExists=|/usr/bin/dbus-broker failed.
a.service: ConditionPathExists=|/usr/bin/dbus-daemon succeeded.
Conditions succeeded.
"""


class Asked:
    """Answers by the program asked; remembers what was asked."""

    def __init__(self, **answers: Done | AgentError) -> None:
        self.answers = answers
        self.argv: list[tuple[str, ...]] = []

    async def __call__(self, argv: Sequence[str]) -> Done:
        self.argv.append(tuple(argv))
        answer = self.answers.get(Path(argv[0]).name.replace("-", "_"), Done((), 0, "", ""))
        if isinstance(answer, AgentError):
            raise answer
        return answer


def checked(unit: Unit | None, *dependants: Unit, places: Places | None = None) -> Outcome | None:
    units = {item.name: item for item in (unit, *dependants) if item}
    step = Step("a.service", Rule("*"), "1", 5, tuple(item.name for item in dependants), ())
    return asyncio.run(precheck(step, units, places or Places(run=Asked(), policy="/nonexistent")))


def refusal(unit: Unit, *dependants: Unit, places: Places | None = None) -> str:
    outcome = checked(unit, *dependants, places=places)
    assert outcome is not None and outcome.result is Result.PRECHECK_FAILED
    return outcome.hint


def with_verdict(verdict: Verdict, rule: Rule) -> Outcome | None:
    async def test(unit: str, commands: object, broken: object, run: object) -> Verdict:
        assert (unit, commands, broken) == ("a.service", rule.precheck, rule.broken)
        return verdict

    step = Step("a.service", rule, "1", 5, (), (), tests=(("a.service", rule),))
    places = Places(run=Asked(), test=test, policy="/nonexistent")
    return asyncio.run(precheck(step, {UNIT.name: UNIT}, places))


def test_a_unit_whose_configuration_is_broken_is_left_alone_with_file_and_line() -> None:
    rule = Rule("*", precheck=(("nginx", "-t"),), broken=("x",))
    outcome = with_verdict(Verdict(True, "unknown directive", "/etc/nginx/nginx.conf", "12"), rule)
    assert outcome and outcome.result is Result.PRECHECK_FAILED
    assert outcome.hint == "its configuration is broken: /etc/nginx/nginx.conf line 12: unknown directive"


@pytest.mark.parametrize("verdict", [Verdict(False), Verdict(None, "could not be told")])
def test_a_test_that_passes_or_tells_nothing_is_no_objection(verdict: Verdict) -> None:
    assert with_verdict(verdict, Rule("*", precheck=(("nginx", "-t"),))) is None


def test_a_running_unit_may_be_restarted() -> None:
    assert checked(UNIT) is None
    assert checked(replace(UNIT, active="reloading")) is None


@pytest.mark.parametrize(
    "unit",
    [
        None,
        replace(UNIT, load="not-found"),
        replace(UNIT, active="inactive"),
        replace(UNIT, active="failed"),
        replace(UNIT, active="deactivating"),
        replace(UNIT, job="12"),
    ],
)
def test_what_does_not_run_or_is_busy_has_nothing_to_restart(unit: Unit | None) -> None:
    outcome = checked(unit)
    assert outcome is not None and outcome.result is Result.NOT_RUN and outcome.hint


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"load": "masked", "can_start": False}, "masked"),
        ({"load": "bad-setting"}, "bad-setting"),
        ({"can_start": False}, "RefuseManualStart"),
        ({"can_stop": False}, "RefuseManualStop"),
        ({"needs_reload": True}, "daemon-reload"),
    ],
)
def test_what_could_not_be_started_again_is_not_stopped(changes: dict[str, object], word: str) -> None:
    assert word in refusal(replace(UNIT, **changes))


def test_its_programs_must_be_there_and_be_programs(tmp_path: Path) -> None:
    good, plain, folder, gone = (tmp_path / name for name in ("good", "plain", "folder", "gone"))
    good.touch(0o755)
    plain.touch(0o644)
    folder.mkdir(0o755)
    (tmp_path / "link").symlink_to(good)
    assert checked(replace(UNIT, programs=(str(good), str(tmp_path / "link"), "relative"))) is None
    for path in (plain, folder, gone):
        assert str(path) in refusal(replace(UNIT, programs=(str(good), str(path))))


def test_a_program_that_only_pid_1_can_see_is_there(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/app").touch(0o755)
    unit = replace(UNIT, programs=("/root/app",))
    places = Places(run=Asked(), policy="/nonexistent", views=("/nonexistent", str(tmp_path)))
    assert checked(unit, places=places) is None
    assert refusal(unit, places=replace(places, views=("/nonexistent",)))


def test_a_condition_that_does_not_hold_any_more_is_named() -> None:
    run = Asked(systemd_analyze=Done((), 1, UNMET, ""), systemd_run=Done((), 1, UNMET, ""))
    hint = refusal(UNIT, places=Places(run=run, policy="/nonexistent"))
    assert hint.endswith("ConditionPathExists=/etc/a failed.")


def test_a_condition_that_fails_only_in_our_sandbox_is_no_objection() -> None:
    run = Asked(systemd_analyze=Done((), 1, UNMET, ""), systemd_run=Done((), 0, "Conditions succeeded.\n", ""))
    assert checked(UNIT, places=Places(run=run, policy="/nonexistent")) is None
    analyze = ("systemd-analyze", "condition", "--unit=a.service")
    assert run.argv[0] == analyze and run.argv[1][-3:] == analyze


@pytest.mark.parametrize(
    "answer",
    [
        Done((), 0, TRIGGERED, ""),
        Done((), 1, "", "Unit a.service not found.\n"),
        AgentError(Kind.SPAWN, "systemd-analyze is not installed"),
    ],
)
def test_one_of_several_conditions_or_no_answer_is_no_objection(answer: Done | AgentError) -> None:
    run = Asked(systemd_analyze=answer, systemd_run=Done((), 1, UNMET, ""))
    assert checked(UNIT, places=Places(run=run, policy="/nonexistent")) is None


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        (0, True),
        (1, True),
        (104, True),
        (105, True),
        (100, True),
        (101, False),
        (102, False),
        (106, False),
        (-9, False),
    ],
)
def test_policy_rc_d_is_obeyed_as_invoke_rc_d_does(status: int, allowed: bool, tmp_path: Path) -> None:
    run = Asked(true=Done((), status, "", ""))
    places = Places(run=run, policy=TRUSTED, init_scripts=str(tmp_path))
    assert (checked(UNIT, places=places) is None) is allowed
    assert run.argv[-1] == (TRUSTED, "a", "restart")


def test_a_service_that_policy_rc_d_does_not_know_though_it_has_a_script_is_not_restarted(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    run = Asked(true=Done((), 100, "", ""))
    assert "100" in refusal(UNIT, places=Places(run=run, policy=TRUSTED, init_scripts=str(tmp_path)))


def test_a_policy_that_gives_no_answer_forbids() -> None:
    run = Asked(true=AgentError(Kind.TIMED_OUT, "did not end within 30 s"))
    assert "did not end" in refusal(UNIT, places=Places(run=run, policy=TRUSTED))


@pytest.mark.parametrize(("mode", "owner"), [(0o775, 0), (0o757, 0), (0o755, 1000), (0o644, 0)])
def test_a_policy_that_somebody_else_may_write_is_not_run(mode: int, owner: int, tmp_path: Path) -> None:
    path = tmp_path / "policy-rc.d"
    path.touch()
    path.chmod(mode)
    try:
        os.chown(path, owner, -1)
    except PermissionError:
        pytest.skip("only root can give a file away")
    run = Asked()
    assert checked(UNIT, places=Places(run=run, policy=str(path))) is None
    assert [argv for argv in run.argv if argv[0] == str(path)] == []


def test_dependants_have_to_be_able_to_come_back_as_well() -> None:
    broken = replace(UNIT, name="b.service", programs=("/nonexistent/b",))
    assert "b.service would go down with it" in refusal(UNIT, broken)
    assert "masked" in refusal(UNIT, replace(broken, load="masked", programs=()))


def test_what_is_no_obstacle_for_a_dependant() -> None:
    target = Unit("b.target", can_start=False, can_stop=False, programs=("/nonexistent",))
    by_itself = Unit("c.service", can_start=False, can_stop=False)
    down = Unit("d.service", active="inactive", programs=("/nonexistent",))
    assert checked(UNIT, target, by_itself, down) is None


def test_of_a_users_unit_nobody_is_asked() -> None:
    name = "user@7.service/a.service"
    asked = Asked()
    places = Places(run=asked, policy=TRUSTED)
    step = Step(name, Rule("*", precheck=(("true",),)), "1", 0, (), (), tests=((name, Rule("*", precheck=(("x",),))),))

    def outcome(unit: Unit) -> Outcome | None:
        return asyncio.run(precheck(step, {name: unit}, places))

    assert outcome(Unit(name, invocation="1")) is None
    for unit in (Unit(name, active="inactive"), Unit(name, job="aftercare-user-7-x.service")):
        found = outcome(unit)
        assert found and found.result is Result.NOT_RUN
    assert asked.argv == []
