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
//! - **Texts** stand with what they belong to: in parts before an open payment, and as rows of digests and references behind the ids of those that have
//!   ended. They are put aside together with them.
//!
//! Buckets and ids stand in [pages](galo_wire::page): a start reads a million of each. Open payments, of which there are few most of the
//! time, are records, as are the few rows that are not worth a page.
//!
//! The books' totals are not written: they follow from open payments and buckets. Declined payments are in neither, nor are those that were known before, so
//! theirs are.
//!
//! Rejected: `fork`, and a child that writes its copy of the memory. It costs a page for each table entry touched
//! meanwhile, under a memory limit that a full ledger nearly fills; it stalls the parent while page tables are copied;
//! the child takes its CPU from the same quota; and no simulator could run it.
//!
//! Must never: let a summary miss what waits; write a state that never was. A purge ends an export.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::{ControlFlow, Range};

use galo_wire::journal::{BLOCK_SIZE, Fact, Record};
use galo_wire::page::{
    DigestRow, MomentRow, PAGE_ROWS_MAX, PAGE_ROWS_MIN, PageRow, ReferenceRow, RememberedRow, page_checksum,
    page_size,
};
use galo_wire::{CorrelationId, PROCESSORS_LEN_MAX, Processor, REFERENCE_SIZE_MAX, Reason};

use super::attachments::Digest;
use super::forgotten::Forgotten;
use super::id_hash::IdHash;
use super::{
    Conservation, DECLINED_BIT, EndedPayment, Ledger, Misfit, OpenPayment, SHARD_COUNT, Sharded, Tally, known,
};
use crate::buckets::{BucketRow, Moment};
use crate::texts::Texts;
use crate::time::UnixMillis;

/// Payments that wait for the buckets, 24 bytes each; beyond it the buckets are written without a pause. At 1,000
/// payments a second, a minute's.
const WAITING_LEN_MAX: usize = 1 << 16;

pub(super) const KNOWN_TWICE: Misfit = Misfit("an id is remembered once");
const NO_ID: Misfit = Misfit("what is kept of an id stands behind it");
const NO_REFERENCE: Misfit = Misfit("a reference has 1 to 64 bytes of text");
const NO_SPAN: Misfit = Misfit("there is no such span of time");

/// Where an export stands.
pub(super) struct Export {
    phase: Phase,
    /// Ids whose open payment in the tables is not the one to be written.
    skip: HashSet<CorrelationId, IdHash>,
    /// Open payments as they were, put aside before they changed.
    aside: Vec<(CorrelationId, OpenPayment)>,
    /// The texts of those of them that had some.
    aside_texts: HashMap<CorrelationId, Texts, IdHash>,
    waiting: Vec<(Processor, UnixMillis, u64)>,
    /// Declined payments at that moment.
    declined: Tally,
    /// Likewise those that were known before.
    known_before: Tally,
    /// What was forgotten until then.
    until_then: Forgotten,
    /// The places in the queue that are still to be written, counted from when it was empty.
    known: Range<u64>,
    /// The first of them, which were forgotten meanwhile.
    forgotten: VecDeque<known::Row>,
    /// What was kept of their members and references, with their places.
    forgotten_digests: VecDeque<(u64, Digest)>,
    forgotten_references: VecDeque<(u64, String)>,
    /// Rows written, those of pages one by one: what a slice is measured by.
    rows: u64,
    /// Records written.
    records: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    Open { shard: usize },
    Buckets { processor: Processor, from_ms: u64 },
    Known,
    End,
}

/// Milliseconds that share a page.
#[derive(Default)]
struct Gathered {
    start_ms: u64,
    list: Vec<MomentRow>,
}

impl Gathered {
    /// Takes in one bucket, and writes what does not fit together with it.
    fn take(&mut self, row: BucketRow, processor: Processor, export: &mut Export, out: &mut Vec<u8>) {
        let BucketRow { start_ms, last_ms, count, amount_cents, level } = row;
        let (Ok(count_small), 0) = (u32::try_from(count), level) else {
            self.let_go(processor, export, out);
            export.push(Fact::Bucket { start_ms, last_ms, count, amount_cents, processor, level }, out);
            return;
        };
        if self.list.len() == PAGE_ROWS_MAX || start_ms - self.start_ms > u32::MAX.into() {
            self.let_go(processor, export, out);
        }
        if self.list.is_empty() {
            self.start_ms = start_ms;
        }
        let offset_ms = u32::try_from(start_ms - self.start_ms).expect("or the page would have ended");
        self.list.push(MomentRow { offset_ms, count: count_small, amount_cents });
    }

