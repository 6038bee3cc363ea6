"""What the commands print, as a few neutral blocks made from the JSON of the contract.

Pure. Blocks are written plainly here, for pipes and files; `terminal` prints the same blocks for people with rich.
"""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

WIDTH = 80
INDENT = 2
SEVERITIES = ("critical", "error", "warning", "info", "unknown")

GROUPS = (
    ("These did not come back after their restart", {"broken"}),
    ("Restarted by themselves, as soon as nothing speaks against it", {"restart"}),
    ("Waiting for your word", {"defer"}),
    ("Waiting for a reboot", {"reboot"}),
    ("Left to whoever runs them", {"session", "container", "never", "leftover", ""}),
)
"""Headings of `status` and the dispositions below each, in the order of urgency."""


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence; `tone` is a severity word or empty."""

    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A subject, what is to be said of it, and the command that helps."""

    subject: str
    text: str
    command: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title. The last column takes what room is left and is wrapped."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Line | Entry | Table


def status(view: dict[str, Any]) -> list[Block]:
    """Return what `agentctl status` says of a view."""
    blocks: list[Block] = [Line(headline(view), worst(view["findings"]))]
    if view.get("trouble"):
        blocks.append(Line(view["trouble"], "error"))
    if view.get("rejected"):
        blocks.append(Line(f"The configuration on disk is not used: {view['rejected']}", "error"))
    blocks += findings(view["findings"])
    if view.get("restarts"):
        blocks.append(restarts(view["restarts"]))
    if same := view.get("detail", {}).get("libraries", {}).get("identical"):
        blocks.append(identical(same))
    blocks += reboot(view.get("detail", {}).get("reboot", {}))
    return blocks + [Line(f"not seen: {line}") for line in view.get("unseen", ())]


def headline(view: dict[str, Any]) -> str:
    """Return the one sentence that sums a view up."""
    busy = {
        "starting": "aftercare is starting.",
        "settling": "A package transaction is under way, or has just ended.",
        "checking": "Looking for processes that run replaced code.",
        "restarting": "Restarting units.",
    }
    if view.get("phase") in busy:
        return busy[view["phase"]]
    groups = [_group(item) for item in view["findings"]]
    words = {
        "broken": "did not come back",
        "restart": "to be restarted",
        "defer": "waiting for your word",
        "reboot": "waiting for a reboot",
    }
    parts = [f"{groups.count(group)} {text}" for group, text in words.items() if group in groups]
    rest = len(groups) - sum(groups.count(group) for group in words)
    parts += [f"{rest} left to whoever runs them"] if rest else []
    exposed = {cve for item in view["findings"] for cve in item["evidence"].get("cves", ())}
    if exposed:
        parts.append(f"{_count(len(exposed), 'CVE')} fixed on disk, not in effect")
    if parts:
        return f"{'; '.join(parts)}."
    if view.get("trouble"):
        return "Whether every process runs the code that is installed is not known."
    looked = view.get("detail") or {"libraries": {}}
    return "Every process runs the code that is installed." if "libraries" in looked else "Nothing is wrong."


def findings(items: list[dict[str, Any]]) -> list[Block]:
    """Return findings as entries under headings, the most urgent first."""
    blocks: list[Block] = []
    for heading, groups in GROUPS:
        found = [item for item in items if _group(item) in groups]
        if found:
            blocks.append(Line(f"\n{heading}:"))
            blocks += [_entry(item) for item in sorted(found, key=_urgency)]
    return blocks


def _group(item: dict[str, Any]) -> str:
    return "broken" if item["severity"] == "critical" else str(item["evidence"].get("disposition", ""))


def _urgency(item: dict[str, Any]) -> tuple[int, str]:
    return SEVERITIES.index(item["severity"]), item["subject"]


def _entry(item: dict[str, Any]) -> Entry:
    outcome = item["evidence"].get("outcome") or {}
    journal = [f"  {line}" for line in outcome.get("journal", ())]
    reason = item["evidence"].get("reason", "")
    cves = _exposure(item["evidence"].get("cves", ()))
    text = ". ".join(_upper(part).rstrip(".") for part in (item["summary"], reason, cves) if part)
    return Entry(item["subject"], "\n".join([f"{text}.", *journal]), item["advice"], item["severity"])


def _exposure(cves: Iterable[str]) -> str:
    names = list(cves)
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"Not in effect: {', '.join(names[:3])}{more}"


def restarts(outcomes: list[dict[str, Any]]) -> Table:
    """Return what came of the restarts of the last transaction."""
    rows = tuple((item["unit"], item["result"], _took(item["took"]), item["hint"]) for item in outcomes)
    return Table("Restarts of the last transaction", ("unit", "result", "took", "note"), rows)


def identical(units: dict[str, list[str]]) -> Table:
    """Return what was replaced by the same content."""
    rows = tuple((unit, ", ".join(path.rsplit("/", 1)[-1] for path in paths)) for unit, paths in units.items())
    return Table("Replaced by identical files: no restart needed", ("unit", "files"), rows)


