//! What one run came to: its figures, and what is wrong with it.
//!
//! Profit is what the ledger had processed when the books were closed, less the fees; what came later earns nothing (lag), yet
//! must come: lost, doubled, invented, or different between ledger and processors at rest make the run a bad one, as any
//! inconsistency that the auditor saw. A slow or refused POST and a lag are results, not defects of the run.

use serde_json::{Value, json};

use super::load::Load;
use super::rest::Rest;
use crate::repo::Fallible;
use crate::rinha::Sides;
use crate::up::{Fees, grouped};

/// One run's figures.
pub(crate) struct Outcome {
    pub(crate) schedule: String,
    pub(crate) fees: Fees,
    pub(crate) load: Load,
    /// By how much the latest stage was late.
    pub(crate) stage_lateness_us: u64,
    pub(crate) rest: Rest,
    pub(crate) sides: Sides,
    pub(crate) predicted_cents: Option<u64>,
}

const HEADER: [&str; 15] = [
    "schedule",
    "fees",
    "accepted",
    "failed",
    "default",
    "fallback",
    "profit",
    "predicted",
    "off",
    "lag",
    "inconsistencies",
    "p50",
    "p99",
    "health 429",
    "at rest",
];

impl Outcome {
    /// What the ledger had processed when the books were closed: requests and cents, default's first.
    fn closed(&self) -> Option<([u64; 2], [u64; 2])> {
        let books = self.load.books.as_ref()?;
        Some((books.ledger.map(|book| book.requests), books.ledger.map(|book| book.cents)))
    }

    pub(crate) fn profit_cents(&self) -> Option<u64> {
        self.closed().map(|(_, cents)| self.fees.profit_cents(cents))
    }

    /// Accepted and not processed when the books were closed; below 0 when more was processed than accepted.
    fn lag(&self) -> Option<i128> {
        let (requests, _) = self.closed()?;
        Some(i128::from(self.load.accepted) - requests.map(i128::from).iter().sum::<i128>())
    }

    /// What makes the run a bad one.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints = complaints(&self.load, &self.rest);
        complaints.extend(self.sides.complaints());
        complaints
    }

    pub(crate) fn table<'a>(outcomes: impl Iterator<Item = &'a Self>) -> String {
        let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
        rows.extend(outcomes.map(Self::row));
        crate::table::aligned(&rows)
    }

    fn row(&self) -> Vec<String> {
        let load = &self.load;
        let none = || "-".to_owned();
        let ms = |ms: Option<f64>| ms.map_or_else(none, |ms| format!("{ms:.2}ms"));
        let [default, fallback] =
            self.closed().map_or_else(|| [none(), none()], |(requests, _)| requests.map(grouped));
        let off =
            self.profit_cents().zip(self.predicted_cents).and_then(|(real, predicted)| off(real, predicted));
        vec![
            self.schedule.clone(),
            self.fees.to_string(),
            grouped(load.accepted),
            grouped(load.failed),
            default,
            fallback,
            self.profit_cents().map_or_else(none, money),
            self.predicted_cents.map_or_else(none, money),
            off.unwrap_or_else(none),
            self.lag().map_or_else(none, |lag| lag.to_string()),
            load.inconsistencies.to_string(),
            ms(load.post_ms_p50),
            ms(load.post_ms_p99),
            self.sides.health_429_count().to_string(),
            if self.sides.disagreements().is_empty() { "equal" } else { "DIFFERENT" }.to_owned(),
        ]
    }

    /// The lines below the table's.
    pub(crate) fn describe(&self) -> String {
        let load = &self.load;
        let Rest { processed, doubled } = &self.rest;
        let doubled = doubled.map_or_else(
            || "the processors list no ids".to_owned(),
            |doubled| format!("{doubled} ids stored twice"),
        );
        let closed = match &load.books {
            Some(books) if books.ledger == books.processors => "ledger and processors equal".to_owned(),
            Some(books) => {
                format!("ledger {}, processors {}", counts(&books.ledger), counts(&books.processors))
            }
            None => "not taken".to_owned(),
        };
        format!(
            "audits: {}, differing by {} payments ({} by processor), {} without an answer\n\
             books as they were closed: {closed}\n\
             in the end: {} of {} accepted processed, {doubled}\n\
             slowest POST {:.2} ms; latest stage set {}.{:03} ms after its time\n{}",
            load.audits,
            load.inconsistencies,
            load.differences,
            load.audits_failed,
            grouped(*processed),
            grouped(load.accepted),
            load.post_ms_max.unwrap_or_default(),
            self.stage_lateness_us / 1000,
            self.stage_lateness_us % 1000,
            self.sides.describe(),
        )
    }

    pub(crate) fn json(&self) -> Fallible<Value> {
        Ok(json!({
            "schedule": self.schedule,
            "fees_bps": self.fees.both_bps(),
            "load": serde_json::to_value(&self.load).map_err(|error| error.to_string())?,
            "profit_cents": self.profit_cents(),
            "predicted_cents": self.predicted_cents,
            "stage_lateness_us": self.stage_lateness_us,
            "rest": { "processed": self.rest.processed, "doubled": self.rest.doubled },
            "around": self.sides.json(),
            "complaints": self.complaints(),
        }))
    }
}

