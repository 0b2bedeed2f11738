//! One run: chaos, quiet, judgement.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use http::HeaderValue;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::{Client, Origin};
use crate::hostile;
use crate::killer::{Killer, Schedule, Target};
use crate::load::{Load, Log, Plan as LoadPlan};
use crate::memory::{self, Memory};
use crate::metrics::{self, Page, Seen};
use crate::payment::Payments;
use crate::processors::{Faults, NAMES, Processor};
use crate::referee::{
    Books, Findings, Tally, compare_lookup, judge, judge_forgotten, may_say, must_be_exact, parse_summary,
    text_of_millis,
};
use crate::report::{Aftermath, Checks, latency_line, percent};
use crate::supervisor::{Process, Supervisor};
use crate::{Arguments, Plan, trace};

/// Keep-alive connections of the load before the first request; a stall opens more.
pub(crate) const CONNECTION_COUNT: usize = 32;
/// The longest answer that HAProxy waits for is 5 s; a client that gives up earlier would blame it wrongly.
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// Lookups under way at once: on a machine whose CPUs others use, each takes a fifth of a second, and there may be a million.
const LOOKUP_COUNT: usize = 256;
/// Random windows whose summaries are compared; each is cut in two as well. Every second one lies in the last minute.
const WINDOW_COUNT: usize = 50;
const TARGETS: [Target; 3] = [Target::Gateway, Target::Aggregator, Target::Haproxy];
/// Nobody is killed so shortly before the load ends, since only load shows who is back.
const LAST_RETURN: Duration = Duration::from_secs(5);
/// After a kill, requests of this long count as disturbed by it.
const DISTURBED_US: u64 = 500_000;
const POLL: Duration = Duration::from_millis(50);

