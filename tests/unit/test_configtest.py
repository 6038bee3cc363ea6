"""Tests of a configuration: what real programs of Debian 12 and 13 said of good and of broken ones, and who may run.

tests/data/configtest/*.json: what systemd-run printed of each, and whether the unit came back from a restart then.
"""

import asyncio
import json
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from agent.config.load import VENDOR
from agent.model.errors import AgentError, Kind
from agent.model.probes import parse_commands, parse_patterns
from agent.restart import configtest
from agent.restart.configtest import PASSES, Verdict, judge
from agent.spawn import Done

DATA = Path(__file__).parents[1] / "data/configtest"
RULES = [one for one in tomllib.loads(VENDOR.read_text())["rule"] if "precheck" in one]
RECORDED = [(path.stem, row) for path in sorted(DATA.glob("*.json")) for row in json.loads(path.read_text())]

MISSED = {
    ("bookworm", "dovecot.service", "ssl_cert"),
    ("bookworm", "dnsmasq.service", "user=nosuch"),
    ("trixie", "dnsmasq.service", "user=nosuch"),
}
"""What keeps the unit down though its program says that all is well."""

HEAD = "Running as unit: run-u5.service\n"
TAIL = (
    "Finished with result: {result}\nMain processes terminated with: code=exited/status={status}\n"
    "Service runtime: 608us\nCPU time consumed: 430us\n"
)
SHOWN = """\
User=knot
Group=knot
SupplementaryGroups=ssl-cert adm
WorkingDirectory=!/var/lib/knot
Environment="A=x y" "B=q\\"r" C=$HOME
EnvironmentFiles=/etc/default/knot (ignore_errors=no)
EnvironmentFiles=/etc/default/odd (name) (ignore_errors=yes)
CapabilityBoundingSet=cap_net_bind_service
AmbientCapabilities=
BindReadOnlyPaths=/dev/log:/var/lib/haproxy/dev/log:rbind
RootDirectory=
DynamicUser=no
PrivateTmp=yes
"""


def done(status: int, stderr: str = "", stdout: str = "", result: str = "exit-code") -> Done:
    return Done((), status, stdout, HEAD + stderr + TAIL.format(result=result, status=status))


def rule(unit: str) -> dict[str, Any]:
    matching = [
        one
        for one in RULES
        for pattern in ([one["match"]] if isinstance(one["match"], str) else one["match"])
        if fnmatchcase(unit, pattern)
    ]
    return dict(matching[-1])


class Systemd:
    """Answers `systemctl show`, and the commands in turn; remembers what was asked."""

    def __init__(self, *answers: Done | AgentError, shown: str = "") -> None:
        self.answers = list(answers)
        self.shown = shown
        self.argv: list[tuple[str, ...]] = []

    async def __call__(self, argv: Sequence[str]) -> Done:
        self.argv.append(tuple(argv))
        if argv[0] == "systemctl":
            return Done((), 0, self.shown, "")
        answer = self.answers.pop(0)
        if isinstance(answer, AgentError):
            raise answer
        return answer


def verdict_of(systemd: Systemd, *commands: tuple[str, ...], broken: Sequence[str] = ()) -> Verdict:
    return asyncio.run(configtest.test_configuration("a.service", commands or (("/bin/true",),), broken, systemd))


@pytest.mark.parametrize(
    ("suite", "row"), RECORDED, ids=[f"{suite}-{row['unit']}-{row['what']}" for suite, row in RECORDED]
)
def test_what_is_called_broken_is_what_a_unit_does_not_come_back_with(suite: str, row: dict[str, Any]) -> None:
    one = rule(row["unit"])
    parse_commands(one["precheck"])
    answer = Done((), row["status"], row["stdout"], row["stderr"])
    verdict = judge(answer, parse_patterns(one["broken"]))
    if any((suite, row["unit"]) == missed[:2] and missed[2] in row["what"] for missed in MISSED):
        assert verdict == PASSES and not row["restarted"]
    else:
        assert bool(verdict.is_broken) is not row["restarted"], verdict
    if row["status"] == 0:
        assert verdict == PASSES


