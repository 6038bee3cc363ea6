"""Findings for other programs: one record stays one record, whatever it is about."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checks.reboot import State
from agent.model import contract
from agent.model.facts import StaleFile, StaleProcess
from agent.model.findings import Confidence, Finding, Severity, StaleUnit
from agent.model.restarts import Disposition
from agent.model.text import printable
from agent.report import formats

NOW = datetime(2026, 11, 22, 15, 16, 58, tzinfo=UTC)


def rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [contract.finding(finding) for finding in findings]


def nagios(findings: Sequence[Finding], unseen: Sequence[str] = (), *, history: bool = True) -> formats.Printed:
    return formats.nagios(rows(findings), [printable(line) for line in unseen], history=history)


def needrestart(findings: Sequence[Finding], **known: Any) -> formats.Printed:
    return formats.needrestart(rows(findings), **known)


def openmetrics(
    findings: Sequence[Finding], unseen: Sequence[str] = (), checked_at: str | None = None
) -> formats.Printed:
    return formats.openmetrics(rows(findings), unseen, checked_at)


def stale(
    unit: str,
    disposition: Disposition = Disposition.RESTART,
    severity: Severity = Severity.WARNING,
    uid: int = 0,
    cves: tuple[str, ...] = (),
    summary: str = "",
    confidence: Confidence = Confidence.CERTAIN,
) -> Finding:
    running = "3.0.20" if confidence is Confidence.CERTAIN else None
    file = StaleFile("/usr/lib/x86_64-linux-gnu/libssl.so.3", "libssl3", running, "3.0.22")
    process = StaleProcess(911, NOW, "/usr/sbin/x", "x", uid, (file,))
    evidence = StaleUnit(unit, disposition, confidence, (process,), cves)
    return Finding("libraries", unit, severity, summary or f"{unit} runs replaced code", "", evidence)


def of(severity: Severity) -> Finding:
    return Finding("libraries", severity.value, severity, f"it is {severity.value}", "", {})


# Nagios


@pytest.mark.parametrize(
    ("severities", "unseen", "state", "status"),
    [
        ((), (), "OK", 0),
        ((Severity.INFO,), (), "OK", 0),
        ((Severity.WARNING, Severity.INFO), (), "WARNING", 1),
        ((Severity.WARNING, Severity.ERROR), (), "CRITICAL", 2),
        ((Severity.CRITICAL, Severity.UNKNOWN), ("pid 4",), "CRITICAL", 2),
        ((Severity.UNKNOWN,), (), "UNKNOWN", 3),
        ((), ("processes of other users",), "UNKNOWN", 3),
        ((Severity.WARNING, Severity.UNKNOWN), ("pid 4",), "WARNING", 1),
    ],
)
def test_the_worst_decides(severities: tuple[Severity, ...], unseen: tuple[str, ...], state: str, status: int) -> None:
    text, given = nagios([of(severity) for severity in severities], unseen)
    assert text.startswith(f"{state} - ") and given == status


def test_a_line_of_a_plugin() -> None:
    findings = [of(severity) for severity in (Severity.INFO, Severity.WARNING, Severity.CRITICAL, Severity.WARNING)]
    assert nagios(findings, ["pid 4", "pid 5"])[0] == (
        "CRITICAL - it is critical; it is warning; it is warning; 1 more; not seen: pid 4"
        " | critical=1;;;0 error=0;;;0 warning=2;;;0 info=1;;;0 unknown=0;;;0\n"
    )
    assert nagios([])[0].startswith("OK - nothing runs replaced code | critical=0;;;0 ")


@given(st.text(max_size=50), st.text(max_size=50), st.sampled_from(Severity))
def test_a_plugin_prints_one_line_with_one_bar(summary: str, unseen: str, severity: Severity) -> None:
    text, _ = nagios([stale("x.service", severity=severity, summary=summary)], [unseen])
    assert text.endswith("\n") and text[:-1].isprintable() and text.count("|") == 1


def test_a_very_long_name_leaves_room_for_the_counts() -> None:
    text, _ = nagios([stale("x" * 5000)])
    assert len(text) < 1200 and "| critical=0" in text


@pytest.mark.parametrize(
    ("disposition", "history", "state"),
    [
        (Disposition.DEFER, False, "WARNING"),
        (Disposition.REBOOT, False, "WARNING"),
        (Disposition.DEFER, True, "OK"),
        (Disposition.SESSION, False, "OK"),
        (Disposition.CONTAINER, False, "OK"),
    ],
)
def test_what_is_only_likely_stale_for_want_of_history_is_a_warning(
    disposition: Disposition, history: bool, state: str
) -> None:
    likely = stale("ssh.service", disposition, Severity.INFO, confidence=Confidence.LIKELY)
    text, status = nagios([of(Severity.INFO), likely], history=history)
    assert text.startswith(f"{state} - ") and status == formats.STATES.index(state)
    assert f"warning={status};;;0" in text and (status == 0 or text.startswith("WARNING - ssh.service runs"))


@pytest.mark.parametrize(
    ("counts", "unseen", "said", "status"),
    [
        ({"critical": 0, "error": 2, "info": 1}, "", "CRITICAL - 2 error, 1 info; root and the group aftercare see", 2),
        ({"warning": 1}, "it", "WARNING - 1 warning; root and the group aftercare see which; not seen: it | ", 1),
        ({"info": 0}, "", "OK - nothing runs replaced code | critical=0;;;0 ", 0),
        ({"info": 1}, "it", "UNKNOWN - 1 info; ", 3),
    ],
)
def test_counts_alone_are_a_line_of_a_plugin_too(counts: dict[str, int], unseen: str, said: str, status: int) -> None:
    text, given = formats.nagios_counts(counts, unseen)
    assert text.startswith(said) and text.count("|") == 1 and given == status


def test_a_plugin_that_could_not_look_is_unknown() -> None:
    assert formats.nagios_unknown("a | b") == ("UNKNOWN - a \\x7c b\n", 3)


# needrestart


def test_the_batch_format_of_needrestart() -> None:
    findings = [
        stale("nginx.service"),
        stale("Zabbix.service", Disposition.DEFER),
        stale("cron.service", Disposition.LEFTOVER),
        stale("init.scope"),
        stale("session-3.scope", Disposition.SESSION, uid=1000),
        stale("session-28017.scope", Disposition.SESSION),
        stale("user@1000.service", Disposition.SESSION, uid=1000),
        stale("docker-0a1b.scope", Disposition.CONTAINER),
        stale("systemd-nspawn@web1.service", Disposition.CONTAINER),
        of(Severity.CRITICAL),
    ]
    text, status = needrestart(findings, users={0: "root", 1000: "alice"})
    assert status == 0 and text.splitlines() == [
        "NEEDRESTART-VER: 3.6",
        "NEEDRESTART-SVC: cron.service",
        "NEEDRESTART-SVC: nginx.service",
        "NEEDRESTART-SVC: systemd-manager",
        "NEEDRESTART-SVC: Zabbix.service",
        "NEEDRESTART-CONT: docker 0a1b",
        "NEEDRESTART-CONT: systemd-nspawn web1",
        "NEEDRESTART-SESS: alice @ session #3",
        "NEEDRESTART-SESS: alice @ user manager service",
        "NEEDRESTART-SESS: root @ session #28017",
    ]


def test_a_session_is_named_for_who_logged_in_and_not_for_who_runs_sshd() -> None:
    users = {0: "root", 1000: "alice"}
    text, _ = needrestart(
        [stale("session-1666.scope", Disposition.SESSION)], users=users, sessions={"session-1666.scope": 1000}
    )
    assert text.endswith("NEEDRESTART-SESS: alice @ session #1666\n")


def test_a_users_unit_is_his_whoever_runs_in_it() -> None:
    text, _ = needrestart([stale("user@1000.service/a.service", Disposition.SESSION, uid=0)], users={1000: "alice"})
    assert text.endswith("NEEDRESTART-SESS: alice @ user manager service\n")


def test_a_unit_is_called_what_systemd_takes() -> None:
    assert needrestart([stale("a\\x2db.service")])[0] == needrestart([])[0] + "NEEDRESTART-SVC: a\\x2db.service\n"


KERNEL = {"state": "version-upgrade", "running": "6.1.0-47-amd64", "expected": "6.1.0-56-amd64"}
MICROCODE = {"state": "current", "running": "0x2f", "expected": "0x2f"}


def test_kernel_and_microcode_come_before_the_units() -> None:
    text, _ = needrestart([stale("a.service")], reboot={"kernel": KERNEL, "microcode": MICROCODE, "flag": None})
    assert text.splitlines()[1:] == [
        "NEEDRESTART-KCUR: 6.1.0-47-amd64",
        "NEEDRESTART-KEXP: 6.1.0-56-amd64",
        "NEEDRESTART-KSTA: 3",
        "NEEDRESTART-UCSTA: 1",
        "NEEDRESTART-UCCUR: 0x2f",
        "NEEDRESTART-UCEXP: 0x2f",
        "NEEDRESTART-SVC: a.service",
    ]


def test_of_an_unknown_kernel_and_microcode_nothing_is_expected() -> None:
    nothing = {"state": "unknown", "expected": ""}
    text, _ = needrestart([], reboot={"kernel": KERNEL | nothing, "microcode": MICROCODE | nothing})
    assert text.splitlines()[1:] == ["NEEDRESTART-KCUR: 6.1.0-47-amd64", "NEEDRESTART-KSTA: 0", "NEEDRESTART-UCSTA: 0"]


@pytest.mark.parametrize("state", list(State))
def test_every_state_of_the_check_has_its_number(state: State) -> None:
    kind = "microcode" if state is State.OBSOLETE else "kernel"
    assert needrestart([], reboot={kind: KERNEL | {"state": state.value}})[0].count("STA: ") == 1


def test_where_the_kernel_is_not_ours_there_are_no_lines_on_it() -> None:
    foreign = {"flag": None, "foreign": "this is a container (docker)"}
    assert needrestart([], reboot=foreign) == ("NEEDRESTART-VER: 3.6\n", 0)


def test_a_reboot_is_a_warning_for_nagios() -> None:
    text, status = nagios([Finding("reboot", "kernel", Severity.WARNING, "Linux 6.1.0-47-amd64 runs", "", {})])
    assert text.startswith("WARNING - Linux 6.1.0-47-amd64 runs | ") and status == 1


def test_nothing_stale_is_the_version_alone() -> None:
    assert needrestart([]) == ("NEEDRESTART-VER: 3.6\n", 0)


def test_a_unit_that_is_down_but_not_stale_is_no_record() -> None:
    down = StaleUnit("nginx.service", Disposition.LEFTOVER, Confidence.CERTAIN, ())
    assert needrestart([Finding("libraries", "nginx.service", Severity.CRITICAL, "", "", down)])[0].count("\n") == 1


@given(st.lists(st.tuples(st.text(max_size=30), st.sampled_from(Disposition), st.text(max_size=10)), max_size=5))
def test_each_unit_is_at_most_one_record(units: list[tuple[str, Disposition, str]]) -> None:
    findings = [stale(unit, disposition) for unit, disposition, _ in units]
    text, _ = needrestart(findings, users={0: printable(units[0][2]) if units else ""})
    *records, end = text.split("\n")
    assert end == "" and len(records) <= 1 + len(units)
    for record in records:
        assert record.isprintable() and re.match(r"NEEDRESTART-(VER|SVC|CONT|SESS): ", record)


# OpenMetrics

SAMPLE = re.compile(r'aftercare_\w+(\{(\w+="([^"\\]|\\["\\n])*",?)*\})? -?\d+')


def samples(text: str) -> list[str]:
    """Return the samples of an exposition, held against the grammar of OpenMetrics."""
    assert text.endswith("# EOF\n") and text.count("# EOF") == 1
    found = []
    family = ""
    for line in text.splitlines()[:-1]:
        if line.startswith("# TYPE "):
            family = re.fullmatch(r"# TYPE (aftercare_\w+) gauge", line)[1]  # type: ignore[index]
        elif line.startswith("# HELP "):
            assert line.startswith(f"# HELP {family} ")
        else:
            assert SAMPLE.fullmatch(line) and re.match(rf"{family}[ {{]", line), line
            found.append(line)
    names = [sample.rpartition(" ")[0] for sample in found]
    assert len(set(names)) == len(names)
    return found


def test_gauges() -> None:
    findings = [
        stale("nginx.service", cves=("CVE-2026-1", "CVE-2026-2")),
        stale("db.service", Disposition.DEFER, cves=("CVE-2026-2",)),
        of(Severity.CRITICAL),
    ]
    text, status = openmetrics(findings, ["pid 4"], contract.stamp(NOW))
    found = samples(text)
    assert status == 0
    assert 'aftercare_findings{check="libraries",severity="critical"} 1' in found
    assert 'aftercare_findings{check="libraries",severity="warning"} 2' in found
    assert 'aftercare_findings{check="libraries",severity="error"} 0' in found
    assert 'aftercare_stale_units{disposition="restart"} 1' in found
    assert 'aftercare_stale_units{disposition="never"} 0' in found
    assert 'aftercare_stale_unit{unit="db.service",disposition="defer",confidence="certain"} 1' in found
    assert "aftercare_exposed_cves 2" in found and "aftercare_unseen 1" in found
    assert "aftercare_last_check_timestamp_seconds 1795360618" in found


def test_where_nothing_is_wrong_the_gauges_are_there_and_zero() -> None:
    found = samples(openmetrics([])[0])
    assert found and all(sample.endswith(" 0") for sample in found)


def test_how_many_fixes_are_not_in_effect_is_not_zero_where_it_is_not_known() -> None:
    """Without the daemon's history nothing tells which version runs, and so which fixes it lacks."""
    likely = stale("ssh.service", severity=Severity.INFO, confidence=Confidence.LIKELY)
    found = samples(openmetrics([likely])[0])
    assert not any(sample.startswith("aftercare_exposed_cves ") for sample in found)
    assert "aftercare_unknown_versions 1" in found
    known = samples(openmetrics([likely, stale("nginx.service", cves=("CVE-2026-1",))])[0])
    assert "aftercare_exposed_cves 1" in known and "aftercare_unknown_versions 1" in known


@given(st.sets(st.text(max_size=30), max_size=4))
def test_hostile_labels_keep_the_grammar(units: set[str]) -> None:
    found = samples(openmetrics([stale(unit) for unit in units])[0])
    assert sum("stale_unit{" in sample for sample in found) == len(units)
    assert all(sample.isprintable() for sample in found)
