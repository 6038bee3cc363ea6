"""DNS that means harm: an evaluation ends in time, without a crash, and says what went wrong."""

import asyncio
import random
import time
from ipaddress import IPv4Address

import pytest

from agent.spf.evaluate import Evaluation, Query, check_host
from agent.spf.record import Result
from agent.spf.resolver import SECONDS, Authoritative, Recursive
from agent.spf.servers import Server
from tests.spf.server import Behaviour, serve
from tests.spf.zone import Zone

CLIENT = IPv4Address("192.0.2.1")
QUERY = Query(CLIENT, "me@example.org", "mail.example.org")
Names = dict[str, dict[str, tuple[object, ...]]]


def judge(names: Names, behaviour: Behaviour | None = None, query: Query = QUERY) -> tuple[Evaluation, float]:
    """Judge over a server that behaves so; also return the seconds that it took."""

    async def run(server: Server) -> Evaluation:
        return await check_host(query, Recursive([server]).within())

    with serve(Zone(names), behaviour) as running:
        began = time.monotonic()
        found = asyncio.run(run(running.server))
        return found, time.monotonic() - began


def reason(found: Evaluation) -> str:
    assert found.result is Result.TEMPERROR
    assert found.problem
    return found.problem.message


def test_a_server_that_never_answers_costs_20_seconds_at_most_however_many_names_there_are() -> None:
    names: Names = {"example.org": {"TXT": ("v=spf1 ptr:a.org ptr:b.org ptr -all",)}}
    names["1.2.0.192.in-addr.arpa"] = {"PTR": tuple(f"{number}.silent.org" for number in range(10))}
    mute = frozenset(f"{number}.silent.org" for number in range(10))
    found, took = judge(names, Behaviour(mute=mute))
    assert SECONDS - 1 < took < SECONDS + 1
    assert found.result is Result.FAIL


def test_a_name_that_is_never_answered_is_a_temporary_error_with_its_name() -> None:
    record = {"example.org": {"TXT": ("v=spf1 ip4:198.51.100.1 a:silent.org -all",)}}
    found, took = judge(record, Behaviour(mute=frozenset({"silent.org"})))
    assert took < 6
    assert "A of silent.org: 127.0.0.1#" in reason(found) and "no answer" in reason(found)
    assert found.problem and (found.problem.domain, found.problem.start) == ("example.org", 24)


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"])
def test_a_server_that_fails_is_a_temporary_error_with_its_own_word(rcode: str) -> None:
    found, took = judge({}, Behaviour(rcodes={"example.org": rcode}))
    assert rcode in reason(found)
    assert took < 2


def test_no_server_at_all_is_a_temporary_error() -> None:
    with serve(Zone({})) as running:
        gone = running.server
    found = asyncio.run(check_host(QUERY, Recursive([gone]).within()))
    assert "no answer" in reason(found)


def test_truncation_without_tcp_behind_it_is_told() -> None:
    names: Names = {"example.org": {"TXT": ("v=spf1 -all",)}}
    found, took = judge(names, Behaviour(lying=frozenset({"example.org"}), tcp=False))
    assert "its answer is cut off, and over TCP: " in reason(found)
    assert took < 2
    assert judge(names, Behaviour(lying=frozenset({"example.org"})))[0].result is Result.FAIL


def test_64_kilobytes_are_read_and_judged_in_time() -> None:
    longest = "v=spf1 " + "ip4:198.51.100.1 " * 3700
    found, took = judge({"example.org": {"TXT": (longest,)}})
    assert (found.result, found.trace[0].end) == (Result.NEUTRAL, len(longest))
    assert took < 5
    for text in (
        "%" * 60000,
        "a:" * 30000,
        "x " * 30000,
        "%{d" * 20000,
        "include:%{l} " * 4600,
        "a:" + "a" * 60000,
        "1" * 60000,
    ):
        found, took = judge({"example.org": {"TXT": (f"v=spf1 {text}",)}})
        assert found.result is Result.PERMERROR
        assert took < 5, text[:20]


