//! The texts that belong to payments, beside the tables of payments: a payment without any has nothing here.
//!
//! - **Open payments** have their members, and the name that a processor has given them, in a table by id. The members' bytes are counted, and an
//!   accept beyond the bound is answered as full ([`LedgerConfig::members_bytes_max`](super::LedgerConfig::members_bytes_max)).
//! - **Of a payment that has ended** the members are dropped. A digest of them stays for as long as the id is remembered, so that
//!   the same id with other members is no replay; and the name that its processor has for it, within [`REFERENCES_BYTES_MAX`], the oldest dropped first.
//!
//! Ended payments stand in the order in which they are forgotten, so what is kept of them is queues in that order, searched by the id's
//! place in the queue of ids: 16 bytes a digest, no hash table, and nothing to look for when an id is forgotten.
//!
//! The digest is SipHash-2-4 under the payment's id as its key. It is written to snapshots, so it must be the same in every build and every
//! process, which no seed drawn at start would be. Whoever finds two texts with one digest under an id of his own has his own payment
//! called a replay; that is all there is to gain.
//!
//! Texts come part by part, before the entry that they belong to ([`Entry::Attached`](super::Entry::Attached)), and are gathered here.

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;

use galo_wire::{Attached, Attachment, CorrelationId, Outcome};

use super::id_hash::IdHash;
use super::{HashMap, Misfit};
use crate::texts::Texts;

/// The references of ended payments, bytes, each counted with [`REFERENCE_OVERHEAD`] more: of 150,000 payments with names of 36 characters.
pub(super) const REFERENCES_BYTES_MAX: usize = 8 << 20;

/// What a reference takes beside its text.
const REFERENCE_OVERHEAD: usize = 16;

/// What a payment's members take beside their text: the entry in the table, its slack, and the allocator's; and a deadline's place, of 24 bytes and slack.
pub(super) const MEMBERS_OVERHEAD: usize = 128;

/// What is kept of an ended payment's members.
pub(super) type Digest = [u8; 8];

const NOT_HERE: Misfit = Misfit("a text stands before the payment or the attempt's end that it belongs to");
const NO_TEXT: Misfit = Misfit("a text is UTF-8 within its bound");
const OUT_OF_ORDER: Misfit = Misfit("what is kept of an ended payment stands behind its id, in order");

/// See the module's documentation.
pub(super) struct Attachments {
    open: HashMap<Texts>,
    members_bytes: usize,
    /// When the deadlines of open payments pass, ms. One that has passed is taken out, and comes back when an attempt has ended without the payment being processed.
    deadlines: BTreeSet<(u64, CorrelationId)>,
    digests: VecDeque<(u64, Digest)>,
    references: References,
    /// Of the entry that comes next.
    gathered: Attached,
}

/// Names of ended payments, in the order of their places.
#[derive(Default)]
struct References {
    /// Place, and where the text ends, counted from when there was none.
    ends: VecDeque<(u64, u64)>,
    text: VecDeque<u8>,
    /// Bytes ever dropped from the front.
    dropped: u64,
}

