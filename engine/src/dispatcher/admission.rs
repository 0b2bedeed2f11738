//! Grants that this gateway makes by itself, in the admission table of its host.
//!
//! What the table cannot say, the aggregator is asked; without a table it is asked always. Which of the two granted a payment makes no difference
//! to what becomes of it.

use galo_admission::{Claimed, Claimer, Grant};
use galo_wire::{CorrelationId, Stage};

use super::payment::{NewPayment, Place};
use super::{Answer, Dispatcher, Side};
use crate::money::AmountCents;
use crate::router::Reason;
use crate::texts::Texts;
use crate::time::Now;

impl Dispatcher {
    /// Grants by this claimer from now on, or by none. The one before is given back.
    pub fn admit_by(&mut self, claimer: Option<Claimer>) -> Option<Claimer> {
        std::mem::replace(&mut self.claimer, claimer)
    }

    /// Whether POSTs are answered although the aggregator is away.
    #[must_use]
    pub fn grants_by_itself(&self) -> bool {
        self.claimer.as_ref().is_some_and(|claimer| claimer.credit() > 0)
    }

    /// Decides about a POST without members, if the table can: true if it is answered.
    pub(super) fn admit(
        &mut self,
        ticket: u32,
        correlation_id: CorrelationId,
        amount: AmountCents,
        (plan, reason): (Option<Place>, Reason),
        now: Now,
    ) -> bool {
        let Some(claimer) = &mut self.claimer else { return false };
        let grant = Grant {
            correlation_id,
            amount_cents: amount.get(),
            decided_at_ms: now.unix_ms.0,
            stage: plan.map_or(Stage::Waiting, |place| Stage::at(place.processor)),
            reason,
        };
        let answer = match claimer.claim(&grant) {
            Claimed::Granted => Answer::Granted,
            Claimed::Replayed => Answer::Replayed,
            Claimed::Conflict => Answer::Conflict,
            // The aggregator would say so, and is not there.
            Claimed::LikelyReplayed if !self.connected => Answer::Replayed,
            Claimed::LikelyReplayed | Claimed::Unclear => return false,
        };
        self.answer(ticket, answer);
        if answer != Answer::Granted {
            if let Some(place) = plan {
                self.cancel(place, now);
            }
            return true;
        }
        self.counters.admitted += 1;
        self.counters.decisions[reason as usize] += u64::from(reason == Reason::Queued);
        self.drop_recalled_before(correlation_id, now);
        let slot = self.insert(NewPayment { correlation_id, amount, plan, ticket: None }.at(now));
        self.texts.hold(slot, Texts::default());
        match plan {
            Some(place) => self.attempt(slot, place, now),
            None => {
                self.wait(slot, Side::Back);
                self.pump(now);
            }
        }
        true
    }
}
