//! What a processor does to some payments, picked by id or amount, and what it allows: the faults that no dice decide.
//!
//! [`Which`] picks payments, so that a test knows beforehand what becomes of each. [`Terms`] says what happens to those that are
//! picked. The contest's processors know no payment that ends later, no key and no notification; of [`Terms`] they have the rest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Picks payments: a list of conditions, of which one must hold.
///
/// Written as in `ends:07a,cents:66666,percent:5,4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3`; `all` and `none` are what they say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Which(Vec<Condition>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    All,
    Id(Uuid),
    /// A bit for each last hexadecimal digit of an id.
    Ends(u16),
    Cents(i64),
    /// So many of a hundred ids, always the same ones.
    Percent(u8),
}

/// A text that picks nothing that it could.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} picks no payments; expected none, all, or a list of ends:HEXDIGITS, cents:N, percent:1 to 100 and ids, such as ends:07a,cents:66666"
)]
pub struct WhichError(String);

impl Which {
    /// Every payment.
    #[must_use]
    pub fn all() -> Self {
        Which(vec![Condition::All])
    }

    /// Whether it picks this payment. One whose id is none is picked by `all` and by its amount only.
    #[must_use]
    pub fn picks(&self, id: Option<Uuid>, amount_cents: i64) -> bool {
        self.0.iter().any(|condition| condition.holds(id, amount_cents))
    }
}

impl Condition {
    fn holds(self, id: Option<Uuid>, amount_cents: i64) -> bool {
        match self {
            Condition::All => true,
            Condition::Id(one) => id == Some(one),
            Condition::Cents(cents) => amount_cents == cents,
            Condition::Ends(digits) => id.is_some_and(|id| digits & (1 << (id.as_u128() & 0xf)) != 0),
            Condition::Percent(percent) => id.is_some_and(|id| spread(id) < percent),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let digit = |bits: u16, digit: char| Some(bits | 1 << digit.to_digit(16)?);
        Some(match text.split_once(':') {
            None if text == "all" => Condition::All,
            None => Condition::Id(Uuid::try_parse(text).ok()?),
            Some(("ends", "")) => return None,
            Some(("ends", digits)) => Condition::Ends(digits.chars().try_fold(0, digit)?),
            Some(("cents", cents)) => Condition::Cents(cents.parse().ok()?),
            Some(("percent", percent)) => {
                Condition::Percent(percent.parse().ok().filter(|it| (1..=100).contains(it))?)
            }
            Some(_) => return None,
        })
    }
}

/// A number below 100 that an id has for ever; ids that differ in one digit have different ones.
fn spread(id: Uuid) -> u8 {
    let (high, low) = id.as_u64_pair();
    let mixed = (high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u8::try_from((mixed >> 32) % 100).expect("below 100")
}

impl FromStr for Which {
    type Err = WhichError;

    fn from_str(text: &str) -> Result<Self, WhichError> {
        if text == "none" {
            return Ok(Which::default());
        }
        let conditions: Option<Vec<_>> = text.split(',').map(|it| Condition::read(it.trim())).collect();
        conditions.map(Which).ok_or_else(|| WhichError(text.to_owned()))
    }
}

impl TryFrom<String> for Which {
    type Error = WhichError;

    fn try_from(text: String) -> Result<Self, WhichError> {
        text.parse()
    }
}

impl From<Which> for String {
    fn from(which: Which) -> String {
        which.to_string()
    }
}

impl fmt::Display for Which {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return out.write_str("none");
        }
        for (place, condition) in self.0.iter().enumerate() {
            out.write_str(if place > 0 { "," } else { "" })?;
            match condition {
                Condition::All => out.write_str("all")?,
                Condition::Id(id) => write!(out, "{id}")?,
                Condition::Cents(cents) => write!(out, "cents:{cents}")?,
                Condition::Percent(percent) => write!(out, "percent:{percent}")?,
                Condition::Ends(digits) => {
                    out.write_str("ends:")?;
                    (0..16)
                        .filter(|digit| digits & (1 << digit) != 0)
                        .try_for_each(|it| write!(out, "{it:x}"))?;
                }
            }
        }
        Ok(())
    }
}

/// What happens to payments that are picked, and what a processor allows. As JSON: `PUT /admin/configurations/terms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Terms {
    /// Answered as requests that are malformed; nothing is stored.
    pub refuse: Which,
    /// Declined for good; nothing is charged.
    pub decline: Which,
    /// Taken, and decided on `laterMs` later.
    pub later: Which,
    /// How much later, in milliseconds.
    pub later_ms: u64,
    /// Stored with a cent more than was asked for.
    pub other_amount: Which,
    /// Whose notifications are never sent.
    pub lose_notifications: Which,
    /// For how long keys are kept, in seconds. Absent: as the provider says.
    pub keys_s: Option<u64>,
    /// Requests within one second; the others are answered 429. Absent: any number.
    pub rate_per_s: Option<u32>,
}

