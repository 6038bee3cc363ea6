"""The repair of a record: the full replacement, and that mending it again changes nothing."""

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.spf.evaluate import Query, check_host
from agent.spf.lint import lint
from agent.spf.mend import Known, Mended, Question, Senders, mend, questions
from agent.spf.record import Result, parse
from tests.spf.zone import Memory, Zone

V4, V6 = ip_address("88.198.1.2"), ip_address("2a01:4f8:1:2:5054:8dff:fe9b:358d")
OTHER = ip_address("2a01:4f8:1:2::25")
BLOG = "v=spf1 ip4:203.0.113.10 ip6:fe80::5054:8dff:fe9b:358d/64 -all"


def senders(*sends: IPv4Address | IPv6Address, **others: object) -> Senders:
    return Senders(sends, **others)  # type: ignore[arg-type]


def text_of(text: str, *sends: IPv4Address | IPv6Address, **others: object) -> str:
    return mend((text,), senders(*sends, **others)).text


# What the user's own record becomes


def test_the_link_local_literal_becomes_the_address_of_its_interface() -> None:
    mended = mend((BLOG,), senders(ip_address("203.0.113.10"), V6))
    assert mended.text == f"v=spf1 ip4:203.0.113.10 ip6:{V6} -all"
    (change,) = mended.changes
    assert "`ip6:fe80::5054:8dff:fe9b:358d/64` becomes" in change
    assert "interface id" in change


def test_the_address_of_the_interface_may_be_one_that_mail_does_not_leave_from_now() -> None:
    assert text_of(BLOG, ip_address("203.0.113.10"), held=(V6,)) == f"v=spf1 ip4:203.0.113.10 ip6:{V6} -all"
    mended = text_of(BLOG, ip_address("203.0.113.10"), OTHER, held=(OTHER, V6))
    assert mended == f"v=spf1 ip4:203.0.113.10 ip6:{V6} ip6:{OTHER} -all"


def test_a_link_local_literal_of_nobody_here_is_taken_out() -> None:
    assert text_of("v=spf1 ip4:88.198.1.2 ip6:fe80::1234 ~all", V4, held=(V6,)) == "v=spf1 ip4:88.198.1.2 ~all"


def test_a_name_that_leads_to_a_proxy_gives_way_to_the_addresses() -> None:
    known = (Known("a", networks=(ip_network("104.16.1.2"),), elsewhere=True),)
    assert text_of("v=spf1 a -all", V4, V6, known=known) == f"v=spf1 ip4:{V4} ip6:{V6} -all"


# What is kept and what is not


def test_without_a_record_one_is_proposed() -> None:
    assert mend((), senders(V6, V4)).text == f"v=spf1 ip4:{V4} ip6:{V6} -all"
    assert mend((), senders()) == Mended("")
    assert mend((), senders(ip_address("10.0.0.1"))) == Mended("")


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1 a mx include:_spf.example.net ip4:88.198.1.2 ?all",
        "V=SPF1  A  ip4:88.198.0.0/16  -ALL",
        "v=spf1 redirect=_spf.example.net ip4:88.198.1.2",
        "v=spf1 exists:%{i}.example.net ip4:88.198.1.2 ptr -all exp=why.example.net ra=postmaster",
        "v=spf1 -ip4:88.198.1.3 ip4:88.198.1.0/24 -all",
    ],
)
def test_a_record_without_fault_stays_as_it_is_to_the_letter(text: str) -> None:
    assert mend((text,), senders(V4)) == Mended(text)


def test_what_is_missing_comes_before_what_denies() -> None:
    assert text_of("v=spf1 a ~all exp=e.example.org", V4) == f"v=spf1 a ip4:{V4} ~all exp=e.example.org"
    assert text_of("v=spf1 a -ip4:88.198.0.0/16 mx -all", V4) == f"v=spf1 a ip4:{V4} -ip4:88.198.0.0/16 mx -all"
    assert text_of("v=spf1 a ?include:x.example.net -all", V4) == f"v=spf1 a ip4:{V4} ?include:x.example.net -all"
    assert text_of("v=spf1 redirect=x.example.net", V4) == f"v=spf1 ip4:{V4} redirect=x.example.net"


