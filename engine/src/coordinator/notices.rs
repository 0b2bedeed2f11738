//! Notifications: whichever gateway a processor tells, the payment's owner hears of it.
//!
//! Must never: change anything. A notice about a payment that is not open, not with that processor or nobody's is dropped: what becomes of
//! that payment does not hang on it.

use galo_wire::record::{Notice, Notified};

use super::Coordinator;
use crate::ledger::Known;

impl Coordinator {
    /// Passes a processor's word on to the gateway whose look-up it brings forward.
    pub(super) fn notice(&mut self, notice: Notice) {
        let Notice { correlation_id, processor } = notice;
        let owner = match self.ledger.lookup(correlation_id) {
            Known::Open(payment) if payment.stage.processor() == Some(processor) => payment.owner,
            Known::Open(_) | Known::Processed { .. } | Known::Declined { .. } | Known::Absent => None,
        };
        match owner {
            Some(owner) => {
                self.counters.notices_passed_on += 1;
                self.send(owner, Notified { correlation_id, processor });
            }
            None => self.counters.notices_dropped += 1,
        }
    }
}
