//! A provider's payments, and the keys under which they were asked for.
//!
//! A payment is stored as often as it is created: what makes two requests one payment is the key, for as long as it is kept. So a
//! caller that sends a payment again after that, or without a key, finds itself charged twice here, as it would be there.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use serde_json::Value;
use uuid::Uuid;

use crate::processor::{Terms, Total};

/// A payment as a request asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The caller's own name for it.
    pub name: String,
    /// In minor units.
    pub amount_cents: i64,
    /// As the request writes it.
    pub currency: String,
    /// What of the request the answers repeat.
    pub echo: Value,
    /// The request itself says that it is to be declined, as test cards do.
    pub is_bad_card: bool,
}

impl Order {
    /// The caller's own name, if it is an id with or without hyphens.
    #[must_use]
    pub fn id(&self) -> Option<Uuid> {
        Uuid::try_parse(&self.name).ok()
    }
}

/// How far a payment has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It will be decided on.
    Pending,
    /// It is charged.
    Paid,
    /// It never is.
    Declined,
}

/// A payment as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What was asked for.
    pub order: Order,
    /// What is charged, or would be.
    pub amount_cents: i64,
    /// Unix time, milliseconds.
    pub created_ms: i64,
    /// When it is decided on, in Unix milliseconds.
    pub decided_ms: i64,
    /// How it is decided.
    pub is_declined: bool,
}

impl Entry {
    /// How far it has got.
    #[must_use]
    pub fn state(&self, now_ms: i64) -> State {
        match self.is_declined {
            _ if now_ms < self.decided_ms => State::Pending,
            true => State::Declined,
            false => State::Paid,
        }
    }
}

/// A payment as an answer shows it.
#[derive(Debug, Clone, Copy)]
pub struct View<'books> {
    /// Its place, from 0 in the order of creation.
    pub number: usize,
    /// What is stored.
    pub entry: &'books Entry,
    /// How far it has got, or had when the answer was given first.
    pub state: State,
}

/// What a create was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// A payment, by its number, as it was then.
    Stored(usize, State),
    /// 500.
    Broken,
}

/// What a key says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is new, and in use from now on.
    Fresh,
    /// This very request was answered before.
    Replay(Said),
    /// It was used for another request.
    Conflict,
    /// A request with it is being worked on.
    InUse,
}

#[derive(Debug)]
struct Key {
    fingerprint: u64,
    /// What was said, and until when it is kept. `None` while the request is being worked on.
    said: Option<(Said, i64)>,
}

/// Everything that a provider has stored.
#[derive(Debug, Default)]
pub struct Books {
    entries: Vec<Entry>,
    by_name: HashMap<String, Vec<usize>>,
    keys: HashMap<String, Key>,
}

impl Books {
    /// Looks a request's key up, and takes it if it is free. A key that is taken must be [kept](Self::keep) or
    /// [released](Self::release).
    pub fn claim(&mut self, now_ms: i64, key: &str, fingerprint: u64) -> Claim {
        if let Some(known) = self.keys.get(key) {
            match known.said {
                None => return Claim::InUse,
                Some((_, until_ms)) if until_ms <= now_ms => {}
                Some(_) if known.fingerprint != fingerprint => return Claim::Conflict,
                Some((said, _)) => return Claim::Replay(said),
            }
        }
        self.keys.insert(key.to_owned(), Key { fingerprint, said: None });
        Claim::Fresh
    }

    /// A request's answer is kept under its key.
    pub fn keep(&mut self, key: &str, said: Said, until_ms: i64) {
        // A purge may have come between.
        if let Some(known) = self.keys.get_mut(key) {
            known.said = Some((said, until_ms));
        }
    }

    /// A request has ended and its key is as if it had never come.
    pub fn release(&mut self, key: &str) {
        self.keys.remove(key);
    }

    /// Stores a payment, which is decided on at once or `later_ms` later, and gives its number.
    pub fn create(&mut self, now_ms: i64, order: Order, terms: &Terms, is_always_later: bool) -> usize {
        let (id, cents) = (order.id(), order.amount_cents);
        let is_later = is_always_later || terms.later.picks(id, cents);
        let later_ms = if is_later { i64::try_from(terms.later_ms).unwrap_or(i64::MAX) } else { 0 };
        let number = self.entries.len();
        self.by_name.entry(order.name.clone()).or_default().push(number);
        self.entries.push(Entry {
            amount_cents: terms.stored_cents(id, cents),
            created_ms: now_ms,
            decided_ms: now_ms.saturating_add(later_ms),
            is_declined: order.is_bad_card || terms.decline.picks(id, cents),
            order,
        });
        number
    }

