"""The words of the verdicts, and how bad each is. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from agent.mkl.repairs import Repair


class Kind(StrEnum):
    """What becomes of a module with the MKL that is there now. Worst first."""

    WRONG_RESULTS = "wrong-results"
    FAIL_SYSTEM = "fail-system"
    REBUILD = "rebuild"
    FAIL_MISSING = "fail-missing"
    FAIL_MIXED = "fail-mixed"
    FAIL_INTERFACE = "fail-interface"
    FAIL_ENV = "fail-env"
    FAIL_OMP = "fail-omp"
    DEGRADED = "degraded"
    RESTART = "restart"
    UNKNOWN = "unknown"
    INFO = "info"
    OK = "ok"
    OK_UNCHANGED = "ok-unchanged"
    NOT_MKL = "not-mkl"


SEVERITY = {
    **dict.fromkeys(Kind, "error"),
    **dict.fromkeys((Kind.WRONG_RESULTS, Kind.FAIL_SYSTEM), "critical"),
    **dict.fromkeys((Kind.DEGRADED, Kind.RESTART), "warning"),
    **dict.fromkeys((Kind.INFO, Kind.OK, Kind.OK_UNCHANGED, Kind.NOT_MKL), "info"),
    Kind.UNKNOWN: "unknown",
}
"""In the words of a finding."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A verdict before it is written out: what is wrong in one line, how one knows, and what to do in order."""

    kind: Kind
    summary: str
    evidence: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = ()
