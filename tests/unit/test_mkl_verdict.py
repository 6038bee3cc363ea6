"""The verdicts, one by one, on made-up facts shaped like real releases; the real files have tests of their own."""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.mkl.facts import Alternative, Around, Built, Cpu, Facts, Library, Load
from agent.mkl.kinds import SEVERITY
from agent.mkl.linkage import interface, kernels, layers, part_of, suffix_of, threading, wanted_kernels
from agent.mkl.repairs import suffix_of_release
from agent.mkl.verdict import Kind, Linkage, Verdict, judge, worst

LIB = "/usr/lib/x86_64-linux-gnu"
ROOM = "/opt/intel/oneapi/mkl/2024.2/lib"
MODULE = "/srv/venv/lib/python3.11/site-packages/numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so"
XEON = Cpu("GenuineIntel", frozenset("sse4_2 avx2 fma avx512f avx512bw avx512cd avx512dq avx512vl".split()))
EPYC = replace(XEON, vendor="AuthenticAMD")
SPARSE = "mkl_sparse_optimize_bsr_trsm_i8"
FIRST_CALL = "omp_get_num_procs"
CORE = frozenset({"mkl_serv_allocate", "mkl_lapack_dgelst"})


def library(name: str, directory: str = ROOM, **fields: object) -> Library:
    found = Library(f"{directory}/{name}", f"{directory}/{name}", soname=name, mark=f"mark of {name}")
    return replace(found, **fields)  # type: ignore[arg-type]


def parts(suffix: str = ".so.2", directory: str = ROOM, old: bool = False) -> dict[str, Library]:
    """A whole release: what each offers and asks for, in a symbol or two.

    old: as before 2023.0, when kernels did not name the core and had symbols of the threading layer.
    """
    core = f"libmkl_core{suffix}"
    interfaces = frozenset({"cblas_ddot", "zdotu_"})
    calls = frozenset({"mkl_thread_call", SPARSE})
    kernel = (
        {"at_load": (SPARSE, "mkl_serv_allocate")} if old else {"needed": (core,), "at_load": ("mkl_serv_allocate",)}
    )
    named = {
        "rt": {"defined": interfaces if old else interfaces | {"DGELST"}},
        "core": {"defined": CORE - {"mkl_lapack_dgelst"} if old else CORE, "at_call": ("mkl_thread_call",)},
        "intel_lp64": {"defined": interfaces},
        "gf_lp64": {"defined": interfaces},
        "sequential": {"defined": calls},
        "intel_thread": {"defined": calls, "at_call": ("omp_get_num_procs",)},
        "def": kernel,
        "avx512": kernel,
    }
    made = {
        f"libmkl_{part}{suffix}": library(f"libmkl_{part}{suffix}", directory, **rest) for part, rest in named.items()
    }
    return made | {"libiomp5.so": library("libiomp5.so", directory, defined=frozenset({"omp_get_num_procs"}))}


def layered(release: Mapping[str, Library], suffix: str = ".so.2", **around: object) -> Facts:
    names = [f"libmkl_{part}{suffix}" for part in ("intel_lp64", "sequential", "core")]
    return facts(release, names, f"libmkl_core{suffix}", **around)


def single(release: Mapping[str, Library], suffix: str = ".so.2", **around: object) -> Facts:
    return facts(release, [f"libmkl_rt{suffix}"], f"libmkl_core{suffix}", **around)


def facts(release: Mapping[str, Library], names: list[str], core: str, cpu: Cpu = EPYC, **around: object) -> Facts:
    module = Library(MODULE, MODULE, needed=tuple(names), at_call=("cblas_ddot", "PyModule_Create2"))
    loaded = [release[name] for name in names if name in release]
    missing = tuple((name, MODULE) for name in names if name not in release)
    load = Load((module, *loaded), missing)
    known = Around(**around)  # type: ignore[arg-type]
    wanted = [*layers(load, known.environment), *wanted_kernels(load, cpu)]
    return Facts(MODULE, load, {item.name: opened(release, item.name, core) for item in wanted}, cpu=cpu, around=known)


def opened(release: Mapping[str, Library], name: str, core: str) -> Load:
    first = release.get(name)
    if first is None:
        return Load()
    return Load((first, *(release[item] for item in first.needed if item in release)))


def without(release: Mapping[str, Library], *names: str) -> dict[str, Library]:
    return {name: item for name, item in release.items() if name not in names}


