//! Cases about time: a Galo of its own for each, clients that pay at a pace, and when each payment was answered by a processor.
//!
//! Most of these cases wait most of the time, so the cases of a group run side by side; a group whose cases want the CPU has
//! few of them. What is judged is the time from a payment's POST to the last byte of a processor's answer that says that it is
//! stored, by the test's own processors, which live in this process: nobody is asked meanwhile, and no clock but one is read.
//! A bound holds for the 99th percentile, and twice the bound for the slowest, above what payments took in the same run before anything was wrong: the
//! machine may be busy with other things.
//!
//! Each case ends like all others: ledger, summary and conservation against the processors' books, id by id. A case
//! collects everything that is wrong before it fails, since the figures of a failure are what tells its kind.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Connection, Way};
use crate::faults::view;
use crate::galo::{Galo, Plan, Programs, metrics, sum};
use crate::processor::{Act, Arrival, Processor, Then};
use crate::tally::Tally;
use crate::world::payment_json;

/// How long everything may take to be settled once processors are well. Pauses of single payments may have grown to half a
/// minute by then.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// For how long payments are made before anything is wrong, and how long all of them may take.
const CONTROL: Duration = Duration::from_secs(3);
const CONTROL_LIMIT: Duration = Duration::from_secs(20);

/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(20);

/// One Galo, its two processors, and every payment with the moment of its POST.
pub(crate) struct Scene {
    pub(crate) galo: Galo,
    pub(crate) default: Processor,
    pub(crate) fallback: Processor,
    sent: Vec<Sent>,
    /// How many of them came before what is judged.
    control_len: usize,
    kept: [Option<Connection>; 2],
}

struct Sent {
    id: String,
    cents: u64,
    at: Instant,
}

/// What a case has seen: figures, and what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    figures: Vec<String>,
    wrong: Vec<String>,
}

impl Findings {
    /// A figure for the case's line.
    pub(crate) fn figure(&mut self, figure: impl std::fmt::Display) {
        self.figures.push(figure.to_string());
    }

    /// Something that must be so.
    pub(crate) fn check(&mut self, result: Result<(), String>) {
        self.wrong.extend(result.err());
    }

    /// Something that must be so, and what it is otherwise.
    pub(crate) fn expect(&mut self, is_so: bool, otherwise: impl FnOnce() -> String) {
        self.check(if is_so { Ok(()) } else { Err(otherwise()) });
    }

    pub(crate) fn is_well(&self) -> bool {
        self.wrong.is_empty()
    }

    fn finish(self) -> Result<String, String> {
        let figures = self.figures.join("; ");
        if self.wrong.is_empty() {
            Ok(figures)
        } else {
            Err(format!("{} ({figures})", self.wrong.join("; ")))
        }
    }
}

type Play = Box<dyn FnOnce(&mut Scene, &mut Findings) -> Result<(), String> + Send>;

