//! How figures of many runs spread.

/// Median, mean, tail and worst of some figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// Half are at most this.
    pub median: f64,
    /// Their mean.
    pub mean: f64,
    /// Nine of ten are at most this.
    pub p90: f64,
    /// The largest.
    pub worst: f64,
}

impl Spread {
    /// Of these; zeroes if there are none.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let Some(worst) = sorted.last().copied() else { return Self::default() };
        // The nearest rank: always one of the figures.
        let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        #[expect(clippy::cast_precision_loss, reason = "a count of runs")]
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        Self { median: at(50), mean, p90: at(90), worst }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranks_are_the_nearest() {
        let spread = Spread::of((1..=20).map(f64::from));
        assert_eq!(spread, Spread { median: 10.0, mean: 10.5, p90: 18.0, worst: 20.0 });
        assert_eq!(Spread::of([3.0]), Spread { median: 3.0, mean: 3.0, p90: 3.0, worst: 3.0 });
    }
}
