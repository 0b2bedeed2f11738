//! Company for what comes in quick succession: a busy thread pauses between two turns, so that one wake-up serves several
//! requests, grants and answers, and one frame to the aggregator several payments.
//!
//! What a payment costs is mostly wake-ups, and at a few thousand a second most of them find a single piece of work. So, as network
//! cards do: while much comes in, a turn begins at the earliest one pause after the one before. All that a turn brought about is with the
//! kernel before the thread rests: answers, frames and attempts wait for nothing, only what comes during the pause does.
//!
//! Must never pause a thread to which little comes: a lone payment finds it waiting in the ring. Must never rest for longer than one
//! pause, nor twice in one turn. Nothing is kept that could be wrong afterwards: without it, payments cost more and are otherwise the same.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use monoio::net::UnixStream;

use crate::wake::Flag;

/// How many events a pause must promise. A payment has three or four (accept, grant, the attempt's end, sometimes an acknowledgement by
/// itself), so pauses of 500 µs begin at some 1,500 to 2,000 payments a second and thread: below, more of them would be waited
/// through in vain than wake-ups saved, and no quota is in danger yet.
const EVENTS_PER_PAUSE_MIN: u64 = 3;

/// How long events are counted before it is decided anew. Long enough for chance (60 events at the least rate), short beside a ramp.
const WINDOW: Duration = Duration::from_millis(10);

/// When to pause, and for how long.
#[derive(Debug)]
struct Pace {
    pause: Duration,
    window_begin: Instant,
    window_events: u64,
    is_busy: bool,
    turn_begin: Instant,
}

impl Pace {
    fn new(pause: Duration, now: Instant) -> Self {
        Self { pause, window_begin: now, window_events: 0, is_busy: false, turn_begin: now }
    }

    /// A turn is at its end, after so many events since the one before: how long to rest. Nothing if the pause has gone by already.
    fn rest(&mut self, events: u64, now: Instant) -> Option<Duration> {
        self.window_events += events;
        let window = now.saturating_duration_since(self.window_begin);
        if window >= WINDOW {
            self.is_busy = u128::from(self.window_events) * self.pause.as_nanos()
                >= u128::from(EVENTS_PER_PAUSE_MIN) * window.as_nanos();
            (self.window_begin, self.window_events) = (now, 0);
        }
        let rest = self.pause.saturating_sub(now.saturating_duration_since(self.turn_begin));
        (self.is_busy && !rest.is_zero()).then_some(rest)
    }

    /// Whatever comes from here on belongs to a new turn.
    fn begin_turn(&mut self, now: Instant) {
        self.turn_begin = now;
    }
}

/// What the thread's core tells of events.
#[derive(Default)]
pub struct Pacer {
    events: Cell<u64>,
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

    /// Pauses the thread where it is worth its while, for as long as the thread lives; `sleep` is how.
    ///
    /// # Errors
    /// If there are no two descriptors left.
    pub async fn run(
        self: Rc<Self>,
        pause: Duration,
        mut sleep: impl FnMut(Duration),
    ) -> std::io::Result<()> {
        let (probe, _open) = UnixStream::pair()?;
        let mut pace = Pace::new(pause, Instant::now());
        loop {
            self.stirred.lowered().await;
            loop {
                let events = self.events.take();
                if events == 0 {
                    break;
                }
                let now = Instant::now();
                if pace.rest(events, now).is_none() {
                    pace.begin_turn(now);
                    break;
                }
                // Always so, hence it ends with the ring's next turn, and everything that the tasks of this one have queued goes to the
                // kernel with it: to rest before would hold back answers. What that turn brought has its own turn first, and what comes
                // of it leaves in the same way.
                probe.writable(false).await?;
                yield_now().await;
                if self.events.get() > 0 {
                    continue;
                }
                if let Some(rest) = pace.rest(0, Instant::now()) {
                    sleep(rest);
                }
                pace.begin_turn(Instant::now());
            }
        }
    }
}

