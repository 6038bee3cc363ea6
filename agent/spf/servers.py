"""Addresses of name servers as people write them. Pure."""

from dataclasses import dataclass
from ipaddress import ip_address

PORT = 53


@dataclass(frozen=True, slots=True)
class Server:
    """A name server: an IP address, never a name, and a port."""

    address: str
    port: int = PORT

    def __str__(self) -> str:
        return self.address if self.port == PORT else f"{self.address}#{self.port}"


def parse_server(text: str) -> Server:
    """Return the server that `192.0.2.1`, or `2001:db8::1#5353` with a port, names. Raises ValueError, for people."""
    address, hash_sign, port = text.partition("#")
    if hash_sign and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError(f"`{port:.20}` is no port from 1 to 65535")
    try:
        return Server(str(ip_address(address)), int(port) if port else PORT)
    except ValueError:
        raise ValueError(f"`{address:.60}` is no IP address of a name server") from None