def text(said: Verdict) -> str:
    assert said.expected is not None
    return said.expected.text


def commands(said: Verdict) -> list[str]:
    return [repair.command for repair in said.repairs]


# Names


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/x/libmkl_rt.so.2", "rt"),
        ("libmkl_intel_lp64.so", "intel_lp64"),
        ("libmkl_rt-1a2b3c4d.so.2", "rt"),
        ("libmkl_vml_avx512.so.3", "vml_avx512"),
        ("libmklml.so", ""),
        ("libmkl_rt.so.2.bak", ""),
        ("libblas.so.3", ""),
    ],
)
def test_the_names_of_mkl_are_known(path: str, part: str) -> None:
    assert part_of(path) == part


def test_how_names_end_is_told_by_the_soname() -> None:
    assert suffix_of(Library("", "/x/libmkl_rt.so.2", soname="libmkl_rt.so.3")) == ".so.3"
    assert suffix_of(Library("", "/x/libmkl_rt.so")) == ".so"
    assert suffix_of(Library("", "/x/y.libs/libmkl_rt-12345678.so.2", soname="libmkl_rt-12345678.so.2")) == ".so.2"


@pytest.mark.parametrize(
    ("word", "layer"),
    [("", "intel"), ("GNU", "gnu"), ("gnu", "gnu"), (" TBB ", "tbb"), ("Sequential", "intel"), ("1", "intel")],
)
def test_a_threading_layer_is_a_word_in_capitals_or_in_none(word: str, layer: str) -> None:
    assert threading({"MKL_THREADING_LAYER": word}) == layer


@pytest.mark.parametrize(
    ("words", "layer"),
    [("", "intel_lp64"), ("GNU", "gf_lp64"), ("LP64,GNU", "gf_lp64"), ("gnu,ilp64", "gf_ilp64"), ("Gnu", "intel_lp64")],
)
def test_an_interface_layer_is_two_words(words: str, layer: str) -> None:
    assert interface({"MKL_INTERFACE_LAYER": words}) == layer


def test_the_kernel_is_made_for_intels_processors_alone() -> None:
    assert kernels(XEON, ".so.2") == ("libmkl_avx512.so.2", "libmkl_def.so.2")
    assert kernels(Cpu("GenuineIntel", frozenset({"sse4_2", "avx2", "fma"})), ".so") == (
        "libmkl_avx2.so",
        "libmkl_def.so",
    )
    assert kernels(Cpu("GenuineIntel", frozenset({"sse4_2"})), ".so") == ("libmkl_mc3.so", "libmkl_def.so")
    assert kernels(EPYC, ".so.2") == kernels(Cpu(), ".so.2") == ("libmkl_def.so.2",)


@pytest.mark.parametrize(
    ("release", "suffix"),
    [
        ("2020.4", ".so"),
        ("2021.4", ".so.1"),
        ("2022.0", ".so.2"),
        ("2025.3", ".so.2"),
        ("2026.0", ".so.3"),
        ("0.3.29", ""),
    ],
)
def test_a_release_tells_how_its_files_end(release: str, suffix: str) -> None:
    assert suffix_of_release(release) == suffix


# What works


@pytest.mark.parametrize("cpu", [XEON, EPYC])
def test_a_whole_release_works_in_both_linkages(cpu: Cpu) -> None:
    for build, linkage in ((layered, Linkage.LAYERED), (single, Linkage.SDL)):
        said = judge(build(parts(), cpu=cpu))
        assert (said.kind, said.linkage, said.severity) == (Kind.OK, linkage, "info")
        assert said.expected is not None and not said.expected.status
        assert not said.repairs


def test_the_same_build_ids_are_no_news_and_others_are() -> None:
    said = judge(single(parts()))
    assert f"{ROOM}/libmkl_core.so.2" in said.marks
    assert judge(single(parts(), previous=said.marks)).kind is Kind.OK_UNCHANGED
    other = {**said.marks, f"{ROOM}/libmkl_core.so.2": "another"}
    assert judge(single(parts(), previous=other)).kind is Kind.OK
    assert judge(single(parts(), previous={})).kind is Kind.OK


def test_what_cannot_be_told_apart_is_not_called_unchanged() -> None:
    release = {name: replace(item, mark="") for name, item in parts().items()}
    assert judge(single(release, previous=dict.fromkeys(judge(single(release)).marks, ""))).kind is Kind.OK


