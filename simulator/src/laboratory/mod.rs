//! The policy laboratory: schedules × policies under one virtual clock, judged against full knowledge of the future.
//!
//! One to eight processors. Where [`crate::cluster`] asks whether Galo is ever wrong, this asks whether it earns what can be earned. A [`Schedule`]
//! says how many clients there are and how the processors do; a policy says where payments go; the world carries them;
//! the auditor compares books as the contest's does; [`Clairvoyant`] computes the most that anybody could have earned.
//! Regret is the share of that which a policy did not earn.
//!
//! Galo's policy is the engine's real code; the baselines are small programs of their own. All meet the same clients,
//! the same processors and the same auditor. One seed fixes a run: the same numbers each time, on each machine.
//!
//! Must never: let a policy see the schedule; tune what the generator draws to what a policy likes.
//!
//! Not modelled: the CPU of Galo itself, kills, answers that get lost after the processor stored something (see [`crate::cluster`] and the tests
//! with real processes for those).

#![expect(clippy::float_arithmetic, reason = "statistics of whole runs; money stays in integers")]

mod baselines;
mod bound;
mod galo;
mod generator;
mod many;
mod plots;
mod policy;
mod report;
mod run;
mod schedule;
mod statistics;
mod summary;
mod upstream;
mod world;

use galo_engine::{PROCESSORS_LEN_MAX, Processor};

pub use bound::Clairvoyant;
pub use galo::GaloConfig;
pub use generator::{generate, generate_any_end};
pub use many::generate_many;
pub use policy::Figures;
pub use report::{Report, ReportError};
pub use run::{PolicyKind, Run, Second, play};
pub use schedule::{ClientPoint, Condition, Member, Moment, Schedule, ScheduleError, Stage};
pub use statistics::Spread;
pub use summary::Summary;

#[cfg(test)]
mod tests;

/// Where the wall clock begins: some time in 2026.
const EPOCH_MS: u64 = 1_790_000_000_000;

/// A number for each processor, by [`Processor::index`]; 0 where there is none.
pub type Counts = [u64; PROCESSORS_LEN_MAX];

/// What the processors keep, and so how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    bps: [u32; PROCESSORS_LEN_MAX],
    count: usize,
}

impl Fees {
    /// The contest's preview: 5 % and 15 %.
    pub const PREVIEW: Self = Self::pair([500, 1_500]);
    /// The contest's final run: 7 % and 10 %.
    pub const FINAL: Self = Self::pair([700, 1_000]);

    /// Of default and fallback, in basis points.
    #[must_use]
    pub const fn pair([default, fallback]: [u32; 2]) -> Self {
        Self { bps: [default, fallback, 0, 0, 0, 0, 0, 0], count: 2 }
    }

    /// Of each processor, by number, in basis points.
    ///
    /// # Panics
    /// If they are more than there can be.
    #[must_use]
    pub fn new(of: &[u32]) -> Self {
        let mut bps = [0; PROCESSORS_LEN_MAX];
        bps[..of.len()].copy_from_slice(of);
        Self { bps, count: of.len() }
    }

    /// In basis points, by number.
    #[must_use]
    pub fn bps(&self) -> &[u32] {
        &self.bps[..self.count]
    }

    /// The processors, by number.
    pub fn processors(self) -> impl Iterator<Item = Processor> {
        Processor::ALL.into_iter().take(self.count)
    }

    /// From the cheapest to the dearest, by number where they keep the same.
    #[must_use]
    pub fn order(self) -> Vec<Processor> {
        let mut order: Vec<Processor> = self.processors().collect();
        order.sort_by_key(|processor| self.bps[processor.index()]);
        order
    }

    /// What so many payments at each processor earn, in ten-thousandths of a cent.
    #[must_use]
    pub fn profit_units(self, counts: Counts) -> u64 {
        let earned = |bps: u32| upstream::AMOUNT_CENTS * u64::from(10_000 - bps);
        counts.iter().zip(self.bps).map(|(count, bps)| count * earned(bps)).sum()
    }

    /// As in "5 % and 15 %".
    #[must_use]
    pub fn name(self) -> String {
        let percent = |bps: &u32| {
            let (whole, rest) = (bps / 100, bps % 100);
            if rest == 0 { format!("{whole} %") } else { format!("{whole}.{rest:02} %") }
        };
        let mut names: Vec<String> = self.bps().iter().map(percent).collect();
        let last = names.pop().unwrap_or_default();
        if names.is_empty() { last } else { format!("{} and {last}", names.join(", ")) }
    }
}

/// What the world is made of, beside the schedule.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What the processors keep.
    pub fees: Fees,
    /// What each processor's CPU can do.
    pub requests_per_second_max: u64,
    /// A request's base time, from and to, µs.
    pub base_us: (u64, u64),
    /// From a gateway to a processor or back, µs.
    pub link_us: u64,
    /// From a client through HAProxy to a gateway or back, µs.
    pub front_us: u64,
    /// The auditor compares this often, from the first moment to the last POST's, µs.
    pub audit_interval_us: u64,
    /// Fixes everything that chance decides.
    pub seed: u64,
    /// What an operator tells Galo.
    pub galo: GaloConfig,
}

impl Settings {
    /// The usual world.
    #[must_use]
    pub fn new(fees: Fees, seed: u64) -> Self {
        Self {
            fees,
            requests_per_second_max: 5_000,
            base_us: (500, 1_500),
            link_us: 100,
            front_us: 200,
            audit_interval_us: 10_000_000,
            seed,
            galo: GaloConfig::default(),
        }
    }
}