    /// A payment by its number.
    #[must_use]
    pub fn view(&self, number: usize, now_ms: i64) -> Option<View<'_>> {
        let entry = self.entries.get(number)?;
        Some(View { number, entry, state: entry.state(now_ms) })
    }

    /// A payment by its number, as far as it had got when something was said of it.
    #[must_use]
    pub fn view_in(&self, number: usize, state: State) -> Option<View<'_>> {
        self.entries.get(number).map(|entry| View { number, entry, state })
    }

    /// The payments with this name, in the order of creation.
    pub fn named(&self, name: &str, now_ms: i64) -> impl Iterator<Item = View<'_>> {
        let numbers = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        numbers.iter().filter_map(move |number| self.view(*number, now_ms))
    }

    /// All payments in the order of creation.
    pub fn all(&self, now_ms: i64) -> impl DoubleEndedIterator<Item = View<'_>> {
        let entries = self.entries.iter().enumerate();
        entries.map(move |(number, entry)| View { number, entry, state: entry.state(now_ms) })
    }

    /// Sum of what is charged, of payments created in this range of Unix milliseconds.
    #[must_use]
    pub fn total(&self, now_ms: i64, range: RangeInclusive<i64>) -> Total {
        let is_wanted = |view: &View<'_>| view.state == State::Paid && range.contains(&view.entry.created_ms);
        let mut total = Total::default();
        for view in self.all(now_ms).filter(is_wanted) {
            total.requests += 1;
            total.amount_cents += i128::from(view.entry.amount_cents);
        }
        total
    }

    /// Forgets everything, keys too.
    pub fn purge(&mut self) {
        *self = Books::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn order() -> Order {
        let currency = "brl".to_owned();
        Order { name: NAME.to_owned(), amount_cents: 1990, currency, echo: Value::Null, is_bad_card: false }
    }

    #[test]
    fn a_key_makes_two_requests_one_payment_until_it_expires() {
        let mut books = Books::default();
        assert_eq!(books.claim(0, "k", 1), Claim::Fresh);
        assert_eq!(books.claim(0, "k", 1), Claim::InUse);
        let number = books.create(0, order(), &Terms::default(), false);
        let said = Said::Stored(number, State::Paid);
        books.keep("k", said, 1_000);
        assert_eq!(books.claim(999, "k", 1), Claim::Replay(said));
        assert_eq!(books.claim(999, "k", 2), Claim::Conflict);
        assert_eq!(books.claim(1_000, "k", 2), Claim::Fresh);
        books.release("k");
        assert_eq!(books.claim(1_001, "k", 3), Claim::Fresh);
    }

    #[test]
    fn what_is_created_twice_is_charged_twice() {
        let mut books = Books::default();
        let terms = Terms { other_amount: "cents:1990".parse().unwrap(), ..Terms::default() };
        books.create(0, order(), &terms, false);
        books.create(5, order(), &Terms::default(), false);
        assert_eq!(books.named(NAME, 5).count(), 2);
        assert_eq!(books.total(5, 0..=5), Total { requests: 2, amount_cents: 1991 + 1990 });
        assert_eq!(books.total(5, 1..=5), Total { requests: 1, amount_cents: 1990 });
        books.purge();
        assert_eq!(books.total(5, 0..=5), Total::default());
    }

    #[test]
    fn what_is_decided_later_is_pending_until_then() {
        let mut books = Books::default();
        let decline = "ends:3".parse().unwrap();
        let terms = Terms { later: "all".parse().unwrap(), later_ms: 300, decline, ..Terms::default() };
        let number = books.create(100, order(), &terms, false);
        let state = |now_ms| books.view(number, now_ms).unwrap().state;
        assert_eq!([100, 399, 400].map(state), [State::Pending, State::Pending, State::Declined]);
        assert_eq!(books.view_in(number, State::Pending).unwrap().state, State::Pending);
    }
}
