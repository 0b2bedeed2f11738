//! Processors that refuse: some payments for ever, all of them for a while, or all because of us.
//!
//! What one payment does must not stop another; no payment waits longer than its patience while another processor works; and a
//! processor that says when to come back is left alone until then. The profile is the contest's, which knows no decline: what both
//! processors refuse stays open, is tried again with growing pauses, and is processed once somebody takes it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::galo::Programs;
use crate::processor::{Act, Arrival, Asked, Processor, Then};
use crate::scene::{Case, Findings, Scene, refusal, side_by_side};
use crate::tally::Tally;

const SECOND: Duration = Duration::from_secs(1);

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1";

/// What a payment may take that nobody refuses.
const OTHERS_BOUND: Duration = SECOND;

/// After the load's end whoever is late may come for so long, to be counted as late and not as lost.
const LATE_LIMIT: Duration = Duration::from_secs(5);

/// Runs all groups.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) {
    let own = |status: u16| {
        Case::new(format!("{status} of both for two ids"), &[], move |scene, findings| {
            refused_by_both(scene, findings, status)
        })
    };
    // 429 may be one payment's limit, and a processor may fall over one payment.
    let mut cases: Vec<Case> = [400, 402, 409, 429, 500].into_iter().map(own).collect();
    cases.push(Case::new("a reset of both for two ids", &[], reset_by_both));
    for status in [400, 500] {
        let name = format!("{status} of the default one for two ids");
        cases.push(Case::new(name, &[("ROUTING_PATIENCE_MS", "2000")], move |scene, findings| {
            refused_by_default(scene, findings, status)
        }));
    }
    cases.push(Case::new(
        "400 of the default one for two ids, nobody at the other one",
        &[("PROCESSOR_FALLBACK_URL", NOBODY), ("ROUTING_PATIENCE_MS", "2000")],
        refused_beside_nobody,
    ));
    side_by_side(programs, tally, "refusals of single payments", cases);

    let limited = |name: &str, retry_after| {
        Case::new(name, &[], move |scene, findings| limited(scene, findings, retry_after))
    };
    let cases = vec![
        limited("429 with Retry-After: 5", RetryAfter::Seconds),
        limited("429 with a date of six seconds later", RetryAfter::Date),
        limited("429 without a Retry-After", RetryAfter::Absent),
    ];
    side_by_side(programs, tally, "refusals for a while", cases);

    let ours = |status: u16| {
        let name = format!("{status} of the default one for all");
        Case::new(name, &[("ROUTING_PATIENCE_MS", "1000")], move |scene, findings| {
            refused_all(scene, findings, status)
        })
    };
    let cases = [401, 403, 404, 405, 415].into_iter().map(ours).collect();
    side_by_side(programs, tally, "refusals of everything", cases);
}

/// For so long others are paid beside what is refused.
const BESIDE: Duration = Duration::from_secs(20);

/// At one processor at least it must be tried so often: with fewer there are no pauses that could grow.
const ATTEMPTS_MIN: usize = 3;

/// An id may be tried so often during that time at one processor: pauses that double from a tenth of a second are eight.
const ATTEMPTS_MAX: usize = 12;

/// Likewise where what it met may be over in no time: 429 says nothing of the payment at first, and a reset is tried again after 20 ms.
const ATTEMPTS_MAX_EAGER: usize = 16;

fn refuse_for_ever(processor: &Processor, ids: &[String], status: u16) {
    let ids = ids.to_vec();
    processor.set_manner(move |asked: &Asked<'_>| {
        ids.iter().any(|id| id == asked.id).then(|| refusal(status, ""))
    });
}

