"""Terms of a record as text and meaning side by side: read as they were meant, joined, written shorter. Pure."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from itertools import groupby

from agent.spf.hints import NAMES, suggest
from agent.spf.ranges import Network, literal
from agent.spf.record import ONCE, VERSION, Fault, Mechanism, Modifier, is_sound, parse

LENIENT = "-~?"

Piece = tuple[str, Mechanism | Modifier]
"""A term as it will be written, and what it means."""
Notes = dict[str, str]
"""What was changed, in order, each once; with the term of which nobody can tell whom it named, if one was left out."""


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
    return f"`{text:.120}`"


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
        wrong = text[fault.start : fault.end]
        text = f"{text[: fault.start]}{fault.hint} {text[fault.end :].lstrip(' ')}"
        _note_fault(wrong, fault, notes)
    pieces = []
    for written, term in read(text):
        if isinstance(term, Modifier) and term.name == "v":
            notes[f"{quoted(written)} is left out: the version stands there once"] = ""
            continue
        meant = _meant_by(written, term)
        if meant:
            notes[f"{quoted(written)} becomes {quoted(' '.join(text for text, _ in meant))}"] = ""
        pieces += meant or [(written, term)]
    return pieces


def _note_fault(wrong: str, fault: Fault, notes: Notes) -> None:
    """Say what becomes of a faulty term: what names nobody is no loss, but a dash between addresses means a range."""
    names_somebody = wrong == "-" or any(map(str.isalnum, wrong)) and wrong[-1] not in ":="
    if not fault.start and wrong.lower() == VERSION:
        notes[f"a blank is put behind {quoted(wrong)}"] = ""
    elif fault.hint:
        notes[f"{quoted(wrong)} becomes {quoted(fault.hint)}"] = ""
    elif names_somebody:
        notes[f"{quoted(wrong)} is left out, for it is not valid: add by hand what it was meant to name"] = wrong[:60]
    else:
        notes[f"{quoted(wrong)} is left out: it is not valid"] = ""


def _meant_by(written: str, term: Mechanism | Modifier) -> list[Piece]:
    """Return what was meant by a sound term that means nothing; empty where it means what it says."""
    if not isinstance(term, Modifier) or term.name not in NAMES:
        return pieces_of(as_names(written)) if is_odd(term) else []
    text = f"{term.name}:{term.value}"
    return pieces_of(text if _is_plain(text) else suggest(text, _is_plain))


def is_odd(term: Mechanism | Modifier) -> bool:
    """Return whether a domain is sound, but no name of a host: a web page's address, or several names."""
    domain = term.domain if isinstance(term, Mechanism) else term.value if term.name in ONCE else ""
    return "%" not in domain and any(sign in domain for sign in ("//", ",", ";"))


def as_names(written: str) -> str:
    """Return what was meant by a term whose domain is odd; empty where nothing comes to mind."""
    return suggest(written, _is_plain)


def _is_plain(text: str) -> bool:
    return is_sound(text) and not any(is_odd(term) for _, term in pieces_of(text))


def join(records: list[list[Piece]], notes: Notes) -> list[Piece]:
    """Return the terms of all records as those of one; the mildest `all` wins, so nobody is worse off."""
    if len(records) == 1:
        return records[0]
    notes[f"the {len(records)} records are made one"] = ""
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
