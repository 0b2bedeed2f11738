//! Some seeds, and a few planted bugs, in seconds. `simulate` runs the thousands.

use super::{Bug, Invariant, Options, run};

#[test]
fn seeds_pass_and_every_check_runs() {
    let mut counts = [0; Invariant::COUNT];
    for seed in 0..200 {
        let report = run(seed, Options::default());
        assert!(report.checks.failure.is_none(), "seed {seed}: {:?}", report.checks.failure);
        counts.iter_mut().zip(report.checks.counts).for_each(|(sum, count)| *sum += count);
    }
    for invariant in Invariant::ALL {
        let by_panic = *invariant == Invariant::EngineAssertion;
        assert!(by_panic || counts[*invariant as usize] > 0, "{} was never checked", invariant.name());
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..5 {
        let [first, second] = [(); 2].map(|()| run(seed, Options::default()));
        assert_eq!(first.coverage.list(), second.coverage.list());
        assert_eq!(first.checks.counts, second.checks.counts);
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in [
        Bug::TimeoutIsRefused,
        Bug::AnswersBeforeWrite,
        Bug::RetrySwitches,
        Bug::HandOverForgotten,
        Bug::ClockIsStale,
        Bug::RetentionMisstated,
        Bug::ResolutionHidden,
        Bug::CheckTwice,
        Bug::NotificationBelieved,
        Bug::NotificationDropped,
        Bug::RateUnshared,
        Bug::LookupRepeats,
    ] {
        let options = Options { bug: Some(bug), trace: false };
        let found = (0..200).any(|seed| run(seed, options).checks.failure.is_some());
        assert!(found, "{} is not found", bug.name());
    }
}
