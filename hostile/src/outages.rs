//! Processors that are not there, or are there and of no use, for a while: nothing may be lost, doubled or sent across in doubt.
//!
//! During each outage payments are accepted; when it is over, all of them are processed once. Where attempts ended without
//! an answer, no payment may have been sent to both processors, nor with two `requestedAt`s, however long the outage was and
//! however idle the other one: that is what *unknown is not failed* means.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::PATIENCE;
use crate::faults::{check_view, processed_at, view};
use crate::galo::{Galo, Plan, Programs};
use crate::processor::{Act, Processor, Reserved, Then, plain};
use crate::tally::Tally;
use crate::world::World;

/// Payments of one outage, at both gateways in turn.
const PAYMENT_COUNT: usize = 24;

/// How long an outage goes on once it shows: several timeouts and patiences, so that whoever would cross has crossed.
const HOLD: Duration = Duration::from_millis(1_500);

/// Attempts time out and payments lose their patience sooner than by default, so that an outage of seconds shows all.
fn environment() -> Vec<(&'static str, String)> {
    vec![
        ("ATTEMPT_TIMEOUT_MS", "1000".to_owned()),
        ("ROUTING_PATIENCE_MS", "200".to_owned()),
        ("HEALTH_INTERVAL_MS", "3600000".to_owned()),
    ]
}

/// Runs both groups.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    if tally.begin("processors of no use") {
        let plan = Plan { name: "outages", environment: environment(), ..Plan::default() };
        let mut world = World::start(programs, &plan)?;
        for (name, moods, is_unknown) in outages() {
            let result = outage(&mut world, moods, is_unknown);
            tally.case(name, result);
        }
        world.reconcile(tally);
        world.stop(tally);
    }
    if tally.begin("processors that are not there") {
        for (name, case) in ABSENCES {
            tally.case(name, case(programs));
        }
    }
    Ok(())
}

type Moods = [Option<Act>; 2];

