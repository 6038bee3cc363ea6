"""The command: its arguments, its exit statuses, and what it prints at 80 columns."""

import argparse
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.cli import ask, blocks, foreign, main, presence, records, restart, screens, silence, terminal
from agent.cli.commands import Command
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FINDING: dict[str, Any] = {
    "id": "libraries/dbus.service",
    "check": "libraries",
    "subject": "dbus.service",
    "severity": "warning",
    "summary": "1 process still runs libssl3 3.0.20-1~deb12u2, replaced by 3.0.22-1~deb12u2",
    "advice": "agentctl restart dbus.service",
    "since": "2026-11-22T15:16:58Z",
    "evidence": {"disposition": "defer", "reason": "a restart would end every login", "processes": []},
}
VIEW: dict[str, Any] = {
    "v": 1,
    "phase": "idle",
    "findings": [FINDING],
    "restarts": [{"unit": "nginx.service", "result": "fresh", "took": {"job": 0.4, "settle": 2}, "hint": ""}],
    "unseen": ["3 processes of other users"],
    "detail": {"libraries": {"identical": {"ssh.service": ["/usr/lib/libssl.so.3"]}}},
}


LIVE = VIEW | {"mode": "auto", "held": "", "braked": False, "trouble": ""}
KERNEL = {"state": "current", "running": "6.1.0-56-amd64", "reason": ""}


MORE = [
    "exim",
    "spf",
    "spf evaluate",
    "spf reflector",
    "spf verify",
    "numpy",
    "numpy why",
    "numpy predict",
    "numpy prove",
    "snooze",
    "ack",
    "policy import-needrestart",
]


def test_the_names_of_commands_are_those_of_the_contract() -> None:
    names = [command.name for command in main.COMMANDS]
    assert names == ["status", "check", "plan", "restart", "why", "wait", "watch", "history", *MORE, "doctor"]


