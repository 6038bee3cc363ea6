"""From files in a root to a verdict: small shared objects with MKL's names, in places where ld.so and MKL look."""

from pathlib import Path

import pytest

from agent.checks.numpy.mkl import read_facts
from agent.host.loader.closure import begin
from agent.host.loader.linker import Scope, split_path
from agent.mkl.facts import Around
from agent.mkl.verdict import Expected, Kind, Linkage, Verdict, judge
from agent.model.facts import Host
from tests.unit.small_elf import link, made
from tests.unit.small_root import put

MODULE = "/srv/venv/lib/python3.11/site-packages/numpy/_core/_multiarray_umath.so"
ROOM = "/opt/intel/oneapi/mkl/2024.2/lib"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "root").mkdir()
    return Host(str(tmp_path / "root"), str(tmp_path / "proc"))


def lay(host: Host, directory: str = ROOM, suffix: str = ".so.2") -> None:
    """Put a release there: libmkl_rt and what it opens."""
    core = f"libmkl_core{suffix}"
    contents = {
        f"libmkl_rt{suffix}": made(soname=f"libmkl_rt{suffix}", defined=["cblas_ddot"]),
        core: made(soname=core, defined=["mkl_serv_x"], at_call=["mkl_thread"]),
        f"libmkl_intel_thread{suffix}": made(defined=["mkl_thread"], at_call=["omp_get_num_procs"]),
        f"libmkl_intel_lp64{suffix}": made(defined=["cblas_ddot"]),
        f"libmkl_def{suffix}": made(needed=[core], at_load=["mkl_serv_x"]),
    }
    for name, content in contents.items():
        put(host, f"{directory}/{name}", content)


def openmp(host: Host, directory: str = ROOM) -> None:
    put(host, f"{directory}/libiomp5.so", made(defined=["omp_get_num_procs"]))


def module(host: Host, *needed: str, runpath: str = ROOM) -> None:
    put(host, MODULE, made(needed=needed, runpath=runpath, at_call=["cblas_ddot", "PyModule_Create2"]))


def said(host: Host, scope: Scope = Scope(), **environment: str) -> Verdict:
    return judge(read_facts(begin(host), MODULE, scope, Around(environment)))


def test_a_release_in_its_place_works(host: Host) -> None:
    lay(host)
    openmp(host)
    module(host, "libmkl_rt.so.2")
    found = said(host)
    assert (found.kind, found.linkage) == (Kind.OK, Linkage.SDL)
    assert set(found.marks) == {
        f"{ROOM}/libmkl_{part}.so.2" for part in ("rt", "core", "intel_thread", "intel_lp64", "def")
    }


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/opt/intel/oneapi/compiler/lib/intel64", Kind.OK),
        ("/usr/lib/x86_64-linux-gnu", Kind.OK),
        ("/opt/python/bin", Kind.OK),
        ("/opt/elsewhere", Kind.FAIL_OMP),
    ],
)
def test_openmp_is_found_where_libmkl_rt_looks(host: Host, directory: str, kind: Kind) -> None:
    lay(host, "/opt/intel/oneapi/mkl/2024.2/lib")
    put(host, "/opt/python/bin/python3.11", made())
    link(host, "/srv/venv/bin/python", "/opt/python/bin/python3.11")
    openmp(host, directory)
    module(host, "libmkl_rt.so.2", runpath="/opt/intel/oneapi/mkl/2024.2/lib")
    assert said(host, Scope(executable="/srv/venv/bin/python")).kind is kind


def test_ld_library_path_is_that_of_the_unit(host: Host) -> None:
    module(host, "libmkl_rt.so.2", runpath="")
    lay(host)
    openmp(host)
    assert said(host).kind is Kind.FAIL_MISSING
    assert said(host, Scope(split_path(ROOM)), LD_LIBRARY_PATH=ROOM).kind is Kind.OK