impl Default for Terms {
    fn default() -> Self {
        let none = Which::default;
        Terms {
            refuse: none(),
            decline: none(),
            later: none(),
            later_ms: 500,
            other_amount: none(),
            lose_notifications: none(),
            keys_s: None,
            rate_per_s: None,
        }
    }
}

impl Terms {
    /// What is stored of this amount.
    #[must_use]
    pub fn stored_cents(&self, id: Option<Uuid>, amount_cents: i64) -> i64 {
        amount_cents.saturating_add(i64::from(self.other_amount.picks(id, amount_cents)))
    }

    /// What the contest's processors have none of, if any of it is wanted.
    ///
    /// # Errors
    ///
    /// Names it.
    pub fn check_for_contest(&self) -> Result<(), &'static str> {
        let none = Which::default();
        let wanted = [
            (self.later != none, "later: the contest's processors decide at once"),
            (self.keys_s.is_some(), "keysS: the contest's processors keep an id for ever"),
            (self.lose_notifications != none, "loseNotifications: the contest's processors send none"),
        ];
        wanted.into_iter().find(|(is_wanted, _)| *is_wanted).map_or(Ok(()), |(_, what)| Err(what))
    }
}

/// Counts the requests of each second.
#[derive(Debug, Default)]
pub struct RateLimit {
    second: u64,
    count: u32,
}

impl RateLimit {
    /// Whether one more request is too many now.
    pub fn is_exceeded(&mut self, now_us: u64, per_s: Option<u32>) -> bool {
        let second = now_us / 1_000_000;
        if second != self.second {
            *self = RateLimit { second, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        per_s.is_some_and(|per_s| self.count > per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Option<Uuid> {
        Some(Uuid::try_parse(text).unwrap())
    }

    #[test]
    fn payments_are_picked_by_id_and_amount() {
        let seven = id("4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b7");
        let three = id("4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3");
        let picks = |text: &str, id| text.parse::<Which>().unwrap().picks(id, 1990);
        for (text, of_seven, of_three) in [
            ("none", false, false),
            ("all", true, true),
            ("ends:7", true, false),
            ("ends:0F37", true, true),
            ("cents:1990", true, true),
            ("cents:1991", false, false),
            ("4a7901b87d264d9daa194dc1c7cf60b3", false, true),
            ("cents:1, ends:7", true, false),
            ("percent:100", true, true),
        ] {
            assert_eq!((picks(text, seven), picks(text, three)), (of_seven, of_three), "{text}");
        }
        assert!(!picks("ends:0123456789abcdef,percent:100", None));
    }

    #[test]
    fn a_share_is_about_what_it_says_and_always_the_same() {
        let which: Which = "percent:25".parse().unwrap();
        let picked = |it: &u128| which.picks(Some(Uuid::from_u128(0x4000_8000_0000_0000_0000 + it)), 1);
        let count = (0..4_000).filter(picked).count();
        assert!((900..1_100).contains(&count), "{count}");
        assert_eq!(count, (0..4_000).filter(picked).count());
    }

    #[test]
    fn what_picks_is_written_as_it_is_read() {
        for text in ["none", "all", "ends:07a,cents:66666", "percent:5,4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3"]
        {
            assert_eq!(text.parse::<Which>().unwrap().to_string(), text);
        }
        for text in
            ["", "ends:", "ends:g", "ends:7,", "cents:x", "percent:0", "percent:101", "some", "every:2"]
        {
            let error = text.parse::<Which>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{text:?} picks no payments; expected none, all,")),
                "{error}"
            );
        }
    }

    #[test]
    fn terms_are_json() {
        let terms: Terms = serde_json::from_str(r#"{"refuse":"ends:1","keysS":2}"#).unwrap();
        assert_eq!(terms, Terms { refuse: "ends:1".parse().unwrap(), keys_s: Some(2), ..Terms::default() });
        assert!(serde_json::from_str::<Terms>(r#"{"refuses":"all"}"#).is_err());
        assert!(serde_json::from_str::<Terms>(r#"{"refuse":"some"}"#).is_err());
        assert!(terms.check_for_contest().is_err());
    }

    #[test]
    fn so_many_requests_of_a_second_are_taken() {
        let mut limit = RateLimit::default();
        let mut at = |now_us| limit.is_exceeded(now_us, Some(2));
        assert_eq!(
            [0, 1, 999_999, 1_000_000, 1_000_001, 1_500_000].map(&mut at),
            [false, false, true, false, false, true]
        );
        assert!(!limit.is_exceeded(1_500_000, None));
    }
}