@pytest.mark.parametrize("command", [command.name for command in main.COMMANDS])
def test_every_command_takes_json(command: str) -> None:
    named = command in ("why", "snooze", "ack", "numpy why", "numpy prove")
    own = {
        "numpy predict": ["--mkl", "/opt"],
        "spf evaluate": ["--ip", "192.0.2.1", "--mail-from", "<>"],
        "spf verify": ["spf-verify@example.org"],
    }
    wanted = own.get(command, ["nginx"] if named else [])
    arguments = [command.replace(" ", "-"), "--json", *wanted]
    assert main.build_parser().parse_args(arguments).json


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["why"],
        ["status", "--loud"],
        *(["wait", "--timeout", time] for time in ("x", "-1", "0", "nan", "inf", "1e300")),
    ],
)
def test_what_makes_no_sense_is_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("first", "hint"),
    [("nonsense", "agentctl --help"), ("policy", "agentctl policy import-needrestart"), ("\x1b", "agentctl --help")],
)
def test_what_is_no_command_is_usage_and_the_longer_ones_are_named(
    first: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([first]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "is no command\n  " in captured.err and hint in captured.err
    assert "\x1b" not in captured.err


@pytest.mark.parametrize("command", main.COMMANDS, ids=[command.name for command in main.COMMANDS])
def test_the_help_names_each_command_as_it_is_typed_and_each_status_once(command: Command) -> None:
    parser = main.build_parser()
    assert f"\n    {command.name}" in parser.format_help()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert commands.choices[command.word].format_help().count("exit status: ") == 1


@pytest.mark.parametrize("arguments", [["restart"], ["restart", "--all", "nginx"]])
def test_a_restart_wants_units_or_all(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == 2
    assert "or say --all" in capsys.readouterr().err


@pytest.mark.real
def test_a_daemon_that_is_down_is_one_sentence_and_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["plan", "--socket", str(tmp_path / "none")]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("agentctl: aftercared is not running")


@pytest.mark.real
def test_a_daemon_that_is_down_leaves_its_last_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.json"
    state.write_text(json.dumps({**VIEW, "checked_at": "2026-11-22T15:16:58Z"}))
    monkeypatch.setattr(ask, "STATE", state)
    assert main.main(["status", "--socket", str(tmp_path / "none")]) == 3
    captured = capsys.readouterr()
    assert "dbus.service" in captured.out
    assert "this is of 2026-11-2" in captured.err


@pytest.mark.real
@pytest.mark.parametrize("text", ["", "{", "[]", '{"findings": 3}', "\x00"])
def test_a_truncated_state_is_no_answer_and_no_crash(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.json"
    state.write_text(text)
    monkeypatch.setattr(ask, "STATE", state)
    assert main.main(["status", "--socket", str(tmp_path / "none")]) == 3
    assert capsys.readouterr().out == ""


# What monitoring asks, and who may ask

STALE = FINDING | {
    "subject": "session-3.scope",
    "evidence": {
        "disposition": "session",
        "confidence": "certain",
        "cves": ["CVE-2026-1"],
        "processes": [{"pid": 77, "uid": 0, "files": []}],
        "processes_total": 1,
    },
}
SEEN = VIEW | {"findings": [STALE], "checked_at": "2026-11-22T15:16:58Z", "unseen": [], "trouble": ""}
DENIED = AgentError(Kind.DENIED, "this is for root and the group aftercare alone", "ask as root")


def answer(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> None:
    """Have the daemon answer each method, or refuse it."""

    def call(_options: object, method: str, *_others: object, **_more: object) -> Any:
        if isinstance(answers[method], AgentError):
            raise answers[method]
        return answers[method]

    for module in (ask, silence, restart):
        monkeypatch.setattr(module, "call", call)


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("nagios", 1, "WARNING - 1 process still runs libssl3 3.0.20"),
        ("needrestart", 0, "\nNEEDRESTART-SESS: root @ session #3\n"),
        ("openmetrics", 0, "\naftercare_exposed_cves 1\n"),
        ("json", 1, '"phase": "idle"'),
    ],
)
def test_monitoring_asks_the_daemon_in_its_own_format(
    name: str, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, {"Status": {"status": SEEN}})
    assert main.main(["status", "--format", name]) == status
    assert said in capsys.readouterr().out


def test_a_session_belongs_to_who_logged_in(tmp_path: Path) -> None:
    (tmp_path / "77").mkdir()
    (tmp_path / "77/cgroup").write_text("0::/user.slice/user-1000.slice/session-3.scope\n")
    rows = [STALE, STALE | {"subject": "session-4.scope"}]
    assert dict(foreign.read_sessions(rows, Host(proc=str(tmp_path)))) == {"session-3.scope": 1000}


def test_a_finding_of_another_check_is_no_session_whatever_it_is_about() -> None:
    domain = FINDING | {"check": "spf", "subject": "session-3.scope.example", "evidence": {"domain": "x"}}
    assert dict(foreign.read_sessions([domain])) == {}


@pytest.mark.parametrize(
    "view", [SEEN | {"findings": [], "trouble": "no worker"}, SEEN | {"findings": [], "checked_at": None}]
)
def test_a_daemon_that_could_not_look_is_never_ok(
    view: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, {"Status": {"status": view}})
    assert main.main(["status", "--format", "nagios"]) == 3
    assert capsys.readouterr().out.startswith("UNKNOWN - not seen: ")


def test_what_could_not_be_looked_at_is_never_the_status_of_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    view = SEEN | {"findings": []}
    answer(monkeypatch, {"Status": {"status": view}})
    assert main.main(["status", "--json"]) == 0
    answer(monkeypatch, {"Status": {"status": view | {"unseen": ["the record of a.example: SERVFAIL"]}}})
    assert main.main(["status", "--json"]) == 3


@pytest.mark.real
def test_a_plugin_whose_daemon_is_down_says_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["status", "--format", "nagios", "--socket", str(tmp_path / "none")]) == 3
    assert capsys.readouterr() == ("UNKNOWN - aftercared is not running\n", "")
    assert main.main(["status", "--format", "openmetrics", "--socket", str(tmp_path / "none")]) == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ([], 1, "Findings: 2 error, 1 info.\nroot and members of the group aftercare are told more"),
        (["--json"], 1, '"counts": {'),
        (["--format", "nagios"], 2, "CRITICAL - 2 error, 1 info; "),
        (["--format", "openmetrics"], 4, ""),
    ],
)
def test_others_get_counts(
    options: list[str], status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(
        monkeypatch, {"Status": DENIED, "Counts": {"counts": {"error": 2, "info": 1}, "phase": "idle", "known": True}}
    )
    assert main.main(["status", *options]) == status
    out = capsys.readouterr().out
    assert out.startswith(said) if not options else said in out


def test_others_are_told_where_the_daemon_is_still_busy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, {"Status": DENIED, "Counts": {"counts": {"error": 0}, "phase": "starting", "known": False}})
    assert main.main(["status"]) == 3
    assert capsys.readouterr().out.startswith("aftercare is starting.\nWhat there is to find is not known now.\n")


