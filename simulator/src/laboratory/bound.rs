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

use super::schedule::{Condition, Schedule};
use super::{Fees, Settings};

/// Requests that run at once in one processor.
const RUNNING_MAX: usize = 800;

/// An attempt that takes longer can be seen as a difference.
const SLOW_MS: u32 = 1_000;

/// What can be earned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clairvoyant {
    /// By anybody: payments at each processor, by [`Processor::index`].
    pub counts: [u64; 2],
    /// By who keeps away from slow places.
    pub audit_counts: [u64; 2],
}

/// A processor through time.
struct Places {
    /// Attempts that run at once.
    running_max: usize,
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
        let places = Processor::PAIR.map(|processor| Places::new(schedule, settings, processor, length));
        Self::of(&arrivals, &places, settings.fees.cheaper() == Processor::FALLBACK)
    }

    fn of(arrivals: &[u32], places: &[Places; 2], fallback_is_cheaper: bool) -> Self {
        let [default, fallback] = places;
        let (cheap, dear) = if fallback_is_cheaper { (fallback, default) } else { (default, fallback) };
        let rank = |cheap_which, dear_which| rank(arrivals, [(cheap, cheap_which), (dear, dear_which)]);
        let cheap_alone = rank(Which::All, Which::None);
        let both = rank(Which::All, Which::All).max(cheap_alone);
        // Which places, in the order of their worth: fast and cheap, fast and dear, slow and cheap, slow and dear.
        let fast_cheap = rank(Which::Fast, Which::None);
        let fast = rank(Which::Fast, Which::Fast).max(fast_cheap);
        let not_slow_dear = rank(Which::All, Which::Fast).max(fast);
        let all = both.max(not_slow_dear);
        let by_processor =
            |cheap: u64, dear: u64| if fallback_is_cheaper { [dear, cheap] } else { [cheap, dear] };
        Self {
            counts: by_processor(cheap_alone, all - cheap_alone),
            audit_counts: by_processor(
                fast_cheap + not_slow_dear - fast,
                fast - fast_cheap + all - not_slow_dear,
            ),
        }
    }

    /// What the first bound earns, in ten-thousandths of a cent.
    #[must_use]
    pub fn profit_units(&self, fees: Fees) -> u64 {
        fees.profit_units(self.counts)
    }

    /// What the second bound earns.
    #[must_use]
    pub fn audit_profit_units(&self, fees: Fees) -> u64 {
        fees.profit_units(self.audit_counts)
    }
}

impl Places {
    fn new(schedule: &Schedule, settings: &Settings, processor: Processor, length: usize) -> Self {
        let mut conditions = vec![Condition::default(); length];
        for stage in &schedule.stages {
            let condition = if processor == Processor::DEFAULT { stage.default } else { stage.fallback };
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
        Self { running_max: RUNNING_MAX, conditions, usable }
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
            let room = (places.running_max - running[side]).min(count as usize);
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::cluster::dice::Dice;

    /// Everything that could be done, tried out.
    struct BruteForce<'a> {
        arrivals: &'a [u32],
        places: &'a [Places; 2],
        units: [u64; 2],
        fast_only: bool,
        known: HashMap<State, u64>,
    }

    /// When, who waits, and until when attempts run.
    type State = (usize, u32, [Vec<usize>; 2]);

    impl BruteForce<'_> {
        fn best(&mut self, (at, mut waiting, running): State) -> u64 {
            if at == self.arrivals.len() {
                return 0;
            }
            let key = (at, waiting, running.clone());
            if let Some(best) = self.known.get(&key) {
                return *best;
            }
            waiting += self.arrivals[at];
            let running =
                running.map(|until| until.into_iter().filter(|until| *until > at).collect::<Vec<_>>());
            let room = [0, 1].map(|side| {
                let places: &Places = &self.places[side];
                let usable = places.usable[at];
                let allowed = usable.fast || !self.fast_only;
                let free = places.running_max.saturating_sub(running[side].len());
                if allowed { (usable.count as usize).min(free) } else { 0 }
            });
            let mut best = 0;
            for default in 0..=room[0] {
                for fallback in 0..=room[1] {
                    let taken = [default, fallback];
                    let Some(left) = waiting.checked_sub(u32::try_from(default + fallback).unwrap()) else {
                        continue;
                    };
                    let mut next = running.clone();
                    for side in [0, 1] {
                        let until = at + self.places[side].conditions[at].delay_ms as usize;
                        next[side].extend(std::iter::repeat_n(until, taken[side]));
                        next[side].sort_unstable();
                    }
                    let earned = default as u64 * self.units[0] + fallback as u64 * self.units[1];
                    best = best.max(earned + self.best((at + 1, left, next)));
                }
            }
            self.known.insert(key, best);
            best
        }
    }

