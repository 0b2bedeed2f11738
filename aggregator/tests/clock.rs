//! What only time brings comes when it is due, although nothing else wakes the process: no lease is given for an hour here.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Folder, NOON_MS, id};
use galo_wire::Message;
use galo_wire::record::Admission;

const NO_LEASE: &[(&str, &str)] = &[("HEALTH_INTERVAL_MS", "3600000")];

#[test]
fn a_summary_does_not_wait_for_a_gateway_that_stands_still() {
    let folder = Folder::new("clock-summary");
    let aggregator = folder.start(NO_LEASE);
    let mut asks = folder.connect(1);
    // It is sent the question and never answers.
    let silent = folder.connect(2);
    asks.summary(0, NOON_MS);
    assert!(folder.metric("galo_unconfirmed_summaries_total") > 0.0, "the other one was waited for");
    drop(silent);
    aggregator.kill();
}

#[test]
fn a_payment_without_an_owner_goes_to_whoever_is_there_once_claims_have_had_their_time() {
    let folder = Folder::new("clock-orphans");
    let aggregator = folder.start(NO_LEASE);
    assert_eq!(folder.connect(1).accept(id(1), 1_990), Admission::Granted);
    aggregator.kill();
    let aggregator = folder.start(NO_LEASE);
    let mut other = folder.connect(2);
    other.ready();
    other.flush().unwrap();
    let assigned = other.wait(|message| match message {
        Message::Assignment(assignment) => Some(assignment.correlation_id),
        _ => None,
    });
    assert_eq!(assigned, Some(id(1)));
    aggregator.kill();
}
