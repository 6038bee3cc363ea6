"""The engine of SPF over real sockets: dnspython, UDP, TCP, names with any characters, caches, a zone's own servers."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.spf.answers import Answer, Outcome, ServerAnswer
from agent.spf.evaluate import Evaluation, Query, check_host
from agent.spf.record import Result
from agent.spf.resolver import Authoritative, Recursive
from agent.spf.servers import Server
from tests.spf import suite
from tests.spf.server import Behaviour, Running, serve
from tests.spf.zone import Zone

Names = dict[str, dict[str, tuple[object, ...]]]
CLIENT = IPv4Address("192.0.2.1")
QUERY = Query(CLIENT, "me@example.org", "mail.example.org")
LONG = f"v=spf1 {' '.join(f'ip4:198.51.100.{number}' for number in range(250))} -all"


@pytest.mark.parametrize("name", suite.SUITES)
def test_all_cases_of_the_suites_come_out_as_the_rfcs_want_them(name: str) -> None:
    cases = suite.cases(name)
    with contextlib.ExitStack() as stack:
        zones = {id(case.zone): case.zone for case in cases}
        servers = {key: stack.enter_context(serve(zone)).server for key, zone in zones.items()}
        found = asyncio.run(_judge(cases, servers))
    wrong = [
        f"{case.id}: {one.result.value} {one.explanation!r}, not {case.results} {case.explanation!r} {one.problem}"
        for case, one in zip(cases, found, strict=True)
        if one.result.value not in case.results or case.explanation not in (None, one.explanation)
    ]
    assert not wrong, "\n".join(wrong)


async def _judge(cases: Sequence[suite.Case], servers: dict[int, Server]) -> list[Evaluation]:
    views = {key: Recursive([server]) for key, server in servers.items()}
    return await asyncio.gather(*(check_host(case.query, views[id(case.zone)].within()) for case in cases))


@contextlib.contextmanager
def zone(names: Names, behaviour: Behaviour | None = None, **ttls: int) -> Iterator[Running]:
    loaded = Zone(names, ttls={name.replace("_", "."): ttl for name, ttl in ttls.items()})
    with serve(loaded, behaviour) as running:
        yield running


def ask(running: Running, *questions: tuple[str, str]) -> list[Answer[object]]:
    """Ask a recursive view one after the other."""

    async def run() -> list[Answer[object]]:
        view = Recursive([running.server])
        session = view.within()
        return [await getattr(session, kind)(name) for kind, name in questions]

    return asyncio.run(run())


def test_a_record_that_is_too_long_for_udp_comes_over_tcp_and_in_one_piece() -> None:
    with zone({"example.org": {"TXT": (LONG,)}}) as running:
        (answer,) = ask(running, ("txt", "example.org"))
    assert answer.data == (LONG,)
    assert running.asked == [("example.org", "TXT")] * 2


def test_bytes_that_are_no_text_get_through_unchanged() -> None:
    odd = "v=spf1 \udc80a\x00b ü -all"
    with zone({"x\x00y.\udcff.ü b.org": {"TXT": (odd,), "PTR": ("a\x00.\udcfe.org",)}}) as running:
        text, pointer = ask(running, ("txt", "x\x00y.\udcff.ü b.org"), ("ptr", "x\x00y.\udcff.ü b.org"))
    assert text.data == (odd,)
    assert pointer.data == ("a\x00.\udcfe.org",)


def test_nothing_there_is_told_apart_from_no_such_name_and_both_have_the_time_to_keep_it() -> None:
    with zone({"example.org": {"A": (CLIENT,)}}) as running:
        nodata, nxdomain = ask(running, ("txt", "example.org"), ("txt", "no.example.org"))
    assert (nodata.outcome, nodata.ttl) == (Outcome.NODATA, 60)
    assert (nxdomain.outcome, nxdomain.ttl) == (Outcome.NXDOMAIN, 60)


def test_the_ttl_is_the_least_of_the_whole_chain() -> None:
    names = {"a.org": {"CNAME": ("b.org",)}, "b.org": {"CNAME": ("c.org",)}, "c.org": {"A": (CLIENT,)}}
    with zone(names, a_org=3600, b_org=120, c_org=900) as running:
        (answer,) = ask(running, ("a", "a.org"))
    assert (answer.data, answer.ttl) == ((CLIENT,), 120)


def test_what_is_known_is_not_asked_for_again_before_its_time_nor_kept_without_one() -> None:
    names = {"a.org": {"A": (CLIENT,)}, "b.org": {"A": (CLIENT,)}}
    with zone(names, b_org=0) as running:
        ask(running, ("a", "a.org"), ("a", "A.org"), ("a", "no.org"), ("a", "no.org"), ("a", "b.org"), ("a", "b.org"))
    assert running.asked == [("a.org", "A"), ("no.org", "A"), ("b.org", "A"), ("b.org", "A")]


def test_who_asks_what_is_being_asked_already_waits_for_that_answer() -> None:
    async def run(server: Server) -> list[Answer[IPv4Address]]:
        view = Recursive([server])
        return await asyncio.gather(*(view.within().a("a.org") for _ in range(20)))

    with zone({"a.org": {"A": (CLIENT,)}}, Behaviour(delay=0.1)) as running:
        answers = asyncio.run(run(running.server))
    assert {answer.data for answer in answers} == {(CLIENT,)}
    assert running.asked == [("a.org", "A")]


def test_no_more_than_64_questions_are_under_way_for_2000_domains() -> None:
    count = 2000
    names = {f"{number}.org": {"TXT": ("v=spf1 a:shared.net -all",)} for number in range(count)}

    async def run(server: Server) -> set[Result]:
        view = Recursive([server])
        queries = (replace(QUERY, mail_from=f"me@{number}.org") for number in range(count))
        return {found.result for found in await asyncio.gather(*(check_host(each, view.within()) for each in queries))}

    with zone(names | {"shared.net": {"A": (CLIENT,)}}, Behaviour(delay=0.01)) as running:
        assert asyncio.run(run(running.server)) == {Result.PASS}
    assert 32 < running.most <= 64
    assert len(running.asked) == count + 1


def test_waiting_for_a_turn_costs_no_evaluation_its_time() -> None:
    async def run(server: Server) -> list[Answer[str]]:
        view = Recursive([server])
        return await asyncio.gather(*(view.within(0.5).txt(f"{number}.org") for number in range(400)))

    names = {f"{number}.org": {"TXT": ("x",)} for number in range(400)}
    with zone(names, Behaviour(delay=0.1)) as running:
        assert {answer.outcome for answer in asyncio.run(run(running.server))} == {Outcome.FOUND}


def test_hosts_and_search_lists_have_no_say(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("search example.org\nnameserver 192.0.2.7\nnameserver 2001:db8::7\n")
    assert Recursive(resolv_conf=str(path))._servers == (Server("192.0.2.7"), Server("2001:db8::7"))
    with zone({"localhost.example.org": {"A": (CLIENT,)}}) as running:
        (answer,) = ask(running, ("a", "localhost"))
    assert answer.outcome is Outcome.NXDOMAIN
    path.write_text("")
    with pytest.raises(ValueError, match="names no name server"):
        Recursive(resolv_conf=str(path))


NEW: Names = {
    "example.org": {"TXT": ("v=spf1 a:www.example.net -all",)},
    "www.example.net": {"CNAME": ("web.example.net",)},
    "web.example.net": {"A": (CLIENT,)},
}
OLD: Names = {"example.org": {"TXT": ("v=spf1 -all",)}}
FINDABLE: Names = {
    "example.org": {"NS": ("ns1.example.org", "ns2.example.org"), "TXT": OLD["example.org"]["TXT"]},
    "example.net": {"NS": ("ns2.example.org",)},
    "ns1.example.org": {"A": (IPv4Address("127.0.0.2"),)},
    "ns2.example.org": {"A": (IPv4Address("127.0.0.3"),)},
}


@contextlib.contextmanager
def zones_own(
    first: tuple[Names, Behaviour], second: tuple[Names, Behaviour]
) -> Iterator[tuple[Authoritative, Recursive]]:
    """A recursive server that still has the old record, and the zone's own two."""
    with contextlib.ExitStack() as stack:
        finder = stack.enter_context(serve(Zone(FINDABLE), Behaviour(apexes=("", "example.org", "example.net"))))
        port = finder.server.port
        stack.enter_context(serve(Zone(first[0]), first[1], "127.0.0.2", port))
        stack.enter_context(serve(Zone(second[0]), second[1], "127.0.0.3", port))
        recursive = Recursive([finder.server])
        yield Authoritative(recursive, port), recursive


