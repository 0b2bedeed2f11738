//! One policy's runs at one pair of fees, in one line of a table.

use super::run::{PolicyKind, Run};
use super::statistics::Spread;

/// See the module's documentation. Shares and regrets in per cent.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Whose.
    pub policy: PolicyKind,
    /// What was not earned of what could have been.
    pub regret: Spread,
    /// The same against the bound that keeps away from slow places.
    pub audit_regret: Spread,
    /// The sum of the auditor's differences, and in how many runs there were any.
    pub inconsistencies: (u64, usize),
    /// Payments accepted and not processed, and in how many runs there were any.
    pub lag: (i64, usize),
    /// Payments that more than one processor stored.
    pub doubles: u64,
    /// Payments at another than the cheapest, of those processed; the mean of all runs.
    pub dearer_share: f64,
    /// Payments whose requestedAt was older than a second when they were processed; the mean of all runs.
    pub risk: f64,
    /// The same of the payments that were in no doubt.
    pub others_regret: Spread,
    /// Payments of which an attempt had no answer.
    pub in_doubt: u64,
    /// How long, of those that were in no doubt, the one that waited longest did, s.
    pub waited_s: Spread,
    /// How many runs.
    pub run_count: usize,
}

impl Summary {
    /// Of this policy's runs among these.
    #[must_use]
    pub fn of(policy: PolicyKind, runs: &[&Run]) -> Self {
        let runs: Vec<&Run> = runs.iter().copied().filter(|run| run.policy == policy).collect();
        let spread = |figure: fn(&Run) -> f64| Spread::of(runs.iter().map(|run| figure(run) * 100.0));
        let count = |which: fn(&Run) -> bool| runs.iter().filter(|run| which(run)).count();
        Self {
            policy,
            regret: spread(Run::regret),
            audit_regret: spread(Run::audit_regret),
            inconsistencies: (
                runs.iter().map(|run| run.inconsistencies).sum(),
                count(|run| run.inconsistencies > 0),
            ),
            lag: (runs.iter().map(|run| run.lag()).sum(), count(|run| run.lag() != 0)),
            doubles: runs.iter().map(|run| run.doubles).sum(),
            dearer_share: spread(Run::dearer_share).mean,
            risk: spread(Run::risk).mean,
            others_regret: spread(Run::others_regret),
            in_doubt: runs.iter().map(|run| run.in_doubt).sum(),
            waited_s: Spread::of(runs.iter().map(|run| run.waited_s())),
            run_count: runs.len(),
        }
    }
}
