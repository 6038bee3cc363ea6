"""What numpy says of its own build, out of the source text of `numpy/__config__.py`. It is parsed, never run.

Build-time facts only: which BLAS it was linked with then; nothing of the one that is there now. The text may be
anybody's: it is bounded in size, and in depth before Python's parser, which recurses, gets to see it.
"""

import ast
import contextlib
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.host.beneath import read_beneath
from agent.host.mounts import Mounts, open_local
from agent.model.facts import Host

LARGEST = 64 << 10
DEEPEST = 40
"""Brackets within brackets; numpy's own has 6."""
LONGEST_STATEMENT = 1_000
"""Operators, dots and words between two commas or newlines: each may be a level of the tree."""
LONGEST_WORD = 300
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_PART = re.compile(r"[^\n,:]+")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_DISTUTILS = re.compile(r"(?:blas|lapack)\w*_info")


@dataclass(frozen=True, slots=True)
class Build:
    """The BLAS that numpy was built with: its name, its version and the directory it lay in; empty where not told."""

    name: str = ""
    version: str = ""
    directory: str = ""


def read_build(host: Host, mounts: Mounts, site: str) -> Build:
    """Return what the numpy in a site directory says of its build; empty where it says nothing that can be read."""
    try:
        with open_local(mounts, host.under(site)) as directory:
            text = read_beneath(directory, "numpy/__config__.py", LARGEST + 1) or b""
    except OSError:
        return Build()
    return parse_build(os.fsdecode(text))


def parse_build(text: str) -> Build:
    """Return the build that the source `text` tells of: meson's `CONFIG`, or distutils' `blas_mkl_info`. Pure."""
    if len(text) > LARGEST or not _is_shallow(text):
        return Build()
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _find(ast.parse(text).body)
    return Build()


def _is_shallow(text: str) -> bool:
    """Return whether no parser can be led deep by `text`; brackets in quotes count too, and do no harm."""
    depth = 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth > DEEPEST:
            return False
    return all(sum(1 for _ in _TOKEN.finditer(part[0])) <= LONGEST_STATEMENT for part in _PART.finditer(text))


def _find(statements: Iterable[ast.stmt]) -> Build:
    old: dict[str, ast.Dict] = {}
    for name, value in _assignments(statements):
        if name == "CONFIG":
            return _meson(value)
        if isinstance(value, ast.Dict) and _DISTUTILS.fullmatch(name):
            old[name] = value
    told = (_distutils(old[name]) for name in sorted(old, key=lambda name: ("mkl" not in name, name)))
    return next((build for build in told if build.name), Build())


def _assignments(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield statement.targets[0].id, statement.value


def _meson(value: ast.expr) -> Build:
    """`_cleanup({"Build Dependencies": {"blas": {"name": …`"""
    inner = value.args[0] if isinstance(value, ast.Call) and value.args else value
    blas = _item(_item(inner, "Build Dependencies"), "blas")
    return Build(*(_text(_item(blas, key)) for key in ("name", "version", "lib directory")))


def _distutils(value: ast.Dict) -> Build:
    """`{'libraries': ['mkl_rt', 'pthread'], 'library_dirs': […`"""
    libraries = _texts(_item(value, "libraries"))
    name = next((item for item in libraries if "mkl" in item), next(iter(libraries), ""))
    return Build(name, "", next(iter(_texts(_item(value, "library_dirs"))), ""))


def _item(value: ast.expr | None, wanted: str) -> ast.expr | None:
    if not isinstance(value, ast.Dict):
        return None
    pairs = zip(value.keys, value.values, strict=True)
    return next((item for key, item in pairs if isinstance(key, ast.Constant) and key.value == wanted), None)


def _texts(value: ast.expr | None) -> list[str]:
    return [_text(item) for item in value.elts] if isinstance(value, ast.List) else []


def _text(value: ast.expr | None) -> str:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value[:LONGEST_WORD]
    return ""