def test_what_a_term_before_it_denies_comes_before_that_term() -> None:
    text = f"v=spf1 ?include:x.example.net ip4:{V4} -all"
    assert text_of(text, V4) == f"v=spf1 ip4:{V4} ?include:x.example.net -all"
    assert text_of(text, V4, passing=((V4, f"ip4:{V4}"),)) == text


def test_what_a_kept_term_lets_pass_is_not_added() -> None:
    text = "v=spf1 a include:x.example.net -all"
    assert text_of(text, V4, V6, passing=((V4, "a"), (V6, "+include:x.example.net"))) == text
    assert text_of("v=spf1 redirect=x.example.net", V4, passing=((V4, "redirect=x.example.net"),)).count("ip4") == 0
    assert text_of("v=spf1 a +all", V4, passing=((V4, "+all"),)) == f"v=spf1 a ip4:{V4} ~all"


@pytest.mark.parametrize(
    "term", ["ip4:10.1.2.3", "ip6:fd00::1", "ip4:127.0.0.1", "ip4:100.64.0.9", "ip6:::ffff:88.198.1.2", "ip4:224.0.0.1"]
)
def test_what_can_never_match_is_taken_out(term: str) -> None:
    assert text_of(f"v=spf1 {term} mx -all", V4) == f"v=spf1 mx ip4:{V4} -all"


def test_a_private_address_of_this_host_is_not_kept_for_being_its_own() -> None:
    inside = ip_address("10.1.2.3")
    assert text_of("v=spf1 ip4:10.1.2.3 -all", V4, inside, held=(inside,)) == f"v=spf1 ip4:{V4} -all"


def test_an_old_address_of_this_host_is_taken_out_and_others_are_kept() -> None:
    text = "v=spf1 ip4:88.198.9.9 ip4:78.46.1.1 -all"
    gone = (ip_network("88.198.9.9"),)
    assert text_of(text, V4, gone=gone) == f"v=spf1 ip4:78.46.1.1 ip4:{V4} -all"


def test_a_new_prefix_of_the_same_interface_takes_the_place_of_the_old_one() -> None:
    old = "ip6:2a01:4f8:9:9:5054:8dff:fe9b:358d"
    gone = (ip_network(old[4:]),)
    assert text_of(f"v=spf1 ~{old} mx -all", held=(V6,), gone=gone) == f"v=spf1 ~ip6:{V6} mx -all"
    assert text_of(f"v=spf1 ~{old} mx -all", V6, gone=gone) == f"v=spf1 ip6:{V6} mx -all"
    assert text_of(f"v=spf1 {old} mx -all", V6, gone=gone) == f"v=spf1 ip6:{V6} mx -all"


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("v=spf1 ip4:88.198.1.2 +all", "v=spf1 ip4:88.198.1.2 ~all"),
        ("v=spf1 ip4:88.198.1.2 all", "v=spf1 ip4:88.198.1.2 ~all"),
        ("v=spf1 ip4:88.198.1.2", "v=spf1 ip4:88.198.1.2 ~all"),
        ("v=spf1 ip4:0.0.0.0/0 -all", "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf1 ip4:88.198.1.2 -all mx exp=e.example.org", "v=spf1 ip4:88.198.1.2 -all exp=e.example.org"),
        ("v=spf1 redirect=x.example.org ip4:88.198.1.2 -all", "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf1 mx ip4:88.198.1.2 mx -all", "v=spf1 mx ip4:88.198.1.2 -all"),
        ("v=spf1 ipv4:88.198.1.2 –all", "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf1 ip4:88.198.1.2-all", "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf ip4:88.198.1.2 -all", "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf1 ip4=88.198.1.2 -all", "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf1 ip4:88.198.1.2 %%% -all", "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf1 ip4:88.198.1.2;78.46.1.1 -all", "v=spf1 ip4:88.198.1.2 ip4:78.46.1.1 -all"),
        ("v=spf1 ip4:88.198.1.* -all", "v=spf1 ip4:88.198.1.0/24 -all"),
        ("v=spf1 ip4:88.198.1.2-3 -all", "v=spf1 ip4:88.198.1.2/31 -all"),
        ("v=spf1 ip4:88.198.1.2 include:https://x.org/y -all", "v=spf1 ip4:88.198.1.2 include:x.org -all"),
        ("v=spf1 ip4:88.198.1.2 include:https://x.org -all", "v=spf1 ip4:88.198.1.2 include:x.org -all"),
        ("v=spf1 ip4:88.198.1.2 include=https://x.org -all", "v=spf1 ip4:88.198.1.2 include:x.org -all"),
        ("v=spf1 ip4=88.198.1.2,78.46.1.1 -all", "v=spf1 ip4:88.198.1.2 ip4:78.46.1.1 -all"),
        (" v=spf1 ip4:88.198.1.2 -all", "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf1 v=spf1 ip4:88.198.1.2 -all", "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf1ip4:88.198.1.2 -all", "v=spf1 ip4:88.198.1.2 -all"),
        ('"v=spf1" "ip4:88.198.1.2" "-all"', "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf1 ip4:88.198.1.2 - all", "v=spf1 ip4:88.198.1.2 -all"),
        ("v=spf1 ip4:88.198.1.2 ~ all", "v=spf1 ip4:88.198.1.2 ~all"),
        ("v=spf1 ip4:2a01::1 ip4:88.198.1.2 -all", "v=spf1 ip6:2a01::1 ip4:88.198.1.2 -all"),
    ],
)
def test_a_faulty_record_is_put_right(text: str, mended: str) -> None:
    result = mend((text,), senders(V4))
    assert result.text == mended
    assert result.changes
    assert not parse(result.text).faults


