//! The referee: what was sent and heard, against what the processors stored, id by id.
//!
//! Pure: it takes lists and gives findings, so that each kind of wrong has a test that plants it. It knows nothing of Galo's
//! code, and shares none with it: the rules are DESIGN's invariants 1 to 4, written down a second time.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::payment::{Sent, cents_of};
use crate::processors::{NAMES, Stored};

/// The books of both processors, ready for questions.
#[derive(Debug)]
pub(crate) struct Books {
    by_id: HashMap<Uuid, Vec<(usize, Stored)>>,
    /// For each processor: `requestedAt` in order, and the cents of everything before each.
    timelines: [Timeline; 2],
}

#[derive(Debug)]
struct Timeline {
    at_ms: Vec<i64>,
    cents_before: Vec<u64>,
}

/// A count of payments and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) cents: u64,
}

impl Books {
    pub(crate) fn new(lists: &[Vec<Stored>; 2]) -> Self {
        let mut by_id: HashMap<Uuid, Vec<(usize, Stored)>> = HashMap::new();
        for (index, list) in lists.iter().enumerate() {
            for stored in list {
                by_id.entry(stored.correlation_id).or_default().push((index, *stored));
            }
        }
        Self { by_id, timelines: [Timeline::new(&lists[0]), Timeline::new(&lists[1])] }
    }

    /// Where a payment was processed, if in one place.
    pub(crate) fn entry(&self, id: Uuid) -> Option<(usize, Stored)> {
        match self.by_id.get(&id)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    pub(crate) fn total(&self) -> [Tally; 2] {
        self.between(i64::MIN, i64::MAX)
    }

    /// What both processors stored with `from_ms <= requestedAt <= to_ms`.
    pub(crate) fn between(&self, from_ms: i64, to_ms: i64) -> [Tally; 2] {
        [self.timelines[0].between(from_ms, to_ms), self.timelines[1].between(from_ms, to_ms)]
    }

    /// How many were requested at this moment or later.
    pub(crate) fn count_since(&self, at_ms: i64) -> u64 {
        self.between(at_ms, i64::MAX).iter().map(|tally| tally.count).sum()
    }

    /// The earliest and latest `requestedAt`.
    pub(crate) fn span_ms(&self) -> Option<(i64, i64)> {
        let first = self.timelines.iter().filter_map(|timeline| timeline.at_ms.first()).min()?;
        let last = self.timelines.iter().filter_map(|timeline| timeline.at_ms.last()).max()?;
        Some((*first, *last))
    }
}

impl Timeline {
    fn new(list: &[Stored]) -> Self {
        let mut entries: Vec<(i64, u64)> =
            list.iter().map(|stored| (stored.requested_at_ms, stored.amount_cents)).collect();
        entries.sort_unstable();
        let mut sum = 0;
        let mut cents_before = Vec::with_capacity(entries.len() + 1);
        cents_before.push(0);
        for (_, cents) in &entries {
            sum += cents;
            cents_before.push(sum);
        }
        Self { at_ms: entries.into_iter().map(|(at_ms, _)| at_ms).collect(), cents_before }
    }

    fn between(&self, from_ms: i64, to_ms: i64) -> Tally {
        let first = self.at_ms.partition_point(|at_ms| *at_ms < from_ms);
        let end = self.at_ms.partition_point(|at_ms| *at_ms <= to_ms).max(first);
        Tally { count: (end - first) as u64, cents: self.cents_before[end] - self.cents_before[first] }
    }
}

/// What is wrong, by kind; each id stands there once.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Answered 2xx and in no book.
    pub(crate) lost: Vec<Uuid>,
    /// In both books, or in one twice.
    pub(crate) twice: Vec<Uuid>,
    /// In a book and never sent.
    pub(crate) phantom: Vec<Uuid>,
    /// Stored with other cents than sent.
    pub(crate) altered: Vec<Uuid>,
    /// Answered 2xx more than once as if it were new.
    pub(crate) granted_twice: Vec<Uuid>,
    /// Never answered 2xx and processed all the same, which is allowed.
    pub(crate) unanswered_processed_count: u64,
}

