#!/usr/bin/env python3
"""Cuts the power under a real journal, again and again, and looks for what was promised.

What it is: the real aggregator, two real gateways and two model processors; the journal is on ext4 on a disk whose power can be cut
(ci/powerdisk.py). Payments go on under load while the aggregator is killed and started, some of its lives by a SIGKILL that comes exactly
between a write and its fdatasync (strace). Now and then, at a sync or anywhere else, what a loss of power would leave is copied. Each
copy is mounted, an aggregator is started from it, and every payment is looked for that the policy promises:

  always       all that was answered 202 before the cut, and all that a look-up showed as processed
  interval:MS  likewise, of what was answered before the last sync that had been done had begun, or by a process before this one. That a sync begins
               within MS is the clock's matter and not judged; that all is synced in the end is
  never        nothing; but after a stop by SIGTERM everything

A start that is refused since the journal has a hole is helped as its message says, which may take what was not promised; it is counted.
What it must never do: sleep to pass. It waits for a state with a deadline, and a deadline missed is a failure.
Needs root, /dev/fuse, loop devices, mkfs.ext4, strace, and the built programs; without the first four it is left out with a line, which
`--strict` makes a failure. `--runs 500` by hand.
"""

import argparse
import collections
import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import powerdisk
from checks import ROOT, Failure, check, free_ports, run, until

CUTS, CLIENTS, ANSWERS_MIN = 3, 4, 25
POLICIES = ["always", "interval:40", "always", "interval:7", "always", "never"]
SMALL = {"SEGMENT_BYTES": "16384", "SNAPSHOT_EVERY_BYTES": "65536"}
NOBODY = "http://127.0.0.1:1"


