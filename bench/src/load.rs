//! Payments at a constant rate, and how long each took from the moment at which it was due.
//!
//! Open loop: payment `n` is due at `start + n / rate`, whatever became of the earlier ones. Its latency counts from there to the last
//! byte of its answer, so a server that stands still for 100 ms shows in every payment that was due meanwhile, and not in one alone
//! ("coordinated omission"). If every connection is taken, a payment waits here and its time runs on.
//!
//! The generator must be able to tell its own slowness from the server's. It notes for each payment how long after its due moment
//! it came to it ([`Outcome::self_lag`]): that lag is part of the latency seen, and a report whose lag is near its latencies
//! speaks of the generator. One thread, epoll and one timer: two or three system calls a payment, none that blocks, no allocation
//! after the start.
//!
//! Survives answers of any status and connections that break (counted, opened again). An answer that has not come
//! [`ANSWER_WAIT`] after the last send counts as none.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};

use crate::connection::{Connection, Progress};
use crate::results::{Outcome, Percentiles};

/// Longer than HAProxy waits for a gateway (`timeout server`), so that every payment gets its answer or its 504.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Between reading the clock for the start and the first payment.
const HEAD_START_NS: u64 = 50_000_000;

const TIMER: u64 = u64::MAX;
const EVENT_COUNT_MAX: usize = 512;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// HAProxy's API.
    pub target: SocketAddr,
    /// Payments a second.
    pub rate: u32,
    /// Kept-alive connections, used in turn.
    pub connections: usize,
    /// Seconds of load before anything counts.
    pub warmup_s: u32,
    /// Seconds of load that count.
    pub seconds: u32,
    /// Fixes the ids.
    pub seed: u64,
}

/// What whoever reads the kernel's counters needs to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The warm-up is over: the next payment counts.
    Begin,
    /// The last payment is sent.
    End,
}

impl Event {
    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::End => "end",
        }
    }
}

/// Sends everything and waits for the answers.
///
/// # Errors
/// If the load cannot be made: no connection, no timer. Bad answers are no error, they are the result.
pub fn run(plan: &Plan, mut tell: impl FnMut(Event) -> Result<(), String>) -> Result<Outcome, String> {
    let mut generator = Generator::new(plan)?;
    let count = generator.count();
    let (mut cpu_us_at_begin, mut cpu_us_at_end) = (None, None);
    loop {
        generator.send_due();
        if cpu_us_at_begin.is_none() && generator.next == generator.warmup_count {
            cpu_us_at_begin = Some(cpu_us());
            tell(Event::Begin)?;
            generator.limit = count;
            continue;
        }
        if generator.next == count {
            if cpu_us_at_end.is_none() {
                cpu_us_at_end = Some(cpu_us());
                tell(Event::End)?;
            }
            if generator.is_at_rest() {
                break;
            }
        }
        if !generator.wait()? {
            break;
        }
    }
    let cpu_us =
        cpu_us_at_end.zip(cpu_us_at_begin).map_or(0, |(end, begin): (u64, u64)| end.saturating_sub(begin));
    Ok(generator.finish(cpu_us))
}

struct Generator {
    plan: Plan,
    connections: Vec<Connection>,
    /// Those with no request on its way, the longest idle first.
    idle: VecDeque<usize>,
    /// Payments that were due while every connection was taken.
    waiting: VecDeque<u64>,
    /// The next payment that becomes due.
    next: u64,
    warmup_count: u64,
    /// Nothing from here on is sent yet: what counts waits until that is told.
    limit: u64,
    start_ns: u64,
    request: Request,
    random: fastrand::Rng,
    epoll: Epoll,
    timer: TimerFd,
    events: Vec<EpollEvent>,
    latencies: Histogram<u64>,
    lags: Histogram<u64>,
    accepted_count: u64,
    refused_count: u64,
    broken_count: u64,
    waited_count: u64,
}

