#!/usr/bin/env python3
"""Holds seccomp.json against the system calls that the programs really make: it must be enough, and not more.

What it is: gateway and aggregator in their own filter, loaded by libseccomp as Docker's runc does, and under strace, which sees every
call whether the filter let it through or not; then everything that makes them do something: start, journal, segments, snapshots,
syncing, recovery of a torn journal, a second aggregator, names that resolve and one that does not, payments, questions, refusals, hostile
bytes, processors that fail, kills, SIGTERM, health checks, wrong configuration, and all of it again without io_uring. No Docker needed.
What fails: a call that the list does not have (unless LEFT_OUT says why), and a call on the list that no run made (unless KEPT says why).
What it must never do: need a fixed port, touch a running Galo, or leave a process behind. It waits for states with a deadline.
The programs are the images' own, static ones: `--programs DIR`, or taken out of the images galo-gateway and galo-aggregator.
Without either it takes target/fast, whose dynamic loader makes calls of its own, and judges only whether the list is enough; `--strict` makes
that a failure.
Needs strace, libseccomp.so.2 (apt itself depends on it), and Python's standard library.
"""

import argparse
import collections
import contextlib
import ctypes
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROFILE = ROOT / "seccomp.json"
DEADLINE_S = 30

# On the list, and made by none of the runs here; each for a reason that a run of this kind cannot show.
KEPT = {
    # What the engine (runc, a Go program) does on this thread between loading the filter and execve, in this version or another.
    "close_range": "runc closes what it had open",
    "epoll_pwait": "Go's poller; and aarch64 has no epoll_wait",
    "getppid": "runc looks whether its parent has gone",
    "nanosleep": "Go's scheduler",
    "readlinkat": "runc; and aarch64 has no readlink",
    "sched_yield": "Go's scheduler; and spinning locks of std and tokio, when threads meet",
    # Calls of aarch64, which lacks the ones that were made here.
    "fchmodat": "aarch64 has no chmod",
    "mkdirat": "aarch64 has no mkdir",
    "ppoll": "aarch64 has no poll",
    "renameat": "aarch64 has no rename",
    "unlinkat": "aarch64 has no unlink",
    # Other machines.
    "clock_gettime": "a call only where the kernel's clock cannot be read from user space (Xen, HPET)",
    "fstat": "glibc before 2.33 and after 2.40 makes it of what is newfstatat here",
    "pread64": "glibc's loader, where /etc/nsswitch.conf names for hosts what is not built in (mdns4_minimal, resolve)",
    "recvmsg": "netlink's answers, see there",
    "socket AF_NETLINK": "getaddrinfo sorts the addresses of a name that has several",
    # Other moments.
    "mremap": "glibc's realloc of what is larger than 128 KiB: tables that grow under load",
    "restart_syscall": "the kernel's own, after SIGSTOP and SIGCONT",
    "tgkill": "abort: the end of a panic",
}

# Made, and answered with ENOSYS on purpose.
LEFT_OUT = {
    "clone3": "hides its flags in memory, where no filter sees CLONE_NEW*; glibc takes clone",
}

RING = ("io_uring_setup", "io_uring_enter", "io_uring_register")
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}


class Failure(Exception):
    """Something that does not hold."""


# --- the filter --------------------------------------------------------------------------------------------------------------------


class Compare(ctypes.Structure):
    """libseccomp's struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


OPERATORS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
ALLOW, ERRNO, NO_NEW_PRIVS = 0x7FFF0000, 0x00050000, 38


def confine(without_ring):
    """Loads the profile into this process, as the container engine does before it becomes the program."""
    profile = json.loads(PROFILE.read_text())
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Compare)]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    context = library.seccomp_init(ERRNO | profile["defaultErrnoRet"])
    for rule in profile["syscalls"]:
        assert rule["action"] == "SCMP_ACT_ALLOW", rule
        compares = [Compare(a["index"], OPERATORS[a["op"]], a["value"], a.get("valueTwo", 0)) for a in rule.get("args", [])]
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # Names of another architecture are passed over by the engine as well.
            if number < 0 or (without_ring and name in RING):
                continue
            if library.seccomp_rule_add_array(context, ALLOW, number, len(compares), (Compare * max(1, len(compares)))(*compares)) != 0:
                raise OSError(f"libseccomp does not take the rule for {name}")
    if library.seccomp_load(context) != 0:
        raise OSError("the kernel does not take the filter")


def allowed():
    """The list's entries: names, and "socket AF_X" for its families."""
    entries = set()
    for rule in json.loads(PROFILE.read_text())["syscalls"]:
        for name in rule["names"]:
            if name == "socket":
                entries |= {f"socket {family}" for family, number in FAMILIES.items() if number == rule["args"][0]["value"]}
            else:
                entries.add(name)
    return entries


