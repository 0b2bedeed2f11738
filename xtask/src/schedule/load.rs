//! One run of k6 with `k6/schedule.js`, and what it wrote.
//!
//! k6 says on stderr when the load begins; the stages are counted from that moment. Everything else that it says there is passed
//! on, the same line twice at most and then counted. A k6 that dies, or never begins, is an error with its own words above it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::file::Schedule;
use super::stages::Dials;
use crate::out::errln;
use crate::repo::{self, Fallible};
use crate::rinha::ADMIN_TOKEN;
use crate::up;

/// The line of `k6/schedule.js`, followed by milliseconds since 1970.
const BEGUN: &str = "begun_at_ms=";

/// So often the same line is shown before it is only counted.
const REPEATS_MAX: u64 = 2;

/// What `k6/schedule.js` writes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Load {
    pub(crate) accepted: u64,
    /// Any other answer to a POST, or none within 1.5 s.
    pub(crate) failed: u64,
    pub(crate) audits: u64,
    /// Audits in which somebody did not answer.
    pub(crate) audits_failed: u64,
    /// By the contest's rule: the differences of both processors added up, so that opposite ones cancel out.
    pub(crate) inconsistencies: u64,
    /// Each processor by itself, and to the cent.
    pub(crate) differences: u64,
    pub(crate) post_ms_p50: Option<f64>,
    pub(crate) post_ms_p99: Option<f64>,
    pub(crate) post_ms_max: Option<f64>,
    pub(crate) books: Option<Books>,
}

/// All books when they were closed, default's figures first.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Books {
    pub(crate) ledger: [Book; 2],
    pub(crate) processors: [Book; 2],
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Book {
    pub(crate) requests: u64,
    pub(crate) cents: u64,
}

/// Runs the load with its stages; what k6 measured, and by how much the latest stage was late.
pub(crate) fn run(
    schedule: &Schedule,
    target: &up::Options,
    k6: &Path,
    dials: &mut Dials<'_>,
    result_file: &Path,
) -> Fallible<(Load, Duration)> {
    let mut command = Command::new(k6);
    // k6 has a control port of its own, which a second k6 on this machine would find taken.
    command.args([
        "run",
        "--no-usage-report",
        "--address",
        "127.0.0.1:0",
        "--log-format",
        "raw",
        "schedule.js",
    ]);
    if !std::io::stdout().is_terminal() {
        command.arg("--quiet");
    }
    command
        .current_dir(repo::root().join("k6"))
        .env("SCHEDULE_FILE", &schedule.path)
        .env("API_URL", format!("http://localhost:{}", target.port))
        .env("DEFAULT_URL", target.processor_url("default"))
        .env("FALLBACK_URL", target.processor_url("fallback"))
        .env("TOKEN", ADMIN_TOKEN)
        .env("RESULT_FILE", result_file)
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run {}: {error}", k6.display()))?;
    let words = child.stderr.take().ok_or("k6 has no stderr")?;
    let (begin, begun) = channel();
    let (running, over) = channel::<()>();
    let (status, lateness) = std::thread::scope(|scope| {
        let listener = scope.spawn(move || {
            let mut words_seen = Repeats::default();
            for line in BufReader::new(words).lines().map_while(Result::ok) {
                match begun_at(&line) {
                    // A second beginning has nobody waiting for it.
                    Some(moment) => drop(begin.send(moment)),
                    None if words_seen.is_worth_printing(&line) => errln!("{line}"),
                    None => {}
                }
            }
            words_seen.summary().iter().for_each(|line| errln!("{line}"));
        });
        let follower = scope.spawn(move || match begun.recv() {
            Ok(begun) => dials.follow(&schedule.stages, begun, &over).inspect_err(|error| errln!("{error}")),
            Err(_) => Err("k6 ended before the load began".to_owned()),
        });
        let status = child.wait();
        drop(running);
        let listened = listener.join().map_err(|_| "the listener to k6 panicked".to_owned());
        let lateness = follower.join().map_err(|_| "the thread of the stages panicked".to_owned());
        (status, listened.and(lateness).and_then(|lateness| lateness))
    });
    let status = status.map_err(|error| format!("cannot wait for k6: {error}"))?;
    let lateness = lateness?;
    if !status.success() {
        return Err(format!("k6 ended with {status} (its words are above)"));
    }
    let text = fs::read(result_file)
        .map_err(|error| format!("k6 left no result ({}: {error})", result_file.display()))?;
    let load =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", result_file.display()))?;
    Ok((load, lateness))
}

/// Counts equal lines: a gateway that refuses says the same a thousand times.
#[derive(Default)]
struct Repeats {
    counts: BTreeMap<String, u64>,
}

impl Repeats {
    fn is_worth_printing(&mut self, line: &str) -> bool {
        let count = self.counts.entry(line.to_owned()).or_insert(0);
        *count += 1;
        *count <= REPEATS_MAX
    }

    /// The lines that were kept back, and how often they came in all.
    fn summary(&self) -> Vec<String> {
        let kept_back = self.counts.iter().filter(|(_, count)| **count > REPEATS_MAX);
        kept_back.map(|(line, count)| format!("{line} ({count} times)")).collect()
    }
}

/// The moment of the beginning on our monotonic clock, if the line tells it.
fn begun_at(line: &str) -> Option<Instant> {
    let begun_ms: u64 = line.strip_prefix(BEGUN)?.parse().ok()?;
    let begun = UNIX_EPOCH + Duration::from_millis(begun_ms);
    // A wall clock set back in between makes it now.
    let ago = SystemTime::now().duration_since(begun).unwrap_or_default();
    Instant::now().checked_sub(ago)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_told_from_other_words() {
        let ten_seconds_ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(10);
        let elapsed = begun_at(&format!("begun_at_ms={}", ten_seconds_ago.as_millis())).unwrap().elapsed();
        assert!((10..100).contains(&elapsed.as_secs()), "{elapsed:?}");
        for line in ["", "begun_at_ms=", "begun_at_ms=soon", "POST /payments answered 503 begun_at_ms=1"] {
            assert!(begun_at(line).is_none(), "{line}");
        }
    }

    #[test]
    fn the_same_words_are_shown_twice_and_counted() {
        let mut repeats = Repeats::default();
        let shown = ["a", "b", "a", "a", "a"].map(|line| repeats.is_worth_printing(line));
        assert_eq!(shown, [true, true, true, false, false]);
        assert_eq!(repeats.summary(), ["a (4 times)"]);
    }
}
