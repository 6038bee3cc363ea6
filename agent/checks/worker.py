"""The short-lived process in which a survey or a check runs: what it meets costs a worker, not the daemon.

One JSON object on stdin, JSON lines on stdout: `{"at": pid, "crowd": …}` while one subject takes long,
`{"index": [row…]}` for the files of a survey, `{"survey": …}` or `{"result": …}` at the end, `{"error": …}` for what
people can mend, `{"mismatch": version}` where the daemon is another version than the files on disk.
"""

import json
import resource
import sys
import threading
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any

from agent import RUNNING
from agent.checks.progress import PROGRESS, Progress
from agent.checks.registry import find, function_of
from agent.checks.survey import survey
from agent.host import processes
from agent.model import contract
from agent.model.errors import AgentError
from agent.model.facts import Host, PackageState
from agent.model.findings import Request

ROWS = 500
BEAT = 1.0


def main() -> int:
    """Serve one request and return the exit status (0 also where the answer is an error)."""
    order = json.load(sys.stdin)
    limit = int(order["memory"]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if order["version"] != RUNNING:
        say({"mismatch": RUNNING})
        return 0
    threading.Thread(target=_beat, args=(PROGRESS, contract.decode(Host, order["host"])), daemon=True).start()
    try:
        serve(order)
    except AgentError as problem:
        say({"error": {"kind": problem.kind, "message": problem.message, "hint": problem.hint}})
    return 0


def serve(order: dict[str, Any]) -> None:
    """Carry out one order and print the answer."""
    host = contract.decode(Host, order["host"])
    if order["op"] == "check":
        request = contract.decode(Request, order["request"])
        say({"result": contract.encode(function_of(find(request.check))(host, request))})
        return
    old = order["snapshot"]
    known = None if old is None else contract.decode(dict[str, PackageState], old)
    since = datetime.fromisoformat(order["since"]) if order["since"] else None
    found = survey(host, known, datetime.fromisoformat(order["now"]), since)
    rows = iter(found.index)
    while chunk := list(islice(rows, ROWS)):
        say({"index": [contract.index_row(item) for item in chunk]})
    say({"survey": contract.encode(replace(found, index=()))})


def say(message: dict[str, Any]) -> None:
    """Print one line, whole."""
    sys.stdout.write(f"{json.dumps(message, separators=(',', ':'))}\n")
    sys.stdout.flush()


def _beat(progress: Progress, host: Host) -> None:
    """Announce one subject that is still the same after a beat: a worker killed on it is how others learn of it."""
    last: frozenset[int] = frozenset()
    while not progress.ended.wait(BEAT):
        subjects = progress.subjects()
        if stuck := last & subjects:
            say({"at": min(stuck), "crowd": processes.read_crowd(host, min(stuck))})
        last = subjects


if __name__ == "__main__":
    sys.exit(main())
