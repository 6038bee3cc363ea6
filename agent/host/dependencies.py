"""What packages need one another for, from dpkg's status, and which of their files a program may import.

Names are without architecture. Alternatives count as all of them, as long as they are installed: nobody can say
which one a program took.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.host.packages import DATABASE
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, PackageState, Snapshot

IMPORTED = {
    "python": rb"/usr/lib/python3[^/\n]*/[^\n]+\.py",
    "perl": rb"/usr/(?:share|lib(?:/[^/\n]+)?)/perl[^/\n]*/[^\n]+\.p[ml]",
    "ruby": rb"/usr/(?:share|lib)/(?:[^/\n]+/)?(?:ruby|rubygems-integration)/[^\n]+\.rb",
    "php": rb"/usr/share/php/[^\n]+\.php",
    "node": rb"/usr/(?:share|lib(?:/[^/\n]+)?)/(?:nodejs|node_modules)/[^\n]+\.[cm]?js",
    "java": rb"/usr/(?:share/java|share/maven-repo|lib/jvm)/[^\n]+\.jar",
    "erlang": rb"/usr/lib/erlang/[^\n]+\.beam",
    "lua": rb"/usr/share/lua/[^\n]+\.lua",
    "tcl": rb"/usr/share/tcltk/[^\n]+\.tcl",
}
"""Language → files that programs in it import by name. Debuggers' scripts and examples lie elsewhere."""
_FIRST = {language: re.compile(rb"^(?:" + files + rb")$", re.M) for language, files in IMPORTED.items()}
LARGEST_LIST = 16 << 20
_RELATIONS = (b"Depends", b"Pre-Depends")
_FIELDS = frozenset({b"Package", b"Status", b"Source", b"Provides", *_RELATIONS})


@dataclass(frozen=True, slots=True)
class Relations:
    """needs: package → installed packages that it depends on; source: package → the source package of both."""

    needs: Mapping[str, frozenset[str]]
    source: Mapping[str, str]


def read_relations(host: Host, installed: Collection[str]) -> Relations:
    """Return the dependencies among the packages `installed`. Raises AgentError(UNREADABLE)."""
    path = host.under(f"{DATABASE}/status")
    try:
        with open(path, "rb") as file:
            stanzas = [stanza for stanza in _stanzas(file) if _text(stanza, b"Package") in installed]
    except OSError as problem:
        raise AgentError(Kind.UNREADABLE, f"{path}: {problem.strerror}") from problem
    needs: dict[str, set[str]] = {}
    providers: dict[str, set[str]] = {}
    for stanza in stanzas:
        name = _text(stanza, b"Package")
        needs.setdefault(name, set()).update(*(_names(stanza.get(field, b"")) for field in _RELATIONS))
        for given in (name, *_names(stanza.get(b"Provides", b""))):
            providers.setdefault(given, set()).add(name)
    met = {name: frozenset().union(*(providers.get(need, ()) for need in some)) for name, some in needs.items()}
    return Relations(met, {_text(stanza, b"Package"): _source(stanza) for stanza in stanzas})


def _stanzas(lines: Iterable[bytes]) -> Iterator[dict[bytes, bytes]]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        if name in _FIELDS:
            fields[name] = value.strip()
        elif line == b"\n" and fields:
            yield fields
            fields = {}
    if fields:
        yield fields


def _text(stanza: Mapping[bytes, bytes], field: bytes) -> str:
    return os.fsdecode(stanza.get(field, b""))


def _source(stanza: Mapping[bytes, bytes]) -> str:
    return (_text(stanza, b"Source") or _text(stanza, b"Package")).partition(" ")[0]


def _names(relation: bytes) -> set[str]:
    """Return the names in `a (>= 1), b:any | c`."""
    parts = os.fsdecode(relation).replace("|", ",").split(",")
    return {part.split("(")[0].strip().partition(":")[0] for part in parts} - {""}


def read_imported(host: Host, package: PackageState, language: str) -> str:
    """Return one file of `package` that programs in `language` may import; empty where it has none."""
    pattern = _FIRST.get(language)
    found = pattern.search(_read_list(host, package)) if pattern else None
    return os.fsdecode(found[0]) if found else ""


def _read_list(host: Host, package: PackageState) -> bytes:
    info = host.under(f"{DATABASE}/info")
    for name in (f"{package.name}:{package.arch}", package.name):
        try:
            with open(f"{info}/{name}.list", "rb") as file:
                return file.read(LARGEST_LIST)
        except OSError:
            continue
    return b""


def by_name(snapshot: Snapshot) -> dict[str, PackageState]:
    """Return the packages by name alone; of several architectures one, for they have one version."""
    return {state.name: state for state in snapshot.values()}
