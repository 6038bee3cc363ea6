"""Why a module will fail, and what to do: one rule for each stage at which it can go wrong. Pure."""

import posixpath
from collections.abc import Sequence
from dataclasses import replace

from agent.mkl import repairs
from agent.mkl.facts import Alternative, Facts, Library
from agent.mkl.kinds import Kind, Reason
from agent.mkl.linkage import BLAS, OPENMP, Linkage, find, find_linkage, interface, is_mkl, part_of, suffix_of
from agent.mkl.loading import Failure, Stage, is_eager
from agent.mkl.repairs import Repair

COMPLEX = ("cdotc_", "cdotu_", "zdotc_", "zdotu_", "cladiv_", "zladiv_")
"""The functions of BLAS and LAPACK that return a complex number: gfortran and Intel's Fortran do it differently."""
SHOWN = 4


def explain(facts: Facts, failure: Failure) -> Reason:
    """Return what `failure` means."""
    match failure.stage:
        case Stage.MODULE:
            return _unbound(facts, failure) if failure.symbol else _missing(facts, failure)
        case Stage.LAYER:
            return _unbound_layer(facts, failure) if failure.symbol else _missing_layer(facts, failure)
        case Stage.KERNEL:
            return _kernel(facts, failure)
    summary = f"{failure.name} is not found: the first call into MKL ends the program"
    return _reason(facts, failure, Kind.FAIL_OMP, summary, *repairs.give_openmp(facts, failure.name))


def _reason(facts: Facts, failure: Failure, kind: Kind, summary: str, *advice: Repair) -> Reason:
    """Where LD_LIBRARY_PATH leads to what fails, its removal is the first thing to do."""
    led = _misled(facts, failure)
    first = (repairs.drop("LD_LIBRARY_PATH", led),) if led else ()
    note = f"LD_LIBRARY_PATH={led} comes before what the module was built with"
    evidence = (_lacking(failure), *([note] if led else []))
    return Reason(kind, summary, evidence, (*first, *advice))


def _lacking(failure: Failure) -> str:
    if failure.symbol and failure.stage is not Stage.OPENMP:
        more = f" and {failure.count - 1} more" if failure.count > 1 else ""
        return f"{failure.path} lacks the symbol {failure.symbol}{more}"
    return f"{failure.name}, which {failure.by} needs, is nowhere that it would be looked for"


def _misled(facts: Facts, failure: Failure) -> str:
    """Return LD_LIBRARY_PATH where the file that fails, or what asked for it, was found by way of it."""
    value = facts.around.environment.get("LD_LIBRARY_PATH", "")
    directories = {part.rstrip("/") for part in value.replace(";", ":").split(":") if part}
    places = {posixpath.dirname(path) for path in (failure.path, failure.by) if part_of(path)}
    return value if places & directories else ""


def _missing(facts: Facts, failure: Failure) -> Reason:
    name = failure.name
    lost = dangling(facts, name)
    if lost:
        return _dangling(failure, lost)
    if OPENMP.fullmatch(name):
        summary = f"{name} is not found: the module does not load"
        return _reason(facts, failure, Kind.FAIL_OMP, summary, *repairs.give_openmp(facts, "libiomp5.so"))
    if not part_of(name):
        summary = f"{name} is not found: the module does not load"
        return _reason(facts, failure, Kind.FAIL_MISSING, summary, repairs.find_package(name))
    others = tuple(path for path in facts.present if repairs.suffix_in(path) != repairs.suffix_in(name))
    back = repairs.bring_back(facts, name)
    if facts.around.manager:
        summary = f"{name} is not in this environment any more: its own mkl package does not fit"
        return _reason(facts, failure, Kind.FAIL_ENV, summary, back)
    if not others:
        summary = f"{name} is not installed: the module does not load"
        return _reason(facts, failure, Kind.FAIL_MISSING, summary, *repairs.put_in_place(facts, failure))
    summary = f"{name} is gone and MKL is there under another name: numpy must be rebuilt"
    reason = _reason(facts, failure, Kind.REBUILD, summary, back, *repairs.rebuild(), repairs.link_names(name))
    shown = ", ".join(others[:SHOWN])
    return Reason(reason.kind, reason.summary, (*reason.evidence, f"present instead: {shown}"), reason.repairs)


def dangling(facts: Facts, name: str) -> tuple[Alternative, ...]:
    """Return the alternatives that lead nowhere, if `name` is a BLAS or LAPACK that one of them should provide."""
    lost = tuple(item for item in facts.alternatives if not item.exists)
    return lost if BLAS.fullmatch(name) and any(item.name.startswith(f"{name}-") for item in lost) else ()


def _dangling(failure: Failure, lost: tuple[Alternative, ...]) -> Reason:
    summary = f"the alternative for {failure.name} leads to a file that is gone: nothing on this host finds its BLAS"
    evidence = tuple(f"{item.name} → {item.target}, which does not exist" for item in lost)
    return Reason(Kind.FAIL_SYSTEM, summary, evidence, repairs.reset_alternatives(lost))


def _unbound(facts: Facts, failure: Failure) -> Reason:
    """The module itself asks for what no MKL has; or MKL's own libraries do not fit each other."""
    if failure.path == facts.load.libraries[0].path and len(_places(facts)) < 2:
        summary = f"this MKL has no {failure.symbol}, which the module was built with: it must be rebuilt"
        return _reason(facts, failure, Kind.REBUILD, summary, *repairs.rebuild())
    return _mixed(facts, failure)


