"""Findings in formats that other programs read: a Nagios plugin's line, `needrestart -b`, and OpenMetrics.

Pure. Each function takes findings as JSON of the contract, in which every foreign word is printable already, and
returns the text, ending in a newline, and the exit status that its readers expect. However hostile a name is, one
record stays one record.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from agent.model.findings import Confidence, Severity
from agent.model.restarts import MANAGER, Disposition
from agent.model.text import typed
from agent.model.users import uid_of

Printed = tuple[str, int]
Row = Mapping[str, Any]
"""A finding as `contract.finding` has it."""

STATES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
OK, WARNING, CRITICAL, UNKNOWN = range(4)
LONGEST_LINE = 1000
NEEDRESTART = "3.6"
"""The version of needrestart, Debian 12's, whose batch format this is."""
KERNEL_STATES = {"unknown": 0, "current": 1, "abi-upgrade": 2, "version-upgrade": 3}
MICROCODE_STATES = {"unknown": 0, "current": 1, "obsolete": 2}
LEFT_ALONE = (Disposition.SESSION, Disposition.CONTAINER, Disposition.NEVER)
SEE_MORE = "root and the group aftercare see which"


def nagios(rows: Sequence[Row], unseen: Sequence[str] = (), *, history: bool = True) -> Printed:
    """Return one line `STATE - text | counts` and 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN.

    What could not be looked at is UNKNOWN where nothing worse is known; information alone is OK. history: whether the
    daemon's was at hand. Without it every stale unit is only likely so, and one that is somebody's to see to counts as
    a warning.
    """
    severities = [_severity(row, history) for row in rows]
    order = list(Severity)
    worst = sorted(zip(severities, rows, strict=True), key=lambda pair: order.index(pair[0]))[:3]
    said = [row["summary"] for _, row in worst]
    said += [f"{len(rows) - len(worst)} more"] if len(rows) > len(worst) else []
    said += [f"not seen: {unseen[0]}"] if unseen else []
    return _plugin(Counter(severities), "; ".join(said) or "nothing runs replaced code", unknown=bool(unseen))


def _severity(row: Row, history: bool) -> Severity:
    severity, evidence = Severity(row["severity"]), row["evidence"]
    doubted = _is_unit(row) and evidence["confidence"] == Confidence.LIKELY and not history
    alarms = doubted and severity is Severity.INFO and evidence["disposition"] not in LEFT_ALONE
    return Severity.WARNING if alarms else severity


def nagios_counts(counts: Mapping[str, int], unseen: str = "") -> Printed:
    """Return the same of counts alone: all that those outside the group may know. unseen: what is not known."""
    found = Counter({Severity(name): number for name, number in counts.items()})
    said = [f"{number} {severity}" for severity in Severity if (number := found[severity])]
    text = f"{', '.join(said)}; {SEE_MORE}" if said else "nothing runs replaced code"
    return _plugin(found, f"{text}; not seen: {unseen}" if unseen else text, unknown=bool(unseen))


def nagios_unknown(reason: str) -> Printed:
    """Return the line of a plugin that could not look at all; reason: printable."""
    return f"{STATES[UNKNOWN]} - {_plain(reason)}\n", UNKNOWN


def _plugin(counts: Counter[Severity], text: str, *, unknown: bool) -> Printed:
    state = _state(counts, unknown)
    measured = " ".join(f"{severity.value}={counts[severity]};;;0" for severity in Severity)
    return f"{STATES[state]} - {_plain(text)} | {measured}\n", state


def _plain(text: str) -> str:
    return text.replace("|", "\\x7c")[:LONGEST_LINE]


def _state(counts: Mapping[Severity, int], unknown: bool) -> int:
    if counts[Severity.CRITICAL] or counts[Severity.ERROR]:
        return CRITICAL
    if counts[Severity.WARNING]:
        return WARNING
    return UNKNOWN if counts[Severity.UNKNOWN] or unknown else OK


