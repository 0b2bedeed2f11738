//! Processors that say when they are done: at whichever gateway, too early, again and again, or without meaning it.
//!
//! What they say is never believed. A payment that is looked up each minute is processed within a second of its notification, and nothing else
//! is; and who floods a gateway with notifications takes nothing from those who pay.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::client::Connection;
use crate::galo::Programs;
use crate::processor::{Act, Asked, Then, plain};
use crate::scene::{Case, Findings, Scene, side_by_side};
use crate::tally::Tally;

const SECOND: Duration = Duration::from_secs(1);

/// How long nothing must happen that only a notification brings about.
const UNTOLD: Duration = Duration::from_millis(1_500);

/// Runs all groups.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) {
    let cases = vec![
        Case::new("a pending payment of the other gateway's", &[], told_elsewhere).with_file(file),
        Case::new("notifications of what has not happened", &[], told_too_early).with_file(file),
        Case::new("a flood of notifications", &[], flooded).with_file(file),
    ];
    side_by_side(programs, tally, "notifications", cases);
}

/// 202 is pending, and looked up each minute.
fn file([default, fallback]: &[String; 2]) -> String {
    let one = |name: &str, url: &str, basis_points: u32| {
        format!(
            "[[processor]]\nname = \"{name}\"\nprofile = \"contest\"\nurl = \"{url}\"\ncost.basis_points = {basis_points}\n\
             lookup.every_ms = 60_000\nnotification.id = \"/id\"\n\
             outcome = [{{ status = 202, verdict = \"pending\" }}, {{ status = 200, verdict = \"processed\" }}, \
             {{ status = 422, verdict = \"duplicate\" }}]\n\n"
        )
    };
    one("default", default, 500) + &one("fallback", fallback, 1_500) + "[routing]\nprofile = \"contest\"\n"
}

/// Payments whose result comes later, at the cheaper one: it has taken them, and stored nothing yet.
fn pend(scene: &mut Scene, ids: &[String]) -> Result<(), String> {
    let pending = ids.to_vec();
    scene.default.set_manner(move |asked: &Asked<'_>| {
        let is_pending = pending.iter().any(|id| id == asked.id);
        is_pending.then(|| Act::new(false, plain(202, "Accepted", ""), Then::Stay))
    });
    ids.iter().try_for_each(|id| scene.pay(id))?;
    let of_it = |scene: &Scene| {
        scene.gateways_sum("galo_attempt_verdicts_total{processor=\"default\",verdict=\"pending\"}")
    };
    let count = ids.len() as u64;
    if !scene.is_within(SECOND * 10, |scene| Ok(of_it(scene)? == count))? {
        return Err("they are not pending".to_owned());
    }
    Ok(())
}

/// The processor has done it.
fn finish(scene: &Scene, id: &str) {
    let mut books = scene.default.books();
    let sent = books.posts.get(id).and_then(|posts| posts.last().copied());
    books.stored.extend(sent.map(|payment| (id.to_owned(), payment)));
}

/// Says so to a gateway; its answer's status.
fn notify(scene: &Scene, gateway: usize, name: &str, id: &str) -> Result<u16, String> {
    let mut connection = Connection::open(&scene.galo.straight(gateway))?;
    let body = format!("{{\"id\":\"{id}\"}}");
    Ok(connection.request("POST", &format!("/notifications/{name}"), &body)?.status)
}

fn state(scene: &Scene, id: &str) -> Result<String, String> {
    Ok(crate::faults::view(&scene.galo.straight(0), id)?.state)
}

fn told_elsewhere(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    // Payments go to the gateways in turn: the first is the first one's.
    let ids: [String; 4] = scene.fresh_ids();
    pend(scene, &ids)?;
    ids.iter().for_each(|id| finish(scene, id));
    std::thread::sleep(UNTOLD);
    let looked_up: usize = ids.iter().map(|id| scene.default.lookups(id)).sum();
    findings.expect(looked_up == 0, || "looked up before anybody said so".to_owned());
    for (number, id) in ids.iter().enumerate() {
        let told = Instant::now();
        // Of each gateway's payments one is told to the other, and one to itself.
        let gateway = [1, 0, 0, 1][number];
        let status = notify(scene, gateway, "default", id)?;
        findings.expect(status == 200, || format!("answered {status}"));
        let is_done = scene.is_within(SECOND * 10, |scene| Ok(state(scene, id)? == "processed"))?;
        let after = told.elapsed();
        findings.figure(format!("{after:.1?}"));
        findings.expect(is_done && after < SECOND, || format!("{id} was not processed within a second"));
    }
    scene.check_end(&BTreeSet::new())
}

