//! How long a processor takes to answer, as seen by one gateway: the median of its last answers.
//!
//! A counted window rather than a moving average: one answer of five seconds among sixty of a millisecond moves an
//! average for a long time and the median not at all, and when the processor really slows down the median follows as
//! soon as half of the window says so. Answers older than [`WINDOW_US`] no longer count, so that after a lull the
//! answer is "unknown" rather than yesterday's.
//!
//! It knows nothing of attempts that have not been answered yet: right after a processor turns slow there are no slow
//! answers to count. Whoever asks must also look at the age of what is outstanding.
//!
//! Nothing here allocates; recording is one store, asking sorts at most [`LEN`] numbers.

/// How many answers are remembered: at 300 payments a second, the last fifth of a second.
pub const LEN: usize = 64;

/// How long an answer counts, in microseconds.
pub const WINDOW_US: u64 = 2_000_000;

/// The last answers of one processor.
#[derive(Clone, Debug)]
pub struct Latency {
    answers: [Sample; LEN],
    /// How many of `answers` are filled, and where the next one goes.
    len: usize,
    next: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at_us: u64,
    latency_us: u32,
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// Nothing known.
    #[must_use]
    pub fn new() -> Self {
        Self { answers: [Sample::default(); LEN], len: 0, next: 0 }
    }

    /// An answer came at `now_us`, `latency_us` after its request. Above 71 minutes (`u32::MAX`) it counts as that.
    pub fn record(&mut self, now_us: u64, latency_us: u64) {
        let latency_us = u32::try_from(latency_us).unwrap_or(u32::MAX);
        self.answers[self.next] = Sample { at_us: now_us, latency_us };
        self.next = (self.next + 1) % LEN;
        self.len = (self.len + 1).min(LEN);
    }

    /// What the next answer will probably take: the median of the window, in microseconds. `None` if it is empty.
    #[must_use]
    pub fn expected_us(&self, now_us: u64) -> Option<u64> {
        self.percentile_us(now_us, 50)
    }

    /// The smallest latency of the window that at least `percent` per cent of its answers did not exceed.
    #[must_use]
    pub fn percentile_us(&self, now_us: u64, percent: usize) -> Option<u64> {
        let mut latencies = [0_u32; LEN];
        let mut count = 0;
        for answer in &self.answers[..self.len] {
            if now_us.saturating_sub(answer.at_us) <= WINDOW_US {
                latencies[count] = answer.latency_us;
                count += 1;
            }
        }
        let rank = (count * percent.min(100)).div_ceil(100).max(1);
        let (_, nth, _) = (count > 0).then(|| latencies[..count].select_nth_unstable(rank - 1))?;
        Some(u64::from(*nth))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_known_is_not_zero() {
        assert_eq!(Latency::new().expected_us(5), None);
    }

    #[test]
    fn one_slow_answer_does_not_move_it_and_half_a_window_does() {
        let mut latency = Latency::new();
        (0..64).for_each(|at| latency.record(at, 1_000));
        latency.record(64, 5_000_000);
        assert_eq!(latency.expected_us(64), Some(1_000));
        (65..65 + 32).for_each(|at| latency.record(at, 5_000_000));
        assert_eq!(latency.expected_us(97), Some(5_000_000));
        assert_eq!(latency.percentile_us(97, 10), Some(1_000));
    }

    #[test]
    fn old_answers_stop_counting() {
        let mut latency = Latency::new();
        latency.record(1_000, 70);
        assert_eq!(latency.expected_us(1_000 + WINDOW_US), Some(70));
        assert_eq!(latency.expected_us(1_001 + WINDOW_US), None);
        latency.record(1_001 + WINDOW_US, u64::MAX);
        assert_eq!(latency.expected_us(1_001 + WINDOW_US), Some(u64::from(u32::MAX)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(
            answers in prop::collection::vec((0..100_000_u64, 0..1_000_000_u64), 0..200),
            percent in 0..=100_usize,
        ) {
            let mut latency = Latency::new();
            let mut now_us = 0;
            let mut model = Vec::new();
            for (step, latency_us) in answers {
                now_us += step;
                latency.record(now_us, latency_us);
                model.push((now_us, latency_us));
            }
            let mut window: Vec<u64> = model.iter().rev().take(LEN)
                .filter(|(at, _)| now_us - at <= WINDOW_US).map(|&(_, latency_us)| latency_us).collect();
            window.sort_unstable();
            let expected = window.iter().enumerate()
                .find(|(index, _)| (index + 1) * 100 >= percent * window.len()).map(|(_, &latency_us)| latency_us);
            prop_assert_eq!(latency.percentile_us(now_us, percent), expected);
        }
    }
}
