"""Frames, errors over the wire, and the interface text that requests are checked against."""

import dataclasses
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import view
from agent.model.errors import AgentError, Kind
from agent.model.facts import Change, PackageState, Transaction
from agent.model.findings import Confidence, Finding, Severity, StaleUnit
from agent.model.restarts import Disposition, Outcome, Plan, Result, Rule, Step, Wave
from agent.varlink import interface, wire
from agent.varlink.interface import Refused

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON))
def test_every_message_survives_the_wire_as_one_frame(message: dict[str, Any]) -> None:
    data = wire.frame(message)
    assert data.count(b"\0") == 1 and data.endswith(b"\0")
    assert wire.parse(data[:-1]) == message


def test_a_name_that_is_not_utf8_survives_the_wire() -> None:
    message = {"path": "/usr/lib/\udcff\x00\n.so"}
    assert wire.parse(wire.frame(message)[:-1]) == message


@given(st.binary())
def test_any_bytes_are_an_object_or_one_clear_error(raw: bytes) -> None:
    try:
        assert isinstance(wire.parse(raw), dict)
    except AgentError as problem:
        assert problem.kind is Kind.PROTOCOL


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'"method"',
        b"{",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\xff"}',
        b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
        b"[" * 60_000,
        b'{"a":' + b"9" * 60_000 + b"}",
        b"\xff\xfe{\x20}\x20",
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_what_is_not_one_plain_object_is_refused(raw: bytes) -> None:
    with pytest.raises(AgentError) as caught:
        wire.parse(raw)
    assert caught.value.kind is Kind.PROTOCOL


def test_no_number_that_json_does_not_know_is_ever_sent() -> None:
    with pytest.raises(ValueError):
        wire.frame({"took": float("nan")})


@pytest.mark.parametrize("kind", Kind)
def test_an_error_arrives_as_it_was_raised(kind: Kind) -> None:
    reply = json.loads(wire.frame(wire.refusal(AgentError(kind, "no such thing", "do that")))[:-1])
    arrived = wire._problem(reply["error"], reply["parameters"])
    assert (arrived.kind, arrived.message, arrived.hint) == (kind, "no such thing", "do that")


def test_not_found_arrives_as_not_found() -> None:
    reply = wire.refusal(wire.NotFound("nothing is known of x", "agentctl status"))
    assert reply["error"] == "org.aftercare.Agent.NotFound"
    arrived = wire._problem(reply["error"], reply["parameters"])
    assert isinstance(arrived, wire.NotFound) and arrived.exit_status == 2


def test_denied_and_wrong_parameters_have_errors_of_their_own() -> None:
    assert wire.refusal(AgentError(Kind.DENIED, ""))["error"] == "org.aftercare.Agent.PermissionDenied"
    assert wire.refusal(AgentError(Kind.USAGE, ""))["error"] == "org.aftercare.Agent.InvalidParameter"
    assert wire.refusal(AgentError(Kind.TIMED_OUT, ""))["error"] == "org.aftercare.Agent.Unavailable"


def test_an_error_of_a_newer_daemon_is_still_an_error() -> None:
    arrived = wire._problem("org.aftercare.Agent.Unheard", {"kind": "of-tomorrow"})
    assert arrived.kind is Kind.PROTOCOL and "Unheard" in arrived.message


def test_a_method_that_the_daemon_does_not_know_hints_at_the_version() -> None:
    arrived = wire._problem("org.varlink.service.MethodNotFound", {"method": "x"})
    assert arrived.kind is Kind.PROTOCOL and "systemctl restart" in arrived.hint


SIGNATURE = {"name": "string", "names": "?[]string", "all": "?bool", "limit": "?int", "seconds": "?float"}


def test_parameters_of_the_right_types_pass_and_null_is_left_out() -> None:
    given = {"name": "x", "names": ["a", "b"], "all": False, "limit": 3, "seconds": 2, "unheard": None}
    assert interface.checked(SIGNATURE, given) == {name: given[name] for name in SIGNATURE}
    assert interface.checked(SIGNATURE, {"name": "x", "names": None}) == {"name": "x"}


@pytest.mark.parametrize(
    ("culprit", "wrong"),
    [
        ("name", {}),
        ("name", {"name": None}),
        ("name", {"name": 7}),
        ("name", {"name": "a\nb"}),
        ("name", {"name": "\ud800"}),
        ("name", {"name": "\x00"}),
        ("names", {"name": "x", "names": "x"}),
        ("names", {"name": "x", "names": ["a", 1]}),
        ("all", {"name": "x", "all": 1}),
        ("limit", {"name": "x", "limit": True}),
        ("limit", {"name": "x", "limit": 1.5}),
        ("limit", {"name": "x", "limit": 10**400}),
        ("seconds", {"name": "x", "seconds": "1"}),
        ("seconds", {"name": "x", "seconds": 1e999}),
        ("seconds", {"name": "x", "seconds": 10**400}),
        ("seconds", {"name": "x", "seconds": True}),
        ("unheard", {"name": "x", "unheard": 1}),
    ],
)
def test_a_wrong_parameter_is_named(culprit: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        interface.checked(SIGNATURE, wrong)
    assert caught.value.reply["parameters"] == {"parameter": culprit}


def test_the_interface_has_the_methods_that_the_command_needs() -> None:
    names = {"Status", "Counts", "Plan", "Restart", "Why", "Wait", "Watch", "History", "Check", "Silence", "Speak"}
    assert set(interface.SIGNATURES[wire.INTERFACE]) == names
    assert interface.SIGNATURES[wire.INTERFACE]["Restart"] == {
        "units": "?[]string",
        "all": "?bool",
        "now": "?bool",
        "dry_run": "?bool",
        "resume": "?bool",
    }


def fields(name: str) -> set[str]:
    body = re.search(rf"^type {name} \((.*?)^\)", interface.TEXTS[wire.INTERFACE], re.MULTILINE | re.DOTALL)
    assert body
    return set(re.findall(r"(\w+):", body[1]))


def test_the_interface_text_and_the_json_have_the_same_fields() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    unfinished = (PackageState("libc6", "amd64", "2.36-9", "half-configured", "s"),)
    changes = (Change("libssl3", "amd64", "3.0.20", "3.0.22"),)
    transaction = Transaction(1, now, now, "apt upgrade", "root", changes, unfinished)
    outcome = Outcome("nginx.service", Result.FRESH, (("stop", 0.5),))
    step = Step("nginx.service", Rule("*"), "i", 1, (), ())
    evidence = StaleUnit("nginx.service", Disposition.RESTART, Confidence.CERTAIN, ())
    finding = Finding("libraries", "nginx.service", Severity.WARNING, "s", "a", evidence)
    whole = view.View(view.Phase.IDLE, "auto", (finding,), now, transaction, (outcome,))
    shown = view.view_json(dataclasses.replace(whole, plan=Plan(1, (Wave(1, (step,)),))))
    wave = shown["plan"]["waves"][0]
    assert set(shown) == fields("State")
    assert set(shown["findings"][0]) == fields("Finding")
    assert set(shown["transaction"]) == fields("Transaction")
    assert set(shown["transaction"]["changes"][0]) == fields("Change")
    assert set(shown["restarts"][0]) == fields("Outcome")
    assert set(shown["plan"]) == fields("RestartPlan")
    assert set(wave) == fields("Wave") and set(wave["steps"][0]) == fields("Step")
