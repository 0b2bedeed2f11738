//! Company for what comes in quick succession: a busy thread rests between two turns, so that one wake-up serves several
//! requests, grants and answers, and one frame to the aggregator several payments.
//!
//! What a payment costs is mostly wake-ups, and at a few thousand a second most of them find a single piece of work. So, as network
//! cards do, a busy thread looks now and then instead of being called each time:
//!
//! ```text
//! shift         our own        │ another gateway's  │ our own            │
//! requests   r  r   r    r     │                    │    r    r  r       │
//! the thread rests ············┼wake─▶ wake─▶ ······┼····················┼wake─▶
//!                              accept    grants: 202s, attempts
//! ```
//!
//! HAProxy gives all requests of a shift to the same gateway (`haproxy/haproxy.cfg`), which takes them in at its end. Then it waits for the
//! ledger's word as always: nobody whose answer is on its way is kept waiting by a rest. So a request waits for a shift at most, half of one
//! as a rule, and for the round trip to the ledger. All that a turn brought about is with the kernel before the thread rests.
//!
//! Must never have a thread rest to which little comes: a lone payment finds it waiting in the ring. Must never rest for longer than
//! two shifts, nor twice in one turn. Nothing is kept that could be wrong afterwards: without it, payments cost more and are otherwise the
//! same. Whose shift it is, is guessed from what comes; a wrong guess costs a wake-up or a shift's wait, and the next one is right.

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;

use crate::wake::{Flag, yield_now};

/// How many requests a cycle of shifts must promise for rests to be worth their while: three in two. With shifts of 500 µs that is 1,500 a
/// second for each of two gateways; below, more shifts would be waited through in vain than wake-ups saved, and no quota is in danger yet.
const POSTS_PER_TWO_CYCLES_MIN: u128 = 3;

/// How long requests are counted before it is decided anew. Long enough for chance (15 at the least rate), short beside a ramp.
const WINDOW: Duration = Duration::from_millis(10);

/// When to rest, and for how long.
#[derive(Debug)]
struct Pace {
    shift: Duration,
    /// How many gateways have a shift in turn.
    sides: u32,
    window_begin: Instant,
    window_posts: u64,
    is_busy: bool,
    /// When the turn began, since 1970: HAProxy's shifts are the wall clock's.
    turn_begin: Duration,
    turn: Turn,
}

/// What has come since the last rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// Nothing yet.
    Fresh,
    /// What had come during the rest, and no request.
    Empty,
    /// Requests that had come during the rest: our shift is over.
    Over,
    /// A request that did not wait: the present shift is ours.
    Live,
}

impl Pace {
    fn new(shift: Duration, sides: u32, now: Instant, wall: Duration) -> Self {
        Self {
            shift,
            sides,
            window_begin: now,
            window_posts: 0,
            is_busy: false,
            turn_begin: wall,
            turn: Turn::Live,
        }
    }

    /// Requests came in, or none but something else did.
    fn note(&mut self, posts: u64, now: Instant) {
        self.turn = match (self.turn, posts) {
            (Turn::Fresh, 0) => Turn::Empty,
            (Turn::Fresh, _) => Turn::Over,
            (turn, 0) => turn,
            (Turn::Empty | Turn::Over | Turn::Live, _) => Turn::Live,
        };
        self.window_posts += posts;
        let window = now.saturating_duration_since(self.window_begin);
        if window >= WINDOW {
            let cycle = self.shift * self.sides;
            self.is_busy = 2 * u128::from(self.window_posts) * cycle.as_nanos()
                >= POSTS_PER_TWO_CYCLES_MIN * window.as_nanos();
            (self.window_begin, self.window_posts) = (now, 0);
        }
    }

    /// For how long to rest at `wall`, the time since 1970. Not at all if the turn took as long as that.
    fn rest(&self, wall: Duration) -> Option<Duration> {
        let shift_us = self.shift.as_micros();
        let others = if self.turn == Turn::Over { u128::from(self.sides - 1) } else { 0 };
        let end_us = (self.turn_begin.as_micros() / shift_us + 1 + others) * shift_us;
        let rest_us = u64::try_from(end_us.saturating_sub(wall.as_micros())).unwrap_or(u64::MAX);
        // The wall clock may have been set back.
        let rest = Duration::from_micros(rest_us).min(self.shift * self.sides);
        (self.is_busy && !rest.is_zero()).then_some(rest)
    }

