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
}

impl Exposition {
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
            match labels.as_ref() {
                "" => self.line(format_args!("{name} {value}")),
                labels => self.line(format_args!("{name}{{{labels}}} {value}")),
            }
        }
    }

    /// A histogram of durations: `counts[i]` observations were at most `bounds_us[i]`, the last count the others.
    pub fn histogram_seconds(
        &mut self,
        name: &str,
        help: &str,
        bounds_us: &[u64],
        counts: &[u64],
        sum_us: u64,
    ) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} histogram"));
        let mut sum = 0;
        for (bound_us, count) in bounds_us.iter().zip(counts) {
            sum += count;
            self.line(format_args!("{name}_bucket{{le=\"{}\"}} {sum}", Seconds(*bound_us)));
        }
        let total: u64 = counts.iter().sum();
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {total}"));
        self.line(format_args!("{name}_sum {}", Seconds(sum_us)));
        self.line(format_args!("{name}_count {total}"));
    }

    /// The finished page.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
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
        page.histogram_seconds("galo_time", "Time.", &[100, 1_000_000], &[1, 2, 3], 2_500_000);
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
}
