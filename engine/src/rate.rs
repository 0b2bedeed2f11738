//! How many requests a second one gateway thread makes of one processor: a bucket of tokens that time alone fills.
//!
//! The processor's operator, or its contract, says so many a second; what goes beyond is refused there at best, and blocks the account at
//! worst. So the limit is kept here, attempts and look-ups alike. A request that finds no token is no evidence of anything: its payment waits,
//! or goes elsewhere, as with any other reason for which a processor cannot take one more.
//!
//! - In any stretch of time no more requests leave than its share of the rate, and one [burst](RateLimit::burst) more.
//! - Payments and what is asked about those in doubt take turns while both want a token: neither starves the other, however many there are.
//! - A bucket starts with one token. What it would have held is a burst at a moment when nobody knows what was sent just before.

/// A bucket holds this part of a second's tokens at most, and one in any case: a fifth.
const BURST_SHARE: u64 = 5;

/// For how long one that waits for a token counts as that, unless it is said again, µs: two looks at a queue that waits.
const WANT_US: u64 = 50_000;

/// A rate, and how many share it evenly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimit {
    /// Requests a second, from 1.
    pub per_second: u32,
    /// Threads among which they are divided, from 1.
    pub shares: u32,
}

impl RateLimit {
    /// One request, in the unit of what is saved: each microsecond of a share saves [`Self::per_second`] of them, so no fraction is lost.
    fn token(self) -> u64 {
        1_000_000 * u64::from(self.shares)
    }

    /// Requests that may leave at once after a pause.
    #[must_use]
    pub fn burst(self) -> u64 {
        (u64::from(self.per_second) / (BURST_SHARE * u64::from(self.shares))).max(1)
    }
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// A payment that is not in doubt.
    Payment = 0,
    /// One that is: sent again, or looked up.
    Doubt = 1,
}

/// The bucket of one processor.
#[derive(Clone, Debug)]
pub struct Rate {
    limit: RateLimit,
    saved: u64,
    /// `None` until it is first asked: whatever was before nobody knows.
    filled_at_us: Option<u64>,
    /// Who took the last token.
    last: Use,
    /// Until when each [`Use`] counts as waiting for one, µs.
    wanted_until_us: [u64; 2],
}

