//! What the others counted during a run: the processors (health checks, payments), HAProxy (requests per gateway), the
//! cgroups (throttling).
//!
//! Counters are read before and after and shown as differences. What cannot be read (processors that are not ours have no
//! statistics, no limits no cgroup) is left out. After the run the ledger is compared with the processors' own totals
//! once nothing is open any more: that comparison must never be skipped while both sides answer.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::decimal::scaled;
use crate::http::{Answer, Origin};
use crate::limits::Cgroup;
use crate::out::errln;
use crate::repo::Fallible;
use crate::up;

/// The processors' admin token as they start (the contest's own value).
pub(crate) const ADMIN_TOKEN: &str = "123";
const TIMEOUT: Duration = Duration::from_secs(5);
/// The slowest processor of the contest takes 5 s; what is open longer than that after the load is stuck.
const SETTLE_WAIT: Duration = Duration::from_secs(10);

/// A payment processor's admin side.
pub(crate) struct Processor {
    pub(crate) name: &'static str,
    origin: Origin,
}

impl Processor {
    pub(crate) fn both(target: &up::Options) -> Vec<Self> {
        let of = |name| Origin::of_url(&target.processor_url(name)).ok().map(|origin| Self { name, origin });
        ["default", "fallback"].into_iter().filter_map(of).collect()
    }

    /// A processor that answers at `origin`.
    #[cfg(test)]
    pub(crate) fn at(name: &'static str, origin: Origin) -> Self {
        Self { name, origin }
    }

    /// The port in the processor's URL.
    pub(crate) fn port(target: &up::Options, name: &str) -> Option<u16> {
        let name = Origin::of_url(&target.processor_url(name)).ok()?.name();
        name.rsplit_once(':')?.1.parse().ok()
    }

    pub(crate) fn admin(&self, method: &str, path: &str, body: &Value) -> Fallible<Answer> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.origin.send(method, path, &[("X-Rinha-Token", ADMIN_TOKEN)], &body, TIMEOUT)
    }

    /// Sets the token back to what it was before a script changed it to `token`.
    pub(crate) fn restore_token(&self, token: &str) {
        let body = json!({ "token": ADMIN_TOKEN }).to_string();
        let answer = self.origin.send(
            "PUT",
            "/admin/configurations/token",
            &[("X-Rinha-Token", token)],
            body.as_bytes(),
            TIMEOUT,
        );
        match answer {
            // 401 or 403: the script never came so far as to change it.
            Ok(answer) if matches!(answer.status, 200..=299 | 401 | 403) => {}
            Ok(answer) => errln!(
                "processor {}: the admin token could not be set back (status {})",
                self.name,
                answer.status
            ),
            Err(error) => {
                errln!("processor {}: the admin token could not be set back: {error}", self.name)
            }
        }
    }

    /// Requests and cents of everything processed.
    pub(crate) fn totals(&self) -> Fallible<Totals> {
        let answer = self.admin("GET", "/admin/payments-summary", &Value::Null)?.expect(200)?;
        Totals::of_processor(&answer).map_err(|error| format!("processor {}: {error}", self.name))
    }

    fn statistics(&self) -> Option<Value> {
        self.admin("GET", "/admin/statistics", &Value::Null).ok()?.expect(200).ok()?.json().ok()
    }
}

/// A summary's two figures, the amount in cents.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) cents: u64,
}

/// A summary as it stands in the answer: the amount stays text, since a float would hide a wrong last digit.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    total_requests: u64,
    total_amount: Box<RawValue>,
}

impl Display for Totals {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} payments, {}.{:02} in all", self.requests, self.cents / 100, self.cents % 100)
    }
}

impl Totals {
    fn of(summary: &Summary) -> Fallible<Self> {
        let text = summary.total_amount.get();
        let cents = scaled(text, 2)
            .ok_or_else(|| format!("totalAmount {text} is not an amount with two decimals at most"))?;
        Ok(Self { requests: summary.total_requests, cents })
    }