/// A case of a group.
pub(crate) struct Case {
    name: String,
    environment: Vec<(&'static str, String)>,
    processors: Option<fn(&[String; 2]) -> String>,
    play: Play,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        environment: &[(&'static str, &str)],
        play: impl FnOnce(&mut Scene, &mut Findings) -> Result<(), String> + Send + 'static,
    ) -> Self {
        let environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { name: name.into(), environment, processors: None, play: Box::new(play) }
    }

    /// The same with this processors' file, of their URLs.
    pub(crate) fn with_file(self, processors: fn(&[String; 2]) -> String) -> Self {
        Self { processors: Some(processors), ..self }
    }
}

/// Runs a group's cases at the same time, each with a Galo of its own.
pub(crate) fn side_by_side(programs: &Programs, tally: &mut Tally, group: &str, cases: Vec<Case>) {
    if !tally.begin(group) {
        return;
    }
    // Here and not in the threads: a process dies with the thread that started it.
    let mut scenes = Vec::new();
    for (number, case) in cases.into_iter().enumerate() {
        let folder = format!("{}-{number}", group.replace(' ', "-"));
        let Case { name, environment, processors, play } = case;
        let plan = Plan { name: &folder, environment, processors, ..Plan::default() };
        scenes.push((name, Scene::start(programs, &plan), play));
    }
    let results: Vec<(String, Result<String, String>)> = thread::scope(|scope| {
        let threads: Vec<_> = scenes
            .into_iter()
            .map(|(name, scene, play)| (name, scope.spawn(move || perform(scene?, play))))
            .collect();
        let join = |(name, thread): (String, thread::ScopedJoinHandle<'_, Result<String, String>>)| {
            (name, thread.join().unwrap_or_else(|_| Err("the thread panicked".to_owned())))
        };
        threads.into_iter().map(join).collect()
    });
    for (name, result) in results {
        tally.figures(&name, result);
    }
}

fn perform(mut scene: Scene, play: Play) -> Result<String, String> {
    let mut findings = Findings::default();
    let played = play(&mut scene, &mut findings);
    findings.check(played);
    findings.check(scene.galo.check_alive());
    // One that failed is killed, and its folder with the logs stays.
    if findings.is_well() {
        findings.check(scene.galo.stop());
    }
    findings.finish()
}

impl Scene {
    fn start(programs: &Programs, plan: &Plan<'_>) -> Result<Self, String> {
        let (default, fallback) = (Processor::start()?, Processor::start()?);
        let galo = Galo::start(programs, plan, [default.url(), fallback.url()])?;
        Ok(Self { galo, default, fallback, sent: Vec::new(), control_len: 0, kept: [None, None] })
    }

    /// Both processors.
    pub(crate) fn processors(&self) -> [&Processor; 2] {
        [&self.default, &self.fallback]
    }

    /// So many ids for payments that something is to happen to.
    pub(crate) fn fresh_ids<const COUNT: usize>(&self) -> [String; COUNT] {
        [(); COUNT].map(|()| self.galo.fresh_id())
    }

    /// One payment, to the gateways in turn; it must be accepted.
    pub(crate) fn pay(&mut self, id: &str) -> Result<(), String> {
        let number = self.sent.len();
        let (gateway, cents) = (number % 2, self.next_cents());
        let kept = self.kept[gateway].take().and_then(|mut kept| (!kept.is_closed()).then_some(kept));
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(&self.galo.straight(gateway))?,
        };
        let at = Instant::now();
        let answer = connection.request("POST", "/payments", &payment_json(id, cents))?;
        if answer.status != 202 {
            return Err(format!("{id} is answered {} {}", answer.status, answer.text()));
        }
        self.kept[gateway] = Some(connection);
        self.sent.push(Sent { id: id.to_owned(), cents, at });
        Ok(())
    }

    /// What the next payment will amount to, cents.
    pub(crate) fn next_cents(&self) -> u64 {
        1_000 + self.sent.len() as u64
    }

    /// So many payments a second for so long.
    pub(crate) fn pay_for(&mut self, time: Duration, per_second: u32) -> Result<(), String> {
        let (started, gap) = (Instant::now(), Duration::from_secs(1) / per_second);
        let mut due = started;
        while due < started + time {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due += gap;
            let id = self.galo.fresh_id();
            self.pay(&id)?;
        }
        Ok(())
    }

    /// What payments take here and now while nothing is wrong: the slowest of some seconds of them, above which bounds are judged. They count for
    /// nothing else but the books.
    pub(crate) fn control(&mut self, findings: &mut Findings, per_second: u32) -> Result<Duration, String> {
        self.pay_for(CONTROL, per_second)?;
        let waits = self.await_waits(CONTROL_LIMIT, |_| true);
        findings.figure(format!("control: {waits}"));
        waits.check_all()?;
        self.control_len = self.sent.len();
        Ok(waits.longest())
    }

    /// When a processor first said that it has this payment.
    fn answered(&self, id: &str) -> Option<Instant> {
        self.processors().iter().filter_map(|processor| processor.books().answered.get(id).copied()).min()
    }

    /// How long after their POSTs the payments that `judges` picks by id were processed.
    pub(crate) fn waits(&self, judges: impl Fn(&str) -> bool) -> Waits {
        let judged = self.sent[self.control_len..].iter().filter(|sent| judges(&sent.id));
        let mut waits = Waits { count: 0, sorted: Vec::new() };
        for sent in judged {
            waits.count += 1;
            let answered = self.answered(&sent.id);
            waits.sorted.extend(answered.map(|answered| answered.saturating_duration_since(sent.at)));
        }
        waits.sorted.sort_unstable();
        waits
    }

    /// Likewise, once all of them are processed, or the limit has passed.
    pub(crate) fn await_waits(&self, limit: Duration, judges: impl Fn(&str) -> bool) -> Waits {
        let deadline = Instant::now() + limit;
        loop {
            let waits = self.waits(&judges);
            if waits.sorted.len() == waits.count || Instant::now() > deadline {
                return waits;
            }
            thread::sleep(POLL);
        }
    }

    /// Asks again and again until it is so, or the limit has passed; says whether it is.
    pub(crate) fn is_within(
        &self,
        limit: Duration,
        mut is_so: impl FnMut(&Self) -> Result<bool, String>,
    ) -> Result<bool, String> {
        let deadline = Instant::now() + limit;
        loop {
            if is_so(self)? {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(POLL);
        }
    }

    /// The sum of a metric over both gateways.
    pub(crate) fn gateways_sum(&self, series: &str) -> Result<u64, String> {
        (0..2).map(|gateway| Ok(sum(&metrics(&self.galo.straight(gateway))?, series))).sum()
    }

    /// The end of a case: all but these ids are processed, once, in the summary and in one book; these are open and in no summary;
    /// and accepted = processed + declined + known before + open, in count and in cents.
    pub(crate) fn check_end(&self, open: &BTreeSet<String>) -> Result<(), String> {
        let way = self.galo.aggregator();
        let count = |page: &str| sum(page, "galo_payments_open");
        let is_settled = self.is_within(SETTLE_LIMIT, |_| Ok(count(&metrics(&way)?) == open.len() as u64))?;
        let page = metrics(&way)?;
        if !is_settled {
            return Err(format!("{} are open after {SETTLE_LIMIT:?}, not {}", count(&page), open.len()));
        }
        check_conservation(&page)?;
        for id in open {
            check_open(&self.galo.straight(0), id)?;
        }
        let accepted: BTreeMap<String, u64> =
            self.sent.iter().map(|sent| (sent.id.clone(), sent.cents)).collect();
        self.galo.check_books(&accepted, self.processors(), open)
    }

    /// No payment that one processor left in doubt was sent to the other one, or with another instant.
    pub(crate) fn check_no_crossing(&self, is_doubtful: impl Fn(&Arrival) -> bool) -> Result<usize, String> {
        let mut count = 0;
        for (processor, other) in [(&self.default, &self.fallback), (&self.fallback, &self.default)] {
            let arrivals = processor.books().arrivals.clone();
            let doubtful: BTreeSet<String> =
                arrivals.into_iter().filter(&is_doubtful).map(|arrival| arrival.id).collect();
            for id in &doubtful {
                let (posts, others) = (processor.posts(id), other.posts(id));
                if !others.is_empty() {
                    let counts = [posts.len(), others.len()];
                    return Err(format!("{id} crossed over in doubt, sent {counts:?} times"));
                }
                if let Some(changed) = posts.iter().find(|post| **post != posts[0]) {
                    return Err(format!(
                        "{id} was sent with different contents: {:?}, {changed:?}",
                        posts[0]
                    ));
                }
            }
            count += doubtful.len();
        }
        Ok(count)
    }
}

/// Accepted is what was processed, declined, known before, or is open.
fn check_conservation(page: &str) -> Result<(), String> {
    for cents in ["", "_cents"] {
        let total = |name: &str| sum(page, &format!("galo_payments_{name}{cents}_total"));
        let open = sum(page, &format!("galo_payments_open{cents}"));
        let [accepted, processed, declined, known_before] =
            ["accepted", "processed", "declined", "known_before"].map(total);
        if accepted != processed + declined + known_before + open || accepted == 0 {
            return Err(format!(
                "accepted{cents} {accepted} is not {processed} processed, {declined} declined, {known_before} known before, {open} open"
            ));
        }
    }
    Ok(())
}

/// The ledger says that it is open.
pub(crate) fn check_open(way: &Way, id: &str) -> Result<(), String> {
    let seen = view(way, id)?;
    if seen.state == "open" { Ok(()) } else { Err(format!("{id} is {seen:?} and should be open")) }
}

/// An answer that stores nothing and refuses, with these header lines.
pub(crate) fn refusal(status: u16, headers: &str) -> Act {
    let bytes = format!("HTTP/1.1 {status} No\r\n{headers}Content-Length: 0\r\n\r\n");
    Act::new(false, bytes, Then::Stay)
}

/// How long payments took from POST to processed.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    pub(crate) count: usize,
    /// Of those that were processed.
    sorted: Vec<Duration>,
}

impl Waits {
    /// The wait that so many of a thousand do not exceed.
    fn per_mille(&self, share: usize) -> Duration {
        let rank = (self.sorted.len() * share).div_ceil(1_000).saturating_sub(1);
        self.sorted.get(rank).copied().unwrap_or_default()
    }

