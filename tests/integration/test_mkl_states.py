"""Real MKL releases in every state that breaks numpy: what is said beforehand is what then happens, to the letter.

The small set covers every verdict that files can have, with modules compiled on the spot. AFTERCARE_MKL=full adds all
releases and pairs of releases, and numpy itself in both linkages: in each state, not in some of its own.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from agent.host.loader import blas
from agent.host.loader.cpu import read_cpu
from agent.mkl.facts import Around, Built
from agent.mkl.verdict import Kind, Linkage, Verdict
from agent.model.facts import Host
from tests.integration.mkl_files import DEBIAN, SUFFIX, consumers, openmp, release
from tests.integration.mkl_stage import ANSWER, COMPLEX, GELST, NUMPY, REAL, SIMPLE, Outcome, Stage

OLD, MIDDLE, NEW = "2022.2.1", "2024.2.2", "2026.2.0"
full = pytest.mark.full_matrix
with_avx512 = pytest.mark.skipif("avx512vl" not in read_cpu(Host()).flags, reason="this processor has no AVX-512")
either = pytest.mark.parametrize("stage", ["probe", pytest.param("numpy", marks=full)], indirect=True)
"""A module compiled on the spot; in the full matrix numpy itself, too."""
Test = Callable[..., None]


def both(test: Test) -> Test:
    """In both linkages."""
    marked: Test = either(pytest.mark.parametrize("linkage", ["layered", "sdl"])(test))
    return marked


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Stage:
    return Stage(tmp_path, itself=getattr(request, "param", "probe") == "numpy")


def build(stage: Stage, linkage: str, version: str = MIDDLE) -> None:
    stage.build_layered(version) if linkage == "layered" else stage.build_single(version)


def with_environment(stage: Stage, **environment: str) -> Stage:
    return replace(stage, environment=environment)


def as_said(said: Verdict, came: Outcome, body: str = REAL) -> bool:
    """Whether an import came to what the verdict expects: the same return code, and the very lines."""
    assert said.expected is not None
    assert came.status == said.expected.status, (said, came)
    for line in said.expected.text.splitlines():
        assert any(printed == line or printed.endswith(f": {line}") for printed in came.printed), (said, came)
    if not said.expected.status:
        assert came.printed == (ANSWER[body],), (said, came)
    return True


def as_far_as_said(said: Verdict, came: Outcome) -> bool:
    """The same, where the verdict may leave open which function ends the program: then with what it says of why."""
    if said.expected is not None:
        return as_said(said, came)
    assert said.kind is Kind.FAIL_MIXED, said
    if came.status == 0:
        assert came.printed == (ANSWER[REAL],), (said, came)
        return True
    assert came.status == 127, (said, came)
    library = came.printed[-1].partition("symbol lookup error: ")[2].partition(": undefined symbol: ")[0]
    assert any(line.startswith(f"{library} lacks the symbol ") for line in said.evidence), (said, came)
    return True


def command(said: Verdict) -> str:
    """The first thing to type."""
    return next(repair.command for repair in said.repairs if repair.command)


# What works


@both
def test_the_release_that_it_was_built_with_works(stage: Stage, linkage: str) -> None:
    stage.lay(MIDDLE)
    stage.lay_openmp()
    build(stage, linkage)
    said = stage.judge()
    assert (said.kind, said.linkage) == (Kind.OK, Linkage(linkage))
    assert as_said(said, stage.load())
    assert stage.judge(Around(previous=said.marks)).kind is Kind.OK_UNCHANGED
    assert stage.judge(Around(previous={**said.marks, next(iter(said.marks)): "00"})).kind is Kind.OK
    assert stage.judge(Around(previous=said.marks, old_mappings=("notebook.service",))).kind is Kind.RESTART


def test_a_module_without_mkl_is_none_of_ours(stage: Stage) -> None:
    stage.build([], SIMPLE)
    said = stage.judge()
    assert said.kind is Kind.NOT_MKL
    assert as_said(said, stage.load(), SIMPLE)


def test_what_came_with_the_package_is_only_told(stage: Stage) -> None:
    inner = Stage(stage.home / "numpy.libs")
    inner.lay(MIDDLE)
    inner.lay_openmp()
    stage.build([f"libmkl_rt{SUFFIX[MIDDLE]}"], runpath=str(inner.lib))
    for path in list(inner.lib.iterdir()):
        real = path.resolve()
        path.unlink()
        try:
            os.link(real, path)
        except OSError:
            shutil.copy(real, path)
    said = stage.judge()
    assert said.kind is Kind.INFO
    assert as_said(said, stage.load())


# Debian's own


def test_debians_mkl_as_an_alternative_needs_openmp(stage: Stage) -> None:
    stage.lay(DEBIAN)
    stage.put("libblas.so.3", stage.lib / "libmkl_rt.so")
    stage.build(["libblas.so.3"])
    said = stage.judge()
    assert (said.kind, said.linkage) == (Kind.FAIL_OMP, Linkage.ALTERNATIVE)
    assert command(said) == "apt-get install libomp-dev"
    assert as_said(said, stage.load())
    alone = with_environment(stage, MKL_THREADING_LAYER="SEQUENTIAL")
    assert alone.judge().kind is Kind.OK
    assert as_said(alone.judge(), alone.load())
    stage.lay_openmp()
    assert stage.judge().kind is Kind.OK
    assert as_said(stage.judge(), stage.load())


@either
def test_debians_mkl_fails_whoever_is_layered_on_it(stage: Stage) -> None:
    """The error of 2014."""
    stage.lay(DEBIAN)
    stage.build_layered(DEBIAN)
    said = stage.judge()
    assert said.kind is Kind.REBUILD
    assert as_said(said, stage.load())


def test_debians_scipy_on_debians_mkl_reckons_wrongly(stage: Stage) -> None:
    stage.lay(DEBIAN)
    stage.lay_openmp()
    stage.put("libblas.so.3", stage.lib / "libmkl_rt.so")
    stage.build(["libblas.so.3"], COMPLEX)
    came = stage.load()
    assert stage.judge().kind is Kind.WRONG_RESULTS
    assert came.status or came.printed != ("1",)
    gnu = with_environment(stage, MKL_INTERFACE_LAYER="GNU,LP64")
    assert as_said(gnu.judge(), gnu.load(), COMPLEX)


# What has gone


@both
def test_other_names_of_files_mean_a_rebuild(stage: Stage, linkage: str) -> None:
    stage.lay(NEW)
    build(stage, linkage)
    said = stage.judge(Around(built=Built("mkl-dynamic-lp64-seq", MIDDLE)))
    assert said.kind is Kind.REBUILD
    assert command(said) == "apt-get install intel-oneapi-mkl-core-2024.2"
    assert any("libmkl_rt.so.3" in line for line in said.evidence)
    assert as_said(said, stage.load())
    assert stage.judge(Around(manager="pip")).kind is Kind.FAIL_ENV
    assert command(stage.judge(Around(manager="conda"))) == "conda install 'mkl>=2022,<2026'"


@both
def test_links_by_the_old_names_load_a_newer_release(stage: Stage, linkage: str) -> None:
    stage.lay(NEW)
    stage.lay_openmp()
    for path in list(stage.lib.glob("*.so.3")):
        stage.put(path.name.replace(".so.3", ".so.2"), path)
    build(stage, linkage)
    assert stage.judge().kind is Kind.OK
    assert as_said(stage.judge(), stage.load())


@both
def test_without_any_mkl_it_does_not_load(stage: Stage, linkage: str) -> None:
    build(stage, linkage)
    said = stage.judge()
    assert said.kind is Kind.FAIL_MISSING
    assert as_said(said, stage.load())


@both
@pytest.mark.parametrize("part", ["core", "intel_lp64", "intel_thread", "sequential", "def", "vml_def"])
def test_one_missing_file_matters_where_it_is_used(stage: Stage, linkage: str, part: str) -> None:
    stage.lay(MIDDLE, without=[part, "avx512", "avx2"] if part == "def" else [part])
    stage.lay_openmp()
    build(stage, linkage)
    said = stage.judge()
    unused = part == "vml_def" or part == ("sequential" if linkage == "sdl" else "intel_thread")
    assert said.kind is (Kind.OK if unused else Kind.FAIL_MISSING)
    assert as_said(said, stage.load())


def test_a_link_into_a_release_that_was_removed_fails_the_whole_host(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a name that no Debian host has: liblapack64.so.3 comes from a package of its own."""
    choices = stage.home / "alternatives"
    choices.mkdir()
    (choices / "libcblas64.so.3-x86_64-linux-gnu").symlink_to(stage.home / "oneapi/latest/lib/libmkl_rt.so.2")
    (choices / "liblapack64.so.3-x86_64-linux-gnu").symlink_to(stage.home / "oneapi/latest/lib/libmkl_rt.so.2")
    stage.put("liblapack64.so.3", choices / "liblapack64.so.3-x86_64-linux-gnu")
    stage.build(["liblapack64.so.3"])
    monkeypatch.setattr(blas, "ALTERNATIVES", str(choices))
    said = stage.judge()
    assert (said.kind, said.severity) == (Kind.FAIL_SYSTEM, "critical")
    assert command(said) == "update-alternatives --auto liblapack64.so.3-x86_64-linux-gnu"
    assert as_said(said, stage.load())