impl Attachments {
    pub(super) fn new(hash: IdHash) -> Self {
        Self {
            open: HashMap::with_hasher(hash),
            members_bytes: 0,
            deadlines: BTreeSet::new(),
            digests: VecDeque::new(),
            references: References::default(),
            gathered: Attached::NOTHING,
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::new(*self.open.hasher());
    }

    /// Part of a text of the entry that comes next.
    pub(super) fn gather(&mut self, attachment: Attachment, size: u8, text: &[u8]) -> Result<(), Misfit> {
        let text = text.get(..size.into()).filter(|text| !text.is_empty()).ok_or(NO_TEXT)?;
        self.gathered.push(attachment, text).map_err(|_| NO_TEXT)
    }

    /// To be asked of an entry that takes no text.
    pub(super) fn expect_nothing(&self) -> Result<(), Misfit> {
        if self.gathered.is_empty() { Ok(()) } else { Err(NOT_HERE) }
    }

    /// What was gathered is forgotten: the entry that it belonged to will not come.
    pub(super) fn forget_gathered(&mut self) {
        self.gathered.clear();
    }

    /// What was gathered.
    pub(super) fn take_gathered(&mut self) -> Result<Texts, Misfit> {
        if self.gathered.is_empty() {
            return Ok(Texts::default());
        }
        let texts = Texts::of(&self.gathered);
        let is_whole = Attachment::ALL
            .iter()
            .all(|it| self.gathered.text(*it).is_some() || self.gathered.is_without(*it));
        self.gathered.clear();
        if is_whole { Ok(texts) } else { Err(NO_TEXT) }
    }

    /// What was gathered for the end of an attempt.
    pub(super) fn take_reference(&mut self, outcome: Outcome) -> Result<Option<Arc<str>>, Misfit> {
        let Texts { members, reference } = self.take_gathered()?;
        let is_named = matches!(outcome, Outcome::Processed | Outcome::Unknown);
        if members.is_some() || (reference.is_some() && !is_named) { Err(NOT_HERE) } else { Ok(reference) }
    }

    /// A payment was accepted.
    pub(super) fn accepted(&mut self, id: CorrelationId, texts: Texts) {
        if texts.is_empty() {
            return;
        }
        self.members_bytes += size_of_members(&texts);
        self.deadlines.extend(texts.deadline_ms().map(|deadline_ms| (deadline_ms, id)));
        self.open.insert(id, texts);
    }

    /// The processor of an open payment has a name for it.
    pub(super) fn named(&mut self, id: CorrelationId, reference: Arc<str>) {
        self.open.entry(id).or_default().reference = Some(reference);
    }

    /// An attempt of an open payment was given up, and with it the processor's name for it.
    pub(super) fn unnamed(&mut self, id: CorrelationId) {
        if self.open.is_empty() {
            return;
        }
        if let Some(texts) = self.open.get_mut(&id) {
            texts.reference = None;
            self.deadlines.extend(texts.deadline_ms().map(|deadline_ms| (deadline_ms, id)));
            if texts.is_empty() {
                self.open.remove(&id);
            }
        }
    }

    /// A payment has ended, and stands at this place, the last one. Its processor may have a name for it.
    pub(super) fn ended(&mut self, id: CorrelationId, place: u64, reference: Option<Arc<str>>) {
        let texts = if self.open.is_empty() { None } else { self.open.remove(&id) };
        if let Some(texts) = &texts {
            self.members_bytes -= size_of_members(texts);
            if let Some(deadline_ms) = texts.deadline_ms() {
                self.deadlines.remove(&(deadline_ms, id));
            }
        }
        if let Some(members) = texts.and_then(|texts| texts.members) {
            self.digests.push_back((place, digest(id, &members)));
        }
        if let Some(reference) = reference {
            self.references.push(place, &reference);
        }
    }

    /// The first deadline that is to pass, ms.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Takes out a payment whose deadline has passed.
    pub(super) fn take_expired(&mut self, now_ms: u64) -> Option<CorrelationId> {
        if self.next_deadline_ms()? > now_ms {
            return None;
        }
        self.deadlines.pop_first().map(|(_, id)| id)
    }

    /// Ids before this place are forgotten.
    pub(super) fn forget_before(&mut self, place: u64) {
        while self.digests.front().is_some_and(|(front, _)| *front < place) {
            self.digests.pop_front();
        }
        while self.references.ends.front().is_some_and(|(front, _)| *front < place) {
            self.references.drop_first();
        }
    }

    /// Of an open payment.
    pub(super) fn of_open(&self, id: CorrelationId) -> Option<&Texts> {
        if self.open.is_empty() { None } else { self.open.get(&id) }
    }

    /// Whether these are the members of a payment that ended, at this place.
    pub(super) fn has_ended_with(&self, id: CorrelationId, place: u64, members: Option<&str>) -> bool {
        let kept = find(&self.digests, place).map(|index| self.digests[index].1);
        kept == members.map(|members| digest(id, members))
    }

    /// Of a payment that ended, at this place.
    pub(super) fn reference_at(&self, place: u64) -> Option<String> {
        find(&self.references.ends, place).map(|index| self.references.text(index))
    }

    /// Bytes of open payments' members, each counted with [`MEMBERS_OVERHEAD`].
    pub(super) fn members_bytes(&self) -> usize {
        self.members_bytes
    }

    /// Bytes of a snapshot's records and pages, at most: open payments' in parts of 32, and rows of 12 and 69.
    pub(super) fn export_size_max(&self) -> usize {
        2 * self.members_bytes
            + 192 * self.open.len()
            + 12 * self.digests.len()
            + 69 * self.references.ends.len()
    }

    /// Digests of the ids at these places.
    pub(super) fn digests_of(&self, places: &Range<u64>) -> impl Iterator<Item = (u64, Digest)> {
        range(&self.digests, places).map(|index| self.digests[index])
    }

    /// References of the ids at these places.
    pub(super) fn references_of(&self, places: &Range<u64>) -> impl Iterator<Item = (u64, String)> {
        range(&self.references.ends, places)
            .map(|index| (self.references.ends[index].0, self.references.text(index)))
    }

    /// A snapshot's row.
    pub(super) fn import_digest(&mut self, place: u64, digest: Digest) -> Result<(), Misfit> {
        if self.digests.back().is_some_and(|(last, _)| *last >= place) {
            return Err(OUT_OF_ORDER);
        }
        self.digests.push_back((place, digest));
        Ok(())
    }

    /// Likewise.
    pub(super) fn import_reference(&mut self, place: u64, reference: &str) -> Result<(), Misfit> {
        if self.references.ends.back().is_some_and(|(last, _)| *last >= place) {
            return Err(OUT_OF_ORDER);
        }
        self.references.push(place, reference);
        Ok(())
    }
}

impl References {
    fn push(&mut self, place: u64, reference: &str) {
        self.text.extend(reference.as_bytes());
        self.ends.push_back((place, self.dropped + self.text.len() as u64));
        while self.text.len() + REFERENCE_OVERHEAD * self.ends.len() > REFERENCES_BYTES_MAX {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, end)) = self.ends.pop_front() {
            let size = usize::try_from(end - self.dropped).expect("it is in memory");
            self.text.drain(..size);
            self.dropped = end;
        }
    }