impl Generator {
    fn new(plan: &Plan) -> Result<Self, String> {
        let failed = |what: &'static str| move |error: Errno| format!("{what}: {error}");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("epoll"))?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
                .map_err(failed("timerfd"))?;
        // Edge-triggered: setting the timer again arms it, so that its count need not be read.
        epoll
            .add(&timer, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TIMER))
            .map_err(failed("epoll_ctl"))?;
        let mut connections = Vec::with_capacity(plan.connections);
        for index in 0..plan.connections {
            connections.push(open(plan.target, &epoll, index)?);
        }
        // From a microsecond to a minute in three digits: 180 KB each.
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|error| error.to_string());
        let warmup_count = u64::from(plan.rate) * u64::from(plan.warmup_s);
        Ok(Self {
            plan: *plan,
            idle: (0..plan.connections).collect(),
            connections,
            waiting: VecDeque::with_capacity(1 << 16),
            next: 0,
            warmup_count,
            limit: warmup_count,
            start_ns: now_ns() + HEAD_START_NS,
            request: Request::new(plan.target),
            random: fastrand::Rng::with_seed(plan.seed),
            epoll,
            timer,
            events: vec![EpollEvent::empty(); EVENT_COUNT_MAX],
            latencies: histogram()?,
            lags: histogram()?,
            accepted_count: 0,
            refused_count: 0,
            broken_count: 0,
            waited_count: 0,
        })
    }

    /// Of all payments, the warm-up's included.
    fn count(&self) -> u64 {
        self.warmup_count + u64::from(self.plan.rate) * u64::from(self.plan.seconds)
    }

    /// When a payment is due.
    fn due_ns(&self, number: u64) -> u64 {
        // 1e9 times a number of payments leaves u64 after 18 billion of them.
        self.start_ns + number * 1_000_000_000 / u64::from(self.plan.rate)
    }

    fn counts(&self, number: u64) -> bool {
        number >= self.warmup_count
    }

    fn is_at_rest(&self) -> bool {
        self.waiting.is_empty() && self.idle.len() == self.connections.len()
    }

    /// Sends all payments whose moment has come.
    fn send_due(&mut self) {
        while self.next < self.limit {
            let (due_ns, now_ns) = (self.due_ns(self.next), now_ns());
            if now_ns < due_ns {
                return;
            }
            let number = self.next;
            self.next += 1;
            if self.counts(number) {
                self.lags.saturating_record((now_ns - due_ns) / 1_000);
            }
            match self.idle.pop_front() {
                Some(index) => self.send(index, number),
                None => {
                    self.waited_count += u64::from(self.counts(number));
                    self.waiting.push_back(number);
                }
            }
        }
    }

    fn send(&mut self, index: usize, number: u64) {
        self.request.set_id(&mut self.random);
        if self.connections[index].send(self.request.bytes(), number).is_err() {
            self.connections[index].in_flight = Some(number);
            self.broke(index);
        }
    }

    /// Waits for answers or for the next payment's moment; `false` when neither will come any more.
    fn wait(&mut self) -> Result<bool, String> {
        let end = self.count();
        let wake_ns = if self.next < end {
            self.due_ns(self.next)
        } else {
            self.due_ns(end) + u64::try_from(ANSWER_WAIT.as_nanos()).unwrap_or(u64::MAX)
        };
        if self.next == end && now_ns() >= wake_ns {
            return Ok(false);
        }
        let at = TimeSpec::from_duration(Duration::from_nanos(wake_ns));
        self.timer
            .set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            .map_err(|error| format!("timerfd_settime: {error}"))?;
        let mut events = std::mem::take(&mut self.events);
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(format!("epoll_wait: {error}")),
        };
        for event in &events[..count] {
            if let Ok(index) = usize::try_from(event.data())
                && index < self.connections.len()
            {
                self.receive(index);
                // Answers in plenty must not delay what is due.
                self.send_due();
            }
        }
        self.events = events;
        Ok(true)
    }

    fn receive(&mut self, index: usize) {
        match self.connections[index].receive() {
            Ok(Progress::More) => {}
            Ok(Progress::Status(status)) => {
                let Some(number) = self.connections[index].in_flight.take() else {
                    // An answer to nothing: whatever comes next on this connection could be another's.
                    self.broke(index);
                    return;
                };
                if self.counts(number) {
                    let latency_ns = now_ns().saturating_sub(self.due_ns(number));
                    self.latencies.saturating_record(latency_ns / 1_000);
                    if (200..300).contains(&status) {
                        self.accepted_count += 1;
                    } else {
                        self.refused_count += 1;
                    }
                }
                self.free(index);
            }
            Err(_) => self.broke(index),
        }
    }

    fn free(&mut self, index: usize) {
        match self.waiting.pop_front() {
            Some(number) => self.send(index, number),
            None => self.idle.push_back(index),
        }
    }

    /// A connection ended: its payment has no answer. One that cannot be replaced stays out of the game.
    fn broke(&mut self, index: usize) {
        if let Some(number) = self.connections[index].in_flight.take() {
            self.broken_count += u64::from(self.counts(number));
        } else {
            self.idle.retain(|idle| *idle != index);
        }
        if let Ok(connection) = open(self.plan.target, &self.epoll, index) {
            self.connections[index] = connection;
            self.idle.push_back(index);
        }
    }

    fn finish(self, cpu_us: u64) -> Outcome {
        let payment_count = self.count() - self.warmup_count;
        let unanswered_count = payment_count - self.accepted_count - self.refused_count - self.broken_count;
        Outcome {
            rate: self.plan.rate,
            connections: self.plan.connections,
            seconds: self.plan.seconds,
            payment_count,
            accepted_count: self.accepted_count,
            refused_count: self.refused_count,
            broken_count: self.broken_count,
            unanswered_count,
            waited_count: self.waited_count,
            latency: Percentiles::of(&self.latencies),
            self_lag: Percentiles::of(&self.lags),
            cpu_us,
        }
    }
}