@pytest.mark.parametrize("command", ["snooze", "ack"])
def test_what_is_not_permitted_is_named_as_it_was_typed(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, {"Status": DENIED})
    assert main.main([command, "nginx"]) == 4
    assert capsys.readouterr().err.startswith(f"agentctl {command}: this is for root and the group aftercare alone\n")


def test_to_ask_what_would_be_restarted_has_one_status(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"transaction": 1, "waves": [], "manager": False, "agent": False}
    for plan, status in ((PLAN, 1), (nothing, 0)):
        restart = {"plan": plan, "restarts": [], "held": ""}
        answer(monkeypatch, {"Plan": {"plan": plan}, "Status": {"status": LIVE}, "Restart": restart})
        assert main.main(["plan"]) == main.main(["restart", "--dry-run"]) == status


def test_a_unit_that_is_fresh_already_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, {"Restart": {"plan": PLAN, "restarts": [], "held": "", "fresh": ["nginx.service"]}})
    assert main.main(["restart", "nginx"]) == 0
    assert capsys.readouterr().out == "nginx.service is not stale: it runs the code that is installed.\n"


def test_a_root_that_is_not_there_could_not_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["numpy", "--root", str(tmp_path / "none")]) == 3
    assert capsys.readouterr().out == ""


class Clock:
    """Time that only passes where somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(ask.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(ask.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)


DOWN = AgentError(Kind.UNREACHABLE, "aftercared is not running")


def test_nobody_waits_for_a_daemon_that_is_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    answer(monkeypatch, {"Wait": DOWN})
    monkeypatch.setattr(presence, "is_coming", lambda: False)
    assert main.main(["wait"]) == 3
    assert clock.now < 5 and "not running" in capsys.readouterr().err


def test_a_daemon_that_restarts_itself_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes after 20 seconds, for half a minute, and for a moment here and there systemd calls it inactive."""
    clock, states = Clock(monkeypatch), iter([False] + [True] * 40 + [False] * 5 + [True] * 1000)

    def call(*_arguments: object, **_others: object) -> dict[str, bool]:
        clock.sleep(20 if not clock.now else 0)
        if clock.now < 50:
            raise DOWN
        return {"done": True}

    monkeypatch.setattr(ask, "call", call)
    monkeypatch.setattr(presence, "is_coming", lambda: next(states))
    assert main.main(["wait"]) == 0 and clock.now >= 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 days", NOW - timedelta(days=2)),
        ("3h", NOW - timedelta(hours=3)),
        ("1 hour ago", NOW - timedelta(hours=1)),
        ("90s", NOW - timedelta(seconds=90)),
        ("2 months", NOW - timedelta(days=60)),
        ("1y", NOW - timedelta(days=365)),
        ("5 min", NOW - timedelta(minutes=5)),
        ("2026-11-20T10:00:00+00:00", datetime(2026, 11, 20, 10, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_people_write_them(text: str, expected: datetime) -> None:
    assert ask.moment(text, NOW) == expected


def test_yesterday_began_at_midnight_where_the_reader_lives() -> None:
    today = ask.moment("today", NOW)
    assert (today.hour, today.minute) == (0, 0) and today <= NOW < today + timedelta(days=1, hours=1)
    assert ask.moment("yesterday", NOW) == today - timedelta(days=1)


@pytest.mark.parametrize(
    "text", ["yesterday-ish", "", "3 parsecs", "99999999 days", "999999 years", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_time_is_usage(text: str) -> None:
    with pytest.raises(AgentError, match="is no time"):
        ask.moment(text, NOW)


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("nginx", "nginx.service"),
        ("nginx.service", "nginx.service"),
        ("init.scope", "init.scope"),
        ("a.b", "a.b.service"),
    ],
)
def test_a_name_without_a_suffix_is_a_service(given: str, full: str) -> None:
    assert ask.full_name(given) == full


def test_plain_output_fits_80_columns_and_says_what_to_do() -> None:
    text = blocks.write(screens.status(VIEW))
    assert max(map(len, text.splitlines())) <= 80
    for word in (
        "dbus.service",
        "Waiting for your word",
        "agentctl restart dbus.service",
        "nginx.service",
        "0.4 s",
        "not seen: 3",
    ):
        assert word in text.replace("\n", " ")


def test_a_person_sees_the_same_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    terminal.show(screens.status(VIEW), stream)
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for word in ("dbus.service", "Waiting for your word", "nginx.service", "fresh"):
        assert word in text


@pytest.mark.parametrize("as_person", [False, True])
def test_a_table_without_room_for_its_last_column_has_that_below_the_row(as_person: bool) -> None:
    hint = "the unit is active and nothing answers on its port; journalctl -u systemd-networkd-wait-online@eth0.service"
    row = ("systemd-networkd-wait-online@eth0.service", "probe-failed", "12.5 s", hint)
    table = blocks.Table("Restarts", ("unit", "result", "took", "note"), (row,))
    stream = io.StringIO()
    if as_person:
        terminal.show([table], stream)
    text = stream.getvalue() if as_person else blocks.write([table])
    assert max(map(len, text.splitlines())) <= 80 and " ".join(text.split()).endswith(hint)
    assert all(word in text for word in hint.split()), "a word was broken"


def test_a_name_from_outside_is_never_markup() -> None:
    stream = io.StringIO()
    terminal.show([blocks.Line("[bold]not bold[/bold] [link=file:///etc/passwd]x")], stream)
    assert "[bold]not bold[/bold]" in stream.getvalue()


def test_nothing_to_do_is_one_sentence() -> None:
    text = blocks.write(screens.status({"phase": "idle", "findings": []}))
    assert text == "Every process runs the code that is installed."


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ({"flag": None, "foreign": "this is a container (lxc)"}, "not looked at: this is a container (lxc)."),
        ({"kernel": KERNEL}, "Linux 6.1.0-56-amd64: nothing newer is installed."),
        ({"kernel": KERNEL | {"state": "unknown", "reason": "why"}}, "not known whether a reboot is due, why."),
        ({"kernel": KERNEL, "microcode": KERNEL | {"running": "0x2f"}}, "Microcode 0x2f: nothing newer is installed."),
    ],
)
def test_what_is_known_of_the_kernel_is_said_where_it_is_no_finding(detail: dict[str, Any], said: str) -> None:
    text = blocks.write(screens.status({"findings": [], "detail": {"reboot": detail}}))
    assert text.startswith("Nothing is wrong.\n") and text.endswith(said)


