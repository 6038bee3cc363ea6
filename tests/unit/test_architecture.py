"""The plan of the house, held against the code: who may know whom, and how long a module may grow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "agent").rglob("*.py"))

ALLOWED = {
    "model": (),
    "spawn": ("model",),
    "config": ("model",),
    "host": ("model", "spawn"),
    "stale": ("model",),
    "spf": (),
    "mkl": (),
    "repair": ("model", "spawn", "host"),
    "checks": ("model", "config.settings", "host", "stale", "spf", "mkl"),
    "settle": ("model",),
    "sources": ("model",),
    "restart": ("model", "spawn", "config.settings"),
    "store": ("model",),
    "report": ("model",),
    "varlink": ("model",),
    "daemon": (
        "model",
        "spawn",
        "config",
        "host",
        "settle",
        "sources",
        "restart",
        "store",
        "report",
        "varlink",
        "checks",
        "stale",
    ),
    "cli": ("model", "varlink.wire"),
    "cli.foreign": ("model", "host", "report.formats"),
    "cli.look": ("model", "config", "checks", "host"),
    "cli.presence": ("model", "spawn"),
    "cli.spf": ("model", "config", "checks", "host"),
    "cli.evaluate": ("model", "spf", "checks.spf.wording"),
    "cli.reflector": ("model", "spf"),
    "cli.verify": ("model", "host", "spawn"),
    "cli.exim": ("model", "config", "checks", "host", "repair"),
    "cli.numpy": ("model", "config", "checks", "host", "mkl", "spawn"),
    "cli.foresee": ("model", "varlink.wire", "config", "checks", "host", "restart.plan"),
    "cli.policy": ("model", "config.needrestart"),
    "cli.doctor": ("model", "varlink.wire", "config", "host", "spawn"),
}

PURE = (
    "model",
    "stale",
    "spf",
    "mkl",
    "settle",
    "config.settings",
    "config.needrestart",
    "restart.plan",
    "restart.verify",
    "report.why",
    "report.formats",
)
NETWORKED = "spf.resolver"
"""The one module of an engine that touches something."""
NOT_PURE = {
    "os",
    "subprocess",
    "socket",
    "time",
    "asyncio",
    "pathlib",
    "select",
    "fcntl",
    "ctypes",
    "shutil",
    "tempfile",
}

ONE_HOME = {
    "pyinotify": "sources.files",
    "sqlite3": "store.database",
    "rich": "cli.terminal",
    "psutil": "host.processes",
    "sdnotify": "report.publish",
    "subprocess": "spawn",
    "dns": "spf.resolver",
    "aiosmtpd": "cli.reflector",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "agent").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_the_rooms_that_the_plan_allows(path: Path) -> None:
    name = name_of(path)
    room = name.split(".")[0]
    allowed = (*ALLOWED.get(name, ALLOWED.get(room, ())), room) if name else ()
    for imported in imports(path):
        if not is_within(imported, "agent") or imported in ("agent.__version__", "agent.RUNNING"):
            continue
        inner = imported.removeprefix("agent.")
        assert any(is_within(inner, entry) or is_within(entry, inner) for entry in allowed), f"{name}: {imported}"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if any(is_within(name_of(path), room) for room in PURE) and name_of(path) != NETWORKED],
    ids=name_of,
)
def test_what_decides_touches_nothing(path: Path) -> None:
    for imported in imports(path):
        top = imported.split(".")[0]
        assert top not in NOT_PURE, f"{name_of(path)} imports {imported}"
        assert top == "agent" or top in sys.stdlib_module_names, f"{name_of(path)} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_library_has_one_home(path: Path) -> None:
    for imported in imports(path):
        home = ONE_HOME.get(imported.split(".")[0])
        assert home in (None, name_of(path)), f"{imported} belongs to {home}, not to {name_of(path)}"


@pytest.mark.real
@pytest.mark.parametrize(
    "module",
    [
        "agent.checks.worker",
        "agent.checks.libraries",
        "agent.checks.reboot",
        "agent.checks.foresight",
        "agent.cli.ask",
        "agent.cli.look",
    ],
)
def test_what_is_started_often_loads_no_event_loop(module: str) -> None:
    code = f"import {module}, sys; sys.exit('asyncio' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_small_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path}: no docstring"
    assert len(text.splitlines()) <= 300, f"{path}: more than 300 lines"
    assert max(map(len, text.splitlines())) <= 120, f"{path}: a line over 120 columns"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_are_short_and_public_ones_documented(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 42, f"{path}:{node.lineno} {node.name} is too long"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name} has no docstring"
