#!/usr/bin/env python3
"""Pays through localstripe, a stand-in for Stripe that nobody here wrote, and compares its books with Galo's.

What it is: three real localstripes behind a real HAProxy that terminates TLS, the real aggregator and two real gateways
with the shipped profile `localstripe`; payments by both gateways while answers are lost, gateways, the aggregator and the
proxy are killed, a card is declined, and a certificate is another authority's. Then everything must settle, and each id
is looked for in the lists of all localstripes: charged once, in one place, with its amount, or nowhere and declined.

  cheap     keeps less of a payment
  dear      keeps more
  decliner  has a card of the same id that is declined (402): the proxy brings it the payments of 666.66 instead of to
            cheap or dear, so these are charged nowhere, and those of 55.55 instead of to cheap, so these go on to dear

localstripe ignores Idempotency-Key, so an attempt that is sent twice is charged twice: only its list settles a doubt.
An attempt is caught on its way by stopping the localstripes (SIGSTOP) until the proxy has given them what there is.

What it must never do: sleep to pass. It waits for a state with a deadline, and a deadline missed is a failure.
`--plant resend` gives the profile a key that may be sent again for ever; a run with it must fail.
Needs what ci/install-tools.sh installs, and the built programs.
"""

import argparse
import collections
import decimal
import http.client
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid

from checks import ROOT, Failure, check, free_ports, run, until

TOOLS = ROOT / ".galo" / "tools" / "localstripe"
# localstripe writes it at each POST, wherever it runs.
PICKLE = pathlib.Path("/tmp/localstripe.pickle")
HOST = "localstripe.test"
TOKEN = "sk_test_galo"
CHARGED_CARD, DECLINED_CARD = "4242424242424242", "4000000000000341"
# As a client may write them; the sum is exact or the check fails.
AMOUNTS = ["0.01", "19.9", "19.90", "1234567.89", "1e2", "0.3", "1.15", "4.35", "7", "99999.99"]
DECLINED_AMOUNT, DECLINED_BY_CHEAP_AMOUNT = "666.66", "55.55"
FEES = {"cheap": 200, "dear": 400}
LOCALSTRIPES = (*FEES, "decliner")
CAUGHT_MIN = 3
# To list a payment, localstripe looks through all that it ever stored: 250 of them take it half a second a page. Hence not more.
UP_S_MAX, SETTLE_S_MAX = 20, 90


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("galo", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def request(connection, method, path, body=None, headers=None):
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def read_json(text):
    return json.loads(text, parse_float=decimal.Decimal)


class Process:
    """One program that is started, killed and started again; its log grows."""

    def __init__(self, name, command, log, env=None):
        self.name, self.command, self.log, self.env = name, command, log, env
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=dict(os.environ, **(self.env or {})), stdout=log, stderr=log)

    def signal(self, number):
        check(self.process.poll() is None, f"{self.name} ended by itself with {self.process.returncode}; see its log")
        self.process.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Localstripe(Process):
    def __init__(self, name, port, folder):
        # As `python -m localstripe`, but ids are drawn alike: the first card has the same one everywhere.
        start = "import random; random.seed(1); from localstripe import server; server.start()"
        command = [sys.executable, "-c", start, "--from-scratch", "--port", str(port)]
        super().__init__(name, command, folder / f"{name}.log", {"PYTHONPATH": str(TOOLS), "PYTHONUNBUFFERED": "1"})
        self.port = port
        self.card = None

    def call(self, method, path, **form):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/x-www-form-urlencoded"}
        status, body = request(connection, method, path, urllib.parse.urlencode(form) or None, headers)
        check(status == 200, f"{self.name}: {method} {path}: {status} {body[:200]!r}")
        return read_json(body)

    def is_up(self):
        try:
            self.call("GET", "/v1/customers")
            return True
        except OSError:
            return False

    def make_card(self, number):
        form = {"type": "card", "card[number]": number, "card[exp_month]": "12", "card[exp_year]": "2040", "card[cvc]": "123"}
        self.card = self.call("POST", "/v1/payment_methods", **form)["id"]

    def all(self, kind):
        """Its whole list, page by page."""
        entries, after = [], ""
        while True:
            page = self.call("GET", f"/v1/{kind}?limit=100{after}")
            entries += page["data"]
            if not page["has_more"]:
                return entries
            after = f"&starting_after={entries[-1]['id']}"

    def orders(self):
        """The ids of the payments that it has charged, each as often as it was."""
        return [it["metadata"].get("order_id") for it in self.all("payment_intents") if it["status"] == "succeeded"]


