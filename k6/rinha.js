// The contest's scenario, written anew from its rules, with an auditor that is stricter than theirs and thresholds that
// fail the run.
//
// A ramp of users posts one payment a second each. Meanwhile the two processors get slower, fail, fail both, recover. An
// auditor compares what Galo says it processed with what each processor says, over [now - 15 s, now - 1.5 s]: per
// processor and to the cent, where the contest sums the differences up (two that cancel out would pass there). At the end
// every payment answered 2xx has to be processed.
//
// Environment: API_URL, DEFAULT_URL, FALLBACK_URL, TOKEN (the processors' admin token), MAX_REQUESTS (users at the ramp's end),
// DURATION_S, AUDIT_S (pause between audits), RESULT_FILE (where the JSON goes).

import { sleep } from "k6";
import exec from "k6/execution";
import { Counter } from "k6/metrics";
import Big from "./lib/big.js";
import { Httpx } from "./lib/httpx.js";
import { textSummary } from "./lib/summary.js";
import { uuidv4 } from "./lib/utils.js";

const MAX_REQUESTS = parseInt(__ENV.MAX_REQUESTS || "500", 10);
const DURATION_S = parseInt(__ENV.DURATION_S || "60", 10);
const AUDIT_S = parseFloat(__ENV.AUDIT_S || "10");
const AMOUNT = 19.9;
const PROCESSORS = ["default", "fallback"];

// What the processors go through, in sixths of the run: [delay ms, failing] of default, then of fallback.
const STAGES = [
  [[0, false], [0, false]],
  [[100, false], [0, false]],
  [[100, true], [0, false]],
  [[2000, true], [1000, true]],
  [[20, false], [20, false]],
  [[0, false], [5000, false]],
];

const json = { "Content-Type": "application/json" };
const api = new Httpx({ baseURL: __ENV.API_URL || "http://localhost:9999", headers: json, timeout: 1500 });
const admin = {};
for (const [name, url] of [
  ["default", __ENV.DEFAULT_URL || "http://localhost:8001"],
  ["fallback", __ENV.FALLBACK_URL || "http://localhost:8002"],
]) {
  admin[name] = new Httpx({ baseURL: url, headers: { ...json, "X-Rinha-Token": __ENV.TOKEN || "123" }, timeout: 1500 });
}

const accepted = new Counter("payments_accepted");
const refused = new Counter("payments_refused");
const audits = new Counter("audits");
const inconsistencies = new Counter("inconsistencies");
// Counts up with each payment accepted and down with each processed: what is left is lost, or not done in time.
const lag = new Counter("lag");
// Payments by which the ledger and the processors differ once the load is over.
const differences = new Counter("final_differences");
const counts = {};
const amounts = {};
const fees = {};
for (const name of PROCESSORS) {
  counts[name] = new Counter(`${name}_requests`);
  amounts[name] = new Counter(`${name}_amount`);
  fees[name] = new Counter(`${name}_fees`);
}

const stageScenarios = {};
STAGES.forEach((stage, index) => {
  stageScenarios[`stage_${index}`] = {
    exec: "enterStage",
    executor: "per-vu-iterations",
    vus: 1,
    iterations: 1,
    startTime: index === 0 ? "0s" : `${Math.round((DURATION_S * 1000 * index) / STAGES.length)}ms`,
    env: { STAGE: String(index) },
  };
});

export const options = {
  summaryTrendStats: ["med", "p(99)", "max", "count"],
  scenarios: {
    payments: {
      exec: "pay",
      executor: "ramping-vus",
      startVUs: 1,
      gracefulRampDown: "0s",
      stages: [{ target: MAX_REQUESTS, duration: `${DURATION_S}s` }],
    },
    auditor: { exec: "audit", executor: "constant-vus", vus: 1, duration: `${DURATION_S}s` },
    ...stageScenarios,
  },
  thresholds: {
    payments_accepted: ["count > 0"],
    payments_refused: ["count == 0"],
    audits: ["count > 0"],
    inconsistencies: ["count == 0"],
    final_differences: ["count == 0"],
    lag: ["count == 0"],
  },
};

async function configure(name, setting, value) {
  const response = await admin[name].asyncPut(`/admin/configurations/${setting}`, JSON.stringify({ [setting]: value }));
  if (response.status < 200 || response.status > 299) {
    exec.test.abort(`processor ${name}: PUT ${setting} answered ${response.status} ${response.body}`);
  }
}

async function ask(session, path) {
  const response = await session.asyncGet(path);
  if (response.status !== 200) {
    throw new Error(`GET ${path} answered ${response.status} ${response.body}`);
  }
  return JSON.parse(response.body);
}

