//! Reads Prometheus' text format: the little that the status line and the tests need of it.
//!
//! Must never be used for money: samples are floats here, for a person's eyes. Amounts come from the summaries.
//! Lines that are not samples are passed over, so that a newer program's metrics do not break an older command.

#![allow(clippy::float_arithmetic, reason = "latencies and rates for display, no money")]

use std::collections::BTreeMap;

/// The samples of one or more expositions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Samples {
    /// Adds what an exposition says.
    pub(crate) fn read(&mut self, text: &str) {
        self.samples.extend(text.lines().filter_map(parse_line));
    }

    /// The sum over all samples of this name whose labels include `label` (as `key="value"`; empty for any), or `None`
    /// when there is none.
    pub(crate) fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let mut found = self
            .samples
            .iter()
            .filter(|sample| sample.name == name && sample.labels.contains(label))
            .peekable();
        found.peek()?;
        Some(found.map(|sample| sample.value).sum())
    }

    /// The same for a counter or gauge of whole things.
    pub(crate) fn count(&self, name: &str, label: &str) -> Option<u64> {
        self.sum(name, label).map(whole)
    }

    /// The cumulative buckets of a histogram, by upper bound in bits of the (positive) float, summed over all samples whose
    /// labels include `label`.
    fn buckets(&self, name: &str, label: &str) -> BTreeMap<u64, f64> {
        let name = format!("{name}_bucket");
        let mut buckets = BTreeMap::new();
        let of_it = |sample: &&Sample| sample.name == name && sample.labels.contains(label);
        for sample in self.samples.iter().filter(of_it) {
            if let Some(bound) = label_value(&sample.labels, "le").and_then(parse_float) {
                // Positive floats order as their bits do.
                *buckets.entry(bound.to_bits()).or_insert(0.0) += sample.value;
            }
        }
        buckets
    }

    /// The quantile (0 to 1) of what a histogram with `label` (as for [`sum`](Self::sum)) counted between `earlier` and now,
    /// interpolated within its bucket; `None` when nothing was counted. A restarted process's counters go down: its
    /// histogram then counts from zero.
    pub(crate) fn quantile_since(
        &self,
        earlier: &Self,
        name: &str,
        label: &str,
        quantile: f64,
    ) -> Option<f64> {
        let mut counts = self.buckets(name, label);
        let before = earlier.buckets(name, label);
        let fell = counts.iter().any(|(bound, count)| before.get(bound).is_some_and(|old| old > count));
        if !fell {
            for (bound, count) in &mut counts {
                *count -= before.get(bound).copied().unwrap_or(0.0);
            }
        }
        let total = counts.values().copied().fold(0.0, f64::max);
        if total <= 0.0 {
            return None;
        }
        let rank = total * quantile;
        let (mut bound_below, mut count_below) = (0.0, 0.0);
        for (bits, count) in counts {
            let bound = f64::from_bits(bits);
            if count >= rank {
                if bound.is_infinite() || count <= count_below {
                    return Some(bound_below);
                }
                return Some(
                    bound_below + (bound - bound_below) * (rank - count_below) / (count - count_below),
                );
            }
            (bound_below, count_below) = (bound, count);
        }
        None
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = rest.rsplit_once('}')?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let value = parse_float(rest.split_whitespace().next()?)?;
    Some(Sample { name: name.to_owned(), labels: labels.to_owned(), value })
}

fn parse_float(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        text => text.parse().ok().filter(|value: &f64| *value >= 0.0),
    }
}

fn label_value<'a>(labels: &'a str, key: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| label.trim().strip_prefix(key)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and parse_float lets no negative value in"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(text: &str) -> Samples {
        let mut samples = Samples::default();
        samples.read(text);
        samples
    }

    #[test]
    fn sums_over_labels_and_tells_absent_from_zero() {
        let text = "# HELP p x\n# TYPE p counter\np{processor=\"default\"} 3\np{processor=\"fallback\"} 4 1700000000\nopen 0\n";
        let samples = samples(text);
        assert_eq!(samples.count("p", ""), Some(7));
        assert_eq!(samples.count("p", "processor=\"fallback\""), Some(4));
        assert_eq!(samples.count("open", ""), Some(0));
        assert_eq!(samples.count("missing", ""), None);
    }

    #[test]
    fn quantiles_come_from_the_difference_of_two_readings() {
        let earlier =
            samples("h_bucket{le=\"0.001\"} 100\nh_bucket{le=\"0.01\"} 100\nh_bucket{le=\"+Inf\"} 100\n");
        let now =
            samples("h_bucket{le=\"0.001\"} 150\nh_bucket{le=\"0.01\"} 200\nh_bucket{le=\"+Inf\"} 200\n");
        let median = now.quantile_since(&earlier, "h", "", 0.5).expect("100 since");
        assert!((median - 0.001).abs() < 1e-9, "{median}");
        let p99 = now.quantile_since(&earlier, "h", "", 0.99).expect("100 since");
        assert!((p99 - 0.009_82).abs() < 1e-9, "{p99}");
        assert_eq!(now.quantile_since(&now.clone(), "h", "", 0.99), None);
        assert!(
            earlier.quantile_since(&now, "h", "", 0.99).is_some(),
            "a restarted histogram counts from zero"
        );
    }

    #[test]
    fn a_quantile_is_that_of_the_series_with_the_label() {
        let now = samples(
            "h_bucket{r=\"/a\",le=\"0.001\",g=\"1\"} 10\nh_bucket{r=\"/a\",le=\"+Inf\",g=\"1\"} 10\n\
             h_bucket{r=\"/b\",le=\"1\",g=\"1\"} 90\nh_bucket{r=\"/b\",le=\"+Inf\",g=\"1\"} 90\n",
        );
        let p99 = now.quantile_since(&Samples::default(), "h", "r=\"/a\"", 0.99).expect("ten of it");
        assert!((p99 - 0.000_99).abs() < 1e-9, "{p99}");
    }
}
