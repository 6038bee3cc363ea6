"""How verdicts on Python environments are put: findings, and the rows of the detail. Pure, and all of it printable."""

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from agent.checks.numpy.judged import Judged, interpreter
from agent.mkl.repairs import Repair
from agent.mkl.verdict import Kind, Verdict
from agent.model.findings import Finding, Severity
from agent.model.text import printable

CHECK = "numpy"
FINE = frozenset({Kind.NOT_MKL, Kind.OK, Kind.OK_UNCHANGED, Kind.INFO, Kind.UNKNOWN})
"""Verdicts that are no finding. An unknown is told among what was not seen: it is no alarm."""
FOR_LOGINS = re.compile(r"echo ([A-Z_]+=[A-Z0-9,]+) >>/etc/environment")
LONGEST_SUMMARY = 100
LONGEST = 1_000
MOST = 20

Names = Mapping[int, str]
"""Users by number."""


def finding_of(judged: Judged, names: Names) -> Finding | None:
    """Return what is wrong with an environment; None where nothing is."""
    verdict = judged.worst
    if verdict.kind in FINE:
        return None
    repairs = repairs_of(judged, names)
    return Finding(
        check=CHECK,
        subject=judged.environment.path,
        severity=Severity(verdict.severity),
        summary=_cut(f"{_where(judged, verdict)}{verdict.summary}", LONGEST_SUMMARY),
        advice=next((item["command"] or item["why"] for item in repairs), "agentctl numpy"),
        evidence=evidence_of(judged, names),
    )


def _where(judged: Judged, verdict: Verdict) -> str:
    """Name the units in which alone it goes wrong."""
    if verdict.kind is judged.verdict.kind:
        return ""
    units = [name for name, (_, other) in judged.units.items() if other.kind is verdict.kind]
    return f"in {units[0]}{f' and {len(units) - 1} more' if len(units) > 1 else ''}: "


def repairs_of(judged: Judged, names: Names) -> list[dict[str, str]]:
    """Return what helps. What is done within an environment is done by its Python, and as its owner, never as root."""
    environment = judged.environment
    owner = shlex.quote(names.get(environment.uid, f"#{environment.uid}"))
    lead = f"sudo -u {owner} " if environment.uid else ""
    inside = {
        "python3 -m pip ": f"{lead}{shlex.quote(interpreter(environment))} -m pip ",
        "conda install ": f"{lead}conda install -p {shlex.quote(environment.prefix)} ",
    }
    found = []
    for item in map(_for_units(judged), judged.worst.repairs):
        start = next((words for words in inside if item.command.startswith(words)), "")
        command = f"{inside[start]}{item.command.removeprefix(start)}" if start else item.command
        found.append({"command": command, "why": item.why})
    return found


def _for_units(judged: Judged) -> Callable[[Repair], Repair]:
    """Where only a unit goes wrong, a variable belongs into the unit: services see nothing of /etc/environment."""
    units = [name for name, (_, other) in judged.units.items() if other.kind is judged.worst.kind]
    if judged.worst.kind is judged.verdict.kind or not units:
        return lambda item: item

    def move(item: Repair) -> Repair:
        found = FOR_LOGINS.fullmatch(item.command)
        if not found:
            return item
        place = f"/etc/systemd/system/{units[0]}.d"
        write = f"{{ echo '[Service]'; echo Environment={found[1]}; }} >{shlex.quote(f'{place}/mkl.conf')}"
        name = shlex.quote(units[0])
        command = f"mkdir -p {shlex.quote(place)} && {write} && systemctl daemon-reload && systemctl restart {name}"
        return Repair(command, "sets it in the unit; other units that are named need the same")

    return move


def row_of(judged: Judged, names: Names) -> dict[str, Any]:
    """Return what is told of every environment, a clean one too."""
    environment, verdict = judged.environment, judged.worst
    row = {
        "environment": environment.path,
        "kind": environment.kind,
        "owner": names.get(environment.uid, str(environment.uid)),
        "python": environment.python,
        "numpy": environment.numpy,
        "scipy": environment.scipy,
        "linkage": verdict.linkage.value,
        "verdict": verdict.kind.value,
        "summary": verdict.summary,
    }
    return {name: printable(value) for name, value in row.items()}


def evidence_of(judged: Judged, names: Names) -> dict[str, Any]:
    """Return all that is known of an environment, as the evidence of its finding."""
    environment, verdict = judged.environment, judged.worst
    expected = verdict.expected
    facts = {
        "site": environment.site,
        "mkl": environment.mkl,
        "manager": environment.manager,
        "requires": environment.requires,
        "problems": environment.problems,
        "built": {"name": judged.built.name, "version": judged.built.version, "directory": judged.built.directory},
        "expected": expected and {"status": expected.status, "text": expected.text},
        "reasons": verdict.evidence,
        "repairs": repairs_of(judged, names),
        "units": [
            {"unit": name, "variables": variables, "verdict": other.kind.value, "summary": other.summary}
            for name, (variables, other) in sorted(judged.units.items())
        ],
    }
    plain: dict[str, Any] = _printable(facts)
    return row_of(judged, names) | plain


def _printable(value: Any) -> Any:
    """Return nested JSON data with every text printable and of bounded length, lists too."""
    match value:
        case str():
            return "\n".join(printable(_cut(line, LONGEST)) for line in value.split("\n")[:MOST])
        case dict() | Mapping():
            return {printable(key): _printable(item) for key, item in value.items()}
        case list() | tuple():
            return [_printable(item) for item in value[:MOST]]
    return value


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
