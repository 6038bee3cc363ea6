"""Maintenance windows, by answers that systemd-analyze 252 and 257 gave (in UTC and in a zone with summer time)."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest

from agent.host.calendar import Window, check_expression, read_window
from agent.model.errors import AgentError, Kind
from agent.spawn import Done

HOUR = 3600.0
IN_UTC = """\
  Original form: Mon..Fri 02:00
Normalized form: Mon..Fri *-*-* 02:00:00
    Next elapse: Mon 2025-11-24 02:00:00 UTC
       From now: 11 months 28 days ago
"""
IN_BERLIN = """\
  Original form: 02:30
Normalized form: *-*-* 02:30:00
    Next elapse: Sun 2025-11-23 02:30:00 CET
       (in UTC): Sun 2025-11-23 01:30:00 UTC
       From now: 11 months 29 days ago
"""
NEVER = """\
  Original form: 2020-01-01
Normalized form: 2020-01-01 00:00:00
    Next elapse: never
"""
ELAPSE = datetime(2025, 11, 24, 2, tzinfo=UTC)


class Analyze:
    """Answers as systemd-analyze did; remembers what it was asked."""

    def __init__(self, stdout: str = "", status: int = 0, stderr: str = "") -> None:
        self.done = Done((), status, stdout, stderr)
        self.argv: list[Sequence[str]] = []

    def __call__(self, argv: Sequence[str]) -> Done:
        self.argv.append(argv)
        return self.done


def test_a_window_is_open_from_its_opening_up_to_its_end() -> None:
    def at(moment: datetime) -> Window:
        return read_window("x", HOUR, moment, Analyze(IN_UTC))

    second = timedelta(seconds=1)
    closes = ELAPSE + timedelta(hours=1)
    assert at(ELAPSE - second) == Window(False, ELAPSE, closes)
    assert at(ELAPSE) == Window(True, ELAPSE, closes)
    assert at(closes - second) == Window(True, ELAPSE, closes)


def test_the_opening_is_sought_from_where_an_open_window_began() -> None:
    analyze = Analyze(IN_UTC)
    now = datetime(2025, 11, 24, 4, 30, tzinfo=timezone(timedelta(hours=2)))
    assert read_window("Mon..Fri 02:00", HOUR, now, analyze).is_open
    base = int(ELAPSE.timestamp()) + 1800 - 3600
    assert list(analyze.argv[0]) == [
        *("systemd-analyze", "calendar", f"--base-time=@{base}.000000", "--iterations=1", "--", "Mon..Fri 02:00")
    ]


def test_the_time_is_taken_in_utc_whatever_the_zone() -> None:
    window = read_window("02:30", HOUR, datetime(2025, 11, 22, tzinfo=UTC), Analyze(IN_BERLIN))
    assert window.opens_at == datetime(2025, 11, 23, 1, 30, tzinfo=UTC)


def test_what_never_comes_is_never_open() -> None:
    assert read_window("2020-01-01", HOUR, ELAPSE, Analyze(NEVER)) == Window(False)


def test_what_systemd_does_not_understand_is_told_in_its_words() -> None:
    words = "Failed to parse calendar specification 'foo': Invalid argument"
    for ask in (check_expression, lambda text, run: read_window(text, HOUR, ELAPSE, run)):
        with pytest.raises(AgentError, match=words) as caught:
            ask("foo", Analyze("", 1, f"{words}\n"))
        assert caught.value.kind is Kind.CONFIG and "systemd.time(7)" in caught.value.hint


@pytest.mark.parametrize("expression", ["a\0b", "02:00\n", "\x1b[31m", "x" * 201])
def test_what_cannot_be_an_expression_is_not_even_asked_for(expression: str) -> None:
    analyze = Analyze(IN_UTC)
    with pytest.raises(AgentError) as caught:
        check_expression(expression, analyze)
    assert caught.value.kind is Kind.CONFIG and caught.value.message.isprintable() and not analyze.argv


def test_an_answer_without_a_time_is_no_answer() -> None:
    with pytest.raises(AgentError) as caught:
        read_window("02:00", HOUR, ELAPSE, Analyze("Next elapse: Sun 2025-11-23 02:30:00 CET\n"))
    assert caught.value.kind is Kind.PROTOCOL