fn refused_by_both(scene: &mut Scene, findings: &mut Findings, status: u16) -> Result<(), String> {
    let ids: [String; 2] = scene.fresh_ids();
    for processor in scene.processors() {
        refuse_for_ever(processor, &ids, status);
    }
    pay_beside(scene, findings, &ids)?;
    let attempts: Vec<Vec<Instant>> = scene
        .processors()
        .iter()
        .flat_map(|processor| ids.iter().map(|id| attempts_at(processor, id)))
        .collect();
    let counts: Vec<usize> = attempts.iter().map(Vec::len).collect();
    findings.figure(format!("attempts by id and processor {counts:?}"));
    // In the order of the processors, and of the ids at each.
    let (default, fallback) = counts.split_at(ids.len());
    let most = default.iter().zip(fallback).map(|(default, fallback)| default.max(fallback));
    findings.expect(most.min() >= Some(&ATTEMPTS_MIN), || "one was not tried again and again".to_owned());
    let count_max = if status == 429 { ATTEMPTS_MAX_EAGER } else { ATTEMPTS_MAX };
    for instants in &attempts {
        findings.check(check_pauses_grow(instants, count_max));
    }
    let open: BTreeSet<String> = ids.iter().cloned().collect();
    if !findings.is_well() {
        return Ok(());
    }
    scene.check_end(&open)?;
    // Whoever refused them was wrong, and has found out.
    scene.processors().iter().for_each(|processor| processor.heal());
    let healed = Instant::now();
    scene.check_end(&BTreeSet::new())?;
    findings.figure(format!("processed {:.1?} after both took them", healed.elapsed()));
    Ok(())
}

/// What is reset stays in doubt where it was, and says no more of its processor than a refusal.
fn reset_by_both(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    let ids: [String; 2] = scene.fresh_ids();
    for processor in scene.processors() {
        let ids = ids.clone();
        processor.set_manner(move |asked: &Asked<'_>| {
            ids.iter().any(|id| id == asked.id).then(|| Act::new(false, "", Then::Reset))
        });
    }
    pay_beside(scene, findings, &ids)?;
    let attempts = ids.each_ref().map(|id| attempts_at(&scene.default, id));
    let counts = attempts.each_ref().map(Vec::len);
    findings.figure(format!("attempts at the default one {counts:?}"));
    findings.expect(counts.iter().min() >= Some(&ATTEMPTS_MIN), || {
        "one was not tried again and again".to_owned()
    });
    for instants in &attempts {
        findings.check(check_pauses_grow(instants, ATTEMPTS_MAX_EAGER));
    }
    findings.check(scene.check_no_crossing(|arrival| arrival.status == 0).map(drop));
    if !findings.is_well() {
        return Ok(());
    }
    scene.check_end(&ids.into())?;
    scene.processors().iter().for_each(|processor| processor.heal());
    let healed = Instant::now();
    scene.check_end(&BTreeSet::new())?;
    findings.figure(format!("processed {:.1?} after both took them", healed.elapsed()));
    findings.check(scene.check_no_crossing(|arrival| arrival.status == 0).map(drop));
    Ok(())
}

fn refused_by_default(scene: &mut Scene, findings: &mut Findings, status: u16) -> Result<(), String> {
    let ids: [String; 2] = scene.fresh_ids();
    refuse_for_ever(&scene.default, &ids, status);
    let usual = pay_beside(scene, findings, &ids)?;
    let counts = ids.each_ref().map(|id| attempts_at(&scene.default, id).len());
    findings.figure(format!("attempts at the default one {counts:?}"));
    findings.expect(counts.iter().all(|count| *count <= ATTEMPTS_MAX), || "tried too often".to_owned());
    let waits = scene.waits(|id| ids.iter().any(|refused| refused == id));
    findings.figure(format!("the refused ones: {waits}"));
    // Their patience, and as long again for a busy machine.
    findings
        .check(waits.check_within(SECOND * 4 + usual).map_err(|error| format!("the refused ones: {error}")));
    if findings.is_well() {
        scene.check_end(&BTreeSet::new())?;
    }
    Ok(())
}

