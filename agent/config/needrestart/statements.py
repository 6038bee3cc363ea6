"""The little of Perl that needrestart's configuration is written in: texts into statements and values, never run.

What is not understood stays as the tokens that it is; nothing here raises.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.config.needrestart.globs import Pattern

Value = Pattern | list["Value"] | dict[Pattern, "Value"] | None
"""A scalar (a number or word too) is a Pattern; None is a value that was not understood."""

PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}
QUOTED = re.compile(r"(?P<how>qr|qq|q|m)(?:\s+(?=[^\w\s#=,;)>}\]]))?(?=[^\w\s=,;)>}\]])")
WORD = re.compile(r"-?\d[\d._]*|[A-Za-z_][\w:]*")
POD = re.compile(r"^=[a-zA-Z].*?(?:^=cut\b[^\n]*|\Z)", re.MULTILINE | re.DOTALL)
SPACE = re.compile(r"\s+|#[^\n]*")
DEEPEST = 5
BLOCKS = ("if", "unless", "foreach", "for", "while", "sub", "eval", "do", "BEGIN")


@dataclass(frozen=True, slots=True)
class Token:
    """kind: "pattern" (value has it), "word", or "sign"."""

    kind: str
    text: str
    line: int
    value: Pattern = Pattern("")


Statement = tuple[Token, ...]


def statements(text: str) -> Iterator[Statement]:
    """Yield the statements of a file; a block with a condition before it is one."""
    found: list[Token] = []
    depth = 0
    for token in _tokens(text):
        if token.kind == "sign":
            depth += (token.text in "([{") - (token.text in ")]}")
        if token.text == ";" and token.kind == "sign" and depth <= 0:
            yield tuple(found)
            found, depth = [], 0
            continue
        found.append(token)
        if token.text == "}" and token.kind == "sign" and depth <= 0 and found[0].text in BLOCKS:
            yield tuple(found)
            found, depth = [], 0
    yield tuple(found)


def _tokens(text: str) -> Iterator[Token]:
    position, line = 0, 1
    while position < len(text):
        kind, end, value = _next(text, position)
        if kind == "end":
            return
        if kind:
            yield Token(kind, text[position:end], line, value)
        line += text.count("\n", position, end)
        position = end


def _next(text: str, position: int) -> tuple[str, int, Pattern]:
    """Return the kind of what begins at `position` (empty: nothing that counts), its end, and its value."""
    nothing = Pattern("")
    for pattern in (SPACE, POD):
        if found := pattern.match(text, position):
            return "", found.end(), nothing
    if text[position] in "'\"":
        end, inner = _delimited(text, position)
        return "pattern", end, Pattern(re.sub(r"\\(['\"\\])", r"\1", inner), quoted=True)
    if (found := QUOTED.match(text, position)) and not _is_key(text, position):
        return _quoted(text, found)
    if found := WORD.match(text, position):
        kind = "end" if found[0] in ("__END__", "__DATA__") else "word"
        return kind, found.end(), Pattern(found[0], quoted=True)
    return "sign", position + (2 if text.startswith("=>", position) else 1), nothing


def _is_key(text: str, position: int) -> bool:
    """`$m`, `{q}` and `->y` are names and not quotes."""
    return text[max(position - 2, 0) : position].endswith(("$", "@", "%", "&", "->"))


def _quoted(text: str, found: re.Match[str]) -> tuple[str, int, Pattern]:
    end, inner = _delimited(text, found.end())
    if found["how"] in ("q", "qq"):
        return "pattern", end, Pattern(inner, quoted=True)
    flags = re.compile("[a-z]*").match(text, end)
    delimiter = text[found.end()]
    inner = inner.replace(f"\\{delimiter}", delimiter) if delimiter not in "([{<.*+?|^$" else inner
    return "pattern", flags.end() if flags else end, Pattern(inner, flags[0] if flags else "")


def _delimited(text: str, position: int) -> tuple[int, str]:
    """Return where the quote that opens at `position` ends, and what is in it; brackets nest."""
    opening = text[position]
    closing = PAIRS.get(opening, opening)
    depth, at = 1, position + 1
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        depth += (text[at] == opening != closing) - (text[at] == closing)
        if depth == 0:
            return at + 1, text[position + 1 : at]
        at += 1
    return len(text), text[position + 1 :]


def items(tokens: Sequence[Token], within: int = 0) -> list[Value]:
    """Return the values of a list that commas, fat or not, separate."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        if token.kind == "sign":
            depth += (token.text in "([{") - (token.text in ")]}")
        if token.kind == "sign" and token.text in (",", "=>") and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [value_of(part, within) for part in parts if part]


def value_of(tokens: Sequence[Token], within: int = 0) -> Value:
    """Return the value that `tokens` are; None where they are something else. within: how many values it is in."""
    if len(tokens) == 1 and tokens[0].kind in ("pattern", "word"):
        return tokens[0].value
    if len(tokens) < 2 or tokens[0].kind != "sign" or tokens[-1].text != PAIRS.get(tokens[0].text):
        return None
    if within > DEEPEST:
        return None
    inside = items(tokens[1:-1], within + 1)
    if tokens[0].text == "[":
        return inside
    return _pairs(inside) if tokens[0].text == "{" else None


def _pairs(inside: Sequence[Value]) -> dict[Pattern, Value] | None:
    keys = inside[::2]
    if len(inside) % 2 or not all(isinstance(key, Pattern) for key in keys):
        return None
    return {key: value for key, value in zip(keys, inside[1::2], strict=True) if isinstance(key, Pattern)}