    /// Whatever comes from here on belongs to a new turn, which begins with a rest's end or without one.
    fn begin_turn(&mut self, wall: Duration, has_rested: bool) {
        self.turn_begin = wall;
        self.turn = if has_rested { Turn::Fresh } else { Turn::Live };
    }
}

/// What the thread's core tells of events.
#[derive(Default)]
pub struct Pacer {
    events: Cell<u64>,
    posts: Cell<u64>,
    stirred: Flag,
    /// The byte that the thread sent to itself has come.
    probed: Flag,
}

impl Pacer {
    /// Something came in.
    pub fn on_event(&self) {
        self.events.set(self.events.get() + 1);
        // Nothing to do but once in a turn.
        if self.events.get() == 1 {
            self.stirred.raise();
        }
    }

    /// A request came in, of which an event tells, too.
    pub fn on_post(&self) {
        self.posts.set(self.posts.get() + 1);
    }

    /// Has the thread rest where it is worth its while, for as long as it lives, but never while `is_awaited` says that somebody
    /// waits for what is on its way here already; `sleep` is how. `sides` gateways have a shift in turn.
    ///
    /// # Errors
    /// If there are no two descriptors left.
    pub async fn run(
        self: Rc<Self>,
        shift: Duration,
        sides: u32,
        is_awaited: impl Fn() -> bool,
        mut sleep: impl FnMut(Duration),
    ) -> std::io::Result<()> {
        let (probe, prober) = UnixStream::pair()?;
        monoio::spawn(Rc::clone(&self).receive_bytes(probe));
        let mut pace = Pace::new(shift, sides, Instant::now(), wall());
        loop {
            self.stirred.lowered().await;
            loop {
                if self.events.take() == 0 {
                    break;
                }
                pace.note(self.posts.take(), Instant::now());
                if is_awaited() {
                    break;
                }
                if pace.rest(wall()).is_none() {
                    pace.begin_turn(wall(), false);
                    break;
                }
                // A byte to ourselves. It comes when the thread would wait, behind all that has come before it; and everything that the tasks
                // have queued until then has gone to the kernel: to rest earlier would hold back answers. What comes with it has its own
                // turn first, and what comes of that leaves in the same way.
                send_byte(&prober)?;
                self.probed.lowered().await;
                yield_now().await;
                if self.events.get() > 0 {
                    continue;
                }
                let rest = pace.rest(wall());
                if let Some(rest) = rest {
                    sleep(rest);
                }
                pace.begin_turn(wall(), rest.is_some());
            }
        }
    }

    /// Its read is with the kernel before a byte is sent: one that found its byte there would complete at once.
    async fn receive_bytes(self: Rc<Self>, mut probe: UnixStream) {
        let mut byte = vec![0];
        loop {
            let (result, returned) = probe.read(byte).await;
            if !matches!(result, Ok(1)) {
                return;
            }
            byte = returned;
            self.probed.raise();
        }
    }
}