    fn brute_force(arrivals: &[u32], places: &[Places; 2], units: [u64; 2], fast_only: bool) -> u64 {
        let mut brute = BruteForce { arrivals, places, units, fast_only, known: HashMap::new() };
        brute.best((0, 0, [Vec::new(), Vec::new()]))
    }

    fn earned(counts: [u64; 2], units: [u64; 2]) -> u64 {
        counts[0] * units[0] + counts[1] * units[1]
    }

    /// A few milliseconds of a processor that takes one attempt in each.
    fn draw_places(dice: &mut Dice, length: usize, delays: &[u32]) -> Places {
        let mut condition = Condition::default();
        let conditions = (0..length)
            .map(|_| {
                if dice.one_in(3) {
                    condition = Condition {
                        failing: dice.one_in(3),
                        delay_ms: dice.pick(delays),
                        ..Condition::default()
                    };
                }
                condition
            })
            .collect();
        Places { running_max: 2, ..Places::of(conditions, 1_000, 0, 0) }
    }

    fn draw_arrivals(dice: &mut Dice, length: usize) -> Vec<u32> {
        (0..length).map(|_| u32::try_from(dice.between(0, 5).saturating_sub(3)).unwrap()).collect()
    }

    #[test]
    fn without_delays_the_bound_is_what_can_be_earned() {
        let mut dice = Dice::new(1);
        for case in 0..400 {
            let arrivals = draw_arrivals(&mut dice, 7);
            let places = [draw_places(&mut dice, 7, &[0]), draw_places(&mut dice, 7, &[0])];
            for (units, fallback_is_cheaper) in [([9, 7], false), ([7, 9], true)] {
                let bound = Clairvoyant::of(&arrivals, &places, fallback_is_cheaper);
                let best = brute_force(&arrivals, &places, units, false);
                assert_eq!(earned(bound.counts, units), best, "case {case}");
                assert_eq!(bound.audit_counts, bound.counts, "case {case}");
            }
        }
    }

    #[test]
    fn the_second_bound_keeps_away_from_slow_places_while_it_can() {
        let mut dice = Dice::new(3);
        let mut compared = 0;
        for case in 0..400 {
            let arrivals = draw_arrivals(&mut dice, 7);
            let mut places = [draw_places(&mut dice, 7, &[0]), draw_places(&mut dice, 7, &[0])];
            for usable in places.iter_mut().flat_map(|places| &mut places.usable) {
                usable.fast = !dice.one_in(4);
            }
            let bound = Clairvoyant::of(&arrivals, &places, false);
            let [most, audit] = [bound.counts, bound.audit_counts].map(|counts| earned(counts, [9, 7]));
            assert!(audit <= most, "case {case}");
            let can = |fast_only| brute_force(&arrivals, &places, [1, 1], fast_only);
            if can(true) == can(false) {
                let best = brute_force(&arrivals, &places, [9, 7], true);
                assert_eq!(audit, best, "case {case}");
                compared += u32::from(audit < most);
            }
        }
        assert!(compared > 50, "{compared} cases in which it matters");
    }

    #[test]
    fn with_delays_nobody_earns_more_than_the_bound() {
        let mut dice = Dice::new(2);
        let mut met = 0;
        for case in 0..400 {
            let arrivals = draw_arrivals(&mut dice, 8);
            let places = [draw_places(&mut dice, 8, &[0, 2, 3]), draw_places(&mut dice, 8, &[0, 2, 3])];
            let bound = earned(Clairvoyant::of(&arrivals, &places, false).counts, [9, 7]);
            let best = brute_force(&arrivals, &places, [9, 7], false);
            assert!(bound >= best, "case {case}: {best} can be earned, {bound} is the bound");
            met += u32::from(bound == best);
        }
        // Not a bound so high that it says nothing.
        assert!(met > 300, "{met} of 400 bounds are met");
    }
}
