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
//! ledger's word as always: nobody whose answer is on its way is kept waiting by a rest. So a request waits for half a shift as a rule and
//! for a whole one at most (a twelfth more where HAProxy ended the other's early, for two where it gave us two running, or was late
//! with it), and for the round trip to the ledger. All that a turn brought about is with the kernel before the thread rests.
//!
//! Must never have a thread rest to which little comes: a lone payment finds it waiting in the ring. Must never rest for longer than
//! two shifts, nor twice in one turn. Nothing is kept that could be wrong afterwards: without it, payments cost more and are otherwise the
//! same. Which shifts are ours HAProxy says with each request (`Galo-Shift`; what a client wrote there it removes). A wrong number, by somebody
//! straight at the socket, costs a wake-up or a shift's wait.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::probe::Probe;
use crate::wake::Flag;

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
    /// When the turn began, since 1970: HAProxy's shifts are counted from there.
    turn_begin: Duration,
}

impl Pace {
    fn new(shift: Duration, sides: u32, now: Instant, wall: Duration) -> Self {
        Self { shift, sides, window_begin: now, window_posts: 0, is_busy: false, turn_begin: wall }
    }

    /// So many requests came in.
    fn note(&mut self, posts: u64, now: Instant) {
        self.window_posts += posts;
        let window = now.saturating_duration_since(self.window_begin);
        if window >= WINDOW {
            let cycle = self.shift * self.sides;
            self.is_busy = 2 * u128::from(self.window_posts) * cycle.as_nanos()
                >= POSTS_PER_TWO_CYCLES_MIN * window.as_nanos();
            (self.window_begin, self.window_posts) = (now, 0);
        }
    }

    /// For how long to rest at `wall`, the time since 1970, if these were our last shifts. Not at all if the turn took as long as that.
    fn rest(&self, wall: Duration, ours: Shifts) -> Option<Duration> {
        let shift_us = self.shift.as_micros();
        let present = self.turn_begin.as_micros() / shift_us;
        // Behind one of ours comes the other's, unless there is nobody to take it. Any later one may be ours.
        let is_others = self.sides > 1
            && present == u128::from(ours.last) + 1
            && ours.last != ours.last_but_one.saturating_add(1);
        let end_us = (present + 1 + u128::from(is_others)) * shift_us;
        let rest_us = u64::try_from(end_us.saturating_sub(wall.as_micros())).unwrap_or(u64::MAX);
        // The wall clock may have been set back.
        let rest = Duration::from_micros(rest_us).min(self.shift * self.sides);
        (self.is_busy && !rest.is_zero()).then_some(rest)
    }

    /// Whatever comes from here on belongs to a new turn.
    fn begin_turn(&mut self, wall: Duration) {
        self.turn_begin = wall;
    }
}

/// The numbers of the last two shifts in which requests came to us.
#[derive(Clone, Copy, Default, Debug)]
struct Shifts {
    last: u64,
    last_but_one: u64,
}

/// What the thread's core tells of events.
#[derive(Default)]
pub struct Pacer {
    events: Cell<u64>,
    posts: Cell<u64>,
    shifts: Cell<Shifts>,
    stirred: Flag,
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

    /// A request came that HAProxy had in this shift.
    pub fn on_shift(&self, shift: u64) {
        let Shifts { last, .. } = self.shifts.get();
        if shift != last {
            self.shifts.set(Shifts { last: shift, last_but_one: last });
        }
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
        be_punctual();
        let probe = Probe::new()?;
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
                if pace.rest(wall(), self.shifts.get()).is_none() {
                    pace.begin_turn(wall());
                    break;
                }
                // To rest with something still queued would hold back answers, to rest with something to collect would leave it there.
                // What came with the byte has had its turn, and what comes of that leaves in the same way.
                probe.round_trip().await?;
                if self.events.get() > 0 {
                    continue;
                }
                if let Some(rest) = pace.rest(wall(), self.shifts.get()) {
                    sleep(rest);
                }
                pace.begin_turn(wall());
            }
        }
    }
}

/// Has this thread's rests end when they are due. By default the kernel lets a sleep end up to 50 µs later, to end it together with others;
/// they would all be added to what a request waits.
fn be_punctual() {
    const SLACK_NS: libc::c_ulong = 1_000;
    // SAFETY: the call takes a number and changes this thread's timers alone. Where it is refused, rests take longer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS) };
}

