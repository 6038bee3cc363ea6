"""A place where real MKL files lie as a test wants them, and what is bound to them: what is said, what comes of it.

That is numpy itself, or a module with the same bonds that takes no time to build and calls MKL while it is imported, as
numpy does. It is built against one release and then finds whatever was laid out. It is really imported, in a child:
that is the test's business, the product never does.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.checks.numpy.judged import Look, judge_one
from agent.checks.numpy.mkl import read_facts
from agent.host.beneath import LOOK
from agent.host.loader.closure import Reading, begin
from agent.host.loader.cpu import Cpu
from agent.host.loader.linker import Scope, split_path
from agent.host.python.pyfacts import Environment, read_environment
from agent.mkl.facts import Around
from agent.mkl.verdict import Verdict, judge
from agent.model.facts import Host
from tests.integration.mkl_files import SUFFIX, openmp, release
from tests.integration.mkl_numpy import numpy

HEAD = r"""
#include <complex.h>
#include <stddef.h>
double cblas_ddot(int n, const double *x, int dx, const double *y, int dy);
void cblas_dgemm(int order, int ta, int tb, int m, int n, int k, double alpha, const double *a, int da,
                 const double *b, int db, double beta, double *c, int dc);
double complex zdotu_(const int *n, const double complex *x, const int *dx, const double complex *y, const int *dy);
extern void *PyModule_Create2(void *definition, int version);
extern int PyModule_AddIntConstant(void *module, const char *name, long value);
static struct {
    ptrdiff_t count; void *type, *init; ptrdiff_t index; void *copy;
    const char *name, *doc; ptrdiff_t size; void *methods, *slots, *traverse, *clear, *release;
} definition = { 1, 0, 0, 0, 0, "probe", "calls MKL", -1 };
static long call(void);
void *PyInit_probe(void)
{
    long answer = call();
    void *module = PyModule_Create2(&definition, 1013);
    PyModule_AddIntConstant(module, "answer", answer);
    return module;
}
"""
REAL = r"""
static long call(void)
{
    double x[16], y[16], z[16];
    for (int i = 0; i < 16; i++) x[i] = y[i] = i;
    cblas_dgemm(101, 111, 111, 4, 4, 4, 1.0, x, 4, y, 4, 0.0, z, 4);
    return (long) cblas_ddot(16, x, 1, y, 1) + (long) z[15] * 10000;
}
"""
COMPLEX = r"""
static long call(void)
{
    int n[16] = { 2 }, one[16] = { 1 };
    double complex x[2] = { 1 + 2 * I, 3 + 4 * I }, y[2] = { 5 + 6 * I, 7 + 8 * I };
    double complex z = zdotu_(n, x, one, y, one);
    return creal(z) == -18 && cimag(z) == 68 ? 1 : 0;
}
"""
GELST = r"""
void dgelst_(const char *trans, const int *m, const int *n, const int *count, double *a, const int *da,
             double *b, const int *db, double *work, const int *size, int *info);
static long call(void)
{
    int one = 1, size = 64, info = -1;
    double a = 2, b = 6, work[64];
    dgelst_("N", &one, &one, &one, &a, &one, &b, &one, work, &size, &info);
    return (long) b;
}
"""
"""It came with LAPACK 3.11: MKL 2022 has none."""
SIMPLE = "static long call(void) { return 7; }"
INTEL = "int mkl_serv_intel_cpu_true(void) { return 1; }"
"""Loaded first, this makes MKL up to 2024.2 take the processor for one of Intel's."""
NUMPY = """
import numpy
x = numpy.arange(16.0)
y = x.reshape(4, 4)
inverse = numpy.linalg.inv(numpy.eye(3) * 2)
print(int((y @ y)[3, 3]) * 10000 + int(x @ x) + int(inverse.sum() * 2) - 3)
"""
"""The same sums as in REAL, by way of numpy; and an inverse, which another of its modules has LAPACK make."""
ANSWER = {REAL: "5061240", COMPLEX: "1", SIMPLE: "7", GELST: "3"}
LAYERS = ("intel_lp64", "sequential", "core")


