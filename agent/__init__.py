"""aftercare: what happens to a Debian machine after apt."""

import sys

__version__ = "0.1.0"

RUNNING = f"{__version__} python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
"""What this process runs; a worker started later may find that the disk has something else by now."""
