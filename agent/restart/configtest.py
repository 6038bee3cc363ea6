"""Tests the configuration of a unit, before a restart, by the commands that policy names for it (DESIGN rule 9).

A command runs in a transient unit with the user, groups, capabilities and environment of the unit that it speaks for,
in no sandbox (a configuration is not broken because a pid file could not be written in one), and with limits of its
own. It is not given the unit's RuntimeDirectory=: systemd would remove that with the transient unit. What could not
be told is no objection to a restart.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.model.errors import AgentError, Kind
from agent.model.text import printable
from agent.spawn import Done, absolute
from agent.spawn.beside import run_async
from agent.spawn.transient import SANDBOX, literal

Run = Callable[[Sequence[str]], Awaitable[Done]]

MIRRORED = (
    "User",
    "Group",
    "SupplementaryGroups",
    "UMask",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "NoNewPrivileges",
    "PrivateTmp",
    "BindPaths",
    "BindReadOnlyPaths",
    "Environment",
)
"""Properties that `systemctl show` prints in the form that systemd-run takes."""
OTHERS = ("WorkingDirectory", "EnvironmentFiles", "DynamicUser")
ELSEWHERE = ("RootDirectory", "RootImage", "ExtensionImages", "ExtensionDirectories", "MountImages")
"""With one of these the unit reads other files than the command would."""
SHOWN = (*MIRRORED, *OTHERS, *ELSEWHERE)

LIMITS = {**SANDBOX, "RuntimeMaxSec": "20", "TimeoutStopSec": "5"}
LONGEST = 1 << 16
"""Characters of what a command prints that are looked at."""
LONGEST_MESSAGE = 400
SYSTEMDS = range(200, 243)
"""Exit statuses that systemd itself gives a unit that it could not set up."""

HEAD = re.compile(r"^Running as unit: .*\n", re.MULTILINE)
TAIL = re.compile(r"Finished with result: (?P<result>\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a test came to. is_broken None: it could not be told. words: the command's own, or why it could not."""

    is_broken: bool | None
    words: str = ""
    file: str = ""
    line: str = ""

    @property
    def objection(self) -> str:
        """Why the unit must not be restarted; empty where nothing is known to be broken."""
        if not self.is_broken:
            return ""
        place = f"{self.file} line {self.line}" if self.file and self.line else self.file
        return f"its configuration is broken: {': '.join(filter(None, (place, self.words)))}"


PASSES = Verdict(is_broken=False)


async def test_configuration(
    unit: str, commands: Sequence[Sequence[str]], broken: Sequence[str] = (), run: Run = run_async
) -> Verdict:
    """Return whether `unit` could read its configuration; the first command that does not pass decides.

    commands: the setting `precheck`. broken: regular expressions for what they print, of which one must match for a
    status other than 0 to count as broken; without any, each such status does. Raises nothing.
    """
    try:
        shown = await run(_show(unit))
        if shown.status != 0:
            return _unknown(f"systemd does not tell how the unit runs: {_last_line(shown.stderr)}")
        settings = _settings(_parse(shown.stdout))
        for command in commands:
            verdict = judge(await run(_in_unit(command, settings)), broken)
            if verdict.is_broken is not False:
                return verdict
    except AgentError as problem:
        return _unknown(problem.message)
    return PASSES


def judge(done: Done, broken: Sequence[str]) -> Verdict:
    """Return what it means that systemd-run and the command in it ended so. Pure."""
    said, result = _take_apart(done.stderr)
    if not result:
        return _unknown(f"systemd-run ended with {done.status}: {_last_line(said)}")
    if result == "success":
        return PASSES
    if result != "exit-code" or done.status in SYSTEMDS:
        return _unknown(f"the test did not come to its end: {result}, status {done.status}")
    text = f"{said}\n{done.stdout}"[:LONGEST]
    silent = f"its test ended with status {done.status}"
    for pattern in broken:
        if found := re.search(pattern, text, re.MULTILINE):
            return _broken(found, silent)
    words = _last_line(said) or _last_line(done.stdout) or silent
    return _unknown(words) if broken else Verdict(True, _short(words))


def _take_apart(stderr: str) -> tuple[str, str]:
    """Return what the command said, and the result that systemd-run tells (empty: it does not).

    The client reports on the same stream, and last: what a command says in its style comes before that.
    """
    said = HEAD.sub("", stderr, count=1)
    ends = list(TAIL.finditer(said))
    return (said[: ends[-1].start()], ends[-1]["result"]) if ends else (said, "")


def _broken(found: re.Match[str], silent: str) -> Verdict:
    groups = {name: text or "" for name, text in found.groupdict().items()}
    words = groups.get("message") or found[0].strip() or silent
    return Verdict(True, _short(words), _short(groups.get("file", "")), _short(groups.get("line", "")))


def _unknown(words: str) -> Verdict:
    return Verdict(None, _short(words))


def _short(words: str) -> str:
    text = printable(" ".join(words.split()))
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _show(unit: str) -> list[str]:
    return ["systemctl", "show", *(f"--property={name}" for name in SHOWN), "--", unit]


def _parse(text: str) -> dict[str, list[str]]:
    """Return the properties that are not empty; some come more than once."""
    found: dict[str, list[str]] = {}
    for row in text.splitlines():
        name, _, value = row.partition("=")
        if value and name in SHOWN:
            found.setdefault(name, []).append(value)
    return found


def _settings(shown: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the properties of a transient unit whose command sees what the unit sees."""
    if any(value != "/" for name in ELSEWHERE for value in shown.get(name, ())):
        raise AgentError(Kind.SPAWN, "the unit has files of its own (RootDirectory=, RootImage= and their like)")
    if shown.get("DynamicUser") == ["yes"]:
        raise AgentError(Kind.SPAWN, "the unit runs as a user that systemd made up for it (DynamicUser=)")
    settings = [f"{name}={value}" for name, value in LIMITS.items()]
    settings += [f"{name}={value}" for name in MIRRORED for value in shown.get(name, ())]
    for directory in shown.get("WorkingDirectory", ()):
        settings.append(f"WorkingDirectory={_optional(directory)}")
    for file in shown.get("EnvironmentFiles", ()):
        path, _, about = file.rpartition(" (ignore_errors=")
        settings.append(f"EnvironmentFile={'-' if about == 'yes)' else ''}{path}")
    return settings


def _optional(directory: str) -> str:
    """A directory that may be missing is shown with `!` in front, and given with `-`."""
    return f"-{directory[1:]}" if directory.startswith("!") else directory


def _in_unit(command: Sequence[str], settings: Sequence[str]) -> list[str]:
    """The words are wanted in English."""
    return [
        *("systemd-run", "--pipe", "--wait", "--collect", "--service-type=exec"),
        *(f"--property={setting}" for setting in settings),
        *("--setenv=LC_ALL=C.UTF-8", "--"),
        *literal(absolute(command)),
    ]
