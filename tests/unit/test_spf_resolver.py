"""The parts of the resolver that need no network: addresses of servers, and how long answers are kept."""

import pytest

from agent.spf.answers import Answer, Outcome
from agent.spf.kept import FAILED_FOR, MOST, Kept
from agent.spf.servers import Server, parse_server

KEY = ("A", "example.org")


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", Server("192.0.2.1", 53)),
        ("192.0.2.1#5353", Server("192.0.2.1", 5353)),
        ("2001:DB8::1", Server("2001:db8::1", 53)),
        ("2001:db8::1#53", Server("2001:db8::1", 53)),
    ],
)
def test_a_server_is_an_address_and_perhaps_a_port(text: str, server: Server) -> None:
    assert parse_server(text) == server
    assert parse_server(str(server)) == server


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ns.example.org", "is no IP address"),
        ("", "is no IP address"),
        ("192.0.2.1:53", "is no IP address"),
        ("192.0.2.1#", "is no port"),
        ("192.0.2.1#0", "is no port"),
        ("192.0.2.1#65536", "is no port"),
        ("192.0.2.1#5³", "is no port"),
        ("192.0.2.1#-1", "is no port"),
        ("192.0.2.1#" + "1" * 5000, "is no port"),
    ],
)
def test_what_is_no_server_says_why(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_server(text)


def test_an_answer_is_kept_for_its_ttl_which_grows_less() -> None:
    kept = Kept()
    kept.put(KEY, Answer(Outcome.NXDOMAIN, (), 60), 1000.0)
    assert kept.get(KEY, 1000.0) == Answer(Outcome.NXDOMAIN, (), 60)
    assert kept.get(KEY, 1041.5) == Answer(Outcome.NXDOMAIN, (), 18)
    assert kept.get(KEY, 1060.0) is None
    assert kept.get(("AAAA", "example.org"), 1000.0) is None


@pytest.mark.parametrize("ttl", [None, 0])
def test_what_nobody_allows_to_keep_is_not_kept(ttl: int | None) -> None:
    kept = Kept()
    kept.put(KEY, Answer(Outcome.FOUND, ("x",), ttl), 0.0)
    assert kept.get(KEY, 0.0) is None


def test_a_failure_is_kept_for_a_while_only() -> None:
    kept = Kept()
    failure: Answer[str] = Answer(Outcome.FAILED, reason="time-out")
    kept.put(KEY, failure, 0.0)
    assert kept.get(KEY, FAILED_FOR - 1) == failure
    assert kept.get(KEY, FAILED_FOR) is None


def test_there_is_a_limit_to_what_is_kept() -> None:
    kept = Kept()
    for number in range(MOST + 10):
        kept.put(("A", f"{number}.org"), Answer(Outcome.FOUND, (number,), 60), 0.0)
    assert len(kept.answers) <= MOST
    assert kept.get(("A", f"{MOST + 9}.org"), 0.0)
