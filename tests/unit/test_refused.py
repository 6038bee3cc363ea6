"""A unit that was not restarted, because it would not have come back: for how long that word counts."""

from datetime import UTC, datetime

import pytest

from agent.checks.libraries import Group, _stale_finding
from agent.model.facts import Host, Process, Replaced, StaleFile, StaleProcess, Unit
from agent.model.findings import Confidence, Finding, Request, Severity, StaleUnit
from agent.model.restarts import Attempt, Disposition, Outcome, Result
from agent.stale.judge import Verdict

NOW = datetime(2026, 11, 22, 12, 3, tzinfo=UTC)
BROKEN = "its configuration is broken: /etc/nginx/nginx.conf line 84: unknown directive"


def found(result: Result, newest: int, hint: str = BROKEN) -> Finding:
    """Return what is said of a unit whose files transaction 7 replaced and whose attempt, for it, came to `result`."""
    file = StaleFile("/usr/lib/libssl.so.3", "libssl3", "1", "2")
    stale = StaleProcess(9, NOW, "/usr/sbin/nginx", "nginx", 0, (file,))
    process = Process(9, NOW, 0, "/usr/sbin/nginx", "nginx", "/system.slice/nginx.service")
    attempt = Attempt(1, 7, "nginx.service", "i", NOW, Outcome("nginx.service", result, hint=hint))
    past = tuple(Replaced(number, "tzdata", None, NOW, "1", "2") for number in range(1, newest + 1))
    request = Request("libraries", NOW, attempts=(attempt,), past=past)
    verdict = Verdict(process, stale, (), Confidence.CERTAIN, 7)
    return _stale_finding(Host(), request, Group("nginx.service", Unit("nginx.service"), (verdict,)), (), {})


def disposition(finding: Finding) -> Disposition:
    assert isinstance(finding.evidence, StaleUnit)
    return finding.evidence.disposition


def test_what_a_test_of_the_configuration_said_is_told_with_its_time_and_what_comes_first() -> None:
    finding = found(Result.PRECHECK_FAILED, 7)
    assert finding.severity is Severity.CRITICAL and disposition(finding) is Disposition.DEFER
    assert isinstance(finding.evidence, StaleUnit)
    assert finding.evidence.reason == f"{BROKEN} (tested at {NOW.astimezone():%Y-%m-%d %H:%M})"
    assert finding.advice == "mend that, then: agentctl restart nginx.service"


@pytest.mark.parametrize("result", [Result.PRECHECK_FAILED, Result.NOT_RUN])
def test_it_counts_until_the_next_transaction_whatever_that_changes(result: Result) -> None:
    assert disposition(found(result, 7)) is not Disposition.RESTART
    finding = found(result, 8)
    assert disposition(finding) is Disposition.RESTART and finding.severity is Severity.WARNING
    assert isinstance(finding.evidence, StaleUnit) and finding.evidence.outcome is None


def test_a_unit_that_was_restarted_is_not_restarted_again_for_a_transaction_that_does_not_touch_it() -> None:
    assert disposition(found(Result.LEFTOVER, 8)) is Disposition.LEFTOVER