# --- the programs ------------------------------------------------------------------------------------------------------------------


class World:
    """A folder with everything that one Galo needs, and the traces of its programs."""

    def __init__(self, folder, programs, without_ring):
        self.folder, self.programs, self.without_ring = folder, programs, without_ring
        self.children, self.count = [], 0

    def path(self, name):
        return str(self.folder / name)

    def spawn(self, program, arguments=(), **environment):
        """Starts a program in its filter, under strace."""
        self.count += 1
        binary = self.programs / program
        me = [sys.executable, str(pathlib.Path(__file__).resolve()), "--confined", "--without-ring" if self.without_ring else "--with-ring"]
        trace = ["strace", "-f", "-qq", "-s", "0", "-o", self.path(f"trace-{self.count}-{program}")]
        log = open(self.path(f"log-{self.count}-{program}"), "wb")
        common = {"AGGREGATOR_SOCKET": self.path("aggregator.sock"), "LOG": "info", "PATH": os.environ["PATH"]}
        child = subprocess.Popen(
            [*trace, *me, str(binary), *arguments], env=common | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        self.children.append(child)
        return child

    def aggregator(self, **environment):
        defaults = {"AGGREGATOR_HTTP_SOCKET": self.path("http.sock"), "JOURNAL_DIR": self.path("journal")}
        return self.spawn("galo-aggregator", **(defaults | environment))

    def gateway(self, instance, urls, **environment):
        defaults = {
            "GATEWAY_INSTANCE": str(instance), "GATEWAY_SOCKET": self.path(f"gateway-{instance}.sock"), "PURGE_ALLOWED": "true",
            "PROCESSOR_DEFAULT_URL": urls[0], "PROCESSOR_FALLBACK_URL": urls[1], "DRAIN_MS_MAX": "1000", "ATTEMPT_TIMEOUT_MS": "500",
        }
        return self.spawn("galo-gateway", **(defaults | environment))

    def tracee(self, child):
        """The program itself: strace's only child."""
        children = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def signal(self, child, number):
        pid = until(lambda: self.tracee(child), "the program runs")
        os.kill(pid, number)
        child.wait(DEADLINE_S)

    def stop(self):
        for child in self.children:
            if child.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait(DEADLINE_S)

    def used(self):
        """{call: the programs that made it}, from the first instruction of each program on."""
        used = collections.defaultdict(set)
        for trace in sorted(self.folder.glob("trace-*")):
            program = trace.name.split("-", 2)[2]
            begun = is_confined = False
            for line in trace.read_text(errors="replace").splitlines():
                call = re.match(r"\d+\s+([a-z0-9_]+)\((.*)", line)
                if not call:
                    continue
                # Before that it is the interpreter, which loads the filter and then becomes the program.
                if not begun:
                    is_confined |= call[1] == "seccomp" or (call[1] == "prctl" and "PR_SET_SECCOMP" in line)
                    begun = is_confined and call[1] == "execve"
                    if begun:
                        used["execve"].add(program)
                    continue
                name = call[1]
                if name == "socket":
                    name = f"socket {call[2].split(',')[0]}"
                used[name].add(program)
        return used


def until(ask, what):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with contextlib.suppress(OSError):
            if (value := ask()) not in (None, False):
                return value
        if time.monotonic() > deadline:
            raise Failure(f"not within {DEADLINE_S} s: {what}")
        time.sleep(0.01)


def ask(path, request):
    """One request on a unix socket: the status, or None where the server said nothing."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE_S)
        connection.connect(path)
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    return int(answer[9:12]) if answer[9:12].isdigit() else None


def get(path, target, method="GET"):
    return ask(path, f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())


def pay(path, count):
    for _ in range(count):
        body = f'{{"correlationId":"{uuid.uuid4()}","amount":19.90}}'
        request = f"POST /payments HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ask(path, request.encode())


class Processor(http.server.BaseHTTPRequestHandler):
    """Takes a payment in whatever way the server's mood says."""

    protocol_version = "HTTP/1.1"
    timeout = 5

    def answer(self, status, body=b"{}"):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        mood = self.server.moods[self.server.count % len(self.server.moods)]
        self.server.count += 1
        if mood == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
        elif mood == "silent":
            time.sleep(0.8)
            self.close_connection = True
        else:
            self.answer(mood)

    def do_GET(self):
        if self.path.endswith("service-health"):
            self.answer(200, b'{"failing":false,"minResponseTime":1}')
        else:
            self.answer(404)

    def log_message(self, *_):
        pass


class Processors(http.server.ThreadingHTTPServer):
    """Callers that have gone are none of its business."""

    daemon_threads = True

    def handle_error(self, *_):
        pass


@contextlib.contextmanager
def processor(moods):
    server = Processors(("127.0.0.1", 0), Processor)
    server.moods, server.count = moods, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        # By name, so that the resolver has something to do.
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()


def live(world, gateway_environment, aggregator_environment):
    """A whole life, with everything that the list must be enough for."""
    one, http_socket = world.path("gateway-1.sock"), world.path("http.sock")
    small = {"SEGMENT_BYTES": "4096", "SNAPSHOT_EVERY_BYTES": "8192", "HEALTH_INTERVAL_MS": "200"} | aggregator_environment
    with processor([200]) as good, processor([200, 500, 422, "reset", "silent", 429]) as bad:
        aggregator = world.aggregator(**small)
        gateway = world.gateway(1, (bad, good), **gateway_environment)
        lost = world.gateway(2, ("http://no-such-processor.invalid:80", "http://[::1]:1"), **gateway_environment)
        until(lambda: get(one, "/ready") == 200, "the first gateway is ready")
        until(lambda: get(world.path("gateway-2.sock"), "/ready") == 200, "the second gateway is ready")
        pay(one, 150)
        pay(world.path("gateway-2.sock"), 10)
        for target in ("/payments-summary", "/payments-summary?from=x", f"/payments/{uuid.uuid4()}", "/metrics", "/health", "/nothing"):
            get(one, target)
        for target in ("/metrics", "/health", "/ready", "/nothing"):
            get(http_socket, target)
        for garbage in (b"\0" * 100, b"GET / HTTP/1.1\r\n", b"POST /payments HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n"):
            ask(one, garbage)
        for path in (world.path("aggregator.sock"), http_socket):
            ask(path, b"\xff" * 64)
        # Many at once, and gone without a word.
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(64)]
        for connection in crowd:
            connection.connect(one)
        for connection in crowd:
            connection.close()
        world.spawn("galo-gateway", ["--healthcheck"], GATEWAY_INSTANCE="1", GATEWAY_SOCKET=one).wait(DEADLINE_S)
        world.spawn("galo-aggregator", ["--healthcheck"], AGGREGATOR_HTTP_SOCKET=http_socket, JOURNAL_DIR=world.path("journal")).wait(DEADLINE_S)
        second = world.aggregator()
        if second.wait(DEADLINE_S) == 0:
            raise Failure("a second aggregator on the same journal ended well")

        # The aggregator dies, its journal is torn, and it is there again.
        world.signal(aggregator, signal.SIGKILL)
        newest = max(pathlib.Path(world.path("journal")).glob("*.journal"))
        with open(newest, "ab") as journal:
            journal.write(b"torn" * 5)
        aggregator = world.aggregator(**small)
        until(lambda: get(one, "/ready") == 200, "ready again")
        pay(one, 20)
        get(one, "/purge-payments", "POST")
        pay(one, 5)
        world.signal(lost, signal.SIGKILL)
        world.signal(gateway, signal.SIGTERM)
        world.signal(aggregator, signal.SIGTERM)
        # Nobody there at all, and configurations that are none.
        alone = world.gateway(3, ("http://127.0.0.1:1", "http://127.0.0.1:1"), **gateway_environment)
        until(lambda: get(world.path("gateway-3.sock"), "/health") == 200, "a gateway without an aggregator lives")
        pay(world.path("gateway-3.sock"), 1)
        world.signal(alone, signal.SIGTERM)
        world.spawn("galo-gateway", GATEWAY_INSTANCE="0").wait(DEADLINE_S)
        world.spawn("galo-aggregator", OPEN_LEN_MAX="none").wait(DEADLINE_S)
        world.spawn("galo-gateway", ["--healthcheck"], GATEWAY_SOCKET=world.path("nobody.sock")).wait(DEADLINE_S)
        damaged = pathlib.Path(world.path("damaged"))
        damaged.mkdir()
        (damaged / f"{1:020}.journal").write_bytes(b"something else, and long enough to be a header of some kind")
        if world.aggregator(JOURNAL_DIR=str(damaged)).wait(DEADLINE_S) == 0:
            raise Failure("an aggregator with a foreign journal ended well")


