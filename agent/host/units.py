"""What systemd says of its units, read through systemctl and journalctl; never judged, never changed.

One `systemctl show` answers for all units at once (0.2 s for 190 units, measured on systemd 252 and 257), so
nothing here needs a D-Bus library. Its output is made for machines with one exception: the arguments in
`ExecStart=` are printed as they are, newlines and empty lines included.
"""

import json
import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent.host.user_units import beside, read_user_units
from agent.model import users
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, Unit
from agent.model.users import UserUnit
from agent.spawn import Done, run

DEPENDANTS = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo")
"""Units that stop together with this one; on 257 those of PropagatesStopTo= are not started again."""

OTHER_ROOTS = (
    "RootDirectory",
    "RootImage",
    "ExtensionImages",
    "ExtensionDirectories",
    "MountImages",
    "BindPaths",
    "BindReadOnlyPaths",
)
"""Settings under which a path in `ExecStart=` is another file than on this host."""

PROPERTIES = (
    "Id",
    "Description",
    "LoadState",
    "ActiveState",
    "SubState",
    "Type",
    "ControlGroup",
    "MainPID",
    "InvocationID",
    "CanStart",
    "CanStop",
    "NeedDaemonReload",
    "Transient",
    "KillMode",
    "Result",
    "Job",
    "FragmentPath",
    "ExecStart",
    "After",
    "Accept",
    "TimeoutStopUSec",
    "TimeoutStartUSec",
    "StartLimitBurst",
    "StartLimitIntervalUSec",
    *DEPENDANTS,
    *OTHER_ROOTS,
)

SECONDS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
    "month": 2629800.0,
    "y": 31557600.0,
}
RUNS = ("_SYSTEMD_INVOCATION_ID", "INVOCATION_ID")
"""Where a line of the journal names the run that it belongs to: a program's own, and systemd's about it."""
AROUND = 4
"""So many times the wanted lines are read, for others may stand between them."""
LONGEST_LINE = 300
"""Characters of a journal line that are kept."""

Properties = dict[str, list[str]]


def read_units(host: Host, names: Sequence[str] = ()) -> dict[str, Unit]:
    """Return the units `names`, or all that systemd has in memory and all of users' own that run, by name.

    A name that systemd does not know comes back with load "not-found"; of users' units see `read_user_units`. Raises
    AgentError(UNREACHABLE) where systemd is not running, or where `host` is not the running system.
    """
    wanted = [f"--property={name}" for name in PROPERTIES]
    own = [name for name in names if not users.parse(name)]
    others = ({_socket_of(name) for name in own} | beside(names)) - {"", *own}
    asked = (*own, *sorted(others)) if names else ("*",)
    found = parse_show(_ask(host, ["systemctl", "show", "--all", *wanted, "--", *asked]).stdout)
    return {name: unit for name, unit in found.items() if name not in others} | read_user_units(found, names)


def is_shutting_down(host: Host) -> bool:
    """Return whether the system is on its way down. Raises as `read_units` does."""
    return _ask_manager(host, "SystemState") == "stopping"


def jobs_queued(host: Host) -> int:
    """Return how many jobs systemd has queued or under way. Raises as `read_units` does."""
    count = _ask_manager(host, "NJobs")
    return int(count) if count.isdigit() else 0


def read_journal(unit: str, invocation: str, lines: int = 10) -> tuple[str, ...]:
    """Return the last `lines` journal lines of that run of `unit`, systemd's own about it included.

    invocation: its InvocationID; where it is empty (a unit that is gone has none on 257), and of a user's unit, the
    unit's last lines. Lines are foreign text, cut at LONGEST_LINE characters. Empty where the journal cannot be read.
    """
    theirs = users.parse(unit)
    match, invocation = (_of_theirs(theirs), "") if theirs else (_of_own(unit, invocation), invocation)
    fields = f"--output-fields=MESSAGE,{','.join(RUNS)}"
    argv = ["journalctl", "--quiet", "--no-pager", "--output=json", fields, f"--lines={AROUND * lines}"]
    try:
        run(["journalctl", "--sync"], timeout=5.0)
        done = run([*argv, *match], timeout=10.0)
    except AgentError:
        return ()
    return parse_journal(done.stdout, invocation)[-lines:]


def _of_own(unit: str, invocation: str) -> list[str]:
    of_run = [f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}", "_UID=0"]
    of_run += ["+", f"_SYSTEMD_UNIT={unit}", "_TRANSPORT=stdout"]
    return of_run if invocation else [f"--unit={unit}"]


def _of_theirs(theirs: UserUnit) -> list[str]:
    """What it said, by journald's own word, and what its manager said of it."""
    within = f"_SYSTEMD_UNIT={theirs.manager}"
    return [within, f"_SYSTEMD_USER_UNIT={theirs.name}", "+", within, f"USER_UNIT={theirs.name}"]


