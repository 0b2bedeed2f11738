//! More clients at once than HAProxy has room for, each of which keeps its connection where it is let, and pays now and then.
//!
//! Judged: every client pays in each of its rounds, HAProxy stays within its memory, and its health is answered every time that somebody asks
//! for it; below the bound from which on HAProxy ends idle connections it ends none. Printed: how long payments and health take, from the moment
//! at which a client wants to pay, connecting included.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Connection, Way, request};
use crate::galo::Galo;
use crate::tally::Tally;
use crate::world::{World, payment_json};

/// HAProxy's limit in the compose file.
pub(crate) const HAPROXY_KIB_MAX: u64 = 60 * 1_024;
/// Threads that drive the crowd, each its share of it, one client after the other.
const THREADS: usize = 50;
/// Between two looks at HAProxy's health.
const HEALTH_GAP: Duration = Duration::from_millis(50);
/// What everyone pays.
pub(crate) const CENTS: u64 = 250;

/// A crowd: all connect, and then each pays once in each round, at a moment of its own.
struct Crowd {
    count: usize,
    round: Duration,
    rounds: u32,
    /// Whether each must find its connection as it left it.
    is_kept: bool,
}

/// What one client's payment came to.
struct Paid {
    id: String,
    took: Duration,
    is_first: bool,
    is_new_connection: bool,
}

/// What a thread's clients have paid, and their connections, which they keep until everyone has paid.
type Share = (Vec<Paid>, Vec<Option<Connection>>);

/// Runs all.
pub(crate) fn run(world: &mut World, way: &Way, tally: &mut Tally) {
    let second = Duration::from_secs(1);
    for (name, crowd) in [
        ("600 clients that pay once a second", Crowd { count: 600, round: second, rounds: 5, is_kept: true }),
        (
            "1,004 clients that pay once a second",
            Crowd { count: 1_004, round: second, rounds: 5, is_kept: false },
        ),
        (
            "10,000 clients, a fifth of which pays each second",
            Crowd { count: 10_000, round: 5 * second, rounds: 3, is_kept: false },
        ),
    ] {
        let result = gather(world, way, &crowd);
        tally.figures(name, result);
    }
}

fn gather(world: &mut World, way: &Way, crowd: &Crowd) -> Result<String, String> {
    let monitor = world.galo.monitor()?;
    let (galo, is_over) = (&world.galo, AtomicBool::new(false));
    let cpu_ms_before = world.galo.cpu_ms("haproxy")?;
    let (rss_kib_max, all_are_in) = (AtomicU64::new(0), Barrier::new(THREADS));
    let all_are_in = &all_are_in;
    let (paid, health) = thread::scope(|scope| {
        let health = scope.spawn(|| watch(galo, &monitor, &rss_kib_max, &is_over));
        let shares: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || pay_all(galo, way, crowd, number, all_are_in)))
            .collect();
        let paid: Vec<_> = shares.into_iter().map(|it| it.join().unwrap_or_else(|_| panicked())).collect();
        is_over.store(true, Ordering::Relaxed);
        (paid, health.join().unwrap_or_else(|_| panicked()))
    });
    let (mut first, mut later) = (Vec::new(), Vec::new());
    let mut new_connections = 0;
    for share in paid {
        let (paid, _) = share?;
        for Paid { id, took, is_first, is_new_connection } in paid {
            world.accepted.insert(id, CENTS);
            if is_first { &mut first } else { &mut later }.push(took);
            // A connection on which nothing has come for long enough is ended, and the first payment may be later than that.
            new_connections += usize::from(is_new_connection && !is_first);
        }
    }
    let (health, rss_kib) = (health?, rss_kib_max.into_inner());
    if crowd.is_kept && new_connections > 0 {
        return Err(format!("{new_connections} of {} kept connections were ended", crowd.count));
    }
    if rss_kib > HAPROXY_KIB_MAX {
        return Err(format!("HAProxy takes {rss_kib} KiB, its limit is {HAPROXY_KIB_MAX}"));
    }
    let cpu_ms = world.galo.cpu_ms("haproxy")?.saturating_sub(cpu_ms_before);
    let cpu_us = cpu_ms * 1_000 / (first.len() + later.len()).max(1) as u64;
    Ok(format!(
        "first payments {}, later ones {}, {new_connections} of these over new connections; health {}; HAProxy {rss_kib} KiB, {cpu_us} µs of CPU a payment",
        quantiles(first),
        quantiles(later),
        quantiles(health),
    ))
}

