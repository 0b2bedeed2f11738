//! How many attempts one gateway keeps in flight at one processor: additive increase, multiplicative decrease.
//!
//! The processor says when it is full (429) and otherwise only slows down; the right number is found by asking for a
//! little more while all goes well and stepping back by half when it does not, as TCP finds a link's. After an outage
//! it starts small again and doubles each round (slow start), so that the backlog drains paced instead of all at once
//! onto a processor that has just come back.
//!
//! - It grows only when it was the limit that held attempts back: a quiet hour proves nothing about what the processor
//!   can take.
//! - Attempts that were in flight when it shrank do not shrink it again: they are one overload, not many.
//! - Attempts that hang, later than what the processor's answers take, leave the count of places ([`Capacity::hang`]): they say nothing of what the
//!   processor can take, and would hold up the others for as long as their timeout. They go on counting against `limit_max`, the hard limit.
//! - It must never let more than `limit_max` through, hanging ones included, and every acquired place is released exactly once. Both are
//!   asserted, in release too: an attempt that is lost here is a payment that is lost.

/// How an attempt that held a place ended, as far as the processor's capacity is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The processor took the payment.
    Success,
    /// It says that it has too much to do.
    Overload,
    /// It was [hanging](Capacity::hang), and ends.
    Hanging,
    /// The end says nothing about load: a refusal, no answer, a connection that could not be opened, an attempt that was not made.
    Neutral,
}

/// The concurrency limit of one processor and the places taken.
#[derive(Clone, Debug)]
pub struct Capacity {
    limit_min: u32,
    limit_start: u32,
    limit_max: u32,
    limit: u32,
    in_flight: u32,
    /// Attempts that hang, beside those in flight.
    hanging: u32,
    /// Below this the limit doubles each round; from here on it grows by one each round.
    slow_start_until: u32,
    /// How many more successes may make it grow, since the limit was last reached. One round's worth at most.
    growth_left: u32,
    /// Successes counted towards the next step beyond slow start.
    credit: u32,
    /// Releases that still belong to the overload that shrank the limit last.
    shrunk_for: u32,
}

impl Capacity {
    /// An idle processor, at `limit_start`.
    ///
    /// # Panics
    /// Unless 1 ≤ `limit_min` ≤ `limit_start` ≤ `limit_max`: configuration is checked before it gets here.
    #[must_use]
    pub fn new(limit_min: u32, limit_start: u32, limit_max: u32) -> Self {
        assert!(
            1 <= limit_min && limit_min <= limit_start && limit_start <= limit_max,
            "limits out of order"
        );
        Self {
            limit_min,
            limit_start,
            limit_max,
            limit: limit_start,
            in_flight: 0,
            hanging: 0,
            slow_start_until: limit_max,
            growth_left: 0,
            credit: 0,
            shrunk_for: 0,
        }
    }

    /// Takes a place, if there is one.
    #[must_use = "a place that was taken must be released"]
    pub fn try_acquire(&mut self) -> bool {
        if self.in_flight >= self.limit {
            self.growth_left = self.limit;
            return false;
        }
        if self.in_flight + self.hanging >= self.limit_max {
            return false;
        }
        self.in_flight += 1;
        assert!(
            self.in_flight + self.hanging <= self.limit_max,
            "more attempts in flight than the limit's maximum"
        );
        if self.in_flight == self.limit {
            self.growth_left = self.limit;
        }
        true
    }

    /// An attempt is later than what answers take: it leaves its place to another one.
    ///
    /// # Panics
    /// If no place was taken: a bug of the caller's.
    pub fn hang(&mut self) {
        self.release(Release::Neutral);
        self.hanging += 1;
    }

