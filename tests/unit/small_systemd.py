"""A small systemd in memory, with a clock of its own, that behaves as the real one was recorded to behave.

`tests/data/systemctl/restart-*.txt` holds what `systemctl show` printed every few milliseconds around a
try-restart on systemd 252 and 257; `test_execute.py` holds this one against it. Jobs, their order among
dependants, invocations, conditions, start limits and the re-run of a job that a second request catches
running are modelled; nothing else.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.model import users
from agent.model.errors import AgentError, Kind
from agent.model.facts import Unit
from agent.spawn import Done

AUTO_RESTART = 0.6
BURST = 3


@dataclass
class Sketch:
    """A unit to be. stop, start, lives: seconds. fate: how it fares at its next start."""

    name: str
    pulls: tuple[str, ...] = ()
    stop: float = 0.1
    start: float = 0.1
    fate: str = "ok"
    load: str = "loaded"
    lives: float = 1.0


@dataclass
class Living:
    """A unit that is."""

    sketch: Sketch
    invocation: str
    active: str = "active"
    result: str = "success"
    job: str = ""
    phase: str = ""
    busy: bool = False
    main_pid: int = 1
    turn: int = field(default=0)


class SmallSystemd:
    """See the module. `starts`: how often each unit was started since; `reexecuted`: how often PID 1 was."""

    def __init__(self, *sketches: Sketch) -> None:
        self.now = 0.0
        self.starts: Counter[str] = Counter()
        self.reexecuted = 0
        self.shutting_down = False
        self.users_idle = False
        self.deaf_until = 0.0
        self.deaf_for = 0.7
        self._numbers = itertools.count(1)
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self.units = {sketch.name: Living(sketch, self._invocation()) for sketch in sketches}

    # -- time

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self._coming and self._coming[0][0] <= end:
            self.now, _, act = heapq.heappop(self._coming)
            act()
        self.now = end

    def _later(self, unit: Living, seconds: float, act: Callable[[Living], None]) -> None:
        turn = unit.turn

        def fire() -> None:
            if unit.turn == turn:
                act(unit)

        heapq.heappush(self._coming, (self.now + seconds, next(self._numbers), fire))

    # -- what systemctl asks for

    async def run(self, argv: Sequence[str]) -> Done:
        """Serve `systemctl --no-block try-restart -- …`, `systemctl daemon-reexec`, and what asks a user's manager."""
        if argv[0] == "systemd-run":
            (uid,) = [word.removeprefix("--uid=") for word in argv if word.startswith("--uid=")]
            self.ask_user(f"user@{uid}.service/{argv[-1]}")
            return Done(tuple(argv), 0, "", "")
        if tuple(argv) == ("systemctl", "daemon-reexec"):
            self.reexecuted += 1
            self.deaf_until = self.now + self.deaf_for
            return Done(tuple(argv), 0, "", "")
        assert tuple(argv[:4]) == ("systemctl", "--no-block", "try-restart", "--"), argv
        for name in argv[4:]:
            self.try_restart(name)
            self.pass_time(0.001)
        return Done(tuple(argv), 0, "", "")

    async def show(self, names: Sequence[str]) -> dict[str, Unit]:
        """Serve `systemctl show`; no names: all units."""
        if self.now < self.deaf_until:
            raise AgentError(Kind.UNREACHABLE, "systemd does not answer")
        manager = Unit("init.scope", kind="scope", can_start=False, can_stop=False, transient=True, main_pid=0)
        known = {"init.scope": manager, **{name: self._facts(unit) for name, unit in self.units.items()}}
        unknown = {name: Unit(name, load="not-found", active="inactive") for name in names if name not in known}
        return {name: ({**known, **unknown})[name] for name in (names or known)}

    def jobs(self) -> int:
        """Return how many jobs there are."""
        return sum(bool(unit.job) for unit in self.units.values())

    def ask_user(self, name: str) -> None:
        """Have a user's manager restart a unit; where that is asked for already, systemd refuses the name of the job."""
        if name in self.units and not self.units[name].job and not self.users_idle:
            self.try_restart(name)

    def _facts(self, unit: Living) -> Unit:
        if users.parse(unit.sketch.name):
            runs = unit.active in ("active", "deactivating")
            known = (unit.invocation, "active") if runs else ("", "inactive")
            return Unit(unit.sketch.name, invocation=known[0], active=known[1], job=unit.job, start_burst=0)
        return Unit(
            unit.sketch.name,
            load=unit.sketch.load,
            active=unit.active,
            invocation=unit.invocation,
            main_pid=unit.main_pid,
            result=unit.result,
            job=unit.job,
            pulls=unit.sketch.pulls,
            can_start=unit.sketch.load != "masked",
        )

    # -- jobs

    def try_restart(self, name: str) -> None:
        unit = self.units[name]
        if unit.sketch.load == "masked" or (unit.active in ("inactive", "failed") and not unit.job):
            return
        for each in self._with_dependants(unit):
            if each.phase == "start" and each.busy:
                each.turn, each.busy = each.turn + 1, False
            each.job = each.job or str(next(self._numbers))
            each.phase = "start" if each.active in ("inactive", "failed") else "stop"
        self._advance()

    def _with_dependants(self, unit: Living) -> list[Living]:
        found = [unit]
        for each in found:
            below = [self.units[name] for name in each.sketch.pulls]
            found += [one for one in below if one not in found and (one.active == "active" or one.job)]
        return found

    def _advance(self) -> None:
        """Dependants stop first and start last."""
        for unit in self.units.values():
            if not unit.job or unit.busy:
                continue
            dependants = [self.units[name] for name in unit.sketch.pulls]
            bases = [base for base in self.units.values() if unit.sketch.name in base.sketch.pulls]
            if unit.phase == "stop" and not any(one.phase == "stop" for one in dependants):
                unit.active, unit.busy = "deactivating", True
                self._later(unit, unit.sketch.stop, self._stopped)
            elif unit.phase == "start" and not any(base.job for base in bases):
                self._start(unit)

    def _stopped(self, unit: Living) -> None:
        unit.active, unit.busy, unit.phase, unit.main_pid = "inactive", False, "start", 0
        self._advance()

    def _start(self, unit: Living) -> None:
        if unit.sketch.fate == "condition":
            unit.invocation = ""
            return self._end_job(unit)
        if unit.sketch.fate == "limit":
            unit.active, unit.result = "failed", "start-limit-hit"
            return self._end_job(unit)
        self.starts[unit.sketch.name] += 1
        unit.invocation, unit.active, unit.busy, unit.result = (self._invocation(), "activating", True, "success")
        self._later(unit, unit.sketch.start, self._started)

    def _started(self, unit: Living) -> None:
        unit.active, unit.busy, unit.main_pid = "active", False, next(self._numbers)
        fate = unit.sketch.fate
        if fate in ("fails", "always"):
            self._exit(unit)
        if fate == "dies":
            self._later(unit, unit.sketch.lives, self._exit)
        self._end_job(unit)

    def _exit(self, unit: Living) -> None:
        unit.main_pid, unit.active, unit.result = 0, "failed", "exit-code"
        if unit.sketch.fate == "always":
            unit.active = "activating"
            self._later(unit, AUTO_RESTART, self._restart_by_itself)

    def _restart_by_itself(self, unit: Living) -> None:
        if self.starts[unit.sketch.name] >= BURST:
            unit.active = "failed"
            return
        self.starts[unit.sketch.name] += 1
        unit.invocation = self._invocation()
        self._exit(unit)

    def _end_job(self, unit: Living) -> None:
        unit.job, unit.phase = "", ""
        self._advance()

    def _invocation(self) -> str:
        return f"{next(self._numbers):032x}"