/// Compares.
pub(crate) fn judge(sent: &[Sent], books: &Books) -> Findings {
    let mut findings = Findings::default();
    let by_id: HashMap<Uuid, &Sent> = sent.iter().map(|sent| (sent.id, sent)).collect();
    for (id, entries) in &books.by_id {
        if entries.len() > 1 {
            findings.twice.push(*id);
        }
        match by_id.get(id) {
            None => findings.phantom.push(*id),
            Some(sent) => {
                if entries.iter().any(|(_, stored)| stored.amount_cents != sent.cents) {
                    findings.altered.push(*id);
                }
                findings.unanswered_processed_count += u64::from(!sent.is_acknowledged());
            }
        }
    }
    for sent in sent {
        if sent.is_acknowledged() && !books.by_id.contains_key(&sent.id) {
            findings.lost.push(sent.id);
        }
        if sent.granted_count > 1 {
            findings.granted_twice.push(sent.id);
        }
    }
    findings
}

/// Ids that the ledger does not know any more, though they were processed: all but the last `known_len_max`, and none of those.
///
/// It forgets in the order in which payments were processed, the books have that in which they were requested. A tenth of what is
/// remembered is room for payments that were in doubt while later ones were processed.
pub(crate) fn judge_forgotten(
    forgotten: &[Uuid],
    books: &Books,
    known_len_max: usize,
) -> Result<String, String> {
    let stored_count = books.by_id.len();
    let expected = stored_count.saturating_sub(known_len_max);
    if forgotten.len() != expected {
        return Err(format!(
            "{} of {stored_count}, not {expected}, such as {:?}",
            forgotten.len(),
            forgotten.iter().take(5).collect::<Vec<_>>()
        ));
    }
    let known_since = (known_len_max - known_len_max / 10) as u64;
    let is_young = |id: &&Uuid| {
        let entry = books.entry(**id);
        entry.is_some_and(|(_, stored)| books.count_since(stored.requested_at_ms) <= known_since)
    };
    match forgotten.iter().find(is_young) {
        Some(id) => Err(format!("{id} is forgotten, and many that are older are not")),
        None => Ok(format!("{expected} of {stored_count}: all but the last {known_len_max}")),
    }
}

/// Whether a summary that is exact to `resolution_ms` may say this of a window: what is farther than that from both bounds is counted
/// as it should be.
pub(crate) fn may_say(
    ours: &[Tally; 2],
    books: &Books,
    (from_ms, to_ms): (i64, i64),
    resolution_ms: i64,
) -> bool {
    // 1 is exact: nothing is cut.
    let cut_ms = if resolution_ms <= 1 { 0 } else { resolution_ms };
    let least = books.between(from_ms.saturating_add(cut_ms), to_ms.saturating_sub(cut_ms));
    let most = books.between(from_ms.saturating_sub(cut_ms), to_ms.saturating_add(cut_ms));
    ours.iter().zip(least.iter().zip(&most)).all(|(ours, (least, most))| {
        (least.count..=most.count).contains(&ours.count) && (least.cents..=most.cents).contains(&ours.cents)
    })
}

/// Whether a window of this start has to be exact: the ledger keeps the milliseconds of its newest payments in nine sixteenths of its
/// memory for time, half of that for each processor, and a payment takes 18 bytes there at 300 a second, 32 at four.
pub(crate) fn must_be_exact(books: &Books, from_ms: i64, bucket_bytes_max: usize) -> bool {
    const PAYMENT_BYTES_MAX: u64 = 32;
    books.count_since(from_ms) <= bucket_bytes_max as u64 * 9 / 32 / PAYMENT_BYTES_MAX
}

/// `GET /payments/{id}`, as much of it as is judged.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    state: &'a str,
    processor: Option<&'a str>,
    requested_at: Option<&'a str>,
    #[serde(borrow)]
    amount: &'a RawValue,
}

