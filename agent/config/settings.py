"""Every setting there is: name, type, range, default and what it is for, in one table.

The parser of the files, the errors that people read, `aftercare.toml(5)` and the example come from it. Pure: text
and plain TOML data in, a frozen `Settings` or an AgentError(CONFIG) that names file, key and remedy out.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import ip_address
from typing import Any

from agent.model.contract import encode
from agent.model.errors import AgentError, Kind
from agent.model.probes import parse_commands, parse_patterns, parse_probe
from agent.model.restarts import Disposition, Rule


COMPLETE = re.compile(r"^/|[*?\]]$|\.(service|socket|scope|slice|timer|mount|automount|swap|device|target|path)$")
"""A pattern that may match as it stands; without a type of unit it is meant as a service, as for systemctl."""


@dataclass(frozen=True, slots=True)
class Reboot:
    """The table [reboot]."""

    write_flag: bool = False


@dataclass(frozen=True, slots=True)
class Spf:
    """The table [spf]: what cannot be seen from this host, or must not be asked for without leave."""

    domains: tuple[str, ...] = ()
    public_addresses: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    echo: str = ""


@dataclass(frozen=True, slots=True)
class Numpy:
    """The table [numpy]: where else to look for environments, and how often for new ones (days)."""

    roots: tuple[str, ...] = ()
    discover_days: int = 7


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, valid. Times in seconds, memory in MiB."""

    mode: str = "auto"
    quiet_period: float = 3.0
    check_limit: float = 45.0
    check_memory: int = 512
    keep_days: int = 365
    rules: tuple[Rule, ...] = ()
    most_per_hour: int = 3
    likely: str = "report"
    reboot: Reboot = Reboot()
    spf: Spf = Spf()
    numpy: Numpy = Numpy()


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: `parse` returns the value or raises ValueError with what is allowed."""

    name: str
    parse: Callable[[Any], Any]
    help: str


def _choice(*allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return str(value)

    return parse


def _number(low: float, high: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return parse


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text in quotes")
    return value


def _globs(value: Any) -> tuple[str, ...]:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list) or not patterns or not all(isinstance(item, str) for item in patterns):
        raise ValueError('must be a unit name pattern or a list of them, such as ["ssh.service", "php*-fpm.service"]')
    return tuple(pattern if COMPLETE.search(pattern) else f"{pattern}.service" for pattern in patterns)


def _texts(what: str, is_good: Callable[[str], bool]) -> Callable[[Any], tuple[str, ...]]:
    def parse(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) and is_good(item) for item in value):
            raise ValueError(f"must be a list of {what} in quotes")
        return tuple(value)

    return parse


def _is_name(text: str) -> bool:
    return re.fullmatch(r"(?!-)[A-Za-z0-9._-]{1,253}", text) is not None


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def _is_server(text: str) -> bool:
    address, _, port = text.partition("#")
    return _is_address(address) and (not port or (port.isdigit() and 0 < int(port) < 65536))


SETTINGS = (
    Setting("mode", _choice("auto", "observe"), "auto restarts what needs it; observe only reports"),
    Setting("quiet_period", _number(0.2, 600), "seconds without any move of dpkg before a transaction counts as over"),
    Setting("check_limit", _number(5, 600), "seconds that one check may take"),
    Setting("check_memory", _whole(128, 16384), "MiB of address space that one check may take"),
    Setting("keep_days", _whole(1, 36500), "days of history that are kept"),
    Setting("most_per_hour", _whole(1, 100), "restarts of one unit that an hour may see, but for those asked for"),
    Setting("likely", _choice("report", "restart"), "what is done about units that are only likely stale"),
)

TABLES = {
    "reboot": (Setting("write_flag", _switch, "whether a reboot that is needed is noted in /run/reboot-required too"),),
    "spf": (
        Setting("domains", _texts("domains", _is_name), "sender domains beside those that exim names"),
        Setting("public_addresses", _texts("IP addresses", _is_address), "what the world sees of a host behind NAT"),
        Setting("nameservers", _texts("addresses, with #PORT or without,", _is_server), "ask these, not the system's"),
        Setting("echo", _text, "a mail server that is asked, without sending mail, which address it sees; empty: none"),
    ),
    "numpy": (
        Setting("roots", _texts("absolute paths", lambda text: text.startswith("/")), "further places to search"),
        Setting("discover_days", _whole(1, 365), "days between two searches for new environments"),
    ),
}
"""Tables of their own: name → rows. Each is a field of `Settings`."""

RULE_SETTINGS = (
    Setting("match", _globs, "unit name patterns; of those that match, the last rule that says a thing decides on it"),
    Setting("disposition", _choice("restart", "defer", "reboot", "never"), "what is done about a stale unit"),
    Setting("wave", _whole(0, 99), "order: all units of a lower wave are verified before the next one begins"),
    Setting("settle", _number(0, 600), "seconds that a restarted unit must stay active"),
    Setting("limit", _number(1, 3600), "seconds that its restart may take"),
    Setting("why", _text, "the reason, shown to people"),
    Setting("window", _text, "when its maintenance window opens, as systemd.time(7) writes calendar events"),
    Setting("window_length", _number(60, 604800), "seconds that the window stays open"),
    Setting("precheck", parse_commands, "a command, as a list, that tests its configuration before it is restarted"),
    Setting("broken", parse_patterns, "regular expressions: only what they match in its output counts as broken"),
    Setting("probe", parse_probe, "what must answer after a restart: tcp:HOST:PORT, an http URL, unix:PATH, a command"),
    Setting("likely", _choice("report", "restart"), "what is done where it is only likely stale"),
)


def options_of(settings: Settings, check: str) -> dict[str, Any]:
    """Return what a worker is told of the settings for one check: its own table, encoded."""
    if check == "libraries":
        return {"likely": settings.likely, "most_per_hour": settings.most_per_hour}
    return dict(encode(getattr(settings, check))) if check in TABLES else {}


def apply(base: Settings, data: Mapping[str, Any], origin: str) -> Settings:
    """Return `base` with the TOML `data` of the file `origin` on top: keys replace, rules are appended."""
    values = {field.name: getattr(base, field.name) for field in fields(base)}
    plain = {key: item for key, item in data.items() if key not in ("rule", *TABLES)}
    values |= _parse(SETTINGS, plain, origin, extra=("rule", *TABLES))
    for name in TABLES.keys() & data.keys():
        values[name] = replace(values[name], **_table(name, data[name], origin))
    tables = data.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise AgentError(Kind.CONFIG, f"{origin}: rule must be written as [[rule]]", "see aftercare.toml(5)")
    for number, table in enumerate(tables, 1):
        values["rules"] += _rules(table, f"{origin}: rule {number}")
    return Settings(**values)


def _table(name: str, data: Any, origin: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise AgentError(Kind.CONFIG, f"{origin}: {name} must be written as [{name}]", "see aftercare.toml(5)")
    return _parse(TABLES[name], data, f"{origin}: {name}")


def _rules(table: Mapping[str, Any], origin: str) -> tuple[Rule, ...]:
    values = _parse(RULE_SETTINGS, table, origin)
    if "match" not in values:
        raise AgentError(Kind.CONFIG, f"{origin}: match is missing", 'add a line such as match = "nginx.service"')
    patterns = values.pop("match")
    if "disposition" in values:
        values["disposition"] = Disposition(values["disposition"])
    return tuple(Rule(pattern=pattern, **values, given=tuple(values)) for pattern in patterns)


def _parse(
    table: tuple[Setting, ...], data: Mapping[str, Any], origin: str, extra: tuple[str, ...] = ()
) -> dict[str, Any]:
    known = {setting.name: setting for setting in table}
    parsed = {}
    for key, value in data.items():
        if key not in known:
            raise _unknown(key, (*known, *extra), origin)
        try:
            parsed[key] = known[key].parse(value)
        except ValueError as problem:
            said = f"{str(problem).removesuffix(',')}, not {value!r}"
            raise AgentError(Kind.CONFIG, f"{origin}: {key} {said}", known[key].help) from problem
    return parsed


def _unknown(key: str, names: tuple[str, ...], origin: str) -> AgentError:
    """Return the complaint, with what was meant in the message itself: the journal and `status` show nothing else."""
    near = difflib.get_close_matches(key, names, 1)
    meant = f", did you mean {near[0]}?" if near else ""
    return AgentError(Kind.CONFIG, f"{origin}: unknown setting {key!r}{meant}", f"known are {', '.join(names)}")