class Proxy(Process):
    """HAProxy with a TLS frontend for each processor, and with either authority's certificate."""

    def __init__(self, folder, localstripes):
        super().__init__("proxy", None, folder / "proxy.log")
        self.folder = folder
        self.admin = folder / "proxy.sock"
        self.ports = dict(zip(FEES, free_ports(len(FEES))))
        self.localstripes = localstripes

    def start(self, authority="ours"):
        lines = ["global", f" stats socket {self.admin} level admin", " log stderr format raw local0"]
        lines += ["defaults", " mode http", " log global", " option httplog", " timeout connect 1s", " timeout client 60s", " timeout server 60s"]
        for name, port in self.ports.items():
            lines += [f"frontend tls-{name}", f" bind 127.0.0.1:{port} ssl crt {self.folder}/{authority}.pem strict-sni"]
            declined = "amount=66666&" + (" amount=5555&" if name == "cheap" else "")
            lines += [" option http-buffer-request", f" use_backend decliner if {{ req.body -m sub {declined} }}", f" default_backend {name}"]
        for each in self.localstripes.values():
            lines += [f"backend {each.name}", f" server one 127.0.0.1:{each.port}"]
        config = self.folder / "proxy.cfg"
        config.write_text("\n".join(lines) + "\n")
        self.command = ["haproxy", "-db", "-f", str(config)]
        super().start()
        until(self.is_up, "HAProxy listens")

    def is_up(self):
        check(self.process.poll() is None, f"HAProxy ended:\n{self.log.read_text(errors='replace')[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", self.ports["dear"]), 1).close()
            return True
        except OSError:
            return False

    def stats(self, kind, column):
        """A column of `show stat` by proxy, of the rows FRONTEND or BACKEND."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.admin))
            admin.sendall(b"show stat\n")
            text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        header, *rows = [line.split(",") for line in text.lstrip("# ").splitlines() if line]
        return {row[0]: int(row[header.index(column)] or 0) for row in rows if row[1] == kind}

    def under_way(self):
        """Requests that are with a localstripe now."""
        return sum(self.stats("BACKEND", "scur").values())


def make_certificates(folder):
    """One authority that the gateways know, one that they do not, and a certificate for the same name from each."""
    for authority in ("ours", "foreign"):
        file = lambda end, authority=authority: str(folder / f"{authority}{end}")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        run("openssl", "req", "-x509", *key, "-subj", f"/CN={authority} authority", "-days", "2", "-keyout", file("-ca.key"), "-out", file("-ca.pem"),
            "-addext", "keyUsage=critical,keyCertSign")
        run("openssl", "req", *key, "-subj", f"/CN={HOST}", "-keyout", file(".key"), "-out", file(".csr"))
        extensions = folder / "extensions"
        extensions.write_text(f"subjectAltName=DNS:{HOST}\nextendedKeyUsage=serverAuth\n")
        run("openssl", "x509", "-req", "-in", file(".csr"), "-CA", file("-ca.pem"), "-CAkey", file("-ca.key"), "-CAcreateserial", "-days", "2",
            "-extfile", str(extensions), "-out", file(".crt"))
        (folder / f"{authority}.pem").write_text((folder / f"{authority}.crt").read_text() + (folder / f"{authority}.key").read_text())


class World:
    """All processes, and what was posted."""

    def __init__(self, folder, programs, planted):
        self.folder = folder
        self.localstripes = {name: Localstripe(name, port, folder) for name, port in zip(LOCALSTRIPES, free_ports(len(LOCALSTRIPES)))}
        self.proxy = Proxy(folder, self.localstripes)
        self.planted = planted
        file = folder / "processors.toml"
        common = {"GALO_PROCESSORS": str(file), "AGGREGATOR_SOCKET": str(folder / "aggregator.sock"), "LOG": "info"}
        self.aggregator_http = folder / "aggregator-http.sock"
        environment = dict(common, AGGREGATOR_HTTP_SOCKET=str(self.aggregator_http), JOURNAL_DIR=str(folder / "journal"))
        self.aggregator = Process("aggregator", [str(programs / "galo-aggregator")], folder / "aggregator.log", environment)
        self.sockets = [folder / f"gateway-{number}.sock" for number in (1, 2)]
        self.gateways = []
        for number, path in enumerate(self.sockets, 1):
            environment = dict(common, GATEWAY_INSTANCE=str(number), GATEWAY_SOCKET=str(path), GATEWAY_PINNED="false")
            self.gateways.append(Process(f"gateway-{number}", [str(programs / "galo-gateway")], folder / f"gateway-{number}.log", environment))
        self.posted = {}
        self.amounts = itertools.cycle(AMOUNTS)
        self.kills = collections.Counter()
        self.retried = 0
        # Counters of gateways that are no more.
        self.before = collections.Counter()
        self.lost = self.lost_charged = 0

    def write_processors(self):
        (self.folder / "token").write_text(TOKEN + "\n")
        text = '[routing]\nprofile = "steady"\n'
        for name, basis_points in FEES.items():
            text += f"""