/// What one processor refuses is not tried without a pause where nobody listens, and goes back to who takes it by now.
fn refused_beside_nobody(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    let ids: [String; 2] = scene.fresh_ids();
    refuse_for_ever(&scene.default, &ids, 400);
    pay_beside(scene, findings, &ids)?;
    let counts = ids.each_ref().map(|id| attempts_at(&scene.default, id).len());
    let unsent =
        scene.gateways_sum("galo_attempt_verdicts_total{processor=\"fallback\",verdict=\"not_sent\"}")?;
    findings.figure(format!("attempts at the default one {counts:?}, {unsent} that found nobody"));
    findings.expect(counts.iter().all(|count| (ATTEMPTS_MIN..=ATTEMPTS_MAX).contains(count)), || {
        "tried too seldom or too often".to_owned()
    });
    findings.expect(unsent <= 2 * ATTEMPTS_MAX as u64, || format!("{unsent} attempts found nobody"));
    if !findings.is_well() {
        return Ok(());
    }
    scene.default.heal();
    scene.check_end(&BTreeSet::new())
}

/// Pays the ids that are refused, then five others a second, which must not notice. What payments took here before that.
fn pay_beside(scene: &mut Scene, findings: &mut Findings, ids: &[String]) -> Result<Duration, String> {
    let usual = scene.control(findings, 5)?;
    for id in ids {
        scene.pay(id)?;
    }
    scene.pay_for(BESIDE, 5)?;
    let waits = scene.await_waits(LATE_LIMIT, |id| ids.iter().all(|refused| refused != id));
    findings.figure(&waits);
    findings.check(waits.check_within(OTHERS_BOUND + usual));
    let open = scene.gateways_sum("galo_processor_breaker_open")?;
    findings.figure(format!("{open} of 4 breakers open"));
    Ok(usual)
}

/// When this id was sent to this processor, during the time of judgement.
fn attempts_at(processor: &Processor, id: &str) -> Vec<Instant> {
    let books = processor.books();
    let of_id: Vec<Instant> =
        books.arrivals.iter().filter(|arrival| arrival.id == id).map(|arrival| arrival.at).collect();
    let end = of_id.first().map(|first| *first + BESIDE);
    of_id.into_iter().take_while(|at| end.is_some_and(|end| *at < end)).collect()
}

/// The last pauses are at least twice as long as the first ones, and there are few.
fn check_pauses_grow(instants: &[Instant], count_max: usize) -> Result<(), String> {
    if instants.len() > count_max {
        return Err(format!("{} attempts within {BESIDE:?}", instants.len()));
    }
    let pauses: Vec<Duration> = instants.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let [first, .., last] = pauses[..] else { return Ok(()) };
    // Jitter may make one of two neighbours shorter.
    let shortest = pauses.get(1).map_or(first, |second| first.min(*second));
    let longest = pauses.get(pauses.len() - 2).map_or(last, |before| last.max(*before));
    if longest < shortest * 2 {
        return Err(format!("the pauses do not grow: {pauses:.1?}"));
    }
    Ok(())
}

/// How a processor that limits says when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RetryAfter {
    Seconds,
    Date,
    Absent,
}

impl RetryAfter {
    fn header(self) -> String {
        let date = || {
            let then = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(6);
            let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
            printer.timestamp_to_rfc9110_string(&then).unwrap_or_default()
        };
        match self {
            Self::Seconds => "Retry-After: 5\r\n".to_owned(),
            Self::Date => format!("Retry-After: {}\r\n", date()),
            Self::Absent => String::new(),
        }
    }
}

/// For so long the default processor takes nothing.
const LIMITED: Duration = Duration::from_secs(20);

/// A `Retry-After` less than which nobody comes back: five seconds, and a tenth for how clocks are cut off.
const LEFT_ALONE: Duration = Duration::from_millis(4_900);

/// Gateways, and attempts of each that a `Retry-After` may cost.
const ATTEMPTS_PER_REST: usize = 2 * 2;