    /// What one processor says.
    fn of_processor(answer: &Answer) -> Fallible<Self> {
        let summary =
            serde_json::from_slice(&answer.body).map_err(|error| format!("{error}: {}", answer.text()))?;
        Self::of(&summary)
    }

    /// What Galo says about both processors, over all time.
    pub(crate) fn of_ledger(api: &Origin) -> Fallible<BTreeMap<String, Self>> {
        let answer = api.get("/payments-summary", TIMEOUT)?.expect(200)?;
        let summaries: BTreeMap<String, Summary> = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("/payments-summary: {error}: {}", answer.text()))?;
        summaries.into_iter().map(|(name, summary)| Ok((name, Self::of(&summary)?))).collect()
    }
}

/// All counters at one moment.
pub(crate) struct Reading {
    health: BTreeMap<String, (u64, u64)>,
    balance: BTreeMap<String, u64>,
    throttled: BTreeMap<String, u64>,
}

impl Reading {
    pub(crate) fn take(target: &up::Options) -> Self {
        let mut health = BTreeMap::new();
        // Processors that are not ours answer 404 and are left out.
        for processor in Processor::both(target) {
            if let Some(statistics) = processor.statistics() {
                let count = |key: &str| statistics.get(key).and_then(Value::as_u64).unwrap_or(0);
                health.insert(processor.name.to_owned(), (count("healthCalls"), count("health429")));
            }
        }
        let csv = target.stats().get("/stats;csv", TIMEOUT).map(|answer| answer.text()).unwrap_or_default();
        let processes =
            up::running(&target.home).ok().flatten().map(|state| state.processes).unwrap_or_default();
        let limited = processes.into_iter().filter(|process| !process.cgroup.is_empty());
        let throttled = limited
            .map(|process| (process.name, Cgroup::at(process.cgroup).usage().throttled_count))
            .collect();
        Self { health, balance: requests_by_gateway(&csv), throttled }
    }
}

/// How many requests HAProxy gave to each gateway.
fn requests_by_gateway(csv: &str) -> BTreeMap<String, u64> {
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name);
    let (Some(proxy), Some(server), Some(total)) = (column("pxname"), column("svname"), column("stot"))
    else {
        return BTreeMap::new();
    };
    let mut requests = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        // The API's backends are `gateways` and `gateways-…`; the metrics' backends have the same servers.
        let of_api = fields.get(proxy).is_some_and(|name| name.starts_with("gateways"));
        if let (true, Some(server), Some(Ok(count))) =
            (of_api, fields.get(server), fields.get(total).map(|text| text.parse::<u64>()))
            && server.starts_with("gateway-")
        {
            *requests.entry((*server).to_owned()).or_insert(0) += count;
        }
    }
    requests
}

/// By how many thousandths of the larger one two gateways' totals differ.
fn imbalance_permille(requests: &BTreeMap<String, u64>) -> Option<u64> {
    let largest = *requests.values().max()?;
    let smallest = *requests.values().min()?;
    (requests.len() == 2 && largest > 0).then(|| (largest - smallest) * 1000 / largest)
}

/// The differences between two readings, and the final comparison.
pub(crate) struct Sides {
    health: BTreeMap<String, (u64, u64)>,
    balance: BTreeMap<String, u64>,
    throttled: BTreeMap<String, u64>,
    /// What ledger and processors disagree about at rest.
    disagreements: Vec<String>,
}

impl Sides {
    pub(crate) fn between(target: &up::Options, before: &Reading) -> Self {
        let disagreements = settle(target);
        let after = Reading::take(target);
        // A counter that went down was reset (by a purge, or a restart): then it counts from zero.
        let since = |now: u64, old: Option<u64>| now.checked_sub(old.unwrap_or(0)).unwrap_or(now);
        let health = after.health.iter().map(|(name, (calls, refused))| {
            let old = before.health.get(name).copied();
            (name.clone(), (since(*calls, old.map(|old| old.0)), since(*refused, old.map(|old| old.1))))
        });
        let subtract = |now: &BTreeMap<String, u64>, old: &BTreeMap<String, u64>| {
            now.iter().map(|(name, count)| (name.clone(), since(*count, old.get(name).copied()))).collect()
        };
        Self {
            health: health.collect(),
            balance: subtract(&after.balance, &before.balance),
            throttled: subtract(&after.throttled, &before.throttled),
            disagreements,
        }
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints = self.disagreements.clone();
        for (name, (_, refused)) in &self.health {
            if *refused > 0 {
                complaints.push(format!("{refused} health checks of {name} answered 429"));
            }
        }
        complaints
    }

