//! Clients that pay at a pace while something is done to Galo, and do what a careful client does: whoever is told 503, or is
//! told nothing, sends the same id again until it is accepted.
//!
//! So at the end every id that was ever sent has been answered 202, and the books must hold each of them once: one that was refused
//! with 503 and charged all the same would show as a replay, one that was charged twice as a second entry. Judged here: every
//! answer is one of 202, 502, 503, 504, and the last three say when to come again. How many of which, and how long they took, is
//! reported; the case knows what it may be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Connection, Way};
use crate::world::payment_json;

/// Before the same id is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// After the load's end whoever was refused still tries for so long.
const LAST_TRIES: Duration = Duration::from_secs(20);

/// How the clients behave.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Shared out among the clients in turn.
    pub(crate) ways: Vec<Way>,
    pub(crate) client_count: usize,
    /// From one payment of a client to its next.
    pub(crate) gap: Duration,
    /// Whether a client keeps its connection from one payment to the next.
    pub(crate) is_kept: bool,
}

/// What one request was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Accepted {
        is_replayed: bool,
    },
    /// 503.
    Refused,
    /// Nothing that says what became of the payment.
    Nothing,
}

/// What the clients were told.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Cents by id. Every id that was sent is here.
    pub(crate) accepted: BTreeMap<String, u64>,
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// The shortest wait that ended in each status.
    pub(crate) soonest: BTreeMap<u16, Duration>,
    /// Requests without an answer: nobody to connect to, or a connection that ended.
    pub(crate) unanswered: u64,
    pub(crate) first_unanswered: Option<String>,
    /// Ids that were told 503 and nothing else, and were charged all the same: the later 202 says "replayed".
    pub(crate) charged_though_refused: u64,
    /// The longest wait for an answer, or for the end of a connection without one.
    pub(crate) slowest: Duration,
}

impl Report {
    /// Everybody was answered 202 at the first try.
    pub(crate) fn check_nobody_noticed(&self) -> Result<(), String> {
        let is_accepted = self.statuses.keys().all(|status| *status == 202);
        if is_accepted && self.unanswered == 0 && !self.accepted.is_empty() {
            return Ok(());
        }
        Err(format!("clients noticed: {self}"))
    }

    /// Whoever was not accepted at once was told so, and not hung up on.
    pub(crate) fn check_everybody_told(&self) -> Result<(), String> {
        if self.unanswered == 0 { Ok(()) } else { Err(format!("somebody was not answered: {self}")) }
    }

    /// No answer had another status than these.
    pub(crate) fn check_statuses(&self, allowed: &[u16]) -> Result<(), String> {
        if !self.accepted.is_empty() && self.statuses.keys().all(|status| allowed.contains(status)) {
            return Ok(());
        }
        Err(format!("answers other than {allowed:?}: {self}"))
    }

    /// Whoever was told this had been waited for at least so long. However slow the machine is, that makes no wait shorter.
    pub(crate) fn check_not_sooner(&self, status: u16, wait: Duration) -> Result<(), String> {
        match self.soonest.get(&status) {
            Some(soonest) if *soonest < wait => {
                Err(format!("{status} after {soonest:.1?}, sooner than {wait:?}: {self}"))
            }
            _ => Ok(()),
        }
    }

    /// Nobody waited longer.
    pub(crate) fn check_slowest(&self, limit: Duration) -> Result<(), String> {
        if self.slowest <= limit {
            return Ok(());
        }
        Err(format!("an answer took {:.1?}, more than {limit:?}: {self}", self.slowest))
    }

    fn add(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (status, wait) in other.soonest {
            self.waited(status, wait);
        }
        self.unanswered += other.unanswered;
        self.charged_though_refused += other.charged_though_refused;
        self.first_unanswered = self.first_unanswered.take().or(other.first_unanswered);
        self.slowest = self.slowest.max(other.slowest);
    }

    fn waited(&mut self, status: u16, wait: Duration) {
        let soonest = self.soonest.entry(status).or_insert(wait);
        *soonest = wait.min(*soonest);
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} payments", self.accepted.len())?;
        for (status, count) in &self.statuses {
            write!(formatter, ", {count} times {status}")?;
        }
        write!(formatter, ", {} requests unanswered", self.unanswered)?;
        if let Some(reason) = &self.first_unanswered {
            write!(formatter, " (first: {reason})")?;
        }
        if self.charged_though_refused > 0 {
            write!(formatter, ", {} charged though refused", self.charged_though_refused)?;
        }
        write!(formatter, ", slowest {:.1?}", self.slowest)
    }
}

impl Load {
    /// So many payments a second from so many clients.
    pub(crate) fn new(ways: Vec<Way>, client_count: usize, per_second: u64) -> Self {
        let gap = Duration::from_micros(1_000_000 * client_count as u64 / per_second);
        Self { ways, client_count, gap, is_kept: true }
    }

