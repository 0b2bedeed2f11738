//! Connections that fail while their processor does not: those on which nothing is heard any more, and those that it closes as they are used.
//!
//! What is known of the former is the outlook's ([`crate::silence`]); what becomes of the payments is decided here. An attempt is given up only where its
//! payment can be settled sooner than by waiting: by the same request, where the processor bears it twice at the same time, or by a look-up. No payment has
//! an attempt given up twice: one that is silent over a fresh connection, too, is silent for another reason.
//!
//! A hang-up may be answered by the same attempt at once, once for each payment in a row: the next one goes over a fresh connection, and how that ends is
//! evidence as ever.

use galo_wire::Processor;

use super::payment::{Cause, GivenUp, State};
use super::{Action, Dispatcher, key_of};
use crate::time::Now;
use crate::verdict::End;

impl Dispatcher {
    /// A processor closed a connection that was kept before a byte of its answer to an attempt. Called instead of [`Self::attempt_ended`].
    pub fn attempt_hung_up(&mut self, slot: u32, latency_us: u64, now: Now) {
        let payment = self.payments[key_of(slot)];
        let mut cause = Cause::Usual;
        if let State::Attempting(processor, ..) = payment.state
            && payment.tries == 0
        {
            cause = Cause::HungUp;
            self.counters.hung_up[processor.index()] += 1;
            self.actions.push(Action::Renew { processor });
        }
        self.ended(slot, End::UNANSWERED, latency_us, cause, now);
    }

    /// New attempts go over other connections than those on which nothing is heard.
    pub(super) fn renew_where_silent(&mut self, processor: Processor) {
        if self.outlooks[processor.index()].take_renewal() {
            self.actions.push(Action::Renew { processor });
        }
    }

    /// Gives up what is silent while others are answered.
    pub(super) fn give_up_silent(&mut self, now: Now) {
        for index in 0..self.outlooks.len() {
            for slot in self.outlooks[index].give_up(now) {
                self.give_up_attempt(slot, now);
            }
        }
    }

    fn give_up_attempt(&mut self, slot: u32, now: Now) {
        let payment = self.payments[key_of(slot)];
        let State::Attempting(processor, sent, given_up) = payment.state else {
            unreachable!("what is outstanding is on its way, in state {:?}", payment.state);
        };
        let policy = self.config.processors[processor.index()].doubt;
        let is_sent_again = policy.give_up_us == 0 && self.may_send_again(&payment, processor, now);
        // Whoever takes it over from a gateway that stops would send it again at once.
        let is_settled = is_sent_again || (policy.has_lookup && !self.draining);
        if payment.withdrawn || given_up != GivenUp::No || !is_settled {
            return;
        }
        self.payment(slot).state = State::Attempting(processor, sent, GivenUp::Now);
        self.counters.given_up[processor.index()] += 1;
        self.actions.push(Action::GiveUp { slot, processor });
    }
}
