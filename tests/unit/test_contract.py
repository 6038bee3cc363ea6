"""What others rely on: the JSON of DESIGN §3, the lossless inner JSON, and the one sanitiser."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import contract
from agent.model.errors import AgentError
from agent.model.facts import FileId, Indexed, Retired, StaleFile, StaleProcess
from agent.model.findings import CheckResult, Confidence, Finding, Severity, StaleUnit
from agent.model.restarts import Attempt, Disposition, Outcome, Result, Rule
from agent.model.text import printable

NOW = datetime(2026, 11, 22, 15, 16, 58, 123456, UTC)
STALE = StaleUnit(
    "nginx.service",
    Disposition.RESTART,
    Confidence.CERTAIN,
    (
        StaleProcess(
            911, NOW, "/usr/sbin/nginx", "nginx", 0,
            (StaleFile("/usr/lib/x86_64-linux-gnu/libssl.so.3", "libssl3", "3.0.20-1~deb12u2", "3.0.22-1~deb12u2"),),
        ),
    ),
    ("CVE-2026-84782",),
    "its rule says restart",
)  # fmt: skip
FINDING = Finding("libraries", "nginx.service", Severity.WARNING, "one line", "agentctl restart nginx", STALE, NOW)


def test_a_finding_has_exactly_the_keys_of_the_contract() -> None:
    data = contract.finding(FINDING)
    assert list(data) == ["id", "check", "subject", "severity", "summary", "advice", "since", "evidence"]
    assert data["id"] == "libraries/nginx.service"
    assert data["since"] == "2026-11-22T15:16:58Z"
    assert {"disposition", "confidence", "cves", "processes"} <= set(data["evidence"])
    assert list(data["evidence"]["processes"][0]) == ["pid", "start", "exe", "comm", "uid", "user", "tty", "files"]
    assert data["evidence"]["processes"][0]["files"] == [
        {
            "path": "/usr/lib/x86_64-linux-gnu/libssl.so.3",
            "package": "libssl3",
            "running": "3.0.20-1~deb12u2",
            "installed": "3.0.22-1~deb12u2",
        }
    ]


@pytest.mark.parametrize(
    "value",
    [
        FINDING,
        CheckResult("libraries", (FINDING,), {"identical": {}}, ("x",), NOW, (), ()),
        Retired("/usr/lib/\udcff.so", "p", None, FileId(1, 1 << 63, 2), 3),
        Attempt(1, 2, "u", "i", NOW, Outcome("u", Result.FRESH, (("job", 1),), (), ("line",))),
        Rule("*.service", Disposition.DEFER, 10, 2, 60, "why"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_noun_survives_the_way_through_json(value: object) -> None:
    assert contract.decode(type(value), json.loads(json.dumps(contract.encode(value)))) == value


def test_index_rows_survive_their_short_form() -> None:
    items = [Indexed("/usr/lib/a.so", "p", "1", FileId(1, 2, 3)), Indexed("/usr/lib/\udce9", "q", "2", FileId(4, 5, 0))]
    rows = json.loads(json.dumps([contract.index_row(item) for item in items]))
    assert list(contract.indexed(rows)) == items


@pytest.mark.parametrize("data", [{"device": "1", "inode": 2, "born": 3}, {"device": 1}, [], None, {"x": 1}])
def test_json_of_another_shape_is_refused_with_a_sentence(data: object) -> None:
    with pytest.raises(AgentError, match="FileId: unexpected JSON"):
        contract.decode(FileId, data)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("libssl.so.3", "libssl.so.3"),
        ("a b", "a b"),
        ("é", "é"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines", "two\\x0alines"),
        ("\udcff", "\\xff"),
        ("\u202eevil", "\\u202eevil"),
        ("back\\slash", "back\\\\slash"),
        ("\x9b", "\\x9b"),
        ("\u2028", "\\u2028"),
    ],
)
def test_foreign_names_are_made_printable(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(st.text(), st.text())
def test_different_names_never_look_the_same_and_never_hold_a_control_character(one: str, other: str) -> None:
    assert printable(one).isprintable()
    assert (printable(one) == printable(other)) == (one == other)
