"""Foreign names as text for people: the one sanitiser, and what it means where it is typed. Pure."""


def printable(name: str) -> str:
    """Return `name` with everything that a terminal, a log line or a parser could trip over escaped.

    Keeps printable characters and plain blanks; escapes control and format characters (`\\x1b`, `\\u202e`), lone
    surrogates (the bytes of names that are not UTF-8, `\\xff`), other blanks and the backslash itself.
    """
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    return "".join(_escaped(character) for character in name)


def _escaped(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if character == " " or character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def typed(shown: str) -> str:
    """Return what `printable` made of a name with its backslashes as people type them, and as systemd names units.

    No longer for every name another text: not for what a program goes by.
    """
    return shown.replace("\\\\", "\\")
