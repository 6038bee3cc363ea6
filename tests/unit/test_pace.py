"""How often a unit may be restarted by itself: so many an hour, and always fewer than systemd would allow."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.model.facts import Unit
from agent.stale.pace import next_restart

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


def ago(*minutes: float) -> tuple[datetime, ...]:
    return tuple(NOW - timedelta(minutes=some) for some in minutes)


@pytest.mark.parametrize(
    ("begun", "due"),
    [
        ((), None),
        (ago(50, 40), None),
        (ago(50, 40, 30), NOW + timedelta(minutes=10)),
        (ago(70, 50, 40), None),
        (ago(55, 50, 40, 30), NOW + timedelta(minutes=10)),
    ],
)
def test_the_fourth_restart_within_an_hour_waits_for_the_first_to_be_an_hour_ago(
    begun: tuple[datetime, ...], due: datetime | None
) -> None:
    assert next_restart(begun, NOW, 3, Unit("a.service")) == due


def test_restarts_stay_below_the_limit_at_which_systemd_refuses_to_start_a_unit() -> None:
    unit = Unit("a.service", start_burst=3, start_interval=600.0)
    assert next_restart(ago(8), NOW, 100, unit) is None
    assert next_restart(ago(8, 7), NOW, 100, unit) == NOW + timedelta(minutes=2)


@pytest.mark.parametrize(("burst", "interval"), [(0, 10.0), (1, 0.0)])
def test_a_unit_without_such_a_limit_has_the_hour_alone(burst: int, interval: float) -> None:
    unit = Unit("a.service", start_burst=burst, start_interval=interval)
    assert next_restart(ago(0.1, 0.05), NOW, 3, unit) is None


def test_a_limit_of_one_start_still_lets_one_restart_happen() -> None:
    unit = Unit("a.service", start_burst=1, start_interval=float("inf"))
    assert next_restart((), NOW, 3, unit) is None
    assert next_restart(ago(60), NOW, 3, unit) == NOW + timedelta(hours=23)


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    assert next_restart(ago(-5, -6, -7), NOW, 3, Unit("a.service")) is None