impl Rate {
    /// With one token.
    ///
    /// # Panics
    /// If either number of the limit is 0: configuration is checked before it gets here.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        assert!(limit.per_second > 0 && limit.shares > 0, "a limit that lets nothing through");
        Self { limit, saved: limit.token(), filled_at_us: None, last: Use::Doubt, wanted_until_us: [0; 2] }
    }

    /// Goes on with another limit. What is saved keeps its worth, as far as the new bucket holds it.
    pub fn set_limit(&mut self, limit: RateLimit) {
        let tokens = self.saved / self.limit.token();
        let part = self.saved % self.limit.token() * u64::from(limit.shares) / u64::from(self.limit.shares);
        self.limit = limit;
        self.saved = (tokens * limit.token() + part).min(limit.burst() * limit.token());
    }

    /// Whether [`Self::try_take`] would say yes.
    #[must_use]
    pub fn has_token(&mut self, purpose: Use, now_us: u64) -> bool {
        self.fill(now_us);
        let other = if purpose == Use::Payment { Use::Doubt } else { Use::Payment };
        // The next token is the other's, who waits for it.
        let is_others = self.last == purpose && now_us < self.wanted_until_us[other as usize];
        self.saved >= self.limit.token() * (1 + u64::from(is_others))
    }

    /// Somebody waits for one: of the next two one is his.
    pub fn want(&mut self, purpose: Use, now_us: u64) {
        self.wanted_until_us[purpose as usize] = now_us.saturating_add(WANT_US);
    }

    /// Takes a token, if there is one.
    #[must_use]
    pub fn try_take(&mut self, purpose: Use, now_us: u64) -> bool {
        if !self.has_token(purpose, now_us) {
            return false;
        }
        self.saved -= self.limit.token();
        self.last = purpose;
        self.wanted_until_us[purpose as usize] = 0;
        true
    }

    /// The request that a token was taken for was never made.
    pub fn give_back(&mut self) {
        self.saved = (self.saved + self.limit.token()).min(self.limit.burst() * self.limit.token());
    }

    /// When the next token is there, µs; not after the time of the last question if there is one now.
    #[must_use]
    pub fn next_us(&self) -> u64 {
        let missing = self.limit.token().saturating_sub(self.saved);
        let filled_at_us = self.filled_at_us.unwrap_or(0);
        filled_at_us.saturating_add(missing.div_ceil(u64::from(self.limit.per_second)))
    }

    /// How long `len` requests take, µs.
    #[must_use]
    pub fn drain_us(&self, len: u64) -> u64 {
        len.saturating_mul(self.limit.token()) / u64::from(self.limit.per_second)
    }

    fn fill(&mut self, now_us: u64) {
        let filled_at_us = self.filled_at_us.map_or(now_us, |before| before.max(now_us));
        let since_us = filled_at_us - self.filled_at_us.unwrap_or(filled_at_us);
        self.filled_at_us = Some(filled_at_us);
        let saved = self.saved.saturating_add(since_us.saturating_mul(u64::from(self.limit.per_second)));
        self.saved = saved.min(self.limit.burst() * self.limit.token());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE_US: u64 = 60_000_000;

    fn rate(per_second: u32, shares: u32) -> Rate {
        Rate::new(RateLimit { per_second, shares })
    }

    /// When tokens are taken by one that asks each `step_us` for as long as there are any.
    fn taken(rate: &mut Rate, step_us: u64, until_us: u64) -> Vec<u64> {
        let mut times = Vec::new();
        for now_us in (0..until_us).step_by(usize::try_from(step_us).unwrap()) {
            while rate.try_take(Use::Payment, now_us) {
                times.push(now_us);
            }
        }
        times
    }

    #[test]
    fn minutes_give_their_rate_to_the_token_however_they_are_divided() {
        for (per_second, shares, step_us) in
            [(50, 1, 1_000), (50, 4, 1_000), (7, 3, 777), (1, 64, 25_000), (1, 1, 5_000), (20_000, 2, 1_000)]
        {
            let mut rate = rate(per_second, shares);
            let count =
                taken(&mut rate, step_us, 64 * MINUTE_US / u64::from(per_second.min(64))).len() as u64;
            let minutes_us = 64 * MINUTE_US / u64::from(per_second.min(64));
            let last_us = (minutes_us - 1) / step_us * step_us;
            let expected = 1 + last_us * u64::from(per_second) / (1_000_000 * u64::from(shares));
            assert_eq!(count, expected, "{per_second} a second, shared by {shares}");
        }
    }

    #[test]
    fn a_pause_saves_a_fifth_of_a_second_and_at_least_one() {
        for (per_second, shares, burst) in [(50, 1, 10), (50, 4, 2), (4, 1, 1), (1, 64, 1)] {
            let mut rate = rate(per_second, shares);
            taken(&mut rate, 1, 1);
            let count =
                std::iter::from_fn(|| rate.try_take(Use::Doubt, 10 * MINUTE_US).then_some(())).count();
            assert_eq!(count, burst, "{per_second} a second, shared by {shares}");
        }
    }

    #[test]
    fn it_starts_with_one_and_says_when_the_next_is_there() {
        let mut full = rate(50, 1);
        let count = std::iter::from_fn(|| full.try_take(Use::Payment, 5_000_000).then_some(())).count();
        assert_eq!(count, 1, "time before the first question saves nothing");
        let mut rate = rate(3, 1);
        assert!(rate.try_take(Use::Payment, 5_000_000) && !rate.has_token(Use::Payment, 5_000_000));
        let next_us = rate.next_us();
        assert_eq!(next_us, 5_333_334);
        assert!(!rate.has_token(Use::Payment, next_us - 1));
        assert!(rate.has_token(Use::Payment, next_us));
        assert_eq!(rate.next_us(), next_us, "it is there");
        assert_eq!(rate.drain_us(9), 3_000_000);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let mut rate = rate(10, 1);
        assert_eq!(taken(&mut rate, 1_000, 1_000_000).len(), 10);
        assert!(!rate.has_token(Use::Payment, 0));
    }

    #[test]
    fn payments_and_doubts_take_turns_while_both_wait() {
        let mut rate = rate(10, 1);
        let mut taken = Vec::new();
        for now_us in (0..2_000_000).step_by(5_000) {
            // Doubts always come first, and payments as often as they can.
            for purpose in [Use::Doubt, Use::Payment, Use::Payment] {
                if rate.try_take(purpose, now_us) {
                    taken.push(purpose);
                } else {
                    rate.want(purpose, now_us);
                }
            }
        }
        assert_eq!(taken.len(), 20);
        assert_eq!(taken.iter().filter(|it| **it == Use::Doubt).count(), 10, "{taken:?}");
    }

    #[test]
    fn one_that_waits_no_longer_holds_nobody_up() {
        let mut rate = rate(10, 1);
        assert!(rate.try_take(Use::Payment, 0));
        rate.want(Use::Doubt, 60_000);
        assert!(!rate.has_token(Use::Payment, 100_000), "the next one is the doubt's");
        assert!(rate.has_token(Use::Payment, 110_000), "which has not asked again");
    }

    #[test]
    fn another_limit_keeps_what_was_saved() {
        let mut rate = rate(50, 1);
        taken(&mut rate, 1, 1);
        rate.fill(100_000);
        rate.set_limit(RateLimit { per_second: 100, shares: 2 });
        assert_eq!(rate.saved, 5 * rate.limit.token());
        rate.set_limit(RateLimit { per_second: 2, shares: 2 });
        assert_eq!(rate.saved, rate.limit.token());
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_the_rate_and_a_burst(
            per_second in 1..200_u32,
            shares in 1..5_u32,
            asks in prop::collection::vec((0..400_000_u64, any::<bool>(), 0..30_u8), 1..400),
        ) {
            let mut rate = rate(per_second, shares);
            let (mut now_us, mut times) = (0, Vec::new());
            for (pause_us, is_doubt, count) in asks {
                now_us += pause_us;
                let purpose = if is_doubt { Use::Doubt } else { Use::Payment };
                times.extend((0..count).filter(|_| rate.try_take(purpose, now_us)).map(|_| now_us));
            }
            let limit = rate.limit;
            for (first, start_us) in times.iter().enumerate() {
                let within = times[first..].iter().take_while(|it| **it < start_us + 1_000_000).count() as u64;
                prop_assert!(within <= u64::from(per_second).div_ceil(u64::from(shares)) + limit.burst());
            }
        }
    }
}
