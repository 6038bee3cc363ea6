"""numpy itself, built from source against releases of MKL in both linkages, once, and kept outside of the tree.

It is built in a throwaway Debian without network, by numpy's own backend, with what was fetched before by hash. Between
two builds only the linking differs, so all take little longer than one. Nothing is installed on the host.
"""

import functools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.e2e import host, roots
from tests.e2e.kept import kept
from tests.e2e.nspawn import inside
from tests.integration.mkl_files import DEBIAN, SUFFIX, fetch, openmp, release, unpack

SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
"""Whose Python a build is for."""
TOOLS = ("g++", "ninja-build", "pkg-config", "python3-dev")
NUMPY = "2.3.5"
SOURCE = (f"numpy=={NUMPY}", ("784db1dcdab56bf0517743e746dfb0f885fc68d948aba86eeec2cba234bdf1c0",))
WHEELS = (
    ("meson-python==0.18.0", ("3b0fe051551cc238f5febb873247c0949cd60ded556efa130aa57021804868e2",)),
    ("pyproject-metadata==0.9.1", ("ee5efde548c3ed9b75a354fc319d5afd25e9585fa918a34f62f904cc731973ad",)),
    ("packaging==25.0", ("29572ef2b1f17581046b3a2227d5c611fb25ec70ca1ba8554b24b0e69331a484",)),
    (
        "cython==3.1.6",
        (
            "f32366c198ac663a540ff4fa6ed55801d113183616c51100f4cc533568d2c4cf",
            "e0fb2694327834c5bda7c5a07605f76437354d0ff76bb8739e77b479d176cf52",
        ),
    ),
)
DEVELOPED = "2024.2.2"
DEVEL = (f"mkl-devel=={DEVELOPED}", ("d1cadb0cdfb839b17002a4245e8a29d6857a962bd2587ce670973bb83ed11b0f",))
"""Intel's files for pkg-config; other releases differ in the names of the libraries alone."""
RELEASES = (DEBIAN, "2021.4.0", DEVELOPED, "2026.2.0")
BLAS = {"layered": "mkl-dynamic-lp64-seq", "threaded": "mkl-dynamic-lp64-iomp", "sdl": "mkl-sdl"}
"""What -Dblas is given, by linkage; `threaded` is layered with Intel's OpenMP."""
OPENMP_OF = """
Name: openmp
Description: Intel's OpenMP runtime
Version: 2024.2.1
Libs: /numpy/mkl/VERSION/lib/libiomp5.so
"""
STAND_IN = f"""
import pathlib
def prepare_metadata_for_build_wheel(directory, config_settings=None):
    place = pathlib.Path(directory, "numpy.dist-info")
    place.mkdir()
    place.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: numpy\\nVersion: {NUMPY}\\n")
    return place.name
"""
"""Stands for numpy's backend while pip fetches the source: that would build all of numpy to tell its name."""
BUILD = r"""
set -eu
export HOME=/root PYTHONPATH=/numpy/wheels LDFLAGS='-Wl,-rpath,$ORIGIN/../../../lib'
printf '#!/bin/sh\nexec python3 -m cython "$@"\n' >/usr/local/bin/cython
chmod +x /usr/local/bin/cython
cd /numpy
tar --extract --file source/numpy-*.tar.gz --strip-components=1 --one-top-level=tree
cd tree
while read -r version linkage blas; do
    mkdir /numpy/wheel
    python3 -c '
import mesonpy, sys
plain = [f"-Ddisable-{name}=true" for name in ("optimization", "svml", "highway", "intel-sort")]
setup = [f"-Dpkg_config_path={sys.argv[1]}", f"-Dblas={sys.argv[2]}", f"-Dlapack={sys.argv[2]}", "-Doptimization=1"]
mesonpy.build_wheel("/numpy/wheel", {
    "build-dir": "/numpy/build",
    "setup-args": [*setup, "-Dallow-noblas=false", *plain],
    "compile-args": ["-j2"],
    "install-args": ["--tags=runtime,python-runtime"],
})' "/numpy/mkl/$version/share/pkgconfig" "$blas" >/numpy/log 2>&1 || { tail -n 40 /numpy/log; exit 1; }
    python3 -m zipfile --extract /numpy/wheel/*.whl "/numpy/built/$version-$linkage"
    rm -r /numpy/wheel
    python3 -m compileall -q --invalidation-mode unchecked-hash "/numpy/built/$version-$linkage"
done </numpy/wanted
"""
"""numpy's own loops for newer processors are left out: they take most of the time, and call no MKL."""


def builds() -> Iterator[tuple[str, str]]:
    """Yield (release, linkage) of each numpy that is built."""
    for version in RELEASES:
        yield version, "layered"
        yield version, "sdl"
    yield DEVELOPED, "threaded"


def numpy(version: str, linkage: str) -> Path:
    """Return a directory with the package numpy, bound to that MKL; in its RUNPATH `$ORIGIN/../../../lib` is first."""
    return _home() / "built" / f"{version}-{linkage}"


@functools.cache
def _home() -> Path:
    host.require()
    suite = SUITES.get(sys.version_info[:2])
    if suite is None:
        raise host.Missing(f"numpy is not built for Python {sys.version_info[0]}.{sys.version_info[1]}")
    recipe = repr((suite, TOOLS, SOURCE, WHEELS, DEVEL, RELEASES, BLAS, OPENMP_OF, BUILD))
    return kept(f"mkl-numpy-{suite}", recipe, functools.partial(_make, suite))


def _make(suite: str, home: Path) -> None:
    """Leave the builds in `home`/built, and nothing else."""
    making = home / "making"
    for name in ("built", "stand-in"):
        (making / name).mkdir(parents=True)
    (making / "stand-in/mesonpy.py").write_text(STAND_IN)
    fetch(making / "source", "--no-binary", SOURCE, path=str(making / "stand-in"))
    for wheel in fetch(making / "fetched", "--only-binary", *WHEELS).glob("*.whl"):
        unpack(wheel, making / "wheels")
    unpack(next(fetch(making / "devel", "--only-binary", DEVEL).glob("*.whl")), making / "devel")
    for version in RELEASES:
        _lay(making, version)
    rows = [f"{version} {linkage} {BLAS[linkage]}\n" for version, linkage in builds()]
    (making / "wanted").write_text("".join(rows))
    host.progress(f"{suite}: building numpy against MKL in {len(rows)} ways (once; kept in {host.cache()})")
    roots.bootstrap(suite, making / "root", TOOLS)
    inside(making / "root", BUILD, f"--bind={making}:/numpy", f"--bind-ro={host.cache() / 'mkl'}")
    (making / "built").rename(home / "built")
    shutil.rmtree(making)


def _lay(making: Path, version: str) -> None:
    """Lay a release out as Intel's wheels do."""
    libraries, about = making / "mkl" / version / "lib", making / "mkl" / version / "share/pkgconfig"
    libraries.mkdir(parents=True)
    about.mkdir(parents=True)
    for path in (*release(version).iterdir(), openmp()):
        (libraries / path.name).symlink_to(path)
    for path in (making / "devel").glob("*.data/data/lib/pkgconfig/mkl-*.pc"):
        (about / path.name).write_text(path.read_text().replace(f"{SUFFIX[DEVELOPED]} ", f"{SUFFIX[version]} "))
    (about / "openmp.pc").write_text(OPENMP_OF.replace("VERSION", version))
