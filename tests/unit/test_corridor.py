"""The corridor: in which order things happen, with everything slow replaced by scripted answers."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.checks.registry import CHECKS, Check
from agent.config.settings import Settings
from agent.daemon import agenda, apart
from agent.daemon.corridor import Corridor
from agent.daemon.doors import done
from agent.daemon.errands import by_hand, why_not
from agent.daemon.requests import Requests
from agent.daemon.watchers import Watchers
from agent.model.errors import AgentError, Kind
from agent.model.events import Asked, Checked, Due, Looked, Peer, Reload, RestartsDone, Stop, Touched
from agent.model.facts import Transaction, Unit
from agent.model.findings import CheckResult, Confidence, Finding, Severity, StaleUnit
from agent.model.memory import Silence, SilenceKind
from agent.model.restarts import Attempt, Disposition, Outcome, Performed, Plan, Result, Rule, Step
from agent.model.topics import Topic
from agent.model.view import Phase, View, counts, view_json
from agent.store import Store
from tests.unit.full_disk import full_disk

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ROOT = Peer(1, 0, frozenset({0}))
QUIET = Settings(quiet_period=0.01)


def stale(unit: str, disposition: Disposition = Disposition.RESTART) -> Finding:
    evidence = StaleUnit(unit, disposition, Confidence.CERTAIN, ())
    return Finding("libraries", unit, Severity.WARNING, f"{unit} is stale", "", evidence)


def looked(*findings: Finding, **others: Any) -> Looked:
    units = {finding.subject: Unit(finding.subject, main_pid=1, invocation="i") for finding in findings}
    return Looked((CheckResult("libraries", findings),), units=units, **others)


class ScriptedDoors:
    """Answers looks from a script (the last answer repeats), and writes down all that is asked of it."""

    beat = 0.0

    store: Store

    def __init__(self, *script: Looked) -> None:
        self.script = list(script)
        self.done: list[str] = []
        self.views: list[View] = []
        self.is_locked = False
        self.gate: asyncio.Event | None = None
        self.settings = QUIET

    def locked(self) -> bool:
        return self.is_locked

    def drain(self) -> bool:
        return False

    def alive(self) -> None: ...

    def ready(self) -> None: ...

    def tell(self, kind: str, **fields: Any) -> None:
        self.done.append(f"tell {kind}")

    def publish(self, view: View) -> None:
        self.views.append(view)

    def reload(self, last: Settings) -> tuple[Settings, str]:
        return self.settings, ""

    async def look(self, settings: Settings, *, force: bool) -> Looked:
        self.done.append("look hard" if force else "look")
        await asyncio.sleep(0)
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    async def execute(self, plan: Plan, settings: Settings, may_go_on: Callable[[], str]) -> RestartsDone:
        names = [step.unit for wave in plan.waves for step in wave.steps]
        self.done.append(f"restart {' '.join(names)}")
        if self.gate:
            await self.gate.wait()
        if held := may_go_on():
            return RestartsDone(plan.transaction, Performed((), held))
        for step in (step for wave in plan.waves for step in wave.steps):
            attempt = self.store.begin(plan.transaction, step, NOW)
            self.store.end(attempt.id, Outcome(step.unit, Result.FRESH), NOW)
        fresh = tuple(Outcome(name, Result.FRESH) for name in names)
        return RestartsDone(plan.transaction, Performed(fresh))

    async def check(self, settings: Settings, name: str) -> Checked:
        self.done.append(f"tell check {name}")
        return Checked(name, CheckResult(name, ()))

    async def resume(self, attempts: tuple[Attempt, ...], settings: Settings) -> RestartsDone:
        self.done.append(f"resume {' '.join(attempt.unit for attempt in attempts)}")
        await asyncio.sleep(0)
        fresh = tuple(Outcome(attempt.unit, Result.FRESH) for attempt in attempts)
        return RestartsDone(attempts[-1].transaction, Performed(fresh))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "history.sqlite", NOW)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def drive(store: Store, doors: ScriptedDoors, play: Callable[[Corridor], Any], settings: Settings = QUIET) -> Corridor:
    doors.store = store

    async def whole() -> Corridor:
        corridor = Corridor(store, settings, doors)  # type: ignore[arg-type]
        running = asyncio.create_task(corridor.run())
        await until(lambda: corridor.view.phase is Phase.IDLE)
        await play(corridor)
        corridor.put(Stop())
        assert await running == 0
        return corridor

    return asyncio.run(whole())


async def nothing(corridor: Corridor) -> None:
    return None


def ask(corridor: Corridor, method: str, **arguments: Any) -> "asyncio.Future[dict[str, Any]]":
    ticket: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    corridor.put(
        Asked(
            method,
            {"units": [], "all": False, "dry_run": False, "resume": False, "now": False, **arguments},
            ROOT,
            ticket,
        )
    )
    return ticket


def steps(doors: ScriptedDoors) -> list[str]:
    return [entry for entry in doors.done if not entry.startswith("tell")]


def test_a_start_looks_once_and_then_rests(store: Store) -> None:
    doors = ScriptedDoors(looked())
    drive(store, doors, nothing)
    assert steps(doors) == ["look hard"]


def test_what_is_stale_is_restarted_and_looked_at_again(store: Store) -> None:
    doors = ScriptedDoors(looked(stale("a.service"), stale("b.service")), looked())
    corridor = drive(store, doors, nothing)
    assert steps(doors) == ["look hard", "restart a.service b.service", "look hard"]
    assert [outcome.unit for outcome in corridor.view.outcomes] == ["a.service", "b.service"]


def test_observing_restarts_nothing(store: Store) -> None:
    doors = ScriptedDoors(looked(stale("a.service")))
    corridor = drive(store, doors, nothing, replace(QUIET, mode="observe"))
    assert steps(doors) == ["look hard"]
    assert corridor.view.findings[0].subject == "a.service"


def test_what_is_deferred_is_left_alone(store: Store) -> None:
    doors = ScriptedDoors(looked(stale("dbus.service", Disposition.DEFER)))
    drive(store, doors, nothing)
    assert steps(doors) == ["look hard"]


def test_a_burst_of_wake_ups_is_one_look(store: Store) -> None:
    doors = ScriptedDoors(looked())

    async def play(corridor: Corridor) -> None:
        for _ in range(50):
            corridor.put(Touched(Topic.PACKAGES, "x", datetime.now(UTC)))
        await until(lambda: len(steps(doors)) == 2 and corridor.view.phase is Phase.IDLE)
        await asyncio.sleep(0.05)

    drive(store, doors, play)
    assert steps(doors) == ["look hard", "look"]


def test_nothing_is_begun_while_dpkg_holds_its_lock(store: Store) -> None:
    doors = ScriptedDoors(looked())

    async def play(corridor: Corridor) -> None:
        doors.is_locked = True
        corridor.put(Touched(Topic.PACKAGES, "x", datetime.now(UTC)))
        await asyncio.sleep(0.1)
        assert steps(doors) == ["look hard"]
        assert corridor.view.phase is Phase.SETTLING
        doors.is_locked = False
        corridor.put(Touched(Topic.PACKAGES, "released", datetime.now(UTC)))
        await until(lambda: steps(doors) == ["look hard", "look"])

    drive(store, doors, play)


def test_a_transaction_that_opens_during_a_wave_has_the_rest_planned_again(store: Store) -> None:
    doors = ScriptedDoors(looked())

    async def play(corridor: Corridor) -> None:
        doors.gate = asyncio.Event()
        doors.script = [looked(stale("a.service"))]
        corridor.put(Touched(Topic.PACKAGES, "first", datetime.now(UTC)))
        await until(lambda: "restart a.service" in doors.done)
        corridor.put(Touched(Topic.PACKAGES, "second", datetime.now(UTC)))
        await asyncio.sleep(0)
        doors.gate.set()
        await until(lambda: doors.done.count("restart a.service") == 2)
        await until(lambda: corridor.view.phase is Phase.IDLE)

    corridor = drive(store, doors, play)
    assert [outcome.result for outcome in corridor.view.outcomes] == [Result.FRESH]


def test_nothing_is_restarted_twice_for_one_transaction_even_if_the_check_insists(store: Store) -> None:
    doors = ScriptedDoors(looked(stale("a.service"), stale("aftercare.service")))

    async def play(corridor: Corridor) -> None:
        await ask(corridor, "check")
        await asyncio.sleep(0.1)

    drive(store, doors, play)
    restarts = [entry for entry in doors.done if entry.startswith("restart")]
    assert restarts == ["restart a.service", "restart aftercare.service"]


def test_waiting_ends_when_all_is_verified_and_not_before(store: Store) -> None:
    doors = ScriptedDoors(looked(), looked(stale("a.service")), looked())

    async def play(corridor: Corridor) -> None:
        doors.gate = asyncio.Event()
        ticket = ask(corridor, "wait")
        await until(lambda: "restart a.service" in doors.done)
        await asyncio.sleep(0.05)
        assert not ticket.done()
        doors.gate.set()
        assert await ticket == {"done": True}
        assert corridor.view.phase is Phase.IDLE

    drive(store, doors, play)


def test_waiting_is_not_done_where_the_look_failed(store: Store) -> None:
    doors = ScriptedDoors(looked(), Looked(problem=AgentError(Kind.TIMED_OUT, "too slow")))

    async def play(corridor: Corridor) -> None:
        assert await ask(corridor, "wait") == {"done": False}
        assert "too slow" in corridor.view.trouble

    drive(store, doors, play)


def test_a_failed_look_keeps_the_last_good_verdict(store: Store) -> None:
    findings = looked(stale("dbus.service", Disposition.DEFER))
    doors = ScriptedDoors(findings, Looked(problem=AgentError(Kind.TIMED_OUT, "too slow")))

    async def play(corridor: Corridor) -> None:
        await ask(corridor, "wait")

    corridor = drive(store, doors, play)
    assert [finding.subject for finding in corridor.view.findings] == ["dbus.service"]
    assert "tell check-failed" in doors.done


def test_a_history_that_cannot_be_written_is_told_and_the_loop_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors = ScriptedDoors(looked())

    async def play(corridor: Corridor) -> None:
        def full(*_arguments: object) -> None:
            raise AgentError(Kind.UNREADABLE, "the history cannot be written: disk full")

        monkeypatch.setattr(store, "date", full)
        ask(corridor, "check")
        await until(lambda: "disk full" in corridor.view.trouble)
        monkeypatch.undo()
        await ask(corridor, "check")
        assert corridor.view.trouble == ""

    drive(store, doors, play)


def test_a_bug_in_a_task_ends_the_daemon_and_is_not_swallowed(store: Store) -> None:
    doors = ScriptedDoors(looked())

    async def broken(settings: Settings, *, force: bool) -> Looked:
        raise ZeroDivisionError

    doors.look = broken  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup):
        asyncio.run(Corridor(store, QUIET, doors).run())  # type: ignore[arg-type]


def test_a_named_unit_is_restarted_although_it_is_deferred_and_alone(store: Store) -> None:
    found = looked(stale("dbus.service", Disposition.DEFER), stale("other.service", Disposition.DEFER))
    doors = ScriptedDoors(found)

    async def play(corridor: Corridor) -> None:
        reply = await ask(corridor, "restart", units=["dbus.service"])
        assert [outcome["unit"] for outcome in reply["restarts"]] == ["dbus.service"]

    drive(store, doors, play)
    assert steps(doors) == ["look hard", "look hard", "restart dbus.service", "look hard"]


@pytest.mark.parametrize("words", [{"all": True}, {"units": ["a.service", "aftercare.service"]}])
def test_in_observe_mode_the_agent_goes_too_when_it_is_asked_for(store: Store, words: dict[str, Any]) -> None:
    doors = ScriptedDoors(looked(stale("a.service"), stale("aftercare.service")))

    async def play(corridor: Corridor) -> None:
        await ask(corridor, "restart", **words)
        await until(lambda: "restart aftercare.service" in doors.done)

    drive(store, doors, play, replace(QUIET, mode="observe"))
    assert [entry for entry in doors.done if entry.startswith("restart")] == [
        "restart a.service",
        "restart aftercare.service",
    ]


def test_a_dry_run_restarts_nothing(store: Store) -> None:
    doors = ScriptedDoors(looked(stale("dbus.service", Disposition.DEFER)))

    async def play(corridor: Corridor) -> None:
        reply = await ask(corridor, "restart", units=["dbus.service"], dry_run=True)
        assert reply["plan"]["waves"][0]["steps"][0]["unit"] == "dbus.service"

    drive(store, doors, play)
    assert not [entry for entry in doors.done if entry.startswith("restart")]


def test_an_unstale_unit_that_is_named_is_refused_with_a_sentence(store: Store) -> None:
    doors = ScriptedDoors(looked())

    async def play(corridor: Corridor) -> None:
        with pytest.raises(AgentError, match=r"nginx\.service is not stale: systemd runs nothing"):
            await ask(corridor, "restart", units=["nginx.service"])

    drive(store, doors, play)


def test_a_unit_that_is_named_and_needs_no_restart_is_told_as_fresh(store: Store) -> None:
    deferred = looked(stale("dbus.service", Disposition.DEFER))
    doors = ScriptedDoors(replace(deferred, units=deferred.units | {"ssh.service": Unit("ssh.service")}))

    async def play(corridor: Corridor) -> None:
        assert (await ask(corridor, "restart", units=["ssh.service"]))["fresh"] == ["ssh.service"]
        answer = await ask(corridor, "restart", units=["ssh.service", "dbus.service"])
        assert [item["unit"] for item in answer["restarts"]] == ["dbus.service"]
        assert answer["fresh"] == ["ssh.service"]

    drive(store, doors, play)


def test_what_a_dead_daemon_had_begun_is_finished_first(store: Store) -> None:
    store.begin(7, Step("a.service", Rule("*"), "i", 1, (), ()), NOW)
    doors = ScriptedDoors(looked())
    drive(store, doors, nothing)
    assert steps(doors)[:2] == ["resume a.service", "look hard"]


def test_what_a_dead_daemon_had_begun_waits_for_an_open_transaction(store: Store) -> None:
    store.begin(7, Step("a.service", Rule("*"), "i", 1, (), ()), NOW)
    doors = ScriptedDoors(looked())
    doors.is_locked = True

    async def whole() -> None:
        corridor = Corridor(store, QUIET, doors)  # type: ignore[arg-type]
        running = asyncio.create_task(corridor.run())
        await asyncio.sleep(0.1)
        assert steps(doors) == []
        doors.is_locked = False
        corridor.put(Touched(Topic.PACKAGES, "released", NOW))
        await until(lambda: steps(doors)[:1] == ["resume a.service"])
        corridor.put(Stop())
        await running

    asyncio.run(whole())


def test_the_agent_goes_last(store: Store) -> None:
    doors = ScriptedDoors(
        looked(stale("a.service"), stale("aftercare.service")), looked(stale("aftercare.service")), looked()
    )
    drive(store, doors, nothing)
    assert steps(doors) == ["look hard", "restart a.service", "look hard", "restart aftercare.service", "look hard"]


def test_the_agent_does_not_go_while_dpkg_is_at_work(store: Store) -> None:
    doors = ScriptedDoors(looked())

    async def play(corridor: Corridor) -> None:
        doors.script = [looked(stale("aftercare.service"))]
        doors.is_locked = True
        corridor.put(Asked("check", {}, ROOT, asyncio.get_running_loop().create_future()))
        await asyncio.sleep(0.1)
        assert not [entry for entry in doors.done if entry.startswith("restart")]
        doors.is_locked = False
        corridor.put(Touched(Topic.PACKAGES, "released", datetime.now(UTC)))
        await until(lambda: "restart aftercare.service" in doors.done)

    drive(store, doors, play)


def test_a_bad_configuration_is_said_and_not_used(store: Store) -> None:
    doors = ScriptedDoors(looked())

    def broken(last: Settings) -> tuple[Settings, str]:
        return last, "aftercare.toml: unknown setting 'mod'"

    async def play(corridor: Corridor) -> None:
        doors.reload = broken  # type: ignore[method-assign]
        corridor.put(Reload())
        await until(lambda: bool(corridor.view.rejected) and corridor.view.phase is Phase.IDLE)
        assert "unknown setting" in corridor.view.rejected
        assert corridor.settings == QUIET

    drive(store, doors, play)


def test_a_new_transaction_forgets_the_outcomes_of_the_one_before(store: Store) -> None:
    transaction = Transaction(5, None, NOW, "apt upgrade", "", (), ())
    doors = ScriptedDoors(looked(stale("a.service")), looked(), looked(transaction=transaction))

    async def play(corridor: Corridor) -> None:
        assert corridor.view.outcomes
        await ask(corridor, "wait")

    corridor = drive(store, doors, play)
    assert corridor.view.transaction == transaction
    assert corridor.view.outcomes == ()


def test_a_forced_look_that_a_transaction_cut_short_is_made_in_full_afterwards(store: Store) -> None:
    doors = ScriptedDoors(looked(), Looked(abandoned=True), looked())

    async def play(corridor: Corridor) -> None:
        corridor.put(Reload())
        await until(lambda: steps(doors) == ["look hard", "look hard"])
        corridor.put(Touched(Topic.PACKAGES, "", datetime.now(UTC)))
        await until(lambda: len(steps(doors)) == 3)
        assert steps(doors)[2] == "look hard"
        await until(lambda: corridor.view.phase is Phase.IDLE)
        corridor.put(Touched(Topic.PACKAGES, "", datetime.now(UTC)))
        await until(lambda: len(steps(doors)) == 4)
        assert steps(doors)[3] == "look"

    drive(store, doors, play)


def test_members_who_wait_without_end_hold_up_neither_restarts_nor_orders_nor_each_other(store: Store) -> None:
    deferred = stale("dbus.service", Disposition.DEFER)
    doors = ScriptedDoors(looked(), looked(stale("nginx.service"), deferred), looked(deferred))

    async def spam(corridor: Corridor) -> None:
        while True:
            ask(corridor, "wait").cancel()
            await asyncio.sleep(0)

    async def play(corridor: Corridor) -> None:
        spamming = asyncio.create_task(spam(corridor))
        async with asyncio.timeout(3):
            ask(corridor, "check")
            await until(lambda: "restart nginx.service" in doors.done)
            await ask(corridor, "restart", units=["dbus.service"])
            assert await ask(corridor, "wait") == {"done": True}
        spamming.cancel()

    drive(store, doors, play)


def test_who_went_away_is_not_kept_in_mind_while_dpkg_is_at_work(store: Store) -> None:
    doors = ScriptedDoors(looked())

    async def play(corridor: Corridor) -> None:
        doors.is_locked = True
        for _ in range(500):
            ask(corridor, "wait").cancel()
        await until(corridor.agenda.events.empty)
        assert len(corridor._errands._waiting) < 3
        doors.is_locked = False

    drive(store, doors, play)


def test_an_upgrade_of_the_agent_that_may_not_be_taken_up_is_said_once_and_not_tried_without_end(store: Store) -> None:
    doors = ScriptedDoors(looked(), Looked(outdated="9.9"))

    async def play(corridor: Corridor) -> None:
        ask(corridor, "wait")
        await until(lambda: "9.9" in corridor.view.trouble)
        ask(corridor, "wait")
        await asyncio.sleep(0.2)
        assert doors.done.count("restart aftercare.service") == 1
        assert doors.done.count("tell check-failed") == 1

    drive(store, doors, play)


@pytest.mark.parametrize(
    ("unit", "advised"),
    [
        (Unit("a.service"), True),
        (Unit("session-3.scope"), False),
        (Unit("init.scope"), False),
        (Unit("dbus.service", can_stop=False), False),
        (None, False),
    ],
)
def test_nobody_is_told_to_restart_by_hand_what_systemd_would_not(unit: Unit | None, advised: bool) -> None:
    assert bool(by_hand(unit)) is advised


def test_a_finding_that_is_no_unit_is_said_to_be_none() -> None:
    found = (Finding("libraries", "ca-certificates", Severity.INFO, "", "systemctl restart nginx.service", {}),)
    assert why_not(found, "ca-certificates.service") == (
        "ca-certificates is a finding, and no unit: systemctl restart nginx.service"
    )


class Full(ScriptedDoors):
    """A disk that is full from the first look on, until somebody makes room: nothing can be written down."""

    def __init__(self, *script: Looked) -> None:
        super().__init__(*script)
        self.is_full = True

    async def look(self, settings: Settings, *, force: bool) -> Looked:
        with full_disk() if self.is_full else contextlib.nullcontext():
            self.store.write_back()
            self.store.keep_settings(str(len(self.done)))
        return await super().look(settings, force=force)


def test_a_look_that_cannot_be_written_down_is_shown_and_nothing_is_restarted_until_there_is_room(store: Store) -> None:
    doors = Full(looked(stale("a.service")))

    async def play(corridor: Corridor) -> None:
        assert [finding.subject for finding in corridor.view.findings] == ["a.service"]
        assert "cannot be written" in corridor.view.trouble and not corridor.view.blind
        assert corridor.view.held == corridor.view.trouble and not corridor.view.braked
        with pytest.raises(AgentError, match="cannot be written"):
            await ask(corridor, "restart", units=["a.service"])
        assert (await ask(corridor, "restart", units=["a.service"], dry_run=True))["plan"]["waves"]
        assert await ask(corridor, "wait") == {"done": False}
        assert not [entry for entry in doors.done if entry.startswith("restart")]
        assert doors.done.count("tell history-unwritten") == 1 and "tell check-failed" not in doors.done
        doors.is_full = False
        ask(corridor, "check")
        await until(lambda: "restart a.service" in doors.done)
        doors.script = [looked()]
        await until(lambda: not corridor.view.trouble and corridor.view.phase is Phase.IDLE)
        assert not corridor.view.held

    drive(store, doors, play)


def test_what_could_not_be_looked_at_is_never_called_fresh(store: Store) -> None:
    doors = ScriptedDoors(looked(stale("a.service", Disposition.DEFER)), Looked(problem=AgentError(Kind.SPAWN, "no!")))

    async def play(corridor: Corridor) -> None:
        corridor.units = {"ssh.service": Unit("ssh.service")}
        await ask(corridor, "wait")
        for words in ({"units": ["ssh.service"]}, {"all": True}, {"all": True, "dry_run": True}):
            with pytest.raises(AgentError, match="not known: no!") as caught:
                await ask(corridor, "restart", **words)
            assert caught.value.exit_status == 3 and "doctor" in caught.value.hint
        reading = Requests(corridor, Watchers()).methods()
        for method, parameters in (("Plan", {}), ("Why", {"subject": "ssh.service"})):
            with pytest.raises(AgentError, match="not known: no!"):
                await reading[method].handler(ROOT, parameters, none)
        assert not (await reading["Counts"].handler(ROOT, {}, none))["known"]
        chain = await reading["Why"].handler(ROOT, {"subject": "a.service"}, none)
        assert chain["lines"]

    drive(store, doors, play)


async def none(_reply: dict[str, Any]) -> None:
    return None


def test_while_packages_change_nothing_is_said_of_what_would_be_restarted(store: Store) -> None:
    doors = ScriptedDoors(looked())

    async def play(corridor: Corridor) -> None:
        reading = Requests(corridor, Watchers()).methods()["Plan"].handler
        assert (await reading(ROOT, {}, none))["plan"]["waves"] == []
        assert (await Requests(corridor, Watchers()).methods()["Counts"].handler(ROOT, {}, none))["known"]
        corridor.board.show(unseen={"libraries": ("9,720 processes",)})
        assert not (await Requests(corridor, Watchers()).methods()["Counts"].handler(ROOT, {}, none))["known"]
        doors.is_locked = True
        with pytest.raises(AgentError, match="not yet known: a package transaction is under way") as caught:
            await reading(ROOT, {}, none)
        assert caught.value.exit_status == 3
        with pytest.raises(AgentError, match="not yet known"):
            await ask(corridor, "restart", all=True, dry_run=True)
        doors.is_locked = False
        corridor.board.show(phase=Phase.CHECKING)
        with pytest.raises(AgentError, match="not yet known: processes are being looked at"):
            await reading(ROOT, {}, none)

    drive(store, doors, play)


def test_the_brake_is_off_after_resume_where_nothing_is_left_for_it_to_hold(store: Store) -> None:
    step = Step("a.service", Rule("*"), "i", 1, (), ())
    store.end(store.begin(1, step, NOW).id, Outcome("a.service", Result.FAILED), NOW)
    waits = stale("b.service", Disposition.DEFER)
    assert isinstance(waits.evidence, StaleUnit)
    doors = ScriptedDoors(looked(replace(waits, evidence=replace(waits.evidence, opens_at=NOW + timedelta(days=1)))))

    async def play(corridor: Corridor) -> None:
        assert corridor.view.braked
        await ask(corridor, "restart", all=True, dry_run=True)
        assert corridor.view.braked
        assert (await ask(corridor, "restart", resume=True))["restarts"] == []
        await until(lambda: corridor.view.phase is Phase.IDLE)
        assert not corridor.view.braked and not corridor.view.held

    drive(store, doors, play)


def test_who_waits_is_answered_where_the_result_of_a_look_cannot_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors = ScriptedDoors(looked())

    async def play(corridor: Corridor) -> None:
        def full(*_arguments: object) -> None:
            raise AgentError(Kind.UNREADABLE, "disk full")

        monkeypatch.setattr(store, "date", full)
        async with asyncio.timeout(3):
            assert await ask(corridor, "wait") == {"done": False}

    drive(store, doors, play)


def test_a_restart_that_cannot_be_noted_is_said_and_ends_nothing() -> None:
    async def full() -> Performed:
        raise AgentError(Kind.UNREADABLE, "disk full")

    assert asyncio.run(done(7, full())) == RestartsDone(7, Performed((), "disk full"))


def braking(store: Store, doors: ScriptedDoors) -> None:
    """Have the next restart leave its first unit down, as `execute` would."""

    async def execute(plan: Plan, settings: Settings, may_go_on: Callable[[], str]) -> RestartsDone:
        unit = plan.waves[0].steps[0]
        doors.done.append(f"restart {unit.unit}")
        outcome = Outcome(unit.unit, Result.FAILED)
        store.end(store.begin(plan.transaction, unit, NOW).id, outcome, NOW)
        return RestartsDone(plan.transaction, Performed((outcome,), "a.service (failed) did not come back"))

    doors.execute = execute  # type: ignore[method-assign]


def test_a_unit_that_did_not_come_back_holds_the_rest_until_somebody_says_resume(store: Store) -> None:
    doors = ScriptedDoors(looked(stale("a.service"), stale("b.service")), looked(stale("b.service")))
    braking(store, doors)

    async def play(corridor: Corridor) -> None:
        await until(lambda: corridor.view.braked and corridor.view.phase is Phase.IDLE)
        assert corridor.view.held == "a.service (failed) did not come back"
        assert steps(doors) == ["look hard", "restart a.service", "look hard"]
        del doors.execute  # type: ignore[attr-defined]
        answer = await ask(corridor, "restart", resume=True)
        assert [item["unit"] for item in answer["restarts"]] == ["b.service"]
        doors.script = [looked()]
        await until(lambda: not corridor.view.braked and corridor.view.phase is Phase.IDLE)

    drive(store, doors, play)
    assert "tell braked" in doors.done
    assert store.memory().brake == ""


def test_the_brake_survives_the_daemon(store: Store) -> None:
    step = Step("a.service", Rule("*"), "i", 1, (), ())
    store.end(store.begin(1, step, NOW).id, Outcome("a.service", Result.FAILED), NOW)
    doors = ScriptedDoors(looked(stale("b.service")))
    corridor = drive(store, doors, nothing)
    assert steps(doors) == ["look hard"] and corridor.view.braked


def test_the_brake_is_off_where_nothing_is_left_to_restart(store: Store) -> None:
    step = Step("a.service", Rule("*"), "i", 1, (), ())
    store.end(store.begin(1, step, NOW).id, Outcome("a.service", Result.FAILED), NOW)
    assert not drive(store, ScriptedDoors(looked()), nothing).view.braked


def test_resuming_where_nothing_is_held_is_refused(store: Store) -> None:
    async def play(corridor: Corridor) -> None:
        with pytest.raises(AgentError, match="no restart is held"):
            await ask(corridor, "restart", resume=True)

    drive(store, ScriptedDoors(looked()), play)


def test_what_waits_for_a_time_is_restarted_at_once_where_somebody_says_now(store: Store) -> None:
    waits = stale("a.service", Disposition.DEFER)
    assert isinstance(waits.evidence, StaleUnit)
    waits = replace(waits, evidence=replace(waits.evidence, opens_at=NOW))
    doors = ScriptedDoors(looked(waits, stale("b.service", Disposition.DEFER)))

    async def play(corridor: Corridor) -> None:
        assert (await ask(corridor, "restart", all=True))["restarts"] == []
        answer = await ask(corridor, "restart", all=True, now=True)
        assert [item["unit"] for item in answer["restarts"]] == ["a.service"]

    drive(store, doors, play)


def test_a_finding_that_somebody_silenced_is_not_told_and_still_acted_upon(store: Store) -> None:
    doors = ScriptedDoors(looked(stale("a.service", Disposition.DEFER)))

    async def play(corridor: Corridor) -> None:
        silence = Silence("libraries/a.service", SilenceKind.SNOOZE, "", 0, NOW, datetime.now(UTC) + timedelta(hours=1))
        store.silence(silence)
        corridor.hear()
        shown = view_json(corridor.view)
        assert shown["findings"] == [] and shown["silenced"][0]["finding"]["subject"] == "a.service"
        assert counts(corridor.view)["warning"] == 0
        store.silence(replace(silence, until=datetime.now(UTC) + timedelta(seconds=0.1)))
        corridor.hear()
        await until(lambda: not corridor.view.silences)
        assert view_json(corridor.view)["findings"]

    drive(store, doors, play)


def test_a_check_that_runs_apart_changes_its_own_findings_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mail = Finding("mail", "a.example", Severity.CRITICAL, "refused", "publish it", {})
    doors = ScriptedDoors(looked(stale("x.service", Disposition.DEFER)))
    answers: list[Checked] = [Checked("mail", CheckResult("mail", (mail,), unseen=("one server",)))]

    async def check(settings: Settings, name: str) -> Checked:
        return answers[-1]

    doors.check = check  # type: ignore[method-assign]
    monkeypatch.setattr(apart, "APART", frozenset({"mail"}))
    monkeypatch.setattr("agent.daemon.corridor.APART", frozenset({"mail"}))
    monkeypatch.setitem(CHECKS, "mail", Check("mail", frozenset({Topic.MAIL})))

    async def play(corridor: Corridor) -> None:
        await until(lambda: "tell alarm" in doors.done)
        assert {finding.id for finding in corridor.view.findings} == {"libraries/x.service", "mail/a.example"}
        answers.append(Checked("mail", problem=AgentError(Kind.TIMED_OUT, "too slow")))
        corridor.put(Touched(Topic.MAIL, "x", datetime.now(UTC)))
        await until(lambda: corridor.view.unseen.get("mail") == ("mail: too slow",))
        assert len(corridor.view.findings) == 2, "a check that could not be run forgot what it knew"
        answers.append(Checked("mail", CheckResult("mail", ())))
        corridor.put(Touched(Topic.MAIL, "x", datetime.now(UTC)))
        await until(lambda: len(corridor.view.findings) == 1)

    drive(store, doors, play)
    assert "tell set-right" in doors.done


def test_the_agent_tries_again_to_be_what_is_on_disk_after_the_transaction_that_kept_it_from_it(store: Store) -> None:
    doors = ScriptedDoors(looked(), Looked(outdated="9.9"))

    async def play(corridor: Corridor) -> None:
        doors.gate = asyncio.Event()
        ask(corridor, "wait")
        await until(lambda: "restart aftercare.service" in doors.done)
        doors.is_locked = True
        doors.gate.set()
        await until(lambda: "tell held" in doors.done)
        doors.is_locked = False
        corridor.put(Touched(Topic.PACKAGES, "x", datetime.now(UTC)))
        await until(lambda: doors.done.count("restart aftercare.service") == 2)

    drive(store, doors, play)


def test_the_agent_waits_with_its_own_restart_until_that_can_be_written_down(store: Store) -> None:
    doors = ScriptedDoors(looked(), Looked(outdated="9.9"))

    async def play(corridor: Corridor) -> None:
        with full_disk():
            store.keep_settings("{}")
            ask(corridor, "wait")
            await until(lambda: doors.done.count("look hard") + doors.done.count("look") > 1)
            await asyncio.sleep(0.1)
            assert "restart aftercare.service" not in doors.done
        store.write_back()
        corridor.put(Touched(Topic.PACKAGES, "x", datetime.now(UTC)))
        await until(lambda: "restart aftercare.service" in doors.done)

    drive(store, doors, play)


def test_an_order_of_one_who_went_away_is_not_carried_out(store: Store) -> None:
    doors = ScriptedDoors(looked(stale("db.service", Disposition.DEFER)))

    async def play(corridor: Corridor) -> None:
        ask(corridor, "restart", units=["db.service"]).cancel()
        await asyncio.sleep(0.2)
        assert "restart db.service" not in doors.done

    drive(store, doors, play)


def test_a_clock_that_is_set_back_does_not_silence_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    shift = timedelta()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + shift

    monkeypatch.setattr(agenda, "datetime", Clock)

    async def play() -> object:
        nonlocal shift
        diary = agenda.Agenda()
        diary.wake("watchdog", Clock.now(UTC) + timedelta(seconds=0.05))
        shift = -timedelta(hours=2)
        async with asyncio.timeout(2):
            return await diary.events.get()

    event = asyncio.run(play())
    assert isinstance(event, Due) and event.what == "watchdog"
