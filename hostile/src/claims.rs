//! Processors that say they have a payment when they do not, have another one, or do not say so when they have it.
//!
//! A 422 or 409 is a claim, and the look-up is the proof: nothing is booked as processed that no book has. A status that a
//! proxy may have said on its own, after the processor stored the payment, leaves the payment in doubt: it stays where it is and is
//! charged once.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::faults::{check_view, pay, view};
use crate::galo::{Programs, metrics, sum};
use crate::processor::{Act, Asked, Payment, Then};
use crate::scene::{Case, Findings, Scene, check_open, refusal, side_by_side};
use crate::tally::Tally;
use crate::world::payment_json;

const SECOND: Duration = Duration::from_secs(1);

/// What a payment may take about which nobody claims anything.
const OTHERS_BOUND: Duration = SECOND;

/// For what is waited for, and not measured.
const LIMIT: Duration = Duration::from_secs(20);

/// Payments beside those that something is claimed about: so long, so many a second.
const BESIDE: (Duration, u32) = (Duration::from_secs(5), 5);

/// Of the ledger that forgets.
const KNOWN_LEN_MAX: &str = "10";

/// Runs both groups.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) {
    let mut cases = Vec::new();
    for status in [422, 409] {
        cases.push(Case::new(
            format!("{status} of both for what nobody stored"),
            &[],
            move |scene, findings| never_stored(scene, findings, status, true),
        ));
        cases.push(Case::new(
            format!("{status} of the default one for what it never stored"),
            &[],
            move |scene, findings| never_stored(scene, findings, status, false),
        ));
    }
    cases.push(Case::new("409 for what it stored and did not answer", &[], stored_unanswered));
    cases.push(Case::new("another amount under this id", &[], other_amount));
    cases.push(Case::new(
        "ids that were forgotten and come back",
        &[("KNOWN_LEN_MAX", KNOWN_LEN_MAX)],
        come_back,
    ));
    side_by_side(programs, tally, "claims of duplicates", cases);

    let proxies = |status: u16| {
        let name = format!("{status} for what was stored, for five seconds");
        Case::new(name, &[], move |scene, findings| behind_a_proxy(scene, findings, status))
    };
    let cases = [408, 425, 499, 502, 503, 504].into_iter().map(proxies).collect();
    side_by_side(programs, tally, "claims of proxies", cases);
}

/// Five others a second, which must not notice what happens to these.
fn pay_beside(scene: &mut Scene, findings: &mut Findings, ids: &[String]) -> Result<(), String> {
    let (time, per_second) = BESIDE;
    let usual = scene.control(findings, per_second)?;
    for id in ids {
        scene.pay(id)?;
    }
    scene.pay_for(time, per_second)?;
    let waits = scene.await_waits(SECOND * 5, |id| ids.iter().all(|own| own != id));
    findings.figure(format!("others: {waits}"));
    findings.check(waits.check_within(OTHERS_BOUND + usual));
    Ok(())
}

fn never_stored(
    scene: &mut Scene,
    findings: &mut Findings,
    status: u16,
    is_both: bool,
) -> Result<(), String> {
    let ids: [String; 3] = scene.fresh_ids();
    for processor in scene.processors().into_iter().take(if is_both { 2 } else { 1 }) {
        let ids = ids.clone();
        processor.set_manner(move |asked: &Asked<'_>| {
            ids.iter().any(|id| id == asked.id).then(|| refusal(status, ""))
        });
    }
    pay_beside(scene, findings, &ids)?;
    let processors = scene.processors();
    let attempts: usize =
        processors.iter().flat_map(|processor| ids.iter().map(|id| processor.posts(id).len())).sum();
    let lookups: u64 = processors.iter().map(|processor| processor.books().lookup_count).sum();
    findings.figure(format!("{attempts} attempts and {lookups} look-ups for three ids"));
    // Where the other one takes them, it may have them by now: then they are in its book, and the ledger says so.
    let open: BTreeSet<String> =
        ids.iter().filter(|id| scene.fallback.stored(id).is_none()).cloned().collect();
    findings.figure(format!("{} of 3 open", open.len()));
    for id in &ids {
        let way = scene.galo.straight(0);
        findings.check(if open.contains(id) {
            check_open(&way, id)
        } else {
            view(&way, id).and_then(|seen| check_view(&seen, id, &scene.default, &scene.fallback))
        });
    }
    if findings.is_well() {
        scene.check_end(&open)?;
    }
    Ok(())
}

