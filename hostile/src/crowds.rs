//! Many clients at once that do nothing, or next to nothing, beside a few that pay.
//!
//! Judged: everyone who pays is served, a connection costs no more memory than docs/ARCHITECTURE.md says, whoever is turned
//! away is told so, and afterwards there is room again. Printed and not judged, since a busy machine would judge it
//! wrongly: how much longer those who pay wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::client::{Connection, Way, request};
use crate::payers::{self, CENTS, HAPROXY_KIB_MAX};
use crate::tally::Tally;
use crate::world::World;

/// A gateway's bound on connections.
const CONNECTIONS_MAX: usize = 1_024;
/// What one connection may cost a gateway at worst, from its budget (gateway/src/http/mod.rs), and HAProxy (haproxy.cfg).
const CONNECTION_KIB_MAX: u64 = 46;

const IDLE_COUNT: usize = 10_000;
const SLOW_COUNT: u32 = 1_000;
/// Those who pay, and how often each.
const PAYERS: usize = 4;
const PAYMENT_COUNT: u64 = 1_000;

/// Runs all.
pub(crate) fn run(world: &mut World, tally: &mut Tally) {
    let straight = world.galo.straight(0);
    let front = world.galo.ways().into_iter().find(Way::is_front);
    if tally.begin("crowds, gateway") {
        let before = world.galo.rss_kib("gateway-1").unwrap_or_default();
        let result = idle_at_gateway(world, &straight, before, tally);
        tally.case("connections beyond the bound, all idle", result);
        let result = full_buffers(world, &straight, before, tally);
        tally.case("as many as fit, each with most of a request", result);
        let result = slow(world, &straight, tally);
        tally.case("1,000 clients with a byte a second", result);
        world.reconcile(tally);
    }
    if let Some(front) = front
        && tally.begin("crowds, HAProxy")
    {
        payers::run(world, &front, tally);
        let result = idle_at_front(world, &front, tally);
        tally.case("10,000 idle connections", result);
        let result = slow(world, &front, tally);
        tally.case("1,000 clients with a byte a second", result);
        world.reconcile(tally);
    }
}

fn idle_at_gateway(world: &mut World, way: &Way, before: u64, tally: &Tally) -> Result<(), String> {
    let mut regular = None;
    pay(world, way, &mut regular)?;
    let mut crowd = Vec::new();
    for _ in 1..CONNECTIONS_MAX {
        crowd.push(Connection::open(way)?);
    }
    let rss = world.galo.rss_kib("gateway-1").unwrap_or_default();
    // The queue of connections to accept is first come, first served: whoever is answered now came behind all of them.
    for number in 0..100 {
        let mut late = Connection::open(way)?;
        let answer = late.answer(false).map_err(|error| format!("late client {number}: {error}"))?;
        answer.problem(503, "too-many-connections", true)?;
        if answer.header("retry-after").is_none() {
            return Err("turned away without Retry-After".to_owned());
        }
    }
    let grown = world.galo.rss_kib("gateway-1").unwrap_or_default().max(rss).saturating_sub(before);
    tally.note(&format!(
        "{} idle connections take {grown} KiB, {} bytes each",
        crowd.len(),
        grown * 1_024 / crowd.len() as u64
    ));
    pay(world, way, &mut regular)?;
    drop(crowd);
    room_again(world, way)?;
    bounded(grown, CONNECTIONS_MAX)
}

fn full_buffers(world: &mut World, way: &Way, before: u64, tally: &Tally) -> Result<(), String> {
    let mut regular = None;
    pay(world, way, &mut regular)?;
    let most = format!(
        "POST /payments HTTP/1.1\r\nHost: galo\r\nContent-Length: 16000\r\n\r\n{}",
        "x".repeat(15_900)
    );
    let mut crowd = Vec::new();
    for _ in 1..CONNECTIONS_MAX {
        let mut connection = Connection::open(way)?;
        connection.send(most.as_bytes());
        crowd.push(connection);
    }
    pay(world, way, &mut regular)?;
    let grown = world.galo.rss_kib("gateway-1").unwrap_or_default().saturating_sub(before);
    tally.note(&format!(
        "{} requests of 16 KiB, unfinished, take {grown} KiB, {} bytes each",
        crowd.len(),
        grown * 1_024 / crowd.len() as u64
    ));
    drop(crowd);
    room_again(world, way)?;
    bounded(grown, CONNECTIONS_MAX)
}

fn bounded(grown_kib: u64, count: usize) -> Result<(), String> {
    let most = CONNECTION_KIB_MAX * count as u64;
    if grown_kib <= most {
        Ok(())
    } else {
        Err(format!("{grown_kib} KiB for {count} connections, at most {most}"))
    }
}

/// Waits until somebody new is served.
fn room_again(world: &mut World, way: &Way) -> Result<(), String> {
    let asked = way.clone();
    world.galo.until("room for a new connection", || {
        Ok(asked.ask("GET", "/health", "").is_ok_and(|answer| answer.status == 200).then_some(()))
    })?;
    world.check_well(way)
}

