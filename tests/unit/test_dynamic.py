"""The reader of dynamic sections and symbols against pyelftools, and against files made to mislead it."""

import os
import resource
import struct
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationTable
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.host.loader import dynamic
from agent.host.loader.dynamic import Dynamic, NotElf, OtherMachine, Symbols, read_dynamic, read_symbols
from agent.model.errors import AgentError
from tests.unit.small_elf import ARM64, NARROW, made, opened

WHOLE = made(
    needed=["liba.so.1", "libb.so"],
    soname="libme.so.2",
    rpath="/old",
    runpath="$ORIGIN/..:/new",
    defined=["first", "second"],
    at_load=["zeta", "alpha"],
    at_call=["called"],
    build_id=bytes(range(20)),
)


def read(content: bytes) -> tuple[Dynamic, Symbols]:
    with opened(content) as fd:
        found = read_dynamic(fd)
        return found, read_symbols(fd, found.tables)


def test_it_reads_what_is_there() -> None:
    found, symbols = read(WHOLE)
    assert found.needed == ("liba.so.1", "libb.so")
    assert (found.soname, found.rpath, found.runpath) == ("libme.so.2", "/old", "$ORIGIN/..:/new")
    assert (found.machine, found.bind_now, found.build_id) == (62, False, bytes(range(20)).hex())
    assert symbols == Symbols(frozenset({"first", "second"}), ("zeta", "alpha"), ("called",))


def test_the_order_of_what_is_lacking_is_that_of_the_relocations() -> None:
    names = [f"name{number * 7919 % 1000}" for number in range(1000)]
    assert read(made(at_call=names))[1].at_call == tuple(names)


def test_a_file_may_ask_to_be_bound_at_once() -> None:
    assert read(made(now=True))[0].bind_now


@pytest.mark.parametrize(("tag", "flag"), [(30, 8), (0x6FFFFFFB, 1)])
def test_it_may_ask_by_a_flag_as_well(tag: int, flag: int) -> None:
    content = made(now=True)
    asked = struct.pack("<QQ", 24, 0)
    assert read(content.replace(asked, struct.pack("<QQ", tag, flag)))[0].bind_now
    assert not read(content.replace(asked, struct.pack("<QQ", tag, flag << 1)))[0].bind_now


@pytest.mark.parametrize(("visibility", "offered"), [(0, True), (1, False), (2, False), (3, True)])
def test_hidden_names_are_not_offered(visibility: int, offered: bool) -> None:
    content = made(defined=["a"]).replace(struct.pack("<BBH", 0x12, 0, 7), struct.pack("<BBH", 0x12, visibility, 7))
    assert (read(content)[1].defined == {"a"}) is offered


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_the_old_hash_table_counts_the_symbols_too(count: int) -> None:
    names = [f"name{number}" for number in range(count)]
    assert read(made(defined=names, gnu_hash=False))[1].defined == frozenset(names)
    assert read(made(defined=names, gnu_hash=True))[1].defined == frozenset(names)


def test_names_that_are_not_utf_8_survive() -> None:
    found, symbols = read(made(needed=["lib\udcff.so"], defined=["a\udcfe"]))
    assert found.needed == ("lib\udcff.so",)
    assert symbols.defined == {"a\udcfe"}


# Against pyelftools


def expected(file: ELFFile) -> tuple[Any, ...]:
    part = next(part for part in file.iter_segments() if isinstance(part, DynamicSegment))
    tags: dict[str, list[Any]] = {}
    for tag in part.iter_tags():
        tags.setdefault(tag.entry.d_tag, []).append(tag)
    flags = tags.get("DT_FLAGS", []), tags.get("DT_FLAGS_1", [])
    now = any(tag.entry.d_val & 8 for tag in flags[0]) or any(tag.entry.d_val & 1 for tag in flags[1])
    return (
        tuple(tag.needed for tag in tags.get("DT_NEEDED", [])),
        *(
            "".join(getattr(tag, name) for tag in tags.get(f"DT_{name.upper()}", []))
            for name in ("soname", "rpath", "runpath")
        ),
        now or "DT_BIND_NOW" in tags,
    )


def expected_symbols(file: ELFFile) -> Symbols:
    part = next(part for part in file.iter_segments() if isinstance(part, DynamicSegment))
    symbols = list(part.iter_symbols())
    offered = {
        symbol.name
        for symbol in symbols
        if symbol["st_shndx"] != "SHN_UNDEF"
        and symbol["st_info"]["bind"] in ("STB_GLOBAL", "STB_WEAK", "STB_LOOS")
        and symbol["st_other"]["visibility"] in ("STV_DEFAULT", "STV_PROTECTED")
    }
    tables = part.get_relocation_tables()
    data, calls = (wanted(tables[name], symbols) if name in tables else () for name in ("RELA", "JMPREL"))
    return Symbols(frozenset(offered), data, calls)