def test_libmkl_rt_looks_beside_the_name_by_which_it_was_loaded(stage: Stage) -> None:
    """Intel's file as an alternative for libblas.so.3, without an entry in ld.so.conf.d."""
    intel = Stage(stage.home / "oneapi")
    intel.lay(MIDDLE)
    intel.lay_openmp()
    stage.put("libblas.so.3", intel.lib / "libmkl_rt.so.2")
    (intel.lib / "libmkl_rt.so.2").unlink()
    shutil.copy(release(MIDDLE) / "libmkl_rt.so.2", intel.lib)
    stage.build(["libblas.so.3"])
    said = stage.judge()
    assert (said.kind, said.linkage) == (Kind.FAIL_MISSING, Linkage.ALTERNATIVE)
    assert f"echo {intel.lib} >/etc/ld.so.conf.d/mkl.conf" in [repair.command for repair in said.repairs]
    assert as_said(said, stage.load())
    known = with_environment(stage, LD_LIBRARY_PATH=str(intel.lib))
    assert known.judge().kind is Kind.OK
    assert as_said(known.judge(), known.load())


# What does not fit


@either
def test_layered_and_kernels_that_do_not_name_the_core_mean_a_rebuild(stage: Stage) -> None:
    stage.lay(OLD)
    stage.build_layered(MIDDLE)
    said = stage.judge()
    assert said.kind is Kind.REBUILD
    assert said.expected is not None and "Intel MKL FATAL ERROR: Cannot load" in said.expected.text
    assert "-Dblas=mkl-sdl" in command(said)
    assert as_said(said, stage.load())


