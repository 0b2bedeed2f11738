#!/usr/bin/env python3
"""Checks haproxy/haproxy.cfg with a real HAProxy in front of small responders on unix sockets.

What it is: the behaviour that the configuration promises (balance by request, pooled connections, retries, health
checks, what HAProxy answers by itself, the stats port's routes), one named check each, in about ten seconds and
without any of Galo's programs. It needs `haproxy` in PATH (or another command in the variable HAPROXY) and Python's
standard library.
What it must never do: sleep to pass. It waits for a state with a deadline, and a deadline missed is a failure.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import shlex
import signal
import socket
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HAPROXY = shlex.split(os.environ.get("HAPROXY", "haproxy"))
CONFIG = ROOT / "haproxy" / "haproxy.cfg"
DEADLINE_S = 5.0


class Responder:
    """A model of one gateway's HTTP side on a unix socket; it can be made unready, refuse, hang up and be killed."""

    def __init__(self, name, path):
        self.name, self.path = name, path
        self.ready, self.mode = True, "ok"
        self.connections = self.requests = 0
        self.seen = []
        self.server, self.writers = None, set()

    async def start(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.server = await asyncio.start_unix_server(self.serve, self.path, backlog=1024)

    def kill(self):
        """As SIGKILL would: the listener and every connection are gone, the socket's file stays."""
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        self.server = None

    async def serve(self, reader, writer):
        self.writers.add(writer)
        counted = False
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request_line, *headers = head.decode("latin-1").split("\r\n")
                length = next((int(h.split(":")[1]) for h in headers if h.lower().startswith("content-length")), 0)
                body = await reader.readexactly(length)
                path = request_line.split()[1]
                if path == "/ready":
                    status = "200 OK" if self.ready else "503 Service Unavailable"
                    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                    return
                if not counted:
                    counted, self.connections = True, self.connections + 1
                self.requests += 1
                self.seen.append((request_line, headers, body))
                if self.mode == "hang up":
                    return
                status = "503 Service Unavailable" if self.mode == "refuse" else "202 Accepted"
                answer = self.name.encode()
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(answer)}\r\n\r\n".encode() + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


class Client:
    """One keep-alive connection."""

    def __init__(self, port, host="127.0.0.1"):
        self.port, self.host = port, host

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def answer(self, head_only=False):
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE_S)).decode("latin-1")
        status_line, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
        if head_only:
            body = b""
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readline()
            await self.reader.readline()
        else:
            body = await self.reader.read()
        return int(status_line.split()[1]), headers, body

    async def request(self, method, path, body=b"", headers=""):
        self.writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: galo\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body
        )
        return await self.answer()


async def once(port, method, path, body=b"", headers=""):
    async with Client(port) as client:
        return await client.request(method, path, body, headers)


async def raw(port, data):
    async with Client(port) as client:
        client.writer.write(data)
        return await client.answer()


async def until(condition, what, deadline_s=DEADLINE_S):
    """Polls `condition`, a coroutine function, until it holds; returns the seconds it took."""
    start = time.monotonic()
    while not await condition():
        if time.monotonic() - start > deadline_s:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        await asyncio.sleep(0.005)
    return time.monotonic() - start


def is_problem(answer, status):
    got, headers, body = answer
    assert got == status, f"status {got}, wanted {status}"
    assert headers["content-type"] == "application/problem+json", headers
    problem = json.loads(body)
    assert problem["status"] == status and problem["type"] and problem["title"], problem
    return headers


