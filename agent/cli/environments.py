"""What `agentctl numpy` and its kin print, as blocks made from their JSON. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from agent.cli.blocks import Block, Entry, Line, Table

COLUMNS = ("verdict", "linkage", "python", "numpy", "scipy", "owner", "environment")
TONES = {"passed": "fresh", "wrong": "critical", "failed": "error", "not-run": "unknown"}

Data = Mapping[str, Any]


def overview(data: Data) -> list[Block]:
    """Return the table of environments, what is wrong with any, and what was not seen."""
    blocks: list[Block] = [Line(_headline(data))]
    if rows := tuple(tuple(row[key] or "-" for key in COLUMNS) for row in data["environments"]):
        blocks.append(Table("Python environments", COLUMNS, rows))
    if data["not_shown"]:
        blocks.append(Line(f"{data['not_shown']} more are not shown."))
    if data["hidden"]:
        blocks.append(Line(f"{data['hidden']} without MKL: agentctl numpy --all shows them."))
    blocks += [_entry(item) for item in data["findings"]]
    blocks += [Line(f"not looked at, by design: {line}") for line in data["passed_over"]]
    return blocks + [Line(f"not seen: {line}") for line in data["unseen"]]


def _headline(data: Data) -> str:
    wrong, count = len(data["findings"]), data["count"]
    if not count:
        return "No Python environment with numpy, scipy or another user of MKL was found."
    found = "the one Python environment found" if count == 1 else f"{count} Python environments"
    return f"{wrong or 'None'} of {found} {'is' if wrong < 2 else 'are'} broken by MKL."


def _entry(item: Data) -> Entry:
    expected = item["evidence"].get("expected") or {}
    text = f"{item['summary']}.\n{expected.get('text', '')}".strip()
    return Entry(item["subject"], text, item["advice"], item["severity"])


def why(facts: Data) -> list[Block]:
    """Return all that is known of one environment and its verdict. facts: its evidence."""
    about = [f"{facts['kind']}, of {facts['owner']}", f"Python {facts['python'] or '?'}"]
    about += [f"{name} {facts[name]}" for name in ("numpy", "scipy", "mkl") if facts[name]]
    blocks: list[Block] = [
        Line(f"{facts['environment']}: {facts['verdict']}", _tone(facts)),
        Line(f"  {', '.join(about)}"),
    ]
    blocks.append(Line(f"  {facts['summary']} (linkage: {facts['linkage']})"))
    blocks += _listed("Evidence", facts["reasons"])
    blocks += _listed("Its packages want", facts["requires"])
    blocks += _listed("Could not be looked at", facts["problems"])
    if facts["expected"] and facts["expected"]["status"]:
        lines = facts["expected"]["text"].split("\n")
        blocks += _listed(f"Python would end with exit status {facts['expected']['status']} and say", lines)
    blocks += _listed("In units, by their own variables", map(_unit, facts["units"]))
    if facts["repairs"]:
        blocks.append(Line("\nWhat helps, in this order:"))
        blocks += [Entry(f"{number}.", item["why"], item["command"]) for number, item in enumerate(facts["repairs"], 1)]
    return blocks


def _tone(facts: Data) -> str:
    return "" if facts["severity"] == "info" else str(facts["severity"])


def _listed(title: str, lines: Iterable[str]) -> list[Block]:
    some = list(lines)
    return [Line(f"\n{title}:"), *(Line(f"  {line}") for line in some)] if some else []


def _unit(item: Data) -> str:
    variables = " ".join(f"{name}={value}" for name, value in item["variables"].items()) or "none set"
    return f"{item['unit']}: {item['verdict']}, {item['summary']} ({variables})"


def prediction(data: Data) -> list[Block]:
    """Return what another MKL would do to each environment that uses one."""
    rows = tuple((item["now"], item["then"], item["environment"]) for item in data["predictions"])
    if not rows:
        return [Line("No Python environment uses an MKL of this host.")]
    blocks: list[Block] = [Table(f"With the MKL of {data['mkl']}", ("now", "then", "environment"), rows)]
    wrong = [item for item in data["predictions"] if item["severity"] in ("critical", "error", "warning")]
    return blocks + [Entry(item["environment"], f"{item['summary']}.", "", item["severity"]) for item in wrong]


def proof(data: Data) -> list[Block]:
    """Return what a numeric proof showed, beside what was said without running anything."""
    run, agrees = data["proof"], data["agrees"]
    stage = f" at {run['stage']}" if run["stage"] else ""
    status = f", exit status {run['status']}" if run["status"] else ""
    blocks: list[Block] = [Line(f"Proof as {data['user']}: {run['outcome']}{stage}{status}", TONES[run["outcome"]])]
    blocks += [Line(f"  {line}") for line in run["said"].split("\n") if line]
    if run["outcome"] == "not-run" and data["user"] == "nobody":
        blocks.append(Line("What belongs to root is run as nobody, who must be able to read it."))
    told = f"The verdict without running it was {data['verdict']}"
    words = {True: "the proof bears it out", False: "the proof contradicts it", None: "the proof says nothing about it"}
    return [*blocks, Line(f"{told}: {words[agrees]}.", "error" if agrees is False else "")]