@either
def test_the_same_files_serve_who_is_bound_to_libmkl_rt(stage: Stage) -> None:
    stage.lay(OLD)
    stage.lay_openmp()
    stage.build_single(MIDDLE)
    said = stage.judge()
    assert said.kind is Kind.OK
    assert as_said(said, stage.load())


@both
def test_a_release_that_is_half_unpacked_is_mixed(stage: Stage, linkage: str) -> None:
    stage.lay(MIDDLE)
    stage.lay(OLD, "sequential", "intel_thread")
    stage.lay_openmp()
    build(stage, linkage)
    said = stage.judge()
    assert said.kind is Kind.FAIL_MIXED
    assert command(said) == "dpkg --audit"
    assert as_said(said, stage.load())


def test_a_core_of_another_release_ends_the_program_in_some_function_alone(stage: Stage) -> None:
    """Bound to libmkl_rt, what the others lack is missed only when it is called."""
    stage.lay(MIDDLE)
    stage.lay(OLD, "core")
    stage.lay_openmp()
    stage.build_single(MIDDLE)
    said = stage.judge()
    assert (said.kind, said.expected, command(said)) == (Kind.FAIL_MIXED, None, "dpkg --audit")
    assert as_far_as_said(said, stage.load())
    stage.build_single(MIDDLE, GELST)
    came = stage.load()
    assert came.printed[-1].endswith("libmkl_intel_lp64.so.2: undefined symbol: mkl_lapack_dgelst")
    assert as_far_as_said(stage.judge(), came)
    stage.lay(MIDDLE)
    assert as_said(stage.judge(), stage.load(), GELST)


