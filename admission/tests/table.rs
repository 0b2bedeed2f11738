//! The table's states and crash points, one test each.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use galo_admission::{
    Claimed, Claimer, Geometry, Grant, Heap, Identity, Memory, RINGS_LEN_MAX, Refused, Registrar, Reserved,
    Step, Table,
};
use galo_wire::{CorrelationId, Processor, Reason, Stage};

const IDENTITY: Identity = Identity { region: 1, key: [3, 4] };
const GEOMETRY: Geometry = Geometry { known_buckets_log2: 6, claims_buckets_log2: 4, ring_log2: 4 };

fn grant(number: u64) -> Grant {
    Grant {
        correlation_id: CorrelationId(u128::from(number).to_le_bytes()),
        amount_cents: 1_990,
        decided_at_ms: 7,
        stage: Stage::at(Processor::FALLBACK),
        reason: Reason::Cheaper,
    }
}

/// An aggregator with two gateways.
struct Host {
    registrar: Registrar,
    gateways: [Claimer; 2],
    journal_sequence: u64,
}

impl Host {
    fn new() -> Self {
        let table = Table::create(Heap::shared(GEOMETRY.words_len()), GEOMETRY, IDENTITY);
        let mut registrar = Registrar::new(table.clone());
        let gateways = [0, 1].map(|ring| {
            let opened = registrar.open(ring);
            registrar.promise(ring, 16);
            Claimer::new(table.clone(), opened)
        });
        Self { registrar, gateways, journal_sequence: 1 }
    }

    fn claim(&mut self, gateway: usize, number: u64) -> Claimed {
        self.gateways[gateway].claim(&grant(number))
    }

    /// Takes in what there is; it is not written yet.
    fn take(&mut self) -> Vec<Grant> {
        let mut taken = Vec::new();
        for ring in 0..RINGS_LEN_MAX {
            while let Some(published) = self.registrar.published(ring).unwrap() {
                self.registrar.remember(published.grant.correlation_id, Some(published.grant.amount_cents));
                self.registrar.took(ring, self.journal_sequence);
                self.journal_sequence += 1;
                taken.push(published.grant);
            }
        }
        taken
    }

    fn write(&mut self) {
        self.registrar.written(self.journal_sequence);
        (0..2).for_each(|ring| self.registrar.promise(ring, 16));
    }
}

#[test]
fn an_id_is_granted_once_and_its_replays_are_told_from_conflicts() {
    let mut host = Host::new();
    assert_eq!(host.claim(0, 1), Claimed::Granted);
    for gateway in [0, 1] {
        assert_eq!(host.claim(gateway, 1), Claimed::Replayed);
        let other = Grant { amount_cents: 5, ..grant(1) };
        assert_eq!(host.gateways[gateway].claim(&other), Claimed::Conflict);
    }
    assert_eq!(host.take(), [grant(1)]);
    // In the ledger, and in the journal: the aggregator knows more of it.
    for _ in 0..2 {
        for gateway in [0, 1] {
            assert_eq!(host.claim(gateway, 1), Claimed::LikelyReplayed);
            let other = Grant { amount_cents: 5, ..grant(1) };
            assert_eq!(host.gateways[gateway].claim(&other), Claimed::Unclear);
        }
        host.write();
    }
    host.registrar.forget(grant(1).correlation_id, 1_990);
    assert_eq!(host.claim(1, 1), Claimed::Granted, "what the ledger has forgotten is new");
}

#[test]
fn a_ring_goes_round_and_grants_no_more_than_was_promised() {
    let mut host = Host::new();
    let mut number = 0;
    for _ in 0..10 {
        let mut granted = 0;
        while host.claim(0, number) == Claimed::Granted {
            (number, granted) = (number + 1, granted + 1);
        }
        assert!(granted > 0 && granted <= 16, "{granted}");
        assert_eq!(host.gateways[0].credit(), 0);
        assert_eq!(host.take().len(), granted);
        // Taken and not written: a process that dies now has them nowhere else.
        (0..2).for_each(|ring| host.registrar.promise(ring, 16));
        assert_eq!(host.claim(0, number), Claimed::Unclear);
        host.write();
    }
}