def _mixed(facts: Facts, failure: Failure) -> Reason:
    name = posixpath.basename(failure.path)
    summary = f"the MKL files do not fit each other: {name} lacks symbols that the others of its release have"
    reason = _reason(facts, failure, Kind.FAIL_MIXED, summary, *repairs.finish_unpacking(facts))
    versions = sorted({" ".join(owner) for owner in facts.around.owners.values()})
    places = f"MKL is loaded from {' and '.join(_places(facts))}" if len(_places(facts)) > 1 else ""
    owners = f"the files belong to {', '.join(versions[:SHOWN])}" if len(versions) > 1 else ""
    more = tuple(line for line in (places, owners) if line)
    return Reason(reason.kind, reason.summary, (*reason.evidence, *more), reason.repairs)


def explain_late(facts: Facts, failures: Sequence[Failure]) -> Reason:
    """Return what it means that libraries of MKL lack what only some functions need."""
    reason = _mixed(facts, failures[0])
    summary = "the MKL files do not fit each other: a function that needs what is lacking ends the program"
    return replace(reason, summary=summary, evidence=(*reason.evidence, *map(_lacking, failures[1:])))


def _places(facts: Facts) -> tuple[str, ...]:
    """Return the directories that MKL's files come from."""
    files = (item.real for load in (facts.load, *facts.opened.values()) for item in load.libraries if is_mkl(item))
    return tuple(dict.fromkeys(posixpath.dirname(path) for path in files))


def _unbound_layer(facts: Facts, failure: Failure) -> Reason:
    if is_eager(facts):
        return _eager(facts, failure)
    return _mixed(facts, failure)


def _eager(facts: Facts, failure: Failure) -> Reason:
    summary = "LD_BIND_NOW is set, and libmkl_rt cannot be loaded with it"
    value = facts.around.environment.get("LD_BIND_NOW", "")
    return _reason(facts, failure, Kind.FAIL_ENV, summary, repairs.drop("LD_BIND_NOW", value))


def _missing_layer(facts: Facts, failure: Failure) -> Reason:
    environment, part = facts.around.environment, part_of(failure.name)
    if part == interface(environment) and environment.get("MKL_INTERFACE_LAYER"):
        value = environment["MKL_INTERFACE_LAYER"]
        summary = f"MKL_INTERFACE_LAYER={value} asks for {failure.name}, which this MKL does not have"
        advice = repairs.drop("MKL_INTERFACE_LAYER", value), repairs.stay_below(facts, failure.name)
        return _reason(facts, failure, Kind.FAIL_INTERFACE, summary, *advice)
    if part not in ("core", "intel_thread") and part != interface(environment):
        value = environment.get("MKL_THREADING_LAYER", "")
        summary = f"MKL_THREADING_LAYER={value} asks for {failure.name}, which cannot be loaded"
        return _reason(facts, failure, Kind.FAIL_ENV, summary, repairs.drop("MKL_THREADING_LAYER", value))
    runtime = find(facts.load, "rt")
    summary = f"libmkl_rt does not find {failure.name}: the first call into MKL ends the program"
    home = posixpath.dirname(runtime.real) if runtime else ""
    if runtime and home != posixpath.dirname(runtime.path) and _lies_in(facts, home, suffix_of(runtime)):
        summary = f"libmkl_rt is loaded as {runtime.path} and looks for {failure.name} there, not in {home}"
        return _reason(facts, failure, Kind.FAIL_MISSING, summary, *repairs.tell_linker(home))
    return _reason(facts, failure, Kind.FAIL_MISSING, summary, repairs.bring_back(facts, failure.name))


def _lies_in(facts: Facts, directory: str, suffix: str) -> bool:
    return f"{directory}/libmkl_core{suffix}" in facts.present


def _kernel(facts: Facts, failure: Failure) -> Reason:
    if not failure.symbol:
        summary = f"{failure.name} is not found: the first call into MKL ends the program"
        return _reason(facts, failure, Kind.FAIL_MISSING, summary, repairs.bring_back(facts, failure.name))
    if find_linkage(facts.load) is not Linkage.LAYERED:
        return _unbound_layer(facts, failure)
    if _misled(facts, failure):
        return _reason(facts, failure, Kind.FAIL_ENV, "LD_LIBRARY_PATH leads to an MKL that this numpy cannot use")
    summary = f"{failure.name} does not name libmkl_core: with this MKL only numpy built against libmkl_rt works"
    return _reason(
        facts, failure, Kind.REBUILD, summary, *repairs.rebuild(), *repairs.upgrade_layered(facts, failure.name)
    )


def wrong_results(facts: Facts) -> Reason | None:
    """Return why complex numbers come back wrong: the module is gfortran's, the interface that answers is Intel's."""
    module, *others = facts.load.libraries
    asked = {*module.at_load, *module.at_call}
    if any(f"w{name}" in asked or f"w{name}" in module.defined for name in COMPLEX):
        return None
    names = tuple(name for name in COMPLEX if name in asked and _speaks_intel(facts, name, others))
    if not names:
        return None
    summary = "complex dot products give wrong numbers or crash: gfortran's and Intel's conventions are mixed"
    shown = ", ".join(names)
    evidence = (f"the module calls {shown} as gfortran does; MKL's Intel interface returns the result in another way",)
    return Reason(Kind.WRONG_RESULTS, summary, evidence, repairs.speak_gnu(facts))


def _speaks_intel(facts: Facts, name: str, libraries: list[Library]) -> bool:
    """Return whether the first library that offers `name` is MKL with Intel's interface."""
    owner = next((library for library in libraries if name in library.defined), None)
    part = part_of(owner.real) or part_of(owner.soname) if owner else ""
    return part.startswith("intel_") or (part == "rt" and interface(facts.around.environment).startswith("intel"))