def test_who_still_runs_the_old_files_is_to_be_restarted() -> None:
    said = judge(layered(parts(), old_mappings=("notebook.service (pid 12)",)))
    assert (said.kind, said.severity) == (Kind.RESTART, "warning")
    assert said.evidence[0] == "notebook.service (pid 12)"


def test_without_mkl_there_is_nothing_to_say() -> None:
    module = Library(MODULE, MODULE, needed=("libscipy_openblas64_.so",), defined=frozenset({"PyInit_x"}))
    said = judge(Facts(MODULE, Load((module, library("libscipy_openblas64_.so", "/srv/numpy.libs")))))
    assert (said.kind, said.linkage, said.evidence) == (Kind.NOT_MKL, Linkage.NONE, ())


def test_a_static_mkl_is_told() -> None:
    module = Library(MODULE, MODULE, defined=frozenset({"PyInit_x", "mkl_serv_allocate"}))
    said = judge(Facts(MODULE, Load((module,))))
    assert (said.kind, said.linkage) == (Kind.INFO, Linkage.STATIC)


def test_an_mkl_that_came_with_a_wheel_is_told() -> None:
    said = judge(single(parts(directory="/srv/site-packages/thing.libs")))
    assert said.kind is Kind.INFO


def test_two_openmp_runtimes_are_told() -> None:
    said = judge(single(parts(), openmp=("/srv/site-packages/torch/lib/libiomp5.so",)))
    assert said.kind is Kind.INFO and "OMP: Error #15" in said.summary
    assert said.evidence[:2] == (f"{ROOM}/libiomp5.so", "/srv/site-packages/torch/lib/libiomp5.so")
    assert judge(single(parts(), openmp=(f"{ROOM}/libiomp5.so",))).kind is Kind.OK


# What has gone


@pytest.mark.parametrize(
    ("suffix", "command"),
    [
        (".so", "apt-get install libmkl-rt"),
        (".so.1", "apt-get install intel-oneapi-mkl-core-2021.4"),
        (".so.2", "apt-get install intel-oneapi-mkl-core-2025.3"),
        (".so.3", "apt-get install intel-oneapi-mkl-core-2026.2"),
    ],
)
def test_other_names_mean_a_rebuild_or_the_old_package(suffix: str, command: str) -> None:
    gone = replace(single({}, suffix), present=("/opt/libmkl_rt.so.9",))
    said = judge(gone)
    assert (said.kind, said.severity) == (Kind.REBUILD, "error")
    assert text(said) == f"ImportError: libmkl_rt{suffix}: cannot open shared object file: No such file or directory"
    assert commands(said)[0] == command
    assert "--no-binary numpy,scipy" in commands(said)[1] and "-Dblas=mkl-sdl" in commands(said)[1]
    assert commands(said)[-1] == "" and "symlink" in said.repairs[-1].why


def test_the_old_package_is_the_one_that_it_was_built_with() -> None:
    built = Built("mkl-sdl", "2024.2.2", "/opt/intel/oneapi/mkl/2024.2/lib")
    gone = replace(single({}, built=built), present=("/opt/libmkl_rt.so.3",))
    assert commands(judge(gone))[0] == "apt-get install intel-oneapi-mkl-core-2024.2"
    assert "built against mkl-sdl 2024.2.2" in judge(gone).evidence
    other = replace(gone, around=replace(gone.around, built=replace(built, version="2026.0.0")))
    assert commands(judge(other))[0] == "apt-get install intel-oneapi-mkl-core-2025.3"


def test_other_parts_of_the_same_release_are_no_other_release() -> None:
    said = judge(replace(single(without(parts(), "libmkl_rt.so.2")), present=(f"{ROOM}/libmkl_core.so.2",)))
    assert said.kind is Kind.FAIL_MISSING


@pytest.mark.parametrize(
    ("manager", "command"),
    [("pip", "python3 -m pip install 'mkl>=2022,<2026'"), ("conda", "conda install 'mkl>=2022,<2026'")],
)
def test_what_pip_or_conda_brought_is_not_for_apt(manager: str, command: str) -> None:
    said = judge(replace(single({}, manager=manager), present=("/srv/venv/lib/libmkl_rt.so.3",)))
    assert said.kind is Kind.FAIL_ENV
    assert commands(said)[0] == command


