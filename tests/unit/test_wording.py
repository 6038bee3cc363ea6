"""How findings are put, whatever the names in them are."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.checks.libraries.wording import broken_finding, interrupted_finding, is_down, stale_finding, subject_of
from agent.model.facts import StaleFile, StaleProcess, Unit
from agent.model.findings import Confidence, Severity, StaleUnit
from agent.model.restarts import Disposition, Outcome, Result

SSL = StaleFile("/usr/lib/libssl.so.3", "libssl3", "3.0.20-1~deb12u2", "3.0.22-1~deb12u2")
CRYPTO = replace(SSL, path="/usr/lib/libcrypto.so.3")
PROCESS = StaleProcess(911, datetime(2026, 11, 22, tzinfo=UTC), "/usr/sbin/nginx", "nginx", 0, (SSL, CRYPTO))
AS_USER = "systemd-run --pipe --quiet --uid=7 --setenv=XDG_RUNTIME_DIR=/run/user/7"
NGINX = StaleUnit("nginx.service", Disposition.RESTART, Confidence.CERTAIN, (PROCESS,) * 3)


def summary(*files: StaleFile, count: int = 3) -> str:
    process = replace(PROCESS, files=files)
    return stale_finding(replace(NGINX, processes=(process,) * count), ()).summary


def test_the_summary_says_what_runs_and_what_replaced_it() -> None:
    assert summary(SSL, CRYPTO) == "3 processes still run libssl3 3.0.20-1~deb12u2, replaced by 3.0.22-1~deb12u2"
    assert summary(SSL, count=1).startswith("1 process still runs libssl3")
    gone = replace(SSL, package="libfoo1", installed=None)
    assert summary(gone) == "3 processes still run libfoo1 3.0.20-1~deb12u2, removed since"
    assert summary(gone, SSL, replace(SSL, package="zlib1g")).endswith("removed since and 2 other packages")


@pytest.mark.parametrize("count", [1, 9, 400])
def test_the_summary_is_one_short_line_however_long_the_names(count: int) -> None:
    long = [replace(SSL, package=f"lib{'x' * 60}{number}", running="1:" + "2" * 80) for number in range(count)]
    assert len(summary(*long)) <= 100
    outcome = Outcome("x" * 255 + ".service", Result.FAILED)
    assert len(broken_finding(outcome, None).summary) <= 100


@pytest.mark.parametrize(
    ("unit", "disposition", "advice"),
    [
        ("nginx.service", Disposition.RESTART, "agentctl restart nginx.service"),
        ("postgresql@15-main.service", Disposition.DEFER, "agentctl restart postgresql@15-main.service"),
        ("dbus.service", Disposition.REBOOT, "systemctl reboot"),
        ("session-3.scope", Disposition.SESSION, "loginctl terminate-session 3"),
        ("user@1000.service", Disposition.SESSION, "systemctl status user@1000.service"),
        ("machine-web.scope", Disposition.CONTAINER, "systemctl status machine-web.scope"),
        ("init.scope", Disposition.RESTART, "systemctl daemon-reexec"),
        ("cron.service", Disposition.LEFTOVER, "systemctl status cron.service"),
        ("user@7.service/x.service", Disposition.RESTART, "agentctl restart user@7.service/x.service"),
        ("user@7.service/x.service", Disposition.SESSION, f"{AS_USER} systemctl --user restart x.service"),
        ("user@7.service/x.service", Disposition.LEFTOVER, f"{AS_USER} systemctl --user status x.service"),
        ("user@7.service/x.scope", Disposition.SESSION, f"{AS_USER} systemctl --user status x.scope"),
        ("user@7.service/run-u1.service", Disposition.SESSION, f"{AS_USER} systemctl --user status run-u1.service"),
        ("a;b.service", Disposition.RESTART, "agentctl restart 'a;b.service'"),
        ("/opt/x y/demo", Disposition.NEVER, "ps -f -p 911,911,911"),
    ],
)
def test_the_advice_is_a_command_that_fits(unit: str, disposition: Disposition, advice: str) -> None:
    finding = stale_finding(replace(NGINX, unit=unit, disposition=disposition), ())
    assert finding.advice == advice and finding.id == f"libraries/{unit}"
    assert stale_finding(replace(NGINX, unit=unit), ("libssl3",)).advice == "dpkg --configure -a"


@pytest.mark.parametrize(
    ("disposition", "confidence", "severity"),
    [
        (Disposition.RESTART, Confidence.CERTAIN, Severity.WARNING),
        (Disposition.DEFER, Confidence.CERTAIN, Severity.WARNING),
        (Disposition.REBOOT, Confidence.CERTAIN, Severity.WARNING),
        (Disposition.LEFTOVER, Confidence.CERTAIN, Severity.WARNING),
        (Disposition.SESSION, Confidence.CERTAIN, Severity.INFO),
        (Disposition.CONTAINER, Confidence.CERTAIN, Severity.INFO),
        (Disposition.NEVER, Confidence.CERTAIN, Severity.INFO),
        (Disposition.DEFER, Confidence.LIKELY, Severity.INFO),
        (Disposition.LEFTOVER, Confidence.LIKELY, Severity.INFO),
    ],
)
def test_severity_follows_what_is_proven_and_what_can_be_done(
    disposition: Disposition, confidence: Confidence, severity: Severity
) -> None:
    assert stale_finding(replace(NGINX, disposition=disposition, confidence=confidence), ()).severity is severity


def test_a_program_can_never_be_taken_for_a_unit() -> None:
    assert subject_of(Unit("nginx.service"), "/usr/sbin/nginx", "nginx") == "nginx.service"
    assert subject_of(None, "/home/u/ssh.service", "x") == "/home/u/ssh.service"
    assert subject_of(None, "", "ssh.service") == "[ssh.service]"


def test_what_is_down_stays_down_until_all_of_it_runs() -> None:
    failed = Outcome("a.service", Result.FAILED, leftovers=("x (1)",))
    with_it = replace(failed, result=Result.DEPENDANT_DOWN, leftovers=("b.service",))
    up, down = Unit("a.service"), Unit("a.service", active="failed")
    assert is_down(failed, {}) and is_down(failed, {"a.service": down})
    assert not is_down(failed, {"a.service": up})
    assert is_down(with_it, {"a.service": up}) and is_down(with_it, {"a.service": up, "b.service": down})
    assert not is_down(with_it, {"a.service": up, "b.service": replace(up, active="reloading")})


def test_a_users_unit_is_down_as_long_as_his_manager_runs_and_it_does_not() -> None:
    failed = Outcome("user@7.service/x.service", Result.FAILED)
    manager, unit = Unit("user@7.service"), Unit(failed.unit)
    assert is_down(failed, {manager.name: manager})
    assert is_down(failed, {manager.name: manager, unit.name: replace(unit, active="inactive")})
    assert not is_down(failed, {manager.name: manager, unit.name: unit})
    assert not is_down(failed, {"nginx.service": Unit("nginx.service")}), "he logged out"
    assert not is_down(failed, {manager.name: replace(manager, active="inactive")})
    assert is_down(failed, {}), "systemd did not answer"
    assert broken_finding(failed, None).advice == f"{AS_USER} systemctl --user status x.service"
    assert broken_finding(Outcome("a.service", Result.FAILED), None).advice.endswith("; journalctl -u a.service")


def test_an_interrupted_dpkg_names_its_packages() -> None:
    finding = interrupted_finding(("a", "b"))
    assert finding.summary == "dpkg was interrupted: 2 packages are not configured"
    assert isinstance(finding.evidence, dict) and finding.evidence["packages"] == ["a", "b"]


def test_what_is_exposed_weighs_more() -> None:
    exposed = replace(NGINX, cves=("CVE-2026-1",))
    assert stale_finding(exposed, ()).severity is Severity.ERROR
    assert stale_finding(replace(exposed, disposition=Disposition.SESSION), ()).severity is Severity.WARNING


def test_a_unit_that_was_not_restarted_because_it_would_not_come_back_is_critical() -> None:
    refused = Outcome("nginx.service", Result.PRECHECK_FAILED, hint="/etc/nginx/nginx.conf line 3")
    found = stale_finding(replace(NGINX, disposition=Disposition.DEFER, outcome=refused), ())
    assert found.severity is Severity.CRITICAL and found.advice == "agentctl restart nginx.service"


def test_a_unit_that_does_not_answer_is_ill_though_it_runs() -> None:
    outcome = Outcome("a.service", Result.PROBE_FAILED, hint="tcp:localhost:80: no answer within 5 s")
    assert is_down(outcome, {"a.service": Unit("a.service")})
    assert broken_finding(outcome, None).summary.startswith("does not do its work since its restart")
