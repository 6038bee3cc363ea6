"""Macros as section 7 of RFC 7208 has them, its own examples first."""

import asyncio
import time
from ipaddress import ip_address

import pytest

from agent.spf.macros import Values, expand, fault_of, is_domain_end, shorten

FOUR = Values(
    "strong-bad@email.example.com", "email.example.com", ip_address("192.0.2.3"), "mx.example.org", "rx.net", 17
)
SIX = Values("strong-bad@email.example.com", "email.example.com", ip_address("2001:db8::cb01"), "h", "", 17)


async def validated() -> str:
    return "mx.example.org"


async def never() -> str:
    raise AssertionError("nobody asked for the validated name")


def expanded(text: str, values: Values = FOUR) -> str:
    return asyncio.run(expand(text, values, validated if "p" in text.lower() else never))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("%{h} %{p} %{r} %{t} %{c}", "mx.example.org mx.example.org rx.net 17 192.0.2.3"),
        ("a%%b%_c%-d", "a%b c%20d"),
        ("%{S}", "strong-bad%40email.example.com"),
        ("%{D2}", "example.com"),
        ("%{d999999999999999999999}", "email.example.com"),
    ],
)
def test_macros_expand(text: str, wanted: str) -> None:
    assert not fault_of(text, explaining=True)
    assert expanded(text) == wanted


def test_an_ipv6_client_is_taken_apart_into_its_digits() -> None:
    digits = "1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2"
    assert expanded("%{ir}.%{v}._spf.%{d2}", SIX) == f"{digits}.ip6._spf.example.com"
    assert expanded("%{c} %{r}", SIX) == "2001:db8::cb01 unknown"


@pytest.mark.parametrize(
    ("local", "escaped"),
    [("~jack&jill=up-a_b3.c", "~jack%26jill%3Dup-a_b3.c"), ("a b/%\0", "a%20b%2F%25%00"), ("ü\udcff", "%C3%BC%FF")],
)
def test_upper_case_escapes_all_but_the_unreserved(local: str, escaped: str) -> None:
    values = Values(f"{local}@x.org", "x.org", FOUR.ip, "h", "r", 0)
    assert expanded("%{L}", values) == escaped
    assert expanded("%{l}", values) == local


def test_a_local_part_may_hold_an_at_sign() -> None:
    values = Values('"a@b"@x.org', "x.org", FOUR.ip, "h", "r", 0)
    assert expanded("%{l}|%{o}", values) == '"a@b"|x.org'


@pytest.mark.parametrize(
    "text",
    ["%", "%a", "a%", "%{", "%{}", "%{d", "%{dd}", "%{d2x}", "%{dr2}", "%{a}", "%{s@}", "%{ſ}", "%(d)", "é", "\0", " "],
)
def test_what_is_no_macro_string_has_a_fault(text: str) -> None:
    assert fault_of(text)
    assert (fault_of(text, explaining=True) == "") == (text == " ")


@pytest.mark.parametrize("letter", "crtCRT")
def test_some_macros_are_for_explanations_alone(letter: str) -> None:
    assert "explanation" in fault_of(f"%{{{letter}}}")
    assert not fault_of(f"%{{{letter}}}", explaining=True)


@pytest.mark.parametrize("text", ["a.org", "a.org.", "%{d}", "a.%{d}", "%%", "a.%-", "a.xn--zckzah", "a.1-2", ".a"])
def test_domains_end_in_a_macro_or_in_a_label_below_a_dot(text: str) -> None:
    assert is_domain_end(text)


@pytest.mark.parametrize(
    "text", ["", "org", "org.", "a.", "a..", "a.1", "a.-b", "a.b-", "a.b:1", "a.b_", "%{d}.", "a.%{d}x", "a.é", "a.²"]
)
def test_other_ends_are_no_domain(text: str) -> None:
    assert not is_domain_end(text)


def test_names_that_are_too_long_lose_labels_at_their_left() -> None:
    assert shorten("a" * 60 + ".b" * 100 + ".org") == ".".join(["b"] * 100) + ".org"
    assert shorten("x" * 253) == "x" * 253
    assert shorten("x" * 300) == "x" * 300
    assert len(shorten("ab." * 200 + "org")) <= 253


def test_long_text_is_checked_in_no_time() -> None:
    begun = time.process_time()
    for text in ("%" * 60000, "a" * 60000, "a." * 30000, "%{d}" * 15000, "." * 60000, "1" * 60000 + "!"):
        fault_of(text)
        is_domain_end(text)
    assert time.process_time() - begun < 2
