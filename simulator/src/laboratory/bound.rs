//! The clairvoyant bound: the most that full knowledge of the schedule allows, computed, not played.
//!
//! Time is cut into milliseconds. In each, a processor can take as many attempts as its CPU allows, and no more than
//! [`RUNNING_MAX`] may have been begun within the last delay. An attempt is worth beginning if the processor does not
//! fail when its delay is over, and if that is early enough for the books. Any such place can be used by any payment that
//! has arrived. Attempts are alike, so beginning as early as possible is best; and places that can be filled together
//! form a matroid, so the dearest places first is best: the most that the cheaper processor alone can take, then the
//! most that both can, the difference at the dearer one.
//!
//! It is a bound, not a target that somebody could hit: it forgets, at each change of a processor's condition, who still
//! occupies it; it takes the shortest base time; it fills every millisecond to the brim. Where a rate of errors is set it
//! counts on that share of the CPU alone (retrying costs a clairvoyant nothing else).
//!
//! The second bound keeps away from slow places (over [`SLOW_MS`]) as long as the payment can be processed otherwise: what
//! an auditor who compares books meanwhile lets one earn.

use std::collections::VecDeque;

use galo_engine::Processor;

use super::Settings;
use super::schedule::{Condition, Schedule};

/// Requests that run at once in one processor.
const RUNNING_MAX: usize = 800;

/// An attempt that takes longer can be seen as a difference.
const SLOW_MS: u32 = 1_000;

/// What can be earned, in ten-thousandths of a cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clairvoyant {
    /// By anybody.
    pub profit_units: u64,
    /// By who keeps away from slow places.
    pub audit_profit_units: u64,
    /// How the first is earned: payments at the cheaper and at the dearer processor.
    pub counts: [u64; 2],
}

/// A processor through time.
struct Places {
    /// Its condition in each millisecond.
    conditions: Vec<Condition>,
    /// Attempts that may begin in each millisecond, and whether they are fast.
    usable: Vec<Usable>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usable {
    count: u32,
    fast: bool,
}

/// Which places count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    None,
    Fast,
    All,
}

impl Clairvoyant {
    /// For payments that are posted at these times (µs, in order).
    #[must_use]
    pub fn new(schedule: &Schedule, settings: &Settings, posted_us: impl Iterator<Item = u64>) -> Self {
        let length = usize::try_from(schedule.final_us() / 1_000).expect("an hour at most");
        let mut arrivals = vec![0_u32; length];
        for posted_us in posted_us {
            // At the gateway, at the earliest; the rest of its millisecond is given away.
            let at = usize::try_from((posted_us + settings.front_us) / 1_000).expect("an hour at most");
            if let Some(count) = arrivals.get_mut(at) {
                *count += 1;
            }
        }
        let places = Processor::ALL.map(|processor| Places::new(schedule, settings, processor, length));
        Self::of(&arrivals, &places, settings.fees.earned_units())
    }

    fn of(
        arrivals: &[u32],
        [default, fallback]: &[Places; 2],
        [default_units, fallback_units]: [u64; 2],
    ) -> Self {
        let (cheap, dear, cheap_units, dear_units) = if default_units >= fallback_units {
            (default, fallback, default_units, fallback_units)
        } else {
            (fallback, default, fallback_units, default_units)
        };
        let rank = |cheap_which, dear_which| rank(arrivals, [(cheap, cheap_which), (dear, dear_which)]);
        let cheap_alone = rank(Which::All, Which::None);
        let both = rank(Which::All, Which::All).max(cheap_alone);
        // Which places, in the order of their worth: fast and cheap, fast and dear, slow and cheap, slow and dear.
        let fast_cheap = rank(Which::Fast, Which::None);
        let fast = rank(Which::Fast, Which::Fast).max(fast_cheap);
        let not_slow_dear = rank(Which::All, Which::Fast).max(fast);
        let all = both.max(not_slow_dear);
        let counts = [cheap_alone, both - cheap_alone];
        Self {
            profit_units: counts[0] * cheap_units + counts[1] * dear_units,
            audit_profit_units: (fast_cheap + not_slow_dear - fast) * cheap_units
                + (fast - fast_cheap + all - not_slow_dear) * dear_units,
            counts,
        }
    }
}