/// The time since 1970.
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as StdUnixStream;

    use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
    use monoio::net::UnixStream;

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

        /// Requests came last in shift number `last`, counted from the beginning, and before that in another one.
        fn shifts(&self, last: i64, last_but_one: i64) -> Shifts {
            let first = self.wall.as_micros() / SHIFT.as_micros();
            let number = |shift| u64::try_from(first).unwrap().checked_add_signed(shift).unwrap();
            Shifts { last: number(last), last_but_one: number(last_but_one) }
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
            let rest = pace.rest(wall, Shifts::default());
            rests.extend(rest);
            since += rest.unwrap_or_default();
            pace.begin_turn(time.at(since).1);
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
        pace.begin_turn(time.at(since).1);
        // Each rest finds the three requests that a cycle brings at this rate.
        for cycle in 0..1_000 {
            pace.note(3, time.at(since).0);
            let last = i64::try_from(since.as_micros() / SHIFT.as_micros()).unwrap() - 1;
            let rest = pace.rest(time.at(since).1, time.shifts(last, last - 2)).expect("busy");
            assert_eq!(rest, CYCLE, "{cycle}");
            since += rest;
            pace.begin_turn(time.at(since).1);
        }
        // Only what is left of the window in which it was decided may still be rested in.
        let rests = run(&mut pace, &time, since + micros(100), 1_000, second);
        assert!(rests.len() <= 11, "{}", rests.len());
    }

    #[test]
    fn a_rest_ends_with_the_next_shift_that_is_ours() {
        let time = Time::new();
        // At the 50th µs of shift 0.
        let rest = |sides, last, last_but_one| {
            busy(&time, sides).rest(time.at(micros(50)).1, time.shifts(last, last_but_one))
        };
        // Ours is just over: this one is the other's.
        assert_eq!(rest(2, -1, -3), Some(micros(950)));
        // It is ours, or may be: the other one has had his.
        assert_eq!(rest(2, 0, -2), Some(micros(450)));
        assert_eq!(rest(2, -2, -4), Some(micros(450)));
        assert_eq!(rest(2, -9, -11), Some(micros(450)));
        // Nobody took the one before: whoever does not take his shifts is not waited for.
        assert_eq!(rest(2, -1, -2), Some(micros(450)));
        // Alone, each is.
        assert_eq!(rest(1, -1, -3), Some(micros(450)));
        // Numbers that nobody can have had.
        let pace = busy(&time, 2);
        let just_over = time.shifts(-1, -3).last;
        for (last, last_but_one, rest_us) in [(0, 0, 450), (u64::MAX, 0, 450), (just_over, u64::MAX, 950)] {
            let shifts = Shifts { last, last_but_one };
            assert_eq!(pace.rest(time.at(micros(50)).1, shifts), Some(micros(rest_us)));
        }
    }

    #[test]
    fn the_last_two_shifts_are_remembered_however_many_requests_they_had() {
        let pacer = Pacer::default();
        [7, 7, 9, 9, 9].into_iter().for_each(|shift| pacer.on_shift(shift));
        let Shifts { last, last_but_one } = pacer.shifts.get();
        assert_eq!((last, last_but_one), (9, 7));
    }

    #[test]
    fn a_turn_that_took_as_long_as_its_rest_is_followed_by_none() {
        let time = Time::new();
        let pace = busy(&time, 2);
        let ours = time.shifts(-1, -3);
        assert_eq!(pace.rest(time.at(micros(900)).1, ours), Some(micros(100)));
        assert_eq!(pace.rest(time.at(micros(1_000)).1, ours), None);
    }

    #[test]
    fn a_clock_that_was_set_back_costs_two_shifts_at_most() {
        let time = Time::new();
        let pace = busy(&time, 2);
        let ours = time.shifts(-1, -3);
        assert_eq!(pace.rest(time.wall - Duration::from_secs(3_600), ours), Some(CYCLE));
        assert_eq!(pace.rest(time.wall + Duration::from_secs(3_600), ours), None);
    }

    #[test]
    fn after_a_silence_the_first_burst_is_not_waited_for() {
        let time = Time::new();
        let mut pace = busy(&time, 2);
        let (now, wall) = time.at(Duration::from_secs(60));
        pace.note(10, now);
        assert_eq!(pace.rest(wall, Shifts::default()), None);
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
