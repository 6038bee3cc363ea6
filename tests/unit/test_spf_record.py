"""Records become terms with their places, faults say where and what was meant, and nothing ever raises."""

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.spf.record import Fault, Mechanism, Modifier, Record, end_of_version, is_record, parse, text_of


def only(text: str) -> Mechanism | Modifier:
    """Return the one term of a sound record."""
    record = parse(f"v=spf1 {text}")
    assert not record.faults
    (term,) = record.terms
    return term


def fault(text: str) -> Fault:
    """Return the one fault of a record with one term."""
    record = parse(f"v=spf1 {text}")
    assert not record.terms
    (found,) = record.faults
    return found


@pytest.mark.parametrize("text", ["v=spf1", "v=spf1 ", "V=sPf1 -all"])
def test_a_record_begins_with_its_version_and_a_blank_or_the_end(text: str) -> None:
    assert is_record(text)
    assert not parse(text).faults


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, f"`{text[:7].rstrip()}` is not `v=spf1`")
            for text in ("", "v=spf10", " v=spf1", "v=spf2 -all", "spf1")
        ),
        *((text, "no blank follows `v=spf1`") for text in ("v=spf1a", "v=spf1\t-all", "v=spf1,", "V=SPF1-all")),
    ],
)
def test_what_begins_otherwise_is_none_and_says_so(text: str, message: str) -> None:
    assert not is_record(text)
    first = parse(text).faults[0]
    assert (first.start, first.hint) == (0, "v=spf1")
    assert first.message == message


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("v=spf1ip4:192.0.2.1 -all", 6),
        ("v=spf1include:example.org", 6),
        ("v=spf1mx -all", 6),
        ("v=spf1-all", 6),
        ("v=spf1redirect=example.org", 6),
        (" v=spf1 mx", 7),
        ('"v=spf1" "mx"', 8),
        ("v = spf mx", 7),
        ("v=spfish a", 0),
        ("v=spf1amx", 0),
        ("spf2.0/pra a", 0),
        ("", 0),
    ],
)
def test_what_was_meant_as_the_version_ends_where_the_first_term_begins(text: str, end: int) -> None:
    assert end_of_version(text) == end


def test_what_follows_the_version_at_once_is_read_on() -> None:
    record = parse("v=spf1ip4:192.0.2.1 -all")
    assert [text_of(record, term) for term in record.terms] == ["ip4:192.0.2.1", "-all"]
    assert len(record.faults) == 1


@pytest.mark.parametrize("text", ["- all", "~  all", "-  mx", "? ip4:192.0.2.1"])
def test_a_qualifier_with_a_blank_behind_it_is_one_fault(text: str) -> None:
    found = fault(text)
    assert found.message == f"a blank follows `{text[0]}`"
    assert found.hint == text.replace(" ", "")


def test_terms_have_their_places_in_the_text() -> None:
    text = "v=spf1  ip4:192.0.2.1   ?mx exp=why.org -all "
    record = parse(text)
    assert [text[term.start : term.end] for term in record.terms] == ["ip4:192.0.2.1", "?mx", "exp=why.org", "-all"]
    assert record.text == text


def test_networks_keep_the_address_as_it_was_written() -> None:
    four, six = only("ip4:192.0.2.9/24"), only("-ip6:fe80::5054:8dff:fe9b:358d/64")
    assert isinstance(four, Mechanism) and isinstance(six, Mechanism)
    assert (four.qualifier, four.address, four.network) == ("+", "192.0.2.9", IPv4Network("192.0.2.0/24"))
    assert (six.qualifier, six.address) == ("-", "fe80::5054:8dff:fe9b:358d")
    assert six.network == IPv6Network("fe80::/64")