fn stored_unanswered(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    let ids: [String; 3] = scene.fresh_ids();
    scene.default.set_manner(|asked: &Asked<'_>| asked.is_known.then(|| refusal(409, "")));
    for id in &ids {
        scene.default.script(id, [Act::new(true, "", Then::Close)]);
    }
    pay_beside(scene, findings, &ids)?;
    let way = scene.galo.straight(1);
    let is_settled = scene.is_within(LIMIT, |_| {
        let mut seen = ids.iter().map(|id| view(&way, id).map(|seen| seen.state == "processed"));
        seen.try_fold(true, |is_so, seen| seen.map(|seen| is_so && seen))
    })?;
    let attempts = ids.each_ref().map(|id| scene.default.posts(id).len());
    findings.figure(format!("attempts by id {attempts:?}"));
    findings.expect(is_settled, || format!("not settled within {LIMIT:?}"));
    if !is_settled {
        return Ok(());
    }
    for id in &ids {
        findings.check(check_view(&view(&way, id)?, id, &scene.default, &scene.fallback));
        findings.expect(scene.fallback.posts(id).is_empty(), || format!("{id} crossed over in doubt"));
    }
    scene.check_end(&BTreeSet::new())
}

fn other_amount(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    let ids: [String; 1] = scene.fresh_ids();
    let [id] = &ids;
    // Payments of these cases begin at 10.00, so this is none of theirs.
    let stored = Payment { amount_cents: 77, requested_at_ms: jiff::Timestamp::now().as_millisecond() };
    scene.default.books().stored.insert(id.clone(), stored);
    pay_beside(scene, findings, &ids)?;
    let count = |scene: &Scene| -> Result<u64, String> {
        let aggregators = sum(&metrics(&scene.galo.aggregator())?, "galo_contradictions_total");
        let gateways: Result<Vec<String>, String> =
            (0..2).map(|gateway| metrics(&scene.galo.straight(gateway))).collect();
        Ok(aggregators + gateways?.iter().map(|page| contradictions(page)).sum::<u64>())
    };
    let is_counted = scene.is_within(LIMIT, |scene| Ok(count(scene)? > 0))?;
    findings.figure(format!("{} contradictions counted", count(scene)?));
    findings.expect(is_counted, || "no contradiction is counted".to_owned());
    let seen = view(&scene.galo.straight(0), id)?;
    findings.figure(format!("{} attempts", scene.default.posts(id).len()));
    findings.expect(seen.state == "open" && seen.in_doubt, || format!("it is {seen:?}, not open in doubt"));
    findings.expect(scene.fallback.posts(id).is_empty(), || "sent to the other one, too".to_owned());
    if findings.is_well() {
        scene.check_end(&ids.into())?;
    }
    Ok(())
}

/// Three payments, forgotten since; the aggregator has died in between. One comes back as it was, one with another amount, one to the other gateway in the same moment too: the
/// sums hold them already. Somebody else has paid under a fourth id, with the very amount that Galo is posted.
fn come_back(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    let [alike, other, twice, stranger] = scene.fresh_ids();
    let first_cents = scene.next_cents();
    for id in [&alike, &other, &twice] {
        scene.pay(id)?;
    }
    scene.pay_for(SECOND * 4, 10)?;
    let is_absent = |scene: &Scene, id: &str| {
        Ok::<_, String>(scene.galo.straight(0).ask("GET", &format!("/payments/{id}"), "")?.status == 404)
    };
    let ids = [&alike, &other, &twice];
    let are_forgotten = scene.is_within(LIMIT, |scene| {
        ids.iter().try_fold(true, |is_so, id| Ok(is_so && is_absent(scene, id)?))
    })?;
    findings.expect(are_forgotten, || "they are still remembered".to_owned());
    scene.galo.kill("aggregator")?;
    scene.galo.respawn("aggregator")?;
    let way = scene.galo.aggregator();
    scene.galo.until("the aggregator", || Ok(metrics(&way).ok().map(drop)))?;
    for gateway in 0..2 {
        let ready = scene.galo.straight(gateway);
        scene.galo.until("ready", || {
            Ok(ready.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
    }
    let stored = Payment {
        amount_cents: scene.next_cents(),
        requested_at_ms: jiff::Timestamp::now().as_millisecond() - 60_000,
    };
    scene.default.books().stored.insert(stranger.clone(), stored);
    scene.pay(&stranger)?;
    let straight = [scene.galo.straight(0), scene.galo.straight(1)];
    pay(&straight[0], &alike, first_cents)?;
    pay(&straight[1], &other, first_cents + 1_000)?;
    for way in &straight {
        pay(way, &twice, first_cents + 2)?;
    }
    let total = |series: &str| Ok::<_, String>(sum(&metrics(&way)?, series));
    let is_settled = scene.is_within(LIMIT, |_| Ok(total("galo_payments_known_before_total")? == 3))?;
    findings.expect(is_settled, || "they are not known before".to_owned());
    let cents = total("galo_payments_known_before_cents_total")?;
    findings.expect(cents == 3 * first_cents + 1_002, || format!("known before: {cents} cents"));
    let is_disputed = scene.is_within(LIMIT, |_| Ok(total("galo_contradictions_total")? == 1))?;
    findings.expect(is_disputed, || "the stranger's is no contradiction".to_owned());
    for id in ids {
        findings.check(check_view(&view(&straight[0], id)?, id, &scene.default, &scene.fallback));
    }
    // Now they are remembered, with what was paid.
    let again = straight[0].ask("POST", "/payments", &payment_json(&other, first_cents + 1_000))?;
    findings.expect(again.status == 422, || format!("the other amount is answered {}", again.status));
    if findings.is_well() {
        scene.check_end(&[stranger].into())?;
    }
    Ok(())
}

/// The sum of all series with contradictions in their name.
fn contradictions(page: &str) -> u64 {
    page.lines()
        .filter(|line| line.split(['{', ' ']).next().is_some_and(|name| name.contains("contradictions")))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn behind_a_proxy(scene: &mut Scene, findings: &mut Findings, status: u16) -> Result<(), String> {
    const BAD: Duration = Duration::from_secs(5);
    scene.default.set_manner(move |asked: &Asked<'_>| {
        (asked.since_first < BAD).then(|| Act { stores: true, ..refusal(status, "") })
    });
    // They stop coming long before it is over: whoever would go elsewhere because nobody comes any more, goes.
    scene.pay_for(SECOND * 2, 8)?;
    let waits = scene.await_waits(BAD + LIMIT, |_| true);
    findings.figure(&waits);
    findings.check(waits.check_all());
    match scene.check_no_crossing(|arrival| arrival.status == status) {
        Ok(count) => findings.figure(format!("{count} in doubt, none crossed over")),
        Err(error) => findings.check(Err(error)),
    }
    let [default, fallback] = scene.processors().map(|processor| processor.books().stored.clone());
    let twice = default.keys().filter(|id| fallback.contains_key(*id)).count();
    findings.figure(format!("{twice} charged twice"));
    findings.expect(twice == 0, || "charged twice".to_owned());
    if findings.is_well() {
        scene.check_end(&BTreeSet::new())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_counted_under_any_name() {
        let page = "# HELP galo_contradictions_total none\ngalo_gateway_contradictions_total{processor=\"a\"} 2\n\
                    galo_lookup_contradictions_total 1\ngalo_payments_open 7\n";
        assert_eq!(contradictions(page), 3);
    }
}
