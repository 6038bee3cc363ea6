"""A process whose memory map is locked for ever: whoever reads its maps waits until he is killed.

`python3 stuck.py DEVICE MOUNTPOINT`: replaces a mapping of a dirty page of a FUSE file, which the kernel writes back
under the lock of the map to a server that never answers. It takes no rights but a user namespace of one's own. Prints
`ready PID` just before. The wire: /usr/include/linux/fuse.h.
"""

import ctypes
import mmap
import os
import struct
import sys
import time

LOOKUP, GETATTR, SETATTR, OPEN, READ, WRITE, INIT = 1, 3, 4, 14, 15, 16, 26
WRITEBACK_CACHE = 1 << 16
PAGE = 4096
ENOSYS = 38
MAP_FIXED, MAP_ANONYMOUS = 0x10, 0x20
EVER = 1_000_000


def attributes(inode: int, mode: int) -> bytes:
    """struct fuse_attr: a page, owned by whoever is root here."""
    return struct.pack("=6Q10I", inode, PAGE, 8, 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0)


def answer(code: int, node: int) -> bytes | int:
    """Return the reply to one request, or an error number. WRITE gets none, ever."""
    file, directory = attributes(2, 0o100666), attributes(1, 0o40755)
    if code == WRITE:
        time.sleep(EVER)
    replies = {
        INIT: struct.pack("=IIIIHHIIHHI28x", 7, 31, 1 << 17, WRITEBACK_CACHE, 16, 12, 1 << 17, 1, 0, 0, 0),
        LOOKUP: struct.pack("=QQQQII", 2, 0, 1000, 1000, 0, 0) + file,
        GETATTR: struct.pack("=QII", 1000, 0, 0) + (directory if node == 1 else file),
        SETATTR: struct.pack("=QII", 1000, 0, 0) + file,
        OPEN: struct.pack("=QII", 1, 0, 0),
        READ: bytes(PAGE),
    }
    return replies.get(code, ENOSYS)


def serve(device: int) -> None:
    """Answer, until asked to write."""
    while True:
        _, code, unique, node = struct.unpack_from("=IIQQ", os.read(device, 1 << 18))
        reply = answer(code, node)
        body, error = (b"", -reply) if isinstance(reply, int) else (reply, 0)
        os.write(device, struct.pack("=IiQ", 16 + len(body), error, unique) + body)


def main(node: str, mountpoint: str) -> None:
    """Mount, make a page dirty, and map something else over it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    device = os.open(node, os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"stuck", os.fsencode(mountpoint), b"fuse", 0, options) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    if os.fork() == 0:
        serve(device)
    os.close(device)
    fd = os.open(f"{mountpoint}/file", os.O_RDWR)
    writable = mmap.PROT_READ | mmap.PROT_WRITE
    page = libc.mmap(None, PAGE, writable, mmap.MAP_SHARED, fd, 0)
    ctypes.memmove(page, b"dirty", 5)
    print("ready", os.getpid(), flush=True)
    libc.mmap(page, PAGE, writable, mmap.MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0)
    sys.exit("it came back")


if __name__ == "__main__":
    main(*sys.argv[1:])
