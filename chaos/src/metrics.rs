//! What the processes count themselves, read from their Prometheus pages while everything dies around them.
//!
//! Counters begin at zero with their process, so they are summed over its lives; what a process counted between the
//! last reading and its death is missing from the sum. Conservation is checked at every single reading.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::client::{Client, Origin};

/// Between two readings.
const INTERVAL: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_millis(500);

/// The samples of one page, by name with labels as printed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page(BTreeMap<String, u64>);

impl Page {
    /// Reads the samples that are whole numbers; the others are nobody's business here.
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The sum over all labels of a name.
    pub(crate) fn sum(&self, name: &str) -> Option<u64> {
        self.sum_of(name, "")
    }

    /// The sum over all samples of a name that have a label.
    pub(crate) fn sum_of(&self, name: &str, label: &str) -> Option<u64> {
        let mut found = self
            .0
            .iter()
            .filter(|(sample, _)| {
                sample.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                    && sample.contains(label)
            })
            .peekable();
        found.peek()?;
        Some(found.map(|(_, value)| value).sum())
    }
}

/// What was seen of the aggregator over the whole run.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) reading_count: u64,
    pub(crate) open_max: u64,
    pub(crate) in_doubt_max: u64,
    /// Readings in which accepted was not processed and open, with the first of them.
    pub(crate) unconserved_count: u64,
    pub(crate) unconserved_first: Option<String>,
    pub(crate) last: Page,
    totals: BTreeMap<&'static str, u64>,
}

/// Counters that are summed over the aggregator's lives.
const COUNTERS: [&str; 6] = [
    "galo_payments_handed_over_total",
    "galo_payments_claimed_total",
    "galo_payments_withdrawn_total",
    "galo_completions_stale_total",
    "galo_contradictions_total",
    "galo_accepts_replayed_total",
];

impl Seen {
    pub(crate) fn total(&self, name: &str) -> u64 {
        self.totals.get(name).copied().unwrap_or(0)
    }

    fn take(&mut self, page: Page) {
        self.reading_count += 1;
        let value = |name: &str| page.sum(name).unwrap_or(0);
        self.open_max = self.open_max.max(value("galo_payments_open"));
        self.in_doubt_max = self.in_doubt_max.max(value("galo_payments_in_doubt"));
        for unit in ["", "_cents"] {
            let accepted = page.sum(&format!("galo_payments_accepted{unit}_total"));
            let processed = page.sum(&format!("galo_payments_processed{unit}_total"));
            let open = page.sum(&format!("galo_payments_open{unit}"));
            let is_conserved = match (accepted, processed, open) {
                (Some(accepted), Some(processed), Some(open)) => accepted == processed + open,
                _ => false,
            };
            if !is_conserved {
                self.unconserved_count += 1;
                self.unconserved_first.get_or_insert_with(|| {
                    format!("accepted{unit} {accepted:?}, processed {processed:?}, open {open:?}")
                });
            }
        }
        for name in COUNTERS {
            let (now, before) = (value(name), self.last.sum(name).unwrap_or(0));
            // Less than before: a new life, which counts from zero.
            *self.totals.entry(name).or_default() += if now >= before { now - before } else { now };
        }
        self.last = page;
    }
}

/// Reads the aggregator's page for ever.
pub(crate) async fn watch(aggregator: Origin, seen: Rc<RefCell<Seen>>) {
    let client = Client::new(aggregator, TIMEOUT);
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Ok(answer) = client.get("/metrics").await
            && answer.status == 200
        {
            seen.borrow_mut().take(Page::parse(&answer.text()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(accepted: u64, processed: [u64; 2], open: u64, handed_over: u64) -> Page {
        Page::parse(&format!(
            "# HELP x y\ngalo_payments_accepted_total {accepted}\n\
             galo_payments_processed_total{{processor=\"default\"}} {}\n\
             galo_payments_processed_total{{processor=\"fallback\"}} {}\n\
             galo_payments_open {open}\ngalo_payments_handed_over_total {handed_over}\n\
             galo_payments_accepted_cents_total 0\ngalo_payments_processed_cents_total 0\n\
             galo_payments_open_cents 0\ngalo_aggregator_start_seconds 0.004\n",
            processed[0], processed[1]
        ))
    }

    #[test]
    fn counters_are_summed_over_restarts_and_leaks_are_seen() {
        let mut seen = Seen::default();
        seen.take(page(10, [5, 2], 3, 4));
        seen.take(page(12, [7, 2], 3, 6));
        seen.take(page(12, [7, 2], 3, 1));
        assert_eq!(seen.total("galo_payments_handed_over_total"), 7);
        assert_eq!((seen.open_max, seen.unconserved_count), (3, 0));
        seen.take(page(12, [7, 2], 2, 1));
        assert_eq!(seen.unconserved_count, 1);
        assert!(seen.unconserved_first.unwrap().starts_with("accepted Some(12)"));
    }

    #[test]
    fn a_name_is_not_the_beginning_of_another() {
        let page = Page::parse("galo_payments_open 3\ngalo_payments_open_cents 500\n");
        assert_eq!(page.sum("galo_payments_open"), Some(3));
        assert_eq!(page.sum("galo_payments"), None);
    }
}
