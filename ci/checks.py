"""What the checks in this folder share: a failure with its words, commands, waits with a deadline, free ports."""

import pathlib
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# For whoever has no deadline of his own.
STEP_S_MAX = 20


class Failure(Exception):
    """A check that does not hold."""


def check(condition, message):
    if not condition:
        raise Failure(message)


def run(*command, cwd=ROOT, **options):
    """Runs a command to its end, which must be a good one; returns what it said."""
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    check(done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def until(condition, what, deadline_s=STEP_S_MAX):
    """Polls until `condition()` is true, returns the seconds it took. `what` may be a function, asked at the end."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > deadline_s:
            raise Failure(f"not within {deadline_s} s: {what() if callable(what) else what}")
        time.sleep(0.02)
    return time.monotonic() - start


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
