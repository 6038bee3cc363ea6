"""Makes this worker step back behind everybody else, for work that nobody waits for."""

import ctypes
import os
import platform
from contextlib import suppress

IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282, "loongarch64": 30, "i686": 289}
"""The number of ioprio_set(2), for which the C library has no name."""
WHO_THREAD = 1
IDLE = 3 << 13
"""The class `idle` of linux/ioprio.h: the disk is read when nobody else wants to."""
NICEST = 19


def step_back() -> bool:
    """Give this thread idle I/O priority and the least weight on the processor; there is no way back for it.

    Returns whether the disk is left to others from now on; where a sandbox forbids it, all goes on as before.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICEST)
    number = IOPRIO_SET.get(platform.machine())
    return number is not None and ctypes.CDLL(None).syscall(number, WHO_THREAD, 0, IDLE) == 0
