"""Real MKL files, fetched once by pip and apt from where this machine has them, and kept outside of the tree.

A release is the shared objects alone (0.4 GB of each); its wheel is removed at once. Hashes are pinned, so what is
judged is what was measured; Debian's own release comes with apt's signatures. Nothing that is fetched is installed.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from tests.e2e import host, mirror
from tests.e2e.host import Missing, cache, locked, progress

RELEASES = {
    "2019.0": "065e3c415029da2b2cdf2097cecb05f67e834354b358448aca683da7f4e3d344",
    "2021.4.0": "398dbf2b0d12acaf54117a5210e8f191827f373d362d796091d161f610c1ebfb",
    "2022.0.1": "194571f0cff3b068573c22516b27621a926ee633742f6b3225460facf166cf2f",
    "2022.2.1": "0cf6cbb639bc4ecf3b77e5337d4ceb2e24ef025043f764e2abcc32f6797a7138",
    "2023.0.0": "9c9309dc7a394d935b50996772b35b95b4056c668e0deca5939de55b6e9995b4",
    "2023.2.0": "577ac0fd075f87351d989d141f46efcb462bd2de9851ffe1c0cae3fa315b0ff7",
    "2024.0.0": "685a963cc1f4e24ea72cd192855d4005031356f2b524bcccb81820eb0653a67a",
    "2024.2.2": "915e81274ac20964e60156ed940e0eeb29dab0c282b915ad2e231db0021b980d",
    "2025.0.0": "a5f71f52ce568df8557fa420bb84282ace7b85d6fa2ee9d374c27867705823ce",
    "2025.3.1": "db31e59fa368dd4fa45b494351f4b7e0e6204b08d7db27836118c4e1370eb011",
    "2026.0.0": "4a9525ddd671b422fedfc690dd9270beb65c8cbd47044b52d2a4e3f6162c9de6",
    "2026.2.0": "eaab1875ce9f47ab3c66d5632cef06baf768c05781f2f28847bdbc4343500ed7",
}
DEBIAN = "2020.4.304"
"""What Debian has had in non-free since bullseye."""
SUFFIX = {
    "2019.0": ".so",
    DEBIAN: ".so",
    "2021.4.0": ".so.1",
    "2022.0.1": ".so.2",
    "2022.2.1": ".so.2",
    "2023.0.0": ".so.2",
    "2023.2.0": ".so.2",
    "2024.0.0": ".so.2",
    "2024.2.2": ".so.2",
    "2025.0.0": ".so.2",
    "2025.3.1": ".so.2",
    "2026.0.0": ".so.3",
    "2026.2.0": ".so.3",
}
OPENMP = ("intel-openmp==2024.2.1", "21892ea07a9c6e164707d2b44e6f396f9f2ab6cc7e108755011fad59b596182a")
CONSUMERS = {
    (3, 11): (
        ("mkl-service==2.8.0", "bed188d9c263155f01f5a6789d18f2dcc29583f5dc1c51db49e7683d48db9dc8"),
        ("mkl_fft==2.3.2", "9b4092535403139e6af5dfe192efc3129313a4d8237bbe9e2419d8db7f9e3630"),
    ),
    (3, 13): (
        ("mkl-service==2.8.0", "dad6212d8061100ee4838f163925ed98ebc78c838c1c63f2768d7ab9559f26a1"),
        ("mkl_fft==2.3.2", "09823ae97971b80d2724f3ca2d95928570f4991452869dc024378fe6c5681e27"),
    ),
}
"""Small packages that are really bound to libmkl_rt, for the interpreters of Debian 12 and 13."""
LAYERS = "rt|core|intel_lp64|gf_lp64|sequential|intel_thread|gnu_thread"
PACKAGES = [f"libmkl-{part.replace('_', '-')}:amd64" for part in (*LAYERS.split("|"), "def", "avx2", "avx512")]
PARTS = re.compile(rf"libmkl_(?:{LAYERS}|(?:vml_)?(?:def|avx2|avx512))\.so(?:\.\d)?")


def release(version: str) -> Path:
    """Return the directory of the shared objects of an MKL release, and of nothing else."""
    if version == DEBIAN:
        return _kept(f"mkl-{version}", _fetch_debian)
    return _kept(f"mkl-{version}", _wheels([(f"mkl=={version}", RELEASES[version])], _flat(PARTS)))


def openmp() -> Path:
    """Return Intel's libiomp5.so."""
    return _kept("openmp", _wheels([OPENMP], _flat(re.compile(r"libiomp5\.so")))) / "libiomp5.so"


