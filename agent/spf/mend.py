"""The repair of an SPF record: a full replacement that authorises what this host sends from. Pure; it asks no DNS.

What still makes sense is kept, in its order and with its qualifiers. It proposes and proves nothing: whoever shows
the text evaluates it first, with the `questions` that belong to it. Mending what was mended changes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network

from agent.spf.lint import COMFORTABLE, COSTLY, is_wide
from agent.spf.ranges import Address, Network, covers, is_publishable, kind_of, literal, twin_of
from agent.spf.record import VERSION, Mechanism, Modifier
from agent.spf.terms import (
    Notes,
    Piece,
    bare,
    collapse,
    end_of,
    join,
    meaning_of,
    pieces_of,
    quoted,
    read,
    read_as_meant,
    write,
)
from agent.spf.trace import MOST_LOOKUPS

FEW = 4
"""How many addresses may take the place of one `a` or `mx`."""
MOST_ROUNDS = 20
MOST_CHANGES = 50
STRANGERS = ("192.0.2.1", "2001:db8::1", "198.51.100.1", "3fff::1")
"""Addresses that send no mail anywhere."""


DEAD = "it leads to nothing, which breaks the whole record"
WIDE = "it authorises a large part of the Internet"
LOSING = (DEAD, WIDE)
"""Why a term is left out that was meant to authorise somebody, and nobody can tell whom."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the DNS says of one term of the record.

    term: as written, without qualifier. lookups: that it costs, itself included. networks: all that it can match;
    None where they cannot be listed. dead: it makes the record a permerror. elsewhere: it leads to a web proxy or to
    others who do not send this mail.
    """

    term: str
    lookups: int = 1
    networks: tuple[Network, ...] | None = None
    dead: bool = False
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Senders:
    """What a record has to be mended for; all addresses as the world sees them.

    sends: what mail leaves from, stable ones alone. held: all global and stable addresses of the host. gone: networks
    of the record that are no longer its own. passing: (address, term without qualifier) of what passes today.
    """

    sends: tuple[Address, ...]
    held: tuple[Address, ...] = ()
    gone: tuple[Network, ...] = ()
    passing: tuple[tuple[Address, str], ...] = ()
    known: tuple[Known, ...] = ()

    def of(self, term: str) -> Known:
        """Return what is known of a term as written."""
        return next((item for item in self.known if item.term.lower() == term.lower()), Known(term))


@dataclass(frozen=True, slots=True)
class Mended:
    """A replacement. changes: what was done, one plain sentence each; empty: the text is the record as it was.

    lost: the terms that were left out with nothing in their place, and may have named other servers: whoever shows
    the text has to say that what they were meant to name is to be added by hand.
    """

    text: str
    changes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """An address that the mended record must, or must not, let pass, and why."""

    address: Address
    passes: bool
    why: str


def mend(texts: Sequence[str], senders: Senders) -> Mended:
    """Return the replacement for the SPF records that a name has: none, one, or wrongly several.

    An empty text: there is no record, and nothing is known to send, so nothing can be proposed.
    """
    own = _publishable(senders.sends)
    if not texts:
        written = " ".join((VERSION, *(literal(ip_network(address)) for address in own), "-all"))
        return Mended(written, ("there is no record yet",)) if own else Mended("")
    notes: Notes = {}
    pieces = join([read_as_meant(text, notes) for text in texts], notes)
    for _ in range(MOST_ROUNDS):
        before = pieces
        pieces = _purged(_ended(pieces, notes), senders, notes)
        pieces = _completed(pieces, own, senders, notes)
        pieces = _shortened(_cheapened(pieces, senders, notes), notes)
        if write(pieces) == write(before):
            break
    lost = tuple(dict.fromkeys(filter(None, notes.values())))
    return Mended(write(pieces), tuple(notes)[:MOST_CHANGES], lost[:MOST_CHANGES]) if notes else Mended(texts[0])


def questions(mended: str, senders: Senders) -> tuple[Question, ...]:
    """Return what the caller has to ask of the mended text before it is shown."""
    pieces = read(mended)
    kept = {bare(written) for written, term in pieces if isinstance(term, Modifier) or term.qualifier == "+"}
    own = (*_publishable(senders.sends), *(address for address, term in senders.passing if bare(term) in kept))
    found = [Question(address, True, "this host sends from it") for address in dict.fromkeys(own)]
    networks = [term.network for _, term in pieces if isinstance(term, Mechanism) and term.qualifier == "+"]
    listed = [network for network in networks if network]
    for why, others in (
        ("it is no longer an address of this host", [network.network_address for network in senders.gone]),
        ("nobody sends from it", [ip_address(text) for text in STRANGERS]),
    ):
        for address in others:
            if address not in own and not any(covers(network, address) for network in listed):
                found.append(Question(address, False, why))
    return tuple(found)


def _publishable(addresses: Iterable[Address]) -> tuple[Address, ...]:
    usable = (address for address in addresses if is_publishable(ip_network(address)))
    return tuple(sorted(dict.fromkeys(usable), key=lambda address: address.version))


def _ended(pieces: list[Piece], notes: Notes) -> list[Piece]:
    """Leave out what `all` makes void; let the record end with one that does not let everybody pass."""
    final = next((place for place, (_, term) in enumerate(pieces) if term.name == "all"), None)
    if final is None:
        if any(term.name == "redirect" for _, term in pieces):
            return pieces
        notes["`~all` is added: without it nothing is said of other senders"] = ""
        end = end_of(pieces)
        return [*pieces[:end], *pieces_of("~all"), *pieces[end:]]
    kept = []
    for place, (written, term) in enumerate(pieces):
        if term.name == "redirect" or (place > final and isinstance(term, Mechanism)):
            notes[f"{quoted(written)} is left out: `all` makes it void"] = ""
        elif place == final and isinstance(term, Mechanism) and term.qualifier == "+":
            notes[f"{quoted(written)} becomes `~all`: it let everybody pass"] = ""
            kept += pieces_of("~all")
        else:
            kept.append((written, term))
    return kept


def _purged(pieces: list[Piece], senders: Senders, notes: Notes) -> list[Piece]:
    """Leave out what matches nobody, or the wrong ones; put the host's address for one with its interface id."""
    kept: dict[str, Piece] = {}
    fresh: Notes = {}
    for written, term in pieces:
        why = _void(written, term, senders) or ("it is there already" if meaning_of(term) in kept else "")
        meant = _same_host(term, senders) if why else None
        if meant:
            (piece,) = pieces_of(written[: -len(bare(written))] + literal(ip_network(meant)))
            fresh[f"{quoted(written)} becomes `{piece[0]}`, the address of this host with that interface id"] = ""
            kept.setdefault(meaning_of(piece[1]), piece)
        elif why:
            fresh[f"{quoted(written)} is left out: {why}"] = written[:60] if why in LOSING else ""
        else:
            kept[meaning_of(term)] = (written, term)
    if not _publishable(senders.sends) and _authorises(pieces) and not _authorises(kept.values()):
        return pieces
    notes |= fresh
    return list(kept.values())


