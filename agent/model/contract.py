"""Values ↔ JSON.

Two shapes: `encode`/`decode` carry any noun of the model between our own processes, losslessly (surrogates of
PEP 383 included); `finding` is the shape of DESIGN §3 that others rely on, with every foreign name made
printable. Errors: `decode` raises AgentError(PROTOCOL) and names the field.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from agent.model.errors import AgentError, Kind
from agent.model.facts import FileId, Indexed, StaleProcess
from agent.model.findings import Finding, StaleUnit
from agent.model.restarts import Outcome
from agent.model.text import printable, typed

T = TypeVar("T")


def stamp(moment: datetime | None) -> str | None:
    """A time as the contract writes it: UTC, whole seconds, `Z`."""
    if moment is None:
        return None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(value: Any) -> Any:
    """Return plain JSON data for any value of the model. Sets become sorted lists, times ISO 8601 with offset."""
    match value:
        case None | bool() | int() | float():
            return value
        case StrEnum():
            return value.value
        case str():
            return value
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(key): encode(item) for key, item in value.items()}
        case set() | frozenset():
            return [encode(item) for item in sorted(value)]
        case Sequence():
            return [encode(item) for item in value]
    return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}


def decode(cls: type[T], data: Any) -> T:
    """Return `data` as a `cls` of the model; the reverse of `encode`."""
    try:
        return typing.cast(T, _decode(cls, data))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise AgentError(Kind.PROTOCOL, f"{cls.__name__}: unexpected JSON: {problem}") from problem


@cache
def _fields(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(hint: Any, data: Any) -> Any:
    if hint is Any:
        return data
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, data)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_decode(arguments[0], item) for item in data)
        return tuple(_decode(kind, item) for kind, item in zip(arguments, data, strict=True))
    if origin in (set, frozenset):
        return origin(_decode(arguments[0], item) for item in data)
    if origin is dict:
        return {key: _decode(arguments[1], item) for key, item in data.items()}
    return _decode_plain(hint, data)


def _decode_plain(hint: Any, data: Any) -> Any:
    if hint is datetime:
        return datetime.fromisoformat(data)
    if dataclasses.is_dataclass(hint):
        noun: Any = hint
        hints = _fields(noun)
        return noun(**{name: _decode(hints[name], item) for name, item in data.items()})
    if issubclass(hint, StrEnum):
        return hint(data)
    if hint is float and type(data) is int:
        return float(data)
    if type(data) is not hint:
        raise TypeError(f"{data!r:.60} is not {hint.__name__}")
    return data


def _decode_union(choices: tuple[Any, ...], data: Any) -> Any:
    if data is None and type(None) in choices:
        return None
    problem: Exception | None = None
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return _decode(choice, data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = error
    raise TypeError(str(problem))


def index_row(item: Indexed) -> list[Any]:
    """Return an index row without its names: there may be tens of thousands."""
    return [item.path, item.package, item.version, item.id.device, item.id.inode, item.id.born]


def indexed(rows: Iterable[list[Any]]) -> Iterator[Indexed]:
    """The reverse of `index_row`, for many."""
    return (Indexed(path, package, version, FileId(*id)) for path, package, version, *id in rows)


def finding(item: Finding) -> dict[str, Any]:
    """Return a finding in the shape of DESIGN §3: always exactly these keys."""
    return {
        "id": printable(item.id),
        "check": item.check,
        "subject": printable(item.subject),
        "severity": item.severity.value,
        "summary": printable(item.summary),
        "advice": typed(printable(item.advice)),
        "since": stamp(item.since),
        "evidence": evidence(item.evidence),
    }


def evidence(value: StaleUnit | dict[str, Any]) -> dict[str, Any]:
    """Return the evidence of a finding, per check."""
    if isinstance(value, dict):
        return value
    return {
        "disposition": value.disposition.value,
        "confidence": value.confidence.value,
        "reason": printable(value.reason),
        "cves": list(value.cves),
        "processes": [_process(process) for process in value.processes],
        "outcome": outcome(value.outcome) if value.outcome else None,
        "opens_at": stamp(value.opens_at),
        "no_changelog": list(value.unlisted),
        "processes_total": max(value.total, len(value.processes)),
    }


def _process(process: StaleProcess) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "start": stamp(process.start),
        "exe": printable(process.exe),
        "comm": printable(process.comm),
        "uid": process.uid,
        "user": printable(process.user),
        "tty": process.tty,
        "files": [
            {
                "path": printable(file.path),
                "package": file.package,
                "running": file.running,
                "installed": file.installed,
            }
            for file in process.files
        ],
    }


def outcome(value: Outcome) -> dict[str, Any]:
    """Return what came of one restart."""
    return {
        "unit": printable(value.unit),
        "result": value.result.value,
        "took": {stage: round(seconds, 3) for stage, seconds in value.took},
        "leftovers": [printable(name) for name in value.leftovers],
        "journal": [printable(line) for line in value.journal],
        "hint": printable(value.hint),
        "expected": value.expected,
    }