    /// Runs the clients beside `during`, and then until each has got its last payment through.
    pub(crate) fn beside<T>(
        &self,
        during: impl FnOnce() -> Result<T, String>,
    ) -> Result<(T, Report), String> {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.client_count)
                .map(|number| {
                    let way = &self.ways[number % self.ways.len()];
                    let is_over = &is_over;
                    scope.spawn(move || self.pay_on(way, number, is_over))
                })
                .collect();
            let done = during();
            is_over.store(true, Ordering::Relaxed);
            let mut report = Report::default();
            let mut failure = None;
            for client in clients {
                match client.join() {
                    Ok(Ok(one)) => report.add(one),
                    Ok(Err(error)) => failure = failure.or(Some(error)),
                    Err(_) => failure = failure.or(Some("a client panicked".to_owned())),
                }
            }
            match (done, failure) {
                (Err(error), _) | (Ok(_), Some(error)) => Err(error),
                (Ok(done), None) => Ok((done, report)),
            }
        })
    }

    fn pay_on(&self, way: &Way, number: usize, is_over: &AtomicBool) -> Result<Report, String> {
        let mut report = Report::default();
        let mut connection = None;
        // Not all at the same moment.
        let mut due = Instant::now() + self.gap * u32::try_from(number % 64).unwrap_or_default() / 64;
        while !is_over.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due = (due + self.gap).max(Instant::now());
            let (id, cents) = fresh();
            let mut last_try = None;
            let mut told = Vec::new();
            loop {
                match self.pay(way, &mut connection, &id, cents, &mut report)? {
                    Told::Accepted { is_replayed } => {
                        let is_refused = !told.is_empty() && told.iter().all(|told| *told == Told::Refused);
                        report.charged_though_refused += u64::from(is_refused && is_replayed);
                        break;
                    }
                    refused => told.push(refused),
                }
                if is_over.load(Ordering::Relaxed) {
                    let last_try = *last_try.get_or_insert_with(|| Instant::now() + LAST_TRIES);
                    if Instant::now() > last_try {
                        return Err(format!("{id} is refused long after it was over: {report}"));
                    }
                }
                thread::sleep(RETRY_PAUSE);
            }
            report.accepted.insert(id, cents);
        }
        Ok(report)
    }

    /// One request, and what it was told.
    fn pay(
        &self,
        way: &Way,
        kept: &mut Option<Connection>,
        id: &str,
        cents: u64,
        report: &mut Report,
    ) -> Result<Told, String> {
        let started = Instant::now();
        // As every client library does: a kept connection that has been closed meanwhile is none.
        let opened = match kept.take().and_then(|mut kept| (!kept.is_closed()).then_some(kept)) {
            Some(connection) => Ok(connection),
            None => Connection::open(way),
        };
        let answered = opened.and_then(|mut connection| {
            let answer = connection.request("POST", "/payments", &payment_json(id, cents))?;
            Ok((connection, answer))
        });
        let took = started.elapsed();
        report.slowest = report.slowest.max(took);
        let (connection, answer) = match answered {
            Ok(answered) => answered,
            Err(error) => {
                report.unanswered += 1;
                report.first_unanswered.get_or_insert(error);
                return Ok(Told::Nothing);
            }
        };
        *report.statuses.entry(answer.status).or_default() += 1;
        report.waited(answer.status, took);
        let is_closing = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if self.is_kept && !is_closing {
            *kept = Some(connection);
        }
        match answer.status {
            202 => Ok(Told::Accepted { is_replayed: answer.header("idempotent-replayed").is_some() }),
            503 if answer.header("retry-after").is_some() => Ok(Told::Refused),
            504 if answer.header("retry-after").is_some() => Ok(Told::Nothing),
            // A gateway died with the request in its hands, and HAProxy had no tries left.
            502 => Ok(Told::Nothing),
            status => Err(format!("{id} is answered {status} {}", answer.text())),
        }
    }
}

/// An id that nobody has, and its cents.
fn fresh() -> (String, u64) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    (format!("10ad10ad-0bad-4bad-8bad-{number:012x}"), 1 + number % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A server that gives each connection the next of these answers.
    fn served(answers: &'static [&'static str]) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for answer in answers.iter().chain(std::iter::repeat(&ACCEPTED)) {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Way::Front(address)
    }

    const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

    fn load(answers: &'static [&'static str]) -> Result<Report, String> {
        let load = Load::new(vec![served(answers)], 1, 100);
        load.beside(|| {
            thread::sleep(Duration::from_millis(100));
            Ok(())
        })
        .map(|((), report)| report)
    }

    #[test]
    fn whoever_is_refused_or_told_nothing_comes_again() {
        let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let report = load(&[]).unwrap();
        report.check_nobody_noticed().unwrap();
        let report = load(Box::leak(Box::new([busy, ""]))).unwrap();
        assert_eq!((report.statuses[&503], report.unanswered), (1, 1));
        assert_eq!(report.statuses[&202], report.accepted.len() as u64);
        assert!(report.check_nobody_noticed().is_err());
        report.check_statuses(&[202, 503]).unwrap();
        assert!(report.check_statuses(&[202]).is_err());
        // It was refused at once; nobody was told 504.
        report.check_not_sooner(503, Duration::ZERO).unwrap();
        assert!(report.check_not_sooner(503, LAST_TRIES).is_err());
        report.check_not_sooner(504, LAST_TRIES).unwrap();
    }

    #[test]
    fn an_answer_that_no_client_should_get_is_a_failure() {
        assert!(load(&["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]).is_err());
        assert!(load(&["HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]).is_err());
    }
}
