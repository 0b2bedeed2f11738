//! The end-to-end part: real programs behind real HAProxy, on ports and in a home of their own.
//!
//! The processors belong to the test and outlive Galo, so that a stop under load can be judged afterwards by what they
//! stored. Whatever fails, Galo is stopped and the processors are killed in the end.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::load::{self, Load};
use super::{Options, Report, Running, cold_start, decisions, mistakes, program, wait_for};
use crate::out::outln;
use crate::process::Identity;
use crate::repo::Fallible;
use crate::rinha::{self, Processor, Totals};
use crate::{tools, up};

const LIMIT: Duration = Duration::from_secs(10);
/// From a process's death to the next one in its place.
const RESTART_LIMIT: Duration = Duration::from_millis(50);

/// Amounts as a client may write them, and what they are in cents.
const AMOUNTS: [(&str, u64); 10] = [
    ("0.01", 1),
    ("19.9", 1990),
    ("19.90", 1990),
    ("1234567.89", 123_456_789),
    ("1e2", 10_000),
    ("1.5e1", 1_500),
    ("7", 700),
    ("0.29", 29),
    ("4.35", 435),
    ("1.1", 110),
];

/// How often each of them is posted.
const ROUNDS: usize = 20;

/// Everything that needs running processes.
pub(crate) fn run(options: &Options, report: &mut Report) {
    let galo = up::Options {
        processors: up::Processors::External,
        limits: options.limits,
        profile: options.profile,
        no_build: true,
        port: options.port_base,
        stats_port: options.port_base + 1,
        default_port: options.port_base + 2,
        fallback_port: options.port_base + 3,
        purge: true,
        fees: None,
        home: PathBuf::from(".galo/test"),
        floor: false,
    };
    let home = galo.home();
    let built = report.check("build", || {
        home.create()?;
        up::build(&up::Options { processors: up::Processors::Simulated, ..galo.clone() })?;
        Ok(String::new())
    });
    if !built {
        return;
    }
    mistakes::check(report, options.profile, &home);
    cold_start::check(report, options, &home);

    let mut processors = Vec::new();
    let started = report.check("processors start", || {
        processors = start_processors(&galo)?;
        Ok(String::new())
    });
    if !started {
        return;
    }
    report.check("a payment's decisions are told, and survive SIGKILL of the aggregator", || {
        decisions::check(options, &galo, &home)
    });
    let up = report.check("up --detach", || {
        let started = Instant::now();
        up::start_detached(&galo, &[])?;
        Ok(format!("first answer after {:.0?}", started.elapsed()))
    });
    if up {
        while_up(options, &galo, report);
    }
}

fn start_processors(galo: &up::Options) -> Fallible<Vec<Running>> {
    let mut running = Vec::new();
    for (name, port, fee) in
        [("default", galo.default_port, "0.05"), ("fallback", galo.fallback_port, "0.15")]
    {
        crate::process::check_port_free(port, name)?;
        let mut command = Command::new(program(galo.profile, "processor"));
        command.args([
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--fee",
            fee,
            "--token",
            rinha::ADMIN_TOKEN,
            "--name",
            name,
        ]);
        running.push(Running::start(&mut command, &galo.home().log(&format!("processor-{name}")))?);
    }
    for processor in Processor::both(galo) {
        wait_for(&format!("processor {} answers", processor.name), LIMIT, || processor.totals().ok())?;
    }
    Ok(running)
}

fn while_up(options: &Options, galo: &up::Options, report: &mut Report) {
    let processors = Processor::both(galo);
    report.check("a second up is refused", || match up::start_detached(galo, &[]) {
        Err(error) if error.contains("runs already") => Ok(String::new()),
        other => Err(format!("{other:?}")),
    });
    report.check("a taken port is named", || {
        let elsewhere = up::Options { home: PathBuf::from(".galo/test-second"), ..galo.clone() };
        match up::start_detached(&elsewhere, &[]) {
            Err(error) if error.contains(&format!("port {}", galo.port)) && error.contains("haproxy") => {
                Ok(error)
            }
            other => Err(format!("{other:?}")),
        }
    });
    report.check("amounts are exact to the cent", || exact_amounts(galo, &processors));
    report.check("the contest's scenario, shortened", || short_rinha(options, galo));
    report.check("a killed process is back within 50 ms", || killed_is_back(galo));
    let mut down = false;
    report.check("SIGTERM to each gateway under load loses nothing", || {
        purge(galo, &processors)?;
        let load = Load::start(&galo.api(), 4);
        for gateway in ["gateway-1", "gateway-2"] {
            load.wait_for_more(300)?;
            let identity = identity_of(galo, gateway)?;
            identity.signal(Signal::SIGTERM);
            wait_for(&format!("{gateway} started again"), LIMIT, || {
                identity_of(galo, gateway).ok().filter(|now| *now != identity)
            })?;
            load.wait_for_more(300)?;
        }
        let sent = load.finish()?;
        if let Some(failure) = &sent.first_failure {
            return Err(format!("{} requests failed, the first: {failure}", sent.unsure.len()));
        }
        load::judge(&sent, &processors)
    });
    report.check("SIGKILL of a gateway and of HAProxy under load loses nothing", || {
        purge(galo, &processors)?;
        let load = Load::start(&galo.api(), 4);
        for name in ["gateway-1", "haproxy", "gateway-2"] {
            load.wait_for_more(300)?;
            let identity = identity_of(galo, name)?;
            identity.signal(Signal::SIGKILL);
            wait_for(&format!("{name} started again"), LIMIT, || {
                identity_of(galo, name).ok().filter(|now| *now != identity)
            })?;
            load.wait_for_more(300)?;
        }
        // Requests on their way through what was killed may fail; what was answered 2xx may not be lost.
        load::judge(&load.finish()?, &processors)
    });
    report.check("the ledger mirrors the processors, payment by payment", || {
        wait_for("ledger and processors agree", LIMIT, || agree(galo, &processors).ok())?;
        load::mirror(&galo.api(), &processors, 100)
    });
    report.check("down under load loses nothing", || {
        purge(galo, &processors)?;
        let load = Load::start(&galo.api(), 4);
        load.wait_for_more(500)?;
        let started = Instant::now();
        up::down(&galo.home)?;
        down = true;
        let took = started.elapsed();
        let seen = load::judge(&load.finish()?, &processors)?;
        Ok(format!("{seen}; stopped in {took:.1?}"))
    });
    if !down {
        report.check("down", || up::down(&galo.home).map(|()| String::new()));
    }
}

