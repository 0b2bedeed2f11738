//! The clairvoyant bound: the most that full knowledge of the schedule allows, computed, not played.
//!
//! Time is cut into milliseconds. In each, a processor can begin as many attempts as its CPU allows, and no more than
//! [`RUNNING_MAX`] within one delay. An attempt is worth beginning if the processor does not fail when its delay is over, and
//! if that is early enough for the books. It is a bound, not a target that somebody could hit: it forgets, at each change of a processor's
//! condition, who still occupies it; it takes the shortest base time; it fills every millisecond to the brim; requests that are never answered
//! occupy nothing and are known beforehand. Where a rate of errors is set it counts on the other share of the CPU alone (retrying costs a clairvoyant nothing else).
//!
//! **How many payments can some processors process?** With `room(t)` the most attempts that a processor can begin from `t` on if payments
//! never lack, the most is the least, over all `t`, of what arrived before `t` and the processors' `room(t)` together.
//!
//! - No more: what began before `t` had arrived before `t`, and the others began from `t` on.
//! - No fewer: fill each processor from the end backwards, each millisecond to the brim. From *every* `t` on that gives `room(t)`: were there a first `t`,
//!   counted from the end, from which another filling has more, then that one has more at `t` itself, so it was not the CPU that stopped ours there; and if
//!   `RUNNING_MAX` did, then both have at most that many within the delay, and from its end on the other has no more than ours. Of these places
//!   any part may be used. A payment fits each place that is not before its arrival, so the cheapest way to cover all pairs that fit is
//!   all payments before some `t` and all places from `t` on, and by Kőnig's theorem as many as that can be paired.
//!
//! **What is that worth?** Let a payment earn `p₁ ≥ p₂ ≥ …` at the processors from the cheapest to the dearest, with nothing after the last, and let `R₁ ≤ R₂ ≤ …` be
//! the most that the cheapest, the two cheapest, … can process. Whoever processes `n₁, n₂, …` payments has `n₁ + … + nₖ ≤ Rₖ` for each `k`, so earns
//! `Σ pₖ nₖ = Σ (pₖ − pₖ₊₁)(n₁ + … + nₖ) ≤ Σ (pₖ − pₖ₊₁) Rₖ = Σ pₖ (Rₖ − Rₖ₋₁)`. The last sum is the bound, and `Rₖ − Rₖ₋₁` its payments at the `k`-th.
//! Without delays it is met; with them, seldom missed (`with_delays_nobody_earns_more_than_the_bound`).
//!
//! The second bound keeps away from slow places (over [`SLOW_MS`]) as long as the payment can be processed otherwise: what
//! an auditor who compares books meanwhile lets one earn. It fills the fast places of all processors first, then the slow ones.

use std::collections::VecDeque;

use galo_engine::Processor;

use super::schedule::{Condition, Schedule};
use super::{Counts, Fees, Settings};

/// Requests that run at once in one processor.
const RUNNING_MAX: usize = 800;

/// An attempt that takes longer can be seen as a difference.
const SLOW_MS: u32 = 1_000;

/// What can be earned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clairvoyant {
    /// By anybody: payments at each processor.
    pub counts: Counts,
    /// By who keeps away from slow places.
    pub audit_counts: Counts,
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
    Fast,
    All,
}

/// How many attempts a processor can begin from each millisecond on, the end included.
type Room = Vec<u64>;

/// What full knowledge of a schedule's processors is, whoever posts.
pub struct Foresight {
    /// How many milliseconds.
    length: usize,
    front_us: u64,
    /// From the cheapest to the dearest: in fast places, and in all.
    rooms: Vec<(Processor, Room, Room)>,
}

impl Foresight {
    /// Looks at a schedule.
    #[must_use]
    pub fn new(schedule: &Schedule, settings: &Settings) -> Self {
        let length = usize::try_from(schedule.final_us() / 1_000).expect("an hour at most");
        let order = settings.fees.order().into_iter();
        let places = order.map(|processor| (processor, Places::new(schedule, settings, processor, length)));
        Self::of(length, settings.front_us, places)
    }

    fn of(length: usize, front_us: u64, places: impl Iterator<Item = (Processor, Places)>) -> Self {
        let rooms = places
            .map(|(processor, places)| (processor, places.room(Which::Fast), places.room(Which::All)))
            .collect();
        Self { length, front_us, rooms }
    }

    /// What can be earned with payments that are posted at these times (µs).
    #[must_use]
    pub fn bound(&self, posted_us: impl Iterator<Item = u64>) -> Clairvoyant {
        let mut arrivals = vec![0_u32; self.length];
        for posted_us in posted_us {
            // At the gateway, at the earliest; the rest of its millisecond is given away.
            let at = usize::try_from((posted_us + self.front_us) / 1_000).expect("an hour at most");
            if let Some(count) = arrivals.get_mut(at) {
                *count += 1;
            }
        }
        self.bound_of(&arrivals)
    }