fn panicked<T>() -> Result<T, String> {
    Err("a thread panicked".to_owned())
}

/// Number, median, 99th percentile and maximum.
fn quantiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at =
        |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    format!("{}: p50 {:.1?}, p99 {:.1?}, max {:.1?}", took.len(), at(50), at(99), at(100))
}

/// Every client whose number leaves the remainder `share`.
fn pay_all(
    galo: &Galo,
    way: &Way,
    crowd: &Crowd,
    share: usize,
    all_are_in: &Barrier,
) -> Result<Share, String> {
    let numbers: Vec<usize> = (share..crowd.count).step_by(THREADS).collect();
    let connected: Result<Vec<_>, String> = numbers.iter().map(|_| Connection::open(way).map(Some)).collect();
    // Before anything is returned: the others wait for this thread.
    all_are_in.wait();
    let mut connections = connected?;
    let started = Instant::now();
    let mut paid = Vec::with_capacity(numbers.len() * crowd.rounds as usize);
    for round in 0..crowd.rounds {
        for (number, connection) in numbers.iter().zip(&mut connections) {
            let share_of_round = u32::try_from(number * 10_000 / crowd.count).unwrap_or(0);
            let due = started + crowd.round * round + crowd.round * share_of_round / 10_000;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let (id, is_new_connection) = pay(galo, way, connection)
                .map_err(|error| format!("client {number} of {}, round {round}: {error}", crowd.count))?;
            // From the moment that it was due: a payment that waited for another's answer has waited too.
            paid.push(Paid { id, took: due.elapsed(), is_first: round == 0, is_new_connection });
        }
    }
    Ok((paid, connections))
}

/// One payment, over the client's connection while it lasts, else over a new one; its id, and whether a new one it was.
pub(crate) fn pay(galo: &Galo, way: &Way, kept: &mut Option<Connection>) -> Result<(String, bool), String> {
    let id = galo.fresh_id();
    let text = request("POST", "/payments", &payment_json(&id, CENTS));
    let was_kept = kept.is_some();
    for connection in [kept.take(), None] {
        let is_new = connection.is_none();
        let mut connection = match connection {
            Some(connection) => connection,
            None => Connection::open(way)?,
        };
        connection.send(text.as_bytes());
        match connection.answer_or_end()? {
            Some(answer) if answer.status == 202 => {
                if !answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                    *kept = Some(connection);
                }
                return Ok((id, is_new));
            }
            Some(answer) => return Err(format!("answered {} {}", answer.status, answer.text())),
            // It was ended while it rested, which its client learns now.
            None if !is_new => {}
            None => break,
        }
    }
    Err(format!("a new connection was ended without an answer (one was kept: {was_kept})"))
}

/// Asks for HAProxy's health, again and again, each time over a new connection; how long each took.
fn watch(
    galo: &Galo,
    monitor: &Way,
    rss_kib_max: &AtomicU64,
    is_over: &AtomicBool,
) -> Result<Vec<Duration>, String> {
    let mut took = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let answer = monitor.ask("GET", "/health", "").map_err(|error| format!("health: {error}"))?;
        if answer.status != 200 {
            return Err(format!("health says {}", answer.status));
        }
        took.push(asked.elapsed());
        rss_kib_max.fetch_max(galo.rss_kib("haproxy").unwrap_or_default(), Ordering::Relaxed);
        thread::sleep(HEALTH_GAP);
    }
    Ok(took)
}