def test_an_include_that_leads_to_nothing_is_taken_out() -> None:
    known = (Known("include:gone.example.net", dead=True),)
    assert text_of("v=spf1 Include:gone.example.net mx -all", known=known) == "v=spf1 mx -all"
    known = (Known("redirect=gone.example.net", dead=True),)
    assert text_of("v=spf1 mx redirect=gone.example.net", known=known) == "v=spf1 mx ~all"


def test_a_record_that_would_let_nobody_pass_is_not_proposed() -> None:
    assert mend(("v=spf1 ip4:192.168.1.10 -all",), senders()).text == "v=spf1 ip4:192.168.1.10 -all"
    assert mend(("v=spf1 -all",), senders()) == Mended("v=spf1 -all")


def test_what_was_done_is_told_in_a_sentence_each() -> None:
    mended = mend(("v=spf1 ip4=88.198.1.2 ip4:10.0.0.1 nonsense “all” mx",), senders(V4, V6))
    assert mended.changes == (
        "`“all”` becomes `all`",
        "`nonsense` is left out, for it is not valid: add by hand what it was meant to name",
        "`ip4=88.198.1.2` becomes `ip4:88.198.1.2`",
        "`all` becomes `~all`: it let everybody pass",
        "`mx` is left out: `all` makes it void",
        "`ip4:10.0.0.1` is left out: it can never match at a receiver",
        f"`ip6:{V6}` is added: this host sends from it",
    )


@pytest.mark.parametrize(
    ("term", "lost"),
    [
        ("ip4:88.198.1.1-88.199.7.9", ("ip4:88.198.1.1-88.199.7.9",)),
        ("nonsense", ("nonsense",)),
        ("ip4:78.46.1.1 - 78.46.1.9", ("-",)),
        ("ip4:0.0.0.0/0", ("ip4:0.0.0.0/0",)),
        ("include:gone.example.net", ("include:gone.example.net",)),
        ("ip4: 78.46.1.1", ()),
        ("%", ()),
        ("ip4:10.0.0.1", ()),
        ("ip4:88.198.1.2;78.46.1.1", ()),
    ],
)
def test_what_is_lost_with_a_term_is_told(term: str, lost: tuple[str, ...]) -> None:
    known = senders(V4, known=(Known("include:gone.example.net", dead=True),))
    assert mend((f"v=spf1 {term} -all",), known).lost == lost


def test_a_blank_that_is_missing_is_told() -> None:
    assert mend(("v=spf1ip4:88.198.1.2 -all",), senders(V4)).changes == ("a blank is put behind `v=spf1`",)


# Two records


def test_two_records_are_made_one_with_the_milder_end() -> None:
    texts = ("v=spf1 a ip4:88.198.1.2 -all", "v=spf1 include:x.example.net a ~all exp=e.example.org")
    mended = mend(texts, senders(V4)).text
    assert mended == "v=spf1 a ip4:88.198.1.2 include:x.example.net exp=e.example.org ~all"


