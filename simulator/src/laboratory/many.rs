//! Random schedules of one to eight processors, each fixed by its seed: what [`super::generator`] is for the contest's two.
//!
//! | what | drawn |
//! | --- | --- |
//! | processors | 1 to 8, each number equally likely |
//! | fees | 1 to 25 %, each processor its own, in any order |
//! | length, clients | as with two |
//! | trouble | each processor for itself: 1 to 6 slots with random borders, each of one kind |
//! | kinds, of 100 | healthy 35, out 20, flapping 10, slow 15, errors 10, answers lost 10 |
//! | begin, lengths, delays | as with two; flapping and slow as long as an outage |
//! | errors | 5 to 60 % |
//! | answers lost | 1 to 10 % are never answered, as many connections break |
//!
//! Schedules are drawn again until at least one processor works within a second for 85 % of the time, and during the last five seconds.

use super::generator::{FAIR_END_MS, SETTLE_MS, draw_clients, draw_delay_ms, sometimes_slow, works_in_time};
use super::schedule::{Condition, Member, Moment, Schedule, Stage};
use crate::cluster::dice::Dice;

/// What processors keep, in basis points.
const FEE_BPS: (u64, u64) = (100, 2_500);

/// From when on a processor does how.
type Changes = Vec<(u64, Condition)>;

/// The schedule of a seed.
#[must_use]
pub fn generate_many(seed: u64) -> Schedule {
    let mut dice = Dice::new(seed ^ 0x4D41_4E59);
    let count = dice.between(1, 8);
    std::iter::repeat_with(|| draw(seed, count, &mut dice)).find(is_plausible).expect("an endless series")
}

fn draw(seed: u64, count: u64, dice: &mut Dice) -> Schedule {
    let seconds = if dice.one_in(3) { 300 } else { 60 };
    let clients = draw_clients(seconds, dice);
    let mut processors: Vec<Member> = Vec::new();
    while (processors.len() as u64) < count {
        let fee_bps = u32::try_from(dice.between(FEE_BPS.0, FEE_BPS.1)).expect("basis points");
        if processors.iter().all(|other| other.fee_bps != fee_bps) {
            processors.push(Member { name: format!("p{}", processors.len()), fee_bps });
        }
    }
    let changes: Vec<Changes> = processors.iter().map(|_| draw_changes(seconds, dice)).collect();
    let mut moments: Vec<u64> = changes.iter().flatten().map(|(at_ms, _)| *at_ms).collect();
    moments.sort_unstable();
    moments.dedup();
    let at = |changes: &Changes, ms: u64| {
        changes.iter().rev().find(|(at_ms, _)| *at_ms <= ms).map_or_else(Condition::default, |it| it.1)
    };
    let stages = moments.into_iter().map(|ms| {
        let conditions: Vec<Condition> = changes.iter().map(|changes| at(changes, ms)).collect();
        Stage::new(Moment::from_ms(ms), &conditions)
    });
    let stages = stages.collect();
    Schedule { name: format!("many-{seed}"), seconds, settle_ms: SETTLE_MS, processors, clients, stages }
}

/// What one processor goes through, in order of time.
fn draw_changes(seconds: u32, dice: &mut Dice) -> Changes {
    let end_ms = u64::from(seconds) * 1_000;
    let slot_count = dice.between(1, 6);
    let mut borders: Vec<u64> = (1..slot_count).map(|_| dice.between(1_000, end_ms - 1_000)).collect();
    borders.extend([1_000, end_ms]);
    borders.sort_unstable();
    borders.dedup();
    let mut changes = Changes::new();
    for slot in borders.windows(2) {
        draw_slot(slot[0], slot[1], seconds, dice, &mut changes);
    }
    // What lasts to the end does not end just before the books are compared.
    changes.retain(|(at_ms, _)| *at_ms < end_ms);
    changes
}

