"""Runs inside a machine: restarts units with the product's own plan, execution and proof, and no daemon
around them.

    python3 restarter.py TREE STATE UNIT…

A process counts as stale when it is older than the first run with this STATE, a file of JSON rows to which
each attempt and outcome is appended, on disk before anything goes on. A run that finds attempts without an
outcome there finishes them first; units that were attempted are not planned again. So it may be killed at any
time and run again.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from agent.host import units
from agent.model import contract
from agent.model.facts import Host, StaleProcess, Unit
from agent.model.findings import Confidence, StaleUnit
from agent.model.restarts import Attempt, Disposition, Outcome, Rule, Step
from agent.restart.execute import Hands, execute, resume
from agent.restart.plan import make_plan

HOST = Host()
RULES = (Rule("*"), Rule("rc-hangs.service", limit=6.0), Rule("rc-first*", wave=10), Rule("rc-last*", wave=90))
CGROUPS = Path("/sys/fs/cgroup")


class State:
    """What survives a kill."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a+")
        self._file.seek(0)
        rows = [json.loads(row) for row in self._file]
        self.begun = next((row["begun"] for row in rows if "begun" in row), 0)
        self.attempts = [contract.decode(Attempt, row["attempt"]) for row in rows if "attempt" in row]
        self.ended = {row["of"] for row in rows if "outcome" in row}
        if not self.begun:
            self.begun = int(float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK"))
            self._write(begun=self.begun)
            time.sleep(0.05)

    def _write(self, **row: Any) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def attempt(self, step: Step) -> Attempt:
        made = Attempt(len(self.attempts) + 1, 1, step.unit, step.invocation_before, datetime.now(UTC))
        self._write(attempt=contract.encode(made))
        self.attempts.append(made)
        return made

    def end(self, attempt: Attempt, outcome: Outcome) -> None:
        self._write(of=attempt.id, outcome=contract.encode(outcome), at=time.monotonic())


def stale_processes(unit: Unit, begun: int) -> Iterator[StaleProcess]:
    group = CGROUPS / unit.control_group.lstrip("/")
    files = group.rglob("cgroup.procs") if unit.control_group else ()
    for pid in (int(row) for file in files for row in file.read_text().split()):
        comm, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        if int(rest.split()[19]) <= begun:
            yield StaleProcess(pid, datetime.now(UTC), "", comm, 0, ())


async def main() -> None:
    """Do what the module says."""
    state = State(Path(sys.argv[2]))
    names = sys.argv[3:]

    async def read(wanted: Sequence[str]) -> Mapping[str, Unit]:
        return await asyncio.to_thread(units.read_units, HOST, wanted)

    async def recheck() -> dict[str, tuple[StaleProcess, ...]]:
        found = {name: tuple(stale_processes(unit, state.begun)) for name, unit in (await read(names)).items()}
        return {name: processes for name, processes in found.items() if processes}

    hands = Hands(
        units=read,
        journal=lambda unit, invocation: asyncio.to_thread(units.read_journal, unit, invocation),
        shutting_down=lambda: asyncio.to_thread(units.is_shutting_down, HOST),
        jobs_queued=lambda: asyncio.to_thread(units.jobs_queued, HOST),
        recheck=recheck,
        note_attempt=state.attempt,
        note_outcome=state.end,
        may_go_on=lambda: "",
        tell=lambda kind, **fields: None,
    )
    await resume([attempt for attempt in state.attempts if attempt.id not in state.ended], RULES, hands)
    fresh = await recheck()
    left = fresh.keys() - {attempt.unit for attempt in state.attempts}
    stale = [StaleUnit(name, Disposition.RESTART, Confidence.CERTAIN, fresh[name]) for name in sorted(left)]
    plan = make_plan(1, stale, await read(()), RULES, "aftercare.service")
    print(json.dumps(contract.encode(plan)))
    await execute(plan, hands)


if __name__ == "__main__":
    asyncio.run(main())
