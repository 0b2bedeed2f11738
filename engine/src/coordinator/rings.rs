//! The admission table's side of the ledger: takes in what gateways granted by themselves, and keeps them from what they may not grant.
//!
//! Every event begins with [`Coordinator::take_grants`]: what the ledger is asked or told then, it is asked or told with all payments that
//! gateways had granted before. A ring that nobody fills costs one look.
//!
//! | a ring's gateway | then |
//! | --- | --- |
//! | says hello for the first time | gets a ring whose owner is gone for good and of which all is written, once its claims are in, or as soon as there is one: until then it asks for each payment |
//! | says hello again | what its ring holds is its own from now on; it is opened once its claims are in |
//! | goes away | its ring is closed, what it holds is taken and, like all that it owned, somebody else's, attempts in doubt |
//! | does not come back after our start | likewise, once the time for claims is over |
//! | hears of a purge | its ring was closed before, and is opened behind that |
//!
//! Must never: let somebody grant from a ring whose former owner may still fill it; promise more places than there are.

use std::collections::VecDeque;

use galo_admission::{Corrupt, Published, RINGS_LEN_MAX, Registrar, Reserved};
use galo_wire::record::{Hello, Opened};
use galo_wire::{CorrelationId, Stage};

use super::{Coordinator, SessionId};
use crate::ledger::{Entry, Known};
use crate::money::AmountCents;
use crate::texts::Texts;
use crate::time::Now;

/// Of the places that are free and not promised to others, one part of so many is promised to a ring, and half of all at
/// most to all of them: whoever asks the aggregator finds the rest.
const PROMISED_SHARE: u64 = 4;

/// The table, and whose its rings are.
pub(super) struct Rings {
    registrar: Registrar,
    /// Whether the process that had a ring before has let it go, or died.
    is_abandoned: Box<dyn Fn(usize) -> bool>,
    sessions: [Option<SessionId>; RINGS_LEN_MAX],
    /// Whose ring is opened once its claims are in.
    awaited: [bool; RINGS_LEN_MAX],
    /// The next entry's number in the journal.
    journal_sequence: u64,
    /// An id that is among the known already, and not in the ledger yet.
    reserved: Option<CorrelationId>,
    /// Ids whose amounts are not among the known, with the numbers of the records that hold them: a gateway that is alone may say that they come
    /// again once these are written.
    unwritten: VecDeque<(u64, CorrelationId, u64)>,
    /// Ids that the ledger has forgotten, with the numbers of the records that made it forget: until these are written another aggregator may find them
    /// open, and no gateway may grant them.
    forgotten: VecDeque<(u64, CorrelationId, u64)>,
    /// Those whose owners have not come back after our start are closed.
    are_settled: bool,
    corrupt: Option<Corrupt>,
    /// Grants taken in.
    taken: u64,
    /// Grants of ids that the ledger remembers, after a start that was told to remember more than the one before.
    comebacks: u64,
}

impl Coordinator {
    /// Grants by this table as well from now on. The ledger has all that the journal held, and `journal_sequence` is the number of the record that is
    /// written next. Whether the owner of a ring is gone for good, the shell knows. A table of another boot may be older than the journal in part.
    ///
    /// # Errors
    /// If what a gateway granted is damaged.
    pub fn admit_by(
        &mut self,
        mut registrar: Registrar,
        journal_sequence: u64,
        is_of_this_boot: bool,
        is_abandoned: impl Fn(usize) -> bool + 'static,
    ) -> Result<(), Corrupt> {
        for ring in 0..RINGS_LEN_MAX {
            // An aggregator before this one has taken these, and died before it could say so.
            while let Some(Published { journaled_as, .. }) = registrar.published(ring)? {
                let Some(number) = journaled_as.filter(|number| *number < journal_sequence) else { break };
                registrar.took(ring, number);
            }
        }
        registrar.written(journal_sequence);
        self.rings = Some(Rings {
            registrar,
            is_abandoned: Box::new(is_abandoned),
            sessions: [None; RINGS_LEN_MAX],
            awaited: [false; RINGS_LEN_MAX],
            journal_sequence: journal_sequence + self.entries.len() as u64,
            reserved: None,
            unwritten: VecDeque::new(),
            forgotten: VecDeque::new(),
            are_settled: false,
            corrupt: None,
            taken: 0,
            comebacks: 0,
        });
        self.ledger.keep_forgotten_ids();
        self.rings_are_aged = !is_of_this_boot;
        self.take_grants();
        self.rings_are_aged = false;
        let rings = self.rings.as_mut().expect("set above");
        if let Some(corrupt) = rings.corrupt {
            return Err(corrupt);
        }
        rings.registrar.remember_exactly(self.ledger.known_ids());
        Ok(())
    }

