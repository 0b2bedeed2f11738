"""A disk whose power can be cut: a file on a file system of our own (FUSE), to be attached as a loop device.

What it is: a process that keeps the disk in memory and speaks the kernel's FUSE protocol over /dev/fuse, with one file, `disk`. The loop device
writes to it with direct I/O, so that what arrives here is what the file system on it has written to its device, in that order, and no page cache
lies between. A flush of the device arrives as FSYNC. Between two flushes a real disk may hold what it was given in a cache of its own, so a cut
leaves everything from before the last flush, and of what came since nothing, all, or any blocks of it: as the dice say.

A cut is one moment: requests are served one after the other, and none while the disk is copied. With `at_sync` it comes when a flush arrives and
is not done yet, or right behind it, before anybody is told: the moments at which a promise is nearest to being broken.

Must never: touch what is mounted on it. (The kernel would wait for this process, which waits for the kernel.)
"""

import ctypes
import errno
import json
import os
import pathlib
import random
import select
import socket
import struct
import subprocess
import time

from checks import Failure, check, run, until

LIBC = ctypes.CDLL(None, use_errno=True)
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = (
    1, 2, 3, 4, 14, 15, 16, 17, 18, 20, 25, 26, 27, 28, 29)
INTERRUPT, DESTROY, BATCH_FORGET = 36, 38, 42
ROOT_NODE, DISK_NODE = 1, 2
DIRECT_IO = 1
WRITE_SIZE_MAX = 1 << 20
# What a disk writes whole.
SECTOR = 512
SIZE = 32 << 20


def system(result, what):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source, target, kind, data=""):
    system(LIBC.mount(source.encode(), str(target).encode(), kind.encode(), 0, data.encode()), f"mount {target}")


def unmount(target):
    system(LIBC.umount2(str(target).encode(), 0), f"umount {target}")


def leave_the_mounts_of_others():
    """From here on this process and its children have mounts of their own, which are gone when they are."""
    system(LIBC.unshare(0x20000), "unshare")  # CLONE_NEWNS
    system(LIBC.mount(b"none", b"/", None, 0x44000, None), "make mounts private")  # MS_REC | MS_PRIVATE


def missing():
    """Why there can be no such disk here, if so."""
    if os.geteuid() != 0:
        return "only root may mount"
    for path in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(path):
            return f"there is no {path}"
    for tool in ("losetup", "mkfs.ext4"):
        if subprocess.run(["which", tool], capture_output=True, check=False).returncode != 0:
            return f"there is no {tool}"
    try:
        run("losetup", "--find")
    except Failure as failure:
        return f"no loop device is free: {failure}"
    return None