    /// Whether [`Self::try_acquire`] would say yes.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.in_flight < self.limit && self.in_flight + self.hanging < self.limit_max
    }

    /// Gives a place back, and learns from how its attempt ended.
    ///
    /// # Panics
    /// If no place was taken: a bug of the caller's.
    pub fn release(&mut self, outcome: Release) {
        if outcome == Release::Hanging {
            self.hanging = self.hanging.checked_sub(1).expect("an attempt that hung is counted as that");
            return;
        }
        assert!(self.in_flight > 0, "a place was released that nobody had taken");
        self.in_flight -= 1;
        let shrunk_already = self.shrunk_for > 0;
        self.shrunk_for = self.shrunk_for.saturating_sub(1);
        match outcome {
            Release::Success => self.grow(),
            Release::Overload if shrunk_already => {}
            Release::Overload => self.shrink(),
            Release::Neutral | Release::Hanging => {}
        }
    }

    /// Attempts in flight, those that hang left out.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Attempts that hang.
    #[must_use]
    pub const fn hanging(&self) -> u32 {
        self.hanging
    }

    /// Attempts that may be in flight. After it shrank, more than this may be on their way still.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Attempts that may soon be in flight: after a start or an outage the limit doubles each round up to where it last
    /// met an overload, so a backlog is drained at that limit rather than at the one that it begins with.
    #[must_use]
    pub fn reachable(&self) -> u32 {
        self.slow_start_until.max(self.limit)
    }

    /// The processor is back after an outage: starts small again, and doubles each round.
    pub fn on_reopen(&mut self) {
        self.limit = self.limit_start;
        self.slow_start_until = self.limit_max;
        self.growth_left = 0;
        self.credit = 0;
        self.shrunk_for = 0;
    }

    fn grow(&mut self) {
        if self.growth_left == 0 || self.limit == self.limit_max {
            return;
        }
        self.growth_left -= 1;
        self.credit += 1;
        let step = if self.limit < self.slow_start_until { 1 } else { self.limit };
        if self.credit >= step {
            self.credit = 0;
            self.limit += 1;
        }
    }

    fn shrink(&mut self) {
        self.limit = (self.limit / 2).max(self.limit_min);
        self.slow_start_until = self.limit;
        self.growth_left = 0;
        self.credit = 0;
        self.shrunk_for = self.in_flight;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(capacity: &mut Capacity) -> u32 {
        std::iter::from_fn(|| capacity.try_acquire().then_some(())).fold(0, |count, ()| count + 1)
    }

    fn round(capacity: &mut Capacity, outcome: Release) {
        fill(capacity);
        (0..capacity.in_flight()).for_each(|_| capacity.release(outcome));
    }

    #[test]
    fn slow_start_doubles_each_round_up_to_the_maximum() {
        let mut capacity = Capacity::new(2, 8, 100);
        let limits: Vec<u32> =
            (0..6).map(|_| (round(&mut capacity, Release::Success), capacity.limit()).1).collect();
        assert_eq!(limits, [16, 32, 64, 100, 100, 100]);
    }

    #[test]
    fn one_overload_halves_once_and_then_grows_by_one_a_round() {
        let mut capacity = Capacity::new(2, 64, 400);
        round(&mut capacity, Release::Overload);
        assert_eq!(capacity.limit(), 32);
        round(&mut capacity, Release::Success);
        assert_eq!(capacity.limit(), 33);
        round(&mut capacity, Release::Success);
        assert_eq!(capacity.limit(), 34);
        round(&mut capacity, Release::Overload);
        assert_eq!(capacity.limit(), 17);
    }

    #[test]
    fn it_shrinks_no_further_than_the_minimum() {
        let mut capacity = Capacity::new(3, 10, 20);
        (0..10).for_each(|_| round(&mut capacity, Release::Overload));
        assert_eq!(capacity.limit(), 3);
    }

    #[test]
    fn an_unused_limit_does_not_grow() {
        let mut capacity = Capacity::new(2, 8, 400);
        for _ in 0..1_000 {
            (0..7).for_each(|_| assert!(capacity.try_acquire()));
            (0..7).for_each(|_| capacity.release(Release::Success));
        }
        assert_eq!(capacity.limit(), 8);
    }

    #[test]
    fn a_failure_neither_shrinks_it_nor_ends_its_growth() {
        let mut capacity = Capacity::new(2, 8, 400);
        assert_eq!(fill(&mut capacity), 8);
        capacity.release(Release::Success);
        assert_eq!(capacity.limit(), 9);
        (0..2).for_each(|_| capacity.release(Release::Neutral));
        (0..5).for_each(|_| capacity.release(Release::Success));
        assert_eq!((capacity.limit(), capacity.in_flight()), (14, 0));
    }

    #[test]
    fn after_an_outage_it_starts_small_while_old_attempts_still_count() {
        let mut capacity = Capacity::new(2, 4, 400);
        (0..5).for_each(|_| round(&mut capacity, Release::Success));
        assert_eq!((capacity.limit(), fill(&mut capacity)), (128, 128));
        capacity.on_reopen();
        assert_eq!((capacity.limit(), capacity.try_acquire()), (4, false));
        (0..126).for_each(|_| capacity.release(Release::Neutral));
        assert_eq!(fill(&mut capacity), 2);
    }

    #[test]
    #[should_panic(expected = "nobody had taken")]
    fn releasing_what_nobody_took_is_a_bug() {
        Capacity::new(1, 1, 1).release(Release::Neutral);
    }

    #[test]
    fn attempts_that_hang_leave_their_places_and_count_against_the_hard_limit() {
        let mut capacity = Capacity::new(2, 8, 10);
        assert_eq!(fill(&mut capacity), 8);
        (0..6).for_each(|_| capacity.hang());
        assert_eq!((capacity.in_flight(), capacity.hanging(), capacity.limit()), (2, 6, 8));
        assert_eq!(fill(&mut capacity), 2, "8 places are free, and the hard limit of 10 leaves 2");
        assert!(!capacity.has_room());
        capacity.release(Release::Hanging);
        assert_eq!(
            (capacity.limit(), fill(&mut capacity)),
            (8, 1),
            "its end neither shrinks nor grows the limit"
        );
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(
            start in 2..20_u32,
            steps in prop::collection::vec(0..12_u8, 0..2_000),
        ) {
            let mut capacity = Capacity::new(2, start, 40);
            let mut in_flight = 0;
            for step in steps {
                let limit = capacity.limit();
                let outcome = match step {
                    0..6 => {
                        let acquired = capacity.try_acquire();
                        prop_assert_eq!(acquired, in_flight < limit);
                        in_flight += u32::from(acquired);
                        continue;
                    }
                    6..9 => Release::Success,
                    9 => Release::Overload,
                    _ => Release::Neutral,
                };
                if in_flight > 0 {
                    capacity.release(outcome);
                    in_flight -= 1;
                }
                prop_assert_eq!(capacity.in_flight(), in_flight);
                prop_assert!((2..=40).contains(&capacity.limit()));
                match outcome {
                    Release::Success => prop_assert!(capacity.limit() == limit || capacity.limit() == limit + 1),
                    Release::Overload => prop_assert!(capacity.limit() == limit || capacity.limit() == (limit / 2).max(2)),
                    Release::Neutral | Release::Hanging => prop_assert_eq!(capacity.limit(), limit),
                }
            }
        }
    }
}
