//! What processors do that the contest's do not: how one treats a single id, what its answers mean, and how doubt about it ends.
//!
//! Must never: decide for the engine. It draws what is so; what follows from it is the dispatcher's.

use galo_engine::dispatcher::{DoubtPolicy, ProcessorPolicy};
use galo_engine::rate::RateLimit;
use galo_engine::router::{Cost, ProcessorSet, RouterConfig, Thresholds};
use galo_engine::verdict::{Rule, Rules, Verdict};
use galo_engine::{PROCESSORS_LEN_MAX, Processor};

use super::bug::Bug;
use super::dice::Dice;
use super::plan::Plan;

/// How a processor treats one id.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Manner {
    /// As any other.
    #[default]
    Takes,
    /// 400, for ever.
    Refuses,
    /// 402, for ever.
    Declines,
    /// 409, and a look-up finds nothing, for ever.
    Phantom,
    /// It stores another amount, and says that it had the id.
    Misreads,
}

/// By [`Processor::index`].
pub type Manners = [Manner; PROCESSORS_LEN_MAX];

/// How the processors treat the next payment's id.
pub fn draw(plan: &Plan, dice: &mut Dice) -> Manners {
    let mut manners = Manners::default();
    if !dice.chance(plan.poison) {
        return manners;
    }
    let manner = dice.pick(&plan.poisons);
    let all = dice.one_in(2);
    for processor in plan.processors().iter() {
        if all || dice.one_in(2) {
            manners[processor.index()] = manner;
        }
    }
    manners
}

/// What nobody can ever take and not all decline would stay open for ever: once the faults are over, it is taken. So it may be with
/// one that `some` declined, and others refuse.
pub fn heal(manners: &mut Manners, processors: ProcessorSet, some: bool) {
    let is_hopeless =
        |processor: Processor| matches!(manners[processor.index()], Manner::Refuses | Manner::Phantom);
    if processors.iter().all(is_hopeless) || (some && processors.iter().any(is_hopeless)) {
        *manners = Manners::default();
    }
}

/// The contest's table, and two answers that the contest does not have.
pub fn rules() -> Rules {
    Rules::new(vec![
        Rule::of_status(&[202..=202], Verdict::Pending),
        Rule::of_status(&[200..=299], Verdict::Processed),
        Rule::of_status(&[402..=402], Verdict::Declined),
        Rule::of_status(&[422..=422, 409..=409], Verdict::Duplicate),
        Rule::of_status(&[429..=429], Verdict::Overloaded),
        Rule::of_status(&[408..=408], Verdict::Unknown),
        Rule::of_status(&[400..=500], Verdict::Unavailable),
    ])
}

impl Plan {
    /// The processors that there are.
    pub fn processors(&self) -> ProcessorSet {
        Processor::first(self.processor_count).iter().copied().collect()
    }

    /// How one of them is treated.
    pub fn policy(&self, processor: Processor, bug: Option<Bug>) -> ProcessorPolicy {
        let doubt = DoubtPolicy {
            resend_us_max: if bug == Some(Bug::KeysForEver) { u64::MAX } else { self.resend_us_max },
            has_lookup: true,
            absent_after_us: if bug == Some(Bug::AbsentTooEarly) { 0 } else { self.absent_after_us },
            lookup_every_us: self.lookup_every_us,
            give_up_us: if self.concurrent || bug == Some(Bug::GivenUpSentAgain) {
                0
            } else {
                self.attempt_timeout_us
            },
            echoes_requested_at: true,
        };
        let gateway_count = u32::try_from(self.gateway_count).expect("few gateways");
        let rate = self.rate(processor).map(|limit| match bug {
            Some(Bug::RateUnshared) => RateLimit { per_second: limit.per_second * gateway_count, shares: 1 },
            _ => limit,
        });
        ProcessorPolicy {
            concurrency_max: self.concurrency_max,
            rate,
            doubt,
            declined_goes_on: self.declined_goes_on,
        }
    }

    /// What the router is told.
    pub fn router(&self, bug: Option<Bug>) -> RouterConfig {
        let patience_us = if bug == Some(Bug::PatienceForgotten) { u64::MAX } else { self.patience_us };
        let mut costs = [Cost::default(); PROCESSORS_LEN_MAX];
        for (cost, (basis_points, fixed_cents)) in costs.iter_mut().zip(self.costs) {
            *cost = Cost { basis_points, fixed_cents };
        }
        let thresholds = Thresholds {
            slow_us: 100_000,
            has_quiet: self.has_quiet,
            settle_us_max: if self.has_quiet { Thresholds::CONTEST.settle_us_max } else { 60_000_000 },
            ..Thresholds::CONTEST
        };
        RouterConfig { processors: self.processors(), costs, patience_us, thresholds }
    }

    /// How long a request may live at most: on its way, asleep in a processor, and hanging there.
    pub fn request_us_max(&self) -> u64 {
        const DELAY_US_MAX: u64 = 5_000_000;
        const STRAY_US_MAX: u64 = 2_000_000;
        let hang_us = self.attempt_timeout_us / 700 * 1_000;
        2 * self.attempt_timeout_us + hang_us.max(100_000) + DELAY_US_MAX + STRAY_US_MAX + self.wire_delay_us
    }
}
