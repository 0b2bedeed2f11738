//! Prometheus' text format (version 0.0.4), written from a snapshot.
//!
//! Not a metrics library: those keep counters of their own, in atomics behind a registry, and the engine's counters
//! would have to be copied into them. Here the engine's plain numbers are the metrics, read when somebody asks.

use std::fmt::{Display, Write};

/// The content type of what [`Exposition`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// A page of metrics being written.
#[derive(Default)]
pub struct Exposition {
    text: String,
    /// Of every sample, as they stand between the braces.
    labels: String,
}

/// What one histogram of durations has counted.
#[derive(Clone, Copy, Debug)]
pub struct Durations<'a> {
    /// `counts[i]` of them were at most the `i`th bound, the last count the others.
    pub counts: &'a [u64],
    /// All together.
    pub sum_us: u64,
}

impl Exposition {
    /// A page each sample of which has these labels: `gateway="1"`. So processes that write the same metrics stay apart
    /// where one job scrapes them all.
    #[must_use]
    pub const fn labelled(labels: String) -> Self {
        Self { text: String::new(), labels }
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help, [("", value)]);
    }

    /// The process's allocations, where they are counted ([`crate::allocation`]).
    pub fn allocations(&mut self) {
        if let Some(count) = crate::allocation::count() {
            self.counter("galo_allocations_total", "Calls of the allocator since the start.", count);
        }
    }

    /// Lines of the log that nobody got.
    pub fn log_lines_lost(&mut self) {
        self.counter(
            "galo_log_lines_lost_total",
            "Lines of the log that could not be written, or for which its queue had no room.",
            crate::log::lines_lost(),
        );
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help, [("", value)]);
    }

    /// A metric of several values, each with its labels as they stand between the braces: `processor="default"`.
    pub fn family<L: AsRef<str>, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        for (labels, value) in values {
            self.sample(format_args!("{name}"), labels.as_ref(), value);
        }
    }

    /// A metric of several histograms of durations, each with its labels: `route="/payments"`.
    pub fn histograms_seconds<'a, L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        bounds_us: &[u64],
        histograms: impl IntoIterator<Item = (L, Durations<'a>)>,
    ) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} histogram"));
        for (labels, Durations { counts, sum_us }) in histograms {
            let labels = labels.as_ref();
            let comma = if labels.is_empty() { "" } else { "," };
            let mut sum = 0;
            for (bound_us, count) in bounds_us.iter().zip(counts) {
                sum += count;
                let le = format!("{labels}{comma}le=\"{}\"", Seconds(*bound_us));
                self.sample(format_args!("{name}_bucket"), &le, sum);
            }
            let total: u64 = counts.iter().sum();
            self.sample(format_args!("{name}_bucket"), &format!("{labels}{comma}le=\"+Inf\""), total);
            self.sample(format_args!("{name}_sum"), labels, Seconds(sum_us));
            self.sample(format_args!("{name}_count"), labels, total);
        }
    }

    /// The finished page.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn sample(&mut self, name: std::fmt::Arguments<'_>, labels: &str, value: impl Display) {
        let (open, comma, close) = match (self.labels.as_str(), labels) {
            ("", "") => ("", "", ""),
            ("", _) | (_, "") => ("{", "", "}"),
            _ => ("{", ",", "}"),
        };
        writeln!(self.text, "{name}{open}{labels}{comma}{}{close} {value}", self.labels)
            .expect("a string takes everything");
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes everything");
    }
}

/// Microseconds, written as seconds.
pub struct Seconds(pub u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Cents, written as whole units with two decimals.
pub struct Cents(pub u64);

impl Display for Cents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        let mut page = Exposition::default();
        page.gauge("galo_open", "Open payments.", 3);
        page.family(
            "galo_done",
            "counter",
            "Done.",
            [("processor=\"default\"", Cents(1990)), ("", Cents(5))],
        );
        let counted = Durations { counts: &[1, 2, 3], sum_us: 2_500_000 };
        page.histograms_seconds("galo_time", "Time.", &[100, 1_000_000], [("", counted)]);
        let expected = "\
# HELP galo_open Open payments.
# TYPE galo_open gauge
galo_open 3
# HELP galo_done Done.
# TYPE galo_done counter
galo_done{processor=\"default\"} 19.90
galo_done 0.05
# HELP galo_time Time.
# TYPE galo_time histogram
galo_time_bucket{le=\"0.000100\"} 1
galo_time_bucket{le=\"1.000000\"} 3
galo_time_bucket{le=\"+Inf\"} 6
galo_time_sum 2.500000
galo_time_count 6
";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn labels_of_a_page_stand_in_each_of_its_samples() {
        let mut page = Exposition::labelled("gateway=\"2\"".to_owned());
        page.gauge("galo_open", "Open payments.", 3);
        let counted = Durations { counts: &[1, 2], sum_us: 5 };
        page.histograms_seconds("galo_time", "Time.", &[100], [("route=\"/a\"", counted), ("", counted)]);
        let expected = "\
# HELP galo_open Open payments.
# TYPE galo_open gauge
galo_open{gateway=\"2\"} 3
# HELP galo_time Time.
# TYPE galo_time histogram
galo_time_bucket{route=\"/a\",le=\"0.000100\",gateway=\"2\"} 1
galo_time_bucket{route=\"/a\",le=\"+Inf\",gateway=\"2\"} 3
galo_time_sum{route=\"/a\",gateway=\"2\"} 0.000005
galo_time_count{route=\"/a\",gateway=\"2\"} 3
galo_time_bucket{le=\"0.000100\",gateway=\"2\"} 1
galo_time_bucket{le=\"+Inf\",gateway=\"2\"} 3
galo_time_sum{gateway=\"2\"} 0.000005
galo_time_count{gateway=\"2\"} 3
";
        assert_eq!(page.finish(), expected);
    }
}