/// Runs everything. Says whether all checks passed.
pub(crate) async fn run(arguments: &Arguments) -> Result<bool, String> {
    let plan = &arguments.plan;
    let seed = plan.seed.unwrap_or_else(seed_of_clock);
    println!("chaos with seed {seed}");
    let token = HeaderValue::from_str(&arguments.token).map_err(|error| format!("--token: {error}"))?;
    let processors = [arguments.default, arguments.fallback].map(Origin::Tcp);
    let processors: Vec<Processor> = NAMES
        .into_iter()
        .zip(processors)
        .map(|(name, origin)| Processor::new(name, origin, token.clone()))
        .collect();
    let processors = Rc::new(processors);
    for (number, processor) in (1..).zip(processors.iter()) {
        if !processor.books().await?.is_empty() {
            return Err("the processors' books are not empty, so nothing could be told from them".to_owned());
        }
        processor.set_faults(&plan.faults(seed ^ number)).await?;
    }
    let supervisor = Supervisor::new(arguments.run.join("state.json"));
    let processes_before = supervisor.processes()?;
    let aggregator = Origin::Unix(arguments.run.join("aggregator-http.sock"));
    let api = || Client::new(Origin::Tcp(arguments.api), POST_TIMEOUT);

    let client = Client::bounded(Origin::Tcp(arguments.api), POST_TIMEOUT, plan.connections_max);
    client.open(CONNECTION_COUNT).await.map_err(|failure| format!("the API: {failure}"))?;
    let seen = Rc::new(RefCell::new(Seen::default()));
    let watching = tokio::task::spawn_local(metrics::watch(aggregator.clone(), Rc::clone(&seen)));
    let start = Instant::now();
    let killer = Rc::new(Killer {
        supervisor: supervisor.clone(),
        run: arguments.run.clone(),
        stats: Origin::Tcp(arguments.stats),
        start,
        kills: RefCell::default(),
        missed: RefCell::default(),
    });
    let killing = (plan.kill_every_ms > 0).then(|| {
        let beat = Duration::from_millis(plan.kill_every_ms);
        let load = Duration::from_secs(plan.seconds.into());
        let schedule = Schedule {
            targets: plan.targets.clone(),
            at_once: plan.at_once,
            beat,
            end: start + load - LAST_RETURN.min(load / 3),
            spare_in_turn: plan.spare_in_turn,
            seed,
        };
        tokio::task::spawn_local(Rc::clone(&killer).run(schedule))
    });
    let memory = Rc::new(RefCell::new(Memory::default()));
    let weighing = tokio::task::spawn_local(memory::watch(supervisor.clone(), start, Rc::clone(&memory)));
    let gateway = |number| Origin::Unix(arguments.run.join(format!("gateway-{number}.sock")));
    let ways = Rc::new(vec![Origin::Tcp(arguments.api), gateway(1), Origin::Tcp(arguments.api), gateway(2)]);
    let heard = Rc::new(RefCell::new(hostile::Tally::default()));
    let mut tormentors = JoinSet::new();
    for number in 0..plan.hostile_clients {
        let client = hostile::torment(Rc::clone(&ways), seed.wrapping_add(number), Rc::clone(&heard));
        tormentors.spawn_local(client);
    }
    let outages = (plan.outage_every_ms > 0)
        .then(|| tokio::task::spawn_local(break_processors(plan.clone(), start, Rc::clone(&processors))));
    let load = Load::new(client, start);
    let payments = Payments::new(seed, plan.duplicates, plan.contradictions);
    load.run(LoadPlan { rate: plan.rate, seconds: plan.seconds }, payments).await;
    let load_took = start.elapsed();
    killing.inspect(|task| task.abort());
    outages.inspect(|task| task.abort());
    weighing.abort();
    tormentors.shutdown().await;
    let mut log = load.take_log();
    log.posts.sort_unstable_by_key(|post| post.intended_us);

    if let Some(folder) = &arguments.trace {
        trace::write(folder, &log.posts, &killer.kills.borrow())?;
    }
    let quiet = Instant::now();
    for processor in processors.iter() {
        processor.set_faults(&Faults::default()).await?;
        processor.set_failing(false).await?;
    }
    let settled = settle(plan, &aggregator, quiet).await;
    watching.abort();

    let lists = [processors[0].books().await?, processors[1].books().await?];
    let books = Books::new(&lists);
    let findings = judge(&log.sent, &books);
    println!("load {:.1?}, settled {}", load_took, settled.clone().unwrap_or_else(|error| error));
    print_figures(&log, &killer, &seen.borrow(), &findings, &lists.each_ref().map(Vec::len));
    let (memory, heard) = (memory.take(), heard.take());
    println!("{}", Memory::header());
    for line in TARGETS.iter().filter_map(|target| memory.line(*target)) {
        println!("{line}");
    }
    println!("hostile conversations {}: {:?}", heard.count(), heard.replies);
    let (mut attempt_count, mut health429_count) = (0, 0);
    for (processor, name) in processors.iter().zip(NAMES) {
        let counts = processor.statistics().await?;
        println!(
            "processor {name}: POSTs {}, stored {}, known already {}, failed with 500 {}, refused with 429 {}; health checks refused {}",
            counts.posts,
            counts.inserted,
            counts.duplicates,
            counts.failures500,
            counts.refused429,
            counts.health429
        );
        attempt_count += counts.posts;
        health429_count += counts.health429;
    }

    let mut checks = Checks::default();
    checks.add("every open payment is processed in the end", settled);
    check_books(&mut checks, &log, &findings, lists.iter().map(Vec::len).sum());
    check_contradictions(&mut checks, &log);
    let stored_count = lists.iter().map(Vec::len).sum::<usize>() as u64;
    if plan.is_kind() {
        let seen = format!("{attempt_count} attempts for {stored_count} payments");
        let once = attempt_count == stored_count;
        checks.add("each payment is dispatched once", if once { Ok(seen) } else { Err(seen) });
    }
    let api = Rc::new(api());
    let books = Rc::new(books);
    let lookups = look_up_all(&api, &log, &books).await;
    checks.none("the ledger says of each id what the books say", &lookups.differing, log.sent.len());
    checks.add(
        "it has forgotten those that it may, and no other",
        judge_forgotten(&lookups.forgotten, &books, plan.known_len_max),
    );
    checks.add(
        "summaries of the whole and of windows equal the books",
        check_summaries(&api, &books, seed, plan.bucket_bytes_max).await,
    );
    let seen = seen.take();
    check_seen(&mut checks, &seen, &books, &aggregator).await;
    let health = format!("{health429_count} health checks were called too early");
    checks.add(
        "health checks keep to their interval",
        if health429_count == 0 { Ok(health) } else { Err(health) },
    );
    check_processes(&mut checks, &processes_before, &supervisor, &killer);
    check_gateways(&mut checks, plan, &killer, &log);
    check_hostile(&mut checks, plan, &heard);
    check_memory(&mut checks, plan, &memory);
    Ok(checks.finish())
}

