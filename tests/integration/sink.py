"""A mail server that takes everything and prints, a JSON line a mail, whom it came from. Runs inside a namespace."""

import json
import socket
import socketserver
import threading


class Session(socketserver.StreamRequestHandler):
    """One connection."""

    timeout = 30

    def handle(self) -> None:
        peer, helo, sender = str(self.client_address[0]), "", ""
        self.say("220 sink.example ESMTP")
        for line in self.rfile:
            word, _, rest = line.decode().strip().partition(" ")
            match word.upper():
                case "EHLO" | "HELO":
                    helo = rest
                    self.say(f"250 sink.example Hello {rest} [{peer}]")
                case "MAIL":
                    sender = rest
                    self.say("250 OK")
                case "DATA":
                    self.say("354 go on")
                    while self.rfile.readline() not in (b".\r\n", b""):
                        pass
                    print(json.dumps({"peer": peer, "helo": helo, "from": sender}), flush=True)
                    self.say("250 kept")
                case "QUIT":
                    self.say("221 bye")
                    return
                case _:
                    self.say("250 OK")

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class Server(socketserver.ThreadingTCPServer):
    """One for IPv4."""

    allow_reuse_address = True
    daemon_threads = True


class Server6(Server):
    """One for IPv6 alone."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()


if __name__ == "__main__":
    servers = (Server(("198.51.100.25", 25), Session), Server6(("2001:db8:2::25", 25), Session))
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    print(json.dumps("listening"), flush=True)
