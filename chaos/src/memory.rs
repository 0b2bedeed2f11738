//! What memory each process takes while it is tormented, and whether it stays flat.
//!
//! Once a second each life of a gateway, of the aggregator and of HAProxy is asked for its resident memory (`VmRSS`) and the most
//! that it ever was (`VmHWM`). Journal segments and snapshots lie in the page cache and are in neither. The model processors, which keep
//! every payment, are left out.
//!
//! Flat means: the median of the last quarter is at most a tenth and 4 MiB above that of the second one. (The first quarter
//! fills buffers and pools.) Two kinds of stretches are judged by that: each life that lasted long enough, which shows a leak, and all
//! the shorter ones of a role together, which show what grows from one life to the next. A leak in a process that is killed every few
//! seconds shows in neither, hence `--spare-in-turn`. Connections count too: buffers and pools keep what the worst stall needed,
//! so the fewer connections the load may open, the sooner they are full.
//!
//! The aggregator grows by design until its bounds are reached: `KNOWN_LEN_MAX` ids, `BUCKET_BYTES_MAX` of time buckets,
//! 65,536 histories. Whoever wants a verdict has to set bounds that the first quarter reaches; nothing is subtracted here.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::killer::Target;
use crate::supervisor::{Identity, Supervisor};

/// Between two readings.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the last quarter may have more than the second: this, and a tenth.
const GROWTH_KIB_MAX: u64 = 4 * 1024;

/// One reading.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Since the run's start.
    at_ms: u64,
    rss_kib: u64,
}

/// One process from its start to its death.
#[derive(Debug)]
struct Life {
    role: Target,
    identity: Identity,
    samples: Vec<Sample>,
    rss_kib_max: u64,
}

/// All lives.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    lives: Vec<Life>,
}

/// Reads for ever.
pub(crate) async fn watch(supervisor: Supervisor, start: Instant, memory: Rc<RefCell<Memory>>) {
    let mut next = Instant::now();
    loop {
        // Between a death and the restart there is nobody to ask, and nothing to record.
        for process in supervisor.processes().unwrap_or_default() {
            let Some((role, identity)) = Target::of_process(&process.name).zip(process.identity) else {
                continue;
            };
            if let Some((rss_kib, rss_kib_max)) = identity.rss_kib() {
                let at_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                memory.borrow_mut().take(role, identity, Sample { at_ms, rss_kib }, rss_kib_max);
            }
        }
        next += INTERVAL;
        tokio::time::sleep_until(next.into()).await;
    }
}

impl Memory {
    fn take(&mut self, role: Target, identity: Identity, sample: Sample, rss_kib_max: u64) {
        let known = self.lives.iter().rposition(|life| life.identity == identity);
        let index = known.unwrap_or_else(|| {
            self.lives.push(Life { role, identity, samples: Vec::new(), rss_kib_max: 0 });
            self.lives.len() - 1
        });
        let life = &mut self.lives[index];
        life.samples.push(sample);
        life.rss_kib_max = life.rss_kib_max.max(rss_kib_max);
    }

    /// What a person reads of one role: nothing, if it was never seen.
    pub(crate) fn line(&self, role: Target) -> Option<String> {
        let lives = self.of(role);
        let samples = in_order(&lives);
        let peak = lives.iter().map(|life| life.rss_kib_max).max()?;
        let longest = lives.iter().max_by_key(|life| span_ms(&life.samples))?;
        Some(format!(
            "{:<11} {:>5}  {}  {:>9}  {:>7}  {}",
            role.name(),
            lives.len(),
            quarters(&samples),
            mib(peak),
            format!("{} s", span_ms(&longest.samples) / 1000),
            quarters(&longest.samples),
        ))
    }

    pub(crate) fn header() -> String {
        format!(
            "{:<11} {:>5}  {:<38}  {:>9}  {:>7}  {}",
            "memory, RSS", "lives", "median of each quarter of the run", "peak", "longest", "its quarters"
        )
    }

    /// The verdict on one role; `None` if no stretch lasted for `judged_ms`.
    pub(crate) fn judge(&self, role: Target, judged_ms: u64) -> Option<Result<String, String>> {
        let lives = self.of(role).into_iter();
        let (long, short): (Vec<_>, Vec<_>) = lives.partition(|life| span_ms(&life.samples) >= judged_ms);
        let all_short = in_order(&short);
        let mut stretches = vec![(format!("{} short lives", short.len()), all_short.as_slice())];
        stretches.extend(long.iter().map(|life| ("a life".to_owned(), life.samples.as_slice())));
        let mut seen = Vec::new();
        let mut wrong = Vec::new();
        for (name, samples) in stretches {
            if span_ms(samples) < judged_ms {
                continue;
            }
            let [_, second, _, last] = medians(samples);
            let (Some(second), Some(last)) = (second, last) else { continue };
            let text = format!("{name} {} to {} in {} s", mib(second), mib(last), span_ms(samples) / 1000);
            let is_flat = last <= second + second / 10 + GROWTH_KIB_MAX;
            if is_flat { &mut seen } else { &mut wrong }.push(text);
        }
        if !wrong.is_empty() {
            return Some(Err(wrong.join(", ")));
        }
        (!seen.is_empty()).then(|| Ok(seen.join(", ")))
    }

