// One schedule (a JSON file: clients and stages over time) as load against a running Galo, with the contest's auditor.
//
// The clients are k6's ramping-vus along the file's line, each posting 19.90 and then sleeping a second. Every 10 s the auditor asks Galo
// and both processors, in one batch, what was processed over [now - 15 s, now - 1.5 s]. Once the load is over and settle_ms have
// passed, the teardown takes the books as the contest would: what Galo has not processed by then earns nothing.
//
// The stages are not set here. `cargo xtask schedule` sets them from a thread of its own, which k6's own scheduling cannot delay; it
// learns the moment of the start from the line `begun_at_ms=...` on stderr. It also has checked the file, and does the sums.
//
// Environment: SCHEDULE_FILE, API_URL, DEFAULT_URL, FALLBACK_URL, TOKEN (the processors' admin token), RESULT_FILE (where the JSON
// goes).

import { sleep } from "k6";
import exec from "k6/execution";
import http from "k6/http";
import { Counter, Trend } from "k6/metrics";
import Big from "./lib/big.js";
import { uuidv4 } from "./lib/utils.js";

const schedule = JSON.parse(open(__ENV.SCHEDULE_FILE));
const LENGTH_MS = Math.round(schedule.seconds * 1000);
const SETTLE_MS = schedule.settle_ms === undefined ? 1000 : schedule.settle_ms;
const AMOUNT = 19.9;
const AUDIT_S = 10;
const PROCESSORS = ["default", "fallback"];
const API_URL = __ENV.API_URL;
const PROCESSOR_URLS = [__ENV.DEFAULT_URL, __ENV.FALLBACK_URL];
const JSON_HEADERS = { "Content-Type": "application/json" };
const ADMIN_HEADERS = { ...JSON_HEADERS, "X-Rinha-Token": __ENV.TOKEN };
// The contest's.
const TIMEOUT_MS = 1500;
// The final books are taken once; a slow answer must not cost the run.
const FINAL_TIMEOUT_MS = 10000;

const accepted = new Counter("payments_accepted");
const failed = new Counter("payments_failed");
const postMs = new Trend("post_ms");
const audits = new Counter("audits");
// Audits with an answer missing: they prove nothing, so they must not pass for equal books.
const auditsFailed = new Counter("audits_failed");
// By the contest's rule: both processors' differences added up, so that opposite ones cancel out.
const inconsistencies = new Counter("inconsistencies");
// Each processor by itself, and to the cent.
const differences = new Counter("differences");
const booksTaken = new Counter("books_taken");
const books = {};
for (const book of ["ledger", "processor"]) {
  for (const name of PROCESSORS) {
    for (const figure of ["requests", "cents"]) {
      const metric = `${book}_${name}_${figure}`;
      books[metric] = new Counter(metric);
    }
  }
}

// The line from point to point; a jump is a stage without length. Behind the last point it goes on level.
function ramp() {
  const stages = [];
  let atMs = 0;
  for (const { at_s, count } of schedule.clients.slice(1)) {
    const nextMs = Math.round(at_s * 1000);
    stages.push({ target: count, duration: `${nextMs - atMs}ms` });
    atMs = nextMs;
  }
  if (atMs < LENGTH_MS) {
    stages.push({ target: schedule.clients[schedule.clients.length - 1].count, duration: `${LENGTH_MS - atMs}ms` });
  }
  return stages;
}

export const options = {
  summaryTrendStats: ["med", "p(99)", "max", "count"],
  teardownTimeout: `${SETTLE_MS + 60000}ms`,
  scenarios: {
    payments: {
      exec: "pay",
      executor: "ramping-vus",
      startVUs: schedule.clients[0].count,
      stages: ramp(),
      // A client that has to go finishes what it sent: a POST cut off would be neither accepted nor failed.
      gracefulRampDown: "5s",
      gracefulStop: "5s",
    },
    auditor: {
      exec: "audit",
      // Not a loop with a sleep: the last sleep would put the teardown off.
      executor: "constant-arrival-rate",
      rate: 1,
      timeUnit: `${AUDIT_S}s`,
      // A little more than the load, or it would be chance whether the audit at its very end takes place.
      duration: `${LENGTH_MS + Math.min(SETTLE_MS, 100)}ms`,
      preAllocatedVUs: 2,
      gracefulStop: "2s",
    },
  },
};

// What Galo and both processors say, asked at the same moment; null when one of them does not answer properly.
function summaries(query, timeout) {
  const get = (url, headers) => ({ method: "GET", url, params: { headers, timeout } });
  const responses = http.batch([
    get(`${API_URL}/payments-summary${query}`, JSON_HEADERS),
    ...PROCESSOR_URLS.map((url) => get(`${url}/admin/payments-summary${query}`, ADMIN_HEADERS)),
  ]);
  const bad = responses.find((response) => response.status !== 200);
  if (bad) {
    console.warn(`GET ${bad.request.url} answered ${bad.status} ${bad.error || bad.body}`);
    return null;
  }
  const [ours, ...theirs] = responses.map((response) => JSON.parse(response.body));
  return PROCESSORS.map((name, index) => ({ name, ours: ours[name], theirs: theirs[index] }));
}