LIVES = {
    "as shipped": (False, {}, {}),
    "two threads, synced always": (False, {"GATEWAY_THREADS": "2"}, {"JOURNAL_SYNC": "always"}),
    # Shifts so long that 75 payments a second are reason enough to rest between them (clock_nanosleep), on any machine.
    "epoll by choice, synced now and then": (False, {"GATEWAY_DRIVER": "epoll", "GATEWAY_PINNED": "false", "GATEWAY_SHIFT_US": "10000"}, {"JOURNAL_SYNC": "interval:20"}),
    "io_uring blocked": (True, {}, {}),
}


def programs_of_the_images(folder):
    """Copies the programs out of their images; False where there are none."""
    if not shutil.which("docker"):
        return False
    for program in ("galo-gateway", "galo-aggregator"):
        created = subprocess.run(["docker", "create", program], text=True, capture_output=True)
        if created.returncode != 0:
            return False
        container = created.stdout.strip()
        copied = subprocess.run(["docker", "cp", f"{container}:/{program}", str(folder / program)], capture_output=True)
        subprocess.run(["docker", "rm", container], capture_output=True, check=True)
        if copied.returncode != 0:
            return False
    return True


def main():
    if sys.argv[1:2] == ["--confined"]:
        confine(sys.argv[2] == "--without-ring")
        os.execv(sys.argv[3], sys.argv[3:])
    parser = argparse.ArgumentParser(description="Holds seccomp.json against the system calls that the programs make.")
    parser.add_argument("--programs", type=pathlib.Path, help="folder with galo-gateway and galo-aggregator, linked statically")
    parser.add_argument("--list", action="store_true", help="print every call, and who made it")
    parser.add_argument("--strict", action="store_true", help="what cannot be judged is a failure")
    arguments = parser.parse_args()
    if not shutil.which("strace"):
        print("FAIL strace is missing (Debian: apt-get install strace)\n0 passed, 1 failed")
        return 1
    passed = failed = 0
    used = collections.defaultdict(set)
    with tempfile.TemporaryDirectory(prefix="galo-seccomp-") as folder:
        folder = pathlib.Path(folder)
        programs, is_exact = arguments.programs, True
        if programs is None:
            programs = folder / "programs"
            programs.mkdir()
            if not programs_of_the_images(programs):
                programs, is_exact = ROOT / "target/fast", False
        print(f"programs of {programs if is_exact else f'{programs}, linked dynamically: only whether the list is enough is judged'}", flush=True)
        for name, (without_ring, gateway, aggregator) in LIVES.items():
            start = time.monotonic()
            life = folder / str(passed + failed)
            life.mkdir()
            world = World(life, programs.resolve(), without_ring)
            try:
                live(world, gateway, aggregator)
                passed += 1
                print(f"ok   {name} ({time.monotonic() - start:.1f} s, {world.count} processes)", flush=True)
            except (Failure, OSError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"FAIL {name}: {error!r}", flush=True)
                for log in sorted(life.glob("log-*")):
                    print(f"     {log.name}: {' | '.join(log.read_text(errors='replace').splitlines()[-2:])}")
            finally:
                world.stop()
            for call, by in world.used().items():
                used[call] |= by
    entries = allowed()
    if arguments.list:
        for call, by in sorted(used.items()):
            print(f"     {call}: {', '.join(sorted(by))}")
    missing = sorted(used.keys() - entries - LEFT_OUT.keys())
    unused = sorted(entries - used.keys() - KEPT.keys())
    stray = sorted(KEPT.keys() - entries)
    judged = [("made, and not on the list", "the list is enough", missing), ("kept with a reason, and not on the list", "every reason has its call", stray)]
    if is_exact:
        judged.append(("on the list, and made by nobody", "the list is not more than enough", unused))
    else:
        failed += arguments.strict
        print(f"{'FAIL' if arguments.strict else 'SKIP'} whether the list is more than enough: there are no static programs here (--programs, or the images)")
    for bad, good, calls in judged:
        if calls:
            failed += 1
            print(f"FAIL {bad}: {', '.join(calls)}")
        else:
            passed += 1
            print(f"ok   {good}")
    print(f"{len(used)} different calls made, {len(entries)} on the list, {len(KEPT)} of them kept for a reason")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