@either
def test_a_directory_in_ld_library_path_comes_first(stage: Stage) -> None:
    other = Stage(stage.home / "other")
    other.lay(OLD)
    stage.lay(MIDDLE)
    stage.lay_openmp()
    led = with_environment(stage, LD_LIBRARY_PATH=str(other.lib))
    led.build_layered(MIDDLE)
    said = led.judge()
    assert said.kind is Kind.FAIL_ENV
    assert f"LD_LIBRARY_PATH={other.lib}" in said.repairs[0].why
    assert as_said(said, led.load())
    led.build_single(MIDDLE)
    said = led.judge()
    assert said.kind is Kind.FAIL_OMP
    assert f"LD_LIBRARY_PATH={other.lib}" in said.repairs[0].why
    assert as_said(said, led.load())


# What the environment does


@both
def test_openmp_is_needed_by_libmkl_rt_alone(stage: Stage, linkage: str) -> None:
    stage.lay(MIDDLE)
    build(stage, linkage)
    said = stage.judge()
    assert said.kind is (Kind.FAIL_OMP if linkage == "sdl" else Kind.OK)
    assert as_said(said, stage.load())
    for layer in ("GNU", "sequential", "Sequential"):
        other = with_environment(stage, MKL_THREADING_LAYER=layer)
        assert as_said(other.judge(), other.load())
        assert other.judge().kind is (said.kind if layer == "Sequential" else Kind.OK)


@either
def test_layered_on_intels_threads_it_does_not_load_without_their_openmp(stage: Stage) -> None:
    stage.lay(MIDDLE)
    stage.build_threaded(MIDDLE)
    said = stage.judge()
    assert (said.kind, said.linkage, command(said)) == (Kind.FAIL_OMP, Linkage.LAYERED, "apt-get install libomp-dev")
    assert as_said(said, stage.load())
    stage.lay_openmp()
    assert stage.judge().kind is Kind.OK
    assert as_said(stage.judge(), stage.load())
    (stage.lib / "libmkl_intel_thread.so.2").unlink()
    assert stage.judge().kind is Kind.FAIL_MISSING
    assert as_said(stage.judge(), stage.load())


LOADED_FIRST = "import ctypes; ctypes.CDLL({!r}){}\n"
USED = ".omp_get_max_threads()"
"""A runtime takes hold of the process at its first use."""


@either
def test_two_openmp_runtimes_may_meet_in_one_process(stage: Stage) -> None:
    stage.lay(MIDDLE)
    stage.lay_openmp()
    stage.build_single(MIDDLE)
    other = stage.home / "libiomp5.so"
    shutil.copy(openmp(), other)
    said = stage.judge(Around(openmp=(str(other),)))
    assert (said.kind, said.severity) == (Kind.INFO, "info")
    assert "OMP: Error #15" in said.summary
    assert as_said(said, stage.load())
    code = NUMPY if stage.itself else "import probe; print(probe.answer)"
    came = stage.load(LOADED_FIRST.format(str(other), USED) + code)
    assert came.status == -signal.SIGABRT
    assert any(line.startswith("OMP: Error #15: Initializing libiomp5.so") for line in came.printed)
    assert as_said(said, stage.load(LOADED_FIRST.format("libgomp.so.1", USED) + code))
    gnu = with_environment(stage, MKL_THREADING_LAYER="GNU")
    assert gnu.judge(Around(openmp=(str(other),))).kind is Kind.OK
    assert as_said(gnu.judge(), gnu.load(LOADED_FIRST.format(str(other), USED) + code))


@both
def test_binding_at_once_is_too_early_for_libmkl_rt(stage: Stage, linkage: str) -> None:
    stage.lay(MIDDLE)
    stage.lay_openmp()
    build(stage, linkage)
    eager = with_environment(stage, LD_BIND_NOW="1")
    said = eager.judge()
    assert said.kind is (Kind.FAIL_ENV if linkage == "sdl" else Kind.OK)
    assert as_said(said, eager.load())


