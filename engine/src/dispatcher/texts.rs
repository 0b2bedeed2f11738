//! The texts of the payments in a gateway's hands, by slot: most payments have none, and nothing here.
//!
//! Members come with the POST or with the assignment, and go to the ledger with the accept and with every claim: a gateway can be lost, and so can a
//! ledger that keeps no journal. The name that a processor gives a payment goes with the completion that says what came of the attempt.
//!
//! Must never: send a payment's accept or claim without its members, since they would be forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use galo_wire::Outcome;

use super::{Action, Dispatcher};
use crate::texts::Texts;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct HeldTexts(HashMap<u32, Held>);

#[derive(Default)]
struct Held {
    texts: Texts,
    /// The ledger has been told of the reference, or has told it.
    is_told: bool,
}

impl HeldTexts {
    pub(super) fn hold(&mut self, slot: u32, texts: Texts) {
        if !texts.is_empty() {
            self.0.insert(slot, Held { texts, is_told: true });
        }
    }

    pub(super) fn forget(&mut self, slot: u32) {
        if !self.0.is_empty() {
            self.0.remove(&slot);
        }
    }

    fn get(&self, slot: u32) -> Option<&Held> {
        if self.0.is_empty() { None } else { self.0.get(&slot) }
    }
}

impl Dispatcher {
    /// The members of its client's POST that go with a payment.
    #[must_use]
    pub fn members(&self, slot: u32) -> Option<Arc<str>> {
        self.texts.get(slot)?.texts.members.clone()
    }

    /// What the processor that may have a payment calls it.
    #[must_use]
    pub fn reference(&self, slot: u32) -> Option<Arc<str>> {
        self.texts.get(slot)?.texts.reference.clone()
    }

    /// The processor calls a payment so: to be said before the end of the attempt, or of the look-up, that told it.
    pub fn named(&mut self, slot: u32, reference: &str) {
        let held = self.texts.0.entry(slot).or_default();
        if held.texts.reference.as_deref() != Some(reference) {
            held.texts.reference = Some(reference.into());
            held.is_told = false;
        }
    }

    /// Whether its processor has named a payment, and the ledger has not heard of it.
    pub(super) fn is_newly_named(&self, slot: u32) -> bool {
        self.texts.get(slot).is_some_and(|held| held.texts.reference.is_some() && !held.is_told)
    }

    /// All texts of a payment, for the ledger that may not have them. The record that they belong to is the next action.
    pub(super) fn send_texts(&mut self, slot: u32) {
        if let Some(Held { texts, .. }) = self.texts.get(slot) {
            self.actions.extend(texts.parts().map(|part| Action::Send(part.into())));
        }
    }

    /// What its processor calls a payment, for the ledger that may not have heard it. The record that it belongs to is the next action.
    pub(super) fn send_reference(&mut self, slot: u32) {
        if let Some(Held { texts, .. }) = self.texts.get(slot) {
            let reference = Texts { members: None, reference: texts.reference.clone() };
            self.actions.extend(reference.parts().map(|part| Action::Send(part.into())));
        }
    }

    /// What belongs to a completion, which is the next action where the ledger is there. Returns what it would take to say it again.
    pub(super) fn complete_texts(&mut self, slot: u32, outcome: Outcome) -> Option<Box<Texts>> {
        if self.texts.0.is_empty() {
            return None;
        }
        let Held { texts, is_told } = self.texts.0.get_mut(&slot)?;
        match outcome {
            Outcome::Processed | Outcome::Unknown => {
                *is_told = true;
                if self.connected {
                    self.send_reference(slot);
                }
            }
            // Whoever has it next calls it otherwise.
            Outcome::Refused | Outcome::Absent => texts.reference = None,
            Outcome::Declined => {}
        }
        self.texts.get(slot).map(|held| Box::new(held.texts.clone()))
    }
}