    fn text(&self, index: usize) -> String {
        let at = |end: u64| usize::try_from(end - self.dropped).expect("it is in memory");
        let start = index.checked_sub(1).map_or(0, |before| at(self.ends[before].1));
        let bytes = self.text.range(start..at(self.ends[index].1)).copied().collect();
        String::from_utf8(bytes).unwrap_or_default()
    }
}

fn size_of_members(texts: &Texts) -> usize {
    texts.members.as_ref().map_or(0, |members| members.len() + MEMBERS_OVERHEAD)
}

/// Where the row of this place stands.
fn find<V>(rows: &VecDeque<(u64, V)>, place: u64) -> Option<usize> {
    rows.binary_search_by_key(&place, |(at, _)| *at).ok()
}

/// Where the rows of these places stand.
fn range<V>(rows: &VecDeque<(u64, V)>, places: &Range<u64>) -> Range<usize> {
    let begin = |place| rows.partition_point(|(at, _)| *at < place);
    begin(places.start)..begin(places.end)
}

#[allow(
    deprecated,
    reason = "SipHash-2-4 by name: DefaultHasher may become another function, and this stands in snapshots"
)]
fn digest(id: CorrelationId, members: &str) -> Digest {
    let [low, high] = [0, 8].map(|at| u64::from_le_bytes(*id.0[at..].first_chunk().expect("half an id")));
    let mut hasher = std::hash::SipHasher::new_with_keys(low, high);
    hasher.write(members.as_bytes());
    hasher.finish().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: CorrelationId = CorrelationId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    fn empty() -> Attachments {
        Attachments::new(IdHash::new(1))
    }

    /// From the reference implementation's vectors: the key 00 to 0f, the texts 00, 00 01 and so on. They stand in snapshots.
    #[test]
    fn the_digest_is_what_it_was() {
        assert_eq!(digest(ID, ""), [0x31, 0x0e, 0x0e, 0xdd, 0x47, 0xdb, 0x6f, 0x72]);
        assert_eq!(digest(ID, "\0"), [0xfd, 0x67, 0xdc, 0x93, 0xc5, 0x39, 0xf8, 0x74]);
        assert_eq!(digest(ID, "\0\u{1}\u{2}"), [0x2d, 0x7e, 0xfb, 0xd7, 0x96, 0x66, 0x67, 0x85]);
    }

    #[test]
    fn what_is_kept_of_ended_payments_is_found_by_place_and_goes_with_them() {
        let mut kept = empty();
        for place in 0..100 {
            let members = (place % 3 == 0).then(|| Arc::from(format!("{{\"n\":{place}}}")));
            kept.accepted(ID, Texts { members, reference: None });
            let reference = (place % 2 == 0).then(|| Arc::from(format!("pi_{place}")));
            kept.ended(ID, place, reference);
        }
        assert_eq!((kept.members_bytes(), kept.open.len()), (0, 0));
        for first in [0, 1, 37, 99, 100] {
            kept.forget_before(first);
            for place in 0..100 {
                let members = format!("{{\"n\":{place}}}");
                let is_kept = place >= first && place % 3 == 0;
                assert_eq!(kept.has_ended_with(ID, place, Some(&members)), is_kept);
                assert_eq!(kept.has_ended_with(ID, place, None), !is_kept);
                let reference = (place >= first && place % 2 == 0).then(|| format!("pi_{place}"));
                assert_eq!(kept.reference_at(place), reference);
            }
        }
        assert!(kept.references.text.is_empty());
    }

    #[test]
    fn references_have_a_bound_and_the_oldest_goes_first() {
        let mut kept = empty();
        let len = (REFERENCES_BYTES_MAX / (64 + REFERENCE_OVERHEAD)) as u64;
        for place in 0..len + 5 {
            kept.ended(ID, place, Some(Arc::from(format!("{place:064}"))));
            assert!(kept.references.text.len() + 16 * kept.references.ends.len() <= REFERENCES_BYTES_MAX);
        }
        assert_eq!(kept.reference_at(4), None);
        assert_eq!(kept.reference_at(5), Some(format!("{:064}", 5)));
        assert_eq!(kept.reference_at(len + 4), Some(format!("{:064}", len + 4)));
    }

    #[test]
    fn members_are_counted_while_their_payment_is_open() {
        let mut kept = empty();
        kept.accepted(ID, Texts { members: Some(Arc::from("{}")), reference: None });
        assert_eq!(kept.members_bytes(), 2 + MEMBERS_OVERHEAD);
        kept.named(ID, Arc::from("pi_1"));
        kept.unnamed(ID);
        assert_eq!(kept.of_open(ID), Some(&Texts { members: Some(Arc::from("{}")), reference: None }));
        kept.ended(ID, 0, None);
        assert_eq!((kept.members_bytes(), kept.of_open(ID)), (0, None));
    }
}
