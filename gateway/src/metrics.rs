//! The gateway's metrics: each thread's snapshot, and the sum of them as Prometheus text.
//!
//! A thread counts for itself, without atomics or locks. Where there is more than one, each shows its snapshot on the
//! [`Board`] every few milliseconds, so that whichever thread is asked can answer for all.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use galo_engine::breaker::BreakerState;
use galo_engine::dispatcher::{DispatcherCounters, DispatcherGauges};
use galo_engine::router::Reason;
use galo_engine::verdict::Verdict;
use galo_engine::{PROCESSORS_LEN_MAX, Processor};
use galo_shell::metrics::{Durations, Exposition, Seconds};
use galo_shell::processors::Names;

use crate::http::service::{Endpoint, NotificationAnswer};
use crate::processor::{ClientStats, TlsProblem};

/// Upper bounds of the latency histogram, µs: a step of about 1.3, so that a percentile read from it is off by 15 % at
/// most.
pub const LATENCY_BOUNDS_US: [u64; 40] = [
    20, 26, 34, 44, 57, 75, 97, 126, 164, 213, 277, 360, 468, 609, 791, 1_000, 1_300, 1_700, 2_200, 2_900,
    3_800, 4_900, 6_400, 8_300, 11_000, 14_000, 18_000, 24_000, 31_000, 40_000, 52_000, 68_000, 88_000,
    115_000, 150_000, 250_000, 500_000, 1_000_000, 2_000_000, 5_000_000,
];

/// Requests by what they were for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests([Latencies; Endpoint::COUNT]);

impl Requests {
    /// One answer.
    pub fn record(&mut self, endpoint: Endpoint, status: u16, elapsed_us: u64) {
        self.0[endpoint as usize].record(status, elapsed_us);
    }

    /// Each with its route.
    fn by_route(&self) -> impl Iterator<Item = (&'static str, &Latencies)> {
        Endpoint::ROUTES.into_iter().zip(&self.0)
    }
}

/// Requests by status class and by how long their answers took.
#[derive(Clone, Copy, Debug)]
struct Latencies {
    counts: [u64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: u64,
    /// By [`CLASSES`].
    classes: [u64; CLASSES.len()],
}

/// Of statuses; 1xx and 3xx, which nothing answers here, are `other`.
const CLASSES: [&str; 4] = ["2xx", "4xx", "5xx", "other"];

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: [0; LATENCY_BOUNDS_US.len() + 1], sum_us: 0, classes: [0; CLASSES.len()] }
    }
}

impl Latencies {
    fn record(&mut self, status: u16, elapsed_us: u64) {
        self.counts[LATENCY_BOUNDS_US.partition_point(|bound| *bound < elapsed_us)] += 1;
        self.sum_us += elapsed_us;
        self.classes[match status / 100 {
            2 => 0,
            4 => 1,
            5 => 2,
            _ => 3,
        }] += 1;
    }

    fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        for (sum, count) in self.classes.iter_mut().zip(other.classes) {
            *sum += count;
        }
        self.sum_us += other.sum_us;
    }
}

/// How one thread does.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// The aggregator is connected.
    pub connected: bool,
    /// The dispatcher's.
    pub counters: DispatcherCounters,
    /// The dispatcher's.
    pub gauges: DispatcherGauges,
    /// The processors' clients', by `Processor::index`.
    pub clients: [ClientStats; PROCESSORS_LEN_MAX],
    /// The HTTP front's.
    pub requests: Requests,
    /// Processors' notifications, by what became of them.
    pub notifications: [u64; NotificationAnswer::COUNT],
}

/// What does not change after the start.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The processors' names.
    pub names: Arc<Names>,
    /// `GATEWAY_INSTANCE`.
    pub instance: u8,
    /// The driver's name.
    pub driver: &'static str,
    /// From the process's start to its readiness, µs.
    pub start_us: u64,
}

/// Where threads show each other how they do.
pub struct Board {
    identity: Identity,
    thread: usize,
    others: Arc<[Mutex<Option<Snapshot>>]>,
}

