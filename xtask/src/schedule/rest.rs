//! What is in the books once nothing can change them any more: lost, doubled, or never sent.
//!
//! The load's own figures say what earned in time. This is about the rest: with both processors healthy again, every payment that was
//! accepted has to be processed in the end, once. It reads the processors' own lists of ids where they have them (the
//! simulated ones do), since counts alone would let one lost and one doubled cancel out.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::repo::Fallible;
use crate::rinha::{Processor, Totals};
use crate::up;

/// Longer than an attempt may take (ATTEMPT_TIMEOUT_MS, 30 s) and whatever was waiting behind it.
const REST_WAIT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// So that one answer is some megabytes at most.
const LIST_LEN_MAX: usize = 20_000;

/// The processors' books at rest.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Rest {
    /// Payments that the processors have, each id counted once.
    pub(crate) processed: u64,
    /// How often an id was met again; `None` when the processors do not list ids.
    pub(crate) doubled: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    correlation_id: String,
}

/// Waits until as many payments are processed as were accepted, then reads the processors' books. Too few stay too few.
pub(crate) fn come_to_rest(target: &up::Options, processors: &[Processor], accepted: u64) -> Fallible<Rest> {
    let deadline = Instant::now() + REST_WAIT;
    while Totals::of_ledger(&target.api())?.values().map(|totals| totals.requests).sum::<u64>() < accepted
        && Instant::now() < deadline
    {
        std::thread::sleep(POLL_INTERVAL);
    }
    let mut lists = Vec::new();
    for processor in processors {
        lists.push(ids(processor)?);
    }
    if let Some(lists) = lists.into_iter().collect::<Option<Vec<_>>>() {
        return Ok(Rest::of_lists(&lists));
    }
    let mut processed = 0;
    for processor in processors {
        processed += processor.totals()?.requests;
    }
    Ok(Rest { processed, doubled: None })
}

impl Rest {
    fn of_lists(lists: &[Vec<String>]) -> Self {
        let all = lists.iter().map(Vec::len).sum::<usize>();
        let once = lists.iter().flatten().collect::<HashSet<_>>().len();
        Self { processed: once as u64, doubled: Some((all - once) as u64) }
    }
}

/// The ids that a processor stored, or `None` if it does not list them.
fn ids(processor: &Processor) -> Fallible<Option<Vec<String>>> {
    let mut ids: Vec<String> = Vec::new();
    loop {
        let path = format!("/admin/payments?cursor={}&limit={LIST_LEN_MAX}", ids.len());
        let answer = processor.admin("GET", &path, &Value::Null)?;
        if answer.status == 404 {
            return Ok(None);
        }
        let len = ids.len();
        for line in answer.expect(200)?.text().lines() {
            let stored: Stored = serde_json::from_str(line)
                .map_err(|error| format!("processor {}: {error}: {line}", processor.name))?;
            ids.push(stored.correlation_id);
        }
        if ids.len() < len + LIST_LEN_MAX {
            return Ok(Some(ids));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_both_books_is_a_double() {
        let list = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            Rest::of_lists(&[list(&["a", "b"]), list(&["c"])]),
            Rest { processed: 3, doubled: Some(0) }
        );
        assert_eq!(
            Rest::of_lists(&[list(&["a", "b"]), list(&["b"])]),
            Rest { processed: 2, doubled: Some(1) }
        );
        assert_eq!(Rest::of_lists(&[list(&["a", "a"]), list(&[])]), Rest { processed: 1, doubled: Some(1) });
    }
}