#[test]
fn a_gateway_that_dies_behind_any_step_leaves_what_it_published_and_nothing_else() {
    for last in Step::ALL {
        let mut host = Host::new();
        host.gateways[0].claim_until(&grant(1), last);
        // Somebody has it, or nobody can say: never two.
        let meanwhile = host.claim(1, 1);
        let expected = match last {
            Step::Filled => Claimed::Granted,
            Step::Placed | Step::Looked => Claimed::Unclear,
            Step::Published => Claimed::Replayed,
        };
        assert_eq!(meanwhile, expected, "{last:?}");
        host.registrar.close(0);
        assert_eq!(host.take().len(), usize::from(meanwhile != Claimed::Unclear), "{last:?}");
        host.write();
        assert!(host.registrar.clear_away(0), "{last:?}");
        // Whoever has the ring next goes on behind it.
        let ring = host.registrar.open(0);
        host.registrar.promise(0, 16);
        let mut next = Claimer::new(host.registrar.table().clone(), ring);
        let expected = if meanwhile == Claimed::Unclear { Claimed::Granted } else { Claimed::LikelyReplayed };
        assert_eq!(next.claim(&grant(1)), expected, "{last:?}: a claim that nobody ends keeps nobody out");
        assert_eq!(next.claim(&grant(2)), Claimed::Granted);
    }
}

#[test]
fn an_owner_that_stood_still_while_its_ring_was_closed_publishes_nothing() {
    for last in [Step::Filled, Step::Placed, Step::Looked] {
        let mut host = Host::new();
        host.gateways[0].claim_until(&grant(1), last);
        host.registrar.close(0);
        assert_eq!(host.take(), []);
        assert_eq!(host.claim(1, 1), Claimed::Granted, "{last:?}");
        // It goes on.
        host.gateways[0].give_up(&grant(1));
        assert_eq!(host.claim(0, 2), Claimed::Unclear);
        let ring = host.registrar.open(0);
        assert_eq!(host.gateways[0].credit(), 0, "its places went to others");
        host.registrar.promise(0, 16);
        host.gateways[0].reopened(ring);
        assert_eq!(host.claim(0, 2), Claimed::Granted);
        assert_eq!(host.take(), [grant(2), grant(1)], "ring by ring");
    }
}

#[test]
fn an_accept_by_socket_ends_a_claim_that_is_not_published_and_finds_one_that_is() {
    for last in Step::ALL {
        let mut host = Host::new();
        host.gateways[0].claim_until(&grant(1), last);
        host.registrar.remember(grant(1).correlation_id, Some(1_990));
        let reserved = host.registrar.reserve(grant(1).correlation_id);
        let expected = if last == Step::Published { Reserved::Granted } else { Reserved::Free };
        assert_eq!(reserved, expected, "{last:?}");
        assert_ne!(host.claim(1, 1), Claimed::Granted, "{last:?}: it is the accept's");
        if last != Step::Published {
            host.gateways[0].give_up(&grant(1));
            assert_eq!(host.claim(0, 2), Claimed::Granted);
        }
    }
}

#[test]
fn an_aggregator_that_dies_between_taking_and_writing_finds_out_which_it_is() {
    let mut host = Host::new();
    assert_eq!(host.claim(0, 1), Claimed::Granted);
    assert_eq!(host.take(), [grant(1)]);
    assert_eq!(host.claim(0, 2), Claimed::Granted);
    let mut next = Registrar::new(host.registrar.table().clone());
    let published = next.published(0).unwrap().unwrap();
    assert_eq!((published.grant, published.journaled_as), (grant(1), Some(1)));
    next.took(0, 1);
    let published = next.published(0).unwrap().unwrap();
    assert_eq!((published.grant, published.journaled_as), (grant(2), None));
}

#[test]
fn an_owner_that_begins_anew_begins_behind_all_that_was_seen() {
    let mut host = Host::new();
    assert_eq!(host.claim(0, 1), Claimed::Granted);
    assert_eq!(host.take(), [grant(1)]);
    // Seen, and not written: its process gave the table up and takes it up again.
    host.registrar.close(0);
    let ring = host.registrar.open(0);
    host.registrar.promise(0, 16);
    host.gateways[0] = Claimer::new(host.registrar.table().clone(), ring);
    assert_eq!(host.claim(0, 2), Claimed::Granted);
    assert_eq!(host.take(), [grant(2)]);
}

