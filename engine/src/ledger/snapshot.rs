//! The ledger's whole state, written down in slices while entries go on being applied, and read back.
//!
//! What is written is the state at one moment, that of [`Ledger::begin_export`]: the snapshot and the entries after that
//! moment make the same ledger as all entries did. Nothing is copied beforehand, and no slice is longer than its rows:
//!
//! - **Open payments** come first, table by table. One that changes before its turn is put aside as it was; one that is
//!   accepted meanwhile is left out.
//! - **Time buckets** do not change while they are written: what is processed meanwhile waits in a list, which summaries
//!   add, and which the buckets take in afterwards.
//! - **Remembered ids** never change. They are written in the order in which they are forgotten, up to where the queue
//!   ended at that moment; one that is forgotten before its turn is put aside. Were some left out, a replay would forget
//!   those before them later than the process did, and might find one of them accepted again.
//!
//! The books' totals are not written: they follow from open payments and buckets.
//!
//! Rejected: `fork`, and a child that writes its copy of the memory. It costs a page for each table entry touched
//! meanwhile, under a memory limit that a full ledger nearly fills; it stalls the parent while page tables are copied;
//! the child takes its CPU from the same quota; and no simulator could run it.
//!
//! Must never: let a summary miss what waits; write a state that never was. A purge ends an export.

use std::collections::{HashSet, VecDeque};
use std::ops::{ControlFlow, Range};

use galo_wire::journal::{Fact, Moment, Record};
use galo_wire::{CorrelationId, Processor, Reason};

use super::id_hash::IdHash;
use super::{Ledger, Misfit, OpenPayment, ProcessedPayment, SHARD_COUNT, Sharded, Tally, known};
use crate::buckets::BucketRow;
use crate::time::UnixMillis;

/// Payments that wait for the buckets, 24 bytes each; beyond it the buckets are written without a pause. At 1,000
/// payments a second, a minute's.
const WAITING_LEN_MAX: usize = 1 << 16;

const KNOWN_TWICE: Misfit = Misfit("an id is remembered once");

/// Where an export stands.
pub(super) struct Export {
    phase: Phase,
    /// Ids whose open payment in the tables is not the one to be written.
    skip: HashSet<CorrelationId, IdHash>,
    /// Open payments as they were, put aside before they changed.
    aside: Vec<(CorrelationId, OpenPayment)>,
    waiting: Vec<(Processor, UnixMillis, u64)>,
    /// The places in the queue that are still to be written, counted from when it was empty.
    known: Range<u64>,
    /// The first of them, which were forgotten meanwhile.
    forgotten: VecDeque<known::Row>,
    rows: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    Open { shard: usize },
    Buckets { processor: Processor, from_ms: u64 },
    Known,
    End,
}

/// Milliseconds of one second that share a record.
#[derive(Default)]
struct Gathered {
    second_ms: u64,
    moments: [Moment; 3],
    len: usize,
}

impl Gathered {
    /// Takes in one bucket, and gives out what does not fit together with it.
    fn take(&mut self, row: BucketRow, processor: Processor, mut push: impl FnMut(Fact)) {
        let BucketRow { start_ms, last_ms, count, amount_cents, level } = row;
        let second_ms = start_ms - start_ms % 1_000;
        let offset_ms = u16::try_from(start_ms - second_ms).expect("below 1,000");
        let (Ok(small_count), Ok(small_amount), 0) = (count.try_into(), amount_cents.try_into(), level)
        else {
            self.let_go(processor, &mut push);
            push(Fact::Bucket { start_ms, last_ms, count, amount_cents, processor, level });
            return;
        };
        if self.second_ms != second_ms || self.len == self.moments.len() {
            self.let_go(processor, push);
            self.second_ms = second_ms;
        }
        self.moments[self.len] = Moment { offset_ms, count: small_count, amount_cents: small_amount };
        self.len += 1;
    }

    fn let_go(&mut self, processor: Processor, mut push: impl FnMut(Fact)) {
        if self.len > 0 {
            push(Fact::Moments { second_ms: self.second_ms, processor, moments: self.moments });
            *self = Self::default();
        }
    }
}

/// How far an export has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// There is more.
    More,
    /// That was the last slice.
    Done,
    /// There is nothing to go on with: everything was purged.
    Gone,
}

impl Export {
    pub(super) fn add_waiting(&self, from: UnixMillis, to: UnixMillis, totals: &mut [Tally; 2]) {
        for (processor, at, amount_cents) in &self.waiting {
            if (from..=to).contains(at) {
                totals[processor.index()].add(*amount_cents);
            }
        }
    }

    /// Whether the table that holds this id is written already.
    fn is_past(&self, id: CorrelationId) -> bool {
        match self.phase {
            Phase::Begin => false,
            Phase::Open { shard } => Sharded::<OpenPayment>::shard_of(id) < shard,
            Phase::Buckets { .. } | Phase::Known | Phase::End => true,
        }
    }

    fn push(&mut self, fact: Fact, out: &mut Vec<u8>) {
        self.rows += 1;
        out.extend_from_slice(&Record { sequence: self.rows, fact }.encode());
    }