impl Plan {
    /// Nothing dies and no processor fails, so nothing has to be tried again.
    fn is_kind(&self) -> bool {
        let faults = [self.lost_answers, self.hangs, self.refusals, self.garbage];
        self.kill_every_ms == 0 && self.outage_every_ms == 0 && faults.iter().all(|share| *share == 0.0)
    }

    fn faults(&self, seed: u64) -> Faults {
        let [half_of_hangs, half_of_refusals] = [halve(self.hangs), halve(self.refusals)];
        Faults {
            close_before_insert: half_of_refusals,
            close_after_insert: self.lost_answers,
            hang_before_insert: half_of_hangs,
            hang_after_insert: half_of_hangs,
            garbage: self.garbage,
            random500: half_of_refusals,
            random429: hundredth(self.refusals),
            hang_ms: self.hang_ms,
            seed,
        }
    }
}

#[allow(clippy::float_arithmetic, reason = "a probability, no money")]
fn halve(probability: f64) -> f64 {
    probability / 2.0
}

#[allow(clippy::float_arithmetic, reason = "a probability, no money")]
fn hundredth(probability: f64) -> f64 {
    probability / 100.0
}

fn seed_of_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, crate::load::micros)
}

/// Turns the failure switch of one processor, then the other's, then both, on and off again.
async fn break_processors(plan: Plan, start: Instant, processors: Rc<Vec<Processor>>) {
    let turns: [&[usize]; 3] = [&[0], &[1], &[0, 1]];
    for (number, turn) in (1_u32..).zip(turns.into_iter().cycle()) {
        tokio::time::sleep_until((start + Duration::from_millis(plan.outage_every_ms) * number).into()).await;
        for failing in [true, false] {
            for index in turn {
                if let Err(error) = processors[*index].set_failing(failing).await {
                    eprintln!("chaos: {error}");
                }
            }
            if failing {
                tokio::time::sleep(Duration::from_millis(plan.outage_ms)).await;
            }
        }
    }
}

