"""How long a restart must wait: its unit for its own sake, and a user's for all that he has had restarted."""

from datetime import UTC, datetime, timedelta

from agent.checks.libraries.timing import waits
from agent.model.facts import Unit
from agent.model.findings import Request
from agent.model.users import MOST_A_DAY

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NEXT = Unit("user@1000.service/next.service", start_burst=0)


def asked(count: int, uid: int = 1000, minutes: float = 90, unit: Unit = NEXT) -> datetime | None:
    begun = NOW - timedelta(minutes=minutes)
    recent: dict[str, tuple[datetime, ...]] = {f"user@{uid}.service/x{number}.service": (begun,) for number in range(count)}
    found = waits(Request("libraries", NOW, recent=recent), unit)
    return found[0] if found else None


def test_all_units_of_one_user_have_so_many_restarts_a_day_whatever_he_calls_them() -> None:
    assert asked(MOST_A_DAY - 1) is None
    assert asked(MOST_A_DAY) == NOW + timedelta(hours=22, minutes=30)
    assert asked(2 * MOST_A_DAY, minutes=24 * 60 + 1) is None


def test_what_one_user_had_restarted_holds_up_no_other_user_and_no_unit_of_the_systems() -> None:
    assert asked(2 * MOST_A_DAY, uid=1001) is None
    assert asked(2 * MOST_A_DAY, unit=Unit("nginx.service")) is None


def test_a_users_unit_has_its_own_hour_as_others_have() -> None:
    recent = {NEXT.name: tuple(NOW - timedelta(minutes=minutes) for minutes in (30, 20, 10))}
    found = waits(Request("libraries", NOW, recent=recent, options={"most_per_hour": 3}), NEXT)
    assert found and found[0] == NOW + timedelta(minutes=30) and "too often" in found[1]
