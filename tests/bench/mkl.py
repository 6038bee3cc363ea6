"""How fast a verdict on MKL is: our reader of symbols beside pyelftools on libmkl_rt, and whole verdicts, in one run.

    /usr/bin/python3 -m tests.bench.mkl

Fetches one release of MKL where it is not kept yet; changes nothing else. Prints markdown.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

from agent.host.loader.dynamic import read_dynamic, read_symbols
from tests.integration.mkl_files import release
from tests.integration.mkl_stage import Stage

VERSION = "2024.2.2"
ROUNDS = 5


def main() -> None:
    """Measure and print."""
    path = release(VERSION) / "libmkl_rt.so.2"
    theirs = _seconds(lambda: _with_pyelftools(path), 1)
    mine = _seconds(lambda: _with_ours(path), ROUNDS)
    print("| what | seconds | pyelftools : ours |\n|---|---|---|")
    print(f"| {_with_ours(path)} symbols of libmkl_rt, ours | {mine:.4f} | |")
    print(f"| the same, pyelftools | {theirs:.2f} | {theirs / mine:.0f} |")
    with tempfile.TemporaryDirectory() as directory:
        for name, build in (("layered", Stage.build_layered), ("single dynamic library", Stage.build_single)):
            stage = Stage(Path(directory))
            stage.lay(VERSION)
            stage.lay_openmp()
            build(stage, VERSION)
            print(f"| a whole verdict, {name} | {_seconds(stage.judge, ROUNDS):.3f} | |")


def _seconds(run: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return median(times)


def _with_ours(path: Path) -> int:
    with path.open("rb") as file:
        return len(read_symbols(file.fileno(), read_dynamic(file.fileno()).tables).defined)


def _with_pyelftools(path: Path) -> int:
    with path.open("rb") as file:
        part = next(part for part in ELFFile(file).iter_segments() if isinstance(part, DynamicSegment))
        return sum(1 for symbol in part.iter_symbols() if symbol["st_shndx"] != "SHN_UNDEF")


if __name__ == "__main__":
    main()
