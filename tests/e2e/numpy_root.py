"""Debian 12 with its own numpy and scipy, and an archive with MKL beside it, made once and kept outside of the tree.

The root is a copy of the base of `roots.py` with python3-numpy and python3-scipy installed. Nothing of MKL is: the
archive at /mirror/mkl has Debian's from non-free, its OpenMP, and packages shaped like those of Intel's oneAPI, with
real files of two releases. What no test here looks at (headers, compilers, other kernels) is never unpacked.
"""

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

from tests.e2e import host, mirror, roots
from tests.e2e.nspawn import inside
from tests.integration import mkl_files

SUITE = "bookworm"
DEBIAN = ("python3-numpy", "python3-scipy", "libmkl-rt", "libomp-dev")
OLD, NEW = "2024.2", "2026.2"
"""The releases of oneAPI that there are packages of: the file names of the first end in .so.2, of the other in .so.3."""
FILES = {OLD: "2024.2.2", NEW: "2026.2.0"}
PARTS = re.compile(r"libmkl_(?:rt|core|intel_lp64|sequential|intel_thread|def|avx2|avx512)\.so\.\d")
RECIPE = (__file__, mkl_files.__file__)

EXCLUDED = """
/usr/include/* /usr/lib/gcc/* /usr/share/doc/* /usr/share/man/* *.a /usr/lib/*/libLLVM* /usr/lib/llvm-14/lib/libLLVM*
/usr/lib/*/libasan.so* /usr/lib/*/libtsan.so* /usr/lib/*/libmkl_*_ilp64.so /usr/lib/*/libmkl_pgi_thread.so
/usr/lib/*/libmkl_mc*.so /usr/lib/*/libmkl_avx.so /usr/lib/*/libmkl_avx512_mic.so /usr/lib/*/libmkl_vml_*
""".split()
"""Two thirds of what would be unpacked. No kernel that a processor of the last ten years gets is among it."""
FURNISH = """
set -eu
export DEBIAN_FRONTEND=noninteractive
echo 'deb [trusted=yes] file:/mirror/mkl ./' >>/etc/apt/sources.list
apt-get -q update
apt-get -y install python3-numpy python3-scipy
apt-get -q check
"""


def base() -> roots.Base:
    """Return that root, made (two minutes, needs the archives) where none is kept."""
    below = roots.base(SUITE)
    text = b"".join(Path(file).read_bytes() for file in RECIPE)
    key = hashlib.sha256(below.tree.parent.name.encode() + text).hexdigest()[:12]
    home = roots.cache() / f"numpy-{key}"
    with host.locked(roots.cache() / "mkl-root.lock"):
        if not home.is_dir():
            making = roots.cache() / "numpy-making"
            _make(below, making)
            making.rename(home)
        roots.keep(home)
        roots.remove_unused("numpy")
    return replace(below, tree=home / "root", mirror=home / "mirror")


def _make(below: roots.Base, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    roots.progress(f"{SUITE}: making a root with numpy, and an archive with MKL (once; kept in {roots.cache()})")
    host.output(["cp", "-a", "--reflink=auto", str(below.tree), str(home / "root")])
    host.output(["cp", "-al", str(below.mirror), str(home / "mirror")])
    archive = home / "mirror/mkl"
    archive.mkdir()
    _fetch(home, archive)
    _imitate_intel(home / "work", archive)
    _write_index(archive)
    excluded = "".join(f"path-exclude={pattern}\n" for pattern in EXCLUDED)
    (home / "root/etc/dpkg/dpkg.cfg.d/small").write_text(excluded)
    inside(home / "root", FURNISH, f"--bind-ro={home}/mirror:/mirror")


def _fetch(home: Path, archive: Path) -> None:
    """Download Debian's packages; nothing is installed, and the lists of the host stay as they are."""
    apt = mirror.Apt(SUITE, home)
    sources = apt.directory / "sources"
    sources.write_text(sources.read_text().replace(" main\n", " main non-free\n"))
    apt.get("update")
    for name in DEBIAN:
        apt.get("--download-only", "install", name)
    for deb in (apt.directory / "archives").glob("*.deb"):
        deb.rename(archive / deb.name)
    shutil.rmtree(apt.directory)


def _imitate_intel(work: Path, archive: Path) -> None:
    """Make packages as Intel's: the release is in their names, so an upgrade brings others beside the old ones."""
    for release, version in FILES.items():
        core, openmp = f"intel-oneapi-mkl-core-{release}", f"intel-oneapi-openmp-{release}"
        tree = work / core
        library = f"opt/intel/oneapi/mkl/{release}/lib"
        for path in mkl_files.release(version).iterdir():
            if PARTS.fullmatch(path.name):
                _put(path, tree / library / path.name)
        _configure_linker(tree, core, f"/{library}")
        _pack(tree, core, version, f"Depends: {openmp}\n", archive)
        tree = work / openmp
        library = f"opt/intel/oneapi/compiler/{release}/lib"
        _put(mkl_files.openmp(), tree / library / "libiomp5.so")
        _configure_linker(tree, openmp, f"/{library}")
        _pack(tree, openmp, version, "", archive)
        _pack(work / f"intel-oneapi-mkl-{release}", "intel-oneapi-mkl", version, f"Depends: {core}\n", archive)
    shutil.rmtree(work)


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _configure_linker(tree: Path, package: str, directory: str) -> None:
    place = tree / "etc/ld.so.conf.d"
    place.mkdir(parents=True)
    (place / f"{package}.conf").write_text(f"{directory}\n")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/triggers").write_text("activate-noawait ldconfig\n")


def _pack(tree: Path, package: str, version: str, depends: str, archive: Path) -> None:
    (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
    about = f"Package: {package}\nVersion: {version}-1\nArchitecture: {mirror.architecture()}\n{depends}"
    about += f"Maintainer: nobody <nobody@example.org>\nDescription: {package}\n"
    (tree / "DEBIAN/control").write_text(about)
    target = archive / f"{package}_{version}-1.deb"
    host.output(["dpkg-deb", "--build", "-Zgzip", "-z1", "--root-owner-group", str(tree), str(target)])


def _write_index(archive: Path) -> None:
    stanzas = []
    for deb in sorted(archive.glob("*.deb")):
        fields = host.output(["dpkg-deb", "--field", str(deb)])
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        stanzas.append(f"{fields}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n\n")
    (archive / "Packages").write_text("".join(stanzas))