    fn let_go(&mut self, processor: Processor, export: &mut Export, out: &mut Vec<u8>) {
        let start_ms = self.start_ms;
        if self.list.len() >= PAGE_ROWS_MIN {
            export.push_page(&self.list, out, |rows, checksum| Fact::MomentsPage {
                start_ms,
                processor,
                rows,
                checksum,
            });
        } else {
            for row in &self.list {
                let start_ms = start_ms + u64::from(row.offset_ms);
                let (count, amount_cents) = (row.count.into(), row.amount_cents);
                let last_ms = start_ms;
                export
                    .push(Fact::Bucket { start_ms, last_ms, count, amount_cents, processor, level: 0 }, out);
            }
        }
        self.list.clear();
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
    pub(super) fn add_waiting(
        &self,
        from: UnixMillis,
        to: UnixMillis,
        totals: &mut [Tally; PROCESSORS_LEN_MAX],
    ) {
        for (processor, at, amount_cents) in &self.waiting {
            if (from..=to).contains(at) {
                totals[processor.index()].add(*amount_cents);
            }
        }
    }

    /// Amounts that wait for the buckets, of one moment.
    pub(super) fn waiting_at(&self, processor: Processor, at: UnixMillis) -> impl Iterator<Item = u64> {
        self.waiting.iter().filter(move |it| (it.0, it.1) == (processor, at)).map(|it| it.2)
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
        self.push_record(fact, out);
    }

    fn push_record(&mut self, fact: Fact, out: &mut Vec<u8>) {
        self.records += 1;
        out.extend_from_slice(&Record { sequence: self.records, fact }.encode());
    }

    /// `announce` makes the record that goes before, from the number of rows and their checksum.
    fn push_page<R: PageRow>(&mut self, rows: &[R], out: &mut Vec<u8>, announce: impl Fn(u16, u32) -> Fact) {
        let record_start = out.len();
        out.resize(record_start + BLOCK_SIZE, 0);
        let page_start = out.len();
        rows.iter().for_each(|row| row.encode(out));
        out.resize(page_start + page_size(rows.len(), R::SIZE), 0);
        self.rows += rows.len() as u64;
        self.records += 1;
        let rows = u16::try_from(rows.len()).expect("a page's bound is below");
        let fact = announce(rows, page_checksum(&out[page_start..]));
        let record = Record { sequence: self.records, fact }.encode();
        out[record_start..page_start].copy_from_slice(&record);
    }

    fn push_known(&mut self, rows: &[RememberedRow], out: &mut Vec<u8>) {
        if rows.len() >= PAGE_ROWS_MIN {
            self.push_page(rows, out, |rows, checksum| Fact::RememberedPage { rows, checksum });
            return;
        }
        for row in rows {
            let RememberedRow { correlation_id, amount_cents, requested_at_ms, processor, declined } = *row;
            self.push(
                Fact::Remembered { correlation_id, amount_cents, requested_at_ms, processor, declined },
                out,
            );
        }
    }

    fn push_open(
        &mut self,
        correlation_id: CorrelationId,
        payment: OpenPayment,
        texts: Option<&Texts>,
        out: &mut Vec<u8>,
    ) {
        for entry in texts.iter().flat_map(|texts| texts.entries()) {
            self.push(entry.to_fact(), out);
        }
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
            aside_texts: HashMap::with_hasher(IdHash::new(self.config.hash_seed)),
            waiting: Vec::new(),
            declined: self.conservation.declined,
            known_before: self.conservation.known_before,
            until_then: self.forgotten,
            known: self.ended.places(),
            forgotten: VecDeque::new(),
            forgotten_digests: VecDeque::new(),
            forgotten_references: VecDeque::new(),
            rows: 0,
            records: 0,
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
        let records = (self.open.len + SHARD_COUNT) * BLOCK_SIZE;
        let known = page_size(self.ended.len(), RememberedRow::SIZE);
        // A bucket takes as much memory as its row: 16 bytes, and those of a coarser level more than a record; a lonely one has a
        // second to itself. Pages have a beginning and an end: a sixteenth, if slices are not shorter than a few hundred rows.
        let pages = known + self.bucket_bytes();
        // Behind each page of ids one of digests and one of references, each with a record and filled up to a block.
        let texts = self.attachments.export_size_max() + known / 32;
        (records + pages + pages / 16 + texts) as u64
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
                for (processor, name) in self.names() {
                    export.push(Fact::Named { processor, name }, out);
                }
                let Tally { count, amount_cents } = export.declined;
                if count > 0 {
                    export.push(Fact::Declines { count, amount_cents }, out);
                }
                let Tally { count, amount_cents } = export.known_before;
                if count > 0 {
                    export.push(Fact::KnownBefores { count, amount_cents }, out);
                }
                for (processor, latest_ms) in export.until_then.each() {
                    export.push(Fact::Forgotten { processor, latest_ms }, out);
                }
                Phase::Open { shard: 0 }
            }
            Phase::Open { shard: SHARD_COUNT } => {
                let texts = std::mem::replace(
                    &mut export.aside_texts,
                    HashMap::with_hasher(IdHash::new(self.config.hash_seed)),
                );
                for (id, payment) in std::mem::take(&mut export.aside) {
                    export.push_open(id, payment, texts.get(&id), out);
                }
                export.skip = HashSet::with_hasher(*export.skip.hasher());
                Phase::Buckets { processor: Processor::N0, from_ms: 0 }
            }
            Phase::Open { shard } => {
                for (id, payment) in &self.open.shards[shard] {
                    if !export.skip.contains(id) {
                        export.push_open(*id, *payment, self.attachments.of_open(*id), out);
                    }
                }
                Phase::Open { shard: shard + 1 }
            }
            Phase::Buckets { processor, from_ms } => {
                let rows_left = if export.waiting.len() > WAITING_LEN_MAX { u64::MAX } else { rows_left };
                match self.export_buckets(export, processor, from_ms, rows_left, out) {
                    Some(from_ms) => Phase::Buckets { processor, from_ms },
                    None if let Some(next) = Processor::ALL.get(processor.index() + 1) => {
                        Phase::Buckets { processor: *next, from_ms: 0 }
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
                let mut rows = Vec::with_capacity(PAGE_ROWS_MAX);
                while export.known.start < to {
                    let page_end = to.min(export.known.start + PAGE_ROWS_MAX as u64);
                    rows.clear();
                    rows.extend((export.known.start..page_end).map(|place| {
                        let row = export.forgotten.pop_front().unwrap_or_else(|| self.ended.at(place));
                        row.to_page_row()
                    }));
                    export.push_known(&rows, out);
                    self.export_kept(export, page_end, out);
                    export.known.start = page_end;
                }
                if to == export.known.end { Phase::End } else { Phase::Known }
            }
            Phase::End => Phase::End,
        }
    }

    /// What is kept of the members and references of the ids that were just written.
    fn export_kept(&self, export: &mut Export, end: u64, out: &mut Vec<u8>) {
        let back = |place: u64| u32::try_from(end - 1 - place).expect("a page is short");
        // Those that are still there stand behind those that were forgotten.
        let places = export.known.start..end;
        let mut digests = Vec::new();
        while let Some(first) = export.forgotten_digests.pop_front_if(|(place, _)| *place < end) {
            digests.push(first);
        }
        digests.extend(self.attachments.digests_of(&places));
        let rows: Vec<_> =
            digests.iter().map(|(place, digest)| DigestRow { back: back(*place), digest: *digest }).collect();
        if !rows.is_empty() {
            export.push_page(&rows, out, |rows, checksum| Fact::DigestsPage { rows, checksum });
        }
        let mut references = Vec::new();
        while let Some(first) = export.forgotten_references.pop_front_if(|(place, _)| *place < end) {
            references.push(first);
        }
        references.extend(self.attachments.references_of(&places));
        let row = |(place, reference): &(u64, String)| {
            let mut text = [0; REFERENCE_SIZE_MAX];
            text[..reference.len()].copy_from_slice(reference.as_bytes());
            let size = u8::try_from(reference.len()).expect("a reference is short");
            ReferenceRow { back: back(*place), size, text }
        };
        let rows: Vec<_> = references.iter().map(row).collect();
        if !rows.is_empty() {
            export.push_page(&rows, out, |rows, checksum| Fact::ReferencesPage { rows, checksum });
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
        let buckets = self.buckets[processor.index()].as_ref()?;
        let flow = buckets.export(UnixMillis(from_ms), |row| {
            if rows_left == 0 {
                return ControlFlow::Break(());
            }
            rows_left -= 1;
            gathered.take(row, processor, export, out);
            // Behind the end of time there is nothing to go on with.
            next_ms = row.start_ms.saturating_add(1);
            ControlFlow::Continue(())
        });
        gathered.let_go(processor, export, out);
        flow.is_break().then_some(next_ms)
    }

    /// To be told that the remembered id at this place, the oldest, is about to be forgotten.
    pub(super) fn keep_forgotten_from_export(&mut self, place: u64) {
        if let Some(export) = &mut self.export
            && export.known.contains(&place)
        {
            export.forgotten.push_back(self.ended.at(place));
            let it = place..place + 1;
            export.forgotten_digests.extend(self.attachments.digests_of(&it));
            export.forgotten_references.extend(self.attachments.references_of(&it));
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
            if let Some(texts) = self.attachments.of_open(id) {
                export.aside_texts.insert(id, texts.clone());
            }
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
            _ => self.buckets_mut(processor).record(at, amount_cents),
        }
    }

    fn catch_up(&mut self, waiting: Vec<(Processor, UnixMillis, u64)>) {
        for (processor, at, amount_cents) in waiting {
            self.buckets_mut(processor).record(at, amount_cents);
        }
    }

    /// Takes in one row of a snapshot, in the order in which they were given out.
    ///
    /// # Errors
    /// If the row cannot stand in a snapshot, or not there.
    pub fn import(&mut self, fact: Fact) -> Result<(), Misfit> {
        if !matches!(fact, Fact::Attached { .. } | Fact::Accepted { .. }) {
            self.attachments.expect_nothing()?;
        }
        match fact {
            Fact::Attached { attachment, size, text } => self.attachments.gather(attachment, size, &text)?,
            Fact::Begin { open_len, known_len: _, purged } => {
                self.purged = purged;
                let room = |len: u64, len_max: usize| usize::try_from(len).unwrap_or(len_max).min(len_max);
                self.open.reserve(room(open_len, self.config.open_len_max));
            }
            Fact::Accepted { correlation_id, amount_cents, decided_at_ms, stage, in_doubt, reason: _ } => {
                self.conservation.accepted.check_room(1, amount_cents)?;
                let requested_at_ms = decided_at_ms;
                let payment = OpenPayment { amount_cents, requested_at_ms, stage, in_doubt, owner: None };
                if !self.open.insert_new(correlation_id, payment) {
                    return Err(Misfit("an id is open once"));
                }
                let texts = self.attachments.take_gathered()?;
                self.attachments.accepted(correlation_id, texts);
                self.conservation.accepted.add(amount_cents);
                self.conservation.open.add(amount_cents);
                self.conservation.in_doubt_count += u64::from(in_doubt);
            }
            Fact::Bucket { start_ms, last_ms, count, amount_cents, processor, level } => {
                let row = BucketRow { start_ms, last_ms, count, amount_cents, level };
                self.import_bucket(processor, row)?;
            }
            Fact::Moments { second_ms, processor, moments } => {
                for moment in moments.iter().filter(|moment| moment.count > 0) {
                    let at_ms = second_ms.saturating_add(moment.offset_ms.into());
                    let (count, amount_cents) = (moment.count.into(), moment.amount_cents.into());
                    self.import_moments(processor, &[Moment { at_ms, count, amount_cents }])?;
                }
            }
            Fact::Remembered { correlation_id, amount_cents, requested_at_ms, processor, declined } => {
                let row =
                    RememberedRow { correlation_id, amount_cents, requested_at_ms, processor, declined };
                self.import_remembered(row)?;
            }
            Fact::Named { processor, name } => self.name(processor, name)?,
            Fact::Declines { count, amount_cents } => {
                self.import_ended(count, amount_cents, |books| &mut books.declined)?;
            }
            Fact::KnownBefores { count, amount_cents } => {
                self.import_ended(count, amount_cents, |books| &mut books.known_before)?;
            }
            Fact::Forgotten { processor, latest_ms } => self.forgotten.note_until(processor, latest_ms),
            Fact::End => {
                self.settle_known()?;
                self.assert_conservation();
            }
            Fact::Intended { .. }
            | Fact::Resolved { .. }
            | Fact::KnownBefore { .. }
            | Fact::Purged
            | Fact::Note { .. } => {
                return Err(Misfit("a change does not stand in a snapshot"));
            }
            Fact::RememberedPage { .. }
            | Fact::MomentsPage { .. }
            | Fact::DigestsPage { .. }
            | Fact::ReferencesPage { .. } => {
                return Err(Misfit("a page has its rows"));
            }
        }
        Ok(())
    }

    /// Takes in a page of a snapshot, which `fact` has announced, and whose checksum is right.
    ///
    /// # Errors
    /// If a row cannot stand in a snapshot, or not there.
    pub fn import_page(&mut self, fact: Fact, page: &[u8]) -> Result<(), Misfit> {
        match fact {
            Fact::RememberedPage { rows, .. } => {
                RememberedRow::decode(page, rows).try_for_each(|row| self.import_remembered(row))?;
                if self.settle_is_due() { self.settle_known() } else { Ok(()) }
            }
            Fact::MomentsPage { start_ms, processor, rows, .. } => {
                let moments: Vec<_> = MomentRow::decode(page, rows)
                    .map(|MomentRow { offset_ms, count, amount_cents }| {
                        let at_ms = start_ms.saturating_add(offset_ms.into());
                        Moment { at_ms, count: count.into(), amount_cents }
                    })
                    .collect();
                self.import_moments(processor, &moments)
            }
            Fact::DigestsPage { rows, .. } => {
                DigestRow::decode(page, rows).try_for_each(|row| match self.place_before(row.back)? {
                    Some(place) => self.attachments.import_digest(place, row.digest),
                    None => Ok(()),
                })
            }
            Fact::ReferencesPage { rows, .. } => ReferenceRow::decode(page, rows).try_for_each(|row| {
                let text = row.text.get(..row.size.into()).and_then(|text| str::from_utf8(text).ok());
                let text = text.filter(|text| !text.is_empty()).ok_or(NO_REFERENCE)?;
                match self.place_before(row.back)? {
                    Some(place) => self.attachments.import_reference(place, text),
                    None => Ok(()),
                }
            }),
            other => self.import(other),
        }
    }

    /// The place of an id that was read so many before the last one; `None` if it is forgotten already.
    fn place_before(&self, back: u32) -> Result<Option<u64>, Misfit> {
        let place = self.ended.places().end.checked_sub(1 + u64::from(back)).ok_or(NO_ID)?;
        Ok((place >= self.ended.first()).then_some(place))
    }

    fn import_remembered(&mut self, row: RememberedRow) -> Result<(), Misfit> {
        let RememberedRow { correlation_id, amount_cents, requested_at_ms, processor, declined } = row;
        self.forget_beyond(self.config.known_len_max.saturating_sub(1));
        let payment = EndedPayment::new(amount_cents, requested_at_ms, processor);
        let payment =
            EndedPayment { word: payment.word | if declined { DECLINED_BIT } else { 0 }, ..payment };
        if self.ended.insert_new(correlation_id, payment) { Ok(()) } else { Err(KNOWN_TWICE) }
    }

    fn settle_known(&mut self) -> Result<(), Misfit> {
        self.ended.settle().map_err(|_| KNOWN_TWICE)
    }

    /// Payments that ended, and are in no bucket.
    fn import_ended(
        &mut self,
        count: u64,
        amount_cents: u64,
        term: impl Fn(&mut Conservation) -> &mut Tally,
    ) -> Result<(), Misfit> {
        self.conservation.accepted.check_room(count, amount_cents)?;
        self.conservation.accepted.count += count;
        self.conservation.accepted.amount_cents += amount_cents;
        let term = term(&mut self.conservation);
        term.count += count;
        term.amount_cents += amount_cents;
        Ok(())
    }

    fn import_moments(&mut self, processor: Processor, moments: &[Moment]) -> Result<(), Misfit> {
        if !self.buckets_mut(processor).import_moments(moments) {
            return Err(NO_SPAN);
        }
        let books = &mut self.conservation;
        for tally in [&mut books.accepted, &mut books.processed[processor.index()]] {
            for moment in moments {
                tally.count += moment.count;
                tally.amount_cents += moment.amount_cents;
            }
        }
        Ok(())
    }

    fn import_bucket(&mut self, processor: Processor, row: BucketRow) -> Result<(), Misfit> {
        self.conservation.accepted.check_room(row.count, row.amount_cents)?;
        if !self.buckets_mut(processor).import(row) {
            return Err(NO_SPAN);
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