def test_a_missing_openmp_of_the_module_itself() -> None:
    module = Library(MODULE, MODULE, needed=("libmkl_rt.so.2", "libiomp5.so"))
    release = parts()
    load = Load((module, release["libmkl_rt.so.2"]), (("libiomp5.so", MODULE),))
    said = judge(Facts(MODULE, load))
    assert said.kind is Kind.FAIL_OMP
    assert said.expected is not None and said.expected.status == 1


def test_another_librarys_absence_is_told_too() -> None:
    there = layered(parts())
    said = judge(replace(there, load=replace(there.load, missing=(("libgfortran.so.5", MODULE),))))
    assert (said.kind, commands(said)) == (Kind.FAIL_MISSING, ["apt-file search libgfortran.so.5"])


# What does not fit


def test_layered_on_kernels_of_before_2023_means_a_rebuild() -> None:
    """The error of 2014, on Debian's MKL 2020.4, in MKL's own words."""
    said = judge(layered(parts(".so", LIB, old=True), ".so", cpu=XEON))
    assert said.kind is Kind.REBUILD
    assert said.expected is not None and said.expected.status == 2
    assert text(said).splitlines() == [
        f"INTEL MKL ERROR: {LIB}/libmkl_avx512.so: undefined symbol: mkl_sparse_optimize_bsr_trsm_i8.",
        "Intel MKL FATAL ERROR: Cannot load libmkl_avx512.so or libmkl_def.so.",
    ]
    assert "-Dblas=mkl-sdl" in commands(said)[0]
    assert not any("2025.3" in command for command in commands(said))
    newer = commands(judge(layered(parts(old=True), manager="pip")))
    assert "python3 -m pip install 'mkl==2025.3.*'" in newer
    assert judge(single(parts(".so", LIB, old=True), ".so", cpu=XEON)).kind is Kind.OK


def test_a_core_of_another_release_is_mixed_where_all_symbols_are_bound_at_once() -> None:
    release = parts()
    core = replace(
        release["libmkl_core.so.2"], at_call=("mkl_pds_new", "mkl_thread_call"), real="/tmp/new/libmkl_core.so.2"
    )
    mixed = release | {"libmkl_core.so.2": core}
    said = judge(
        layered(mixed, owners={core.real: ("mkl-new", "2025.3"), f"{ROOM}/libmkl_rt.so.2": ("mkl-old", "2024.2")})
    )
    assert said.kind is Kind.FAIL_MIXED
    assert text(said) == f"ImportError: {ROOM}/libmkl_core.so.2: undefined symbol: mkl_pds_new"
    assert f"MKL is loaded from {ROOM} and /tmp/new" in said.evidence
    assert "the files belong to mkl-new 2025.3, mkl-old 2024.2" in said.evidence
    assert commands(said)[0] == "dpkg --audit"
    assert commands(judge(layered(mixed, manager="pip")))[0].startswith("python3 -m pip install --force-reinstall")


def test_what_only_some_function_lacks_is_mixed_too_and_nobody_knows_which() -> None:
    """Otherwise a half-unpacked MKL would be fine until numpy.linalg is used."""
    release = parts()
    new = {"at_call": ("mkl_serv_new", "mkl_thread_call", "mkl_serv_newer"), "real": "/tmp/new/libmkl_core.so.2"}
    layer = replace(release["libmkl_intel_thread.so.2"], at_call=("omp_get_num_procs", "mkl_serv_odd"))
    changed = {"libmkl_core.so.2": replace(release["libmkl_core.so.2"], **new), "libmkl_intel_thread.so.2": layer}  # type: ignore[arg-type]
    said = judge(single(release | changed))
    assert (said.kind, said.severity, said.expected) == (Kind.FAIL_MIXED, "error", None)
    assert f"{ROOM}/libmkl_core.so.2 lacks the symbol mkl_serv_new and 1 more" in said.evidence
    assert f"{ROOM}/libmkl_intel_thread.so.2 lacks the symbol mkl_serv_odd" in said.evidence
    assert f"MKL is loaded from {ROOM} and /tmp/new" in said.evidence
    assert commands(said)[0] == "dpkg --audit"


def test_a_kernel_of_another_release_is_mixed_too() -> None:
    release = parts()
    kernel = replace(release["libmkl_def.so.2"], at_call=("mkl_sparse_new",))
    mixed = release | {"libmkl_def.so.2": kernel}
    assert {judge(bound(mixed)).kind for bound in (single, layered)} == {Kind.FAIL_MIXED}
    assert judge(single(mixed, cpu=XEON)).kind is Kind.OK


