//! The link to the ledger comes and goes: what is said when it stands again.

use galo_wire::record::{Claim, Ready};
use galo_wire::{Outcome, Stage};

use super::payment::{Doubt, State, Unacknowledged};
use super::{Action, Dispatcher, NO_ATTEMPT, key_of};
use crate::router::Reason;
use crate::texts::Texts;
use crate::time::{Now, UnixMillis};

impl Dispatcher {
    /// The connection to the aggregator stands, hellos are exchanged: say what is held, then ask for work.
    pub fn connected(&mut self, now: Now) {
        assert!(!self.connected, "a connection is lost before the next one stands");
        self.connected = true;
        // While the ledger was away, its clients waited for their answers.
        self.arrivals.on_interruption(now.monotonic_us);
        // Completions first: a claim for a payment that is processed would only be withdrawn. A ledger that has lost its
        // memory needs the claim before the completion, one that has not ignores it.
        let mut unacknowledged = std::mem::take(&mut self.unacknowledged);
        let mut claim_count = unacknowledged.len() as u64;
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
                State::Attempting(processor, _)
                | State::Doubtful(Doubt { processor, .. })
                | State::Verifying(Doubt { processor, .. }) => {
                    self.send_texts(slot);
                    self.actions.push(claim(Stage::at(processor), payment.requested_at));
                }
            }
            claim_count += 1;
        }
        self.claimed_sequence = self.completion_sequence;
        if !self.draining {
            self.actions.push(Action::Send(Ready { claim_count }.into()));
        }
        self.pump(now);
    }

    /// The connection to the aggregator is gone. What was granted goes on.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.claimed = false;
        // Each will be claimed, and withdrawn.
        self.recalled.clear();
    }
}
