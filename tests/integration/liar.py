"""A FUSE file system of one directory that claims what it likes: owner 0, no name left, any inode number.

`python3 liar.py DEVICE MOUNTPOINT NAME CONTENT INODE`: serves the bytes of CONTENT as NAME, maps it for
execution, stops answering, and prints `ready PID`. The wire: /usr/include/linux/fuse.h.
"""

import ctypes
import errno
import mmap
import os
import signal
import struct
import sys

LOOKUP, GETATTR, OPEN, READ, INIT = 1, 3, 14, 15, 26
BORN = 1_000_000_000


def attributes(inode: int, size: int, mode: int) -> bytes:
    """struct fuse_attr: owned by root, with no name left."""
    return struct.pack("=6Q10I", inode, size, 8, BORN, BORN, BORN, 0, 0, 0, mode, 0, 0, 0, 0, 4096, 0)


def answer(code: int, node: int, body: bytes, name: bytes, content: bytes, inode: int) -> bytes | int:
    """Return the reply to one request, or an error number."""
    directory = attributes(1, 4096, 0o40755)
    file = attributes(inode, len(content), 0o100755)
    if code == INIT:
        return struct.pack("=IIIIHHIIHHI28x", 7, 31, 1 << 17, 0, 16, 12, 1 << 17, 1, 0, 0, 0)
    if code == LOOKUP:
        return struct.pack("=QQQQII", 2, 0, 1, 1, 0, 0) + file if body.rstrip(b"\0") == name else errno.ENOENT
    if code == GETATTR:
        return struct.pack("=QII", 1, 0, 0) + (directory if node == 1 else file)
    if code == OPEN:
        return struct.pack("=QII", 1, 0, 0)
    if code == READ:
        _, offset, size = struct.unpack_from("=QQI", body)
        return content[offset : offset + size]
    return errno.ENOSYS


def serve(device: int, name: bytes, content: bytes, inode: int) -> None:
    """Answer whatever is asked."""
    while True:
        request = os.read(device, 1 << 18)
        _, code, unique, node = struct.unpack_from("=IIQQ", request)
        reply = answer(code, node, request[40:], name, content, inode)
        body, error = (b"", -reply) if isinstance(reply, int) else (reply, 0)
        os.write(device, struct.pack("=IiQ", 16 + len(body), error, unique) + body)


def start_server(device: int, name: bytes, content: bytes, inode: int) -> int:
    """Serve in a process of its own, for who waits for a page cannot provide it."""
    server = os.fork()
    if server == 0:
        serve(device, name, content, inode)
    return server


def main(node: str, mountpoint: str, name: str, source: str, number: str) -> None:
    """Mount, map, fall silent."""
    with open(source, "rb") as file:
        content = file.read()
    device = os.open(node, os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"liar", os.fsencode(mountpoint), b"fuse", 0, options) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    server = start_server(device, os.fsencode(name), content, int(number))
    os.close(device)
    fd = os.open(f"{mountpoint}/{name}", os.O_RDONLY)
    held = mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
    assert held[:4] == content[:4]
    os.kill(server, signal.SIGSTOP)
    print("ready", os.getpid(), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