def test_the_last_that_was_loaded_is_the_first_to_fail() -> None:
    release = parts()
    broken = {
        name: replace(item, at_call=("mkl_gone",))
        for name, item in release.items()
        if part_of(name) in ("core", "sequential")
    }
    assert "libmkl_core.so.2: undefined symbol: mkl_gone" in text(judge(layered(release | broken)))


def test_a_symbol_that_no_mkl_has_means_a_rebuild() -> None:
    there = layered(parts())
    module, *others = there.load.libraries
    asks = replace(module, at_call=("cblas_ddot", "cblas_gone", "PyModule_Create2"))
    said = judge(replace(there, load=replace(there.load, libraries=(asks, *others))))
    assert said.kind is Kind.REBUILD
    assert text(said) == f"ImportError: {MODULE}: undefined symbol: cblas_gone"


def test_a_symbol_that_is_lost_between_two_releases_is_no_reason_to_rebuild() -> None:
    release = parts()
    there = layered(release | {"libmkl_core.so.2": replace(release["libmkl_core.so.2"], real="/new/libmkl_core.so.2")})
    module, *others = there.load.libraries
    load = Load((replace(module, at_call=("cblas_gone",)), *others))
    assert judge(replace(there, load=load)).kind is Kind.FAIL_MIXED


def test_what_the_interpreter_and_its_libm_give_is_not_missed() -> None:
    release = parts()
    core = replace(release["libmkl_core.so.2"], at_load=("sincos", "stdout"))
    assert judge(layered(release | {"libmkl_core.so.2": core})).kind is Kind.OK


# What MKL opens by itself


@pytest.mark.parametrize("part", ["core", "intel_thread", "intel_lp64"])
def test_libmkl_rt_says_which_file_it_cannot_load(part: str) -> None:
    said = judge(single(without(parts(), f"libmkl_{part}.so.2")))
    assert said.kind is Kind.FAIL_MISSING
    assert text(said).splitlines() == [
        f"INTEL oneMKL ERROR: {ROOM}/libmkl_{part}.so.2: cannot open shared object file: No such file or directory.",
        f"Intel oneMKL FATAL ERROR: Cannot load libmkl_{part}.so.2.",
    ]


def test_debians_package_of_a_missing_file_is_named() -> None:
    said = judge(single(without(parts(".so", LIB), "libmkl_intel_thread.so"), ".so"))
    assert commands(said) == ["apt-get install libmkl-intel-thread"]


@pytest.mark.parametrize(
    ("around", "first"),
    [
        ({}, "apt-get install libomp-dev"),
        ({"manager": "pip"}, "python3 -m pip install intel-openmp"),
        ({"manager": "conda"}, "conda install intel-openmp"),
    ],
)
def test_without_libiomp5_the_first_call_ends_the_program(around: dict[str, str], first: str) -> None:
    said = judge(single(without(parts(".so", LIB), "libiomp5.so"), ".so", **around))
    assert said.kind is Kind.FAIL_OMP
    assert said.expected is not None and said.expected.status == 127
    assert text(said) == f"symbol lookup error: {LIB}/libmkl_intel_thread.so: undefined symbol: omp_get_num_procs"
    assert commands(said)[0] == first


@pytest.mark.parametrize("layer", ["SEQUENTIAL", "sequential"])
def test_who_is_sequential_needs_no_openmp(layer: str) -> None:
    lone = without(parts(), "libiomp5.so")
    assert judge(single(lone, environment={"MKL_THREADING_LAYER": layer})).kind is Kind.OK
    assert judge(layered(lone)).kind is Kind.OK


def test_openmp_that_is_loaded_already_serves() -> None:
    there = single(without(parts(), "libiomp5.so"))
    loaded = replace(there.load, libraries=(*there.load.libraries, parts()["libiomp5.so"]))
    assert judge(replace(there, load=loaded)).kind is Kind.OK


def test_the_gnu_interface_went_without_a_new_name() -> None:
    gnu = {"MKL_INTERFACE_LAYER": "GNU,LP64"}
    said = judge(single(without(parts(".so.3"), "libmkl_gf_lp64.so.3"), ".so.3", environment=gnu))
    assert said.kind is Kind.FAIL_INTERFACE
    assert text(said).endswith("Cannot load libmkl_gf_lp64.so.3.")
    assert "apt-get install intel-oneapi-mkl-core-2026.1" in commands(said)
    assert judge(single(parts(".so.3"), ".so.3", environment=gnu)).kind is Kind.OK


