//! The payments that are sent: ids, amounts and companions drawn from one seed, and what became of each.
//!
//! Money is whole cents here and text on the wire; no float stands between. The spellings of an amount are mixed (`19.9`,
//! `19.90`, `1990e-2`, `1e2`), because the books must agree however a client writes.

use fastrand::Rng;
use uuid::Uuid;

/// What is sent once or more under one id.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    pub(crate) id: Uuid,
    pub(crate) cents: u64,
    /// The amount as it stands in the body.
    pub(crate) amount: String,
    /// Copies sent at the same moment: 1 or 2.
    pub(crate) copies: u8,
    /// After the first yes, the id is sent again with another amount, which must be refused.
    pub(crate) contradicted: bool,
}

/// What its sender heard.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) id: Uuid,
    pub(crate) cents: u64,
    /// 2xx answers.
    pub(crate) yes_count: u8,
    /// Those of them that did not say that the payment was known already.
    pub(crate) granted_count: u8,
}

impl Sent {
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.yes_count > 0
    }
}

/// Draws payments without end.
#[derive(Debug)]
pub(crate) struct Payments {
    random: Rng,
    duplicates: f64,
    contradictions: f64,
}

impl Payments {
    pub(crate) fn new(seed: u64, duplicates: f64, contradictions: f64) -> Self {
        Self { random: Rng::with_seed(seed), duplicates, contradictions }
    }

    pub(crate) fn draw(&mut self) -> Payment {
        let random = &mut self.random;
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        let cents = match random.u8(0..10) {
            0 => random.u64(1..=99),
            1 => random.u64(1..=10_000) * 100,
            2 => random.u64(1..=99_999_999),
            _ => random.u64(1..=99_999),
        };
        let amount = spell(cents, random.u8(0..4));
        let copies = if random.f64() < self.duplicates { 2 } else { 1 };
        let contradicted = random.f64() < self.contradictions;
        Payment { id, cents, amount, copies, contradicted }
    }
}

/// One of the ways to write an amount.
fn spell(cents: u64, style: u8) -> String {
    let plain = decimal(cents);
    match style {
        0 => format!("{cents}e-2"),
        1 if cents.is_multiple_of(100) => format!("{}", cents / 100),
        1 => plain.trim_end_matches('0').to_owned(),
        2 if cents.is_multiple_of(10_000) => format!("{}e2", cents / 10_000),
        _ => plain,
    }
}

/// Cents as a decimal number of two places.
pub(crate) fn decimal(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// The cents of a decimal number with at most two places, as the services write it.
pub(crate) fn cents_of(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    // 0.10 and 0.1000 are the same money; 0.001 is none.
    let fraction = fraction.trim_end_matches('0');
    let places = match fraction.len() {
        0 => 0,
        1 => fraction.parse::<u64>().ok()? * 10,
        2 => fraction.parse::<u64>().ok()?,
        _ => return None,
    };
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_to_the_cent() {
        for (text, cents) in
            [("0", 0), ("19.9", 1990), ("19.90", 1990), ("1234567.89", 123_456_789), ("7", 700)]
        {
            assert_eq!(cents_of(text), Some(cents), "{text}");
        }
        for text in ["", ".5", "1e2", "-1", "0.001", "1.2.3", "99999999999999999999"] {
            assert_eq!(cents_of(text), None, "{text}");
        }
    }

    #[test]
    fn every_spelling_of_an_amount_means_the_same() {
        for cents in [1, 10, 29, 100, 110, 1990, 10_000, 1_000_000, 99_999_999] {
            for style in 0..4 {
                let text = spell(cents, style);
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let exponent: i32 = exponent.parse().unwrap();
                let power = 10_u64.pow(exponent.unsigned_abs());
                let unscaled = cents_of(digits).unwrap();
                let scaled = if exponent < 0 { unscaled / power } else { unscaled * power };
                assert_eq!(scaled, cents, "{text}");
            }
        }
    }

    #[test]
    fn one_seed_draws_one_series_of_different_ids() {
        let ids = |seed| {
            let mut payments = Payments::new(seed, 0.3, 0.1);
            (0..1000).map(|_| payments.draw().id).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(ids(1), ids(1));
        assert_eq!(ids(1).len(), 1000);
        assert!(ids(1).is_disjoint(&ids(2)));
    }
}