def consumers() -> Path:
    """Return a directory with the packages `mkl` and `mkl_fft` for this interpreter."""
    wheels = CONSUMERS.get(sys.version_info[:2])
    if wheels is None:
        raise Missing(f"mkl-service and mkl_fft are not pinned for Python {sys.version_info[0]}.{sys.version_info[1]}")
    return _kept(f"consumers-{sys.version_info[0]}.{sys.version_info[1]}", _wheels(wheels, _as_it_is))


Place = Callable[[str], str | None]
"""Where a member of a wheel goes below its directory; None: nowhere."""


def _flat(names: re.Pattern[str]) -> Place:
    def place(member: str) -> str | None:
        name = PurePosixPath(member).name
        return name if names.fullmatch(name) else None

    return place


def _as_it_is(member: str) -> str | None:
    path = PurePosixPath(member)
    return None if path.is_absolute() or ".." in path.parts or member.endswith("/") else member


def _kept(name: str, fill: Callable[[Path], None]) -> Path:
    home = cache() / "mkl" / name
    with locked(cache() / "mkl.lock"):
        if not home.exists():
            making = cache() / "mkl" / f"{name}-making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            progress(f"fetching {name} (once; kept in {home})")
            fill(making)
            making.rename(home)
    return home


def _wheels(wheels: Iterable[tuple[str, str]], place: Place) -> Callable[[Path], None]:
    def fill(making: Path) -> None:
        for requirement, digest in wheels:
            fetched = fetch(making / "fetched", "--only-binary", (requirement, [digest]))
            unpack(next(fetched.glob("*.whl")), making, place)
            shutil.rmtree(fetched)

    return fill


def _fetch_debian(making: Path) -> None:
    """Take Debian's packages apart: apt looks at non-free in a place of its own, the machine's lists stay as they are."""
    place = making / "apt"
    for directory in ("state/lists/partial", "cache/archives/partial", "root"):
        (place / directory).mkdir(parents=True)
    source = f"deb [signed-by={mirror.KEYRING}] {mirror.sites()['main']} bookworm non-free\n"
    (place / "sources.list").write_text(source)
    own = {"Etc::SourceList": "sources.list", "Etc::SourceParts": "none", "State": "state", "Cache": "cache"}
    options = [f"-oDir::{key}={place / value}" for key, value in own.items()]
    options += ["-oDir::State::status=/var/lib/dpkg/status", "-oAPT::Sandbox::User=root", "-oAcquire::Languages=none"]
    apt = ["apt-get", "--quiet=2", *options]
    host.output([*apt, "update"])
    host.output(["sh", "-c", 'cd "$0" && exec "$@"', str(place), *apt, "download", *PACKAGES])
    for deb in place.glob("*.deb"):
        host.output(["dpkg-deb", "--extract", str(deb), str(place / "root")])
    for path in place.glob("root/usr/lib/*/libmkl_*.so"):
        path.rename(making / path.name)
    shutil.rmtree(place)


def fetch(into: Path, kind: str, *wanted: tuple[str, Sequence[str]], path: str = "") -> Path:
    """Download with pip and return `into`. kind: --only-binary or --no-binary; wanted: (requirement, its hashes)."""
    into.mkdir()
    lines = [" ".join([requirement, *(f"--hash=sha256:{item}" for item in hashes)]) for requirement, hashes in wanted]
    (into / "wanted.txt").write_text("\n".join(lines) + "\n")
    argv = ["-m", "pip", "--quiet", "download", "--no-deps", "--no-build-isolation", kind, ":all:", "--require-hashes"]
    done = subprocess.run(
        [sys.executable, *argv, "--dest", str(into), "--requirement", str(into / "wanted.txt")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Missing(f"pip cannot fetch {' '.join(lines)}: {done.stderr[-600:]}")
    return into


def unpack(wheel: Path, into: Path, place: Place = _as_it_is) -> None:
    """Put what `place` wants of a wheel below `into`."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            target = place(member)
            if target is not None:
                (into / target).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, (into / target).open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