// What Galo and the two processors say about a window, asked at the same moment.
async function summaries(query) {
  const [ours, ...theirs] = await Promise.all([
    ask(api, `/payments-summary${query}`),
    ...PROCESSORS.map((name) => ask(admin[name], `/admin/payments-summary${query}`)),
  ]);
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

export async function setup() {
  for (const name of PROCESSORS) {
    await configure(name, "delay", 0);
    await configure(name, "failure", false);
    const purged = await admin[name].asyncPost("/admin/purge-payments");
    if (purged.status !== 200) {
      exec.test.abort(`processor ${name}: purge answered ${purged.status}`);
    }
  }
  const purged = await api.asyncPost("/purge-payments");
  if (purged.status < 200 || purged.status > 299) {
    exec.test.abort(`POST /purge-payments answered ${purged.status}: is PURGE_ALLOWED set?`);
  }
}

export async function pay() {
  const payment = JSON.stringify({ correlationId: uuidv4(), amount: AMOUNT });
  const response = await api.asyncPost("/payments", payment);
  const ok = response.status >= 200 && response.status < 300;
  accepted.add(ok ? 1 : 0);
  lag.add(ok ? 1 : 0);
  refused.add(ok ? 0 : 1);
  if (!ok) {
    console.warn(`POST /payments answered ${response.status} ${response.error || response.body}`);
  }
  sleep(1);
}

export async function audit() {
  const now = Date.now();
  const from = new Date(now - 15000).toISOString();
  const to = new Date(now - 1500).toISOString();
  for (const pair of await summaries(`?from=${from}&to=${to}`)) {
    const found = difference(pair);
    inconsistencies.add(found);
    if (found > 0) {
      console.warn(`${from} to ${to}, ${pair.name}: ledger ${JSON.stringify(pair.ours)}, processor ${JSON.stringify(pair.theirs)}`);
    }
  }
  audits.add(1);
  sleep(AUDIT_S);
}

export async function enterStage() {
  const stage = STAGES[parseInt(__ENV.STAGE, 10)];
  for (const [index, name] of PROCESSORS.entries()) {
    const [delay, failure] = stage[index];
    await configure(name, "delay", delay);
    await configure(name, "failure", failure);
  }
}

export async function teardown() {
  for (const pair of await summaries("")) {
    const { name, ours, theirs } = pair;
    counts[name].add(ours.totalRequests);
    amounts[name].add(ours.totalAmount);
    fees[name].add(new Big(theirs.feePerTransaction).times(ours.totalAmount).toNumber());
    lag.add(-ours.totalRequests);
    const found = difference(pair);
    differences.add(found);
    if (found > 0) {
      console.warn(`at the end, ${name}: ledger ${JSON.stringify(ours)}, processor ${JSON.stringify(theirs)}`);
    }
  }
}

// The contest's score: profit, plus 2 % for each millisecond of p99 below 11, minus 35 % for any inconsistency.
export function handleSummary(data) {
  const count = (metric) => (data.metrics[metric] ? data.metrics[metric].values.count : 0);
  const sum = (metric) => PROCESSORS.reduce((total, name) => total.plus(count(`${name}_${metric}`)), new Big(0));
  const gross = sum("amount").round(2);
  const fee = sum("fees").round(2);
  const net = gross.minus(fee);
  const p99 = new Big(data.metrics["http_req_duration{expected_response:true}"].values["p(99)"]).round(2).toNumber();
  const bonus = Math.max(new Big((11 - p99) * 0.02).round(2).toNumber(), 0);
  const fine = count("inconsistencies") > 0 ? 0.35 : 0;
  const result = {
    gross: gross.toNumber(),
    fees: fee.toNumber(),
    net: net.toNumber(),
    p99_ms: p99,
    bonus_percent: new Big(bonus).times(100).toNumber(),
    fine: net.times(fine).round(2).toNumber(),
    score: net.plus(net.times(bonus)).minus(net.times(fine)).round(2).toNumber(),
    inconsistencies: count("inconsistencies"),
    audits: count("audits"),
    final_differences: count("final_differences"),
    lag: count("lag"),
    accepted: count("payments_accepted"),
    failures: count("payments_refused"),
    default_requests: count("default_requests"),
    fallback_requests: count("fallback_requests"),
  };
  const output = { stdout: textSummary(data) };
  if (__ENV.RESULT_FILE) {
    output[__ENV.RESULT_FILE] = JSON.stringify(result, null, 2);
  }
  return output;
}