    fn of(&self, role: Target) -> Vec<&Life> {
        self.lives.iter().filter(|life| life.role == role).collect()
    }
}

/// All samples of some lives, in order of time.
fn in_order(lives: &[&Life]) -> Vec<Sample> {
    let mut samples: Vec<Sample> = lives.iter().flat_map(|life| life.samples.iter().copied()).collect();
    samples.sort_unstable_by_key(|sample| sample.at_ms);
    samples
}

fn span_ms(samples: &[Sample]) -> u64 {
    match (samples.first(), samples.last()) {
        (Some(first), Some(last)) => last.at_ms - first.at_ms,
        _ => 0,
    }
}

/// The median of each quarter of the time that the samples span; they are in order of time.
fn medians(samples: &[Sample]) -> [Option<u64>; 4] {
    let first_ms = samples.first().map_or(0, |sample| sample.at_ms);
    let span_ms = span_ms(samples) + 1;
    [0, 1, 2, 3].map(|quarter| {
        let of_quarter = samples.iter().filter(|sample| (sample.at_ms - first_ms) * 4 / span_ms == quarter);
        let mut rss_kib: Vec<u64> = of_quarter.map(|sample| sample.rss_kib).collect();
        rss_kib.sort_unstable();
        rss_kib.get(rss_kib.len() / 2).copied()
    })
}

fn quarters(samples: &[Sample]) -> String {
    medians(samples).map(|median| format!("{:>8}", median.map_or_else(|| "–".to_owned(), mib))).join("  ")
}

fn mib(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUDGED_MS: u64 = 600_000;

    /// Lives of a gateway that begin at these seconds and end where the next one begins, the last one after `end_s`.
    fn lives(starts_s: &[u64], end_s: u64, rss_kib: impl Fn(u64, u64) -> u64) -> Memory {
        let mut memory = Memory::default();
        for (index, start_s) in starts_s.iter().enumerate() {
            let identity = Identity::test(i32::try_from(index).unwrap());
            for second in *start_s..starts_s.get(index + 1).copied().unwrap_or(end_s) {
                let rss_kib = rss_kib(second, second - start_s);
                let sample = Sample { at_ms: second * 1000, rss_kib };
                memory.take(Target::Gateway, identity, sample, rss_kib + 1);
            }
        }
        memory
    }

    fn judge(memory: &Memory) -> Option<Result<String, String>> {
        memory.judge(Target::Gateway, JUDGED_MS)
    }

    #[test]
    fn what_fills_up_in_the_first_quarter_is_flat() {
        let memory = lives(&[0], 1200, |second, _| 8_000 + second.min(300) * 100);
        assert_eq!(judge(&memory), Some(Ok("a life 37.1 MiB to 37.1 MiB in 1199 s".to_owned())));
        assert_eq!(memory.judge(Target::Haproxy, JUDGED_MS), None, "nobody was seen");
        assert_eq!(memory.line(Target::Haproxy), None);
        assert!(
            memory.line(Target::Gateway).unwrap().contains("37.1 MiB"),
            "{:?}",
            memory.line(Target::Gateway)
        );
    }

    #[test]
    fn a_leak_shows_in_a_long_life() {
        // 100 KB a second; and 10 KB, which takes more than the least time to show.
        assert!(judge(&lives(&[0], 620, |second, _| 8_000 + second * 100)).unwrap().is_err());
        assert!(judge(&lives(&[0], 1200, |second, _| 8_000 + second * 10)).unwrap().is_err());
        // After many short lives there is one that is long enough.
        let short: Vec<u64> = (0..150).map(|life| life * 4).collect();
        let memory = lives(&short, 1200, |_, age| 8_000 + age * 100);
        let wrong = judge(&memory).unwrap().unwrap_err();
        assert!(wrong.contains("a life") && wrong.ends_with("in 603 s"), "{wrong}");
    }

    #[test]
    fn what_grows_from_life_to_life_shows_in_the_run() {
        let starts: Vec<u64> = (0..300).map(|life| life * 4).collect();
        assert!(judge(&lives(&starts, 1200, |second, _| 8_000 + second * 100)).unwrap().is_err());
        assert!(
            judge(&lives(&starts, 1200, |_, age| 8_000 + age * 1000)).unwrap().is_ok(),
            "no life inherits it"
        );
    }

    #[test]
    fn a_long_life_is_not_measured_by_short_ones() {
        let starts: Vec<u64> = (0..150).map(|life| life * 4).collect();
        let memory = lives(&starts, 1200, |_, age| 8_000 + age.min(60) * 300);
        assert_eq!(judge(&memory), Some(Ok("a life 25.3 MiB to 25.3 MiB in 603 s".to_owned())));
    }

    #[test]
    fn what_is_too_short_is_not_judged() {
        assert_eq!(judge(&lives(&[0], 600, |second, _| second * 1000)), None);
        assert!(judge(&lives(&[0], 601, |second, _| second * 1000)).is_some());
    }

    #[test]
    fn the_allowance_is_a_tenth_and_four_mebibytes() {
        let step =
            |more| lives(&[0], 1200, move |second, _| if second < 600 { 10_000 } else { 10_000 + more });
        assert!(judge(&step(1_000 + GROWTH_KIB_MAX)).unwrap().is_ok());
        assert!(judge(&step(1_001 + GROWTH_KIB_MAX)).unwrap().is_err());
    }
}
