"""Probes of health: how they are written, how long they are tried, and what runs them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import contract
from agent.model.errors import AgentError, Kind
from agent.model.probes import Probe, Way, parse_probe
from agent.restart.probe import BOXED, REACHING, probe
from agent.spawn import Done

COMMAND = Probe(Way.COMMAND, command=("/usr/bin/ready", "-q"))


class Act:
    """Answers in turn, the last one again and again; time goes by with each call and each pause."""

    def __init__(self, *answers: Done | AgentError, takes: float = 0.0) -> None:
        self.answers = list(answers)
        self.takes = takes
        self.now = 100.0
        self.calls: list[tuple[str, tuple[str, ...], float, Mapping[str, str]]] = []

    def __call__(self, user: str, argv: Sequence[str], *, timeout: float, properties: Mapping[str, str]) -> Done:
        self.calls.append((user, tuple(argv), timeout, properties))
        self.now += self.takes
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, AgentError):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def probed(self, target: Probe, limit: float = 10.0) -> str:
        return asyncio.run(probe(target, limit=limit, act=self, clock=lambda: self.now, sleep=self.sleep))


def failed(stderr: str = "", stdout: str = "") -> Done:
    return Done((), 2, stdout, stderr)


WELL = Done((), 0, "", "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("tcp:127.0.0.1:25", Probe(Way.TCP, "127.0.0.1", 25)),
        ("tcp:[::1]:25", Probe(Way.TCP, "::1", 25)),
        ("tcp:localhost:65535", Probe(Way.TCP, "localhost", 65535)),
        ("unix:/run/php/php8.2-fpm.sock", Probe(Way.UNIX, path="/run/php/php8.2-fpm.sock")),
        ("unix:/run/a b.sock", Probe(Way.UNIX, path="/run/a b.sock")),
        ("http://localhost", Probe(Way.HTTP, "localhost", 80, "/")),
        ("http://[::1]:8080/health?x=1&y=%20", Probe(Way.HTTP, "::1", 8080, "/health?x=1&y=%20")),
        ("https://www.example.org/", Probe(Way.HTTPS, "www.example.org", 443, "/")),
        (["/usr/bin/ready", "-q"], COMMAND),
        (["ready"], Probe(Way.COMMAND, command=("ready",))),
    ],
)
def test_a_probe_is_read_as_it_is_written(value: Any, expected: Probe) -> None:
    assert parse_probe(value) == expected
    assert contract.decode(Probe, contract.encode(expected)) == expected


def test_a_probe_is_told_as_it_is_written() -> None:
    for text in ("tcp:[::1]:25", "unix:/run/x.sock", "http://[::1]:8080/health?x=1", "https://localhost:443/"):
        assert str(parse_probe(text)) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "tcp:localhost",
        "tcp:localhost:",
        "tcp:localhost:0",
        "tcp:localhost:65536",
        "tcp::25",
        "tcp:::1:25",
        "tcp:[::1:25",
        "tcp:[::g]:25",
        "tcp:[1.2.3.4]:25",
        "tcp:-x:25",
        "tcp:a b:25",
        "tcp:a\n:25",
        "tcp:localhost:25\n",
        "tcp:localhost:٢٥",
        "unix:run/x.sock",
        "unix:/",
        "unix:/run/\0x",
        "unix:/run/x\n",
        "unix:/" + "x" * 107,
        "http://",
        "http:///x",
        "http://user@host/",
        "http://host/a b",
        "http://host/\r\nX: y",
        "http://host/#top",
        "http://host?x",
        "http://hóst/",
        "ftp://host/",
        "nginx -t",
        [],
        [""],
        ["a", 1],
        ["../x"],
        25,
        True,
        None,
        {"tcp": 25},
    ],
)
def test_what_is_no_probe_is_refused_with_what_is_allowed(value: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_probe(value)


@given(st.text(max_size=60), st.sampled_from(["", "tcp:", "unix:/", "http://", "https://x/", "tcp:x:"]))
def test_no_text_breaks_the_parser_or_a_request(text: str, start: str) -> None:
    try:
        target = parse_probe(start + text)
    except ValueError:
        return
    if target.way is not Way.UNIX:
        assert f"{target.host}{target.path}".isascii() and f"{target.host}{target.path}".isprintable()
    assert "\n" not in str(target) and "\0" not in str(target)


def test_a_unit_that_answers_is_asked_once() -> None:
    act = Act(WELL)
    assert act.probed(COMMAND) == ""
    assert len(act.calls) == 1 and act.now == 100.0


def test_a_unit_that_needs_a_moment_is_given_it() -> None:
    act = Act(failed("no"), failed("not yet"), WELL)
    assert act.probed(COMMAND) == ""
    assert act.now == 101.0


def test_when_the_time_is_over_the_last_words_are_told() -> None:
    act = Act(failed("starting\n"), failed("warming\nstill no \x1b[31m\n\n"))
    assert act.probed(COMMAND) == "/usr/bin/ready -q: still no \\x1b[31m"
    assert act.now == 109.5 and len(act.calls) == 20


def test_slow_answers_do_not_make_it_any_longer() -> None:
    act = Act(failed("no"), takes=4.0)
    assert act.probed(COMMAND)
    assert act.now == 113.0
    assert [timeout for _, _, timeout, _ in act.calls] == [10.0, 5.5, 1.0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (failed("", "on stdout\n"), "on stdout"),
        (failed(), "ended with status 2"),
        (AgentError(Kind.TIMED_OUT, "ready did not end within 10 s"), "did not end"),
        (AgentError(Kind.SPAWN, "ready is not installed"), "not installed"),
    ],
)
def test_a_command_that_fails_is_told_in_its_words(answer: Done | AgentError, words: str) -> None:
    assert words in Act(answer).probed(COMMAND, limit=0.0)


def test_a_command_has_no_rights_and_all_the_time() -> None:
    act = Act(WELL)
    act.probed(COMMAND, limit=30.0)
    assert act.calls == [("aftercare-probe", COMMAND.command, 30.0, BOXED)]
    assert BOXED["DynamicUser"] == "yes" and BOXED["ProtectSystem"] == "strict" and not BOXED["CapabilityBoundingSet"]


def test_a_socket_is_reached_by_a_program_that_may_do_nothing_else() -> None:
    act = Act(failed("Traceback:\nConnectionRefusedError: [Errno 111] Connection refused\n"))
    wrong = act.probed(Probe(Way.UNIX, path="/run/x.sock"), limit=0.0)
    assert wrong == "unix:/run/x.sock: ConnectionRefusedError: [Errno 111] Connection refused"
    user, argv, timeout, properties = act.calls[0]
    assert user == "root" and argv[:3] == ("/usr/bin/python3", "-IS", "-c") and argv[-1] == "/run/x.sock"
    assert properties == REACHING and timeout <= 5.0