def test_what_waits_for_a_reboot_stands_under_its_heading() -> None:
    evidence = {"kind": "kernel", "disposition": "reboot", "cves": [], "processes": []}
    finding = FINDING | {
        "subject": "kernel",
        "summary": "Linux runs",
        "evidence": evidence,
        "advice": "systemctl reboot",
    }
    detail = {"reboot": {"kernel": KERNEL | {"state": "version-upgrade"}}}
    assert blocks.write(screens.status({"findings": [finding], "detail": detail})) == (
        "1 waiting for a reboot.\n\nWaiting for a reboot:\n  kernel\n    Linux runs.\n    → systemctl reboot"
    )


@pytest.mark.real
def test_what_a_locale_has_no_letters_for_is_escaped() -> None:
    code = "from agent.cli.main import main; main(['doctor', '--socket', '/nowhere']); print('→ libsßl')"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, cwd=ROOT)
    assert done.stdout.endswith(b"\\u2192 libs\xdfl\n") and b"Traceback" not in done.stderr


@pytest.mark.real
def test_a_reader_who_goes_away_is_no_traceback() -> None:
    code = "import sys; from agent.cli.main import main; sys.exit(main(['doctor']))"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run([sys.executable, "-c", code], stdout=pipe, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_waiting_for_a_daemon_in_trouble_does_not_have_it_look_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(monkeypatch), []

    def call(*_arguments: object, **_others: object) -> dict[str, bool]:
        calls.append(clock.now)
        return {"done": False}

    monkeypatch.setattr(ask, "call", call)
    assert main.main(["wait", "--timeout", "10"]) == 3
    assert 1 < len(calls) <= 6 and clock.now >= 10


def test_a_failed_look_is_never_called_good() -> None:
    text = blocks.write(screens.status({"phase": "idle", "findings": [], "trouble": "the worker did not end"}))
    assert "is not known" in text and "the worker did not end" in text
    assert not text.startswith("Every process runs")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


PLAN = {
    "transaction": 1,
    "waves": [
        {
            "number": 50,
            "steps": [{"unit": "nginx.service", "pulls": [], "reasons": ["libssl3 1 → 2"], "expected": 1.5}],
        },
        {"number": 90, "steps": [{"unit": "ssh.service", "pulls": [], "reasons": [], "expected": None}]},
    ],
    "manager": True,
    "agent": False,
}


def talk(monkeypatch: pytest.MonkeyPatch, answers: str, results: dict[str, str]) -> tuple[int, list[list[str]], str]:
    """Run `agentctl restart` on a terminal; return its status, the units asked for, and what was shown."""
    asked: list[list[str]] = []

    def call(_options: object, _method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.get("dry_run"):
            return {"plan": PLAN, "restarts": []}
        asked.append(arguments["units"])
        outcomes = [
            {"unit": unit, "result": results.get(unit, "fresh"), "took": {}, "hint": "", "journal": []}
            for unit in arguments["units"]
        ]
        return {"plan": None, "restarts": outcomes, "held": ""}

    shown = Terminal()
    monkeypatch.setattr(restart, "call", call)
    monkeypatch.setattr(sys, "stdin", Terminal(answers))
    monkeypatch.setattr(sys, "stdout", shown)
    return main.main(["restart"]), asked, shown.getvalue()


def test_on_a_terminal_each_wave_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    status, asked, shown = talk(monkeypatch, "y\nn\nyes\n", {})
    assert (status, asked) == (0, [["nginx.service"], ["init.scope"]])
    assert "1.5 s" in shown and "ssh.service" in shown


NAME, SHOWN = "openvpn@my\\x2dvpn.service", "openvpn@my\\\\x2dvpn.service"
"""A unit as systemd calls it, and in the contract, where each backslash is doubled."""


def test_units_with_backslashes_are_shown_and_asked_for_as_systemd_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = {"number": 50, "steps": [{"unit": SHOWN, "pulls": [], "reasons": [], "expected": None}]}
    monkeypatch.setitem(PLAN, "waves", [wave])
    _, asked, shown = talk(monkeypatch, "y\nn\n", {})
    assert asked == [[NAME]] and NAME in shown and SHOWN not in shown
    assert ask.full_name(SHOWN) == ask.full_name(NAME) == NAME
    known = [{"id": f"libraries/{SHOWN}", "subject": SHOWN}]
    assert {silence.id_of(name, known) for name in (SHOWN, NAME, NAME.removesuffix(".service"))} == {known[0]["id"]}
    block = blocks.Table("Units", ("unit", "command"), ((SHOWN, f"systemctl status '{SHOWN}'"),))
    for shown in map(blocks.readable, (block, blocks.Line(SHOWN), blocks.Entry(SHOWN, SHOWN, SHOWN))):
        assert NAME in blocks.write([shown]) and SHOWN not in blocks.write([shown])


def test_a_unit_that_does_not_come_back_ends_the_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    status, asked, _ = talk(monkeypatch, "y\ny\ny\n", {"nginx.service": "failed"})
    assert (status, asked) == (1, [["nginx.service"]])


def test_no_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    assert talk(monkeypatch, "", {})[:2] == (0, [])


def test_without_a_terminal_nothing_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["restart"]) == 2
    assert "or say --all" in capsys.readouterr().err


def test_the_history_says_which_fixes_came_into_effect() -> None:
    past = {
        "begun": "2026-11-22T15:00:00Z",
        "unit": "nginx.service",
        "reasons": ["libssl3 1 → 2"],
        "cves": ["CVE-2026-1", "CVE-2026-2"],
        "outcome": {"result": "fresh"},
    }
    data = {"transactions": [], "restarts": [past, past | {"outcome": {"result": "failed"}}], "silences": []}
    text = blocks.write(records.history(data))
    assert text.count("2 CVE fixes in effect since") == 1


@pytest.mark.parametrize(
    ("name", "id"),
    [("libraries/nginx.service", "libraries/nginx.service"), ("nginx", "libraries/nginx.service"), ("a.example", None)],
)
def test_a_finding_is_named_by_its_id_or_its_subject(name: str, id: str | None) -> None:
    known = [
        {"id": "libraries/nginx.service", "subject": "nginx.service"},
        {"id": "spf/a.example", "subject": "a.example"},
        {"id": "exim/a.example", "subject": "a.example"},
    ]
    if id:
        assert silence.id_of(name, known) == id
    else:
        with pytest.raises(AgentError, match="several findings"):
            silence.id_of(name, known)


@pytest.mark.parametrize(
    ("text", "expected"), [("7d", 604800), ("12 hours", 43200), ("2w", 1209600), ("1 year", 31536000)]
)
def test_periods_are_read_as_people_write_them(text: str, expected: float) -> None:
    assert silence.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "d", "-1d", "7 fortnights", "1d 2h"])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(AgentError, match="no period"):
        silence.seconds(text)


