"""What ld.so would read of one ELF file: its dynamic section and its dynamic symbols. Maps no file, trusts no size.

Only 64-bit little-endian files, for which alone MKL is made now. Everything is read with bounded `pread`s, so a file
that is cut off while it is read gives a sentence and no SIGBUS. Symbols are read only when asked for: libmkl_rt's
65,815 take 25 ms. Nothing is judged. Layout: elf(5), /usr/include/elf.h, and glibc's elf/do-rel.h.
"""

import os
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

from agent.host.elf import Header, find_build_id, read_at, read_header
from agent.model.errors import AgentError, Kind

MOST_ENTRIES = 4096
MOST_NEEDED = 512
LONGEST_NAME = 4096
MOST_TABLE = 24 << 20
"""Bytes of one table: a million relocations."""
MOST_SYMBOLS = 250_000
"""The most in MKL so far are libmkl_rt's 66,737."""
MOST_NAMES = 16 << 20
PT_LOAD, PT_DYNAMIC = 1, 2
NEEDED, PLTRELSZ, HASH, STRTAB, SYMTAB, RELA, RELASZ, STRSZ = 1, 2, 4, 5, 6, 7, 8, 10
SONAME, RPATH, JMPREL, BIND_NOW, RUNPATH, FLAGS = 14, 15, 23, 24, 29, 30
GNU_HASH, FLAGS_1 = 0x6FFFFEF5, 0x6FFFFFFB
DF_BIND_NOW, DF_1_NOW = 8, 1
SYMBOL_SIZE = RELOCATION_SIZE = 24
WORDS = 6
"""32-bit words in a symbol and in a relocation alike."""
GLOBAL, WEAK, UNIQUE = 1, 2, 10
VISIBLE = (0, 3)
"""STV_DEFAULT and STV_PROTECTED: what others may bind to."""


class NotElf(AgentError):
    """The file is no sound ELF file: ld.so would stop at it."""

    def __init__(self, reason: str) -> None:
        super().__init__(Kind.UNREADABLE, reason)


class OtherMachine(AgentError):
    """The file is for another processor: ld.so would pass over it and look further."""

    def __init__(self, reason: str) -> None:
        super().__init__(Kind.UNREADABLE, reason)


@dataclass(frozen=True, slots=True)
class Tables:
    """Where the tables of symbols lie: offsets in the file (0: there is none), and how many bytes."""

    names: tuple[int, int]
    symbols: int
    hashed: int
    hashed_the_old_way: int
    data: tuple[int, int]
    calls: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Dynamic:
    """What the dynamic section says; lists of directories are not expanded. build_id: hexadecimal, or empty."""

    machine: int
    needed: tuple[str, ...]
    soname: str
    rpath: str
    runpath: str
    bind_now: bool
    build_id: str
    tables: Tables


@dataclass(frozen=True, slots=True)
class Symbols:
    """Names of dynamic symbols. defined: what others may bind to.

    at_load and at_call: what must come from elsewhere, in the order in which ld.so looks for it: at once (data and
    GOT), and at the first call (PLT) unless everything is bound at once, as CPython does for extension modules.
    """

    defined: frozenset[str]
    at_load: tuple[str, ...]
    at_call: tuple[str, ...]


NO_SYMBOLS = Symbols(frozenset(), (), ())


def read_dynamic(fd: int) -> Dynamic:
    """Return what ld.so needs to know of the file behind `fd`.

    Raises NotElf, OtherMachine, and OSError where it cannot be read.
    """
    header = read_header(fd)
    if header is None:
        raise NotElf("is no sound ELF file")
    if (header.bits, header.order) != (64, "<"):
        raise OtherMachine(f"is an ELF file for another processor ({header.bits} bit)")
    rows = _read_rows(fd, header)
    where = dict(rows)
    names = _located(header, where, STRTAB), where.get(STRSZ, 0)
    wanted = [value for tag, value in rows if tag == NEEDED][:MOST_NEEDED]
    single = {tag: _read_name(fd, names, where[tag]) for tag in (SONAME, RPATH, RUNPATH) if tag in where}
    return Dynamic(
        header.machine,
        tuple(_read_name(fd, names, value) for value in wanted),
        single.get(SONAME, ""),
        single.get(RPATH, ""),
        single.get(RUNPATH, ""),
        BIND_NOW in where or bool(where.get(FLAGS, 0) & DF_BIND_NOW or where.get(FLAGS_1, 0) & DF_1_NOW),
        (find_build_id(fd, header) or b"").hex(),
        _tables(header, where, names),
    )


