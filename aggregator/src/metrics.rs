//! The aggregator's metrics, read from the coordinator when somebody asks.
//!
//! Conservation (invariant 5) can be checked from outside at any time:
//! `galo_payments_accepted_total = sum(galo_payments_processed_total) +
//! galo_payments_declined_total + galo_payments_open`, and the same in cents.

use galo_engine::coordinator::Coordinator;
use galo_engine::ledger::listing::Which;
use galo_engine::time::UnixMillis;
use galo_shell::metrics::{Exposition, Seconds};
use galo_shell::processors::Names;
use galo_wire::{PROCESSORS_LEN_MAX, Processor};

use crate::journal::writer::Journal;
use crate::operator;
use crate::server::Shared;
use crate::stream::Driver;

/// What does not change after the start.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The processors' names.
    pub names: Names,
    /// How this process does its I/O.
    pub driver: Driver,
    /// From the start of the process to its readiness, µs.
    pub start_us: u64,
}

/// How long ago, by the wall clock; 0 if never.
#[derive(Clone, Copy, Default, Debug)]
pub struct Age {
    ms: u64,
}

impl Metrics {
    /// How long ago the oldest attempt in doubt was made. Looks through all open payments, if any is in doubt.
    pub async fn oldest_in_doubt(&self, shared: &Shared) -> Age {
        if shared.look(|coordinator| coordinator.ledger().conservation().in_doubt_count) == 0 {
            return Age::default();
        }
        let oldest = operator::find(shared, Which::InDoubt, 1).await;
        let at = oldest.first().and_then(|listed| listed.at.time());
        Age { ms: at.map_or(0, |at| shared.now().unix_ms.0.saturating_sub(at.0)) }
    }

    /// The whole page.
    #[must_use]
    pub fn render(
        &self,
        coordinator: &Coordinator,
        oldest_in_doubt: Age,
        now: UnixMillis,
        journal: Option<&Journal>,
    ) -> String {
        let mut page = Exposition::default();
        if let Some(journal) = journal {
            render_journal(&mut page, journal);
        }
        page.allocations();
        page.log_lines_lost();
        let ledger = coordinator.ledger();
        let books = ledger.conservation();
        // Those that are configured, and those that have processed something and are not any more.
        let by_processor = |values: [u64; PROCESSORS_LEN_MAX]| {
            let known = |processor: &Processor| {
                self.names.has(*processor) || books.processed[processor.index()].count > 0
            };
            let value = |processor: Processor| {
                (format!("processor=\"{}\"", self.names.of(processor)), values[processor.index()])
            };
            Processor::ALL.into_iter().filter(known).map(value).collect::<Vec<_>>()
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
        page.counter(
            "galo_payments_declined_total",
            "Payments that ended without being processed since start or purge.",
            books.declined.count,
        );
        page.counter(
            "galo_payments_declined_cents_total",
            "Their sum in cents.",
            books.declined.amount_cents,
        );
        page.counter(
            "galo_payments_known_before_total",
            "Payments whose ids had been forgotten and came back, and which had been processed before.",
            books.known_before.count,
        );
        page.counter(
            "galo_payments_known_before_cents_total",
            "Their sum in cents, as they came back.",
            books.known_before.amount_cents,
        );
        page.gauge("galo_payments_open", "Payments accepted and not ended yet.", books.open.count);
        page.gauge("galo_payments_open_cents", "Their sum in cents.", books.open.amount_cents);
        page.gauge(
            "galo_payments_unowned",
            "Open payments that no gateway has: none is there, or those that are have no room.",
            ledger.unowned_len(),
        );
        page.gauge(
            "galo_payments_in_doubt",
            "Open payments with an attempt whose outcome is unknown; they stay with its processor.",
            books.in_doubt_count,
        );
        page.gauge(
            "galo_payments_in_doubt_oldest_seconds",
            "Since the oldest of their attempts was made; 0 if none is in doubt.",
            Seconds(oldest_in_doubt.ms * 1_000),
        );
        page.gauge(
            "galo_ledger_known_ids",
            "Ids of processed and declined payments remembered.",
            ledger.known_len(),
        );
        page.gauge(
            "galo_ledger_known_ids_max",
            "KNOWN_LEN_MAX: beyond it the id that ended first is forgotten.",
            ledger.known_len_max(),
        );
        let known_ms = ledger.known_since_ms().map_or(0, |since_ms| now.0.saturating_sub(since_ms));
        page.gauge(
            "galo_ledger_known_seconds",
            "Age of the oldest id that is remembered. Once galo_ledger_known_ids has reached its maximum, an id that comes again later than that is accepted as new.",
            Seconds(known_ms.saturating_mul(1_000)),
        );
        page.gauge(
            "galo_ledger_members_bytes",
            "Members of open payments, bytes, each payment's counted with 128 more.",
            ledger.members_bytes(),
        );
        page.gauge("galo_ledger_bucket_bytes", "Memory of the time buckets.", ledger.bucket_bytes());
        let counters = coordinator.counters();
        let (taken, without_room) = coordinator.taken();
        for (name, help, value) in [
            (
                "galo_admission_taken_total",
                "Payments that gateways granted by themselves, taken in from the admission table.",
                taken,
            ),
            (
                "galo_admission_ids_without_room_total",
                "Known ids that the admission table had no room for: they and their neighbours are asked for.",
                without_room,
            ),
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
                "Payments that a processor has otherwise than the ledger: elsewhere, with another amount, since before they were accepted, or although declined; always 0.",
                counters.contradictions + counters.disputed,
            ),
            (
                "galo_payments_past_deadline_total",
                "Payments whose clients' deadlines passed before any processor had them.",
                counters.past_deadline,
            ),
            ("galo_payments_cancelled_total", "Payments that clients cancelled.", counters.cancelled),
            (
                "galo_payments_settled_total",
                "Payments in doubt of which an operator said how they ended.",
                counters.settled,
            ),
            (
                "galo_notices_passed_on_total",
                "Processors' notifications passed on to the gateway that has the payment.",
                counters.notices_passed_on,
            ),
            (
                "galo_notices_ignored_total",
                "Those about no payment that is open with that processor.",
                counters.notices_dropped,
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
    let scrubs = journal.scrubs.get();
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
        (
            "galo_journal_synced_records_total",
            "Of the records written, those that a sync has been done for; a loss of power could take the others.",
            counters.synced_records,
        ),
        ("galo_journal_segments_total", "Segments begun since the start.", counters.segments),
        ("galo_snapshots_total", "Snapshots taken since the start.", snapshots.done),
        (
            "galo_snapshots_failed_total",
            "Snapshots given up; the journal grows until one succeeds.",
            snapshots.failed,
        ),
        ("galo_scrubs_total", "Times that all files at rest were read.", scrubs.done),
        (
            "galo_journal_damaged_files_total",
            "Files that were not as they had been written, found by the start or a scrub; always 0.",
            scrubs.damaged,
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
    if let Some(sound_us) = scrubs.sound_us {
        let age = Seconds(now_us.saturating_sub(sound_us));
        page.gauge(
            "galo_scrub_age_seconds",
            "Since the last scrub that found everything as it was written.",
            age,
        );
    }
}