fn open(target: SocketAddr, epoll: &Epoll, index: usize) -> Result<Connection, String> {
    let connection =
        Connection::open(target).map_err(|error| format!("cannot connect to {target}: {error}"))?;
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    epoll
        .add(connection.stream(), EpollEvent::new(flags, index as u64))
        .map_err(|error| format!("epoll_ctl: {error}"))?;
    Ok(connection)
}

/// A payment's request, in which only the id changes.
struct Request {
    bytes: Vec<u8>,
    id_at: usize,
}

impl Request {
    fn new(target: SocketAddr) -> Self {
        let before = r#"{"correlationId":""#;
        let body = format!(r#"{before}00000000-0000-4000-8000-000000000000","amount":19.90}}"#);
        let head = format!(
            "POST /payments HTTP/1.1\r\nHost: {target}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let id_at = head.len() + before.len();
        Self { bytes: [head, body].concat().into_bytes(), id_at }
    }

    /// A new random id, a UUID of version 4.
    fn set_id(&mut self, random: &mut fastrand::Rng) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bits = random.u128(..);
        for (index, byte) in self.bytes[self.id_at..self.id_at + 36].iter_mut().enumerate() {
            match index {
                8 | 13 | 18 | 23 => {}
                // The version; and the variant, of which any of four would do.
                14 | 19 => {}
                _ => {
                    *byte = DIGITS[(bits & 15) as usize];
                    bits >>= 4;
                }
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The monotonic clock, as the timer has it.
fn now_ns() -> u64 {
    clock_gettime(Clock::CLOCK_MONOTONIC)
        .ok()
        .and_then(|now| u64::try_from(Duration::from(now).as_nanos()).ok())
        .expect("CLOCK_MONOTONIC is always there, and 584 years are not over")
}

/// CPU that this process has used.
fn cpu_us() -> u64 {
    let micros = |time: nix::sys::time::TimeVal| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec()).unwrap_or(0)
    };
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0, |usage| micros(usage.user_time()) + micros(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn plan(target: SocketAddr) -> Plan {
        Plan { target, rate: 200, connections: 4, warmup_s: 1, seconds: 1, seed: 7 }
    }

    #[test]
    fn ids_are_uuids_and_differ() {
        let mut request = Request::new(SocketAddr::from(([127, 0, 0, 1], 9999)));
        let mut random = fastrand::Rng::with_seed(1);
        let mut seen = HashSet::new();
        for _ in 0..1_000 {
            request.set_id(&mut random);
            let id = String::from_utf8(request.bytes()[request.id_at..][..36].to_vec()).expect("ASCII");
            assert_eq!(id.match_indices('-').map(|(at, _)| at).collect::<Vec<_>>(), [8, 13, 18, 23]);
            assert_eq!(&id[14..15], "4");
            assert!(seen.insert(id));
        }
        assert!(request.bytes().ends_with(br#"","amount":19.90}"#));
    }

    /// A server on one thread per connection, which answers after `pause(n)` for the n-th request of a connection.
    fn server(pause: fn(u32) -> Option<Duration>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("any port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    for number in 0.. {
                        match stream.read(&mut buffer) {
                            Ok(0) | Err(_) => return,
                            Ok(_) => {}
                        }
                        let Some(pause) = pause(number) else { return };
                        std::thread::sleep(pause);
                        let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn a_server_that_stands_still_shows_in_every_payment_that_was_due_meanwhile() {
        // One request in each connection takes 400 ms: within the second that counts.
        let address =
            server(|number| Some(if number == 75 { Duration::from_millis(400) } else { Duration::ZERO }));
        let mut events = Vec::new();
        let outcome = run(&plan(address), |event| {
            events.push(event);
            Ok(())
        })
        .expect("a load");
        assert_eq!(events, [Event::Begin, Event::End]);
        assert_eq!((outcome.payment_count, outcome.accepted_count), (200, 200));
        // 80 payments are due in 400 ms, and no connection is free: their waits fall from 400 ms to nothing. A closed
        // loop would have seen four slow ones.
        assert!(outcome.waited_count > 40, "{outcome:?}");
        assert!(outcome.latency.p90_us > 100_000, "{outcome:?}");
        assert!(outcome.latency.max_us >= 390_000, "{outcome:?}");
    }

    #[test]
    fn a_connection_that_breaks_is_counted_and_replaced() {
        let address = server(|number| (number < 75).then_some(Duration::ZERO));
        let outcome = run(&plan(address), |_| Ok(())).expect("a load");
        assert_eq!(outcome.broken_count, 4, "{outcome:?}");
        assert_eq!(outcome.accepted_count, 196, "{outcome:?}");
    }
}