def test_a_threading_layer_that_is_not_there_is_the_environments_fault() -> None:
    said = judge(single(parts(), environment={"MKL_THREADING_LAYER": "TBB"}))
    assert said.kind is Kind.FAIL_ENV
    assert "MKL_THREADING_LAYER=TBB" in said.summary


def test_binding_at_once_is_the_environments_fault() -> None:
    eager = {"LD_BIND_NOW": "1"}
    said = judge(single(parts(), environment=eager))
    assert said.kind is Kind.FAIL_ENV
    assert text(said).splitlines()[0].endswith("libmkl_core.so.2: undefined symbol: mkl_thread_call.")
    assert judge(layered(parts(), environment=eager)).kind is Kind.OK
    assert judge(single(parts(), environment={"LD_BIND_NOW": ""})).kind is Kind.OK


def test_ld_library_path_is_blamed_where_it_led_there() -> None:
    led = {"LD_LIBRARY_PATH": f"/usr/lib:{ROOM}/"}
    said = judge(layered(parts(old=True), environment=led))
    assert said.kind is Kind.FAIL_ENV
    assert "LD_LIBRARY_PATH" in said.repairs[0].why
    said = judge(single(without(parts(), "libiomp5.so"), environment=led))
    assert said.kind is Kind.FAIL_OMP and "LD_LIBRARY_PATH" in said.repairs[0].why
    innocent = {"LD_LIBRARY_PATH": "/usr/lib"}
    assert judge(layered(parts(old=True), environment=innocent)).kind is Kind.REBUILD


# Kernels


def test_without_the_kernel_of_the_processor_it_is_slow() -> None:
    lone = without(parts(".so", LIB), "libmkl_avx512.so")
    for build in (layered, single):
        said = judge(build(lone, ".so", cpu=XEON))
        assert (said.kind, said.severity) == (Kind.DEGRADED, "warning")
        assert commands(said) == ["apt-get install libmkl-avx512"]
        assert judge(build(lone, ".so", cpu=EPYC)).kind is Kind.OK


@pytest.mark.parametrize(("cpu", "names"), [(XEON, "libmkl_avx512.so.2 or libmkl_def.so.2"), (EPYC, "libmkl_def.so.2")])
def test_without_any_kernel_nothing_works(cpu: Cpu, names: str) -> None:
    for build in (layered, single):
        said = judge(build(without(parts(), "libmkl_avx512.so.2", "libmkl_def.so.2"), cpu=cpu))
        assert said.kind is Kind.FAIL_MISSING
        assert text(said).endswith(f"Intel oneMKL FATAL ERROR: Cannot load {names}.")


def test_the_kernel_for_all_is_not_missed_where_a_better_one_serves() -> None:
    assert judge(layered(without(parts(), "libmkl_def.so.2"), cpu=XEON)).kind is Kind.OK


# Debian's alternatives


def debian(name: str = "libblas.so.3", imports: tuple[str, ...] = ("cblas_ddot",), **around: object) -> Facts:
    """Debian's numpy or scipy, where the alternative is MKL."""
    release = parts(".so", LIB)
    runtime = replace(release["libmkl_rt.so"], path=f"{LIB}/{name}")
    there = single(release | {"libmkl_rt.so": runtime}, ".so", **around)
    module = replace(there.load.libraries[0], needed=(name,), at_call=imports)
    chosen = Alternative(f"{name}-x86_64-linux-gnu", f"{LIB}/libmkl_rt.so", True)
    return replace(there, load=Load((module, runtime)), alternatives=(chosen,))


def test_an_alternative_is_known_by_where_it_leads() -> None:
    said = judge(debian())
    assert (said.kind, said.linkage) == (Kind.OK, Linkage.ALTERNATIVE)
    assert f"{LIB}/libblas.so.3 → {LIB}/libmkl_rt.so" in said.evidence


