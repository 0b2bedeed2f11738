//! Handing over: who gets the payments that nobody works on.
//!
//! In portions, since they may be all that there are, and as many to each gateway as it says that it holds. What no gateway has room for waits in the
//! ledger, which has it anyway. Recorded attempts go first, and beyond that room: they may be charged.

use super::{Coordinator, Session, SessionId};
use crate::time::Now;

/// Attempts that somebody who is gone has recorded are handed over first, and so many of them also to a gateway that has no room: they may be charged, and
/// nobody knows until they are looked up. As many as lanes of a dozen gateways; 0.5 MB.
const DOUBTS_BEYOND: usize = 4_096;

/// Messages of a hand-over between two looks at what else there is: 0.6 MiB on their way to gateways.
const HAND_OVER_LEN_MAX: usize = 16_384;

impl Coordinator {
    /// Whether there is something to hand over, and a gateway that would take it.
    pub(super) fn hand_over_is_due(&self) -> bool {
        let beyond = if self.doubts_unowned { DOUBTS_BEYOND } else { 0 };
        let has_room = |(session, number): (&Option<Session>, u16)| {
            session.is_some_and(|session| self.places(SessionId(number), session, beyond) > 0)
        };
        self.ledger.unowned_len() > 0 && self.sessions.iter().zip(0_u16..).any(has_room)
    }

    /// Gives the payments that nobody works on to the gateways in turn: a portion of them, the rest with the next ticks. What no gateway has room
    /// for waits here until one has.
    pub(super) fn hand_over(&mut self, now: Now) {
        let in_grace = now.monotonic_us < self.started_us + self.config.claim_grace_us;
        if in_grace {
            return;
        }
        let len_max = self.messages.len() + HAND_OVER_LEN_MAX;
        if self.doubts_unowned {
            let doubts = self.ledger.unowned_doubts(HAND_OVER_LEN_MAX);
            self.doubts_unowned = doubts.len() == HAND_OVER_LEN_MAX;
            for (id, payment) in doubts {
                let has_room =
                    |this: &Self, number, session| this.places_now(number, session, DOUBTS_BEYOND) > 0;
                let Some(session) = self.next_session(has_room) else {
                    self.doubts_unowned = true;
                    break;
                };
                self.assign(session, id, payment);
            }
        }
        while self.ledger.unowned_len() > 0 && self.messages.len() < len_max {
            let sessions = self.sessions.iter().zip(0_u16..);
            let room = sessions.fold(0, |sum: usize, (session, number)| {
                let places = session.map_or(0, |session| self.places_now(SessionId(number), session, 0));
                sum.saturating_add(places)
            });
            let portion = room.min(len_max - self.messages.len());
            if portion == 0 {
                return;
            }
            let (part, orphans) = self.ledger.unowned_from(self.hand_over_part, portion);
            self.hand_over_part = part;
            for (id, payment) in orphans {
                let session =
                    self.next_session(|this, number, session| this.places_now(number, session, 0) > 0);
                self.assign(session.expect("there is room for as many"), id, payment);
            }
        }
    }

    /// How many payments more a gateway would take, if it took so many beyond its room.
    fn places(&self, number: SessionId, session: Session, beyond: usize) -> usize {
        let held_len_max = usize::try_from(session.held_len_max).unwrap_or(usize::MAX);
        let len_max = held_len_max.saturating_add(beyond);
        if session.ready { len_max.saturating_sub(self.ledger.owned_len(number)) } else { 0 }
    }

    /// Likewise, for now.
    fn places_now(&self, number: SessionId, session: Session, beyond: usize) -> usize {
        if session.held_up { 0 } else { self.places(number, session, beyond) }
    }
}