    /// What a gateway granted is not what it wrote: nothing is to be done on top of it.
    #[must_use]
    pub fn corrupt(&self) -> Option<Corrupt> {
        self.rings.as_ref().and_then(|rings| rings.corrupt)
    }

    /// Grants taken in from the table since the start, and ids that it had no room for.
    #[must_use]
    pub fn taken(&self) -> (u64, u64) {
        self.rings.as_ref().map_or((0, 0), |rings| (rings.taken, rings.registrar.full_count()))
    }

    /// The journal has all records before this one.
    pub fn written(&mut self, journal_sequence: u64) {
        if let Some(rings) = &mut self.rings {
            rings.registrar.written(journal_sequence);
            while let Some((_, id, cents)) =
                rings.unwritten.pop_front_if(|(number, ..)| *number < journal_sequence)
            {
                rings.registrar.remember_amount(id, cents);
            }
            while let Some((_, id, cents)) =
                rings.forgotten.pop_front_if(|(number, ..)| *number < journal_sequence)
            {
                rings.registrar.forget(id, cents);
            }
            self.promise_places();
        }
    }

    /// Takes in what gateways have granted by themselves.
    pub fn take_grants(&mut self) {
        for ring in 0..RINGS_LEN_MAX {
            while let Some(published) = self.next_grant(ring) {
                self.take(ring, published);
            }
        }
    }

    fn next_grant(&mut self, ring: usize) -> Option<Published> {
        let rings = self.rings.as_mut().filter(|rings| rings.corrupt.is_none())?;
        match rings.registrar.published(ring) {
            Ok(published) => published,
            Err(corrupt) => {
                rings.corrupt = Some(corrupt);
                None
            }
        }
    }

    fn take(&mut self, ring: usize, published: Published) {
        let rings = self.rings.as_mut().expect("it holds a grant");
        let grant = published.grant;
        let known = self.ledger.lookup(grant.correlation_id);
        let is_open = matches!(known, Known::Open(_));
        if is_open && self.rings_are_aged || !is_open && known != Known::Absent {
            // An aggregator that was told to remember fewer ids had forgotten it, and wrote nothing; or the table is of another boot. It is no new payment
            // after all.
            rings.comebacks += 1;
            rings.registrar.took(ring, rings.journal_sequence);
            return;
        }
        let is_sound = AmountCents::new(grant.amount_cents).is_some()
            && known == Known::Absent
            && grant.stage.processor().is_none_or(|it| self.config.ledger.processors.has(it));
        if !is_sound {
            // No gateway grants what the ledger has open, or for nothing.
            rings.corrupt = Some(Corrupt { ring, sequence: published.sequence });
            return;
        }
        let (number, owner) = (rings.journal_sequence, rings.sessions[ring]);
        rings.taken += 1;
        // It outlives every process where it is, until it is written.
        rings.registrar.remember(grant.correlation_id, Some(grant.amount_cents));
        rings.reserved = Some(grant.correlation_id);
        self.apply(Entry::Accepted {
            correlation_id: grant.correlation_id,
            amount_cents: grant.amount_cents,
            stage: grant.stage,
            decided_at_ms: grant.decided_at_ms,
            in_doubt: false,
            reason: grant.reason,
        });
        self.ledger.set_owner(grant.correlation_id, owner);
        self.doubts_unowned |= owner.is_none() && grant.stage != Stage::Waiting;
        let rings = self.rings.as_mut().expect("as above");
        rings.registrar.took(ring, number);
    }

