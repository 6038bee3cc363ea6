"""Maintenance windows as systemd 252 and 257 read them, unbooted, in a zone whose clocks change."""

import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.host.calendar import Window, check_expression, read_window
from agent.model.errors import AgentError, Kind
from agent.spawn import ENVIRONMENT, Done
from tests.e2e import roots

Run = Callable[[Sequence[str]], Done]
HOUR = 3600.0


@pytest.fixture(scope="module", params=roots.SUITES)
def root(request: pytest.FixtureRequest) -> Path:
    """A root file system that is not booted; nothing is written to it."""
    return roots.base(request.param).tree


def within(root: Path, zone: str) -> Run:
    """Return what runs programs in `root` where it is as late as in `zone`."""

    def run(argv: Sequence[str]) -> Done:
        command = ["chroot", str(root), *argv]
        environment = {**ENVIRONMENT, "TZ": zone}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return Done(tuple(argv), done.returncode, done.stdout, done.stderr)

    return run


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)


def test_a_window_by_the_clock_on_the_wall(root: Path) -> None:
    run = within(root, "Europe/Berlin")
    assert read_window("Sun 03:00", HOUR, utc(2026, 1, 3, 12), run) == Window(
        False, utc(2026, 1, 4, 2), utc(2026, 1, 4, 3)
    )
    assert read_window("Sun 03:00", HOUR, utc(2026, 1, 4, 2, 59, 59), run).is_open
    assert read_window("Sun 03:00", HOUR, utc(2026, 1, 4, 3), run).opens_at == utc(2026, 1, 11, 2)
    assert read_window("Sun 03:00", HOUR, utc(2026, 7, 4, 12), run).opens_at == utc(2026, 7, 5, 1)


def test_a_zone_of_its_own_counts_before_the_local_one(root: Path) -> None:
    run = within(root, "Asia/Tokyo")
    assert read_window("03:00 Europe/Berlin", HOUR, utc(2026, 1, 3, 12), run).opens_at == utc(2026, 1, 4, 2)
    assert read_window("03:00 UTC", HOUR, utc(2026, 1, 3, 12), within(root, "UTC")).opens_at == utc(2026, 1, 4, 3)


def test_the_night_on_which_clocks_change(root: Path) -> None:
    run = within(root, "Europe/Berlin")
    assert read_window("02:30", HOUR, utc(2026, 3, 28, 12), run).opens_at == utc(2026, 3, 30, 0, 30)
    autumn = read_window("02:30", HOUR, utc(2026, 10, 24, 12), run)
    assert autumn.opens_at in (utc(2026, 10, 25, 0, 30), utc(2026, 10, 25, 1, 30))
    assert autumn.closes_at == (autumn.opens_at or utc(1970, 1, 1)) + timedelta(hours=1)
    over_it = read_window("01:30", 4 * HOUR, utc(2026, 3, 29, 4, 29, 59), run)
    assert over_it == Window(True, utc(2026, 3, 29, 0, 30), utc(2026, 3, 29, 4, 30))


def test_windows_that_overlap_are_always_open(root: Path) -> None:
    window = read_window("hourly", 2 * HOUR, utc(2026, 1, 3, 12, 10), within(root, "UTC"))
    assert window == Window(True, utc(2026, 1, 3, 11), utc(2026, 1, 3, 13))


def test_what_lies_in_the_past_never_comes(root: Path) -> None:
    assert read_window("2020-01-01", HOUR, utc(2026, 1, 3), within(root, "Europe/Berlin")) == Window(False)


@pytest.mark.parametrize("expression", ["", "foo", "Mon..Fry 02:00", "25:00", "--help", "-1", "; id"])
def test_what_systemd_does_not_understand_is_a_fault_of_the_configuration(root: Path, expression: str) -> None:
    with pytest.raises(AgentError, match="Failed to parse") as caught:
        check_expression(expression, within(root, "UTC"))
    assert caught.value.kind is Kind.CONFIG


@pytest.mark.parametrize("expression", ["Mon..Fri 02:00", "daily", "Sun *-*-1..7 03:30 Europe/Berlin", "*:0/10"])
def test_what_systemd_understands_is_good(root: Path, expression: str) -> None:
    check_expression(expression, within(root, "UTC"))