/// The time since 1970.
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn send_byte(to: &UnixStream) -> std::io::Result<()> {
    // SAFETY: the descriptor is open for as long as `to` lives, and the byte outlives the call, which does not block.
    let sent = unsafe { libc::send(to.as_raw_fd(), [0_u8].as_ptr().cast(), 1, libc::MSG_DONTWAIT) };
    if sent == 1 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as StdUnixStream;

    use monoio::io::AsyncWriteRentExt;

    use super::*;
    use crate::config::DriverChoice;
    use crate::driver;

    const SHIFT: Duration = Duration::from_micros(500);
    const CYCLE: Duration = Duration::from_micros(1_000);

    /// Moments on both clocks, so many µs after a beginning that is the beginning of a shift.
    struct Time {
        begin: Instant,
        wall: Duration,
    }

    impl Time {
        fn new() -> Self {
            Self { begin: Instant::now(), wall: Duration::from_secs(1_752_582_896) }
        }

        fn at(&self, since: Duration) -> (Instant, Duration) {
            (self.begin + since, self.wall + since)
        }
    }

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// A pace that has seen enough, at the end of a rest.
    fn busy(time: &Time, sides: u32) -> Pace {
        let (now, wall) = time.at(Duration::ZERO);
        let mut pace = Pace::new(SHIFT, sides, now, wall);
        pace.note(1_000, now + WINDOW);
        pace.begin_turn(wall, true);
        pace
    }

    /// Turns of one request each, evenly spread over `span`; returns the rests.
    fn run(pace: &mut Pace, time: &Time, from: Duration, per_second: u32, span: Duration) -> Vec<Duration> {
        let step = Duration::from_secs(1) / per_second;
        let mut rests = Vec::new();
        let mut since = from;
        while since < from + span {
            since += step;
            let (now, wall) = time.at(since);
            pace.note(1, now);
            let rest = pace.rest(wall);
            rests.extend(rest);
            since += rest.unwrap_or_default();
            pace.begin_turn(time.at(since).1, rest.is_some());
        }
        rests
    }

    #[test]
    fn few_requests_are_never_waited_for() {
        let time = Time::new();
        let (now, wall) = time.at(Duration::ZERO);
        let mut pace = Pace::new(SHIFT, 2, now, wall);
        let rests = run(&mut pace, &time, Duration::ZERO, 1_400, Duration::from_secs(2));
        assert_eq!(rests, Vec::<Duration>::new());
    }

    #[test]
    fn many_requests_are_and_it_ends_with_them() {
        let time = Time::new();
        let second = Duration::from_secs(1);
        let (now, wall) = time.at(Duration::ZERO);
        let mut pace = Pace::new(SHIFT, 2, now, wall);
        pace.note(100, time.at(WINDOW).0);
        let mut since = WINDOW;
        pace.begin_turn(time.at(since).1, true);
        // Each rest finds the three requests that a cycle brings at this rate.
        for _ in 0..1_000 {
            pace.note(3, time.at(since).0);
            let rest = pace.rest(time.at(since).1).expect("busy");
            assert!(rest <= CYCLE, "{rest:?}");
            since += rest;
            pace.begin_turn(time.at(since).1, true);
        }
        // Only what is left of the window in which it was decided may still be rested in.
        let rests = run(&mut pace, &time, since + micros(100), 1_000, second);
        assert!(rests.len() <= 11, "{}", rests.len());
    }

    #[test]
    fn what_has_come_tells_whose_the_present_shift_is() {
        let time = Time::new();
        let rest = |sides, notes: &[u64], at| {
            let mut pace = busy(&time, sides);
            let (now, wall) = time.at(micros(at));
            notes.iter().for_each(|posts| pace.note(*posts, now));
            pace.rest(wall)
        };
        // Ours is over: the next but one is ours again.
        assert_eq!(rest(2, &[2], 150), Some(micros(850)));
        assert_eq!(rest(2, &[2, 0, 0], 150), Some(micros(850)));
        // Nothing came, or something that did not wait: this one may be ours.
        assert_eq!(rest(2, &[0], 20), Some(micros(480)));
        assert_eq!(rest(2, &[0, 1], 20), Some(micros(480)));
        assert_eq!(rest(2, &[2, 1], 150), Some(micros(350)));
        // Alone, each is.
        assert_eq!(rest(1, &[2], 150), Some(micros(350)));
    }

    #[test]
    fn a_turn_that_took_as_long_as_its_rest_is_followed_by_none() {
        let time = Time::new();
        let mut pace = busy(&time, 2);
        pace.note(100, time.at(micros(900)).0);
        assert_eq!(pace.rest(time.at(micros(900)).1), Some(micros(100)));
        assert_eq!(pace.rest(time.at(micros(1_000)).1), None);
    }

    #[test]
    fn a_clock_that_was_set_back_costs_two_shifts_at_most() {
        let time = Time::new();
        let mut pace = busy(&time, 2);
        pace.note(1, time.at(micros(10)).0);
        assert_eq!(pace.rest(time.wall - Duration::from_secs(3_600)), Some(CYCLE));
        assert_eq!(pace.rest(time.wall + Duration::from_secs(3_600)), None);
    }

    #[test]
    fn after_a_silence_the_first_burst_is_not_waited_for() {
        let time = Time::new();
        let mut pace = busy(&time, 2);
        let (now, wall) = time.at(Duration::from_secs(60));
        pace.note(10, now);
        assert_eq!(pace.rest(wall), None);
    }

    /// A pacer whose thread rests after each event: a shift is an hour, and one request in a window is many. `sleep` is its rest.
    async fn pacer(is_awaited: &Rc<Cell<bool>>, sleep: impl FnMut(Duration) + 'static) -> Rc<Pacer> {
        let pacer = Rc::new(Pacer::default());
        let awaited = Rc::clone(is_awaited);
        let running = Rc::clone(&pacer).run(Duration::from_secs(3_600), 2, move || awaited.get(), sleep);
        monoio::spawn(running);
        // The first rest is that of the first event behind the first window.
        monoio::time::sleep(2 * WINDOW).await;
        pacer
    }

    fn post(pacer: &Pacer) {
        pacer.on_post();
        pacer.on_event();
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn on_uring<F: Future<Output = ()>>(test: F) {
        driver::run(driver::choose(DriverChoice::Uring).unwrap(), test).unwrap();
    }

    /// An event has a task write something. Whatever the day is like, the other side must have been given it when the thread rests.
    #[test]
    fn what_a_turn_brings_about_leaves_before_the_thread_rests() {
        let (ours, mut theirs) = StdUnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        on_uring(async move {
            let rest_count = Rc::new(Cell::new(0));
            let (due, counted) = (Rc::new(Flag::default()), Rc::clone(&rest_count));
            let pacer = pacer(&Rc::default(), move |_| {
                assert_eq!(theirs.read(&mut [0; 64]).unwrap(), 1, "one for each event, and none kept back");
                counted.set(counted.get() + 1);
            })
            .await;
            let mut writer = UnixStream::from_std(ours).unwrap();
            let writing = Rc::clone(&due);
            monoio::spawn(async move {
                loop {
                    writing.lowered().await;
                    writer.write_all(vec![1]).await.0.unwrap();
                }
            });
            for number in 1..=20 {
                post(&pacer);
                due.raise();
                until(|| rest_count.get() == number).await;
            }
        });
    }

    /// What lies in a socket when an event comes is read before the thread rests, not a shift later.
    #[test]
    fn what_has_come_before_a_rest_is_seen_before_it() {
        let (ours, mut theirs) = StdUnixStream::pair().unwrap();
        on_uring(async move {
            let (seen_count, rest_count) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let (seen, counted) = (Rc::clone(&seen_count), Rc::clone(&rest_count));
            let pacer = pacer(&Rc::default(), move |_| {
                counted.set(counted.get() + 1);
                assert_eq!(seen.get(), counted.get(), "one byte for each event");
            })
            .await;
            let mut reader = UnixStream::from_std(ours).unwrap();
            let reading = Rc::clone(&seen_count);
            monoio::spawn(async move {
                loop {
                    reader.read(vec![0]).await.0.unwrap();
                    reading.set(reading.get() + 1);
                }
            });
            monoio::time::sleep(Duration::from_millis(2)).await;
            for number in 1..=20 {
                theirs.write_all(&[1]).unwrap();
                post(&pacer);
                until(|| rest_count.get() == number).await;
            }
        });
    }

    #[test]
    fn nobody_rests_while_an_answer_is_on_its_way() {
        on_uring(async {
            let (is_awaited, rest_count) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(0)));
            let counted = Rc::clone(&rest_count);
            let pacer = pacer(&is_awaited, move |_| counted.set(counted.get() + 1)).await;
            for _ in 0..20 {
                post(&pacer);
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(rest_count.get(), 0);
            is_awaited.set(false);
            post(&pacer);
            until(|| rest_count.get() == 1).await;
        });
    }
}
