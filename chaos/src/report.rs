//! What a person reads in the end: figures in a table, checks with their verdicts, and the count of both kinds.

#![allow(clippy::float_arithmetic, reason = "shares and milliseconds for display, no money")]

use hdrhistogram::Histogram;

use crate::killer::{Kill, Target};
use crate::load::Post;

/// The checks so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    passed: u32,
    failed: u32,
}

impl Checks {
    /// Prints one check: `Ok` with what was seen, `Err` with what is wrong.
    pub(crate) fn add(&mut self, name: &str, result: Result<String, String>) {
        match result {
            Ok(seen) => {
                println!("PASS  {name}: {seen}");
                self.passed += 1;
            }
            Err(wrong) => {
                println!("FAIL  {name}: {wrong}");
                self.failed += 1;
            }
        }
    }

    /// A list that has to be empty.
    pub(crate) fn none<T: std::fmt::Display>(&mut self, name: &str, found: &[T], of: usize) {
        self.add(
            name,
            if found.is_empty() {
                Ok(format!("0 of {of}"))
            } else {
                let examples: Vec<String> = found.iter().take(5).map(T::to_string).collect();
                Err(format!("{} of {of}, such as {}", found.len(), examples.join(", ")))
            },
        );
    }

    /// The last line. Says whether all is well.
    pub(crate) fn finish(&self) -> bool {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0
    }
}

/// Latencies of the POSTs answered 2xx at first, from the intended moment.
pub(crate) fn latency_line<'a>(name: &str, posts: impl Iterator<Item = &'a Post>) -> String {
    // Up to ten minutes, three digits: what the crate can hold in some 200 KB.
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)
        .expect("bounds and digits are the crate's own example");
    for post in posts.filter(|post| post.first.is_yes()) {
        histogram.saturating_record(post.answered_us.saturating_sub(post.intended_us).max(1));
    }
    let at = |quantile| millis(histogram.value_at_quantile(quantile));
    format!(
        "{name:<34} p50 {:>8}  p99 {:>8}  p99.9 {:>8}  max {:>9}  ({} POSTs)",
        at(0.5),
        at(0.99),
        at(0.999),
        millis(histogram.max()),
        histogram.len()
    )
}

pub(crate) fn millis(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1000.0)
}

/// `part` of `whole` in percent.
pub(crate) fn percent(part: usize, whole: usize) -> String {
    format!("{:.4} %", part as f64 * 100.0 / whole.max(1) as f64)
}

/// What followed the kills of one target.
#[derive(Debug)]
pub(crate) struct Aftermath {
    target: Target,
    kill_count: usize,
    post_count: usize,
    pub(crate) failed_at_first: usize,
    pub(crate) failed_in_the_end: usize,
    restart_us: Vec<u64>,
    /// Of those that came back; the others are in `gone`.
    pub(crate) back_us: Vec<u64>,
    /// Never seen to work again.
    pub(crate) gone: usize,
    first_yes_us: Vec<u64>,
    marked_down: usize,
    up_us: Vec<u64>,
}

impl Aftermath {
    /// `posts` in order of their intended moments, `kills` in order of theirs. What happens between a kill and the next one
    /// is counted as the former's doing.
    pub(crate) fn of(target: Target, kills: &[Kill], posts: &[Post]) -> Self {
        let mut aftermath = Self {
            target,
            kill_count: 0,
            post_count: 0,
            failed_at_first: 0,
            failed_in_the_end: 0,
            restart_us: Vec::new(),
            back_us: Vec::new(),
            gone: 0,
            first_yes_us: Vec::new(),
            marked_down: 0,
            up_us: Vec::new(),
        };
        for (index, kill) in kills.iter().enumerate().filter(|(_, kill)| kill.target == target) {
            let end_us = kills.get(index + 1).map_or(u64::MAX, |next| next.at_us);
            let after = |at_us: Option<u64>| at_us.map(|at_us| at_us.saturating_sub(kill.at_us));
            aftermath.kill_count += 1;
            aftermath.restart_us.extend(after(kill.restarted_us));
            aftermath.back_us.extend(after(kill.back_us));
            aftermath.gone += usize::from(kill.back_us.is_none());
            aftermath.marked_down += usize::from(kill.marked_down);
            aftermath.up_us.extend(after(kill.up_us));
            aftermath.first_yes_us.extend(after(first_yes_us(kill.at_us, posts)));
            for post in posts.iter().filter(|post| (kill.at_us..end_us).contains(&post.answered_us)) {
                aftermath.post_count += 1;
                aftermath.failed_at_first += usize::from(post.failed_at_first());
                aftermath.failed_in_the_end += usize::from(post.failed_in_the_end());
            }
        }
        for times in [
            &mut aftermath.restart_us,
            &mut aftermath.back_us,
            &mut aftermath.first_yes_us,
            &mut aftermath.up_us,
        ] {
            times.sort_unstable();
        }
        aftermath
    }

