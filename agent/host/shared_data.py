"""Data that programs read once and keep: the time zone of this host, and the CA certificates that it trusts.

Facts alone. The files are root's own; no process is looked at.
"""

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.model.facts import Host

LOCALTIME = "/etc/localtime"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
LARGEST_BUNDLE = 16 << 20


def read_zone(host: Host) -> str:
    """Return the time zone of this host, such as `Europe/Berlin`; empty where none of tzdata's is set."""
    try:
        target = os.readlink(host.under(LOCALTIME))
    except OSError:
        return ""
    return target.partition("zoneinfo/")[2]


@dataclass(frozen=True, slots=True)
class Bundle:
    """The CA certificates that TLS libraries trust by default: a digest of them, and when they were written."""

    digest: str
    written: datetime


def read_bundle(host: Host) -> Bundle | None:
    """Return the bundle of CA certificates; None where there is none."""
    try:
        with open(host.under(BUNDLE), "rb") as file:
            written = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
            return Bundle(hashlib.sha256(file.read(LARGEST_BUNDLE)).hexdigest(), written)
    except OSError:
        return None