def test_the_rpath_of_the_interpreter_counts(host: Host) -> None:
    module(host, "libmkl_rt.so.2", runpath="")
    lay(host, "/opt/conda/lib")
    openmp(host, "/opt/conda/lib")
    put(host, "/opt/conda/bin/python3.11", made(rpath="$ORIGIN/../lib"))
    link(host, "/opt/conda/bin/python", "python3.11")
    assert said(host, Scope(executable="/opt/conda/bin/python")).kind is Kind.OK
    put(host, "/opt/conda/bin/python3.11", made(runpath="$ORIGIN/../lib"))
    assert said(host, Scope(executable="/opt/conda/bin/python")).kind is Kind.FAIL_MISSING


def test_a_newer_release_beside_it_means_a_rebuild(host: Host) -> None:
    lay(host, "/opt/intel/oneapi/mkl/2026.0/lib", ".so.3")
    module(host, "libmkl_rt.so.2")
    found = said(host)
    assert found.kind is Kind.REBUILD
    assert any("/opt/intel/oneapi/mkl/2026.0/lib/libmkl_rt.so.3" in line for line in found.evidence)


def test_what_another_release_would_do_can_be_asked(host: Host) -> None:
    lay(host)
    openmp(host)
    lay(host, "/tmp/new", ".so.3")
    lay(host, "/tmp/same")
    module(host, "libmkl_rt.so.2")
    assert said(host, Scope(instead={ROOM: "/tmp/new"})).kind is Kind.REBUILD
    found = said(host, Scope(instead={ROOM: "/tmp/same"}))
    assert (found.kind, found.expected) == (Kind.OK, Expected()), "the OpenMP that is there stays where it is"
    openmp(host, "/tmp/same")
    found = said(host, Scope(instead={ROOM: "/tmp/same"}))
    assert found.kind is Kind.OK
    assert all(path.startswith("/tmp/same/") for path in found.marks)


def test_a_library_that_asks_to_be_bound_at_once_is(host: Host) -> None:
    lay(host)
    openmp(host)
    module(host, "libmkl_rt.so.2")
    core = made(soname="libmkl_core.so.2", defined=["mkl_serv_x"], at_call=["mkl_thread"], now=True)
    put(host, f"{ROOM}/libmkl_core.so.2", core)
    found = said(host)
    assert found.kind is Kind.FAIL_MIXED
    assert found.expected and "libmkl_core.so.2: undefined symbol: mkl_thread." in found.expected.text


def test_debians_alternatives_are_read_from_the_root(host: Host) -> None:
    lay(host, "/usr/lib/x86_64-linux-gnu", ".so")
    openmp(host, "/usr/lib/x86_64-linux-gnu")
    module(host, "libblas.so.3", runpath="")
    link(host, "/usr/lib/x86_64-linux-gnu/libblas.so.3", "/etc/alternatives/libblas.so.3-x86_64-linux-gnu")
    choice = "/etc/alternatives/libblas.so.3-x86_64-linux-gnu"
    link(host, choice, "/usr/lib/x86_64-linux-gnu/libmkl_rt.so")
    assert (said(host).kind, said(host).linkage) == (Kind.OK, Linkage.ALTERNATIVE)
    link(host, choice, "/opt/intel/oneapi/mkl/latest/lib/libmkl_rt.so.2")
    found = said(host)
    assert found.kind is Kind.FAIL_SYSTEM
    assert found.evidence[0].endswith("→ /opt/intel/oneapi/mkl/latest/lib/libmkl_rt.so.2, which does not exist")


def test_a_module_that_is_gone_or_rubbish_is_unknown(host: Host) -> None:
    assert said(host).kind is Kind.UNKNOWN
    put(host, MODULE, b"rubbish")
    assert said(host).kind is Kind.UNKNOWN
    assert said(host).evidence == (f"{MODULE} is no sound ELF file",)


def test_a_module_of_another_architecture_is_none_of_ours(host: Host) -> None:
    put(host, MODULE, made(needed=["libc.so.6"], machine=183))
    assert said(host).kind is Kind.NOT_MKL