def test_thousands_of_records_of_one_name_are_read_in_time() -> None:
    many = tuple(f"v=spf2 {number}" for number in range(2500))
    addresses = tuple(IPv4Address(0x0A000000 + number) for number in range(3900))
    found, took = judge({"example.org": {"TXT": ("v=spf1 a -all", *many), "A": (*addresses, CLIENT)}})
    assert found.result is Result.PASS
    assert took < 5


def test_a_loop_of_aliases_is_a_temporary_error() -> None:
    names: Names = {
        "example.org": {"CNAME": ("a.org",)},
        "a.org": {"CNAME": ("b.org",)},
        "b.org": {"CNAME": ("a.org",)},
    }
    found, took = judge(names)
    assert reason(found)
    assert took < 2


@pytest.mark.parametrize("text", ["include:example.org", "redirect=example.org", "include:b.org include:b.org"])
def test_a_loop_of_records_ends_at_the_limit(text: str) -> None:
    names: Names = {"example.org": {"TXT": (f"v=spf1 {text}",)}, "b.org": {"TXT": ("v=spf1 include:example.org",)}}
    found, took = judge(names)
    assert (found.result, found.lookups) == (Result.PERMERROR, 11)
    assert found.problem and "more than the 10 terms" in found.problem.message
    assert took < 2


@pytest.mark.parametrize("odd", ["\x00", "ü", "\udcff", "\x7f", " ", "\\", '"', "\u202e", "%", "*"])
def test_odd_characters_in_names_and_records_break_nothing(odd: str) -> None:
    names: Names = {"example.org": {"TXT": (f"v=spf1 exists:%{{l}}.example.org a:{odd}.example.org -all",)}}
    assert judge(names)[0].result in (Result.PERMERROR, Result.FAIL)
    names = {"example.org": {"TXT": ("v=spf1 exists:%{l}.example.org ptr -all exp=%{h}.x.org",)}}
    names["1.2.0.192.in-addr.arpa"] = {"PTR": (f"{odd}.example.org", odd, "")}
    names[f"a{odd}b.example.org"] = {"A": (CLIENT,)}
    found, _ = judge(names, query=Query(CLIENT, f"a{odd}b@example.org", f"h{odd}"))
    assert found.result is Result.PASS
    assert judge(names, query=Query(CLIENT, f"c{odd}@example.org", f"h{odd}"))[0].result is Result.FAIL
    assert judge({}, query=Query(CLIENT, f"me@ex{odd}.org", odd))[0].result is Result.NONE


def test_bytes_that_are_no_answer_are_a_temporary_error() -> None:
    random.seed(5)
    head = b"\x84\x00\x00\x01\x00\x01\x00\x00\x00\x00\x07example\x03org\x00\x00\x10\x00\x01"
    rubbish = [
        b"",
        b"\x84",
        head,
        head + b"\xc0\x00" * 9,
        head + b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x09\xff\xff\x00",
    ]
    rubbish += [head + random.randbytes(40) for _ in range(20)]
    rubbish += [random.randbytes(60) for _ in range(20)]
    names = {f"{number}.org": raw for number, raw in enumerate(rubbish)}

    async def run(server: Server) -> list[Evaluation]:
        view = Recursive([server])
        queries = (Query(CLIENT, f"me@{name}", "h") for name in names)
        return await asyncio.gather(*(check_host(query, view.within(3.0)) for query in queries))

    with serve(Zone({}), Behaviour(raw=names)) as running:
        assert all(reason(found) for found in asyncio.run(run(running.server)))


def test_a_zone_whose_own_servers_never_answer_costs_20_seconds_at_most() -> None:
    servers = tuple(f"ns{number}.example.org" for number in range(13))
    names: Names = {name: {"A": (IPv4Address(f"127.0.1.{number}"),)} for number, name in enumerate(servers, 1)}
    names["example.org"] = {"NS": servers}

    async def run(server: Server) -> tuple[Evaluation, float]:
        began = time.monotonic()
        found = await check_host(QUERY, Authoritative(Recursive([server]), 9).within())
        return found, time.monotonic() - began

    with serve(Zone(names), Behaviour(apexes=("", "example.org"))) as running:
        found, took = asyncio.run(run(running.server))
    assert reason(found)
    assert took < SECONDS + 1
