//! A load whose every payment is remembered, and the judge who compares it with what the processors stored.
//!
//! k6 measures; this proves. Each payment has its own id and amount, so that one lost and another doubled cannot cancel out. A
//! payment answered 2xx must be stored exactly once, with its cents; one whose answer never came may be stored once or not at
//! all; nothing else may be there. The judge reads the processors' own lists, never our summaries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::wait_for;
use crate::http::Origin;
use crate::repo::Fallible;
use crate::rinha::Processor;
use crate::up;

const TIMEOUT: Duration = Duration::from_secs(3);
/// Shapes the load: some hundred payments a second from each worker.
const PAUSE: Duration = Duration::from_millis(3);

/// Payments by id, in cents.
type Payments = BTreeMap<String, u64>;

/// Workers that post until told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    accepted_count: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Sent>>,
}

/// What was sent, and what came back.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) accepted: Payments,
    /// Not accepted, or no answer: whether the processors have them is open.
    pub(crate) unsure: Payments,
    pub(crate) first_failure: Option<String>,
}

impl Load {
    pub(crate) fn start(api: &Origin, worker_count: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let accepted_count = Arc::new(AtomicU64::new(0));
        let run = up::random_uuid();
        let workers = (0..worker_count).map(|worker| {
            let (api, stop, accepted_count, run) =
                (api.clone(), Arc::clone(&stop), Arc::clone(&accepted_count), run.clone());
            std::thread::spawn(move || work(&api, &stop, &accepted_count, &run, worker))
        });
        Self { workers: workers.collect(), stop, accepted_count }
    }

    /// Waits until `count` more payments have been accepted.
    pub(crate) fn wait_for_more(&self, count: u64) -> Fallible<()> {
        let goal = self.accepted_count.load(Ordering::Relaxed) + count;
        let what = format!("{count} more payments accepted");
        wait_for(&what, Duration::from_secs(30), || {
            (self.accepted_count.load(Ordering::Relaxed) >= goal).then_some(())
        })
    }

    pub(crate) fn finish(self) -> Fallible<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for worker in self.workers {
            let sent = worker.join().map_err(|_| "a worker of the load panicked")?;
            all.accepted.extend(sent.accepted);
            all.unsure.extend(sent.unsure);
            all.first_failure = all.first_failure.or(sent.first_failure);
        }
        Ok(all)
    }
}

fn work(api: &Origin, stop: &AtomicBool, accepted_count: &AtomicU64, run: &str, worker: u32) -> Sent {
    let mut sent = Sent::default();
    for count in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // The run's own first group, then worker and count: unique, and recognisable in a log.
        let id = format!("{}-{worker:04x}-4000-8000-{count:012x}", run.get(..8).unwrap_or("00000000"));
        // Any amount from 0.01 to 9,999.99, each as likely as the next.
        let cents = (count * 7919 + u64::from(worker) * 104_729) % 999_999 + 1;
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        match post(api, &id, &amount) {
            Ok(()) => {
                accepted_count.fetch_add(1, Ordering::Relaxed);
                sent.accepted.insert(id, cents);
            }
            Err(error) => {
                sent.first_failure.get_or_insert(error);
                sent.unsure.insert(id, cents);
            }
        }
        std::thread::sleep(PAUSE);
    }
    sent
}

/// Posts one payment, the amount as it stands.
pub(crate) fn post(api: &Origin, id: &str, amount: &str) -> Fallible<()> {
    let body = format!(r#"{{"correlationId":"{id}","amount":{amount}}}"#);
    api.send("POST", "/payments", &[], body.as_bytes(), TIMEOUT)?.expect(202).map(drop)
}

/// One line of a processor's list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    correlation_id: String,
    amount_cents: u64,
    requested_at_ms: i64,
}

/// Everything that one processor stored.
fn stored(processor: &Processor) -> Fallible<Vec<Stored>> {
    let answer = processor.admin("GET", "/admin/payments", &Value::Null)?.expect(200)?;
    let parse = |line: &str| {
        serde_json::from_str(line).map_err(|error| format!("processor {}: {error}: {line}", processor.name))
    };
    answer.text().lines().map(parse).collect()
}

/// Waits until every accepted payment is stored, then judges.
pub(crate) fn judge(sent: &Sent, processors: &[Processor]) -> Fallible<String> {
    let lists = wait_for("every accepted payment stored", Duration::from_secs(15), || {
        let lists = processors.iter().map(stored).collect::<Fallible<Vec<_>>>().ok()?;
        let count: usize = lists.iter().map(Vec::len).sum();
        (count >= sent.accepted.len()).then_some(lists)
    });
    // Too few stays too few: the verdict then names one that is missing.
    let lists = lists.or_else(|_| processors.iter().map(stored).collect::<Fallible<Vec<_>>>())?;
    verdict(sent, &lists)
}