/// The complaints about load and books; those about what surrounds them are `Sides`' own.
fn complaints(load: &Load, rest: &Rest) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |count: u64, what: &str| {
        if count > 0 {
            complaints.push(format!("{count} {what}"));
        }
    };
    complain(load.inconsistencies, "inconsistencies");
    complain(load.differences, "differences by processor");
    complain(load.audits_failed, "audits without an answer");
    complain(load.accepted.saturating_sub(rest.processed), "payments lost");
    complain(rest.doubled.unwrap_or(0), "payments doubled");
    // A POST that failed may have been accepted all the same, its answer being late.
    complain(rest.processed.saturating_sub(load.accepted + load.failed), "payments processed and never sent");
    if load.audits == 0 {
        complaints.push("nothing was audited".to_owned());
    }
    if load.accepted == 0 {
        complaints.push("nothing was accepted".to_owned());
    }
    if load.books.is_none() {
        complaints.push("the books were not closed: somebody did not answer".to_owned());
    }
    complaints
}

fn counts(books: &[super::load::Book; 2]) -> String {
    let [default, fallback] = books.map(|book| grouped(book.requests));
    format!("{default} + {fallback}")
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", grouped(cents / 100), cents % 100)
}

/// By how much the real profit is off the predicted one, in percent with two decimals; `None` when nothing was predicted.
fn off(real_cents: u64, predicted_cents: u64) -> Option<String> {
    let (real, predicted) = (i128::from(real_cents), i128::from(predicted_cents));
    let difference_bps = ((real - predicted) * 10_000).checked_div(predicted)?;
    let sign = if difference_bps < 0 { '-' } else { '+' };
    let size = difference_bps.unsigned_abs();
    Some(format!("{sign}{}.{:02}%", size / 100, size % 100))
}

#[cfg(test)]
mod tests {
    use super::super::load::{Book, Books};
    use super::*;

    fn clean() -> (Load, Rest) {
        let book = |requests: u64| Book { requests, cents: requests * 1990 };
        let books = Books { ledger: [book(90), book(10)], processors: [book(90), book(10)] };
        let load = Load { accepted: 100, audits: 6, books: Some(books), ..Load::default() };
        (load, Rest { processed: 100, doubled: Some(0) })
    }

    #[test]
    fn a_clean_run_has_no_complaint() {
        let (mut load, mut rest) = clean();
        assert_eq!(complaints(&load, &rest), Vec::<String>::new());
        // A failed POST whose payment is there is nobody's fault; processors without lists can still be counted.
        load.failed = 2;
        rest = Rest { processed: 102, doubled: None };
        assert_eq!(complaints(&load, &rest), Vec::<String>::new());
    }

    #[test]
    fn each_defect_is_a_complaint() {
        type Spoil = fn(&mut Load, &mut Rest);
        let cases: [(&str, Spoil); 9] = [
            ("1 inconsistencies", |load, _| load.inconsistencies = 1),
            ("2 differences by processor", |load, _| load.differences = 2),
            ("1 audits without an answer", |load, _| load.audits_failed = 1),
            ("1 payments lost", |_, rest| rest.processed = 99),
            ("1 payments doubled", |_, rest| rest.doubled = Some(1)),
            ("1 payments processed and never sent", |_, rest| rest.processed = 101),
            ("nothing was audited", |load, _| load.audits = 0),
            ("the books were not closed: somebody did not answer", |load, _| load.books = None),
            ("nothing was accepted", |load, rest| (load.accepted, rest.processed) = (0, 0)),
        ];
        for (expected, spoil) in cases {
            let (mut load, mut rest) = clean();
            spoil(&mut load, &mut rest);
            assert_eq!(complaints(&load, &rest), [expected]);
        }
    }

    #[test]
    fn a_forecast_is_missed_by_so_much() {
        assert_eq!(off(1_000_000, 1_000_000).unwrap(), "+0.00%");
        assert_eq!(off(990_000, 1_000_000).unwrap(), "-1.00%");
        assert_eq!(off(1_012_345, 1_000_000).unwrap(), "+1.23%");
        assert_eq!(off(1, 0), None);
    }

    #[test]
    fn money_is_written_to_the_cent() {
        assert_eq!([5, 1_990, 123_456_789].map(money), ["0.05", "19.90", "1,234,567.89"]);
    }
}
