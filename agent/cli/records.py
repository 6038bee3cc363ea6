"""Plans, restarts and the past, as blocks made from the JSON of the contract. Pure."""

from collections.abc import Sequence
from typing import Any

from agent.cli.blocks import Block, Line, Table, local

CAME_BACK = ("fresh", "leftover")
"""Results of a restart after which the unit does its work."""


def restarts(outcomes: list[dict[str, Any]]) -> Table:
    """Return what came of the restarts of the last transaction."""
    rows = [(item["unit"], item["result"], _before(item), _took(item["took"]), item["hint"]) for item in outcomes]
    return _table("Restarts of the last transaction", ("unit", "result", "expected", "took", "note"), rows, 2)


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], optional: int) -> Table:
    """Return a table without its column number `optional` where that is empty throughout."""
    if any(row[optional] for row in rows):
        return Table(title, columns, tuple(rows))
    left, right = slice(optional), slice(optional + 1, None)
    cut = tuple((*row[left], *row[right]) for row in rows)
    return Table(title, (*columns[left], *columns[right]), cut)


def identical(units: dict[str, list[str]]) -> Table:
    """Return what was replaced by the same content."""
    rows = tuple((unit, ", ".join(path.rsplit("/", 1)[-1] for path in paths)) for unit, paths in units.items())
    return Table("Replaced by identical files: no restart needed", ("unit", "files"), rows)


def plan(data: dict[str, Any]) -> list[Block]:
    """Return what `agentctl plan` and `restart --dry-run` say."""
    steps = [(wave["number"], step) for wave in data["waves"] for step in wave["steps"]]
    if not steps and not data["manager"] and not data["agent"]:
        return [Line("Nothing would be restarted.")]
    blocks: list[Block] = []
    if steps:
        rows = [(str(number), step["unit"], _before(step), _because(step)) for number, step in steps]
        blocks.append(_table("Would be restarted, wave by wave", ("wave", "unit", "away for", "why"), rows, 2))
        known = [step["expected"] for _, step in steps if step.get("expected") is not None]
        if len(known) > 1:
            blocks.append(Line(f"Each of the {len(known)} that were restarted before was away for {_longest(known)}."))
    if data["manager"]:
        blocks.append(Line("Then PID 1 re-executes itself (systemctl daemon-reexec): no service stops for it."))
    if data["agent"]:
        blocks.append(Line("Last, aftercare restarts itself."))
    return blocks


def waiting(view: dict[str, Any]) -> list[Block]:
    """Return what of `agentctl status` keeps a plan from being carried out, or units out of it."""
    blocks: list[Block] = []
    if view["mode"] != "auto":
        blocks.append(Line(f"The mode is {view['mode']}: it happens where agentctl restart asks for it alone."))
    if view["held"]:
        goes_on = "by itself: {}; agentctl restart --resume goes on." if view["braked"] else "now: {}."
        blocks.append(Line(f"It does not happen {goes_on.format(view['held'])}", "error"))
    for item in view["findings"]:
        if opens_at := item["evidence"].get("opens_at"):
            blocks.append(Line(f"Not before {local(opens_at)}: {item['subject']}: {item['evidence']['reason']}"))
    return blocks


def _before(step: dict[str, Any]) -> str:
    before = step.get("expected")
    return "" if before is None else f"{before:.1f} s"


def _longest(known: list[float]) -> str:
    return f"{max(known):.1f} s at most, {sum(known):.1f} s in all"


def _because(step: dict[str, Any]) -> str:
    along = f"takes along {', '.join(step['pulls'])}" if step["pulls"] else ""
    return "\n".join([*step["reasons"], *([along] if along else [])])


def outcomes(items: list[dict[str, Any]]) -> list[Block]:
    """Return what came of restarts that were asked for."""
    if not items:
        return [Line("Nothing was restarted.")]
    failed = [item for item in items if item["result"] not in CAME_BACK]
    last = tuple(Line(f"{item['unit']}: {line}") for item in failed for line in item["journal"])
    return [restarts(items), *last]


def history(data: dict[str, Any]) -> list[Block]:
    """Return transactions and restarts, newest first."""
    transactions = tuple(
        (local(item["ended"]), str(item["id"]), str(len(item["changes"])), item["command"] or "dpkg")
        for item in data["transactions"]
    )
    restarted = tuple(
        (local(item["begun"]), item["unit"], _result(item["outcome"]), _why(item)) for item in data["restarts"]
    )
    blocks: list[Block] = []
    if transactions:
        blocks.append(Table("Transactions", ("ended", "id", "packages", "command"), transactions))
    if restarted:
        blocks.append(Table("Restarts", ("begun", "unit", "result", "why"), restarted))
    silenced = tuple(
        (local(item["at"]), _until(item), f"{item['id']}\n{item['reason']}") for item in data.get("silences", ())
    )
    if silenced:
        blocks.append(Table("Not told", ("since", "until", "finding, and why"), silenced))
    return blocks or [Line("Nothing is recorded for that time.")]


def _until(silence: dict[str, Any]) -> str:
    if silence["ended"]:
        return f"ended {local(silence['ended'])}"
    return local(silence["until"]) if silence["until"] else "it is gone"


def _why(item: dict[str, Any]) -> str:
    """What it was for, and what is in effect since where the unit came back fresh; `--json` has the ids."""
    why, cves = _short(item["reasons"]), item.get("cves", ())
    fresh = (item["outcome"] or {}).get("result") == "fresh"
    fixes = "1 CVE fix" if len(cves) == 1 else f"{len(cves)} CVE fixes"
    return f"{why}\n{fixes} in effect since" if cves and fresh else why


def _short(reasons: list[str]) -> str:
    """Packages without their versions, which `agentctl why` tells."""
    return ", ".join(reason.split()[0] if " → " in reason else reason for reason in reasons)


def _result(outcome: dict[str, Any] | None) -> str:
    return str(outcome["result"]) if outcome else "not ended"


def _took(stages: dict[str, float]) -> str:
    """The restart itself; the time after that, in which it had to prove itself, is nobody's downtime."""
    return f"{stages['job']:.1f} s" if "job" in stages else ""