/// Name, what default and fallback do, whether attempts end without an answer.
fn outages() -> Vec<(&'static str, Moods, bool)> {
    let silent = |stores| Act::new(stores, "", Then::Stay);
    let ms = Duration::from_millis;
    let ok = plain(200, "OK", "");
    let act = |stores, text: &str, then| Act::new(stores, text, then);
    vec![
        ("silence, nothing stored", [Some(silent(false)), None], true),
        ("silence, all stored", [Some(silent(true)), None], true),
        (
            "a drip that outlasts the timeout",
            [Some(Act::new(true, ok, Then::Stay).in_pieces(1, ms(200))), None],
            true,
        ),
        (
            "half a head, then silence",
            [Some(act(true, "HTTP/1.1 200 OK\r\nContent-Le", Then::Stay)), None],
            true,
        ),
        ("100, then silence", [Some(act(false, "HTTP/1.1 100 Continue\r\n\r\n", Then::Stay)), None], true),
        ("resets, all stored", [Some(act(true, "", Then::Reset)), None], true),
        ("ends, nothing stored", [Some(act(false, "", Then::Close)), None], true),
        ("garbage, all stored", [Some(act(true, "garbage\r\n\r\n", Then::Close)), None], true),
        ("503 for ever", [Some(Act::new(false, plain(503, "X", ""), Then::Stay)), None], true),
        (
            "a redirect for ever",
            [
                Some(act(false, "HTTP/1.1 307 X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", Then::Stay)),
                None,
            ],
            true,
        ),
        (
            "resets of both, all stored",
            [Some(act(true, "", Then::Reset)), Some(act(true, "", Then::Reset))],
            true,
        ),
        (
            "garbage of one, silence of the other",
            [Some(act(true, "\0\0\0\0", Then::Close)), Some(silent(true))],
            true,
        ),
        ("500 for ever", [Some(Act::new(false, plain(500, "X", ""), Then::Stay)), None], false),
        (
            "500 of both",
            [
                Some(Act::new(false, plain(500, "X", ""), Then::Stay)),
                Some(Act::new(false, plain(500, "X", ""), Then::Stay)),
            ],
            false,
        ),
        (
            "429 of both",
            [
                Some(Act::new(false, plain(429, "X", ""), Then::Stay)),
                Some(Act::new(false, plain(429, "X", ""), Then::Stay)),
            ],
            false,
        ),
        (
            "404 of one, 429 of the other",
            [
                Some(Act::new(false, plain(404, "X", ""), Then::Stay)),
                Some(Act::new(false, plain(429, "X", ""), Then::Stay)),
            ],
            false,
        ),
        (
            "200 without its body",
            [Some(act(true, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal", Then::Stay)), None],
            false,
        ),
    ]
}

fn outage(world: &mut World, [default, fallback]: Moods, is_unknown: bool) -> Result<(), String> {
    // Both gateways must think well of the default processor, or nobody would meet the outage.
    for gateway in 0..2 {
        let way = world.galo.straight(gateway);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let id = world.galo.fresh_id();
            world.pay(&way, &id, 100)?;
            if processed_at(&way, &id)?.processor.as_deref() == Some("default") {
                break;
            }
            if Instant::now() > deadline {
                return Err("the default processor is not used again".to_owned());
            }
        }
    }
    world.default.set_mood(default);
    world.fallback.set_mood(fallback);
    let ids: Vec<String> = (0..PAYMENT_COUNT).map(|_| world.galo.fresh_id()).collect();
    for (number, id) in ids.iter().enumerate() {
        world.pay(&world.galo.straight(number % 2), id, 1_000 + number as u64)?;
    }
    let way = world.galo.straight(0);
    if is_unknown {
        world.galo.until("a payment in doubt", || {
            for id in &ids {
                if view(&way, id)?.in_doubt {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        })?;
    }
    // The outage itself lasts so long.
    thread::sleep(HOLD);
    world.galo.check_alive()?;
    world.default.set_mood(None);
    world.fallback.set_mood(None);
    for id in &ids {
        let seen = processed_at(&way, id)?;
        check_view(&seen, id, &world.default, &world.fallback)?;
        let posts = [world.default.posts(id), world.fallback.posts(id)];
        let all = posts.concat();
        if is_unknown && !posts.iter().any(Vec::is_empty) {
            return Err(format!("{id} crossed over in doubt: {posts:?}"));
        }
        if is_unknown && all.iter().any(|payment| *payment != all[0]) {
            return Err(format!("{id} was sent with different contents: {posts:?}"));
        }
    }
    Ok(())
}

type Absence = fn(&Programs) -> Result<(), String>;

const ABSENCES: [(&str, Absence); 6] = [
    ("the default one refuses connections, and comes", |programs| {
        absent(programs, "refused", Reserved::new()?, 10)
    }),
    ("the default one swallows connections, and comes", |programs| {
        let mut reserved = Reserved::new()?;
        reserved.swallow()?;
        // A refusal takes a timeout here, and the next probe is due when it is over. None of the ten may be the probe for
        // ever: all get through before the processor comes.
        absent(programs, "swallowed", reserved, 10)
    }),
    ("both refuse connections, and come", both_absent),
    ("a name that does not resolve", |programs| unresolved(programs, "http://processor.invalid:8080")),
    ("a name that is none", |programs| unresolved(programs, "http://-_-.invalid:8080")),
    ("an address without a route", |programs| unresolved(programs, "http://240.0.0.1:8080")),
];

fn start(programs: &Programs, name: &str, urls: [String; 2]) -> Result<Galo, String> {
    Galo::start(programs, &Plan { name, environment: environment(), ..Plan::default() }, urls)
}

fn pay_some(galo: &Galo, count: u64, accepted: &mut BTreeMap<String, u64>) -> Result<Vec<String>, String> {
    (0..count)
        .map(|number| {
            let id = galo.fresh_id();
            crate::faults::pay(&galo.straight(usize::from(number % 2 == 1)), &id, 300 + number)?;
            accepted.insert(id.clone(), 300 + number);
            Ok(id)
        })
        .collect()
}

/// Ten payments, of which so many at least are processed by the other one before the default one comes.
fn absent(programs: &Programs, name: &str, reserved: Reserved, count_min: usize) -> Result<(), String> {
    let fallback = Processor::start()?;
    let mut galo = start(programs, name, [reserved.url(), fallback.url()])?;
    let mut accepted = BTreeMap::new();
    let ids = pay_some(&galo, 10, &mut accepted)?;
    galo.until("payments at the fallback processor", || {
        Ok((fallback.books().stored.len() >= count_min).then_some(()))
    })?;
    for id in &ids {
        let seen = view(&galo.straight(0), id)?;
        if seen.in_doubt {
            return Err(format!("{id} is in doubt without a byte sent: {seen:?}"));
        }
    }
    let default = reserved.serve()?;
    let deadline = Instant::now() + PATIENCE;
    while default.books().stored.is_empty() {
        pay_some(&galo, 2, &mut accepted)?;
        if Instant::now() > deadline {
            return Err("the default processor is back and never used".to_owned());
        }
        thread::sleep(Duration::from_millis(20));
    }
    galo.reconcile(&accepted, [&default, &fallback])?;
    galo.stop()
}

fn both_absent(programs: &Programs) -> Result<(), String> {
    let reserved = [Reserved::new()?, Reserved::new()?];
    let mut galo = start(programs, "absent", [reserved[0].url(), reserved[1].url()])?;
    let mut accepted = BTreeMap::new();
    let ids = pay_some(&galo, 30, &mut accepted)?;
    thread::sleep(HOLD);
    for id in &ids {
        let seen = view(&galo.straight(1), id)?;
        if seen.state != "open" || seen.in_doubt {
            return Err(format!("{id} with nobody there: {seen:?}"));
        }
    }
    let [default, fallback] = reserved;
    let processors = [default.serve()?, fallback.serve()?];
    galo.reconcile(&accepted, [&processors[0], &processors[1]])?;
    galo.stop()
}

fn unresolved(programs: &Programs, url: &str) -> Result<(), String> {
    let (nobody, fallback) = (Processor::start()?, Processor::start()?);
    let mut galo = start(programs, "unresolved", [url.to_owned(), fallback.url()])?;
    let mut accepted = BTreeMap::new();
    for id in pay_some(&galo, 10, &mut accepted)? {
        processed_at(&galo.straight(1), &id)?;
    }
    galo.reconcile(&accepted, [&nobody, &fallback])?;
    galo.stop()
}
