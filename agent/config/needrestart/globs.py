"""Perl's regular expressions on unit names, as the globs that match exactly the same names; or why there are none."""

import re
from dataclasses import dataclass
from itertools import product

MOST = 32
"""Globs that one expression may come to."""
LONGEST = 1000
"""Characters of an expression, and of what a repetition comes to; the name of a unit has 255 at most."""
MOST_GROUPS = 50
CLASSES = {"d": "0-9", "w": "0-9A-Za-z_"}
SINGLE = re.compile(r"(?:[0-9A-Za-z_:.@+=,~ ]-[0-9A-Za-z_:.@+=,~ ]|[0-9A-Za-z_:.@+=,~ ]|\\[dw.@:])+")
"""What may stand in a class of characters."""


class Inexact(Exception):
    """No globs match just what the expression does; the message says why."""


@dataclass(frozen=True, slots=True, order=True)
class Pattern:
    """A regular expression as written; quoted: it came as a plain string and not as qr()."""

    text: str
    flags: str = ""
    quoted: bool = False

    @property
    def key(self) -> str:
        """What Perl makes of it as the key of a hash, by which needrestart sorts."""
        return self.text if self.quoted else f"(?^{self.flags}:{self.text})"

    def __str__(self) -> str:
        return self.text if self.quoted else f"qr({self.text}){self.flags}"


def to_globs(pattern: Pattern) -> tuple[str, ...]:
    """Return globs for `fnmatchcase` of which one matches a unit name just when the expression is found in it."""
    if set(pattern.flags) - set("imsau"):
        raise Inexact(f"the flags {pattern.flags!r} have no counterpart")
    if len(pattern.text) > LONGEST or pattern.text.count("(") > MOST_GROUPS:
        raise Inexact("it is too long")
    found: dict[str, None] = {}
    for branch in _split(pattern.text):
        found |= dict.fromkeys(_branch(branch, "i" in pattern.flags))
    if len(found) > MOST:
        raise Inexact(f"it comes to more than {MOST} globs")
    return tuple(found)


def _branch(text: str, either_case: bool) -> list[str]:
    start = re.match(r"\^|\\A", text)
    end = re.search(r"(?<!\\)(?:\\\\)*(\$|\\[zZ])$", text[start.end() if start else 0 :])
    inner = text[start.end() if start else 0 : len(text) - len(end[1]) if end else len(text)]
    bodies = _expand(inner, either_case)
    return [re.sub(r"\*\*+", "*", f"{'' if start else '*'}{body}{'' if end else '*'}") for body in bodies]


def _expand(text: str, either_case: bool) -> list[str]:
    """Return the globs for an expression without anchors."""
    pieces = [""]
    while text:
        atoms, text = _atom(text, either_case)
        atoms, text = _repeat(atoms, text)
        pieces = [head + tail for head, tail in product(pieces, atoms)]
        if len(pieces) > MOST:
            raise Inexact(f"it comes to more than {MOST} globs")
    return pieces


def _atom(text: str, either_case: bool) -> tuple[list[str], str]:
    """Return what the first thing in `text` may be, and the rest."""
    first = text[0]
    if first == "(":
        inner, rest = _group(text)
        return [glob for branch in _split(inner) for glob in _expand(branch, either_case)], rest
    if first == "[":
        return _class(text, either_case)
    if first == "\\":
        return _escape(text)
    if first == ".":
        return ["?"], text[1:]
    if first in "^$@" and (first != "@" or re.match(r"@[A-Za-z_{]", text)):
        what = "a variable" if re.match(r"[$@][A-Za-z_{]", text) else "an anchor in the middle"
        raise Inexact(f"it has {what}")
    if first in "*+?{|)":
        raise Inexact(f"it has {first!r} out of place")
    return [_literal(first, either_case)], text[1:]


def _literal(character: str, either_case: bool) -> str:
    if either_case and character.isascii() and character.isalpha():
        return f"[{character.lower()}{character.upper()}]"
    return f"[{character}]" if character in "*?[" else character


def _escape(text: str) -> tuple[list[str], str]:
    following = text[1:2]
    if following in CLASSES and following:
        return [f"[{CLASSES[following]}]"], text[2:]
    if not following or following.isalnum():
        raise Inexact(f"\\{following} has no counterpart")
    return [_literal(following, either_case=False)], text[2:]


def _class(text: str, either_case: bool) -> tuple[list[str], str]:
    found = re.match(r"\[(\^?)([^\]\[^!][^\]\[]*)\]", text)
    if not found or not SINGLE.fullmatch(found[2].strip("-")) or (either_case and re.search("[A-Za-z]", found[2])):
        raise Inexact("it has a class of characters that no glob has")
    inner = re.sub(r"\\(.)", lambda escaped: CLASSES.get(escaped[1], escaped[1]), found[2])
    return [f"[{'!' if found[1] else ''}{inner}]"], text[found.end() :]


def _repeat(atoms: list[str], text: str) -> tuple[list[str], str]:
    found = re.match(r"([*+?]|\{(\d+)\})[?+]?", text)
    if not found:
        return atoms, text
    rest = text[found.end() :]
    if found[1] == "?":
        return ["", *atoms], rest
    if found[2] and len(atoms) == 1 and len(found[2]) < 4 and len(atoms[0]) * int(found[2]) <= LONGEST:
        return [atoms[0] * int(found[2])], rest
    if atoms == ["?"] and found[1] in "*+":
        return ["*" if found[1] == "*" else "?*"], rest
    raise Inexact("a glob cannot repeat anything but any character")


def _group(text: str) -> tuple[str, str]:
    """Return what stands in the parentheses that `text` begins with, and the rest."""
    end = _closing(text)
    inner = text[1:end].removeprefix("?:")
    if inner.startswith("?"):
        raise Inexact(f"({inner[:2]}…) has no counterpart")
    return inner, text[end + 1 :]


def _closing(text: str) -> int:
    depth = 0
    for position, character in _plain(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    raise Inexact("its parentheses do not match")


def _split(text: str) -> list[str]:
    """Return the alternatives that `|` separates outside of parentheses."""
    depth, cuts = 0, [-1]
    for position, character in _plain(text):
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            cuts.append(position)
    return [text[begin + 1 : end] for begin, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def _plain(text: str) -> list[tuple[int, str]]:
    """Return the characters that are neither escaped nor in a class, with where they stand."""
    plain, position, in_class = [], 0, False
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
            continue
        if in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        else:
            plain.append((position, character))
        position += 1
    return plain
