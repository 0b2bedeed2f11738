//! Processors that are slow, or never answer some of what they are sent.
//!
//! Slow is not broken: where both take seconds, payments take as long as that and no longer. And an attempt that hangs is
//! in doubt, but it must not hold up the others: their places, their queue and their processor are none of its business.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::galo::Programs;
use crate::processor::{Act, Asked, Processor, Then, plain};
use crate::scene::{Case, Findings, Scene, side_by_side};
use crate::tally::Tally;

const SECOND: Duration = Duration::from_secs(1);

/// After so long without an answer an attempt ends where some hang: a third of the default, so that what late ends do shows within
/// the case.
const TIMEOUT: [(&str, &str); 1] = [("ATTEMPT_TIMEOUT_MS", "10000")];

/// Payments beside attempts that hang: three timeouts long.
const BESIDE: (Duration, u32) = (Duration::from_secs(30), 150);

/// Runs both groups.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) {
    let slow = |delay_ms: u64, profile: &'static str| {
        let name = format!("both take {delay_ms} ms, profile {profile}");
        Case::new(name, &[("ROUTING_PROFILE", profile)], move |scene, findings| {
            slow_both(scene, findings, Duration::from_millis(delay_ms), profile == "contest")
        })
    };
    let cases = vec![slow(1_500, "steady"), slow(4_000, "steady"), slow(1_500, "contest")];
    side_by_side(programs, tally, "slowness of both", cases);

    let hang = |one_in: u64| {
        let percent = 100 / one_in;
        let name = format!("the default one hangs at {percent} % and resets {percent} %");
        Case::new(name, &TIMEOUT, move |scene, findings| hanging(scene, findings, one_in))
    };
    let timeout = [("ATTEMPT_TIMEOUT_MS", "5000")];
    let both = Case::new("neither answers anything for ten seconds", &timeout, silent_both);
    side_by_side(programs, tally, "slowness without an end", vec![hang(50), hang(10), both]);
}

/// The contest's auditor looks a second and a half back, so its profile holds payments for faster days, and how long they take
/// there is reported and not judged.
fn slow_both(
    scene: &mut Scene,
    findings: &mut Findings,
    delay: Duration,
    is_contest: bool,
) -> Result<(), String> {
    let usual = scene.control(findings, 10)?;
    let health = format!(r#"{{"failing":false,"minResponseTime":{}}}"#, delay.as_millis());
    for processor in scene.processors() {
        processor.set_manner(move |asked: &Asked<'_>| Some(asked.honestly().after(delay)));
        processor.script_health(Some(Act::new(false, plain(200, "OK", &health), Then::Stay)));
    }
    scene.pay_for(SECOND * 10, 10)?;
    let limit = delay * 2 + SECOND + usual;
    let waits = scene.await_waits(limit, |_| true);
    let at_default = scene.default.books().stored.len();
    findings.figure(format!("{waits}; {at_default} at the default one"));
    if !is_contest {
        findings.check(waits.check_all());
        findings.expect(waits.longest() <= limit, || format!("longer than {limit:?}"));
    }
    if findings.is_well() {
        scene.check_end(&BTreeSet::new())?;
    }
    Ok(())
}

/// Each of these stores every other payment that it does not answer.
fn hang_at_some(processor: &Processor, one_in: u64) {
    processor.set_manner(move |asked: &Asked<'_>| {
        let stores = (asked.number / one_in).is_multiple_of(2);
        let then = match asked.number % one_in {
            3 => Then::Hang,
            rest if rest == 3 + one_in / 2 => Then::Reset,
            _ => return None,
        };
        Some(Act::new(stores, "", then))
    });
}

fn hanging(scene: &mut Scene, findings: &mut Findings, one_in: u64) -> Result<(), String> {
    let (time, per_second) = BESIDE;
    let usual = scene.control(findings, per_second)?;
    hang_at_some(&scene.default, one_in);
    scene.pay_for(time, per_second)?;
    let unanswered = |scene: &Scene| -> BTreeSet<String> {
        let books = scene.default.books();
        books
            .arrivals
            .iter()
            .filter(|arrival| arrival.status == 0)
            .map(|arrival| arrival.id.clone())
            .collect()
    };
    // Which payments hang is only known once none of the others waits: one that waits may be the next to hang.
    scene.is_within(SECOND * 5, |scene| {
        let hit = unanswered(scene);
        Ok(scene.waits(|id| !hit.contains(id)).check_all().is_ok())
    })?;
    let hit = unanswered(scene);
    let waits = scene.waits(|id| !hit.contains(id));
    let [default, fallback] = scene.processors().map(|processor| processor.books().stored.len());
    findings.figure(format!(
        "others: {waits}; {} hung or reset; {default} at the default one, {fallback} at the other",
        hit.len()
    ));
    findings.check(waits.check_within(SECOND * 2 + usual));
    findings.expect(!hit.is_empty(), || "nothing hung".to_owned());
    findings.check(scene.check_no_crossing(|arrival| arrival.status == 0).map(drop));
    if findings.is_well() {
        scene.default.heal();
        let healed = Instant::now();
        scene.check_end(&BTreeSet::new())?;
        findings.figure(format!("all processed {:.1?} after it was well", healed.elapsed()));
    }
    Ok(())
}

fn silent_both(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    for processor in scene.processors() {
        processor
            .set_manner(|asked: &Asked<'_>| Some(Act::new(asked.number.is_multiple_of(2), "", Then::Stay)));
    }
    scene.pay_for(SECOND * 10, 20)?;
    scene.processors().iter().for_each(|processor| processor.heal());
    let healed = Instant::now();
    scene.check_end(&BTreeSet::new())?;
    findings.figure(format!(
        "{}; all processed {:.1?} after both were well",
        scene.waits(|_| true),
        healed.elapsed()
    ));
    let count = scene.check_no_crossing(|arrival| arrival.status == 0)?;
    findings.figure(format!("{count} had hung, none crossed over"));
    findings.expect(count > 0, || "nothing hung".to_owned());
    Ok(())
}
