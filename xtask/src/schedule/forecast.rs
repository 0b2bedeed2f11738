//! What the laboratory predicts for a schedule, where there is one.
//!
//! Asks `cargo xtask lab --schedule FILE --fees D,F --json` for one JSON object with `profit_cents`. Without such a command there is no
//! prediction; one that fails or answers something else is worth a line on stderr, never a run: what was earned stands by itself.

use std::process::Command;

use serde_json::Value;

use super::file::Schedule;
use crate::has_command;
use crate::out::errln;
use crate::repo::Fallible;
use crate::up::Fees;

/// The profit in cents that the laboratory's run of this schedule had, where it can say.
pub(crate) fn profit_cents(schedule: &Schedule, fees: Fees) -> Option<u64> {
    if !has_command("lab") {
        return None;
    }
    ask(schedule, fees)
        .inspect_err(|error| errln!("no prediction for {}: {error}", schedule.path.display()))
        .ok()
}

fn ask(schedule: &Schedule, fees: Fees) -> Fallible<u64> {
    let myself = std::env::current_exe().map_err(|error| format!("cannot find my own program: {error}"))?;
    let mut command = Command::new(myself);
    command.args(["lab", "--json", "--fees", &fees.to_string(), "--schedule"]).arg(&schedule.path);
    let output = command.output().map_err(|error| format!("cannot run the laboratory: {error}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the laboratory failed: {}", words.lines().next().unwrap_or("without a word")));
    }
    read(&output.stdout)
}

fn read(json: &[u8]) -> Fallible<u64> {
    let answer: Value = serde_json::from_slice(json)
        .map_err(|error| format!("the laboratory's answer is not JSON: {error}"))?;
    let profit = answer.get("profit_cents").and_then(Value::as_u64);
    profit.ok_or_else(|| "the laboratory's answer has no profit_cents".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_is_read_or_refused() {
        assert_eq!(read(br#"{"profit_cents": 2986021, "regret": 0.01}"#), Ok(2_986_021));
        assert!(read(br#"{"profit": 1}"#).unwrap_err().contains("profit_cents"));
        assert!(read(b"profit 1").unwrap_err().contains("not JSON"));
    }
}