class Server:
    """The process behind the mount point."""

    def __init__(self, fuse, control, image):
        self.fuse, self.control = fuse, control
        # As a reader sees it, and what no loss of power takes.
        self.live, self.durable = bytearray(image), bytearray(image)
        # Written since the last flush.
        self.pending = []
        self.armed = None
        self.flushes = self.writes = 0

    def serve(self):
        while True:
            for source in select.select([self.fuse, self.control], [], [])[0]:
                if source is self.control:
                    if not self.command():
                        return
                    continue
                try:
                    request = os.read(self.fuse, WRITE_SIZE_MAX + 65536)
                except OSError as error:
                    if error.errno == errno.ENODEV:
                        return
                    # One that was taken back before it was read.
                    if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                        continue
                    raise
                self.answer(request)

    def command(self):
        line = self.control.recv(65536)
        if not line:
            return False
        cut = json.loads(line)
        if cut["at_sync"]:
            self.armed = cut
        elif not cut["instead"]:
            self.cut(cut)
        elif self.armed:
            # Or it has come in the nick of time.
            self.armed = None
            self.cut(cut)
        return True

    def cut(self, cut):
        """Writes down what would be there if power were lost now."""
        at = time.monotonic()
        dice = random.Random(cut["seed"])
        image = bytearray(self.durable)
        kept = 0
        for offset, data in self.pending:
            for start in range(0, len(data), SECTOR):
                if cut["keeps"] == "all" or (cut["keeps"] == "some" and dice.random() < 0.5):
                    image[offset + start:offset + start + len(data[start:start + SECTOR])] = data[start:start + SECTOR]
                    kept += 1
        pathlib.Path(cut["path"]).write_bytes(image)
        sectors = sum(-(-len(data) // SECTOR) for _, data in self.pending)
        self.control.send(json.dumps({"at": at, "flushes": self.flushes, "writes": self.writes, "sectors": sectors, "kept": kept}).encode())

    def flush(self):
        armed, self.armed = self.armed, None
        if armed and armed["at_sync"] == "before":
            self.cut(armed)
        for offset, data in self.pending:
            self.durable[offset:offset + len(data)] = data
        self.pending = []
        self.flushes += 1
        if armed and armed["at_sync"] == "after":
            self.cut(armed)

    def answer(self, request):
        _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
        body = request[40:]
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        try:
            code, reply = 0, self.reply(opcode, node, body)
        except OSError as error:
            code, reply = -error.errno, b""
        try:
            os.write(self.fuse, struct.pack("<IiQ", 16 + len(reply), code, unique) + reply)
        except OSError as error:
            # Whoever asked has gone.
            if error.errno != errno.ENOENT:
                raise

    def reply(self, opcode, node, body):
        if opcode == INIT:
            major, minor = struct.unpack_from("<II", body)
            check(major == 7 and minor >= 31, f"FUSE {major}.{minor}")
            big_writes, max_pages = 1 << 5, 1 << 22
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, 1 << 17, big_writes | max_pages, 64, 48, WRITE_SIZE_MAX, 1, WRITE_SIZE_MAX // 4096, 0, 0)
        if opcode == LOOKUP:
            if body.rstrip(b"\0") != b"disk":
                raise OSError(errno.ENOENT, "no such file")
            return struct.pack("<QQQQII", DISK_NODE, 0, 3600, 3600, 0, 0) + self.attributes(DISK_NODE)
        if opcode in (GETATTR, SETATTR):
            return struct.pack("<QII", 3600, 0, 0) + self.attributes(node)
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<QIi", 0, DIRECT_IO if node == DISK_NODE else 0, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return bytes(self.live[offset:offset + size])
        if opcode == WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            data = body[40:40 + size]
            check(offset + size <= len(self.live), "a write behind the disk's end")
            self.live[offset:offset + size] = data
            self.pending.append((offset, data))
            self.writes += 1
            return struct.pack("<II", size, 0)
        if opcode == FSYNC:
            self.flush()
            return b""
        if opcode == STATFS:
            return struct.pack("<QQQQQIIII24x", len(self.live) // 4096, 0, 0, 2, 0, 4096, 255, 4096, 0)
        if opcode in (RELEASE, RELEASEDIR, FLUSH, READDIR, DESTROY):
            return b""
        raise OSError(errno.ENOSYS, "not spoken here")

    def attributes(self, node):
        size, mode = (len(self.live), 0o100600) if node == DISK_NODE else (0, 0o40700)
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def mount_ext4(file, target, *flags):
    """Mounts a file by way of a loop device, which goes when it is unmounted."""
    device = run("losetup", "--find", "--show", *flags, str(file)).strip()
    try:
        mount(device, target, "ext4")
    finally:
        # As soon as nobody uses it.
        run("losetup", "--detach", device)


class Disk:
    """A disk with ext4 on it, mounted at `folder`/mounted."""

    def __init__(self, folder):
        self.folder = folder
        self.fuse_folder, self.mounted = folder / "fuse", folder / "mounted"
        for each in (self.fuse_folder, self.mounted):
            each.mkdir()
        fuse = os.open("/dev/fuse", os.O_RDWR)
        mount("powerdisk", self.fuse_folder, "fuse", f"fd={fuse},rootmode=40000,user_id=0,group_id=0")
        self.control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.child = os.fork()
        if self.child == 0:
            status = 1
            try:
                self.control.close()
                Server(fuse, other, self.formatted(folder)).serve()
                status = 0
            finally:
                os._exit(status)
        os.close(fuse)
        other.close()
        mount_ext4(self.fuse_folder / "disk", self.mounted, "--direct-io=on")

    @staticmethod
    def formatted(folder):
        file = folder / "empty"
        with open(file, "wb") as empty:
            empty.truncate(SIZE)
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(file))
        image = file.read_bytes()
        file.unlink()
        return image

    def cut(self, path, keeps, seed, at_sync=None):
        """Copies what would be left to `path`: at once, or at the next flush. Returns what the server says, the moment first of all."""
        order = {"path": str(path), "keeps": keeps, "seed": seed, "at_sync": at_sync, "instead": False}
        self.control.send(json.dumps(order).encode())
        if at_sync and not select.select([self.control], [], [], 5)[0]:
            # Nobody syncs any more.
            self.control.send(json.dumps(order | {"at_sync": None, "instead": True}).encode())
        return json.loads(self.control.recv(65536))

    def remove(self):
        """Takes it apart; nobody may be using it."""
        until(lambda: succeeds(unmount, self.mounted), f"{self.mounted} is free")
        until(lambda: succeeds(unmount, self.fuse_folder), f"{self.fuse_folder} is free")
        self.control.close()
        os.waitpid(self.child, 0)


class Copy:
    """What a cut has left, mounted as a machine does that has power again: ext4 replays its own journal."""

    def __init__(self, image, folder):
        self.folder = folder
        folder.mkdir()
        mount_ext4(image, folder)

    def remove(self):
        until(lambda: succeeds(unmount, self.folder), f"{self.folder} is free")


def succeeds(function, *arguments):
    try:
        function(*arguments)
        return True
    except OSError:
        return False