@pytest.mark.parametrize("name", ["cdotc_", "zdotu_", "zladiv_"])
def test_gfortrans_complex_functions_are_wrong_with_intels_interface(name: str) -> None:
    scipy = debian(imports=("dgemm_", name))
    offered = replace(scipy.load.libraries[1], defined=frozenset({"dgemm_", name, "DGELST"}))
    scipy = replace(scipy, load=Load((scipy.load.libraries[0], offered)))
    said = judge(scipy)
    assert (said.kind, said.severity) == (Kind.WRONG_RESULTS, "critical")
    assert name in said.evidence[0]
    assert said.expected is not None and not said.expected.status
    assert "MKL_INTERFACE_LAYER=GNU,LP64" in commands(said)[0]
    assert "update-alternatives --auto libblas.so.3-x86_64-linux-gnu" in commands(said)
    gnu = replace(scipy, around=Around({"MKL_INTERFACE_LAYER": "GNU,LP64"}))
    assert judge(gnu).kind is not Kind.WRONG_RESULTS
    wrapped = replace(scipy.load.libraries[0], defined=frozenset({f"w{name}"}))
    assert judge(replace(scipy, load=Load((wrapped, offered)))).kind is Kind.OK


def test_the_layered_interface_decides_as_well() -> None:
    for part, kind in (("intel_lp64", Kind.WRONG_RESULTS), ("gf_lp64", Kind.OK)):
        release = parts()
        there = facts(release, [f"libmkl_{name}.so.2" for name in (part, "sequential", "core")], "libmkl_core.so.2")
        module, *others = there.load.libraries
        load = Load((replace(module, at_call=("zdotu_",)), *others))
        assert judge(replace(there, load=load)).kind is kind


def test_another_blas_that_answers_first_is_right() -> None:
    scipy = debian(imports=("zdotu_",))
    module, runtime = scipy.load.libraries
    other = Library(f"{LIB}/libopenblas.so.0", f"{LIB}/libopenblas.so.0", defined=frozenset({"zdotu_"}))
    assert judge(replace(scipy, load=Load((module, other, runtime)))).kind is Kind.OK


def test_a_dangling_alternative_takes_the_whole_hosts_blas() -> None:
    module = Library(MODULE, MODULE, needed=("libblas.so.3",))
    gone = Alternative("libblas.so.3-x86_64-linux-gnu", "/opt/intel/oneapi/mkl/latest/lib/libmkl_rt.so.2", False)
    lost = Facts(MODULE, Load((module,), (("libblas.so.3", MODULE),)), alternatives=(gone,))
    said = judge(lost)
    assert (said.kind, said.severity) == (Kind.FAIL_SYSTEM, "critical")
    assert text(said) == "ImportError: libblas.so.3: cannot open shared object file: No such file or directory"
    assert commands(said) == ["update-alternatives --auto libblas.so.3-x86_64-linux-gnu"]
    assert judge(replace(lost, alternatives=(replace(gone, exists=True),))).kind is Kind.NOT_MKL
    assert judge(replace(lost, alternatives=(replace(gone, name="liblapack.so.3-x"),))).kind is Kind.NOT_MKL


def test_intels_file_as_an_alternative_needs_ld_so_to_know_its_directory() -> None:
    runtime = replace(parts()["libmkl_rt.so.2"], path=f"{LIB}/libblas.so.3")
    there = debian()
    lone = replace(
        there,
        load=Load((there.load.libraries[0], runtime)),
        opened={},
        present=(f"{ROOM}/libmkl_core.so.2", f"{ROOM}/libmkl_rt.so.2"),
    )
    said = judge(lone)
    assert said.kind is Kind.FAIL_MISSING
    assert text(said).splitlines()[0].startswith(f"INTEL oneMKL ERROR: {LIB}/libmkl_core.so.2: cannot open")
    assert commands(said) == [f"echo {ROOM} >/etc/ld.so.conf.d/mkl.conf", "ldconfig"]


# What cannot be told


def test_what_cannot_be_read_is_unknown_and_no_alarm() -> None:
    there = single(parts())
    reason = f"{ROOM}/libmkl_core.so.2 is no sound ELF file"
    opened = {**there.opened, "libmkl_core.so.2": Load(broken=((f"{ROOM}/libmkl_core.so.2", reason),))}
    for unclear in (replace(there, opened=opened), replace(there, load=replace(there.load, broken=(("x", reason),)))):
        said = judge(unclear)
        assert (said.kind, said.severity, said.expected) == (Kind.UNKNOWN, "unknown", None)
        assert said.evidence[0] == reason
    assert judge(Facts(MODULE, Load())).evidence == (f"{MODULE} is gone",)


