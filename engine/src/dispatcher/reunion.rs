//! The link to the ledger comes and goes: what is said when it stands again, and after a time in which nothing was heard.
//!
//! Must never: take a payment for this gateway's own because it was before. Until the ledger has heard what is claimed, and what it answered was
//! read, nothing that is in doubt is sent again: another gateway may have proved meanwhile that it is not there, and sent it elsewhere. Nor is it proved then that a
//! processor does not have it: another gateway may have sent it again.

use galo_wire::record::{Acknowledgement, Claim, Ready};
use galo_wire::{Outcome, Stage};

use super::payment::{Doubt, NO_ATTEMPT, State, Unacknowledged};
use super::{ACTIONS_LEN, Action, Dispatcher, key_of};
use crate::router::Reason;
use crate::texts::Texts;
use crate::time::{Now, UnixMillis};

/// A time without any event after which this process is taken to have been stopped, µs: forty times what is between two looks of a gateway that holds something. While its only
/// payment is on its way to a slow processor it is as long, which costs a question.
const STOPPED_US: u64 = 1_000_000;

/// What others held is taken over beyond the queue's bound by one part of so many, so that clients who fill each place as it is freed do not keep it out
/// for ever: 3,515 places of 225,000, filled again with each tick of the aggregator.
const TAKEN_OVER_SHARE: usize = 64;

impl Dispatcher {
    /// The connection to the aggregator stands, hellos are exchanged: say what is held, then ask for work.
    pub fn connected(&mut self, now: Now) {
        self.connected_with(now, |_| {});
    }

    /// Likewise, for a shell that takes the claims as they come: now and then it is shown what is to be sent.
    ///
    /// # Panics
    /// If the connection stands already.
    pub fn connected_with(&mut self, now: Now, mut take: impl FnMut(&mut Vec<Action>)) {
        assert!(!self.connected, "a connection is lost before the next one stands");
        self.connected = true;
        self.event_at_us = self.event_at_us.max(now.monotonic_us);
        // While the ledger was away, its clients waited for their answers.
        self.arrivals.on_interruption(now.monotonic_us);
        // Completions first: a claim for a payment that is processed would only be withdrawn. A ledger that has lost its
        // memory needs the claim before the completion, one that has not ignores it.
        let mut unacknowledged = std::mem::take(&mut self.unacknowledged);
        for Unacknowledged { completion, amount_cents, attempted_at_ms, texts } in &mut unacknowledged {
            self.completion_sequence += 1;
            completion.sequence = self.completion_sequence;
            let parts =
                |texts: &Texts| -> Vec<_> { texts.parts().map(|part| Action::Send(part.into())).collect() };
            if let Some(texts) = texts {
                self.actions.extend(parts(texts));
            }
            self.actions.push(Action::Send(
                Claim {
                    slot: u32::MAX,
                    correlation_id: completion.correlation_id,
                    amount_cents: *amount_cents,
                    requested_at_ms: *attempted_at_ms,
                    stage: match completion.outcome {
                        // Nobody has it, and nobody will.
                        Outcome::Declined => Stage::Waiting,
                        _ => Stage::at(completion.processor),
                    },
                    in_doubt: false,
                }
                .into(),
            ));
            if let Some(texts) = texts
                && completion.outcome == Outcome::Processed
            {
                self.actions.extend(parts(&Texts { members: None, reference: texts.reference.clone() }));
            }
            self.actions.push(Action::Send((*completion).into()));
            if self.actions.len() >= ACTIONS_LEN {
                take(&mut self.actions);
            }
        }
        self.unacknowledged = unacknowledged;
        let slots: Vec<u32> = self.payments.iter().map(|(_, payment)| payment.slot).collect();
        for slot in slots {
            let payment = self.payments[key_of(slot)];
            let claim = |stage, requested_at: UnixMillis| {
                Action::Send(
                    Claim {
                        slot,
                        correlation_id: payment.correlation_id,
                        amount_cents: payment.amount.get(),
                        requested_at_ms: requested_at.0,
                        stage,
                        in_doubt: payment.in_doubt,
                    }
                    .into(),
                )
            };
            match payment.state {
                _ if payment.withdrawn => continue,
                State::Accepting(plan) => {
                    if let Some(place) = plan {
                        self.cancel(place, now);
                        let payment = self.payment(slot);
                        (payment.state, payment.requested_at) = (State::Accepting(None), NO_ATTEMPT);
                    }
                    self.send_accept(slot, Reason::Queued, now);
                    continue;
                }
                // It may be recorded and was not acted upon, but is not named: the ledger's may be another's, and on its way.
                State::Intending(place) => {
                    self.cancel(place, now);
                    self.payment(slot).requested_at = NO_ATTEMPT;
                    self.send_texts(slot);
                    self.actions.push(claim(Stage::Waiting, NO_ATTEMPT));
                    self.come_back(slot, now);
                }
                State::Waiting | State::Deferred => {
                    self.send_texts(slot);
                    self.actions.push(claim(Stage::Waiting, payment.requested_at));
                }
                State::Attempting(processor, ..)
                | State::Doubtful(Doubt { processor, .. })
                | State::Verifying(Doubt { processor, .. }) => {
                    self.send_texts(slot);
                    self.actions.push(claim(Stage::at(processor), payment.requested_at));
                }
            }
            if self.actions.len() >= ACTIONS_LEN {
                take(&mut self.actions);
            }
        }
        self.ask_whose();
        self.pump(now);
    }

    /// An event comes. If there was none for long, though a gateway that holds something looks around forty times a second, the process may have been stopped, and what
    /// was withdrawn from it lies in its socket, or the end of the connection does.
    pub(super) fn wake(&mut self, now: Now) {
        let silent_us = now.monotonic_us.saturating_sub(self.event_at_us);
        self.event_at_us = self.event_at_us.max(now.monotonic_us);
        if silent_us > STOPPED_US && self.connected && !self.draining && !self.payments.is_empty() {
            self.ask_whose();
        }
    }

    /// Has the ledger answer behind all that it has said of whose the payments are. A gateway that stops asks for no work, and sends nothing again.
    fn ask_whose(&mut self) {
        self.unheard.push(self.completion_sequence);
        if !self.draining {
            let queue_len_max = self.config.queue_len_max;
            let held_len_max = (queue_len_max + queue_len_max / TAKEN_OVER_SHARE + 1) as u64;
            self.actions.push(Action::Send(Ready { held_len_max }.into()));
        }
    }

    /// The answer to a Ready is an acknowledgement of number 0, or that of the first completion after it.
    pub(super) fn claims_heard(&mut self, acknowledgement: Acknowledgement) {
        let Acknowledgement { sequence } = acknowledgement;
        match sequence {
            0 if self.unheard.is_empty() => self.counters.stale_records += 1,
            0 => drop(self.unheard.remove(0)),
            _ => self.unheard.retain(|before| *before >= sequence),
        }
    }

    /// The ledger has heard what is claimed: what is not this gateway's has been withdrawn.
    pub(super) fn is_claimed(&self) -> bool {
        self.connected && self.unheard.is_empty()
    }

    /// The connection to the aggregator is gone. What was granted goes on.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.unheard.clear();
        // Each will be claimed, and withdrawn.
        self.recalled.clear();
    }
}