[[processor]]
name = "{name}"
profile = "localstripe"
url = "https://127.0.0.1:{self.proxy.ports[name]}"
tls = {{ ca_file = "ours-ca.pem", server_name = "{HOST}" }}
auth.token_file = "token"
cost.basis_points = {basis_points}
request.body.payment_method = "{self.localstripes[name].card}"
connect_timeout_ms = 500
attempt_timeout_ms = 3_000
lookup.every_ms = 1_000
lookup.not_found_after_ms = 8_000
"""
            if self.planted:
                text += 'idempotency = { in = "header", name = "Idempotency-Key" }\n'
        (self.folder / "processors.toml").write_text(text)

    def processes(self):
        return [*self.gateways, self.aggregator, self.proxy, *self.localstripes.values()]

    def start(self):
        make_certificates(self.folder)
        for each in self.localstripes.values():
            each.start()
        for each in self.localstripes.values():
            until(each.is_up, f"{each.name} answers", UP_S_MAX)
            each.make_card(DECLINED_CARD if each.name == "decliner" else CHARGED_CARD)
        cards = {each.card for each in self.localstripes.values()}
        check(len(cards) == 1, f"the cards have several ids: {cards}")
        self.proxy.start()
        self.write_processors()
        self.aggregator.start()
        for gateway in self.gateways:
            gateway.start()
        self.until_ready()

    def until_ready(self):
        for path in self.sockets:
            until(lambda path=path: self.try_get(path, "/ready")[0] == 200, f"{path.name} is ready", UP_S_MAX)

    def try_get(self, path, target):
        try:
            return request(UnixConnection(path), "GET", target)
        except (OSError, http.client.HTTPException):
            return 0, b""

    def get(self, target, path=None):
        status, body = request(UnixConnection(path or self.sockets[0]), "GET", target)
        check(status == 200, f"GET {target}: {status} {body[:200]!r}")
        return body.decode()

    def metric(self, path, name, **labels):
        """The sum of a metric's series that have these labels."""
        total = 0
        for line in self.get("/metrics", path).splitlines():
            if line.startswith(name) and line[len(name)] in " {" and all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return int(total)

    def books(self, name):
        return self.metric(self.aggregator_http, name)

    def over_gateways(self, name, **labels):
        return sum(self.metric(path, name, **labels) for path in self.sockets)

    def totals(self):
        """Of the gateways that live now, beside those of the dead."""
        totals = collections.Counter(self.before)
        for path in self.sockets:
            totals += self.counters(path)
        return totals

    def counters(self, path):
        return collections.Counter({
            "unknown": self.metric(path, "galo_attempt_verdicts_total", verdict="unknown"),
            "declined": self.metric(path, "galo_attempt_verdicts_total", verdict="declined"),
            "look-ups": self.metric(path, "galo_verifications_total"),
            "handshakes": self.metric(path, "galo_processor_tls_handshakes_total"),
            "resumed": self.metric(path, "galo_processor_tls_resumed_total"),
        })

    def post(self, count, via=(0, 1), amount=None):
        """Posts payments, each until a gateway has taken it: the same id may go to the next one."""
        ways = itertools.cycle(via)
        for _ in range(count):
            text = amount or next(self.amounts)
            correlation_id = str(uuid.uuid4())
            self.posted[correlation_id] = text
            body = f'{{"correlationId":"{correlation_id}","amount":{text}}}'

            def taken():
                try:
                    status, answer = request(UnixConnection(self.sockets[next(ways)]), "POST", "/payments", body)
                except (OSError, http.client.HTTPException):
                    status, answer = 0, b""
                check(status in (0, 202, 503), f"POST: {status} {answer!r}")
                self.retried += status != 202
                return status == 202

            until(taken, f"{correlation_id} is taken")

    def payment(self, correlation_id):
        return read_json(self.get(f"/payments/{correlation_id}"))

    def open(self):
        return self.books("galo_payments_open")

    def flow(self):
        """Posts two by two until the usual processor takes payments again, and what there was is settled but for what is in doubt."""
        def flows():
            if self.over_gateways("galo_processor_breaker_open", processor="cheap") == 0:
                return True
            # One by each gateway: a breaker closes by what its own gateway hears.
            self.post(2)
            time.sleep(0.5)
            return False

        until(flows, "cheap's breakers are closed")
        until(lambda: self.open() <= self.books("galo_payments_in_doubt") + 6, lambda: f"the rest flows; {self.open()} are open", SETTLE_S_MAX)

    def catch(self, count, via=(0, 1)):
        """Posts payments of which some are then with the localstripes, which stand still."""
        self.flow()
        for each in self.localstripes.values():
            each.signal(signal.SIGSTOP)
        self.post(count, via)
        until(lambda: self.proxy.under_way() >= CAUGHT_MIN, lambda: f"{self.proxy.under_way()} of {CAUGHT_MIN} attempts are under way", 5)

    def release(self):
        for each in self.localstripes.values():
            each.signal(signal.SIGCONT)
        for each in self.localstripes.values():
            until(each.is_up, f"{each.name} answers")

    def check_charges(self):
        charged = collections.Counter(order for each in self.localstripes.values() for order in each.orders())
        twice = {order: count for order, count in charged.items() if count > 1}
        check(not twice, f"charged more than once: {len(twice)} of {len(charged)}, such as {list(twice.items())[:3]}")

    def kill_gateway(self, index):
        self.before += self.counters(self.sockets[index])
        self.gateways[index].kill()
        self.kills["gateway"] += 1


