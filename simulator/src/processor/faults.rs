//! Faults that the real processors, or the network before them, may show, each with a probability.
//!
//! A request draws all of them once, on entry, so one seed and one order of requests give one run. Faults combine: a
//! request can hang before the insert and lose its connection after it. They lie around the documented order of a payment
//! like this:
//!
//! ```text
//! random429 ─ permit ─ delay ─ hangBeforeInsert ─ closeBeforeInsert ─ failure switch ─ random500
//!           ─ insert or 422 ─ hangAfterInsert ─ closeAfterInsert ─ garbage ─ answer
//! ```
//!
//! A hang holds the request (and its permit) for `hangMs` and then lets it go on: the payment that a caller gave up
//! may still be stored later. A close ends the TCP connection without an answer, half of the time with a reset. Garbage is
//! bytes that are no HTTP, then the end of the connection.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// Probabilities from 0 to 1, and what the faults need beside them. As JSON: `PUT /admin/configurations/faults`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    /// The connection ends before anything is stored.
    pub close_before_insert: f64,
    /// The payment is stored (or found to be), then the connection ends.
    pub close_after_insert: f64,
    /// The request sleeps before the failure switch is read.
    pub hang_before_insert: f64,
    /// The answer to a stored payment comes late.
    pub hang_after_insert: f64,
    /// The payment is stored, then the answer is no HTTP.
    pub garbage: f64,
    /// As if the failure switch were on for this one request.
    pub random500: f64,
    /// As if the limits were reached for this one request.
    pub random429: f64,
    /// How long a hang lasts, in milliseconds.
    pub hang_ms: u64,
    /// Starts the dice anew. Absent: they roll on.
    pub seed: Option<u64>,
}

impl Default for Faults {
    /// No fault; a hang, once switched on, outlasts the gateway's default timeout of 30 s.
    fn default() -> Self {
        Faults {
            close_before_insert: 0.0,
            close_after_insert: 0.0,
            hang_before_insert: 0.0,
            hang_after_insert: 0.0,
            garbage: 0.0,
            random500: 0.0,
            random429: 0.0,
            hang_ms: 40_000,
            seed: None,
        }
    }
}

/// A probability that is none.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{name} is {value}, expected a probability from 0 to 1")]
pub struct FaultsError {
    name: &'static str,
    value: f64,
}

impl Faults {
    fn probabilities(&self) -> [(&'static str, f64); 7] {
        [
            ("closeBeforeInsert", self.close_before_insert),
            ("closeAfterInsert", self.close_after_insert),
            ("hangBeforeInsert", self.hang_before_insert),
            ("hangAfterInsert", self.hang_after_insert),
            ("garbage", self.garbage),
            ("random500", self.random500),
            ("random429", self.random429),
        ]
    }

    /// Checks that each probability is one.
    ///
    /// # Errors
    ///
    /// Names the first that is not.
    pub fn check(self) -> Result<Self, FaultsError> {
        match self.probabilities().into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            Some((name, value)) => Err(FaultsError { name, value }),
            None => Ok(self),
        }
    }

    fn any(&self) -> bool {
        self.probabilities().into_iter().any(|(_, value)| value > 0.0)
    }
}

/// The faults of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drawn {
    /// See [`Faults::close_before_insert`].
    pub close_before_insert: bool,
    /// See [`Faults::close_after_insert`].
    pub close_after_insert: bool,
    /// See [`Faults::hang_before_insert`].
    pub hang_before_insert: bool,
    /// See [`Faults::hang_after_insert`].
    pub hang_after_insert: bool,
    /// See [`Faults::garbage`].
    pub garbage: bool,
    /// See [`Faults::random500`].
    pub random500: bool,
    /// See [`Faults::random429`].
    pub random429: bool,
    /// Whether a close is a reset.
    pub reset: bool,
}

/// Faults and the generator that decides whom they hit.
#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    any: bool,
    generator: Xoshiro256PlusPlus,
}

impl Dice {
    pub(super) fn new(faults: Faults) -> Self {
        let seed = faults.seed.unwrap_or(0);
        Dice { faults, any: faults.any(), generator: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    pub(super) fn faults(&self) -> Faults {
        self.faults
    }

    pub(super) fn set(&mut self, faults: Faults) {
        if let Some(seed) = faults.seed {
            self.generator = Xoshiro256PlusPlus::seed_from_u64(seed);
        }
        self.any = faults.any();
        self.faults = faults;
    }

    pub(super) fn draw(&mut self) -> Drawn {
        if !self.any {
            return Drawn::default();
        }
        let faults = self.faults;
        let mut hits = |probability| self.generator.random_bool(probability);
        Drawn {
            close_before_insert: hits(faults.close_before_insert),
            close_after_insert: hits(faults.close_after_insert),
            hang_before_insert: hits(faults.hang_before_insert),
            hang_after_insert: hits(faults.hang_after_insert),
            garbage: hits(faults.garbage),
            random500: hits(faults.random500),
            random429: hits(faults.random429),
            reset: hits(0.5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_run() {
        let faults = Faults { garbage: 0.5, random500: 0.3, seed: Some(7), ..Faults::default() };
        let mut dice = Dice::new(faults);
        let first: Vec<Drawn> = (0..100).map(|_| dice.draw()).collect();
        dice.set(faults);
        let second: Vec<Drawn> = (0..100).map(|_| dice.draw()).collect();
        assert_eq!(first, second);
        dice.set(Faults { seed: Some(8), ..faults });
        let other: Vec<Drawn> = (0..100).map(|_| dice.draw()).collect();
        assert_ne!(first, other);
        assert!((30..70).contains(&first.iter().filter(|drawn| drawn.garbage).count()));
        assert!(first.iter().all(|drawn| !drawn.random429 && !drawn.close_after_insert));
    }

    #[test]
    fn what_is_no_probability_is_named() {
        let error = Faults { random429: 1.5, ..Faults::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "random429 is 1.5, expected a probability from 0 to 1");
        assert!(Faults { garbage: f64::NAN, ..Faults::default() }.check().is_err());
        assert!(Faults { garbage: 1.0, ..Faults::default() }.check().is_ok());
    }
}
