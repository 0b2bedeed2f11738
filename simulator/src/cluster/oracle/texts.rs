//! The texts that belong to payments: members of their clients' POSTs, and the names that processors have for them.
//!
//! A client's members are one of a few, of sizes from a part of a record to the longest. The oracle notes by itself, from the entries, with which
//! members a payment was accepted; every attempt must carry exactly those, whoever makes it.

use galo_engine::ledger::{Entry, Known, Ledger};
use galo_engine::texts::deadline_member;
use galo_engine::time::UnixMillis;
use galo_engine::{CorrelationId, Processor};
use galo_wire::Attachment;

use super::super::clock::EPOCH_MS;
use super::{Invariant, Oracle};

/// Kinds of members that clients send; 0: none. The last two set a deadline.
pub const MEMBERS_LEN: u8 = 7;

/// The members of a payment's POST, by their kind.
#[must_use]
pub fn members(id: CorrelationId, kind: u8) -> Option<String> {
    let size = [0, 1, 7, 300, 1_960, 0, 300][usize::from(kind)];
    let payer = format!(r#""payer":{{"id":"{id}","kind":{kind},"x":"{}"}}}}"#, "é".repeat(size / 2));
    match deadline_ms(id, kind) {
        Some(deadline_ms) => {
            let mut text = Vec::new();
            deadline_member(UnixMillis(deadline_ms), &mut text);
            Some(String::from_utf8(text).expect("a timestamp") + "," + &payer)
        }
        None => (kind > 0).then(|| "{".to_owned() + &payer),
    }
}

/// Within a life's first ten seconds, and now and then before it.
fn deadline_ms(id: CorrelationId, kind: u8) -> Option<u64> {
    (kind >= 5).then(|| EPOCH_MS - 200 + 40 * u64::from(id.0[15]))
}

/// What a processor calls a payment.
#[must_use]
pub fn reference(id: CorrelationId, processor: Processor) -> String {
    format!("{}-{id}", processor.index())
}

/// Members in a sequence of entries.
#[derive(Default)]
pub(super) struct Gathered(Vec<u8>);

impl Gathered {
    /// The members of a payment that this entry accepts.
    pub(super) fn take_in(&mut self, entry: Entry) -> Option<String> {
        match entry {
            Entry::Attached { attachment: Attachment::Members, size, text } => {
                self.0.extend_from_slice(&text[..usize::from(size)]);
                None
            }
            Entry::Attached { .. } => None,
            Entry::Accepted { .. } => {
                let text = String::from_utf8(std::mem::take(&mut self.0)).unwrap_or_default();
                (!text.is_empty()).then_some(text)
            }
            _ => {
                self.0.clear();
                None
            }
        }
    }
}

impl Oracle {
    /// Whether a payment was accepted with these members, as the disk has it.
    pub(super) fn has_members(&self, place: usize, kind: u8) -> bool {
        self.truths[place].members == members(self.truths[place].id, kind)
    }

    /// A payment is granted with these members: a client has sent it with them.
    pub(super) fn members_granted(&mut self, place: usize, granted: &Option<String>) {
        let truth = &self.truths[place];
        let id = truth.id;
        let is_sent = truth.visits.iter().any(|visit| *granted == members(id, visit.members));
        self.check(Invariant::MembersGoAlong, is_sent, || {
            format!("{id} is granted with {granted:?}, with which no client sent it")
        });
    }

    /// A payment is accepted with these members.
    pub(super) fn note_deadline(&mut self, place: usize, members: &Option<String>) {
        let truth = &mut self.truths[place];
        let kind = (0..MEMBERS_LEN).find(|kind| super::texts::members(truth.id, *kind) == *members);
        truth.deadline_ms = kind.and_then(|kind| deadline_ms(truth.id, kind));
    }

    /// An attempt is recorded, at this moment of the aggregator's clock.
    pub(super) fn attempt_recorded(&mut self, place: usize, now_ms: u64) {
        if let Some(deadline_ms) = self.truths[place].deadline_ms {
            let id = self.truths[place].id;
            self.check(Invariant::DeadlineIsKept, now_ms < deadline_ms, || {
                format!("an attempt of {id} is recorded at {now_ms}, and its deadline was {deadline_ms}")
            });
        }
    }

    /// A payment ends at its deadline.
    pub(super) fn ended_at_deadline(&mut self, place: usize, now_ms: u64) {
        self.declined_count += 1;
        let truth = &self.truths[place];
        let is_passed = truth.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms);
        let is_nowhere =
            truth.stored.iter().all(Option::is_none) && truth.sent.iter().all(|sent| sent.refused);
        let what =
            format!("{} ends at {now_ms}, its deadline {:?}: {:?}", truth.id, truth.deadline_ms, truth.sent);
        if truth.is_promised() {
            self.check(Invariant::DeadlineIsKept, is_passed && is_nowhere, || what);
        }
    }

    /// An attempt leaves a gateway with these members.
    pub fn members_sent(&mut self, id: CorrelationId, sent: Option<&str>) {
        let Some(place) = self.place(id) else { return };
        let truth = &self.truths[place];
        if !truth.is_promised() {
            return;
        }
        let expected = truth.members.clone();
        self.check(Invariant::MembersGoAlong, expected.as_deref() == sent, || {
            format!("{id} leaves with {sent:?}, and was accepted with {expected:?}")
        });
    }

    /// At rest: the ledger knows what its processor calls a payment that was processed.
    pub fn compare_references(&mut self, ledger: &Ledger) {
        for place in 0..self.truths.len() {
            let id = self.truths[place].id;
            if let Known::Processed { processor, .. } = ledger.lookup(id) {
                let known = ledger.reference(id);
                self.check(Invariant::ReferenceIsKept, known == Some(reference(id, processor)), || {
                    format!("{id} was processed by {processor:?}, and is called {known:?}")
                });
            }
        }
    }
}
