"""Carrying plans out: against a small systemd that is itself held against recordings of the real one."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.host.units import parse_show
from agent.model.errors import AgentError, Kind
from agent.model.facts import StaleProcess, Unit
from agent.model.probes import Probe, Way
from agent.model.restarts import MANAGER, Attempt, Outcome, Performed, Plan, Result, Rule, Step, Wave, brake_after
from agent.model.users import UserUnit
from agent.restart.execute import Hands, execute, resume
from agent.restart.plan import USERS_WAVE, make_step
from agent.restart.precheck import Places, precheck
from agent.spawn import Done
from tests.unit.small_systemd import Sketch, SmallSystemd

DATA = Path(__file__).parents[1] / "data/systemctl"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
PROCESS = StaleProcess(7, NOW, "/usr/sbin/x", "x", 0, ())


class Crash(BaseException):
    """The daemon is killed."""


@dataclass
class Daemon:
    """What the daemon hands in, over a small systemd. `crash_at`: the effect that it does not survive.

    after: it dies when the effect is done rather than before. What is in `attempts` and `outcomes` is on
    disk.
    """

    systemd: SmallSystemd
    crash_at: int = 0
    after: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    effects: int = 0
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    noted_at: dict[str, float] = field(default_factory=dict)
    commands: list[tuple[str, ...]] = field(default_factory=list)
    rechecks: int = 0
    leftover: frozenset[str] = frozenset()
    blind: bool = False
    closed: Callable[[], str] = lambda: ""
    policy: Mapping[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = self.before or {name: unit.invocation for name, unit in self.systemd.units.items()}

    def hands(self) -> Hands:
        return Hands(
            units=self._async(self.systemd.show),
            journal=self._async(self._journal),
            shutting_down=self._async(self._shutting_down),
            jobs_queued=self._async(self._jobs),
            recheck=self._async(self._recheck),
            note_attempt=self._effect(self._note_attempt),
            note_outcome=self._effect(self._note_outcome),
            may_go_on=self._effect(lambda: self.closed()),
            tell=self._effect(lambda kind, **fields: self.told.append((kind, fields))),
            precheck=partial(precheck, places=Places(run=self._async(self._analyze), policy="/nonexistent")),
            run=self._async(self._run),
            clock=lambda: self.systemd.now,
            sleep=self._async(self.systemd.sleep),
        )

    @property
    def unended(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.id not in self.outcomes]

    def results(self) -> dict[str, Result]:
        return {attempt.unit: self.outcomes[attempt.id].result for attempt in self.attempts}

    def _effect(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def act_or_crash(*arguments: Any, **fields: Any) -> Any:
            self.effects += 1
            if self.effects == self.crash_at and not self.after:
                raise Crash
            value = act(*arguments, **fields)
            if self.effects == self.crash_at:
                raise Crash
            return value

        return act_or_crash

    def _async(self, act: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def act_or_crash(*arguments: Any) -> Any:
            self.effects += 1
            mine = self.effects
            if mine == self.crash_at and not self.after:
                raise Crash
            value = await act(*arguments)
            if mine == self.crash_at:
                raise Crash
            return value

        return act_or_crash

    async def _run(self, argv: Sequence[str]) -> Done:
        """systemctl asks for one job after the other, so it can be killed between two of them as well."""
        self.commands.append(tuple(argv))
        if argv[0] == "systemd-run":
            await self._async(self.systemd.run)(argv)
            return Done(tuple(argv), 0, "", "")
        for name in argv[4:]:
            await self._async(self.systemd.run)((*argv[:4], name))
        return Done(tuple(argv), 0, "", "") if argv[4:] else await self.systemd.run(argv)

    async def _analyze(self, argv: Sequence[str]) -> Done:
        unit = argv[-1].removeprefix("--unit=")
        said = self.policy.get(unit, "")
        return Done(tuple(argv), bool(said), f"{unit}: {said} failed.\nConditions failed.\n" if said else "", "")

    async def _journal(self, unit: str, invocation: str) -> tuple[str, ...]:
        return (f"{unit} {invocation} said",)

    async def _shutting_down(self) -> bool:
        return self.systemd.shutting_down

    async def _jobs(self) -> int:
        return self.systemd.jobs()

    async def _recheck(self) -> dict[str, tuple[StaleProcess, ...]]:
        self.rechecks += 1
        self.systemd.pass_time(0.8)
        if self.blind or self.systemd.now < self.systemd.deaf_until:
            raise AgentError(Kind.TIMED_OUT, "the worker did not end")
        old = {name for name, unit in self.systemd.units.items() if unit.invocation == self.before.get(name)}
        manager = set() if self.systemd.reexecuted else {MANAGER}
        return dict.fromkeys(old | manager | self.leftover, (PROCESS,))

    def _note_attempt(self, step: Step) -> Attempt:
        attempt = Attempt(len(self.attempts) + 1, 5, step.unit, step.invocation_before, NOW, pulls=step.pulls)
        self.attempts.append(attempt)
        return attempt

    def _note_outcome(self, attempt: Attempt, outcome: Outcome) -> None:
        assert attempt.id not in self.outcomes, f"{attempt.unit} got a second outcome"
        self.outcomes[attempt.id] = outcome
        self.noted_at[attempt.unit] = self.systemd.now


def plan_of(systemd: SmallSystemd, *waves: tuple[str, ...], manager: bool = False, rule: Rule = Rule("*")) -> Plan:
    units = asyncio.run(systemd.show(()))
    steps = [tuple(make_step(units[name], units, (rule,)) for name in wave) for wave in waves]
    return Plan(5, tuple(Wave(number, wave) for number, wave in enumerate(steps)), manager=manager)


def carried_out(daemon: Daemon, plan: Plan) -> dict[str, Outcome]:
    performed = asyncio.run(execute(plan, daemon.hands()))
    outcomes, held = performed.outcomes, performed.held
    assert not held
    assert daemon.unended == []
    assert {attempt.unit: daemon.outcomes[attempt.id] for attempt in daemon.attempts} == {o.unit: o for o in outcomes}
    return {outcome.unit: outcome for outcome in outcomes}


# -- the small systemd is like the real one --------------------------------------------------------

Row = tuple[tuple[str, bool, int, str], ...]
RECORDED = {
    "slow": (Sketch("rec-slow.service", stop=0.61, start=0.61),),
    "dependants": (
        Sketch("rec-base.service", ("rec-middle.service",), 0.61, 0.61),
        Sketch("rec-middle.service", ("rec-top.service",), 0.61, 0.61),
        Sketch("rec-top.service", (), 0.61, 0.61),
    ),
    "fails": (Sketch("rec-fails.service", (), 0, 0, "fails"),),
    "dies": (Sketch("rec-dies.service", (), 0, 0, "dies"),),
    "condition": (Sketch("rec-condition.service", (), 0, 0, "condition"),),
    "masked": (Sketch("rec-masked.service", (), 0, 0, load="masked"),),
    "limit": (Sketch("rec-limit.service", (), 0, 0, "limit"),),
    "always": (Sketch("rec-always.service", (), 0, 0, "always"),),
    "child-stays-down": (
        Sketch("rec-parent.service", ("rec-child.service",), 0, 0),
        Sketch("rec-child.service", (), 0, 0, "condition"),
    ),
}
STEADY = 0.1


def steady(samples: list[tuple[float, list[Unit]]]) -> list[Row]:
    """Return the states that lasted, invocations as numbers in order of appearance (-1: none)."""
    seen: dict[str, list[str]] = {}
    rows: list[tuple[float, Row]] = []
    for at, units in samples:
        for unit in units:
            known = seen.setdefault(unit.name, [""])
            known += [unit.invocation] if unit.invocation not in known else []
        row = tuple((u.active, bool(u.job), seen[u.name].index(u.invocation) - 1, u.result) for u in units)
        rows += [(at, row)] if not rows or rows[-1][1] != row else []
    ends = [at for at, _ in rows[1:]] + [float("inf")]
    kept = [row for (at, row), end in zip(rows, ends, strict=True) if end - at > STEADY or at == rows[0][0]]
    return [row for number, row in enumerate(kept) if number == 0 or row != kept[number - 1]]


def recorded(version: str, scenario: str) -> list[tuple[float, list[Unit]]]:
    text = (DATA / f"restart-{version}.txt").read_text()
    (part,) = [part for part in text.split("=== ") if part.startswith(f"{scenario}\n")]
    samples = []
    for block in part.split("--- ")[1:]:
        title, _, body = block.partition("\n")
        if title.endswith(" ms"):
            samples.append((int(title.removesuffix(" ms")) / 1000, list(parse_show(body).values())))
    return samples


@pytest.mark.parametrize("version", ["252", "257"])
@pytest.mark.parametrize("scenario", RECORDED)
def test_the_small_systemd_goes_through_the_states_that_the_real_one_was_recorded_in(
    version: str, scenario: str
) -> None:
    real = recorded(version, scenario)
    systemd = SmallSystemd(*(replace(sketch) for sketch in RECORDED[scenario]))
    samples = [(systemd.now, list(asyncio.run(systemd.show(list(systemd.units))).values()))]
    systemd.try_restart(real[0][1][0].name)
    for _ in range(700):
        systemd.pass_time(0.01)
        samples.append((systemd.now, list(asyncio.run(systemd.show(list(systemd.units))).values())))
    small, expected = steady(samples), steady(real)
    if (version, scenario) == ("257", "always"):  # 257 counted the start by hand as well: one round less
        small = [small[0], small[1], small[2], tuple(("failed", False, 2, "exit-code") for _ in small[-1])]
    assert small == expected


# -- waves -----------------------------------------------------------------------------------------


def test_each_wave_is_one_command_and_begins_when_the_one_before_is_proven() -> None:
    systemd = SmallSystemd(Sketch("a.service"), Sketch("b.service"), Sketch("c.service", start=3.0))
    daemon = Daemon(systemd)
    outcomes = carried_out(daemon, plan_of(systemd, ("a.service", "b.service"), ("c.service",)))
    assert {outcome.result for outcome in outcomes.values()} == {Result.FRESH}
    ask = ("systemctl", "--no-block", "try-restart", "--")
    assert daemon.commands == [(*ask, "a.service", "b.service"), (*ask, "c.service")]
    assert daemon.rechecks == 2
    assert systemd.starts == {"a.service": 1, "b.service": 1, "c.service": 1}
    assert [fields["unit"] for kind, fields in daemon.told] == ["a.service", "b.service", "c.service"]


def test_a_dependant_that_is_stale_too_gets_no_job_of_its_own_and_is_started_once() -> None:
    systemd = SmallSystemd(Sketch("base.service", ("top.service",), 0, 0), Sketch("top.service", (), 0, 1.0))
    daemon = Daemon(systemd)
    outcomes = carried_out(daemon, plan_of(systemd, ("base.service", "top.service")))
    assert {outcome.result for outcome in outcomes.values()} == {Result.FRESH}
    assert daemon.commands[0][4:] == ("base.service",)
    assert systemd.starts == {"base.service": 1, "top.service": 1}


def test_units_that_pull_each_other_are_still_restarted() -> None:
    systemd = SmallSystemd(Sketch("a.service", ("b.service",)), Sketch("b.service", ("a.service",)))
    plan = plan_of(systemd, ("a.service", "b.service"))
    daemon = Daemon(SmallSystemd(Sketch("a.service", ("b.service",)), Sketch("b.service")))
    assert {outcome.result for outcome in carried_out(daemon, plan).values()} == {Result.FRESH}


def test_a_unit_that_somebody_restarted_since_the_plan_is_proven_and_not_restarted_again() -> None:
    systemd = SmallSystemd(Sketch("a.service"))
    daemon = Daemon(systemd)
    plan = plan_of(systemd, ("a.service",))
    systemd.try_restart("a.service")
    systemd.pass_time(1)
    assert carried_out(daemon, plan)["a.service"].result is Result.FRESH
    assert daemon.commands == []
    assert systemd.starts == {"a.service": 1}


def test_a_slow_unit_does_not_hold_up_the_verdict_on_the_others() -> None:
    systemd = SmallSystemd(Sketch("quick.service"), Sketch("slow.service", stop=90.0))
    daemon = Daemon(systemd)
    outcomes = carried_out(daemon, plan_of(systemd, ("quick.service", "slow.service")))
    assert {outcome.result for outcome in outcomes.values()} == {Result.FRESH}
    assert daemon.noted_at["quick.service"] < 6
    assert daemon.noted_at["slow.service"] > 90


def test_units_that_settle_at_about_the_same_time_are_proven_by_one_check() -> None:
    systemd = SmallSystemd(Sketch("a.service"), Sketch("b.service", stop=1.0), Sketch("c.service", stop=3.5))
    daemon = Daemon(systemd)
    carried_out(daemon, plan_of(systemd, ("a.service", "b.service", "c.service")))
    assert daemon.rechecks == 2, "a and b together; c's job was still under way when they had settled"


def test_a_dependant_that_takes_its_time_is_waited_for() -> None:
    systemd = SmallSystemd(Sketch("base.service", ("top.service",)), Sketch("top.service", start=15.0))
    outcome = carried_out(Daemon(systemd), plan_of(systemd, ("base.service",)))["base.service"]
    assert outcome.result is Result.FRESH


def test_a_unit_that_does_not_end_in_time_is_left_to_systemd_and_delays_nobody_else() -> None:
    systemd = SmallSystemd(Sketch("hangs.service", stop=1000.0), Sketch("next.service"))
    daemon = Daemon(systemd)
    outcomes = carried_out(daemon, plan_of(systemd, ("hangs.service", "next.service"), rule=Rule("*", limit=30.0)))
    assert outcomes["hangs.service"].result is Result.TIMED_OUT
    assert "30 s" in outcomes["hangs.service"].hint
    assert outcomes["next.service"].result is Result.FRESH
    assert 30 <= daemon.noted_at["hangs.service"] < 31
    assert daemon.noted_at["next.service"] < 10


@pytest.mark.parametrize("later", [{"manager": True}, {}])
def test_a_unit_that_does_not_come_back_stops_the_waves_after_it(later: dict[str, bool]) -> None:
    systemd = SmallSystemd(Sketch("bad.service", fate="fails"), Sketch("good.service"), Sketch("next.service"))
    daemon = Daemon(systemd)
    waves = [("bad.service", "good.service"), *([] if later else [("next.service",)])]
    performed = asyncio.run(execute(plan_of(systemd, *waves, **later), daemon.hands()))
    assert [outcome.unit for outcome in performed.outcomes] == ["bad.service", "good.service"]
    assert performed.outcomes[1].result is Result.FRESH
    assert performed.held == "bad.service (failed) did not come back"


def test_nothing_is_held_where_nothing_comes_after_a_unit_that_failed() -> None:
    systemd = SmallSystemd(Sketch("bad.service", fate="fails"))
    assert asyncio.run(execute(plan_of(systemd, ("bad.service",)), Daemon(systemd).hands())).held == ""


@pytest.mark.parametrize(
    ("fate", "result"),
    [
        ("fails", Result.FAILED),
        ("dies", Result.DIED_AFTER),
        ("always", Result.FAILED),
        ("limit", Result.START_LIMIT),
        ("condition", Result.FAILED),
    ],
)
def test_a_unit_that_does_not_come_back_gets_its_own_verdict_and_its_last_words(fate: str, result: Result) -> None:
    systemd = SmallSystemd(Sketch("bad.service", fate=fate), Sketch("good.service"))
    daemon = Daemon(systemd)
    outcomes = carried_out(daemon, plan_of(systemd, ("bad.service", "good.service")))
    assert outcomes["bad.service"].result is result
    assert outcomes["bad.service"].journal == (f"bad.service {systemd.units['bad.service'].invocation} said",)
    assert outcomes["bad.service"].hint
    assert outcomes["good.service"].result is Result.FRESH
    assert outcomes["good.service"].journal == ()


def test_the_verdict_on_a_unit_that_failed_does_not_wait_for_its_settle_time() -> None:
    systemd = SmallSystemd(Sketch("bad.service", fate="fails"))
    daemon = Daemon(systemd)
    carried_out(daemon, plan_of(systemd, ("bad.service",), rule=Rule("*", settle=300.0)))
    assert daemon.noted_at["bad.service"] < 2


def test_a_dependant_that_stays_down_is_the_verdict_and_speaks() -> None:
    systemd = SmallSystemd(Sketch("base.service", ("top.service",)), Sketch("top.service", fate="fails"))
    outcome = carried_out(Daemon(systemd), plan_of(systemd, ("base.service",)))["base.service"]
    assert outcome.result is Result.DEPENDANT_DOWN
    assert "systemctl start top.service" in outcome.hint
    assert outcome.journal[0].startswith("top.service ")


def test_what_a_precheck_refuses_is_written_down_and_left_alone() -> None:
    systemd = SmallSystemd(Sketch("no.service", load="masked"), Sketch("yes.service"), Sketch("gone.service"))
    daemon = Daemon(systemd, policy={"yes.service": ""})
    plan = plan_of(systemd, ("no.service", "yes.service", "gone.service"))
    systemd.units["gone.service"].active = "inactive"
    outcomes = carried_out(daemon, plan)
    assert outcomes["no.service"].result is Result.PRECHECK_FAILED
    assert outcomes["gone.service"].result is Result.NOT_RUN
    assert outcomes["yes.service"].result is Result.FRESH
    assert systemd.starts == {"yes.service": 1}


def test_a_unit_is_not_restarted_when_its_dependant_could_not_come_back() -> None:
    systemd = SmallSystemd(Sketch("base.service", ("top.service",)), Sketch("top.service"))
    daemon = Daemon(systemd, policy={"top.service": "ConditionPathExists=/etc/top.conf"})
    outcome = carried_out(daemon, plan_of(systemd, ("base.service",)))["base.service"]
    assert outcome.result is Result.PRECHECK_FAILED
    assert "top.service would go down" in outcome.hint and "/etc/top.conf" in outcome.hint
    assert systemd.starts == {}


def test_what_outlives_its_restart_is_a_leftover() -> None:
    systemd = SmallSystemd(Sketch("a.service"))
    outcome = carried_out(Daemon(systemd, leftover=frozenset({"a.service"})), plan_of(systemd, ("a.service",)))
    assert outcome["a.service"].result is Result.LEFTOVER
    assert outcome["a.service"].leftovers == ("x (7, uid 0)",)


def test_a_unit_that_runs_and_does_not_answer_is_not_called_well() -> None:
    systemd = SmallSystemd(Sketch("a.service"), Sketch("b.service"))
    asked: list[Probe] = []

    async def ask(target: Probe) -> str:
        asked.append(target)
        return "tcp:localhost:80: no answer within 5 s"

    target = Probe(Way.TCP, "localhost", 80)
    daemon = Daemon(systemd)
    plan = plan_of(systemd, ("a.service",), ("b.service",), rule=Rule("*", probe=target))
    performed = asyncio.run(execute(plan, replace(daemon.hands(), probe=ask)))
    (outcome,) = performed.outcomes
    assert outcome.result is Result.PROBE_FAILED and "no answer within 5 s" in outcome.hint
    assert asked == [target]
    assert performed.held.startswith("a.service (probe-failed)")


def test_each_stage_that_there_was_is_recorded_with_its_time() -> None:
    """The test of the configuration before the job, and the probe after the settle time, are none of either."""
    systemd = SmallSystemd(Sketch("a.service"), Sketch("b.service"), Sketch("no.service"))

    async def check(step: Step, units: Mapping[str, Unit]) -> Outcome | None:
        await systemd.sleep(3.0)
        return Outcome(step.unit, Result.PRECHECK_FAILED) if step.unit == "no.service" else None

    async def ask(target: Probe) -> str:
        await systemd.sleep(4.0)
        return ""

    plan = plan_of(systemd, ("a.service", "no.service"), rule=Rule("*", probe=Probe(Way.TCP, "localhost", 80)))
    (wave,) = plan.waves
    plan = replace(plan, waves=(replace(wave, steps=tuple(replace(s, tests=(s.unit,)) for s in wave.steps)),))
    untested = plan_of(systemd, ("b.service",))
    hands = replace(Daemon(systemd).hands(), precheck=check, probe=ask)
    outcomes = {done.unit: done for one in (plan, untested) for done in asyncio.run(execute(one, hands)).outcomes}
    tested = dict(outcomes["a.service"].took)
    assert list(tested) == ["precheck", "job", "settle", "probe", "recheck"]
    assert tested["precheck"] >= 3.0 and tested["probe"] >= 4.0 and tested["job"] + tested["settle"] < 4.0
    assert [stage for stage, _ in outcomes["no.service"].took] == ["precheck"]
    assert [stage for stage, _ in outcomes["b.service"].took] == ["job", "settle", "recheck"]


def test_a_unit_that_is_down_is_not_asked() -> None:
    systemd = SmallSystemd(Sketch("a.service", fate="fails"))

    async def ask(target: Probe) -> str:
        raise AssertionError("it was asked")

    plan = plan_of(systemd, ("a.service",), rule=Rule("*", probe=Probe(Way.TCP, "localhost", 80)))
    (outcome,) = asyncio.run(execute(plan, replace(Daemon(systemd).hands(), probe=ask))).outcomes
    assert outcome.result is Result.FAILED


def test_freshness_that_could_not_be_checked_is_not_called_fresh() -> None:
    systemd = SmallSystemd(Sketch("a.service"))
    outcomes = carried_out(Daemon(systemd, blind=True), plan_of(systemd, ("a.service",), manager=True))
    assert {outcome.result for outcome in outcomes.values()} == {Result.LEFTOVER}


def test_no_wave_begins_while_a_transaction_is_open_and_begun_jobs_finish() -> None:
    systemd = SmallSystemd(Sketch("a.service"), Sketch("b.service"))
    daemon = Daemon(systemd)
    daemon.closed = lambda: "a package transaction is under way" if daemon.attempts else ""
    plan = plan_of(systemd, ("a.service",), ("b.service",), manager=True)
    performed = asyncio.run(execute(plan, daemon.hands()))
    outcomes, held = performed.outcomes, performed.held
    assert held == "a package transaction is under way"
    assert [(outcome.unit, outcome.result) for outcome in outcomes] == [("a.service", Result.FRESH)]
    assert systemd.starts == {"a.service": 1}
    assert [attempt.unit for attempt in daemon.attempts] == ["a.service"]


def test_nothing_begins_while_the_system_shuts_down_or_does_not_answer() -> None:
    systemd = SmallSystemd(Sketch("a.service"))
    plan = plan_of(systemd, ("a.service",))
    systemd.deaf_until = 100.0
    assert asyncio.run(execute(plan, Daemon(systemd).hands())).held == "systemd does not answer"
    systemd.deaf_until, systemd.shutting_down = 0.0, True
    assert asyncio.run(execute(plan, Daemon(systemd).hands())) == Performed((), "the system is shutting down")
    assert systemd.starts == {}


# -- PID 1 -----------------------------------------------------------------------------------------


def test_pid_1_is_reexecuted_last_and_once_no_job_is_left() -> None:
    systemd = SmallSystemd(Sketch("a.service"), Sketch("slow.service", stop=20.0))
    daemon = Daemon(systemd)
    plan = plan_of(systemd, ("a.service",), manager=True)
    systemd.try_restart("slow.service")
    outcomes = carried_out(daemon, plan)
    assert outcomes[MANAGER].result is Result.FRESH
    assert daemon.commands[-1] == ("systemctl", "daemon-reexec")
    assert systemd.now > 20


def test_pid_1_stays_as_it_is_while_jobs_do_not_end() -> None:
    systemd = SmallSystemd(Sketch("slow.service", stop=900.0))
    plan = plan_of(systemd, manager=True)
    systemd.try_restart("slow.service")
    assert carried_out(Daemon(systemd), plan)[MANAGER].result is Result.NOT_RUN
    assert systemd.reexecuted == 0


def test_a_systemd_that_does_not_answer_after_its_reexecution_is_reported() -> None:
    systemd = SmallSystemd()
    daemon = Daemon(systemd)
    systemd.deaf_for = 1e6
    assert carried_out(daemon, plan_of(systemd, manager=True))[MANAGER].result is Result.TIMED_OUT


def test_pid_1_that_runs_replaced_code_after_its_reexecution_is_a_leftover() -> None:
    systemd = SmallSystemd()
    daemon = Daemon(systemd, leftover=frozenset({MANAGER}))
    assert carried_out(daemon, plan_of(systemd, manager=True))[MANAGER].result is Result.LEFTOVER
    assert systemd.reexecuted == 1


# -- units of users' own ---------------------------------------------------------------------------

MAIL = "user@1000.service/mail@a\\x2db.service"
CHAT = "user@1001.service/chat.service"


def with_users(systemd: SmallSystemd, *theirs: str, manager: bool = True, limit: float = 30.0) -> Plan:
    """Return the plan for what the system has, and for these units of users in the last wave."""
    own = tuple(name for name in systemd.units if name not in theirs)
    plan = plan_of(systemd, own, theirs, manager=manager, rule=Rule("*/*", limit=limit))
    waves = [replace(wave, number=USERS_WAVE if wave.number else 50) for wave in plan.waves]
    return replace(plan, waves=tuple(waves))


def test_a_users_unit_is_restarted_by_his_own_manager_as_that_user_in_a_unit_that_ends_in_time() -> None:
    systemd = SmallSystemd(Sketch("a.service"), Sketch(MAIL))
    daemon = Daemon(systemd)
    assert {item.result for item in carried_out(daemon, with_users(systemd, MAIL)).values()} == {Result.FRESH}
    assert systemd.starts == {"a.service": 1, MAIL: 1}
    (argv,) = [argv for argv in daemon.commands if argv[0] == "systemd-run"]
    name = "mail@a\\x2db.service"
    assert argv[argv.index("--") :] == ("--", "/usr/bin/systemctl", "--user", "try-restart", "--", name)
    doubled = name.replace("\\", "\\\\")
    wanted = {
        "--no-block",
        "--collect",
        "--uid=1000",
        "--slice=user-1000.slice",
        "--setenv=XDG_RUNTIME_DIR=/run/user/1000",
        f"--unit={UserUnit(1000, name).job}",
        "--property=TimeoutStartSec=35",
        "--property=NoNewPrivileges=yes",
        "--property=CapabilityBoundingSet=",
        "--property=StandardOutput=null",
        "--property=TasksMax=64",
        f"--property=ExecCondition=/usr/bin/systemctl --user --quiet is-active -- {doubled}",
    }
    assert wanted <= set(argv)


def test_users_units_come_after_pid_1_and_each_gets_its_own_verdict_in_its_own_time() -> None:
    systemd = SmallSystemd(Sketch("a.service"), Sketch(MAIL, stop=1000.0), Sketch(CHAT))
    daemon = Daemon(systemd)
    outcomes = carried_out(daemon, with_users(systemd, MAIL, CHAT))
    assert {name: outcome.result for name, outcome in outcomes.items()} == {
        "a.service": Result.FRESH,
        MANAGER: Result.FRESH,
        CHAT: Result.FRESH,
        MAIL: Result.TIMED_OUT,
    }
    assert daemon.noted_at["a.service"] < daemon.noted_at[MANAGER] < daemon.noted_at[CHAT] < 20
    assert daemon.noted_at[MAIL] < daemon.noted_at[MANAGER] + 32
    assert "after 30 s" in outcomes[MAIL].hint and "--uid=1000" in outcomes[MAIL].hint


@pytest.mark.parametrize(("fate", "result"), [("fails", Result.FAILED), ("dies", Result.DIED_AFTER)])
def test_a_users_unit_that_does_not_come_back_stops_nothing(fate: str, result: Result) -> None:
    systemd = SmallSystemd(Sketch(MAIL, fate=fate), Sketch(CHAT))
    daemon = Daemon(systemd)
    outcomes = carried_out(daemon, with_users(systemd, MAIL, CHAT, manager=False))
    assert (outcomes[MAIL].result, outcomes[CHAT].result) == (result, Result.FRESH)
    assert outcomes[MAIL].journal, "its last words are asked for"
    assert not brake_after(tuple(outcomes.values()))


def test_a_unit_of_the_systems_that_does_not_come_back_stops_users_units_as_well() -> None:
    systemd = SmallSystemd(Sketch("bad.service", fate="fails"), Sketch(MAIL))
    performed = asyncio.run(execute(with_users(systemd, MAIL), Daemon(systemd).hands()))
    assert performed.held.startswith("bad.service (failed)")
    assert MAIL not in systemd.starts


def test_a_manager_that_is_asked_and_does_nothing_leaves_a_leftover() -> None:
    systemd = SmallSystemd(Sketch(MAIL))
    daemon = Daemon(systemd)
    plan = with_users(systemd, MAIL, manager=False)
    systemd.users_idle = True
    outcome = carried_out(daemon, plan)[MAIL]
    assert outcome.result is Result.LEFTOVER and "did not restart it" in outcome.hint
    assert outcome.leftovers


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("asleep", [0.0, 0.35, 30.0])
def test_killed_at_any_effect_users_units_are_restarted_exactly_once_as_well(after: bool, asleep: float) -> None:
    crashes = 0
    for crash in itertools.count(1):
        systemd = SmallSystemd(Sketch("a.service"), Sketch(MAIL, stop=2.0), Sketch(CHAT))
        daemon, plan = Daemon(systemd, crash_at=crash, after=after), with_users(systemd, MAIL, CHAT)
        try:
            live(daemon, plan)
        except Crash:
            systemd.pass_time(asleep)
            daemon.crash_at = 0
            live(daemon, plan)
            crashes += 1
        else:
            if daemon.effects < crash:
                break  # an effect that fails, while PID 1 is deaf, has no end after which to be killed
        assert dict(systemd.starts) == {"a.service": 1, MAIL: 1, CHAT: 1}, f"killed at {crash}"
        assert set(daemon.results().values()) == {Result.FRESH} and len(daemon.attempts) == 4
        assert systemd.reexecuted == 1
    assert crashes > 40


# -- after a crash ---------------------------------------------------------------------------------


def three_waves() -> SmallSystemd:
    return SmallSystemd(
        Sketch("journald.service", stop=0.0, start=0.3),
        Sketch("base.service", ("top.service", "aside.service"), 0.2, 0.2),
        Sketch("top.service", (), 0.1, 0.5),
        Sketch("aside.service", (), 0.1, 0.1),
        Sketch("slow.service", stop=9.0),
        Sketch("ssh.service", start=0.0),
    )


WAVES = (("journald.service",), ("base.service", "slow.service", "top.service"), ("ssh.service",))
PLANNED = sorted(name for wave in WAVES for name in wave)


def live(daemon: Daemon, plan: Plan) -> None:
    """Run the daemon once as its corridor does: finish what was begun, then do what was not attempted."""

    async def both() -> None:
        await resume(daemon.unended, (Rule("*"),), daemon.hands())
        done = {attempt.unit for attempt in daemon.attempts}
        waves = [Wave(wave.number, tuple(s for s in wave.steps if s.unit not in done)) for wave in plan.waves]
        rest = Plan(5, tuple(wave for wave in waves if wave.steps), manager=plan.manager and MANAGER not in done)
        await execute(rest, daemon.hands())

    asyncio.run(both())


def crashed_and_finished(*crashes: int, after: bool, asleep: float) -> SmallSystemd | None:
    """Kill the daemon at these effects of its lives and let a last one finish; None: it did not die."""
    systemd = three_waves()
    plan = plan_of(systemd, *WAVES, manager=True)
    daemon = Daemon(systemd)
    for crash in crashes:
        daemon.crash_at, daemon.after, daemon.effects = crash, after, 0
        try:
            live(daemon, plan)
        except Crash:
            systemd.pass_time(asleep)
            continue
        return None
    daemon.crash_at = 0
    live(daemon, plan)
    assert daemon.unended == []
    assert sorted(daemon.results()) == sorted([*PLANNED, MANAGER])
    assert set(daemon.results().values()) == {Result.FRESH}
    assert len(daemon.attempts) == len(PLANNED) + 1, "a unit was attempted twice"
    return systemd


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("asleep", [0.0, 0.35, 30.0])
def test_killed_at_any_effect_the_next_start_finishes_and_restarts_nothing_twice(after: bool, asleep: float) -> None:
    crashes = 0
    for crash in itertools.count(1):
        systemd = crashed_and_finished(crash, after=after, asleep=asleep)
        if systemd is None:
            break
        crashes += 1
        assert dict(systemd.starts) == {**dict.fromkeys(PLANNED, 1), "aside.service": 1}, f"killed at {crash}"
        assert systemd.reexecuted == 1, f"killed at {crash}"
    assert crashes > 100


def test_killed_twice_at_any_two_effects_it_is_still_exactly_once() -> None:
    for first in range(1, 400, 7):
        for second in range(1, 400, 5):
            systemd = crashed_and_finished(first, second, after=bool(first % 2), asleep=0.1)
            if systemd is None:
                break
            assert dict(systemd.starts) == {**dict.fromkeys(PLANNED, 1), "aside.service": 1}, (first, second)
            assert systemd.reexecuted == 1, (first, second)


def attempted(systemd: SmallSystemd, *names: str) -> Daemon:
    daemon = Daemon(systemd)
    for name in names:
        unit = systemd.units.get(name)
        daemon._note_attempt(Step(name, Rule("*"), unit.invocation if unit else "", 1, (), ()))
    return daemon


def test_a_unit_that_went_down_while_nobody_looked_is_reported_and_not_called_not_run() -> None:
    systemd = SmallSystemd(Sketch("a.service", fate="condition"))
    daemon = attempted(systemd, "a.service")
    systemd.try_restart("a.service")
    systemd.pass_time(5)
    (outcome,) = asyncio.run(resume(daemon.unended, (), daemon.hands())).outcomes
    assert outcome.result is Result.FAILED
    assert systemd.starts == {}


def test_a_dependant_that_went_down_while_nobody_looked_is_the_verdict() -> None:
    systemd = SmallSystemd(Sketch("base.service", ("top.service",)), Sketch("top.service", fate="fails"))
    daemon = Daemon(systemd)
    daemon._note_attempt(
        Step("base.service", Rule("*"), systemd.units["base.service"].invocation, 1, ("top.service",), ())
    )
    systemd.try_restart("base.service")
    systemd.pass_time(5)
    (outcome,) = asyncio.run(resume(daemon.unended, (), daemon.hands())).outcomes
    assert outcome.result is Result.DEPENDANT_DOWN


def test_nothing_is_restarted_on_resuming_into_an_open_transaction() -> None:
    systemd = SmallSystemd(Sketch("a.service"), Sketch("b.service"))
    daemon = attempted(systemd, "a.service", "b.service")
    daemon.closed = lambda: "a package transaction is under way"
    systemd.try_restart("b.service")
    outcomes = asyncio.run(resume(daemon.unended, (), daemon.hands())).outcomes
    assert {o.unit: o.result for o in outcomes} == {"a.service": Result.NOT_RUN, "b.service": Result.FRESH}
    assert systemd.starts == {"b.service": 1}


def test_a_unit_that_was_removed_since_does_not_stop_the_others_from_being_finished() -> None:
    systemd = SmallSystemd(Sketch("a.service"))
    daemon = attempted(systemd, "a.service", "removed.service")
    outcomes = asyncio.run(resume(daemon.unended, (), daemon.hands())).outcomes
    assert {o.unit: o.result for o in outcomes} == {"a.service": Result.FRESH, "removed.service": Result.FAILED}


def test_pid_1_is_not_reexecuted_again_because_it_cannot_be_checked() -> None:
    daemon = Daemon(SmallSystemd(), blind=True)
    daemon._note_attempt(Step(MANAGER, Rule("*"), "", 1, (), ()))
    (outcome,) = asyncio.run(resume(daemon.unended, (), daemon.hands())).outcomes
    assert outcome.result is Result.LEFTOVER
    assert daemon.systemd.reexecuted == 0


def test_resuming_outlasts_a_systemd_that_never_answers() -> None:
    systemd = SmallSystemd(Sketch("a.service"))
    daemon = attempted(systemd, "a.service")
    systemd.deaf_until = 10_000.0
    (outcome,) = asyncio.run(resume(daemon.unended, (), daemon.hands())).outcomes
    assert outcome.result is Result.TIMED_OUT


def test_a_transaction_that_opens_while_a_configuration_is_tested_stops_what_is_resumed() -> None:
    systemd = SmallSystemd(Sketch("web.service"))
    daemon = Daemon(systemd)
    daemon.attempts.append(Attempt(1, 5, "web.service", systemd.units["web.service"].invocation, NOW))

    async def tests(step: Step, units: object) -> None:
        daemon.closed = lambda: "a package transaction is under way"

    hands = replace(daemon.hands(), precheck=tests)
    (outcome,) = asyncio.run(resume(daemon.unended, (Rule("*"),), hands)).outcomes
    assert outcome.result is Result.NOT_RUN and not systemd.starts
