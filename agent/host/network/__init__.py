"""Addresses, names and the ways out of this host, as the kernel and systemd see them. Nothing here judges."""