/// Posts each amount, then compares the processors' totals, the ledger's, and the sum known beforehand.
fn exact_amounts(galo: &up::Options, processors: &[Processor]) -> Fallible<String> {
    purge(galo, processors)?;
    for (amount, _) in std::iter::repeat_n(AMOUNTS, ROUNDS).flatten() {
        load::post(&galo.api(), &up::random_uuid(), amount)?;
    }
    let requests = (ROUNDS * AMOUNTS.len()) as u64;
    let cents = ROUNDS as u64 * AMOUNTS.iter().map(|(_, cents)| cents).sum::<u64>();
    wait_for("every payment processed", LIMIT, || {
        let totals = processors.iter().map(Processor::totals).collect::<Fallible<Vec<_>>>().ok()?;
        (totals.iter().map(|totals| totals.requests).sum::<u64>() >= requests).then_some(())
    })?;
    let total = wait_for("ledger and processors agree", LIMIT, || agree(galo, processors).ok())
        .or_else(|_| agree(galo, processors))?;
    if total == (Totals { requests, cents }) {
        Ok(total.to_string())
    } else {
        Err(format!("{total} instead of {requests} payments and {cents} cents"))
    }
}

/// The sum over both processors, if ledger and processors say the same about each.
fn agree(galo: &up::Options, processors: &[Processor]) -> Fallible<Totals> {
    let ledger = Totals::of_ledger(&galo.api())?;
    let mut sum = Totals::default();
    for processor in processors {
        let theirs = processor.totals()?;
        let ours = ledger.get(processor.name).copied().unwrap_or_default();
        if ours != theirs {
            return Err(format!("{}: ledger {ours}, processor {theirs}", processor.name));
        }
        sum.requests += theirs.requests;
        sum.cents += theirs.cents;
    }
    Ok(sum)
}

fn purge(galo: &up::Options, processors: &[Processor]) -> Fallible<()> {
    for processor in processors {
        for (setting, value) in [("delay", serde_json::json!(0)), ("failure", serde_json::json!(false))] {
            let body = serde_json::json!({ setting: value });
            processor.admin("PUT", &format!("/admin/configurations/{setting}"), &body)?.expect(200)?;
        }
        processor.admin("POST", "/admin/purge-payments", &serde_json::Value::Null)?.expect(200)?;
    }
    let answer = galo.api().send("POST", "/purge-payments", &[], b"", LIMIT)?;
    if (200..300).contains(&answer.status) {
        Ok(())
    } else {
        Err(format!("POST /purge-payments: {} {}", answer.status, answer.text()))
    }
}

fn short_rinha(options: &Options, galo: &up::Options) -> Fallible<String> {
    let k6 = tools::k6()?;
    let results = galo.home().path().join("rinha");
    std::fs::create_dir_all(&results).map_err(|error| error.to_string())?;
    let rinha = rinha::Options {
        script: None,
        runs: 1,
        max_requests: Some(150),
        duration_s: 24,
        audit_s: 2,
        keep_going: false,
        up: galo.clone(),
    };
    let outcome = rinha::run_once(&rinha, galo, &k6, &results)?;
    outln!("{}", outcome.describe());
    let mut complaints = outcome.complaints.clone();
    match outcome.sides.imbalance_permille() {
        Some(permille) if permille < 20 => {}
        Some(permille) => complaints.push(format!("the gateways' totals differ by {} %", permille / 10)),
        None => complaints.push("the stats page does not tell the gateways' totals".to_owned()),
    }
    if options.limits && !outcome.sides.has_limits() {
        complaints.push("no cgroup counted".to_owned());
    }
    if complaints.is_empty() { Ok(String::new()) } else { Err(complaints.join(", ")) }
}

/// Kills each process three times; the median of the times until another one stands in its place counts.
fn killed_is_back(galo: &up::Options) -> Fallible<String> {
    let mut seen = Vec::new();
    for name in ["gateway-1", "gateway-2", "haproxy"] {
        let mut times = Vec::new();
        for _ in 0..3 {
            let before = identity_of(galo, name)?;
            let killed = Instant::now();
            before.signal(Signal::SIGKILL);
            wait_for(&format!("{name} started again"), LIMIT, || {
                identity_of(galo, name).ok().filter(|now| *now != before)
            })?;
            times.push(killed.elapsed());
            wait_for("the API answers", LIMIT, || up::answers(galo).then_some(()))?;
        }
        times.sort();
        if times[1] > RESTART_LIMIT {
            return Err(format!("{name} took {times:.1?}"));
        }
        seen.push(format!("{name} {:.1?}", times[1]));
    }
    Ok(seen.join(", "))
}

fn identity_of(galo: &up::Options, name: &str) -> Fallible<Identity> {
    let state = up::running(&galo.home)?.ok_or("no Galo runs")?;
    let process = state
        .processes
        .into_iter()
        .find(|process| process.name == name)
        .ok_or_else(|| format!("no process {name}"))?;
    process.identity.ok_or_else(|| format!("{name} is being restarted"))
}
