//! What the two processors keep of a payment, in basis points, and what is left of it.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The fees of both processors, in basis points (1/100 %).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Fees {
    pub(crate) default_bps: u32,
    pub(crate) fallback_bps: u32,
}

const WHOLE_BPS: u32 = 10_000;

impl Default for Fees {
    /// The contest's preview.
    fn default() -> Self {
        Self { default_bps: 500, fallback_bps: 1_500 }
    }
}

impl Fees {
    /// Default's, then fallback's.
    pub(crate) fn both_bps(self) -> [u32; 2] {
        [self.default_bps, self.fallback_bps]
    }

    /// What is left of the cents that default and fallback processed, in cents, rounded half up.
    pub(crate) fn profit_cents(self, processed_cents: [u64; 2]) -> u64 {
        let kept = |cents: u64, fee_bps: u32| u128::from(cents) * u128::from(WHOLE_BPS - fee_bps);
        let [default, fallback] = processed_cents;
        let profit = kept(default, self.default_bps) + kept(fallback, self.fallback_bps);
        let cents = (profit + u128::from(WHOLE_BPS / 2)) / u128::from(WHOLE_BPS);
        u64::try_from(cents).expect("a part of what fits is smaller than it, and the sum of two books fits")
    }
}

/// The fee as the fraction that the simulated processor reads.
pub(crate) fn fraction(fee_bps: u32) -> String {
    format!("{}.{:04}", fee_bps / WHOLE_BPS, fee_bps % WHOLE_BPS)
}

impl FromStr for Fees {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected default's and fallback's basis points, such as 500,1500";
        let bps = |text: &str| text.parse().ok().filter(|bps| *bps <= WHOLE_BPS);
        let (default, fallback) = text.split_once(',').ok_or(EXPECTED)?;
        Ok(Self { default_bps: bps(default).ok_or(EXPECTED)?, fallback_bps: bps(fallback).ok_or(EXPECTED)? })
    }
}

impl Display for Fees {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{},{}", self.default_bps, self.fallback_bps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_are_two_numbers_of_basis_points() {
        let fees: Fees = "700,1000".parse().unwrap();
        assert_eq!(fees, Fees { default_bps: 700, fallback_bps: 1_000 });
        assert_eq!(fees.to_string(), "700,1000");
        for text in ["", "700", "700;1000", "700,1000,1", "-1,5", "5%,15%", "0,10001"] {
            assert!(text.parse::<Fees>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_profit_is_what_the_processors_leave() {
        let fees = Fees::default();
        // 1,000 payments of 19.90 at default: 19,900.00 less 5 %; 10 at fallback: 199.00 less 15 %.
        assert_eq!(fees.profit_cents([1_990_000, 0]), 1_890_500);
        assert_eq!(fees.profit_cents([1_990_000, 19_900]), 1_890_500 + 16_915);
        // One payment at default leaves 18.905.
        assert_eq!(fees.profit_cents([1_990, 0]), 1_891);
        assert_eq!(Fees { default_bps: 10_000, fallback_bps: 0 }.profit_cents([500, 7]), 7);
    }

    #[test]
    fn fractions_are_written_in_full() {
        assert_eq!(
            [500, 1_500, 7, 0, 10_000].map(fraction),
            ["0.0500", "0.1500", "0.0007", "0.0000", "1.0000"]
        );
    }
}