impl Board {
    /// The boards of `count` threads, in their order.
    #[must_use]
    pub fn for_threads(identity: Identity, count: usize) -> Vec<BoardSeed> {
        let others: Arc<[_]> = (0..count).map(|_| Mutex::new(None)).collect();
        let seed = |thread| BoardSeed { identity: identity.clone(), thread, others: Arc::clone(&others) };
        (0..count).map(seed).collect()
    }

    /// Whether anybody else looks at it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.others.len() > 1
    }

    /// Shows the others how this thread does.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.others[self.thread].lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
    }

    /// The whole page, with `own` as this thread's part.
    #[must_use]
    pub fn render(&self, own: Snapshot) -> String {
        let others = self.others.iter().enumerate().filter(|(thread, _)| *thread != self.thread);
        let mut all = vec![own];
        all.extend(others.filter_map(|(_, other)| *other.lock().unwrap_or_else(PoisonError::into_inner)));
        render(&self.identity, &all)
    }
}

/// A board on its way to its thread.
pub struct BoardSeed {
    identity: Identity,
    thread: usize,
    others: Arc<[Mutex<Option<Snapshot>>]>,
}

impl BoardSeed {
    /// The board, on its thread.
    #[must_use]
    pub fn plant(self) -> Rc<Board> {
        Rc::new(Board { identity: self.identity, thread: self.thread, others: self.others })
    }
}