fn verdict(sent: &Sent, lists: &[Vec<Stored>]) -> Fallible<String> {
    let mut seen: Payments = BTreeMap::new();
    for payment in lists.iter().flatten() {
        let id = &payment.correlation_id;
        if seen.insert(id.clone(), payment.amount_cents).is_some() {
            return Err(format!("{id} was processed twice"));
        }
        match sent.accepted.get(id).or_else(|| sent.unsure.get(id)) {
            None => return Err(format!("{id} was processed and never sent")),
            Some(cents) if *cents != payment.amount_cents => {
                return Err(format!(
                    "{id} was sent with {cents} cents and processed with {}",
                    payment.amount_cents
                ));
            }
            Some(_) => {}
        }
    }
    let lost: Vec<&String> = sent.accepted.keys().filter(|id| !seen.contains_key(*id)).collect();
    if let Some(first) = lost.first() {
        return Err(format!(
            "{} of {} accepted payments were not processed, {first} the first",
            lost.len(),
            sent.accepted.len()
        ));
    }
    let split: Vec<String> = lists.iter().map(|list| list.len().to_string()).collect();
    Ok(format!(
        "{} accepted, each processed once ({}), {} unanswered",
        sent.accepted.len(),
        split.join(" + "),
        sent.unsure.len()
    ))
}

/// Compares single payments as the ledger knows them with what the processors stored.
pub(crate) fn mirror(api: &Origin, processors: &[Processor], sample_count: usize) -> Fallible<String> {
    let mut compared = 0;
    for processor in processors {
        let list = stored(processor)?;
        let step = (list.len() / sample_count).max(1);
        for payment in list.iter().step_by(step) {
            let answer =
                api.get(&format!("/payments/{}", payment.correlation_id), TIMEOUT)?.expect(200)?.json()?;
            let expected = [
                ("state", "processed".to_owned()),
                ("processor", processor.name.to_owned()),
                ("requestedAt", iso(payment.requested_at_ms)),
            ];
            for (key, expected) in expected {
                if answer[key].as_str() != Some(expected.as_str()) {
                    return Err(format!("{key} should be {expected} in {answer}"));
                }
            }
            compared += 1;
        }
    }
    if compared == 0 {
        Err("nothing to compare".to_owned())
    } else {
        Ok(format!("{compared} payments compared"))
    }
}

/// UTC with milliseconds, as the processors' rules write it. The calendar is Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>), for dates from 1970 on.
fn iso(unix_ms: i64) -> String {
    let (days, ms) = (unix_ms.div_euclid(86_400_000), unix_ms.rem_euclid(86_400_000));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: &str, cents: u64) -> Stored {
        Stored { correlation_id: id.to_owned(), amount_cents: cents, requested_at_ms: 0 }
    }

    fn payments(list: &[(&str, u64)]) -> Payments {
        list.iter().map(|(id, cents)| ((*id).to_owned(), *cents)).collect()
    }

    #[test]
    fn the_judge_sees_each_kind_of_wrong() {
        let sent = Sent {
            accepted: payments(&[("a", 1), ("b", 2)]),
            unsure: payments(&[("c", 3)]),
            first_failure: None,
        };
        let judged =
            |default: &[Stored], fallback: &[Stored]| verdict(&sent, &[default.to_vec(), fallback.to_vec()]);
        judged(&[stored("a", 1)], &[stored("b", 2)]).unwrap();
        judged(&[stored("a", 1), stored("c", 3)], &[stored("b", 2)]).unwrap();
        let wrong: [(&[Stored], &[Stored], &str); 5] = [
            (&[stored("a", 1)], &[], "1 of 2 accepted payments were not processed, b"),
            (&[stored("a", 1), stored("b", 2)], &[stored("a", 1)], "a was processed twice"),
            (&[stored("a", 1), stored("a", 1)], &[stored("b", 2)], "a was processed twice"),
            (&[stored("a", 1), stored("x", 1)], &[stored("b", 2)], "x was processed and never sent"),
            (&[stored("a", 1)], &[stored("b", 3)], "b was sent with 2 cents and processed with 3"),
        ];
        for (default, fallback, expected) in wrong {
            let error = judged(default, fallback).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn timestamps_are_written_as_the_processors_write_them() {
        for (unix_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_752_582_896_007, "2025-07-15T12:34:56.007Z"),
            (1_798_761_599_999, "2026-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(iso(unix_ms), expected);
        }
    }
}
