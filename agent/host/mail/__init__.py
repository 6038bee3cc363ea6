"""Exim, asked of itself and read from Debian's own files. Nothing here judges."""