    /// Health checks that were answered 429, over both processors.
    pub(crate) fn health_429_count(&self) -> u64 {
        self.health.values().map(|(_, refused)| refused).sum()
    }

    /// What ledger and processors disagree about at rest.
    pub(crate) fn disagreements(&self) -> &[String] {
        &self.disagreements
    }

    pub(crate) fn imbalance_permille(&self) -> Option<u64> {
        imbalance_permille(&self.balance)
    }

    pub(crate) fn has_limits(&self) -> bool {
        !self.throttled.is_empty()
    }

    pub(crate) fn describe(&self) -> String {
        let mut lines = Vec::new();
        for (name, (calls, refused)) in &self.health {
            lines.push(format!("health checks of {name}: {calls}, answered 429: {refused}"));
        }
        if let Some(permille) = imbalance_permille(&self.balance) {
            let counts: Vec<String> =
                self.balance.iter().map(|(name, count)| format!("{name} {}", up::grouped(*count))).collect();
            lines.push(format!(
                "requests: {} (differ by {}.{} %)",
                counts.join(", "),
                permille / 10,
                permille % 10
            ));
        }
        if !self.throttled.is_empty() {
            let counts: Vec<String> =
                self.throttled.iter().map(|(name, count)| format!("{name} {count}")).collect();
            lines.push(format!("periods throttled: {}", counts.join(", ")));
        }
        let comparison =
            if self.disagreements.is_empty() { "equal".to_owned() } else { self.disagreements.join(", ") };
        lines.push(format!("ledger and processors at rest: {comparison}"));
        lines.join("\n")
    }

    pub(crate) fn json(&self) -> Value {
        let health: BTreeMap<_, _> = self
            .health
            .iter()
            .map(|(name, (calls, refused))| (name, json!({ "calls": calls, "answered_429": refused })))
            .collect();
        json!({ "health_checks": health, "requests": self.balance, "periods_throttled": self.throttled, "disagreements": self.disagreements })
    }
}

/// Compares ledger and processors until they agree, or until whatever was still on its way must have arrived.
fn settle(target: &up::Options) -> Vec<String> {
    let deadline = Instant::now() + SETTLE_WAIT;
    loop {
        let found = disagreements(target).unwrap_or_else(|error| vec![error]);
        if found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn disagreements(target: &up::Options) -> Fallible<Vec<String>> {
    let ledger = Totals::of_ledger(&target.api())?;
    let mut found = Vec::new();
    for processor in Processor::both(target) {
        let theirs = processor.totals()?;
        let ours = ledger.get(processor.name).copied().unwrap_or_default();
        if ours != theirs {
            found.push(format!("{}: ledger {ours}, processor {theirs}", processor.name));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_apis_backends_count_for_the_balance() {
        let csv = "# pxname,svname,qcur,stot,x\napi,FRONTEND,0,99,\ngateways,gateway-1,0,1000,\ngateways,gateway-2,0,985,\n\
                   gateways,BACKEND,0,1985,\ngateways-unready,gateway-1,0,1,\nmetrics-gateway-1,gateway-1,0,500,\n";
        let requests = requests_by_gateway(csv);
        assert_eq!(requests, BTreeMap::from([("gateway-1".to_owned(), 1001), ("gateway-2".to_owned(), 985)]));
        assert_eq!(imbalance_permille(&requests), Some(15));
        assert_eq!(imbalance_permille(&BTreeMap::new()), None);
    }
}