    fn push_known(&mut self, row: known::Row, out: &mut Vec<u8>) {
        let known::Row { id: correlation_id, payment } = row;
        let (requested_at_ms, processor) = (payment.requested_at_ms(), payment.processor());
        let amount_cents = payment.amount_cents;
        self.push(Fact::Remembered { correlation_id, amount_cents, requested_at_ms, processor }, out);
    }

    fn push_open(&mut self, correlation_id: CorrelationId, payment: OpenPayment, out: &mut Vec<u8>) {
        let OpenPayment { amount_cents, requested_at_ms: decided_at_ms, stage, in_doubt, owner: _ } = payment;
        let reason = Reason::Unstated;
        self.push(
            Fact::Accepted { correlation_id, amount_cents, decided_at_ms, stage, in_doubt, reason },
            out,
        );
    }
}

impl Ledger {
    /// Takes this moment as the one whose state [`Self::export`] writes.
    ///
    /// # Panics
    /// If an export is under way.
    pub fn begin_export(&mut self) {
        assert!(self.export.is_none(), "one export at a time");
        self.export = Some(Export {
            phase: Phase::Begin,
            skip: HashSet::with_hasher(IdHash::new(self.config.hash_seed)),
            aside: Vec::new(),
            waiting: Vec::new(),
            known: self.processed.places(),
            forgotten: VecDeque::new(),
            rows: 0,
        });
    }

    /// Appends about `rows_max` further records to `out`; a table of open payments is written whole.
    pub fn export(&mut self, rows_max: usize, out: &mut Vec<u8>) -> Progress {
        let Some(mut export) = self.export.take() else { return Progress::Gone };
        let rows_end = export.rows + rows_max as u64;
        while export.rows < rows_end && export.phase != Phase::End {
            let rows_left = rows_end - export.rows;
            export.phase = self.step(&mut export, rows_left, out);
        }
        if export.phase == Phase::End {
            export.push(Fact::End, out);
            return Progress::Done;
        }
        self.export = Some(export);
        Progress::More
    }

    /// The bytes of a snapshot that began now, at most.
    #[must_use]
    pub fn export_size_max(&self) -> u64 {
        let rows = self.open.len + self.processed.len() + SHARD_COUNT;
        // A bucket takes at least as much memory as its share of a record: 16 bytes where three share one, and a lonely one has
        // a second to itself.
        (rows * galo_wire::journal::BLOCK_SIZE + self.bucket_bytes()) as u64
    }

    /// Forgets an export that cannot be finished.
    pub fn abandon_export(&mut self) {
        if let Some(export) = self.export.take() {
            self.catch_up(export.waiting);
        }
    }

    fn step(&mut self, export: &mut Export, rows_left: u64, out: &mut Vec<u8>) -> Phase {
        match export.phase {
            Phase::Begin => {
                let open_len = self.open.len as u64;
                let known_len = export.known.end - export.known.start;
                export.push(Fact::Begin { open_len, known_len, purged: self.purged }, out);
                Phase::Open { shard: 0 }
            }
            Phase::Open { shard: SHARD_COUNT } => {
                for (id, payment) in std::mem::take(&mut export.aside) {
                    export.push_open(id, payment, out);
                }
                export.skip = HashSet::with_hasher(*export.skip.hasher());
                Phase::Buckets { processor: Processor::Default, from_ms: 0 }
            }
            Phase::Open { shard } => {
                for (id, payment) in &self.open.shards[shard] {
                    if !export.skip.contains(id) {
                        export.push_open(*id, *payment, out);
                    }
                }
                Phase::Open { shard: shard + 1 }
            }
            Phase::Buckets { processor, from_ms } => {
                let rows_left = if export.waiting.len() > WAITING_LEN_MAX { u64::MAX } else { rows_left };
                match self.export_buckets(export, processor, from_ms, rows_left, out) {
                    Some(from_ms) => Phase::Buckets { processor, from_ms },
                    None if processor == Processor::Default => {
                        Phase::Buckets { processor: processor.other(), from_ms: 0 }
                    }
                    None => {
                        self.catch_up(std::mem::take(&mut export.waiting));
                        Phase::Known
                    }
                }
            }
            Phase::Known => {
                let rows_left = if export.forgotten.len() > WAITING_LEN_MAX { u64::MAX } else { rows_left };
                let to = export.known.end.min(export.known.start.saturating_add(rows_left));
                for place in export.known.start..to {
                    let row = export.forgotten.pop_front().unwrap_or_else(|| self.processed.at(place));
                    export.push_known(row, out);
                }
                export.known.start = to;
                if to == export.known.end { Phase::End } else { Phase::Known }
            }
            Phase::End => Phase::End,
        }
    }