def test_all_that_is_shipped_was_tried_on_both_releases() -> None:
    for suite in ("bookworm", "trixie"):
        tried = {id(one) for one in RULES for of, row in RECORDED if of == suite and rule(row["unit"]) == one}
        other = "php8.4-fpm.service" if suite == "bookworm" else "php8.2-fpm.service"
        assert [one["match"] for one in RULES if id(one) not in tried] == [other]


def test_a_broken_configuration_is_told_with_its_place_and_the_programs_words() -> None:
    words = '2026/11/22 20:27:22 [emerg] 7#7: unknown directive "foo" in /etc/nginx/conf.d/bad.conf:3\n'
    verdict = judge(done(1, words), rule("nginx.service")["broken"])
    assert verdict == Verdict(True, 'unknown directive "foo"', "/etc/nginx/conf.d/bad.conf", "3")
    assert verdict.objection == (
        'its configuration is broken: /etc/nginx/conf.d/bad.conf line 3: unknown directive "foo"'
    )


def test_words_from_outside_are_made_printable_and_short() -> None:
    verdict = judge(done(1, "bad \x1b[31m in /etc/\x07x:1\n" + "y" * 9000), [r"(?P<message>bad.*) in (?P<file>\S+):"])
    assert (verdict.words, verdict.file) == ("bad \\x1b[31m", "/etc/\\x07x")
    assert len(judge(done(1, "y" * 9000), ()).words) <= configtest.LONGEST_MESSAGE + 1


def test_a_status_alone_is_broken_only_where_no_words_are_asked_for() -> None:
    assert judge(done(1, "first\nlast words\n"), ()) == Verdict(True, "last words")
    assert judge(done(1, "", "only here\n"), ()) == Verdict(True, "only here")
    assert judge(done(3), ()) == Verdict(True, "its test ended with status 3")
    assert judge(done(1, "could not open the log\n"), ["syntax error"]) == Verdict(None, "could not open the log")


def test_words_without_a_status_are_no_error() -> None:
    assert judge(done(0, "warning: syntax error\n", result="success"), ["syntax error"]) == PASSES


@pytest.mark.parametrize(
    ("status", "result"),
    [(1, "timeout"), (255, "signal"), (1, "oom-kill"), (255, "core-dump"), (217, "exit-code"), (203, "exit-code")],
)
def test_a_test_that_did_not_come_to_its_end_tells_nothing(status: int, result: str) -> None:
    verdict = judge(done(status, "syntax error\n", result=result), ["syntax error"])
    assert verdict.is_broken is None and result in verdict.words and verdict.objection == ""


def test_a_status_of_255_is_a_programs_own() -> None:
    assert judge(done(255, "bad\n"), ()).is_broken


def test_systemd_run_that_could_not_run_it_tells_nothing() -> None:
    verdict = judge(Done((), 1, "", "Failed to find executable /nonexistent: No such file or directory\n"), ())
    assert verdict.is_broken is None and "/nonexistent" in verdict.words


def test_a_program_cannot_speak_for_systemd_run() -> None:
    forged = TAIL.format(result="success", status=0)
    assert judge(done(1, forged), ()).is_broken


