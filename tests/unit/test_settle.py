"""When a transaction counts as over: the state machine alone, in virtual time."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.model.events import Due, Touched
from agent.model.topics import Topic
from agent.settle import Settling, step

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
QUIET = timedelta(seconds=3)


def touch(now: datetime) -> Touched:
    return Touched(Topic.PACKAGES, "lock", now)


def due(now: datetime) -> Due:
    return Due("settle", now)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_touch_begins_the_quiet_period_and_its_end_settles() -> None:
    state, settled, wake = step(Settling(), touch(NOON), NOON, False)
    assert (settled, wake) == (False, after(3))
    assert step(state, due(after(3)), after(3), False) == (Settling(), True, None)


def test_a_later_touch_begins_it_anew() -> None:
    state, _, _ = step(Settling(), touch(NOON), NOON, False)
    state, settled, wake = step(state, touch(after(2)), after(2), False)
    assert (settled, wake) == (False, after(5))
    _, settled, wake = step(state, due(after(3)), after(3), False)
    assert (settled, wake) == (False, after(5))


def test_a_held_lock_is_waited_for_without_a_timer() -> None:
    state, _, _ = step(Settling(), touch(NOON), NOON, True)
    state, settled, wake = step(state, due(after(3)), after(3), True)
    assert (settled, wake) == (False, None)
    state, settled, wake = step(state, touch(after(60)), after(60), False)
    assert (settled, wake) == (False, after(63))
    assert step(state, due(after(63)), after(63), False)[1]


def test_a_due_of_somebody_else_means_nothing_when_idle() -> None:
    assert step(Settling(), due(NOON), NOON, False) == (Settling(), False, None)


def test_a_clock_that_is_set_back_costs_one_quiet_period() -> None:
    state, _, _ = step(Settling(), touch(NOON), NOON, False)
    hour_earlier = after(-3600)
    state, settled, wake = step(state, due(hour_earlier), hour_earlier, False)
    assert (settled, wake) == (False, hour_earlier + QUIET)
    assert step(state, due(hour_earlier + QUIET), hour_earlier + QUIET, False)[1]


@dataclass
class World:
    """A daemon with one timer, and a dpkg whose release of the lock is itself a touch."""

    now: datetime = NOON
    state: Settling = field(default_factory=Settling)
    locked: bool = False
    timer: datetime | None = None
    dues: int = 0
    touches: list[datetime] = field(default_factory=list)
    settled: list[tuple[datetime, bool]] = field(default_factory=list)

    def send(self, event: Touched | Due) -> None:
        self.state, settled, self.timer = step(self.state, event, self.now, self.locked)
        if settled:
            self.settled.append((self.now, self.locked))

    def touch(self) -> None:
        self.touches.append(self.now)
        self.send(touch(self.now))

    def pass_time(self, until: datetime | None) -> None:
        while self.timer is not None and (until is None or self.timer <= until):
            self.now = max(self.now, self.timer)
            self.dues += 1
            self.send(due(self.now))
        self.now = until or self.now

    def act(self, action: str) -> None:
        if action == "take":
            self.locked = True
        elif action == "release" and self.locked:
            self.locked = False
            self.touch()
        elif action == "touch":
            self.touch()


ACTIONS = st.tuples(st.floats(0, 10), st.sampled_from(("touch", "take", "release")))


def lived(actions: list[tuple[float, str]]) -> World:
    world = World()
    for seconds, action in actions:
        world.pass_time(world.now + timedelta(seconds=seconds))
        world.act(action)
    world.act("release")
    world.pass_time(None)
    return world


@given(st.lists(ACTIONS, max_size=40))
def test_it_never_settles_while_the_lock_is_held(actions: list[tuple[float, str]]) -> None:
    assert not any(locked for _, locked in lived(actions).settled)


@given(st.lists(ACTIONS, max_size=40))
def test_it_settles_exactly_once_after_the_last_touch(actions: list[tuple[float, str]]) -> None:
    world = lived(actions)
    if world.touches:
        assert len([at for at, _ in world.settled if at > world.touches[-1]]) == 1
    else:
        assert not world.settled


@given(st.lists(ACTIONS, max_size=40))
def test_it_settles_after_the_quiet_period_and_never_twice_for_one_touch(actions: list[tuple[float, str]]) -> None:
    world = lived(actions)
    causes = [max(at for at in world.touches if at < settled) for settled, _ in world.settled]
    assert len(set(causes)) == len(causes)
    assert all(settled - cause >= QUIET for cause, (settled, _) in zip(causes, world.settled, strict=True))


@given(st.lists(ACTIONS, max_size=40))
def test_it_never_wakes_up_when_idle_or_while_it_waits_for_the_lock(actions: list[tuple[float, str]]) -> None:
    world = lived(actions)
    assert world.dues <= len(world.touches)
    assert world.timer is None


def test_a_lock_that_is_never_released_costs_one_wake_up() -> None:
    world = World(locked=True)
    world.touch()
    world.pass_time(after(86400))
    assert (world.dues, world.settled) == (1, [])
