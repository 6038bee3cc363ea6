"""The worker with its engine given, in the machine that is measured on: `scan.py query|text <order`.

`scan.py agentctl` is `agentctl check libraries --json`. On stderr it says how many seconds the sweep over the
processes took, without dpkg's status and calibration, and every stale process: a finding tells the first of a unit.
"""

import json
import sys
import time
from typing import Any

SYSTEM = [place for place in sys.path if place.startswith("/usr/lib/") and "/dist-packages" not in place]
sys.path[:] = ["/usr/share/aftercare", *SYSTEM, "/usr/lib/python3/dist-packages"]

from agent.checks import libraries, worker  # noqa: E402
from agent.checks.libraries.sweep import Sweep, sweep_processes  # noqa: E402
from agent.host import mappings  # noqa: E402

ENGINES = {"query": mappings.QUERY, "text": mappings.TEXT}


def timed(*arguments: Any, **named: Any) -> Sweep:
    """Do what `sweep_processes` does, and say how long it took."""
    begun = time.perf_counter()
    done = sweep_processes(*arguments, **named)
    seconds = time.perf_counter() - begun
    stale = {found.process.pid: found.stale.files for found in done.verdicts if found.stale}
    told = {pid: sorted(file.path for file in files) for pid, files in stale.items()}
    print(json.dumps({"seconds": seconds, "stale": told}), file=sys.stderr)
    return done


if __name__ == "__main__":
    setattr(libraries, "sweep_processes", timed)
    if sys.argv[1] == "agentctl":
        from agent.cli.main import main

        sys.exit(main(["check", "libraries", "--json"]))
    engine = ENGINES[sys.argv[1]]
    setattr(mappings, "choose_engine", lambda host: engine)
    sys.exit(worker.main())
