//! One Galo, its two processors, and the list of what it has promised.
//!
//! Every group of cases ends with the reconciliation of all its promises, so a case need not wait for its payment to
//! be processed to have it checked to the cent.

use std::collections::BTreeMap;

use crate::client::{Answer, Way};
use crate::galo::{Galo, Plan, Programs};
use crate::processor::Processor;
use crate::tally::Tally;

/// See the module's documentation.
pub(crate) struct World {
    pub(crate) galo: Galo,
    pub(crate) default: Processor,
    pub(crate) fallback: Processor,
    /// Cents by id, of every payment that was answered 202.
    pub(crate) accepted: BTreeMap<String, u64>,
    probe_count: u64,
}

impl World {
    /// Starts one with two honest processors.
    pub(crate) fn start(programs: &Programs, plan: &Plan<'_>) -> Result<Self, String> {
        let (default, fallback) = (Processor::start()?, Processor::start()?);
        let galo = Galo::start(programs, plan, [default.url(), fallback.url()])?;
        Ok(Self { galo, default, fallback, accepted: BTreeMap::new(), probe_count: 0 })
    }

    /// Sends a payment that must be accepted.
    pub(crate) fn pay(&mut self, way: &Way, id: &str, cents: u64) -> Result<Answer, String> {
        let answer = way.ask("POST", "/payments", &payment_json(id, cents))?;
        if answer.status != 202 || !answer.body.is_empty() {
            return Err(format!("a good payment is answered {} {}", answer.status, answer.text()));
        }
        self.accepted.insert(id.to_owned(), cents);
        Ok(answer)
    }

    /// Everybody lives, and an ordinary payment is taken.
    pub(crate) fn check_well(&mut self, way: &Way) -> Result<(), String> {
        self.probe_count += 1;
        let (id, cents) = (self.galo.fresh_id(), 100 + self.probe_count);
        let paid = self.pay(way, &id, cents);
        self.galo.check_alive()?;
        paid.map(drop).map_err(|error| format!("afterwards, {error}"))
    }

    /// The closing case of a group: what was promised is what the books say.
    pub(crate) fn reconcile(&mut self, tally: &mut Tally) {
        let result = self.galo.reconcile(&self.accepted, [&self.default, &self.fallback]);
        tally.case("everything promised is in the books, to the cent, and nothing else", result);
    }

    /// Stops it; it must stop well.
    pub(crate) fn stop(self, tally: &mut Tally) {
        tally.case("stops with status 0 after all that", self.galo.stop());
    }
}

/// A payment's body.
pub(crate) fn payment_json(id: &str, cents: u64) -> String {
    format!(r#"{{"correlationId":"{id}","amount":{}.{:02}}}"#, cents / 100, cents % 100)
}