/// What the ledger says of one payment against the books; an error is what differs.
pub(crate) fn compare_lookup(status: u16, body: &str, entry: Option<(usize, Stored)>) -> Result<(), String> {
    let Some((processor, stored)) = entry else {
        return if status == 404 { Ok(()) } else { Err(format!("in no book, yet: {status} {body}")) };
    };
    if status != 200 {
        return Err(format!("processed by {}, yet: {status} {body}", NAMES[processor]));
    }
    let view: View<'_> = serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
    let requested_at_ms = view.requested_at.and_then(millis_of);
    let is_same = view.state == "processed"
        && view.processor == Some(NAMES[processor])
        && requested_at_ms == Some(stored.requested_at_ms)
        && cents_of(view.amount.get()) == Some(stored.amount_cents);
    if is_same {
        Ok(())
    } else {
        Err(format!(
            "{} has it with {} cents at {}, yet: {body}",
            NAMES[processor],
            stored.amount_cents,
            text_of_millis(stored.requested_at_ms)
        ))
    }
}

#[derive(Debug, Deserialize)]
struct SummaryView<'a> {
    #[serde(borrow)]
    default: SideView<'a>,
    #[serde(borrow)]
    fallback: SideView<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SideView<'a> {
    total_requests: u64,
    #[serde(borrow)]
    total_amount: &'a RawValue,
}

/// Both sides of a `GET /payments-summary`.
pub(crate) fn parse_summary(body: &str) -> Result<[Tally; 2], String> {
    let view: SummaryView<'_> = serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
    let tally = |side: &SideView<'_>| {
        let cents = cents_of(side.total_amount.get()).ok_or_else(|| format!("no amount of money: {body}"))?;
        Ok::<_, String>(Tally { count: side.total_requests, cents })
    };
    Ok([tally(&view.default)?, tally(&view.fallback)?])
}

fn millis_of(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond())
}