def test_the_worst_of_several_counts() -> None:
    good, slow = judge(layered(parts())), judge(layered(without(parts(), "libmkl_avx512.so.2"), cpu=XEON))
    assert worst([good, slow, good]) is slow
    order = [replace(good, kind=kind) for kind in Kind]
    for first, second in itertools.pairwise(order):
        assert worst([second, first]) is first


def test_every_verdict_has_a_severity_that_findings_know() -> None:
    assert set(SEVERITY) == set(Kind)
    assert set(SEVERITY.values()) == {"critical", "error", "warning", "info", "unknown"}


NAMES = st.sampled_from(sorted([*parts(), *parts(".so"), "libblas.so.3", "libc.so.6", "libodd\udcff.so"]))
SYMBOLS = st.sampled_from(["mkl_a", "zdotu_", "cblas_ddot", "omp_get_num_procs", "Py_X", "DGELST", "mkl_serv_x"])
LIBRARIES = st.builds(
    Library,
    NAMES.map("/a/{}".format),
    NAMES.map("/b/{}".format),
    NAMES,
    st.tuples(NAMES),
    st.just(""),
    st.frozensets(SYMBOLS),
    st.tuples(SYMBOLS),
    st.tuples(SYMBOLS),
)
LOADS = st.builds(
    Load,
    st.lists(LIBRARIES, max_size=4).map(tuple),
    st.lists(st.tuples(NAMES, NAMES), max_size=2).map(tuple),
    st.lists(st.tuples(NAMES, NAMES), max_size=1).map(tuple),
)
WORDS = st.sampled_from(["MKL_INTERFACE_LAYER", "MKL_THREADING_LAYER", "LD_BIND_NOW", "LD_LIBRARY_PATH"])
AROUND = st.builds(
    Around,
    st.dictionaries(WORDS, st.sampled_from(["", "1", "GNU", "ILP64", "TBB", "/a"])),
    manager=st.sampled_from(["", "pip", "conda"]),
)


@settings(max_examples=400)
@given(LOADS, st.dictionaries(NAMES, LOADS), st.sampled_from([XEON, EPYC, Cpu()]), AROUND)
def test_no_facts_are_too_odd_for_a_verdict(load: Load, others: dict[str, Load], cpu: Cpu, around: Around) -> None:
    gone = Alternative("libblas.so.3-x", "/gone", False)
    said = judge(Facts("/m.so", load, others, alternatives=(gone,), cpu=cpu, around=around))
    assert said.summary and said.severity == SEVERITY[said.kind]
    assert said.repairs or said.severity not in ("critical", "error")


@pytest.mark.parametrize("suffix", [".so", ".so.1", ".so.3"])
def test_gccs_openmp_is_asked_for_by_several_names_then_intels(suffix: str) -> None:
    """Up to 2020 not by the name that Debian has it by."""
    load = Load((library("core.so"), library(f"libmkl_rt{suffix}")))
    wanted = layers(load, {"MKL_THREADING_LAYER": "GNU"})
    asked = [item.name for item in wanted if item.openmp]
    assert asked == ["libgomp.so.1", "libgomp.so", "libiomp5.so"][suffix == ".so" :]


def test_intels_openmp_does_where_gccs_is_not_found() -> None:
    release = parts(".so", old=True)
    layer = library("libmkl_gnu_thread.so", defined=release["libmkl_intel_thread.so"].defined, at_call=(FIRST_CALL,))
    release |= {"libmkl_gnu_thread.so": layer}
    gnu = {"MKL_THREADING_LAYER": "GNU"}
    assert judge(single(release, ".so", environment=gnu)).kind is Kind.OK
    said = judge(single(without(release, "libiomp5.so"), ".so", environment=gnu))
    assert said.kind is Kind.FAIL_OMP
    assert said.summary.startswith("libgomp.so is not found")


def test_up_to_2019_mkl_keeps_to_itself_what_the_linker_told_it() -> None:
    """Those releases have no SONAMEs."""
    release = {name: replace(item, soname="") for name, item in parts(".so", old=True).items()}
    said = judge(layered(release, ".so"))
    assert text(said) == "Intel MKL FATAL ERROR: Cannot load libmkl_def.so."
    assert any(SPARSE in line for line in said.evidence)
    slow = judge(single(without(release, "libmkl_avx512.so"), ".so", cpu=XEON))
    assert slow.kind is Kind.DEGRADED
    assert "libmkl_avx512.so: cannot open shared object file" in slow.evidence[0]