def needrestart(
    rows: Sequence[Row], users: Mapping[int, str] = {}, sessions: Mapping[str, int] = {}, reboot: Mapping[str, Any] = {}
) -> Printed:
    """Return what `needrestart -b` would print of these findings, and 0, always.

    users: printable names of user ids; an id without one is shown as it is. sessions: scope of a login session → id of
    who logged in; where that is not known, it is who runs the first process. reboot: the detail of the check of that
    name; where it does not speak of kernel or microcode, as in a container, there are no lines on them. What is unseen
    has no place in this format.
    """
    found: dict[str, set[str]] = {"SVC": set(), "CONT": set(), "SESS": set()}
    for row in rows:
        if not _is_unit(row) or not row["evidence"]["processes"]:
            continue
        unit = row["subject"]
        uid = _user_of(unit, sessions.get(unit, row["evidence"]["processes"][0]["uid"]))
        if row["evidence"]["disposition"] == Disposition.CONTAINER:
            found["CONT"].add(_container(unit))
        elif (session := _session(unit, users.get(uid, str(uid)))) is not None:
            found["SESS"].add(session)
        else:
            found["SVC"].add("systemd-manager" if unit == MANAGER else typed(unit))
    records = [("VER", NEEDRESTART), *_kernel(reboot.get("kernel")), *_microcode(reboot.get("microcode"))]
    for key, values in found.items():
        records += [(key, value) for value in sorted(values, key=lambda value: (value.lower(), value))]
    return "".join(f"NEEDRESTART-{key}: {value}\n" for key, value in records), 0


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


def _session(unit: str, user: str) -> str | None:
    """Return how needrestart names a session; None for what is no session."""
    kind, _, number = unit.removesuffix(".scope").partition("-")
    if kind == "session" and number:
        return f"{user} @ session #{number}"
    if unit.startswith("user@"):
        return f"{user} @ user manager service"
    return None


def _user_of(unit: str, uid: int) -> int:
    """Return whose unit it is: a user's own one may hold processes of somebody else's, of `uid`."""
    theirs = uid_of(unit.partition("/")[0])
    return uid if theirs is None else theirs


def _container(unit: str) -> str:
    """Return `<type> <name>` of a container's unit: docker-abc.scope, systemd-nspawn@web.service."""
    stem = unit.rpartition(".")[0]
    kind, _, name = stem.partition("@" if "@" in stem else "-")
    return f"{kind} {name}" if name else f"container {stem or unit}"


def openmetrics(rows: Sequence[Row], unseen: Sequence[str] = (), checked_at: str | None = None) -> Printed:
    """Return gauges in OpenMetrics text, ended by `# EOF`, and 0, always. checked_at: time of the look, ISO 8601.

    How many fixes are not in effect has no sample where that is not known: without the daemon's history the version
    that runs is no recorded fact.
    """
    stale = [row for row in rows if _is_unit(row)]
    counts = Counter((row["check"], row["severity"]) for row in rows)
    checks = sorted({"libraries", *(row["check"] for row in rows)})
    exposed = {cve for row in stale for cve in row["evidence"]["cves"]}
    nameless = sum(map(_has_unknown_version, stale))
    families = [
        _gauge(
            "findings",
            "What is wrong, by check and severity.",
            [({"check": check, "severity": kind}, counts[check, kind]) for check in checks for kind in Severity],
        ),
        _gauge(
            "stale_units",
            "Units that run replaced code, by what will be done about them.",
            [
                ({"disposition": kind}, sum(_labels(row)["disposition"] == kind for row in stale))
                for kind in Disposition
            ],
        ),
        _gauge(
            "stale_unit",
            "Each unit that runs replaced code; certain or likely.",
            [(_labels(row), row["evidence"]["processes_total"]) for row in stale],
        ),
        _gauge(
            "exposed_cves",
            "Fixes that are installed but not in effect.",
            [({}, len(exposed))] if exposed or not nameless else [],
        ),
        _gauge("unknown_versions", "Units of which it is not known which version they run.", [({}, nameless)]),
        _gauge("unseen", "How much could not be looked at.", [({}, len(unseen))]),
    ]
    if checked_at is not None:
        at = int(datetime.fromisoformat(checked_at).timestamp())
        families.append(_gauge("last_check_timestamp_seconds", "When this was looked at.", [({}, at)]))
    return "".join(line for family in families for line in family) + "# EOF\n", 0


def _has_unknown_version(row: Row) -> bool:
    return any(file["running"] is None for process in row["evidence"]["processes"] for file in process["files"])


def _labels(row: Row) -> dict[str, str]:
    evidence = row["evidence"]
    return {"unit": row["subject"], "disposition": evidence["disposition"], "confidence": evidence["confidence"]}


def _gauge(name: str, text: str, samples: Sequence[tuple[Mapping[str, str], int]]) -> Iterator[str]:
    yield f"# TYPE aftercare_{name} gauge\n"
    yield f"# HELP aftercare_{name} {text}\n"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"aftercare_{name}{{{pairs}}} {value}\n" if pairs else f"aftercare_{name} {value}\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"')


def _is_unit(row: Row) -> bool:
    """Return whether it is about what runs replaced code, and not about dpkg, the kernel or mail."""
    return "processes_total" in row["evidence"]
