"""`agentctl restart`: asks the daemon for restarts; on a terminal, without arguments, wave by wave.

It restarts nothing itself, and never asks a question where nobody sits at a terminal.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from agent.cli import records
from agent.cli.ask import call, full_name, status_of
from agent.cli.blocks import Line
from agent.cli.output import emit
from agent.model.errors import AgentError, Exit, Kind
from agent.model.restarts import CAME_BACK, MANAGER, OWN_UNIT, UNTOUCHED


def restart(options: Namespace) -> int:
    """Have units restarted and print what came of it."""
    chosen = [bool(options.unit), options.all, options.resume]
    if sum(chosen) > 1:
        raise AgentError(Kind.USAGE, "name units, or say --all, or --resume", "agentctl plan shows what --all would do")
    if not any(chosen) and not options.dry_run:
        return _ask_by_wave(options)
    arguments = {
        "units": [full_name(unit) for unit in options.unit],
        "all": options.all or (options.dry_run and not any(chosen)),
        "now": options.now,
        "dry_run": options.dry_run,
        "resume": options.resume,
    }
    answer = call(options, "Restart", arguments)
    fresh = answer.get("fresh") or []
    if options.dry_run:
        emit(options, {"v": 1, "plan": answer["plan"], "fresh": fresh}, [*records.plan(answer["plan"]), *_fresh(fresh)])
        return status_of(answer["plan"])
    return _show(options, answer["restarts"], answer["held"], fresh)


def _fresh(units: Sequence[str]) -> list[Line]:
    return [Line(f"{unit} is not stale: it runs the code that is installed.") for unit in units]


def _show(options: Namespace, outcomes: list[dict[str, Any]], held: str, fresh: Sequence[str] = ()) -> int:
    lines = [*_fresh(fresh), *([Line(f"Stopped before the last wave: {held}.", "error")] if held else [])]
    data = {"v": 1, "restarts": outcomes, "held": held, "fresh": list(fresh)}
    emit(options, data, [*(records.outcomes(outcomes) if outcomes or not fresh else ()), *lines])
    return Exit.CLEAN if not held and all(item["result"] in CAME_BACK for item in outcomes) else Exit.FINDINGS


def _ask_by_wave(options: Namespace) -> int:
    """Show what would be restarted, and have each wave done that is agreed to; a failure ends it."""
    if options.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        hint = "agentctl plan shows what --all would do"
        raise AgentError(Kind.USAGE, "name units to restart, or say --all", hint)
    plan = call(options, "Restart", {"all": True, "now": options.now, "dry_run": True})["plan"]
    emit(options, {}, records.plan(plan))
    waves = [(f"wave {wave['number']}", [full_name(step["unit"]) for step in wave["steps"]]) for wave in plan["waves"]]
    waves += [("PID 1", [MANAGER])] if plan["manager"] else []
    waves += [("aftercare itself", [OWN_UNIT])] if plan["agent"] else []
    outcomes: list[dict[str, Any]] = []
    for name, units in waves:
        if not _agrees(f"Restart {name} ({', '.join(units)})? [y/N] "):
            continue
        try:
            outcomes += call(options, "Restart", {"units": units, "now": options.now})["restarts"]
        except AgentError as problem:
            return _show(options, outcomes, problem.message)
        if failed := [item["unit"] for item in outcomes if item["result"] not in (*CAME_BACK, *UNTOUCHED)]:
            return _show(options, outcomes, f"{', '.join(failed)} did not come back")
    return _show(options, outcomes, "") if outcomes else Exit.CLEAN


def _agrees(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False
