//! The aggregator's metrics, read from the coordinator when somebody asks.
//!
//! Conservation (invariant 5) can be checked from outside at any time:
//! `galo_payments_accepted_total = sum(galo_payments_processed_total) + galo_payments_open`, and the same in cents.

use galo_engine::coordinator::Coordinator;
use galo_shell::metrics::{Exposition, Seconds};
use galo_wire::Processor;

use crate::journal::writer::Journal;
use crate::stream::Driver;

/// What does not change after the start.
#[derive(Clone, Copy, Debug)]
pub struct Metrics {
    /// How this process does its I/O.
    pub driver: Driver,
    /// From the start of the process to its readiness, µs.
    pub start_us: u64,
}

impl Metrics {
    /// The whole page.
    #[must_use]
    pub fn render(&self, coordinator: &Coordinator, journal: Option<&Journal>) -> String {
        let mut page = Exposition::default();
        if let Some(journal) = journal {
            render_journal(&mut page, journal);
        }
        page.allocations();
        let ledger = coordinator.ledger();
        let books = ledger.conservation();
        let by_processor = |values: [u64; 2]| {
            Processor::ALL
                .map(|processor| (format!("processor=\"{}\"", processor.name()), values[processor.index()]))
        };
        let driver = format!("driver=\"{}\"", self.driver.name());
        page.family(
            "galo_aggregator_driver_info",
            "gauge",
            "How the aggregator does its I/O.",
            [(driver, 1)],
        );
        page.gauge(
            "galo_aggregator_start_seconds",
            "From the process's start to ready.",
            Seconds(self.start_us),
        );
        page.gauge("galo_aggregator_sessions", "Gateway threads connected.", coordinator.session_count());
        page.counter(
            "galo_payments_accepted_total",
            "Payments accepted since start or purge.",
            books.accepted.count,
        );
        page.counter(
            "galo_payments_accepted_cents_total",
            "Their sum in cents.",
            books.accepted.amount_cents,
        );
        let processed = books.processed;
        page.family(
            "galo_payments_processed_total",
            "counter",
            "Payments processed since start or purge.",
            by_processor(processed.map(|tally| tally.count)),
        );
        page.family(
            "galo_payments_processed_cents_total",
            "counter",
            "Their sum in cents.",
            by_processor(processed.map(|tally| tally.amount_cents)),
        );
        page.gauge("galo_payments_open", "Payments accepted and not processed yet.", books.open.count);
        page.gauge("galo_payments_open_cents", "Their sum in cents.", books.open.amount_cents);
        page.gauge(
            "galo_payments_in_doubt",
            "Open payments with an attempt whose outcome is unknown; they stay with its processor.",
            books.in_doubt_count,
        );
        page.gauge("galo_ledger_known_ids", "Processed ids remembered.", ledger.known_len());
        page.gauge("galo_ledger_bucket_bytes", "Memory of the time buckets.", ledger.bucket_bytes());
        let counters = coordinator.counters();
        for (name, help, value) in [
            (
                "galo_accepts_replayed_total",
                "Accepts of an id that was known, with the same amount.",
                counters.replayed,
            ),
            (
                "galo_accepts_conflicting_total",
                "Accepts of an id that was known, with another amount.",
                counters.conflicts,
            ),
            (
                "galo_accepts_full_total",
                "Accepts refused because too many payments were open.",
                counters.full,
            ),
            (
                "galo_payments_handed_over_total",
                "Open payments given to another gateway.",
                counters.handed_over,
            ),
            (
                "galo_payments_claimed_total",
                "Open payments claimed by a gateway that came back.",
                counters.claimed,
            ),
            (
                "galo_payments_withdrawn_total",
                "Intents and claims refused: the payment was another's.",
                counters.withdrawn,
            ),
            (
                "galo_completions_stale_total",
                "Completions of payments not open (any more).",
                counters.stale_completions,
            ),
            (
                "galo_contradictions_total",
                "Payments processed elsewhere than recorded; always 0.",
                counters.contradictions,
            ),
            (
                "galo_unconfirmed_summaries_total",
                "Summaries made although a gateway had not said within 200 ms whether it knew of more.",
                counters.unconfirmed_summaries,
            ),
        ] {
            page.counter(name, help, value);
        }
        page.family(
            "galo_health_leases_total",
            "counter",
            "Health checks of a processor given out.",
            by_processor(counters.leases),
        );
        page.finish()
    }
}

fn render_journal(page: &mut Exposition, journal: &Journal) {
    let (counters, snapshots, now_us) = (journal.counters(), journal.snapshots.get(), journal.now_us());
    let (records, replay_us) = journal.replayed;
    let sync = format!("sync=\"{}\"", journal.config.sync.name());
    page.family(
        "galo_journal_sync_info",
        "gauge",
        "When what is written is synced to the medium.",
        [(sync, 1)],
    );
    for (name, help, value) in [
        ("galo_journal_records_total", "Records written.", counters.records),
        ("galo_journal_written_bytes_total", "Their bytes.", counters.bytes),
        ("galo_journal_writes_total", "Writes that they took.", counters.writes),
        ("galo_journal_syncs_total", "Syncs to the medium.", counters.syncs),
        ("galo_journal_segments_total", "Segments begun since the start.", counters.segments),
        ("galo_snapshots_total", "Snapshots taken since the start.", snapshots.done),
        (
            "galo_snapshots_failed_total",
            "Snapshots given up; the journal grows until one succeeds.",
            snapshots.failed,
        ),
    ] {
        page.counter(name, help, value);
    }
    for (name, help, value) in [
        ("galo_journal_bytes", "What a start would replay after the snapshot.", journal.size()),
        ("galo_journal_replayed_records", "What the last start read, snapshot included.", records),
        ("galo_snapshot_bytes", "The last snapshot's size.", snapshots.size),
    ] {
        page.gauge(name, help, value);
    }
    for (name, help, value_us) in [
        ("galo_journal_replay_seconds", "How long that took.", replay_us),
        ("galo_snapshot_seconds", "How long the last snapshot took.", snapshots.duration_us),
    ] {
        page.gauge(name, help, Seconds(value_us));
    }
    // Absent until there is one: an age of what never was would be a lie.
    if counters.syncs > 0 {
        let age = Seconds(now_us.saturating_sub(counters.synced_us));
        page.gauge("galo_journal_sync_age_seconds", "Since the last sync.", age);
    }
    if snapshots.done > 0 {
        let age = Seconds(now_us.saturating_sub(snapshots.done_us));
        page.gauge("galo_snapshot_age_seconds", "Since the last snapshot of this process.", age);
    }
}