    pub(crate) fn header() -> String {
        format!(
            "{:<11} {:>5}  {:>20} {:>20} {:>20} {:>22}  {:>21} {:>21}",
            "killed",
            "times",
            "restarted p50, max",
            "works p50, max",
            "first yes p50, max",
            "DOWN, then UP p50 max",
            "failed POSTs",
            "after one retry"
        )
    }

    pub(crate) fn line(&self) -> String {
        let pair = |times: &[u64]| match (times.get(times.len() / 2), times.last()) {
            (Some(median), Some(max)) => format!("{}, {}", millis(*median), millis(*max)),
            _ => "–".to_owned(),
        };
        let share = |count| format!("{count} ({})", percent(count, self.post_count));
        format!(
            "{:<11} {:>5}  {:>20} {:>20} {:>20} {:>22}  {:>21} {:>21}",
            self.target.name(),
            self.kill_count,
            pair(&self.restart_us),
            pair(&self.back_us),
            pair(&self.first_yes_us),
            format!("{}×: {}", self.marked_down, pair(&self.up_us)),
            share(self.failed_at_first),
            share(self.failed_in_the_end),
        )
    }

    /// The failures per million POSTs while this target was dying.
    pub(crate) fn failed_ppm(&self) -> u64 {
        self.failed_at_first as u64 * 1_000_000 / (self.post_count as u64).max(1)
    }

    pub(crate) fn kill_count(&self) -> usize {
        self.kill_count
    }
}

/// When a request that was due after `at_us` was first answered 2xx.
fn first_yes_us(at_us: u64, posts: &[Post]) -> Option<u64> {
    let from = posts.partition_point(|post| post.intended_us < at_us);
    let mut first: Option<u64> = None;
    for post in &posts[from..] {
        if first.is_some_and(|first| post.intended_us > first) {
            break;
        }
        if post.first.is_yes() {
            first = Some(first.map_or(post.answered_us, |first| first.min(post.answered_us)));
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Failure;
    use crate::load::Reply;

    fn post(intended_us: u64, answered_us: u64, first: Reply, retry: Option<Reply>) -> Post {
        Post { intended_us, answered_us, first, retry }
    }

    fn kill(target: Target, at_us: u64, back_us: Option<u64>) -> Kill {
        let process = target.name().to_owned();
        Kill { target, process, at_us, restarted_us: back_us, back_us, marked_down: false, up_us: None }
    }

    #[test]
    fn failures_belong_to_the_kill_before_them() {
        let yes = Reply::Yes { replayed: false };
        let broken = Reply::NoAnswer(Failure::Broken);
        let posts = [
            post(50, 60, yes, None),
            post(99, 101, broken, Some(yes)),
            post(110, 150, yes, None),
            post(120, 130, yes, None),
            post(210, 220, Reply::Error(503), Some(broken)),
        ];
        let kills = [kill(Target::Gateway, 100, Some(140)), kill(Target::Aggregator, 200, None)];
        let gateway = Aftermath::of(Target::Gateway, &kills, &posts);
        assert_eq!((gateway.post_count, gateway.failed_at_first, gateway.failed_in_the_end), (3, 1, 0));
        assert_eq!((gateway.back_us.as_slice(), gateway.gone), ([40].as_slice(), 0));
        assert_eq!(gateway.first_yes_us, [30]);
        assert_eq!(gateway.failed_ppm(), 333_333);
        let aggregator = Aftermath::of(Target::Aggregator, &kills, &posts);
        assert_eq!((aggregator.post_count, aggregator.failed_in_the_end, aggregator.gone), (1, 1, 1));
        assert!(aggregator.first_yes_us.is_empty());
        assert_eq!(Aftermath::of(Target::Haproxy, &kills, &posts).kill_count(), 0);
    }
}