@pytest.mark.parametrize(
    ("text", "domain", "cidr4", "cidr6"),
    [
        ("a", "", 32, 128),
        ("MX/24", "", 24, 128),
        ("a//64", "", 32, 64),
        ("mx:%{d}/0//0", "%{d}", 0, 0),
        ("a:x/24.example.org/8", "x/24.example.org", 8, 128),
        ("a:foo:bar/baz.example.org.", "foo:bar/baz.example.org.", 32, 128),
    ],
)
def test_hosts_have_a_domain_and_a_length_for_each_family(text: str, domain: str, cidr4: int, cidr6: int) -> None:
    term = only(text)
    assert isinstance(term, Mechanism)
    assert (term.domain, term.cidr4, term.cidr6) == (domain, cidr4, cidr6)
    assert term.name in ("a", "mx")


def test_names_are_lower_case_and_values_as_they_were() -> None:
    assert only("Include:Example.ORG") == Mechanism(7, 26, "+", "include", "Example.ORG")
    assert only("REDIRECT=Example.org") == Modifier(7, 27, "redirect", "Example.org")
    assert only("x-1._y=%{L}/:=") == Modifier(7, 21, "x-1._y", "%{L}/:=")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("all:x", "nothing may follow `all`"),
        ("include", "`include` needs `:` and a domain"),
        ("include:", "nothing follows `include:`"),
        ("exists/24", "`exists` needs `:` and a domain"),
        ("ptr:", "nothing follows `ptr:`"),
        ("a:", "nothing follows `a:`"),
        ("a:museum", "is no domain name"),
        ("a:example.org:25", "is no domain name"),
        ("mx:example.-org", "is no domain name"),
        ("a:192.0.2.1", "is no domain name"),
        ("a/33", "`/33` is no prefix length from 0 to 32"),
        ("a//129", "`/129` is no prefix length from 0 to 128"),
        ("mx/024", "`/024` is no prefix length"),
        ("ip4:192.0.2.1/", "`/` is no prefix length"),
        ("ip4:192.0.2.01", "is no IPv4 address"),
        ("ip6:fe80::1%eth0", "is no IPv6 address"),
        ("ip4", "`ip4` needs `:` and an address"),
        ("exists:%{x}.org", "`%{x}.org` is no macro"),
        ("exists:%{d0}.org", "its number must not be 0"),
        ("exists:%{c}.org", "allowed in the text of an explanation alone"),
        ("x=%{t}", "allowed in the text of an explanation alone"),
        ("x=a%", "`%` is no macro"),
        ("redirect=", "nothing follows `redirect=`"),
        ("-redirect=a.org", "there is no mechanism `redirect=a.org`"),
        ("=a", "`=a` is no mechanism"),
        ("1a=b", "`1a=b` is no mechanism"),
        ("a:ü.org", "the character 'ü' is not allowed here"),
        ("a\tmx", "there is no mechanism"),
    ],
)
def test_faults_say_what_is_wrong_and_where(text: str, message: str) -> None:
    found = fault(text)
    assert message in found.message
    assert (found.start, found.end) == (7, 7 + len(text))