    pub(crate) fn longest(&self) -> Duration {
        self.sorted.last().copied().unwrap_or_default()
    }

    /// All are processed.
    pub(crate) fn check_all(&self) -> Result<(), String> {
        match self.count - self.sorted.len() {
            0 if self.count > 0 => Ok(()),
            missing => Err(format!("{missing} of {} are not processed", self.count)),
        }
    }

    /// All are processed, 99 of 100 within the bound and the slowest within twice the bound.
    pub(crate) fn check_within(&self, bound: Duration) -> Result<(), String> {
        self.check_all()?;
        if self.per_mille(990) > bound || self.longest() > bound * 2 {
            return Err(format!("slower than {bound:?} allows"));
        }
        Ok(())
    }
}

impl std::fmt::Display for Waits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p90, p99] = [500, 900, 990].map(|share| self.per_mille(share));
        write!(
            formatter,
            "{} of {} processed, p50 {p50:.1?}, p90 {p90:.1?}, p99 {p99:.1?}, longest {:.1?}",
            self.sorted.len(),
            self.count,
            self.longest()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(count: usize, sorted_ms: impl IntoIterator<Item = u64>) -> Waits {
        Waits { count, sorted: sorted_ms.into_iter().map(Duration::from_millis).collect() }
    }

    #[test]
    fn a_bound_is_for_ninety_nine_of_a_hundred_and_twice_it_for_all() {
        let bound = Duration::from_millis(100);
        waits(200, 1..=100).check_within(bound).unwrap_err();
        waits(100, 1..=100).check_within(bound).unwrap();
        waits(100, (1..=99).chain([200])).check_within(bound).unwrap();
        waits(100, (1..=99).chain([201])).check_within(bound).unwrap_err();
        waits(100, (1..=98).chain([101, 102])).check_within(bound).unwrap_err();
        waits(0, []).check_within(bound).unwrap_err();
        assert_eq!(waits(100, 1..=100).per_mille(990), Duration::from_millis(99));
    }

    #[test]
    fn what_is_missing_breaks_conservation() {
        let page = |declined: u64| {
            format!(
                "galo_payments_accepted_total 5\ngalo_payments_processed_total{{processor=\"default\"}} 2\n\
                 galo_payments_open 2\ngalo_payments_declined_total {declined}\n\
                 galo_payments_accepted_cents_total 50\ngalo_payments_processed_cents_total 50\n"
            )
        };
        check_conservation(&page(1)).unwrap();
        check_conservation(&page(0)).unwrap_err();
        check_conservation("").unwrap_err();
    }

    #[test]
    fn a_failure_tells_its_figures_too() {
        let mut findings = Findings::default();
        findings.figure("1 of 2");
        findings.expect(true, || "no".to_owned());
        assert!(findings.is_well());
        findings.expect(false, || "one is missing".to_owned());
        assert_eq!(findings.finish(), Err("one is missing (1 of 2)".to_owned()));
    }
}