def _ask(host: Host, argv: Sequence[str]) -> Done:
    if host.root != "/" or not os.path.isdir("/run/systemd/system"):
        raise AgentError(
            Kind.UNREACHABLE, "systemd is not running here", "boot with systemd to have services restarted"
        )
    done = run(argv)
    if done.status != 0:
        problem = done.stderr.strip() or f"status {done.status}"
        raise AgentError(Kind.UNREACHABLE, f"systemd does not answer: {problem}", "look at: systemctl status")
    return done


def _ask_manager(host: Host, name: str) -> str:
    return _ask(host, ["systemctl", "show", f"--property={name}"]).stdout.strip().removeprefix(f"{name}=")


def parse_show(text: str) -> dict[str, Unit]:
    """Return the units in the output of `systemctl show` for PROPERTIES, by name."""
    blocks = {block["Id"][0]: block for block in _blocks(text.split("\n")) if block.get("Id")}
    accepting = {name for name, block in blocks.items() if block.get("Accept") == ["yes"]}
    return {name: _unit(block, accepting) for name, block in blocks.items()}


def _blocks(lines: Iterable[str]) -> Iterator[Properties]:
    """Yield what stands between empty lines. A command may hold any text: only its closing brace ends it."""
    block: Properties = {}
    in_command = False
    for line in lines:
        name, separator, value = line.partition("=")
        if in_command:
            in_command = not line.endswith(" }")
        elif not line:
            yield block
            block = {}
        elif separator and name in PROPERTIES:
            block.setdefault(name, []).append(value)
            in_command = value.startswith("{ ") and not value.endswith(" }")
    yield block


def _unit(block: Properties, accepting: Collection[str]) -> Unit:
    one = {name: values[0] for name, values in block.items()}
    name = one["Id"]
    return Unit(
        name=name,
        description=one.get("Description", ""),
        load=one.get("LoadState", ""),
        active=one.get("ActiveState", ""),
        sub=one.get("SubState", ""),
        kind=one.get("Type") or name.rpartition(".")[2],
        control_group=one.get("ControlGroup", ""),
        main_pid=_number(one.get("MainPID", "")),
        invocation=one.get("InvocationID", ""),
        can_start=one.get("CanStart") == "yes",
        can_stop=one.get("CanStop") == "yes",
        needs_reload=one.get("NeedDaemonReload") == "yes",
        transient=one.get("Transient") == "yes",
        kill_mode=one.get("KillMode", ""),
        result=one.get("Result", ""),
        job=one.get("Job", ""),
        fragment=one.get("FragmentPath", ""),
        programs=_programs(block),
        pulls=tuple(sorted({item for key in DEPENDANTS for item in _list(one.get(key, ""))} - {name})),
        after=tuple(sorted(_list(one.get("After", "")))),
        accept=_socket_of(name) in accepting,
        timeout_stop=parse_span(one.get("TimeoutStopUSec", "")),
        timeout_start=parse_span(one.get("TimeoutStartUSec", "")),
        start_burst=_number(one.get("StartLimitBurst", "")),
        start_interval=parse_span(one.get("StartLimitIntervalUSec", "0")),
    )


def _programs(block: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    if any(value not in ("", "/") for key in OTHER_ROOTS for value in block.get(key, ())):
        return ()
    found = (re.match(r"\{ path=(.*?) ; argv\[\]=", value) for value in block.get("ExecStart", ()))
    return tuple(match[1] for match in found if match)


def _socket_of(name: str) -> str:
    """Return the socket that starts an instance for each connection, if it says Accept=yes; empty for no
    instance.

    The name is all there is to go by: systemd forgets TriggeredBy= of running connections at a daemon-reload
    (tried).
    """
    template, at, _ = name.partition("@")
    return f"{template}.socket" if at and name.endswith(".service") else ""


def _list(value: str) -> list[str]:
    """Elements with a backslash are printed in double quotes, as C would."""
    try:
        return shlex.split(value)
    except ValueError:
        return []


def _number(value: str) -> int:
    return int(value) if value.isdigit() else 0


def parse_span(value: str) -> float:
    """Return a time span such as "1min 30s" in seconds; `inf` for "infinity" and for what is no time span."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]+)", value)
    if value == "0":
        return 0.0
    if not parts or any(unit not in SECONDS for _, unit in parts):
        return float("inf")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def parse_journal(text: str, invocation: str = "") -> tuple[str, ...]:
    """Return the message lines in journalctl's JSON (which leaves out messages over 4 KiB).

    invocation: only those of this run. What a program says right before it ends may come without one, for journald
    looks it up when the process is gone already: such lines belong to the run among whose others they stand.
    """
    rows = [row for row in map(_row, text.splitlines()) if row]
    begun = not invocation
    found: list[str] = []
    for row in rows:
        runs = [row[name] for name in RUNS if row.get(name)]
        begun = begun or invocation in runs
        if begun and (not invocation or not runs or invocation in runs):
            found += [line[:LONGEST_LINE] for line in _message(row).splitlines() if line.strip()]
    return tuple(found)


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _message(row: dict[str, Any]) -> str:
    value = row.get("MESSAGE")
    if isinstance(value, list):
        value = bytes(byte for byte in value if isinstance(byte, int) and 0 <= byte < 256).decode(errors="replace")
    return value if isinstance(value, str) else ""