def test_a_held_rest_and_what_is_silenced_are_shown() -> None:
    quiet = {"id": "libraries/x.service", "kind": "ack", "reason": "known", "uid": 0, "at": None, "until": None}
    finding = {"id": "libraries/x.service", "summary": "old"}
    view = VIEW | {"held": "a.service (failed) did not come back", "braked": True}
    text = blocks.write(screens.status(view | {"silenced": [{"finding": finding, "silence": quiet}]}))
    assert "agentctl restart --resume goes on" in text.replace("\n", " ")
    assert "not told until it is gone (known): libraries/x.service: old" in text.replace("\n", " ")


def test_a_column_that_says_nothing_is_left_out() -> None:
    outcome = {"unit": "a.service", "result": "fresh", "took": {"job": 1.0}, "hint": "", "expected": None}
    assert records.restarts([outcome]).columns == ("unit", "result", "took", "note")
    assert records.restarts([outcome, outcome | {"expected": 2.0}]).columns[2] == "expected"


@pytest.mark.real
@pytest.mark.parametrize(
    ("into", "status", "told"), [("/dev/full", 3, "agentctl: No space left on device\n"), (None, 141, "")]
)
def test_what_cannot_be_printed_is_said_in_one_line(into: str | None, status: int, told: str) -> None:
    """A disk that is full behind a redirection, and a reader that went away."""
    code = "import sys; from agent.cli.main import main; status = main(['check', 'reboot', '--json']); sys.exit(status)"
    reader, writer = os.pipe()
    os.close(reader)
    out = os.open(into, os.O_WRONLY) if into else writer
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (status, told)