def test_a_redirect_of_one_of_two_records_becomes_an_include() -> None:
    mended = mend(("v=spf1 ip4:88.198.1.2 -all", "v=spf1 redirect=x.example.net"), senders(V4)).text
    assert mended == "v=spf1 ip4:88.198.1.2 include:x.example.net -all"
    mended = mend(("v=spf1 redirect=y.example.net -all", "v=spf1 redirect=x.example.net"), senders()).text
    assert mended == "v=spf1 include:x.example.net -all"


def test_two_that_let_everybody_pass_do_not_make_one_that_does() -> None:
    assert mend(("v=spf1 a +all", "v=spf1 mx +all"), senders()).text == "v=spf1 a mx ~all"


# Limits


def test_over_ten_lookups_names_give_way_to_their_addresses() -> None:
    known = (
        Known("include:big.example.net", lookups=8),
        Known("a", networks=(ip_network("88.198.1.2"), ip_network("2a01:4f8::2"))),
        Known("mx", lookups=1, networks=tuple(ip_network(f"88.198.7.{n}") for n in range(5))),
        Known("~a:x.example.net", networks=(ip_network("88.198.8.8"),)),
        Known("a:x.example.net", networks=(ip_network("88.198.8.8"),)),
    )
    text = "v=spf1 a mx include:big.example.net ~a:x.example.net -all"
    mended = mend((text,), senders(known=known))
    assert mended.text == "v=spf1 ip4:88.198.1.2 ip6:2a01:4f8::2 mx include:big.example.net ~a:x.example.net -all"
    assert "over 10 look-ups" in mended.changes[0]
    cheap = (Known("include:big.example.net", lookups=7), *known[1:])
    assert mend((text,), senders(known=cheap)).text == text


def test_a_record_that_is_too_long_is_written_as_networks() -> None:
    addresses = " ".join(f"ip4:88.198.100.{n}" for n in range(32))
    mended = mend((f"v=spf1 a {addresses} mx -all",), senders())
    assert mended.text == "v=spf1 a ip4:88.198.100.0/27 mx -all"
    assert "too long" in mended.changes[0]


@pytest.mark.parametrize(("addresses", "written_out"), [(4, True), (5, False)])
def test_a_name_of_many_addresses_stays_a_name(addresses: int, written_out: bool) -> None:
    networks = tuple(ip_network(f"88.198.7.{n}") for n in range(addresses))
    known = (Known("include:big.example.net", lookups=10), Known("mx", networks=networks))
    text = "v=spf1 mx include:big.example.net -all"
    assert (mend((text,), senders(known=known)).text != text) is written_out


def test_a_long_record_that_cannot_be_shortened_stays_as_it_is() -> None:
    text = " ".join(("v=spf1", *(f"ip4:88.198.100.{2 * n}" for n in range(30)), "-all"))
    assert len(text) > 450
    assert mend((text,), senders()) == Mended(text)


def test_a_name_is_not_written_out_where_the_record_would_become_too_long() -> None:
    filled = " ".join(f"ip4:88.198.100.{2 * n + 100}" for n in range(21))
    known = (Known("include:big.example.net", lookups=10), Known("a", networks=(ip_network("2a01:4f8:1:2:3:4:5:6"),)))
    text = f"v=spf1 a {filled} include:big.example.net -all"
    assert 420 < len(text) < 450
    assert mend((text,), senders(known=known)).text == text


# What has to be asked before it is shown


def test_the_questions_name_what_must_pass_and_what_must_not() -> None:
    gone = ip_network("88.198.9.9")
    asked = questions(f"v=spf1 ip4:{V4} a -all", senders(V4, V6, gone=(gone,), passing=((OTHER, "a"),)))
    assert [str(item.address) for item in asked if item.passes] == [str(V4), str(V6), str(OTHER)]
    dropped = senders(V4, passing=((OTHER, "+all"),))
    assert [item.address for item in questions(f"v=spf1 ip4:{V4} ~all", dropped) if item.passes] == [V4]
    kept = senders(V4, passing=((OTHER, "redirect=x.org"),))
    asked_of = questions(f"v=spf1 ip4:{V4} Redirect=x.org", kept)
    assert [item.address for item in asked_of if item.passes] == [V4, OTHER]
    denied = {str(item.address): item.why for item in asked if not item.passes}
    assert denied["88.198.9.9"] == "it is no longer an address of this host"
    assert len([why for why in denied.values() if why == "nobody sends from it"]) == 4