    /// Returns where to go on, if there is more.
    fn export_buckets(
        &self,
        export: &mut Export,
        processor: Processor,
        from_ms: u64,
        mut rows_left: u64,
        out: &mut Vec<u8>,
    ) -> Option<u64> {
        let mut next_ms = from_ms;
        let mut gathered = Gathered::default();
        let flow = self.buckets[processor.index()].export(UnixMillis(from_ms), |row| {
            if rows_left == 0 {
                return ControlFlow::Break(());
            }
            rows_left -= 1;
            gathered.take(row, processor, |fact| export.push(fact, out));
            // Behind the end of time there is nothing to go on with.
            next_ms = row.start_ms.saturating_add(1);
            ControlFlow::Continue(())
        });
        gathered.let_go(processor, |fact| export.push(fact, out));
        flow.is_break().then_some(next_ms)
    }

    /// To be told that the remembered id at this place, the oldest, is about to be forgotten.
    pub(super) fn keep_forgotten_from_export(&mut self, place: u64) {
        if let Some(export) = &mut self.export
            && export.known.contains(&place)
        {
            export.forgotten.push_back(self.processed.at(place));
        }
    }

    /// To be told of every change of an open payment, with what it was before, or `None` if it is new.
    pub(super) fn keep_from_export(&mut self, id: CorrelationId, before: Option<OpenPayment>) {
        let Some(export) = &mut self.export else { return };
        if export.is_past(id) || !export.skip.insert(id) {
            return;
        }
        if let Some(before) = before {
            export.aside.push((id, before));
        }
    }

    /// Counts a processed payment in the buckets: at once, or when they may change again.
    pub(super) fn record(&mut self, processor: Processor, at: UnixMillis, amount_cents: u64) {
        match &mut self.export {
            Some(Export {
                phase: Phase::Begin | Phase::Open { .. } | Phase::Buckets { .. },
                waiting,
                ..
            }) => {
                waiting.push((processor, at, amount_cents));
            }
            _ => self.buckets[processor.index()].record(at, amount_cents),
        }
    }

    fn catch_up(&mut self, waiting: Vec<(Processor, UnixMillis, u64)>) {
        for (processor, at, amount_cents) in waiting {
            self.buckets[processor.index()].record(at, amount_cents);
        }
    }

    /// Takes in one row of a snapshot, in the order in which they were given out.
    ///
    /// # Errors
    /// If the row cannot stand in a snapshot, or not there.
    pub fn import(&mut self, fact: Fact) -> Result<(), Misfit> {
        match fact {
            Fact::Begin { open_len, known_len: _, purged } => {
                self.purged = purged;
                let room = |len: u64, len_max: usize| usize::try_from(len).unwrap_or(len_max).min(len_max);
                self.open.reserve(room(open_len, self.config.open_len_max));
            }
            Fact::Accepted { correlation_id, amount_cents, decided_at_ms, stage, in_doubt, reason: _ } => {
                let requested_at_ms = decided_at_ms;
                let payment = OpenPayment { amount_cents, requested_at_ms, stage, in_doubt, owner: None };
                if !self.open.insert_new(correlation_id, payment) {
                    return Err(Misfit("an id is open once"));
                }
                self.conservation.accepted.add(amount_cents);
                self.conservation.open.add(amount_cents);
                self.conservation.in_doubt_count += u64::from(in_doubt);
            }
            Fact::Bucket { start_ms, last_ms, count, amount_cents, processor, level } => {
                let row = BucketRow { start_ms, last_ms, count, amount_cents, level };
                self.import_bucket(processor, row)?;
            }
            Fact::Moments { second_ms, processor, moments } => {
                for Moment { offset_ms, count, amount_cents } in moments {
                    if count > 0 {
                        let start_ms = second_ms.saturating_add(offset_ms.into());
                        let (count, amount_cents) = (count.into(), amount_cents.into());
                        let row = BucketRow { start_ms, last_ms: start_ms, count, amount_cents, level: 0 };
                        self.import_bucket(processor, row)?;
                    }
                }
            }
            Fact::Remembered { correlation_id, amount_cents, requested_at_ms, processor } => {
                let payment = ProcessedPayment::new(amount_cents, requested_at_ms, processor);
                let known_len_max = self.config.known_len_max.saturating_sub(1);
                if self.processed.len() > known_len_max {
                    self.settle_known()?;
                    self.forget_beyond(known_len_max);
                }
                if !self.processed.take_in(correlation_id, payment) {
                    return Err(KNOWN_TWICE);
                }
            }
            Fact::End => {
                self.settle_known()?;
                self.assert_conservation();
            }
            Fact::Intended { .. } | Fact::Resolved { .. } | Fact::Purged => {
                return Err(Misfit("a change does not stand in a snapshot"));
            }
        }
        Ok(())
    }

    fn settle_known(&mut self) -> Result<(), Misfit> {
        if self.processed.settle() { Ok(()) } else { Err(KNOWN_TWICE) }
    }

    fn import_bucket(&mut self, processor: Processor, row: BucketRow) -> Result<(), Misfit> {
        if !self.buckets[processor.index()].import(row) {
            return Err(Misfit("there is no such span of time"));
        }
        let books = &mut self.conservation;
        for tally in [&mut books.accepted, &mut books.processed[processor.index()]] {
            tally.count += row.count;
            tally.amount_cents += row.amount_cents;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
