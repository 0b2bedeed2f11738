//! How a payment becomes a gateway's: by an accept, or by the claim of one that had it before.

use galo_wire::record::{Accept, Admission, Claim, Grant};
use galo_wire::{CorrelationId, Outcome, Reason, Stage};

use super::{Coordinator, Rejection, SessionId};
use crate::ledger::{Entry, Known};
use crate::texts::Texts;
use crate::time::Now;

impl Coordinator {
    /// A gateway asks for a payment.
    pub(super) fn accept(&mut self, session: SessionId, accept: Accept, members: Option<&str>, now: Now) {
        let Accept { slot, correlation_id, amount_cents, decided_at_ms, expires_at_us, stage, reason } =
            accept;
        let texts = Texts { members: members.map(Into::into), reference: None };
        let known_as = |this: &Self, known| {
            let known_cents = match known {
                Known::Open(payment) => payment.amount_cents,
                Known::Processed { amount_cents, .. } | Known::Declined { amount_cents, .. } => amount_cents,
                Known::Absent => return None,
            };
            let is_same = known_cents == amount_cents && this.ledger.came_with(correlation_id, members);
            Some(if is_same { Admission::Replayed } else { Admission::Conflict })
        };
        let admission = match known_as(self, self.ledger.lookup(correlation_id)) {
            Some(known) => known,
            // It lay in a socket while this process stood still. Granting it now would charge a client who was refused.
            None if now.monotonic_us > expires_at_us => Admission::Expired,
            None if !self.has_place(amount_cents) || !self.ledger.has_room_for(members) => Admission::Full,
            None if self.reserve(correlation_id, amount_cents, &texts) => {
                self.attach(&texts);
                self.apply(Entry::Accepted {
                    correlation_id,
                    amount_cents,
                    stage,
                    decided_at_ms,
                    in_doubt: false,
                    reason,
                });
                self.ledger.set_owner(correlation_id, Some(session));
                Admission::Granted
            }
            // A gateway has granted it by itself just now; without that grant its table is damaged, and the process ends.
            None => known_as(self, self.ledger.lookup(correlation_id)).unwrap_or(Admission::Full),
        };
        match admission {
            Admission::Granted => {}
            Admission::Replayed => self.counters.replayed += 1,
            Admission::Conflict => self.counters.conflicts += 1,
            Admission::Full => self.counters.full += 1,
            Admission::Expired => self.counters.expired += 1,
        }
        self.send(session, Grant { slot, correlation_id, admission });
    }

    /// A gateway that reconnects says what it holds.
    ///
    /// | the ledger has it | then |
    /// | --- | --- |
    /// | not at all (memory lost) | as the gateway says, and its own |
    /// | not at all, and there is no room for it | none of ours: the connection ends, and the gateway keeps it until there is |
    /// | not at all, after a purge | withdrawn: its gateway was away when everything was forgotten |
    /// | not at all, after ids were forgotten | withdrawn: it may be one of them, and would be counted twice |
    /// | with nobody, at the same stage, and no later attempt is known | its own |
    /// | with nobody, at the attempt that the gateway last had, which it saw refused or never sent | its own, waiting |
    /// | with nobody, with another amount or other members: it ended, was forgotten and came anew while its gateway was away | withdrawn |
    /// | with nobody, otherwise | its own, but as the ledger says: withdrawn and assigned anew, in doubt if recorded |
    /// | with somebody, processed or declined | withdrawn |
    pub(super) fn claim(&mut self, session: SessionId, claim: Claim, texts: &Texts) -> Result<(), Rejection> {
        let Claim { slot, correlation_id, amount_cents, requested_at_ms, stage, in_doubt } = claim;
        // A claim that waits names the attempt that it gave up, if there was one.
        let waits = stage == Stage::Waiting;
        match self.ledger.lookup(correlation_id) {
            Known::Absent if self.ledger.was_purged() || self.ledger.has_forgotten() => {
                self.withdraw(session, slot, correlation_id);
            }
            Known::Absent
                if !self.has_place(amount_cents) || !self.ledger.has_room_for(texts.members.as_deref()) =>
            {
                return Err(Rejection::TooManyClaims);
            }
            // Somebody was granted it a moment ago: what is claimed is of before the ledger's memory.
            Known::Absent if !self.reserve(correlation_id, amount_cents, texts) => {
                self.withdraw(session, slot, correlation_id);
            }
            Known::Absent => {
                self.attach(texts);
                self.apply(Entry::Accepted {
                    correlation_id,
                    amount_cents,
                    stage,
                    decided_at_ms: requested_at_ms,
                    in_doubt,
                    reason: Reason::Unstated,
                });
                self.ledger.set_owner(correlation_id, Some(session));
                self.counters.claimed += 1;
            }
            Known::Open(payment) if payment.owner.is_none() => {
                self.counters.claimed += 1;
                let is_same = payment.amount_cents == amount_cents
                    && self.ledger.came_with(correlation_id, texts.members.as_deref());
                let is_of_before = stage.processor().is_some_and(|processor| {
                    self.is_of_before(correlation_id, &payment, (processor, requested_at_ms), amount_cents)
                });
                // Of a former life, which was forgotten.
                if !is_same || is_of_before {
                    // It goes to somebody with the next hand-over, behind what this gateway has to say of the other one.
                    self.stray(session);
                    self.withdraw(session, slot, correlation_id);
                } else if waits
                    && !payment.in_doubt
                    && payment.requested_at_ms == requested_at_ms
                    && let Some(processor) = payment.stage.processor()
                {
                    // Nobody else has had it since: whoever takes over a recorded attempt has it in doubt.
                    let outcome = Outcome::Refused;
                    self.resolve(correlation_id, processor, requested_at_ms, outcome);
                    self.ledger.set_owner(correlation_id, Some(session));
                } else if payment.stage == stage
                    && (payment.requested_at_ms == requested_at_ms
                        || waits && payment.requested_at_ms < requested_at_ms)
                {
                    if in_doubt
                        && !payment.in_doubt
                        && let Some(processor) = stage.processor()
                    {
                        let outcome = Outcome::Unknown;
                        self.resolve(correlation_id, processor, requested_at_ms, outcome);
                    }
                    self.ledger.set_owner(correlation_id, Some(session));
                    self.learn_reference(correlation_id, texts.reference.as_deref());
                } else {
                    self.withdraw(session, slot, correlation_id);
                    self.assign(session, correlation_id, payment);
                }
            }
            Known::Open(payment) if payment.owner == Some(session) => {}
            Known::Open(_) | Known::Processed { .. } | Known::Declined { .. } => {
                self.stray(session);
                self.withdraw(session, slot, correlation_id);
            }
        }
        Ok(())
    }

    /// The texts of the entry that is applied next.
    pub(super) fn attach(&mut self, texts: &Texts) {
        texts.entries().for_each(|part| self.apply(part));
    }

    /// A payment in doubt, or pending, has got a name from the processor that may have it.
    pub(super) fn learn_reference(&mut self, correlation_id: CorrelationId, reference: Option<&str>) {
        let Some(reference) = reference else { return };
        if let Known::Open(payment) = self.ledger.lookup(correlation_id)
            && let Some(processor) = payment.stage.processor()
            && payment.in_doubt
            && self.ledger.reference(correlation_id).as_deref() != Some(reference)
        {
            self.attach(&Texts { members: None, reference: Some(reference.into()) });
            self.resolve(correlation_id, processor, payment.requested_at_ms, Outcome::Unknown);
        }
    }
}