def test_nobody_is_asked_for_who_is_authorised_by_name() -> None:
    asked = questions("v=spf1 ip4:192.0.2.0/24 ip4:88.198.9.0/24 -all", senders(gone=(ip_network("88.198.9.9"),)))
    assert not {ip_address("192.0.2.1"), ip_address("88.198.9.9")} & {item.address for item in asked}


def answers(text: str, asked: tuple[Question, ...], zone: Zone) -> list[bool]:
    def passes(item: Question) -> bool:
        query = Query(item.address, "x@example.org", "example.org", record=text)
        return asyncio.run(check_host(query, Memory(zone))).result is Result.PASS

    return [passes(item) is item.passes for item in asked]


def test_the_mended_record_of_the_blog_gives_the_answers_that_it_must() -> None:
    known = senders(ip_address("203.0.113.10"), V6)
    zone = Zone.load({})
    assert all(answers(mend((BLOG,), known).text, questions(BLOG, known), zone))
    assert not all(answers(BLOG, questions(BLOG, known), zone))
    assert {remark.code for remark in lint(parse(mend((BLOG,), known).text))} == {"documentation"}


# Whatever the record

ADDRESSES = st.sampled_from([V4, V6, OTHER, *map(ip_address, ("88.198.9.9", "10.0.0.1", "fe80::1", "203.0.113.10"))])
NETWORKS = st.one_of(
    ADDRESSES.map(ip_network),
    st.builds(
        lambda host, length: ip_network((f"88.198.9.{host}", length), strict=False),
        st.integers(0, 9),
        st.integers(0, 32),
    ),
)
NAMED = ["a", "mx", "include:x.example.net", "a:y.example.net", "redirect=x.example.net", "ptr", "exists:%{i}.x.org"]
TERMS = st.one_of(
    st.sampled_from(
        [*NAMED, "-all", "~all", "?all", "all", "exp=e.example.org", "r=x", "ip4=88.198.1.2", "ip6:fe80::1"]
    ),
    st.builds(lambda sign, network: f"{sign}ip{network.version}:{network}", st.sampled_from("+-~?"), NETWORKS),
    st.sampled_from(
        ["ipv4:88.198.1.7", "ip4:2a01::1", "“-all”", "-all,", "ip4:88.198.1.2-all", "nonsense", "ip4:", "%"]
    ),
    st.text(st.characters(max_codepoint=0x2100), max_size=8),
)
TEXTS = st.lists(TERMS, max_size=9).map(lambda terms: " ".join(("v=spf1", *terms)))
KNOWN = st.builds(
    Known,
    term=st.sampled_from(NAMED),
    lookups=st.integers(1, 12),
    networks=st.one_of(st.none(), st.lists(NETWORKS, max_size=5).map(tuple)),
    dead=st.booleans(),
    elsewhere=st.booleans(),
)
SENDERS = st.builds(
    Senders,
    sends=st.lists(ADDRESSES, max_size=3).map(tuple),
    held=st.lists(ADDRESSES, max_size=3).map(tuple),
    gone=st.lists(NETWORKS, max_size=2).map(tuple),
    passing=st.lists(st.tuples(ADDRESSES, st.sampled_from(NAMED)), max_size=2).map(tuple),
    known=st.lists(KNOWN, max_size=4).map(tuple),
)


@given(st.lists(TEXTS, max_size=3), SENDERS)
@settings(max_examples=200)
def test_mending_what_was_mended_changes_nothing(texts: list[str], known: Senders) -> None:
    mended = mend(texts, known).text
    if mended:
        assert mend((mended,), known) == Mended(mended)


@given(TEXTS, SENDERS)
@settings(max_examples=200)
def test_a_mended_record_is_sound_and_lets_pass_what_sends(text: str, known: Senders) -> None:
    literal = Senders(known.sends, known.held, known.gone)
    mended = mend((text,), literal).text
    assert not parse(mended).faults
    for address in literal.sends:
        if not address.is_link_local and address != ip_address("10.0.0.1"):
            query = Query(address, "x@example.org", "example.org", record=mended)
            zone = Zone.load({"x.example.net": [{"TXT": "v=spf1 ?all"}]})
            found = asyncio.run(check_host(query, Memory(zone)))
            assert found.result is Result.PASS or found.result is Result.PERMERROR and found.voids > 2
