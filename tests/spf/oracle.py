"""pyspf as an oracle over a `Zone`: as it is, or with what RFC 7208 decides against it put right.

Every correction names its section. What cannot be put right from outside is not asked of it, see `is_unasked`.
"""

import re
from collections.abc import Iterator
from typing import Any

from agent.spf.answers import Outcome
from agent.spf.evaluate import Query
from tests.spf import suite
from tests.spf.zone import Zone

Reply = list[tuple[tuple[str, str], Any]]

ZERO = re.compile(r"%\{[a-z]0+(?![0-9])", re.IGNORECASE)
MACRO = re.compile(r"%(?:[%_-]|\{[a-z][0-9]*r?[-.+,/_=]*\})", re.IGNORECASE)
BARE = re.compile(r"[-+~?]?exists(/.*)?", re.IGNORECASE)
NOTHING = re.compile(r"(?!)")
MOST_VOIDS = 2


class Oracle:
    """pyspf with this zone as its DNS. One at a time: pyspf has one resolver for all."""

    def __init__(self, zone: Zone, corrected: bool = True) -> None:
        self._spf = suite.pyspf()
        self._zone = zone
        self._corrected = corrected
        plain = self._spf.__dict__.setdefault("PLAIN_INVALID_MACRO", self._spf.RE_INVALID_MACRO)
        self._invalid = NOTHING if corrected else plain
        self._kind = _corrected(self._spf) if corrected else self._spf.query
        self._replies: dict[tuple[str, str], Reply] = dict(_replies(zone))

    def judge(self, query: Query) -> tuple[str, str, str]:
        """Return its result; its explanation, empty where the domain has none of its own; and its reason."""
        self._spf.DNSLookup = self._look_up
        self._spf.RE_INVALID_MACRO = self._invalid
        asked = self._kind(str(query.ip), query.mail_from, query.helo, receiver=query.receiver, strict=True)
        asked.set_default_explanation("")
        result, _, explanation = asked.check(query.record)
        return result, explanation if result == "fail" else "", str(asked.perm_error or "")

    def _look_up(self, name: str, kind: str, *_: object) -> Reply:
        """RFC 1034 section 3.6.2: a loop of aliases is an error, and a resolver tells it as one."""
        loops = self._corrected and self._zone.ask(kind, name).outcome is Outcome.FAILED
        if loops or (name.lower(), kind) in self._zone.silent:
            raise self._spf.TempError("time-out")
        return self._replies.get((name.lower(), kind)) or self._replies.get((name.lower(), "CNAME"), [])


def is_unasked(record: str, reason: str) -> bool:
    """Return whether pyspf may be wrong for a reason of its own.

    Section 4.6.4 counts terms during evaluation: pyspf counts a `redirect=` while it parses, taken or not.
    Section 4.6.2 ends at the first match: pyspf refuses a record that includes itself further on.
    """
    return ("Too many" in reason and "redirect=" in record) or "include has trivial recursion" in reason


def _corrected(spf: Any) -> Any:
    class Corrected(spf.query):  # type: ignore[misc]
        is_void = True
        silent = False

        def __init__(self, i: str, s: str, h: str, **options: Any) -> None:
            """Section 4.3: without a local part, the sender is `postmaster@…` for all macros."""
            super().__init__(i, f"postmaster{s}" if s.startswith("@") else s, h, **options)

        def check_lookups(self) -> None:
            """Section 4.6.4: void are *terms* for which queries return nothing, so each counts once."""
            self.is_void = False
            super().check_lookups()

        def note_error(self, *message: Any) -> Any:
            """Section 6: what is unrecognised is ignored, however often it stands there."""
            again = re.match(r"(.*)= MUST appear at most once", str(message[0]))
            return None if again and again[1] not in ("exp", "redirect") else super().note_error(*message)

        def validate_mechanism(self, mech: str) -> Any:
            """Section 5.7: `exists` has a domain-spec, also behind a qualifier."""
            if BARE.fullmatch(mech):
                raise spf.PermError("no domain", mech)
            return super().validate_mechanism(mech)

        def dns(self, name: str, kind: str, cnames: Any = None, ignore_void: bool = False) -> Any:
            found = super().dns(name, kind, cnames, ignore_void=True)
            is_name = all(0 < len(label) < 64 for label in name.removesuffix(".").split("."))
            if is_name and not found and not ignore_void and not self.silent and not self.is_void:
                self.is_void = True
                self.void_lookups += 1
                if self.void_lookups > MOST_VOIDS:
                    raise spf.PermError("Void lookup limit")
            return found

        def validated_ptrs(self) -> list[str]:
            """Section 5.5: a name whose lookup fails is passed over, and where PTR fails nothing matches.

            The client's own names are no terms of the record: what they lack is not void (section 4.6.4).
            """
            try:
                names = self.dns_ptr(self.i)[: spf.MAX_PTR]
            except spf.TempError:
                return []
            silent, self.silent = self.silent, True
            try:
                return [name for name in names if self._points_back(name)]
            finally:
                self.silent = silent

        def _points_back(self, name: str) -> bool:
            try:
                return bool(self.cidrmatch(self.dns_a(name, self.A), self.cidrmax))
            except spf.TempError:
                return False

        def getp(self) -> Any:
            """Section 4.6.4: `%{p}` is no term either."""
            silent, self.silent = self.silent, True
            try:
                return super().getp()
            finally:
                self.silent = silent

        def expand(self, text: str, stripdot: bool = True) -> Any:
            """Section 7.3: a number of parts is not 0. Section 7.1: what is no macro is visible ASCII, and no `%`.

            Nor may a text not end in `%%`, which `RE_INVALID_MACRO` has.
            """
            rest = MACRO.sub("", text)
            if "%" in rest or ZERO.search(text) or not all(("!" if stripdot else " ") <= one <= "~" for one in rest):
                raise spf.PermError("syntax")
            return super().expand(text, stripdot)

    return Corrected


def _replies(zone: Zone) -> Iterator[tuple[tuple[str, str], Reply]]:
    for name, kinds in zone.names.items():
        for kind, values in kinds.items():
            yield (name, kind), [((name, kind), _value(kind, value)) for value in values]


def _value(kind: str, value: Any) -> Any:
    if kind == "TXT":
        return (value.encode("utf-8", "surrogateescape"),)
    return value if kind in ("MX", "PTR", "CNAME") else str(value)