#[test]
fn the_known_ids_become_those_of_the_ledger() {
    let mut host = Host::new();
    for number in 0..100 {
        host.registrar.remember(grant(number).correlation_id, Some(1_990));
    }
    let ids = (50..150).map(|number| (grant(number).correlation_id, (number % 2 == 0).then_some(1_990)));
    host.registrar.remember_exactly(ids.clone());
    host.registrar.remember_exactly(ids);
    for number in 0..150 {
        let expected = match number {
            0..50 => Claimed::Granted,
            _ if number % 2 == 0 => Claimed::LikelyReplayed,
            _ => Claimed::Unclear,
        };
        assert_eq!(host.claim(0, number), expected, "{number}");
        host.take();
        host.write();
    }
}

#[test]
fn ids_that_find_no_room_are_the_aggregators() {
    let mut host = Host::new();
    // 512 words for 2,000 ids.
    for number in 0..2_000 {
        host.registrar.remember(grant(number).correlation_id, Some(1_990));
    }
    assert!(host.registrar.full_count() > 1_000);
    for number in 0..2_000 {
        assert_ne!(host.claim(0, number), Claimed::Granted, "{number}");
    }
    host.registrar.purge();
    assert_eq!(host.claim(0, 1), Claimed::Granted);
}

#[test]
fn a_full_bucket_of_claims_is_no_grant() {
    let geometry = Geometry { claims_buckets_log2: 0, ..GEOMETRY };
    let table = Table::create(Heap::shared(geometry.words_len()), geometry, IDENTITY);
    let mut registrar = Registrar::new(table.clone());
    let ring = registrar.open(0);
    registrar.promise(0, 16);
    let mut claimer = Claimer::new(table, ring);
    let granted = (0..12).filter(|number| claimer.claim(&grant(*number)) == Claimed::Granted).count();
    assert_eq!(granted, 8);
}

#[test]
fn a_damaged_table_is_refused_and_a_damaged_grant_is_named() {
    let memory: Arc<Heap> = Arc::new(Heap::new(GEOMETRY.words_len()));
    let open = || Table::open(Arc::clone(&memory) as Arc<dyn Memory>).map(|table| table.identity());
    let flip = |word: usize, bit: u64| {
        memory.words()[word].fetch_xor(bit, std::sync::atomic::Ordering::SeqCst);
    };
    assert_eq!(open(), Err(Refused::Empty));
    let table = Table::create(Arc::clone(&memory) as Arc<dyn Memory>, GEOMETRY, IDENTITY);
    assert_eq!(open(), Ok(IDENTITY));
    for word in 0..7 {
        flip(word, 1 << 9);
        assert!(open().is_err(), "word {word}");
        flip(word, 1 << 9);
    }
    let short: Arc<Heap> = Arc::new(Heap::new(GEOMETRY.words_len() - 8));
    for (place, word) in short.words().iter().zip(memory.words()) {
        place.store(word.load(std::sync::atomic::Ordering::SeqCst), std::sync::atomic::Ordering::SeqCst);
    }
    let refused = Table::open(short).map(|_| ()).unwrap_err();
    assert_eq!(refused.to_string(), "3576 words, expected 3584");

    let mut registrar = Registrar::new(table.clone());
    let ring = registrar.open(0);
    registrar.promise(0, 16);
    let mut claimer = Claimer::new(table, ring);
    let before: Vec<u64> =
        memory.words().iter().map(|it| it.load(std::sync::atomic::Ordering::SeqCst)).collect();
    assert_eq!(claimer.claim(&grant(1)), Claimed::Granted);
    let changed = (0..before.len())
        .filter(|word| memory.words()[*word].load(std::sync::atomic::Ordering::SeqCst) != before[*word]);
    // A cell, a state, and what it says: the upper half of the id is 0 here.
    let changed: Vec<usize> = changed.collect();
    assert_eq!(changed.len(), 7, "{changed:?}");
    for word in &changed[2..] {
        flip(*word, 1 << 13);
        let error = registrar.published(0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ring 0, entry 0: its checksum is not that of its words",
            "word {word}"
        );
        flip(*word, 1 << 13);
    }
    assert_eq!(registrar.published(0).unwrap().unwrap().grant, grant(1));
}