    /// Lets no gateway grant this id by itself any more: true if the ledger may. Else somebody has, and the ledger has it now.
    pub(super) fn reserve(&mut self, id: CorrelationId, amount_cents: u64, texts: &Texts) -> bool {
        let Some(rings) = &mut self.rings else { return true };
        rings.registrar.remember(id, None);
        match rings.registrar.reserve(id) {
            Reserved::Free => {
                rings.reserved = Some(id);
                if texts.members.is_none() {
                    // Its record comes behind those of its texts.
                    let number = rings.journal_sequence + texts.entries().count() as u64;
                    rings.unwritten.push_back((number, id, amount_cents));
                }
                true
            }
            Reserved::Granted => {
                rings.registrar.forget(id, amount_cents);
                self.take_grants();
                false
            }
        }
    }

    /// Places among the open payments that are promised to gateways.
    pub(super) fn promised(&self) -> u64 {
        let Some(rings) = &self.rings else { return 0 };
        (0..RINGS_LEN_MAX).map(|ring| rings.registrar.promised(ring)).sum()
    }

    /// Whether there is a place for one more payment that the aggregator is asked for.
    pub(super) fn has_place(&self, amount_cents: u64) -> bool {
        let open_len = self.ledger.conservation().open.count;
        self.ledger.has_room(amount_cents) && open_len + self.promised() < self.ledger.open_len_max() as u64
    }

    /// Promises some of the places that are free.
    fn promise_places(&mut self) {
        let Some(rings) = &mut self.rings else { return };
        let open_len = self.ledger.conservation().open.count;
        for ring in 0..RINGS_LEN_MAX {
            let others = (0..RINGS_LEN_MAX).filter(|other| *other != ring);
            let others: u64 = others.map(|other| rings.registrar.promised(other)).sum();
            let len_max = self.ledger.open_len_max() as u64;
            let free = len_max.saturating_sub(open_len + others);
            let promised = (free / PROMISED_SHARE).min((len_max / 2).saturating_sub(others));
            // That the books can hold as many of the largest amount.
            if self.ledger.has_room(AmountCents::MAX.get().saturating_mul(others + promised)) {
                rings.registrar.promise(ring, promised);
            }
        }
    }

    /// This process is about to end: no gateway grants anything any more, and the ledger has all that they granted.
    pub fn end_grants(&mut self) {
        let Some(rings) = &mut self.rings else { return };
        for ring in 0..RINGS_LEN_MAX {
            rings.registrar.close(ring);
            (rings.sessions[ring], rings.awaited[ring]) = (None, false);
        }
        self.take_grants();
    }

    /// A gateway says hello: what it granted before is its own.
    pub(super) fn bind_ring(&mut self, session: SessionId, hello: Hello) {
        self.take_grants();
        let Some(rings) = &mut self.rings else { return };
        let holder = holder_of(hello);
        let its_own = (0..RINGS_LEN_MAX).find(|ring| rings.registrar.holder(*ring) == holder);
        let is_free = |ring: usize, registrar: &mut Registrar| {
            let is_held = registrar.holder(ring) != 0
                && (rings.sessions[ring].is_some() || registrar.is_open(ring) || !(rings.is_abandoned)(ring));
            !is_held && registrar.clear_away(ring)
        };
        let Some(ring) =
            its_own.or_else(|| (0..RINGS_LEN_MAX).find(|ring| is_free(*ring, &mut rings.registrar)))
        else {
            return;
        };
        rings.sessions[ring] = Some(session);
        rings.awaited[ring] = true;
        rings.registrar.hold(ring, holder);
    }