fn draw_slot(from_ms: u64, to_ms: u64, seconds: u32, dice: &mut Dice, changes: &mut Changes) {
    let fine = Condition::default();
    let kind = dice.between(0, 99);
    let begin_ms = from_ms + dice.between(0, (to_ms - from_ms) / 4);
    let long_ms = if seconds == 300 { 60_000 } else { 30_000 };
    let end_ms = to_ms.min(begin_ms + dice.between(3_000, long_ms));
    let mut percent = |low, high| u32::try_from(dice.between(low, high)).expect("a percentage");
    let trouble = match kind {
        0..=34 => return,
        35..=54 => Condition { failing: true, delay_ms: sometimes_slow(300, dice), ..fine },
        55..=64 => {
            let half_ms = dice.between(250, 2_500);
            let out = Condition { failing: true, ..fine };
            let mut at_ms = begin_ms;
            while at_ms < end_ms {
                changes.push((at_ms, out));
                changes.push(((at_ms + half_ms).min(end_ms), fine));
                at_ms += 2 * half_ms;
            }
            return;
        }
        65..=79 => Condition { delay_ms: draw_delay_ms(dice), ..fine },
        80..=89 => Condition { error_percent: percent(5, 60), ..fine },
        _ => {
            let lost = percent(1, 10);
            Condition { unanswered_percent: lost, reset_percent: lost, ..fine }
        }
    };
    changes.extend([(begin_ms, trouble), (end_ms, fine)]);
}

fn is_plausible(schedule: &Schedule) -> bool {
    let end_ms = u64::from(schedule.seconds) * 1_000;
    let works = |stage: &Stage| schedule.processors().any(|it| works_in_time(&stage.conditions[it.index()]));
    let (mut works_ms, mut from_ms, mut worked) = (0, 0, true);
    for stage in &schedule.stages {
        works_ms += if worked { stage.at_s.ms - from_ms } else { 0 };
        if stage.at_s.ms + FAIR_END_MS > end_ms && !(worked && works(stage)) {
            return false;
        }
        (from_ms, worked) = (stage.at_s.ms, works(stage));
    }
    works_ms += if worked { end_ms - from_ms } else { 0 };
    worked && works_ms * 100 >= end_ms * 85
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_gives_a_valid_schedule_and_always_the_same() {
        let mut counts = [0; 9];
        for seed in 0..300 {
            let schedule = generate_many(seed);
            assert_eq!(schedule.check(), Ok(()), "seed {seed}");
            assert_eq!(schedule, generate_many(seed));
            let text = serde_json::to_string(&schedule).unwrap();
            assert_eq!(Schedule::parse("generated", &text).unwrap(), schedule);
            counts[schedule.processors.len()] += 1;
            let last = schedule.stages.last().map_or([Condition::default(); 8], |stage| stage.conditions);
            assert!(last[..schedule.processors.len()].iter().any(works_in_time), "seed {seed}");
        }
        assert!(counts[1..].iter().all(|count| *count >= 20), "{counts:?}");
    }

    #[test]
    fn all_kinds_of_trouble_occur_at_the_cheapest_and_at_others() {
        let mut seen = [[0_u32; 4]; 2];
        for schedule in (0..300).map(generate_many) {
            let cheapest = schedule.fees().unwrap().order()[0];
            for processor in schedule.processors() {
                let seen = &mut seen[usize::from(processor != cheapest)];
                let any = |of: fn(&Condition) -> bool| {
                    u32::from(schedule.stages.iter().any(|stage| of(&stage.conditions[processor.index()])))
                };
                seen[0] += any(|it| it.failing);
                seen[1] += any(|it| it.delay_ms > 1_000);
                seen[2] += any(|it| it.error_percent > 0);
                seen[3] += any(|it| it.unanswered_percent > 0);
            }
        }
        assert!(seen.iter().flatten().all(|count| *count >= 20), "{seen:?}");
    }
}