@either
def test_a_release_without_the_gnu_interface(stage: Stage) -> None:
    stage.lay(NEW)
    stage.lay_openmp()
    gnu = with_environment(stage, MKL_INTERFACE_LAYER="GNU,LP64")
    gnu.build_single(NEW)
    said = gnu.judge()
    assert said.kind is Kind.FAIL_INTERFACE
    assert any("2026.1" in repair.command for repair in said.repairs)
    assert as_said(said, gnu.load())
    assert as_said(stage.judge(), stage.load())


@either
def test_a_threading_layer_that_is_not_there(stage: Stage) -> None:
    stage.lay(MIDDLE)
    other = with_environment(stage, MKL_THREADING_LAYER="TBB")
    other.build_single(MIDDLE)
    said = other.judge()
    assert said.kind is Kind.FAIL_ENV
    assert as_said(said, other.load())


# What is wrong in silence


def test_complex_numbers_come_back_wrong_from_intels_interface(stage: Stage) -> None:
    stage.lay(MIDDLE)
    stage.lay_openmp()
    stage.put("libblas.so.3", stage.lib / "libmkl_rt.so.2")
    stage.build(["libblas.so.3"], COMPLEX)
    said, came = stage.judge(), stage.load()
    assert (said.kind, said.severity, said.linkage) == (Kind.WRONG_RESULTS, "critical", Linkage.ALTERNATIVE)
    assert came.status or came.printed != ("1",)
    gnu = with_environment(stage, MKL_INTERFACE_LAYER="GNU,LP64")
    assert gnu.judge().kind is Kind.OK
    assert as_said(gnu.judge(), gnu.load(), COMPLEX)


@both
@with_avx512
def test_an_intel_processor_without_its_kernel_is_slow(stage: Stage, linkage: str) -> None:
    intel = replace(stage, as_intel=True)
    intel.lay(MIDDLE)
    intel.lay_openmp()
    build(intel, linkage)
    assert intel.judge().kind is Kind.OK
    (intel.lib / "libmkl_avx512.so.2").unlink()
    said = intel.judge()
    assert (said.kind, said.severity) == (Kind.DEGRADED, "warning")
    assert as_said(said, intel.load())
    (intel.lib / "libmkl_def.so.2").unlink()
    said = intel.judge()
    assert said.kind is Kind.FAIL_MISSING
    assert said.expected is not None and "Cannot load libmkl_avx512.so.2 or libmkl_def.so.2." in said.expected.text
    assert as_said(said, intel.load())


@either
@with_avx512
def test_an_intel_processor_and_kernels_that_do_not_name_the_core(stage: Stage) -> None:
    intel = replace(stage, as_intel=True)
    intel.lay(OLD)
    intel.build_layered(MIDDLE)
    said = intel.judge()
    assert said.kind is Kind.REBUILD
    assert as_said(said, intel.load())


# What cannot be told


@either
@pytest.mark.parametrize("size", [0, 63, 4096, 1 << 20])
def test_a_file_that_was_cut_off_is_unknown_and_costs_nothing(stage: Stage, size: int) -> None:
    stage.lay(MIDDLE)
    stage.lay_openmp()
    stage.build_single(MIDDLE)
    whole = (stage.lib / "libmkl_core.so.2").resolve()
    (stage.lib / "libmkl_core.so.2").unlink()
    with whole.open("rb") as source:
        (stage.lib / "libmkl_core.so.2").write_bytes(source.read(size))
    said = stage.judge()
    assert (said.kind, said.severity, said.expected) == (Kind.UNKNOWN, "unknown", None)
    assert any("libmkl_core.so.2" in line for line in said.evidence)


# Real packages


@pytest.fixture
def site(stage: Stage) -> Path:
    """An environment as pip makes it: libraries in lib, packages two levels below."""
    place = stage.home / "lib" / "python3" / "site-packages"
    shutil.copytree(consumers(), place)
    return place


def bound(site: Path) -> Iterator[Path]:
    yield from (*site.glob("mkl/_mklinit*.so"), *site.glob("mkl_fft/_pydfti*.so"))


