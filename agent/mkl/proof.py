"""A small numeric proof: the program that an environment's own Python runs, and what its output means. Pure.

It imports what may be bound to MKL, multiplies, inverts and takes complex products whose results are known. Functions
that return a complex value (zdotu) are where compilers differ, and where numbers come out wrong without a word. Running
it is the caller's part.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MARK = "aftercare-proof "
"""Begins the lines that are ours: MKL and the tests print to standard output, too."""

PROGRAM = r"""
import json, os, sys

def say(**words):
    sys.stdout.write("\naftercare-proof " + json.dumps(words) + "\n")
    sys.stdout.flush()

def prove(stage, compute, known):
    say(at=stage)
    got = compute()
    say(stage=stage, right=bool(numpy.allclose(got, known, rtol=1e-6, atol=1e-9)), got=str(got)[:200])

site, tests = sys.argv[1], sys.argv[2:] == ["tests"]
if site not in sys.path:
    sys.path.insert(0, site)
say(at="import numpy")
import numpy
own = os.path.realpath(numpy.__file__).startswith(os.path.realpath(site) + "/")
say(stage="import numpy", own=own, got=numpy.__file__, numpy=numpy.__version__)
left, right = numpy.array([1 + 2j, 3 + 4j]), numpy.array([5 + 6j, 7 + 8j])
counted = numpy.arange(90000.0).reshape(300, 300) / 90000.0
prove("dot", lambda: numpy.dot(counted, numpy.eye(300)) - counted, 0.0)
prove("inv", lambda: numpy.linalg.inv(numpy.array([[4.0, 7.0], [2.0, 6.0]])), [[0.6, -0.7], [-0.2, 0.4]])
dominant = counted + 300 * numpy.eye(300)
prove("large inv", lambda: numpy.dot(numpy.linalg.inv(dominant), dominant) - numpy.eye(300), 0.0)
prove("complex vdot", lambda: numpy.vdot(left, right), 70 - 8j)
say(at="import scipy")
try:
    import scipy
    from scipy.linalg import blas
except ModuleNotFoundError:
    say(stage="import scipy", got="not installed")
else:
    say(stage="import scipy", got=scipy.__file__, scipy=scipy.__version__)
    prove("zdotu", lambda: blas.zdotu(left, right), -18 + 68j)
import importlib.util
for name in ("mkl", "mkl_fft", "mkl_random", "numexpr"):
    if importlib.util.find_spec(name):
        say(at="import " + name)
        __import__(name)
        say(stage="import " + name, got=sys.modules[name].__file__)
if "mkl_fft" in sys.modules:
    prove("mkl_fft", lambda: sys.modules["mkl_fft"].fft(numpy.array([1.0, 2.0, 3.0, 4.0])), [10, -2 + 2j, -2, -2 - 2j])
if tests:
    say(at="numpy.test()")
    say(stage="numpy.test()", right=bool(numpy.test(verbose=0)), got="")
say(at="")
"""
"""Run it as `python -I -B -X faulthandler -c PROGRAM SITE [tests]`."""

LONGEST_WORDS = 600
TELLING = (
    "Original error was:",
    "FATAL ERROR",
    "symbol lookup error",
    "OMP: Error",
    "INTEL MKL ERROR",
    "INTEL oneMKL ERROR",
    "Fatal Python error",
    "cannot open shared object",
    "Error:",
)
"""What a line contains that says why, the most telling first; numpy wraps it into a page of text."""


class Outcome(StrEnum):
    """PASSED: every number is right. WRONG: one is not. FAILED: it died on the way. NOT_RUN: it never began."""

    PASSED = "passed"
    WRONG = "wrong"
    FAILED = "failed"
    NOT_RUN = "not-run"


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of a run. stage: where it ended, or the first wrong result; said: the words that tell why.

    status: the exit status of the program, as a shell has it (128 and the signal's number).
    """

    outcome: Outcome
    stage: str
    status: int
    said: str
    numpy: str = ""
    scipy: str = ""


def judge(status: int, stdout: str, stderr: str) -> Proof:
    """Return what the program's output means. status: negative for a signal."""
    code = 128 - status if status < 0 else status
    said = list(_said(stdout))
    versions = {name: str(row[name]) for row in said for name in ("numpy", "scipy") if name in row}
    if not said:
        return Proof(Outcome.NOT_RUN, "", code, _telling(stdout, stderr))
    foreign = next((row for row in said if row.get("own") is False), None)
    if foreign:
        return Proof(
            Outcome.NOT_RUN, "import numpy", code, f"another numpy was imported: {foreign.get('got')}"[:LONGEST_WORDS]
        )
    wrong = next((row for row in said if row.get("right") is False), None)
    stages = [str(row["at"]) for row in said if "at" in row]
    if stages[-1:] == [""] and code == 0 and not wrong:
        return Proof(Outcome.PASSED, "", 0, "", **versions)
    if wrong:
        return Proof(
            Outcome.WRONG, str(wrong.get("stage")), code, f"got {wrong.get('got')}"[:LONGEST_WORDS], **versions
        )
    return Proof(Outcome.FAILED, next(iter(stages[-1:]), ""), code, _telling(stdout, stderr), **versions)


def agrees(proof: Proof, kind: str, expected: int | None) -> bool | None:
    """Return whether a proof bears out the static verdict `kind` that expects this exit status of `import numpy`.

    expected: None where some functions fail and nobody knows which. None is returned where the proof says nothing about
    the verdict: it never began, it calls none of those functions, or the verdict was `unknown`.
    """
    if proof.outcome is Outcome.NOT_RUN or kind == "unknown":
        return None
    if kind == "wrong-results":
        return proof.outcome in (Outcome.WRONG, Outcome.FAILED)
    if expected is None:
        return proof.outcome is Outcome.FAILED or None
    if expected == 0:
        return proof.outcome is Outcome.PASSED
    return proof.outcome is Outcome.FAILED


def _said(stdout: str) -> Iterator[dict[str, Any]]:
    for line in stdout.split("\n"):
        if line.startswith(MARK):
            try:
                row = json.loads(line[len(MARK) :])
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row


def _telling(stdout: str, stderr: str) -> str:
    """Return the line that says why a program died; the last one where none is known to."""
    lines = [line.strip() for line in (*stdout.split("\n"), *stderr.split("\n"))]
    lines = [line for line in lines if line and not line.startswith(MARK.strip())]
    known = (line for sign in TELLING for line in lines if sign in line)
    return next(known, lines[-1] if lines else "")[:LONGEST_WORDS]
