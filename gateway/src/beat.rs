//! When a thread attends to its processors: behind what clients wait for, and as far as possible in a turn that something else began.
//!
//! Nobody waits for a processor. Its answer ends up in a completion that waits for company anyway, so a wake-up for it alone buys nothing,
//! and wake-ups are what a payment costs. So attempts leave at the end of the turn that granted them, behind all the answers to
//! clients; and an answer is read at the end of the first turn that finds it old enough to be there, or by a beat of its own after
//! [`BEAT_MAX`]. A read that finds its bytes there completes on the spot and wakes nobody.
//!
//! While payments wait for a processor its answers are what they wait for: then nothing is put off ([`Beat::set_eager`]), unless the
//! queue's pace alone holds them. And a summary has all looked for first ([`Beat::look`]).
//!
//! Must never: keep anybody for longer than [`BEAT_MAX`] beyond the moment that was asked for. Without it payments cost more and are otherwise
//! the same.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::wake::Flag;

/// How long whoever waits may wait beyond the moment that was asked for, when no turn comes by. Short beside the 25 ms for which a completion
/// may wait for company.
const BEAT_MAX: Duration = Duration::from_millis(4);

/// The beats of one thread.
pub struct Beat {
    is_eager: Cell<bool>,
    /// Somebody looks: nobody is to wait until he has done.
    is_looking: Cell<bool>,
    /// When the last one was.
    last: Cell<Instant>,
    /// Who waits, and for which moment.
    waiting: RefCell<Vec<(Instant, Waker)>>,
    stirred: Flag,
}

impl Default for Beat {
    fn default() -> Self {
        Self {
            is_eager: Cell::new(false),
            is_looking: Cell::new(false),
            last: Cell::new(Instant::now()),
            waiting: RefCell::default(),
            stirred: Flag::default(),
        }
    }
}

impl Beat {
    /// One that never has anybody wait.
    #[must_use]
    pub fn eager() -> Rc<Self> {
        let beat = Self::default();
        beat.is_eager.set(true);
        Rc::new(beat)
    }

    /// Whether nobody is to wait, from now on.
    pub fn set_eager(&self, is_eager: bool) {
        if is_eager && !self.is_eager.replace(is_eager) {
            self.stirred.raise();
        }
        self.is_eager.set(is_eager);
    }

    /// Something came in: this turn ends with a beat.
    pub fn stir(&self) {
        if !self.waiting.borrow().is_empty() {
            self.stirred.raise();
        }
    }

    /// Until `done` is, nobody waits: whoever did has his turn now.
    pub async fn look<T>(&self, done: impl Future<Output = T>) -> T {
        self.is_looking.set(true);
        self.waiting.borrow_mut().drain(..).for_each(|(_, waker)| waker.wake());
        let output = done.await;
        self.is_looking.set(false);
        output
    }

    /// Waits for the end of this turn.
    pub async fn turn_end(&self) {
        self.after(Duration::ZERO).await;
    }

    /// Waits for the end of the first turn that is so much later.
    pub async fn after(&self, wait: Duration) {
        if self.is_eager.get() {
            return;
        }
        let due = Instant::now() + wait;
        poll_fn(|context| {
            if self.is_eager.get() || self.is_looking.get() || self.last.get() >= due {
                return Poll::Ready(());
            }
            // Polled for another reason it stands here twice, and is woken once in vain.
            self.waiting.borrow_mut().push((due, context.waker().clone()));
            self.stirred.raise();
            Poll::Pending
        })
        .await;
    }

    /// Beats for as long as the thread lives.
    pub async fn run(self: Rc<Self>) {
        loop {
            let first = self.waiting.borrow().iter().map(|(due, _)| *due).min();
            match first {
                None => self.stirred.lowered().await,
                Some(due) => {
                    let wait = (due + BEAT_MAX).saturating_duration_since(Instant::now());
                    // Late or stirred, the beat is the same.
                    drop(monoio::time::timeout(wait, self.stirred.lowered()).await);
                }
            }
            // Whoever is woken has his turn behind all that is ready, which hands the kernel what clients wait for.
            let now = Instant::now();
            self.last.set(now);
            let mut waiting = self.waiting.borrow_mut();
            let is_due = |(due, _): &mut (Instant, Waker)| self.is_eager.get() || *due <= now;
            waiting.extract_if(.., is_due).for_each(|(_, waker)| waker.wake());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DriverChoice;
    use crate::driver;

    fn on_uring<F: Future<Output = ()>>(test: F) {
        driver::run(driver::choose(DriverChoice::Uring).unwrap(), test).unwrap();
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Spawns a task that waits so, and tells whether it is done.
    fn waiter(beat: &Rc<Beat>, wait: Duration) -> Rc<Cell<bool>> {
        let (beat, is_done) = (Rc::clone(beat), Rc::new(Cell::new(false)));
        let done = Rc::clone(&is_done);
        monoio::spawn(async move {
            beat.after(wait).await;
            done.set(true);
        });
        is_done
    }

    #[test]
    fn the_turns_other_tasks_come_first() {
        on_uring(async {
            let beat = Rc::new(Beat::default());
            monoio::spawn(Rc::clone(&beat).run());
            let order: Rc<RefCell<Vec<&str>>> = Rc::default();
            let log = |what: &'static str| {
                let order = Rc::clone(&order);
                move || order.borrow_mut().push(what)
            };
            let (attempted, answered) = (log("attempt"), log("answer"));
            let waiting = Rc::clone(&beat);
            monoio::spawn(async move {
                waiting.turn_end().await;
                attempted();
            });
            monoio::spawn(async move { answered() });
            until(|| order.borrow().len() == 2).await;
            assert_eq!(*order.borrow(), ["answer", "attempt"]);
        });
    }

    #[test]
    fn a_turn_that_is_late_enough_ends_the_wait_and_an_early_one_does_not() {
        on_uring(async {
            let beat = Rc::new(Beat::default());
            monoio::spawn(Rc::clone(&beat).run());
            // Longer than any test: only a turn ends it.
            let (soon, late) = (waiter(&beat, Duration::ZERO), waiter(&beat, Duration::from_secs(3_600)));
            until(|| soon.get()).await;
            for _ in 0..10 {
                beat.stir();
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!late.get());
            beat.set_eager(true);
            until(|| late.get()).await;
        });
    }

    #[test]
    fn whoever_looks_has_everybody_look_and_later_ones_wait_again() {
        on_uring(async {
            let beat = Rc::new(Beat::default());
            monoio::spawn(Rc::clone(&beat).run());
            let hour = Duration::from_secs(3_600);
            let waiters = [waiter(&beat, hour), waiter(&beat, hour)];
            monoio::time::sleep(Duration::from_millis(1)).await;
            beat.look(monoio::time::sleep(Duration::from_millis(1))).await;
            assert!(waiters.iter().all(|is_done| is_done.get()));
            let late = waiter(&beat, hour);
            beat.stir();
            monoio::time::sleep(Duration::from_millis(1)).await;
            assert!(!late.get());
        });
    }

    #[test]
    fn without_turns_the_wait_ends_by_itself() {
        on_uring(async {
            let beat = Rc::new(Beat::default());
            monoio::spawn(Rc::clone(&beat).run());
            let is_done = waiter(&beat, Duration::from_millis(1));
            let start = Instant::now();
            // Sleeping is no event of the beat's.
            until(|| is_done.get()).await;
            assert!(start.elapsed() >= Duration::from_millis(1) + BEAT_MAX, "{:?}", start.elapsed());
        });
    }
}
