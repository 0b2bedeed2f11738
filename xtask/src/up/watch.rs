//! The watcher: tells when Galo answers for the first time, then renews the status line from the metrics.
//!
//! A thread of its own, since reading metrics may block for as long as its timeout and restarts must not wait for it. It goes through the
//! stats port as a person would; what it cannot read it shows as a dash, and never ends anything.

#![allow(clippy::float_arithmetic, reason = "latencies and rates for display, no money")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::console::Console;
use super::{Options, answers, service};
use crate::http::Origin;
use crate::metrics::Samples;

const INTERVAL: Duration = Duration::from_secs(1);
/// A log file needs no second-by-second account.
const INTERVAL_IN_LOG: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(1);

/// Runs for the rest of the process's life.
pub(crate) fn watch(options: &Options, console: &Arc<Console>, started: Instant) {
    while !answers(options) {
        std::thread::sleep(Duration::from_millis(10));
    }
    console.line(&format!("ready after {} ms\n{}", started.elapsed().as_millis(), options.greeting()));
    let interval = if console.is_terminal() { INTERVAL } else { INTERVAL_IN_LOG };
    let mut earlier = Reading::take(options);
    loop {
        std::thread::sleep(interval);
        let now = Reading::take(options);
        console.status(&now.describe(&earlier));
        earlier = now;
    }
}

/// The number of open payments, straight from the aggregator's socket: also when HAProxy has closed its ports already.
pub(crate) fn open_count(options: &Options) -> Option<u64> {
    let origin = Origin::Unix(options.home().socket("aggregator-http"));
    let answer = origin.get("/metrics", TIMEOUT).ok()?.expect(200).ok()?;
    let mut samples = Samples::default();
    samples.read(&answer.text());
    samples.count("galo_payments_open", "")
}

/// All metrics at one moment.
struct Reading {
    at: Instant,
    gateways: Samples,
    aggregator: Samples,
}

impl Reading {
    fn take(options: &Options) -> Self {
        let read = |samples: &mut Samples, name: &str| {
            let answer = options.stats().get(&format!("/metrics/{name}"), TIMEOUT);
            if let Ok(answer) = answer.and_then(|answer| answer.expect(200)) {
                samples.read(&answer.text());
            }
        };
        let mut reading =
            Self { at: Instant::now(), gateways: Samples::default(), aggregator: Samples::default() };
        for gateway in service::GATEWAYS {
            read(&mut reading.gateways, gateway);
        }
        read(&mut reading.aggregator, service::AGGREGATOR);
        reading
    }

    /// The ledger's own count; the gateways' restart at zero with them.
    fn count(&self, name: &str, label: &str) -> Option<u64> {
        self.aggregator.count(name, label).or_else(|| self.gateways.count(name, label))
    }

    fn describe(&self, earlier: &Self) -> String {
        let show = |count: Option<u64>| count.map_or_else(|| "–".to_owned(), grouped);
        let accepted = self.count("galo_payments_accepted_total", "");
        let rate = accepted.zip(earlier.count("galo_payments_accepted_total", "")).map(|(now, before)| {
            let millis = self.at.duration_since(earlier.at).as_millis().max(1);
            u128::from(now.saturating_sub(before)) * 1000 / millis
        });
        // Of payments: health checks come all the time, and cost nothing.
        let (name, of_payments) = ("galo_http_request_duration_seconds", "route=\"/payments\"");
        let p99 = self.gateways.quantile_since(&earlier.gateways, name, of_payments, 0.99);
        format!(
            "accepted {} ({}/s) · default {} · fallback {} · open {} · p99 {}",
            show(accepted),
            rate.unwrap_or(0),
            show(self.count("galo_payments_processed_total", "processor=\"default\"")),
            show(self.count("galo_payments_processed_total", "processor=\"fallback\"")),
            show(self.count("galo_payments_open", "")),
            p99.map_or_else(|| "–".to_owned(), |seconds| format!("{:.2} ms", seconds * 1000.0)),
        )
    }
}

/// 1234567 as 1,234,567.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant, accepted: u64, buckets: [u64; 3]) -> Reading {
        let mut aggregator = Samples::default();
        aggregator.read(&format!(
            "galo_payments_accepted_total {accepted}\ngalo_payments_processed_total{{processor=\"default\"}} 7\ngalo_payments_open 3\n"
        ));
        let mut gateways = Samples::default();
        for (bound, count) in ["0.001", "0.002", "+Inf"].iter().zip(buckets) {
            gateways.read(&format!(
                "galo_http_request_duration_seconds_bucket{{route=\"/payments\",le=\"{bound}\"}} {count}\n"
            ));
        }
        Reading { at, gateways, aggregator }
    }

    #[test]
    fn the_status_line_shows_rates_and_leaves_the_unknown_open() {
        let start = Instant::now();
        let earlier = reading(start, 1_000, [0, 0, 0]);
        let now = reading(start + Duration::from_secs(2), 1_234_567, [0, 100, 100]);
        assert_eq!(
            now.describe(&earlier),
            "accepted 1,234,567 (616783/s) · default 7 · fallback – · open 3 · p99 1.99 ms"
        );
        assert_eq!(now.describe(&now).split(" · ").last(), Some("p99 –"));
    }
}