function cents(amount) {
  return new Big(amount).times(100).round().toNumber();
}

// By how many payments the two differ; a sum that differs under equal counts is one at least.
function difference({ ours, theirs }) {
  const requests = Math.abs(ours.totalRequests - theirs.totalRequests);
  return requests || (cents(ours.totalAmount) === cents(theirs.totalAmount) ? 0 : 1);
}

export function setup() {
  for (const [url, headers] of [
    ...PROCESSOR_URLS.map((processor) => [`${processor}/admin/purge-payments`, ADMIN_HEADERS]),
    [`${API_URL}/purge-payments`, JSON_HEADERS],
  ]) {
    const purged = http.post(url, null, { headers });
    if (purged.status < 200 || purged.status > 299) {
      exec.test.abort(`POST ${url} answered ${purged.status}: is PURGE_ALLOWED set?`);
    }
  }
  const begunAtMs = Date.now();
  console.info(`begun_at_ms=${begunAtMs}`);
  return { begunAtMs };
}

export function pay() {
  const endMs = exec.scenario.startTime + LENGTH_MS;
  if (Date.now() >= endMs) {
    // Woken at the very end, before k6 has stopped the clients: the last POST was the one before.
    sleep(0.01);
    return;
  }
  const payment = JSON.stringify({ correlationId: uuidv4(), amount: AMOUNT });
  const response = http.post(`${API_URL}/payments`, payment, { headers: JSON_HEADERS, timeout: TIMEOUT_MS });
  const ok = response.status >= 200 && response.status < 300;
  accepted.add(ok ? 1 : 0);
  failed.add(ok ? 0 : 1);
  if (ok) {
    postMs.add(response.timings.duration);
  } else {
    console.warn(`POST /payments answered ${response.status} ${response.error || response.body}`);
  }
  // The last sleep must not outlast the settling time, nor end before the load does.
  const leftMs = endMs + SETTLE_MS - Date.now() + 1;
  sleep(Math.min(Math.max(leftMs, 0), 1000) / 1000);
}

export function audit() {
  const now = Date.now();
  const from = new Date(now - 15000).toISOString();
  const to = new Date(now - 1500).toISOString();
  const pairs = summaries(`?from=${from}&to=${to}`, TIMEOUT_MS);
  audits.add(1);
  auditsFailed.add(pairs === null ? 1 : 0);
  if (pairs === null) {
    return;
  }
  const sum = pairs.reduce((total, { ours, theirs }) => total + ours.totalRequests - theirs.totalRequests, 0);
  inconsistencies.add(Math.abs(sum));
  for (const pair of pairs) {
    const found = difference(pair);
    differences.add(found);
    if (found > 0) {
      console.warn(`${from} to ${to}, ${pair.name}: ledger ${JSON.stringify(pair.ours)}, processor ${JSON.stringify(pair.theirs)}`);
    }
  }
}

export function teardown({ begunAtMs }) {
  sleep(Math.max(begunAtMs + LENGTH_MS + SETTLE_MS - Date.now(), 0) / 1000);
  const pairs = summaries("", FINAL_TIMEOUT_MS);
  if (pairs === null) {
    return;
  }
  for (const { name, ours, theirs } of pairs) {
    for (const [book, { totalRequests, totalAmount }] of [["ledger", ours], ["processor", theirs]]) {
      books[`${book}_${name}_requests`].add(totalRequests);
      books[`${book}_${name}_cents`].add(cents(totalAmount));
    }
  }
  booksTaken.add(1);
}

export function handleSummary(data) {
  const count = (metric) => (data.metrics[metric] ? data.metrics[metric].values.count : 0);
  const post = data.metrics.post_ms ? data.metrics.post_ms.values : {};
  const book = (kind) =>
    PROCESSORS.map((name) => ({ requests: count(`${kind}_${name}_requests`), cents: count(`${kind}_${name}_cents`) }));
  const result = {
    accepted: count("payments_accepted"),
    failed: count("payments_failed"),
    audits: count("audits"),
    audits_failed: count("audits_failed"),
    inconsistencies: count("inconsistencies"),
    differences: count("differences"),
    post_ms_p50: post.med,
    post_ms_p99: post["p(99)"],
    post_ms_max: post.max,
    // Absent when the teardown got no answer: zeros would look like books.
    books: count("books_taken") === 1 ? { ledger: book("ledger"), processors: book("processor") } : null,
  };
  return { [__ENV.RESULT_FILE]: JSON.stringify(result, null, 2) };
}