class Checks:
    """In this order; each leaves all processes up."""

    def __init__(self, world):
        self.world = world
        # Of each processor, what its localstripe charged: how many payments and how much.
        self.totals = {name: (0, decimal.Decimal(0)) for name in FEES}

    def payments_flow_over_tls(self):
        world = self.world
        world.post(30)
        until(lambda: world.open() == 0, lambda: f"{world.open()} are open")
        totals = world.totals()
        check(totals["handshakes"] >= 2, f"{totals['handshakes']} handshakes")
        return f"30, over {totals['handshakes']} handshakes"

    def a_402_is_a_decline_and_the_payment_goes_on_to_the_next(self):
        world = self.world
        world.post(4, amount=DECLINED_BY_CHEAP_AMOUNT)
        until(lambda: world.open() == 0, lambda: f"{world.open()} are open")
        ids = {it for it, amount in world.posted.items() if amount == DECLINED_BY_CHEAP_AMOUNT}
        declined = {it["metadata"]["order_id"] for it in world.localstripes["decliner"].all("payment_intents")}
        check(ids <= declined, f"{len(ids & declined)} of {len(ids)} were declined")
        check(ids <= set(world.localstripes["dear"].orders()), "not all are charged at dear")
        return f"{len(ids)} declined at cheap and charged at dear"

    def what_all_decline_ends_declined(self):
        world = self.world
        world.post(4, amount=DECLINED_AMOUNT)
        ids = [it for it, amount in world.posted.items() if amount == DECLINED_AMOUNT]
        posted = time.monotonic()

        def done():
            nonlocal posted
            # A decline is final where others were taken in between.
            if time.monotonic() - posted > 0.5:
                posted = time.monotonic()
                world.post(2)
            return all(world.payment(it)["state"] == "declined" for it in ids)

        took_s = until(done, lambda: f"{[world.payment(it)['state'] for it in ids]}")
        tries = collections.Counter(it["metadata"]["order_id"] for it in world.localstripes["decliner"].all("payment_intents"))
        return f"{len(ids)} after {took_s:.1f} s and {sum(tries[it] for it in ids)} attempts"

    def answers_are_lost(self):
        world = self.world
        for _ in range(2):
            before = world.totals()["unknown"]
            world.catch(7)
            world.proxy.kill()
            world.kills["proxy"] += 1
            world.release()
            world.post(5)
            until(lambda: world.totals()["unknown"] > before, "attempts end unknown")
            charged = {order for each in world.localstripes.values() for order in each.orders()}
            states = {it: world.payment(it) for it in list(world.posted)[-30:]}
            doubts = {it for it, state in states.items() if state["inDoubt"]}
            world.lost += len(doubts)
            world.lost_charged += len(doubts & charged)
            world.proxy.start()
            world.check_charges()
        check(world.lost_charged > 0, f"none of {world.lost} doubts was charged: nothing was lost")
        return f"{world.kills['proxy']} kills of the proxy, {world.lost} doubts, of which {world.lost_charged} were charged"

    def requests_are_lost(self):
        world = self.world
        # What is sent over kept connections stays in their buffers, and goes with them; over a new one not even the handshake gets anywhere.
        world.flow()
        world.post(7)
        until(lambda: all(world.payment(it)["state"] == "processed" for it in list(world.posted)[-7:]), "there are kept connections")
        before = world.totals()["unknown"]
        world.proxy.signal(signal.SIGSTOP)
        world.post(7)
        until(lambda: world.over_gateways("galo_processor_in_flight") >= CAUGHT_MIN, "attempts are under way", 3)
        posted = list(world.posted)[-7:]
        world.proxy.kill()
        world.kills["proxy"] += 1
        until(lambda: world.totals()["unknown"] > before, "attempts end unknown")
        charged = {order for each in world.localstripes.values() for order in each.orders()}
        doubts = {it for it in posted if world.payment(it)["inDoubt"]}
        check(doubts and not doubts & charged, f"{len(doubts)} doubts, of which {len(doubts & charged)} were charged")
        world.proxy.start()
        took_s = until(lambda: all(world.payment(it)["state"] == "processed" for it in doubts), "not found, and sent again")
        world.check_charges()
        return f"{len(doubts)} doubts of payments that nobody had, charged after {took_s:.1f} s"

    def gateways_are_killed_with_attempts_under_way(self):
        world = self.world
        for index in (0, 1):
            world.catch(6, via=(index,))
            world.kill_gateway(index)
            world.release()
            world.post(5, via=(1 - index, index))
            world.gateways[index].start()
            world.until_ready()
            world.check_charges()
        return f"{world.kills['gateway']} kills"

    def the_aggregator_is_killed_with_attempts_under_way(self):
        world = self.world
        world.catch(6)
        world.aggregator.kill()
        world.kills["aggregator"] += 1
        world.release()
        # It comes back while these are posted again and again.
        poster = threading.Thread(target=world.post, args=(10,))
        poster.start()
        until(lambda: world.retried > 0, "a POST is turned away")
        world.aggregator.start()
        poster.join()
        world.until_ready()
        return f"{world.retried} POSTs so far were turned away, and made again with the same id"

    def another_authoritys_certificate_gets_nothing(self):
        world = self.world
        world.flow()
        until(lambda: world.open() == 0, lambda: f"{world.open()} are open", SETTLE_S_MAX)
        world.proxy.kill()
        world.kills["proxy"] += 1
        world.proxy.start("foreign")
        errors = world.over_gateways("galo_processor_tls_errors_total")
        world.post(10)
        until(lambda: world.over_gateways("galo_processor_tls_errors_total") > errors + 3, "TLS errors are counted")
        had = sum(world.proxy.stats("FRONTEND", "req_tot").values())
        check(had == 0, f"{had} requests reached the proxy")
        errors = world.over_gateways("galo_processor_tls_errors_total") - errors
        world.proxy.kill()
        world.kills["proxy"] += 1
        world.proxy.start()
        return f"{errors} handshakes refused, no request"

    def everything_settles(self):
        world = self.world
        world.flow()
        world.post(30)
        took_s = until(lambda: world.open() == 0, lambda: f"{world.open()} are open, {world.books('galo_payments_in_doubt')} in doubt", SETTLE_S_MAX)
        totals = world.totals()
        return f"{took_s:.1f} s; {len(world.posted)} payments, {totals['unknown']} attempts ended unknown, {totals['declined']} declined, {totals['look-ups']} look-ups"

    def each_payment_is_charged_once_in_one_place_or_nowhere(self):
        world = self.world
        intents, mistakes = collections.defaultdict(list), []
        for each in world.localstripes.values():
            entries = each.all("payment_intents")
            for it in entries:
                intents[it["metadata"].get("order_id")].append((each.name, it))
            # An intent says what it did; the charges are what it did.
            charged = collections.Counter(it["payment_intent"] for it in each.all("charges") if it["status"] == "succeeded")
            said = collections.Counter(it["id"] for it in entries if it["status"] == "succeeded")
            check(charged == said, f"{each.name}: its charges are not its intents: {charged - said} {said - charged}")
        mistakes += [f"{it}: nobody posted that" for it in intents if it not in world.posted]
        states = collections.Counter()
        for correlation_id, text in world.posted.items():
            payment, amount = world.payment(correlation_id), decimal.Decimal(text)
            states[payment["state"]] += 1
            charged = [(name, it) for name, it in intents[correlation_id] if it["status"] == "succeeded"]
            places = [name for name, _ in charged]
            expected = [payment["processor"]] if payment["state"] == "processed" else []
            if places != expected or (payment["state"] == "declined") != (text == DECLINED_AMOUNT):
                mistakes.append(f"{correlation_id}: {payment['state']} by {payment['processor']}, charged at {places}")
            if any(it["amount"] != amount * 100 or it["currency"] != "brl" for _, it in charged) or payment["amount"] != amount:
                mistakes.append(f"{correlation_id}: {text}, Galo has {payment['amount']}, charged {[it['amount'] for _, it in charged]}")
            for name in places:
                count, sum_ = self.totals[name]
                self.totals[name] = (count + 1, sum_ + amount)
        check(not mistakes, f"{len(mistakes)} mistakes:\n  " + "\n  ".join(mistakes[:20]))
        return ", ".join([f"{count} {state}" for state, count in states.items()] + [f"{count} at {name}" for name, (count, _) in self.totals.items()])

    def the_summary_is_what_the_localstripes_charged(self):
        summary = read_json(self.world.get("/payments-summary"))
        for name in FEES:
            said, (count, amount) = summary[name], self.totals[name]
            check((said["totalRequests"], said["totalAmount"]) == (count, amount), f"{name}: {said}, charged {count}, {amount}")
        return ", ".join(f"{name} {totals['totalAmount']}" for name, totals in summary.items())

    def the_books_balance(self):
        books = self.world.books
        for end in ("total", "cents_total"):
            accepted, processed, declined = (books(f"galo_payments_{name}_{end}") for name in ("accepted", "processed", "declined"))
            check(accepted == processed + declined, f"{end}: accepted {accepted}, processed {processed}, declined {declined}")
        check(books("galo_payments_accepted_total") == len(self.world.posted), f"{len(self.world.posted)} posted")
        check(books("galo_contradictions_total") == 0, "contradictions")
        return f"accepted {books('galo_payments_accepted_total')} = processed {books('galo_payments_processed_total')} + declined {books('galo_payments_declined_total')}"