@pytest.mark.parametrize("name", ["redirect", "exp"])
def test_what_may_stand_there_once_is_a_fault_the_second_time_and_others_are_not(name: str) -> None:
    record = parse(f"v=spf1 {name}=a.org {name}=b.org x=1 x=1")
    assert [found.message for found in record.faults] == [f"`{name}=` stands there twice"]
    assert len(record.terms) == 3


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ipv4:192.0.2.1", "ip4:192.0.2.1"),
        ("-ipv6:fe80::1/64", "-ip6:fe80::1/64"),
        ("ip:192.0.2.1", "ip4:192.0.2.1"),
        ("ip:2001:db8::1", "ip6:2001:db8::1"),
        ("ip4:2001:db8::1", "ip6:2001:db8::1"),
        ("ip6:192.0.2.1/24", "ip4:192.0.2.1/24"),
        ("ip4:mail.example.org", "a:mail.example.org"),
        ("ip4:10.1/16", "ip4:10.1.0.0/16"),
        ("192.0.2.1", "ip4:192.0.2.1"),
        ("ip4:203.0.113.10-all", "ip4:203.0.113.10 -all"),
        ("ip4:203.0.113.10ip4:203.0.113.11", "ip4:203.0.113.10 ip4:203.0.113.11"),
        ("ipv4:203.0.113.10ipv4:203.0.113.11~all", ""),
        ("include:_spf.example.org~all", "include:_spf.example.org ~all"),
        ("mx-all", "mx -all"),
        ("“-all”", "-all"),
        ("\udce2\udc80\udc9c-all\udce2\udc80\udc9d", "-all"),
        ("–all", "-all"),
        ('-all"', "-all"),
        ("-all;", "-all"),
        ("-all.", "-all"),
        ("ip4:192.0.2.1,", "ip4:192.0.2.1"),
        ("ip4:192.0.2.1,ip4:192.0.2.2", "ip4:192.0.2.1 ip4:192.0.2.2"),
        ("inlcude:example.org", "include:example.org"),
        ("includes:example.org", "include:example.org"),
        ("exist:%{i}.example.org", "exists:%{i}.example.org"),
        ("-al", "-all"),
        ("prt:example.org", "ptr:example.org"),
        ("redirect:example.org", "redirect=example.org"),
        ("-redirect:example.org", "redirect=example.org"),
        ("rediret:example.org", "redirect=example.org"),
        ("ip4:192.0.2.1;88.198.1.2", "ip4:192.0.2.1 ip4:88.198.1.2"),
        ("-ip4:192.0.2.1,2001:db8::1", "-ip4:192.0.2.1 -ip6:2001:db8::1"),
        ("ip4:192.0.2.*", "ip4:192.0.2.0/24"),
        ("-ip4:192.0.*.*", "-ip4:192.0.0.0/16"),
        ("ip4:192.*.*.*", ""),
        ("ip4:192.0.2.*.*", ""),
        ("ip4:192.0.2.10-192.0.2.13", "ip4:192.0.2.10/31 ip4:192.0.2.12/31"),
        ("192.0.2.10–13", "ip4:192.0.2.10/31 ip4:192.0.2.12/31"),
        ("ip6:2001:db8::1-2001:db8::2", "ip6:2001:db8::1 ip6:2001:db8::2"),
        (
            "ip4:192.0.2.1-192.0.2.30",
            "ip4:192.0.2.1 ip4:192.0.2.2/31 ip4:192.0.2.4/30 ip4:192.0.2.8/29 "
            "ip4:192.0.2.16/29 ip4:192.0.2.24/30 ip4:192.0.2.28/31 ip4:192.0.2.30",
        ),
        ("ip4:192.0.2.1-192.0.2.62", ""),
        ("ip4:192.0.2.13-192.0.2.10", ""),
        ("ip4:192.0.2.13-2001:db8::1", ""),
        ("include:https://_spf.example.org/", "include:_spf.example.org"),
        ("include:_spf.example.org/x", "include:_spf.example.org"),
        ("redirect=https://_spf.example.org/", "redirect=_spf.example.org"),
        ("xyzzy:example.org", ""),
        ("a/33", ""),
        ("“" * 400 + "-all", ""),
    ],
)
def test_faults_say_what_was_perhaps_meant(text: str, hint: str) -> None:
    found = fault(text)
    assert found.hint == hint
    assert not hint or not parse(f"v=spf1 {hint}").faults


def test_hints_are_few_and_can_be_left_out() -> None:
    many = parse("v=spf1" + " ipv4:192.0.2.1" * 1000)
    assert len(many.faults) == 1000
    assert 0 < sum(bool(found.hint) for found in many.faults) < 20
    assert not any(found.hint for found in parse("v=spf1 ipv4:192.0.2.1", hints=False).faults)


@given(st.text(max_size=80), st.booleans())
def test_any_text_is_parsed_and_every_place_is_in_it(text: str, begun: bool) -> None:
    whole = f"v=spf1 {text}" if begun else text
    record = parse(whole)
    assert isinstance(record, Record)
    for item in (*record.terms, *record.faults):
        assert 0 <= item.start <= item.end <= len(whole)
        assert isinstance(item, Fault) or " " not in whole[item.start : item.end]
    for found in record.faults[1 - begun :]:
        assert not found.hint or not parse(f"v=spf1 {found.hint}").faults