fn limited(scene: &mut Scene, findings: &mut Findings, retry_after: RetryAfter) -> Result<(), String> {
    let usual = scene.control(findings, 20)?;
    let lifted = Instant::now() + LIMITED;
    scene.default.set_manner(move |_| (Instant::now() < lifted).then(|| refusal(429, &retry_after.header())));
    let back_limit = SECOND * 7;
    scene.pay_for(LIMITED + back_limit + SECOND, 20)?;
    let waits = scene.await_waits(LATE_LIMIT, |_| true);
    findings.figure(&waits);
    findings.check(waits.check_within(OTHERS_BOUND + usual));
    let arrivals = scene.default.books().arrivals.clone();
    let refused: Vec<Instant> =
        arrivals.iter().filter(|arrival| arrival.status == 429).map(|arrival| arrival.at).collect();
    let (window, count_max) = match retry_after {
        RetryAfter::Seconds | RetryAfter::Date => (LEFT_ALONE, ATTEMPTS_PER_REST),
        RetryAfter::Absent => (SECOND, 20),
    };
    let most = most_within(&refused, window);
    findings.figure(format!("{} attempts refused, at most {most} within {window:?}", refused.len()));
    findings.expect(most <= count_max, || format!("more than {count_max} attempts within {window:?}"));
    let is_taken = |arrival: &&Arrival| arrival.status == 200 && arrival.at >= lifted;
    match arrivals.iter().find(is_taken).map(|arrival| arrival.at) {
        Some(taken) => {
            let back = taken.saturating_duration_since(lifted);
            findings.figure(format!("default again {back:.1?} after its limit"));
            findings.expect(back <= back_limit, || format!("that is later than {back_limit:?}"));
        }
        None => findings.check(Err("the default processor is not used again".to_owned())),
    }
    if findings.is_well() {
        scene.check_end(&BTreeSet::new())?;
    }
    Ok(())
}

/// The most instants that lie in a window of this length.
fn most_within(instants: &[Instant], window: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (index, at) in instants.iter().enumerate() {
        while *at - instants[first] >= window {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    most
}

fn refused_all(scene: &mut Scene, findings: &mut Findings, status: u16) -> Result<(), String> {
    let usual = scene.control(findings, 10)?;
    let before = scene.default.books().arrivals.len();
    scene.default.set_manner(move |_| Some(refusal(status, "")));
    scene.pay_for(SECOND * 5, 10)?;
    let breakers = scene.gateways_sum("galo_processor_breaker_open{processor=\"default\"}")?;
    let waits = scene.await_waits(LATE_LIMIT, |_| true);
    let attempts = scene.default.books().arrivals.len() - before;
    findings.figure(format!("{waits}; {attempts} attempts at the default one"));
    // A patience of a second, and another one.
    findings.check(waits.check_within(SECOND * 2 + usual));
    findings.expect(breakers == 2, || format!("{breakers} of 2 breakers of the default one are open"));
    if findings.is_well() {
        scene.check_end(&BTreeSet::new())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instants(ms: &[u64]) -> Vec<Instant> {
        let start = Instant::now();
        ms.iter().map(|ms| start + Duration::from_millis(*ms)).collect()
    }

    #[test]
    fn pauses_that_do_not_grow_are_seen() {
        check_pauses_grow(&instants(&[0]), ATTEMPTS_MAX).unwrap();
        check_pauses_grow(&instants(&[0, 100, 300, 700, 1_500]), ATTEMPTS_MAX).unwrap();
        check_pauses_grow(&instants(&[0, 100, 190, 400, 380 + 400]), ATTEMPTS_MAX).unwrap();
        check_pauses_grow(&instants(&[0, 100, 200, 300, 400]), ATTEMPTS_MAX).unwrap_err();
        check_pauses_grow(&instants(&(0..=12).map(|n| n * n * 100).collect::<Vec<_>>()), ATTEMPTS_MAX)
            .unwrap_err();
    }

    #[test]
    fn attempts_are_counted_in_a_window_that_slides() {
        assert_eq!(most_within(&[], SECOND), 0);
        assert_eq!(most_within(&instants(&[0, 900, 1_000, 1_100, 1_899, 3_000]), SECOND), 4);
        assert_eq!(most_within(&instants(&[0, 1_000, 2_000]), SECOND), 1);
    }

    #[test]
    fn a_date_is_written_as_http_writes_it() {
        let header = RetryAfter::Date.header();
        assert!(header.ends_with(" GMT\r\n") && header.len() == "Retry-After: ".len() + 31, "{header:?}");
    }
}
