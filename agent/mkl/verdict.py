"""The verdict on one module that may be bound to MKL: what will happen, what it says, what to do. Pure.

Whether it loads is settled first; then whether its numbers are right; then whether it is slow; only then whether
something changed. An unknown is no alarm. Foreign text in the answers is raw: whoever shows it makes it printable.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.mkl import reasons, repairs
from agent.mkl.facts import Facts, Library
from agent.mkl.kinds import SEVERITY, Kind, Reason
from agent.mkl.linkage import BLAS, OPENMP, Linkage, find_linkage, is_mkl
from agent.mkl.loading import Failure, first_failure, late_failures, slow_kernel
from agent.mkl.repairs import Repair

__all__ = ["RANK", "Expected", "Kind", "Linkage", "Repair", "Verdict", "judge", "worst"]

SHOWN = 12
RANK = {kind: rank for rank, kind in enumerate(Kind)}
"""The worst first. There may be thousands to compare."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What `python -c 'import …'` (and a first call, where the import makes none) ends with and prints about it.

    text: the lines that tell; empty where all is well, or where what goes wrong is silent.
    """

    status: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """severity: in the words of a finding. expected: None where it cannot be told.

    marks: real path of each MKL file in use → its build-id or hash, to be given back as `Around.previous`.
    """

    kind: Kind
    severity: str
    summary: str
    linkage: Linkage
    evidence: tuple[str, ...] = ()
    expected: Expected | None = Expected()
    repairs: tuple[Repair, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)


def judge(facts: Facts) -> Verdict:
    """Return the verdict on `facts`."""
    linkage = find_linkage(facts.load)
    broken = [row for load in (facts.load, *facts.opened.values()) for row in load.broken]
    if not facts.load.libraries or (broken and linkage is not Linkage.NONE):
        lines = tuple(reason for _, reason in broken) or (f"{facts.module} is gone",)
        return _verdict(facts, linkage, Reason(Kind.UNKNOWN, "what this module loads could not be read", lines), None)
    if linkage is Linkage.NONE:
        return _verdict(facts, linkage, *_without(facts))
    failure = first_failure(facts)
    if failure:
        return _verdict(facts, linkage, reasons.explain(facts, failure), _expect(failure))
    late = late_failures(facts)
    if late:
        return _verdict(facts, linkage, reasons.explain_late(facts, late), None)
    wrong = reasons.wrong_results(facts)
    return _verdict(facts, linkage, wrong or _slow(facts) or _changed(facts, linkage))


def _verdict(facts: Facts, linkage: Linkage, reason: Reason, expected: Expected | None = Expected()) -> Verdict:
    built = facts.around.built
    history = (f"built against {built.name} {built.version}".rstrip(),) if built.name else ()
    known = () if reason.kind is Kind.NOT_MKL else (*_files(facts), *history)
    marks = {item.real: item.mark for item in _libraries(facts)}
    evidence = (*reason.evidence, *known)
    severity = SEVERITY[reason.kind]
    return Verdict(reason.kind, severity, reason.summary, linkage, evidence, expected, reason.repairs, marks)


def _expect(failure: Failure) -> Expected:
    return Expected(failure.status, failure.text)


def _libraries(facts: Facts) -> list[Library]:
    """Return the MKL files in use, each once."""
    loads = (facts.load, *facts.opened.values())
    found = {item.real: item for load in loads for item in load.libraries if is_mkl(item)}
    return list(found.values())


def _files(facts: Facts) -> tuple[str, ...]:
    return tuple(_told(facts, item) for item in _libraries(facts)[:SHOWN])


def _told(facts: Facts, library: Library) -> str:
    owner = facts.around.owners.get(library.real)
    lead = "" if library.path == library.real else f"{library.path} → "
    return f"{lead}{library.real}{f' ({owner[0]} {owner[1]})' if owner else ''}"


def _without(facts: Facts) -> tuple[Reason, Expected]:
    """A module without MKL is none of ours, but for the BLAS that a dangling alternative takes from the whole host."""
    failure = first_failure(facts)
    if failure and reasons.dangling(facts, failure.name):
        return reasons.explain(facts, failure), _expect(failure)
    lost = ((name, by) for name, by in facts.load.missing if BLAS.fullmatch(name))
    lines = tuple(f"{name}, which {by} needs, is nowhere" for name, by in lost)
    return Reason(Kind.NOT_MKL, "not bound to MKL", lines), Expected()


def _slow(facts: Facts) -> Reason | None:
    failure = slow_kernel(facts)
    if failure is None:
        return None
    why = f"{failure.name} cannot be used: {failure.reason}."
    summary = "MKL falls back to its kernel for all processors: about 6 times slower"
    return Reason(Kind.DEGRADED, summary, (why,), (repairs.bring_back(facts, failure.name),))


def _changed(facts: Facts, linkage: Linkage) -> Reason:
    if facts.around.old_mappings:
        summary = "MKL was replaced; what runs still uses the old one"
        return Reason(Kind.RESTART, summary, facts.around.old_mappings, (repairs.restart(),))
    told = _to_know(facts, linkage)
    if told:
        return told
    marks = {item.real: item.mark for item in _libraries(facts)}
    same = bool(marks) and all(mark and facts.around.previous.get(path) == mark for path, mark in marks.items())
    if same:
        return Reason(Kind.OK_UNCHANGED, "the same MKL as before")
    return Reason(Kind.OK, "works with this MKL")


def _to_know(facts: Facts, linkage: Linkage) -> Reason | None:
    if linkage is Linkage.STATIC:
        return Reason(Kind.INFO, "MKL is built into the module: no upgrade of MKL changes it")
    loads = (facts.load, *facts.opened.values())
    loaded = (item.real for load in loads for item in load.libraries)
    runtimes = tuple(dict.fromkeys((*(path for path in loaded if _is_openmp(path)), *facts.around.openmp)))
    if len(runtimes) > 1:
        summary = "two OpenMP runtimes may meet in one process, which then ends with OMP: Error #15"
        return Reason(Kind.INFO, summary, runtimes)
    if any(".libs/" in item.real for item in _libraries(facts)):
        return Reason(Kind.INFO, "MKL came with the package: no upgrade of the host's MKL changes it")
    return None


def _is_openmp(path: str) -> bool:
    return bool(OPENMP.fullmatch(path.rpartition("/")[2]))


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict that counts for an environment with several modules; there must be one."""
    return min(verdicts, key=lambda verdict: RANK[verdict.kind])
