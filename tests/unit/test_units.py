"""Reading systemctl and journalctl: recordings of systemd 252 and 257, and hostile text."""

import json
from math import inf
from pathlib import Path

import pytest

from agent.host.units import DEPENDANTS, PROPERTIES, parse_journal, parse_show, parse_span, read_units
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, Unit

DATA = Path(__file__).parents[1] / "data/systemctl"


@pytest.fixture(params=["252", "257"])
def units(request: pytest.FixtureRequest) -> dict[str, Unit]:
    return parse_show((DATA / f"show-{request.param}.txt").read_text())


def test_every_property_that_is_asked_for_exists_in_systemd_252_and_257() -> None:
    for version in ("252", "257"):
        rows = (DATA / f"show-{version}.txt").read_text().splitlines()
        assert set(PROPERTIES) - {row.partition("=")[0] for row in rows} == set()


def test_a_service_is_read_whole(units: dict[str, Unit]) -> None:
    unit = units["systemd-logind.service"]
    assert unit.description == "User Login Management"
    assert (unit.load, unit.active, unit.sub) == ("loaded", "active", "running")
    assert unit.control_group == "/system.slice/systemd-logind.service"
    assert unit.main_pid > 1
    assert len(unit.invocation) == 32
    assert unit.kill_mode == "control-group"
    assert unit.programs[0].endswith("/lib/systemd/systemd-logind")
    assert unit.fragment.endswith("/lib/systemd/system/systemd-logind.service")
    assert "dbus.socket" in unit.after and list(unit.after) == sorted(unit.after)
    assert (unit.timeout_start, unit.timeout_stop) == (90.0, 90.0)
    assert unit.can_start and unit.can_stop
    assert not (unit.needs_reload or unit.transient or unit.accept or unit.job)


def test_what_goes_down_with_a_unit_is_read_from_every_kind_of_dependency(units: dict[str, Unit]) -> None:
    assert units["lab-a.service"].pulls == (
        "lab-bind.service",
        "lab-part.service",
        "lab-req.service",
        "lab-requisite.service",
        "lab-spf.service",
    )
    assert len(DEPENDANTS) == 5
    assert units["lab-req.service"].pulls == ("lab-req2.service",)


def test_a_connection_of_an_accepting_socket_is_told_from_other_instances(units: dict[str, Unit]) -> None:
    (connection,) = [unit for name, unit in units.items() if name.startswith("lab-acc@")]
    assert connection.accept
    assert "system-lab\\x2dacc.slice" in connection.after
    assert not units["systemd-journald.service"].accept


def test_escaped_names_come_out_as_systemd_has_them(units: dict[str, Unit]) -> None:
    assert units["system-lab\\x2dacc.slice"].control_group == "/system.slice/system-lab\\x2dacc.slice"


def test_other_states_are_read_as_they_are(units: dict[str, Unit]) -> None:
    assert units["init.scope"].kind == "scope" and units["init.scope"].control_group == "/init.scope"
    assert units["lab-once.service"].kind == "oneshot"
    assert units["lab-masked.service"].load == "masked" and not units["lab-masked.service"].can_start
    assert units["nosuch.service"].load == "not-found"
    assert units["lab-tr.service"].transient
    assert units["lab-kp.service"].kill_mode == "process"
    assert units["labsysv.service"].kind == "forking" and units["labsysv.service"].main_pid == 0
    assert units["system.slice"].kind == "slice"


def test_a_command_that_looks_like_properties_does_not_become_them(units: dict[str, Unit]) -> None:
    """lab-nl.service runs a shell script with an empty line and a line `ActiveState=failed` in it."""
    assert units["lab-nl.service"].programs == ("/bin/sh",)
    assert units["lab-nl.service"].control_group == ""


COMMAND = """Id=x.service
ExecStart={ path=/bin/sh ; argv[]=/bin/sh -c echo
MainPID=1

Id=ssh.service
ActiveState=active
 ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
ActiveState=failed
MainPID=7
"""


def test_a_command_cannot_invent_a_unit_or_overrule_what_follows_it() -> None:
    (unit,) = parse_show(COMMAND).values()
    assert (unit.name, unit.active, unit.main_pid) == ("x.service", "failed", 7)


def test_line_separators_that_are_no_newline_do_not_begin_a_property() -> None:
    (unit,) = parse_show("Id=x.service\nDescription=a\u2028ActiveState=failed\x0bJob=3\nActiveState=active\n").values()
    assert (unit.active, unit.job) == ("active", "")


def test_every_command_of_a_unit_is_kept_and_none_of_one_that_runs_in_another_root() -> None:
    rows = "Id=x.service\nExecStart={ path=/a ; argv[]=/a ; x }\nExecStart={ path=/b c ; argv[]=/b ; x }\n"
    assert parse_show(rows)["x.service"].programs == ("/a", "/b c")
    assert parse_show(f"{rows}RootDirectory=/\nBindPaths=\n")["x.service"].programs == ("/a", "/b c")
    assert parse_show(f"{rows}RootImage=/x.raw\n")["x.service"].programs == ()
    assert parse_show(f"{rows}BindReadOnlyPaths=/opt:/usr/local:rbind\n")["x.service"].programs == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1min 30s", 90.0),
        ("infinity", inf),
        ("0", 0.0),
        ("500ms", 0.5),
        ("1h 1min 1s 20ms", 3661.02),
        ("2w 1d", 1_296_000.0),
        ("1y 2month", 31557600.0 + 2 * 2629800.0),
        ("1.5s", 1.5),
        ("", inf),
        ("soon", inf),
        ("3 parsecs", inf),
    ],
)
def test_time_spans(text: str, seconds: float) -> None:
    assert parse_span(text) == pytest.approx(seconds)


def test_journal_lines_are_cut_and_survive_every_kind_of_message() -> None:
    rows = [
        json.dumps({"MESSAGE": "plain"}),
        json.dumps({"MESSAGE": "two\n\nlines"}),
        json.dumps({"MESSAGE": list(b"bytes \xff")}),
        json.dumps({"MESSAGE": "x" * 5000}),
        json.dumps({"MESSAGE": None}),
        json.dumps({"MESSAGE": ["several", "fields"]}),
        json.dumps(["no object"]),
        "no json",
    ]
    lines = parse_journal("\n".join(rows))
    assert lines == ("plain", "two", "lines", "bytes \ufffd", "x" * 300)


def test_a_last_word_that_journald_found_no_run_for_belongs_to_the_run_that_it_stands_in() -> None:
    rows = [
        {"MESSAGE": "of nobody knows which run"},
        {"MESSAGE": "older", "_SYSTEMD_INVOCATION_ID": "1"},
        {"MESSAGE": "Started.", "INVOCATION_ID": "2"},
        {"MESSAGE": "still older", "_SYSTEMD_INVOCATION_ID": "1"},
        {"MESSAGE": "no such tenant"},
        {"MESSAGE": "Failed.", "INVOCATION_ID": "2"},
    ]
    text = "\n".join(map(json.dumps, rows))
    assert parse_journal(text, "2") == ("Started.", "no such tenant", "Failed.")


def test_another_root_is_not_asked_about_in_our_systemd(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    with pytest.raises(AgentError) as caught:
        read_units(Host(root=str(tmp_path)))
    assert caught.value.kind is Kind.UNREACHABLE
