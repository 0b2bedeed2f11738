//! Every order of the steps of claims, accepts, turns and closings, as far as three preemptions go.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --profile fast -p galo-admission --test loom`

#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use galo_admission::{Claimed, Claimer, Geometry, Grant, Heap, Identity, Registrar, Reserved, Table};
use galo_wire::{CorrelationId, Processor, Reason, Stage};
use loom::thread;

const GEOMETRY: Geometry = Geometry { known_buckets_log2: 0, claims_buckets_log2: 0, ring_log2: 1 };

fn table() -> Table {
    let identity = Identity { region: 1, key: [3, 4] };
    Table::create(Heap::shared(GEOMETRY.words_len()), GEOMETRY, identity)
}

fn grant(number: u8) -> Grant {
    Grant {
        correlation_id: CorrelationId([number; 16]),
        amount_cents: 1_990,
        decided_at_ms: 7,
        stage: Stage::at(Processor::DEFAULT),
        reason: Reason::Cheaper,
    }
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 100_000;
    builder.check(model);
}

fn opened(registrar: &mut Registrar, ring: usize) -> Claimer {
    let opened = registrar.open(ring);
    registrar.promise(ring, 2);
    Claimer::new(registrar.table().clone(), opened)
}

/// Takes in what a ring has published, as the coordinator does.
fn take(registrar: &mut Registrar, ring: usize) -> u64 {
    let mut taken = 0;
    while let Some(published) = registrar.published(ring).unwrap() {
        registrar.remember(published.grant.correlation_id, Some(published.grant.amount_cents));
        registrar.took(ring, 10);
        taken += 1;
    }
    taken
}

#[test]
fn one_of_two_gateways_at_most_is_granted_an_id() {
    check(|| {
        let mut registrar = Registrar::new(table());
        let [mut first, mut second] = [0, 1].map(|ring| opened(&mut registrar, ring));
        let other = thread::spawn(move || second.claim(&grant(1)));
        let here = first.claim(&grant(1));
        let there = other.join().unwrap();
        assert!(
            (here, there) != (Claimed::Granted, Claimed::Granted),
            "one id was granted twice: {here:?}, {there:?}"
        );
        let published = take(&mut registrar, 0) + take(&mut registrar, 1);
        let granted = [here, there].iter().filter(|it| **it == Claimed::Granted).count();
        assert_eq!(published, granted as u64, "what was granted is published, and nothing else");
    });
}

#[test]
fn an_accept_and_a_claim_of_one_id_are_not_both_granted() {
    check(|| {
        let mut registrar = Registrar::new(table());
        let mut claimer = opened(&mut registrar, 0);
        let gateway = thread::spawn(move || claimer.claim(&grant(1)));
        // As the coordinator accepts what the ledger lacks.
        registrar.remember(grant(1).correlation_id, Some(1_990));
        let accepted = registrar.reserve(grant(1).correlation_id) == Reserved::Free;
        let claimed = gateway.join().unwrap();
        assert_eq!(accepted, claimed != Claimed::Granted, "accepted by socket, and {claimed:?}");
        assert_eq!(take(&mut registrar, 0), u64::from(!accepted));
    });
}

#[test]
fn an_id_stays_known_while_it_moves_from_the_claims_to_the_ledger() {
    check(|| {
        let mut registrar = Registrar::new(table());
        let [mut first, mut second] = [0, 1].map(|ring| opened(&mut registrar, ring));
        assert_eq!(first.claim(&grant(1)), Claimed::Granted);
        let gateway = thread::spawn(move || second.claim(&grant(1)));
        assert_eq!(take(&mut registrar, 0), 1);
        registrar.written(11);
        let claimed = gateway.join().unwrap();
        assert_ne!(claimed, Claimed::Granted, "it was granted before");
        assert_eq!(take(&mut registrar, 1), 0);
    });
}

#[test]
fn a_claim_that_meets_a_grant_and_its_turn_does_not_miss_both() {
    check(|| {
        let mut registrar = Registrar::new(table());
        let [mut first, mut second] = [0, 1].map(|ring| opened(&mut registrar, ring));
        let gateway = thread::spawn(move || second.claim(&grant(1)));
        let here = first.claim(&grant(1));
        let taken = take(&mut registrar, 0);
        registrar.written(11);
        let there = gateway.join().unwrap();
        assert!((here, there) != (Claimed::Granted, Claimed::Granted), "one id was granted twice");
        assert_eq!(taken, u64::from(here == Claimed::Granted));
    });
}

#[test]
fn nothing_is_granted_behind_the_closing_of_a_ring() {
    check(|| {
        let mut registrar = Registrar::new(table());
        let mut claimer = opened(&mut registrar, 0);
        let gateway = thread::spawn(move || (claimer.claim(&grant(1)), claimer.claim(&grant(2))));
        registrar.close(0);
        let taken = take(&mut registrar, 0);
        let (first, second) = gateway.join().unwrap();
        let granted = [first, second].iter().filter(|it| **it == Claimed::Granted).count();
        assert_eq!(granted as u64, taken, "what was granted is found at the closing");
        assert_eq!(take(&mut registrar, 0), 0);
    });
}
