"""The interface text as the contract: what may be called, and with which parameters.

Requests are checked against the text before a handler sees them, so a handler meets only parameters that it
knows, of the right type, in plain bounds. Nothing here knows a connection.
"""

import re
from pathlib import Path
from typing import Any

from agent.varlink.wire import INTERFACE

SERVICE = "org.varlink.service"
SERVICE_TEXT = """\
# What every Varlink service answers
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)

error MethodNotFound (method: string)

error InvalidParameter (parameter: string)

error ExpectedMore ()
"""
TEXTS = {INTERFACE: Path(__file__).with_name(f"{INTERFACE}.varlink").read_text("utf-8"), SERVICE: SERVICE_TEXT}
"""Interface → its text; read once at import, for the file may be replaced under a running daemon."""

BOUND = 2**53
"""Numbers beyond it are no exact integers in JSON, and nothing that may be asked for needs them."""


class Refused(Exception):
    """An error of org.varlink.service; `reply` is what the caller gets."""

    def __init__(self, error: str, **parameters: str) -> None:
        super().__init__(error)
        self.reply: dict[str, Any] = {"error": f"{SERVICE}.{error}", "parameters": parameters}


def signatures(text: str) -> dict[str, dict[str, str]]:
    """Return the methods of an interface text as name → parameter → Varlink type."""
    methods = re.findall(r"^method (\w+)\((.*?)\)", text, re.MULTILINE | re.DOTALL)
    return {name: dict(re.findall(r"(\w+): ([^,\s]+)", arguments)) for name, arguments in methods}


SIGNATURES = {interface: signatures(text) for interface, text in TEXTS.items()}


def find(method: str) -> tuple[str, str]:
    """Return interface and name of a full method name; raise Refused where there is no such method."""
    interface, _, name = method.rpartition(".")
    if interface not in SIGNATURES:
        raise Refused("InterfaceNotFound", interface=interface)
    if name not in SIGNATURES[interface]:
        raise Refused("MethodNotFound", method=method)
    return interface, name


def checked(signature: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
    """Return `parameters` but those that are null; raise Refused for one that `signature` does not allow."""
    given = {name: value for name, value in parameters.items() if value is not None}
    for name, value in given.items():
        if not _is(signature.get(name, "").removeprefix("?"), value):
            raise Refused("InvalidParameter", parameter=name)
    for name, kind in signature.items():
        if name not in given and not kind.startswith("?"):
            raise Refused("InvalidParameter", parameter=name)
    return given


def _is(kind: str, value: Any) -> bool:
    """Whether `value` is of the Varlink type `kind`; strings are names here, so printable."""
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return type(value) is int and abs(value) <= BOUND
        case "float":
            return type(value) in (int, float) and abs(value) <= BOUND
        case "string":
            return isinstance(value, str) and value.isprintable()
        case "[]string":
            return isinstance(value, list) and all(_is("string", item) for item in value)
    return False
