"""What waits: windows, brakes and silences, over looks that find nothing and new starts of the daemon."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.config.settings import Settings
from agent.daemon.corridor import Corridor
from agent.model.events import Looked, Touched
from agent.model.facts import Unit
from agent.model.findings import StaleUnit
from agent.model.memory import Silence, SilenceKind
from agent.model.restarts import Disposition, Outcome, Result, Rule, Step
from agent.model.topics import Topic
from agent.model.view import view_json
from agent.restart.configtest import Verdict
from agent.restart.plan import make_step
from agent.restart.precheck import Places, precheck
from agent.store import Store
from tests.unit.test_corridor import NOW, ScriptedDoors, ask, drive, looked, nothing, stale, steps, until
from tests.unit.test_precheck import Asked as Silent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "history.sqlite", NOW)


def windowed(unit: str, at: datetime) -> Looked:
    finding = stale(unit, Disposition.DEFER)
    assert isinstance(finding.evidence, StaleUnit)
    finding = replace(finding, evidence=replace(finding.evidence, opens_at=at))
    seen = looked(finding)
    return replace(seen, results=(replace(seen.results[0], again_at=at),))


@pytest.mark.parametrize("how", ["wait", "apt update"])
def test_a_look_that_found_no_transaction_does_not_forget_when_the_window_opens(store: Store, how: str) -> None:
    opens = datetime.now(UTC) + timedelta(seconds=0.5)
    doors = ScriptedDoors(windowed("a.service", opens), Looked(), looked(stale("a.service")), looked())

    async def play(corridor: Corridor) -> None:
        if how == "wait":
            await ask(corridor, "wait")
        else:
            corridor.put(Touched(Topic.PACKAGES, "the lock was released", datetime.now(UTC)))
        await until(lambda: "restart a.service" in doors.done)

    drive(store, doors, play)
    assert "restart a.service" in steps(doors)


def test_a_restart_of_the_daemon_forgets_no_acknowledgement_and_no_date(store: Store) -> None:
    silence = Silence("libraries/a.service", SilenceKind.ACK, "known", 0, NOW)
    store.date((stale("a.service", Disposition.DEFER),), NOW, ("libraries",))
    store.silence(silence)
    doors = ScriptedDoors(looked(stale("a.service", Disposition.DEFER)))
    answer = doors.look

    async def slow(settings: Settings, *, force: bool) -> Looked:
        await asyncio.sleep(0.8)
        return await answer(settings, force=force)

    doors.look = slow  # type: ignore[method-assign]
    corridor = drive(store, doors, nothing)
    assert [item.id for item in corridor.view.silences] == ["libraries/a.service"]
    assert corridor.view.findings[0].since == NOW


def test_a_snooze_ends_by_itself_also_after_a_restart_of_the_daemon(store: Store) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    store.silence(Silence("libraries/a.service", SilenceKind.SNOOZE, "", 0, datetime.now(UTC), soon))
    doors = ScriptedDoors(looked(stale("a.service", Disposition.DEFER)))

    async def play(corridor: Corridor) -> None:
        await until(lambda: view_json(corridor.view)["findings"])

    drive(store, doors, play)


def test_the_brake_holds_what_waits_for_its_window(store: Store) -> None:
    step = Step("a.service", Rule("*"), "i", 1, (), ())
    store.end(store.begin(1, step, NOW).id, Outcome("a.service", Result.FAILED), NOW)
    opens = datetime.now(UTC) + timedelta(seconds=0.3)
    doors = ScriptedDoors(windowed("b.service", opens), looked(stale("b.service")), looked())

    async def play(corridor: Corridor) -> None:
        await asyncio.sleep(0.8)

    drive(store, doors, play)
    assert "restart b.service" not in steps(doors)


def test_a_dependant_whose_configuration_is_broken_keeps_its_leader_from_being_restarted() -> None:
    asked: list[str] = []

    async def test(unit: str, commands: object, broken: object, run: object) -> Verdict:
        asked.append(unit)
        return Verdict(is_broken=True, words="unexpected end of file")

    leader = Unit("a.service", invocation="1", main_pid=5, pulls=("nginx.service",))
    nginx = Unit("nginx.service", invocation="2", main_pid=6)
    units = {item.name: item for item in (leader, nginx)}
    step = make_step(leader, units, (Rule("nginx.service", precheck=(("nginx", "-t"),)),))
    places = Places(run=Silent(), test=test, policy="/nonexistent")
    outcome = asyncio.run(precheck(step, units, places))
    assert asked == ["nginx.service"] and outcome and outcome.result is Result.PRECHECK_FAILED