impl Places {
    fn new(schedule: &Schedule, settings: &Settings, processor: Processor, length: usize) -> Self {
        let mut conditions = vec![Condition::default(); length];
        for stage in &schedule.stages {
            let condition = if processor == Processor::Default { stage.default } else { stage.fallback };
            let from = usize::try_from(stage.at_s.ms).expect("an hour at most").min(length);
            conditions[from..].fill(condition);
        }
        // What an attempt takes beside its delay, at least: the way there, CPU and base time; the way back.
        let rate = settings.requests_per_second_max[processor.index()];
        let there_us = settings.link_us + 1_000_000 / rate.max(1) + settings.base_us.0;
        let back_us = settings.link_us;
        Self::of(conditions, rate, there_us, back_us)
    }

    fn of(conditions: Vec<Condition>, rate: u64, there_us: u64, back_us: u64) -> Self {
        let length = conditions.len();
        let usable = (0..length)
            .map(|at| {
                let condition = conditions[at];
                // Errors take their share of the CPU's attempts.
                let credit =
                    |ms: usize| ms as u64 * rate * u64::from(100 - condition.error_percent) / 100_000;
                let count = credit(at + 1) - credit(at);
                // The delay is the one at the moment of entering the processor; the failure switch is read when it is over.
                // Either end of this millisecond will do.
                let works = |from_us: u64| {
                    let enters = usize::try_from((from_us + there_us) / 1_000).expect("an hour at most");
                    let delay_us = u64::from(conditions.get(enters)?.delay_ms) * 1_000;
                    let decided_us = from_us + there_us + delay_us;
                    let decided = usize::try_from(decided_us / 1_000).expect("an hour at most");
                    let ends = usize::try_from((decided_us + back_us) / 1_000).expect("an hour at most");
                    (ends < length && !conditions[decided].failing).then_some(delay_us / 1_000)
                };
                let delays = [works(at as u64 * 1_000), works(at as u64 * 1_000 + 999)];
                let delay_ms = delays.into_iter().flatten().min();
                let count = if delay_ms.is_some() {
                    u32::try_from(count).expect("a rate per millisecond")
                } else {
                    0
                };
                Usable { count, fast: delay_ms.is_some_and(|delay_ms| delay_ms <= u64::from(SLOW_MS)) }
            })
            .collect();
        Self { conditions, usable }
    }
}

/// How many payments can be processed in these places.
fn rank(arrivals: &[u32], sides: [(&Places, Which); 2]) -> u64 {
    // With work for one of two processors only, it may matter for later which one takes it: the better order counts.
    let [first, second] = sides;
    if second.1 == Which::None {
        return fill(arrivals, &[first]);
    }
    fill(arrivals, &[first, second]).max(fill(arrivals, &[second, first]))
}

fn fill(arrivals: &[u32], sides: &[(&Places, Which)]) -> u64 {
    let mut begun: Vec<VecDeque<(usize, usize)>> = vec![VecDeque::new(); sides.len()];
    let mut running = vec![0_usize; sides.len()];
    let (mut waiting, mut processed) = (0_u64, 0_u64);
    for (at, arrived) in arrivals.iter().enumerate() {
        waiting += u64::from(*arrived);
        for (side, (places, which)) in sides.iter().enumerate() {
            let condition = places.conditions[at];
            if at > 0 && places.conditions[at - 1] != condition {
                begun[side].clear();
                running[side] = 0;
            }
            let delay = condition.delay_ms as usize;
            while let Some((_, count)) = begun[side].pop_front_if(|(from, _)| *from + delay <= at) {
                running[side] -= count;
            }
            let Usable { count, fast } = places.usable[at];
            if waiting == 0 || count == 0 || *which == Which::None || (*which == Which::Fast && !fast) {
                continue;
            }
            let room = (RUNNING_MAX - running[side]).min(count as usize);
            let taken = usize::try_from(waiting).unwrap_or(usize::MAX).min(room);
            if taken > 0 {
                waiting -= taken as u64;
                processed += taken as u64;
                running[side] += taken;
                begun[side].push_back((at, taken));
            }
        }
    }
    processed
}
