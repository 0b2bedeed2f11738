//! One policy on one schedule, and what came of it.

use super::baselines::{
    Baseline, Breakers, DefaultOnly, FiveTries, HalfOpenTries, LatencyComparison, ShortTimeout,
};
use super::bound::{Clairvoyant, Foresight};
use super::galo::Galo;
use super::policy::{Figures, Policy};
use super::schedule::Schedule;
use super::world::{Audit, Findings, Posted, World};
use super::{Counts, Fees, Settings};
use crate::cluster::dice::Dice;

pub use super::world::Second;

/// Which policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyKind {
    /// The engine's real code.
    Galo,
    /// See [`DefaultOnly`].
    DefaultOnly,
    /// See [`Breakers`].
    Breakers,
    /// See [`HalfOpenTries`].
    HalfOpenTries,
    /// See [`ShortTimeout`].
    ShortTimeout,
    /// See [`FiveTries`].
    FiveTries,
    /// See [`LatencyComparison`].
    LatencyComparison,
}

impl PolicyKind {
    /// All, Galo first.
    pub const ALL: &[Self] = &[
        Self::Galo,
        Self::DefaultOnly,
        Self::Breakers,
        Self::HalfOpenTries,
        Self::ShortTimeout,
        Self::FiveTries,
        Self::LatencyComparison,
    ];

    /// Its name in tables and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Galo => "galo",
            Self::DefaultOnly => "default-only",
            Self::Breakers => "breakers",
            Self::HalfOpenTries => "half-open",
            Self::ShortTimeout => "short-timeout",
            Self::FiveTries => "five-tries",
            Self::LatencyComparison => "latency",
        }
    }

    /// What it does, in a line.
    #[must_use]
    pub const fn story(self) -> &'static str {
        match self {
            Self::Galo => "the engine's real code: two gateways and the aggregator",
            Self::DefaultOnly => {
                "waits for the cheapest only: a probe each second, bursts while answers take less than 200 ms"
            }
            Self::Breakers => {
                "a health check each 5 s, a breaker of 3 failures in 10 s with 5 s recovery, then the next dearer one, then backoff"
            }
            Self::HalfOpenTries => {
                "half-open with 30 % random tries, three retries with doubling delay, then the dearer ones"
            }
            Self::ShortTimeout => "a 300 ms timeout to the next dearer one, a queue of 20,000",
            Self::FiveTries => "five tries at the cheapest half a second apart, then the dearer ones",
            Self::LatencyComparison => "a dearer one when the cheaper is three times slower",
        }
    }

    fn build(self, settings: &Settings, dice: &mut Dice) -> Box<dyn Policy> {
        match self {
            Self::Galo => Box::new(Galo::new(settings.galo, settings.fees, dice)),
            Self::DefaultOnly => Box::new(Baseline::new(DefaultOnly::new(), settings.fees, dice)),
            Self::Breakers => Box::new(Baseline::new(Breakers::default(), settings.fees, dice)),
            Self::HalfOpenTries => Box::new(Baseline::new(HalfOpenTries::default(), settings.fees, dice)),
            Self::ShortTimeout => Box::new(Baseline::new(ShortTimeout, settings.fees, dice)),
            Self::FiveTries => Box::new(Baseline::new(FiveTries, settings.fees, dice)),
            Self::LatencyComparison => Box::new(Baseline::new(LatencyComparison::new(), settings.fees, dice)),
        }
    }
}

/// A payment that was in no doubt is late after this, µs.
const LATE_US: u64 = 2_000_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Whose run it was.
    pub policy: PolicyKind,
    /// The schedule's name.
    pub schedule: String,
    /// What the processors kept.
    pub fees: Fees,
    /// Whether the schedule said so.
    pub has_own_fees: bool,
    /// POSTs sent.
    pub posted: u64,
    /// POSTs answered with 202.
    pub accepted: u64,
    /// Processed by the end as the policy's books say, by processor.
    pub processed: Counts,
    /// Processed as the processors' books say.
    pub stored: Counts,
    /// What could have been earned.
    pub bound: Clairvoyant,
    /// The sum of the auditor's differences.
    pub inconsistencies: u64,
    /// Its comparisons.
    pub audits: Vec<Audit>,
    /// Processed attempts that took longer than a second.
    pub risky: u64,
    /// Payments of which an attempt had no answer.
    pub in_doubt: u64,
    /// Of the others, those that were processed later than 2 s after their POST, or not at all.
    pub late: u64,
    /// Of the others, how long the one that waited longest did, from its POST to the news that it was processed, or to the end, µs.
    pub waited_us_max: u64,
    /// Of the others, those that were processed, by processor, and what could have been earned with them.
    pub others: (Counts, Clairvoyant),
    /// Payments that more than one processor stored.
    pub doubles: u64,
    /// Attempts sent.
    pub attempts: u64,
    /// What the policy shows at the end.
    pub figures: Figures,
    /// The timeline, if it was wanted.
    pub seconds: Vec<Second>,
}

