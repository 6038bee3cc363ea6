"""`check_host`, beside the suites: what they do not ask. Traces, places, counts, TTLs, records not published."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from agent.spf.answers import Answer
from agent.spf.evaluate import Evaluation, Query, check_host
from agent.spf.record import Result
from tests.spf.zone import NEGATIVE_TTL, TTL, Memory, Zone

QUERY = Query(ip_address("192.0.2.1"), "me@example.org", "mail.example.org", "rx.net", 1234)
HOST = ip_address("192.0.2.1")
OTHER = ip_address("198.51.100.1")


def judge(names: dict[str, dict[str, tuple[Any, ...]]], query: Query = QUERY, **ttls: int) -> Evaluation:
    return judged(names, query, **ttls)[0]


def judged(
    names: dict[str, dict[str, tuple[Any, ...]]], query: Query = QUERY, **ttls: int
) -> tuple[Evaluation, list[tuple[str, str]]]:
    """Return the evaluation, and what it asked."""
    zone = Zone(names, ttls={name.replace("_", "."): ttl for name, ttl in ttls.items()})
    memory = Memory(zone)
    return asyncio.run(check_host(query, memory)), memory.asked


def txt(text: str) -> dict[str, tuple[Any, ...]]:
    return {"TXT": (text,)}


def given(record: str) -> Query:
    return replace(QUERY, record=record)


def tree(found: Evaluation) -> list[str]:
    """Return the trace as somebody would print it."""
    return [f"{'  ' * step.depth}{step.domain} {step.text} → {step.verdict}" for step in found.trace]


NESTED = {
    "example.org": txt("v=spf1 ip4:198.51.100.1 include:a.org redirect=b.org exp=why.org"),
    "a.org": txt("v=spf1 a:host.org -all"),
    "b.org": txt("v=spf1 ~mx -all exp=why.org"),
    "host.org": {"A": (OTHER,)},
    "why.org": txt("go away, %{i}"),
}


def test_the_trace_is_a_tree_of_all_records_and_terms_in_the_order_of_their_judgement() -> None:
    found = judge(NESTED)
    assert tree(found) == [
        "example.org v=spf1 ip4:198.51.100.1 include:a.org redirect=b.org exp=why.org → fail",
        "  example.org ip4:198.51.100.1 → no match",
        "  example.org include:a.org → no match",
        "    a.org v=spf1 a:host.org -all → fail",
        "      a.org a:host.org → no match",
        "      a.org -all → match",
        "  example.org redirect=b.org → fail",
        "    b.org v=spf1 ~mx -all exp=why.org → fail",
        "      b.org ~mx → no match",
        "      b.org -all → match",
        "  b.org exp=why.org → used",
    ]
    asked = [(lookup.kind, lookup.name, lookup.answer.outcome.value) for step in found.trace for lookup in step.lookups]
    assert asked == [
        ("TXT", "example.org", "found"),
        ("TXT", "a.org", "found"),
        ("A", "host.org", "found"),
        ("TXT", "b.org", "found"),
        ("MX", "b.org", "nodata"),
        ("TXT", "why.org", "found"),
    ]


def test_what_matched_has_its_domain_and_its_place_and_the_explanation_is_its_own() -> None:
    found = judge(NESTED)
    assert found.matched
    assert (found.matched.domain, found.matched.start, found.matched.end, found.matched.term) == (
        "b.org",
        11,
        15,
        "-all",
    )
    assert (found.result, found.explanation, found.problem) == (Result.FAIL, "go away, 192.0.2.1", None)
    assert (found.lookups, found.voids) == (4, 1)


def test_the_match_of_an_include_is_the_include() -> None:
    found = judge({**NESTED, "a.org": txt("v=spf1 +all")})
    assert (found.result, found.matched and found.matched.term) == (Result.PASS, "include:a.org")


def test_the_ttl_is_the_smallest_that_was_met_also_of_what_is_not_there() -> None:
    assert judge(NESTED).ttl == NEGATIVE_TTL
    assert judge({"example.org": txt("v=spf1 a:host.org -all"), "host.org": {"A": (HOST,)}}, host_org=7).ttl == 7
    assert judge({"example.org": txt("v=spf1 -all")}).ttl == TTL
    assert judge({}, given("v=spf1 -all")).ttl is None


def test_a_record_is_judged_before_it_is_published_and_only_in_the_first_place() -> None:
    names = {"example.org": txt("v=spf1 -all"), "a.org": txt("v=spf1 include:example.org ?all")}
    found, asked = judged(names, given("v=spf1 include:a.org ~all"))
    assert found.result is Result.SOFTFAIL
    assert asked == [("TXT", "a.org"), ("TXT", "example.org")]
    assert judge(names, given("v=spf1 ip4:192.0.2.0/24 -all")).result is Result.PASS


def test_a_text_that_is_no_record_is_none_with_the_reason() -> None:
    found = judge({}, given("v=spf ip4:192.0.2.1 -all"))
    assert found.result is Result.NONE
    assert found.problem and "must begin with `v=spf1`" in found.problem.message


@pytest.mark.parametrize("sender", ["", "<>"])
def test_the_null_sender_is_judged_as_the_postmaster_of_the_helo_name(sender: str) -> None:
    names = {
        "mail.example.org": txt("v=spf1 exists:%{l}.%{o}.x.org -all"),
        "postmaster.mail.example.org.x.org": {"A": (HOST,)},
    }
    assert judge(names, replace(QUERY, mail_from=sender)).result is Result.PASS


@pytest.mark.parametrize("sender", ["example.org", "@example.org", "postmaster@example.org."])
def test_a_sender_without_a_local_part_is_the_postmaster(sender: str) -> None:
    names = {"example.org": txt("v=spf1 exists:%{s}.x.org"), "postmaster@example.org.x.org": {"A": (HOST,)}}
    assert judge(names, replace(QUERY, mail_from=sender)).result is Result.PASS


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        ("org", "it has one label"),
        ("", "it is empty"),
        ("[192.0.2.1]", "it is an address"),
        ("a..org", "an empty label"),
        (".org", "an empty label"),
        ("a" * 64 + ".org", "more than 63 characters"),
        ("a." * 127 + "org", "more than 253 characters"),
        ("exämple.org", "xn--"),
        ("a\0b.org", "characters that a domain name cannot have"),
        ("a b\n.org", "characters that a domain name cannot have"),
    ],
)
def test_what_is_no_domain_is_none_without_a_question(domain: str, words: str) -> None:
    found, asked = judged({}, replace(QUERY, mail_from=f"me@{domain}" if domain else "", helo=""))
    assert (found.result, asked, found.trace) == (Result.NONE, [], ())
    assert found.problem and words in found.problem.message


def test_no_name_and_no_record_are_none_and_told_apart() -> None:
    missing, without = judge({}), judge({"example.org": txt("hello")})
    assert missing.result is without.result is Result.NONE
    assert missing.problem and missing.problem.message == "example.org does not exist"
    assert without.problem and without.problem.message == "example.org has no SPF record"


def test_a_mapped_client_is_an_ipv4_client() -> None:
    names = {"example.org": txt("v=spf1 ip4:192.0.2.1 -all exp=why.org"), "why.org": txt("%{c} %{v}")}
    mapped = replace(QUERY, ip=ip_address("::ffff:192.0.2.1"))
    assert judge(names, mapped).result is Result.PASS
    assert judge(names, replace(QUERY, ip=ip_address("::ffff:192.0.2.2"))).explanation == "192.0.2.2 in-addr"


def test_a_fault_has_its_record_its_place_and_what_was_meant() -> None:
    names = {"example.org": txt("v=spf1 include:a.org -all"), "a.org": txt("v=spf1 a ipv4:192.0.2.1 -all")}
    found = judge(names)
    problem = found.problem
    assert found.result is Result.PERMERROR and problem
    assert (problem.domain, problem.start, problem.end, problem.hint) == ("a.org", 9, 23, "ip4:192.0.2.1")
    assert problem.record[problem.start : problem.end] == "ipv4:192.0.2.1"
    assert [step.verdict for step in found.trace] == ["permerror"] * 3


@pytest.mark.parametrize(
    "term", ["include:no.org", "redirect=no.org", "include:org", "include:a..org", "redirect=%{h}."]
)
def test_a_record_that_is_missing_further_in_is_an_error_at_the_term_that_names_it(term: str) -> None:
    query = replace(QUERY, helo="a..b")
    found = judge({"example.org": txt(f"v=spf1 {'redirect=%{h}' if '%' in term else term}")}, query)
    assert found.result is Result.PERMERROR
    assert found.problem and (found.problem.domain, found.problem.start) == ("example.org", 7)


def test_two_records_are_an_error_and_other_text_beside_one_is_not() -> None:
    found = judge({"example.org": {"TXT": ("v=spf1 a", "V=SPF1")}})
    assert (found.result, found.problem and found.problem.message) == (
        Result.PERMERROR,
        "example.org has 2 SPF records, and only one is allowed",
    )
    assert judge({"example.org": {"TXT": ("v=spf10", "\udc80", "", "v=spf1 +all")}}).result is Result.PASS


def silent(kind: str, name: str, names: dict[str, dict[str, tuple[Any, ...]]], query: Query = QUERY) -> Evaluation:
    return asyncio.run(check_host(query, Memory(Zone(names, {(name, kind)}))))


@pytest.mark.parametrize(
    ("term", "kind", "name"),
    [
        ("a:x.org", "A", "x.org"),
        ("mx:x.org", "MX", "x.org"),
        ("mx:y.org", "A", "x.org"),
        ("exists:x.org", "A", "x.org"),
        ("include:x.org", "TXT", "x.org"),
        ("redirect=x.org", "TXT", "x.org"),
    ],
)
def test_a_failure_of_dns_is_a_temporary_error_with_its_reason_and_place(term: str, kind: str, name: str) -> None:
    names = {
        "example.org": txt(f"v=spf1 {term}"),
        "y.org": {"MX": ((1, "host.org"), (2, "x.org"))},
        "host.org": {"A": (HOST,)},
    }
    found = silent(kind, name, names)
    assert found.result is Result.TEMPERROR and found.problem
    assert found.problem.message == f"{kind} of {name}: time-out"
    assert found.problem.domain in ("example.org", "x.org")


def test_a_failure_for_the_first_record_or_for_the_explanation() -> None:
    assert silent("TXT", "example.org", {}).result is Result.TEMPERROR
    found = silent("TXT", "why.org", {"example.org": txt("v=spf1 -all exp=why.org")})
    assert (found.result, found.explanation) == (Result.FAIL, "")


def test_a_failure_behind_ptr_is_no_error() -> None:
    pointer = {
        "1.2.0.192.in-addr.arpa": {"PTR": ("dead.example.org", "host.example.org")},
        "host.example.org": {"A": (HOST,)},
    }
    names = {"example.org": txt("v=spf1 ptr -all"), **pointer}
    assert silent("A", "dead.example.org", names).result is Result.PASS
    assert silent("PTR", "1.2.0.192.in-addr.arpa", names).result is Result.FAIL


def test_the_explanation_is_asked_for_on_a_fail_alone() -> None:
    for qualifier, count in (("-", 2), ("~", 1), ("?", 1), ("+", 1)):
        assert len(judged({"example.org": txt(f"v=spf1 {qualifier}all exp=why.org")})[1]) == count


@pytest.mark.parametrize("text", ["%{x}", "ü", "a\nb", "%", "\udc80"])
def test_an_explanation_with_a_fault_is_none_and_the_trace_says_why(text: str) -> None:
    found = judge({"example.org": txt("v=spf1 -all exp=why.org"), "why.org": txt(text)})
    assert (found.result, found.explanation) == (Result.FAIL, "")
    assert found.trace[-1].verdict not in ("used", "")


def test_ten_terms_may_need_dns_and_the_eleventh_is_the_error() -> None:
    names = {"example.org": txt("v=spf1 " + "a:x.org " * 10 + "ip4:192.0.2.1"), "x.org": {"A": (OTHER,)}}
    found = judge(names)
    assert (found.result, found.lookups) == (Result.PASS, 10)
    names["example.org"] = txt("v=spf1 " + "a:x.org " * 11 + "ip4:192.0.2.1")
    found = judge(names)
    assert (found.result, found.lookups) == (Result.PERMERROR, 11)
    assert found.problem and found.problem.start == 7 + 10 * 8


def test_two_terms_may_find_nothing_each_counted_once_and_the_third_is_the_error() -> None:
    names: dict[str, dict[str, tuple[Any, ...]]] = {
        "x.org": {"MX": tuple((number, f"{number}.x.org") for number in range(5))}
    }
    found = judge(names, given("v=spf1 mx:x.org a:no.org ?all"))
    assert (found.result, found.voids) == (Result.NEUTRAL, 2)
    found = judge(names, given("v=spf1 mx:x.org a:no.org a:x.org ?all"))
    assert (found.result, found.voids) == (Result.PERMERROR, 3)
    assert found.problem and found.problem.start == 25


def test_what_the_clients_names_lack_is_not_held_against_the_record() -> None:
    names = {"1.2.0.192.in-addr.arpa": {"PTR": tuple(f"{number}.no.org" for number in range(5))}}
    found = judge(names, given("v=spf1 ptr exists:%{p}.x.org ?all"))
    assert (found.result, found.voids) == (Result.NEUTRAL, 1)


def test_the_names_of_the_client_are_asked_for_once_and_ten_of_them() -> None:
    names = {"1.2.0.192.in-addr.arpa": {"PTR": tuple(f"{number}.no.org" for number in range(15))}}
    _, asked = judged(names, given("v=spf1 ptr ptr:a.org exists:%{p}.x.org ?all"))
    assert asked.count(("PTR", "1.2.0.192.in-addr.arpa")) == 1
    assert sum(name.endswith(".no.org") for _, name in asked) == 10


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (("other.net", "a.example.org", "example.org"), "example.org"),
        (("other.net", "A.Example.Org"), "A.Example.Org"),
        (("other.net", "badexample.org"), "other.net"),
        (("no.net",), "unknown"),
        ((), "unknown"),
    ],
)
def test_the_best_of_the_clients_names_is_the_domain_then_one_below_it_then_any(
    names: tuple[str, ...], best: str
) -> None:
    zone: dict[str, dict[str, tuple[Any, ...]]] = {name.lower(): {"A": (HOST,)} for name in names if name != "no.net"}
    zone |= {
        "1.2.0.192.in-addr.arpa": {"PTR": names},
        "why.org": txt("%{p}"),
        "example.org": {"A": (HOST,)} | txt("v=spf1 -all exp=why.org"),
    }
    assert judge(zone).explanation == best


def test_ptr_matches_the_domain_and_below_it_and_nothing_that_ends_alike() -> None:
    for name, result in (
        ("example.org", Result.PASS),
        ("x.EXAMPLE.org", Result.PASS),
        ("badexample.org", Result.NEUTRAL),
    ):
        names = {"1.2.0.192.in-addr.arpa": {"PTR": (name,)}, name.lower(): {"A": (HOST,)}}
        assert judge(names, given("v=spf1 ptr")).result is result


def test_addresses_are_compared_in_the_clients_own_family() -> None:
    names = {"x.org": {"A": (ip_address("192.0.2.77"),), "AAAA": (ip_address("2001:db8::77"),)}}
    six = replace(QUERY, ip=ip_address("2001:db8::1"))
    for query, term, result in (
        (QUERY, "a:x.org/25", Result.PASS),
        (QUERY, "a:x.org//0", Result.NEUTRAL),
        (six, "a:x.org/0", Result.NEUTRAL),
        (six, "a:x.org//64", Result.PASS),
        (six, "exists:x.org", Result.PASS),
        (six, "ip6:2001:db8::/127", Result.PASS),
        (six, "ip4:0.0.0.0/0", Result.NEUTRAL),
    ):
        assert judge(names, replace(query, record=f"v=spf1 {term}")).result is result, term


def test_more_than_ten_exchangers_are_an_error_and_a_null_one_is_no_question() -> None:
    names: dict[str, dict[str, tuple[Any, ...]]] = {
        "x.org": {"MX": tuple((1, f"{number}.x.org") for number in range(11))}
    }
    assert judge(names, given("v=spf1 mx:x.org")).result is Result.PERMERROR
    found, asked = judged({"x.org": {"MX": ((0, ""),)}}, given("v=spf1 mx:x.org ?all"))
    assert (found.result, asked) == (Result.NEUTRAL, [("MX", "x.org")])


def test_exchangers_are_asked_for_in_the_order_of_their_preference_and_all_of_them() -> None:
    names = {"x.org": {"MX": ((20, "b.org"), (10, "a.org"))}, "a.org": {"A": (HOST,)}, "b.org": {"A": (OTHER,)}}
    found, asked = judged(names, given("v=spf1 mx:x.org ?all"))
    assert (found.result, asked) == (Result.PASS, [("MX", "x.org"), ("A", "a.org"), ("A", "b.org")])


def test_macros_know_the_domain_whose_record_they_stand_in() -> None:
    names = {
        "a.org": txt("v=spf1 exists:%{d}.%{o}.%{t1}x.org -all"[: -0 or None].replace("%{t1}", "")),
        "a.org.example.org.x.org": {"A": (HOST,)},
    }
    assert judge(names, given("v=spf1 include:a.org")).result is Result.PASS
    found = judge({"example.org": txt("v=spf1 -all exp=why.org"), "why.org": txt("%{t} %{r}")})
    assert found.explanation == "1234 rx.net"


def test_nothing_is_asked_after_the_match() -> None:
    _, asked = judged({"example.org": txt("v=spf1 ip4:192.0.2.1 a:x.org include:y.org redirect=z.org")})
    assert asked == [("TXT", "example.org")]


def test_answers_know_when_they_are_void() -> None:
    found = judge({"example.org": txt("v=spf1 a:no.org ?all")})
    answers: list[Answer[object]] = [lookup.answer for step in found.trace for lookup in step.lookups]
    assert [answer.is_void for answer in answers] == [False, True]