def own(**changes: object) -> Behaviour:
    return replace(Behaviour(apexes=("example.org", "example.net")), **changes)


def test_the_zones_own_servers_know_better_than_a_recursive_one_also_behind_an_alias() -> None:
    async def run(view: Authoritative | Recursive) -> Result:
        return (await check_host(QUERY, view.within())).result

    with zones_own((NEW, own()), (NEW, own())) as (authoritative, recursive):
        assert asyncio.run(run(recursive)) is Result.FAIL
        assert asyncio.run(run(authoritative)) is Result.PASS


def test_each_of_the_zones_own_servers_says_what_it_has() -> None:
    with zones_own((NEW, own(serial=2)), (OLD, own(serial=1))) as (view, _):
        each = asyncio.run(view.ask_each("example.org"))
    assert [(one.server, one.address, one.answer.data, one.serial) for one in each] == [
        ("ns1.example.org", "127.0.0.2", NEW["example.org"]["TXT"], 2),
        ("ns2.example.org", "127.0.0.3", OLD["example.org"]["TXT"], 1),
    ]


@pytest.mark.parametrize(
    "broken", [{"mute": frozenset({"example.org"})}, {"lame": True}, {"rcodes": {"example.org": "REFUSED"}}], ids=str
)
def test_a_server_that_is_silent_or_lame_or_broken_is_passed_over_for_the_next(broken: dict[str, object]) -> None:
    async def run(view: Authoritative) -> tuple[Answer[str], tuple[ServerAnswer, ...]]:
        return await view.within().txt("example.org"), await view.ask_each("example.org")

    with zones_own((OLD, own(**broken)), (OLD, own())) as (view, _):
        answer, each = asyncio.run(run(view))
    assert answer.data == OLD["example.org"]["TXT"]
    assert [one.answer.outcome for one in each] == [Outcome.FAILED, Outcome.FOUND]
    assert "127.0.0.2" in each[0].answer.reason