    /// A gateway's claims are in: it may grant.
    pub(super) fn open_ring(&mut self, session: SessionId) {
        let Some(rings) = &mut self.rings else { return };
        let Some(ring) = (0..RINGS_LEN_MAX).find(|ring| rings.sessions[*ring] == Some(session)) else {
            return;
        };
        if !std::mem::take(&mut rings.awaited[ring]) {
            return;
        }
        // One that an aggregator before this one had opened: what it was promised then is not promised any more, and is counted.
        rings.registrar.close(ring);
        self.take_grants();
        let rings = self.rings.as_mut().expect("as above");
        let opened = rings.registrar.open(ring);
        let region = rings.registrar.table().identity().region;
        let opened = Opened { region, ring: ring_number(ring), opening: opened.opening };
        self.promise_places();
        self.send(session, opened);
    }

    /// Gateways that found no free ring have one as soon as there is one.
    pub(super) fn seek_rings(&mut self) {
        let Some(rings) = &self.rings else { return };
        let has_none = |session: &SessionId| !rings.sessions.contains(&Some(*session));
        let seeking = self.session_ids(|session| session.ready && !session.superseded);
        let seeking: Vec<_> = seeking.into_iter().filter(has_none).collect();
        for session in seeking {
            if let Some(hello) = self.session_hello(session) {
                self.bind_ring(session, hello);
                self.open_ring(session);
            }
        }
    }

    /// A gateway is gone, or all that it holds is somebody else's: it grants nothing more.
    pub(super) fn close_ring(&mut self, session: SessionId) {
        let Some(rings) = &mut self.rings else { return };
        let Some(ring) = (0..RINGS_LEN_MAX).find(|ring| rings.sessions[*ring] == Some(session)) else {
            return;
        };
        rings.registrar.close(ring);
        self.take_grants();
        let rings = self.rings.as_mut().expect("as above");
        rings.sessions[ring] = None;
        rings.awaited[ring] = false;
    }

    /// After our start: who has not come back by now does not go on from where it was.
    pub(super) fn settle_rings(&mut self, now: Now) {
        if now.monotonic_us < self.started_us + self.config.claim_grace_us {
            return;
        }
        let Some(rings) = &mut self.rings else { return };
        if std::mem::replace(&mut rings.are_settled, true) {
            return;
        }
        for ring in 0..RINGS_LEN_MAX {
            if rings.sessions[ring].is_none() && rings.registrar.is_open(ring) {
                rings.registrar.close(ring);
            }
        }
        self.take_grants();
    }

    /// When [`Self::settle_rings`] is due.
    pub(super) fn rings_due_us(&self) -> u64 {
        match &self.rings {
            Some(rings) if !rings.are_settled => self.started_us + self.config.claim_grace_us,
            _ => u64::MAX,
        }
    }

    /// Everything is about to be forgotten: nobody grants anything until it has heard of it.
    pub(super) fn close_rings(&mut self) {
        let Some(rings) = &mut self.rings else { return };
        for ring in 0..RINGS_LEN_MAX {
            if rings.registrar.is_open(ring) {
                rings.registrar.close(ring);
                rings.awaited[ring] = rings.sessions[ring].is_some();
            }
        }
        self.take_grants();
    }

    /// Whether the known ids change with this entry, once it is applied.
    pub(super) fn note_known(&mut self, entry: &Entry) {
        let Some(rings) = &mut self.rings else { return };
        rings.journal_sequence += 1;
        match *entry {
            Entry::Accepted { correlation_id, .. } => {
                let reserved = rings.reserved.take();
                assert_eq!(reserved, Some(correlation_id), "nothing is accepted that a gateway may grant");
            }
            Entry::Purged => {
                rings.registrar.purge();
                rings.unwritten.clear();
                rings.forgotten.clear();
            }
            _ => {}
        }
        let number = rings.journal_sequence - 1;
        rings.forgotten.extend(self.ledger.forgotten_ids().map(|(id, cents)| (number, id, cents)));
    }
}

/// A number for a thread of a process, never 0: whoever says hello with it is the one that had the ring.
fn holder_of(hello: Hello) -> u64 {
    let Hello { instance, thread, incarnation, .. } = hello;
    let place = u64::from(instance) << 16 | u64::from(thread);
    (incarnation ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
}

fn ring_number(ring: usize) -> u16 {
    u16::try_from(ring).expect("RINGS_LEN_MAX fits")
}
