//! Waiting within one thread: a flag with one waiter, numbered calls with one waiter each, and rounds with any number of them.
//!
//! No locks and no channels: everything here lives and is woken on one thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// A flag that one task waits for. Setting it twice before the task runs is setting it once.
#[derive(Default)]
pub struct Flag {
    raised: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Flag {
    /// Raises the flag and wakes the task.
    pub fn raise(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether it is raised and its task has not seen it yet.
    pub fn is_raised(&self) -> bool {
        self.raised.get()
    }

    /// Lowers it, with nobody waiting.
    pub fn lower(&self) {
        self.raised.set(false);
    }

    /// Waits until the flag is raised, and lowers it.
    pub async fn lowered(&self) {
        poll_fn(|context| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            self.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Questions that were asked under a number and are answered by it.
///
/// A number is in use until its answer came, even if nobody waits any more: a late answer must not meet a later
/// question.
pub struct Calls<T> {
    calls: RefCell<Slab<Call<T>>>,
    /// Asked, not answered, and somebody waits.
    awaited: Cell<usize>,
}

enum Call<T> {
    Asked(Option<Waker>),
    Answered(T),
    Abandoned,
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self { calls: RefCell::default(), awaited: Cell::new(0) }
    }
}

impl<T: Copy> Calls<T> {
    /// A new number, and the future of its answer.
    pub fn ask(&self) -> (u32, Answered<'_, T>) {
        let key = self.calls.borrow_mut().insert(Call::Asked(None));
        self.awaited.set(self.awaited.get() + 1);
        (u32::try_from(key).expect("bounded by the connections"), Answered { calls: self, key })
    }

    /// Whether somebody waits for an answer.
    pub fn is_awaited(&self) -> bool {
        self.awaited.get() > 0
    }

    /// Answers a question. A number that is not in use is ignored: its connection has been given up.
    pub fn answer(&self, number: u32, answer: T) {
        let key = number as usize;
        let mut calls = self.calls.borrow_mut();
        match calls.get_mut(key) {
            Some(Call::Abandoned) => drop(calls.remove(key)),
            Some(call @ Call::Asked(_)) => {
                self.awaited.set(self.awaited.get() - 1);
                if let Call::Asked(Some(waker)) = std::mem::replace(call, Call::Answered(answer)) {
                    waker.wake();
                }
            }
            Some(Call::Answered(_)) | None => {}
        }
    }

    /// Answers every open question, because nobody else will; the numbers of abandoned ones are free again.
    pub fn answer_all(&self, answer: T) {
        let numbers: Vec<u32> =
            self.calls.borrow().iter().filter_map(|(key, _)| u32::try_from(key).ok()).collect();
        for number in numbers {
            self.answer(number, answer);
        }
    }
}

/// The future of an answer. Dropped, it leaves its number in use until the answer comes.
pub struct Answered<'a, T> {
    calls: &'a Calls<T>,
    key: usize,
}

impl<T: Copy> Future for Answered<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.calls.calls.borrow_mut().get_mut(self.key) {
            Some(Call::Answered(answer)) => Poll::Ready(*answer),
            Some(Call::Asked(waker)) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(Call::Abandoned) | None => unreachable!("a number is in use while its future lives"),
        }
    }
}

impl<T> Drop for Answered<'_, T> {
    fn drop(&mut self) {
        let mut calls = self.calls.calls.borrow_mut();
        match calls.get_mut(self.key) {
            Some(Call::Answered(_)) => drop(calls.remove(self.key)),
            Some(call) => {
                *call = Call::Abandoned;
                self.calls.awaited.set(self.calls.awaited.get() - 1);
            }
            None => {}
        }
    }
}

/// Something that one task does, again and again, for all who have asked for it by then.
#[derive(Default)]
pub struct Rounds {
    asked: Flag,
    begun: Cell<u64>,
    ended: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Rounds {
    /// Asks for a round that begins from now on.
    pub fn ask(&self) {
        self.asked.raise();
    }

    /// Asks for such a round, and waits for its end.
    pub async fn next(&self) {
        let number = self.begun.get() + 1;
        self.ask();
        poll_fn(|context| {
            if self.ended.get() >= number {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Begins a round as soon as somebody has asked for it.
    pub async fn begin(&self) {
        self.asked.lowered().await;
        self.begun.set(self.begun.get() + 1);
    }

    /// Ends the round that was begun.
    pub fn end(&self) {
        self.ended.set(self.begun.get());
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Rounds in which nothing is done: whoever waits for the next one has let every task that is ready have its turn. (A task that wakes
    /// itself would be the first in monoio's queue.) Needs a running monoio runtime, and lives as long.
    pub fn turns() -> Rc<Self> {
        let turns = Rc::<Self>::default();
        let turning = Rc::clone(&turns);
        monoio::spawn(async move {
            loop {
                turning.begin().await;
                turning.end();
            }
        });
        turns
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    fn poll<T: Copy>(answered: &mut Answered<'_, T>) -> Poll<T> {
        pin!(answered).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_round_that_had_begun_is_no_answer_to_a_later_question() {
        let rounds = Rounds::default();
        let context = &mut Context::from_waker(Waker::noop());
        let mut is_ready = |future: Pin<&mut dyn Future<Output = ()>>| future.poll(context).is_ready();
        assert!(!is_ready(pin!(rounds.begin())), "nobody has asked");
        let (mut first, mut second) = (pin!(rounds.next()), pin!(rounds.next()));
        assert!(!is_ready(first.as_mut()) && !is_ready(second.as_mut()));
        assert!(is_ready(pin!(rounds.begin())));
        let mut third = pin!(rounds.next());
        assert!(!is_ready(third.as_mut()));
        rounds.end();
        assert!(is_ready(first) && is_ready(second), "one round for both");
        assert!(!is_ready(third.as_mut()));
        assert!(is_ready(pin!(rounds.begin())), "it is owed another one");
        rounds.end();
        assert!(is_ready(third));
    }

    #[test]
    fn a_late_answer_never_meets_a_later_question() {
        let calls = Calls::default();
        let (first, waiting) = calls.ask();
        drop(waiting);
        let (second, mut answered) = calls.ask();
        assert_ne!(first, second, "the first number is still in use");
        calls.answer(first, 1);
        assert_eq!(poll(&mut answered), Poll::Pending);
        calls.answer(second, 2);
        assert_eq!(poll(&mut answered), Poll::Ready(2));
        drop(answered);
        assert_eq!(calls.ask().0, second, "both numbers are free again");
    }
}