def ask(path, method, target, body=None):
    connection = http.client.HTTPConnection("galo", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(10)
        connection.sock.connect(str(path))
        connection.request(method, target, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


class System:
    """The processes around one journal."""

    def __init__(self, folder, programs, journal, policy, urls):
        self.folder, self.programs, self.urls = folder, programs, urls
        self.aggregator_socket, self.http = folder / "aggregator.sock", folder / "http.sock"
        self.environment = SMALL | {
            "AGGREGATOR_SOCKET": str(self.aggregator_socket), "AGGREGATOR_HTTP_SOCKET": str(self.http), "JOURNAL_DIR": str(journal),
            "JOURNAL_SYNC": policy, "LOG": "warn",
        }
        self.gateways, self.sockets = [], []
        self.aggregator = self.traced = None

    def spawn(self, command, environment, log):
        with open(self.folder / log, "ab") as output:
            return subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output)

    def start_gateways(self, count):
        for number in range(1, count + 1):
            path = self.folder / f"gateway-{number}.sock"
            environment = {
                "GATEWAY_INSTANCE": str(number), "GATEWAY_SOCKET": str(path), "AGGREGATOR_SOCKET": str(self.aggregator_socket), "GATEWAY_PINNED": "false",
                "PROCESSOR_DEFAULT_URL": self.urls[0], "PROCESSOR_FALLBACK_URL": self.urls[1], "LOG": "warn",
            }
            self.gateways.append(self.spawn([str(self.programs / "galo-gateway")], environment, f"gateway-{number}.log"))
            self.sockets.append(path)

    def start_aggregator(self, dies_at=None):
        """With `dies_at`, it is killed as it enters that fdatasync, which is not made any more. (For that it has to do without the ring.)"""
        command = [str(self.programs / "galo-aggregator")]
        self.traced = dies_at is not None
        if self.traced:
            inject = ["-e", "inject=io_uring_setup:error=ENOSYS", "-e", f"inject=fdatasync:signal=KILL:when={dies_at}"]
            command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,io_uring_setup", *inject, *command]
        self.aggregator = self.spawn(command, self.environment, "aggregator.log")

    def log(self):
        return (self.folder / "aggregator.log").read_text(errors="replace")

    def end_aggregator(self, number=signal.SIGKILL):
        process = self.aggregator
        if self.traced:
            # The program is strace's only child, which goes when it does, and may have gone.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                    os.kill(int(child), number)
        elif process.poll() is None:
            process.send_signal(number)
        return process.wait(20)

    def is_ready(self):
        return all(ask(path, "GET", "/ready")[0] == 200 for path in self.sockets)

    def until_ready(self):
        def holds():
            status = self.aggregator.poll()
            check(status is None or self.traced, f"the aggregator ended with {status}: {self.log()[-600:]}")
            return status is not None or self.is_ready()
        until(holds, "the gateways are ready")

    def counters(self):
        """Records written and synced by this process, or nothing. One from before there was such a counter has synced none."""
        status, page = ask(self.http, "GET", "/metrics")
        if status != 200:
            return None
        found = dict(re.findall(r"^(galo_journal_(?:synced_)?records_total) (\d+)$", page, re.MULTILINE))
        return int(found["galo_journal_records_total"]), int(found.get("galo_journal_synced_records_total", 0)), len(found) == 2

    def stop(self):
        for process in self.gateways:
            process.kill()
            process.wait()
        if self.aggregator and self.aggregator.poll() is None:
            self.end_aggregator()


class Load:
    """Clients that pay, and remember what they were told, and when."""

    def __init__(self, system, dice):
        self.system = system
        self.amounts, self.answered, self.processed = {}, {}, {}
        self.readings = []
        self.life = 0
        self.ended_at = {}
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.errors = []
        self.threads = [threading.Thread(target=self.guard, args=(self.pay, random.Random(dice.random()))) for _ in range(CLIENTS)]
        self.threads.append(threading.Thread(target=self.guard, args=(self.read,)))

    def guard(self, function, *arguments):
        try:
            function(*arguments)
        except Exception as error:  # pylint: disable=broad-except -- it is told at the end
            self.errors.append(repr(error))

    def pay(self, dice):
        mine = []
        while not self.stopped.is_set():
            if mine and dice.random() < 0.1:
                self.post(dice.choice(mine), dice)
                continue
            correlation_id = str(uuid.UUID(int=dice.getrandbits(128), version=4))
            with self.lock:
                self.amounts[correlation_id] = dice.randrange(1, 1_000_000)
            mine.append(correlation_id)
            # One that is refused is made again, until it is known: its first attempt may be in the journal.
            while not self.post(correlation_id, dice) and not self.stopped.is_set():
                time.sleep(0.01)
            if dice.random() < 0.2:
                known = dice.choice(mine)
                status, body = ask(dice.choice(self.system.sockets), "GET", f"/payments/{known}")
                if status == 200 and json.loads(body)["state"] == "processed":
                    with self.lock:
                        self.processed.setdefault(known, time.monotonic())

    def post(self, correlation_id, dice):
        cents = self.amounts[correlation_id]
        body = f'{{"correlationId":"{correlation_id}","amount":{cents // 100}.{cents % 100:02}}}'
        status, _ = ask(dice.choice(self.system.sockets), "POST", "/payments", body)
        check(status in (0, 202, 502, 503, 504), f"POST: {status}")
        if status == 202:
            with self.lock:
                self.answered.setdefault(correlation_id, time.monotonic())
        return status == 202

    def read(self):
        """What the aggregator says of itself, for what `interval` promises."""
        while not self.stopped.is_set():
            life, begun = self.life, time.monotonic()
            counters = self.system.counters()
            if counters and life == self.life:
                self.readings.append((life, begun, time.monotonic(), *counters[:2]))
            time.sleep(0.005)

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        check(not self.errors, self.errors)

    def answered_since(self, moment):
        with self.lock:
            return sum(at >= moment for at in self.answered.values())

    def synced_until(self, cut_at):
        """Everything answered before that is covered by a sync that was done before `cut_at`, or by a start."""
        readings = [it for it in self.readings if it[2] < cut_at]
        if not readings:
            return 0
        life, synced = readings[-1][0], readings[-1][4]
        covered = [begun for its_life, begun, _, records, _ in readings if its_life == life and records <= synced]
        return max([self.ended_at.get(life - 1, 0), *covered])


class Run:
    """One life of a disk."""

    def __init__(self, number, policy, seed, programs, urls, totals):
        self.name = f"{number}: {policy}"
        self.policy, self.programs, self.urls, self.totals = policy, programs, urls, totals
        self.dice = random.Random(seed)
        self.cuts = []

    def run(self, folder):
        disk = powerdisk.Disk(folder)
        system = System(folder, self.programs, disk.mounted / "made/by/galo", self.policy, self.urls)
        load = Load(system, self.dice)
        try:
            system.start_gateways(2)
            system.start_aggregator()
            system.until_ready()
            load.start()
            if self.policy == "never":
                self.stop_well(disk, system, load, folder)
            else:
                for _ in range(CUTS):
                    self.kill_and_cut(disk, system, load, folder)
            load.stop()
            if self.policy.startswith("interval"):
                until(lambda: self.is_synced(system.counters()), "everything is synced in the end")
        finally:
            load.stopped.set()
            for thread in load.threads:
                if thread.is_alive():
                    thread.join()
            system.stop()
            disk.remove()
        for number, (path, cut) in enumerate(self.cuts):
            self.look(path, cut, load, folder / f"copy-{number}")

    def is_synced(self, counters):
        return counters and (counters[0] == counters[1] or not counters[2])

    def kill_and_cut(self, disk, system, load, folder):
        self.answers(load, time.monotonic(), ANSWERS_MIN)
        if self.policy == "always" and self.dice.random() < 0.7:
            # This one dies at once, the next one at a sync.
            self.restart(system, load, self.dice.randrange(25, 60))
            until(lambda: system.aggregator.poll() is not None, "it dies at a sync")
            self.totals["killed at a sync"] += 1
        self.restart(system, load)
        restarted = time.monotonic()
        system.until_ready()
        # Those that were in the journal already are among the first, since they are made again.
        # Or there have been some segments since.
        self.answers(load, restarted, self.dice.choice([1, 10, 50, 400]))
        path = folder / f"image-{len(self.cuts)}"
        keeps = self.dice.choice(["nothing", "nothing", "some", "all"])
        at_sync = self.dice.choice([None, "before", "after"])
        self.cuts.append((path, disk.cut(path, keeps, self.dice.random(), at_sync) | {"keeps": keeps, "at_sync": at_sync}))

    def answers(self, load, since, count):
        until(lambda: load.errors or load.answered_since(since) >= count, f"{count} payments are answered", 30)
        check(not load.errors, load.errors)

    def restart(self, system, load, dies_at=None):
        system.end_aggregator()
        load.ended_at[load.life] = time.monotonic()
        load.life += 1
        self.totals["kills"] += 1
        system.start_aggregator(dies_at)

    def stop_well(self, disk, system, load, folder):
        self.answers(load, time.monotonic(), 200)
        asked_at = time.monotonic()
        status = system.end_aggregator(signal.SIGTERM)
        check(status == 0, f"SIGTERM: {status}")
        path = folder / "image"
        self.cuts.append((path, disk.cut(path, "nothing", 0) | {"at": asked_at, "keeps": "nothing", "at_sync": None}))

    def look(self, path, cut, load, folder):
        copy = powerdisk.Copy(path, folder)
        (sockets := folder.parent / f"{folder.name}-sockets").mkdir()
        system = System(sockets, self.programs, folder / "made/by/galo", self.policy, [NOBODY, NOBODY])
        try:
            self.start_from_it(system)
            system.start_gateways(1)
            system.until_ready()
            promised_until = load.synced_until(cut["at"]) if self.policy.startswith("interval") else cut["at"]
            lost = []
            promised = sum(at < promised_until for at in load.answered.values())
            for correlation_id, at in load.answered.items():
                if at < promised_until:
                    self.compare(system, correlation_id, load, promised_until, lost)
            check(not lost, f"{len(lost)} of {promised} promised payments are lost after {cut}: {lost[:3]}")
            self.totals["promised and found"] += promised
            self.totals["cuts"] += 1
            self.totals["unflushed sectors at them"] += cut["sectors"]
            if promised_until:
                self.totals["widest window ms"] = max(self.totals["widest window ms"], round(1e3 * (cut["at"] - promised_until)))
        finally:
            system.stop()
            copy.remove()
            path.unlink()

    def compare(self, system, correlation_id, load, promised_until, lost):
        status, body = ask(system.sockets[0], "GET", f"/payments/{correlation_id}")
        if status == 404:
            lost.append(correlation_id)
            return
        check(status == 200, f"GET: {status}")
        found = json.loads(body)
        check(round(found["amount"] * 100) == load.amounts[correlation_id], f"{correlation_id} has another amount: {body}")
        was_processed = load.processed.get(correlation_id, promised_until) < promised_until
        check(not was_processed or found["state"] == "processed", f"{correlation_id} was shown as processed, and is {found['state']}")

    def start_from_it(self, system):
        for _ in range(10):
            system.start_aggregator()
            until(lambda: system.aggregator.poll() is not None or system.counters(), "the aggregator has made up its mind")
            if system.aggregator.poll() is None:
                return
            said = system.log().splitlines()[-1]
            check(system.aggregator.returncode == 74, f"the start from a copy ended with {system.aggregator.returncode}: {said}")
            self.do_as_told(said, pathlib.Path(system.environment["JOURNAL_DIR"]))
        raise Failure("the advice does not help")


    def do_as_told(self, said, journal):
        """Gives up what follows a place that is not believed."""
        cut = re.search(r"truncate -s (\d+) (\d{20})[.]journal\) and move later files away", said)
        move = re.search(r"move (\d{20})[.]journal and later files away", said)
        check(cut or move, f"no advice that is known here: {said}")
        if cut:
            os.truncate(journal / f"{cut[2]}.journal", int(cut[1]))
        for file in journal.glob("*.journal"):
            if file.stem > cut[2] if cut else file.stem >= move[1]:
                file.unlink()
        self.totals["refused and cut as told"] += 1


def main():
    parser = argparse.ArgumentParser(description="Cuts the power under a real journal, and looks for what was promised.")
    parser.add_argument("programs", type=pathlib.Path, nargs="?", help="the folder of the programs (target/fast, built if need be)")
    parser.add_argument("--runs", type=int, default=12, help="how many disks, of %(default)s by default; three cuts each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy", help="this one alone")
    parser.add_argument("--strict", action="store_true", help="where it cannot be tried it fails")
    arguments = parser.parse_args()
    if reason := powerdisk.missing():
        print(f"{'FAIL' if arguments.strict else 'SKIP'} no loss of power can be tried here: {reason}")
        print(f"0 passed, {int(arguments.strict)} failed")
        return int(arguments.strict)
    programs = arguments.programs
    if programs is None:
        programs = ROOT / "target" / "fast"
        packages = [word for name in ("galo-gateway", "galo-aggregator", "galo-simulator") for word in ("-p", name)]
        run("cargo", "build", "--quiet", "--profile", "fast", "--locked", *packages, timeout=1800)
    programs = programs.resolve()
    powerdisk.leave_the_mounts_of_others()
    passed = failed = 0
    totals = collections.Counter()
    ports = free_ports(2)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    processors = [subprocess.Popen([str(programs / "processor"), "--listen", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL) for port in ports]
    try:
        for number in range(arguments.runs):
            policy = arguments.policy or POLICIES[number % len(POLICIES)]
            seed = arguments.seed * 1_000_003 + number
            start = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="galo-powerloss-") as folder:
                current = Run(number, policy, seed, programs, urls, totals)
                try:
                    current.run(pathlib.Path(folder))
                    passed += 1
                    print(f"ok   {current.name}, {time.monotonic() - start:.1f} s", flush=True)
                except (Failure, OSError, subprocess.SubprocessError) as error:
                    failed += 1
                    print(f"FAIL {current.name}: {error if isinstance(error, Failure) else repr(error)}", flush=True)
    finally:
        for processor in processors:
            processor.kill()
            processor.wait()
    print(", ".join(f"{name} {count}" for name, count in totals.items()))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