/// Two threads that claim the same ids, and an aggregator that accepts some of them by socket, takes and forgets.
#[test]
fn real_threads_grant_each_id_once() {
    const IDS: u64 = 200_000;
    let place_of = |number: u64| usize::try_from(number).unwrap();
    let geometry = Geometry { known_buckets_log2: 16, claims_buckets_log2: 10, ring_log2: 10 };
    let table = Table::create(Heap::shared(geometry.words_len()), geometry, IDENTITY);
    let mut registrar = Registrar::new(table.clone());
    let rings = [0, 1].map(|ring| {
        let opened = registrar.open(ring);
        registrar.promise(ring, 1_024);
        opened
    });
    let gateways = rings.map(|ring| {
        let table = table.clone();
        std::thread::spawn(move || {
            let mut claimer = Claimer::new(table, ring);
            (0..IDS).filter(|number| claimer.claim(&grant(*number)) == Claimed::Granted).collect::<Vec<_>>()
        })
    });
    let mut granted = vec![0_u8; place_of(IDS)];
    let mut journal_sequence = 1;
    let mut take = |registrar: &mut Registrar, granted: &mut Vec<u8>| {
        for ring in 0..2 {
            while let Some(published) = registrar.published(ring).unwrap() {
                let id = published.grant.correlation_id;
                registrar.remember(id, Some(1_990));
                registrar.took(ring, journal_sequence);
                journal_sequence += 1;
                granted[usize::try_from(u128::from_le_bytes(id.0)).unwrap()] += 1;
            }
        }
        registrar.written(journal_sequence);
        (0..2).for_each(|ring| registrar.promise(ring, 1_024));
    };
    let mut accepted = 0_u64;
    let mut next = 0;
    while !gateways.iter().all(|it| it.is_finished()) {
        take(&mut registrar, &mut granted);
        next = (next + 17) % IDS;
        if granted[place_of(next)] == 0 {
            let id = grant(next).correlation_id;
            registrar.remember(id, Some(1_990));
            match registrar.reserve(id) {
                Reserved::Free => {
                    granted[place_of(next)] += 1;
                    accepted += 1;
                }
                Reserved::Granted => registrar.forget(id, 1_990),
            }
        }
    }
    take(&mut registrar, &mut granted);
    let by_gateways: u64 = gateways.into_iter().map(|it| it.join().unwrap().len() as u64).sum();
    assert!(granted.iter().all(|count| *count <= 1), "an id was granted twice");
    assert_eq!(granted.iter().map(|count| u64::from(*count)).sum::<u64>(), by_gateways + accepted);
    assert!(
        by_gateways > 1_000 && accepted > 0,
        "{by_gateways} by the gateways, {accepted} by the aggregator"
    );
}

/// An aggregator that starts sets right what another one has left, while gateways go on claiming.
#[test]
fn no_id_of_the_ledger_is_unknown_for_a_moment_while_the_known_ids_are_set_right() {
    let geometry = Geometry { known_buckets_log2: 9, claims_buckets_log2: 4, ring_log2: 4 };
    let table = Table::create(Heap::shared(geometry.words_len()), geometry, IDENTITY);
    let mut registrar = Registrar::new(table.clone());
    let ring = registrar.open(0);
    registrar.promise(0, 16);
    let ids = |amount: Option<u64>| (0..2_000).map(move |number| (grant(number).correlation_id, amount));
    registrar.remember_exactly(ids(None));
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let gateway = std::thread::spawn(move || {
        let mut claimer = Claimer::new(table, ring);
        let mut claims = 0_u64;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            assert_ne!(claimer.claim(&grant(claims % 2_000)), Claimed::Granted);
            claims += 1;
        }
        claims
    });
    for round in 0..200 {
        registrar.remember_exactly(ids((round % 2 == 0).then_some(1_990)));
    }
    stop.send(()).unwrap();
    assert!(gateway.join().unwrap() > 1_000);
    assert_eq!(registrar.full_count(), 0);
}