    fn bound_of(&self, arrivals: &[u32]) -> Clairvoyant {
        let mut arrived = Vec::with_capacity(arrivals.len() + 1);
        arrived.push(0_u64);
        for count in arrivals {
            arrived.push(arrived[arrived.len() - 1] + u64::from(*count));
        }
        let nothing = vec![0; arrived.len()];
        let all = self.rooms.iter().map(|(processor, _, all)| (*processor, &nothing, all));
        let fast = self.rooms.iter().map(|(processor, fast, _)| (*processor, &nothing, fast));
        let slow = self.rooms.iter().map(|(processor, fast, all)| (*processor, fast, all));
        Clairvoyant { counts: fill(&arrived, all), audit_counts: fill(&arrived, fast.chain(slow)) }
    }
}

/// How many more payments can be processed each time that a processor has more room: the latter instead of the former.
fn fill<'a>(arrived: &[u64], steps: impl Iterator<Item = (Processor, &'a Room, &'a Room)>) -> Counts {
    let mut counts = Counts::default();
    let mut processed = 0;
    // What arrived before each moment, and can begin from it on.
    let mut reach = arrived.to_vec();
    for (processor, former, latter) in steps {
        for (reach, (former, latter)) in reach.iter_mut().zip(former.iter().zip(latter)) {
            *reach += latter - former;
        }
        let most = *reach.iter().min().expect("the end is a moment, too");
        counts[processor.index()] += most - processed;
        processed = most;
    }
    counts
}