fn render(identity: &Identity, threads: &[Snapshot]) -> String {
    // Both gateways' series in one database: what scrapes them knows HAProxy's address, and not who answered.
    let mut page = Exposition::labelled(format!("gateway=\"{}\"", identity.instance));
    page.allocations();
    page.log_lines_lost();
    let sum = |read: &dyn Fn(&Snapshot) -> u64| threads.iter().map(read).sum::<u64>();
    let by_processor = |read: &dyn Fn(&Snapshot, usize) -> u64| {
        let of_one = |(processor, name): (Processor, &str)| {
            let value: u64 = threads.iter().map(|thread| read(thread, processor.index())).sum();
            (format!("processor=\"{name}\""), value)
        };
        identity.names.iter().map(of_one).collect::<Vec<_>>()
    };
    let info = format!("driver=\"{}\"", identity.driver);
    page.family("galo_gateway_driver_info", "gauge", "How this gateway does its I/O.", [(info, 1)]);
    page.gauge(
        "galo_gateway_start_seconds",
        "From the process's start to listening.",
        Seconds(identity.start_us),
    );
    page.gauge("galo_gateway_threads", "Threads that serve.", threads.len());
    page.gauge(
        "galo_gateway_links",
        "Threads whose link to the aggregator stands.",
        sum(&|thread| u64::from(thread.connected)),
    );

    let mut requests = Requests::default();
    for thread in threads {
        requests.0.iter_mut().zip(&thread.requests.0).for_each(|(sum, of_one)| sum.add(of_one));
    }
    page.family(
        "galo_http_requests_total",
        "counter",
        "Requests answered.",
        requests.by_route().flat_map(|(route, latencies)| {
            let labels = move |class| format!("route=\"{route}\",status=\"{class}\"");
            CLASSES.into_iter().zip(latencies.classes).map(move |(class, count)| (labels(class), count))
        }),
    );
    // Forty lines for each route that was asked for, and not for those that never are.
    page.histograms_seconds(
        "galo_http_request_duration_seconds",
        "From a request's last byte to its answer's last byte handed to the kernel.",
        &LATENCY_BOUNDS_US,
        requests.by_route().filter(|(_, latencies)| latencies.classes != [0; CLASSES.len()]).map(
            |(route, Latencies { counts, sum_us, .. })| {
                (format!("route=\"{route}\""), Durations { counts, sum_us: *sum_us })
            },
        ),
    );

    let answers = ["granted", "replayed", "conflict", "full", "unreachable"];
    page.family(
        "galo_gateway_posts_total",
        "counter",
        "POST /payments by what became of them.",
        answers.iter().enumerate().map(|(index, answer)| {
            (format!("answer=\"{answer}\""), sum(&|thread| thread.counters.answers[index]))
        }),
    );
    page.family(
        "galo_notifications_total",
        "counter",
        "Processors' notifications by what became of them.",
        NotificationAnswer::NAMES.iter().enumerate().map(|(index, answer)| {
            (format!("answer=\"{answer}\""), sum(&|thread| thread.notifications[index]))
        }),
    );
    page.family(
        "galo_routing_decisions_total",
        "counter",
        "Routing decisions by their reason; a payment that waits is decided about again and again.",
        Reason::ALL.map(|reason| {
            (
                format!("reason=\"{}\"", reason.name()),
                sum(&|thread| thread.counters.decisions[reason as usize]),
            )
        }),
    );
    page.family(
        "galo_attempts_total",
        "counter",
        "Attempts sent to a processor.",
        by_processor(&|thread, index| thread.counters.attempts[index]),
    );
    page.family(
        "galo_attempt_verdicts_total",
        "counter",
        "Attempts by what their end said.",
        identity.names.iter().flat_map(|(processor, name)| {
            Verdict::ALL.map(move |verdict| {
                let labels = format!("processor=\"{name}\",verdict=\"{}\"", verdict.name());
                let verdicts = threads
                    .iter()
                    .map(|thread| thread.counters.verdicts[processor.index()][verdict as usize]);
                (labels, verdicts.sum::<u64>())
            })
        }),
    );
    for (name, help, values) in [
        (
            "galo_gateway_unproven_declines_total",
            "Declines of a payment again by a processor that took no other in between: it, or its configuration here, is wrong.",
            by_processor(&|thread, index| thread.counters.unproven_declines[index]),
        ),
        (
            "galo_gateway_attempts_given_up_total",
            "Attempts given up and settled otherwise, since nothing was heard on connections that were open when others were answered.",
            by_processor(&|thread, index| thread.counters.given_up[index]),
        ),
        (
            "galo_gateway_attempts_hung_up_total",
            "Attempts repeated at once, since the processor closed a kept connection instead of an answer.",
            by_processor(&|thread, index| thread.counters.hung_up[index]),
        ),
        (
            "galo_gateway_rate_held_total",
            "Decisions to wait for the processor, or to pay more elsewhere, because of limits.per_second alone.",
            by_processor(&|thread, index| thread.counters.rate_held[index]),
        ),
        (
            "galo_gateway_contradictions_total",
            "Payments that the processor has with another amount; an operator must settle them.",
            by_processor(&|thread, index| thread.counters.contradictions[index]),
        ),
    ] {
        page.family(name, "counter", help, values);
    }
    for (name, help, value) in [
        (
            "galo_verifications_total",
            "Payments looked up at a processor.",
            sum(&|thread| thread.counters.verifications),
        ),
        (
            "galo_notices_total",
            "Notifications about payments of this gateway's, whichever gateway was told.",
            sum(&|thread| thread.counters.notices),
        ),
        (
            "galo_notices_dropped_total",
            "Those of them that came when too many were kept.",
            sum(&|thread| thread.counters.notices_dropped),
        ),
        (
            "galo_lookups_hastened_total",
            "Look-ups that notifications brought forward.",
            sum(&|thread| thread.counters.hastened),
        ),
        (
            "galo_gateway_payments_deferred_total",
            "Payments put off because processors refuse them while they take others.",
            sum(&|thread| thread.counters.deferred),
        ),
        (
            "galo_gateway_payments_declined_total",
            "Payments that ended declined.",
            sum(&|thread| thread.counters.declined),
        ),
        (
            "galo_gateway_payments_admitted_total",
            "Payments that this gateway granted by itself, in the admission table.",
            sum(&|thread| thread.counters.admitted),
        ),
        (
            "galo_gateway_payments_assigned_total",
            "Payments taken over from other gateways.",
            sum(&|thread| thread.counters.assigned),
        ),
        (
            "galo_gateway_payments_withdrawn_total",
            "Payments that turned out to be another gateway's.",
            sum(&|thread| thread.counters.withdrawn),
        ),
        (
            "galo_gateway_stale_records_total",
            "Records about payments that are not here.",
            sum(&|thread| thread.counters.stale_records),
        ),
    ] {
        page.counter(name, help, value);
    }

    for (name, help, value) in [
        ("galo_gateway_payments_held", "Payments in this gateway's hands.", sum(&|t| t.gauges.held as u64)),
        (
            "galo_gateway_payments_waiting",
            "Payments waiting for a processor.",
            sum(&|t| t.gauges.waiting as u64),
        ),
        ("galo_gateway_payments_deferred", "Payments put off.", sum(&|t| t.gauges.deferred as u64)),
        (
            "galo_gateway_completions_unacknowledged",
            "Completions that the aggregator has not acknowledged.",
            sum(&|t| t.gauges.unacknowledged as u64),
        ),
    ] {
        page.gauge(name, help, value);
    }
    for (name, help, values) in [
        (
            "galo_gateway_payments_doubtful",
            "Payments in doubt that wait for another try.",
            by_processor(&|thread, index| thread.gauges.doubtful[index] as u64),
        ),
        (
            "galo_processor_in_flight",
            "Attempts on their way.",
            by_processor(&|thread, index| u64::from(thread.gauges.in_flight[index])),
        ),
        (
            "galo_processor_hanging",
            "Those of them that are later than what its answers take.",
            by_processor(&|thread, index| u64::from(thread.gauges.hanging[index])),
        ),
        (
            "galo_processor_concurrency_limit",
            "Attempts that may be on their way at once.",
            by_processor(&|thread, index| u64::from(thread.gauges.limit[index])),
        ),
        (
            "galo_processor_breaker_open",
            "Threads whose circuit breaker is not closed.",
            by_processor(&|thread, index| u64::from(thread.gauges.breaker[index] != BreakerState::Closed)),
        ),
        (
            "galo_processor_connections",
            "Connections to the processor.",
            by_processor(&|thread, index| thread.clients[index].connections_open as u64),
        ),
    ] {
        page.family(name, "gauge", help, values);
    }
    let longest = |read: &dyn Fn(&Snapshot, usize) -> u64| {
        let of_one = |(processor, name): (Processor, &str)| {
            let longest = threads.iter().map(|thread| read(thread, processor.index())).max();
            (format!("processor=\"{name}\""), Seconds(longest.unwrap_or(0)))
        };
        identity.names.iter().map(of_one).collect::<Vec<_>>()
    };
    page.family(
        "galo_processor_expected_seconds",
        "gauge",
        "How long an attempt sent now is expected to take.",
        longest(&|thread, index| thread.gauges.expected_us[index]),
    );
    page.family(
        "galo_processor_rests_seconds",
        "gauge",
        "For how long it asks to be left alone yet.",
        longest(&|thread, index| thread.gauges.rests_us[index]),
    );
    for (name, help, values) in [
        (
            "galo_processor_connects_total",
            "Connections opened.",
            by_processor(&|thread, index| thread.clients[index].connects_total),
        ),
        (
            "galo_processor_connect_failures_total",
            "Connections that could not be opened.",
            by_processor(&|thread, index| thread.clients[index].connect_failures_total),
        ),
        (
            "galo_processor_tls_handshakes_total",
            "TLS handshakes that succeeded.",
            by_processor(&|thread, index| thread.clients[index].tls_handshakes_total),
        ),
        (
            "galo_processor_tls_resumed_total",
            "TLS handshakes that took up an earlier session.",
            by_processor(&|thread, index| thread.clients[index].tls_resumed_total),
        ),
    ] {
        page.family(name, "counter", help, values);
    }
    page.family(
        "galo_processor_tls_errors_total",
        "counter",
        "What went wrong with TLS, by its kind.",
        identity.names.iter().flat_map(|(processor, name)| {
            TlsProblem::ALL.map(|problem| {
                let labels = format!("processor=\"{name}\",kind=\"{}\"", problem.name());
                let errors = |thread: &Snapshot| thread.clients[processor.index()].tls_errors_total;
                (labels, threads.iter().map(|thread| errors(thread)[problem as usize]).sum::<u64>())
            })
        }),
    );
    page.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(requests: &[(Endpoint, u16, u64)]) -> Snapshot {
        let mut snapshot = Snapshot {
            connected: true,
            counters: DispatcherCounters::default(),
            gauges: DispatcherGauges::default(),
            clients: [ClientStats::default(); PROCESSORS_LEN_MAX],
            requests: Requests::default(),
            notifications: [0; NotificationAnswer::COUNT],
        };
        for (endpoint, status, elapsed_us) in requests {
            snapshot.requests.record(*endpoint, *status, *elapsed_us);
        }
        snapshot
    }

    fn page(instance: u8, threads: &[Snapshot]) -> String {
        let names = Arc::new(Names::pair());
        render(&Identity { names, instance, driver: "epoll", start_us: 1 }, threads)
    }

    /// Name and labels of every sample.
    fn series(page: &str) -> Vec<&str> {
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.rsplit_once(' ').unwrap().0).collect()
    }

    /// Prometheus gives `instance` and `job` to what it scrapes, and renames ours where it finds them.
    #[test]
    fn series_of_two_gateways_stay_apart_in_one_job() {
        let pages = [1, 2].map(|instance| page(instance, &[snapshot(&[(Endpoint::Ready, 200, 9)])]));
        let mut all: Vec<_> = pages.iter().flat_map(|page| series(page)).collect();
        let count = all.len();
        assert!(
            all.iter().all(|series| series.contains("gateway=\"1\"") != series.contains("gateway=\"2\""))
        );
        for label in ["instance=", "job="] {
            assert!(all.iter().all(|series| !series.contains(&format!("{{{label}"))), "{label}");
            assert!(all.iter().all(|series| !series.contains(&format!(",{label}"))), "{label}");
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "each series once");
    }

    #[test]
    fn every_request_says_its_route_and_payments_are_counted_apart() {
        let first = snapshot(&[
            (Endpoint::Payments, 202, 30),
            (Endpoint::Ready, 200, 5),
            (Endpoint::Health, 200, 5),
            (Endpoint::Metrics, 200, 2_000),
        ]);
        let page =
            page(1, &[first, snapshot(&[(Endpoint::Payments, 503, 1_000_000), (Endpoint::Other, 400, 0)])]);
        let requests = |of: &&&str| of.starts_with("galo_http_request");
        let all = series(&page);
        assert!(all.iter().filter(requests).all(|series| series.contains("{route=\"")), "{all:?}");
        for line in [
            "galo_http_requests_total{route=\"/payments\",status=\"2xx\",gateway=\"1\"} 1",
            "galo_http_requests_total{route=\"/payments\",status=\"5xx\",gateway=\"1\"} 1",
            "galo_http_requests_total{route=\"/ready\",status=\"2xx\",gateway=\"1\"} 1",
            "galo_http_requests_total{route=\"other\",status=\"4xx\",gateway=\"1\"} 1",
            "galo_http_request_duration_seconds_count{route=\"/payments\",gateway=\"1\"} 2",
            "galo_http_request_duration_seconds_sum{route=\"/payments\",gateway=\"1\"} 1.000030",
            "galo_http_request_duration_seconds_bucket{route=\"/payments\",le=\"0.000034\",gateway=\"1\"} 1",
            "galo_http_request_duration_seconds_count{route=\"/metrics\",gateway=\"1\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "no {line} in {page}");
        }
        assert!(!page.contains("seconds_count{route=\"/purge-payments\""), "nobody asked for it");
    }
}