def wanted(table: RelocationTable, symbols: list[Any]) -> tuple[str, ...]:
    rows = (symbols[row["r_info_sym"]] for row in table.iter_relocations() if row["r_info_sym"])
    lacking = (row for row in rows if row["st_shndx"] == "SHN_UNDEF" and row["st_info"]["bind"] == "STB_GLOBAL")
    return tuple(dict.fromkeys(row.name for row in lacking))


@cache
def real_files() -> list[Path]:
    """Small libraries and extension modules, each once."""
    paths = [*Path("/usr/lib").glob("*-linux-gnu*/*.so*"), *Path("/usr/lib/python3").rglob("*.so")]
    found = {path.resolve() for path in paths if path.is_file() and path.stat().st_size < 150_000}
    return sorted(path for path in found if path.read_bytes()[:5] == b"\x7fELF\x02")[:80]


def test_it_agrees_with_pyelftools_on_real_libraries() -> None:
    files = real_files()
    assert len(files) > 40
    for path in files:
        with path.open("rb") as file:
            elf = ELFFile(file)
            found = read_dynamic(file.fileno())
            assert (found.needed, found.soname, found.rpath, found.runpath, found.bind_now) == expected(elf), path
            assert read_symbols(file.fileno(), found.tables) == expected_symbols(elf), path


@cache
def real_content() -> bytes:
    return real_files()[0].read_bytes()


# Files that mislead


def test_another_processors_file_is_passed_over_and_rubbish_is_not() -> None:
    with pytest.raises(OtherMachine, match="32 bit"):
        read(NARROW)
    assert read(made(machine=ARM64))[0].machine == ARM64
    for content in (b"", b"#!/bin/sh\n" * 20, bytes(4096), b"\x7fELF" + bytes(60)):
        with pytest.raises(NotElf, match="no sound ELF file"):
            read(content)


def test_a_file_cut_off_anywhere_gives_a_sentence() -> None:
    for size in range(len(WHOLE) - 20):
        with pytest.raises((NotElf, OtherMachine), match="^is "):
            read(WHOLE[:size])


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_no_damage_makes_it_fail_otherwise(damages: list[tuple[int, bytes]]) -> None:
    content = bytearray(WHOLE)
    for at, damage in damages:
        content[at : at + len(damage)] = damage
    try:
        found, symbols = read(bytes(content))
    except AgentError as problem:
        assert problem.message.startswith("is ")
    else:
        assert len(found.needed) <= dynamic.MOST_NEEDED and len(symbols.defined) < 100


@settings(max_examples=200)
@given(st.integers(0, 20000), st.binary(min_size=1, max_size=16))
def test_no_damage_to_a_real_library_makes_it_fail_otherwise(at: int, damage: bytes) -> None:
    content = bytearray(real_content())
    content[at : at + len(damage)] = damage
    try:
        read(bytes(content))
    except AgentError as problem:
        assert problem.message.startswith("is ")


@pytest.mark.parametrize(("tag", "size"), [(10, 1 << 40), (8, 24 << 40), (2, 24 << 40)], ids=["names", "data", "calls"])
def test_a_table_of_terabytes_is_refused(tag: int, size: int) -> None:
    with pytest.raises(NotElf, match="too large"):
        read(changed(WHOLE, tag, size))


def changed(content: bytes, tag: int, value: int) -> bytes:
    """Replace one value in the dynamic section."""
    (start,) = struct.unpack_from("<8xQ", content, 64 + 56)
    rows = list(struct.iter_unpack("<QQ", content[start:]))
    packed = b"".join(struct.pack("<QQ", key, value if key == tag else old) for key, old in rows)
    return content[:start] + packed


def test_a_hash_table_without_an_end_is_refused(tmp_path: Path) -> None:
    """Its last chain begins in 2 GiB of nothing."""
    path = tmp_path / "sparse"
    content = made(defined=["a", "b"])
    chain = content.find(struct.pack("<II", 2, 3))
    path.write_bytes(content[: chain - 4] + struct.pack("<I", 1000) + content[chain:])
    os.truncate(path, 2 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with path.open("rb") as file:
        found = read_dynamic(file.fileno())
        with pytest.raises(NotElf, match="no end"):
            read_symbols(file.fileno(), found.tables)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_too_many_symbols_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic, "MOST_SYMBOLS", 10)
    assert read(made(defined=["a"] * 9))
    with pytest.raises(NotElf, match="too many symbols"):
        read(made(defined=["a"] * 10))


def test_a_symbol_may_not_point_outside_of_the_names() -> None:
    content = bytearray(made(defined=["aaaaaa"]))
    at = content.find(struct.pack("<IBBH", 1, 0x12, 0, 7))
    content[at : at + 4] = struct.pack("<I", 1 << 30)
    with pytest.raises(NotElf, match="outside of its string table"):
        read(bytes(content))


def test_a_name_without_an_end_is_refused() -> None:
    with pytest.raises(NotElf, match="without an end"):
        read(made(needed=["x" * 5000]))