async def is_healthy(stats):
    try:
        return (await once(stats, "GET", "/health"))[0] == 200
    except OSError:
        return False


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Check:
    """The checks share one HAProxy; each leaves both responders up, ready and polite."""

    def __init__(self, env, api, stats, one, two, aggregator):
        self.env = env
        self.api, self.stats, self.one, self.two, self.aggregator = api, stats, one, two, aggregator

    async def servers_up(self):
        _, _, csv = await once(self.stats, "GET", "/stats;csv")
        rows = [line.split(",") for line in csv.decode().splitlines() if line.startswith("gateways,gateway-")]
        return {row[1]: row[17] for row in rows}

    async def both_up(self):
        return list((await self.servers_up()).values()) == ["UP", "UP"]

    @contextlib.asynccontextmanager
    async def _another(self, **environment):
        """A second HAProxy before the same gateways, with something else in its environment: its API's port."""
        api, stats = free_port(), free_port()
        self.another_stats = stats
        env = dict(self.env, GALO_API_PORT=str(api), GALO_STATS_PORT=str(stats), **environment)
        haproxy = await asyncio.create_subprocess_exec(
            *HAPROXY, "-db", "-f", str(CONFIG), env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )

        try:
            await until(lambda: is_healthy(stats), "another HAProxy listening")
            yield api
        finally:
            haproxy.kill()
            await haproxy.wait()

    async def requests_that_come_singly_are_dealt_out_one_by_one(self):
        before = self.one.requests, self.two.requests
        async with Client(self.api) as client:
            for _ in range(100):
                status, _, _ = await client.request("POST", "/payments", b"{}")
                assert status == 202, status
                # The next one is in another shift.
                await asyncio.sleep(0.002)
        assert (self.one.requests - before[0], self.two.requests - before[1]) == (50, 50)

    async def both_have_had_as_many_but_for_some_dozens(self):
        before = self.one.requests - self.two.requests
        async with Client(self.api) as client:
            for _ in range(1000):
                assert (await client.request("POST", "/payments", b"{}"))[0] == 202
        apart = abs(self.one.requests - self.two.requests - before)
        assert apart <= 60, f"{apart} of 1000 apart"
        return f"{apart} of 1000 apart"

    async def a_shift_is_one_gateways_and_the_next_one_the_others(self):
        shift_us = 300_007
        async with self._another(GATEWAY_SHIFT_US=str(shift_us)) as api:
            had = []
            for _ in range(6):
                # Early in a shift, and in each shift once.
                await asyncio.sleep(0.11)
                while not 20_000 < time.time() * 1e6 % shift_us < 100_000:
                    await asyncio.sleep(0.005)
                before = self.one.requests, self.two.requests
                answers = await asyncio.gather(*(once(api, "POST", "/payments", b"{}") for _ in range(12)))
                assert [answer[0] for answer in answers] == [202] * 12, answers
                had.append((self.one.requests - before[0], self.two.requests - before[1]))
            assert had in ([(12, 0), (0, 12)] * 3, [(0, 12), (12, 0)] * 3), had

    async def shifts_of_a_gateway_that_is_ahead_end_early(self):
        shift_us = 2_400_007
        early_us = shift_us // 12

        async def at(us):
            """Waits for that moment of the next shift that has it, with a quarter of an early end as tolerance."""
            await asyncio.sleep(early_us / 1e6 / 4)
            while not us < time.time() * 1e6 % shift_us < us + early_us // 4:
                await asyncio.sleep(0.005)

        async def name_of(api):
            return (await once(api, "POST", "/payments", b"{}"))[2]

        async with self._another(GATEWAY_SHIFT_US=str(shift_us)) as api:
            await at(shift_us // 4)
            ahead = [await name_of(api) for _ in range(12)]
            assert len(set(ahead)) == 1, ahead
            await at(shift_us // 4)
            other = await name_of(api)
            assert other != ahead[0]
            await at(shift_us // 4)
            assert await name_of(api) == ahead[0]
            await at(shift_us - early_us * 3 // 4)
            had = [await name_of(api) for _ in range(2)]
            assert had == [other, other], had
            # His own shift, to its very end: he is behind.
            for moment in (shift_us // 4, shift_us - early_us * 3 // 4):
                await at(moment)
                assert await name_of(api) == other

    async def each_request_says_in_which_shift_it_came_whatever_its_client_says(self):
        shift_us = 300_007
        async with self._another(GATEWAY_SHIFT_US=str(shift_us)) as api:
            first = int(time.time() * 1e6) // shift_us
            for headers in ("", "galo-shift: 7\r\n"):
                _, _, name = await once(api, "POST", "/payments", b"{}", headers)
                seen = (self.one if name == b"gateway-1" else self.two).seen[-1][1]
                said = [int(h.split(":")[1]) for h in seen if h.lower().startswith("galo-shift:")]
                assert len(said) == 1 and first <= said[0] <= int(time.time() * 1e6) // shift_us, (said, first)

    async def where_there_are_no_shifts_a_client_cannot_say_one(self):
        async def said(api):
            had = len(self.one.seen), len(self.two.seen)
            for headers in ("galo-shift: 7\r\n", "Galo-Shift: 7\r\nX: y\r\nGALO-SHIFT: 8\r\n"):
                assert (await once(api, "POST", "/payments", b"{}", headers))[0] == 202
            seen = self.one.seen[had[0]:] + self.two.seen[had[1]:]
            assert len(seen) == 2, seen
            return [line for _, lines, _ in seen for line in lines if line.lower().startswith("galo-shift")]

        for environment in ({"GATEWAY_SHIFT_US": "0"}, {"GATEWAY_THREADS": "2"}):
            async with self._another(**environment) as api:
                assert await said(api) == [], environment
        self.one.ready = self.two.ready = False

        async def none():
            return (await once(self.stats, "GET", "/health"))[0] == 503

        await until(none, "no gateway ready")
        assert await said(self.api) == [], "neither gateway ready"

    async def a_shift_of_a_gateway_that_is_dead_is_the_others(self):
        async with self._another(GATEWAY_SHIFT_US="300007") as api:
            self.two.kill()
            for _ in range(4):
                assert (await once(api, "POST", "/payments", b"{}"))[::2] == (202, b"gateway-1")
                await asyncio.sleep(0.31)
            await self.two.start()

    async def without_shifts_each_request_is_the_next_gateways(self):
        async with self._another(GATEWAY_SHIFT_US="0") as api:
            before = self.one.requests, self.two.requests
            async with Client(api) as client:
                for _ in range(200):
                    assert (await client.request("POST", "/payments", b"{}"))[0] == 202
            assert (self.one.requests - before[0], self.two.requests - before[1]) == (100, 100)

    async def many_clients_share_few_connections(self):
        before = self.one.connections + self.two.connections
        for _ in range(100):
            assert (await once(self.api, "POST", "/payments", b"{}"))[0] == 202
        opened = self.one.connections + self.two.connections - before
        assert opened <= 2, f"{opened} connections to the gateways for 100 clients, one after the other"

    async def a_503_is_retried_on_the_other_gateway(self):
        self.one.mode = "refuse"
        before = self.one.requests
        for _ in range(20):
            status, _, body = await once(self.api, "POST", "/payments", b"{}")
            assert (status, body) == (202, b"gateway-2"), (status, body)
        assert self.one.requests > before, "the refusing gateway was never asked"

    async def a_503_of_both_reaches_the_client(self):
        self.one.mode = self.two.mode = "refuse"
        status, _, body = await once(self.api, "POST", "/payments", b"{}")
        assert status == 503 and body.startswith(b"gateway-"), (status, body)

    async def a_gateway_that_hangs_up_is_hidden(self):
        self.one.mode = "hang up"
        for _ in range(20):
            status, _, body = await once(self.api, "POST", "/payments", b'{"amount":1}')
            assert (status, body) == (202, b"gateway-2"), (status, body)
        assert self.two.seen[-1][2] == b'{"amount":1}', "the retry did not carry the body"

    async def a_killed_gateway_costs_no_request_and_is_back_within_500_ms(self):
        answers, slowest, stop = [], 0.0, False

        async def user():
            nonlocal slowest
            while not stop:
                start = time.monotonic()
                answers.append((await once(self.api, "POST", "/payments", b"{}"))[0])
                slowest = max(slowest, time.monotonic() - start)

        users = [asyncio.create_task(user()) for _ in range(8)]
        try:
            async def enough(n=len(answers) + 200):
                return len(answers) > n

            await until(enough, "200 answers before the kill")
            self.one.kill()

            async def down():
                return "DOWN" in (await self.servers_up())["gateway-1"]

            down_s = await until(down, "gateway-1 marked down")
            await self.one.start()
            before = self.one.requests

            async def back():
                return self.one.requests > before

            back_s = await until(back, "gateway-1 served again", 0.5)
        finally:
            stop = True
            await asyncio.gather(*users)
        assert set(answers) == {202}, f"{len(answers)} answers, of statuses {set(answers)}"
        return (f"{len(answers)} requests, all 202, slowest {slowest * 1000:.0f} ms; "
                f"down after {down_s * 1000:.0f} ms, back after {back_s * 1000:.0f} ms")

    async def an_unready_gateway_gets_no_traffic(self):
        self.one.ready = False

        async def down():
            return "DOWN" in (await self.servers_up())["gateway-1"]

        await until(down, "gateway-1 marked down")
        before = self.one.requests
        for _ in range(20):
            assert (await once(self.api, "POST", "/payments", b"{}"))[2] == b"gateway-2"
        assert self.one.requests == before

    async def with_none_ready_requests_still_reach_the_gateways(self):
        self.one.ready = self.two.ready = False

        async def none():
            return (await once(self.stats, "GET", "/health"))[0] == 503

        await until(none, "no gateway ready")
        assert (await once(self.api, "POST", "/payments", b"{}"))[0] == 202

    async def with_none_alive_the_answer_is_a_problem_503(self):
        self.one.kill(), self.two.kill()

        async def none():
            return (await once(self.stats, "GET", "/health"))[0] == 503

        await until(none, "no gateway ready")
        start = time.monotonic()
        headers = is_problem(await once(self.api, "POST", "/payments", b"{}"), 503)
        assert headers["retry-after"] == "1"
        waited_s = time.monotonic() - start
        await self.one.start(), await self.two.start()
        return f"after {waited_s * 1000:.0f} ms"

    async def a_stalled_body_ends_in_408_and_reaches_no_gateway(self):
        before = self.one.requests + self.two.requests
        start = time.monotonic()
        answer = await raw(self.api, b"POST /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: 50\r\n\r\n{")
        is_problem(answer, 408)
        assert 0.9 < time.monotonic() - start < 2.0
        assert self.one.requests + self.two.requests == before

    async def a_request_that_is_refused_half_way_does_not_keep_its_connection(self):
        async def end_of(length):
            async with Client(self.api) as client:
                client.writer.write(f"POST /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: {length}\r\n\r\n".encode() + b"x" * min(length - 1, 16384))
                status = (await client.answer())[0]
                start = time.monotonic()
                assert await asyncio.wait_for(client.reader.read(), 2 * DEADLINE_S) == b""
                return status, time.monotonic() - start

        (stalled, stalled_s), (large, large_s) = await asyncio.gather(end_of(50), end_of(99999999999))
        assert (stalled, large) == (408, 413), (stalled, large)
        return f"closed {stalled_s:.1f} s after the 408, {large_s:.1f} s after the 413"

    async def what_follows_a_request_that_was_refused_half_way_is_not_read(self):
        async def ended(length, status):
            async with Client(self.api) as client:
                client.writer.write(f"POST /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: {length}\r\n\r\n{{".encode() + b"x" * (length // 50))
                answer = await client.answer()
                assert answer[0] == status, answer
                # Where HAProxy has hung up already, the answer is as good.
                with contextlib.suppress(ConnectionError):
                    client.writer.write(b"x" * (length - 1 - length // 50) + b"GET /two HTTP/1.1\r\nHost: galo\r\n\r\n")
                    behind = await asyncio.wait_for(client.reader.read(), 2 * DEADLINE_S)
                    assert behind == b"", behind
                return answer[1].get("connection")

        before = self.one.requests + self.two.requests
        said = await asyncio.gather(ended(50, 408), ended(9_000, 413), ended(1_000_000, 413))
        assert self.one.requests + self.two.requests == before
        assert said == ["close"] * 3, said

    async def a_client_that_rests_keeps_its_connection(self):
        async with Client(self.api) as client:
            assert (await client.request("POST", "/payments", b"{}"))[0] == 202
            await asyncio.sleep(6)
            assert (await client.request("POST", "/payments", b"{}"))[0] == 202

    async def a_body_that_comes_later_is_waited_for(self):
        head = b"POST /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: 2\r\n"
        async with Client(self.api) as client:
            # Over a connection that is new, and over one that was kept.
            for _ in range(2):
                client.writer.write(head + b"\r\n")
                await asyncio.sleep(0.7)
                client.writer.write(b"{}")
                assert (await client.answer())[0] == 202
            client.writer.write(head + b"Expect: 100-continue\r\n\r\n")
            assert (await client.answer(head_only=True))[0] == 100
            await asyncio.sleep(0.7)
            client.writer.write(b"{}")
            assert (await client.answer())[0] == 202

    async def a_client_that_is_slow_to_begin_is_waited_for(self):
        async with Client(self.api) as client:
            await asyncio.sleep(0.75)
            assert (await client.request("POST", "/payments", b"{}"))[0] == 202

    async def expect_continue_is_answered_here(self):
        async with Client(self.api) as client:
            client.writer.write(b"POST /payments HTTP/1.1\r\nHost: galo\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            assert (await client.answer(head_only=True))[0] == 100
            client.writer.write(b"{}")
            assert (await client.answer())[0] == 202

    async def a_body_beyond_8_kib_ends_in_413_and_reaches_no_gateway(self):
        before = self.one.requests + self.two.requests
        is_problem(await once(self.api, "POST", "/payments", b"x" * 8193), 413)
        head = b"POST /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: 99999999999\r\n\r\n"
        is_problem(await raw(self.api, head + b"x" * 16384), 413)
        chunk = b"2001\r\n" + b"x" * 0x2001 + b"\r\n0\r\n\r\n"
        is_problem(await raw(self.api, b"POST /payments HTTP/1.1\r\nHost: galo\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk), 413)
        assert self.one.requests + self.two.requests == before
        assert (await once(self.api, "POST", "/payments", b"x" * 8192))[0] == 202

    async def what_is_no_http_ends_in_400(self):
        for data in (
            b"nonsense\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: galo\r\nbad header\r\n\r\n",
            b"POST /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            b"GET / HTTP/1.1\r\nHost: galo\r\n" + b"a" * 70_000,
        ):
            status = (await raw(self.api, data))[0]
            assert status == 400, (status, data[:60])

    async def both_families_are_listened_on(self):
        if not os.path.exists("/proc/net/if_inet6"):
            return "IPv4 alone: this kernel has no IPv6"
        async with self._another(GALO_IPV6="yes") as api:
            for host in ("127.0.0.1", "::1"):
                async with Client(api, host) as client:
                    assert (await client.request("POST", "/payments", b"{}"))[0] == 202, host
                async with Client(self.another_stats, host) as client:
                    assert (await client.request("GET", "/health"))[0] == 200, host

    async def without_ipv6_nothing_asks_for_it(self):
        with contextlib.suppress(OSError):
            async with Client(self.api, "::1"):
                raise AssertionError("a socket of IPv6 although GALO_IPV6 is not yes")

    async def the_stats_port_routes_each_path(self):
        status, headers, body = await once(self.stats, "GET", "/stats")
        assert status == 200 and "text/html" in headers["content-type"] and b"gateway-2" in body
        assert b"action" not in body.lower().split(b"<table")[-1], "the page offers actions"
        status, _, body = await once(self.stats, "GET", "/metrics")
        assert status == 200 and b"haproxy_server_http_responses_total" in body
        for path, responder in (("gateway-1", self.one), ("gateway-2", self.two), ("aggregator", self.aggregator)):
            _, _, body = await once(self.stats, "GET", f"/metrics/{path}")
            assert body.decode() == responder.name, (path, body)
            assert responder.seen[-1][0] == "GET /metrics HTTP/1.1", responder.seen[-1][0]
        is_problem(await once(self.stats, "GET", "/elsewhere"), 404)
        assert (await once(self.stats, "GET", "/health"))[0] == 200
        status = (await once(self.stats, "POST", "/stats", b"s=gateway-1&action=maint&b=gateways"))[0]
        assert status == 403 or (await self.both_up()), status


async def main():
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory(prefix="galo-haproxy-") as run_dir:
        ports = [free_port(), free_port()]
        env = dict(os.environ, GALO_RUN_DIR=run_dir, GALO_API_PORT=str(ports[0]), GALO_STATS_PORT=str(ports[1]))
        for threads in ("1", "2", "8"):
            dry = await asyncio.create_subprocess_exec(
                *HAPROXY,
                "-c",
                "-f",
                str(CONFIG),
                env=dict(env, GATEWAY_THREADS=threads),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said = (await dry.communicate())[0].decode()
            clean = dry.returncode == 0 and "WARNING" not in said
            print(f"{'ok  ' if clean else 'FAIL'} haproxy -c is clean, {threads} thread(s) a gateway" + ("" if clean else f"\n{said}"))
            passed, failed = passed + clean, failed + (not clean)

        responders = [
            Responder("gateway-1", f"{run_dir}/gateway-1.sock"),
            Responder("gateway-2", f"{run_dir}/gateway-2.sock"),
            Responder("aggregator", f"{run_dir}/aggregator-http.sock"),
        ]
        for responder in responders:
            await responder.start()
        log = open(f"{run_dir}/haproxy.log", "wb")
        haproxy = await asyncio.create_subprocess_exec(
            *HAPROXY, "-db", "-f", str(CONFIG), env=env, stdout=log, stderr=log
        )
        check = Check(env, *ports, *responders)

        try:
            await until(lambda: is_healthy(check.stats), "HAProxy listening")
            for name in [n for n in vars(Check) if n[0] != "_" and n not in ("servers_up", "both_up")]:
                await until(check.both_up, "both servers up before the check")
                try:
                    note = await getattr(check, name)()
                    passed += 1
                    print(f"ok   {name.replace('_', ' ')}" + (f" ({note})" if note else ""))
                except (AssertionError, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                    failed += 1
                    print(f"FAIL {name.replace('_', ' ')}: {error!r}")
                for responder in responders:
                    responder.mode, responder.ready = "ok", True
                    if responder.server is None:
                        await responder.start()
            start = time.monotonic()
            async with Client(check.api) as idle:
                await idle.request("POST", "/payments", b"{}")
                haproxy.send_signal(signal.SIGUSR1)
                await asyncio.wait_for(haproxy.wait(), DEADLINE_S)
            print(f"ok   SIGUSR1 ends it with an idle client connected, after {(time.monotonic() - start) * 1000:.0f} ms")
            passed += 1
        finally:
            if haproxy.returncode is None:
                haproxy.kill()
                await haproxy.wait()
            if failed:
                sys.stdout.write(pathlib.Path(log.name).read_text(errors="replace"))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


sys.exit(asyncio.run(main()))