fn told_too_early(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    let ids: [String; 2] = scene.fresh_ids();
    pend(scene, &ids)?;
    let [early, never] = &ids;
    for id in &ids {
        for name in ["fallback", "default", "nobody"] {
            let status = notify(scene, 1, name, id)?;
            let expected = if name == "nobody" { 404 } else { 200 };
            findings.expect(status == expected, || format!("{name} is answered {status}"));
        }
    }
    std::thread::sleep(UNTOLD);
    for id in &ids {
        let (state, lookups) = (state(scene, id)?, scene.default.lookups(id));
        findings.expect(state == "open", || format!("{id} is {state}: the word was believed"));
        findings.expect(lookups == 1, || format!("{id} was looked up {lookups} times"));
        findings.expect(scene.fallback.lookups(id) == 0, || "the other processor was asked".to_owned());
    }
    finish(scene, early);
    notify(scene, 0, "default", early)?;
    let is_done = scene.is_within(SECOND * 10, |scene| Ok(state(scene, early)? == "processed"))?;
    findings
        .expect(is_done, || "one that was told too early is not processed when it is told again".to_owned());
    scene.check_end(&BTreeSet::from([never.clone()]))?;
    finish(scene, never);
    notify(scene, 0, "default", never)?;
    scene.check_end(&BTreeSet::new())
}

/// So many notifications, as fast as one connection to each gateway takes them.
const FLOOD: usize = 5_000;

fn flooded(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    let ids: [String; 2] = scene.fresh_ids();
    pend(scene, &ids)?;
    let ways = [scene.galo.straight(0), scene.galo.straight(1)];
    let unknown: Vec<String> = (0..FLOOD).map(|_| scene.galo.fresh_id()).collect();
    let started = Instant::now();
    let told = std::thread::scope(|scope| {
        let flood = |way| {
            let (ids, unknown) = (&ids, &unknown);
            scope.spawn(move || -> Result<usize, String> {
                let mut connection = Connection::open(way)?;
                let mut taken = 0;
                for (number, stranger) in unknown.iter().enumerate() {
                    let id = if number % 2 == 0 { &ids[number / 2 % 2] } else { stranger };
                    let body = format!("{{\"id\":\"{id}\"}}");
                    let answer = connection.request("POST", "/notifications/default", &body)?;
                    taken += usize::from(answer.status == 200);
                }
                Ok(taken)
            })
        };
        let threads = ways.each_ref().map(flood);
        scene.pay_for(SECOND, 50)?;
        threads
            .into_iter()
            .map(|it| it.join().map_err(|_| "a thread panicked".to_owned())?)
            .sum::<Result<usize, _>>()
    })?;
    let elapsed = started.elapsed();
    findings.expect(told == FLOOD * 2, || format!("{told} of {} were taken", FLOOD * 2));
    let lookups = ids.each_ref().map(|id| scene.default.lookups(id));
    let most = usize::try_from(elapsed.as_millis() / 100).unwrap_or(usize::MAX) + 2;
    findings.figure(format!("{told} notifications in {elapsed:.1?}, look-ups {lookups:?}"));
    findings.expect(lookups.iter().all(|count| (1..=most).contains(count)), || {
        format!("more than {most} look-ups")
    });
    let waits = scene.await_waits(SECOND * 10, |id| !ids.iter().any(|it| it == id));
    findings.figure(&waits);
    findings.check(waits.check_all());
    ids.iter().for_each(|id| finish(scene, id));
    for id in &ids {
        notify(scene, 0, "default", id)?;
    }
    scene.check_end(&BTreeSet::new())
}