def test_a_command_runs_with_what_its_unit_has() -> None:
    systemd = Systemd(done(0, result="success"), shown=SHOWN)
    assert verdict_of(systemd, ("/usr/sbin/knotc", "conf-check", "$HOME")) == PASSES
    shown, argv = systemd.argv
    assert shown[:2] == ("systemctl", "show") and shown[-2:] == ("--", "a.service")
    assert argv[0] == "systemd-run" and argv[-4:] == ("--", "/usr/sbin/knotc", "conf-check", "$$HOME")
    given = [word.removeprefix("--property=") for word in argv if word.startswith("--property=")]
    assert {"RuntimeMaxSec=20", "MemoryMax=512M", "TasksMax=64", "LimitCORE=0"} <= set(given)
    assert [item for item in given if item.split("=")[0] not in configtest.LIMITS] == [
        "User=knot",
        "Group=knot",
        "SupplementaryGroups=ssl-cert adm",
        "CapabilityBoundingSet=cap_net_bind_service",
        "PrivateTmp=yes",
        "BindReadOnlyPaths=/dev/log:/var/lib/haproxy/dev/log:rbind",
        'Environment="A=x y" "B=q\\"r" C=$HOME',
        "WorkingDirectory=-/var/lib/knot",
        "EnvironmentFile=/etc/default/knot",
        "EnvironmentFile=-/etc/default/odd (name)",
    ]


@pytest.mark.parametrize("shown", ["RootDirectory=/srv/root\n", "RootImage=/srv/a.raw\n", "DynamicUser=yes\n"])
def test_a_unit_that_sees_other_files_is_not_tested(shown: str) -> None:
    systemd = Systemd(shown=shown)
    assert verdict_of(systemd).is_broken is None
    assert [argv[0] for argv in systemd.argv] == ["systemctl"]


def test_without_knowing_whom_to_run_it_as_nothing_is_run() -> None:
    argv: list[Sequence[str]] = []

    async def run(asked: Sequence[str]) -> Done:
        argv.append(asked)
        return Done((), 1, "", "Failed to connect to bus\n")

    verdict = asyncio.run(configtest.test_configuration("a.service", (("/bin/true",),), (), run))
    assert verdict.is_broken is None and "connect to bus" in verdict.words and len(argv) == 1


def test_the_first_command_that_does_not_pass_decides() -> None:
    good, bad = done(0, result="success"), done(1, "bad\n")
    assert verdict_of(Systemd(good, good), ("/bin/a",), ("/bin/b",)) == PASSES
    systemd = Systemd(good, bad, good)
    assert verdict_of(systemd, ("/bin/a",), ("/bin/b",), ("/bin/c",)).is_broken
    assert len(systemd.argv) == 3


@pytest.mark.parametrize("kind", [Kind.TIMED_OUT, Kind.SPAWN])
def test_a_test_that_could_not_be_run_is_no_objection(kind: Kind) -> None:
    verdict = verdict_of(Systemd(AgentError(kind, "did not end within 30 s")))
    assert verdict == Verdict(None, "did not end within 30 s") and verdict.objection == ""


def test_a_program_that_is_not_installed_is_no_objection() -> None:
    verdict = verdict_of(Systemd(), ("no-such-program-here", "-t"))
    assert verdict.is_broken is None and "not installed" in verdict.words


@pytest.mark.parametrize(
    ("value", "commands"),
    [
        (["nginx", "-t"], (("nginx", "-t"),)),
        ([["update-exim4.conf", "--check"], ["/usr/sbin/exim4", "-bV"]], None),
        ([], ()),
    ],
)
def test_a_precheck_is_one_command_or_several(value: list[Any], commands: tuple[tuple[str, ...], ...] | None) -> None:
    assert parse_commands(value) == (commands if commands is not None else tuple(map(tuple, value)))


@pytest.mark.parametrize(
    "value",
    [
        "nginx -t",
        [[]],
        [""],
        ["nginx", 1],
        ["nginx", ["-t"]],
        [["nginx"], "-t"],
        ["nginx", "\0"],
        ["nginx", "a\nb"],
        ["-t"],
        ["./nginx"],
        ["../nginx"],
        ["a b"],
        ["x"] * 51,
        ["x", "y" * 1001],
        {"a": 1},
        None,
    ],
)
def test_what_is_no_command_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_commands(value)


@pytest.mark.parametrize("value", ["x", ["("], ["(?P<place>x)"], [1], None])
def test_what_is_no_pattern_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        parse_patterns(value)