impl Clairvoyant {
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
            let from = usize::try_from(stage.at_s.ms).expect("an hour at most").min(length);
            conditions[from..].fill(stage.conditions[processor.index()]);
        }
        // What an attempt takes beside its delay, at least: the way there, CPU and base time; the way back.
        let rate = settings.requests_per_second_max;
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

    /// Fills it from the end backwards.
    fn room(&self, which: Which) -> Room {
        let length = self.conditions.len();
        let mut room = vec![0; length + 1];
        let mut begun: VecDeque<(usize, usize)> = VecDeque::new();
        let mut running = 0;
        for at in (0..length).rev() {
            let condition = self.conditions[at];
            if self.conditions.get(at + 1).is_some_and(|next| *next != condition) {
                begun.clear();
                running = 0;
            }
            let ends = at + condition.delay_ms as usize;
            while let Some((_, count)) = begun.pop_front_if(|(from, _)| ends <= *from) {
                running -= count;
            }
            let Usable { count, fast } = self.usable[at];
            let counts = fast || which == Which::All;
            let taken = if counts { (count as usize).min(self.running_max - running) } else { 0 };
            if taken > 0 {
                running += taken;
                begun.push_back((at, taken));
            }
            room[at] = room[at + 1] + taken as u64;
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::generator::{generate, generate_any_end};
    use super::*;
    use crate::cluster::dice::Dice;

    /// Everything that could be done, tried out.
    struct BruteForce<'a> {
        arrivals: &'a [u32],
        places: &'a [Places],
        units: &'a [u64],
        fast_only: bool,
        known: HashMap<State, u64>,
    }

    /// When, who waits, and until when attempts run.
    type State = (usize, u32, Vec<Vec<usize>>);

    impl BruteForce<'_> {
        fn best(&mut self, (at, mut waiting, mut running): State) -> u64 {
            if at == self.arrivals.len() {
                return 0;
            }
            let key = (at, waiting, running.clone());
            if let Some(best) = self.known.get(&key) {
                return *best;
            }
            waiting += self.arrivals[at];
            running.iter_mut().for_each(|until| until.retain(|until| *until > at));
            let best = self.best_from(0, 0, (at, waiting, running));
            self.known.insert(key, best);
            best
        }

        /// With what the processors before this one earn already.
        fn best_from(&mut self, side: usize, earned: u64, (at, waiting, running): State) -> u64 {
            let Some(places) = self.places.get(side) else {
                return earned + self.best((at + 1, waiting, running));
            };
            let usable = places.usable[at];
            let free = places.running_max.saturating_sub(running[side].len());
            let allowed = usable.fast || !self.fast_only;
            let room = if allowed { (usable.count as usize).min(free) } else { 0 };
            let until = at + places.conditions[at].delay_ms as usize;
            let taken = (0..=room).filter(|taken| *taken <= waiting as usize);
            let after = taken.map(|taken| {
                let mut next = running.clone();
                next[side].extend(std::iter::repeat_n(until, taken));
                next[side].sort_unstable();
                let left = waiting - u32::try_from(taken).unwrap();
                let earned = earned + taken as u64 * self.units[side];
                self.best_from(side + 1, earned, (at, left, next))
            });
            after.max().unwrap()
        }
    }

    fn brute_force(arrivals: &[u32], places: &[Places], units: &[u64], fast_only: bool) -> u64 {
        let mut brute = BruteForce { arrivals, places, units, fast_only, known: HashMap::new() };
        brute.best((0, 0, vec![Vec::new(); places.len()]))
    }

    fn earned(counts: Counts, units: &[u64]) -> u64 {
        counts.iter().zip(units).map(|(count, units)| count * units).sum()
    }

    /// Of processors that earn so much.
    fn bound(arrivals: &[u32], places: &[Places], units: &[u64]) -> Clairvoyant {
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(units[*index]));
        let places = order.into_iter().map(|index| {
            let Places { running_max, conditions, usable } = &places[index];
            let (conditions, usable) = (conditions.clone(), usable.clone());
            (Processor::ALL[index], Places { running_max: *running_max, conditions, usable })
        });
        Foresight::of(arrivals.len(), 0, places).bound_of(arrivals)
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

    fn draw_all(dice: &mut Dice, count: usize, length: usize, delays: &[u32]) -> Vec<Places> {
        (0..count).map(|_| draw_places(dice, length, delays)).collect()
    }

    fn draw_arrivals(dice: &mut Dice, length: usize) -> Vec<u32> {
        (0..length).map(|_| u32::try_from(dice.between(0, 5).saturating_sub(3)).unwrap()).collect()
    }

    const DELAYS: &[u32] = &[0, 2, 3];

    #[test]
    fn without_delays_the_bound_is_what_can_be_earned() {
        let mut dice = Dice::new(1);
        for case in 0..400 {
            let arrivals = draw_arrivals(&mut dice, 7);
            let places = draw_all(&mut dice, 1 + case % 3, 7, &[0]);
            for units in [&[9, 7, 4], &[7, 9, 4], &[4, 7, 9], &[7, 7, 9]] {
                let bound = bound(&arrivals, &places, units);
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
        let units = &[9, 7, 4];
        for case in 0..400 {
            let arrivals = draw_arrivals(&mut dice, 7);
            let mut places = draw_all(&mut dice, 2 + case % 2, 7, &[0]);
            for usable in places.iter_mut().flat_map(|places| &mut places.usable) {
                usable.fast = !dice.one_in(4);
            }
            let bound = bound(&arrivals, &places, units);
            let [most, audit] = [bound.counts, bound.audit_counts].map(|counts| earned(counts, units));
            assert!(audit <= most, "case {case}");
            let can = |fast_only| brute_force(&arrivals, &places, &[1, 1, 1], fast_only);
            if can(true) == can(false) {
                let best = brute_force(&arrivals, &places, units, true);
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
        let units = &[9, 7, 4];
        for case in 0..400 {
            let arrivals = draw_arrivals(&mut dice, 7);
            let places = draw_all(&mut dice, 1 + case % 3, 7, DELAYS);
            let bound = earned(bound(&arrivals, &places, units).counts, units);
            let best = brute_force(&arrivals, &places, units, false);
            assert!(bound >= best, "case {case}: {best} can be earned, {bound} is the bound");
            met += u32::from(bound == best);
        }
        // Not a bound so high that it says nothing.
        assert!(met > 300, "{met} of 400 bounds are met");
    }

    #[test]
    fn as_many_payments_as_it_counts_can_be_processed() {
        let mut dice = Dice::new(4);
        for case in 0..400 {
            let arrivals = draw_arrivals(&mut dice, 8);
            let mut places = draw_all(&mut dice, 1 + case % 3, 8, DELAYS);
            // A condition that changes frees its processor, which is more than can be.
            for places in &mut places {
                places.conditions.fill(Condition { delay_ms: dice.pick(DELAYS), ..Condition::default() });
            }
            let units = &[1, 1, 1];
            let counts = bound(&arrivals, &places, units).counts;
            assert_eq!(
                counts.iter().sum::<u64>(),
                brute_force(&arrivals, &places, units, false),
                "case {case}"
            );
        }
    }

    /// Each client's POSTs, if all were answered within 0.6 ms.
    fn posts(schedule: &Schedule) -> Vec<u64> {
        let every_us = |from_us: u64| (from_us..).step_by(1_000_600);
        let end_us = |end_us: u64| end_us.min(schedule.end_us());
        let lives = schedule.lives().into_iter();
        lives
            .flat_map(|life| every_us(life.start_us).take_while(move |at| *at < end_us(life.end_us)))
            .collect()
    }

    #[test]
    fn of_two_processors_it_is_what_it_was_when_there_could_not_be_more() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schedules");
        for line in include_str!("bound-of-pairs.txt").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, cheaper, was @ ..] = words.as_slice() else { panic!("{line}: no line of this file") };
            let seed = |prefix| name.strip_prefix(prefix).map(|seed| seed.parse().unwrap());
            let schedule = match (seed("random-"), seed("any-end-")) {
                (Some(seed), _) => generate(seed),
                (_, Some(seed)) => generate_any_end(seed),
                _ => Schedule::read(&folder.join(format!("{name}.json"))).unwrap(),
            };
            let fees = Fees::pair(if *cheaper == "default" { [500, 1_500] } else { [1_500, 500] });
            let foresight = Foresight::new(&schedule, &Settings::new(fees, 0));
            let Clairvoyant { counts, audit_counts } = foresight.bound(posts(&schedule).into_iter());
            let is = [counts[0], counts[1], audit_counts[0], audit_counts[1]].map(|it| it.to_string());
            assert_eq!(is.as_slice(), was, "{name}, {cheaper}");
        }
    }
}
