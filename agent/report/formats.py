"""Findings in formats that other programs read: a Nagios plugin's line, `needrestart -b`, and OpenMetrics.

Pure. Each function returns the text, ending in a newline, and the exit status that its readers expect.
However hostile a name is, one record stays one record.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from agent.model.contract import printable
from agent.model.findings import Finding, Severity, StaleUnit
from agent.model.restarts import MANAGER, Disposition

Printed = tuple[str, int]

STATES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
OK, WARNING, CRITICAL, UNKNOWN = range(4)
LONGEST_LINE = 1000
NEEDRESTART = "3.6"
"""The version of needrestart, Debian 12's, whose batch format this is."""
KERNEL_STATES = {"unknown": 0, "current": 1, "abi-upgrade": 2, "version-upgrade": 3}
MICROCODE_STATES = {"unknown": 0, "current": 1, "obsolete": 2}


def nagios(findings: Sequence[Finding], unseen: Sequence[str] = ()) -> Printed:
    """Return one line `STATE - text | counts` and 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN.

    What could not be looked at is UNKNOWN where nothing worse is known; information alone is OK.
    """
    counts = Counter(finding.severity for finding in findings)
    state = _state(counts, unseen)
    order = [severity for severity in Severity]
    worst = sorted(findings, key=lambda finding: order.index(finding.severity))[:3]
    said = [finding.summary for finding in worst]
    said += [f"{len(findings) - len(worst)} more"] if len(findings) > len(worst) else []
    said += [f"not seen: {unseen[0]}"] if unseen else []
    text = printable("; ".join(said) or "nothing runs replaced code").replace("|", "\\x7c")
    measured = " ".join(f"{severity.value}={counts[severity]};;;0" for severity in order)
    return f"{STATES[state]} - {text[:LONGEST_LINE]} | {measured}\n", state


def _state(counts: Mapping[Severity, int], unseen: Sequence[str]) -> int:
    if counts[Severity.CRITICAL] or counts[Severity.ERROR]:
        return CRITICAL
    if counts[Severity.WARNING]:
        return WARNING
    return UNKNOWN if counts[Severity.UNKNOWN] or unseen else OK


def needrestart(
    findings: Sequence[Finding],
    unseen: Sequence[str] = (),
    users: Mapping[int, str] = {},
    reboot: Mapping[str, Any] = {},
) -> Printed:
    """Return what `needrestart -b` would print of these findings, and 0, always.

    users: names of user ids, for sessions; an id without one is shown as it is. reboot: the detail of the check of
    that name; where it does not speak of kernel or microcode, as in a container, there are no lines on them. What is
    unseen has no place in this format.
    """
    services, containers, sessions = set(), set(), set()
    for unit in _stale(findings):
        if not unit.processes:
            continue
        if unit.disposition is Disposition.CONTAINER:
            containers.add(_container(unit.unit))
        elif (session := _session(unit, users)) is not None:
            sessions.add(session)
        else:
            services.add("systemd-manager" if unit.unit == MANAGER else unit.unit)
    records = [("VER", NEEDRESTART), *_kernel(reboot.get("kernel")), *_microcode(reboot.get("microcode"))]
    for key, values in (("SVC", services), ("CONT", containers), ("SESS", sessions)):
        records += [(key, value) for value in sorted(values, key=lambda value: (value.lower(), value))]
    return "".join(f"NEEDRESTART-{key}: {printable(value)}\n" for key, value in records), 0


def _kernel(detail: Mapping[str, str] | None) -> Iterator[tuple[str, str]]:
    if detail:
        yield "KCUR", detail["running"]
        if detail["expected"]:
            yield "KEXP", detail["expected"]
        yield "KSTA", str(KERNEL_STATES[detail["state"]])


def _microcode(detail: Mapping[str, str] | None) -> Iterator[tuple[str, str]]:
    if detail:
        state = MICROCODE_STATES[detail["state"]]
        yield "UCSTA", str(state)
        if state:
            yield "UCCUR", detail["running"]
            yield "UCEXP", detail["expected"]


def _session(unit: StaleUnit, users: Mapping[int, str]) -> str | None:
    """Return how needrestart names a session; None for what is no session."""
    uid = unit.processes[0].uid
    kind, _, number = unit.unit.removesuffix(".scope").partition("-")
    if kind == "session" and number:
        return f"{users.get(uid, str(uid))} @ session #{number}"
    if unit.unit.startswith("user@"):
        return f"{users.get(uid, str(uid))} @ user manager service"
    return None


def _container(unit: str) -> str:
    """Return `<type> <name>` of a container's unit: docker-abc.scope, systemd-nspawn@web.service."""
    stem = unit.rpartition(".")[0]
    kind, _, name = stem.partition("@" if "@" in stem else "-")
    return f"{kind} {name}" if name else f"container {stem or unit}"


def openmetrics(findings: Sequence[Finding], unseen: Sequence[str] = (), checked_at: datetime | None = None) -> Printed:
    """Return gauges in OpenMetrics text, ended by `# EOF`, and 0, always. checked_at: time of the look."""
    stale = _stale(findings)
    counts = Counter((finding.check, finding.severity) for finding in findings)
    checks = sorted({"libraries", *(finding.check for finding in findings)})
    exposed = {cve for unit in stale for cve in unit.cves}
    families = [
        _gauge(
            "findings",
            "What is wrong, by check and severity.",
            [({"check": check, "severity": kind}, counts[check, kind]) for check in checks for kind in Severity],
        ),
        _gauge(
            "stale_units",
            "Units that run replaced code, by what will be done about them.",
            [({"disposition": kind}, sum(unit.disposition is kind for unit in stale)) for kind in Disposition],
        ),
        _gauge(
            "stale_unit",
            "Each unit that runs replaced code; certain or likely.",
            [(_labels(unit), len(unit.processes)) for unit in stale],
        ),
        _gauge("exposed_cves", "Fixes that are installed but not in effect.", [({}, len(exposed))]),
        _gauge("unseen", "How much could not be looked at.", [({}, len(unseen))]),
    ]
    if checked_at is not None:
        text = "When this was looked at."
        families.append(_gauge("last_check_timestamp_seconds", text, [({}, int(checked_at.timestamp()))]))
    return "".join(line for family in families for line in family) + "# EOF\n", 0


def _labels(unit: StaleUnit) -> dict[str, str]:
    return {"unit": unit.unit, "disposition": unit.disposition, "confidence": unit.confidence}


def _gauge(name: str, text: str, samples: Sequence[tuple[Mapping[str, str], int]]) -> Iterator[str]:
    yield f"# TYPE aftercare_{name} gauge\n"
    yield f"# HELP aftercare_{name} {text}\n"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"aftercare_{name}{{{pairs}}} {value}\n" if pairs else f"aftercare_{name} {value}\n"


def _escaped(label: str) -> str:
    return printable(str(label)).replace("\\", "\\\\").replace('"', '\\"')


def _stale(findings: Sequence[Finding]) -> list[StaleUnit]:
    return [finding.evidence for finding in findings if isinstance(finding.evidence, StaleUnit)]
