//! A processor as the laboratory's policies meet it: the model, behind a CPU that takes its time.
//!
//! The model itself knows delays, failures and limits but answers at once when its delay is zero. Real ones are bound
//! by their CPU: each request takes a fixed share of it, one after the other, so that a backlog drains at a rate and not
//! in an instant; and each takes a base time of its own, drawn, beside that.
//!
//! ```text
//! sent ── link ──▶ CPU, first come first served ── base time ──▶ model: limits, delay, failure, insert ── link ──▶ answer
//! ```

use std::collections::HashMap;

use uuid::Uuid;

use super::schedule::Condition;
use super::{EPOCH_MS, Settings};
use crate::cluster::dice::Dice;
use crate::processor::{Answer, Config, Faults, Payment, Processor, RequestId, Step};

/// What a payment in this laboratory costs, as in the contest.
pub const AMOUNT_CENTS: u64 = 1_990;

/// What the model's pending answers belong to.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    /// An attempt, by its index in the world.
    Attempt(u32),
    /// A health check of this token.
    Check(u64),
    /// A look-up of this token.
    LookUp(u64),
}

/// An answer and whom it is for.
pub type Due = (Caller, Answer);

/// See the module's documentation.
pub struct Upstream {
    model: Processor,
    cpu_us_per_request: u64,
    cpu_free_us: u64,
    base_us: (u64, u64),
    pending: HashMap<RequestId, Caller>,
    /// When the world will come back on its own.
    pub wake_us: Option<u64>,
    dice: Dice,
}

impl Upstream {
    /// Healthy, without delay.
    pub fn new(settings: &Settings, dice: &mut Dice) -> Self {
        // The fee is the auditor's business here.
        let fee = "0.05".parse().expect("a fraction");
        let mut model = Processor::new(Config { payments_len: 1 << 14, ..Config::new(fee) });
        let faults = Faults { seed: Some(dice.number()), ..Faults::default() };
        model.set_faults(0, faults).expect("no fault is no contradiction");
        Self {
            model,
            cpu_us_per_request: 1_000_000 / settings.requests_per_second_max.max(1),
            cpu_free_us: 0,
            base_us: settings.base_us,
            pending: HashMap::new(),
            wake_us: None,
            dice: Dice::new(dice.number()),
        }
    }

    /// A stage begins.
    pub fn set(&mut self, now_us: u64, condition: Condition) {
        self.model.set_delay_ms(now_us, i64::from(condition.delay_ms));
        self.model.set_failing(now_us, condition.failing);
        let random500 = f64::from(condition.error_percent) / 100.0;
        let faults = Faults {
            random500,
            hang_before_insert: f64::from(condition.unanswered_percent) / 100.0,
            close_before_insert: f64::from(condition.reset_percent) / 100.0,
            ..Faults::default()
        };
        self.model.set_faults(now_us, faults).expect("a percentage is a probability");
    }

    /// A request arrives: when it will have had its share of the CPU.
    pub fn arrive(&mut self, now_us: u64) -> u64 {
        self.cpu_free_us = self.cpu_free_us.max(now_us) + self.cpu_us_per_request;
        self.cpu_free_us + self.dice.between(self.base_us.0, self.base_us.1)
    }

    /// It has had it.
    pub fn enter(&mut self, now_us: u64, attempt: u32, payment: u32, requested_at_ms: u64) -> Option<Answer> {
        let payment = Payment {
            correlation_id: id_of(payment),
            amount_cents: i64::try_from(AMOUNT_CENTS).expect("a small number"),
            requested_at_ms: i64::try_from(requested_at_ms).expect("a date"),
        };
        match self.model.post(now_us, payment) {
            Step::Answered(answer) => Some(answer),
            Step::Pending(request) => {
                self.pending.insert(request, Caller::Attempt(attempt));
                None
            }
        }
    }

    /// A health check.
    pub fn check(&mut self, now_us: u64, token: u64) -> Option<Answer> {
        match self.model.health(now_us) {
            Step::Answered(answer) => Some(answer),
            Step::Pending(request) => {
                self.pending.insert(request, Caller::Check(token));
                None
            }
        }
    }

    /// A look-up.
    pub fn look_up(&mut self, now_us: u64, token: u64, payment: u32) -> Option<Answer> {
        match self.model.find(now_us, id_of(payment)) {
            Step::Answered(answer) => Some(answer),
            Step::Pending(request) => {
                self.pending.insert(request, Caller::LookUp(token));
                None
            }
        }
    }

    /// The answers that are due.
    pub fn collect(&mut self, now_us: u64, due: &mut Vec<Due>) {
        self.model.advance(now_us);
        while let Some((request, answer)) = self.model.poll_answer() {
            due.extend(self.pending.remove(&request).map(|caller| (caller, answer)));
        }
    }

    /// When the model wants to be looked at.
    pub fn deadline_us(&self) -> Option<u64> {
        self.model.deadline_us()
    }

    /// Its books.
    pub fn summarize(&mut self, now_us: u64, from_ms: u64, to_ms: u64) -> u64 {
        let bound = |ms| Some(i64::try_from(ms).unwrap_or(i64::MAX));
        self.model.summarize(now_us, bound(from_ms), bound(to_ms)).requests
    }

    /// Payments stored, with their `requestedAt`.
    pub fn stored(&self) -> &[Payment] {
        self.model.store().list(0)
    }

    /// Whether this payment is stored.
    pub fn has(&self, payment: u32) -> bool {
        self.model.store().get(id_of(payment)).is_some()
    }
}

/// A payment's id: as mixed as a random one, and known from its number.
#[must_use]
pub fn id_of(payment: u32) -> Uuid {
    Uuid::from_u128((u128::from(payment) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
}

/// The wall clock at a moment of the run.
#[must_use]
pub fn unix_ms(now_us: u64) -> u64 {
    EPOCH_MS + now_us / 1_000
}
