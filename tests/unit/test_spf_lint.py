"""The linter: each record of the research's matrix, which a rival calls good, gets the remark that it needs."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.spf.lint import Remark, lint, lint_published
from agent.spf.ranges import kind_of
from agent.spf.record import parse

EXAMPLE = "documentation"
"""The matrix is written with addresses for documentation, which is itself a remark."""

MATRIX = [
    (
        "v=spf1 ip4:203.0.113.10 ip6:fe80::5054:8dff:fe9b:358d/64 -all",
        {EXAMPLE, "link-local"},
        ("link-local", "warning", "ip6:fe80::5054:8dff:fe9b:358d/64", "never appears as a source", "take it out"),
    ),
    (
        "v=spf1 ip4:192.168.1.10 -all",
        {"private"},
        ("private", "warning", "ip4:192.168.1.10", "RFC 1918", "take it out"),
    ),
    (
        "v=spf1 ip6:fd00::1 -all",
        {"unique-local"},
        ("unique-local", "warning", "ip6:fd00::1", "fc00::/7", "take it out"),
    ),
    (
        "v=spf1 ip4:127.0.0.1 -all",
        {"loopback"},
        ("loopback", "warning", "ip4:127.0.0.1", "never leaves its host", "take it out"),
    ),
    (
        "v=spf1 ip4:203.0.113.10/24 -all",
        {EXAMPLE, "host-bits"},
        ("host-bits", "warning", "ip4:203.0.113.10/24", "all 256 addresses", "write `ip4:203.0.113.10` for the one"),
    ),
    (
        "v=spf1 ip4:0.0.0.0/0 -all",
        {"too-wide"},
        ("too-wide", "critical", "ip4:0.0.0.0/0", "large part of the Internet", "name the addresses"),
    ),
    (
        "v=spf1 ip4:203.0.113.10 +all",
        {EXAMPLE, "all-pass"},
        ("all-pass", "critical", "+all", "everybody", "`-all` or `~all`"),
    ),
    ("v=spf1 ip4:203.0.113.10", {EXAMPLE, "no-all"}, ("no-all", "warning", "", "neutral", "`-all` or `~all`")),
    (
        "v=spf1 -all ip4:203.0.113.10",
        {EXAMPLE, "after-all"},
        ("after-all", "warning", "ip4:203.0.113.10", "after `all`", "before `all`"),
    ),
    (
        "v=spf1 redirect=example.org -all",
        {"redirect-ignored"},
        ("redirect-ignored", "warning", "redirect=example.org", "ignored", "do not mean"),
    ),
    (
        "v=spf1 ip4:2001:db8::1 -all",
        {"syntax"},
        ("syntax", "critical", "ip4:2001:db8::1", "no IPv4 address", "did you mean `ip6:2001:db8::1`?"),
    ),
    (
        "v=spf1 ip4:203.0.113.10 ip4:203.0.113.10 -all",
        {EXAMPLE, "duplicate"},
        ("duplicate", "info", "ip4:203.0.113.10", "more than once", "all but the first"),
    ),
    (
        "v=spf1 ip4:100.64.0.9 -all",
        {"shared"},
        ("shared", "warning", "ip4:100.64.0.9", "carrier-grade NAT", "take it out"),
    ),
    ("v=spf1 ip6:2001:db8::1 -all", {EXAMPLE}, (EXAMPLE, "warning", "ip6:2001:db8::1", "examples", "take it out")),
    (
        "v=spf1 ip6:::ffff:203.0.113.10 -all",
        {"v4-mapped"},
        ("v4-mapped", "warning", "ip6:::ffff:203.0.113.10", "never matches", "write `ip4:203.0.113.10`"),
    ),
    (
        "v=spf1 ip4:203.0.113.10-all",
        {"syntax"},
        ("syntax", "critical", "ip4:203.0.113.10-all", "broken", "did you mean `ip4:203.0.113.10 -all`?"),
    ),
    (
        "v=spf1 ip4:203.0.113.10 ra=postmaster -all",
        {EXAMPLE, "unknown-modifier"},
        ("unknown-modifier", "info", "ra=postmaster", "ignore", "slip"),
    ),
    ("V=SPF1 ip4:203.0.113.10 -all", {EXAMPLE}, (EXAMPLE, "warning", "ip4:203.0.113.10", "examples", "take it out")),
    (
        "v=spf ip4:203.0.113.10 -all",
        {EXAMPLE, "version"},
        ("version", "critical", "v=spf", "do not take it for SPF", "did you mean `v=spf1`?"),
    ),
    (
        "v=spf1 ip4:203.0.113.10 “-all”",
        {EXAMPLE, "syntax"},
        ("syntax", "critical", "“-all”", "broken", "did you mean `-all`?"),
    ),
]


def codes(text: str, *strings: str) -> set[str]:
    return {remark.code for remark in lint(parse(text), strings)}


def remark_of(text: str, code: str, *strings: str) -> Remark:
    (found,) = [remark for remark in lint(parse(text), strings) if remark.code == code]
    return found


@pytest.mark.parametrize(("text", "expected", "remark"), MATRIX, ids=[row[0] for row in MATRIX])
def test_a_record_of_the_matrix_gets_its_remark(
    text: str, expected: set[str], remark: tuple[str, str, str, str, str]
) -> None:
    code, severity, place, message, advice = remark
    assert codes(text) == expected
    found = [item for item in lint(parse(text)) if item.code == code][-1]
    assert found.severity == severity
    assert text[found.start : found.end] == place
    assert message in found.message
    assert advice in found.advice


def test_the_matrix_is_whole() -> None:
    assert len(MATRIX) == 20


def test_a_record_without_fault_gets_no_remark() -> None:
    assert lint(parse("v=spf1 a mx ip4:88.198.1.2 ip6:2a01:4f8::/32 include:_spf.example.net ~all")) == ()
    assert lint(parse("v=spf1 redirect=_spf.example.net")) == ()
    assert lint(parse("V=SPF1 A MX IP4:88.198.1.2 -ALL")) == ()


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        ("10.0.0.0/8", "private"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", ""),
        ("169.254.1.1", "link-local"),
        ("fe80::/10", "link-local"),
        ("fec0::1", "reserved"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("0.0.0.0", "reserved"),
        ("::1", "loopback"),
        ("::ffff:1.2.3.4", "v4-mapped"),
        ("64:ff9b::1", "reserved"),
        ("3fff::1", "documentation"),
        ("2a01:4f8::1", ""),
        ("8.8.8.8", ""),
        ("0.0.0.0/0", ""),
        ("::/0", ""),
        ("10.0.0.0/7", ""),
        ("100.128.0.0", ""),
    ],
)
def test_a_range_can_be_a_source_or_has_a_word_for_why_not(network: str, kind: str) -> None:
    assert kind_of(ip_network(network)) == kind


@pytest.mark.parametrize(
    ("term", "advice"),
    [
        ("ip6:::ffff:88.198.0.0/112", "write `ip4:88.198.0.0/16` in its place"),
        ("ip6:::ffff:88.0.0.0/104", "write `ip4:88.0.0.0/8` in its place"),
        ("ip6:::ffff:88.0.0.0/103", "take it out: it can never match at a receiver"),
        ("ip6:::ffff:10.0.0.1", "take it out: it can never match at a receiver"),
    ],
)
def test_a_mapped_network_is_written_as_ipv4_where_that_could_match(term: str, advice: str) -> None:
    assert remark_of(f"v=spf1 {term} -all", "v4-mapped").advice == advice


@pytest.mark.parametrize("term", ["ip4:64.0.0.0/7", "ip6:2000::/3", "a/0", "mx:example.org//15", "ip4:64.0.0.0/1"])
def test_a_prefix_that_is_too_short_is_critical(term: str) -> None:
    assert remark_of(f"v=spf1 {term} -all", "too-wide").severity == "critical"


@pytest.mark.parametrize("term", ["ip4:64.0.0.0/8", "ip6:2a00::/16", "a/8//16", "-ip4:0.0.0.0/0", "?ip4:0.0.0.0/1"])
def test_a_wide_prefix_that_somebody_has_or_that_is_denied_is_not(term: str) -> None:
    assert "too-wide" not in codes(f"v=spf1 {term} -all")


def test_a_neutral_all_is_told() -> None:
    assert remark_of("v=spf1 a ?all", "all-neutral").severity == "info"


def test_what_stands_after_all_is_said_once_for_each_mechanism() -> None:
    found = [remark for remark in lint(parse("v=spf1 -all a mx exp=e.example.org")) if remark.code == "after-all"]
    assert [(remark.start, remark.end) for remark in found] == [(12, 13), (14, 16)]


@pytest.mark.parametrize("text", ["v=spf1 a -all a", "v=spf1 a:example.org a:EXAMPLE.org. -all", "v=spf1 mx mx -all"])
def test_a_repeated_lookup_is_worse_than_a_repeated_address(text: str) -> None:
    assert remark_of(text, "duplicate").severity == "warning"


def test_the_same_name_with_another_prefix_is_no_duplicate() -> None:
    assert codes("v=spf1 a a/24 a:example.org ip4:88.198.1.2 ip4:88.198.1.0/24 -all") == set()


@pytest.mark.parametrize(
    ("text", "meant"), [("ip4=88.198.1.2", "ip4:88.198.1.2"), ("include=example.org", "include:example.org")]
)
def test_a_mechanism_with_an_equals_sign_authorises_nobody(text: str, meant: str) -> None:
    found = remark_of(f"v=spf1 {text} -all", "not-a-mechanism")
    assert (found.severity, found.advice) == ("critical", f"did you mean `{meant}`?")


@pytest.mark.parametrize(
    ("term", "severity", "advice"),
    [
        ("include:https://_spf.example.org", "critical", "did you mean `include:_spf.example.org`?"),
        (
            "include:a.example.org,b.example.org",
            "critical",
            "did you mean `include:a.example.org include:b.example.org`?",
        ),
        ("include:,.example.org", "critical", "put one host name there"),
        ("a:https://mail.example.org", "warning", "did you mean `a:mail.example.org`?"),
        ("redirect=https://_spf.example.org", "critical", "did you mean `redirect=_spf.example.org`?"),
    ],
)
def test_a_domain_that_is_sound_and_no_name_is_told(term: str, severity: str, advice: str) -> None:
    found = remark_of(f"v=spf1 {term}", "no-host-name")
    assert (found.severity, found.advice) == (severity, advice)
    assert "no-host-name" not in codes("v=spf1 a:%{d1r,}.example.org a:mail.example.org/24//64 exp=x.example.org")


@pytest.mark.parametrize("text", ["v=spf1 a - all", "v=spf1 a ~ all"])
def test_an_all_that_was_meant_to_deny_does_not_let_everybody_pass(text: str) -> None:
    assert codes(text) == {"syntax"}


def test_ptr_is_discouraged_and_macros_are_told() -> None:
    assert remark_of("v=spf1 ptr -all", "ptr").severity == "warning"
    for term in ("exists:%{i}.example.org", "a:%{d}", "include:%{o}.example.org", "exists:example.org"):
        assert remark_of(f"v=spf1 {term} -all", "macro").severity == "info"
    assert remark_of("v=spf1 redirect=%{d}.example.org", "macro").severity == "info"


def test_a_fault_that_hides_all_is_not_told_twice() -> None:
    assert codes("v=spf1 a –all") == {"syntax"}


# Strings and lengths


def test_strings_joined_without_a_blank_break_a_term_and_the_joint_is_shown() -> None:
    strings = ("v=spf1 ip4:88.198.1.2", "ip4:88.198.1.3 -all")
    found = remark_of("".join(strings), "joined", *strings)
    assert (found.severity, found.start, found.end) == ("critical", 21, 21)
    assert "`…=spf1 ip4:88.198.1.2`·`ip4:88.198.1.3 -all…`" in found.message
    assert "blank" in found.advice


def test_strings_may_be_glued_to_another_sound_term() -> None:
    strings = ("v=spf1 a:mail.example.org", "mx -all")
    assert remark_of("".join(strings), "joined", *strings).severity == "warning"


@pytest.mark.parametrize(
    "strings",
    [
        ("v=spf1 a ", "mx -all"),
        ("v=spf1 a", " mx -all"),
        ("v=spf1 ip4:88.19", "8.1.2 -all"),
        ("v=spf1 include:_spf.exam", "ple.org -all"),
        ("v=spf1 a -all", ""),
        ("v=spf1 a:example.org -all",),
    ],
)
def test_strings_that_join_well_are_left_alone(strings: tuple[str, ...]) -> None:
    assert codes("".join(strings), *strings) == set()


def test_strings_may_be_bytes_that_are_no_text() -> None:
    strings = (b"v=spf1 a:\xff", b"\xfe.example.org -all")
    text = b"".join(strings).decode("utf-8", "surrogateescape")
    assert "joined" in {remark.code for remark in lint(parse(text), strings)}


def padded(size: int) -> tuple[str, ...]:
    """Return the strings of a record of `size` bytes."""
    text = f"v=spf1 a x={'y' * (size - 16)} -all"
    assert len(text) == size
    return tuple(text[place : place + 200] for place in range(0, size, 200))


@pytest.mark.parametrize(("size", "said"), [(450, ""), (451, "may not fit"), (512, "may not fit"), (513, "needs EDNS")])
def test_a_long_record_is_told(size: int, said: str) -> None:
    strings = padded(size)
    found = [remark for remark in lint(parse("".join(strings)), strings) if remark.code != "unknown-modifier"]
    assert [(remark.code, remark.severity) for remark in found] == [("long", "warning")] * bool(said)
    assert not said or said in found[0].message


def test_a_string_over_255_bytes_cannot_be_published() -> None:
    text = "".join(padded(256))
    assert remark_of(text, "long-string").severity == "warning"
    assert "long-string" not in codes(text, text[:255], text[255:])
    assert "long-string" not in codes("".join(padded(255)))


# What a name publishes


def test_two_records_are_one_too_many() -> None:
    (found,) = lint_published(("v=spf1 a -all", "other", "V=SPF1 mx -all"))
    assert (found.code, found.severity) == ("two-records", "critical")
    assert "one TXT record" in found.advice


@pytest.mark.parametrize(
    "text",
    ["v=spf a -all", "spf1 a -all", "v=spf2 a", "v=spf1;a -all", '"v=spf1 a -all"', " v=spf1", "v=spf1ip4:88.198.1.2"],
)
def test_what_was_meant_as_a_record_is_known(text: str) -> None:
    (found,) = lint_published((text, "google-site-verification=x"))
    assert (found.code, found.severity) == ("version", "critical")


def test_a_version_without_a_blank_behind_it_is_named() -> None:
    (found,) = lint_published(("v=spf1ip4:88.198.1.2 -all",))
    assert found.message.endswith("receivers do not take it for one: no blank follows `v=spf1`")
    assert found.advice.startswith("put a blank behind `v=spf1`")
    assert "blank follows" not in lint_published((" v=spf1 ip4:88.198.1.2",))[0].message


@pytest.mark.parametrize("text", ["v=DKIM1; k=rsa", "spfx", "spf2.0/pra a -all", "v=spfish a", "", "v=spf1 a -all"])
def test_other_texts_are_let_be(text: str) -> None:
    assert lint_published((text,)) == ()


def test_a_record_of_the_withdrawn_type_alone_is_critical() -> None:
    (found,) = lint_published((), of_type_spf=True)
    assert (found.code, found.severity) == ("type-spf", "critical")
    assert "TXT" in found.advice
    assert lint_published(("v=spf1 -all",), of_type_spf=True) == ()


@given(st.text(), st.lists(st.binary(max_size=20), max_size=4))
def test_no_text_stops_the_linter(text: str, strings: list[bytes]) -> None:
    for record in (text, f"v=spf1 {text}"):
        for remark in lint(parse(record), strings):
            assert remark.message and remark.severity in ("critical", "error", "warning", "info")
    lint_published((text, f"v=spf{text}"))