impl Run {
    /// Accepted and not processed.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.accepted.cast_signed() - self.processed.iter().sum::<u64>().cast_signed()
    }

    /// Earned, in ten-thousandths of a cent.
    #[must_use]
    pub fn profit_units(&self) -> u64 {
        self.fees.profit_units(self.processed)
    }

    /// The same run at other fees, if they would have changed nothing but the profit: the policy knows nothing of fees
    /// but the order of price, and that is the same.
    #[must_use]
    pub fn at_fees(&self, fees: Fees) -> Option<Self> {
        let same = self.policy != PolicyKind::Galo && fees.order() == self.fees.order();
        same.then(|| Self { fees, ..self.clone() })
    }

    /// A number for each processor there is, as in "123 + 4".
    #[must_use]
    pub fn sums(&self, counts: Counts) -> String {
        let each = self.fees.processors().map(|processor| counts[processor.index()].to_string());
        each.collect::<Vec<_>>().join(" + ")
    }

    /// What was not earned of what could have been: 0 to 1.
    #[must_use]
    pub fn regret(&self) -> f64 {
        regret(self.profit_units(), self.bound.profit_units(self.fees))
    }

    /// The same, payments in doubt left out.
    #[must_use]
    pub fn others_regret(&self) -> f64 {
        let (counts, bound) = self.others;
        regret(self.fees.profit_units(counts), bound.profit_units(self.fees))
    }

    /// The same against the bound that keeps away from slow places; below zero for who did not.
    #[must_use]
    pub fn audit_regret(&self) -> f64 {
        regret(self.profit_units(), self.bound.audit_profit_units(self.fees))
    }

    /// The share of payments that went to another than the cheapest.
    #[must_use]
    pub fn dearer_share(&self) -> f64 {
        let processed: u64 = self.processed.iter().sum();
        let cheapest = self.fees.order().first().map_or(0, |it| self.processed[it.index()]);
        share(processed - cheapest, processed)
    }

    /// How long the payment that waited longest did, s; see [`Self::waited_us_max`].
    #[must_use]
    pub fn waited_s(&self) -> f64 {
        share(self.waited_us_max, 1_000_000)
    }

    /// The share of payments that took longer than a second.
    #[must_use]
    pub fn risk(&self) -> f64 {
        share(self.risky, self.processed.iter().sum())
    }
}

fn regret(profit_units: u64, bound_units: u64) -> f64 {
    if bound_units == 0 { 0.0 } else { 1.0 - share(profit_units, bound_units) }
}

#[expect(clippy::cast_precision_loss, reason = "for statistics; below 2^53 anyway")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Plays a schedule with a policy. A schedule that says what its processors keep is played at these fees.
///
/// # Panics
/// If the fees are not of as many processors as the schedule has.
#[must_use]
pub fn play(schedule: &Schedule, settings: &Settings, kind: PolicyKind, timeline: bool) -> Run {
    let settings = &Settings { fees: schedule.fees().unwrap_or(settings.fees), ..*settings };
    let mut dice = Dice::new(settings.seed);
    let policy = kind.build(settings, &mut dice);
    play_with(schedule, settings, kind, policy, timeline)
}

/// Plays a schedule with a policy that may be none of ours.
pub(super) fn play_with(
    schedule: &Schedule,
    settings: &Settings,
    kind: PolicyKind,
    policy: Box<dyn Policy>,
    timeline: bool,
) -> Run {
    let (count, fees) = (schedule.processors().count(), settings.fees.processors().count());
    assert_eq!(count, fees, "{}: fees of each processor", schedule.name);
    let Findings { posted, booked, stored, doubles, audits, risky, attempts, figures, seconds } =
        World::new(schedule, *settings, policy, timeline).run();
    let foresight = Foresight::new(schedule, settings);
    let bound = foresight.bound(posted.iter().map(|posted| posted.at_us));
    let others: Vec<_> = posted.iter().filter(|posted| !posted.was_in_doubt).copied().collect();
    let is_late = |posted: &&Posted| {
        posted.accepted && posted.processed.is_none_or(|(_, at_us)| at_us > posted.at_us + LATE_US)
    };
    let waited_us = |posted: &Posted| {
        posted.processed.map_or(schedule.final_us(), |(_, at_us)| at_us).saturating_sub(posted.at_us)
    };
    let waited_us_max = others.iter().filter(|posted| posted.accepted).map(waited_us).max().unwrap_or(0);
    let mut counts = Counts::default();
    others.iter().filter_map(|posted| posted.processed).for_each(|(at, _)| counts[at.index()] += 1);
    let others_bound = foresight.bound(others.iter().map(|posted| posted.at_us));
    Run {
        policy: kind,
        schedule: schedule.name.clone(),
        fees: settings.fees,
        has_own_fees: schedule.fees().is_some(),
        posted: posted.len() as u64,
        accepted: posted.iter().filter(|posted| posted.accepted).count() as u64,
        processed: booked,
        stored,
        bound,
        inconsistencies: audits.iter().map(Audit::difference).sum(),
        audits,
        risky,
        in_doubt: (posted.len() - others.len()) as u64,
        late: others.iter().filter(is_late).count() as u64,
        waited_us_max,
        others: (counts, others_bound),
        doubles,
        attempts,
        figures,
        seconds,
    }
}
