"""`agentctl snooze` and `ack`: findings that somebody knows of and does not want to be told of, for now or for good."""

import re
from argparse import Namespace
from typing import Any

from agent.cli.ask import UNITS, call
from agent.cli.blocks import Line, local
from agent.cli.output import emit
from agent.model.errors import AgentError, Exit, Kind
from agent.model.text import typed


def snooze(options: Namespace) -> int:
    """Have a finding left out for a while."""
    return _silence(options, seconds(options.period))


def ack(options: Namespace) -> int:
    """Have a finding left out until it is gone."""
    return _silence(options, None)


def _silence(options: Namespace, period: float | None) -> int:
    view = call(options, "Status")["status"]
    known = view["findings"] + [item["finding"] for item in view["silenced"]]
    id = id_of(options.finding, known)
    if options.end:
        call(options, "Speak", {"finding": id})
        emit(options, {"v": 1}, [Line(f"{id} is told again.")])
        return Exit.CLEAN
    silence = call(options, "Silence", {"finding": id, "seconds": period, "reason": options.reason})["silence"]
    until = f"until {local(silence['until'])}" if silence["until"] else "until it is gone"
    emit(options, {"v": 1, "silence": silence}, [Line(f"{id} is not told {until}.")])
    return Exit.CLEAN


def id_of(name: str, findings: list[dict[str, Any]]) -> str:
    """Return the id of the one finding that `name` means: an id, or a subject, `.service` left out or not."""
    named = (typed(name), f"{typed(name)}.service")
    ids = [item["id"] for item in findings if item["id"] == name or typed(item["subject"]) in named]
    if len(ids) == 1:
        return str(ids[0])
    hint = f"name one of {', '.join(ids)}" if ids else "agentctl status --json has their ids"
    raise AgentError(Kind.USAGE, f"{'several findings are' if ids else 'there is no finding'} called {name}", hint)


def seconds(text: str) -> float:
    """Return the period that `text` names, such as "7d" or "3 hours", in seconds."""
    found = re.fullmatch(r"(\d{1,6})\s*([a-z]+?)s?", text.strip())
    if not found or found[2] not in UNITS:
        raise AgentError(Kind.USAGE, f"{text!r} is no period", 'write "7d", "12h" or "2 weeks"')
    return float(int(found[1]) * UNITS[found[2]])