/// Waits until nothing is open, and until the last request that hung inside a processor has come out of it: until then
/// the books may still grow.
async fn settle(plan: &Plan, aggregator: &Origin, quiet: Instant) -> Result<String, String> {
    let client = Client::new(aggregator.clone(), Duration::from_secs(1));
    let hangs_over = quiet + Duration::from_millis(plan.hang_ms);
    let give_up = quiet + Duration::from_secs(plan.settle_seconds_max);
    let mut empty_after = None;
    loop {
        let page = client.get("/metrics").await.map(|answer| Page::parse(&answer.text()));
        let open = page.as_ref().ok().and_then(|page| page.sum("galo_payments_open"));
        match open {
            Some(0) => {
                let after = *empty_after.get_or_insert_with(|| quiet.elapsed());
                if Instant::now() >= hangs_over {
                    return Ok(format!("nothing open {after:.1?} after the last fault"));
                }
            }
            Some(_) | None => empty_after = None,
        }
        if Instant::now() >= give_up {
            let doubt = page.ok().and_then(|page| page.sum("galo_payments_in_doubt"));
            return Err(format!(
                "{open:?} open, {doubt:?} of them in doubt, {} s after the last fault",
                plan.settle_seconds_max
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn print_figures(log: &Log, killer: &Killer, seen: &Seen, findings: &Findings, stored: &[usize; 2]) {
    let acknowledged = log.sent.iter().filter(|sent| sent.is_acknowledged()).count();
    let failed = log.posts.iter().filter(|post| post.failed_at_first()).count();
    let failed_in_the_end = log.posts.iter().filter(|post| post.failed_in_the_end()).count();
    let kills = killer.kills.borrow();
    println!(
        "payments sent {}, acknowledged {acknowledged}, processed {} + {}, of them without an answer {}",
        log.sent.len(),
        stored[0],
        stored[1],
        findings.unanswered_processed_count
    );
    println!(
        "POSTs {}, failed {failed} ({}), after one retry {failed_in_the_end} ({}); replies {:?}",
        log.posts.len(),
        percent(failed, log.posts.len()),
        percent(failed_in_the_end, log.posts.len()),
        log.replies
    );
    println!("{}", latency_line("latency from the intended moment", log.posts.iter()));
    let is_calm = |intended_us: u64| {
        let before = kills.partition_point(|kill| kill.at_us <= intended_us);
        before.checked_sub(1).is_none_or(|last| intended_us - kills[last].at_us > DISTURBED_US)
    };
    let calm = log.posts.iter().filter(|post| is_calm(post.intended_us));
    println!("{}", latency_line("  half a second after any kill", calm));
    println!("{}", Aftermath::header());
    for target in [Target::Gateway, Target::Aggregator, Target::Haproxy] {
        let aftermath = Aftermath::of(target, &kills, &log.posts);
        if aftermath.kill_count() > 0 {
            println!("{}", aftermath.line());
        }
    }
    println!(
        "handed over {}, claimed {}, withdrawn {}, stale completions {}, replayed {}; open at most {}, in doubt at most {}",
        seen.total("galo_payments_handed_over_total"),
        seen.total("galo_payments_claimed_total"),
        seen.total("galo_payments_withdrawn_total"),
        seen.total("galo_completions_stale_total"),
        seen.total("galo_accepts_replayed_total"),
        seen.open_max,
        seen.in_doubt_max
    );
}

fn check_books(checks: &mut Checks, log: &Log, findings: &Findings, stored_count: usize) {
    let acknowledged = log.sent.iter().filter(|sent| sent.is_acknowledged()).count();
    checks.none("lost: acknowledged, in no book", &findings.lost, acknowledged);
    checks.none("twice: in both books, or in one twice", &findings.twice, stored_count);
    checks.none("phantom: in a book, never sent", &findings.phantom, stored_count);
    checks.none("altered: in a book with other cents", &findings.altered, stored_count);
    checks.none("granted twice: two answers call one id new", &findings.granted_twice, acknowledged);
    let refused: Vec<String> = log.refused.iter().map(|(id, reply)| format!("{id} {reply:?}")).collect();
    checks.none("no good payment is called a bad one", &refused, log.posts.len());
}

fn check_contradictions(checks: &mut Checks, log: &Log) {
    checks.add(
        "an acknowledged id with another amount is refused with 422",
        if !log.contradiction_accepted.is_empty() {
            let examples: Vec<String> =
                log.contradiction_accepted.iter().take(5).map(Uuid::to_string).collect();
            Err(format!("{} were not, such as {}", log.contradiction_accepted.len(), examples.join(", ")))
        } else if log.contradicted_count > 0 && log.contradiction_refused_count == 0 {
            Err(format!("none of {} was answered", log.contradicted_count))
        } else {
            Ok(format!(
                "{} of {} tried, the others unanswered",
                log.contradiction_refused_count, log.contradicted_count
            ))
        },
    );
}

/// What the ledger said of all ids.
#[derive(Debug, Default)]
struct Lookups {
    /// What differs from the books.
    differing: Vec<String>,
    /// Processed, and unknown to the ledger.
    forgotten: Vec<Uuid>,
}

/// `GET /payments/{id}` for every id that was ever sent.
async fn look_up_all(api: &Rc<Client>, log: &Log, books: &Rc<Books>) -> Lookups {
    let ids: Rc<Vec<Uuid>> = Rc::new(log.sent.iter().map(|sent| sent.id).collect());
    let next = Rc::new(RefCell::new(0..ids.len()));
    let lookups = Rc::new(RefCell::new(Lookups::default()));
    let mut tasks = JoinSet::new();
    for _ in 0..LOOKUP_COUNT {
        let (api, ids, books) = (Rc::clone(api), Rc::clone(&ids), Rc::clone(books));
        let (next, lookups) = (Rc::clone(&next), Rc::clone(&lookups));
        tasks.spawn_local(async move {
            loop {
                let Some(index) = next.borrow_mut().next() else { return };
                let id = ids[index];
                let result = match api.get(&format!("/payments/{id}")).await {
                    Ok(answer) if answer.status == 404 && books.entry(id).is_some() => {
                        lookups.borrow_mut().forgotten.push(id);
                        continue;
                    }
                    Ok(answer) => compare_lookup(answer.status, &answer.text(), books.entry(id)),
                    Err(failure) => Err(failure.to_string()),
                };
                if let Err(difference) = result {
                    lookups.borrow_mut().differing.push(format!("{id}: {difference}"));
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    lookups.take()
}

/// The whole, and windows cut in two, whose parts must add up however coarse they are.
async fn check_summaries(
    api: &Client,
    books: &Books,
    seed: u64,
    bucket_bytes_max: usize,
) -> Result<String, String> {
    let (first_ms, last_ms) = books.span_ms().ok_or("nothing was processed")?;
    let (whole, _) = ask_summary(api, None).await?;
    if whole != books.total() {
        return Err(format!("the whole: {whole:?}, the books say {:?}", books.total()));
    }
    let mut random = Rng::with_seed(seed);
    let (mut compared, mut coarse) = (1, 0);
    for number in 0..WINDOW_COUNT {
        let earliest_ms = if number % 2 == 0 { first_ms } else { first_ms.max(last_ms - 60_000) };
        let mut draw = || random.i64(earliest_ms - 1000..=last_ms + 1000);
        let mut cuts = [draw(), draw(), draw()];
        cuts.sort_unstable();
        let [from, cut, to] = cuts;
        let mut sums = Vec::new();
        for window in [(from, to), (from, (cut - 1).max(from)), (cut, to)] {
            let (ours, resolution_ms) = ask_summary(api, Some(window)).await?;
            let is_right = may_say(&ours, books, window, resolution_ms);
            if !is_right || resolution_ms > 1 && must_be_exact(books, window.0, bucket_bytes_max) {
                let expected = books.between(window.0, window.1);
                return Err(format!(
                    "{window:?}: {ours:?} to {resolution_ms} ms, the books say {expected:?}"
                ));
            }
            compared += 1;
            coarse += u32::from(resolution_ms > 1);
            sums.push(ours);
        }
        let parts = [0, 1].map(|index| Tally {
            count: sums[1][index].count + sums[2][index].count,
            cents: sums[1][index].cents + sums[2][index].cents,
        });
        if cut > from && parts != sums[0] {
            return Err(format!("{cuts:?}: {:?} in one, {parts:?} in two", sums[0]));
        }
    }
    Ok(format!("{compared} summaries compared, per processor, in count and cents; {coarse} of them coarse"))
}

/// A summary, and to how many milliseconds it is exact.
async fn ask_summary(api: &Client, window: Option<(i64, i64)>) -> Result<([Tally; 2], i64), String> {
    let path = window.map_or_else(
        || "/payments-summary".to_owned(),
        |(from, to)| format!("/payments-summary?from={}&to={}", text_of_millis(from), text_of_millis(to)),
    );
    let answer = api.get(&path).await.map_err(|failure| format!("{path}: {failure}"))?.ok(&path)?;
    let resolution_ms = match answer.headers.get("summary-resolution-ms") {
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| format!("{path}: exact to {value:?} ms"))?,
        None => 1,
    };
    Ok((parse_summary(&answer.text())?, resolution_ms))
}

async fn check_seen(checks: &mut Checks, seen: &Seen, books: &Books, aggregator: &Origin) {
    checks.add(
        "accepted = processed + open, in count and cents, at every reading",
        match &seen.unconserved_first {
            Some(first) => {
                Err(format!("{} of {} readings, first {first}", seen.unconserved_count, seen.reading_count))
            }
            None if seen.reading_count == 0 => Err("no reading at all".to_owned()),
            None => Ok(format!("{} readings", seen.reading_count)),
        },
    );
    let page = Client::new(aggregator.clone(), Duration::from_secs(1)).get("/metrics").await;
    let page = page.map(|answer| Page::parse(&answer.text())).unwrap_or_default();
    let totals = books.total();
    let expected = (totals[0].count + totals[1].count, totals[0].cents + totals[1].cents);
    let accepted = (
        page.sum("galo_payments_accepted_total").unwrap_or(0),
        page.sum("galo_payments_accepted_cents_total").unwrap_or(0),
    );
    checks.add(
        "accepted in the end is what the books hold",
        if accepted == expected {
            Ok(format!("{} payments, {} cents", accepted.0, accepted.1))
        } else {
            Err(format!("{accepted:?} (payments, cents), the books say {expected:?}"))
        },
    );
    let contradictions = seen.total("galo_contradictions_total");
    checks.add(
        "no payment was processed elsewhere than recorded",
        if contradictions == 0 { Ok("0".to_owned()) } else { Err(contradictions.to_string()) },
    );
}

/// Whoever died without being killed has a bug, however well everything went on.
fn check_processes(checks: &mut Checks, before: &[Process], supervisor: &Supervisor, killer: &Killer) {
    let kills = killer.kills.borrow();
    let count = || -> Result<String, String> {
        let mut wrong = Vec::new();
        for process in supervisor.processes()? {
            let earlier = before
                .iter()
                .find(|earlier| earlier.name == process.name)
                .map_or(0, |earlier| earlier.restart_count);
            let restarted = process.restart_count - earlier;
            let killed = kills.iter().filter(|kill| kill.process == process.name).count() as u64;
            if restarted != killed || process.identity.is_none() {
                wrong.push(format!("{} was killed {killed} times and restarted {restarted}", process.name));
            }
        }
        if wrong.is_empty() {
            Ok(format!("{} kills, as many restarts", kills.len()))
        } else {
            Err(wrong.join(", "))
        }
    };
    checks.add("nobody died but those killed", count());
    let missed = killer.missed.borrow();
    if !missed.is_empty() {
        println!("not killed, since they were not there: {}", missed.join(", "));
    }
}

fn check_gateways(checks: &mut Checks, plan: &Plan, killer: &Killer, log: &Log) {
    let aftermath = Aftermath::of(Target::Gateway, &killer.kills.borrow(), &log.posts);
    if aftermath.kill_count() == 0 {
        return;
    }
    let gone = format!("{} of {} never", aftermath.gone, aftermath.kill_count());
    checks.add("a killed gateway answers again", if aftermath.gone == 0 { Ok(gone) } else { Err(gone) });
    let failed = (aftermath.failed_ppm(), plan.gateway_failures_ppm_max);
    let slowest_us = aftermath.back_us.last().copied().unwrap_or(u64::MAX);
    let back_ms = (slowest_us.div_ceil(1000), plan.gateway_back_ms_max);
    let figures = [
        ("POSTs that fail while gateways die, of a million", failed),
        ("ms until the slowest gateway answers again", back_ms),
    ];
    for (name, (seen, limit)) in figures {
        let text = format!("{seen} (at most {limit})");
        if !plan.any_speed {
            checks.add(name, if seen <= limit { Ok(text) } else { Err(text) });
        } else {
            println!("{}  {name}: {text}", if seen <= limit { "good" } else { "slow" });
        }
    }
}

/// Nonsense is refused, whatever dies beside it.
fn check_hostile(checks: &mut Checks, plan: &Plan, heard: &hostile::Tally) {
    if plan.hostile_clients == 0 {
        return;
    }
    let shapes = format!("{} of {} shapes refused", heard.refused_shapes.len(), hostile::shape_count());
    checks.add(
        "hostile clients are refused or hung up on",
        if heard.wrong_count > 0 {
            let examples: Vec<&str> = heard.wrong.iter().take(5).map(String::as_str).collect();
            let count = heard.count();
            Err(format!("{} of {count} were not, such as {}", heard.wrong_count, examples.join("; ")))
        } else if heard.refused_shapes.is_empty() {
            Err(format!("{} conversations, {shapes}", heard.count()))
        } else {
            Ok(format!("{} conversations, {shapes}", heard.count()))
        },
    );
}

fn check_memory(checks: &mut Checks, plan: &Plan, memory: &Memory) {
    for target in TARGETS {
        match memory.judge(target, plan.memory_judged_seconds * 1000) {
            Some(verdict) => checks.add(&format!("memory of {} is flat", target.name()), verdict),
            None => println!(
                "memory of {} is not judged: nothing lasted for {} s",
                target.name(),
                plan.memory_judged_seconds
            ),
        }
    }
}