def main():
    parser = argparse.ArgumentParser(description="Pays through localstripe, and compares its books with Galo's.")
    parser.add_argument("programs", type=pathlib.Path, nargs="?", help="the folder of galo-gateway and galo-aggregator (target/fast, built if need be)")
    parser.add_argument("--plant", choices=["resend"], help="a bug that must be caught")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder, made here, that keeps configuration and logs")
    arguments = parser.parse_args()
    programs = arguments.programs
    if programs is None:
        programs = ROOT / "target" / "fast"
        run("cargo", "build", "--quiet", "--profile", "fast", "--locked", "-p", "galo-gateway", "-p", "galo-aggregator", "-p", "galo-simulator", timeout=1800)
    if not (TOOLS / "packages").exists():
        sys.exit("localstripe.py: localstripe is not in .galo/tools: run ci/install-tools.sh")
    had_pickle = PICKLE.exists()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="galo-localstripe-") as temporary:
        folder = arguments.keep or pathlib.Path(temporary)
        folder.mkdir(exist_ok=True)
        world = World(folder.resolve(), programs.resolve(), arguments.plant)
        checks = Checks(world)
        functions = [world.start] + [getattr(checks, name) for name in vars(Checks) if name[0] != "_"]
        try:
            for function in functions:
                name = "all processes are up" if function == world.start else function.__name__.replace("_", " ")
                start = time.monotonic()
                try:
                    note = function()
                    passed += 1
                    print(f"ok   {name}, {time.monotonic() - start:.1f} s" + (f" ({note})" if note else ""), flush=True)
                except Exception as error:  # pylint: disable=broad-except -- whatever it is, the check does not hold
                    failed += 1
                    print(f"FAIL {name}: {error if isinstance(error, Failure) else repr(error)}", flush=True)
                    if function == world.start:
                        break
                    # It may have stopped them.
                    for each in world.localstripes.values():
                        each.signal(signal.SIGCONT)
        finally:
            for each in world.processes():
                each.stop()
            if failed:
                for each in world.processes():
                    if each.log.exists():
                        print(f"--- {each.log.name}\n" + each.log.read_text(errors="replace")[-3000:])
            if not had_pickle:
                PICKLE.unlink(missing_ok=True)
        print("kills: " + ", ".join(f"{count} of the {name}" if name != "gateway" else f"{count} of gateways" for name, count in world.kills.items()))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