def _void(written: str, term: Mechanism | Modifier, senders: Senders) -> str:
    """Return why a term has no place in the record; empty where it has one."""
    known = senders.of(bare(written))
    if known.dead:
        return DEAD
    if known.elsewhere:
        return "it leads to where this mail does not come from"
    if isinstance(term, Modifier):
        return ""
    if term.qualifier == "+" and is_wide(term):
        return WIDE
    own = _publishable((*senders.sends, *senders.held))
    if term.network is None or any(covers(term.network, address) for address in own):
        return ""
    if kind_of(term.network):
        return "it can never match at a receiver"
    return "it is no longer this host's" if any(covers(gone, term.network) for gone in senders.gone) else ""


def _same_host(term: Mechanism | Modifier, senders: Senders) -> Address | None:
    """Return the host's address of the interface that a literal meant."""
    if not isinstance(term, Mechanism) or not isinstance(term.network, IPv6Network):
        return None
    twin = twin_of(IPv6Address(term.address), _publishable((*senders.sends, *senders.held)))
    return twin if twin and not covers(term.network, twin) else None


def _authorises(pieces: Iterable[Piece]) -> bool:
    return any(term.name == "redirect" or isinstance(term, Mechanism) and term.qualifier == "+" for _, term in pieces)


def _completed(pieces: list[Piece], own: Sequence[Address], senders: Senders, notes: Notes) -> list[Piece]:
    """Add what this host sends from and no term authorises, before the first term that denies anybody."""
    missing = [literal(ip_network(address)) for address in own if not _passes(address, pieces, senders)]
    notes |= dict.fromkeys((f"`{text}` is added: this host sends from it" for text in missing), "")
    denying = (place for place, (_, term) in enumerate(pieces) if isinstance(term, Mechanism) and term.qualifier != "+")
    end = end_of(pieces[: next(denying, len(pieces))])
    return [*pieces[:end], *pieces_of(" ".join(missing)), *pieces[end:]]


def _passes(address: Address, pieces: Sequence[Piece], senders: Senders) -> bool:
    by = {bare(term) for passed, term in senders.passing if passed == address}
    for written, term in pieces:
        matches = isinstance(term, Mechanism) and term.network is not None and covers(term.network, address)
        if matches or bare(written) in by:
            return isinstance(term, Modifier) or term.qualifier == "+"
        if isinstance(term, Mechanism) and term.network is None and term.qualifier != "+" and not by:
            return False
    return False


def _cheapened(pieces: list[Piece], senders: Senders, notes: Notes) -> list[Piece]:
    """Put addresses for `a` and `mx` where the record costs too many look-ups and is not too long for that."""
    excess = sum(senders.of(bare(text)).lookups for text, term in pieces if term.name in COSTLY) - MOST_LOOKUPS
    done: list[Piece] = []
    for place, (written, term) in enumerate(pieces):
        known = senders.of(bare(written))
        if excess > 0 and term.name in ("a", "mx") and known.networks is not None and len(known.networks) <= FEW:
            qualifier = written[: -len(bare(written))]
            listed = pieces_of(" ".join(qualifier + literal(network) for network in known.networks))
            if len(write(collapse([*done, *listed, *pieces[place + 1 :]]))) <= COMFORTABLE:
                notes[f"{quoted(written)} becomes its addresses: over {MOST_LOOKUPS} look-ups break the record"] = ""
                done, excess = [*done, *listed], excess - known.lookups
                continue
        done.append((written, term))
    return done


def _shortened(pieces: list[Piece], notes: Notes) -> list[Piece]:
    shorter = collapse(pieces)
    if len(write(pieces)) <= COMFORTABLE or len(write(shorter)) >= len(write(pieces)):
        return pieces
    notes["neighbouring addresses are written as networks: the record was too long"] = ""
    return shorter