CALL = "import mkl; print(mkl.dsecnd() * 0, mkl.get_version()['MajorVersion'])"


def test_packages_with_an_rpath_find_their_mkl_whatever_ld_library_path_says(stage: Stage, site: Path) -> None:
    other = Stage(stage.home / "other")
    other.lay(NEW, without=["core"])
    stage.lay(NEW)
    stage.lay_openmp()
    led = with_environment(stage, LD_LIBRARY_PATH=str(other.lib))
    verdicts = {path.name: led.judge(module=path).kind for path in bound(site)}
    assert len(verdicts) == 2 and set(verdicts.values()) == {Kind.OK}, verdicts
    assert led.load(CALL, site).printed == ("0.0 2026",)


def test_packages_without_their_mkl_fail_in_their_environment(stage: Stage, site: Path) -> None:
    stage.lay(MIDDLE)
    for path in bound(site):
        said = stage.judge(Around(manager="pip"), path)
        assert said.kind is Kind.FAIL_ENV
        assert command(said) == "python3 -m pip install 'mkl>=2026,<2027'"
    assert as_said(said, stage.load("import mkl", site))


# All releases


def lay_all(stage: Stage, version: str) -> None:
    stage.lay(version)
    stage.lay_openmp()


@full
@both
@pytest.mark.parametrize("built", [DEBIAN, "2021.4.0", MIDDLE, NEW])
@pytest.mark.parametrize("there", list(SUFFIX))
def test_every_release_under_every_build(stage: Stage, linkage: str, built: str, there: str) -> None:
    lay_all(stage, there)
    build(stage, linkage, built)
    said = stage.judge()
    if SUFFIX[built] != SUFFIX[there]:
        assert said.kind is Kind.REBUILD
    elif linkage == "layered" and there < "2023":
        assert said.kind is Kind.REBUILD
    else:
        assert said.kind is Kind.OK
    assert as_said(said, stage.load())


GROUPS: dict[str, Callable[[Stage, str], None]] = {
    "interface": lambda stage, version: stage.lay(version, "rt", "intel_lp64", "gf_lp64"),
    "core": lambda stage, version: stage.lay(version, "core"),
    "threading": lambda stage, version: stage.lay(version, "sequential", "intel_thread", "gnu_thread"),
    "kernels": lambda stage, version: stage.lay(version, "def", "avx2", "avx512"),
}
PAIRS = [pair for pair in product([OLD, MIDDLE, "2025.3.1"], repeat=2) if pair[0] != pair[1]]
PAIRS += [("2023.2.0", "2024.0.0"), ("2024.0.0", "2023.2.0")]
"""Where most symbols came and went."""


@full
@both
@pytest.mark.parametrize("group", list(GROUPS))
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_every_mixture_of_two_releases(stage: Stage, linkage: str, group: str, pair: tuple[str, str]) -> None:
    lay_all(stage, pair[0])
    GROUPS[group](stage, pair[1])
    build(stage, linkage)
    assert as_far_as_said(stage.judge(), stage.load())


@full
@both
@with_avx512
@pytest.mark.parametrize("group", list(GROUPS))
@pytest.mark.parametrize("pair", [(OLD, MIDDLE), (MIDDLE, OLD)], ids="+".join)
def test_every_mixture_on_an_intel_processor(stage: Stage, linkage: str, group: str, pair: tuple[str, str]) -> None:
    test_every_mixture_of_two_releases(replace(stage, as_intel=True), linkage, group, pair)


@full
@pytest.mark.parametrize("interface", ["", "LP64", "GNU", "gnu,lp64", "ILP64", "GNU,ILP64", "Gnu"])
@pytest.mark.parametrize("threading", ["", "INTEL", "gnu", "SEQUENTIAL", "TBB", "nonsense", " GNU "])
@pytest.mark.parametrize("version", [DEBIAN, "2021.4.0", MIDDLE, NEW])
def test_every_word_in_the_variables(stage: Stage, version: str, interface: str, threading: str) -> None:
    words = with_environment(stage, MKL_INTERFACE_LAYER=interface, MKL_THREADING_LAYER=threading)
    lay_all(words, version)
    words.build_single(version)
    assert as_said(words.judge(), words.load())