def test_one_server_whose_answer_is_cut_off_and_has_no_tcp_is_told() -> None:
    long: Names = {"example.org": {"TXT": (LONG,)}}
    with zones_own((long, own(tcp=False)), (long, own())) as (view, _):
        each = asyncio.run(view.ask_each("example.org"))
    assert "its answer is cut off, and over TCP: " in each[0].answer.reason
    assert each[1].answer.data == (LONG,)


def test_a_server_without_an_address_and_a_zone_without_servers_are_told() -> None:
    async def run(server: Server, name: str) -> tuple[ServerAnswer, ...]:
        return await Authoritative(Recursive([server]), 1).ask_each(name)

    with zone({"a.org": {"NS": ("lost.org",)}}, Behaviour(apexes=("", "a.org"))) as running:
        (lost,) = asyncio.run(run(running.server, "x.a.org"))
        (none,) = asyncio.run(run(running.server, "b.org"))
    assert (lost.server, lost.answer.reason) == ("lost.org", "its name has no address")
    assert "has no name servers" in none.answer.reason


def test_a_bad_signature_is_told_apart_from_a_server_that_is_down() -> None:
    behaviour = Behaviour(rcodes={"bogus.org": "SERVFAIL", "down.org": "SERVFAIL"}, unchecked=frozenset({"bogus.org"}))
    with zone({"bogus.org": {"TXT": ("v=spf1 -all",)}}, behaviour) as running:
        bogus, down = ask(running, ("txt", "bogus.org"), ("txt", "down.org"))
    assert bogus.outcome is down.outcome is Outcome.FAILED
    assert "a signature is bad" in bogus.reason
    assert down.reason.endswith("SERVFAIL")
