"""Terms of a record as text and meaning side by side: read as they were meant, joined, written shorter. Pure."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from itertools import groupby

from agent.spf.hints import NAMES
from agent.spf.ranges import Network, literal
from agent.spf.record import VERSION, Mechanism, Modifier, parse

LENIENT = "-~?"

Piece = tuple[str, Mechanism | Modifier]
"""A term as it will be written, and what it means."""
Notes = dict[str, None]
"""What was changed, in order, each once."""


def meaning_of(term: Mechanism | Modifier) -> str:
    """Return a text that two terms share if, and only if, they match the same; qualifiers do not count."""
    if isinstance(term, Modifier):
        return f"{term.name}={term.value}"
    if term.network is not None:
        return f"{term.name}:{term.network}"
    return f"{term.name}:{term.domain.lower().removesuffix('.')}/{term.cidr4}//{term.cidr6}"


def bare(written: str) -> str:
    """Return a term without its qualifier, in lower case."""
    return written.lstrip("+-~?").lower()


def quoted(text: str) -> str:
    """Return a term for a sentence, cut off where it is long."""
    return f"`{text:.60}`"


def write(pieces: Iterable[Piece]) -> str:
    """Return the text of a record."""
    return " ".join((VERSION, *(text for text, _ in pieces)))


def read(text: str) -> list[Piece]:
    """Return the sound terms of a record."""
    record = parse(text, hints=False)
    return [(text[term.start : term.end], term) for term in record.terms]


def pieces_of(text: str) -> list[Piece]:
    """Return terms that were written without the version before them."""
    return read(f"{VERSION} {text}")


def end_of(pieces: Sequence[Piece]) -> int:
    """Return the place behind the last mechanism."""
    return max((place for place, (_, term) in enumerate(pieces, 1) if isinstance(term, Mechanism)), default=0)


def read_as_meant(text: str, notes: Notes) -> list[Piece]:
    """Return the terms of a record, the faulty ones as what was meant by them, or left out."""
    for fault in reversed(parse(text).faults):
        wrong, text = text[fault.start : fault.end], f"{text[: fault.start]}{fault.hint}{text[fault.end :]}"
        meaning = f"becomes {quoted(fault.hint)}" if fault.hint else "is left out: it is not valid"
        notes[f"{quoted(wrong)} {meaning}"] = None
    pieces = []
    for written, term in read(text):
        meant = pieces_of(f"{term.name}:{term.value}") if isinstance(term, Modifier) and term.name in NAMES else []
        if meant:
            notes[f"{quoted(written)} becomes {quoted(meant[0][0])}"] = None
        pieces += meant or [(written, term)]
    return pieces


def join(records: list[list[Piece]], notes: Notes) -> list[Piece]:
    """Return the terms of all records as those of one; the mildest `all` wins, so nobody is worse off."""
    if len(records) == 1:
        return records[0]
    notes[f"the {len(records)} records are made one"] = None
    finals: list[Piece] = []
    others: dict[str, Piece] = {}
    for pieces in records:
        final = next((place for place, (_, term) in enumerate(pieces) if term.name == "all"), len(pieces))
        finals += pieces[final : final + 1]
        for place, (written, term) in enumerate(pieces):
            if isinstance(term, Mechanism) and place >= final:
                continue
            if term.name == "redirect" and isinstance(term, Modifier):
                if final < len(pieces):
                    continue
                written, term = pieces_of(f"include:{term.value}")[0]
            others.setdefault("exp" if term.name == "exp" else meaning_of(term), (written, term))
    finals.sort(key=lambda piece: LENIENT.find(piece[0][:1]), reverse=True)
    return [*others.values(), *finals[:1]]


def collapse(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the same terms with each run of authorised literals written as few as can be."""
    done: list[Piece] = []
    for listed, run in groupby(pieces, key=_is_listed):
        members = list(run)
        networks = [term.network for _, term in members if isinstance(term, Mechanism) and term.network]
        merged: list[Network] = [*collapse_addresses(item for item in networks if isinstance(item, IPv4Network))]
        merged += collapse_addresses(item for item in networks if isinstance(item, IPv6Network))
        done += pieces_of(" ".join(map(literal, merged))) if listed else members
    return done


def _is_listed(piece: Piece) -> bool:
    return isinstance(piece[1], Mechanism) and piece[1].network is not None and piece[1].qualifier == "+"