@dataclass(frozen=True)
class Outcome:
    """What an import in a child came to."""

    status: int
    printed: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """A directory `lib` with MKL files, and `site` with what has a RUNPATH that leads there.

    itself: that is numpy itself, in the three of its modules that call MKL; else a module `probe`.
    """

    home: Path
    itself: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    as_intel: bool = False

    @property
    def lib(self) -> Path:
        return self.home / "lib"

    def lay(self, version: str, *parts: str, without: Sequence[str] = ()) -> None:
        """Put the files of a release there (those that begin with one of `parts`), instead of what has their names."""
        self.lib.mkdir(parents=True, exist_ok=True)
        for path in release(version).iterdir():
            part = path.name.removeprefix("libmkl_").partition(".")[0]
            if (not parts or part in parts) and part not in without:
                self.put(path.name, path)

    def lay_openmp(self) -> None:
        """Put libiomp5.so there."""
        self.put("libiomp5.so", openmp())

    def put(self, name: str, target: Path | str) -> None:
        """Make one name there, whatever it was."""
        self.lib.mkdir(parents=True, exist_ok=True)
        (self.lib / name).unlink(missing_ok=True)
        (self.lib / name).symlink_to(target)

    def build(self, needs: Sequence[str], body: str = REAL, runpath: str = "", tags: str = "new") -> Path:
        """Compile the module so that it names `needs`, which need not be there."""
        source = self.home / "probe.c"
        source.write_text(HEAD + body)
        module = self.home / "site" / "probe.so"
        module.parent.mkdir(exist_ok=True)
        stubs = [str(stub(self.home / "stubs", name)) for name in needs]
        flags = [f"-Wl,--{'en' if tags == 'new' else 'dis'}able-new-dtags,-rpath,{runpath or self.lib}"]
        shared(module, source, "-Wl,--no-as-needed", *flags, *stubs)
        return module

    def build_layered(self, version: str, body: str = REAL) -> Path:
        """As meson builds numpy with -Dblas=mkl."""
        if self.itself:
            return self.install(version, "layered")
        return self.build([f"libmkl_{layer}{SUFFIX[version]}" for layer in LAYERS], body)

    def build_single(self, version: str, body: str = REAL) -> Path:
        """As meson builds numpy with -Dblas=mkl-sdl."""
        if self.itself:
            return self.install(version, "sdl")
        return self.build([f"libmkl_rt{SUFFIX[version]}"], body)

    def build_threaded(self, version: str) -> Path:
        """As meson builds numpy with -Dblas=mkl-dynamic-lp64-iomp."""
        if self.itself:
            return self.install(version, "threaded")
        names = [f"libmkl_{layer}{SUFFIX[version]}" for layer in ("intel_lp64", "intel_thread", "core")]
        return self.build([*names, "libiomp5.so"])

    def install(self, version: str, linkage: str) -> Path:
        """Put numpy itself there; return the first of its modules that is loaded."""
        site = self.module.parent
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(numpy(version, linkage), site, copy_function=os.symlink)
        return next(site.glob("numpy/_core/_multiarray_umath.*.so"))

    @property
    def module(self) -> Path:
        return self.home / "site" / "probe.so"

    def judge(self, around: Around = Around(), module: Path | None = None) -> Verdict:
        """Return what is said of the module, or of the environment with numpy itself."""
        if self.itself:
            look = Look(Host(), {}, self.reading())
            return judge_one(look, self.environment_found(), dict(self.environment), around)
        scope = Scope(split_path(self.environment.get("LD_LIBRARY_PATH", "")), os.path.realpath(sys.executable))
        known = replace(around, environment=dict(self.environment))
        return judge(read_facts(self.reading(), str(module or self.module), scope, known))

    def environment_found(self) -> Environment:
        """Return what is found in `site` by who looks for numpy."""
        descriptor = os.open(self.home, LOOK | os.O_DIRECTORY)
        try:
            found = read_environment(descriptor, str(self.home), str(self.module.parent))
        finally:
            os.close(descriptor)
        assert found is not None and len(found.modules) == 3, found
        return found

    def reading(self) -> Reading:
        found = begin(Host())
        return replace(found, cpu=Cpu("GenuineIntel", found.cpu.flags)) if self.as_intel else found

    def load(self, code: str = "", place: Path | None = None) -> Outcome:
        """Return what really comes of it."""
        code = code or (NUMPY if self.itself else "import probe; print(probe.answer)")
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(place or self.module.parent)}
        environment |= {"LD_PRELOAD": str(self._pretender())} if self.as_intel else {}
        done = subprocess.run(
            [sys.executable, "-B", "-S", "-c", code],
            env=environment | dict(self.environment),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=60,
        )
        return Outcome(done.returncode, tuple((done.stdout + done.stderr).splitlines()))

    def _pretender(self) -> Path:
        source = self.home / "intel.c"
        source.write_text(INTEL)
        shared(self.home / "intel.so", source)
        return self.home / "intel.so"


def stub(directory: Path, name: str) -> Path:
    """Make an empty library of that name for the linker: what is bound to it will find whatever is there."""
    directory.mkdir(exist_ok=True)
    source = directory / "empty.c"
    source.write_text("")
    shared(directory / name, source, f"-Wl,-soname,{name}")
    return directory / name


def shared(out: Path, source: Path, *flags: str) -> None:
    """Compile a shared object in which names may be lacking."""
    argv = ["gcc", "-shared", "-fPIC", "-O1", "-w", "-o", str(out), str(source), *flags]
    subprocess.run(argv, check=True, capture_output=True)
