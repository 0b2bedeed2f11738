//! What passed and what did not: one line for each failing case, one for each group, the sum at the end.

use std::time::Instant;

/// Counts cases, group by group.
#[derive(Debug)]
pub(crate) struct Tally {
    only: Option<String>,
    is_strict: bool,
    passed: usize,
    failed: usize,
    group: String,
    group_passed: usize,
    group_failed: usize,
    group_started: Instant,
}

impl Tally {
    /// A tally that skips groups whose name does not contain `only`; a strict one takes what is left out for a failure.
    pub(crate) fn new(only: Option<String>, is_strict: bool) -> Self {
        Self {
            only,
            is_strict,
            passed: 0,
            failed: 0,
            group: String::new(),
            group_passed: 0,
            group_failed: 0,
            group_started: Instant::now(),
        }
    }

    /// Whether this group is wanted.
    pub(crate) fn wants(&self, group: &str) -> bool {
        self.only.as_deref().is_none_or(|only| group.contains(only))
    }

    /// Begins a group of cases; says whether it is wanted.
    pub(crate) fn begin(&mut self, group: &str) -> bool {
        self.end_group();
        group.clone_into(&mut self.group);
        (self.group_passed, self.group_failed) = (0, 0);
        self.group_started = Instant::now();
        self.wants(group)
    }

    /// One case.
    pub(crate) fn case(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                self.group_passed += 1;
            }
            Err(reason) => {
                self.failed += 1;
                self.group_failed += 1;
                println!("FAIL {}: {name}: {}", self.group, reason.replace('\n', " "));
            }
        }
    }

    /// One case whose figures are reported where it passes, too.
    pub(crate) fn figures(&mut self, name: &str, result: Result<String, String>) {
        if let Ok(figures) = &result {
            println!("PASS {}: {name}: {figures}", self.group);
        }
        self.case(name, result.map(drop));
    }

    /// The group's cases cannot be tried on this machine.
    pub(crate) fn leave_out(&mut self, reason: &str) {
        if self.is_strict {
            self.case("all of it", Err(format!("left out: {reason}")));
        } else {
            self.note(&format!("left out: {reason}"));
        }
    }

    /// A figure that is reported and not judged.
    pub(crate) fn note(&self, text: &str) {
        println!("     {}: {text}", self.group);
    }

    fn end_group(&mut self) {
        let count = self.group_passed + self.group_failed;
        if count > 0 {
            let verdict = if self.group_failed == 0 { "ok  " } else { "FAIL" };
            let took = self.group_started.elapsed();
            println!("{verdict} {}: {} of {count} cases, {took:.1?}", self.group, self.group_passed);
        }
    }

    /// The closing line; says whether nothing failed and something passed.
    pub(crate) fn finish(mut self) -> bool {
        self.end_group();
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0 && self.passed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_cases_or_with_a_failure_is_no_success() {
        assert!(!Tally::new(None, false).finish());
        let mut tally = Tally::new(None, false);
        assert!(tally.begin("group"));
        tally.case("one", Ok(()));
        tally.case("two", Err("why".to_owned()));
        assert!(!tally.finish());
    }

    #[test]
    fn what_is_left_out_fails_a_strict_run() {
        for is_strict in [false, true] {
            let mut tally = Tally::new(None, is_strict);
            assert!(tally.begin("group"));
            tally.case("one", Ok(()));
            tally.leave_out("not here");
            assert_eq!(tally.finish(), !is_strict);
        }
    }

    #[test]
    fn groups_are_chosen_by_a_part_of_their_name() {
        let mut tally = Tally::new(Some("smug".to_owned()), false);
        assert!(tally.begin("smuggling"));
        assert!(!tally.begin("queries"));
    }
}