/// Lets every task that is ready have its turn.
async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use monoio::io::AsyncWriteRentExt;

    use super::*;
    use crate::driver::{self, Driver, RingFlags};

    const PAUSE: Duration = Duration::from_micros(500);

    /// Turns of one event each, evenly spread over `span`; returns the rests.
    fn run(pace: &mut Pace, begin: Instant, per_second: u32, span: Duration) -> Vec<Duration> {
        let step = Duration::from_secs(1) / per_second;
        let mut rests = Vec::new();
        let mut now = begin;
        while now < begin + span {
            now += step;
            let rest = pace.rest(1, now);
            rests.extend(rest);
            pace.begin_turn(now + rest.unwrap_or_default());
        }
        rests
    }

    /// An event has a task write something, and the pause is so long that the second one is reason enough. Whatever the day is like,
    /// the other side must have been given it when the thread rests.
    #[test]
    fn what_a_turn_brings_about_leaves_before_the_thread_rests() {
        let (ours, mut theirs) = StdUnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let rest_count = Rc::new(Cell::new(0));
        let serving = async {
            let (pacer, due) = (Rc::new(Pacer::default()), Rc::new(Flag::default()));
            let counted = Rc::clone(&rest_count);
            let sleep = move |_: Duration| {
                assert_eq!(theirs.read(&mut [0; 64]).unwrap(), 1, "one for each event, and none kept back");
                counted.set(counted.get() + 1);
            };
            monoio::spawn(Rc::clone(&pacer).run(Duration::from_secs(3_600), sleep));
            let mut writer = UnixStream::from_std(ours).unwrap();
            let writing = Rc::clone(&due);
            monoio::spawn(async move {
                loop {
                    writing.lowered().await;
                    writer.write_all(vec![1]).await.0.unwrap();
                }
            });
            // The first rest is that of the first event behind the first window.
            monoio::time::sleep(2 * WINDOW).await;
            for number in 1..=20 {
                pacer.on_event();
                due.raise();
                while rest_count.get() < number {
                    monoio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        driver::run(Driver::Uring(RingFlags::Plain), serving).unwrap();
    }

    #[test]
    fn few_events_are_never_waited_for() {
        let begin = Instant::now();
        let mut pace = Pace::new(PAUSE, begin);
        // One below three in each 500 µs.
        assert_eq!(run(&mut pace, begin, 5_900, Duration::from_secs(2)), Vec::<Duration>::new());
    }

    #[test]
    fn many_events_are_and_it_ends_with_them() {
        let begin = Instant::now();
        let mut pace = Pace::new(PAUSE, begin);
        let second = Duration::from_secs(1);
        let rests = run(&mut pace, begin, 10_000, second);
        assert!(rests.len() > 9_000, "{}", rests.len());
        assert!(rests.iter().all(|rest| *rest <= PAUSE));
        // Only what is left of the window in which it was decided may still be paused in.
        let rests = run(&mut pace, begin + second, 1_000, second);
        assert!(rests.len() <= 11, "{}", rests.len());
    }

    #[test]
    fn a_turn_that_took_as_long_as_a_pause_is_followed_by_none() {
        let begin = Instant::now();
        let mut pace = Pace::new(PAUSE, begin);
        let decided = begin + WINDOW;
        pace.begin_turn(decided - Duration::from_micros(200));
        assert_eq!(pace.rest(1_000, decided), Some(Duration::from_micros(300)));
        pace.begin_turn(decided);
        assert_eq!(pace.rest(10, decided + PAUSE), None);
    }

    #[test]
    fn after_a_silence_the_first_burst_is_not_waited_for() {
        let begin = Instant::now();
        let mut pace = Pace::new(PAUSE, begin);
        assert!(!run(&mut pace, begin, 10_000, Duration::from_secs(1)).is_empty());
        let later = begin + Duration::from_secs(60);
        assert_eq!(pace.rest(10, later), None);
    }
}