/// UTC with milliseconds.
pub(crate) fn text_of_millis(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms)
        .map_or_else(|_| at_ms.to_string(), |at| at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn sent(number: u128, cents: u64, yes_count: u8) -> Sent {
        Sent { id: id(number), cents, yes_count, granted_count: yes_count.min(1) }
    }

    fn stored(number: u128, cents: u64, at_ms: i64) -> Stored {
        Stored { correlation_id: id(number), amount_cents: cents, requested_at_ms: at_ms }
    }

    fn judged(sent: &[Sent], default: &[Stored], fallback: &[Stored]) -> Findings {
        judge(sent, &Books::new(&[default.to_vec(), fallback.to_vec()]))
    }

    #[test]
    fn each_kind_of_wrong_is_found() {
        let all = [sent(1, 10, 1), sent(2, 20, 2), sent(3, 30, 0)];
        let clean = judged(&all, &[stored(1, 10, 0)], &[stored(2, 20, 0)]);
        assert!(clean.lost.is_empty() && clean.twice.is_empty() && clean.phantom.is_empty());
        assert!(clean.altered.is_empty() && clean.granted_twice.is_empty());
        assert_eq!(clean.unanswered_processed_count, 0);
        let unanswered = judged(&all, &[stored(1, 10, 0), stored(3, 30, 0)], &[stored(2, 20, 0)]);
        assert_eq!(unanswered.unanswered_processed_count, 1);
        assert!(unanswered.phantom.is_empty());

        assert_eq!(judged(&all, &[stored(1, 10, 0)], &[]).lost, [id(2)]);
        assert_eq!(judged(&all, &[stored(1, 10, 0)], &[stored(1, 10, 0), stored(2, 20, 0)]).twice, [id(1)]);
        assert_eq!(judged(&all, &[stored(1, 10, 0), stored(1, 10, 0)], &[stored(2, 20, 0)]).twice, [id(1)]);
        assert_eq!(judged(&all, &[stored(1, 10, 0), stored(9, 1, 0)], &[stored(2, 20, 0)]).phantom, [id(9)]);
        assert_eq!(judged(&all, &[stored(1, 11, 0)], &[stored(2, 20, 0)]).altered, [id(1)]);
        let twice = [Sent { granted_count: 2, ..sent(1, 10, 2) }];
        assert_eq!(judged(&twice, &[stored(1, 10, 0)], &[]).granted_twice, [id(1)]);
    }

    #[test]
    fn a_lookup_must_say_what_the_book_says() {
        let entry = Some((1, stored(1, 1990, 1_752_582_896_007)));
        let body = |processor: &str, amount: &str, at: &str| {
            format!(
                r#"{{"correlationId":"{}","amount":{amount},"state":"processed","processor":"{processor}","requestedAt":"{at}","inDoubt":false}}"#,
                id(1)
            )
        };
        let at = "2025-07-15T12:34:56.007Z";
        compare_lookup(200, &body("fallback", "19.9", at), entry).unwrap();
        compare_lookup(404, "", None).unwrap();
        for (status, text, entry) in [
            (200, body("default", "19.9", at), entry),
            (200, body("fallback", "19.91", at), entry),
            (200, body("fallback", "19.9", "2025-07-15T12:34:56.008Z"), entry),
            (200, body("fallback", "19.9", at).replace("processed", "open"), entry),
            (404, String::new(), entry),
            (200, body("fallback", "19.9", at), None),
        ] {
            compare_lookup(status, &text, entry).expect_err(&text);
        }
    }

    #[test]
    fn a_range_counts_its_bounds_in() {
        let list = [stored(1, 1, 10), stored(2, 2, 20), stored(3, 4, 20), stored(4, 8, 30)];
        let books = Books::new(&[list.to_vec(), Vec::new()]);
        let sum = |from, to| books.between(from, to)[0];
        assert_eq!(sum(10, 30), Tally { count: 4, cents: 15 });
        assert_eq!(sum(11, 20), Tally { count: 2, cents: 6 });
        assert_eq!(sum(21, 29), Tally::default());
        assert_eq!(sum(25, 5), Tally::default());
        assert_eq!(books.total(), [Tally { count: 4, cents: 15 }, Tally::default()]);
        assert_eq!(books.span_ms(), Some((10, 30)));
    }

    #[test]
    fn only_the_oldest_are_forgotten() {
        let list: Vec<Stored> = (0..100_u8).map(|number| stored(number.into(), 1, number.into())).collect();
        let books = Books::new(&[list, Vec::new()]);
        let forgotten = |ids: std::ops::Range<u128>, known| {
            judge_forgotten(&ids.map(id).collect::<Vec<_>>(), &books, known)
        };
        forgotten(0..0, 100).unwrap();
        forgotten(0..60, 40).unwrap();
        // Four that were requested later came before them.
        forgotten(4..64, 40).unwrap();
        forgotten(5..65, 40).unwrap_err();
        forgotten(0..59, 40).unwrap_err();
        forgotten(0..61, 40).unwrap_err();
        forgotten(0..1, 100).unwrap_err();
    }

    #[test]
    fn a_coarse_summary_may_err_at_its_bounds_only() {
        let list = [stored(1, 1, 1000), stored(2, 2, 2000), stored(3, 4, 2500), stored(4, 8, 4000)];
        let books = Books::new(&[list.to_vec(), Vec::new()]);
        let may = |count, cents, resolution_ms| {
            may_say(&[Tally { count, cents }, Tally::default()], &books, (1500, 3500), resolution_ms)
        };
        assert!(may(2, 6, 1));
        assert!(!may(1, 2, 1) && !may(3, 7, 1) && !may(2, 5, 1));
        assert!(may(3, 7, 1000) && may(1, 4, 600) && may(2, 6, 1000));
        assert!(!may(3, 7, 400) && !may(0, 0, 400) && !may(4, 16, 1000));
        assert!(
            must_be_exact(&books, 1001, 32 * 32 / 9 * 3 + 32)
                && !must_be_exact(&books, 1000, 32 * 32 / 9 * 3 + 32)
        );
    }

    #[test]
    fn a_summary_is_read_to_the_cent() {
        let body = r#"{"default":{"totalRequests":2,"totalAmount":19.9},"fallback":{"totalRequests":0,"totalAmount":0}}"#;
        assert_eq!(parse_summary(body), Ok([Tally { count: 2, cents: 1990 }, Tally::default()]));
        parse_summary(&body.replace("19.9", "19.999")).expect_err("a tenth of a cent");
    }

    #[test]
    fn timestamps_have_three_digits_after_the_second() {
        assert_eq!(text_of_millis(1_752_582_896_007), "2025-07-15T12:34:56.007Z");
        assert_eq!(text_of_millis(0), "1970-01-01T00:00:00.000Z");
    }
}