def _read_rows(fd: int, header: Header) -> list[tuple[int, int]]:
    part = next((part for part in header.segments if part.kind == PT_DYNAMIC), None)
    if part is None:
        raise NotElf("is an ELF file without a dynamic section")
    content = read_at(fd, part.offset, min(part.size, MOST_ENTRIES * 16))
    rows: list[tuple[int, int]] = []
    for tag, value in struct.iter_unpack("<QQ", content[: len(content) // 16 * 16]):
        if tag == 0:
            return rows
        rows.append((tag, value))
    raise NotElf("is an ELF file whose dynamic section has no end")


def _tables(header: Header, where: dict[int, int], names: tuple[int, int]) -> Tables:
    return Tables(
        names,
        _located(header, where, SYMTAB),
        _located(header, where, GNU_HASH),
        _located(header, where, HASH),
        (_located(header, where, RELA), where.get(RELASZ, 0)),
        (_located(header, where, JMPREL), where.get(PLTRELSZ, 0)),
    )


def _located(header: Header, where: dict[int, int], tag: int) -> int:
    """Return the offset in the file of what is loaded at the address of `tag`; 0 where there is none."""
    address = where.get(tag, 0)
    for part in header.segments:
        if part.kind == PT_LOAD and part.address <= address < part.address + part.size:
            return address - part.address + part.offset
    return 0


def _read_name(fd: int, names: tuple[int, int], at: int) -> str:
    """Return one name of the string table, with the bytes that are not UTF-8 as surrogates."""
    offset, size = names
    if not offset or at >= size:
        raise NotElf("is an ELF file with a name outside of its string table")
    found, end, _ = read_at(fd, offset + at, min(size - at, LONGEST_NAME)).partition(b"\0")
    if not end:
        raise NotElf("is an ELF file with a name without an end")
    return os.fsdecode(found)


def read_symbols(fd: int, tables: Tables) -> Symbols:
    """Return the dynamic symbols. Raises NotElf where the tables lie or are too large, and OSError."""
    data, calls = (_read_references(fd, table) for table in (tables.data, tables.calls))
    (chained,) = struct.unpack("<4xI", _read_table(fd, old, 8, 8)) if (old := tables.hashed_the_old_way) else (0,)
    count = max(_count_hashed(fd, tables.hashed), chained, max(data, default=0) + 1, max(calls, default=0) + 1)
    if count > MOST_SYMBOLS:
        raise NotElf("is an ELF file with too many symbols to be read")
    words = _read_words(fd, tables.symbols, count * SYMBOL_SIZE)
    names = _read_table(fd, *tables.names, MOST_NAMES).decode("ascii", "surrogateescape")
    if len(words) != count * WORDS or not names.endswith("\0"):
        raise NotElf("is an ELF file whose symbols lie outside of it")
    starts, kinds = words[0::WORDS], words[1::WORDS]
    try:
        defined = frozenset(_names_at(names, compress(starts, map(_is_offered, kinds))))
        wanted = [[starts[index] for index in indices if _is_wanted(kinds[index])] for indices in (data, calls)]
        return Symbols(defined, tuple(_names_at(names, wanted[0])), tuple(_names_at(names, wanted[1])))
    except ValueError as problem:
        raise NotElf("is an ELF file with a symbol outside of its string table") from problem


def _is_offered(word: int) -> bool:
    return word >> 16 != 0 and (word >> 4) & 15 in (GLOBAL, WEAK, UNIQUE) and (word >> 8) & 3 in VISIBLE


def _is_wanted(word: int) -> bool:
    return word >> 16 == 0 and (word >> 4) & 15 == GLOBAL


def _names_at(names: str, starts: Iterator[int] | list[int]) -> Iterator[str]:
    find = names.index
    return (names[start : find("\0", start)] for start in starts)


def _read_references(fd: int, table: tuple[int, int]) -> list[int]:
    """Return the indices of the symbols that a table of relocations asks for, each once, in its order."""
    offset, size = table
    if not offset or not size:
        return []
    words = _read_words(fd, offset, size - size % RELOCATION_SIZE)
    return [index for index in dict.fromkeys(words[3::WORDS]) if index]


def _count_hashed(fd: int, offset: int) -> int:
    """Return the number of symbols by walking the last chain of a GNU hash table; 0 where there is none."""
    head = read_at(fd, offset, 16)
    if not offset or len(head) != 16:
        return 0
    buckets: int
    first: int
    buckets, first, blooms, _ = struct.unpack("<IIII", head)
    start = offset + 16 + blooms * 8
    last = max(_read_words(fd, start, buckets * 4), default=0)
    if last < first:
        return first
    chain = start + buckets * 4
    for index in range(last, MOST_SYMBOLS, 1024):
        links = _words(read_at(fd, chain + (index - first) * 4, 4096))
        end = next((at for at, link in enumerate(links) if link & 1), None)
        if end is not None:
            return index + end + 1
        if len(links) < 1024:
            break
    raise NotElf("is an ELF file whose hash table has no end")


def _read_words(fd: int, offset: int, size: int) -> "array[int]":
    return _words(_read_table(fd, offset, size, MOST_TABLE))


def _words(content: bytes) -> "array[int]":
    words = array("I", content[: len(content) // 4 * 4])
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _read_table(fd: int, offset: int, size: int, most: int) -> bytes:
    if size > most:
        raise NotElf("is an ELF file with a table too large to be read")
    content = read_at(fd, offset, size)
    if len(content) != size:
        raise NotElf("is an ELF file that ends before its tables do")
    return content
