"""How the command talks to the daemon: the Varlink wire, its client and its server."""