def reboot(detail: dict[str, Any]) -> list[Block]:
    """Return what the check `reboot` knows of kernel and microcode where that is no finding."""
    if detail.get("foreign"):
        return [Line(f"Kernel and microcode are not looked at: {detail['foreign']}.")]
    known = [(name, detail[key]) for key, name in (("kernel", "Linux"), ("microcode", "Microcode")) if key in detail]
    words = {"current": "nothing newer is installed", "unknown": "not known whether a reboot is due"}
    return [
        Line(f"{name} {item['running']}: {', '.join(filter(None, (words[item['state']], item['reason'])))}.")
        for name, item in known
        if item["state"] in words
    ]


def plan(data: dict[str, Any]) -> list[Block]:
    """Return what `agentctl plan` and `restart --dry-run` say."""
    steps = [(wave["number"], step) for wave in data["waves"] for step in wave["steps"]]
    if not steps and not data["manager"] and not data["agent"]:
        return [Line("Nothing would be restarted.")]
    blocks: list[Block] = []
    if steps:
        rows = tuple((str(number), step["unit"], _because(step)) for number, step in steps)
        blocks.append(Table("Would be restarted, wave by wave", ("wave", "unit", "why"), rows))
    if data["manager"]:
        blocks.append(Line("Then PID 1 re-executes itself (systemctl daemon-reexec): no service stops for it."))
    if data["agent"]:
        blocks.append(Line("Last, aftercare restarts itself."))
    return blocks


def _because(step: dict[str, Any]) -> str:
    along = f"takes along {', '.join(step['pulls'])}" if step["pulls"] else ""
    return "\n".join([*step["reasons"], *([along] if along else [])])


def outcomes(items: list[dict[str, Any]]) -> list[Block]:
    """Return what came of restarts that were asked for."""
    if not items:
        return [Line("Nothing was restarted.")]
    failed = [item for item in items if item["result"] not in ("fresh", "leftover")]
    last = tuple(Line(f"{item['unit']}: {line}") for item in failed for line in item["journal"])
    return [restarts(items), *last]


def history(data: dict[str, Any]) -> list[Block]:
    """Return transactions and restarts, newest first."""
    transactions = tuple(
        (local(item["ended"]), str(item["id"]), str(len(item["changes"])), item["command"] or "dpkg")
        for item in data["transactions"]
    )
    restarted = tuple(
        (local(item["begun"]), item["unit"], _result(item["outcome"]), _short(item["reasons"]))
        for item in data["restarts"]
    )
    blocks: list[Block] = []
    if transactions:
        blocks.append(Table("Transactions", ("ended", "id", "packages", "command"), transactions))
    if restarted:
        blocks.append(Table("Restarts", ("begun", "unit", "result", "why"), restarted))
    return blocks or [Line("Nothing is recorded for that time.")]


def _short(reasons: list[str]) -> str:
    """Packages without their versions, which `agentctl why` tells."""
    return ", ".join(reason.split()[0] if " → " in reason else reason for reason in reasons)


def _result(outcome: dict[str, Any] | None) -> str:
    return str(outcome["result"]) if outcome else "not ended"


def worst(items: list[dict[str, Any]]) -> str:
    """Return the worst severity of findings; empty for none."""
    found = {item["severity"] for item in items}
    return next((severity for severity in SEVERITIES if severity in found), "")


def local(moment: str | None) -> str:
    """Return a time of the contract in the reader's own zone, to the second."""
    if not moment:
        return "?"
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _took(stages: dict[str, float]) -> str:
    """The restart itself; the time after that, in which it had to prove itself, is nobody's downtime."""
    return f"{stages['job']:.1f} s" if "job" in stages else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def write(blocks: list[Block], width: int = WIDTH) -> str:
    """Return blocks as plain text of at most `width` columns where the names allow it."""
    return "\n".join(line for block in blocks for line in _lines(block, width))


def _lines(block: Block, width: int) -> list[str]:
    match block:
        case Line():
            return [part for piece in block.text.split("\n") for part in wrap(piece, width)]
        case Entry():
            return [f"{'':{INDENT}}{block.subject}", *entry_lines(block, width)]
        case Table():
            return _table_lines(block, width)


def entry_lines(entry: Entry, width: int) -> list[str]:
    """Return what stands below the subject of an entry; a command is never broken, so that it can be copied."""
    margin = " " * (2 * INDENT)
    body = [f"{margin}{part}" for piece in entry.text.split("\n") for part in wrap(piece, width - len(margin))]
    return [*body, f"{margin}→ {entry.command}"] if entry.command else body


def wrap(text: str, width: int) -> list[str]:
    """Return `text` in lines; words with hyphens (units, versions) stay whole."""
    indent = text[: len(text) - len(text.lstrip())]
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _table_lines(table: Table, width: int) -> list[str]:
    cells = (table.columns, *table.rows)
    widths = [max(len(row[number]) for row in cells) for number in range(len(table.columns) - 1)]
    room = max(width - sum(widths) - 2 * len(widths) - INDENT, 24)
    lines = ["", f"{table.title}:"]
    for row in cells:
        left = "".join(f"{cell:<{size}}  " for cell, size in zip(row, widths, strict=False))
        wrapped = [part for piece in row[-1].split("\n") for part in wrap(piece, room)]
        lines.append(f"{'':{INDENT}}{left}{wrapped[0]}".rstrip())
        lines += [f"{'':{INDENT}}{'':{len(left)}}{part}" for part in wrapped[1:]]
    return lines