fn idle_at_front(world: &mut World, way: &Way, tally: &Tally) -> Result<(), String> {
    let Way::Front(address) = way else { return Err("not the front".to_owned()) };
    let mut regular = None;
    pay(world, way, &mut regular)?;
    let before = world.galo.rss_kib("haproxy").unwrap_or_default();
    let mut crowd = Vec::new();
    for number in 0..IDLE_COUNT {
        let connect = || -> std::io::Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&SockAddr::from(*address)) {
                Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
                _ => Ok(socket),
            }
        };
        crowd.push(connect().map_err(|error| format!("client {number}: {error}"))?);
        if number % 500 == 0 {
            pay(world, way, &mut regular).map_err(|error| format!("beside {number} idle ones, {error}"))?;
        }
    }
    for _ in 0..20 {
        pay(world, way, &mut regular).map_err(|error| format!("beside all idle ones, {error}"))?;
    }
    let rss = world.galo.rss_kib("haproxy").unwrap_or_default();
    let started = Instant::now();
    let newcomer = way.ask("GET", "/health", "");
    tally.note(&format!(
        "beside {IDLE_COUNT} idle connections HAProxy takes {rss} KiB ({before} before); a newcomer {} after {:.1?}",
        if newcomer.is_ok() { "is served" } else { "is not served" },
        started.elapsed()
    ));
    drop(crowd);
    room_again(world, way)?;
    if rss <= HAPROXY_KIB_MAX {
        Ok(())
    } else {
        Err(format!("HAProxy takes {rss} KiB, its limit is {HAPROXY_KIB_MAX}"))
    }
}

/// One payment, over the connection that is kept unless it ended.
fn pay(world: &mut World, way: &Way, kept: &mut Option<Connection>) -> Result<(), String> {
    let (id, _) = payers::pay(&world.galo, way, kept)?;
    world.accepted.insert(id, CENTS);
    Ok(())
}

/// Payers alone, then beside a crowd that sends a byte each second and comes again when it is thrown out.
fn slow(world: &mut World, way: &Way, tally: &Tally) -> Result<(), String> {
    let mut payers = Vec::new();
    for _ in 0..PAYERS {
        let mut connection = None;
        pay(world, way, &mut connection)?;
        payers.push(connection);
    }
    let alone = load(world, way, &mut payers)?;
    let is_over = AtomicBool::new(false);
    let stands = AtomicBool::new(false);
    let beside = thread::scope(|scope| {
        scope.spawn(|| torment(way, &stands, &is_over));
        while !stands.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        let beside = load(world, way, &mut payers);
        is_over.store(true, Ordering::Relaxed);
        beside
    })?;
    tally.note(&format!(
        "p50 {} and p99 {} µs alone, {} and {} µs beside {SLOW_COUNT} slow clients",
        alone[0], alone[1], beside[0], beside[1]
    ));
    room_again(world, way)
}

/// The crowd. One thread drives all of it, each client at his own moment of the second, as strangers are; whoever cannot get in, or was
/// thrown out, tries again with the next byte.
fn torment(way: &Way, stands: &AtomicBool, is_over: &AtomicBool) {
    let text = request("POST", "/payments", "{}");
    let gap = Duration::from_secs(1) / SLOW_COUNT;
    let mut crowd: Vec<Option<(Connection, usize)>> = (0..SLOW_COUNT).map(|_| None).collect();
    let mut due = Instant::now();
    loop {
        for client in &mut crowd {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due = (due + gap).max(Instant::now());
            let (mut connection, at) = match client.take() {
                Some(client) => client,
                None => match Connection::open_soon(way) {
                    Some(connection) => (connection, 0),
                    None => continue,
                },
            };
            if connection.send(&text.as_bytes()[at..=at]) {
                *client = Some((connection, (at + 1) % text.len()));
            }
        }
        stands.store(true, Ordering::Relaxed);
    }
}

/// Everyone pays; gives the median and the 99th percentile in µs.
fn load(world: &mut World, way: &Way, payers: &mut [Option<Connection>]) -> Result<[u64; 2], String> {
    let galo = &world.galo;
    let results: Vec<Result<Vec<(String, u64)>, String>> = thread::scope(|scope| {
        let threads: Vec<_> = payers
            .iter_mut()
            .map(|connection| {
                scope.spawn(move || {
                    (0..PAYMENT_COUNT)
                        .map(|_| {
                            let started = Instant::now();
                            let (id, _) = payers::pay(galo, way, connection)?;
                            let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                            // At a pace, so that the load lasts some seconds of the crowd's.
                            thread::sleep(Duration::from_millis(5));
                            Ok((id, took_us))
                        })
                        .collect()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("it panicked".to_owned())))
            .collect()
    });
    let mut took_us = Vec::new();
    for result in results {
        for (id, us) in result? {
            world.accepted.insert(id, CENTS);
            took_us.push(us);
        }
    }
    took_us.sort_unstable();
    Ok([50, 99].map(|percent| took_us[took_us.len() * percent / 100]))
}
